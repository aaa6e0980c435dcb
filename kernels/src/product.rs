//! The product of a matrix of weights, in any format, and columns of activations.
#![forbid(unsafe_code)]

use crate::activations::{Columns, Form};
use crate::dispatch::Task;
use crate::output::Output;
use crate::quant::{Block, GgmlType, for_each_format};
use crate::simd::{Isa, Level};
use crate::tile::{self, FLOAT_ROWS, Kind, Panel, ROWS, UnpackFloats, UnpackScaled, UnpackSuperblocks};
use crate::{Mismatch, gemm, gemv, quant};

/// Rows that belong together in a panel: threads do best with multiples of this many.
pub const PANEL_ROWS: usize = ROWS;

pub use tile::scratch_len;

macro_rules! form {
    (plain) => {
        Form::Floats
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
/// `weights` holds `out.rows()` rows of `x.len()` weights of type `ty`; `out` is `[columns, rows]`. One column of codes
/// is multiplied row by row where the weights lie; all else needs `scratch`, of [`scratch_len`] floats.
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
    if form(ty) != Some(x.form()) {
        return Err(Mismatch { what: "columns in the form of the weights", expected: x.count(), found: 0 });
    }
    let in_place = x.count() == 1 && x.form() != Form::Floats;
    if !in_place && scratch.len() < scratch_len(x.len()) {
        return Err(Mismatch {
            what: "floats of scratch",
            expected: scratch_len(x.len()),
            found: scratch.len(),
        });
    }
    run(Product { level, ty, weights, x, scratch, out })
}

struct Product<'a, 'o> {
    level: Level,
    ty: GgmlType,
    weights: &'a [u8],
    x: Columns<'a>,
    scratch: &'a mut [f32],
    out: Output<'o>,
}

/// A path of integer products: row by row for a column, panel by panel for more.
macro_rules! integer_path {
    ($path:ident, $block:path, $kind:ident, $unpack:ident, $rows_of_one_column:ident) => {
        fn $path<B: $block>(&mut self) -> Result<(), Mismatch> {
            let rows = bytemuck::cast_slice::<u8, B>(self.weights);
            let row_blocks = self.x.len() / B::LEN;
            if self.x.count() == 1 {
                let out = self.out.column(0);
                self.level.run($rows_of_one_column { rows, row_blocks, x: self.x, out });
                return Ok(());
            }
            let mut panel = Panel::new(self.scratch, self.x.len(), Kind::$kind::<B>())?;
            for (first, rows) in (0..).step_by(ROWS).zip(rows.chunks(ROWS * row_blocks)) {
                self.level.run($unpack { rows, row_blocks, panel: &mut panel });
                let count = rows.len() / row_blocks;
                gemm::multiply(self.level, &panel, self.x, first, count, &mut self.out);
            }
            Ok(())
        }
    };
}

impl Product<'_, '_> {
    integer_path!(scaled, quant::Scaled, of_scaled, UnpackScaled, ScaledRows);
    integer_path!(superblocks, quant::Superblock, of_superblocks, UnpackSuperblocks, SuperblockRows);

    fn plain<B: Block>(&mut self) -> Result<(), Mismatch> {
        let rows = bytemuck::cast_slice::<u8, B>(self.weights);
        let (level, x) = (self.level, self.x);
        let row_blocks = x.len() / B::LEN;
        let padded = x.len().next_multiple_of(32);
        let at_a_time = if x.count() == 1 { 1 } else { FLOAT_ROWS };
        for (first, rows) in (0..).step_by(at_a_time).zip(rows.chunks(at_a_time * row_blocks)) {
            let panel = &mut self.scratch[..rows.len() / row_blocks * padded];
            level.run(UnpackFloats { rows, row_blocks, padded, out: panel });
            if x.count() == 1 {
                self.out.column(0)[first] = level.run(FloatRow { row: panel, x: x.float_column(0) });
            } else {
                gemm::multiply_floats(level, panel, padded, x, first, &mut self.out);
            }
        }
        Ok(())
    }
}

/// Rows times the one column, where they lie.
macro_rules! rows_task {
    ($name:ident, $block:path, $row:path) => {
        struct $name<'a, B> {
            rows: &'a [B],
            row_blocks: usize,
            x: Columns<'a>,
            out: &'a mut [f32],
        }

        impl<B: $block> Task for $name<'_, B> {
            type Output = ();

            #[inline(always)]
            fn run<I: Isa>(self, isa: I) {
                for (row, out) in self.rows.chunks_exact(self.row_blocks).zip(self.out) {
                    *out = $row(isa, row, self.x);
                }
            }
        }
    };
}

rows_task!(ScaledRows, quant::Scaled, gemv::scaled);
rows_task!(SuperblockRows, quant::Superblock, gemv::superblocks);

struct FloatRow<'a> {
    row: &'a [f32],
    x: &'a [f32],
}

impl Task for FloatRow<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f32 {
        gemv::floats(isa, self.row, self.x)
    }
}

#[cfg(test)]
mod tests;
