// One layer of one trunk, forth and back, a few atoms at a time.

#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "network.h"
#include "rows.h"

namespace {
namespace network {

constexpr int64_t ATOMS = 8;  // that go through a layer together

template <class T> edge_sums::Problem sums_of(const Call& call, int64_t k) {
    const Layer& layer = call.model->layers[k];
    edge_sums::Problem p{};
    p.atoms = call.atoms;
    p.sources = k ? call.atoms : call.model->num_species;
    p.edges = call.atoms * call.slots;
    p.channels = layer.width;
    p.dim_in = components(layer.degree_in);
    p.dim_edge = components(call.model->edges.degree);
    p.paths = layer.paths;
    p.rows = layer.rows;
    p.num_pairs = layer.num_pairs;
    p.pairs = layer.pairs;
    p.sender = k ? call.sender : call.sender_species;
    p.first = call.first;
    p.last = call.last;
    p.pieces = layer.pieces;
    p.spacing = layer.spacing;
    return p;
}

template <class T> product::Problem product_of(const Call& call, const Layer& layer, const T* numbers) {
    product::Problem p{};
    p.channels = layer.width;
    p.dim_in = components(call.model->edges.degree);
    p.dim_out = components(layer.degree_out);
    p.paths = layer.product_paths;
    p.num_terms = layer.num_terms;
    p.num_rows = layer.num_product_rows;
    p.terms = layer.terms;
    p.rows = layer.product_rows;
    p.coefficients = numbers + layer.coefficients_at;
    return p;
}

template <class T> class Pass {
    const Call& call;
    const Ranges& atoms;
    const Layer& layer;
    const T* numbers;
    const KeptLayer<T>& kept;
    const T* below;  // features before the layer
    int64_t width, dim_in, dim_message, dim_out;
    edge_sums::Problem sums;
    edge_sums::View<T> view;
    product::Problem table;
    product::Sweep<T, 0> sweep;
    std::vector<T> atom_sums, coupled, products, messages, weights;

  public:
    Pass(const Call& call, const Ranges& atoms, const Measured<T>& edges, const Kept<T>& all, int64_t k,
         int64_t trunk)
        : call(call), atoms(atoms), layer(call.model->layers[k]),
          numbers(static_cast<const T*>(call.model->trunks[trunk])), kept(all.layers[k]),
          below(k ? all.layers[k - 1].features : nullptr), width(layer.width),
          dim_in(components(layer.degree_in)), dim_message(components(call.model->edges.degree)),
          dim_out(components(layer.degree_out)), sums(sums_of<T>(call, k)), view{sums},
          table(product_of(call, layer, numbers)), sweep(table), atom_sums(layer.rows * width),
          coupled(ATOMS * layer.num_coupled * width), products(ATOMS * dim_out * width),
          messages(ATOMS * dim_message * width), weights(edge_sums::BLOCK * layer.paths * width) {
        view.features = k ? kept.sent : numbers + layer.sent_at;
        view.harmonics = edges.harmonics;
        view.table = static_cast<const T*>(layer.tables[trunk]);
        view.distances = edges.distances;
    }

    void forward() {
        if (below) send();
        over_blocks([&](int64_t i, int64_t count) {
            send_messages(i, count);
            for (int64_t j = 0; j < count; ++j) {
                T* to = products.data() + j * dim_out * width;
                multiply_powers(i + j, nullptr, to);
            }
            T* features = kept.features + i * dim_out * width;
            map(layer.linear_at, layer.degree_out, count, products.data(), dim_out, width, features,
                dim_out, width, false);
            if (layer.residual == 1)
                over_species(i, count, [&](int64_t begin, int64_t n, int64_t species) {
                    map(residual_at(layer.residual_at, species), layer.residual_degree, n,
                        below + begin * dim_in * layer.width_in, dim_in, layer.width_in,
                        kept.features + begin * dim_out * width, dim_out, width, true);
                });
            if (layer.residual == 2)
                over_species(i, count, [&](int64_t begin, int64_t n, int64_t species) {
                    map(residual_at(layer.residual_at, species), layer.residual_degree, n,
                        kept.message + begin * dim_message * width, dim_message, width,
                        kept.features + begin * dim_out * width, dim_out, width, true);
                });
            if (layer.constant_at >= 0)
                for (int64_t j = 0; j < count; ++j)
                    add_scalars(layer.constant_at + call.species[i + j] * width,
                                features + j * dim_out * width);
        });
    }

    // From the gradient by the features after the layer; by_below, by_harmonics and by_distances are
    // added to, and by_sent is room filled with zeros.
    void backward(const T* by_features, T* by_below, T* by_sent, T* by_harmonics, T* by_distances) {
        over_blocks([&](int64_t i, int64_t count) {
            const T* by = by_features + i * dim_out * width;
            map(layer.linear_back_at, layer.degree_out, count, by, dim_out, width, products.data(),
                dim_out, width, false);
            for (int64_t j = 0; j < count; ++j)
                multiply_powers(i + j, products.data() + j * dim_out * width,
                                messages.data() + j * dim_message * width);
            if (layer.residual)
                over_species(i, count, [&](int64_t begin, int64_t n, int64_t species) {
                    const bool message = layer.residual == 2;
                    T* to = message ? messages.data() + (begin - i) * dim_message * width
                                    : by_below + begin * dim_in * layer.width_in;
                    map(residual_at(layer.residual_back_at, species), layer.residual_degree, n,
                        by_features + begin * dim_out * width, dim_out, width, to,
                        message ? dim_message : dim_in, message ? width : layer.width_in, true);
                });
            mix_back(count);
            for (int64_t j = 0; j < count; ++j) edges_back(i + j, j, by_sent, by_harmonics, by_distances);
        });
        if (!below) return;
        for (const Range& range : atoms)
            map(layer.up_back_at, layer.degree_in, range.end - range.begin,
                by_sent + range.begin * dim_in * width, dim_in, width,
                by_below + range.begin * dim_in * layer.width_in, dim_in, layer.width_in, true);
    }

  private:
    // Calls body(first atom, count) for a few atoms at a time.
    template <class Body> void over_blocks(Body&& body) {
        for (const Range& range : atoms)
            for (int64_t i = range.begin; i < range.end; i += ATOMS)
                body(i, std::min(ATOMS, range.end - i));
    }

    // One matrix a degree, one after another from `at`.
    void map(int64_t at, int64_t degree, int64_t count, const T* from, int64_t dim_from,
             int64_t width_from, T* to, int64_t dim_to, int64_t width_to, bool accumulate) {
        for (int64_t l = 0; l <= degree; ++l)
            multiply<T>(degree_rows(from, count, l, dim_from, width_from),
                        degree_rows(to, count, l, dim_to, width_to),
                        numbers + at + l * width_from * width_to, width_from, width_to, accumulate);
    }

    int64_t residual_at(int64_t at, int64_t species) const {
        const int64_t from = layer.residual == 2 ? width : layer.width_in;
        return at + species * (layer.residual_degree + 1) * from * width;
    }

    void add_scalars(int64_t at, T* to) {
        for (int64_t c = 0; c < width; ++c) to[c] += numbers[at + c];
    }

    template <class Body> void over_species(int64_t i, int64_t count, Body&& body) {
        for (int64_t begin = i; begin < i + count;) {
            int64_t end = begin + 1;
            while (end < i + count && call.species[end] == call.species[begin]) ++end;
            body(begin, end - begin, call.species[begin]);
            begin = end;
        }
    }

    void send() {
        for (const Range& range : atoms) {
            map(layer.up_at, layer.degree_in, range.end - range.begin,
                below + range.begin * dim_in * layer.width_in, dim_in, layer.width_in,
                kept.sent + range.begin * dim_in * width, dim_in, width, false);
            if (layer.up_bias_at >= 0)
                for (int64_t i = range.begin; i < range.end; ++i)
                    add_scalars(layer.up_bias_at, kept.sent + i * dim_in * width);
        }
    }

    // The rows of degree l among the coupled sums of some atoms, `row` the first of them.
    Rows<T> coupled_rows(int64_t count, int64_t l, int64_t row) {
        return {coupled.data() + row * width, count, 2 * l + 1, layer.num_coupled * width,
                layer.paths_of_degree[l] * width};
    }

    void send_messages(int64_t i, int64_t count) {
        const T* coefficients = numbers + layer.coupling_at;
        std::fill(coupled.begin(), coupled.end(), T(0));
        for (int64_t j = 0; j < count; ++j) {
            edge_sums::sum_atom(view, i + j, atom_sums.data(), weights.data());
            T* to = coupled.data() + j * layer.num_coupled * width;
            for (int64_t t = 0; t < layer.num_couplings; ++t)
                add_scaled(coefficients[t], atom_sums.data() + layer.couplings[t].column * width,
                           to + layer.couplings[t].row * width);
        }
        int64_t row = 0, at = layer.mix_at;
        T* message = kept.message + i * dim_message * width;
        for (int64_t l = 0; l * l < dim_message; ++l) {
            const int64_t paths = layer.paths_of_degree[l];
            const Rows<T> from = coupled_rows(count, l, row);
            multiply<T>({from.start, count, from.per_atom, from.atom_step, from.row_step},
                        degree_rows(message, count, l, dim_message, width), numbers + at, paths * width,
                        width, false);
            row += (2 * l + 1) * paths;
            at += paths * width * width;
        }
    }

    void mix_back(int64_t count) {
        int64_t row = 0, at = layer.mix_back_at;
        for (int64_t l = 0; l * l < dim_message; ++l) {
            const int64_t paths = layer.paths_of_degree[l];
            const T* by_message = messages.data();
            multiply<T>(degree_rows(by_message, count, l, dim_message, width),
                        coupled_rows(count, l, row), numbers + at, width, paths * width, false);
            row += (2 * l + 1) * paths;
            at += paths * width * width;
        }
    }

    // Gradients by what the edges of an atom read; j is its place among the coupled sums.
    void edges_back(int64_t i, int64_t j, T* by_sent, T* by_harmonics, T* by_distances) {
        const T* coefficients = numbers + layer.coupling_at;
        const T* by_coupled = coupled.data() + j * layer.num_coupled * width;
        std::fill(atom_sums.begin(), atom_sums.end(), T(0));
        for (int64_t t = 0; t < layer.num_couplings; ++t)
            add_scaled(coefficients[t], by_coupled + layer.couplings[t].row * width,
                       atom_sums.data() + layer.couplings[t].column * width);
        T own[edge_sums::MAX_DIM_EDGE], distance = 0;
        for (int64_t e = call.first[i]; e < call.last[i]; ++e) {
            T* source = by_sent ? by_sent + sums.sender[e] * dim_in * width : nullptr;
            edge_sums::edge_gradient<T>(view, e, atom_sums.data(), {source, nullptr, own, &distance},
                                        weights.data());
            for (int64_t k = 0; k < dim_message; ++k) by_harmonics[e * dim_message + k] += own[k];
            by_distances[e] += distance;
        }
    }

    void add_scaled(T factor, const T* from, T* to) {
        for (int64_t c = 0; c < width; c += LANES<T>)
            add<T, true>(to + c, factor * load<T, true>(from + c, 0), 0);
    }

    // The product of an atom's message, or, from the gradient by it, the gradient by the message.
    void multiply_powers(int64_t i, const T* cotangent, T* to) {
        product::Arrays<T> a{};
        a.in[0][product::MESSAGE] = kept.message + i * dim_message * width;
        a.in[0][product::WEIGHT] =
            numbers + layer.product_at + call.species[i] * layer.product_paths * width;
        a.in[0][product::COTANGENT] = cotangent;
        a.out[0][cotangent ? product::MESSAGE : product::COTANGENT] = to;
        for (int64_t c = 0; c < width; c += LANES<T>) sweep.template block<true>(a, c, LANES<T>);
    }
};

}  // namespace network
}  // namespace
