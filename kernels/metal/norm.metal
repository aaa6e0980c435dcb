// Norms of rows: a threadgroup for each.
#include "common.h"
#include "params.h"

/// The sum of what all threads give. `slots` are not used again before the next barrier but one.
inline float sum_of_all(float mine, threadgroup float *slots, ushort simd, ushort lane, uint simds) {
    const float sum = simd_sum(mine);
    if (lane == 0) {
        slots[simd] = sum;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float all = 0.0f;
    for (uint s = 0; s < simds; s++) {
        all += slots[s];
    }
    return all;
}

/// Root mean square norm: `x / sqrt(mean(x^2) + eps) * weight`. `x` and `out` may be one.
kernel void rms_norm(
    constant norm_params &p [[buffer(0)]], device const float *x [[buffer(1)]],
    device const float *weight [[buffer(2)]], device float *out [[buffer(3)]], SHARED, GRID) {
    const ulong row = ulong(group.x) * p.width;
    const uint first = simd * LANES + lane, step = p.simds * LANES;
    float squares = 0.0f;
    for (uint i = first; i < p.width; i += step) {
        squares = fma(x[row + i], x[row + i], squares);
    }
    const float mean = sum_of_all(squares, shared, simd, lane, p.simds) / float(p.width);
    const float scale = 1.0f / sqrt(mean + p.eps);
    for (uint i = first; i < p.width; i += step) {
        out[row + i] = x[row + i] * scale * weight[i];
    }
}
PLAIN(rms_norm)

/// Layer norm: `(x - mean) / sqrt(variance + eps) * weight + bias`. `x` and `out` may be one.
kernel void layer_norm(
    constant norm_params &p [[buffer(0)]], device const float *x [[buffer(1)]],
    device const float *weight [[buffer(2)]], device const float *bias [[buffer(3)]],
    device float *out [[buffer(4)]], SHARED, GRID) {
    const ulong row = ulong(group.x) * p.width;
    const uint first = simd * LANES + lane, step = p.simds * LANES;
    float sum = 0.0f;
    for (uint i = first; i < p.width; i += step) {
        sum += x[row + i];
    }
    const float mean = sum_of_all(sum, shared, simd, lane, p.simds) / float(p.width);
    float squares = 0.0f;
    for (uint i = first; i < p.width; i += step) {
        const float far = x[row + i] - mean;
        squares = fma(far, far, squares);
    }
    const float variance = sum_of_all(squares, shared + LANES, simd, lane, p.simds) / float(p.width);
    const float scale = 1.0f / sqrt(variance + p.eps);
    for (uint i = first; i < p.width; i += step) {
        out[row + i] = (x[row + i] - mean) * scale * weight[i] + bias[i];
    }
}
PLAIN(layer_norm)

/// What of each value lies above its row's mean and `eps` standard deviations; 0 where nothing does. In place.
kernel void sparse(
    constant norm_params &p [[buffer(0)]], device float *x [[buffer(1)]], SHARED, GRID) {
    const ulong row = ulong(group.x) * p.width;
    const uint first = simd * LANES + lane, step = p.simds * LANES;
    float sum = 0.0f;
    for (uint i = first; i < p.width; i += step) {
        sum += x[row + i];
    }
    const float mean = sum_of_all(sum, shared, simd, lane, p.simds) / float(p.width);
    float squares = 0.0f;
    for (uint i = first; i < p.width; i += step) {
        const float far = x[row + i] - mean;
        squares = fma(far, far, squares);
    }
    const float variance = sum_of_all(squares, shared + LANES, simd, lane, p.simds) / float(p.width);
    const float cutoff = mean + sqrt(variance) * p.eps;
    for (uint i = first; i < p.width; i += step) {
        const float above = x[row + i] - cutoff;
        // NaN stays.
        x[row + i] = above < 0.0f ? 0.0f : above;
    }
}
PLAIN(sparse)
