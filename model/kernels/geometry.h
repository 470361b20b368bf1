// Cutoff function, repulsion and harmonics of one edge, and their gradients by the edge vector.
//
// Harmonics of degree l are a small matrix times the monomials of degree l, each of which is one of
// degree l - 1 times x, y or z. Numbers are doubles inside.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace {
namespace geometry {

constexpr int MAX_DEGREE = 6, MAX_MONOMIALS = (MAX_DEGREE + 1) * (MAX_DEGREE + 2) / 2;

struct Constants {  // of a network's edges; mirrored in geometry.py
    int64_t degree, power, num_species;
    double cutoff, coulomb;
    const int32_t* parents;  // of the monomials of degree 1, 2, ...
    const int32_t* axes;
    const double* coefficients;  // (2 l + 1, monomials) of degree 1, 2, ...
    const double* charges;       // of each species; null without ZBL
    const double* radii;
    const double* screening;
    const double* phi;  // four amplitudes, four decays
};

struct Curve { double value, slope; };

// f_c(r) = (1 - x)^3 sum_k (k + 1)(k + 2)/2 x^k, x = r / cutoff
inline Curve envelope(double r, double cutoff, int power) {
    const double x = r / cutoff;
    if (x >= 1.0) return {0.0, 0.0};
    double series = power * (power + 1) / 2.0, slope = 0.0;
    for (int k = power - 2; k >= 0; --k) {
        slope = slope * x + series;
        series = series * x + (k + 1) * (k + 2) / 2.0;
    }
    const double y = 1.0 - x;
    return {y * y * y * series, (y * y * y * slope - 3.0 * y * y * series) / cutoff};
}

inline Curve repulsion(const Constants& p, double r, int64_t a, int64_t b) {
    const double reach = std::min(p.radii[a] + p.radii[b], p.cutoff);
    if (r >= reach) return {0.0, 0.0};
    const double inverse_length = (p.screening[a] + p.screening[b]) / 0.46850;
    double phi = 0.0, slope = 0.0;
    for (int n = 0; n < 4; ++n) {
        const double decay = p.phi[4 + n] * inverse_length;
        const double part = p.phi[n] * std::exp(-decay * r);
        phi += part;
        slope -= decay * part;
    }
    const double scale = 0.5 * p.coulomb * p.charges[a] * p.charges[b];
    const Curve f = envelope(r, reach, 5);
    const double bare = scale * phi / r;
    return {bare * f.value, scale / r * (slope - phi / r) * f.value + bare * f.slope};
}

struct Monomials {
    const Constants& p;
    double value[MAX_DEGREE + 1][MAX_MONOMIALS];

    static int count(int l) { return (l + 1) * (l + 2) / 2; }

    void fill(const double* unit) {
        value[0][0] = 1.0;
        int64_t at = 0;
        for (int l = 1; l <= p.degree; ++l)
            for (int m = 0; m < count(l); ++m, ++at)
                value[l][m] = value[l - 1][p.parents[at]] * unit[p.axes[at]];
    }

    template <class T> void harmonics(T* to) const {
        *to++ = T(1);
        const double* c = p.coefficients;
        for (int l = 1; l <= p.degree; ++l)
            for (int row = 0; row < 2 * l + 1; ++row) {
                double sum = 0.0;
                for (int m = 0; m < count(l); ++m) sum += *c++ * value[l][m];
                *to++ = T(sum);
            }
    }

    // Gradient by the unit vector, as if its components were free.
    template <class T> void back(const T* by, const double* unit, double* gradient) const {
        double by_value[MAX_DEGREE + 1][MAX_MONOMIALS] = {};
        const double* c = p.coefficients;
        ++by;
        int64_t at = 0;
        for (int l = 1; l <= p.degree; ++l) {
            at += count(l);
            for (int row = 0; row < 2 * l + 1; ++row, ++by)
                for (int m = 0; m < count(l); ++m) by_value[l][m] += *c++ * double(*by);
        }
        for (int l = int(p.degree); l >= 1; --l) {
            at -= count(l);
            for (int m = 0; m < count(l); ++m) {
                const int parent = p.parents[at + m], axis = p.axes[at + m];
                by_value[l - 1][parent] += by_value[l][m] * unit[axis];
                gradient[axis] += by_value[l][m] * value[l - 1][parent];
            }
        }
    }
};

// Length and direction of an edge, and what follows from the length.
struct Edge {
    double unit[3], r;
    Curve cutoff, repulsion;

    Edge() = default;
    template <class T>
    Edge(const Constants& p, const T* v, int64_t receiver_species, int64_t sender_species)
        : repulsion{} {
        const double x[3] = {double(v[0]), double(v[1]), double(v[2])};
        r = std::sqrt(x[0] * x[0] + x[1] * x[1] + x[2] * x[2]);
        for (int k = 0; k < 3; ++k) unit[k] = x[k] / r;
        cutoff = envelope(r, p.cutoff, int(p.power));
        if (p.charges) repulsion = geometry::repulsion(p, r, receiver_species, sender_species);
    }
};

// Adds the gradient by the vector, from those by the harmonics (null for zero) and the length.
template <class T>
void add_gradient(const Monomials& monomials, const Edge& e, const T* by_harmonics, double radial, T* to) {
    double g[3] = {0.0, 0.0, 0.0};
    if (by_harmonics) monomials.back(by_harmonics, e.unit, g);
    const double along = g[0] * e.unit[0] + g[1] * e.unit[1] + g[2] * e.unit[2];
    for (int k = 0; k < 3; ++k) to[k] += T((g[k] - along * e.unit[k]) / e.r + radial * e.unit[k]);
}

}  // namespace geometry
}  // namespace
