//! Decode: rows of weights, read once from where they lie, times one to four columns.
//!
//! Up to [`TOGETHER`] rows from different places are read by turns, a span of each at a time, so that memory has several
//! streams to fetch ahead ([`crate::simd::Level::streams`]). Some such passes come at a time ([`crate::rows`]): they share the way
//! into the loops and out of them.
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
use crate::rows::{PASSES, Products, Rows, TOGETHER};
use crate::simd::{Isa, filled, unrolled};

/// Weights of a row whose products are added up before they join the row's sum: what a panel holds.
pub(crate) const SPAN: usize = 1024;

/// Weights of a row of floats that are read in turn.
const TURN: usize = 256;

/// Bytes that a row of weights is asked for ahead of its use, where so many are read by turns: half as far where there are
/// several, so that what was fetched does not wait so long.
pub(crate) const fn ahead(by_turns: usize) -> usize {
    if by_turns > 1 { 2048 } else { 4096 }
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

/// A column of codes by spans: the whole ones, then what is left.
#[derive(Clone, Copy, Default)]
struct CodedSpans<'a, S> {
    codes: &'a [[[[i8; 32]; 8]; SPAN / 256]],
    /// As many of these for a span as a part has groups.
    scales: &'a [[[f32; 8]; SPAN / 256]],
    sums: &'a [[S; SPAN / 256]],
    left: Coded<'a, S>,
}

impl<'a, S> CodedSpans<'a, S> {
    /// A column of so many whole spans, with so many groups in a part.
    #[inline(always)]
    fn new(x: &Coded<'a, S>, whole: usize, groups: usize) -> Self {
        let eights = whole * SPAN / 256;
        CodedSpans {
            codes: &x.codes.as_chunks().0[..whole],
            scales: &x.scales.as_chunks().0[..whole * groups],
            sums: &x.sums.as_chunks().0[..whole * groups],
            left: Coded {
                codes: &x.codes[eights..],
                scales: &x.scales[eights * groups..],
                sums: &x.sums[eights * groups..],
            },
        }
    }

    /// A whole span.
    #[inline(always)]
    fn span(&self, span: usize, groups: usize) -> Coded<'a, S> {
        Coded {
            codes: &self.codes[span],
            scales: self.scales[groups * span..][..groups].as_flattened(),
            sums: self.sums[groups * span..][..groups].as_flattened(),
        }
    }
}

/// Rows of superblocks times `C` columns.
#[inline(always)]
pub(crate) fn superblocks<I: Isa, B: Superblock, const C: usize>(
    isa: I,
    rows: &Rows<'_, B>,
    x: &[Coded<'_, Sums>; C],
) -> Products<C> {
    const { assert!(!B::CROSSED || B::GROUP == 32 && B::SCALES && (B::SIGNS || B::OFFSET == 0)) };
    // Magnitudes, of which four products fit 16 bits.
    const { assert!(!B::SIGNS || B::OFFSET <= 64) };
    let mut products = [[[0.0; C]; TOGETHER]; PASSES];
    // Sums that are still in lanes, for eight of them share the way through the lanes.
    let (mut dots, mut mins) = ([[[isa.zero_ints(); 8]; C]; TOGETHER], [[[isa.zero_ints(); 8]; C]; TOGETHER]);
    let (len, by_turns) = (rows.len, rows.by_turns);
    for (p, products) in products.iter_mut().enumerate().take(rows.passes) {
        let mut rest = rows.pass(p);
        // Eight superblocks share the conversions and the sums across lanes.
        for eight in 0..len.div_ceil(8) {
            let count = (len - 8 * eight).min(8);
            // Not `from_fn`, which is not always part of the loop.
            let (mut codes, mut sums) = ([&[][..]; C], [&[][..]; C]);
            for c in 0..C {
                (codes[c], sums[c]) = (&x[c].codes[8 * eight..][..count], &x[c].sums[8 * eight..][..count]);
            }
            let mut turn = [&[][..]; TOGETHER];
            for r in 0..by_turns.min(TOGETHER) {
                (turn[r], rest[r]) = rest[r].split_at(count);
                for (i, block) in turn[r].iter().enumerate() {
                    prefetch(isa, block, size_of::<B>(), by_turns);
                    let mut apart = if B::SHIFTS { block.shifts(isa) } else { block.signs(isa) };
                    if B::CROSSED {
                        apart = isa.cross_bits(apart);
                    }
                    let apart = isa.for_parts(apart);
                    let [scales, of_sums] = block.load_groups(isa);
                    // Two sums, so that additions wait less for each other.
                    let mut two = [[isa.zero_ints(); 2]; C];
                    // Written out: what the compiler leaves a loop would choose each part's bits anew.
                    unrolled!(PAIR in [0, 1, 2, 3] {
                        let (a, b) = (2 * PAIR, 2 * PAIR + 1);
                        let mut w = block.load_two(isa, PAIR);
                        if B::SHIFTS {
                            w = [
                                isa.add_to_part::<{ 2 * PAIR }>(w[0], apart),
                                isa.add_to_part::<{ 2 * PAIR + 1 }>(w[1], apart),
                            ];
                        }
                        let scales = match B::CROSSED {
                            true => [isa.pick::<PAIR>(scales); 2],
                            false => [isa.pick::<{ 2 * PAIR }>(scales), isa.pick::<{ 2 * PAIR + 1 }>(scales)],
                        };
                        for c in 0..C {
                            let x = &codes[c][i];
                            let x = [isa.signed_bytes(&x[a]), isa.signed_bytes(&x[b])];
                            if !B::SCALES {
                                two[c][PAIR % 2] = isa.add_ints(two[c][PAIR % 2], isa.dot_two_unsigned(w, x));
                                continue;
                            }
                            // Here, not before: sooner they would wait in memory for the points.
                            let x = match B::SIGNS {
                                true if C == 1 => [
                                    isa.load_negated::<{ 2 * PAIR }>(&codes[c][i], apart),
                                    isa.load_negated::<{ 2 * PAIR + 1 }>(&codes[c][i], apart),
                                ],
                                // The signs' masks are for all columns.
                                true => [
                                    isa.negate_part::<{ 2 * PAIR }>(x[0], apart),
                                    isa.negate_part::<{ 2 * PAIR + 1 }>(x[1], apart),
                                ],
                                false => x,
                            };
                            // Both have the same scales.
                            if B::CROSSED && (B::SIGNS || B::CODES.sums_in_16_bits() > 1) {
                                let products = [isa.pairs_unsigned(w[0], x[0]), isa.pairs_unsigned(w[1], x[1])];
                                let products = isa.add_shorts(products[0], products[1]);
                                two[c][PAIR % 2] = isa.add_dot_shorts(two[c][PAIR % 2], products, scales[0]);
                                continue;
                            }
                            for half in 0..2 {
                                let products = match B::CODES {
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
            // All rows at once: the way of one's sums through the lanes takes long, and the others' have it beside it. Where fewer
            // than eight are left, sums of others lie behind them, whose scales here are 0.
            for (r, blocks) in turn.iter().enumerate().take(by_turns) {
                let mut row_scales = eight_of(isa, blocks, B::scale);
                if B::UNIT != 1.0 {
                    row_scales = isa.mul(row_scales, isa.splat(B::UNIT));
                }
                for c in 0..C {
                    let column = isa.floats(&x[c].scales[eight]);
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
                    products[r][c] += first;
                    if count > SPAN / B::LEN {
                        products[r][c] += second;
                    }
                }
            }
        }
    }
    products
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
    rows: &Rows<'_, B>,
    x: &[Coded<'_, [i32; 8]>; C],
) -> Products<C> {
    let mut products = [[[0.0; C]; TOGETHER]; PASSES];
    let mut waiting = Waiting { sums: [[isa.splat(0.0); 8]; C], rows: [0; 8], count: 0 };
    let (len, by_turns) = (rows.len, rows.by_turns);
    let (whole, left) = (len / (SPAN / B::LEN), len % (SPAN / B::LEN));
    let mut spans = [CodedSpans::default(); C];
    for c in 0..C {
        spans[c] = CodedSpans::new(&x[c], whole, 32 / B::GROUP);
    }
    for p in 0..rows.passes {
        let mut rest = rows.pass(p);
        for span in 0..whole {
            let mut x = *x;
            for c in 0..C {
                x[c] = spans[c].span(span, 32 / B::GROUP);
            }
            for (r, row) in rest.iter_mut().take(by_turns).enumerate() {
                let (blocks, behind) = row.split_at(SPAN / B::LEN);
                *row = behind;
                let sums = span_sums(isa, blocks, &x, by_turns);
                waiting.add(isa, sums, TOGETHER * p + r, &mut products);
            }
        }
        if left > 0 {
            let mut x = *x;
            for c in 0..C {
                x[c] = spans[c].left;
            }
            for (r, blocks) in rest.iter().take(by_turns).enumerate() {
                let sums = span_sums(isa, blocks, &x, by_turns);
                waiting.add(isa, sums, TOGETHER * p + r, &mut products);
            }
        }
    }
    waiting.leave(isa, &mut products);
    products
}

/// Sums of spans, in lanes, that wait for others: one's way through the lanes takes as long as hundreds of weights.
struct Waiting<I: Isa, const C: usize> {
    sums: [[I::Floats; 8]; C],
    /// The rows that they are of.
    rows: [usize; 8],
    count: usize,
}

impl<I: Isa, const C: usize> Waiting<I, C> {
    /// Adds a span of each column, of this one of the rows.
    #[inline(always)]
    fn add(&mut self, isa: I, sums: [I::Floats; C], row: usize, products: &mut Products<C>) {
        for c in 0..C {
            self.sums[c][self.count % 8] = sums[c];
        }
        self.rows[self.count % 8] = row;
        self.count += 1;
        if self.count == 8 {
            self.leave(isa, products);
        }
    }

    /// Adds the sums to their rows' products.
    #[inline(always)]
    fn leave(&mut self, isa: I, products: &mut Products<C>) {
        for c in 0..C {
            let mut sums = [0.0; 8];
            isa.store(isa.sum_each_floats(&self.sums[c]), &mut sums);
            for (&row, sum) in self.rows.iter().zip(sums).take(self.count) {
                products.as_flattened_mut()[row % (PASSES * TOGETHER)][c] += sum;
            }
        }
        self.count = 0;
    }
}

/// The sums of up to [`SPAN`] weights' products, in lanes.
#[inline(always)]
fn span_sums<I: Isa, B: Scaled, const C: usize>(
    isa: I,
    blocks: &[B],
    x: &[Coded<'_, [i32; 8]>; C],
    by_turns: usize,
) -> [I::Floats; C] {
    let mut acc = [isa.splat(0.0); C];
    let mut at = 0;
    let pairs = blocks.chunks_exact(16 / B::PARTS);
    let mut eights = pairs.remainder().chunks_exact(8 / B::PARTS);
    for pair in pairs {
        let (first, second) = pair.split_at(8 / B::PARTS);
        prefetch(isa, &first[0], size_of_val(first), by_turns);
        let sums = eight_sums(isa, first, x, at);
        prefetch(isa, &second[0], size_of_val(second), by_turns);
        if C == 1 {
            // One column takes two in turn: while the sums of one wait for each other, the other multiplies.
            let second_sums = eight_sums(isa, second, x, at + 1);
            add_sums(isa, first, sums, x, at, &mut acc);
            add_sums(isa, second, second_sums, x, at + 1, &mut acc);
        } else {
            add_sums(isa, first, sums, x, at, &mut acc);
            let second_sums = eight_sums(isa, second, x, at + 1);
            add_sums(isa, second, second_sums, x, at + 1, &mut acc);
        }
        at += 2;
    }
    if let Some(blocks) = eights.next() {
        prefetch(isa, &blocks[0], size_of_val(blocks), by_turns);
        let sums = eight_sums(isa, blocks, x, at);
        add_sums(isa, blocks, sums, x, at, &mut acc);
        at += 1;
    }
    let left = eights.remainder();
    if !left.is_empty() {
        let blocks: [B; 8] = filled(left, B::zeroed());
        let blocks = &blocks[..8 / B::PARTS];
        let sums = eight_sums(isa, blocks, x, at);
        add_sums(isa, blocks, sums, x, at, &mut acc);
    }
    acc
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
    rows: &Rows<'_, B>,
    columns: &[&[f32]; C],
) -> Products<C> {
    let mut products = [[[0.0; C]; TOGETHER]; PASSES];
    let (len, by_turns) = (rows.len, rows.by_turns);
    for (p, products) in products.iter_mut().enumerate().take(rows.passes) {
        let mut rest = rows.pass(p);
        for start in (0..len).step_by(SPAN / B::LEN) {
            let end = len.min(start + SPAN / B::LEN);
            let mut sums = [[[isa.splat(0.0); 4]; C]; TOGETHER];
            for at in (start..end).step_by(TURN / B::LEN) {
                let count = (end - at).min(TURN / B::LEN);
                let mut x = [&[][..]; C];
                for c in 0..C {
                    x[c] = &columns[c][at * B::LEN..][..count * B::LEN];
                }
                for (row, sums) in rest.iter_mut().zip(&mut sums).take(by_turns) {
                    let (blocks, behind) = row.split_at(count);
                    *row = behind;
                    *sums = add_blocks(isa, *sums, blocks, &x, by_turns);
                }
            }
            for (sums, products) in sums.iter().zip(products.iter_mut()).take(by_turns) {
                for c in 0..C {
                    let [a, b, d, e] = sums[c];
                    products[c] += isa.sum(isa.add(isa.add(a, b), isa.add(d, e)));
                }
            }
        }
    }
    products
}

/// Adds the products of blocks made floats: of 32 weights or less in registers, by 32; of longer ones and what is left in memory.
#[inline(always)]
fn add_blocks<I: Isa, B: Block, const C: usize>(
    isa: I,
    mut to: [[I::Floats; 4]; C],
    blocks: &[B],
    x: &[&[f32]; C],
    by_turns: usize,
) -> [[I::Floats; 4]; C] {
    let mut at = 0;
    if B::LEN <= 32 {
        let mut whole = [&[][..]; C];
        for c in 0..C {
            whole[c] = &x[c].as_chunks().0[..blocks.len() / (32 / B::LEN)];
        }
        for (i, blocks) in blocks.chunks_exact(32 / B::LEN).enumerate() {
            prefetch(isa, &blocks[0], size_of_val(blocks), by_turns);
            let mut w = [0.0; 32];
            B::unpack(isa, blocks, &mut w);
            for c in 0..C {
                to[c] = add_32(isa, to[c], &w, &whole[c][i]);
            }
        }
        at = blocks.len() - blocks.len() % (32 / B::LEN);
    }
    for blocks in blocks[at..].chunks(B::LEN.max(32) / B::LEN) {
        prefetch(isa, &blocks[0], size_of_val(blocks), by_turns);
        let mut w = [0.0; 256];
        let w = &mut w[..blocks.len() * B::LEN];
        B::unpack(isa, blocks, w);
        for c in 0..C {
            to[c] = add_padded(isa, to[c], w, &x[c][at * B::LEN..][..w.len()]);
        }
        at += blocks.len();
    }
    to
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
fn prefetch<I: Isa, B: Block>(isa: I, block: &B, bytes: usize, by_turns: usize) {
    let at = bytemuck::bytes_of(block).as_ptr();
    for line in 0..bytes.div_ceil(64) {
        isa.prefetch(at, ahead(by_turns) + 64 * line);
    }
}
