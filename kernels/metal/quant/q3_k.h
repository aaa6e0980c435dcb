// Q3_K: w[i] = (d * (sc[i / 16] - 32)) * (q[i] - 4).
#pragma once

#include "../bits.h"

/// 256 weights.
struct q3_k {
    enum { len = 256, offset = 4, pair = 4 };
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
            const uint third = four_bytes(b.hmask + n % 4 * 4 + 2 * i) >> (n / 4) & 0x01010101;
            split((four_bytes(at + 2 * i) >> (n / 4 % 4 * 2) & 0x03030303) | third << 2, q + 4 * i);
        }
        const ushort low = b.scales[t % 8] >> (t / 8 * 4) & 0x0f, high = b.scales[8 + t % 4] >> (t / 4 * 2) & 3;
        return float2(float(b.d) * float(int(low | high << 4) - 32), 0.0f);
    }
};
