// Recurrent layers: a thread goes through the tokens with a column of a head's state, or with a channel, since those do not
// meet. The operations and their order are those of the CPU (`src/recurrence.rs`, `src/wkv.rs`, `src/scan.rs`).
#include "common.h"
#include "params.h"

/// Gated delta nets, and Mamba 2 without the delta rule. `state` is `[heads][key_dim][value_dim]`, changed in place.
kernel void recur(
    constant recurrence_params &p [[buffer(0)]], device const float *queries [[buffer(1)]],
    device const float *keys [[buffer(2)]], device const float *values [[buffer(3)]],
    device const float *decays [[buffer(4)]], device const float *rates [[buffer(5)]],
    device float *state [[buffer(6)]], device float *out [[buffer(7)]], GRID) {
    const uint column = (group.x * 2 + simd) * LANES + lane, head = group.y;
    if (column >= p.value_dim) {
        return;
    }
    const uint key_head = p.tiled ? head % p.key_heads : head / (p.heads / p.key_heads);
    device float *own = state + ulong(head) * p.key_dim * p.value_dim + column;
    for (uint token = 0; token < p.tokens; token++) {
        device const float *key = keys + (ulong(token) * p.key_heads + key_head) * p.key_dim;
        device const float *query = queries + (ulong(token) * p.key_heads + key_head) * p.key_dim;
        const float decay = decays[token * p.heads + head];
        const ulong at = (ulong(token) * p.heads + head) * p.value_dim + column;
        float d = 0.0f;
        for (uint i = 0; p.delta && i < p.key_dim; i++) {
            d = fma(own[ulong(i) * p.value_dim] * decay, key[i], d);
        }
        d = (values[at] - d) * rates[token * p.heads + head];
        float sum = 0.0f;
        for (uint i = 0; i < p.key_dim; i++) {
            const float s = fma(key[i], d, own[ulong(i) * p.value_dim] * decay);
            own[ulong(i) * p.value_dim] = s;
            sum = fma(s, query[i], sum);
        }
        out[at] = sum;
    }
}
PLAIN(recur)

/// RWKV 7: keys and values are as long. `state` is `[heads][value_dim][value_dim]`, changed in place; everything else is
/// `[tokens][heads][value_dim]`.
kernel void wkv(
    constant recurrence_params &p [[buffer(0)]], device const float *receptances [[buffer(1)]],
    device const float *decays [[buffer(2)]], device const float *keys [[buffer(3)]],
    device const float *as [[buffer(4)]], device const float *bs [[buffer(5)]],
    device const float *values [[buffer(6)]], device float *state [[buffer(7)]], device float *out [[buffer(8)]], GRID) {
    const uint column = (group.x * 2 + simd) * LANES + lane, head = group.y, dim = p.value_dim;
    if (column >= dim) {
        return;
    }
    device float *own = state + ulong(head) * dim * dim + column;
    for (uint token = 0; token < p.tokens; token++) {
        const ulong at = (ulong(token) * p.heads + head) * dim;
        float d = 0.0f;
        for (uint i = 0; i < dim; i++) {
            d = fma(own[ulong(i) * dim], as[at + i], d);
        }
        const float value = values[at + column];
        float sum = 0.0f;
        for (uint i = 0; i < dim; i++) {
            const float s = fma(keys[at + i], value, fma(bs[at + i], d, own[ulong(i) * dim] * decays[at + i]));
            own[ulong(i) * dim] = s;
            sum = fma(s, receptances[at + i], sum);
        }
        out[at + column] = sum;
    }
}
PLAIN(wkv)

/// Mamba's selective scan. `rates` and `state` are `[states][channels]`, the state changed in place.
kernel void scan(
    constant scan_params &p [[buffer(0)]], device const float *x [[buffer(1)]],
    device const float *steps [[buffer(2)]], device const float *into [[buffer(3)]],
    device const float *out_of [[buffer(4)]], device const float *rates [[buffer(5)]],
    device float *state [[buffer(6)]], device float *out [[buffer(7)]], GRID) {
    const uint channel = (group.x * 2 + simd) * LANES + lane;
    if (channel >= p.channels) {
        return;
    }
    for (uint token = 0; token < p.tokens; token++) {
        const ulong at = ulong(token) * p.channels + channel;
        const float length = steps[at], input = length * x[at];
        float y = 0.0f;
        for (uint n = 0; n < p.states; n++) {
            const ulong own = ulong(n) * p.channels + channel;
            const float s = fma(into[token * p.states + n], input, state[own] * exp(length * rates[own]));
            state[own] = s;
            y = fma(s, out_of[token * p.states + n], y);
        }
        out[at] = y;
    }
}
PLAIN(scan)

/// A causal convolution of each channel by itself. `weights` are `[states][channels]`, the oldest token's first; `state` holds
/// the tokens before, `[states - 1][channels]`, and then the last ones.
kernel void convolve(
    constant scan_params &p [[buffer(0)]], device const float *x [[buffer(1)]],
    device const float *weights [[buffer(2)]], device const float *bias [[buffer(3)]],
    device float *state [[buffer(4)]], device float *out [[buffer(5)]], GRID) {
    const uint channel = (group.x * 2 + simd) * LANES + lane, kept = p.states - 1;
    if (channel >= p.channels) {
        return;
    }
    for (uint token = 0; token < p.tokens; token++) {
        float sum = p.has_bias ? bias[channel] : 0.0f;
        for (uint j = 0; j < p.states; j++) {
            const uint row = token + j;
            const float before = row < kept ? state[row * p.channels + channel] : x[ulong(row - kept) * p.channels + channel];
            sum = fma(weights[j * p.channels + channel], before, sum);
        }
        out[ulong(token) * p.channels + channel] = sum;
    }
    // Each row comes from a later one, so in this order nothing is overwritten that is still needed.
    for (uint j = 0; j < kept; j++) {
        const uint row = p.tokens + j;
        state[j * p.channels + channel] =
            row < kept ? state[row * p.channels + channel] : x[ulong(row - kept) * p.channels + channel];
    }
}
PLAIN(convolve)
