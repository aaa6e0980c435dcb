// F64: double precision, which the language lacks; rounded to the nearest float by hand.
#pragma once

#include "../one_by_one.h"

/// The float nearest to a double, by its bits; ties go to even.
inline float from_double(ulong bits) {
    const uint sign = uint(bits >> 63) << 31;
    const int exponent = int(bits >> 52 & 0x7ff) - 1023;
    const ulong mantissa = bits & 0x000fffffffffffffUL;
    if (exponent == 1024) {
        return as_type<float>(sign | 0x7f800000u | (mantissa != 0 ? 0x00400000u | uint(mantissa >> 29) : 0u));
    }
    // Below the smallest normal float more bits are dropped; below half the smallest of all floats, every one.
    const uint drop = exponent >= -126 ? 29 : 29 + uint(-126 - exponent);
    if (drop > 53) {
        return as_type<float>(sign);
    }
    const ulong whole = mantissa | 0x0010000000000000UL;
    const ulong rest = whole & ((1UL << drop) - 1), tie = 1UL << (drop - 1);
    uint kept = uint(whole >> drop);
    kept += uint(rest > tie || (rest == tie && (kept & 1) == 1));
    // A carry out of the mantissa raises the exponent by one, as it should; beyond the largest, to infinity.
    const uint above = exponent >= -126 ? uint(exponent + 126) << 23 : 0;
    return as_type<float>(sign | (exponent > 127 ? 0x7f800000u : above + kept));
}

struct from_bits_of_double {
    static float weight(ulong w) {
        return from_double(w);
    }
};
typedef one_by_one<ulong, from_bits_of_double> f64;
