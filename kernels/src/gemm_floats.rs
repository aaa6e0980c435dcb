//! Prefill of weights that are floats, or become floats: a panel of rows times many columns, with the bits that
//! [`crate::gemv`] defines.
//!
//! Its sums lie side by side in a register (32 of them belong to each row and column), so that both factors are loads. Four rows
//! times six columns, or three where registers are few, need fewest of those for each multiplication and still keep all sums in
//! registers. Some columns stay in the first-level cache while all rows of the panel pass by from the second.
#![forbid(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "loops over registers, compiled for constants")]

use crate::activations::Columns;
use crate::dispatch::Task;
use crate::gemv::SPAN;
use crate::output::Output;
use crate::simd::{Isa, Level};
use crate::tile::{FLOAT_COLUMNS, FLOAT_ROWS};

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

/// Multiplies a span of up to [`FLOAT_ROWS`] rows of floats, each followed by zeros up to `padded` floats ([`crate::tile::padded_len`]),
/// with all columns; `room` is for [`FLOAT_COLUMNS`] columns of as many.
pub(crate) fn multiply(
    level: Level,
    panel: &[f32],
    room: &mut [f32],
    padded: usize,
    x: Columns<'_>,
    place: Place,
    out: &mut Output<'_>,
) {
    debug_assert!(panel.len() <= FLOAT_ROWS * padded && room.len() == FLOAT_COLUMNS * padded);
    level.run(Multiply { panel, room, padded, x, place, out });
}

struct Multiply<'a, 'o> {
    panel: &'a [f32],
    room: &'a mut [f32],
    padded: usize,
    x: Columns<'a>,
    place: Place,
    out: &'a mut Output<'o>,
}

/// How the 32 accumulators of a product of floats lie in registers.
trait Registers {
    /// How many registers they take.
    const PARTS: usize;
    type Register<I: Isa>: Copy;

    fn zero<I: Isa>(isa: I) -> Self::Register<I>;
    fn load<I: Isa>(isa: I, from: &[f32; 32], part: usize) -> Self::Register<I>;
    /// `a * b + c`
    fn fma<I: Isa>(
        isa: I,
        a: Self::Register<I>,
        b: Self::Register<I>,
        c: Self::Register<I>,
    ) -> Self::Register<I>;
    /// Adds up the accumulators by eights, in order: the first sixteen's in `halves[0]`, the last's in `halves[1]`.
    fn add_up<I: Isa>(isa: I, acc: Self::Register<I>, part: usize, halves: &mut [I::Floats; 2]);
}

/// Eight in each, where registers are few or short.
struct Eights;

impl Registers for Eights {
    const PARTS: usize = 4;
    type Register<I: Isa> = I::Floats;

    #[inline(always)]
    fn zero<I: Isa>(isa: I) -> I::Floats {
        isa.splat(0.0)
    }

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[f32; 32], part: usize) -> I::Floats {
        isa.floats(&from.as_chunks().0[part])
    }

    #[inline(always)]
    fn fma<I: Isa>(isa: I, a: I::Floats, b: I::Floats, c: I::Floats) -> I::Floats {
        isa.fma(a, b, c)
    }

    #[inline(always)]
    fn add_up<I: Isa>(isa: I, acc: I::Floats, part: usize, halves: &mut [I::Floats; 2]) {
        let half = &mut halves[part / 2];
        *half = if part.is_multiple_of(2) { acc } else { isa.add(*half, acc) };
    }
}

/// Sixteen in each.
struct Sixteens;

impl Registers for Sixteens {
    const PARTS: usize = 2;
    type Register<I: Isa> = I::RowFloats;

    #[inline(always)]
    fn zero<I: Isa>(isa: I) -> I::RowFloats {
        isa.splat_row_floats(0.0)
    }

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[f32; 32], part: usize) -> I::RowFloats {
        isa.row_floats(&from.as_chunks().0[part])
    }

    #[inline(always)]
    fn fma<I: Isa>(isa: I, a: I::RowFloats, b: I::RowFloats, c: I::RowFloats) -> I::RowFloats {
        isa.fma_row_floats(a, b, c)
    }

    #[inline(always)]
    fn add_up<I: Isa>(isa: I, acc: I::RowFloats, part: usize, halves: &mut [I::Floats; 2]) {
        halves[part] = isa.fold_row_floats(acc);
    }
}

impl Task for Multiply<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let count = self.x.count();
        let mut column = 0;
        while column < count {
            column += match count - column {
                6.. if I::COLUMNS == 8 => self.columns::<I, Sixteens, 6>(isa, column),
                4.. if I::COLUMNS == 8 => self.columns::<I, Sixteens, 4>(isa, column),
                3.. => self.columns::<I, Eights, 3>(isa, column),
                2 => self.columns::<I, Eights, 2>(isa, column),
                _ => self.columns::<I, Eights, 1>(isa, column),
            };
        }
    }
}

impl Multiply<'_, '_> {
    /// Multiplies with `C` columns from `first` on, which stay in the first-level cache meanwhile; gives `C`.
    #[inline(always)]
    fn columns<I: Isa, W: Registers, const C: usize>(&mut self, isa: I, first: usize) -> usize {
        // Side by side, each padded with zeros: where they come from they are pages apart, and begin within cache lines.
        for (column, room) in self.room.chunks_exact_mut(self.padded).enumerate().take(C) {
            let x = &self.x.float_column(first + column)[self.place.start..];
            let (room, padding) = room.split_at_mut(x.len().min(SPAN));
            room.copy_from_slice(&x[..room.len()]);
            padding.fill(0.0);
        }
        let rows = self.place.rows;
        let mut row = 0;
        while row < rows {
            row += match rows - row {
                4.. => self.tile::<I, W, 4, C>(isa, row, first),
                2.. => self.tile::<I, W, 2, C>(isa, row, first),
                _ => self.tile::<I, W, 1, C>(isa, row, first),
            };
        }
        C
    }

    /// `R` rows from `row` on times `C` columns, of the 32 accumulators as many at a time as a register holds; gives `R`.
    #[inline(always)]
    fn tile<I: Isa, W: Registers, const R: usize, const C: usize>(
        &mut self,
        isa: I,
        row: usize,
        first: usize,
    ) -> usize {
        const { assert!(R * C <= 24) };
        let mut w: [&[[f32; 32]]; R] = [&[]; R];
        let mut x: [&[[f32; 32]]; C] = [&[]; C];
        for r in 0..R {
            w[r] = self.panel[(row + r) * self.padded..][..self.padded].as_chunks().0;
        }
        for c in 0..C {
            x[c] = self.room[c * self.padded..][..self.padded].as_chunks().0;
            isa.prefetch(self.out.column(first + c)[self.place.row + row..].as_ptr().cast(), 0);
        }
        let len = w[0].len();
        let w: [_; R] = core::array::from_fn(|r| &w[r][..len]);
        let x: [_; C] = core::array::from_fn(|c| &x[c][..len]);
        // By eights of `[C][R]`, the sums of the first sixteen accumulators and of the last.
        let mut halves = [[[isa.splat(0.0); 2]; 8]; 3];
        for part in 0..W::PARTS {
            let mut acc = [[W::zero(isa); C]; R];
            // Where two parts share a cache line, the first of them would wait for all of both: so what the part after this one,
            // or the next tile, reads of each row is asked for meanwhile.
            let next = if part + 1 == W::PARTS { R * self.padded } else { 8 * (part + 1) };
            let ahead = size_of::<f32>() * (next - 8 * part);
            for i in 0..len {
                if W::PARTS == 4 {
                    for r in 0..R {
                        isa.prefetch(w[r][i][8 * part..].as_ptr().cast(), ahead);
                    }
                }
                let mut columns = [W::zero(isa); C];
                for c in 0..C {
                    columns[c] = W::load(isa, &x[c][i], part);
                }
                for r in 0..R {
                    let w = W::load(isa, &w[r][i], part);
                    for c in 0..C {
                        acc[r][c] = W::fma(isa, w, columns[c], acc[r][c]);
                    }
                }
            }
            let halves = halves.as_flattened_mut();
            for r in 0..R {
                for c in 0..C {
                    W::add_up(isa, acc[r][c], part, &mut halves[c * R + r]);
                }
            }
        }
        let mut sums = [[0.0; 8]; 3];
        for (sums, halves) in sums.iter_mut().zip(&halves).take((R * C).div_ceil(8)) {
            let mut eight = [isa.splat(0.0); 8];
            for (sum, &[first, last]) in eight.iter_mut().zip(halves) {
                *sum = isa.add(first, last);
            }
            isa.store(isa.sum_each_floats(&eight), sums);
        }
        for (c, sums) in sums.as_flattened().chunks_exact(R).enumerate().take(C) {
            for (out, sum) in self.out.column(first + c)[self.place.row + row..].iter_mut().zip(sums) {
                *out = if self.place.start == 0 { 0.0 + sum } else { *out + sum };
            }
        }
        R
    }
}
