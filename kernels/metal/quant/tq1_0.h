// TQ1_0: w[i] = (q[i] - 1) * d, five base-3 digits in a byte.
#pragma once

#include "../bits.h"

/// Base-3 digit `n` (0 to 4) of a byte, which is a fraction of 256.
inline float digit(uchar byte, ushort n) {
    const uint powers[5] = {1, 3, 9, 27, 81};
    return number(ushort((byte * powers[n] & 0xff) * 3 >> 8));
}

/// 256 weights.
struct tq1_0 {
    enum { len = 256, offset = 1, apart = 1, together = 2 };
    struct block {
        uchar qs[48];
        uchar qh[4];
        half d;
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 32];
        const ushort n = ushort(e % 32);
        for (ushort i = 0; i < 8; i++) {
            if (n < 20) {
                q[i] = digit(b.qs[n % 4 * 8 + i], n / 4);
            } else if (n < 30) {
                q[i] = digit(b.qs[32 + n % 2 * 8 + i], (n - 20) / 2);
            } else {
                q[i] = digit(b.qh[i % 4], (n - 30) * 2 + i / 4);
            }
        }
        return float2(b.d, 0.0f);
    }
};
