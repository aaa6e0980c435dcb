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

/// A float of a block, as the block keeps it.
#[derive(Clone, Copy)]
pub enum Scale<'a> {
    /// Half precision, little-endian.
    Half(&'a [u8; 2]),
    /// Some other way.
    Float(f32),
}

/// Eight scales, from blocks of one format.
#[inline(always)]
pub(crate) fn eight<'a, I: Isa>(isa: I, scale: impl Fn(usize) -> Scale<'a>) -> I::Floats {
    // Put together in general registers: the vector ones' shuffles are what decode has least of.
    let (mut halves, mut floats) = ([0_u64; 2], [0.0; 8]);
    for i in 0..8 {
        match scale(i) {
            Scale::Half(bits) => halves[i / 4] |= u64::from(u16::from_le_bytes(*bits)) << (16 * (i % 4)),
            Scale::Float(float) => floats[i] = float,
        }
    }
    // Blocks of one format all answer in one way: the other arm is compiled away.
    match scale(0) {
        Scale::Half(_) => isa.halves_of(&bytemuck::cast(halves.map(u64::to_le))),
        Scale::Float(_) => isa.floats(&floats),
    }
}

/// A scale of each of eight neighbours.
#[inline(always)]
pub(crate) fn eight_of_blocks<I: Isa, B: Block>(
    isa: I,
    blocks: &[B; 8],
    scale: impl Fn(&B) -> Scale<'_>,
) -> I::Floats {
    match scale(&blocks[0]) {
        Scale::Half(half) => {
            let at = half.as_ptr().addr().wrapping_sub(blocks.as_ptr().addr());
            isa.halves_of_blocks(bytemuck::bytes_of(blocks), at)
        }
        Scale::Float(_) => eight(isa, |i| scale(&blocks[i])),
    }
}

/// [`Block::unpack`] of blocks of one weight: eight at a time by words of the instruction set. A macro, since no closure may
/// hold a word.
macro_rules! unpack_eights {
    ($isa:ident, $blocks:ident, $out:ident, |$eight:ident| $floats:expr) => {
        let (eights, left) = $blocks.as_chunks::<8>();
        let (out_eights, out_left) = $out.split_at_mut(8 * eights.len());
        for ($eight, out) in eights.iter().zip(out_eights.as_chunks_mut().0) {
            $isa.store($floats, out);
        }
        for (block, out) in left.iter().zip(out_left) {
            block.dequantize(core::slice::from_mut(out));
        }
    };
}
pub(crate) use unpack_eights;

/// Formats whose every 32 weights, or 16, have one float scale: `w = scale (code - OFFSET) + min`.
pub trait Scaled: Block {
    /// The range of the codes.
    const CODES: Codes;
    /// What is subtracted from every code.
    const OFFSET: i32 = 0;
    /// Whether the format has minimums.
    const MINS: bool = false;
    /// Weights that share a scale: 32; or 16, and then there are no minimums.
    const GROUP: usize = 32;
    /// Parts of 32 weights in a block: 1, 2, 4 or 8.
    const PARTS: usize = Self::LEN / 32;

    /// The codes of part `part`.
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes;
    /// The codes of a part of each of two blocks: the first sixteen of both, and the last sixteen of both. Where groups are of
    /// 16: of the two parts of a block, their even eights and their odd ones.
    #[inline(always)]
    fn load_two<I: Isa>(isa: I, a: (&Self, usize), b: (&Self, usize)) -> [I::Bytes; 2] {
        isa.exchange(a.0.load_codes(isa, a.1), b.0.load_codes(isa, b.1))
    }
    /// The scale of group `group`.
    fn scale(&self, group: usize) -> Scale<'_>;
    /// The minimum.
    fn min(&self) -> Scale<'_> {
        Scale::Float(0.0)
    }
}

/// An integer for each group of a superblock's weights.
#[derive(Clone, Copy)]
pub enum Groups {
    /// For each 16 weights.
    Of16([i8; 16]),
    /// For each 32 weights.
    Of32([i8; 8]),
}

impl Groups {
    /// As [`Isa::pick`] takes them.
    #[inline(always)]
    fn to_pick<I: Isa>(self, isa: I) -> I::Shorts {
        match self {
            Groups::Of16(groups) => isa.scales_of_16(&groups),
            Groups::Of32(groups) => isa.scales_of_32(&groups),
        }
    }

    /// One for each 16 weights.
    #[inline(always)]
    fn of_each_16<I: Isa>(self, isa: I) -> I::Shorts {
        match self {
            Groups::Of16(groups) => isa.widen(&groups),
            Groups::Of32(groups) => isa.widen_twice(&groups),
        }
    }
}

/// Formats of 256 weights with one float scale and an integer scale for each group of 16 or 32:
/// `w = UNIT scale group_scale (code - OFFSET) - min_scale group_min`.
pub trait Superblock: Block {
    /// The range of the codes.
    const CODES: Codes;
    /// What is subtracted from every code.
    const OFFSET: i16 = 0;
    /// Whether the loops put codes together of magnitudes and [`Superblock::signs`]: `code = OFFSET +- magnitude`.
    const SIGNS: bool = false;
    /// Whether the loops add [`Superblock::shifts`] to the codes.
    const SHIFTS: bool = false;
    /// Whether groups have scales of their own; without, all are 1, and no code is above 15.
    const SCALES: bool = true;
    /// Whether the format has minimums; then `OFFSET` is zero.
    const MINS: bool = false;
    /// Weights that share a group scale: 16 or 32.
    const GROUP: usize;
    /// Whether [`Superblock::load_two`] gives parts crossed ([`crate::activations::Form::Crossed`]): for scales of 32 weights, and no offset.
    const CROSSED: bool = false;
    /// Factor of the scale: a power of two.
    const UNIT: f32 = 1.0;

    /// A bit for each weight, set where it is negative: those of a part in four bytes, the lowest first.
    #[inline(always)]
    fn signs<I: Isa>(&self, isa: I) -> I::Bytes {
        isa.splat_byte(0)
    }
    /// A byte for each eight weights, which is added to their codes.
    #[inline(always)]
    fn shifts<I: Isa>(&self, isa: I) -> I::Bytes {
        isa.splat_byte(0)
    }
    /// The codes of weights `32 part ..` (part 0 to 7), or with [`Superblock::SIGNS`] their magnitudes, with
    /// [`Superblock::SHIFTS`] what the shifts are added to.
    fn load_codes<I: Isa>(&self, isa: I, part: usize) -> I::Bytes;
    /// The codes of parts `2 pair` and the next; where they are crossed, the first sixteen of both, then the last sixteen of both.
    #[inline(always)]
    fn load_two<I: Isa>(&self, isa: I, pair: usize) -> [I::Bytes; 2] {
        const { assert!(!Self::CROSSED) };
        [self.load_codes(isa, 2 * pair), self.load_codes(isa, 2 * pair + 1)]
    }
    /// The scale of the whole superblock.
    fn scale(&self) -> Scale<'_>;
    /// The integer scales, one for each group.
    fn group_scales(&self) -> Groups;
    /// The scale of the minimums.
    fn min_scale(&self) -> Scale<'_> {
        Scale::Float(0.0)
    }
    /// The integer minimums, one for each group.
    fn group_mins(&self) -> Groups {
        Groups::Of32([0; 8])
    }
    /// The group scales as [`Isa::pick`] takes them.
    #[inline(always)]
    fn load_scales<I: Isa>(&self, isa: I) -> I::Shorts {
        const { assert!(!Self::CROSSED) };
        self.group_scales().to_pick(isa)
    }
    /// [`Superblock::load_scales`], and, for each of [`crate::activations::Sums::of_16`], what it is multiplied with: the group minimums,
    /// or without such the group scales, for the offset.
    #[inline(always)]
    fn load_groups<I: Isa>(&self, isa: I) -> [I::Shorts; 2] {
        let of_sums = if Self::MINS { self.group_mins() } else { self.group_scales() };
        [self.load_scales(isa), of_sums.of_each_16(isa)]
    }
}
