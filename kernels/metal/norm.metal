// Norms of rows: a threadgroup for each.
#include "common.h"
#include "params.h"

/// The sum of what all threads give; each call in a kernel has slots of its own.
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

/// A row's mean and variance.
inline float2 mean_and_variance(
    device const float *row, constant norm_params &p, threadgroup float *slots, ushort simd, ushort lane) {
    const uint first = simd * LANES + lane, step = p.simds * LANES;
    float sum = 0.0f;
    for (uint i = first; i < p.width; i += step) {
        sum += row[i];
    }
    const float mean = sum_of_all(sum, slots, simd, lane, p.simds) / float(p.width);
    float squares = 0.0f;
    for (uint i = first; i < p.width; i += step) {
        const float far = row[i] - mean;
        squares = fma(far, far, squares);
    }
    return float2(mean, sum_of_all(squares, slots + LANES, simd, lane, p.simds) / float(p.width));
}

/// What is left of a root mean square norm, `x / sqrt(mean(x^2) + eps) * weight`, when a thread has the squares of its values. `x`
/// and `out` may be one.
inline void by_root_mean_square(
    device const float *x, device const float *weight, device float *out, float squares, constant norm_params &p,
    threadgroup float *slots, ushort simd, ushort lane) {
    const float mean = sum_of_all(squares, slots, simd, lane, p.simds) / float(p.width);
    const float scale = 1.0f / sqrt(mean + p.eps);
    for (uint i = simd * LANES + lane; i < p.width; i += p.simds * LANES) {
        out[i] = x[i] * scale * weight[i];
    }
}

/// Root mean square norm.
kernel void rms_norm(
    constant norm_params &p [[buffer(0)]], device const float *x [[buffer(1)]],
    device const float *weight [[buffer(2)]], device float *out [[buffer(3)]], SHARED, GRID) {
    const ulong row = ulong(group.x) * p.width;
    float squares = 0.0f;
    for (uint i = simd * LANES + lane; i < p.width; i += p.simds * LANES) {
        squares = fma(x[row + i], x[row + i], squares);
    }
    by_root_mean_square(x + row, weight, out + row, squares, p, shared, simd, lane);
}
PLAIN(rms_norm)

/// `x += y`, and the root mean square norm of that. `out` may be `x` or `y`.
kernel void add_rms_norm(
    constant norm_params &p [[buffer(0)]], device float *x [[buffer(1)]], device const float *y [[buffer(2)]],
    device const float *weight [[buffer(3)]], device float *out [[buffer(4)]], SHARED, GRID) {
    const ulong row = ulong(group.x) * p.width;
    float squares = 0.0f;
    for (uint i = simd * LANES + lane; i < p.width; i += p.simds * LANES) {
        const float sum = x[row + i] + y[row + i];
        x[row + i] = sum;
        squares = fma(sum, sum, squares);
    }
    by_root_mean_square(x + row, weight, out + row, squares, p, shared, simd, lane);
}
PLAIN(add_rms_norm)

/// Layer norm: `(x - mean) / sqrt(variance + eps) * weight + bias`. `x` and `out` may be one.
kernel void layer_norm(
    constant norm_params &p [[buffer(0)]], device const float *x [[buffer(1)]],
    device const float *weight [[buffer(2)]], device const float *bias [[buffer(3)]],
    device float *out [[buffer(4)]], SHARED, GRID) {
    const ulong row = ulong(group.x) * p.width;
    const float2 about = mean_and_variance(x + row, p, shared, simd, lane);
    const float mean = about.x, scale = 1.0f / sqrt(about.y + p.eps);
    for (uint i = simd * LANES + lane; i < p.width; i += p.simds * LANES) {
        out[row + i] = (x[row + i] - mean) * scale * weight[i] + bias[i];
    }
}
PLAIN(layer_norm)

/// What of each value lies above its row's mean and `eps` standard deviations; 0 where nothing does. In place.
kernel void sparse(
    constant norm_params &p [[buffer(0)]], device float *x [[buffer(1)]], SHARED, GRID) {
    const ulong row = ulong(group.x) * p.width;
    const float2 about = mean_and_variance(x + row, p, shared, simd, lane);
    const float cutoff = about.x + sqrt(about.y) * p.eps;
    for (uint i = simd * LANES + lane; i < p.width; i += p.simds * LANES) {
        const float above = x[row + i] - cutoff;
        // NaN stays.
        x[row + i] = above < 0.0f ? 0.0f : above;
    }
}
PLAIN(sparse)
