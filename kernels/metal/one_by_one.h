// Formats whose weights stand alone: rows of any length.
#pragma once

#include "common.h"

/// How most weights become floats: as the language converts them.
template <typename T>
struct converted {
    static float weight(T w) {
        return float(w);
    }
};

template <typename T, typename How = converted<T>>
struct one_by_one {
    enum { len = 1, offset = 0, apart = 1, together = 2 };
    typedef T block;

    /// Behind the end of a row of `count` zeros.
    static float2 eight(device const block *row, uint e, uint count, thread float *q) {
        for (ushort i = 0; i < 8; i++) {
            q[i] = 8 * e + i < count ? How::weight(row[8 * e + i]) : 0.0f;
        }
        return float2(1.0f, 0.0f);
    }
};
