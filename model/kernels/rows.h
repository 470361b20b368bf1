// Rows of channels times a matrix: the linear maps of a network.
//
// Channels are whole multiples of 64 bytes. Six rows and four vectors of results stay in registers
// while the matrix streams by.

#pragma once

#include <algorithm>
#include <cstdint>

#include "lanes.h"

namespace {

// `per_atom` rows of each of `atoms` atoms; the steps are counted in numbers.
template <class T> struct Rows {
    T* start;
    int64_t atoms, per_atom, atom_step, row_step;
};

// Components of degree l of `atoms` atoms with `dim` components of `width` channels each.
template <class T> Rows<T> degree_rows(T* start, int64_t atoms, int64_t l, int64_t dim, int64_t width) {
    return {start + l * l * width, atoms, 2 * l + 1, dim * width, width};
}

// Fills `to` with the addresses of the rows from (atom, row) on, and moves on.
template <class T> struct Cursor {
    const Rows<T>& rows;
    int64_t atom = 0, row = 0;
    void take(T** to, int count) {
        for (int r = 0; r < count; ++r) {
            to[r] = rows.start + atom * rows.atom_step + row * rows.row_step;
            if (++row == rows.per_atom) row = 0, ++atom;
        }
    }
};

template <class T, int R, int V>
inline void multiply_tile(const T* const* in, T* const* out, const T* matrix, int64_t depth,
                          int64_t width, int64_t column, bool accumulate) {
    Vec<T> sum[R][V];
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v)
            sum[r][v] = accumulate ? load<T, true>(out[r] + column + v * LANES<T>, 0) : Vec<T>{};
    const T* from = matrix + column;
    for (int64_t k = 0; k < depth; ++k, from += width) {
        Vec<T> right[V];
        for (int v = 0; v < V; ++v) right[v] = load<T, true>(from + v * LANES<T>, 0);
        for (int r = 0; r < R; ++r)
            for (int v = 0; v < V; ++v) sum[r][v] += in[r][k] * right[v];
    }
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) store<T, true>(out[r] + column + v * LANES<T>, sum[r][v], 0);
}

template <class T, int R>
void multiply_rows(const T* const* in, T* const* out, const T* matrix, int64_t depth, int64_t width,
                   bool accumulate) {
    int64_t c = 0;
    for (; c + 4 * LANES<T> <= width; c += 4 * LANES<T>)
        multiply_tile<T, R, 4>(in, out, matrix, depth, width, c, accumulate);
    for (; c + 2 * LANES<T> <= width; c += 2 * LANES<T>)
        multiply_tile<T, R, 2>(in, out, matrix, depth, width, c, accumulate);
    for (; c < width; c += LANES<T>)
        multiply_tile<T, R, 1>(in, out, matrix, depth, width, c, accumulate);
}

// out = in matrix, or out += in matrix; the matrix is (depth, width), row after row.
template <class T>
void multiply(const Rows<const T>& in, const Rows<T>& out, const T* matrix, int64_t depth, int64_t width,
              bool accumulate) {
    Cursor<const T> left{in};
    Cursor<T> right{out};
    const T* from[6];
    T* to[6];
    for (int64_t rest = in.atoms * in.per_atom; rest > 0; rest -= 6) {
        const int count = int(std::min<int64_t>(rest, 6));
        left.take(from, count);
        right.take(to, count);
        switch (count) {
            case 1: multiply_rows<T, 1>(from, to, matrix, depth, width, accumulate); break;
            case 2: multiply_rows<T, 2>(from, to, matrix, depth, width, accumulate); break;
            case 3: multiply_rows<T, 3>(from, to, matrix, depth, width, accumulate); break;
            case 4: multiply_rows<T, 4>(from, to, matrix, depth, width, accumulate); break;
            case 5: multiply_rows<T, 5>(from, to, matrix, depth, width, accumulate); break;
            default: multiply_rows<T, 6>(from, to, matrix, depth, width, accumulate);
        }
    }
}

}  // namespace
