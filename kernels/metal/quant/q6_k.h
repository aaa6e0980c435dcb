// Q6_K: w[i] = (d * scales[i / 16]) * (q[i] - 32).
#pragma once

#include "../bits.h"

/// 256 weights.
struct q6_k {
    enum { len = 256, offset = 32, apart = 4, together = 4 };
    struct block {
        ushort ql[64];
        ushort qh[32];
        char scales[16];
        half d;
    };

    struct bytes {
        /// Low nibbles of the first and the third eight, and of the second and the fourth.
        uint2 odd, even;
        uint2 highs;
        /// Of the four eights, two apart.
        device const char *scales;
        half d;
    };

    static bytes load(device const block &b, ushort e) {
        device const ushort *lows = b.ql + e / 16 * 32 + e % 4 * 4;
        const bytes from = {
            eight_bytes(lows), eight_bytes(lows + 16), eight_bytes(b.qh + e / 16 * 16 + e % 4 * 4), b.scales + e / 2, b.d};
        return from;
    }

    static float2 eight(bytes b, ushort n, thread float *q) {
        const uint2 lows = n % 2 == 0 ? b.odd : b.even;
        for (ushort i = 0; i < 2; i++) {
            const uint low = lows[i] >> (n / 2 * 4) & 0x0f0f0f0f, high = b.highs[i] >> (n * 2) & 0x03030303;
            split(low | high << 4, q + 4 * i);
        }
        return float2(float(b.d) * float(b.scales[2 * n]), 0.0f);
    }
};
