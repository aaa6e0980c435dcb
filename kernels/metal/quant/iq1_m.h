// IQ1_M: w[i] = (d * (2 sc[i / 16] + 1)) * (grid[index][i % 8] + shift[i / 8]).
#pragma once

#include "iq1_s.h"

/// 256 weights.
struct iq1_m {
    enum { len = 256, offset = 0, apart = 1, together = 2 };
    struct block {
        uchar qs[32];
        uchar qh[16];
        ushort scales[4];
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 32];
        const ushort n = ushort(e % 32), t = n / 2, high = nibble(b.qh, n);
        ternary(IQ1[b.qs[n] | (high & 7) << 8], high >> 3, q);
        ushort d = 0;
        for (ushort s = 0; s < 4; s++) {
            d |= b.scales[s] >> 12 << (4 * s);
        }
        const float scale = float(2 * (b.scales[t / 4] >> (t % 4 * 3) & 7) + 1);
        return float2(float(as_type<half>(d)) * scale, 0.0f);
    }
};
