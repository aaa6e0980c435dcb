//! Decode: rows of weights, read once from where they lie, times one to four columns.
//!
//! Each row's product is the one that [`crate::gemm`] gives bit for bit; here is its definition, by the path of the
//! format, with `x` the activations:
//!
//! - **Superblock**: one accumulator; for each superblock in order, its whole integer sum as one fused
//!   multiply-add, then, if the format has minimums, theirs as another.
//! - **Scaled**: the sum, in order and from zero, of spans of [`SPAN`] weights. A span has eight accumulators; its part
//!   `k` (32 weights) goes to accumulator `k mod 8` as a fused multiply-add of its integer sum, then of its minimum; one
//!   tree ([`Isa::sum`]) at the end.
//! - **Plain**: the sum, in order and from zero, of spans of [`SPAN`] weights, made floats and padded with zeros to a
//!   multiple of 16. Weight `k` of a span goes to accumulator `k mod 16`; the two registers of eight are added, then
//!   their lanes by [`Isa::sum`].
#![forbid(unsafe_code)]

use crate::activations::Columns;
use crate::quant::{Block, Codes, Groups, Scale, Scaled, Superblock, eight};
use crate::simd::{Isa, scalar};

/// Weights of a row whose products are added up before they join the row's sum: what a panel holds.
pub(crate) const SPAN: usize = 1024;

/// Bytes that a row of weights is asked for ahead of its use.
const AHEAD: usize = 4096;

/// One row of superblocks times `C` columns from column `first` on.
#[inline(always)]
pub(crate) fn superblocks<I: Isa, B: Superblock, const C: usize>(
    isa: I,
    row: &[B],
    x: Columns<'_>,
    first: usize,
) -> [f32; C] {
    let codes: [_; C] = core::array::from_fn(|c| x.codes(first + c).as_chunks::<8>().0);
    let sums: [_; C] = core::array::from_fn(|c| x.superblock_sums(first + c));
    let scales: [_; C] = core::array::from_fn(|c| x.scales(first + c));
    let mut acc = [0.0; C];
    // Eight superblocks share the conversions and the sums across lanes.
    for (start, blocks) in (0..).step_by(8).zip(row.chunks(8)) {
        let mut dots = [[isa.zero_ints(); 8]; C];
        let mut mins = [[isa.zero_ints(); 8]; C];
        for (i, block) in blocks.iter().enumerate() {
            prefetch(isa, block, size_of::<B>());
            let group_scales = block.group_scales();
            let picks = match group_scales {
                Groups::Of16(scales) => isa.scales_of_16(&scales),
                Groups::Of32(scales) => isa.scales_of_32(&scales),
            };
            let mut dot = [isa.zero_ints(); C];
            for part in 0..8 {
                let w = block.load_codes(isa, part);
                let scales = isa.pick(picks, part);
                for c in 0..C {
                    let x = isa.signed_bytes(&codes[c][start + i][part]);
                    let pairs = match B::CODES {
                        Codes::Unsigned(_) => isa.pairs_unsigned(w, x),
                        Codes::Signed => isa.pairs_signed(w, x),
                    };
                    dot[c] = isa.add_dot_shorts(dot[c], pairs, scales);
                }
            }
            for c in 0..C {
                let of_16 = isa.shorts(&sums[c][start + i].of_16);
                if B::OFFSET != 0 {
                    let scaled = isa.add_dot_shorts(isa.zero_ints(), of_16, of_each_16(isa, group_scales));
                    dot[c] = isa.sub_ints(dot[c], times_offset(isa, scaled, i32::from(B::OFFSET)));
                }
                if B::MINS {
                    let group_mins = of_each_16(isa, block.group_mins());
                    mins[c][i] = isa.add_dot_shorts(isa.zero_ints(), of_16, group_mins);
                }
                dots[c][i] = dot[c];
            }
        }
        let count = blocks.len();
        let of = |i: usize| blocks.get(i).unwrap_or(&blocks[0]);
        let mut row_scales = eight(isa, |i| of(i).scale());
        if B::UNIT != 1.0 {
            row_scales = isa.mul(row_scales, isa.splat(B::UNIT));
        }
        for c in 0..C {
            let mut column = [0.0; 8];
            column[..count].copy_from_slice(&scales[c][start..][..count]);
            let column = isa.floats(&column);
            let [mut a, mut b] = [[0.0; 8]; 2];
            isa.store(isa.to_floats(isa.sum_each(&dots[c])), &mut a);
            isa.store(isa.mul(row_scales, column), &mut b);
            if B::MINS {
                let [mut p, mut q] = [[0.0; 8]; 2];
                let min_scales = isa.mul(eight(isa, |i| of(i).min_scale()), column);
                isa.store(isa.to_floats(isa.sum_each(&mins[c])), &mut p);
                isa.store(isa.mul(min_scales, isa.splat(-1.0)), &mut q);
                for i in 0..count.min(8) {
                    acc[c] = scalar::fma(p[i], q[i], scalar::fma(a[i], b[i], acc[c]));
                }
            } else {
                for i in 0..count.min(8) {
                    acc[c] = scalar::fma(a[i], b[i], acc[c]);
                }
            }
        }
    }
    acc
}

/// One row of scaled blocks times `C` columns from column `first` on.
#[inline(always)]
pub(crate) fn scaled<I: Isa, B: Scaled, const C: usize>(
    isa: I,
    row: &[B],
    x: Columns<'_>,
    first: usize,
) -> [f32; C] {
    let mut total = [0.0; C];
    let codes: [_; C] = core::array::from_fn(|c| x.codes(first + c));
    let scales: [_; C] = core::array::from_fn(|c| x.scales(first + c));
    let sums: [_; C] = core::array::from_fn(|c| x.sums(first + c));
    for (start, blocks) in (0..).step_by(SPAN / 32).zip(row.chunks(SPAN / B::LEN)) {
        let mut acc = [isa.splat(0.0); C];
        let mut eights = blocks.chunks_exact(8 / B::PARTS);
        let mut part = start;
        for blocks in eights.by_ref() {
            prefetch(isa, &blocks[0], size_of_val(blocks));
            let mut dots = [[isa.zero_ints(); 8]; C];
            for i in 0..8 {
                let w = blocks[i / B::PARTS].load_codes(isa, i % B::PARTS);
                for c in 0..C {
                    dots[c][i] = dot(isa, B::CODES, w, isa.signed_bytes(&codes[c][part..][..8][i]));
                }
            }
            let row_scales = eight(isa, |i| blocks[i / B::PARTS].scale());
            for c in 0..C {
                let mut dots = isa.sum_each(&dots[c]);
                let sums = isa.ints(&sums[c][part..].as_chunks().0[0]);
                let dx = isa.floats(&scales[c][part..].as_chunks().0[0]);
                if B::OFFSET != 0 {
                    dots = isa.sub_ints(dots, times_offset(isa, sums, B::OFFSET));
                }
                acc[c] = isa.fma(isa.to_floats(dots), isa.mul(row_scales, dx), acc[c]);
                if B::MINS {
                    let mins = eight(isa, |i| blocks[i / B::PARTS].min());
                    acc[c] = isa.fma(mins, isa.mul(dx, isa.to_floats(sums)), acc[c]);
                }
            }
            part += 8;
        }
        let left = eights.remainder();
        if !left.is_empty() {
            for c in 0..C {
                let mut lanes = [0.0; 8];
                isa.store(acc[c], &mut lanes);
                for (i, lane) in lanes[..left.len() * B::PARTS].iter_mut().enumerate() {
                    let (block, sum) = (&left[i / B::PARTS], sums[c][part + i]);
                    let w = block.load_codes(isa, i % B::PARTS);
                    let products = dot(isa, B::CODES, w, isa.signed_bytes(&codes[c][part + i]));
                    let dot = isa.sum_ints(products) - B::OFFSET * sum;
                    let dx = scales[c][part + i];
                    *lane = scalar::fma(dot as f32, first_of(isa, block.scale()) * dx, *lane);
                    if B::MINS {
                        *lane = scalar::fma(first_of(isa, block.min()), dx * sum as f32, *lane);
                    }
                }
                acc[c] = isa.floats(&lanes);
            }
        }
        for c in 0..C {
            total[c] += isa.sum(acc[c]);
        }
    }
    total
}

/// One row of any format, made floats, times `C` columns from column `first` on.
#[inline(always)]
pub(crate) fn plain<I: Isa, B: Block, const C: usize>(
    isa: I,
    row: &[B],
    x: Columns<'_>,
    first: usize,
) -> [f32; C] {
    // Weights that are made floats at a time, in memory that stays in the first-level cache: whole blocks.
    const AT_A_TIME: usize = 256;
    let mut floats = [0.0; AT_A_TIME];
    let columns: [_; C] = core::array::from_fn(|c| x.float_column(first + c));
    let mut total = [0.0; C];
    for (start, blocks) in (0..).step_by(SPAN).zip(row.chunks(SPAN / B::LEN)) {
        let mut acc = [[isa.splat(0.0); 2]; C];
        for (start, blocks) in (start..).step_by(AT_A_TIME).zip(blocks.chunks(AT_A_TIME / B::LEN)) {
            prefetch(isa, &blocks[0], size_of_val(blocks));
            let len = blocks.len() * B::LEN;
            B::unpack(isa, blocks, &mut floats[..len]);
            let (whole, left) = floats[..len].as_chunks::<16>();
            for c in 0..C {
                let (x, x_left) = columns[c][start..][..len].as_chunks::<16>();
                let mut sums = acc[c];
                for i in 0..whole.len().min(x.len()) {
                    sums = add_sixteen(isa, sums, &whole[i], &x[i]);
                }
                if !left.is_empty() {
                    let [mut w, mut x] = [[0.0; 16]; 2];
                    w[..left.len()].copy_from_slice(left);
                    x[..left.len()].copy_from_slice(x_left);
                    sums = add_sixteen(isa, sums, &w, &x);
                }
                acc[c] = sums;
            }
        }
        for c in 0..C {
            total[c] += isa.sum(isa.add(acc[c][0], acc[c][1]));
        }
    }
    total
}

/// Adds the products of sixteen floats.
#[inline(always)]
fn add_sixteen<I: Isa>(isa: I, to: [I::Floats; 2], w: &[f32; 16], x: &[f32; 16]) -> [I::Floats; 2] {
    let (w, x) = (w.as_chunks::<8>().0, x.as_chunks::<8>().0);
    [
        isa.fma(isa.floats(&w[0]), isa.floats(&x[0]), to[0]),
        isa.fma(isa.floats(&w[1]), isa.floats(&x[1]), to[1]),
    ]
}

/// The groups' integers, one for each 16 weights.
#[inline(always)]
fn of_each_16<I: Isa>(isa: I, groups: Groups) -> I::Shorts {
    match groups {
        Groups::Of16(groups) => isa.widen(&groups),
        Groups::Of32(groups) => isa.widen_twice(&groups),
    }
}

/// Products of codes of a format and of activations, added up in lanes of 32 bits.
#[inline(always)]
fn dot<I: Isa>(isa: I, codes: Codes, w: I::Bytes, x: I::Bytes) -> I::Ints {
    match codes {
        Codes::Unsigned(_) => isa.dot_unsigned(w, x),
        Codes::Signed => isa.dot_signed(w, x),
    }
}

/// One scale, read as [`eight`] reads it.
#[inline(always)]
fn first_of<I: Isa>(isa: I, scale: Scale) -> f32 {
    let mut eight_of = [0.0; 8];
    isa.store(eight(isa, |_| scale), &mut eight_of);
    eight_of[0]
}

/// `a * offset`, for offsets that are powers of two up to 64.
#[inline(always)]
fn times_offset<I: Isa>(isa: I, a: I::Ints, offset: i32) -> I::Ints {
    match offset {
        1 => a,
        2 => isa.shl_ints::<1>(a),
        4 => isa.shl_ints::<2>(a),
        8 => isa.shl_ints::<3>(a),
        16 => isa.shl_ints::<4>(a),
        32 => isa.shl_ints::<5>(a),
        _ => isa.shl_ints::<6>(a),
    }
}

/// Asks for the lines of `bytes` bytes of weights that come some blocks later.
#[inline(always)]
fn prefetch<I: Isa, B: Block>(isa: I, block: &B, bytes: usize) {
    let at = bytemuck::bytes_of(block).as_ptr();
    for line in 0..bytes.div_ceil(64) {
        isa.prefetch(at, AHEAD + 64 * line);
    }
}
