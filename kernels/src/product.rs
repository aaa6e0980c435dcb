//! The product of a matrix of weights, in any format, and columns of activations.
#![forbid(unsafe_code)]

use crate::activations::{Columns, FLOAT_PANEL_COLUMNS, Form, PANEL_COLUMNS, Sums};
use crate::dispatch::Task;
use crate::gemm::{Place, Results};
use crate::gemv::{Coded, Lanes, SPAN, TOGETHER};
use crate::output::Output;
use crate::quant::{Block, GgmlType, for_each_format};
use crate::simd::{Isa, Level};
use crate::tile::{Fetch, Panel, ROWS, Scratch, Strip, Unpack};
use crate::{Mismatch, gemm, gemm_floats, gemv, quant};

/// Rows that belong together in a panel: threads do best with multiples of this many.
pub const PANEL_ROWS: usize = ROWS;

pub use crate::tile::scratch_len;

macro_rules! form {
    (plain) => {
        Form::Floats
    };
    (sixteens) => {
        Form::Sixteens
    };
    (scaled) => {
        Form::Scaled
    };
    (superblocks) => {
        Form::Superblocks
    };
}

macro_rules! list {
    ($($file:ident::$block:ident: $path:ident,)*) => {
        /// How products with weights of type `ty` want their activations; `None` where the type cannot be computed.
        pub const fn form(ty: GgmlType) -> Option<Form> {
            match ty {
                $(<quant::$block as Block>::TYPE => Some(form!($path)),)*
                _ => None,
            }
        }

        /// Takes the path of the type.
        fn run(mut product: Product<'_, '_>) -> Result<(), Mismatch> {
            match product.ty {
                $(<quant::$block as Block>::TYPE => product.$path::<quant::$block>(),)*
                _ => Err(Mismatch { what: "types that can be computed", expected: 1, found: 0 }),
            }
        }
    };
}
for_each_format!(list);

/// Writes the product of every row of `weights` and every column of `x` to `out`.
///
/// `weights` holds `out.rows()` rows of `x.len()` weights of type `ty`; `out` is `[columns, rows]`; `scratch` is of
/// [`scratch_len`] floats.
///
/// # Errors
/// [`Mismatch`] where the lengths do not belong together, or `x` is not in the type's [`form`].
pub fn multiply(
    level: Level,
    ty: GgmlType,
    weights: &[u8],
    x: Columns<'_>,
    scratch: &mut [f32],
    out: Output<'_>,
) -> Result<(), Mismatch> {
    multiply_by_turns(level, level.streams(), ty, weights, x, scratch, out)
}

/// [`multiply`], with `streams` rows read by turns where columns are few.
fn multiply_by_turns(
    level: Level,
    streams: usize,
    ty: GgmlType,
    weights: &[u8],
    x: Columns<'_>,
    scratch: &mut [f32],
    out: Output<'_>,
) -> Result<(), Mismatch> {
    let Some(row_bytes) = ty.row_bytes(x.len()) else {
        return Err(Mismatch { what: "weights of whole blocks", expected: ty.block_len(), found: x.len() });
    };
    if Some(weights.len()) != row_bytes.checked_mul(out.rows()) {
        let found = weights.len();
        return Err(Mismatch {
            what: "bytes of whole rows",
            expected: row_bytes.saturating_mul(out.rows()),
            found,
        });
    }
    if out.columns() != x.count() {
        return Err(Mismatch { what: "columns of results", expected: x.count(), found: out.columns() });
    }
    if form(ty) != Some(x.form()) || !x.suit(level) {
        return Err(Mismatch { what: "columns in the form of the weights", expected: x.count(), found: 0 });
    }
    let scratch = Scratch::new(scratch, x.count())?;
    run(Product { level, streams, ty, weights, x, scratch, out })
}

struct Product<'a, 'o> {
    level: Level,
    /// How many rows are read by turns where columns are few.
    streams: usize,
    ty: GgmlType,
    weights: &'a [u8],
    x: Columns<'a>,
    scratch: Scratch<'a>,
    out: Output<'o>,
}

/// What a panel is made of: `count` blocks, from block `first` on, of each of `rows`.
struct Span<'a, B> {
    /// The number of the first row.
    row: usize,
    rows: &'a [B],
    first: usize,
    count: usize,
}

/// The spans of all rows, `height` rows of up to `span` blocks at a time.
fn spans<B>(rows: &[B], row_blocks: usize, height: usize, span: usize) -> impl Iterator<Item = Span<'_, B>> {
    let panels = (0..).step_by(height).zip(rows.chunks(height * row_blocks));
    panels.flat_map(move |(row, rows)| {
        let firsts = (0..row_blocks).step_by(span);
        firsts.map(move |first| Span { row, rows, first, count: span.min(row_blocks - first) })
    })
}

/// A path of integer products: row by row for few columns, panel by panel for more.
macro_rules! integer_path {
    ($path:ident, $block:path, $rows:ident, $panel:ident) => {
        fn $path<B: $block>(&mut self) -> Result<(), Mismatch> {
            let rows = bytemuck::cast_slice::<u8, B>(self.weights);
            let (level, x, row_blocks) = (self.level, self.x, self.x.len() / B::LEN);
            if x.count() < PANEL_COLUMNS {
                level.run($rows { rows, row_blocks, streams: self.streams, x, out: &mut self.out });
                return Ok(());
            }
            let mut spans = spans(rows, row_blocks, ROWS, SPAN / B::LEN).peekable();
            let fetch = |span: Option<&Span<'_, B>>| {
                if let Some(&Span { rows, first, count, .. }) = span {
                    level.run(Fetch { rows, row_blocks, first, count });
                }
            };
            fetch(spans.peek());
            while let Some(Span { row, rows, first, count }) = spans.next() {
                let Scratch { panel: scratch, strips } = &mut self.scratch;
                let matrices = x.are_for_matrices();
                let panel =
                    level.run($panel(Unpack { matrices, rows, row_blocks, first, count, scratch }))?;
                fetch(spans.peek());
                let (start, rows, number) = (first * B::LEN, rows.len() / row_blocks, row / ROWS % PANELS);
                let whole = first + count == row_blocks && (number + 1 == PANELS || spans.peek().is_none());
                let results = whole.then(|| {
                    let (row, rows) = (row - number * ROWS, number * ROWS + rows);
                    Results { out: &mut self.out, row, rows }
                });
                gemm::multiply(level, &panel, x, Place { start, panel: number, strips, results });
            }
            Ok(())
        }
    };
}

/// Panels in a [`Strip`].
const PANELS: usize = size_of::<Strip>() / size_of::<[f32; ROWS]>();

impl Product<'_, '_> {
    integer_path!(sixteens, quant::Scaled, ScaledRows, ScaledPanel);
    integer_path!(scaled, quant::Scaled, ScaledRows, ScaledPanel);
    integer_path!(superblocks, quant::Superblock, SuperblockRows, SuperblockPanel);

    fn plain<B: Block>(&mut self) -> Result<(), Mismatch> {
        let rows = bytemuck::cast_slice::<u8, B>(self.weights);
        let (level, x, row_blocks) = (self.level, self.x, self.x.len() / B::LEN);
        if x.count() < FLOAT_PANEL_COLUMNS {
            let pairs = x.count() == 1 && x.len() > FIRST_LEVEL;
            let streams = if pairs { self.streams.max(2) } else { self.streams };
            level.run(PlainRows { rows, row_blocks, streams, x, out: &mut self.out });
            return Ok(());
        }
        for Span { row, rows, first, count } in spans(rows, row_blocks, gemm_floats::ROWS, SPAN / B::LEN) {
            let (start, len) = (first * B::LEN, count * B::LEN);
            let place = gemm_floats::Place { row, rows: rows.len() / row_blocks, start, len };
            gemm_floats::multiply(level, (rows, row_blocks), place, self.scratch.panel, x, &mut self.out);
        }
        Ok(())
    }
}

/// Floats of a column above which the first-level cache has no room for rows beside it: then two rows at least share its
/// reading, also where one stream of weights is enough (with neighbouring rows a fifth faster on Zen 4).
const FIRST_LEVEL: usize = 6144;

/// Rows times a few columns, where they lie.
macro_rules! rows_task {
    ($name:ident, $block:path, $rows:path, $column:ty, $cut:path) => {
        struct $name<'a, 'o, B> {
            rows: &'a [B],
            row_blocks: usize,
            /// How many rows are read by turns.
            streams: usize,
            x: Columns<'a>,
            out: &'a mut Output<'o>,
        }

        impl<B: $block> $name<'_, '_, B> {
            /// Multiplies `rows`, which are numbers `i`, `i + apart` and so on, with columns `x`, those from `first` on.
            #[inline(always)]
            fn columns<I: Isa, const C: usize>(
                &mut self,
                isa: I,
                (i, apart): (usize, usize),
                rows: &[&[B]],
                (first, x): (usize, &[$column; C]),
                lanes: &mut Lanes<I>,
            ) {
                let sums: [[f32; C]; TOGETHER] = $rows(isa, rows, x, lanes);
                for (r, sums) in sums.into_iter().enumerate().take(rows.len()) {
                    for (c, sum) in sums.into_iter().enumerate() {
                        self.out.column(first + c)[i + r * apart] = sum;
                    }
                }
            }
        }

        impl<B: $block> Task for $name<'_, '_, B> {
            type Output = ();

            #[inline(always)]
            fn run<I: Isa>(mut self, isa: I) {
                let (count, rows, row_blocks) = (self.x.count(), self.rows, self.row_blocks);
                let row = |i: usize| &rows[i * row_blocks..][..row_blocks];
                let lanes = &mut Lanes::new(isa);
                // Cut once for all rows. Not `from_fn`, which is not always part of the loop.
                let mut columns = [Default::default(); PANEL_COLUMNS];
                for (c, column) in columns.iter_mut().enumerate().take(count) {
                    *column = $cut(&self.x, c);
                }
                let (fours, left) = columns[..count].as_chunks::<4>();
                let (twos, ones) = left.as_chunks::<2>();
                for (i, apart, together) in turns(rows.len() / row_blocks, self.streams) {
                    let mut by_turns = [row(i); TOGETHER];
                    for r in 1..together {
                        by_turns[r] = row(i + r * apart);
                    }
                    let (at, rows) = ((i, apart), &by_turns[..together]);
                    for (first, x) in (0..).step_by(4).zip(fours) {
                        self.columns(isa, at, rows, (first, x), lanes);
                    }
                    for x in twos {
                        self.columns(isa, at, rows, (4 * fours.len(), x), lanes);
                    }
                    for x in ones.as_chunks::<1>().0 {
                        self.columns(isa, at, rows, (count - 1, x), lanes);
                    }
                }
            }
        }
    };
}

/// Which of `rows` rows are read by turns: the first, how far apart they are, and how many. Neighbours follow each other within
/// a stream; rows that are left over come alone.
fn turns(rows: usize, streams: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let streams = streams.clamp(1, TOGETHER);
    let apart = rows / streams;
    (0..apart).map(move |i| (i, apart, streams)).chain((apart * streams..rows).map(move |i| (i, apart, 1)))
}

rows_task!(ScaledRows, quant::Scaled, gemv::scaled, Coded<'_, [i32; 8]>, Coded::scaled);
rows_task!(SuperblockRows, quant::Superblock, gemv::superblocks, Coded<'_, Sums>, Coded::superblocks);
rows_task!(PlainRows, quant::Block, gemv::plain, &[f32], Columns::float_column);

struct ScaledPanel<'a, 's, B>(Unpack<'a, 's, B>);

impl<'s, B: quant::Scaled> Task for ScaledPanel<'_, 's, B> {
    type Output = Result<Panel<'s>, Mismatch>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Self::Output {
        self.0.scaled(isa)
    }
}

struct SuperblockPanel<'a, 's, B>(Unpack<'a, 's, B>);

impl<'s, B: quant::Superblock> Task for SuperblockPanel<'_, 's, B> {
    type Output = Result<Panel<'s>, Mismatch>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Self::Output {
        self.0.superblocks(isa)
    }
}

#[cfg(test)]
mod tests;
