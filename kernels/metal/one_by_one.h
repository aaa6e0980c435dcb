// Formats whose weights stand alone: rows of any length.
#pragma once

#include "common.h"

/// Eight weights of a row of `count`; behind its end zeros.
template <typename F>
inline float2 one_by_one(device const typename F::block *row, uint e, uint count, thread float *q) {
    for (ushort i = 0; i < 8; i++) {
        q[i] = 8 * e + i < count ? F::one(row[8 * e + i]) : 0.0f;
    }
    return float2(1.0f, 0.0f);
}
