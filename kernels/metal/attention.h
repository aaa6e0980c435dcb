// What both kernels of attention have in common: `attention.metal` for few queries, `attention_tile.metal` for many.
//
//   keys      [heads of keys][capacity] rows of key_len values       positions are taken in turn: row = position % capacity
//   values    [heads of keys][capacity] rows of value_len values
//   partial   [tokens][heads][parts] of: what exponents count from, sum of exponentials, value_dim sums
//
// A threadgroup has a tile of queries of one head of keys (of the heads that share it, of tokens one after the other) and one part
// of the positions: it is number (tile, head of keys, part) of the grid.
#pragma once

#include "formats.h"
#include "params.h"

/// `a` where `b` is NaN.
inline float larger(float a, float b) {
    return b > a ? b : a;
}

/// A query: whose it is, and which positions of the threadgroup's part it sees.
struct tile_query {
    uint token, head, from, to;
};

/// Number `query` of those of a head of keys; the last again where there are fewer.
inline tile_query query_at(constant attention_params &p, device const uint *visible, uint3 group, uint query) {
    query = min(query, p.tokens * p.group - 1);
    const uint token = query / p.group;
    return {token, group.y * p.group + query % p.group, max(visible[2 * token], group.z * p.part),
        min(visible[2 * token + 1], (group.z + 1) * p.part)};
}

/// Where the query's values lie, in rows of the queries' length.
inline ulong row_of(constant attention_params &p, tile_query q) {
    return ulong(q.token) * p.heads + q.head;
}

/// What the query's part leaves.
inline device float *partial_of(constant attention_params &p, device float *partial, tile_query q, uint3 group) {
    return partial + (row_of(p, q) * p.parts + group.z) * (2 + p.value_dim);
}

/// A score as softmax takes it: below the cap, less what the distance costs; of a position that the query does not see -INFINITY.
inline float seen_score(
    constant attention_params &p, device const float *slopes, tile_query q, uint position, float score) {
    if (p.cap > 0.0f) {
        score = p.cap - 2.0f * p.cap / (1.0f + exp(score * (2.0f / p.cap)));
    }
    if (p.has_slopes) {
        const uint own = p.position + q.token;
        score -= slopes[q.head] * float(position > own ? position - own : own - position);
    }
    return position < q.from || position >= q.to ? -INFINITY : score;
}

/// Calls the macro `X` with every pair of formats of keys and of values.
#define FOR_EACH_PAIR(X) WITH_KEYS(X, f32) WITH_KEYS(X, f16) WITH_KEYS(X, bf16) WITH_KEYS(X, q8_0) WITH_KEYS(X, q4_0)
#define WITH_KEYS(X, keys) X(keys, f32) X(keys, f16) X(keys, bf16) X(keys, q8_0) X(keys, q4_0)
