// The order in which the largest come first.
#pragma once

#include "common.h"

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

/// Of every `step`th of the `width` values from `i` on the first in order, where `open` tells none has been found yet; else of
/// those that come after `last`. Both are pairs of an order and a place; (0, 0xffffffff) where there is none.
template <typename P>
inline uint2 next_largest(P values, uint i, uint step, uint width, bool open, uint2 last) {
    uint2 best = uint2(0u, 0xffffffffu);
    for (; i < width; i += step) {
        const uint r = order_of(values[i]);
        if ((open || before(last.x, last.y, r, i)) && before(r, i, best.x, best.y)) {
            best = uint2(r, i);
        }
    }
    return best;
}

/// The first in order of what the lanes of a simdgroup have.
inline uint2 first_of_lanes(uint2 mine) {
    const uint most = simd_max(mine.x);
    return uint2(most, simd_min(mine.x == most ? mine.y : 0xffffffffu));
}
