// Functions of each value, in place: activations, gates, and what stands between layers.
#include "common.h"
#include "params.h"

/// `x / (1 + exp(-u))`.
inline float logistic(float x, float u) {
    return x / (1.0f + exp(-u));
}

/// `x / 2 (1 + erf(x / sqrt(2)))`, erf by Abramowitz and Stegun, 7.1.26.
inline float gelu(float x) {
    const float z = fabs(x) * 0.70710678f;
    const float t = 1.0f / fma(z, 0.3275911f, 1.0f);
    float p = 1.0614054f;
    p = fma(p, t, -1.453152f);
    p = fma(p, t, 1.4214137f);
    p = fma(p, t, -0.28449674f);
    p = fma(p, t, 0.2548296f);
    const float rest = p * t * exp(-z * z);
    return x * 0.5f * (x < 0.0f ? rest : 2.0f - rest);
}

// Comparisons here are such that NaN stays NaN.

inline float activation(uint kind, float x) {
    switch (kind) {
    case ACTIVATION_SILU:
        return logistic(x, x);
    case ACTIVATION_GELU_TANH:
        return logistic(x, x * 1.595769f * fma(x * x, 0.044715f, 1.0f));
    case ACTIVATION_GELU:
        return gelu(x);
    case ACTIVATION_RELU:
        return x < 0.0f ? 0.0f : x;
    case ACTIVATION_RELU_SQUARED:
        return x < 0.0f ? 0.0f : x * x;
    case ACTIVATION_SIGMOID:
        return logistic(1.0f, x);
    case ACTIVATION_SWIGLU_CLAMPED: {
        const float bounded = x > 7.0f ? 7.0f : x;
        return logistic(bounded, bounded * 1.702f);
    }
    default:
        return x;
    }
}

/// `x = activation(x)`, times `up` where a gate multiplies.
kernel void activate(
    constant map_params &p [[buffer(0)]], device float *x [[buffer(1)]], device const float *up [[buffer(2)]], GRID) {
    const uint column = (group.x * 2 + simd) * LANES + lane;
    if (column >= p.width) {
        return;
    }
    const ulong i = ulong(group.y) * p.width + column;
    float y = activation(p.kind, x[i]);
    if (p.has_up) {
        float by = up[i];
        if (p.kind == ACTIVATION_SWIGLU_CLAMPED) {
            by = (by > 7.0f ? 7.0f : by < -7.0f ? -7.0f : by) + 1.0f;
        }
        y *= by;
    }
    x[i] = y;
}
PLAIN(activate)

/// `x = map(x)`.
kernel void map_values(constant map_params &p [[buffer(0)]], device float *x [[buffer(1)]], GRID) {
    const uint column = (group.x * 2 + simd) * LANES + lane;
    if (column >= p.width) {
        return;
    }
    const ulong i = ulong(group.y) * p.width + column;
    const float a = x[i], n = p.number;
    float y = a;
    switch (p.kind) {
    case MAP_SCALE:
        y = a * n;
        break;
    case MAP_CLAMP:
        y = a > n ? n : a < -n ? -n : a;
        break;
    case MAP_SOFT_CAP:
        y = logistic(2.0f * n, a * (2.0f / n)) - n;
        break;
    case MAP_SOFTPLUS: {
        // ln(1 + e), with what is lost of a small e in 1 + e put back.
        const float e = exp(a), sum = 1.0f + e;
        y = a > 20.0f ? a : sum == 1.0f ? e : log(sum) * (e / (sum - 1.0f));
        break;
    }
    case MAP_EXP:
        y = exp(a);
        break;
    }
    x[i] = y;
}
PLAIN(map_values)

/// Each value with another: `x += y`, `x *= y[row]`, `x *= y[column]` or `x += y[column]`.
kernel void with_other(
    constant map_params &p [[buffer(0)]], device float *x [[buffer(1)]], device const float *y [[buffer(2)]], GRID) {
    const uint column = (group.x * 2 + simd) * LANES + lane;
    if (column >= p.width) {
        return;
    }
    const ulong i = ulong(group.y) * p.width + column;
    switch (p.kind) {
    case WITH_ADD:
        x[i] += y[i];
        break;
    case WITH_ROW_FACTOR:
        x[i] *= y[group.y];
        break;
    case WITH_COLUMN_FACTOR:
        x[i] *= y[column];
        break;
    case WITH_COLUMN_TERM:
        x[i] += y[column];
        break;
    }
}
PLAIN(with_other)
