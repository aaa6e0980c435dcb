// Q3_K: w[i] = (d * (sc[i / 16] - 32)) * (q[i] - 4).
#pragma once

#include "../bits.h"

/// 256 weights.
struct q3_k {
    enum { len = 256, offset = 4, apart = 4, together = 4 };
    struct block {
        ushort hmask[16];
        ushort qs[32];
        uchar scales[12];
        half d;
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 32];
        const ushort n = ushort(e % 32), t = n / 2;
        device const ushort *at = b.qs + n / 16 * 16 + n % 4 * 4;
        for (ushort i = 0; i < 2; i++) {
            const uint third = four_bytes(b.hmask + n % 4 * 4 + 2 * i) >> (n / 16 * 4) >> (n / 4 % 4) & 0x01010101;
            split((four_bytes(at + 2 * i) >> (n / 4 % 4 * 2) & 0x03030303) | third << 2, q + 4 * i);
        }
        // The low four bits of the scale, and the high two, where they stand of four.
        const ushort low = b.scales[t % 8], high = b.scales[8 + t % 4], odd = t / 4 % 2;
        const uint both = as_type<uint>(ushort2(low, high)) >> (t / 8 * 4) & (odd ? 0x000c000f : 0x0003000f);
        const half2 codes = as_type<half2>(both | 0x64006400);
        const half scale = (codes.x - half(1024 + 32)) + (codes.y - half(1024)) * half(odd ? 4 : 16);
        return float2(float(b.d) * float(scale), 0.0f);
    }
};
