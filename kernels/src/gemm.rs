//! Prefill: a panel of rows times many columns, with the bits that [`crate::gemv`] defines.
//!
//! A panel is a span of sixteen rows; it and the columns' codes of that span stay in the first-level cache. For each few
//! columns:
//!
//! ```text
//! for each superblock (or part) of the span
//!     for each group of 32 (or 16) weights
//!         sums = 0                                        for 16 rows, a few columns
//!         for each 4 weights: sums += codes * activations
//!         dots += sums * group scale
//!     value = float(dots) * (scale of the row * scale of the column)
//! ```
//!
//! 1. A processor with a dot product of bytes ([`Isa::DOTS`]) adds to `sums` in 32 bits. Without one they have 16 bits:
//!    those hold eight products of 4-bit codes, four of 5-bit codes, two of 6-bit codes ([`crate::quant::Codes`]), but four
//!    of those where pairs are added up and their offset is taken off in 16 bits ([`Isa::PAIRS`]); then they are widened by
//!    the instruction that applies the group's scale. Signed codes are widened at once; their signs go to the activations,
//!    bit by bit ([`crate::tile`]).
//! 2. Other offsets, and minimums, need no codes: they are products of scales with the activations' sums.
#![forbid(unsafe_code)]
#![allow(
    clippy::needless_range_loop,
    clippy::manual_checked_ops,
    reason = "loops over registers, compiled for constants"
)]

use crate::activations::{Columns, Four, INTERLEAVED, Sums};
use crate::dispatch::Task;
use crate::gemm_matrix;
use crate::gemv::SPAN;
use crate::output::Output;
use crate::simd::{Isa, Level};
use crate::tile::{Panel, ROWS, Source, Strip, Width};

/// Where the sums of a span of a panel go.
pub(crate) struct Place<'s, 'o> {
    /// The first weight of the span in the rows; where it is not 0, the strips hold the sums so far.
    pub start: usize,
    /// The panel's number in the strips.
    pub panel: usize,
    /// A strip for each column.
    pub strips: &'s mut [Strip],
    /// Where the strips go, if they are whole with this span.
    pub results: Option<Results<'s, 'o>>,
    /// What the next panel is made of.
    pub next: Option<Source<'s>>,
}

/// Results of the rows of some panels.
pub(crate) struct Results<'s, 'o> {
    pub out: &'s mut Output<'o>,
    /// The first of the rows.
    pub row: usize,
    /// How many there are.
    pub rows: usize,
}

impl Place<'_, '_> {
    /// Has the memory bring what [`Place::add`] will need of a column.
    #[inline(always)]
    pub fn fetch<I: Isa>(&mut self, isa: I, column: usize) {
        isa.prefetch(self.strips[column][self.panel].as_ptr().cast(), 0);
        if let Some(Results { out, row, rows }) = &mut self.results {
            for line in out.column(column)[*row..][..*rows].chunks(ROWS) {
                isa.prefetch(line.as_ptr().cast(), 0);
            }
        }
    }

    /// Adds a span's sums to a column's, or puts them there where it is the first span; then writes the results of a strip that
    /// is whole.
    #[inline(always)]
    pub fn add<I: Isa>(&mut self, isa: I, column: usize, sum: I::RowFloats) {
        let strip = &mut self.strips[column];
        let to = &mut strip[self.panel];
        let before = if self.start == 0 { isa.splat_row_floats(0.0) } else { isa.row_floats(to) };
        isa.store_row_floats(isa.add_row_floats(before, sum), to);
        if let Some(Results { out, row, rows }) = &mut self.results {
            for (to, sums) in out.column(column)[*row..][..*rows].chunks_mut(ROWS).zip(strip) {
                match to.first_chunk_mut() {
                    Some(to) => isa.store_row_floats(isa.row_floats(sums), to),
                    None => to.copy_from_slice(&sums[..to.len()]),
                }
            }
        }
    }
}

/// Multiplies a panel with all columns.
pub(crate) fn multiply(level: Level, panel: &Panel<'_>, x: Columns<'_>, place: Place<'_, '_>) {
    match (panel.kind.steps, panel.kind.width) {
        _ if panel.kind.matrices => gemm_matrix::multiply(level, panel, x, place),
        (_, Width::Signed) => level.run(Multiply::<0> { panel, x, place }),
        (8, _) => level.run(Multiply::<8> { panel, x, place }),
        (4, _) => level.run(Multiply::<4> { panel, x, place }),
        (2, _) => level.run(Multiply::<2> { panel, x, place }),
        _ => level.run(Multiply::<1> { panel, x, place }),
    }
}

/// The product of a panel whose products are added up `STEPS` at a time; 0 where signs lie apart from codes.
struct Multiply<'a, 'p, 'o, const STEPS: usize> {
    panel: &'a Panel<'p>,
    x: Columns<'a>,
    place: Place<'a, 'o>,
}

impl<const STEPS: usize> Task for Multiply<'_, '_, '_, STEPS> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        // Where a level has dots it takes four or eight steps, and signs lie apart only for pairs: the rest need not be
        // compiled.
        if I::DOTS && STEPS < 4 || !I::PAIRS && STEPS == 0 {
            return;
        }
        let fours = self.x.count().div_ceil(INTERLEAVED);
        // Made once: clearing it for each tile takes longer than a superblock.
        let mut partial = [[[isa.splat_row_floats(0.0); INTERLEAVED]; 2]; ACCUMULATORS + 1];
        let mut four = 0;
        while four < fours {
            four += if I::COLUMNS == 8 && fours - four >= 2 {
                self.tile::<I, 2>(isa, four, &mut partial)
            } else {
                self.tile::<I, 1>(isa, four, &mut partial)
            };
        }
    }
}

/// A register for each of `F` times four columns.
type Tile<T, const F: usize> = [[T; INTERLEAVED]; F];
/// What a span is added up in.
const ACCUMULATORS: usize = 8;
/// Sums of a span in the columns of a tile: the values of its superblocks, 0 where it is shorter, or its accumulators, and behind
/// them zeros, with which each of these begins.
type Partial<T> = [Tile<T, 2>; ACCUMULATORS + 1];

impl<const STEPS: usize> Multiply<'_, '_, '_, STEPS> {
    /// Multiplies with `F` times four columns, from the four `four` on; gives `F`.
    #[inline(always)]
    fn tile<I: Isa, const F: usize>(
        &mut self,
        isa: I,
        four: usize,
        partial: &mut Partial<I::RowFloats>,
    ) -> usize {
        let start = self.place.start;
        let (first, count) = (INTERLEAVED * four, self.x.count());
        // Not `from_fn`, which would copy them from place to place on the stack.
        let mut x = [self.x.interleaved(four, start, self.panel.len); F];
        for (f, x) in x.iter_mut().enumerate().skip(1) {
            *x = self.x.interleaved(four + f, start, self.panel.len);
        }
        // They come while the span is multiplied.
        for column in first..count.min(first + INTERLEAVED * F) {
            self.place.fetch(isa, column);
        }
        // So do the next panel's rows, a few with each of the last columns: all columns would drive them out of the caches again.
        if let Some(next) = self.place.next {
            let fours = count.div_ceil(INTERLEAVED);
            let last = fours.min(ROWS);
            let rows = |four: usize| (four + last).saturating_sub(fours) * ROWS / last;
            next.fetch(isa, rows(four)..rows((four + F).min(fours)));
        }
        let sums = match self.panel.kind.superblocks {
            true => self.superblocks(isa, &x, partial),
            // Codes of which four steps fit a group: no others come in groups of 16.
            false if STEPS == 4 && self.panel.kind.group == 16 => self.scaled::<I, F, 4>(isa, &x, partial),
            false => self.scaled::<I, F, 8>(isa, &x, partial),
        };
        for (column, &sum) in (first..count).zip(sums.as_flattened()) {
            self.place.add(isa, column, sum);
        }
        F
    }

    /// The sums of the span's superblocks.
    #[inline(always)]
    fn superblocks<I: Isa, const F: usize>(
        &self,
        isa: I,
        x: &[Four<'_>; F],
        partial: &mut Partial<I::RowFloats>,
    ) -> Tile<I::RowFloats, F> {
        let Panel { kind, len, .. } = *self.panel;
        for (block, values) in partial.iter_mut().enumerate().take(len / 256) {
            // Before the dots, which would have to make room for them.
            let mut mins = [[isa.splat_rows(0); INTERLEAVED]; F];
            if kind.has_group_mins() {
                mins = match kind.group {
                    16 => self.all_group_mins::<I, F, 8>(isa, x, block),
                    _ => self.all_group_mins::<I, F, 4>(isa, x, block),
                };
            }
            let dots = match kind.group {
                _ if STEPS == 0 => {
                    let mut dots = [[isa.row_ints(&self.panel.missing[block]); INTERLEAVED]; F];
                    let group_scales = &self.panel.group_scales.as_chunks::<8>().0[block];
                    for (part, scales) in group_scales.iter().enumerate() {
                        self.signed_products(isa, x, 8 * block + part, scales, &mut dots);
                    }
                    dots
                }
                16 if STEPS == 4 && kind.centred => self.dots_by_twos::<I, F, 4, true>(isa, x, block),
                16 if STEPS == 4 && !I::DOTS => self.dots_by_twos::<I, F, 4, false>(isa, x, block),
                16 if STEPS == 2 && !I::DOTS => self.dots_by_twos::<I, F, 2, false>(isa, x, block),
                16 if STEPS == 1 && !I::DOTS => self.dots_by_twos::<I, F, 1, false>(isa, x, block),
                // Eight steps are a group of 32.
                16 if STEPS < 8 => self.dots::<I, F, 16>(isa, x, block),
                _ => self.dots::<I, F, 8>(isa, x, block),
            };
            for f in 0..F {
                for c in 0..INTERLEAVED {
                    let mut dot = dots[f][c];
                    if kind.offset != 0 {
                        dot = isa.sub_rows(dot, mins[f][c]);
                    }
                    values[f][c] = superblock(isa, self.panel, block, dot, mins[f][c], x[f].scales[block][c]);
                }
            }
        }
        let mut total = [[isa.splat_row_floats(0.0); INTERLEAVED]; F];
        for f in 0..F {
            for c in 0..INTERLEAVED {
                let [a, b, d, e, ..] = partial;
                total[f][c] = sum_of_superblocks(isa, [a[f][c], b[f][c], d[f][c], e[f][c]]);
            }
        }
        total
    }

    /// The products of the codes of superblock `block` of the span, times the scales of its `GROUPS` groups.
    #[inline(always)]
    fn dots<I: Isa, const F: usize, const GROUPS: usize>(
        &self,
        isa: I,
        x: &[Four<'_>; F],
        block: usize,
    ) -> Tile<I::RowInts, F> {
        let mut dots = [[isa.splat_rows(0); INTERLEAVED]; F];
        let w = self.panel.codes.as_chunks::<64>().0[block].as_chunks::<STEPS>().0;
        let x: [_; F] =
            core::array::from_fn(|f| x[f].codes.as_chunks::<64>().0[block].as_chunks::<STEPS>().0);
        let group_scales = &self.panel.group_scales.as_chunks::<GROUPS>().0[block];
        for (group, scales) in group_scales.iter().enumerate() {
            let chunks = 64 / STEPS / GROUPS;
            for chunk in chunks * group..chunks * (group + 1) {
                let x: [_; F] = core::array::from_fn(|f| &x[f][chunk]);
                if STEPS <= 2 {
                    add_few_products(isa, &w[chunk], &x, scales, &mut dots);
                    continue;
                }
                let sums = isa.products::<STEPS, F>(&w[chunk], &x);
                for (dots, &sums) in dots.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
                    *dots = isa.add_scaled_sums(*dots, sums, scales);
                }
            }
        }
        dots
    }

    /// [`Self::dots`] of groups of 16, two columns at a time and `RUN` of a group's four steps before their sums are widened: so often
    /// that `dots` and scales must stay in registers.
    #[inline(always)]
    fn dots_by_twos<I: Isa, const F: usize, const RUN: usize, const CENTRED: bool>(
        &self,
        isa: I,
        x: &[Four<'_>; F],
        block: usize,
    ) -> Tile<I::RowInts, F> {
        let mut tile = [[isa.splat_rows(0); INTERLEAVED]; F];
        let w = self.panel.codes.as_chunks::<4>().0.as_chunks::<16>().0;
        let group_scales = self.panel.group_scales.as_chunks::<16>().0;
        for (x, tile) in x.iter().zip(&mut tile) {
            let codes = x.codes.as_chunks::<4>().0.as_chunks::<16>().0;
            let sums_of_x = &x.superblock_sums()[block];
            for (two, tile) in tile.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let mut dots = *tile;
                let groups = w[block].iter().zip(&codes[block]).zip(&group_scales[block]);
                for (group, ((w, x), scales)) in groups.enumerate() {
                    for (w, x) in w.as_chunks::<RUN>().0.iter().zip(x.as_chunks::<RUN>().0) {
                        let mut sums = [isa.no_sums(); 2];
                        for step in 0..RUN {
                            let w = isa.row_codes(&w[step]);
                            for c in 0..2 {
                                let x = x[step][2 * two + c];
                                sums[c] = match step {
                                    0 => isa.first_products(w, x),
                                    _ => isa.add_products(sums[c], w, x),
                                };
                            }
                        }
                        for c in 0..2 {
                            if CENTRED {
                                sums[c] = isa.add_to_pairs(sums[c], sums_of_x[2 * two + c].of_pairs[group]);
                            }
                            dots[c] = isa.add_scaled_sums(dots[c], sums[c], scales);
                        }
                    }
                }
                *tile = dots;
            }
        }
        tile
    }

    /// [`group_mins`] of all columns.
    #[inline(always)]
    fn all_group_mins<I: Isa, const F: usize, const PAIRS: usize>(
        &self,
        isa: I,
        x: &[Four<'_>; F],
        block: usize,
    ) -> Tile<I::RowInts, F> {
        let mut mins = [[isa.splat_rows(0); INTERLEAVED]; F];
        for f in 0..F {
            for c in 0..INTERLEAVED {
                let sums = &x[f].superblock_sums()[block][c];
                mins[f][c] = group_mins::<I, PAIRS>(isa, self.panel, block, sums);
            }
        }
        mins
    }

    /// The sums of the span's parts of `QUADS` times four weights.
    #[inline(always)]
    fn scaled<I: Isa, const F: usize, const QUADS: usize>(
        &self,
        isa: I,
        x: &[Four<'_>; F],
        partial: &mut Partial<I::RowFloats>,
    ) -> Tile<I::RowFloats, F> {
        let Panel { kind, len, .. } = *self.panel;
        let count = len / (4 * QUADS);
        let (w, row_scales) =
            (&self.panel.codes.as_chunks::<QUADS>().0[..count], &self.panel.scales[..count]);
        let codes: [_; F] = core::array::from_fn(|f| &x[f].codes.as_chunks::<QUADS>().0[..count]);
        let scales: [_; F] = core::array::from_fn(|f| &x[f].scales[..count]);
        let sums_of_x: [_; F] = core::array::from_fn(|f| &x[f].sums()[..count]);
        let mut shared =
            Shared { offsets: [[[0; INTERLEAVED]; F]; 8], min_sums: [[[0.0; INTERLEAVED]; F]; 8] };
        for part in 0..count {
            // Signed codes have neither.
            if STEPS != 0 && part % 8 == 0 {
                shared.fill(kind.offset, part, &scales, &sums_of_x);
            }
            // Nothing that may fail stands between the products and their use: the compiler would move the use, and
            // load all that it needs long before.
            let row_scales = isa.row_floats(&row_scales[part]);
            let dx: [_; F] = core::array::from_fn(|f| &scales[f][part]);
            let mut dots = [[isa.splat_rows(0); INTERLEAVED]; F];
            if STEPS == 0 {
                dots = [[isa.row_ints(&self.panel.missing[part]); INTERLEAVED]; F];
                self.signed_products(isa, x, part, &ONES, &mut dots);
            } else {
                for chunk in 0..QUADS / STEPS {
                    let x: [_; F] = core::array::from_fn(|f| &codes[f][part].as_chunks::<STEPS>().0[chunk]);
                    let sums = isa.products::<STEPS, F>(&w[part].as_chunks::<STEPS>().0[chunk], &x);
                    for (dots, &sums) in dots.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
                        *dots = isa.add_rows(*dots, isa.widen_sums(sums));
                    }
                }
            }
            let to = part % ACCUMULATORS;
            // The first of each begins with the zeros: clearing them all would take as long as a part.
            let from = if part < ACCUMULATORS { ACCUMULATORS } else { to };
            if STEPS != 0 && kind.mins {
                let mins = isa.row_floats(&self.panel.mins[part]);
                for f in 0..F {
                    for c in 0..INTERLEAVED {
                        let dot = isa.row_ints_to_floats(dots[f][c]);
                        let scale = isa.mul_row_floats(row_scales, isa.splat_row_floats(dx[f][c]));
                        let sum = isa.fma_row_floats(dot, scale, partial[from][f][c]);
                        partial[to][f][c] = isa.fma_row_floats(
                            mins,
                            isa.splat_row_floats(shared.min_sums[part % 8][f][c]),
                            sum,
                        );
                    }
                }
            } else {
                for f in 0..F {
                    for c in 0..INTERLEAVED {
                        let mut dot = dots[f][c];
                        if STEPS != 0 {
                            dot = isa.sub_rows(dot, isa.splat_rows(shared.offsets[part % 8][f][c]));
                        }
                        let dot = isa.row_ints_to_floats(dot);
                        let scale = isa.mul_row_floats(row_scales, isa.splat_row_floats(dx[f][c]));
                        partial[to][f][c] = isa.fma_row_floats(dot, scale, partial[from][f][c]);
                    }
                }
            }
        }
        for (a, b) in PART_SUMS {
            for f in 0..F {
                for c in 0..INTERLEAVED {
                    partial[a][f][c] = isa.add_row_floats(partial[a][f][c], partial[b][f][c]);
                }
            }
        }
        let mut total = [[isa.splat_row_floats(0.0); INTERLEAVED]; F];
        total.copy_from_slice(&partial[0][..F]);
        total
    }

    /// Adds the products of signed codes, those of part `part` of the span, times the rows' scales.
    #[inline(always)]
    fn signed_products<I: Isa, const F: usize>(
        &self,
        isa: I,
        x: &[Four<'_>; F],
        part: usize,
        scales: &[[i16; 2]; ROWS],
        dots: &mut Tile<I::RowInts, F>,
    ) {
        let codes = &self.panel.codes.as_chunks::<2>().0.as_chunks::<8>().0[part];
        let x: [_; F] = core::array::from_fn(|f| &x[f].codes.as_chunks::<8>().0[part]);
        for quad in 0..8 {
            let w = [isa.row_codes(&codes[quad][0]), isa.row_codes(&codes[quad][1])];
            for f in 0..F {
                for c in 0..INTERLEAVED {
                    dots[f][c] = isa.add_signed_products(dots[f][c], w, x[f][quad][c], scales);
                }
            }
        }
    }
}

/// What all rows share of eight parts.
struct Shared<const F: usize> {
    /// The activations' sums times the codes' offset.
    offsets: [[[i32; INTERLEAVED]; F]; 8],
    /// The activations' sums times their scale.
    min_sums: [[[f32; INTERLEAVED]; F]; 8],
}

impl<const F: usize> Shared<F> {
    /// For the parts from `first` on.
    #[inline(always)]
    fn fill(
        &mut self,
        offset: i32,
        first: usize,
        scales: &[&[[f32; INTERLEAVED]]; F],
        sums: &[&[[i32; INTERLEAVED]]; F],
    ) {
        for f in 0..F {
            let parts = scales[f][first..].iter().zip(&sums[f][first..]);
            for ((scales, sums), (offsets, min_sums)) in
                parts.zip(self.offsets.iter_mut().zip(&mut self.min_sums))
            {
                for c in 0..INTERLEAVED {
                    offsets[f][c] = sums[c].wrapping_mul(offset);
                    min_sums[f][c] = scales[c] * sums[c] as f32;
                }
            }
        }
    }
}

/// A scale of 1 for each row.
static ONES: [[i16; 2]; ROWS] = [[1; 2]; ROWS];

/// Adds the products of one or two steps, times the rows' scales: column by column, so that weights and `dots` stay in
/// registers.
#[inline(always)]
fn add_few_products<I: Isa, const STEPS: usize, const F: usize>(
    isa: I,
    w: &[[[u8; 4]; ROWS]; STEPS],
    x: &[&[[[i8; 4]; INTERLEAVED]; STEPS]; F],
    scales: &[[i16; 2]; ROWS],
    dots: &mut Tile<I::RowInts, F>,
) {
    let last = STEPS.saturating_sub(1);
    let (first_codes, last_codes) = (isa.row_codes(&w[0]), isa.row_codes(&w[last]));
    for f in 0..F {
        for c in 0..INTERLEAVED {
            let mut sums = isa.first_products(first_codes, x[f][0][c]);
            if STEPS == 2 {
                sums = isa.add_products(sums, last_codes, x[f][last][c]);
            }
            dots[f][c] = isa.add_scaled_sums(dots[f][c], sums, scales);
        }
    }
}

/// The order in which a span's eight accumulators are added up: each pair's second to its first.
pub(crate) const PART_SUMS: [(usize, usize); 7] = [(0, 4), (2, 6), (1, 5), (3, 7), (0, 2), (1, 3), (0, 1)];

/// The products of a superblock's `PAIRS` (8 or 4) pairs of group minimums with the activations' sums.
#[inline(always)]
pub(crate) fn group_mins<I: Isa, const PAIRS: usize>(
    isa: I,
    panel: &Panel<'_>,
    block: usize,
    sums: &Sums,
) -> I::RowInts {
    let group_mins = &panel.group_mins.as_chunks::<PAIRS>().0[block];
    let (of_16, of_32) = (sums.of_16.as_chunks::<2>().0, sums.of_32.as_chunks::<2>().0);
    let mut mins = isa.splat_rows(0);
    for pair in 0..PAIRS {
        mins = isa.add_pairs(mins, &group_mins[pair], if PAIRS == 8 { &of_16[pair] } else { &of_32[pair] });
    }
    mins
}

/// The value of a superblock: from its `dot` of codes and group scales and the sum of its group minimums (where there are any),
/// `scale` being the activations'.
#[inline(always)]
pub(crate) fn superblock<I: Isa>(
    isa: I,
    panel: &Panel<'_>,
    block: usize,
    dot: I::RowInts,
    mins: I::RowInts,
    scale: f32,
) -> I::RowFloats {
    let dx = isa.splat_row_floats(scale);
    let scale = isa.mul_row_floats(isa.row_floats(&panel.scales[block]), dx);
    let dot = isa.row_ints_to_floats(dot);
    if !panel.kind.mins {
        return isa.mul_row_floats(dot, scale);
    }
    let min_scale = isa.mul_row_floats(isa.row_floats(&panel.mins[block]), dx);
    let mins = isa.mul_row_floats(isa.row_ints_to_floats(mins), min_scale);
    isa.fma_row_floats(dot, scale, mins)
}

/// The sum of a span's superblocks, in the order that [`crate::gemv`] defines.
#[inline(always)]
pub(crate) fn sum_of_superblocks<I: Isa>(isa: I, [a, b, c, d]: [I::RowFloats; SPAN / 256]) -> I::RowFloats {
    isa.add_row_floats(isa.add_row_floats(a, b), isa.add_row_floats(c, d))
}
