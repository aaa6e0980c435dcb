// Keys and values on their way into the cache, in the formats that it may have. Values that only fill a row are zeros.
#include "formats.h"
#include "params.h"

struct keep_f32 {
    enum { unit = 1 };
    static void put(device uchar *row, uint u, thread const float *x) {
        ((device float *)row)[u] = x[0];
    }
};

struct keep_f16 {
    enum { unit = 1 };
    static void put(device uchar *row, uint u, thread const float *x) {
        ((device half *)row)[u] = half(x[0]);
    }
};

struct keep_bf16 {
    enum { unit = 1 };
    static void put(device uchar *row, uint u, thread const float *x) {
        const uint bits = as_type<uint>(x[0]);
        // To the nearest, ties to even; a NaN stays one.
        const uint nearest = bits + 0x7fff + (bits >> 16 & 1);
        ((device ushort *)row)[u] = ushort((x[0] != x[0] ? bits | 0x00400000u : nearest) >> 16);
    }
};

/// The number of the largest magnitude among 32, with its sign; NaN where one is NaN.
inline float extreme(thread const float *x) {
    float most = 0.0f;
    for (ushort i = 0; i < 32; i++) {
        most = fabs(x[i]) > fabs(most) || x[i] != x[i] ? x[i] : most;
    }
    return most;
}

struct keep_q8_0 {
    enum { unit = 32 };
    static void put(device uchar *row, uint u, thread const float *x) {
        const float scale = fabs(extreme(x)) / 127.0f, inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
        device q8_0::block *to = (device q8_0::block *)row + u;
        to->d = half(scale);
        for (ushort i = 0; i < 16; i++) {
            const int low = int(round(x[2 * i] * inverse)), high = int(round(x[2 * i + 1] * inverse));
            to->qs[i] = ushort((low & 0xff) | (high & 0xff) << 8);
        }
    }
};

struct keep_q4_0 {
    enum { unit = 32 };
    static void put(device uchar *row, uint u, thread const float *x) {
        const float scale = extreme(x) / -8.0f, inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
        device q4_0::block *to = (device q4_0::block *)row + u;
        to->d = half(scale);
        ushort codes[32];
        for (ushort i = 0; i < 32; i++) {
            codes[i] = ushort(min(int(x[i] * inverse + 8.5f), 15));
        }
        for (ushort i = 0; i < 8; i++) {
            const ushort low = codes[2 * i] | codes[2 * i + 16] << 4;
            to->qs[i] = ushort(low | (codes[2 * i + 1] | codes[2 * i + 17] << 4) << 8);
        }
    }
};

/// A unit of a head's row for each thread.
template <typename K>
kernel void keep(
    constant keep_params &p [[buffer(0)]], device const float *x [[buffer(1)]], device uchar *cache [[buffer(2)]], GRID) {
    const uint i = (group.x * 2 + simd) * LANES + lane, units = p.len / K::unit;
    const uint head = i / units, unit = i % units, token = group.y;
    if (head >= p.heads) {
        return;
    }
    device const float *from = x + (ulong(token) * p.heads + head) * p.dim;
    float values[K::unit];
    for (ushort k = 0; k < K::unit; k++) {
        const uint at = unit * K::unit + k;
        values[k] = at < p.dim ? from[at] : 0.0f;
    }
    const ulong row = ulong(head) * p.capacity + (p.position + token) % p.capacity;
    K::put(cache + row * p.row_bytes, unit, values);
}

#define KEEP(format) INSTANCE("keep_" #format, keep<keep_##format>)
KEEP(f32) KEEP(f16) KEEP(bf16) KEEP(q8_0) KEEP(q4_0)
