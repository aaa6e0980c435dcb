// BF16: the upper half of an `f32`.
#pragma once

#include "../bits.h"
#include "../one_by_one.h"

/// Brain floats, by their bits.
struct bf16 {
    enum { len = 1, offset = 0, pair = 1 };
    typedef ushort block;

    static float one(block w) {
        return brain(w);
    }
    static float2 eight(device const block *row, uint e, uint count, thread float *q) {
        return one_by_one<bf16>(row, e, count, q);
    }
};
