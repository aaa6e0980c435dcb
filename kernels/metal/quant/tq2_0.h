// TQ2_0: w[i] = (q[i] - 1) * d.
#pragma once

#include "q2_k.h"

/// 256 weights.
struct tq2_0 {
    enum { len = 256, offset = 1, apart = 4, together = 4 };
    struct block {
        ushort qs[32];
        half d;
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 32];
        two_bits(b.qs, ushort(e % 32), q);
        return float2(b.d, 0.0f);
    }
};
