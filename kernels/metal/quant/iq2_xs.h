// IQ2_XS: w[i] = (d * (0.5 + sc[i / 16]) * 0.25) * (+- grid[index][i % 8]).
#pragma once

#include "iq2_xxs.h"

/// 256 weights.
struct iq2_xs {
    enum { len = 256, offset = 0, apart = 1, together = 2 };
    struct block {
        half d;
        ushort qs[32];
        uchar scales[8];
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 32];
        const ushort code = b.qs[e % 32];
        three_levels(IQ2_XS[code & 0x1ff], even_signs(code >> 9), q);
        const float scale = float(nibble(b.scales, ushort(e % 32 / 2)));
        return float2(float(b.d) * (0.5f + scale) * 0.25f, 0.0f);
    }
};
