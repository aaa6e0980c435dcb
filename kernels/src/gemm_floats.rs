//! Prefill of weights that are floats, or become floats: a panel of rows times many columns, with the bits that
//! [`crate::gemv`] defines.
//!
//! Its sums lie side by side in registers (32 of them belong to each row and column), so that both factors are loads. Four rows
//! times three columns, or six where registers are many, need fewest of those for each multiplication and still keep their
//! sums in registers. To make these loads cheap, rows and columns are dealt out to planes, one for each register's part of the 32 sums:
//! of one plane, some columns and the rows that meet them fit the first-level cache together, and all rows of the panel
//! pass by from the second once for all these columns.
#![forbid(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "loops over registers, compiled for constants")]

use crate::activations::Columns;
use crate::dispatch::Task;
use crate::gemv::SPAN;
use crate::output::Output;
use crate::quant::Block;
use crate::simd::{Isa, Level};

/// Rows of a panel: so many that reading the columns anew for each panel does not bind, so few that they stay in the
/// second-level cache.
pub(crate) const ROWS: usize = 64;
/// The most columns that meet a panel together.
const COLUMNS: usize = 12;

/// Floats of memory for a panel and for sums beside it.
pub(crate) const SCRATCH_LEN: usize = ROWS * SPAN + 16 * ROWS * COLUMNS;

/// A span of a product: the weights of a panel, and where their products go.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The first row of the panel in the window.
    pub row: usize,
    /// The rows of the panel that the window has, at most [`ROWS`].
    pub rows: usize,
    /// The first weight of the span in the rows; where it is not 0, the window holds the sums so far.
    pub start: usize,
    /// Weights of the span in each row, at most [`SPAN`].
    pub len: usize,
}

/// Multiplies a span of some rows, of `row_blocks` blocks each, with all columns of `x`; `scratch` is of [`SCRATCH_LEN`] floats.
pub(crate) fn multiply<B: Block>(
    level: Level,
    (rows, row_blocks): (&[B], usize),
    place: Place,
    scratch: &mut [f32],
    x: Columns<'_>,
    out: &mut Output<'_>,
) {
    let (panel, sums) = scratch.split_at_mut(ROWS * SPAN);
    level.run(Unpack { rows, row_blocks, place, panel: &mut *panel });
    let sums = sums.as_chunks_mut().0.split_at_mut(ROWS * COLUMNS);
    let x = Dealt { planes: x.all_floats(), len: x.len(), count: x.count() };
    level.run(Multiply { panel, sums, x, place, out });
}

/// How the 32 accumulators of a product of floats lie in registers.
trait Registers: Copy {
    /// Those of a register: floats of a plane.
    type Part: bytemuck::Pod;
    type Register<I: Isa>: Copy;
    /// How many registers they take.
    const PARTS: usize = 32 * size_of::<f32>() / size_of::<Self::Part>();
    /// Columns of a tile.
    const TILE: usize;
    /// Columns whose parts stay in the first-level cache while all rows pass by.
    const TOGETHER: usize;

    /// How many of the `rows` rows behind its own a tile asks for, so that all have been asked for when the columns are through.
    fn behind(rows: usize) -> usize {
        (rows * Self::TILE).div_ceil(Self::TOGETHER)
    }
    fn zero<I: Isa>(isa: I) -> Self::Register<I>;
    fn load<I: Isa>(isa: I, from: &Self::Part) -> Self::Register<I>;
    /// `a * b + c`
    fn fma<I: Isa>(
        isa: I,
        a: Self::Register<I>,
        b: Self::Register<I>,
        c: Self::Register<I>,
    ) -> Self::Register<I>;
    /// Adds up a register by eights.
    fn add_up<I: Isa>(isa: I, acc: Self::Register<I>) -> I::Floats;
}

/// Eight in each, where registers are few or short.
#[derive(Clone, Copy)]
struct Eights;

impl Registers for Eights {
    type Part = [f32; 8];
    type Register<I: Isa> = I::Floats;
    const TILE: usize = 3;
    const TOGETHER: usize = COLUMNS;

    #[inline(always)]
    fn zero<I: Isa>(isa: I) -> I::Floats {
        isa.splat(0.0)
    }

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[f32; 8]) -> I::Floats {
        isa.floats(from)
    }

    #[inline(always)]
    fn fma<I: Isa>(isa: I, a: I::Floats, b: I::Floats, c: I::Floats) -> I::Floats {
        isa.fma(a, b, c)
    }

    #[inline(always)]
    fn add_up<I: Isa>(_: I, acc: I::Floats) -> I::Floats {
        acc
    }
}

/// Sixteen in each.
#[derive(Clone, Copy)]
struct Sixteens;

impl Registers for Sixteens {
    type Part = [f32; 16];
    type Register<I: Isa> = I::RowFloats;
    const TILE: usize = 6;
    const TOGETHER: usize = 6;

    #[inline(always)]
    fn zero<I: Isa>(isa: I) -> I::RowFloats {
        isa.splat_row_floats(0.0)
    }

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[f32; 16]) -> I::RowFloats {
        isa.row_floats(from)
    }

    #[inline(always)]
    fn fma<I: Isa>(isa: I, a: I::RowFloats, b: I::RowFloats, c: I::RowFloats) -> I::RowFloats {
        isa.fma_row_floats(a, b, c)
    }

    #[inline(always)]
    fn add_up<I: Isa>(isa: I, acc: I::RowFloats) -> I::Floats {
        isa.fold_row_floats(acc)
    }
}

/// Where rows or columns, `lines` of them, are dealt out to, by 32 floats.
struct Planes<'a, W: Registers> {
    /// `[part][line][step]`
    parts: &'a mut [W::Part],
    lines: usize,
    steps: usize,
}

impl<'a, W: Registers> Planes<'a, W> {
    /// For `lines` lines of `len` floats.
    fn new(memory: &'a mut [f32], lines: usize, len: usize) -> Self {
        Planes { parts: bytemuck::cast_slice_mut(memory), lines, steps: len.div_ceil(32) }
    }

    #[inline(always)]
    fn put(&mut self, line: usize, step: usize, floats: &[f32; 32]) {
        let floats = bytemuck::cast_slice(floats);
        for part in 0..W::PARTS {
            self.parts[(part * self.lines + line) * self.steps + step] = floats[part];
        }
    }
}

/// Columns that meet a panel together, on `level`.
pub(crate) fn together(level: Level) -> usize {
    struct Together;

    impl Task for Together {
        type Output = usize;

        #[inline(always)]
        fn run<I: Isa>(self, _: I) -> usize {
            if I::COLUMNS == 8 { Sixteens::TOGETHER } else { Eights::TOGETHER }
        }
    }
    level.run(Together)
}

/// Deals up to [`together`] columns of `len` floats out to planes, span by span, as [`multiply`] takes them.
#[inline(always)]
pub(crate) fn deal_columns<I: Isa>(x: &[f32], len: usize, planes: &mut [f32]) {
    if I::COLUMNS == 8 {
        deal_spans::<Sixteens>(x, len, planes)
    } else {
        deal_spans::<Eights>(x, len, planes)
    }
}

#[inline(always)]
fn deal_spans<W: Registers>(x: &[f32], len: usize, planes: &mut [f32]) {
    for (column, x) in x.chunks_exact(len).enumerate() {
        for (x, planes) in x.chunks(SPAN).zip(planes.chunks_mut(W::TOGETHER * SPAN)) {
            let mut planes = Planes::<W>::new(planes, W::TOGETHER, x.len());
            let (steps, rest) = x.as_chunks();
            for (step, floats) in steps.iter().enumerate() {
                planes.put(column, step, floats);
            }
            if !rest.is_empty() {
                let mut floats = [0.0; 32];
                floats[..rest.len()].copy_from_slice(rest);
                planes.put(column, steps.len(), &floats);
            }
        }
    }
}

/// Columns that [`deal_columns`] dealt out.
#[derive(Clone, Copy)]
struct Dealt<'a> {
    /// `[column / together][span][part][column % together][step]`
    planes: &'a [f32],
    len: usize,
    count: usize,
}

impl<'a> Dealt<'a> {
    /// The planes of the columns that meet a panel together from column `first` on: a span of `len` floats from `start` on. None behind
    /// the last column.
    fn span<W: Registers>(&self, first: usize, start: usize, len: usize) -> &'a [f32] {
        let columns =
            self.planes.chunks_exact(W::TOGETHER * self.len.next_multiple_of(32)).nth(first / W::TOGETHER);
        let span = |columns: &'a [f32]| {
            columns.get(W::TOGETHER * start..)?.get(..W::TOGETHER * len.next_multiple_of(32))
        };
        columns.and_then(span).unwrap_or_default()
    }
}

/// Unpacks rows of any format as floats into the planes of a panel.
struct Unpack<'a, B> {
    rows: &'a [B],
    row_blocks: usize,
    place: Place,
    panel: &'a mut [f32],
}

impl<B: Block> Task for Unpack<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        if I::COLUMNS == 8 { self.unpack::<I, Sixteens>(isa) } else { self.unpack::<I, Eights>(isa) }
    }
}

impl<B: Block> Unpack<'_, B> {
    #[inline(always)]
    fn unpack<I: Isa, W: Registers>(self, isa: I) {
        let Place { rows, start, len, .. } = self.place;
        let span = |row: usize| self.rows.get(row * self.row_blocks + start / B::LEN..)?.get(..len / B::LEN);
        let mut planes = Planes::<W>::new(self.panel, rows, len);
        let mut floats = [0.0; 256];
        for row in 0..rows {
            // Rows are too short for the processor to see the next one coming.
            if let Some(next) = span(row + 1) {
                for line in (0..size_of_val(next)).step_by(64) {
                    isa.prefetch(next.as_ptr().cast(), line);
                }
            }
            // By 32 floats, which stay in registers; or by blocks, where these are longer.
            let mut blocks = span(row).unwrap_or_default().chunks_exact(B::LEN.max(32) / B::LEN);
            let mut step = 0;
            for blocks in &mut blocks {
                let floats = &mut floats[..B::LEN.max(32)];
                B::unpack(isa, blocks, floats);
                for floats in floats.as_chunks().0 {
                    planes.put(row, step, floats);
                    step += 1;
                }
            }
            let blocks = blocks.remainder();
            if !blocks.is_empty() {
                let mut floats = [0.0; 32];
                B::unpack(isa, blocks, &mut floats[..blocks.len() * B::LEN]);
                planes.put(row, step, &floats);
            }
        }
    }
}

struct Multiply<'a, 'o> {
    panel: &'a [f32],
    /// The 32 sums of each row and column so far, by eights, tile by tile: of the first sixteen, of the last.
    sums: (&'a mut [[f32; 8]], &'a mut [[f32; 8]]),
    x: Dealt<'a>,
    place: Place,
    out: &'a mut Output<'o>,
}

/// What a tile is part of: plane `part` of `count` columns from `first` on.
#[derive(Clone, Copy)]
struct Pass<'a, W: Registers> {
    part: usize,
    first: usize,
    count: usize,
    /// `[column][step]`
    columns: &'a [W::Part],
}

impl Task for Multiply<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        if I::COLUMNS == 8 { self.multiply::<I, Sixteens>(isa) } else { self.multiply::<I, Eights>(isa) }
    }
}

impl Multiply<'_, '_> {
    #[inline(always)]
    fn multiply<I: Isa, W: Registers>(mut self, isa: I) {
        let Place { rows, start, len, .. } = self.place;
        for first in (0..self.x.count).step_by(W::TOGETHER) {
            let planes = self.x.span::<W>(first, start, len);
            let next_planes = self.x.span::<W>(first + W::TOGETHER, start, len);
            let plane = planes.len() / W::PARTS;
            for part in 0..W::PARTS {
                let (columns, next) = planes[part * plane..].split_at(plane);
                let next = if next.is_empty() { next_planes } else { next };
                let count = W::TOGETHER.min(self.x.count - first);
                let pass = Pass { part, first, count, columns: bytemuck::cast_slice(columns) };
                let mut row = 0;
                while row < rows {
                    let above = row;
                    row += match rows - row {
                        4.. => self.rows::<I, W, 4>(isa, pass, row),
                        2.. => self.rows::<I, W, 2>(isa, pass, row),
                        _ => self.rows::<I, W, 1>(isa, pass, row),
                    };
                    // These rows' share of the columns that come next: the processor does not see them coming in time.
                    let share =
                        size_of::<f32>() * plane * above / rows..size_of::<f32>() * plane * row / rows;
                    for line in share.step_by(64) {
                        isa.prefetch(next.as_ptr().cast(), line);
                    }
                }
            }
        }
    }

    /// Multiplies `R` rows from `row` on; gives `R`.
    #[inline(always)]
    fn rows<I: Isa, W: Registers, const R: usize>(&mut self, isa: I, pass: Pass<'_, W>, row: usize) -> usize {
        let mut column = 0;
        while column < pass.count {
            column += match pass.count - column {
                6.. if W::TILE == 6 => self.tile::<I, W, R, 6>(isa, pass, row, column),
                3.. => self.tile::<I, W, R, 3>(isa, pass, row, column),
                2 => self.tile::<I, W, R, 2>(isa, pass, row, column),
                _ => self.tile::<I, W, R, 1>(isa, pass, row, column),
            };
        }
        R
    }

    /// Multiplies `R` rows from `row` on with `C` columns from `column` on; gives `C`.
    #[inline(always)]
    fn tile<I: Isa, W: Registers, const R: usize, const C: usize>(
        &mut self,
        isa: I,
        pass: Pass<'_, W>,
        row: usize,
        column: usize,
    ) -> usize {
        const { assert!(R * C <= 24) };
        let Pass { part, first, columns, .. } = pass;
        let steps = self.place.len.div_ceil(32);
        let panel: &[W::Part] = bytemuck::cast_slice(self.panel);
        let w = &panel[(part * self.place.rows + row) * steps..][..R * steps];
        let x = &columns[column * steps..][..C * steps];
        let w: [_; R] = core::array::from_fn(|r| &w[r * steps..][..steps]);
        let x: [_; C] = core::array::from_fn(|c| &x[c * steps..][..steps]);
        let behind = (R + column / W::TILE * W::behind(R)) * steps * size_of::<W::Part>();
        let mut acc = [[W::zero(isa); C]; R];
        for step in 0..steps {
            for r in 0..W::behind(R) {
                isa.prefetch((&raw const w[r][step]).cast(), behind);
            }
            let mut columns = [W::zero(isa); C];
            for c in 0..C {
                columns[c] = W::load(isa, &x[c][step]);
            }
            for r in 0..R {
                let w = W::load(isa, &w[r][step]);
                for c in 0..C {
                    acc[r][c] = W::fma(isa, w, columns[c], acc[r][c]);
                }
            }
        }
        // `[C][R]`
        let (first_half, second_half) = &mut self.sums;
        let tile = row * COLUMNS + column * R..row * COLUMNS + (column + C) * R;
        let (first_half, second_half) = (&mut first_half[tile.clone()], &mut second_half[tile]);
        let sums = if part < W::PARTS / 2 { &mut *first_half } else { &mut *second_half };
        if part % (W::PARTS / 2) == 0 {
            for c in 0..C {
                for r in 0..R {
                    isa.store(W::add_up(isa, acc[r][c]), &mut sums[c * R + r]);
                }
            }
        } else {
            for c in 0..C {
                for r in 0..R {
                    let sum = &mut sums[c * R + r];
                    isa.store(isa.add(isa.floats(sum), W::add_up(isa, acc[r][c])), sum);
                }
            }
        }
        if part + 1 == W::PARTS {
            let mut totals = [[0.0; 8]; 3];
            for ((totals, a), b) in totals.iter_mut().zip(first_half.chunks(8)).zip(second_half.chunks(8)) {
                let mut eight = [isa.splat(0.0); 8];
                for (eight, (a, b)) in eight.iter_mut().zip(a.iter().zip(b)) {
                    *eight = isa.add(isa.floats(a), isa.floats(b));
                }
                isa.store(isa.sum_each_floats(&eight), totals);
            }
            for (c, totals) in totals.as_flattened().as_chunks::<R>().0.iter().enumerate().take(C) {
                let out = self.out.column(first + column + c)[self.place.row + row..].first_chunk_mut::<R>();
                for (out, total) in out.into_iter().flatten().zip(totals) {
                    *out = if self.place.start == 0 { 0.0 + total } else { *out + total };
                }
            }
        }
        C
    }
}

#[cfg(test)]
mod tests {
    use core::marker::PhantomData;

    use super::*;
    use crate::activations::{Form, Layout, Room, quantize};
    use crate::product;
    use crate::quant::{F32, GgmlType};

    /// The product by panels with registers `W`, whatever the level would choose.
    struct Product<'a, W> {
        weights: &'a [f32],
        x: &'a [f32],
        len: usize,
        registers: PhantomData<W>,
    }

    impl<W: Registers> Task for Product<'_, W> {
        type Output = Vec<f32>;

        fn run<I: Isa>(self, isa: I) -> Vec<f32> {
            let Product { weights, x, len, .. } = self;
            let (rows, count) = (weights.len() / len, x.len() / len);
            let mut planes = vec![f32::NAN; (count.next_multiple_of(W::TOGETHER)) * len.next_multiple_of(32)];
            for (x, planes) in x
                .chunks(W::TOGETHER * len)
                .zip(planes.chunks_exact_mut(W::TOGETHER * len.next_multiple_of(32)))
            {
                deal_spans::<W>(x, len, planes);
            }
            let x = Dealt { planes: &planes, len, count };
            let (mut scratch, mut out) = (vec![f32::NAN; SCRATCH_LEN], vec![f32::NAN; rows * count]);
            for start in (0..len).step_by(SPAN) {
                let place = Place { row: 0, rows, start, len: SPAN.min(len - start) };
                let (panel, sums) = scratch.split_at_mut(ROWS * SPAN);
                Unpack { rows: bytemuck::cast_slice::<f32, F32>(weights), row_blocks: len, place, panel }
                    .unpack::<I, W>(isa);
                let sums = sums.as_chunks_mut().0.split_at_mut(ROWS * COLUMNS);
                let out = &mut Output::new(&mut out, rows).unwrap();
                Multiply { panel, sums, x, place, out }.multiply::<I, W>(isa);
            }
            out
        }
    }

    /// Row by row, one column at a time.
    fn expected(weights: &[f32], x: &[f32], len: usize) -> Vec<f32> {
        let layout = Layout::new(Level::SCALAR, Form::Floats, len, 1).unwrap();
        let products = x.chunks(len).map(|x| {
            let (mut column, mut out) = (vec![0.0; len], vec![0.0; weights.len() / len]);
            for part in layout.parts(x, &mut Room { codes: &mut [], scales: &mut column, sums: &mut [] }) {
                quantize(Level::SCALAR, layout, part).unwrap();
            }
            let column = Columns::quantized(layout, &[], &column, &[]).unwrap();
            let (bytes, rows) = (bytemuck::cast_slice(weights), out.len());
            let mut scratch = vec![0.0; product::scratch_len(1)];
            let output = Output::new(&mut out, rows).unwrap();
            product::multiply(Level::SCALAR, GgmlType::F32, bytes, column, &mut scratch, output).unwrap();
            out
        });
        products.flatten().collect()
    }

    #[test]
    fn registers_of_either_kind_give_the_bits_of_rows() {
        let numbers = |count: usize, step: usize| -> Vec<f32> {
            (0..count).map(|i| ((i * step) % 509) as f32 / 127.0 - 2.0).collect()
        };
        for (rows, count, len) in [(1, 1, 1), (7, 5, 33), (6, 14, 1057), (ROWS, 20, 96), (3, 9, 2048)] {
            let (weights, x) = (numbers(rows * len, 7919), numbers(count * len, 104_729));
            let expected = expected(&weights, &x, len);
            for level in Level::available() {
                let (weights, x) = (&*weights, &*x);
                let eights = level.run(Product { weights, x, len, registers: PhantomData::<Eights> });
                let sixteens = level.run(Product { weights, x, len, registers: PhantomData::<Sixteens> });
                assert!(eights == expected, "{level}, eights: {rows} rows of {len} times {count} columns");
                assert!(
                    sixteens == expected,
                    "{level}, sixteens: {rows} rows of {len} times {count} columns"
                );
            }
        }
    }
}
