// MXFP4: w[i] = DOUBLED[q[i]] * 2^(e - 128).
#pragma once

#include "../bits.h"

/// Twice the values of the sixteen E2M1 codes, for MXFP4 and NVFP4.
constant float DOUBLED[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/// 32 weights.
struct mxfp4 {
    enum { len = 32, offset = 0, apart = 2, together = 2 };
    struct block {
        uchar e;
        uchar qs[16];
    };

    static void codes(device const block *row, uint e, thread float *q) {
        device const block &b = row[e / 4];
        for (ushort i = 0; i < 8; i++) {
            q[i] = DOUBLED[b.qs[e % 2 * 8 + i] >> (e / 2 % 2 * 4) & 0x0f];
        }
    }

    static float2 unit(device const block *row, uint e) {
        const uint power = row[e / 4].e;
        // The two smallest are subnormal.
        const uint half_scale = power < 2 ? 0x00200000u << power : (power - 1) << 23;
        return float2(as_type<float>(half_scale), 0.0f);
    }
};
