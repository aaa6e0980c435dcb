// Q1_0: w[i] = d where q[i] = 1, else -d.
#pragma once

#include "../bits.h"

/// 128 weights.
struct q1_0 {
    enum { len = 128, offset = 1, apart = 1, together = 2 };
    struct block {
        half d;
        uchar qs[16];
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 16];
        const uint bits = b.qs[e % 16];
        split(spread_bits(bits) << 1, q);
        split(spread_bits(bits >> 4) << 1, q + 4);
        return float2(b.d, 0.0f);
    }
};
