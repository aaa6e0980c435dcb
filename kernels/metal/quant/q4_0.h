// Q4_0: w[i] = (q[i] - 8) * d.
#pragma once

#include "../bits.h"

/// 32 weights.
struct q4_0 {
    enum { len = 32, offset = 8, apart = 2, together = 2 };
    struct block {
        half d;
        ushort qs[8];
    };

    static void codes(device const block *row, uint e, thread float *q) {
        device const block &b = row[e / 4];
        fields(eight_bytes(b.qs + e % 2 * 4), e / 2 % 2 * 4, 0x0f, q);
    }

    static float2 unit(device const block *row, uint e) {
        return float2(row[e / 4].d, 0.0f);
    }
};
