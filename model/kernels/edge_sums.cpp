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

#include "lanes.h"

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

namespace {

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
    const T t = x - T(k), s = T(1 / p.spacing), t2 = t * t, t3 = t2 * t, t4 = t2 * t2, t5 = t4 * t;
    const T *c0 = v.table + 6 * k * n, *c1 = c0 + n, *c2 = c1 + n, *c3 = c2 + n, *c4 = c3 + n;
    const T* c5 = c4 + n;
    if (!slopes) {
        for (int64_t i = 0; i < n; ++i)
            weights[i] = c0[i] + t * c1[i] + t2 * c2[i] + t3 * c3[i] + t4 * c4[i] + t5 * c5[i];
        return;
    }
    const T d2 = s * 2 * t, d3 = s * 3 * t2, d4 = s * 4 * t3, d5 = s * 5 * t4;
    for (int64_t i = 0; i < n; ++i) {
        weights[i] = c0[i] + t * c1[i] + t2 * c2[i] + t3 * c3[i] + t4 * c4[i] + t5 * c5[i];
        slopes[i] = s * c1[i] + d2 * c2[i] + d3 * c3[i] + d4 * c4[i] + d5 * c5[i];
    }
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

template <class T> void sums(const Problem& p) {
    std::vector<T> scratch(p.table ? BLOCK * p.paths * p.channels : 0);
    for (int64_t b = 0; b < p.batch; ++b) {
        const View<T> v = view<T>(p, b);
        for (int64_t i = 0; i < p.atoms; ++i) {
            T* out = v.out_sums + i * p.rows * p.channels;
            std::memset(out, 0, p.rows * p.channels * sizeof(T));
            int64_t e = p.first[i];
            for (; e + BLOCK <= p.last[i]; e += BLOCK) sum_edges<T, BLOCK>(v, e, out, scratch.data());
            for (; e < p.last[i]; ++e) sum_edges<T, 1>(v, e, out, scratch.data());
        }
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
template <class T> void write_harmonics(const View<T>& v, int64_t e, const Vec<T>* by_y) {
    if (!v.out_harmonics) return;
    for (int64_t k = 0; k < v.p.dim_edge; ++k)
        v.out_harmonics[e * v.p.dim_edge + k] = lane_sum<T>(by_y[k]);
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
    T *weights = scratch.data(), *slopes = weights + n, *by_weight = weights + 2 * n;
    over_edges<T>(p, [&](const View<T>& v, int64_t i, int64_t e) {
        const int64_t source = p.sender[e] * p.dim_in * p.channels;
        const T *w = v.weights + e * n, *y = v.harmonics + e * p.dim_edge;
        T* out_h = v.out_features ? v.out_features + source : nullptr;
        T* out_w = v.out_weights ? v.out_weights + e * n : nullptr;
        if (v.table) {
            interpolate(v, v.distances[e], weights, slopes);
            w = weights;
            out_w = by_weight;
        }
        Vec<T> by_y[MAX_DIM_EDGE] = {};
        for (int64_t k = 0; k < p.num_pairs; ++k)
            over_pair<T>(p.pairs[k].l2, p.channels,
                         GradientPair<T>{p, p.pairs[k], v.features + source, w, y,
                                         v.cotangent + i * p.rows * p.channels, out_h, out_w, by_y});
        write_harmonics(v, e, by_y);
        if (v.out_distances) {
            Vec<T> total{};
            int64_t c = 0;
            for (; c + LANES<T> <= n; c += LANES<T>)
                total += load<T, true>(by_weight + c, 0) * load<T, true>(slopes + c, 0);
            if (c < n) {
                const int rest = int(n - c);
                total += load<T, false>(by_weight + c, rest) * load<T, false>(slopes + c, rest);
            }
            v.out_distances[e] = lane_sum<T>(total);
        }
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
        write_harmonics(v, e, by_y);
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

}  // namespace

extern "C" int tace_edge_sums_float(int operation, const Problem* p) { return run<float>(operation, *p); }
extern "C" int tace_edge_sums_double(int operation, const Problem* p) { return run<double>(operation, *p); }
