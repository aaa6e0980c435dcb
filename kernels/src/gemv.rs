//! Decode: rows of weights, read once from where they lie, times one column.
//!
//! Each row's product is the one that [`crate::gemm`] gives bit for bit; here is its definition, by the path of the
//! format, with `x` the activations:
//!
//! - **Superblock**: one accumulator; for each superblock in order, its whole integer sum as one fused
//!   multiply-add, then, if the format has minimums, theirs as another.
//! - **Scaled**: eight accumulators; part `k` (32 weights) goes to accumulator `k mod 8` as a fused multiply-add of
//!   its integer sum, then of its minimum; one tree ([`Isa::sum`]) at the end.
//! - **Plain**: the row made floats, padded with zeros to a multiple of 32; weight `k` goes to accumulator `k mod 32`;
//!   the four registers of eight are added as `(0+2) + (1+3)`, then by [`Isa::sum`].
#![forbid(unsafe_code)]

use crate::activations::Columns;
use crate::quant::{Block, Codes, Scaled, Superblock};
use crate::simd::{Isa, scalar};

/// Bytes that a row of weights is asked for ahead of its use.
const AHEAD: usize = 4096;

/// Products of codes of a format and of activations, neighbours added.
#[inline(always)]
pub(crate) fn pairs<I: Isa>(isa: I, codes: Codes, w: I::Bytes, x: I::Bytes) -> I::Shorts {
    match codes {
        Codes::Unsigned(_) => isa.pairs_unsigned(w, x),
        Codes::Signed => isa.pairs_signed(w, x),
    }
}

/// One row of superblocks times column 0.
#[inline(always)]
pub(crate) fn superblocks<I: Isa, B: Superblock>(isa: I, row: &[B], x: Columns<'_>) -> f32 {
    let mut acc = 0.0;
    let columns = x.codes(0).as_chunks::<8>().0.iter().zip(x.short_sums(0)).zip(x.scales(0));
    for (block, ((codes, sums), &dx)) in row.iter().zip(columns) {
        prefetch(isa, block);
        let scales = isa.group_scales(&block.group_scales());
        let mut dot = isa.zero_ints();
        for (part, x) in codes.iter().enumerate() {
            let products = pairs(isa, B::CODES, block.load_codes(isa, part), isa.signed_bytes(x));
            dot = isa.add_ints(dot, isa.dot_shorts(products, isa.pick(scales, part)));
        }
        if B::OFFSET != 0 {
            let sums = isa.dot_shorts(isa.shorts(sums), scales);
            dot = isa.sub_ints(dot, shl_by_offset(isa, sums, i32::from(B::OFFSET)));
        }
        acc = scalar::fma(isa.sum_ints(dot) as f32, block.scale() * dx, acc);
        if B::MINS {
            let mins = isa.dot_shorts(isa.shorts(sums), isa.group_scales(&block.group_mins()));
            acc = scalar::fma(isa.sum_ints(mins) as f32, -(block.min_scale() * dx), acc);
        }
    }
    acc
}

/// One row of scaled blocks times column 0.
#[inline(always)]
pub(crate) fn scaled<I: Isa, B: Scaled>(isa: I, row: &[B], x: Columns<'_>) -> f32 {
    let mut acc = isa.splat(0.0);
    let (codes, codes_left) = x.codes(0).as_chunks::<8>();
    let (scales, scales_left) = x.scales(0).as_chunks::<8>();
    let (sums, sums_left) = x.sums(0).as_chunks::<8>();
    let mut eights = row.chunks_exact(8 / B::PARTS);
    for (((blocks, codes), dx), sums) in eights.by_ref().zip(codes).zip(scales).zip(sums) {
        if let Some(first) = blocks.first() {
            isa.prefetch(bytemuck::bytes_of(first).as_ptr(), AHEAD);
            isa.prefetch(bytemuck::bytes_of(first).as_ptr(), AHEAD + 64);
            isa.prefetch(bytemuck::bytes_of(first).as_ptr(), AHEAD + 128);
        }
        let mut dots = [isa.zero_ints(); 8];
        for (part, (dot, x)) in dots.iter_mut().zip(codes).enumerate() {
            let w = blocks[part / B::PARTS].load_codes(isa, part % B::PARTS);
            *dot = isa.sum_pairs(pairs(isa, B::CODES, w, isa.signed_bytes(x)));
        }
        let (mut dots, sums, dx) = (isa.sum_each(&dots), isa.ints(sums), isa.floats(dx));
        if B::OFFSET != 0 {
            dots = isa.sub_ints(dots, shl_by_offset(isa, sums, B::OFFSET));
        }
        acc = isa.fma(isa.to_floats(dots), isa.mul(B::scales(isa, blocks), dx), acc);
        if B::MINS {
            acc = isa.fma(B::mins(isa, blocks), isa.mul(dx, isa.to_floats(sums)), acc);
        }
    }
    let left = eights.remainder();
    if left.is_empty() {
        return isa.sum(acc);
    }
    let mut lanes = [0.0; 8];
    isa.store(acc, &mut lanes);
    let columns = codes_left.iter().zip(scales_left).zip(sums_left);
    for (part, (lane, ((x, dx), &sum))) in lanes.iter_mut().zip(columns).enumerate() {
        let (block, part) = (&left[part / B::PARTS], part % B::PARTS);
        let products = pairs(isa, B::CODES, block.load_codes(isa, part), isa.signed_bytes(x));
        let dot = isa.sum_ints(isa.sum_pairs(products)) - B::OFFSET * sum;
        *lane = scalar::fma(dot as f32, block.scale(part) * dx, *lane);
        if B::MINS {
            *lane = scalar::fma(block.min(part), dx * sum as f32, *lane);
        }
    }
    isa.sum(isa.floats(&lanes))
}

/// One row of floats, padded with zeros to a multiple of 32, times a column of floats.
#[inline(always)]
pub(crate) fn floats<I: Isa>(isa: I, row: &[f32], x: &[f32]) -> f32 {
    let mut acc = [isa.splat(0.0); 4];
    let (whole, left) = x.as_chunks::<32>();
    let mut last = [0.0; 32];
    last[..left.len()].copy_from_slice(left);
    let last = (!left.is_empty()).then_some(&last);
    for (w, x) in row.as_chunks::<32>().0.iter().zip(whole.iter().chain(last)) {
        let pairs = w.as_chunks::<8>().0.iter().zip(x.as_chunks::<8>().0);
        for (acc, (w, x)) in acc.iter_mut().zip(pairs) {
            *acc = isa.fma(isa.floats(w), isa.floats(x), *acc);
        }
    }
    isa.sum(isa.add(isa.add(acc[0], acc[2]), isa.add(acc[1], acc[3])))
}

/// `a * offset`, for offsets that are powers of two up to 64.
#[inline(always)]
pub(crate) fn shl_by_offset<I: Isa>(isa: I, a: I::Ints, offset: i32) -> I::Ints {
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

/// Asks for the lines of a block that comes some blocks later.
#[inline(always)]
fn prefetch<I: Isa, B: Block>(isa: I, block: &B) {
    let at = bytemuck::bytes_of(block).as_ptr();
    for line in 0..size_of::<B>().div_ceil(64) {
        isa.prefetch(at, AHEAD + 64 * line);
    }
}
