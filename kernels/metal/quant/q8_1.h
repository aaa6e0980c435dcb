// Q8_1: w[i] = q[i] * d.
#pragma once

#include "../bits.h"

/// 32 weights.
struct q8_1 {
    enum { len = 32, offset = 0, apart = 1, together = 2 };
    struct block {
        half d, s;
        ushort qs[16];
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 4];
        signed_bytes(b.qs + e % 4 * 4, q);
        return float2(b.d, 0.0f);
    }
};
