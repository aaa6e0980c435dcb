// Attention of many queries (prefill): an online softmax over products of 8x8 matrices (Dao 2023, FlashAttention-2).
//
// A threadgroup has a tile of 32 queries, of which a simdgroup has eight: their values as matrices, and the sums of values that
// become their results. Heads of more than 128 values are shared by two simdgroups, each with half of a key and of a value.
// Positions come 16 at a time, and four steps with a barrier between:
//
//   1 keys are unpacked                       block   [16 positions] rows of key_len + 4
//   2 scores = queries x keys                 scores  [32 queries] rows of: [SPLIT][16 positions], [8] of a diagonal matrix
//   3 scores become weights in place; values are unpacked to where the keys were
//   4 sums = diagonal x sums + weights x values
//
// Four floats behind each row of a block spread the rows of a matrix over all banks. The diagonal matrix has the factors by which
// the sums of each query shrink where its largest score grew. That is seldom: exponents count from a score that may be exceeded by
// GROWTH before another takes its place.
//
// A product with a number that is not finite is not finite, be its weight zero: matrices must not hold any. A query that sees a
// damaged key, or gives weight to a value of which a part is damaged, has a sum of exponentials that is NaN, and so all of its
// result; for the others such a value is zero.
#include "attention.h"

/// Queries of a tile: one for each lane.
constant constexpr ushort TILE_QUERIES = LANES;
/// Positions of a block: with 32 only half as many threadgroups would have room on a core.
constant constexpr ushort POSITIONS = 16;
/// Matrices that a simdgroup has at most of its part of a key, and of a value: 32 registers each.
constant constexpr ushort MATRICES = 16;
/// So that weights stay below e^8, far from where sums of floats end.
constant constexpr float GROWTH = 8.0f;

/// Unpacks the positions from `start` on; those from `end` on are zeros. Whether one of the thread's numbers is not finite.
template <typename F, ushort SIMDS>
inline bool unpack(
    device const uchar *rows, uint row_bytes, uint len, uint capacity, uint start, uint end, ushort simd, ushort lane,
    threadgroup float *block) {
    // A lane for each eight, and as many positions side by side as there are lanes for.
    const uint eights = len / 8, side_by_side = LANES / eights, e = lane % eights, side = lane / eights;
    const uint first = start % capacity;
    float check = 0.0f;
    for (uint i = simd * side_by_side + side; side < side_by_side && i < POSITIONS; i += SIMDS * side_by_side) {
        float x[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
        if (start + i < end) {
            const uint row = first + i < capacity ? first + i : first + i - capacity;
            weights<F>((device const typename F::block *)(rows + ulong(row) * row_bytes), e, len, x);
        }
        for (ushort k = 0; k < 8; k++) {
            check = fma(x[k], 0.0f, check);
        }
        threadgroup float4 *to = (threadgroup float4 *)(block + i * (len + 4) + 8 * e);
        to[0] = float4(x[0], x[1], x[2], x[3]);
        to[1] = float4(x[4], x[5], x[6], x[7]);
    }
    return check != 0.0f;
}

/// Of `count` neighbouring lanes, a power of two, what they come to together.
inline float sum_of(float x, ushort count, ushort lane) {
    for (ushort step = 1; step < count; step *= 2) {
        x += simd_shuffle(x, ushort(lane ^ step));
    }
    return x;
}
inline float largest_of(float x, ushort count, ushort lane) {
    for (ushort step = 1; step < count; step *= 2) {
        x = larger(x, simd_shuffle(x, ushort(lane ^ step)));
    }
    return x;
}

/// `K` and `V` are the formats of keys and of values, `SPLIT` is how many simdgroups share a head.
template <typename K, typename V, ushort SPLIT>
kernel void attention_tile(
    constant attention_params &p [[buffer(0)]], device const float *queries [[buffer(1)]],
    device const uchar *keys [[buffer(2)]], device const uchar *values [[buffer(3)]],
    device const uint *visible [[buffer(4)]], device const float *slopes [[buffer(5)]],
    device float *partial [[buffer(6)]], SHARED, GRID) {
    const ushort SIMDS = TILE_QUERIES / 8 * SPLIT, SCORES = SPLIT * POSITIONS + 8;
    const ushort t = simd * LANES + lane;
    const uint tile = group.x * TILE_QUERIES, all = p.tokens * p.group;
    const uint key_row = p.key_len + 4, value_row = p.value_len + 4;
    threadgroup float *block = shared, *scores = shared + POSITIONS * max(key_row, value_row);
    threadgroup float *damaged = scores + TILE_QUERIES * SCORES;

    // A simdgroup's eight queries, and its matrices of their keys and values.
    const ushort own = simd / SPLIT * 8, share = simd % SPLIT;
    const uint key_share = (p.key_len / 8 + SPLIT - 1) / SPLIT, value_share = (p.value_len / 8 + SPLIT - 1) / SPLIT;
    const uint key_first = share * key_share, key_count = min(key_share, p.key_len / 8 - key_first);
    const uint value_first = share * value_share, value_count = min(value_share, p.value_len / 8 - value_first);

    // Queries and results pass through the block, as many at a time as it has rows, each with some threads.
    const ushort copied = t / (LANES * SIMDS / POSITIONS), copy_from = t % (LANES * SIMDS / POSITIONS);
    simdgroup_float8x8 query[MATRICES], sums[MATRICES];
    for (ushort at = 0; at < TILE_QUERIES; at += POSITIONS) {
        const tile_query q = query_at(p, visible, group, tile + at + copied);
        device const float *from = queries + row_of(p, q) * p.key_dim;
        for (uint i = copy_from; i < p.key_len; i += LANES * SIMDS / POSITIONS) {
            block[copied * key_row + i] = i < p.key_dim ? from[i] * p.scale : 0.0f;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (own / POSITIONS == at / POSITIONS) {
#pragma unroll
            for (ushort m = 0; m < MATRICES; m++) {
                if (m < key_count) {
                    simdgroup_load(query[m], block + own % POSITIONS * key_row + (key_first + m) * 8, key_row);
                }
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
#pragma unroll
    for (ushort m = 0; m < MATRICES; m++) {
        sums[m] = make_filled_simdgroup_matrix<float, 8>(0.0f);
    }

    // A thread's query in the softmax, its scores in each block, and its place on the diagonal, whose other places stay zero.
    const ushort sharing = LANES * SIMDS / TILE_QUERIES, softmaxed = t / sharing, count = POSITIONS / sharing;
    const tile_query q = query_at(p, visible, group, tile + softmaxed);
    threadgroup float *score = scores + softmaxed * SCORES + t % sharing * count;
    threadgroup float *diagonal = scores + softmaxed * SCORES + SPLIT * POSITIONS;
    for (ushort i = t % sharing; i < 8; i += sharing) {
        diagonal[i] = 0.0f;
    }
    float base = -INFINITY, sum = 0.0f;

    // What the tile sees: a query for each lane.
    const tile_query of_lane = query_at(p, visible, group, tile + lane);
    const bool sees = of_lane.from < of_lane.to;
    const uint first = simd_min(sees ? of_lane.from : 0xffffffffu), end = simd_max(sees ? of_lane.to : 0u);
    for (uint start = first; start < end; start += POSITIONS) {
        unpack<K, SIMDS>(keys + ulong(group.y) * p.capacity * p.key_bytes, p.key_bytes, p.key_len, p.capacity, start,
            end, simd, lane, block);
        threadgroup_barrier(mem_flags::mem_threadgroup);

        simdgroup_float8x8 product[POSITIONS / 8], matrix;
#pragma unroll
        for (ushort j = 0; j < POSITIONS / 8; j++) {
            product[j] = make_filled_simdgroup_matrix<float, 8>(0.0f);
        }
#pragma unroll
        for (ushort m = 0; m < MATRICES; m++) {
            if (m < key_count) {
#pragma unroll
                for (ushort j = 0; j < POSITIONS / 8; j++) {
                    simdgroup_load(matrix, block + 8 * j * key_row + (key_first + m) * 8, key_row, 0, true);
                    simdgroup_multiply_accumulate(product[j], query[m], matrix, product[j]);
                }
            }
        }
#pragma unroll
        for (ushort j = 0; j < POSITIONS / 8; j++) {
            simdgroup_store(product[j], scores + own * SCORES + share * POSITIONS + 8 * j, SCORES);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);

        const bool bad = unpack<V, SIMDS>(values + ulong(group.y) * p.capacity * p.value_bytes, p.value_bytes,
            p.value_len, p.capacity, start, end, simd, lane, block);
        const float any_bad = simd_max(bad ? 1.0f : 0.0f);
        if (lane == 0) {
            damaged[simd] = any_bad;
        }
        float s[count], most = -INFINITY, added = 0.0f, factor = 1.0f;
        for (ushort i = 0; i < count; i++) {
            s[i] = SPLIT == 1 ? score[i] : score[i] + score[POSITIONS + i];
            s[i] = seen_score(p, slopes, q, start + t % sharing * count + i, s[i]);
            most = larger(most, s[i]);
        }
        most = largest_of(most, sharing, lane);
        if (most > base + GROWTH) {
            factor = base == -INFINITY ? 1.0f : exp(base - most);
            base = most;
        }
        for (ushort i = 0; i < count; i++) {
            const float weight = s[i] == -INFINITY ? 0.0f : exp(s[i] - base);
            added += weight;
            score[i] = weight == weight ? weight : 0.0f;
        }
        sum = fma(sum, factor, sum_of(added, sharing, lane));
        if (t % sharing == 0) {
            diagonal[softmaxed % 8] = factor;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);

        float worst = 0.0f;
        for (ushort i = 0; i < SIMDS; i++) {
            worst = max(worst, damaged[i]);
        }
        if (worst > 0.0f) {
            // Behind each row of values what it does to the sum of who gives it weight: NaN, or nothing.
            if (t < POSITIONS) {
                threadgroup float *row = block + t * value_row;
                float check = 0.0f;
                for (uint i = 0; i < p.value_len; i++) {
                    check = fma(row[i], 0.0f, check);
                    row[i] = fabs(row[i]) < INFINITY ? row[i] : 0.0f;
                }
                row[p.value_len] = check;
            }
            threadgroup_barrier(mem_flags::mem_threadgroup);
            float check = 0.0f;
            for (ushort i = 0; i < count; i++) {
                const ushort position = t % sharing * count + i;
                check += score[i] != 0.0f ? block[position * value_row + p.value_len] : 0.0f;
            }
            sum += sum_of(check, sharing, lane);
        }

        threadgroup const float *weight = scores + own * SCORES;
        const ushort on = lane % 8;
        if (simd_min(weight[on * SCORES + SPLIT * POSITIONS + on]) < 1.0f) {
            const simdgroup_float8x8 zero = make_filled_simdgroup_matrix<float, 8>(0.0f);
            simdgroup_load(matrix, weight + SPLIT * POSITIONS, SCORES);
#pragma unroll
            for (ushort m = 0; m < MATRICES; m++) {
                if (m < value_count) {
                    simdgroup_multiply_accumulate(sums[m], matrix, sums[m], zero);
                }
            }
        }
#pragma unroll
        for (ushort j = 0; j < POSITIONS / 8; j++) {
            simdgroup_load(product[j], weight + 8 * j, SCORES);
        }
#pragma unroll
        for (ushort m = 0; m < MATRICES; m++) {
            if (m < value_count) {
#pragma unroll
                for (ushort j = 0; j < POSITIONS / 8; j++) {
                    simdgroup_load(matrix, block + 8 * j * value_row + (value_first + m) * 8, value_row);
                    simdgroup_multiply_accumulate(sums[m], product[j], matrix, sums[m]);
                }
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }

    if (t % sharing == 0 && tile + softmaxed < all) {
        device float *to = partial_of(p, partial, q, group);
        to[0] = base;
        to[1] = sum;
    }
    for (ushort at = 0; at < TILE_QUERIES; at += POSITIONS) {
        if (own / POSITIONS == at / POSITIONS) {
#pragma unroll
            for (ushort m = 0; m < MATRICES; m++) {
                if (m < value_count) {
                    simdgroup_store(sums[m], block + own % POSITIONS * value_row + (value_first + m) * 8, value_row);
                }
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (tile + at + copied < all) {
            device float *to = partial_of(p, partial, query_at(p, visible, group, tile + at + copied), group) + 2;
            for (uint i = copy_from; i < p.value_dim; i += LANES * SIMDS / POSITIONS) {
                to[i] = block[copied * value_row + i];
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
}

#define ATTENTION_TILE(keys, values)                                                                             \
    INSTANCE("attention_tile_" #keys "_" #values, attention_tile<keys, values, 1>)                               \
    INSTANCE("attention_tile2_" #keys "_" #values, attention_tile<keys, values, 2>)
FOR_EACH_PAIR(ATTENTION_TILE)
