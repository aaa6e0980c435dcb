// Attention of few queries with an online softmax (Milakov and Gimelshein 2018; Dao and others 2022).
//
// A threadgroup's simdgroups take blocks of 32 positions in turn: scores with a position for each lane, values with an eight of
// values for each. What each leaves is joined at the end of the threadgroup, and parts in a kernel of its own.
#include "attention.h"

constant constexpr ushort ATTENTION_SIMDS = 4;
constant constexpr ushort QUERIES = 4;

/// `K` and `V` are the formats of keys and of values, `EIGHTS` is how many eights of a value a lane may have to hold: one up to 256
/// values, three up to 768.
template <typename K, typename V, ushort EIGHTS>
kernel void attention(
    constant attention_params &p [[buffer(0)]], device const float *queries [[buffer(1)]],
    device const uchar *keys [[buffer(2)]], device const uchar *values [[buffer(3)]],
    device const uint *visible [[buffer(4)]], device const float *slopes [[buffer(5)]],
    device float *partial [[buffer(6)]], SHARED, GRID) {
    const ushort t = simd * LANES + lane;
    const uint kv_head = group.y;

    tile_query queried[QUERIES];
    uint first = 0xffffffffu, end = 0;
    for (ushort q = 0; q < QUERIES; q++) {
        queried[q] = query_at(p, visible, group, group.x * QUERIES + q);
        if (queried[q].from < queried[q].to) {
            first = min(first, queried[q].from);
            end = max(end, queried[q].to);
        }
    }
    for (ushort q = 0; q < QUERIES; q++) {
        device const float *query = queries + row_of(p, queried[q]) * p.key_dim;
        for (uint i = t; i < p.key_len; i += ATTENTION_SIMDS * LANES) {
            shared[q * p.key_len + i] = i < p.key_dim ? query[i] * p.scale : 0.0f;
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);

    const uint eights = p.value_len / 8;
    // Where a value has fewer eights than there are lanes, some positions are added side by side.
    const uint side_by_side = eights < LANES ? LANES / eights : 1;
    const uint side = lane / min(eights, uint(LANES));
    float largest[QUERIES], sum[QUERIES], results[QUERIES][EIGHTS][8];
    for (ushort q = 0; q < QUERIES; q++) {
        largest[q] = -INFINITY;
        sum[q] = 0.0f;
        for (ushort n = 0; n < EIGHTS; n++) {
            for (ushort i = 0; i < 8; i++) {
                results[q][n][i] = 0.0f;
            }
        }
    }
    for (uint start = first / LANES * LANES + simd * LANES; start < end; start += ATTENTION_SIMDS * LANES) {
        const uint position = start + lane;
        float score[QUERIES];
        for (ushort q = 0; q < QUERIES; q++) {
            score[q] = 0.0f;
        }
        if (position >= first && position < end) {
            const ulong row = ulong(kv_head) * p.capacity + position % p.capacity;
            device const typename K::block *key = (device const typename K::block *)(keys + row * p.key_bytes);
            for (uint e = 0; e < p.key_len / 8; e++) {
                float k[8];
                const float2 unit = eight<K>(key, e, p.key_len, k);
                for (ushort q = 0; q < QUERIES; q++) {
                    threadgroup const float *query = shared + q * p.key_len + 8 * e;
                    float dot = 0.0f;
                    for (ushort i = 0; i < 8; i++) {
                        dot = fma(query[i], k[i] - float(K::offset), dot);
                    }
                    score[q] = fma(dot, unit.x, score[q]);
                }
            }
        }
        float weight[QUERIES];
        for (ushort q = 0; q < QUERIES; q++) {
            const float s = seen_score(p, slopes, queried[q], position, score[q]);
            // The largest of numbers that are not NaN; NaN shows in the sum.
            const float most = larger(largest[q], simd_max(larger(-INFINITY, s)));
            weight[q] = s == -INFINITY ? 0.0f : exp(s - most);
            const float correction = largest[q] == -INFINITY ? 0.0f : exp(largest[q] - most);
            sum[q] = fma(sum[q], correction, simd_sum(weight[q]));
            largest[q] = most;
            for (ushort n = 0; n < EIGHTS; n++) {
                for (ushort i = 0; i < 8; i++) {
                    results[q][n][i] *= correction;
                }
            }
        }
        for (uint j = 0; j < LANES; j += side_by_side) {
            // Lanes that have no place side by side go along idly: all take part in a shuffle.
            const uint which = j + side;
            float by[QUERIES];
            bool any = false;
            for (ushort q = 0; q < QUERIES; q++) {
                by[q] = simd_shuffle(weight[q], ushort(min(which, uint(LANES - 1))));
                any = any || by[q] != 0.0f;
            }
            if (any && which < LANES && side < side_by_side) {
                const ulong row = ulong(kv_head) * p.capacity + (start + which) % p.capacity;
                device const typename V::block *value = (device const typename V::block *)(values + row * p.value_bytes);
                for (ushort n = 0; n < EIGHTS; n++) {
                    const uint e = lane % min(eights, uint(LANES)) + n * LANES;
                    if (e >= eights) {
                        break;
                    }
                    float v[8];
                    const float2 unit = eight<V>(value, e, p.value_len, v);
                    for (ushort q = 0; q < QUERIES; q++) {
                        // A position that a query does not see has no part in its sum, be it damaged.
                        if (by[q] != 0.0f) {
                            for (ushort i = 0; i < 8; i++) {
                                results[q][n][i] = fma(by[q] * unit.x, v[i] - float(V::offset), results[q][n][i]);
                            }
                        }
                    }
                }
            }
        }
    }

    // Lanes side by side give theirs to the first.
    for (ushort q = 0; q < QUERIES; q++) {
        for (ushort n = 0; n < EIGHTS; n++) {
            for (ushort i = 0; i < 8; i++) {
                float total = results[q][n][i];
                for (uint k = 1; k < side_by_side; k++) {
                    total += simd_shuffle(results[q][n][i], ushort((lane + k * eights) % LANES));
                }
                results[q][n][i] = total;
            }
        }
    }
    // Simdgroups, one after the other, to where the queries were.
    threadgroup_barrier(mem_flags::mem_threadgroup);
    threadgroup float *states = shared, *sums = shared + 2 * ATTENTION_SIMDS * QUERIES;
    if (lane == 0) {
        for (ushort q = 0; q < QUERIES; q++) {
            states[2 * (simd * QUERIES + q)] = largest[q];
            states[2 * (simd * QUERIES + q) + 1] = sum[q];
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float most[QUERIES], all_sum[QUERIES], factor[QUERIES];
    for (ushort q = 0; q < QUERIES; q++) {
        most[q] = -INFINITY;
        all_sum[q] = 0.0f;
        for (ushort s = 0; s < ATTENTION_SIMDS; s++) {
            most[q] = larger(most[q], states[2 * (s * QUERIES + q)]);
        }
        for (ushort s = 0; s < ATTENTION_SIMDS; s++) {
            const float of = states[2 * (s * QUERIES + q)], by = of == most[q] ? 1.0f : exp(of - most[q]);
            all_sum[q] += states[2 * (s * QUERIES + q) + 1] * by;
        }
        factor[q] = largest[q] == most[q] ? 1.0f : exp(largest[q] - most[q]);
    }
    for (ushort s = 0; s < ATTENTION_SIMDS; s++) {
        if (s == simd && side == 0) {
            for (ushort q = 0; q < QUERIES; q++) {
                for (ushort n = 0; n < EIGHTS; n++) {
                    const uint e = lane + n * LANES;
                    if (e >= eights) {
                        break;
                    }
                    threadgroup float *at = sums + q * p.value_len + 8 * e;
                    for (ushort i = 0; i < 8; i++) {
                        at[i] = (s == 0 ? 0.0f : at[i]) + results[q][n][i] * factor[q];
                    }
                }
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    for (ushort q = 0; q < QUERIES && group.x * QUERIES + q < p.tokens * p.group; q++) {
        device float *to_partial = partial_of(p, partial, queried[q], group);
        if (t == 0) {
            to_partial[0] = most[q];
            to_partial[1] = all_sum[q];
        }
        for (uint i = t; i < p.value_dim; i += ATTENTION_SIMDS * LANES) {
            to_partial[2 + i] = sums[q * p.value_len + i];
        }
    }
}

/// Joins the parts of each head's query, counts in its sink where there is one, and divides.
kernel void attention_join(
    constant attention_params &p [[buffer(0)]], device const float *partial [[buffer(1)]],
    device const float *sinks [[buffer(2)]], device float *out [[buffer(3)]], GRID) {
    const uint i = (group.x * 2 + simd) * LANES + lane;
    if (i >= p.value_dim) {
        return;
    }
    const uint head = group.y % p.heads, stride = 2 + p.value_dim;
    device const float *parts = partial + ulong(group.y) * p.parts * stride;
    float most = p.has_sinks ? sinks[head] : -INFINITY;
    for (uint part = 0; part < p.parts; part++) {
        most = larger(most, parts[part * stride]);
    }
    float sum = p.has_sinks ? exp(sinks[head] - most) : 0.0f, result = 0.0f;
    for (uint part = 0; part < p.parts; part++) {
        device const float *at = parts + part * stride;
        const float by = at[0] == most ? 1.0f : exp(at[0] - most);
        sum = fma(at[1], by, sum);
        result = fma(at[2 + i], by, result);
    }
    out[ulong(group.y) * p.value_dim + i] = result / sum;
}
PLAIN(attention_join)

#define ATTENTION(keys, values)                                                                                  \
    INSTANCE("attention_" #keys "_" #values, attention<keys, values, 1>)                                         \
    INSTANCE("attention3_" #keys "_" #values, attention<keys, values, 3>)
FOR_EACH_PAIR(ATTENTION)
