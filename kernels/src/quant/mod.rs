//! What a format means: one file for each ggml tensor type that can be computed, and the list of them.
//!
//! A format's file holds a picture of its bits, the block struct, its constants and `dequantize` in plain scalar
//! Rust, which is the specification that every faster path must equal. In the pictures, byte 0 comes first in
//! the file, `qs[j][0..4]` are the four lowest bits of `qs[j]`, and numbers of several bytes are little-endian.
//!
//! To add a format: write its file, name the file below and the block in `for_each_format!`.
#![allow(
    clippy::indexing_slicing,
    reason = "indices are bounded by the block's constants; every index taken from file bits is masked to its table"
)]

use core::fmt;

use crate::simd::Isa;

pub mod bf16;
pub mod f16;
pub mod f32;
pub mod f64;
pub mod ints;
pub mod iq1_m;
pub mod iq1_s;
pub mod iq2_s;
pub mod iq2_xs;
pub mod iq2_xxs;
pub mod iq3_s;
pub mod iq3_xxs;
pub mod iq4_nl;
pub mod iq4_xs;
pub mod mxfp4;
pub mod nvfp4;
pub mod q1_0;
pub mod q2_0;
pub mod q2_k;
pub mod q3_k;
pub mod q4_0;
pub mod q4_1;
pub mod q4_k;
pub mod q5_0;
pub mod q5_1;
pub mod q5_k;
pub mod q6_k;
pub mod q8_0;
pub mod q8_1;
pub mod q8_k;
pub mod tq1_0;
pub mod tq2_0;

mod bits;
mod fast;
mod ggml_type;
pub(crate) mod grids;

pub use fast::{Codes, Groups, Scale, Scaled, Superblock};
pub(crate) use fast::{eight, eight_of_blocks};
pub use ggml_type::GgmlType;

/// Calls the macro `$with` with every computable format, as `file::Block: path`: the one list of them.
///
/// The path names the loops of products: `scaled` (then the block is [`Scaled`]; `sixteens` where its groups are of 16),
/// `superblocks` ([`Superblock`]) or `plain` (in floats, for every format).
macro_rules! for_each_format {
    ($with:ident) => {
        $with! {
            f32::F32: plain,
            f16::F16: plain,
            bf16::Bf16: plain,
            f64::F64: plain,
            ints::I8: plain,
            ints::I16: plain,
            ints::I32: plain,
            ints::I64: plain,
            q4_0::Q4_0: scaled,
            q4_1::Q4_1: scaled,
            q5_0::Q5_0: scaled,
            q5_1::Q5_1: scaled,
            q8_0::Q8_0: scaled,
            q8_1::Q8_1: plain,
            q2_k::Q2K: superblocks,
            q3_k::Q3K: superblocks,
            q4_k::Q4K: superblocks,
            q5_k::Q5K: superblocks,
            q6_k::Q6K: superblocks,
            q8_k::Q8K: plain,
            iq1_s::Iq1S: superblocks,
            iq1_m::Iq1M: superblocks,
            iq2_xxs::Iq2Xxs: superblocks,
            iq2_xs::Iq2Xs: superblocks,
            iq2_s::Iq2S: superblocks,
            iq3_xxs::Iq3Xxs: superblocks,
            iq3_s::Iq3S: superblocks,
            iq4_nl::Iq4Nl: scaled,
            iq4_xs::Iq4Xs: superblocks,
            tq1_0::Tq1_0: superblocks,
            tq2_0::Tq2_0: superblocks,
            mxfp4::Mxfp4: scaled,
            nvfp4::Nvfp4: sixteens,
            q1_0::Q1_0: scaled,
            q2_0::Q2_0: scaled,
        }
    };
}
pub(crate) use for_each_format;

/// One block of a quantized format, as it lies in a file.
///
/// The bounds make the cast from file bytes safe: any bytes are a valid block ([`bytemuck::AnyBitPattern`]) and,
/// since blocks are made of bytes only, any address is aligned for one.
pub trait Block: bytemuck::Pod {
    /// The ggml type of which this is a block.
    const TYPE: GgmlType;
    /// Weights in a block.
    const LEN: usize = Self::TYPE.block_len();

    /// Writes the block's [`Block::LEN`] weights to the start of `out`, exactly as ggml's own `to_float` gives
    /// them; a shorter `out` gets a part of them.
    fn dequantize(&self, out: &mut [f32]);

    /// Writes the weights of whole blocks to the start of `out`, in the words of an instruction set where that is
    /// faster than [`Block::dequantize`].
    #[inline(always)]
    fn unpack<I: Isa>(isa: I, blocks: &[Self], out: &mut [f32]) {
        let _ = isa;
        for (block, out) in blocks.iter().zip(out.chunks_exact_mut(Self::LEN)) {
            block.dequantize(out);
        }
    }
}

/// Why bytes could not be read as a row of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowError {
    /// The type is known by name and size only.
    NotComputable {
        /// The row's type.
        ty: GgmlType,
    },
    /// The bytes are no whole number of blocks.
    Ragged {
        /// The row's type.
        ty: GgmlType,
        /// Bytes given.
        bytes: usize,
    },
    /// The blocks hold more or fewer weights than there is room for.
    Length {
        /// The row's type.
        ty: GgmlType,
        /// Weights that the bytes hold.
        weights: usize,
        /// Weights that there is room for.
        room: usize,
    },
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotComputable { ty } => {
                write!(f, "type {ty} cannot be computed: requantize the tensor to a type that can")
            }
            Self::Ragged { ty, bytes } => write!(
                f,
                "expected whole blocks of {} bytes for type {ty}, found {bytes} bytes: give whole rows",
                ty.block_bytes()
            ),
            Self::Length { ty, weights, room } => write!(
                f,
                "expected room for the {weights} weights that the {ty} bytes hold, found room for {room}: \
                 make both the same"
            ),
        }
    }
}

impl core::error::Error for RowError {}

/// The bytes as blocks of one format, without a copy.
///
/// # Errors
/// [`RowError::Ragged`] where the bytes are no whole number of blocks.
pub fn blocks<B: Block>(bytes: &[u8]) -> Result<&[B], RowError> {
    bytemuck::try_cast_slice(bytes).map_err(|_| RowError::Ragged { ty: B::TYPE, bytes: bytes.len() })
}

fn dequantize_blocks<B: Block>(bytes: &[u8], out: &mut [f32]) -> Result<(), RowError> {
    let blocks = blocks::<B>(bytes)?;
    let weights = blocks.len().saturating_mul(B::LEN);
    if weights != out.len() {
        return Err(RowError::Length { ty: B::TYPE, weights, room: out.len() });
    }
    for (block, out) in blocks.iter().zip(out.chunks_exact_mut(B::LEN)) {
        block.dequantize(out);
    }
    Ok(())
}

/// What follows from the list.
macro_rules! list {
    ($($file:ident::$block:ident: $path:ident,)*) => {
        $(pub use $file::$block;)*

        // A block lies in the file as it lies in memory, at any address.
        $(const _: () = assert!(
            size_of::<$block>() == <$block as Block>::TYPE.block_bytes() && align_of::<$block>() == 1,
            concat!("the size or alignment of ", stringify!($block)),
        );)*

        impl GgmlType {
            /// The types whose weights this crate can compute.
            pub const COMPUTABLE: &'static [GgmlType] = &[$(<$block as Block>::TYPE),*];

            /// Whether this crate can compute the type's weights.
            pub const fn is_computable(self) -> bool {
                matches!(self, $(<$block as Block>::TYPE)|*)
            }
        }

        /// Writes the weights of a row (or of any whole blocks) of type `ty` to `out`, which must have room for
        /// just as many, exactly as ggml's own `to_float` gives them.
        ///
        /// # Errors
        /// [`RowError`] where the type cannot be computed or the lengths do not match.
        pub fn dequantize_row(ty: GgmlType, bytes: &[u8], out: &mut [f32]) -> Result<(), RowError> {
            match ty {
                $(<$block as Block>::TYPE => dequantize_blocks::<$block>(bytes, out),)*
                _ => Err(RowError::NotComputable { ty }),
            }
        }
    };
}
for_each_format!(list);

#[cfg(test)]
mod tests;
