// IQ4_NL: w[i] = d * LEVELS[q[i]].
#pragma once

#include "../bits.h"

/// The levels of IQ4_NL and IQ4_XS.
constant float UNEVEN[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/// 32 weights.
struct iq4_nl {
    enum { len = 32, offset = 0, apart = 2, together = 2 };
    struct block {
        half d;
        uchar qs[16];
    };

    static void codes(device const block *row, uint e, thread float *q) {
        device const block &b = row[e / 4];
        for (ushort i = 0; i < 8; i++) {
            q[i] = UNEVEN[b.qs[e % 2 * 8 + i] >> (e / 2 % 2 * 4) & 0x0f];
        }
    }

    static float2 unit(device const block *row, uint e) {
        return float2(row[e / 4].d, 0.0f);
    }
};
