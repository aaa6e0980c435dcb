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
    enum { len = 256, offset = 0, apart = 4, together = 4 };
    struct block {
        uchar scales[16];
        ushort qs[32];
        half d, dmin;
    };

    static float2 eight(device const block *row, uint e, uint, thread float *q) {
        device const block &b = row[e / 32];
        two_bits(b.qs, ushort(e % 32), q);
        // The upper nibble is a minimum, and stays where it stands.
        const ushort packed = b.scales[e % 32 / 2];
        const half2 both = as_type<half2>((as_type<uint>(ushort2(packed, packed)) & 0x00f0000f) | 0x64006400);
        return float2(
            float(b.d) * float(both.x - half(1024)), float(b.dmin) * float(both.y * half(0.0625f) - half(64)));
    }
};
