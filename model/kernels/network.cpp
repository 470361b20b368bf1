// A whole plain network in one call: energies of atoms, and their gradient by the edge vectors.
//
// Forth: geometry of the edges, layer after layer, readouts. Back: the same in reverse, from a
// gradient by the energies and by the invariant features. Members that see the same vectors share the
// geometry, heads of one trunk everything but their readouts. Sums over neighbours, products and
// geometry are those of the other kernels; what lies between them are matrix products of a few
// rows, where calls of operators would cost more than the arithmetic. Energies are doubles. Threads
// share the structures of a batch, which have nothing in common: no thread ever waits for another
// before the end, and numbers do not depend on how many there are. Compiled by library.py, called by
// network.py.

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "network_layer.h"

namespace {
namespace network {

constexpr double GATE_RATE = 10.0;  // as in model/head.py

template <class T> T dot(const T* a, const T* b, int64_t width) {
    Vec<T> sum{};
    for (int64_t c = 0; c < width; c += LANES<T>) sum += load<T, true>(a + c, 0) * load<T, true>(b + c, 0);
    return edge_sums::lane_sum<T>(sum);
}

template <class Body> void over_atoms(const Ranges& atoms, Body&& body) {
    for (const Range& range : atoms)
        for (int64_t i = range.begin; i < range.end; ++i) body(i);
}

// Calls body(atom, slot, edge vector's place).
template <class Body> void over_edges(const Call& call, const Ranges& atoms, Body&& body) {
    over_atoms(atoms, [&](int64_t i) {
        for (int64_t row = call.first[i]; row < call.last[i]; ++row)
            body(i, row, 3 * call.edge_of_slot[row]);
    });
}

template <class T>
void measure(const Call& call, const Ranges& atoms, const T* vectors, const Measured<T>& to) {
    const geometry::Constants& constants = call.model->edges;
    const int64_t dim = components(constants.degree);
    geometry::Monomials monomials{constants, {}};
    over_atoms(atoms, [&](int64_t i) { to.coordination[i] = to.repulsion[i] = 0.0; });
    over_edges(call, atoms, [&](int64_t i, int64_t row, int64_t place) {
        const geometry::Edge e(constants, vectors + place, call.species[i], call.sender_species[row]);
        monomials.fill(e.unit);
        to.edges[row] = e;
        to.distances[row] = T(e.r);
        monomials.harmonics(to.harmonics + row * dim);
        to.coordination[i] += e.cutoff.value;
        to.repulsion[i] += e.repulsion.value;
    });
}

// A gradient on its way to the edges: by harmonics and distances of the slots, by the sums of cutoff
// functions of the atoms, and by their repulsion.
template <class T> struct ByEdges {
    PerAtom<T> harmonics, distances;
    PerAtom<double> coordination, repulsion;

    ByEdges(const Call& call, const Ranges& atoms)
        : harmonics(call, atoms, call.slots * components(call.model->edges.degree)),
          distances(call, atoms, call.slots), coordination(call, atoms, 1), repulsion(call, atoms, 1) {}
};

// Adds to the gradients by one set of vectors, from those on their way to its edges.
template <class T>
void measure_back(const Call& call, const Ranges& atoms, const Measured<T>& edges,
                  const std::vector<ByEdges<T>>& gradients, T* by_vectors) {
    const int64_t dim = components(call.model->edges.degree);
    geometry::Monomials monomials{call.model->edges, {}};
    over_edges(call, atoms, [&](int64_t i, int64_t row, int64_t place) {
        const geometry::Edge& e = edges.edges[row];
        monomials.fill(e.unit);
        T* to = by_vectors + place;
        for (const ByEdges<T>& by : gradients) {
            const double radial = double(by.distances.data()[row]) +
                                  by.coordination.data()[i] * e.cutoff.slope +
                                  by.repulsion.data()[i] * e.repulsion.slope;
            geometry::add_gradient(monomials, e, by.harmonics.data() + row * dim, radial, to);
            to += 3 * call.edges;
        }
    });
}

// One trunk and its heads, for some of the atoms.
template <class T> class Trunk {
    const Call& call;
    const Ranges& atoms;
    const Model& model;
    const int64_t place, own;  // among the trunks of the call, and of the model
    const Measured<T>& edges;
    const Kept<T>& kept;

  public:
    Trunk(const Call& call, const Ranges& atoms, const Measured<T>& edges, const Kept<T>& kept,
          int64_t place)
        : call(call), atoms(atoms), model(*call.model), place(place), own(call.first_trunk + place),
          edges(edges), kept(kept) {}

    void forward() {
        for (int64_t k = 0; k < model.num_layers; ++k) Pass<T>(call, atoms, edges, kept, k, own).forward();
        for (int64_t h = 0; h < model.num_heads; ++h) read(h);
        describe();
    }

    // Adds one gradient for each head, or one for all of them.
    void backward(std::vector<ByEdges<T>>& to) {
        const int64_t together = call.separate ? 1 : model.num_heads;
        for (int64_t h = 0; h < model.num_heads; h += together) {
            to.emplace_back(call, atoms);
            backward(h, h + together, to.back());
        }
    }

  private:
    int64_t features_width(int64_t k) const {
        return components(model.layers[k].degree_out) * model.layers[k].width;
    }

    int64_t member(int64_t h) const { return own * model.num_heads + h; }

    const T* head_numbers(int64_t h) const { return static_cast<const T*>(model.members[member(h)]); }

    const double* constants(int64_t h) const { return model.head[member(h)]; }

    // What the atoms of a range have first among their numbers, `each` of them.
    template <class U> static Rows<U> scalar_rows(U* start, const Range& range, int64_t each) {
        return {start + range.begin * each, range.end - range.begin, 1, each, 0};
    }

    // Site energies of a head.
    void read(int64_t h) {
        const int64_t last = model.num_layers - 1, width = model.hidden_width;
        const Layer& top = model.layers[last];
        const T *numbers = head_numbers(h), *scalars = kept.layers[last].features;
        const double *e0 = constants(h), *scale = e0 + model.num_species;
        const double* shift = scale + model.num_species;
        T* hidden = kept.hidden + h * call.atoms * width;
        for (const Range& range : atoms)
            multiply<T>(
                scalar_rows(scalars, range, features_width(last)), scalar_rows(hidden, range, width),
                numbers + model.hidden_at, top.width, width, false);
        double* energy = call.energy + (place * model.num_heads + h) * call.atoms;
        over_atoms(atoms, [&](int64_t i) {
            T sum = 0;
            for (int64_t c = 0; c < width; ++c) {
                const T x = hidden[i * width + c];
                sum += x / (T(1) + std::exp(-x)) * numbers[model.out_at + c];
            }
            for (int64_t k = 0; k < last; ++k)
                sum += dot(kept.layers[k].features + i * features_width(k),
                           numbers + model.layers[k].readout_at, model.layers[k].width);
            kept.readout[h * call.atoms + i] = double(sum);
            const int64_t z = call.species[i];
            const double gate = -std::expm1(-GATE_RATE * edges.coordination[i]);
            energy[i] = edges.repulsion[i] + e0[z] + gate * (scale[z] * double(sum) + shift[z]);
        });
    }

    int64_t described() const {
        int64_t total = 0;
        for (int64_t k = 0; k < model.num_layers; ++k) total += model.layers[k].channels;
        return total;
    }

    void describe() {
        over_atoms(atoms, [&](int64_t i) {
            T* to = static_cast<T*>(call.descriptors) + (place * call.atoms + i) * described();
            for (int64_t k = 0; k < model.num_layers; to += model.layers[k].channels, ++k)
                std::memcpy(to, kept.layers[k].features + i * features_width(k),
                            model.layers[k].channels * sizeof(T));
        });
    }

    // The gradient of heads first to last, with that of the descriptors.
    void backward(int64_t first, int64_t last, ByEdges<T>& to) {
        const int64_t layers = model.num_layers;
        std::vector<PerAtom<T>> by_features;
        for (int64_t k = 0; k < layers; ++k) by_features.emplace_back(call, atoms, features_width(k));
        for (int64_t h = first; h < last; ++h) read_back(h, by_features, to);
        describe_back(by_features);
        for (int64_t k = layers - 1; k >= 0; --k) {
            const Layer& layer = model.layers[k];
            const PerAtom<T> by_sent(call, atoms, k ? components(layer.degree_in) * layer.width : 0);
            Pass<T>(call, atoms, edges, kept, k, own)
                .backward(by_features[k].data(), k ? by_features[k - 1].data() : nullptr,
                          k ? by_sent.data() : nullptr, to.harmonics.data(), to.distances.data());
        }
    }

    void read_back(int64_t h, const std::vector<PerAtom<T>>& by_features, const ByEdges<T>& to) {
        if (!call.by_energy) return;
        const int64_t last = model.num_layers - 1, width = model.hidden_width;
        const T *numbers = head_numbers(h), *hidden = kept.hidden + h * call.atoms * width;
        const double *scale = constants(h) + model.num_species, *shift = scale + model.num_species;
        const double* by_energy = call.by_energy + (place * model.num_heads + h) * call.atoms;
        const PerAtom<T> by_hidden(call, atoms, width);
        over_atoms(atoms, [&](int64_t i) {
            const int64_t z = call.species[i];
            const double closed = std::exp(-GATE_RATE * edges.coordination[i]);
            const double gate = -std::expm1(-GATE_RATE * edges.coordination[i]);
            const T by_readout = T(by_energy[i] * gate * scale[z]);
            for (int64_t c = 0; c < width; ++c) {
                const T x = hidden[i * width + c], s = T(1) / (T(1) + std::exp(-x));
                by_hidden.data()[i * width + c] =
                    by_readout * numbers[model.out_at + c] * s * (T(1) + x * (T(1) - s));
            }
            for (int64_t k = 0; k < last; ++k) {
                T* features = by_features[k].data() + i * features_width(k);
                for (int64_t c = 0; c < model.layers[k].width; ++c)
                    features[c] += by_readout * numbers[model.layers[k].readout_at + c];
            }
            const double site = scale[z] * kept.readout[h * call.atoms + i] + shift[z];
            to.coordination.data()[i] += by_energy[i] * GATE_RATE * closed * site;
            to.repulsion.data()[i] += by_energy[i];
        });
        const T* from = by_hidden.data();
        for (const Range& range : atoms)
            multiply<T>(scalar_rows(from, range, width),
                        scalar_rows(by_features[last].data(), range, features_width(last)),
                        numbers + model.hidden_back_at, width, model.layers[last].width, true);
    }

    void describe_back(const std::vector<PerAtom<T>>& by_features) {
        if (!call.by_descriptors) return;
        over_atoms(atoms, [&](int64_t i) {
            const T* from = static_cast<const T*>(call.by_descriptors);
            from += (place * call.atoms + i) * described();
            for (int64_t k = 0; k < model.num_layers; from += model.layers[k].channels, ++k) {
                T* to = by_features[k].data() + i * features_width(k);
                for (int64_t c = 0; c < model.layers[k].channels; ++c) to[c] += from[c];
            }
        });
    }
};

bool valid(const Call& call) {
    const Model& model = *call.model;
    if (model.num_layers > MAX_LAYERS || model.edges.degree > geometry::MAX_DEGREE) return false;
    for (int64_t i = 0; i < call.atoms; ++i) {
        if (call.species[i] < 0 || call.species[i] >= model.num_species) return false;
        if (call.system[i] < 0 || call.system[i] >= call.systems) return false;
        if (call.first[i] < 0 || call.last[i] > call.atoms * call.slots) return false;
        for (int64_t row = call.first[i]; row < call.last[i]; ++row) {
            const int64_t edge = call.edge_of_slot[row], z = call.sender_species[row];
            if (edge < 0 || edge >= call.edges || z < 0 || z >= model.num_species) return false;
            if (call.sender[row] < 0 || call.sender[row] >= call.atoms) return false;
            if (call.system[call.sender[row]] != call.system[i]) return false;
        }
    }
    return true;
}

enum Operation { SIZE, FORWARD, BACKWARD };

// The atoms of each thread: whole structures, equally many.
std::vector<Ranges> shares(const Call& call) {
    const int64_t threads = std::max<int64_t>(1, std::min(call.threads, call.systems));
    if (threads == 1) return {{{0, call.atoms}}};
    std::vector<Ranges> found(threads);
    for (int64_t i = 0; i < call.atoms; ++i) {
        Ranges& own = found[call.system[i] * threads / call.systems];
        if (own.empty() || own.back().end != i) own.push_back({i, i});
        own.back().end = i + 1;
    }
    return found;
}

// Every core this thread may use but the one it is on; false where there is none.
bool other_cores(cpu_set_t& cores) {
    if (sched_getaffinity(0, sizeof cores, &cores) != 0) return false;
    const int own = sched_getcpu();
    if (own >= 0 && own < CPU_SETSIZE) CPU_CLR(own, &cores);
    return CPU_COUNT(&cores) > 0;
}

template <class Body> struct Share {
    Body& body;
    const Ranges& atoms;
    pthread_t thread;

    static void* run(void* share) {
        const Share& own = *static_cast<const Share*>(share);
        own.body(own.atoms);
        return nullptr;
    }
};

// Calls body(atoms) for each thread's share, the first in this one. A scheduler may leave new threads
// on the core of the one that made them, where they would wait for milliseconds until it is done: they
// begin on another.
template <class Body> void in_threads(const Call& call, Body&& body) {
    using Own = Share<std::remove_reference_t<Body>>;
    const std::vector<Ranges> all = shares(call);
    std::vector<Own> others;
    for (size_t k = 1; k < all.size(); ++k) others.push_back({body, all[k], {}});
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    cpu_set_t cores;
    if (!others.empty() && other_cores(cores))
        pthread_attr_setaffinity_np(&attributes, sizeof cores, &cores);
    size_t started = 0;
    for (; started < others.size(); ++started)  // until no more threads are allowed here
        if (pthread_create(&others[started].thread, &attributes, Own::run, &others[started])) break;
    body(all[0]);
    for (size_t k = started; k < others.size(); ++k) body(others[k].atoms);
    for (size_t k = 0; k < started; ++k) pthread_join(others[k].thread, nullptr);
    pthread_attr_destroy(&attributes);
}

// A batch, one set of vectors after the other with the trunks that they serve.
template <class T> class Batch {
    const Call& call;
    const int64_t each;  // trunks that share their vectors
    Arena arena;
    std::vector<Measured<T>> measured;
    std::vector<Kept<T>> kept;

  public:
    Batch(const Call& call, bool only_count)
        : call(call), each(call.shared ? call.trunks : 1),
          arena{only_count ? nullptr : static_cast<char*>(call.kept)} {
        for (int64_t b = 0; b < call.trunks; b += each) measured.emplace_back(call, arena);
        for (int64_t b = 0; b < call.trunks; ++b) kept.emplace_back(call, arena);
    }

    int64_t blocks() const { return arena.used / 64; }

    void forward() {
        in_threads(call, [&](const Ranges& atoms) {
            const T* vectors = static_cast<const T*>(call.vectors);
            for (int64_t g = 0; g < int64_t(measured.size()); ++g)
                measure(call, atoms, vectors + 3 * g * call.edges, measured[g]);
            for (int64_t b = 0; b < call.trunks; ++b) trunk(atoms, b).forward();
        });
    }

    // Adds to gradients by vectors that are zero.
    void backward() {
        in_threads(call, [&](const Ranges& atoms) {
            T* to = static_cast<T*>(call.by_vectors);
            for (int64_t b = 0; b < call.trunks; b += each) {
                std::vector<ByEdges<T>> gradients;
                for (int64_t own = b; own < b + each; ++own) trunk(atoms, own).backward(gradients);
                measure_back(call, atoms, measured[b / each], gradients, to);
                to += 3 * call.edges * int64_t(gradients.size());
            }
        });
    }

  private:
    Trunk<T> trunk(const Ranges& atoms, int64_t b) const {
        return {call, atoms, measured[b / each], kept[b], b};
    }
};

// Blocks of 64 bytes that a call keeps, or 0; -1 where the batch does not fit.
template <class T> int64_t run(int operation, const Call& call) {
    if (operation == FORWARD && !valid(call)) return -1;
    Batch<T> batch(call, operation == SIZE);
    if (operation == SIZE) return batch.blocks();
    if (operation == FORWARD) batch.forward();
    else batch.backward();
    return 0;
}

}  // namespace network
}  // namespace

extern "C" int64_t tace_network_float(int operation, const network::Call* call) {
    return network::run<float>(operation, *call);
}
extern "C" int64_t tace_network_double(int operation, const network::Call* call) {
    return network::run<double>(operation, *call);
}
