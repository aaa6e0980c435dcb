// IQ3_S: w[i] = (d * (1 + 2 sc[i / 32])) * (+- grid[index][i % 4]).
#pragma once

#include "../bits.h"
#include "../grids.h"

/// 256 weights.
struct iq3_s {
    enum { len = 256, offset = 0, apart = 1, together = 2 };
    struct block {
        half d;
        uchar qs[64];
        uchar qh[8];
        uchar signs[32];
        uchar scales[4];
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 32];
        const ushort n = ushort(e % 32), ninths = b.qh[n / 4] >> (n % 4 * 2), signs = b.signs[n];
        for (ushort i = 0; i < 8; i++) {
            const ushort index = b.qs[2 * n + i / 4] | (ninths >> (i / 4) & 1) << 8;
            const float level = number(1 + 2 * (IQ3_S[index] >> (i % 4 * 3) & 7));
            q[i] = (signs >> i & 1) == 1 ? -level : level;
        }
        const float scale = float(nibble(b.scales, n / 4));
        return float2(float(b.d) * (1.0f + 2.0f * scale), 0.0f);
    }
};
