// Q4_K: w[i] = (d * sc[i / 32]) * q[i] - (dmin * m[i / 32]).
#pragma once

#include "../bits.h"

/// The scale and the minimum of group `g`, as Q4_K and Q5_K pack them.
inline float2 scale_and_min(device const uchar *packed, ushort g, half d, half dmin) {
    ushort scale, min;
    if (g < 4) {
        scale = packed[g] & 0x3f;
        min = packed[g + 4] & 0x3f;
    } else {
        scale = (packed[g + 4] & 0x0f) | packed[g - 4] >> 6 << 4;
        min = packed[g + 4] >> 4 | packed[g] >> 6 << 4;
    }
    return float2(float(d) * float(scale), float(dmin) * float(min));
}

/// 256 weights.
struct q4_k {
    enum { len = 256, offset = 0, pair = 4 };
    struct block {
        half d, dmin;
        uchar scales[12];
        ushort qs[64];
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 32];
        const ushort n = ushort(e % 32), g = n / 4;
        fields(b.qs + g / 2 * 16 + n % 4 * 4, g % 2 * 4, 0x0f, q);
        return scale_and_min(b.scales, g, b.d, b.dmin);
    }
};
