// Q5_K: w[i] = (d * sc[i / 32]) * q[i] - (dmin * m[i / 32]).
#pragma once

#include "q4_k.h"

/// 256 weights.
struct q5_k {
    enum { len = 256, offset = 0, apart = 4, together = 2 };
    struct block {
        half d, dmin;
        uchar scales[12];
        ushort qh[16];
        ushort qs[64];
    };

    static void codes(device const block *row, uint e, thread float *q) {
        device const block &b = row[e / 32];
        const ushort n = ushort(e % 32), g = n / 4;
        for (ushort i = 0; i < 2; i++) {
            const uint low = four_bytes(b.qs + g / 2 * 16 + n % 4 * 4 + 2 * i) >> (g % 2 * 4) & 0x0f0f0f0f;
            const uint fifth = four_bytes(b.qh + n % 4 * 4 + 2 * i) >> g & 0x01010101;
            split(low | fifth << 4, q + 4 * i);
        }
    }

    static float2 unit(device const block *row, uint e) {
        device const block &b = row[e / 32];
        return scale_and_min(b.scales, e % 32 / 4, b.d, b.dmin);
    }
};
