// IQ2_XXS: w[i] = (d * (0.5 + sc[i / 32]) * 0.25) * (+- grid[index][i % 8]).
#pragma once

#include "../bits.h"
#include "../grids.h"

/// The signs of 8 weights from 7 stored bits; the eighth makes their number even.
inline ushort even_signs(uint stored) {
    const uint seven = stored & 0x7f;
    return ushort(seven | (popcount(seven) & 1) << 7);
}

/// Eight coordinates of an IQ2 grid, 8, 25 or 43, from their numbers of two bits, with signs.
inline void three_levels(ushort point, ushort signs, thread float *q) {
    for (ushort i = 0; i < 8; i++) {
        const ushort c = point >> (2 * i) & 3;
        const float level = number(8 + 17 * c + (c >> 1));
        q[i] = (signs >> i & 1) == 1 ? -level : level;
    }
}

/// 256 weights.
struct iq2_xxs {
    enum { len = 256, offset = 0, apart = 1, together = 2 };
    struct block {
        half d;
        ushort qs[32];
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 32];
        const ushort n = ushort(e % 32), l = n % 4;
        device const ushort *of_group = b.qs + n / 4 * 4;
        const ushort index = of_group[l / 2] >> (l % 2 * 8) & 0xff;
        const uint signs = of_group[2] | uint(of_group[3]) << 16;
        three_levels(IQ2_XXS[index], even_signs(signs >> (7 * l)), q);
        return float2(float(b.d) * (0.5f + float(signs >> 28)) * 0.25f, 0.0f);
    }
};
