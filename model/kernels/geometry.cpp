// What the layers read of every edge slot, and the gradient by the edge vectors.
//
//     r = |v|,   Y_l(v / r),   n_i = sum_slots f_c(r),   z_i = half of the ZBL energies of an atom
//
// Harmonics of degree l are a small matrix times the monomials of degree l, each of which is one of
// degree l - 1 times x, y or z. Numbers are doubles inside. Empty slots lie outside every cutoff.
// Compiled by library.py, called by geometry.py.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr int MAX_DEGREE = 6, MAX_MONOMIALS = (MAX_DEGREE + 1) * (MAX_DEGREE + 2) / 2;

struct Problem {  // mirrored in geometry.py
    int64_t backward;  // 0 for values, 1 for the gradient by the vectors
    int64_t shared;    // whether the batch is one of cotangents at the same vectors
    int64_t batch, edges, atoms, slots, degree, power, num_species;
    double cutoff, outside, coulomb;
    const int64_t* edge_of_slot;  // `edges` and more for empty ones
    const int32_t* parents;       // of the monomials of degree 1, 2, ...
    const int32_t* axes;
    const double* coefficients;  // (2 l + 1, monomials) of degree 1, 2, ...
    const int64_t* receiver_species;
    const int64_t* sender_species;
    const double* charges;  // of each species; null without ZBL
    const double* radii;
    const double* screening;
    const double* phi;  // four amplitudes, four decays
    const void* vectors;
    void* distances;
    void* harmonics;
    void* coordination;
    void* repulsion;
    // gradients by what was computed; null stands for zero
    const void* by_distances;
    const void* by_harmonics;
    const void* by_coordination;
    const void* by_repulsion;
    void* by_vectors;
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

inline Curve repulsion(const Problem& p, double r, int64_t a, int64_t b) {
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
    const Problem& p;
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

template <class T> inline double read(const void* array, int64_t place) {
    return array ? double(static_cast<const T*>(array)[place]) : 0.0;
}

// What an edge says about its gradient, whatever the cotangents.
struct Edge {
    double unit[3], r;
    Curve cutoff, repulsion;
};

// Adds one edge's gradient for the cotangents of batch member b.
template <class T>
void add_gradient(const Problem& p, const Monomials& monomials, const Edge& e, int64_t b, int64_t atom,
                  int64_t row, int64_t edge) {
    const int64_t components = (p.degree + 1) * (p.degree + 1);
    const int64_t place = b * p.atoms * p.slots + row, centre = b * p.atoms + atom;
    double g[3] = {0.0, 0.0, 0.0};
    if (p.by_harmonics)
        monomials.back(static_cast<const T*>(p.by_harmonics) + place * components, e.unit, g);
    const double along = g[0] * e.unit[0] + g[1] * e.unit[1] + g[2] * e.unit[2];
    const double radial = read<T>(p.by_distances, place) +
                          read<T>(p.by_coordination, centre) * e.cutoff.slope +
                          read<T>(p.by_repulsion, centre) * e.repulsion.slope;
    T* to = static_cast<T*>(p.by_vectors) + 3 * (b * p.edges + edge);
    for (int k = 0; k < 3; ++k) to[k] += T((g[k] - along * e.unit[k]) / e.r + radial * e.unit[k]);
}

template <class T> void run(const Problem& p) {
    const int64_t rows = p.atoms * p.slots, components = (p.degree + 1) * (p.degree + 1);
    const int64_t copies = p.shared ? p.batch : 1;
    Monomials monomials{p, {}};
    if (p.backward) std::memset(p.by_vectors, 0, p.batch * p.edges * 3 * sizeof(T));
    for (int64_t b = 0; b < p.batch; b += copies)
        for (int64_t i = 0; i < p.atoms; ++i) {
            double coordination = 0.0, energy = 0.0;
            for (int64_t s = 0; s < p.slots; ++s) {
                const int64_t row = i * p.slots + s, place = b * rows + row;
                const int64_t edge = p.edge_of_slot[row];
                T* y = static_cast<T*>(p.harmonics) + place * components;
                if (edge >= p.edges) {
                    if (p.backward) continue;
                    static_cast<T*>(p.distances)[place] = T(p.outside);
                    std::memset(y, 0, components * sizeof(T));
                    continue;
                }
                const T* v = static_cast<const T*>(p.vectors) + 3 * (b * p.edges + edge);
                const double x[3] = {double(v[0]), double(v[1]), double(v[2])};
                const double r = std::sqrt(x[0] * x[0] + x[1] * x[1] + x[2] * x[2]);
                Edge e{{x[0] / r, x[1] / r, x[2] / r}, r, envelope(r, p.cutoff, int(p.power)), {}};
                if (p.charges)
                    e.repulsion = repulsion(p, r, p.receiver_species[i], p.sender_species[row]);
                monomials.fill(e.unit);
                if (p.backward) {
                    for (int64_t copy = 0; copy < copies; ++copy)
                        add_gradient<T>(p, monomials, e, b + copy, i, row, edge);
                    continue;
                }
                static_cast<T*>(p.distances)[place] = T(r);
                monomials.harmonics(y);
                coordination += e.cutoff.value;
                energy += e.repulsion.value;
            }
            if (!p.backward) {
                static_cast<T*>(p.coordination)[b * p.atoms + i] = T(coordination);
                static_cast<T*>(p.repulsion)[b * p.atoms + i] = T(energy);
            }
        }
}

bool valid(const Problem& p) {
    if (p.degree < 0 || p.degree > MAX_DEGREE) return false;
    if (!p.charges) return true;
    for (int64_t i = 0; i < p.atoms; ++i)
        if (p.receiver_species[i] < 0 || p.receiver_species[i] >= p.num_species) return false;
    for (int64_t row = 0; row < p.atoms * p.slots; ++row)
        if (p.sender_species[row] < 0 || p.sender_species[row] >= p.num_species) return false;
    return true;
}

template <class T> int checked(const Problem& p) {
    if (!valid(p)) return 1;
    run<T>(p);
    return 0;
}

}  // namespace

extern "C" int tace_geometry_float(const Problem* p) { return checked<float>(*p); }
extern "C" int tace_geometry_double(const Problem* p) { return checked<double>(*p); }
