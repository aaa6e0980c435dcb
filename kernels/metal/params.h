// The arguments of kernels: the same structs as in `src/metal/params.rs`, field by field.
#pragma once

#include "common.h"

/// Products of a matrix of weights with rows of activations (matvec, matmul).
struct product_params {
    uint len;        // inputs
    uint rows;       // outputs
    uint columns;    // rows of activations
    uint row_bytes;  // of a row of weights
    uint of;         // rows of an expert in all
    uint first;      // the first of them that is taken
    uint by_expert;  // whether the matrix is that of experts
    uint has_bias;
};
static_assert(sizeof(product_params) == 32, "as on the host");

/// Rows of a table as floats (lookup), or rows of activations (select).
struct lookup_params {
    uint len;        // values of a row
    uint count;      // rows to be read
    uint row_bytes;  // of a row of the table
    uint rows;       // of the table
};
static_assert(sizeof(lookup_params) == 16, "as on the host");

/// Attention of some tokens.
struct attention_params {
    uint tokens;
    uint heads;      // of queries
    uint group;      // heads of queries to a head of keys
    uint key_dim;
    uint value_dim;
    uint key_len;    // values of a key with those that fill its row
    uint value_len;  // the same of a value
    uint key_bytes;  // of a row of keys
    uint value_bytes;
    uint capacity;   // positions that the cache holds; they are taken in turn
    uint position;   // of the first token
    uint part;       // positions of a part, a multiple of 32
    uint parts;
    uint has_slopes;
    uint has_sinks;
    float scale;
    float cap;       // 0 where scores are not capped
};
static_assert(sizeof(attention_params) == 68, "as on the host");

/// Keys or values that are kept.
struct keep_params {
    uint tokens;
    uint heads;
    uint dim;
    uint len;        // values with those that fill the row
    uint row_bytes;
    uint capacity;
    uint position;
};
static_assert(sizeof(keep_params) == 28, "as on the host");

/// The norm of each row.
struct norm_params {
    uint width;
    uint simds;  // simdgroups of a threadgroup
    float eps;
};
static_assert(sizeof(norm_params) == 12, "as on the host");

/// Rotary embedding.
struct rope_params {
    uint tokens;
    uint width;     // of a token's row
    uint head_dim;
    uint pairs;     // that are turned in each head
    uint halves;    // 1: (x[i], x[i + pairs]); 0: neighbours
};
static_assert(sizeof(rope_params) == 20, "as on the host");

/// A function of each value of a matrix.
struct map_params {
    uint rows;
    uint width;
    uint kind;     // ACTIVATION_*, MAP_* or WITH_*
    uint has_up;   // whether a gate multiplies
    float number;  // what the function needs
};
static_assert(sizeof(map_params) == 20, "as on the host");

/// A rectangle of a matrix, copied or added to another.
struct copy_params {
    uint rows;
    uint width;     // of the rectangle
    uint from_row;  // values of a whole row of the source
    uint from;      // the rectangle's first column there
    uint to_row;    // the same of the result
    uint to;
    uint stride;    // factors of a row
    uint factor;    // which of them
};
static_assert(sizeof(copy_params) == 32, "as on the host");

/// The sums of each token's slots.
struct combine_params {
    uint tokens;
    uint width;
    uint per_token;
    uint weighted;
};
static_assert(sizeof(combine_params) == 16, "as on the host");

/// The largest values of each row.
struct top_k_params {
    uint rows;
    uint width;
    uint k;
    uint simds;    // simdgroups of a threadgroup
    uint part;     // values of a part of a row
    uint parts;
    uint has_ids;  // whether values bring their places along
};
static_assert(sizeof(top_k_params) == 28, "as on the host");

/// The choice of experts.
struct route_params {
    uint experts;      // in all
    uint used;         // of a token, at most 32
    uint scoring;      // SCORING_*
    uint normalize;    // whether the weights of the chosen are made to sum to one
    uint groups;
    uint used_groups;  // that a token chooses from
    uint has_bias;
    uint has_scales;   // whether experts have factors of their own
    float scale;
};
static_assert(sizeof(route_params) == 36, "as on the host");

/// Recurrences of matrices (recur, wkv).
struct recurrence_params {
    uint tokens;
    uint heads;      // of values, each with a state
    uint key_heads;
    uint key_dim;
    uint value_dim;
    uint delta;      // whether what the state gives for a key is taken off its value
    uint tiled;      // head i has key head i % key_heads
};
static_assert(sizeof(recurrence_params) == 28, "as on the host");

/// Channels with states of their own, or with some tokens before (scan, convolve).
struct scan_params {
    uint tokens;
    uint channels;
    uint states;    // of a channel; of a convolution the tokens that it sees
    uint has_bias;
};
static_assert(sizeof(scan_params) == 16, "as on the host");

// `Activation` of the CPU.
enum {
    ACTIVATION_SILU,
    ACTIVATION_GELU_TANH,
    ACTIVATION_GELU,
    ACTIVATION_RELU,
    ACTIVATION_RELU_SQUARED,
    ACTIVATION_SIGMOID,
    ACTIVATION_IDENTITY,
    ACTIVATION_SWIGLU_CLAMPED,
};

// `Map` of the backend; Sparse is a kernel of its own.
enum {
    MAP_SCALE,
    MAP_CLAMP,
    MAP_SOFT_CAP,
    MAP_SOFTPLUS,
    MAP_EXP,
};

// `Scoring` of the backend.
enum {
    SCORING_SOFTMAX,
    SCORING_SIGMOID,
    SCORING_SOFTMAX_OF_CHOSEN,
};

// What becomes of each value with another: of a matrix alike, of its row, or of its column.
enum {
    WITH_ADD,
    WITH_ROW_FACTOR,
    WITH_COLUMN_FACTOR,
    WITH_COLUMN_TERM,
};
