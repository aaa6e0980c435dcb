//! Weights to bits: each format's encoder, byte for byte what ggml's quantizers make (those of `ggml-quants.c`, ggml 0.26).
//!
//! What a quantizer answers is decided by the order of its float operations, so these do the same operations in the same
//! order; what is faster here is that several groups of weights go side by side (`lanes`), and that nothing is computed
//! twice. How bits are laid out is not known here: each format packs its own block.
//!
//! An [`Encoder`] is made once for a type, which builds the tables of the IQ formats, and then encodes any number of rows.

#![allow(
    clippy::needless_range_loop,
    reason = "several arrays of fixed length go in step, and the compiler sees their bounds; iterators hide them from it"
)]

mod check;
mod iq1;
mod iq2_iq3;
mod k_quants;
mod lanes;
mod legacy;
mod numbers;
mod plain;
mod points;
mod search;
mod ternary;
mod uneven;

use core::fmt;

pub use check::first_damaged_block;
use points::Points;

use crate::dispatch::Task;
use crate::quant::{self, Block, GgmlType};
use crate::simd::{Isa, Level};

/// A search found nothing: the numbers are out of all proportion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failed;

/// A format that can be made from weights.
trait Encode: Block {
    /// Encodes a row of whole blocks. `importance` has a number for each weight, or there is none.
    fn encode_row(
        x: &[f32],
        importance: Option<&[f32]>,
        points: &Points,
        out: &mut [Self],
    ) -> Result<(), Failed>;
}

/// A format of 256 weights each of whose superblocks is encoded by itself.
trait EncodeSuperblock: Block {
    /// Encodes a superblock; `importance` as in [`Encode::encode_row`].
    fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, points: &Points) -> Result<Self, Failed>;
}

impl<B: EncodeSuperblock> Encode for B {
    #[inline(always)]
    fn encode_row(
        x: &[f32],
        importance: Option<&[f32]>,
        points: &Points,
        out: &mut [Self],
    ) -> Result<(), Failed> {
        for ((x, importance), out) in superblocks(x, importance).zip(out) {
            *out = B::encode(x, importance, points)?;
        }
        Ok(())
    }
}

/// The superblocks of a row, each with its columns' importance.
#[inline(always)]
fn superblocks<'a>(
    x: &'a [f32],
    importance: Option<&'a [f32]>,
) -> impl Iterator<Item = (&'a [f32; 256], Option<&'a [f32; 256]>)> {
    let importance = importance.map_or(&[][..], |importance| importance.as_chunks().0);
    x.as_chunks::<256>().0.iter().enumerate().map(move |(i, x)| (x, importance.get(i)))
}

/// Why rows could not be encoded.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum EncodeError {
    /// There is no encoder for the type.
    NotEncodable {
        /// The type.
        ty: GgmlType,
    },
    /// The type cannot do without an importance for each column.
    NeedsImportance {
        /// The type.
        ty: GgmlType,
    },
    /// A slice is too long, too short, or no whole number of rows or blocks.
    Length {
        /// Which slice, and what is counted.
        what: &'static str,
        /// How many there should have been, or of what there should have been a multiple.
        expected: usize,
        /// How many there were.
        found: usize,
    },
    /// A weight is infinite or not a number.
    NotFinite {
        /// Which weight, counted from 0.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// The weights, or their importance, are so large that no scale can be found or stored.
    OutOfRange {
        /// The type.
        ty: GgmlType,
        /// In which row, counted from 0.
        row: usize,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotEncodable { ty } => write!(f, "weights cannot be made {ty}: choose another type"),
            Self::NeedsImportance { ty } => {
                write!(f, "{ty} needs an importance for each column: give an importance matrix")
            }
            Self::Length { what, expected, found } => write!(f, "expected {expected} {what}, found {found}"),
            Self::NotFinite { index, value } => {
                write!(f, "expected finite weights, found {value} at {index}: the weights are damaged")
            }
            Self::OutOfRange { ty, row } => {
                write!(f, "the weights of row {row} are too large for {ty}, or so is their importance")
            }
        }
    }
}

impl core::error::Error for EncodeError {}

/// Makes rows of one type out of weights.
///
/// ```
/// use gristmill_kernels::encode::Encoder;
/// use gristmill_kernels::quant::GgmlType;
/// use gristmill_kernels::simd::Level;
///
/// let encoder = Encoder::new(GgmlType::Q4_0)?;
/// let mut block = [0; 18];
/// encoder.encode(Level::detect(), &[-8.0; 32], 32, None, &mut block)?;
/// // A scale of 1, and the lowest code, 0, for each weight.
/// assert_eq!(block[..4], [0x00, 0x3c, 0x00, 0x00]);
/// # Ok::<(), gristmill_kernels::encode::EncodeError>(())
/// ```
pub struct Encoder {
    ty: GgmlType,
    points: Points,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("ty", &self.ty).finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder for the type. For the IQ1, IQ2 and IQ3 types this takes up to some tenths of a second and some megabytes.
    ///
    /// # Errors
    /// [`EncodeError::NotEncodable`].
    pub fn new(ty: GgmlType) -> Result<Self, EncodeError> {
        if !ty.is_encodable() {
            return Err(EncodeError::NotEncodable { ty });
        }
        Ok(Self { ty, points: Points::of(ty) })
    }

    /// The type that this encoder makes.
    pub fn ty(&self) -> GgmlType {
        self.ty
    }

    /// Encodes rows of `row_len` weights each to `out`.
    ///
    /// `importance` says for each column how much its errors count, for all rows alike; all levels give the same bytes.
    ///
    /// # Errors
    /// [`EncodeError`]; what `out` holds then is not said.
    pub fn encode(
        &self,
        level: Level,
        weights: &[f32],
        row_len: usize,
        importance: Option<&[f32]>,
        out: &mut [u8],
    ) -> Result<(), EncodeError> {
        let ty = self.ty;
        let length = |what, expected, found| Err(EncodeError::Length { what, expected, found });
        let Some(row_bytes) = ty.row_bytes(row_len).filter(|&bytes| bytes != 0) else {
            return length("weights in a row, or a multiple of that", ty.block_len(), row_len);
        };
        if !weights.len().is_multiple_of(row_len) {
            return length("weights, or a multiple of that", row_len, weights.len());
        }
        let rows = weights.len() / row_len;
        if out.len() != rows * row_bytes {
            return length("bytes for the rows", rows * row_bytes, out.len());
        }
        match importance {
            Some(importance) if importance.len() != row_len => {
                return length("columns' importance", row_len, importance.len());
            }
            None if ty.needs_importance() => return Err(EncodeError::NeedsImportance { ty }),
            _ => {}
        }
        let finite = weights.iter().fold(true, |finite, weight| finite & weight.is_finite());
        if !finite && let Some((index, &value)) = weights.iter().enumerate().find(|(_, x)| !x.is_finite()) {
            return Err(EncodeError::NotFinite { index, value });
        }
        let rows = weights.chunks_exact(row_len).zip(out.chunks_exact_mut(row_bytes));
        for (row, (weights, out)) in rows.enumerate() {
            self.row(level, weights, importance, out)
                .map_err(|Failed| EncodeError::OutOfRange { ty, row })?;
        }
        Ok(())
    }
}

struct Row<'a, B> {
    weights: &'a [f32],
    importance: Option<&'a [f32]>,
    points: &'a Points,
    out: &'a mut [B],
}

impl<B: Encode> Task for Row<'_, B> {
    type Output = Result<(), Failed>;

    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) -> Self::Output {
        // What the level brings is the instructions that the compiler may use.
        B::encode_row(self.weights, self.importance, self.points, self.out)
    }
}

/// Weights of a float type widened in a level's words.
struct Widen<'a, B> {
    blocks: &'a [B],
    out: &'a mut [f32],
}

impl<B: Block> Task for Widen<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        B::unpack(isa, self.blocks, self.out);
    }
}

/// Writes the weights of rows of type `ty` to `out`: the bits of [`quant::dequantize_row`], sooner for F16 and BF16.
///
/// # Errors
/// [`RowError`](quant::RowError) where the type cannot be computed or the lengths do not match.
pub fn decode(level: Level, ty: GgmlType, bytes: &[u8], out: &mut [f32]) -> Result<(), quant::RowError> {
    let fits = ty.row_bytes(out.len()) == Some(bytes.len());
    match ty {
        GgmlType::F16 if fits => level.run(Widen { blocks: quant::blocks::<quant::F16>(bytes)?, out }),
        GgmlType::BF16 if fits => level.run(Widen { blocks: quant::blocks::<quant::Bf16>(bytes)?, out }),
        _ => return quant::dequantize_row(ty, bytes, out),
    }
    Ok(())
}

/// The formats that can be made from weights: the one list of them.
macro_rules! encoders {
    ($($block:ident,)*) => {
        impl GgmlType {
            /// The types that an [`Encoder`] can make.
            pub const ENCODABLE: &'static [GgmlType] = &[$(<quant::$block as Block>::TYPE),*];

            /// Whether an [`Encoder`] can make the type.
            pub const fn is_encodable(self) -> bool {
                matches!(self, $(<quant::$block as Block>::TYPE)|*)
            }
        }

        impl Encoder {
            fn row(
                &self,
                level: Level,
                weights: &[f32],
                importance: Option<&[f32]>,
                out: &mut [u8],
            ) -> Result<(), Failed> {
                match self.ty {
                    $(<quant::$block as Block>::TYPE => {
                        let out = bytemuck::try_cast_slice_mut::<u8, quant::$block>(out).map_err(|_| Failed)?;
                        level.run_plain(Row { weights, importance, points: &self.points, out })
                    })*
                    _ => Err(Failed),
                }
            }
        }
    };
}
encoders! {
    F32, F16, Bf16,
    Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q1_0, Q2_0,
    Q2K, Q3K, Q4K, Q5K, Q6K,
    Iq4Nl, Iq4Xs, Mxfp4, Nvfp4,
    Tq1_0, Tq2_0,
    Iq2Xxs, Iq2Xs, Iq2S, Iq3Xxs, Iq3S, Iq1S, Iq1M,
}

impl GgmlType {
    /// Whether an [`Encoder`] of this type needs an importance for each column.
    pub const fn needs_importance(self) -> bool {
        matches!(self, GgmlType::IQ2_XXS | GgmlType::IQ2_XS | GgmlType::IQ1_S)
    }
}
