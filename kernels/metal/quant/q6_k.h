// Q6_K: w[i] = (d * scales[i / 16]) * (q[i] - 32).
#pragma once

#include "../bits.h"

/// 256 weights.
struct q6_k {
    enum { len = 256, offset = 32, apart = 4, together = 4 };
    struct block {
        ushort ql[64];
        ushort qh[32];
        char scales[16];
        half d;
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 32];
        const ushort n = ushort(e % 32), quarter = n / 4 % 4, at = n % 4 * 4;
        device const ushort *lows = b.ql + n / 16 * 32 + quarter % 2 * 16 + at;
        for (ushort i = 0; i < 2; i++) {
            const uint low = four_bytes(lows + 2 * i) >> (quarter / 2 * 4) & 0x0f0f0f0f;
            const uint high = four_bytes(b.qh + n / 16 * 16 + at + 2 * i) >> (quarter * 2) & 0x03030303;
            split(low | high << 4, q + 4 * i);
        }
        return float2(float(b.d) * float(b.scales[n / 2]), 0.0f);
    }
};
