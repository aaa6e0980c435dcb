// The largest values of each row with their places, the largest first; of equal ones the earlier. So greedy decoding reads one
// value and its place back (k = 1).
//
// A threadgroup has a row, or a part of it, and goes through it once for each of the k: each time it looks for the largest that
// comes after the one found last. What parts leave is a row again, of values that bring their places along. NaN comes before
// everything, so that damage shows.
#include "order.h"
#include "params.h"

kernel void top_k(
    constant top_k_params &p [[buffer(0)]], device const float *x [[buffer(1)]],
    device const uint *brought [[buffer(2)]], device float *values [[buffer(3)]], device uint *places [[buffer(4)]], SHARED,
    GRID) {
    const uint start = group.y * p.part, width = min(p.part, p.width - start);
    device const float *row = x + ulong(group.x) * p.width + start;
    threadgroup uint *ranks = (threadgroup uint *)shared, *ids = ranks + LANES;
    uint2 last = uint2(0u, 0u);
    for (uint n = 0; n < p.k; n++) {
        const uint2 best =
            first_of_lanes(next_largest(row, simd * LANES + lane, p.simds * LANES, width, n == 0, last));
        if (lane == 0) {
            ranks[simd] = best.x;
            ids[simd] = best.y;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        last = uint2(ranks[0], ids[0]);
        for (uint s = 1; s < p.simds; s++) {
            if (before(ranks[s], ids[s], last.x, last.y)) {
                last = uint2(ranks[s], ids[s]);
            }
        }
        if (simd == 0 && lane == 0) {
            const uint out = (group.x * p.parts + group.y) * p.k + n;
            values[out] = row[last.y];
            places[out] = p.has_ids ? brought[ulong(group.x) * p.width + start + last.y] : start + last.y;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
}
PLAIN(top_k)
