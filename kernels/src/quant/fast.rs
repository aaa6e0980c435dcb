//! What the integer loops ask of a format: codes as bytes and their scales, in the words of an instruction set.
//!
//! A format says by one of three words in the list how its products are computed: [`Scaled`] and [`Superblock`]
//! in integers, `Plain` by way of [`super::Block::dequantize`] in floats.

use super::Block;
use crate::simd::Isa;

/// How the codes of a format may be multiplied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codes {
    /// From 0 to this largest code (at most 127); the weight is a multiple of `code - OFFSET`.
    Unsigned(u8),
    /// From -128 to 127; the weight is a multiple of the code.
    Signed,
}

impl Codes {
    /// How many pair products of such codes with 8-bit activations may be added up in 16 bits: a power of two.
    pub const fn sums_in_16_bits(self) -> usize {
        match self {
            Codes::Unsigned(0..=15) => 8,
            Codes::Unsigned(16..=31) => 4,
            Codes::Unsigned(32..=63) => 2,
            Codes::Unsigned(_) | Codes::Signed => 1,
        }
    }
}

/// Formats whose every 32 weights have one float scale: `w = scale (code - OFFSET) + min`.
pub trait Scaled: Block {
    /// The range of the codes.
    const CODES: Codes;
    /// What is subtracted from every code: zero or a power of two.
    const OFFSET: i32 = 0;
    /// Whether the format has minimums.
    const MINS: bool = false;
    /// Parts of 32 weights in a block: 1, 2, 4 or 8.
    const PARTS: usize = Self::LEN / 32;

    /// The codes of part `part`.
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes;
    /// The scale of part `part`.
    fn scale(&self, part: usize) -> f32;
    /// The minimum of part `part`.
    fn min(&self, part: usize) -> f32 {
        let _ = part;
        0.0
    }
    /// The scales of eight parts in a row: `8 / PARTS` blocks.
    fn scales<I: Isa>(isa: I, blocks: &[Self]) -> I::Floats;
    /// The minimums of eight parts in a row.
    fn mins<I: Isa>(isa: I, blocks: &[Self]) -> I::Floats {
        let _ = blocks;
        isa.splat(0.0)
    }
}

/// The half-precision numbers of eight parts in a row, where each block of type `B` has one.
#[inline(always)]
pub(super) fn halves_of_parts<I: Isa, B: Scaled>(
    isa: I,
    blocks: &[B],
    bits: impl Fn(&B) -> [u8; 2],
) -> I::Floats {
    let mut of = [0; 8];
    for (part, bits_of) in of.iter_mut().enumerate() {
        *bits_of = u16::from_le_bytes(bits(&blocks[part / B::PARTS]));
    }
    isa.halves_of(&of)
}

/// Formats of 256 weights with one float scale and an integer scale for every 16 weights:
/// `w = scale group_scale (code - OFFSET) - min_scale group_min`.
pub trait Superblock: Block {
    /// The range of the codes.
    const CODES: Codes;
    /// What is subtracted from every code: zero or a power of two.
    const OFFSET: i16 = 0;
    /// Whether the format has minimums; then `OFFSET` is zero.
    const MINS: bool = false;
    /// Weights that share a group scale: 16 or 32.
    const GROUP: usize;

    /// The codes of weights `32 part ..` (part 0 to 7).
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes;
    /// The scale of the whole superblock.
    fn scale(&self) -> f32;
    /// The integer scale of each 16 weights.
    fn group_scales(&self) -> [i8; 16];
    /// The scale of the minimums.
    fn min_scale(&self) -> f32 {
        0.0
    }
    /// The integer minimum of each 16 weights.
    fn group_mins(&self) -> [i8; 16] {
        [0; 16]
    }
}

/// Scales of 32 weights each, as scales of 16.
#[inline(always)]
pub(super) fn twice(scales: [u8; 8]) -> [i8; 16] {
    core::array::from_fn(|i| scales[i / 2] as i8)
}
