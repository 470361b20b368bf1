// The spectral product of one atom and block of channels, and its derivatives.
//
//     x_r = sum_terms c x_a x_b,   a, b < r;  the first x are the message m
//     out[d] = sum_rows c W[Z, path] x_node
//
// One sweep forth for the values, one back for the adjoints, in numbers with infinitesimal parts
// (product.cpp says why).

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lanes.h"

namespace {
namespace product {

struct Term { int32_t row, first, second; };  // row counts from the first x behind the message
struct Row { int32_t node, path, component; };
enum Factor { MESSAGE, WEIGHT, COTANGENT, FACTORS };

struct Problem {  // mirrored in product_native.py
    int64_t batch, atoms, channels, dim_in, dim_out, num_species, paths, num_terms, num_rows;
    const Term* terms;  // rows ascending
    const Row* rows;
    const void* coefficients;  // of the terms, then of the rows
    const int64_t* species;
    // the point, then two directions; null stands for zero, which no point may be;
    // step is the distance of two members of the batch, 0 where they share
    const void* in[3][FACTORS];
    int64_t step[3][FACTORS];
    // parts 1, e_1, e_2 and e_1 e_2 of the gradient, one after another in the batch; null where
    // nobody asks
    void* out[4][FACTORS];
};

// A number with K infinitesimal parts: value + slope e_K.
template <class T, int K> struct Jet { Jet<T, K - 1> value, slope; };
template <class T> struct Jet<T, 0> { Vec<T> value; };

template <class T> inline Jet<T, 0> operator*(const Jet<T, 0>& a, const Jet<T, 0>& b) {
    return {a.value * b.value};
}
template <class T> inline Jet<T, 0> operator*(T a, const Jet<T, 0>& b) { return {a * b.value}; }
template <class T> inline Jet<T, 0> operator+(const Jet<T, 0>& a, const Jet<T, 0>& b) {
    return {a.value + b.value};
}
template <class T, int K> inline Jet<T, K> operator+(const Jet<T, K>& a, const Jet<T, K>& b) {
    return {a.value + b.value, a.slope + b.slope};
}
template <class T, int K> inline Jet<T, K> operator*(const Jet<T, K>& a, const Jet<T, K>& b) {
    return {a.value * b.value, a.value * b.slope + a.slope * b.value};
}
template <class T, int K> inline Jet<T, K> operator*(T a, const Jet<T, K>& b) {
    return {a * b.value, a * b.slope};
}

// One atom's arrays by part and factor, and the block of channels at hand.
template <class T> struct Arrays {
    const T* in[4][FACTORS];
    T* out[4][FACTORS];
};

template <class T, int K, bool FULL>
inline Jet<T, K> read(const Arrays<T>& a, Factor factor, int64_t place, int count, int part = 0) {
    if constexpr (K == 0) {
        const T* from = a.in[part][factor];
        return {from ? load<T, FULL>(from + place, count) : Vec<T>{}};
    } else {
        return {read<T, K - 1, FULL>(a, factor, place, count, part),
                read<T, K - 1, FULL>(a, factor, place, count, part + (1 << (K - 1)))};
    }
}
template <class T, int K, bool FULL, bool ADD>
inline void write(const Arrays<T>& a, Factor factor, int64_t place, int count, const Jet<T, K>& x,
                  int part = 0) {
    if constexpr (K == 0) {
        T* to = a.out[part][factor];
        if (!to) return;
        if (ADD) add<T, FULL>(to + place, x.value, count);
        else store<T, FULL>(to + place, x.value, count);
    } else {
        write<T, K - 1, FULL, ADD>(a, factor, place, count, x.value, part);
        write<T, K - 1, FULL, ADD>(a, factor, place, count, x.slope, part + (1 << (K - 1)));
    }
}

// Values and adjoints of one atom and block of channels.
template <class T, int K> struct Sweep {
    const Problem& p;
    const T *terms, *rows;  // coefficients
    std::vector<Jet<T, K>> x, by_x, by_cotangent;

    explicit Sweep(const Problem& p)
        : p(p), terms(static_cast<const T*>(p.coefficients)), rows(terms + p.num_terms) {
        const int64_t nodes = p.dim_in + (p.num_terms ? p.terms[p.num_terms - 1].row + 1 : 0);
        x.resize(nodes);
        by_x.resize(nodes);
        by_cotangent.resize(p.dim_out);
    }

    template <bool FULL> void values(const Arrays<T>& a, int64_t c, int count) {
        for (int64_t k = 0; k < p.dim_in; ++k)
            x[k] = read<T, K, FULL>(a, MESSAGE, k * p.channels + c, count);
        for (int64_t t = 0; t < p.num_terms;) {
            const int32_t row = p.terms[t].row;
            Jet<T, K> sum{};
            for (; t < p.num_terms && p.terms[t].row == row; ++t)
                sum = sum + terms[t] * (x[p.terms[t].first] * x[p.terms[t].second]);
            x[p.dim_in + row] = sum;
        }
    }

    template <bool FULL> void results(const Arrays<T>& a, int64_t c, int count) {
        std::fill(by_cotangent.begin(), by_cotangent.end(), Jet<T, K>{});
        for (int64_t r = 0; r < p.num_rows; ++r) {
            const Row& row = p.rows[r];
            const auto weight = read<T, K, FULL>(a, WEIGHT, row.path * p.channels + c, count);
            auto& sum = by_cotangent[row.component];
            sum = sum + rows[r] * (weight * x[row.node]);
        }
        for (int64_t d = 0; d < p.dim_out; ++d)
            write<T, K, FULL, false>(a, COTANGENT, d * p.channels + c, count, by_cotangent[d]);
    }

    template <bool FULL> void adjoints(const Arrays<T>& a, int64_t c, int count) {
        std::fill(by_x.begin(), by_x.end(), Jet<T, K>{});
        for (int64_t r = 0; r < p.num_rows; ++r) {
            const Row& row = p.rows[r];
            const int64_t at = row.path * p.channels + c;
            const auto weight = read<T, K, FULL>(a, WEIGHT, at, count);
            const auto cotangent =
                rows[r] * read<T, K, FULL>(a, COTANGENT, row.component * p.channels + c, count);
            by_x[row.node] = by_x[row.node] + weight * cotangent;
            write<T, K, FULL, true>(a, WEIGHT, at, count, x[row.node] * cotangent);
        }
        for (int64_t t = p.num_terms - 1; t >= 0; --t) {
            const Term& term = p.terms[t];
            const auto scaled = terms[t] * by_x[p.dim_in + term.row];
            by_x[term.first] = by_x[term.first] + scaled * x[term.second];
            by_x[term.second] = by_x[term.second] + scaled * x[term.first];
        }
        for (int64_t k = 0; k < p.dim_in; ++k)
            write<T, K, FULL, false>(a, MESSAGE, k * p.channels + c, count, by_x[k]);
    }

    template <bool FULL> void block(const Arrays<T>& a, int64_t c, int count) {
        values<FULL>(a, c, count);
        bool asked = false;
        for (int part = 0; part < 1 << K; ++part) asked = asked || a.out[part][COTANGENT];
        if (asked) results<FULL>(a, c, count);
        if (a.in[0][COTANGENT]) adjoints<FULL>(a, c, count);
    }
};

}  // namespace product
}  // namespace
