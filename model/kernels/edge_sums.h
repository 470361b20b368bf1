// Sums over neighbours before coupling and their gradients, atom by atom and edge by edge.
//
//     A[i, (l1 l2; m2, p, m1), c] = sum_{e -> i} Y[e, l2 m2] W[e, p, c] h[sender(e), l1 m1, c]
//
// Channels lie innermost and are taken 64 bytes at a time; everything of one atom (A or its
// cotangent) stays in the first cache. The radial weights W may be read from pieces.

#pragma once

#include <cstdint>
#include <cstring>

#include "lanes.h"

namespace {
namespace edge_sums {

struct Pair {  // paths with the same degrees of feature and harmonic; the order is that of A
    int64_t l1, l2, count, path, row;  // first path and first row of the pair
};

struct Problem {  // mirrored in native.py
    int64_t batch, atoms, sources, edges, channels, dim_in, dim_edge, paths, rows, num_pairs;
    const Pair* pairs;
    const int64_t *sender, *first, *last;  // edges first[i] .. last[i]-1 end at atom i, ascending
    // inputs; step is the distance of two members of the batch, 0 where they share
    const void *features, *weights, *harmonics, *cotangent;
    int64_t features_step, weights_step, harmonics_step, cotangent_step;
    // tangents of `second`; null stands for zero
    const void *dfeatures, *dweights, *dharmonics;
    int64_t dfeatures_step, dweights_step, dharmonics_step;
    // pieces of degree 5 instead of weights: table[piece][power][path][channel]
    const void *table, *distances;
    int64_t table_step, distances_step, pieces;
    double spacing;
    // outputs, one after another in the batch; null where nobody asks
    void *out_sums, *out_features, *out_weights, *out_harmonics, *out_distances;
};

constexpr int MAX_DIM_EDGE = 49;  // degrees to 6
constexpr int BLOCK = 4;          // edges that share one pass over A

template <class T> inline T lane_sum(const Vec<T>& v) {
    typename Simd<T>::Half h[2];
    std::memcpy(h, &v, 64);
    h[0] += h[1];
    typename Simd<T>::Quarter q[2];
    std::memcpy(q, h, 32);
    q[0] += q[1];
    T total = 0;
    for (int lane = 0; lane < int(16 / sizeof(T)); ++lane) total += q[0][lane];
    return total;
}

// What one atom's edges read and write, at one member of the batch.
template <class T> struct View {
    const Problem& p;
    const T *features, *weights, *harmonics, *cotangent, *dfeatures, *dweights, *dharmonics;
    const T *table, *distances;
    T *out_sums, *out_features, *out_weights, *out_harmonics, *out_distances;
};

// 64 bytes of a piece's coefficients, which lie n apart, at t; slopes are multiplied by s.
template <class T, bool FULL>
inline void piece(const T* c, int64_t n, T t, T s, T* weights, T* slopes, int count) {
    Vec<T> value = load<T, FULL>(c + 5 * n, count), slope{};
    for (int power = 4; power >= 0; --power) {
        slope = slope * t + value;
        value = value * t + load<T, FULL>(c + power * n, count);
    }
    store<T, FULL>(weights, value, count);
    if (slopes) store<T, FULL>(slopes, s * slope, count);
}

// Radial weights of one edge from their pieces; slopes per Angstrom too where asked for.
template <class T>
void interpolate(const View<T>& v, T r, T* __restrict weights, T* __restrict slopes) {
    const Problem& p = v.p;
    const int64_t n = p.paths * p.channels;
    const T x = r / T(p.spacing);
    if (!(x < T(p.pieces))) {  // beyond the cutoff; NaN stays visible
        for (int64_t i = 0; i < n; ++i) weights[i] = x != x ? r : T(0);
        if (slopes) std::memset(slopes, 0, n * sizeof(T));
        return;
    }
    const int64_t k = x > 0 ? int64_t(x) : 0;
    const T t = x - T(k), s = T(1 / p.spacing);
    const T* c = v.table + 6 * k * n;
    int64_t i = 0;
    for (; i + LANES<T> <= n; i += LANES<T>)
        piece<T, true>(c + i, n, t, s, weights + i, slopes ? slopes + i : nullptr, LANES<T>);
    if (i < n) piece<T, false>(c + i, n, t, s, weights + i, slopes ? slopes + i : nullptr, int(n - i));
}

// Calls body<L2, FULL>(channel, count) for every block of channels.
template <int L2, class T, class Body> inline void over_channels(int64_t channels, Body&& body) {
    int64_t c = 0;
    for (; c + LANES<T> <= channels; c += LANES<T>) body.template run<L2, true>(c, LANES<T>);
    if (c < channels) body.template run<L2, false>(c, int(channels - c));
}
template <class T, class Body> inline void over_pair(int64_t l2, int64_t channels, Body&& body) {
    switch (l2) {
        case 0: return over_channels<0, T>(channels, body);
        case 1: return over_channels<1, T>(channels, body);
        case 2: return over_channels<2, T>(channels, body);
        case 3: return over_channels<3, T>(channels, body);
        case 4: return over_channels<4, T>(channels, body);
        case 5: return over_channels<5, T>(channels, body);
        default: return over_channels<6, T>(channels, body);
    }
}

template <class T, int EDGES> struct SumPair {
    const Problem& p;
    const Pair& pair;
    const T *const *h, *const *w, *const *y;
    T* sums;
    template <int L2, bool FULL> void run(int64_t c, int count) const {
        const int64_t C = p.channels, n1 = 2 * pair.l1 + 1, step = pair.count * n1 * C;
        for (int64_t path = 0; path < pair.count; ++path) {
            Vec<T> weight[EDGES], carried[EDGES];
            for (int e = 0; e < EDGES; ++e)
                weight[e] = load<T, FULL>(w[e] + (pair.path + path) * C + c, count);
            for (int64_t m1 = 0; m1 < n1; ++m1) {
                for (int e = 0; e < EDGES; ++e)
                    carried[e] = weight[e] * load<T, FULL>(h[e] + (pair.l1 * pair.l1 + m1) * C + c, count);
                T* row = sums + (pair.row + path * n1 + m1) * C + c;
                for (int m2 = 0; m2 < 2 * L2 + 1; ++m2, row += step) {
                    Vec<T> total = load<T, FULL>(row, count);
                    for (int e = 0; e < EDGES; ++e) total += y[e][L2 * L2 + m2] * carried[e];
                    store<T, FULL>(row, total, count);
                }
            }
        }
    }
};

template <class T> struct GradientPair {
    const Problem& p;
    const Pair& pair;
    const T *h, *w, *y, *g;
    T *out_h, *out_w;
    Vec<T>* out_y;
    template <int L2, bool FULL> void run(int64_t c, int count) const {
        constexpr int N2 = 2 * L2 + 1;
        const int64_t C = p.channels, n1 = 2 * pair.l1 + 1, step = pair.count * n1 * C;
        Vec<T> by_y[N2];
        for (int m2 = 0; m2 < N2; ++m2) by_y[m2] = out_y[L2 * L2 + m2];
        for (int64_t path = 0; path < pair.count; ++path) {
            const int64_t place = (pair.path + path) * C + c;
            const Vec<T> weight = load<T, FULL>(w + place, count);
            Vec<T> by_w{};
            for (int64_t m1 = 0; m1 < n1; ++m1) {
                const int64_t component = (pair.l1 * pair.l1 + m1) * C + c;
                const Vec<T> source = load<T, FULL>(h + component, count), carried = weight * source;
                const T* row = g + (pair.row + path * n1 + m1) * C + c;
                Vec<T> u{};
                for (int m2 = 0; m2 < N2; ++m2, row += step) {
                    const Vec<T> by_sum = load<T, FULL>(row, count);
                    u += y[L2 * L2 + m2] * by_sum;
                    by_y[m2] += by_sum * carried;
                }
                by_w += u * source;
                if (out_h) add<T, FULL>(out_h + component, u * weight, count);
            }
            if (out_w) store<T, FULL>(out_w + place, by_w, count);
        }
        for (int m2 = 0; m2 < N2; ++m2) out_y[L2 * L2 + m2] = by_y[m2];
    }
};

template <class T, int EDGES>
void sum_edges(const View<T>& v, int64_t e, T* sums, T* scratch) {
    const Problem& p = v.p;
    const T *h[EDGES], *w[EDGES], *y[EDGES];
    for (int k = 0; k < EDGES; ++k) {
        h[k] = v.features + p.sender[e + k] * p.dim_in * p.channels;
        y[k] = v.harmonics + (e + k) * p.dim_edge;
        w[k] = v.weights + (e + k) * p.paths * p.channels;
        if (v.table) {
            T* own = scratch + k * p.paths * p.channels;
            interpolate(v, v.distances[e + k], own, static_cast<T*>(nullptr));
            w[k] = own;
        }
    }
    for (int64_t k = 0; k < p.num_pairs; ++k)
        over_pair<T>(p.pairs[k].l2, p.channels, SumPair<T, EDGES>{p, p.pairs[k], h, w, y, sums});
}

// The sums of one atom; `scratch` holds the radial weights of BLOCK edges.
template <class T> void sum_atom(const View<T>& v, int64_t i, T* out, T* scratch) {
    const Problem& p = v.p;
    std::memset(out, 0, p.rows * p.channels * sizeof(T));
    int64_t e = p.first[i];
    for (; e + BLOCK <= p.last[i]; e += BLOCK) sum_edges<T, BLOCK>(v, e, out, scratch);
    for (; e < p.last[i]; ++e) sum_edges<T, 1>(v, e, out, scratch);
}

template <class T> void lane_sums(const Vec<T>* values, int64_t count, T* to) {
    for (int64_t k = 0; k < count; ++k) to[k] = lane_sum<T>(values[k]);
}

// Where the gradient of one edge goes; null where nobody asks.
template <class T> struct EdgeGradient { T *features, *weights, *harmonics, *distance; };

// The gradient of one edge for the cotangent `g` of its atom; features are added to, the others
// written. `scratch` holds weights, slopes and the gradient by the weights of an edge with pieces.
template <class T>
void edge_gradient(const View<T>& v, int64_t e, const T* g, EdgeGradient<T> to, T* scratch) {
    const Problem& p = v.p;
    const int64_t n = p.paths * p.channels;
    const T *w = v.weights + e * n, *y = v.harmonics + e * p.dim_edge;
    T *slopes = scratch + n, *by_weight = scratch + 2 * n;
    if (v.table) {
        interpolate(v, v.distances[e], scratch, slopes);
        w = scratch;
        to.weights = by_weight;
    }
    const T* source = v.features + p.sender[e] * p.dim_in * p.channels;
    Vec<T> by_y[MAX_DIM_EDGE] = {};
    for (int64_t k = 0; k < p.num_pairs; ++k)
        over_pair<T>(p.pairs[k].l2, p.channels,
                     GradientPair<T>{p, p.pairs[k], source, w, y, g, to.features, to.weights, by_y});
    if (to.harmonics) lane_sums<T>(by_y, p.dim_edge, to.harmonics);
    if (!to.distance) return;
    Vec<T> total{};
    int64_t c = 0;
    for (; c + LANES<T> <= n; c += LANES<T>)
        total += load<T, true>(by_weight + c, 0) * load<T, true>(slopes + c, 0);
    if (c < n) {
        const int rest = int(n - c);
        total += load<T, false>(by_weight + c, rest) * load<T, false>(slopes + c, rest);
    }
    *to.distance = lane_sum<T>(total);
}

}  // namespace edge_sums
}  // namespace
