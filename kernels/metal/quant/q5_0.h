// Q5_0: w[i] = (q[i] - 16) * d.
#pragma once

#include "../bits.h"

/// Eight codes of four bits with a fifth: nibbles of 16 bytes and bits of a word, as in Q5_0 and Q5_1.
inline void five_bits(device const ushort *qs, device const ushort *qh, ushort e, thread float *q) {
    const uint fifths = qh[e / 2] >> (e % 2 * 8);
    for (ushort i = 0; i < 2; i++) {
        const uint low = four_bytes(qs + e % 2 * 4 + 2 * i) >> (e / 2 * 4) & 0x0f0f0f0f;
        split(low | spread_bits(fifths >> (4 * i)) << 4, q + 4 * i);
    }
}

/// 32 weights.
struct q5_0 {
    enum { len = 32, offset = 16, apart = 2, together = 2 };
    struct block {
        half d;
        ushort qh[2];
        ushort qs[8];
    };

    static void codes(device const block *row, uint e, thread float *q) {
        device const block &b = row[e / 4];
        five_bits(b.qs, b.qh, ushort(e % 4), q);
    }

    static float2 unit(device const block *row, uint e) {
        return float2(row[e / 4].d, 0.0f);
    }
};
