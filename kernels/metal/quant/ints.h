// I8, I16, I32 and I64: whole numbers, rounded to the nearest float.
#pragma once

#include "../one_by_one.h"

/// Whole numbers of 8 bits with sign.
struct i8 {
    enum { len = 1, offset = 0, pair = 1 };
    typedef char block;

    static float one(block w) {
        return float(w);
    }
    static float2 eight(device const block *row, uint e, uint count, thread float *q) {
        return one_by_one<i8>(row, e, count, q);
    }
};

/// Whole numbers of 16 bits with sign.
struct i16 {
    enum { len = 1, offset = 0, pair = 1 };
    typedef short block;

    static float one(block w) {
        return float(w);
    }
    static float2 eight(device const block *row, uint e, uint count, thread float *q) {
        return one_by_one<i16>(row, e, count, q);
    }
};

/// Whole numbers of 32 bits with sign.
struct i32 {
    enum { len = 1, offset = 0, pair = 1 };
    typedef int block;

    static float one(block w) {
        return float(w);
    }
    static float2 eight(device const block *row, uint e, uint count, thread float *q) {
        return one_by_one<i32>(row, e, count, q);
    }
};

/// Whole numbers of 64 bits with sign.
struct i64 {
    enum { len = 1, offset = 0, pair = 1 };
    typedef long block;

    static float one(block w) {
        return float(w);
    }
    static float2 eight(device const block *row, uint e, uint count, thread float *q) {
        return one_by_one<i64>(row, e, count, q);
    }
};
