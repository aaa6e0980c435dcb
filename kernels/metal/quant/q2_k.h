// Q2_K: w[i] = (d * sc[i / 16]) * q[i] - (dmin * m[i / 16]).
#pragma once

#include "../bits.h"

/// The bytes of codes of two bits, in the order of Q2_K, Q3_K and TQ2_0: a byte holds those of four weights that lie 32 apart.
/// `e` is the number in the superblock of the first eight in them.
inline uint2 bytes_of_four(device const ushort *qs, ushort e) {
    return eight_bytes(qs + e / 16 * 16 + e % 4 * 4);
}

/// 256 weights.
struct q2_k {
    enum { len = 256, offset = 0, apart = 4, together = 4 };
    struct block {
        uchar scales[16];
        ushort qs[32];
        half d, dmin;
    };

    struct bytes {
        uint2 qs;
        /// Of the four eights, two apart.
        device const uchar *scales;
        half d, dmin;
    };

    static bytes load(device const block &b, ushort e) {
        const bytes from = {bytes_of_four(b.qs, e), b.scales + e / 2, b.d, b.dmin};
        return from;
    }

    static float2 eight(bytes b, ushort n, thread float *q) {
        fields(b.qs, 2 * n, 3, q);
        // The upper nibble is a minimum, and stays where it stands.
        const ushort packed = b.scales[2 * n];
        const half2 both = as_type<half2>((as_type<uint>(ushort2(packed, packed)) & 0x00f0000f) | 0x64006400);
        return float2(
            float(b.d) * float(both.x - half(1024)), float(b.dmin) * float(both.y * half(0.0625f) - half(64)));
    }
};
