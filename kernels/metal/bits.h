// How formats read numbers out of bytes.
#pragma once

#include "common.h"

/// The two bytes of `two`, as floats.
inline void split(ushort two, thread float *q) {
    q[0] = float(two & 0xff);
    q[1] = float(two >> 8);
}

/// Of eight bytes the bits from `shift` on that `mask` tells.
inline void fields(device const ushort *from, ushort shift, ushort mask, thread float *q) {
    const ushort both = ushort(mask * 0x0101);
    for (ushort i = 0; i < 4; i++) {
        split(ushort(from[i] >> shift) & both, q + 2 * i);
    }
}

/// Eight bytes with sign.
inline void signed_bytes(device const ushort *from, thread float *q) {
    for (ushort i = 0; i < 4; i++) {
        const short two = short(from[i]);
        q[2 * i] = float(char(two & 0xff));
        q[2 * i + 1] = float(two >> 8);
    }
}

/// Number `i` of packed nibbles, the lower of a byte first.
inline ushort nibble(device const uchar *from, ushort i) {
    return ushort(from[i / 2] >> (i % 2 * 4) & 0x0f);
}

/// A float whose exponent says more than half precision can hold: the upper half of its bits.
inline float brain(ushort bits) {
    return as_type<float>(uint(bits) << 16);
}
