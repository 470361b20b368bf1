// The spectral product basis and its derivatives, a polynomial of the message in every channel.
//
//     x_r = sum_terms c x_a x_b,   a, b < r;  the first x are the message m
//     out[d] = sum_rows c W[Z, path] x_node
//
// With a cotangent G of `out` the form S(m, W, G) = sum out G holds every derivative. Its gradient
// is one sweep forth and one back. Along k directions d of (m, W, G) the same sweeps are done in
// numbers with k infinitesimal parts, e^2 = 0 each: the part of e_1 .. e_k of the gradient is
// D^(k+1) S [d_1 .. d_k, .]. Channels lie innermost and are taken 64 bytes at a time; whatever one
// atom needs stays in the first cache. Compiled by library.py, called by product_native.py.

#include <cstdint>
#include <cstring>

#include "product.h"

namespace {
namespace product {

template <class T, int K> void run(const Problem& p) {
    Sweep<T, K> sweep(p);
    const int64_t width[FACTORS] = {p.dim_in * p.channels, p.paths * p.channels,
                                    p.dim_out * p.channels};
    const int64_t count[FACTORS] = {p.atoms, p.num_species, p.atoms};
    for (auto& part : p.out)
        if (part[WEIGHT])
            std::memset(part[WEIGHT], 0, p.batch * p.num_species * width[WEIGHT] * sizeof(T));
    for (int64_t b = 0; b < p.batch; ++b) {
        for (int64_t i = 0; i < p.atoms; ++i) {
            Arrays<T> a;
            for (int s = 0; s < 4; ++s)
                for (int f = 0; f < FACTORS; ++f) {
                    const int64_t row = f == WEIGHT ? p.species[i] : i;
                    const T* from = s < 3 ? member<T>(p.in[s][f], p.step[s][f], b) : nullptr;
                    T* to = part<T>(p.out[s][f], count[f] * width[f], b);
                    a.in[s][f] = from ? from + row * width[f] : nullptr;
                    a.out[s][f] = to ? to + row * width[f] : nullptr;
                }
            int64_t c = 0;
            for (; c + LANES<T> <= p.channels; c += LANES<T>)
                sweep.template block<true>(a, c, LANES<T>);
            if (c < p.channels) sweep.template block<false>(a, c, int(p.channels - c));
        }
    }
}

bool valid(const Problem& p) {
    int32_t last = 0;
    for (int64_t t = 0; t < p.num_terms; ++t) {
        const Term& term = p.terms[t];
        const int64_t before = p.dim_in + term.row;
        if (term.row < last || term.row > last + 1 || term.first < 0 || term.first >= before ||
            term.second < 0 || term.second >= before)
            return false;
        last = term.row;
    }
    const int64_t nodes = p.dim_in + (p.num_terms ? last + 1 : 0);
    for (int64_t r = 0; r < p.num_rows; ++r) {
        const Row& row = p.rows[r];
        if (row.node < 0 || row.node >= nodes || row.path < 0 || row.path >= p.paths ||
            row.component < 0 || row.component >= p.dim_out)
            return false;
    }
    for (int64_t i = 0; i < p.atoms; ++i)
        if (p.species[i] < 0 || p.species[i] >= p.num_species) return false;
    return true;
}

template <class T> int run(int directions, const Problem& p) {
    if (!valid(p)) return 1;
    if (directions == 0) run<T, 0>(p);
    if (directions == 1) run<T, 1>(p);
    if (directions == 2) run<T, 2>(p);
    return 0;
}

}  // namespace product
}  // namespace

extern "C" int tace_product_float(int directions, const product::Problem* p) {
    return product::run<float>(directions, *p);
}
extern "C" int tace_product_double(int directions, const product::Problem* p) {
    return product::run<double>(directions, *p);
}
