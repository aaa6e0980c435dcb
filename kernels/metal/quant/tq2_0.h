// TQ2_0: w[i] = (q[i] - 1) * d.
#pragma once

#include "q2_k.h"

/// 256 weights.
struct tq2_0 {
    enum { len = 256, offset = 1, apart = 4, together = 4 };
    struct block {
        ushort qs[32];
        half d;
    };

    struct bytes {
        uint2 qs;
        half d;
    };

    static bytes load(device const block &b, ushort e) {
        const bytes from = {bytes_of_four(b.qs, e), b.d};
        return from;
    }

    static float2 eight(bytes b, ushort n, thread float *q) {
        fields(b.qs, 2 * n, 3, q);
        return float2(b.d, 0.0f);
    }
};
