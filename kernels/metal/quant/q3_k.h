// Q3_K: w[i] = (d * (sc[i / 16] - 32)) * (q[i] - 4).
#pragma once

#include "q2_k.h"

/// 256 weights.
struct q3_k {
    enum { len = 256, offset = 4, apart = 4, together = 4 };
    struct block {
        ushort hmask[16];
        ushort qs[32];
        uchar scales[12];
        half d;
    };

    struct bytes {
        uint2 qs, thirds;
        /// Of the four eights, two apart, and from which bit on.
        device const uchar *scales;
        ushort shift;
        half d;
    };

    static bytes load(device const block &b, ushort e) {
        const uint2 thirds = eight_bytes(b.hmask + e % 4 * 4);
        const ushort shift = e / 16 * 4;
        const bytes from = {
            bytes_of_four(b.qs, e), uint2(thirds.x >> shift, thirds.y >> shift), b.scales + e % 4 / 2, shift, b.d};
        return from;
    }

    static float2 eight(bytes b, ushort n, thread float *q) {
        for (ushort i = 0; i < 2; i++) {
            split((b.qs[i] >> (2 * n) & 0x03030303) | (b.thirds[i] >> n & 0x01010101) << 2, q + 4 * i);
        }
        // The low four bits of the scale, and the high two, where they stand of four.
        const ushort low = b.scales[2 * n], high = b.scales[8 + n % 2 * 2], odd = n / 2;
        const uint both = as_type<uint>(ushort2(low, high)) >> b.shift & (odd ? 0x000c000f : 0x0003000f);
        const half2 codes = as_type<half2>(both | 0x64006400);
        const half scale = (codes.x - half(1024 + 32)) + (codes.y - half(1024)) * half(odd ? 4 : 16);
        return float2(float(b.d) * float(scale), 0.0f);
    }
};
