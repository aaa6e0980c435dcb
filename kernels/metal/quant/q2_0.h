// Q2_0: w[i] = (q[i] - 1) * d.
#pragma once

#include "../bits.h"

/// 64 weights.
struct q2_0 {
    enum { len = 64, offset = 1, pair = 1 };
    struct block {
        half d;
        ushort qs[8];
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 8];
        const ushort codes = b.qs[e % 8];
        for (ushort i = 0; i < 8; i++) {
            q[i] = float(codes >> (2 * i) & 3);
        }
        return float2(b.d, 0.0f);
    }
};
