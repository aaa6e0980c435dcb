//! Decode: rows of weights, read once from where they lie, times one to four columns.
//!
//! Up to [`TOGETHER`] rows from different places are read by turns, a span of each at a time, so that memory has several
//! streams to fetch ahead ([`crate::simd::Level::streams`]).
//!
//! Each row's product is the one that [`crate::gemm`] gives bit for bit; here is its definition, by the path of the
//! format, with `x` the activations:
//!
//! - **Superblock**: the sum, in order and from zero, of spans of [`SPAN`] weights: `(v0 + v1) + (v2 + v3)`, where `v` of a
//!   superblock is its whole integer sum times its scale, or, if the format has minimums, a fused multiply-add of that to
//!   the product of theirs; 0 for superblocks behind the row's end.
//! - **Scaled**: the sum, in order and from zero, of spans of [`SPAN`] weights. A span has eight accumulators; its group
//!   `k` (32 weights, or 16) goes to accumulator `k mod 8` as a fused multiply-add of its integer sum, then of its minimum;
//!   one tree ([`Isa::sum`]) at the end.
//! - **Plain**: the sum, in order and from zero, of spans of [`SPAN`] weights, made floats and padded with zeros to a
//!   multiple of 32. Weight `k` of a span goes to accumulator `k mod 32`; the four registers of eight are added as
//!   `(0+1) + (2+3)`, then by [`Isa::sum`].
#![forbid(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "loops over several arrays of registers, without closures")]

use crate::activations::{Columns, Sums};
use crate::quant::{Block, Codes, Scale, Scaled, Superblock, eight, eight_of_blocks};
use crate::simd::{Isa, filled, unrolled};

/// Weights of a row whose products are added up before they join the row's sum: what a panel holds.
pub(crate) const SPAN: usize = 1024;

/// Weights of a row of floats that are read in turn.
const TURN: usize = 256;

/// The most rows that are read by turns.
pub(crate) const TOGETHER: usize = 4;

/// The most columns that rows are multiplied with at a time.
const COLUMNS: usize = 4;

/// Bytes that a row of weights is asked for ahead of its use, where so many are read by turns: half as far where there are
/// several, so that what was fetched does not wait so long.
pub(crate) const fn ahead(rows: usize) -> usize {
    if rows > 1 { 2048 } else { 4096 }
}

/// Sums that are still in lanes, for eight of them share the way through the lanes. Made once for many rows: clearing them takes
/// as long as some superblocks.
pub(crate) struct Lanes<I: Isa> {
    /// Of superblocks of each row and column.
    dots: [[[I::Ints; 8]; COLUMNS]; TOGETHER],
    mins: [[[I::Ints; 8]; COLUMNS]; TOGETHER],
    /// Of spans of scaled blocks, of each column.
    spans: [[I::Floats; 8]; COLUMNS],
}

impl<I: Isa> Lanes<I> {
    #[inline(always)]
    pub fn new(isa: I) -> Self {
        let ints = [[[isa.zero_ints(); 8]; COLUMNS]; TOGETHER];
        Lanes { dots: ints, mins: ints, spans: [[isa.splat(0.0); 8]; COLUMNS] }
    }
}

/// A column of codes, by eights of parts of 32.
#[derive(Clone, Copy, Default)]
pub(crate) struct Coded<'a, S> {
    codes: &'a [[[i8; 32]; 8]],
    /// Of each group, or of each superblock.
    scales: &'a [[f32; 8]],
    /// The same of the codes' sums, or all of a superblock's.
    sums: &'a [S],
}

impl<'a> Coded<'a, [i32; 8]> {
    /// Column `c` for scaled blocks.
    #[inline(always)]
    pub fn scaled(x: &Columns<'a>, c: usize) -> Self {
        Coded { codes: x.codes(c).as_chunks().0, scales: x.scales(c), sums: x.sums(c) }
    }
}

impl<'a> Coded<'a, Sums> {
    /// Column `c` for superblocks.
    #[inline(always)]
    pub fn superblocks(x: &Columns<'a>, c: usize) -> Self {
        Coded { codes: x.codes(c).as_chunks().0, scales: x.scales(c), sums: x.superblock_sums(c) }
    }
}

/// Rows of superblocks times `C` columns.
#[inline(always)]
pub(crate) fn superblocks<I: Isa, B: Superblock, const C: usize>(
    isa: I,
    rows: &[&[B]],
    x: &[Coded<'_, Sums>; C],
    Lanes { dots, mins, .. }: &mut Lanes<I>,
) -> [[f32; C]; TOGETHER] {
    let mut acc = [[0.0; C]; TOGETHER];
    let len = rows.first().map_or(0, |row| row.len());
    // Eight superblocks share the conversions and the sums across lanes.
    for start in (0..len).step_by(8) {
        let count = (len - start).min(8);
        // Not `from_fn`, which is not always part of the loop.
        let (mut codes, mut sums) = ([&[][..]; C], [&[][..]; C]);
        for c in 0..C {
            (codes[c], sums[c]) = (&x[c].codes[start..][..count], &x[c].sums[start..][..count]);
        }
        for (r, row) in rows.iter().enumerate().take(TOGETHER) {
            for i in count..8 {
                for c in 0..C {
                    (dots[r][c][i], mins[r][c][i]) = (isa.zero_ints(), isa.zero_ints());
                }
            }
            for (i, block) in row[start..][..count].iter().enumerate() {
                prefetch(isa, block, size_of::<B>(), rows.len());
                let (prepared, signs) = (block.prepare(), isa.signs(block.signs(isa)));
                let [scales, of_sums] = block.load_groups(isa);
                // Two sums, so that additions wait less for each other.
                let mut two = [[isa.zero_ints(); 2]; C];
                // Written out: what the compiler leaves a loop would choose each part's bits anew.
                unrolled!(PAIR in [0, 1, 2, 3] {
                    let (a, b) = (2 * PAIR, 2 * PAIR + 1);
                    let w = [block.load_codes(isa, a, prepared[a]), block.load_codes(isa, b, prepared[b])];
                    let scales = [isa.pick::<{ 2 * PAIR }>(scales), isa.pick::<{ 2 * PAIR + 1 }>(scales)];
                    for c in 0..C {
                        let x = &codes[c][i];
                        let x = [isa.signed_bytes(&x[a]), isa.signed_bytes(&x[b])];
                        if !B::SCALES {
                            two[c][PAIR % 2] = isa.add_ints(two[c][PAIR % 2], isa.dot_two_unsigned(w, x));
                            continue;
                        }
                        for half in 0..2 {
                            let products = match B::CODES {
                                Codes::Unsigned(_) if B::SIGNS => {
                                    // Here, not before: sooner they would wait in memory for the points.
                                    let x = match half {
                                        0 => isa.negate_part::<{ 2 * PAIR }>(x[0], signs),
                                        _ => isa.negate_part::<{ 2 * PAIR + 1 }>(x[1], signs),
                                    };
                                    isa.pairs_unsigned(w[half], x)
                                }
                                Codes::Unsigned(_) => isa.pairs_unsigned(w[half], x[half]),
                                Codes::Signed => isa.pairs_signed(w[half], x[half]),
                            };
                            two[c][half] = isa.add_dot_shorts(two[c][half], products, scales[half]);
                        }
                    }
                });
                for c in 0..C {
                    let of_16 = isa.shorts(&sums[c][i].of_16);
                    let mut dot = isa.add_ints(two[c][0], two[c][1]);
                    let of_sums = isa.add_dot_shorts(isa.zero_ints(), of_16, of_sums);
                    if B::MINS {
                        mins[r][c][i] = of_sums;
                    } else if B::OFFSET != 0 && !B::SIGNS {
                        dot = isa.sub_ints(dot, times_offset(isa, of_sums, i32::from(B::OFFSET)));
                    }
                    dots[r][c][i] = dot;
                }
            }
        }
        // All rows at once: the way of one's sums through the lanes takes long, and the others' have it beside it.
        for (r, row) in rows.iter().enumerate().take(TOGETHER) {
            let blocks = &row[start..][..count];
            let mut row_scales = eight_of(isa, blocks, B::scale);
            if B::UNIT != 1.0 {
                row_scales = isa.mul(row_scales, isa.splat(B::UNIT));
            }
            for c in 0..C {
                let column = isa.floats(&x[c].scales[start / 8]);
                let dots = isa.to_floats(isa.sum_each(&dots[r][c]));
                let scale = isa.mul(row_scales, column);
                let values = if B::MINS {
                    let mins = isa.to_floats(isa.sum_each(&mins[r][c]));
                    let min_scales = isa.mul(eight_of(isa, blocks, B::min_scale), column);
                    isa.fma(dots, scale, isa.mul(mins, isa.mul(min_scales, isa.splat(-1.0))))
                } else {
                    isa.mul(dots, scale)
                };
                let [first, second] = isa.sum_fours(values);
                acc[r][c] += first;
                if count > SPAN / B::LEN {
                    acc[r][c] += second;
                }
            }
        }
    }
    acc
}

/// A scale of each of eight blocks; of those that are missing, of a block of zeros.
#[inline(always)]
fn eight_of<I: Isa, B: Block>(isa: I, blocks: &[B], scale: impl Fn(&B) -> Scale<'_>) -> I::Floats {
    match blocks.first_chunk() {
        Some(blocks) => eight_of_blocks(isa, blocks, scale),
        None => {
            let none = B::zeroed();
            eight(isa, |i| scale(blocks.get(i).unwrap_or(&none)))
        }
    }
}

/// Rows of scaled blocks times `C` columns.
#[inline(always)]
pub(crate) fn scaled<I: Isa, B: Scaled, const C: usize>(
    isa: I,
    rows: &[&[B]],
    x: &[Coded<'_, [i32; 8]>; C],
    Lanes { spans, .. }: &mut Lanes<I>,
) -> [[f32; C]; TOGETHER] {
    let mut total = [[0.0; C]; TOGETHER];
    // How many sums of spans wait: one's way through the lanes takes as long as hundreds of weights.
    let mut waiting = 0;
    let len = rows.first().map_or(0, |row| row.len());
    for start in (0..len).step_by(SPAN / B::LEN) {
        let end = len.min(start + SPAN / B::LEN);
        for row in rows.iter().take(TOGETHER) {
            let mut acc = [isa.splat(0.0); C];
            let mut at = start * B::PARTS / 8;
            let mut eights = row[start..end].chunks_exact(8 / B::PARTS);
            let left = eights.remainder();
            while let Some(blocks) = eights.next() {
                prefetch(isa, &blocks[0], size_of_val(blocks), rows.len());
                let sums = eight_sums(isa, blocks, x, at);
                // One column takes two in turn: while the sums of one wait for each other, the other multiplies.
                let next = if C == 1 { eights.next() } else { None };
                if let Some(next) = next {
                    prefetch(isa, &next[0], size_of_val(next), rows.len());
                    let next_sums = eight_sums(isa, next, x, at + 1);
                    add_sums(isa, blocks, sums, x, at, &mut acc);
                    add_sums(isa, next, next_sums, x, at + 1, &mut acc);
                    at += 2;
                } else {
                    add_sums(isa, blocks, sums, x, at, &mut acc);
                    at += 1;
                }
            }
            if !left.is_empty() {
                let blocks: [B; 8] = filled(left, B::zeroed());
                let blocks = &blocks[..8 / B::PARTS];
                let sums = eight_sums(isa, blocks, x, at);
                add_sums(isa, blocks, sums, x, at, &mut acc);
            }
            for c in 0..C {
                spans[c][waiting % 8] = acc[c];
            }
            waiting += 1;
        }
        if waiting + rows.len() > 8 || end == len {
            add_spans(isa, spans, waiting, rows.len(), &mut total);
            waiting = 0;
        }
    }
    total
}

/// Adds the first `count` sums of spans of each column to those of `rows` rows by turns.
#[inline(always)]
fn add_spans<I: Isa, const C: usize>(
    isa: I,
    spans: &[[I::Floats; 8]; COLUMNS],
    count: usize,
    rows: usize,
    total: &mut [[f32; C]; TOGETHER],
) {
    for c in 0..C {
        let mut sums = [0.0; 8];
        isa.store(isa.sum_each_floats(&spans[c]), &mut sums);
        for sums in sums[..count].chunks(rows) {
            for (total, sum) in total.iter_mut().zip(sums) {
                total[c] += sum;
            }
        }
    }
}

/// The sums of the products of eight parts' codes, those that are the `at`-th eight of the columns: one for each group.
#[inline(always)]
fn eight_sums<I: Isa, B: Scaled, const C: usize>(
    isa: I,
    blocks: &[B],
    x: &[Coded<'_, [i32; 8]>; C],
    at: usize,
) -> [[I::Ints; 2]; C] {
    let mut w = [[isa.splat_byte(0); 2]; 4];
    for pair in 0..4 {
        w[pair] = two_parts(isa, blocks, pair);
    }
    let mut sums = [[isa.zero_ints(); 2]; C];
    for c in 0..C {
        let [a0, b0, a1, b1, a2, b2, a3, b3] = &x[c].codes[at];
        let pairs = [[a0, b0], [a1, b1], [a2, b2], [a3, b3]];
        if B::GROUP == 32 && B::CODES.sums_in_16_bits() == 8 {
            sums[c][0] = isa.sum_products(&w, pairs);
            continue;
        }
        let mut dots = [isa.zero_ints(); 4];
        for pair in 0..4 {
            let [a, b] = pairs[pair];
            dots[pair] = dot_two(isa, B::CODES, w[pair], [isa.signed_bytes(a), isa.signed_bytes(b)]);
        }
        sums[c] = match B::GROUP {
            16 => [isa.sum_pairs(dots[0], dots[1]), isa.sum_pairs(dots[2], dots[3])],
            _ => [isa.sum_halves(&dots), isa.zero_ints()],
        };
    }
    sums
}

/// Adds them to the eight accumulators of each column.
#[inline(always)]
fn add_sums<I: Isa, B: Scaled, const C: usize>(
    isa: I,
    blocks: &[B],
    sums: [[I::Ints; 2]; C],
    x: &[Coded<'_, [i32; 8]>; C],
    at: usize,
    acc: &mut [I::Floats; C],
) {
    // Eight groups at a time.
    for turn in 0..32 / B::GROUP {
        let of_column = 32 / B::GROUP * at + turn;
        let of_block = B::LEN / B::GROUP;
        let row_scales = match blocks.first_chunk() {
            Some(blocks) if of_block == 1 => eight_of_blocks(isa, blocks, |block: &B| block.scale(0)),
            _ => eight(isa, |i| blocks[(8 * turn + i) / of_block].scale((8 * turn + i) % of_block)),
        };
        for c in 0..C {
            let mut dots = sums[c][turn];
            let code_sums = isa.ints(&x[c].sums[of_column]);
            let dx = isa.floats(&x[c].scales[of_column]);
            if B::OFFSET != 0 {
                dots = isa.sub_ints(dots, times_offset(isa, code_sums, B::OFFSET));
            }
            acc[c] = isa.fma(isa.to_floats(dots), isa.mul(row_scales, dx), acc[c]);
            if B::MINS {
                let mins = match blocks.first_chunk() {
                    Some(blocks) if B::PARTS == 1 => eight_of_blocks(isa, blocks, B::min),
                    _ => eight(isa, |i| blocks[i / B::PARTS].min()),
                };
                acc[c] = isa.fma(mins, isa.mul(dx, isa.to_floats(code_sums)), acc[c]);
            }
        }
    }
}

/// Rows of any format, made floats, times `C` columns.
#[inline(always)]
pub(crate) fn plain<I: Isa, B: Block, const C: usize>(
    isa: I,
    rows: &[&[B]],
    columns: &[&[f32]; C],
    _: &mut Lanes<I>,
) -> [[f32; C]; TOGETHER] {
    let mut total = [[0.0; C]; TOGETHER];
    let len = rows.first().map_or(0, |row| row.len());
    for start in (0..len).step_by(SPAN / B::LEN) {
        let end = len.min(start + SPAN / B::LEN);
        let mut sums = [[[isa.splat(0.0); 4]; C]; TOGETHER];
        for turn in (start..end).step_by(TURN / B::LEN) {
            let end = end.min(turn + TURN / B::LEN);
            for (r, row) in rows.iter().enumerate().take(TOGETHER) {
                let mut acc = sums[r];
                let mut at = turn;
                // Blocks of 32 weights or less are made floats in registers, by 32; longer ones and what is left in memory.
                if B::LEN <= 32 {
                    let whole = (end - at) * B::LEN / 32;
                    let mut x = [&[][..]; C];
                    for c in 0..C {
                        x[c] = &columns[c][at * B::LEN..].as_chunks().0[..whole];
                    }
                    for (i, blocks) in row[at..].chunks_exact(32 / B::LEN).take(whole).enumerate() {
                        prefetch(isa, &blocks[0], size_of_val(blocks), rows.len());
                        let mut w = [0.0; 32];
                        B::unpack(isa, blocks, &mut w);
                        for c in 0..C {
                            acc[c] = add_32(isa, acc[c], &w, &x[c][i]);
                        }
                    }
                    at += whole * 32 / B::LEN;
                }
                while at < end {
                    let to = end.min(at + B::LEN.max(32) / B::LEN);
                    prefetch(isa, &row[at], (to - at) * size_of::<B>(), rows.len());
                    let mut w = [0.0; 256];
                    let w = &mut w[..(to - at) * B::LEN];
                    B::unpack(isa, &row[at..to], w);
                    for c in 0..C {
                        acc[c] = add_padded(isa, acc[c], w, &columns[c][at * B::LEN..to * B::LEN]);
                    }
                    at = to;
                }
                sums[r] = acc;
            }
        }
        for r in 0..rows.len().min(TOGETHER) {
            for c in 0..C {
                let [a, b, d, e] = sums[r][c];
                total[r][c] += isa.sum(isa.add(isa.add(a, b), isa.add(d, e)));
            }
        }
    }
    total
}

/// Adds the products of as many floats, the last of them padded to 32 with zeros.
#[inline(always)]
fn add_padded<I: Isa>(isa: I, to: [I::Floats; 4], w: &[f32], x: &[f32]) -> [I::Floats; 4] {
    let mut to = to;
    let ((whole_w, w), (whole_x, x)) = (w.as_chunks::<32>(), x.as_chunks::<32>());
    for (w, x) in whole_w.iter().zip(whole_x) {
        to = add_32(isa, to, w, x);
    }
    if !w.is_empty() {
        to = add_32(isa, to, &filled(w, 0.0), &filled(x, 0.0));
    }
    to
}

/// Adds the products of 32 floats.
#[inline(always)]
fn add_32<I: Isa>(isa: I, to: [I::Floats; 4], w: &[f32; 32], x: &[f32; 32]) -> [I::Floats; 4] {
    let (w, x) = (w.as_chunks::<8>().0, x.as_chunks::<8>().0);
    let mut to = to;
    for v in 0..4 {
        to[v] = isa.fma(isa.floats(&w[v]), isa.floats(&x[v]), to[v]);
    }
    to
}

/// The codes of two of eight parts of `blocks`, by sixteens: `pair` and the fourth behind it, whose sums then come out in their
/// order; where groups are of 16, neighbours.
#[inline(always)]
fn two_parts<I: Isa, B: Scaled>(isa: I, blocks: &[B], pair: usize) -> [I::Bytes; 2] {
    let (a, b) = if B::GROUP == 16 { (2 * pair, 2 * pair + 1) } else { (pair, pair + 4) };
    B::load_two(isa, (&blocks[a / B::PARTS], a % B::PARTS), (&blocks[b / B::PARTS], b % B::PARTS))
}

/// Products of codes of a format and of activations, added up in lanes of 32 bits.
#[inline(always)]
fn dot_two<I: Isa>(isa: I, codes: Codes, w: [I::Bytes; 2], x: [I::Bytes; 2]) -> I::Ints {
    match codes {
        Codes::Unsigned(_) => isa.dot_two_unsigned(w, x),
        Codes::Signed => isa.dot_two_signed(w, x),
    }
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

/// Asks for the lines of `bytes` bytes of weights that come some blocks later, of one of so many rows that are read by turns.
#[inline(always)]
fn prefetch<I: Isa, B: Block>(isa: I, block: &B, bytes: usize, rows: usize) {
    let at = bytemuck::bytes_of(block).as_ptr();
    for line in 0..bytes.div_ceil(64) {
        isa.prefetch(at, ahead(rows) + 64 * line);
    }
}
