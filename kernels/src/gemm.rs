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
//!     acc = fma(float(dots), scale of the row * scale of the column, acc)
//! ```
//!
//! 1. A processor with a dot product of bytes ([`Isa::DOTS`]) adds to `sums` in 32 bits. Without one they have 16 bits:
//!    those hold eight products of 4-bit codes, four of 5-bit codes, two of 6-bit codes ([`Codes::sums_in_16_bits`]);
//!    then they are widened by the instruction that applies the group's scale. Codes of 8 bits are 16 bits wide in the
//!    panel, and the group's scale is in them.
//! 2. Offsets and minimums need no codes: they are products of scales with the activations' sums.
#![forbid(unsafe_code)]

use crate::activations::Columns;
use crate::dispatch::Task;
use crate::gemv::SPAN;
use crate::output::Output;
use crate::quant::Codes;
use crate::simd::{Isa, Level};
use crate::tile::{FLOAT_ROWS, Panel, ROWS};

/// A span of a product: the weights of a panel, and where their products go.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The first row of the panel in the window.
    pub row: usize,
    /// The rows of the panel that the window has.
    pub rows: usize,
    /// The first weight of the span in the rows; where it is not 0, the window holds the sums so far.
    pub start: usize,
}

/// Multiplies a panel with all columns.
pub(crate) fn multiply(level: Level, panel: &Panel<'_>, x: Columns<'_>, place: Place, out: &mut Output<'_>) {
    // How many products are added up before they are widened. A group's sum must not run into the next group,
    // which has another scale.
    let fit = if panel.kind.codes == Codes::Signed { 8 } else { panel.kind.codes.sums_in_16_bits() };
    let steps = if level.run(HasDots) { 8 } else { fit }.min(panel.kind.group / 4);
    match (steps, panel.kind.wide) {
        (_, true) => level.run(Multiply::<0> { panel, x, place, out }),
        (8, _) => level.run(Multiply::<8> { panel, x, place, out }),
        (4, _) => level.run(Multiply::<4> { panel, x, place, out }),
        (2, _) => level.run(Multiply::<2> { panel, x, place, out }),
        _ => level.run(Multiply::<1> { panel, x, place, out }),
    }
}

struct HasDots;

impl Task for HasDots {
    type Output = bool;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> bool {
        I::DOTS
    }
}

/// The product of a panel whose products are added up `STEPS` at a time; 0 where its codes are wide.
struct Multiply<'a, 'p, 'o, const STEPS: usize> {
    panel: &'a Panel<'p>,
    x: Columns<'a>,
    place: Place,
    out: &'a mut Output<'o>,
}

impl<const STEPS: usize> Task for Multiply<'_, '_, '_, STEPS> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        // Where a level has dots it takes four or eight steps: the rest need not be compiled.
        if I::DOTS && STEPS < 4 {
            return;
        }
        let mut column = 0;
        while column < self.x.count() {
            column += match self.x.count() - column {
                8.. if I::COLUMNS == 8 => self.tile::<I, 8>(isa, column),
                4.. => self.tile::<I, 4>(isa, column),
                2.. => self.tile::<I, 2>(isa, column),
                _ => self.tile::<I, 1>(isa, column),
            };
        }
    }
}

impl<const STEPS: usize> Multiply<'_, '_, '_, STEPS> {
    /// Multiplies with `C` columns from `column` on; gives `C`.
    #[inline(always)]
    fn tile<I: Isa, const C: usize>(&mut self, isa: I, column: usize) -> usize {
        let Place { row, rows, start } = self.place;
        let mut tile = [[0.0; ROWS]; C];
        if start != 0 {
            for (c, tile) in tile.iter_mut().enumerate() {
                tile[..rows].copy_from_slice(&self.out.column(column + c)[row..][..rows]);
            }
        }
        let mut acc = tile.each_ref().map(|tile| isa.row_floats(tile));
        if self.panel.kind.superblocks {
            self.superblocks(isa, column, &mut acc);
        } else {
            self.scaled(isa, column, &mut acc);
        }
        for (c, (tile, &acc)) in tile.iter_mut().zip(&acc).enumerate() {
            isa.store_row_floats(acc, tile);
            self.out.column(column + c)[row..][..rows].copy_from_slice(&tile[..rows]);
        }
        C
    }

    /// Adds the span's superblocks to `acc`.
    #[inline(always)]
    fn superblocks<I: Isa, const C: usize>(&self, isa: I, column: usize, acc: &mut [I::RowFloats; C]) {
        let Panel { kind, len, .. } = *self.panel;
        let first = self.place.start / 256;
        let codes = self.codes::<C>(column);
        let sums: [_; C] = core::array::from_fn(|c| &self.x.superblock_sums(column + c)[first..]);
        let scales: [_; C] = core::array::from_fn(|c| &self.x.scales(column + c)[first..]);
        let wide_codes = if STEPS == 0 { Some(widened::<I, C>(isa, &codes)) } else { None };
        for block in 0..len / 256 {
            let mut dots = [isa.splat_rows(0); C];
            if let Some(wide_codes) = &wide_codes {
                self.wide_products(isa, wide_codes, 128 * block..128 * (block + 1), &mut dots);
            } else {
                for chunk in 64 / STEPS * block..64 / STEPS * (block + 1) {
                    let sums = self.products::<I, C>(isa, &codes, chunk);
                    let scales = &self.panel.group_scales[chunk * STEPS * 4 / kind.group];
                    for c in 0..C {
                        dots[c] = isa.add_rows(dots[c], isa.scale_sums(sums[c], scales));
                    }
                }
            }
            let mut mins = [isa.splat_rows(0); C];
            if kind.has_group_mins() {
                let pairs = 128 / kind.group;
                let group_mins = &self.panel.group_mins[pairs * block..][..pairs];
                for c in 0..C {
                    let sums = &sums[c][block];
                    let sums =
                        if kind.group == 16 { sums.of_16.as_chunks().0 } else { sums.of_32.as_chunks().0 };
                    for (&pair, group_mins) in sums.iter().zip(group_mins) {
                        mins[c] = isa.add_pairs(mins[c], group_mins, pair);
                    }
                }
            }
            let row_scales = isa.row_floats(&self.panel.scales[block]);
            for c in 0..C {
                let dx = isa.splat_row_floats(scales[c][block]);
                if kind.offset != 0 {
                    dots[c] = isa.sub_rows(dots[c], mins[c]);
                }
                let dot = isa.row_ints_to_floats(dots[c]);
                acc[c] = isa.fma_row_floats(dot, isa.mul_row_floats(row_scales, dx), acc[c]);
                if kind.mins {
                    let scale = isa.mul_row_floats(isa.row_floats(&self.panel.mins[block]), dx);
                    let scale = isa.mul_row_floats(scale, isa.splat_row_floats(-1.0));
                    acc[c] = isa.fma_row_floats(isa.row_ints_to_floats(mins[c]), scale, acc[c]);
                }
            }
        }
    }

    /// Adds the span's parts to `total`.
    #[inline(always)]
    fn scaled<I: Isa, const C: usize>(&self, isa: I, column: usize, total: &mut [I::RowFloats; C]) {
        let Panel { kind, len, .. } = *self.panel;
        let first = self.place.start / 32;
        let count = len / 32;
        let codes = self.codes::<C>(column);
        let scales: [_; C] = core::array::from_fn(|c| &self.x.scales(column + c)[first..][..count]);
        let mut sums = [[0; SPAN / 32]; C];
        let mut offsets = [[0; SPAN / 32]; C];
        for c in 0..C {
            sums[c][..count].copy_from_slice(&self.x.sums(column + c)[first..][..count]);
            offsets[c] = sums[c].map(|sum| sum.wrapping_mul(kind.offset));
        }
        let wide_codes = if STEPS == 0 { Some(widened::<I, C>(isa, &codes)) } else { None };
        // A tile for each of a span's eight accumulators; they live in the first-level cache.
        let mut parts = [[isa.splat_row_floats(0.0); C]; 8];
        for part in 0..count {
            let mut dots = [isa.splat_rows(0); C];
            if let Some(wide_codes) = &wide_codes {
                self.wide_products(isa, wide_codes, 16 * part..16 * (part + 1), &mut dots);
            } else if STEPS == 8 {
                dots = self.products::<I, C>(isa, &codes, part).map(|sums| isa.widen_sums(sums));
            } else {
                for chunk in 8 / STEPS * part..8 / STEPS * (part + 1) {
                    let sums = self.products::<I, C>(isa, &codes, chunk);
                    for c in 0..C {
                        dots[c] = isa.add_rows(dots[c], isa.widen_sums(sums[c]));
                    }
                }
            }
            let row_scales = isa.row_floats(&self.panel.scales[part]);
            let acc = &mut parts[part % 8];
            for c in 0..C {
                let dx = scales[c][part];
                if kind.offset != 0 {
                    dots[c] = isa.sub_rows(dots[c], isa.splat_rows(offsets[c][part]));
                }
                let scale = isa.mul_row_floats(row_scales, isa.splat_row_floats(dx));
                acc[c] = isa.fma_row_floats(isa.row_ints_to_floats(dots[c]), scale, acc[c]);
                if kind.mins {
                    let mins = isa.row_floats(&self.panel.mins[part]);
                    let sum = isa.splat_row_floats(dx * sums[c][part] as f32);
                    acc[c] = isa.fma_row_floats(mins, sum, acc[c]);
                }
            }
        }
        for c in 0..C {
            let add = |a: usize, b: usize| isa.add_row_floats(parts[a][c], parts[b][c]);
            let even = isa.add_row_floats(add(0, 4), add(2, 6));
            let odd = isa.add_row_floats(add(1, 5), add(3, 7));
            total[c] = isa.add_row_floats(total[c], isa.add_row_floats(even, odd));
        }
    }

    /// The codes of the span of `C` columns.
    #[inline(always)]
    fn codes<const C: usize>(&self, column: usize) -> [&[[i8; 32]]; C] {
        let (first, count) = (self.place.start / 32, self.panel.len / 32);
        core::array::from_fn(|c| &self.x.codes(column + c)[first..][..count])
    }

    /// The microkernel: `STEPS` times four weights of sixteen rows times `C` columns, the `chunk`-th of the span.
    #[inline(always)]
    fn products<I: Isa, const C: usize>(
        &self,
        isa: I,
        x: &[&[[i8; 32]]; C],
        chunk: usize,
    ) -> [I::RowSums; C] {
        let mut sums = [isa.no_sums(); C];
        let w = &self.panel.codes.as_chunks::<STEPS>().0[chunk];
        let x: [_; C] =
            core::array::from_fn(|c| &x[c].as_flattened().as_chunks::<4>().0.as_chunks::<STEPS>().0[chunk]);
        for step in 0..STEPS {
            let w = isa.row_codes(&w[step]);
            for c in 0..C {
                sums[c] = isa.add_products(sums[c], w, x[c][step]);
            }
        }
        sums
    }

    /// Adds the products of wide codes, those of the pairs `pairs` of the span.
    #[inline(always)]
    fn wide_products<I: Isa, const C: usize>(
        &self,
        isa: I,
        x: &[[[i16; 2]; SPAN / 2]; C],
        pairs: core::ops::Range<usize>,
        dots: &mut [I::RowInts; C],
    ) {
        let codes: &[[[i16; 2]; ROWS]] = bytemuck::cast_slice(&*self.panel.codes);
        for pair in pairs {
            let w = &codes[pair];
            for c in 0..C {
                dots[c] = isa.add_pairs(dots[c], w, x[c][pair]);
            }
        }
    }
}

/// Activations' codes in 16 bits.
#[inline(always)]
fn widened<I: Isa, const C: usize>(isa: I, codes: &[&[[i8; 32]]; C]) -> [[[i16; 2]; SPAN / 2]; C] {
    let mut wide = [[[0; 2]; SPAN / 2]; C];
    for (wide, codes) in wide.iter_mut().zip(codes) {
        let halves = bytemuck::cast_slice_mut::<_, [u8; 32]>(wide.as_mut_slice()).as_chunks_mut::<2>().0;
        for (halves, codes) in halves.iter_mut().zip(*codes) {
            let [low, high] = isa.sixteens(isa.signed_bytes(codes));
            isa.store_bytes(low, &mut halves[0]);
            isa.store_bytes(high, &mut halves[1]);
        }
    }
    wide
}

/// Multiplies a span of up to [`FLOAT_ROWS`] rows of floats, each padded to `padded`, with all columns.
pub(crate) fn multiply_floats(
    level: Level,
    panel: &[f32],
    padded: usize,
    x: Columns<'_>,
    place: Place,
    out: &mut Output<'_>,
) {
    debug_assert!(panel.len() <= FLOAT_ROWS * padded);
    level.run(MultiplyFloats { panel, padded, x, place, out });
}

struct MultiplyFloats<'a, 'o> {
    panel: &'a [f32],
    padded: usize,
    x: Columns<'a>,
    place: Place,
    out: &'a mut Output<'o>,
}

impl Task for MultiplyFloats<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let mut column = 0;
        while column < self.x.count() {
            column += match self.x.count() - column {
                4.. => self.columns::<I, 4>(isa, column),
                2.. => self.columns::<I, 2>(isa, column),
                _ => self.columns::<I, 1>(isa, column),
            };
        }
    }
}

impl MultiplyFloats<'_, '_> {
    /// Multiplies with `C` columns from `column` on; gives `C`.
    #[inline(always)]
    fn columns<I: Isa, const C: usize>(&mut self, isa: I, column: usize) -> usize {
        let Place { start, rows, .. } = self.place;
        let x: [_; C] = core::array::from_fn(|c| {
            let x = &self.x.float_column(column + c)[start..];
            &x[..x.len().min(SPAN)]
        });
        // The end of a column, padded.
        let mut last = [[0.0; 32]; C];
        for (last, x) in last.iter_mut().zip(&x) {
            let left = x.as_chunks::<32>().1;
            last[..left.len()].copy_from_slice(left);
        }
        let mut row = 0;
        while row < rows {
            row += match rows - row {
                3.. => self.tile::<I, 3, C>(isa, row, column, &x, &last),
                2 => self.tile::<I, 2, C>(isa, row, column, &x, &last),
                _ => self.tile::<I, 1, C>(isa, row, column, &x, &last),
            };
        }
        C
    }

    /// `R` rows times `C` columns: one of the four registers of a row's accumulators at a time, so that all fit; gives
    /// `R`.
    #[inline(always)]
    fn tile<I: Isa, const R: usize, const C: usize>(
        &mut self,
        isa: I,
        row: usize,
        column: usize,
        x: &[&[f32]; C],
        last: &[[f32; 32]; C],
    ) -> usize {
        let whole = x[0].len() / 32;
        let x: [_; C] = core::array::from_fn(|c| &x[c].as_chunks::<32>().0[..whole]);
        let w: [_; R] = core::array::from_fn(|r| {
            self.panel[(row + r) * self.padded..][..self.padded].as_chunks::<32>().0
        });
        let mut sums = [[[isa.splat(0.0); C]; R]; 4];
        for (vector, sums) in sums.iter_mut().enumerate() {
            let mut acc = *sums;
            let whole_w: [_; R] = core::array::from_fn(|r| &w[r][..whole]);
            for chunk in 0..whole {
                let x: [_; C] = core::array::from_fn(|c| isa.floats(&x[c][chunk].as_chunks::<8>().0[vector]));
                for r in 0..R {
                    let w = isa.floats(&whole_w[r][chunk].as_chunks::<8>().0[vector]);
                    for c in 0..C {
                        acc[r][c] = isa.fma(w, x[c], acc[r][c]);
                    }
                }
            }
            if w[0].len() > whole {
                for r in 0..R {
                    let w = isa.floats(&w[r][whole].as_chunks::<8>().0[vector]);
                    for c in 0..C {
                        acc[r][c] = isa.fma(w, isa.floats(&last[c].as_chunks::<8>().0[vector]), acc[r][c]);
                    }
                }
            }
            *sums = acc;
        }
        let [a, b, d, e] = sums;
        let (start, first) = (self.place.start, self.place.row);
        for r in 0..R {
            for c in 0..C {
                let sum = isa.sum(isa.add(isa.add(a[r][c], d[r][c]), isa.add(b[r][c], e[r][c])));
                let out = &mut self.out.column(column + c)[first + row + r];
                *out = if start == 0 { 0.0 + sum } else { *out + sum };
            }
        }
        R
    }
}
