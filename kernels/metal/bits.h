// How formats read numbers out of bytes.
//
// To convert a whole number to a float takes one of Apple's GPUs four times as long as to add two. So codes become the
// mantissa of numbers in half precision instead: 0x6400 with `code` in its lowest ten bits is 1024 + code. All that follows
// is exact.
#pragma once

#include "common.h"

/// A code below 1024.
inline float number(ushort code) {
    return float(as_type<half>(ushort(0x6400 | code)) - half(1024));
}

/// Four bytes at an address that two divides.
inline uint four_bytes(device const ushort *from) {
    return as_type<uint>(ushort2(from[0], from[1]));
}

/// Eight of them.
inline uint2 eight_bytes(device const ushort *from) {
    return uint2(four_bytes(from), four_bytes(from + 2));
}

/// Of four bytes the bits of a byte that `mask` keeps, times `unit` and less `base`, which is
/// `1024 * unit` and what else is to be taken away.
inline void split_less(uint bytes, uint mask, half unit, half base, thread float *q) {
    // Bytes move before they are masked: fields of the same bytes then share that.
    const half2 even = as_type<half2>((bytes & mask * 0x00010001u) | 0x64006400);
    const half2 odd = as_type<half2>((bytes >> 8 & mask * 0x00010001u) | 0x64006400);
    q[0] = float(even.x * unit - base);
    q[1] = float(odd.x * unit - base);
    q[2] = float(even.y * unit - base);
    q[3] = float(odd.y * unit - base);
}

/// Four codes of a byte each.
inline void split(uint codes, thread float *q) {
    split_less(codes, 0xff, half(1), half(1024), q);
}

/// Of eight bytes the bits from `shift` on that `mask` tells, where they stand: what they are too large by, `unit` makes good.
inline void fields(uint2 bytes, ushort shift, uint mask, thread float *q) {
    const half unit = as_type<half>(ushort((15 - shift) << 10)), base = as_type<half>(ushort((25 - shift) << 10));
    split_less(bytes.x, mask << shift, unit, base, q);
    split_less(bytes.y, mask << shift, unit, base, q + 4);
}

/// Eight bytes with sign.
inline void signed_bytes(device const ushort *from, thread float *q) {
    // With its sign bit turned round a byte is 128 too large.
    split_less(four_bytes(from) ^ 0x80808080u, 0xff, half(1), half(1024 + 128), q);
    split_less(four_bytes(from + 2) ^ 0x80808080u, 0xff, half(1), half(1024 + 128), q + 4);
}

/// The lowest four bits, one to a byte.
inline uint spread_bits(uint bits) {
    return (bits & 0x0f) * 0x00204081u & 0x01010101u;
}

/// Number `i` of packed nibbles, the lower of a byte first.
inline ushort nibble(device const uchar *from, ushort i) {
    return ushort(from[i / 2] >> (i % 2 * 4) & 0x0f);
}

/// A float whose exponent says more than half precision can hold: the upper half of its bits.
inline float brain(ushort bits) {
    return as_type<float>(uint(bits) << 16);
}
