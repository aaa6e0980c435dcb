// IQ4_XS: w[i] = (d * (sc[i / 32] - 32)) * LEVELS[q[i]].
#pragma once

#include "iq4_nl.h"

/// 256 weights.
struct iq4_xs {
    enum { len = 256, offset = 0, apart = 2, together = 2 };
    struct block {
        half d;
        ushort scales_h;
        uchar scales_l[4];
        uchar qs[128];
    };

    static void codes(device const block *row, uint e, thread float *q) {
        device const block &b = row[e / 32];
        const ushort n = ushort(e % 32), g = n / 4;
        for (ushort i = 0; i < 8; i++) {
            q[i] = UNEVEN[b.qs[g * 16 + n % 2 * 8 + i] >> (n / 2 % 2 * 4) & 0x0f];
        }
    }

    static float2 unit(device const block *row, uint e) {
        device const block &b = row[e / 32];
        const ushort g = e % 32 / 4;
        const ushort scale = nibble(b.scales_l, g) | (b.scales_h >> (2 * g) & 3) << 4;
        return float2(float(b.d) * float(int(scale) - 32), 0.0f);
    }
};
