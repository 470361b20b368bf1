// What a whole network and a batch look like to network.cpp; mirrored in network.py.
//
// A member's numbers lie in one array; `*_at` are places in it, -1 where there is nothing. Widths
// are channels filled up with zeros to whole multiples of 64 bytes.

#pragma once

#include <cstdint>

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
    int64_t readout_at;
    double spacing;
    const edge_sums::Pair* pairs;
    const int64_t* paths_of_degree;
    const Coupling* couplings;
    const product::Term* terms;
    const product::Row* product_rows;
    const void* const* tables;  // radial pieces of each member
};

struct Model {
    geometry::Constants edges;
    int64_t num_species, num_layers, hidden_width;
    int64_t hidden_at, hidden_back_at, out_at;
    const Layer* layers;
    const void* const* numbers;  // of each member
    const double* const* head;   // of each member: E0, scale and shift of each species
};

struct Call {
    const Model* model;
    int64_t first_member, members, atoms, slots, edges;
    const int64_t *edge_of_slot, *sender, *sender_species;
    const int64_t *first, *last;  // slots of each atom that hold edges
    const int64_t* species;       // ascending
    const void* vectors;          // (members, edges, 3)
    void* kept;                   // by the forward pass for the backward one
    double* energy;               // (members, atoms)
    void* descriptors;            // (members, atoms, channels of all layers)
    const double* by_energy;      // null stands for zero
    const void* by_descriptors;
    void* by_vectors;
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

// What the forward pass of one member leaves behind.
template <class T> struct Kept {
    T *distances, *harmonics, *hidden;
    double *coordination, *readout;
    KeptLayer<T> layers[MAX_LAYERS];

    Kept(const Call& call, Arena& arena) {
        const Model& model = *call.model;
        const int64_t rows = call.atoms * call.slots;
        distances = arena.take<T>(rows);
        harmonics = arena.take<T>(rows * components(model.edges.degree));
        hidden = arena.take<T>(call.atoms * model.hidden_width);
        coordination = arena.take<double>(call.atoms);
        readout = arena.take<double>(call.atoms);
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
