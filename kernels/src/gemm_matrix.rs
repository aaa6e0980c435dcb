//! Prefill on a matrix unit ([`crate::simd::matrix`]), with the bits that [`crate::gemv`] defines.
//!
//! The unit gives the integer sums of a panel and thirty-two columns: of superblocks whole, since their codes already have
//! the group scales in them; otherwise of each 32 weights. What is left are floats, as in [`crate::gemm`].
#![forbid(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "loops over several arrays of registers, without closures")]

use crate::activations::{Columns, Interleaved};
use crate::dispatch::Task;
use crate::gemm::{PART_SUMS, Place, group_mins, sum_of_superblocks, superblock};
use crate::gemv::SPAN;
use crate::simd::amx::Amx;
#[cfg(test)]
use crate::simd::matrix::Loops;
use crate::simd::matrix::{Parts, SIDE, Sums, Superblocks};
use crate::simd::{Isa, Level};
use crate::tile::{Panel, ROWS};

const _: () = assert!(ROWS == SIDE);

/// Multiplies a panel with all columns, on a level that has a matrix unit.
pub(crate) fn multiply(level: Level, panel: &Panel<'_>, x: Columns<'_>, place: Place<'_, '_>) {
    if let Some(next) = place.next {
        level.run(next);
    }
    let product = Product { panel, x, place };
    #[cfg(test)]
    if level == Level::SCALAR_MATRICES {
        return match panel.kind.superblocks {
            true => level.run(OfSuperblocks(Loops, product)),
            false => level.run(OfParts(Loops, product)),
        };
    }
    if panel.kind.superblocks {
        if let Some(unit) = Amx::of(level) {
            level.run(OfSuperblocks(unit, product));
        }
    } else if let Some(unit) = Amx::of(level) {
        level.run(OfParts(unit, product));
    }
}

struct Product<'a, 'p, 'o> {
    panel: &'a Panel<'p>,
    x: Columns<'a>,
    place: Place<'a, 'o>,
}

impl<'a> Product<'a, '_, '_> {
    /// The `pair`-th twice sixteen columns, the first sixteen again where there are no second.
    #[inline(always)]
    fn columns<const K: usize>(&self, pair: usize) -> [Interleaved<'a, SIDE, K>; 2] {
        let last = self.x.count().div_ceil(SIDE) - 1;
        [2 * pair, (2 * pair + 1).min(last)].map(|i| self.x.interleaved(i, self.place.start, self.panel.len))
    }

    /// Adds the `pair`-th columns' sums to the results.
    #[inline(always)]
    fn add<I: Isa>(&mut self, isa: I, pair: usize, sums: &[[I::RowFloats; SIDE]; 2]) {
        for (column, &sum) in (2 * SIDE * pair..self.x.count()).zip(sums.as_flattened()) {
            self.place.add(isa, column, sum);
        }
    }

    /// Has the memory bring the `step`-th of `steps` parts of what the pair after `pair` needs: all at once would be more than
    /// the first-level cache has buffers for.
    #[inline(always)]
    fn fetch<I: Isa, const K: usize>(&mut self, isa: I, pair: usize, step: usize, steps: usize) {
        let first = 2 * SIDE * (pair + 1);
        if first >= self.x.count() {
            return;
        }
        let part = |len: usize| len * step / steps..len * (step + 1) / steps;
        for column in part(2 * SIDE) {
            if first + column < self.x.count() {
                self.place.fetch(isa, first + column);
            }
        }
        for x in self.columns::<K>(pair + 1) {
            for run in &x.codes[part(x.codes.len())] {
                for line in (0..size_of_val(run)).step_by(64) {
                    isa.prefetch(run.as_ptr().cast(), line);
                }
            }
        }
    }
}

/// Sums as the unit writes them, a row of them in a cache line.
#[repr(align(64))]
struct Lines<T>(T);

struct OfSuperblocks<'a, 'p, 'o, U>(U, Product<'a, 'p, 'o>);

impl<U: Superblocks> Task for OfSuperblocks<'_, '_, '_, U> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self(mut unit, mut product) = self;
        let Panel { kind, len, .. } = *product.panel;
        let (low, high) = product.panel.codes.split_at(len / 4);
        let (low, high) = (low.as_chunks::<64>().0, high.as_chunks::<64>().0);
        let mut sums: Lines<[[Sums; 2]; 2]> = Lines([[[[0; SIDE]; SIDE]; 2]; 2]);
        let mut values = [[[isa.splat_row_floats(0.0); SIDE]; 2]; SPAN / 256];
        let mut total = [[isa.splat_row_floats(0.0); SIDE]; 2];
        for pair in 0..product.x.count().div_ceil(2 * SIDE) {
            let x = product.columns::<64>(pair);
            for (block, values) in values.iter_mut().enumerate().take(len / 256) {
                product.fetch::<I, 64>(isa, pair, block, len / 256);
                let codes = [&x[0], &x[1]].map(|x| &x.codes.as_chunks::<4>().0[block]);
                unit.superblock(&low[block], &high[block], codes, &mut sums.0);
                match (kind.mins, kind.group) {
                    (false, _) => product.superblock::<I, 0>(isa, &x, block, &sums.0, values),
                    (true, 16) => product.superblock::<I, 8>(isa, &x, block, &sums.0, values),
                    (true, _) => product.superblock::<I, 4>(isa, &x, block, &sums.0, values),
                }
            }
            let [a, b, c, d] = &values;
            for f in 0..2 {
                for i in 0..SIDE {
                    total[f][i] = sum_of_superblocks(isa, [a[f][i], b[f][i], c[f][i], d[f][i]]);
                }
            }
            product.add(isa, pair, &total);
        }
    }
}

impl Product<'_, '_, '_> {
    /// The values of a superblock with `PAIRS` pairs of group minimums.
    #[inline(always)]
    fn superblock<I: Isa, const PAIRS: usize>(
        &self,
        isa: I,
        x: &[Interleaved<'_, SIDE, 64>; 2],
        block: usize,
        sums: &[[Sums; 2]; 2],
        values: &mut [[I::RowFloats; SIDE]; 2],
    ) {
        for f in 0..2 {
            let (scales, sums_of_x) = (&x[f].scales[block], &x[f].superblock_sums()[block]);
            let [low, high] = &sums[f];
            for c in 0..SIDE {
                let high = isa.shl_rows::<8>(isa.row_ints(&high[c]));
                let dot = isa.add_rows(isa.row_ints(&low[c]), high);
                let mins = match PAIRS {
                    0 => isa.splat_rows(0),
                    _ => group_mins::<I, PAIRS>(isa, self.panel, block, &sums_of_x[c]),
                };
                values[f][c] = superblock(isa, self.panel, block, dot, mins, scales[c]);
            }
        }
    }

    /// The sum of `N` parts, `first` and every eighth after it.
    #[inline(always)]
    fn parts<I: Isa, U: Parts, const N: usize>(
        &self,
        isa: I,
        unit: &mut U,
        x: &[Interleaved<'_, SIDE, 32>; 2],
        first: usize,
        sums: [&mut [Sums; 2]; N],
        values: &mut [[I::RowFloats; SIDE]; 2],
    ) {
        let Panel { kind, ref scales, ref mins, ref codes, .. } = *self.panel;
        let part = |i: usize| first + 8 * i;
        let mut row_scales = [isa.splat_row_floats(0.0); N];
        for i in 0..N {
            let codes = &codes.as_chunks::<8>().0[part(i)];
            unit.part(codes, [&x[0].codes[part(i)], &x[1].codes[part(i)]], sums[i]);
            row_scales[i] = isa.row_floats(&scales[part(i)]);
        }
        for f in 0..2 {
            let dx: [_; N] = core::array::from_fn(|i| &x[f].scales[part(i)]);
            // Where there are no minimums, what they would be multiplied with is not looked at.
            let row_mins: [_; N] =
                core::array::from_fn(|i| if kind.mins { &mins[part(i)] } else { &[0.0; ROWS] });
            let sums_of_x: [_; N] = core::array::from_fn(|i| &x[f].sums()[part(i)]);
            for c in 0..SIDE {
                let mut acc = isa.splat_row_floats(0.0);
                for i in 0..N {
                    let dot = isa.row_ints_to_floats(isa.row_ints(&sums[i][f][c]));
                    let scale = isa.mul_row_floats(row_scales[i], isa.splat_row_floats(dx[i][c]));
                    acc = isa.fma_row_floats(dot, scale, acc);
                    if kind.mins {
                        let sum = isa.splat_row_floats(dx[i][c] * sums_of_x[i][c] as f32);
                        acc = isa.fma_row_floats(isa.row_floats(row_mins[i]), sum, acc);
                    }
                }
                values[f][c] = acc;
            }
        }
    }
}

struct OfParts<'a, 'p, 'o, U>(U, Product<'a, 'p, 'o>);

impl<U: Parts> Task for OfParts<'_, '_, '_, U> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self(mut unit, mut product) = self;
        let parts = product.panel.len / 32;
        let mut sums: Lines<[[Sums; 2]; 4]> = Lines([[[[0; SIDE]; SIDE]; 2]; 4]);
        let mut values = [[[isa.splat_row_floats(0.0); SIDE]; 2]; 8];
        for pair in 0..product.x.count().div_ceil(2 * SIDE) {
            let x = product.columns::<32>(pair);
            // Every eighth part goes to the same accumulator, which so stays in a register.
            for (first, values) in values.iter_mut().enumerate() {
                product.fetch::<I, 32>(isa, pair, first, 8);
                match sums.0.split_at_mut((parts + 7 - first) / 8).0 {
                    [] => *values = [[isa.splat_row_floats(0.0); SIDE]; 2],
                    [a] => product.parts(isa, &mut unit, &x, first, [a], values),
                    [a, b] => product.parts(isa, &mut unit, &x, first, [a, b], values),
                    [a, b, c] => product.parts(isa, &mut unit, &x, first, [a, b, c], values),
                    [a, b, c, d, ..] => product.parts(isa, &mut unit, &x, first, [a, b, c, d], values),
                }
            }
            for (a, b) in PART_SUMS {
                for f in 0..2 {
                    for c in 0..SIDE {
                        values[a][f][c] = isa.add_row_floats(values[a][f][c], values[b][f][c]);
                    }
                }
            }
            product.add(isa, pair, &values[0]);
        }
    }
}
