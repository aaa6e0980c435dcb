// Rows of tables.
#include "formats.h"
#include "params.h"

/// Rows of a table of weights as floats, an eight for each thread.
template <typename F>
kernel void lookup(
    constant lookup_params &p [[buffer(0)]], device const uchar *table [[buffer(1)]],
    device const uint *ids [[buffer(2)]], device float *out [[buffer(3)]], GRID) {
    const uint e = (group.x * 2 + simd) * LANES + lane;
    if (8 * e >= p.len) {
        return;
    }
    // Ids are checked on the host; here no number reaches outside the table.
    const ulong row = min(ids[group.y], p.rows - 1);
    float w[8];
    weights<F>((device const typename F::block *)(table + row * p.row_bytes), e, p.len, w);
    for (ushort i = 0; i < 8 && 8 * e + i < p.len; i++) {
        out[ulong(group.y) * p.len + 8 * e + i] = w[i];
    }
}

#define LOOKUP(format) INSTANCE("lookup_" #format, lookup<format>)
FOR_EACH_FORMAT(LOOKUP)

/// Rows of a matrix of activations.
kernel void select_rows(
    constant lookup_params &p [[buffer(0)]], device const float *x [[buffer(1)]],
    device const uint *ids [[buffer(2)]], device float *out [[buffer(3)]], GRID) {
    const uint i = (group.x * 2 + simd) * LANES + lane;
    if (i < p.len) {
        out[ulong(group.y) * p.len + i] = x[ulong(min(ids[group.y], p.rows - 1)) * p.len + i];
    }
}
PLAIN(select_rows)
