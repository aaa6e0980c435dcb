// Products with few rows of activations (decode): bound by how fast the weights are read.
//
// A simdgroup has MATVEC_ROWS rows of weights, so that what it loads of the activations serves several; its lanes share the
// row, each taking eights that lie in the same bytes, so that shifts are known when this is compiled, and where those are two
// their neighbours, which have the same scale.
// Products are of codes; scales, offsets and minimums meet a sum of eight at a time:
//
//   sum of w x = scale (sum of q x - offset sum of x) - min sum of x
#include "formats.h"
#include "params.h"

constant constexpr ushort MATVEC_ROWS = 4;
/// Simdgroups of a threadgroup.
constant constexpr ushort MATVEC_SIMDS = 2;

/// `C` is how many rows of activations share what is read of the weights: one where experts differ.
template <typename F, ushort C>
kernel void matvec(
    constant product_params &p [[buffer(0)]], device const uchar *matrix [[buffer(1)]],
    device const float *x [[buffer(2)]], device const float *bias [[buffer(3)]],
    device const uint *experts [[buffer(4)]], device float *out [[buffer(5)]], GRID) {
    const uint first = (group.x * MATVEC_SIMDS + simd) * MATVEC_ROWS;
    if (first >= p.rows) {
        return;
    }
    const uint expert = p.by_expert ? experts[group.y] : 0;
    device const typename F::block *rows[MATVEC_ROWS];
    for (ushort r = 0; r < MATVEC_ROWS; r++) {
        // Behind the last row the last one again: what comes of it is not written.
        const ulong row = ulong(expert) * p.of + p.first + min(first + r, p.rows - 1);
        rows[r] = (device const typename F::block *)(matrix + row * p.row_bytes);
    }
    device const float *columns[C];
    for (ushort c = 0; c < C; c++) {
        columns[c] = x + ulong(min(group.y * C + c, p.columns - 1)) * p.len;
    }

    float sums[MATVEC_ROWS][C];
    for (ushort r = 0; r < MATVEC_ROWS; r++) {
        for (ushort c = 0; c < C; c++) {
            sums[r][c] = 0.0f;
        }
    }
    const uint eights = (p.len + 7) / 8;
    // A lane takes four eights, where several share their bytes: those, and where they are two their neighbours.
    const ushort run = F::apart > 1 ? 4 / F::together : 1, period = F::together * F::apart;
    const uint units = (eights + period - 1) / period * (F::apart / run);
    for (uint i = lane; i < units; i += LANES) {
        const uint first_e = i / (F::apart / run) * period + i % (F::apart / run) * run;
        typename eights_of<F>::bytes bytes[run][MATVEC_ROWS];
        float2 units[MATVEC_ROWS];
        for (ushort m = 0; m < run; m++) {
            for (ushort r = 0; r < MATVEC_ROWS; r++) {
                bytes[m][r] = eights_of<F>::load(rows[r], first_e + m, p.len);
            }
        }
        for (ushort n = 0; n < F::together * run; n++) {
            const uint e = first_e + n / run * F::apart + n % run;
            // An odd number of eights is a plain format's.
            if (F::len == 1 && e >= eights) {
                break;
            }
            float xs[C][8], total[C];
            for (ushort c = 0; c < C; c++) {
                numbers(columns[c], e, p.len, xs[c]);
                total[c] = 0.0f;
                for (ushort k = 0; k < 8; k++) {
                    total[c] += xs[c][k];
                }
            }
            for (ushort r = 0; r < MATVEC_ROWS; r++) {
                float q[8];
                eights_of<F>::eight(bytes[n % run][r], n / run, n % run != 0, q, units[r]);
                for (ushort c = 0; c < C; c++) {
                    float dot = 0.0f;
                    for (ushort k = 0; k < 8; k++) {
                        dot = fma(q[k], xs[c][k], dot);
                    }
                    sums[r][c] += units[r].x * (dot - float(F::offset) * total[c]) - units[r].y * total[c];
                }
            }
        }
    }
    for (ushort r = 0; r < MATVEC_ROWS; r++) {
        for (ushort c = 0; c < C; c++) {
            const float sum = simd_sum(sums[r][c]);
            const uint row = first + r, column = group.y * C + c;
            if (lane == 0 && row < p.rows && column < p.columns) {
                const float add = p.has_bias ? bias[ulong(expert) * p.rows + row] : 0.0f;
                out[ulong(column) * p.rows + row] = sum + add;
            }
        }
    }
}

#define MATVEC(format)                                                                                           \
    INSTANCE("matvec_" #format, matvec<format, 1>)                                                               \
    INSTANCE("matvec4_" #format, matvec<format, 4>)
FOR_EACH_FORMAT(MATVEC)
