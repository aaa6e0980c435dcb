// The largest values of each row with their places, the largest first; of equal ones the earlier. So greedy decoding reads one
// value and its place back (k = 1).
//
// A threadgroup has a row, or a part of it, and goes through it once for each of the k: each time it looks for the largest that
// comes after the one found last. What parts leave is a row again, of values that bring their places along. NaN comes before
// everything, so that damage shows.
#include "common.h"
#include "params.h"

/// A number that grows with the value; NaN is the largest.
inline uint order_of(float value) {
    // Both zeros are equal.
    const uint bits = as_type<uint>(value == 0.0f ? 0.0f : value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return 0xffffffffu;
    }
    return (bits >> 31) == 1 ? ~bits : bits | 0x80000000u;
}

/// Whether `a` at `i` comes before `b` at `j`.
inline bool before(uint a, uint i, uint b, uint j) {
    return a > b || (a == b && i < j);
}

kernel void top_k(
    constant top_k_params &p [[buffer(0)]], device const float *x [[buffer(1)]],
    device const uint *brought [[buffer(2)]], device float *values [[buffer(3)]], device uint *places [[buffer(4)]], SHARED,
    GRID) {
    const uint start = group.y * p.part, width = min(p.part, p.width - start);
    device const float *row = x + ulong(group.x) * p.width + start;
    threadgroup uint *ranks = (threadgroup uint *)shared, *ids = ranks + LANES;
    uint last = 0xffffffffu, last_id = 0;
    for (uint n = 0; n < p.k; n++) {
        uint best = 0, best_id = 0xffffffffu;
        for (uint i = simd * LANES + lane; i < width; i += p.simds * LANES) {
            const uint r = order_of(row[i]);
            const bool open = n == 0 || before(last, last_id, r, i);
            if (open && before(r, i, best, best_id)) {
                best = r;
                best_id = i;
            }
        }
        const uint most = simd_max(best);
        const uint earliest = simd_min(best == most ? best_id : 0xffffffffu);
        if (lane == 0) {
            ranks[simd] = most;
            ids[simd] = earliest;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        last = ranks[0];
        last_id = ids[0];
        for (uint s = 1; s < p.simds; s++) {
            if (before(ranks[s], ids[s], last, last_id)) {
                last = ranks[s];
                last_id = ids[s];
            }
        }
        if (simd == 0 && lane == 0) {
            const uint out = (group.x * p.parts + group.y) * p.k + n;
            values[out] = row[last_id];
            places[out] = p.has_ids ? brought[ulong(group.x) * p.width + start + last_id] : start + last_id;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
}
PLAIN(top_k)
