//! The product of a matrix of weights, in any format, and columns of activations.

use crate::activations::{Columns, Form};
use crate::dispatch::Task;
use crate::output::Output;
use crate::quant::{Block, GgmlType, for_each_format};
use crate::simd::{Isa, Level};
use crate::tile::{self, Panel};
use crate::{Mismatch, gemm, gemv, quant};

/// Rows that belong together in a panel: threads do best with multiples of this many.
pub const PANEL_ROWS: usize = tile::ROWS;

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

        impl Task for Product<'_, '_> {
            type Output = Result<(), Mismatch>;

            #[inline(always)]
            fn run<I: Isa>(mut self, isa: I) -> Self::Output {
                match self.ty {
                    $(<quant::$block as Block>::TYPE => self.$path::<I, quant::$block>(isa),)*
                    _ => Err(Mismatch { what: "types that can be computed", expected: 1, found: 0 }),
                }
            }
        }
    };
}
for_each_format!(list);

/// Writes the product of every row of `weights` and every column of `x` to `out`.
///
/// `weights` holds `out.rows()` rows of `x.len()` weights of type `ty`; `out` is `[columns, rows]`. One column is
/// multiplied row by row where the weights lie; more columns need `scratch`, of [`scratch_len`] floats.
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
    if x.count() > 1 && scratch.len() < scratch_len(x.len()) {
        return Err(Mismatch {
            what: "floats of scratch",
            expected: scratch_len(x.len()),
            found: scratch.len(),
        });
    }
    level.run(Product { ty, weights, x, scratch, out })
}

struct Product<'a, 'o> {
    ty: GgmlType,
    weights: &'a [u8],
    x: Columns<'a>,
    scratch: &'a mut [f32],
    out: Output<'o>,
}

/// One path of products: row by row for a column, panel by panel for more.
macro_rules! path {
    ($path:ident, $block:path, |$isa:ident, $product:ident, $rows:ident| $panels:expr) => {
        #[inline(always)]
        fn $path<I: Isa, B: $block>(&mut self, $isa: I) -> Result<(), Mismatch> {
            let $rows = bytemuck::cast_slice::<u8, B>(self.weights);
            let $product = self;
            if $product.x.count() > 1 {
                $panels
            } else {
                let blocks = $product.x.len() / B::LEN;
                for (row, out) in $rows.chunks_exact(blocks).zip($product.out.column(0)) {
                    *out = gemv::$path($isa, row, $product.x);
                }
            }
            Ok(())
        }
    };
}

impl Product<'_, '_> {
    path!(plain, Block, |isa, p, rows| gemm::plain(isa, rows, p.x, p.scratch, &mut p.out));
    path!(scaled, quant::Scaled, |isa, p, rows| {
        gemm::scaled(isa, rows, p.x, &mut Panel::new(p.scratch, p.x.len(), 32)?, &mut p.out)
    });
    path!(superblocks, quant::Superblock, |isa, p, rows| {
        gemm::superblocks(isa, rows, p.x, &mut Panel::new(p.scratch, p.x.len(), 256)?, &mut p.out)
    });
}

#[cfg(test)]
mod tests;
