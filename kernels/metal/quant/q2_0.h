// Q2_0: w[i] = (q[i] - 1) * d.
#pragma once

#include "../bits.h"

/// 64 weights.
struct q2_0 {
    enum { len = 64, offset = 1, apart = 1, together = 2 };
    struct block {
        half d;
        ushort qs[8];
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 8];
        for (ushort i = 0; i < 2; i++) {
            // Four codes of two bits, each to a byte of its own, half the way at each step.
            uint codes = b.qs[e % 8] >> (8 * i) & 0xff;
            codes = (codes | codes << 12) & 0x000f000f;
            codes = (codes | codes << 6) & 0x03030303;
            split(codes, q + 4 * i);
        }
        return float2(b.d, 0.0f);
    }
};
