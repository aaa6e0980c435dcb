// Q2_K: w[i] = (d * sc[i / 16]) * q[i] - (dmin * m[i / 16]).
#pragma once

#include "../bits.h"

/// Eight codes of two bits, in the order of Q2_K, Q3_K and TQ2_0: a byte holds those of four weights that lie 32 apart.
/// `e` is the eight's number in the superblock.
inline void two_bits(device const ushort *qs, ushort e, thread float *q) {
    fields(qs + e / 16 * 16 + e % 4 * 4, e / 4 % 4 * 2, 3, q);
}

/// 256 weights.
struct q2_k {
    enum { len = 256, offset = 0, pair = 4 };
    struct block {
        uchar scales[16];
        ushort qs[32];
        half d, dmin;
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 32];
        const uchar packed = b.scales[e % 32 / 2];
        two_bits(b.qs, ushort(e % 32), q);
        return float2(float(b.d) * float(packed & 0x0f), float(b.dmin) * float(packed >> 4));
    }
};
