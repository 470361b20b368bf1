// A whole plain network in one call: energies of atoms, and their gradient by the edge vectors.
//
// Forth: geometry of the edges, layer after layer, readouts. Back: the same in reverse, from a
// gradient by the energies and by the invariant features. Sums over neighbours, products and
// geometry are those of the other kernels; what lies between them are matrix products of a few
// rows, where calls of operators would cost more than the arithmetic. Energies are doubles. One
// thread. Compiled by library.py, called by network.py.

#include <cmath>
#include <cstdint>
#include <cstring>
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

template <class T> class Member {
    const Call& call;
    const Model& model;
    const int64_t b, own;  // among the members of the call, and of the model
    const T* numbers;
    const T* vectors;
    const Kept<T> kept;
    const double *e0, *scale, *shift;

  public:
    Member(const Call& call, Arena& arena, int64_t b)
        : call(call), model(*call.model), b(b), own(call.first_member + b),
          numbers(static_cast<const T*>(model.numbers[own])),
          vectors(static_cast<const T*>(call.vectors) + 3 * b * call.edges), kept(call, arena),
          e0(model.head[own]), scale(e0 + model.num_species), shift(scale + model.num_species) {}

    void forward() {
        measure_edges();
        for (int64_t k = 0; k < model.num_layers; ++k) Pass<T>(call, kept, k, own).forward();
        read();
        describe();
    }

    void backward() {
        const int64_t rows = call.atoms * call.slots, layers = model.num_layers;
        std::vector<T> by_harmonics(rows * components(model.edges.degree)), by_distances(rows), by_sent;
        std::vector<std::vector<T>> by_features(layers);
        for (int64_t k = 0; k < layers; ++k)
            by_features[k].resize(call.atoms * features_width(k));
        read_back(by_features);
        for (int64_t k = layers - 1; k >= 0; --k) {
            const Layer& layer = model.layers[k];
            by_sent.assign(k ? call.atoms * components(layer.degree_in) * layer.width : 0, T(0));
            Pass<T>(call, kept, k, own)
                .backward(by_features[k].data(), k ? by_features[k - 1].data() : nullptr,
                          k ? by_sent.data() : nullptr, by_harmonics.data(), by_distances.data());
        }
        edges_back(by_harmonics.data(), by_distances.data());
    }

  private:
    int64_t features_width(int64_t k) const {
        return components(model.layers[k].degree_out) * model.layers[k].width;
    }

    // Calls body(atom, slot, edge vector's place).
    template <class Body> void over_edges(Body&& body) {
        for (int64_t i = 0; i < call.atoms; ++i)
            for (int64_t row = call.first[i]; row < call.last[i]; ++row)
                body(i, row, 3 * call.edge_of_slot[row]);
    }

    void measure_edges() {
        const int64_t dim = components(model.edges.degree);
        geometry::Monomials monomials{model.edges, {}};
        double* energy = call.energy + b * call.atoms;
        for (int64_t i = 0; i < call.atoms; ++i) energy[i] = kept.coordination[i] = 0.0;
        over_edges([&](int64_t i, int64_t row, int64_t place) {
            const geometry::Edge e(model.edges, vectors + place, call.species[i],
                                   call.sender_species[row]);
            monomials.fill(e.unit);
            kept.distances[row] = T(e.r);
            monomials.harmonics(kept.harmonics + row * dim);
            kept.coordination[i] += e.cutoff.value;
            energy[i] += e.repulsion.value;
        });
    }

    // Adds the heads' energies to the repulsion.
    void read() {
        const int64_t last = model.num_layers - 1, width = model.hidden_width;
        const Layer& top = model.layers[last];
        const T* scalars = kept.layers[last].features;
        multiply<T>({scalars, call.atoms, 1, features_width(last), 0},
                    {kept.hidden, call.atoms, 1, width, 0}, numbers + model.hidden_at, top.width, width,
                    false);
        double* energy = call.energy + b * call.atoms;
        for (int64_t i = 0; i < call.atoms; ++i) {
            T sum = 0;
            for (int64_t h = 0; h < width; ++h) {
                const T x = kept.hidden[i * width + h];
                sum += x / (T(1) + std::exp(-x)) * numbers[model.out_at + h];
            }
            for (int64_t k = 0; k < last; ++k)
                sum += dot(kept.layers[k].features + i * features_width(k),
                           numbers + model.layers[k].readout_at, model.layers[k].width);
            kept.readout[i] = double(sum);
            const int64_t z = call.species[i];
            const double gate = -std::expm1(-GATE_RATE * kept.coordination[i]);
            energy[i] += e0[z] + gate * (scale[z] * double(sum) + shift[z]);
        }
    }

    int64_t described() const {
        int64_t total = 0;
        for (int64_t k = 0; k < model.num_layers; ++k) total += model.layers[k].channels;
        return total;
    }

    void describe() {
        T* to = static_cast<T*>(call.descriptors) + b * call.atoms * described();
        for (int64_t i = 0; i < call.atoms; ++i)
            for (int64_t k = 0; k < model.num_layers; to += model.layers[k].channels, ++k)
                std::memcpy(to, kept.layers[k].features + i * features_width(k),
                            model.layers[k].channels * sizeof(T));
    }

    double by_energy(int64_t i) const { return call.by_energy ? call.by_energy[b * call.atoms + i] : 0.0; }

    void read_back(std::vector<std::vector<T>>& by_features) {
        const int64_t last = model.num_layers - 1, width = model.hidden_width;
        std::vector<T> by_hidden(call.atoms * width);
        const T* by_descriptors = static_cast<const T*>(call.by_descriptors);
        if (by_descriptors) by_descriptors += b * call.atoms * described();
        for (int64_t i = 0; i < call.atoms; ++i) {
            const double gate = -std::expm1(-GATE_RATE * kept.coordination[i]);
            const T by_readout = T(by_energy(i) * gate * scale[call.species[i]]);
            for (int64_t h = 0; h < width; ++h) {
                const T x = kept.hidden[i * width + h], s = T(1) / (T(1) + std::exp(-x));
                by_hidden[i * width + h] =
                    by_readout * numbers[model.out_at + h] * s * (T(1) + x * (T(1) - s));
            }
            for (int64_t k = 0; k <= last; ++k) {
                T* to = by_features[k].data() + i * features_width(k);
                for (int64_t c = 0; c < model.layers[k].width && k < last; ++c)
                    to[c] += by_readout * numbers[model.layers[k].readout_at + c];
                for (int64_t c = 0; c < model.layers[k].channels && by_descriptors; ++c)
                    to[c] += *by_descriptors++;
            }
        }
        const T* from = by_hidden.data();
        multiply<T>({from, call.atoms, 1, width, 0},
                    {by_features[last].data(), call.atoms, 1, features_width(last), 0},
                    numbers + model.hidden_back_at, width, model.layers[last].width, true);
    }

    void edges_back(const T* by_harmonics, const T* by_distances) {
        const int64_t dim = components(model.edges.degree);
        geometry::Monomials monomials{model.edges, {}};
        T* by_vectors = static_cast<T*>(call.by_vectors) + 3 * b * call.edges;
        std::memset(by_vectors, 0, 3 * call.edges * sizeof(T));
        over_edges([&](int64_t i, int64_t row, int64_t place) {
            const int64_t z = call.species[i];
            const geometry::Edge e(model.edges, vectors + place, z, call.sender_species[row]);
            const double closed = GATE_RATE * std::exp(-GATE_RATE * kept.coordination[i]);
            const double by_cutoff = closed * (scale[z] * kept.readout[i] + shift[z]);
            const double radial =
                double(by_distances[row]) +
                by_energy(i) * (by_cutoff * e.cutoff.slope + e.repulsion.slope);
            monomials.fill(e.unit);
            geometry::add_gradient(monomials, e, by_harmonics + row * dim, radial, by_vectors + place);
        });
    }
};

bool valid(const Call& call) {
    const Model& model = *call.model;
    if (model.num_layers > MAX_LAYERS || model.edges.degree > geometry::MAX_DEGREE) return false;
    for (int64_t i = 0; i < call.atoms; ++i) {
        if (call.species[i] < 0 || call.species[i] >= model.num_species) return false;
        if (call.first[i] < 0 || call.last[i] > call.atoms * call.slots) return false;
        for (int64_t row = call.first[i]; row < call.last[i]; ++row) {
            const int64_t edge = call.edge_of_slot[row], z = call.sender_species[row];
            if (edge < 0 || edge >= call.edges || z < 0 || z >= model.num_species) return false;
            if (call.sender[row] < 0 || call.sender[row] >= call.atoms) return false;
        }
    }
    return true;
}

enum Operation { SIZE, FORWARD, BACKWARD };

// Blocks of 64 bytes that a call keeps, or 0; -1 where the batch does not fit.
template <class T> int64_t run(int operation, const Call& call) {
    Arena arena{operation == SIZE ? nullptr : static_cast<char*>(call.kept)};
    if (operation == SIZE) {
        for (int64_t b = 0; b < call.members; ++b) Kept<T>(call, arena);
        return arena.used / 64;
    }
    if (operation == FORWARD && !valid(call)) return -1;
    for (int64_t b = 0; b < call.members; ++b) {
        Member<T> member(call, arena, b);
        if (operation == FORWARD) member.forward();
        else member.backward();
    }
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
