// IQ2_S: w[i] = (d * (0.5 + sc[i / 16]) * 0.25) * (+- grid[index][i % 8]).
#pragma once

#include "iq2_xxs.h"

/// 256 weights.
struct iq2_s {
    enum { len = 256, offset = 0, apart = 1, together = 2 };
    struct block {
        half d;
        uchar qs[32];
        uchar signs[32];
        uchar qh[8];
        uchar scales[8];
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 32];
        const ushort n = ushort(e % 32);
        const ushort index = b.qs[n] | (b.qh[n / 4] >> (n % 4 * 2) & 3) << 8;
        three_levels(IQ2_S[index], b.signs[n], q);
        const float scale = float(nibble(b.scales, n / 2));
        return float2(float(b.d) * (0.5f + scale) * 0.25f, 0.0f);
    }
};
