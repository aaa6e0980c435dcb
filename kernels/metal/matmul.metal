// Products with many rows of activations (prefill): bound by how fast 8x8 matrices are multiplied.
//
// A threadgroup makes a tile of 64 outputs for 64 tokens, a simdgroup a quarter of it: 4 x 4 matrices, for whose 16 products
// of a step it loads 8. Weights are unpacked, and activations copied, 16 inputs at a time into the threadgroup's memory, while
// the 16 before them are multiplied:
//
//   weights [2][16 inputs][64 outputs]        activations [2][64 tokens][16 inputs]
//
// The tile goes through the same memory on its way out.
#include "formats.h"
#include "params.h"

/// Outputs and tokens of a tile.
constant constexpr ushort TILE = 64;
/// Inputs of a step.
constant constexpr ushort DEPTH = 16;
constant constexpr ushort MATMUL_THREADS = 128;

/// `runs` says for each tile of tokens, where the matrix is that of experts: which expert, the first token, the one behind the
/// last.
template <typename F>
kernel void matmul(
    constant product_params &p [[buffer(0)]], device const uchar *matrix [[buffer(1)]],
    device const float *x [[buffer(2)]], device const float *bias [[buffer(3)]],
    device const uint *runs [[buffer(4)]], device float *out [[buffer(5)]], SHARED, GRID) {
    const ushort t = simd * LANES + lane;
    uint expert = 0, from = group.x * TILE, to = p.columns;
    if (p.by_expert) {
        expert = runs[3 * group.x];
        from = runs[3 * group.x + 1];
        to = runs[3 * group.x + 2];
    }
    const uint first = group.y * TILE;
    threadgroup float *ws = shared, *xs = shared + 2 * DEPTH * TILE;

    // A thread's part of a step: an eight of a row of weights, an eight of a token. What lies behind the last is the last
    // again: what comes of it is not written.
    const ulong row = ulong(expert) * p.of + p.first + min(first + t % TILE, p.rows - 1);
    device const typename F::block *weights_at = (device const typename F::block *)(matrix + row * p.row_bytes);
    device const float *token_at = x + ulong(min(from + t / 2, to - 1)) * p.len;
    const uint steps = (p.len + DEPTH - 1) / DEPTH;

    simdgroup_float8x8 sums[4][4];
    for (ushort i = 0; i < 4; i++) {
        for (ushort j = 0; j < 4; j++) {
            sums[i][j] = make_filled_simdgroup_matrix<float, 8>(0.0f);
        }
    }
    for (uint step = 0; step <= steps; step++) {
        if (step < steps) {
            threadgroup float *w_to = ws + step % 2 * DEPTH * TILE + t / TILE * 8 * TILE + t % TILE;
            threadgroup float *x_to = xs + step % 2 * DEPTH * TILE + t / 2 * DEPTH + t % 2 * 8;
            float w[8], a[8];
            const uint e = step * 2 + t / TILE;
            if (8 * e < p.len) {
                weights<F>(weights_at, e, p.len, w);
            } else {
                for (ushort k = 0; k < 8; k++) {
                    w[k] = 0.0f;
                }
            }
            numbers(token_at, step * 2 + t % 2, p.len, a);
            for (ushort k = 0; k < 8; k++) {
                w_to[k * TILE] = w[k];
                x_to[k] = a[k];
            }
        }
        if (step > 0) {
            threadgroup const float *w_from = ws + (step - 1) % 2 * DEPTH * TILE + simd % 2 * 32;
            threadgroup const float *x_from = xs + (step - 1) % 2 * DEPTH * TILE + simd / 2 * 32 * DEPTH;
            for (ushort k = 0; k < DEPTH; k += 8) {
                simdgroup_float8x8 wm[4], xm[4];
                for (ushort i = 0; i < 4; i++) {
                    simdgroup_load(wm[i], w_from + k * TILE + 8 * i, TILE);
                    simdgroup_load(xm[i], x_from + 8 * i * DEPTH + k, DEPTH);
                }
                for (ushort i = 0; i < 4; i++) {
                    for (ushort j = 0; j < 4; j++) {
                        simdgroup_multiply_accumulate(sums[i][j], xm[i], wm[j], sums[i][j]);
                    }
                }
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }

    threadgroup float *tile = shared + simd / 2 * 32 * TILE + simd % 2 * 32;
    for (ushort i = 0; i < 4; i++) {
        for (ushort j = 0; j < 4; j++) {
            simdgroup_store(sums[i][j], tile + 8 * i * TILE + 8 * j, TILE);
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (ushort i = t; i < TILE * TILE; i += MATMUL_THREADS) {
        const uint output = first + i % TILE, token = from + i / TILE;
        if (output < p.rows && token < to) {
            const float add = p.has_bias ? bias[ulong(expert) * p.rows + output] : 0.0f;
            out[ulong(token) * p.rows + output] = shared[i] + add;
        }
    }
}

#define MATMUL(format) INSTANCE("matmul_" #format, matmul<format>)
FOR_EACH_FORMAT(MATMUL)
