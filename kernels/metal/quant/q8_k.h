// Q8_K: w[i] = d * q[i].
#pragma once

#include "../bits.h"

/// 256 weights.
struct q8_k {
    enum { len = 256, offset = 0, apart = 1, together = 2 };
    struct block {
        float d;
        ushort qs[128];
        short bsums[16];
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 32];
        signed_bytes(b.qs + e % 32 * 4, q);
        return float2(b.d, 0.0f);
    }
};
