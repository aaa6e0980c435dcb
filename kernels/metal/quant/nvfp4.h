// NVFP4: w[i] = DOUBLED[q[i]] * (UE4M3(d[i / 16]) / 2).
#pragma once

#include "mxfp4.h"

/// Half of a UE4M3 scale; bit 7 counts for nothing and 0x7f is zero.
inline float half_ue4m3(uchar scale) {
    const ushort exponent = scale >> 3 & 0x0f;
    const float mantissa = float(scale & 0x07);
    if (scale == 0x7f) {
        return 0.0f;
    }
    if (exponent == 0) {
        return mantissa / 1024.0f;
    }
    return (1.0f + mantissa / 8.0f) * as_type<float>(uint(exponent + 127 - 8) << 23);
}

/// 64 weights.
struct nvfp4 {
    enum { len = 64, offset = 0, apart = 1, together = 2 };
    struct block {
        uchar d[4];
        uchar qs[32];
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 8];
        const ushort n = ushort(e % 8);
        for (ushort i = 0; i < 8; i++) {
            q[i] = DOUBLED[b.qs[n / 2 * 8 + i] >> (n % 2 * 4) & 0x0f];
        }
        return float2(half_ue4m3(b.d[n / 2]), 0.0f);
    }
};
