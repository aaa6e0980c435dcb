// Q4_K: w[i] = (d * sc[i / 32]) * q[i] - (dmin * m[i / 32]).
#pragma once

#include "../bits.h"

/// The scale and the minimum of group `g`, as Q4_K and Q5_K pack them: both at once, and in one way for all groups, so that lanes
/// do not part.
inline float2 scale_and_min(device const uchar *packed, ushort g, half d, half dmin) {
    const ushort scale = packed[g % 4], min = packed[g % 4 + 4], last = packed[g % 4 + 8];
    const uint both = as_type<uint>(ushort2(scale, min));
    const uint last_four = as_type<uint>(ushort2(ushort(last & 0x0f), ushort(last >> 4))) | (both >> 2 & 0x00300030);
    const half2 codes = as_type<half2>((g < 4 ? both & 0x003f003f : last_four) | 0x64006400);
    return float2(float(d) * float(codes.x - half(1024)), float(dmin) * float(codes.y - half(1024)));
}

/// 256 weights.
struct q4_k {
    enum { len = 256, offset = 0, apart = 4, together = 2 };
    struct block {
        half d, dmin;
        uchar scales[12];
        ushort qs[64];
    };

    static void codes(device const block *row, uint e, thread float *q) {
        device const block &b = row[e / 32];
        const ushort n = ushort(e % 32), g = n / 4;
        fields(eight_bytes(b.qs + g / 2 * 16 + n % 4 * 4), g % 2 * 4, 0x0f, q);
    }

    static float2 unit(device const block *row, uint e) {
        device const block &b = row[e / 32];
        return scale_and_min(b.scales, e % 32 / 4, b.d, b.dmin);
    }
};
