// What the layers read of every edge slot, and the gradient by the edge vectors.
//
//     r = |v|,   Y_l(v / r),   n_i = sum_slots f_c(r),   z_i = half of the ZBL energies of an atom
//
// Harmonics of degree l are a small matrix times the monomials of degree l, each of which is one of
// degree l - 1 times x, y or z. Numbers are doubles inside. Empty slots lie outside every cutoff.
// Compiled by library.py, called by geometry.py.

#include <cstdint>
#include <cstring>

#include "geometry.h"

namespace {
namespace geometry {

struct Problem {  // mirrored in geometry.py
    Constants constants;
    int64_t backward;  // 0 for values, 1 for the gradient by the vectors
    int64_t shared;    // whether the batch is one of cotangents at the same vectors
    int64_t batch, edges, atoms, slots;
    double outside;
    const int64_t* edge_of_slot;  // `edges` and more for empty ones
    const int64_t* receiver_species;
    const int64_t* sender_species;
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

template <class T> inline double read(const void* array, int64_t place) {
    return array ? double(static_cast<const T*>(array)[place]) : 0.0;
}

// Adds one edge's gradient for the cotangents of batch member b.
template <class T>
void add_gradient(const Problem& p, const Monomials& monomials, const Edge& e, int64_t b, int64_t atom,
                  int64_t row, int64_t edge) {
    const int64_t components = (p.constants.degree + 1) * (p.constants.degree + 1);
    const int64_t place = b * p.atoms * p.slots + row, centre = b * p.atoms + atom;
    const T* by_harmonics = static_cast<const T*>(p.by_harmonics);
    const double radial = read<T>(p.by_distances, place) +
                          read<T>(p.by_coordination, centre) * e.cutoff.slope +
                          read<T>(p.by_repulsion, centre) * e.repulsion.slope;
    add_gradient(monomials, e, by_harmonics ? by_harmonics + place * components : nullptr, radial,
                 static_cast<T*>(p.by_vectors) + 3 * (b * p.edges + edge));
}

template <class T> void run(const Problem& p) {
    const int64_t rows = p.atoms * p.slots, components = (p.constants.degree + 1) * (p.constants.degree + 1);
    const int64_t copies = p.shared ? p.batch : 1;
    Monomials monomials{p.constants, {}};
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
                const Edge e(p.constants, v, p.receiver_species[i], p.sender_species[row]);
                monomials.fill(e.unit);
                if (p.backward) {
                    for (int64_t copy = 0; copy < copies; ++copy)
                        add_gradient<T>(p, monomials, e, b + copy, i, row, edge);
                    continue;
                }
                static_cast<T*>(p.distances)[place] = T(e.r);
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
    const Constants& c = p.constants;
    if (c.degree < 0 || c.degree > MAX_DEGREE) return false;
    if (!c.charges) return true;
    for (int64_t i = 0; i < p.atoms; ++i)
        if (p.receiver_species[i] < 0 || p.receiver_species[i] >= c.num_species) return false;
    for (int64_t row = 0; row < p.atoms * p.slots; ++row)
        if (p.sender_species[row] < 0 || p.sender_species[row] >= c.num_species) return false;
    return true;
}

template <class T> int checked(const Problem& p) {
    if (!valid(p)) return 1;
    run<T>(p);
    return 0;
}

}  // namespace geometry
}  // namespace

extern "C" int tace_geometry_float(const geometry::Problem* p) { return geometry::checked<float>(*p); }
extern "C" int tace_geometry_double(const geometry::Problem* p) { return geometry::checked<double>(*p); }
