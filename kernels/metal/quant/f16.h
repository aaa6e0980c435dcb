// F16: the weight in half precision.
#pragma once

#include "../one_by_one.h"

/// Half precision.
struct f16 {
    enum { len = 1, offset = 0, pair = 1 };
    typedef half block;

    static float one(block w) {
        return float(w);
    }
    static float2 eight(device const block *row, uint e, uint count, thread float *q) {
        return one_by_one<f16>(row, e, count, q);
    }
};
