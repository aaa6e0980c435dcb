// IQ1_S: w[i] = (d * (2 sc[i / 32] + 1)) * (grid[index][i % 8] + shift).
#pragma once

#include "../bits.h"
#include "../grids.h"

/// Eight coordinates of the grid of IQ1_S and IQ1_M, -1 to 1, from their numbers of two bits, moved by 1/8.
inline void ternary(ushort point, ushort down, thread float *q) {
    // From 0 to 2 the numbers stand for -1 to 1.
    const float shift = down == 0 ? -0.875f : -1.125f;
    for (ushort i = 0; i < 8; i++) {
        q[i] = number(point >> (2 * i) & 3) + shift;
    }
}

/// 256 weights.
struct iq1_s {
    enum { len = 256, offset = 0, apart = 1, together = 2 };
    struct block {
        half d;
        uchar qs[32];
        ushort qh[8];
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 32];
        const ushort n = ushort(e % 32), high = b.qh[n / 4];
        ternary(IQ1[b.qs[n] | (high >> (n % 4 * 3) & 7) << 8], high >> 15, q);
        return float2(float(b.d) * float(2 * (high >> 12 & 7) + 1), 0.0f);
    }
};
