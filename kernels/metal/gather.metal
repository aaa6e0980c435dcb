// Rows and columns brought together.
#include "common.h"
#include "params.h"

/// Copies columns of a matrix to columns of another.
kernel void copy_columns(
    constant copy_params &p [[buffer(0)]], device const float *x [[buffer(1)]], device float *out [[buffer(2)]], GRID) {
    const uint i = (group.x * 2 + simd) * LANES + lane;
    if (i < p.width) {
        out[ulong(group.y) * p.to_row + p.to + i] = x[ulong(group.y) * p.from_row + p.from + i];
    }
}
PLAIN(copy_columns)

/// Adds to each row another's times one of the row's factors; the first of them is not added but written.
kernel void blend(
    constant copy_params &p [[buffer(0)]], device const float *x [[buffer(1)]],
    device const float *factors [[buffer(2)]], device float *out [[buffer(3)]], GRID) {
    const uint i = (group.x * 2 + simd) * LANES + lane;
    if (i < p.width) {
        const ulong at = ulong(group.y) * p.width + i;
        const float before = p.factor == 0 ? 0.0f : out[at];
        out[at] = before + factors[group.y * p.stride + p.factor] * x[at];
    }
}
PLAIN(blend)

/// For each token the sum of its slots' rows, times their weights, in the order in which it chose them.
kernel void combine(
    constant combine_params &p [[buffer(0)]], device const float *x [[buffer(1)]],
    device const uint *chosen [[buffer(2)]], device const float *factors [[buffer(3)]],
    device float *out [[buffer(4)]], GRID) {
    const uint i = (group.x * 2 + simd) * LANES + lane;
    if (i >= p.width) {
        return;
    }
    float sum = 0.0f;
    for (uint n = 0; n < p.per_token; n++) {
        const uint slot = chosen[group.y * p.per_token + n];
        sum += (p.weighted ? factors[slot] : 1.0f) * x[ulong(slot) * p.width + i];
    }
    out[ulong(group.y) * p.width + i] = sum;
}
PLAIN(combine)
