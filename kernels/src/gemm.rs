//! Prefill: a panel of rows times many columns, with the bits that [`crate::gemv`] defines.
//!
//! For each panel of sixteen rows, and for each four columns:
//!
//! ```text
//! for each superblock (or block) of the row
//!     for each group of 32 (or 16) weights
//!         sums16 = 0                                      8 registers: 2 x 8 rows, 4 columns
//!         for each 4 weights: sums16 += codes * activations       1 multiply, 1 add for 32 products
//!         sums32 += sums16 * group scale                          1 multiply, 1 add for 256 products
//!     acc = fma(float(sums32), scale of the row * scale of the column, acc)
//! ```
//!
//! 1. Codes of four bits can be summed eight times in 16 bits, codes of five bits four times, of six bits twice
//!    (`Codes::sums_in_16_bits`); then they are widened, and the same instruction applies the group's scale.
//! 2. Offsets and minimums need no codes: they are products of scales with the activations' sums.
#![forbid(unsafe_code)]

use crate::activations::Columns;
use crate::dispatch::Task;
use crate::gemv::shl_by_offset;
use crate::output::Output;
use crate::quant::Codes;
use crate::simd::{Isa, Level};
use crate::tile::{FLOAT_ROWS, Kind, Panel, ROWS};

/// Registers of eight rows in a panel.
const VECTORS: usize = ROWS / 8;

/// A value for each row and for each of `C` columns.
type Tile<T, const C: usize> = [[T; VECTORS]; C];

/// Calls `$body` with `$c` a constant for groups of four columns, and then for what is left.
macro_rules! for_columns {
    ($count:expr, |$column:ident, $c:ident| $body:expr) => {{
        let mut $column = 0;
        while $column < $count {
            $column += match $count - $column {
                1 => {
                    const $c: usize = 1;
                    $body;
                    1
                }
                2 => {
                    const $c: usize = 2;
                    $body;
                    2
                }
                3 => {
                    const $c: usize = 3;
                    $body;
                    3
                }
                _ => {
                    const $c: usize = 4;
                    $body;
                    4
                }
            };
        }
    }};
}

/// How many products of codes fit in 16 bits, as a type: what the innermost loop is compiled for.
trait Range {
    const STEPS: usize;
    const SIGNED: bool = false;
}

struct Eight;
struct Four;
struct Two;
struct One;
struct Signed;

impl Range for Eight {
    const STEPS: usize = 8;
}
impl Range for Four {
    const STEPS: usize = 4;
}
impl Range for Two {
    const STEPS: usize = 2;
}
impl Range for One {
    const STEPS: usize = 1;
}
impl Range for Signed {
    const STEPS: usize = 1;
    const SIGNED: bool = true;
}

/// Multiplies `panel`, the rows `first .. first + count` of a matrix, with all columns.
pub(crate) fn multiply(
    level: Level,
    panel: &Panel<'_>,
    x: Columns<'_>,
    first: usize,
    count: usize,
    out: &mut Output<'_>,
) {
    let rows = (first, count);
    let Kind { codes, group, .. } = panel.kind;
    // A group's sum must not run into the next group, which has another scale.
    match codes.sums_in_16_bits().min(group / 4) {
        8 => level.run(Multiply { panel, x, rows, out, range: Eight }),
        4 => level.run(Multiply { panel, x, rows, out, range: Four }),
        2 => level.run(Multiply { panel, x, rows, out, range: Two }),
        _ if codes != Codes::Signed => level.run(Multiply { panel, x, rows, out, range: One }),
        _ => level.run(Multiply { panel, x, rows, out, range: Signed }),
    }
}

struct Multiply<'a, 'p, 'o, R> {
    panel: &'a Panel<'p>,
    x: Columns<'a>,
    /// The first row and the number of rows.
    rows: (usize, usize),
    out: &'a mut Output<'o>,
    #[allow(dead_code, reason = "a type, not a value")]
    range: R,
}

impl<R: Range> Task for Multiply<'_, '_, '_, R> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Multiply { panel, x, rows, out, .. } = self;
        for_columns!(x.count(), |column, C| {
            let tile = if panel.kind.superblocks {
                superblock_tile::<I, R, C>(isa, panel, x, column)
            } else {
                scaled_tile::<I, R, C>(isa, panel, x, column)
            };
            write(isa, &tile, rows, column, out);
        });
    }
}

#[inline(always)]
fn superblock_tile<I: Isa, R: Range, const C: usize>(
    isa: I,
    panel: &Panel<'_>,
    x: Columns<'_>,
    column: usize,
) -> Tile<I::Floats, C> {
    let Kind { offset, mins: has_mins, .. } = panel.kind;
    let codes: [_; C] = core::array::from_fn(|c| x.codes(column + c).as_flattened().as_chunks::<4>().0);
    let sums: [_; C] = core::array::from_fn(|c| x.short_sums(column + c));
    let scales: [_; C] = core::array::from_fn(|c| x.scales(column + c));
    let mut acc = [[isa.splat(0.0); VECTORS]; C];
    for block in 0..x.len() / 256 {
        let mut dots = [[isa.zero_ints(); VECTORS]; C];
        let mut mins = [[isa.zero_ints(); VECTORS]; C];
        for chunk in 0..64 / R::STEPS {
            let quad = 64 * block + chunk * R::STEPS;
            let group_scales = panel.group_scales[quad / 4].as_flattened().as_chunks::<16>().0;
            let sums16 = products::<I, R, C>(isa, panel, &codes, quad);
            for (dots, sums16) in dots.iter_mut().zip(&sums16) {
                for ((dot, &sums16), scales) in dots.iter_mut().zip(sums16).zip(group_scales) {
                    *dot = isa.add_ints(*dot, isa.dot_shorts(sums16, isa.shorts(scales)));
                }
            }
        }
        if has_mins || offset != 0 {
            for pair in 0..8 {
                let group_mins = &panel.group_mins[8 * block + pair].as_flattened().as_chunks::<16>().0;
                for (mins, sums) in mins.iter_mut().zip(&sums) {
                    let sums = isa.splat_pair([sums[block][pair], sums[block][8 + pair]]);
                    for (min, group_min) in mins.iter_mut().zip(group_mins.iter()) {
                        *min = isa.add_ints(*min, isa.dot_shorts(isa.shorts(group_min), sums));
                    }
                }
            }
        }
        let row_scales = &panel.scales[block].as_chunks::<8>().0;
        let row_mins = &panel.mins[block].as_chunks::<8>().0;
        for c in 0..C {
            let dx = isa.splat(scales[c][block]);
            for v in 0..VECTORS {
                let (mut dot, min) = (dots[c][v], mins[c][v]);
                if offset != 0 {
                    dot = isa.sub_ints(dot, min);
                }
                acc[c][v] = isa.fma(isa.to_floats(dot), isa.mul(isa.floats(&row_scales[v]), dx), acc[c][v]);
                if has_mins {
                    let scale = isa.mul(isa.floats(&row_mins[v]), dx);
                    acc[c][v] = isa.fma(isa.to_floats(min), isa.mul(scale, isa.splat(-1.0)), acc[c][v]);
                }
            }
        }
    }
    acc
}

#[inline(always)]
fn scaled_tile<I: Isa, R: Range, const C: usize>(
    isa: I,
    panel: &Panel<'_>,
    x: Columns<'_>,
    column: usize,
) -> Tile<I::Floats, C> {
    let Kind { offset, mins: has_mins, .. } = panel.kind;
    let codes: [_; C] = core::array::from_fn(|c| x.codes(column + c).as_flattened().as_chunks::<4>().0);
    let sums: [_; C] = core::array::from_fn(|c| x.sums(column + c));
    let scales: [_; C] = core::array::from_fn(|c| x.scales(column + c));
    // One tile for each of the row's eight accumulators; they live in the first-level cache.
    let mut parts = [[[isa.splat(0.0); VECTORS]; C]; 8];
    for part in 0..x.len() / 32 {
        let mut dots = [[isa.zero_ints(); VECTORS]; C];
        for chunk in 0..8 / R::STEPS {
            let sums16 = products::<I, R, C>(isa, panel, &codes, 8 * part + chunk * R::STEPS);
            for (dots, sums16) in dots.iter_mut().zip(&sums16) {
                for (dot, &sums16) in dots.iter_mut().zip(sums16) {
                    *dot = isa.add_ints(*dot, isa.sum_pairs(sums16));
                }
            }
        }
        let acc = &mut parts[part % 8];
        let row_scales = &panel.scales[part].as_chunks::<8>().0;
        let row_mins = &panel.mins[part].as_chunks::<8>().0;
        for c in 0..C {
            let dx = isa.splat(scales[c][part]);
            let sum = isa.splat_int(sums[c][part]);
            for v in 0..VECTORS {
                let mut dot = dots[c][v];
                if offset != 0 {
                    dot = isa.sub_ints(dot, shl_by_offset(isa, sum, offset));
                }
                acc[c][v] = isa.fma(isa.to_floats(dot), isa.mul(isa.floats(&row_scales[v]), dx), acc[c][v]);
                if has_mins {
                    let sum = isa.mul(dx, isa.to_floats(sum));
                    acc[c][v] = isa.fma(isa.floats(&row_mins[v]), sum, acc[c][v]);
                }
            }
        }
    }
    let mut tile = [[isa.splat(0.0); VECTORS]; C];
    for c in 0..C {
        for v in 0..VECTORS {
            let p = parts.each_ref().map(|part| part[c][v]);
            let even = isa.add(isa.add(p[0], p[4]), isa.add(p[2], p[6]));
            let odd = isa.add(isa.add(p[1], p[5]), isa.add(p[3], p[7]));
            tile[c][v] = isa.add(even, odd);
        }
    }
    tile
}

/// The microkernel: four weights of sixteen rows times `C` columns, as often as 16 bits hold, from quad `first` on.
#[inline(always)]
fn products<I: Isa, R: Range, const C: usize>(
    isa: I,
    panel: &Panel<'_>,
    x: &[&[[i8; 4]]; C],
    first: usize,
) -> Tile<I::Shorts, C> {
    let mut sums16 = [[isa.zero_shorts(); VECTORS]; C];
    for quad in first..first + R::STEPS {
        let w = panel.codes[quad].as_flattened().as_chunks::<32>().0;
        for (sums16, x) in sums16.iter_mut().zip(x) {
            let x = isa.splat_quad(x[quad]);
            for (sum, w) in sums16.iter_mut().zip(w) {
                let w = isa.bytes(w);
                let pairs = if R::SIGNED { isa.pairs_signed(w, x) } else { isa.pairs_unsigned(w, x) };
                *sum = isa.add_shorts(*sum, pairs);
            }
        }
    }
    sums16
}

#[inline(always)]
fn write<I: Isa, const C: usize>(
    isa: I,
    tile: &Tile<I::Floats, C>,
    (first, count): (usize, usize),
    column: usize,
    out: &mut Output<'_>,
) {
    for (c, vectors) in tile.iter().enumerate() {
        let mut rows = [[0.0; 8]; VECTORS];
        for (rows, &vector) in rows.iter_mut().zip(vectors) {
            isa.store(vector, rows);
        }
        out.column(column + c)[first..first + count].copy_from_slice(&rows.as_flattened()[..count]);
    }
}

/// Multiplies rows of floats, `padded` long (at most [`FLOAT_ROWS`] of them, from row `first` of a matrix on), with all
/// columns.
pub(crate) fn multiply_floats(
    level: Level,
    panel: &[f32],
    padded: usize,
    x: Columns<'_>,
    first: usize,
    out: &mut Output<'_>,
) {
    debug_assert!(panel.len() <= FLOAT_ROWS * padded);
    level.run(MultiplyFloats { panel, padded, x, first, out });
}

struct MultiplyFloats<'a, 'o> {
    panel: &'a [f32],
    padded: usize,
    x: Columns<'a>,
    first: usize,
    out: &'a mut Output<'o>,
}

impl Task for MultiplyFloats<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let MultiplyFloats { panel, padded, x, first, out } = self;
        for_columns!(x.count(), |column, C| {
            for (three, panel) in (first..).step_by(3).zip(panel.chunks(3 * padded)) {
                match panel.len() / padded {
                    3 => float_tile::<I, 3, C>(isa, panel, padded, x, column, three, out),
                    2 => float_tile::<I, 2, C>(isa, panel, padded, x, column, three, out),
                    _ => float_tile::<I, 1, C>(isa, panel, padded, x, column, three, out),
                }
            }
        });
    }
}

/// `R` rows times `C` columns: one of the four registers of a row's accumulators at a time, so that all fit.
#[inline(always)]
fn float_tile<I: Isa, const R: usize, const C: usize>(
    isa: I,
    panel: &[f32],
    padded: usize,
    x: Columns<'_>,
    column: usize,
    row: usize,
    out: &mut Output<'_>,
) {
    let w: [_; R] = core::array::from_fn(|r| panel[r * padded..][..padded].as_chunks::<32>().0);
    let x: [_; C] = core::array::from_fn(|c| x.float_column(column + c));
    let (whole, left) = (x[0].len() / 32, x[0].len() % 32);
    let mut last = [[0.0; 32]; C];
    for (last, x) in last.iter_mut().zip(x) {
        last[..left].copy_from_slice(&x[32 * whole..]);
    }
    let mut sums = [[[isa.splat(0.0); C]; R]; 4];
    for (vector, sums) in sums.iter_mut().enumerate() {
        let x = x.map(|x| x.as_chunks::<32>().0);
        let mut acc = *sums;
        for chunk in 0..whole {
            let mut vectors = [isa.splat(0.0); C];
            for (vector_of, x) in vectors.iter_mut().zip(&x) {
                *vector_of = isa.floats(&x[chunk].as_chunks::<8>().0[vector]);
            }
            for (acc, w) in acc.iter_mut().zip(&w) {
                let w = isa.floats(&w[chunk].as_chunks::<8>().0[vector]);
                for (acc, &x) in acc.iter_mut().zip(&vectors) {
                    *acc = isa.fma(w, x, *acc);
                }
            }
        }
        if left != 0 {
            for (acc, w) in acc.iter_mut().zip(&w) {
                let w = isa.floats(&w[whole].as_chunks::<8>().0[vector]);
                for (acc, last) in acc.iter_mut().zip(&last) {
                    *acc = isa.fma(w, isa.floats(&last.as_chunks::<8>().0[vector]), *acc);
                }
            }
        }
        *sums = acc;
    }
    let [a, b, c, d] = sums;
    for r in 0..R {
        for column_of in 0..C {
            let even = isa.add(a[r][column_of], c[r][column_of]);
            let odd = isa.add(b[r][column_of], d[r][column_of]);
            out.column(column + column_of)[row + r] = isa.sum(isa.add(even, odd));
        }
    }
}
