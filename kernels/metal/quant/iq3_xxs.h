// IQ3_XXS: w[i] = (d * (0.5 + sc[i / 32]) * 0.5) * (+- grid[index][i % 4]).
#pragma once

#include "iq2_xxs.h"

/// 256 weights.
struct iq3_xxs {
    enum { len = 256, offset = 0, apart = 1, together = 2 };
    struct block {
        half d;
        uchar qs[64];
        ushort signs[16];
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 32];
        const ushort n = ushort(e % 32);
        const uint signs = b.signs[n / 4 * 2] | uint(b.signs[n / 4 * 2 + 1]) << 16;
        const ushort eight = even_signs(signs >> (n % 4 * 7));
        for (ushort i = 0; i < 8; i++) {
            const ushort c = IQ3_XXS[b.qs[2 * n + i / 4]] >> (i % 4 * 3) & 7;
            const float level = number(4 + 8 * c + (c == 7 ? 2 : 0));
            q[i] = (eight >> i & 1) == 1 ? -level : level;
        }
        return float2(float(b.d) * (0.5f + float(signs >> 28)) * 0.5f, 0.0f);
    }
};
