//! The product of a matrix of weights, in any format, and columns of activations.
#![forbid(unsafe_code)]

use crate::activations::{Columns, FLOAT_PANEL_COLUMNS, Form, PANEL_COLUMNS, Sums};
use crate::dispatch::Task;
use crate::gemm::{Place, Results};
use crate::gemv::{Coded, SPAN};
use crate::output::Output;
use crate::quant::{Block, GgmlType, for_each_format};
use crate::rows::{PASSES, Products, Rows, turns};
use crate::simd::{Isa, Level};
use crate::tile::{Panel, ROWS, Scratch, Source, Strip, Unpack};
use crate::{Mismatch, gemm, gemm_floats, gemv, quant};

/// Rows that belong together in a panel: threads do best with multiples of this many.
pub const PANEL_ROWS: usize = ROWS;

pub use crate::tile::scratch_len;

macro_rules! form {
    ($block:ty, plain) => {
        Form::Floats
    };
    ($block:ty, sixteens) => {
        Form::Sixteens
    };
    ($block:ty, scaled) => {
        Form::Scaled
    };
    ($block:ty, superblocks) => {
        if <$block as quant::Superblock>::CROSSED { Form::Crossed } else { Form::Superblocks }
    };
}

macro_rules! list {
    ($($file:ident::$block:ident: $path:ident,)*) => {
        /// How products with weights of type `ty` want their activations; `None` where the type cannot be computed.
        pub const fn form(ty: GgmlType) -> Option<Form> {
            match ty {
                $(<quant::$block as Block>::TYPE => Some(form!(quant::$block, $path)),)*
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
    if form(ty).map(|form| form.of_columns(x.count())) != Some(x.form()) || !x.suit(level) {
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
    ($path:ident, $block:path, $few:ident, $panel:ident) => {
        fn $path<B: $block>(&mut self) -> Result<(), Mismatch> {
            let rows = bytemuck::cast_slice::<u8, B>(self.weights);
            let (level, x, row_blocks) = (self.level, self.x, self.x.len() / B::LEN);
            if x.count() < PANEL_COLUMNS {
                self.$few(rows, row_blocks, self.streams);
                return Ok(());
            }
            let mut spans = spans(rows, row_blocks, ROWS, SPAN / B::LEN).peekable();
            let source = |span: &Span<'a, B>| Source {
                rows: bytemuck::cast_slice(span.rows),
                row_bytes: row_blocks * size_of::<B>(),
                start: span.first * size_of::<B>(),
                len: span.count * size_of::<B>(),
            };
            if let Some(first) = spans.peek().map(source) {
                level.run(first);
            }
            while let Some(Span { row, rows, first, count }) = spans.next() {
                let Scratch { panel: scratch, strips } = &mut self.scratch;
                let matrices = x.are_for_matrices();
                let panel =
                    level.run($panel(Unpack { matrices, rows, row_blocks, first, count, scratch }))?;
                let next = spans.peek().map(source);
                let (start, rows, number) = (first * B::LEN, rows.len() / row_blocks, row / ROWS % PANELS);
                let whole = first + count == row_blocks && (number + 1 == PANELS || spans.peek().is_none());
                let results = whole.then(|| {
                    let (row, rows) = (row - number * ROWS, number * ROWS + rows);
                    Results { out: &mut self.out, row, rows }
                });
                gemm::multiply(level, &panel, x, Place { start, panel: number, strips, results, next });
            }
            Ok(())
        }
    };
}

/// Panels in a [`Strip`].
const PANELS: usize = size_of::<Strip>() / size_of::<[f32; ROWS]>();

impl<'a> Product<'a, '_> {
    integer_path!(sixteens, quant::Scaled, few_scaled, ScaledPanel);
    integer_path!(scaled, quant::Scaled, few_scaled, ScaledPanel);
    integer_path!(superblocks, quant::Superblock, few_superblocks, SuperblockPanel);

    fn plain<B: Block>(&mut self) -> Result<(), Mismatch> {
        let rows = bytemuck::cast_slice::<u8, B>(self.weights);
        let (level, x, row_blocks) = (self.level, self.x, self.x.len() / B::LEN);
        if x.count() < FLOAT_PANEL_COLUMNS {
            let pairs = x.count() == 1 && x.len() > FIRST_LEVEL;
            let streams = if pairs { self.streams.max(2) } else { self.streams };
            self.few_plain(rows, row_blocks, streams);
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

const _: () = assert!(FLOAT_PANEL_COLUMNS <= PANEL_COLUMNS);

/// A path of few columns: rows times up to `$most` columns at a time, where they lie, for columns that `$cut` cuts once for all rows.
macro_rules! few_columns {
    ($name:ident, $task:ident, $block:path, $rows:path, $column:ty, $cut:path, $most:literal) => {
        struct $task<'a, B, const C: usize> {
            rows: &'a Rows<'a, B>,
            x: &'a [$column; C],
        }

        impl<B: $block, const C: usize> Task for $task<'_, B, C> {
            type Output = Products<C>;

            #[inline(always)]
            fn run<I: Isa>(self, isa: I) -> Self::Output {
                $rows(isa, self.rows, self.x)
            }
        }

        impl Product<'_, '_> {
            fn $name<B: $block>(&mut self, rows: &[B], row_blocks: usize, streams: usize) {
                let (level, count, x) = (self.level, self.x.count(), self.x);
                let mut columns = [Default::default(); PANEL_COLUMNS];
                for (c, column) in columns.iter_mut().enumerate().take(count) {
                    *column = $cut(&x, c);
                }
                let (full, left) = columns[..count].as_chunks::<$most>();
                let (twos, ones) = left.as_chunks::<2>();
                let passes = match full.len() + twos.len() + ones.len() {
                    // Each row is read once.
                    1 => PASSES,
                    _ => (TURN_BYTES / (size_of::<B>() * row_blocks * streams).max(1)).clamp(1, PASSES),
                };
                for rows in turns(rows, row_blocks, streams, passes) {
                    let rows = &rows;
                    for (first, x) in (0..).step_by($most).zip(full) {
                        self.put(rows, first, &level.run($task { rows, x }));
                    }
                    for x in twos {
                        self.put(rows, $most * full.len(), &level.run($task { rows, x }));
                    }
                    for x in ones.as_chunks::<1>().0 {
                        self.put(rows, count - 1, &level.run($task { rows, x }));
                    }
                }
            }
        }
    };
}

few_columns!(few_scaled, ScaledRows, quant::Scaled, gemv::scaled, Coded<'a, [i32; 8]>, Coded::scaled, 4);
few_columns!(
    few_superblocks,
    SuperblockRows,
    quant::Superblock,
    gemv::superblocks,
    Coded<'a, Sums>,
    Coded::superblocks,
    4
);
few_columns!(few_plain, PlainRows, quant::Block, gemv::plain, &'a [f32], Columns::float_column, 2);

impl Product<'_, '_> {
    /// Writes the products of rows with `C` columns, those from `first` on.
    fn put<B, const C: usize>(&mut self, rows: &Rows<'_, B>, first: usize, products: &Products<C>) {
        for c in 0..C {
            let column = self.out.column(first + c);
            for (p, products) in products.iter().enumerate().take(rows.passes) {
                for (r, products) in products.iter().enumerate().take(rows.by_turns) {
                    column[rows.row(p, r)] = products[c];
                }
            }
        }
    }
}

/// Bytes of rows that are multiplied together where they are read several times: what a first-level cache holds beside the columns.
const TURN_BYTES: usize = 24 << 10;

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
