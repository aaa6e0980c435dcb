// Every format, and the one list of them.
//
// A format is a struct with `len` (weights in a block), `block`, and `eight`, which gives eight weights in a row as codes `q`
// with a scale and a minimum:
//
//   w[i] = (q[i] - offset) * scale - min        unit = (scale, min)
//
// so that a product needs the scale but once. `together` eights that lie `apart` share bytes: a thread takes them all. Where they are
// two, it takes two neighbours of each, which have the same unit: so the format tells `codes` and `unit` apart. Where they are four, `load`
// gets their `bytes`, given a block and the number of the first, and `eight` takes these and which of the four is wanted.
#pragma once

#include "quant/bf16.h"
#include "quant/f16.h"
#include "quant/f32.h"
#include "quant/f64.h"
#include "quant/ints.h"
#include "quant/iq1_m.h"
#include "quant/iq1_s.h"
#include "quant/iq2_s.h"
#include "quant/iq2_xs.h"
#include "quant/iq2_xxs.h"
#include "quant/iq3_s.h"
#include "quant/iq3_xxs.h"
#include "quant/iq4_nl.h"
#include "quant/iq4_xs.h"
#include "quant/mxfp4.h"
#include "quant/nvfp4.h"
#include "quant/q1_0.h"
#include "quant/q2_0.h"
#include "quant/q2_k.h"
#include "quant/q3_k.h"
#include "quant/q4_0.h"
#include "quant/q4_1.h"
#include "quant/q4_k.h"
#include "quant/q5_0.h"
#include "quant/q5_1.h"
#include "quant/q5_k.h"
#include "quant/q6_k.h"
#include "quant/q8_0.h"
#include "quant/q8_1.h"
#include "quant/q8_k.h"
#include "quant/tq1_0.h"
#include "quant/tq2_0.h"

/// Calls the macro `X` with every format.
#define FOR_EACH_FORMAT(X)                                                                                       \
    X(f32) X(f16) X(bf16) X(f64) X(i8) X(i16) X(i32) X(i64) X(q4_0) X(q4_1) X(q5_0) X(q5_1) X(q8_0) X(q8_1)      \
    X(q2_k) X(q3_k) X(q4_k) X(q5_k) X(q6_k) X(q8_k) X(iq1_s) X(iq1_m) X(iq2_xxs) X(iq2_xs) X(iq2_s) X(iq3_xxs)   \
    X(iq3_s) X(iq4_nl) X(iq4_xs) X(tq1_0) X(tq2_0) X(mxfp4) X(nvfp4) X(q1_0) X(q2_0)

/// The eights that a thread takes together, of any format: what they share, and each of them.
template <typename F, ushort SHARING = (F::apart == 1 ? 1 : F::together)>
struct eights_of {
    /// Where they lie.
    struct bytes {
        device const typename F::block *row;
        uint e, count;
    };

    static bytes load(device const typename F::block *row, uint e, uint count) {
        const bytes from = {row, e, count};
        return from;
    }

    /// Number `n` of them. `again` tells that `unit` is known, from a neighbour; else it is written.
    static void eight(bytes from, ushort n, bool again, thread float *q, thread float2 &unit) {
        unit = F::eight(from.row, from.e + n * F::apart, from.count, q);
    }
};

template <typename F>
struct eights_of<F, 2> {
    typedef typename eights_of<F, 1>::bytes bytes;

    static bytes load(device const typename F::block *row, uint e, uint count) {
        return eights_of<F, 1>::load(row, e, count);
    }

    static void eight(bytes from, ushort n, bool again, thread float *q, thread float2 &unit) {
        F::codes(from.row, from.e + n * F::apart, q);
        if (!again) {
            unit = F::unit(from.row, from.e + n * F::apart);
        }
    }
};

template <typename F>
struct eights_of<F, 4> {
    typedef typename F::bytes bytes;

    static bytes load(device const typename F::block *row, uint e, uint) {
        return F::load(row[e / (F::len / 8)], ushort(e % (F::len / 8)));
    }

    static void eight(bytes from, ushort n, bool again, thread float *q, thread float2 &unit) {
        unit = F::eight(from, n, q);
    }
};

/// Eight number `e` of a row of `count` weights, by itself.
template <typename F>
inline float2 eight(device const typename F::block *row, uint e, uint count, thread float *q) {
    const ushort n = e / F::apart % F::together;
    float2 unit;
    eights_of<F>::eight(eights_of<F>::load(row, e - n * F::apart, count), n, false, q, unit);
    return unit;
}

/// Eight weights of a row of `count`, as floats.
template <typename F>
inline void weights(device const typename F::block *row, uint e, uint count, thread float *w) {
    const float2 unit = eight<F>(row, e, count, w);
    for (ushort i = 0; i < 8; i++) {
        w[i] = (w[i] - float(F::offset)) * unit.x - unit.y;
    }
}

/// Eight of `count` numbers; behind their end zeros.
inline void numbers(device const float *x, uint e, uint count, thread float *to) {
    if (8 * e + 8 <= count) {
        device const packed_float4 *at = (device const packed_float4 *)(x + 8 * e);
        const float4 low = at[0], high = at[1];
        for (ushort i = 0; i < 4; i++) {
            to[i] = low[i];
            to[4 + i] = high[i];
        }
    } else {
        for (ushort i = 0; i < 8; i++) {
            to[i] = 8 * e + i < count ? x[8 * e + i] : 0.0f;
        }
    }
}
