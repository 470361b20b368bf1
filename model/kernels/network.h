// What a whole network and a batch look like to network.cpp; mirrored in network.py.
//
// A model is one trunk or several of one shape, each read by the same number of heads; every head of
// every trunk is a member, trunk after trunk. The numbers of a trunk lie in one array and those of a
// member in another; `*_at` are places in them, -1 where there is nothing. Widths are channels filled
// up with zeros to whole multiples of 64 bytes.

#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "edge_sums.h"
#include "geometry.h"
#include "product.h"

namespace {
namespace network {

struct Coupling { int32_t row, column; };  // of a coupled sum and of a sum; rows ascend

struct Layer {
    int64_t width_in, width, channels;  // channels without the filling
    int64_t degree_in, degree_out;      // highest ones of the features before and after
    int64_t num_pairs, paths, rows, pieces;
    int64_t num_coupled, num_couplings;
    int64_t num_terms, num_product_rows, product_paths;
    int64_t residual, residual_degree;  // whether of nothing, of the input (1) or the message (2)
    int64_t sent_at;                    // what the species send, in the first layer
    int64_t up_at, up_back_at, up_bias_at;
    int64_t coupling_at, mix_at, mix_back_at;
    int64_t coefficients_at, product_at, linear_at, linear_back_at;
    int64_t residual_at, residual_back_at, constant_at;  // the constant is one of species
    int64_t readout_at;  // among a member's numbers
    double spacing;
    const edge_sums::Pair* pairs;
    const int64_t* paths_of_degree;
    const Coupling* couplings;
    const product::Term* terms;
    const product::Row* product_rows;
    const void* const* tables;  // radial pieces of each trunk
};

struct Model {
    geometry::Constants edges;
    int64_t num_species, num_layers, num_heads, hidden_width;
    int64_t hidden_at, hidden_back_at, out_at;  // among a member's numbers
    const Layer* layers;
    const void* const* trunks;   // numbers of each trunk
    const void* const* members;  // numbers of each member
    const double* const* head;   // of each member: E0, scale and shift of each species
};

struct Call {
    const Model* model;
    int64_t first_trunk, trunks;  // of the model, that answer
    int64_t shared;               // whether one set of vectors serves all of them
    int64_t separate;             // whether heads have gradients of their own, or their sum
    int64_t atoms, slots, edges;
    int64_t systems, threads;     // structures, and how many threads may share them
    const int64_t *edge_of_slot, *sender, *sender_species;
    const int64_t *first, *last;  // slots of each atom that hold edges
    const int64_t* species;       // ascending
    const int64_t* system;        // structure of each atom
    const void* vectors;          // (trunks or 1, edges, 3)
    void* kept;                   // by the forward pass for the backward one
    double* energy;               // (members, atoms)
    void* descriptors;            // (trunks, atoms, channels of all layers)
    const double* by_energy;      // null stands for zero
    const void* by_descriptors;
    void* by_vectors;             // (members or trunks, edges, 3)
};

// Atoms begin to end - 1, and those of some structures: sorted by species they lie in few ranges.
struct Range { int64_t begin, end; };
using Ranges = std::vector<Range>;

// Numbers of each atom, `each` of them, of which those of some atoms are zero and the others unknown.
template <class T> struct PerAtom {
    std::unique_ptr<T[]> start;

    PerAtom(const Call& call, const Ranges& atoms, int64_t each) : start(new T[call.atoms * each]) {
        for (const Range& range : atoms)
            std::memset(start.get() + range.begin * each, 0, (range.end - range.begin) * each * sizeof(T));
    }
    T* data() const { return start.get(); }
};

// Room in one piece of memory; without memory it only counts.
struct Arena {
    char* start;
    int64_t used = 0;
    template <class U> U* take(int64_t count) {
        U* place = start ? reinterpret_cast<U*>(start + used) : nullptr;
        used += (count * int64_t(sizeof(U)) + 63) / 64 * 64;
        return place;
    }
};

// What the forward pass of one layer leaves behind.
template <class T> struct KeptLayer { T *sent, *message, *features; };

inline int64_t components(int64_t degree) { return (degree + 1) * (degree + 1); }

constexpr int MAX_LAYERS = 16;

// What is known of the edges of one set of vectors; repulsion is summed over those of an atom.
template <class T> struct Measured {
    T *distances, *harmonics;
    double *coordination, *repulsion;
    geometry::Edge* edges;

    Measured(const Call& call, Arena& arena) {
        const int64_t rows = call.atoms * call.slots;
        distances = arena.take<T>(rows);
        harmonics = arena.take<T>(rows * components(call.model->edges.degree));
        coordination = arena.take<double>(call.atoms);
        repulsion = arena.take<double>(call.atoms);
        edges = arena.take<geometry::Edge>(rows);
    }
};

// What the forward pass of one trunk and its heads leaves behind.
template <class T> struct Kept {
    T* hidden;        // (heads, atoms, width)
    double* readout;  // (heads, atoms)
    KeptLayer<T> layers[MAX_LAYERS];

    Kept(const Call& call, Arena& arena) {
        const Model& model = *call.model;
        hidden = arena.take<T>(model.num_heads * call.atoms * model.hidden_width);
        readout = arena.take<double>(model.num_heads * call.atoms);
        for (int64_t k = 0; k < model.num_layers; ++k) {
            const Layer& layer = model.layers[k];
            const int64_t atoms = call.atoms * layer.width;
            layers[k].sent = k ? arena.take<T>(atoms * components(layer.degree_in)) : nullptr;
            layers[k].message = arena.take<T>(atoms * components(model.edges.degree));
            layers[k].features = arena.take<T>(atoms * components(layer.degree_out));
        }
    }
};

}  // namespace network
}  // namespace
