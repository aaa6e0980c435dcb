// Rotary position embedding: each thread turns a pair, in place. The angles come from the host.
#include "common.h"
#include "params.h"

kernel void rope(
    constant rope_params &p [[buffer(0)]], device const float2 *turns [[buffer(1)]],
    device float *x [[buffer(2)]], GRID) {
    const uint i = (group.x * 2 + simd) * LANES + lane;
    const uint head = i / p.pairs, pair = i % p.pairs;
    if (head >= p.width / p.head_dim) {
        return;
    }
    const ulong at = ulong(group.y) * p.width + head * p.head_dim;
    const ulong a = at + (p.halves ? pair : 2 * pair), b = p.halves ? a + p.pairs : a + 1;
    const float2 by = turns[group.y * p.pairs + pair];
    const float left = x[a], right = x[b];
    x[a] = left * by.x - right * by.y;
    x[b] = left * by.y + right * by.x;
}
PLAIN(rope)
