// Q5_1: w[i] = q[i] * d + m.
#pragma once

#include "q5_0.h"

/// 32 weights.
struct q5_1 {
    enum { len = 32, offset = 0, apart = 2, together = 2 };
    struct block {
        half d, m;
        ushort qh[2];
        ushort qs[8];
    };

    static void codes(device const block *row, uint e, thread float *q) {
        device const block &b = row[e / 4];
        five_bits(b.qs, b.qh, ushort(e % 4), q);
    }

    static float2 unit(device const block *row, uint e) {
        device const block &b = row[e / 4];
        return float2(b.d, -float(b.m));
    }
};
