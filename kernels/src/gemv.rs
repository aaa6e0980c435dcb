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

use crate::activations::Columns;
use crate::quant::{Block, Codes, Scaled, Superblock, eight};
use crate::simd::{Isa, filled, unrolled};

/// Weights of a row whose products are added up before they join the row's sum: what a panel holds.
pub(crate) const SPAN: usize = 1024;

/// Weights of a row of floats that are read in turn.
const TURN: usize = 256;

/// The most rows that are read by turns.
pub(crate) const TOGETHER: usize = 4;

/// Bytes that a row of weights is asked for ahead of its use, where so many are read by turns: half as far where there are
/// several, so that what was fetched does not wait so long.
pub(crate) const fn ahead(rows: usize) -> usize {
    if rows > 1 { 2048 } else { 4096 }
}

/// Rows of superblocks times `C` columns from column `first` on.
#[inline(always)]
pub(crate) fn superblocks<I: Isa, B: Superblock, const C: usize>(
    isa: I,
    rows: &[&[B]],
    x: Columns<'_>,
    first: usize,
) -> [[f32; C]; TOGETHER] {
    // Not `from_fn`, which is not always part of the loop.
    let (mut codes, mut sums, mut scales) = ([&[][..]; C], [&[][..]; C], [&[][..]; C]);
    for c in 0..C {
        codes[c] = x.codes(first + c).as_chunks::<8>().0;
        sums[c] = x.superblock_sums(first + c);
        scales[c] = x.scales(first + c);
    }
    let mut acc = [[0.0; C]; TOGETHER];
    let len = rows.first().map_or(0, |row| row.len());
    // Made once: clearing them takes more than half as long as a superblock.
    let mut dots = [[isa.zero_ints(); 8]; C];
    let mut mins = [[isa.zero_ints(); 8]; C];
    // Eight superblocks share the conversions and the sums across lanes.
    for start in (0..len).step_by(8) {
        let count = (len - start).min(8);
        for (r, row) in rows.iter().enumerate().take(TOGETHER) {
            let last: [B; 8];
            let blocks = match row[start..].first_chunk() {
                Some(blocks) => blocks,
                None => {
                    last = filled(&row[start..], B::zeroed());
                    &last
                }
            };
            for i in count..8 {
                for c in 0..C {
                    (dots[c][i], mins[c][i]) = (isa.zero_ints(), isa.zero_ints());
                }
            }
            for (i, block) in blocks.iter().enumerate().take(count) {
                prefetch(isa, block, size_of::<B>(), rows.len());
                let prepared = block.prepare(isa);
                let [scales, of_sums] = block.load_groups(isa);
                // Two sums, so that additions wait less for each other.
                let mut two = [[isa.zero_ints(); 2]; C];
                // Written out: what the compiler leaves a loop would choose each part's bits anew.
                unrolled!(PAIR in [0, 1, 2, 3] {
                    let (a, b) = (2 * PAIR, 2 * PAIR + 1);
                    let w = [block.load_codes(isa, a, prepared[a]), block.load_codes(isa, b, prepared[b])];
                    let scales = [isa.pick::<{ 2 * PAIR }>(scales), isa.pick::<{ 2 * PAIR + 1 }>(scales)];
                    for c in 0..C {
                        let x = &codes[c][start + i];
                        let x = [isa.signed_bytes(&x[a]), isa.signed_bytes(&x[b])];
                        if !B::SCALES {
                            two[c][PAIR % 2] = isa.add_ints(two[c][PAIR % 2], isa.dot_two_unsigned(w, x));
                            continue;
                        }
                        for half in 0..2 {
                            let products = match B::CODES {
                                Codes::Unsigned(_) if B::SIGNS => {
                                    isa.pairs_unsigned(w[half], isa.negate_where(x[half], prepared[a + half]))
                                }
                                Codes::Unsigned(_) => isa.pairs_unsigned(w[half], x[half]),
                                Codes::Signed => isa.pairs_signed(w[half], x[half]),
                            };
                            two[c][half] = isa.add_dot_shorts(two[c][half], products, scales[half]);
                        }
                    }
                });
                for c in 0..C {
                    let of_16 = isa.shorts(&sums[c][start + i].of_16);
                    let mut dot = isa.add_ints(two[c][0], two[c][1]);
                    let of_sums = isa.add_dot_shorts(isa.zero_ints(), of_16, of_sums);
                    if B::MINS {
                        mins[c][i] = of_sums;
                    } else if B::OFFSET != 0 && !B::SIGNS {
                        dot = isa.sub_ints(dot, times_offset(isa, of_sums, i32::from(B::OFFSET)));
                    }
                    dots[c][i] = dot;
                }
            }
            let mut row_scales = eight(isa, |i| blocks[i].scale());
            if B::UNIT != 1.0 {
                row_scales = isa.mul(row_scales, isa.splat(B::UNIT));
            }
            for c in 0..C {
                let column = match scales[c][start..].first_chunk() {
                    Some(eight) => isa.floats(eight),
                    None => isa.floats(&filled(&scales[c][start..], 0.0)),
                };
                let dots = isa.to_floats(isa.sum_each(&dots[c]));
                let scale = isa.mul(row_scales, column);
                let values = if B::MINS {
                    let min_scales = isa.mul(eight(isa, |i| blocks[i].min_scale()), column);
                    let mins =
                        isa.mul(isa.to_floats(isa.sum_each(&mins[c])), isa.mul(min_scales, isa.splat(-1.0)));
                    isa.fma(dots, scale, mins)
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

/// Rows of scaled blocks times `C` columns from column `first` on.
#[inline(always)]
pub(crate) fn scaled<I: Isa, B: Scaled, const C: usize>(
    isa: I,
    rows: &[&[B]],
    x: Columns<'_>,
    first: usize,
) -> [[f32; C]; TOGETHER] {
    let mut total = [[0.0; C]; TOGETHER];
    let len = rows.first().map_or(0, |row| row.len());
    let mut columns = [Coded::default(); C];
    for c in 0..C {
        columns[c] = Coded::new(x.codes(first + c), x.scales(first + c), x.sums(first + c));
    }
    for start in (0..len).step_by(SPAN / B::LEN) {
        let end = len.min(start + SPAN / B::LEN);
        let (before, eights) = (start * B::PARTS / 8, (end - start) * B::PARTS / 8);
        let mut span = columns;
        for column in &mut span {
            *column = column.part::<B>(before, eights);
        }
        for (r, row) in rows.iter().enumerate().take(TOGETHER) {
            let (whole, left) = row[start..end].split_at(eights * 8 / B::PARTS);
            let mut acc = [isa.splat(0.0); C];
            for at in 0..eights {
                let blocks = &whole[at * 8 / B::PARTS..][..8 / B::PARTS];
                prefetch(isa, &blocks[0], size_of_val(blocks), rows.len());
                add_eight(isa, blocks, &span, at, &mut acc);
            }
            if !left.is_empty() {
                // Eight parts again, with zeros behind the end: they change no sum.
                let blocks: [B; 8] = filled(left, B::zeroed());
                let mut padded = [Padded::default(); C];
                for c in 0..C {
                    padded[c].fill::<B>(x, first + c, 8 * (before + eights));
                }
                let mut ends = [Coded::default(); C];
                for (end, padded) in ends.iter_mut().zip(&padded) {
                    *end = Coded::new(&padded.codes, &padded.scales, &padded.sums);
                }
                add_eight(isa, &blocks[..8 / B::PARTS], &ends, 0, &mut acc);
            }
            for c in 0..C {
                total[r][c] += isa.sum(acc[c]);
            }
        }
    }
    total
}

/// A column for scaled blocks, by eights of parts of 32: their codes, and, eight at a time, a scale and a sum for each group.
#[derive(Clone, Copy, Default)]
struct Coded<'a> {
    codes: &'a [[[i8; 32]; 8]],
    scales: &'a [[f32; 8]],
    sums: &'a [[i32; 8]],
}

impl<'a> Coded<'a> {
    #[inline(always)]
    fn new(codes: &'a [[i8; 32]], scales: &'a [f32], sums: &'a [i32]) -> Self {
        Coded { codes: codes.as_chunks().0, scales: scales.as_chunks().0, sums: sums.as_chunks().0 }
    }

    /// `count` eights from eight `first` on.
    #[inline(always)]
    fn part<B: Scaled>(self, first: usize, count: usize) -> Self {
        let turns = 32 / B::GROUP;
        Coded {
            codes: &self.codes[first..][..count],
            scales: &self.scales[turns * first..][..turns * count],
            sums: &self.sums[turns * first..][..turns * count],
        }
    }
}

/// The end of such a column, with zeros behind it.
#[derive(Clone, Copy, Default)]
struct Padded {
    codes: [[i8; 32]; 8],
    scales: [f32; 16],
    sums: [i32; 16],
}

impl Padded {
    /// Takes the parts of a column from part `part` on: fewer than eight.
    fn fill<B: Scaled>(&mut self, x: Columns<'_>, column: usize, part: usize) {
        let group = part * 32 / B::GROUP;
        self.codes = filled(&x.codes(column)[part..], [0; 32]);
        self.scales = filled(&x.scales(column)[group..], 0.0);
        self.sums = filled(&x.sums(column)[group..], 0);
        let parts = x.codes(column).len() - part;
        if parts % 2 == 1 {
            // It lies in its order; with another beside it its sixteens would be apart.
            let [first, last] = bytemuck::cast::<_, [[i8; 16]; 2]>(self.codes[parts - 1]);
            self.codes[parts - 1] = bytemuck::cast([first, [0; 16]]);
            self.codes[parts] = bytemuck::cast([last, [0; 16]]);
        }
    }
}

/// Adds the products of eight parts, those that are the `at`-th eight of the columns, to the eight accumulators of each column.
#[inline(always)]
fn add_eight<I: Isa, B: Scaled, const C: usize>(
    isa: I,
    blocks: &[B],
    x: &[Coded<'_>; C],
    at: usize,
    acc: &mut [I::Floats; C],
) {
    let mut dots = [[isa.zero_ints(); 4]; C];
    for pair in 0..4 {
        let w = two_parts(isa, blocks, pair);
        for c in 0..C {
            let x = &x[c].codes[at].as_chunks::<2>().0[pair];
            dots[c][pair] = dot_two(isa, B::CODES, w, [isa.signed_bytes(&x[0]), isa.signed_bytes(&x[1])]);
        }
    }
    // Eight groups at a time.
    for turn in 0..32 / B::GROUP {
        let of_column = 32 / B::GROUP * at + turn;
        let of_block = B::LEN / B::GROUP;
        let row_scales = eight(isa, |i| blocks[(8 * turn + i) / of_block].scale((8 * turn + i) % of_block));
        for c in 0..C {
            let mut dots = match B::GROUP {
                16 => isa.sum_pairs(dots[c][2 * turn], dots[c][2 * turn + 1]),
                _ => isa.sum_halves(&dots[c]),
            };
            let sums = isa.ints(&x[c].sums[of_column]);
            let dx = isa.floats(&x[c].scales[of_column]);
            if B::OFFSET != 0 {
                dots = isa.sub_ints(dots, times_offset(isa, sums, B::OFFSET));
            }
            acc[c] = isa.fma(isa.to_floats(dots), isa.mul(row_scales, dx), acc[c]);
            if B::MINS {
                let mins = eight(isa, |i| blocks[i / B::PARTS].min());
                acc[c] = isa.fma(mins, isa.mul(dx, isa.to_floats(sums)), acc[c]);
            }
        }
    }
}

/// Rows of any format, made floats, times `C` columns from column `first` on.
#[inline(always)]
pub(crate) fn plain<I: Isa, B: Block, const C: usize>(
    isa: I,
    rows: &[&[B]],
    x: Columns<'_>,
    first: usize,
) -> [[f32; C]; TOGETHER] {
    let columns: [_; C] = core::array::from_fn(|c| x.float_column(first + c));
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
                while B::LEN <= 32 && end - at >= 32 / B::LEN {
                    let blocks = &row[at..][..32 / B::LEN];
                    prefetch(isa, &blocks[0], size_of_val(blocks), rows.len());
                    let mut w = [0.0; 32];
                    B::unpack(isa, blocks, &mut w);
                    for c in 0..C {
                        acc[c] = add_32(isa, acc[c], &w, &columns[c][at * B::LEN..].as_chunks().0[0]);
                    }
                    at += 32 / B::LEN;
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

/// The codes of parts `2 pair` and `2 pair + 1` of `blocks`, by sixteens.
#[inline(always)]
fn two_parts<I: Isa, B: Scaled>(isa: I, blocks: &[B], pair: usize) -> [I::Bytes; 2] {
    let (a, b) = (2 * pair, 2 * pair + 1);
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
