// Sums over neighbours before coupling, and their first and second derivatives.
//
//     A[i, (l1 l2; m2, p, m1), c] = sum_{e -> i} Y[e, l2 m2] W[e, p, c] h[sender(e), l1 m1, c]
//
// With a cotangent G of A this is the quadrilinear form S(h, W, Y, G) = sum A G, whose partial
// derivatives are all there is: `sums` is dS/dG, `gradients` the other three, `second` the
// derivatives of <dh, dS/dh> + <dW, dS/dW> + <dY, dS/dY> by all four. Channels lie innermost and
// are taken 64 bytes at a time; everything of one atom (A or G) stays in the first cache. Compiled
// by library.py, called by native.py; a plain C interface, so that no version of PyTorch matters.

#include <cstdint>
#include <cstring>
#include <vector>

#include "edge_sums.h"

namespace {
namespace edge_sums {

template <class T> View<T> view(const Problem& p, int64_t b) {
    return {p,
            member<T>(p.features, p.features_step, b),
            member<T>(p.weights, p.weights_step, b),
            member<T>(p.harmonics, p.harmonics_step, b),
            member<T>(p.cotangent, p.cotangent_step, b),
            member<T>(p.dfeatures, p.dfeatures_step, b),
            member<T>(p.dweights, p.dweights_step, b),
            member<T>(p.dharmonics, p.dharmonics_step, b),
            member<T>(p.table, p.table_step, b),
            member<T>(p.distances, p.distances_step, b),
            part<T>(p.out_sums, p.atoms * p.rows * p.channels, b),
            part<T>(p.out_features, p.sources * p.dim_in * p.channels, b),
            part<T>(p.out_weights, p.edges * p.paths * p.channels, b),
            part<T>(p.out_harmonics, p.edges * p.dim_edge, b),
            part<T>(p.out_distances, p.edges, b)};
}

template <class T> struct SecondPair {
    const Problem& p;
    const Pair& pair;
    const T *h, *w, *y, *g, *dh, *dw, *dy;
    T *out_g, *out_h, *out_w;
    Vec<T>* out_y;
    template <int L2, bool FULL> void run(int64_t c, int count) const {
        constexpr int N2 = 2 * L2 + 1;
        const int64_t C = p.channels, n1 = 2 * pair.l1 + 1, step = pair.count * n1 * C;
        Vec<T> by_y[N2];
        for (int m2 = 0; m2 < N2; ++m2) by_y[m2] = out_y[L2 * L2 + m2];
        for (int64_t path = 0; path < pair.count; ++path) {
            const int64_t place = (pair.path + path) * C + c;
            const Vec<T> weight = load<T, FULL>(w + place, count);
            const Vec<T> dweight = load<T, FULL>(dw + place, count);
            Vec<T> by_w{};
            for (int64_t m1 = 0; m1 < n1; ++m1) {
                const int64_t component = (pair.l1 * pair.l1 + m1) * C + c;
                const Vec<T> source = load<T, FULL>(h + component, count);
                const Vec<T> dsource = load<T, FULL>(dh + component, count);
                const Vec<T> carried = weight * source, dcarried = dweight * source + weight * dsource;
                const int64_t start = (pair.row + path * n1 + m1) * C + c;
                Vec<T> u{}, du{};
                for (int m2 = 0; m2 < N2; ++m2) {
                    const Vec<T> by_sum = load<T, FULL>(g + start + m2 * step, count);
                    const T value = y[L2 * L2 + m2], dvalue = dy[L2 * L2 + m2];
                    u += value * by_sum;
                    du += dvalue * by_sum;
                    by_y[m2] += by_sum * dcarried;
                    add<T, FULL>(out_g + start + m2 * step, value * dcarried + dvalue * carried, count);
                }
                by_w += u * dsource + du * source;
                if (out_h) add<T, FULL>(out_h + component, u * dweight + du * weight, count);
            }
            if (out_w) store<T, FULL>(out_w + place, by_w, count);
        }
        for (int m2 = 0; m2 < N2; ++m2) out_y[L2 * L2 + m2] = by_y[m2];
    }
};

template <class T> void sums(const Problem& p) {
    std::vector<T> scratch(p.table ? BLOCK * p.paths * p.channels : 0);
    for (int64_t b = 0; b < p.batch; ++b) {
        const View<T> v = view<T>(p, b);
        for (int64_t i = 0; i < p.atoms; ++i)
            sum_atom(v, i, v.out_sums + i * p.rows * p.channels, scratch.data());
    }
}

// Zeros of the rows first .. last-1, which belong to no atom.
template <class T> void clear_rows(T* out, int64_t width, int64_t first, int64_t last) {
    if (out && last > first) std::memset(out + first * width, 0, (last - first) * width * sizeof(T));
}
template <class T> void clear(const View<T>& v, int64_t first, int64_t last) {
    clear_rows(v.out_weights, v.p.paths * v.p.channels, first, last);
    clear_rows(v.out_harmonics, v.p.dim_edge, first, last);
    clear_rows(v.out_distances, 1, first, last);
}
// Calls body(view, atom, edge) for every edge, with the outputs of a batch member made ready.
template <class T, class Body> void over_edges(const Problem& p, Body&& body) {
    for (int64_t b = 0; b < p.batch; ++b) {
        const View<T> v = view<T>(p, b);
        if (v.out_features)
            std::memset(v.out_features, 0, p.sources * p.dim_in * p.channels * sizeof(T));
        int64_t done = 0;
        for (int64_t i = 0; i < p.atoms; ++i) {
            clear(v, done, p.first[i]);
            for (int64_t e = p.first[i]; e < p.last[i]; ++e) body(v, i, e);
            done = p.last[i];
        }
        clear(v, done, p.edges);
    }
}

template <class T> void gradients(const Problem& p) {
    const int64_t n = p.paths * p.channels;
    std::vector<T> scratch(p.table ? 3 * n : 0);
    over_edges<T>(p, [&](const View<T>& v, int64_t i, int64_t e) {
        EdgeGradient<T> to{};
        if (v.out_features) to.features = v.out_features + p.sender[e] * p.dim_in * p.channels;
        if (v.out_weights) to.weights = v.out_weights + e * n;
        if (v.out_harmonics) to.harmonics = v.out_harmonics + e * p.dim_edge;
        if (v.out_distances) to.distance = v.out_distances + e;
        edge_gradient(v, e, v.cotangent + i * p.rows * p.channels, to, scratch.data());
    });
}

template <class T> void second(const Problem& p) {
    const int64_t n = p.paths * p.channels, in = p.dim_in * p.channels;
    const std::vector<T> zeros(n > in ? n : in);  // at least as long as the harmonics of an edge
    const std::vector<T> zero_harmonics(p.dim_edge);
    for (int64_t b = 0; b < p.batch; ++b)
        std::memset(view<T>(p, b).out_sums, 0, p.atoms * p.rows * p.channels * sizeof(T));
    over_edges<T>(p, [&](const View<T>& v, int64_t i, int64_t e) {
        const int64_t source = p.sender[e] * in, atom = i * p.rows * p.channels;
        const T* dh = v.dfeatures ? v.dfeatures + source : zeros.data();
        const T* dw = v.dweights ? v.dweights + e * n : zeros.data();
        const T* dy = v.dharmonics ? v.dharmonics + e * p.dim_edge : zero_harmonics.data();
        Vec<T> by_y[MAX_DIM_EDGE] = {};
        for (int64_t k = 0; k < p.num_pairs; ++k)
            over_pair<T>(p.pairs[k].l2, p.channels,
                         SecondPair<T>{p, p.pairs[k], v.features + source, v.weights + e * n,
                                       v.harmonics + e * p.dim_edge, v.cotangent + atom, dh, dw, dy,
                                       v.out_sums + atom,
                                       v.out_features ? v.out_features + source : nullptr,
                                       v.out_weights ? v.out_weights + e * n : nullptr, by_y});
        if (v.out_harmonics) lane_sums(by_y, p.dim_edge, v.out_harmonics + e * p.dim_edge);
    });
}

bool valid(const Problem& p) {
    int64_t done = 0;
    for (int64_t i = 0; i < p.atoms; ++i) {
        if (p.first[i] < done || p.last[i] < p.first[i] || p.last[i] > p.edges) return false;
        for (int64_t e = p.first[i]; e < p.last[i]; ++e)
            if (p.sender[e] < 0 || p.sender[e] >= p.sources) return false;
        done = p.last[i];
    }
    return true;
}

template <class T> int run(int operation, const Problem& p) {
    if (!valid(p)) return 1;
    if (operation == 0) sums<T>(p);
    if (operation == 1) gradients<T>(p);
    if (operation == 2) second<T>(p);
    return 0;
}

}  // namespace edge_sums
}  // namespace

extern "C" int tace_edge_sums_float(int operation, const edge_sums::Problem* p) {
    return edge_sums::run<float>(operation, *p);
}
extern "C" int tace_edge_sums_double(int operation, const edge_sums::Problem* p) {
    return edge_sums::run<double>(operation, *p);
}
