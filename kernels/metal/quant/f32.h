// F32: the weight itself.
#pragma once

#include "../one_by_one.h"

/// Single precision.
struct f32 {
    enum { len = 1, offset = 0, pair = 1 };
    typedef float block;

    static float one(block w) {
        return w;
    }
    static float2 eight(device const block *row, uint e, uint count, thread float *q) {
        return one_by_one<f32>(row, e, count, q);
    }
};
