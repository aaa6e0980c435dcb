// Products with many rows of activations (prefill): bound by how fast 8x8 matrices are multiplied.
//
// A threadgroup makes a tile of 64 outputs for 64 tokens or for 128, a simdgroup a quarter of it: 4 x 4 matrices, or 8 x 4, which
// use each matrix of weights twice as often and unpack it half as often. Weights are unpacked, and activations copied, 16 inputs
// at a time into the threadgroup's memory, while the 16 before them are multiplied:
//
//   weights [2][2][8] blocks of [8 inputs][8 outputs]        activations [2][2][tokens / 8] blocks of [8 tokens][8 inputs]
//
// A block is what a matrix is loaded from: 256 bytes in a row. Between two lie 32 bytes, so that lanes that write to several
// write to different banks. The tile goes through the same memory on its way out, 64 tokens at a time.
#include "formats.h"
#include "params.h"

/// Outputs of a tile.
constant constexpr ushort TILE = 64;
/// Inputs of a step.
constant constexpr ushort DEPTH = 16;
constant constexpr ushort MATMUL_THREADS = 128;
/// Floats from a block to the next.
constant constexpr ushort BLOCK = 64 + 8;
/// Blocks of a step's weights.
constant constexpr ushort WEIGHTS = DEPTH / 8 * TILE / 8;

/// `M` is how many matrices of tokens a simdgroup has. `runs` says for each tile of tokens, where the matrix is that of experts:
/// which expert, the first token, the one behind the last.
template <typename F, ushort M>
kernel void matmul(
    constant product_params &p [[buffer(0)]], device const uchar *matrix [[buffer(1)]],
    device const float *x [[buffer(2)]], device const float *bias [[buffer(3)]],
    device const uint *runs [[buffer(4)]], device float *out [[buffer(5)]], SHARED, GRID) {
    const ushort t = simd * LANES + lane;
    const ushort tokens = 16 * M, activations = DEPTH / 8 * tokens / 8;
    uint expert = 0, from = group.x * tokens, to = p.columns;
    if (p.by_expert) {
        expert = runs[3 * group.x];
        from = runs[3 * group.x + 1];
        to = runs[3 * group.x + 2];
    }
    const uint first = group.y * TILE;
    threadgroup float *ws = shared, *xs = shared + 2 * WEIGHTS * BLOCK;

    // A thread's part of a step: an eight of a row of weights, an eight of one or two tokens. What lies behind the last is the
    // last again: what comes of it is not written.
    const ulong row = ulong(expert) * p.of + p.first + min(first + t % TILE, p.rows - 1);
    device const typename F::block *weights_at = (device const typename F::block *)(matrix + row * p.row_bytes);
    const uint steps = (p.len + DEPTH - 1) / DEPTH;

    simdgroup_float8x8 sums[M][4];
#pragma unroll
    for (ushort i = 0; i < M; i++) {
#pragma unroll
        for (ushort j = 0; j < 4; j++) {
            sums[i][j] = make_filled_simdgroup_matrix<float, 8>(0.0f);
        }
    }
    for (uint step = 0; step <= steps; step++) {
        if (step < steps) {
            threadgroup float *w_to =
                ws + (step % 2 * WEIGHTS + t / TILE * (TILE / 8) + t % TILE / 8) * BLOCK + t % 8;
            float w[8];
            const uint e = step * 2 + t / TILE;
            if (8 * e < p.len) {
                weights<F>(weights_at, e, p.len, w);
            } else {
                for (ushort k = 0; k < 8; k++) {
                    w[k] = 0.0f;
                }
            }
            for (ushort k = 0; k < 8; k++) {
                w_to[k * 8] = w[k];
            }
            for (ushort n = 0; n < M / 4; n++) {
                const ushort token = t / 2 + n * 64;
                threadgroup float4 *x_to = (threadgroup float4 *)(
                    xs + (step % 2 * activations + t % 2 * (tokens / 8) + token / 8) * BLOCK + token % 8 * 8);
                float a[8];
                numbers(x + ulong(min(from + token, to - 1)) * p.len, step * 2 + t % 2, p.len, a);
                x_to[0] = float4(a[0], a[1], a[2], a[3]);
                x_to[1] = float4(a[4], a[5], a[6], a[7]);
            }
        }
        if (step > 0) {
            threadgroup const float *w_from = ws + ((step - 1) % 2 * WEIGHTS + simd % 2 * 4) * BLOCK;
            threadgroup const float *x_from = xs + ((step - 1) % 2 * activations + simd / 2 * M) * BLOCK;
#pragma unroll
            for (ushort k = 0; k < DEPTH / 8; k++) {
                simdgroup_float8x8 wm[4], xm;
#pragma unroll
                for (ushort j = 0; j < 4; j++) {
                    simdgroup_load(wm[j], w_from + (k * (TILE / 8) + j) * BLOCK, 8);
                }
#pragma unroll
                for (ushort i = 0; i < M; i++) {
                    simdgroup_load(xm, x_from + (k * (tokens / 8) + i) * BLOCK, 8);
#pragma unroll
                    for (ushort j = 0; j < 4; j++) {
                        simdgroup_multiply_accumulate(sums[i][j], xm, wm[j], sums[i][j]);
                    }
                }
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }

    // Half of the 64 tokens are of the first two simdgroups, half of the others.
    threadgroup float *tile = shared + simd / 2 * 32 * TILE + simd % 2 * 32;
#pragma unroll
    for (ushort r = 0; r < M; r += 4) {
#pragma unroll
        for (ushort i = 0; i < 4; i++) {
#pragma unroll
            for (ushort j = 0; j < 4; j++) {
                simdgroup_store(sums[r + i][j], tile + 8 * i * TILE + 8 * j, TILE);
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (ushort i = t; i < 64 * TILE; i += MATMUL_THREADS) {
            const ushort n = i / TILE;
            const uint output = first + i % TILE, token = from + n / 32 * 8 * M + 8 * r + n % 32;
            if (output < p.rows && token < to) {
                const float add = p.has_bias ? bias[ulong(expert) * p.rows + output] : 0.0f;
                out[ulong(token) * p.rows + output] = shared[i] + add;
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
}

#define MATMUL(format)                                                                                           \
    INSTANCE("matmul_" #format, matmul<format, 4>)                                                               \
    INSTANCE("matmul128_" #format, matmul<format, 8>)
FOR_EACH_FORMAT(MATMUL)
