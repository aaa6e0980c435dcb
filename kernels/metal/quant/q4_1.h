// Q4_1: w[i] = q[i] * d + m.
#pragma once

#include "../bits.h"

/// 32 weights.
struct q4_1 {
    enum { len = 32, offset = 0, apart = 2, together = 2 };
    struct block {
        half d, m;
        ushort qs[8];
    };

    static void codes(device const block *row, uint e, thread float *q) {
        device const block &b = row[e / 4];
        fields(eight_bytes(b.qs + e % 2 * 4), e / 2 % 2 * 4, 0x0f, q);
    }

    static float2 unit(device const block *row, uint e) {
        device const block &b = row[e / 4];
        return float2(b.d, -float(b.m));
    }
};
