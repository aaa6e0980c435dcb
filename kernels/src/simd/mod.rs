//! What a processor can say: one small vocabulary, and a file for each instruction set that speaks it.
//!
//! Every loop of this crate is written once over [`Isa`] and compiled once for each level. The words of decode are 32
//! codes wide (each coded ggml block is a multiple of 32): AVX2 holds that in one register, NEON in two, the scalar
//! level in an array. Those of prefill are sixteen rows wide (`tile.rs`). Integer words are exact, and float words
//! round once, as IEEE 754 says, so **every level gives the same bits**; [`scalar`] is the specification.
//!
//! Loops over the vocabulary are functions of their own, `#[inline(always)]`, and `for` loops: a closure (in `map`,
//! `from_fn`, iterator adaptors) is compiled for the plain processor wherever the compiler leaves it out of line, its
//! words then are calls, and the loop is many times slower.
//!
//! A value of a level's type proves that the processor has what the level needs: [`Level::detect`] is the only
//! place that asks.

#[cfg_attr(not(target_arch = "x86_64"), path = "amx_absent.rs")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
#[cfg(target_arch = "x86_64")]
pub mod avx_vnni;
pub(crate) mod level;
mod macros;
pub(crate) mod matrix;
#[cfg(target_arch = "aarch64")]
pub mod neon;
#[cfg(target_arch = "aarch64")]
pub mod neon_dotprod;
#[cfg(target_arch = "aarch64")]
pub mod neon_i8mm;
pub mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use level::Level;
use macros::rows_of_two_registers;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use macros::words;

#[cfg(test)]
mod tests;

/// The vocabulary of an instruction set.
///
/// Value ranges are part of a word's meaning: a word with a stated range may give anything outside it, though never
/// undefined behaviour.
pub trait Isa: Copy {
    /// 32 codes of 8 bits.
    type Bytes: Copy;
    /// 16 integers of 16 bits.
    type Shorts: Copy;
    /// 8 integers of 32 bits.
    type Ints: Copy;
    /// 8 floats of 32 bits.
    type Floats: Copy;
    /// Four codes of 8 bits for each of 16 rows.
    type RowCodes: Copy;
    /// Sums of products of codes for each of 16 rows, as wide as [`Isa::DOTS`] says.
    type RowSums: Copy;
    /// An integer of 32 bits for each of 16 rows.
    type RowInts: Copy;
    /// A float of 32 bits for each of 16 rows.
    type RowFloats: Copy;

    /// Whether the processor adds up four products of bytes in 32 bits. Then [`Isa::RowSums`] hold any number of
    /// products; otherwise they have 16 bits, and hold [`crate::quant::Codes::sums_in_16_bits`] pairs.
    const DOTS: bool;
    /// Whether [`Isa::RowSums`] are two sums of 16 bits for each row, which wrap: of the first two of each four codes, and of
    /// the last two.
    const PAIRS: bool = false;
    /// What is added to signed codes in a panel, where the processor multiplies only unsigned with signed ones: 128 or 0.
    const SIGNED_BIAS: i32;
    /// Columns that a panel is multiplied with at a time, as registers allow: 4 or 8.
    const COLUMNS: usize;

    // ---- codes

    /// 32 bytes from memory.
    fn bytes(self, from: &[u8; 32]) -> Self::Bytes;
    /// 32 signed bytes from memory.
    fn signed_bytes(self, from: &[i8; 32]) -> Self::Bytes;
    /// The low nibbles of 16 bytes, then their high nibbles.
    fn nibbles(self, from: &[u8; 16]) -> Self::Bytes;
    /// The low nibbles of twice 16 bytes, and their high nibbles.
    fn nibbles_of_two(self, a: &[u8; 16], b: &[u8; 16]) -> [Self::Bytes; 2];
    /// The first sixteen of `a` and of `b`, and the last sixteen of both.
    fn exchange(self, a: Self::Bytes, b: Self::Bytes) -> [Self::Bytes; 2];
    /// Bytes `4 j` to `4 j + 3` are the four two-bit fields of byte `j`, the lowest first.
    fn quarters(self, from: &[u8; 8]) -> Self::Bytes;
    /// The second four bytes of each eight.
    fn second_fours(self, from: &[[u8; 8]; 8]) -> Self::Bytes;
    /// The second byte of each two.
    fn second_bytes(self, from: &[[u8; 2]; 32]) -> Self::Bytes;
    /// The lower 28 bits of each four bytes (little-endian) as bytes of seven bits.
    fn sevens(self, a: Self::Bytes) -> Self::Bytes;
    /// 16 bytes twice.
    fn twice(self, from: &[u8; 16]) -> Self::Bytes;
    /// Four bytes eight times.
    fn splat_four(self, four: [u8; 4]) -> Self::Bytes;
    /// The same byte 32 times.
    fn splat_byte(self, byte: u8) -> Self::Bytes;
    /// Byte by byte `(a >> SHIFT) & MASK`, where `MASK` keeps none of the bits that come from a neighbour:
    /// `MASK <= 0xFF >> SHIFT`.
    fn field<const SHIFT: i32, const MASK: u8>(self, a: Self::Bytes) -> Self::Bytes;
    /// [`Isa::field`] with a `SHIFT` of `FIRST` for the first sixteen bytes and of `LAST` for the last, both to the left where they are
    /// negative.
    fn fields_of_halves<const FIRST: i32, const LAST: i32, const MASK: u8>(
        self,
        a: Self::Bytes,
    ) -> Self::Bytes;
    /// Byte by byte `a << SHIFT`, where no byte overflows.
    fn raise<const SHIFT: i32>(self, a: Self::Bytes) -> Self::Bytes;
    /// Bitwise or.
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Bitwise and.
    fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Byte by byte `a + b`, wrapping.
    fn add_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Difference of unsigned bytes, 0 where it is negative.
    fn sub_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Mean of unsigned bytes, halves rounded up.
    fn mean_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Byte `i` is byte `i / 8` of the integer, the lowest first.
    fn spread_bytes(self, four: u32) -> Self::Bytes;
    /// Byte by byte `-a` (wrapping) where `mask` is `0xFF`, `a` where it is 0.
    fn negate(self, a: Self::Bytes, mask: Self::Bytes) -> Self::Bytes;
    /// Byte `i` is `0xFF` where bit `i` of `mask` is set, else 0.
    fn spread_bits(self, mask: u32) -> Self::Bytes;
    /// Byte `i` is `table[codes[i]]`, for codes below 16.
    fn lookup(self, table: &[i8; 16], codes: Self::Bytes) -> Self::Bytes;
    /// Writes the 32 bytes.
    fn store_bytes(self, a: Self::Bytes, to: &mut [u8; 32]);
    /// Four bytes `q` of all eight go to `q`: quads of eight rows become rows of eight quads.
    fn deal(self, rows: [Self::Bytes; 8]) -> [Self::Bytes; 8];
    /// The 32 signed bytes as integers of 16 bits, the first sixteen and the last.
    fn sixteens(self, a: Self::Bytes) -> [Self::Bytes; 2];
    /// The 16 integers of 16 bits times `by`, within 16 bits.
    fn scale_sixteen(self, a: Self::Bytes, by: i16) -> Self::Bytes;
    /// The lower bytes of 32 integers of 16 bits, and their upper bytes.
    fn split_sixteens(self, a: [Self::Bytes; 2]) -> [Self::Bytes; 2];

    // ---- products of codes

    /// Products of unsigned codes (0 to 127) and signed ones (-127 to 127), neighbours added: lane `i` is
    /// `u[2i] s[2i] + u[2i+1] s[2i+1]`.
    fn pairs_unsigned(self, u: Self::Bytes, s: Self::Bytes) -> Self::Shorts;
    /// Products of signed codes, `w` from -128 to 127 and `s` from -127 to 127, neighbours added.
    fn pairs_signed(self, w: Self::Bytes, s: Self::Bytes) -> Self::Shorts;
    /// Products of unsigned codes (0 to 63) and signed ones (-127 to 127), added up in fours: lane `i` has those of codes `4
    /// i` to `4 i + 3` of both registers.
    fn dot_two_unsigned(self, u: [Self::Bytes; 2], s: [Self::Bytes; 2]) -> Self::Ints;
    /// The same for signed codes, `w` from -128 to 127 and `s` from -127 to 127.
    fn dot_two_signed(self, w: [Self::Bytes; 2], s: [Self::Bytes; 2]) -> Self::Ints;
    /// Sums of products of unsigned codes (0 to 15) and signed ones (-127 to 127): lane `i` is that of the first sixteen of both
    /// registers of `u[i]`, lane `4 + i` that of their last.
    #[inline(always)]
    fn sum_products(self, u: &[[Self::Bytes; 2]; 4], s: [[&[i8; 32]; 2]; 4]) -> Self::Ints {
        let mut dots = [self.zero_ints(); 4];
        for i in 0..4 {
            dots[i] = self.dot_two_unsigned(u[i], [self.signed_bytes(s[i][0]), self.signed_bytes(s[i][1])]);
        }
        self.sum_halves(&dots)
    }
    /// 16 integers from memory.
    fn shorts(self, from: &[i16; 16]) -> Self::Shorts;
    /// Lane by lane sum, wrapping.
    fn add_shorts(self, a: Self::Shorts, b: Self::Shorts) -> Self::Shorts;
    /// Products in 32 bits, neighbours added to `to`: lane `i` is `to[i] + a[2i] b[2i] + a[2i+1] b[2i+1]`.
    fn add_dot_shorts(self, to: Self::Ints, a: Self::Shorts, b: Self::Shorts) -> Self::Ints;
    /// The same pair of integers eight times.
    fn splat_pair(self, pair: [i16; 2]) -> Self::Shorts;
    /// 16 signed bytes, widened.
    fn widen(self, from: &[i8; 16]) -> Self::Shorts;
    /// 8 signed bytes, each twice in a row, widened.
    fn widen_twice(self, from: &[i8; 8]) -> Self::Shorts;
    /// One signed byte for each 32 weights of a superblock, widened, as [`Isa::pick`] wants it.
    fn scales_of_32(self, scales: &[i8; 8]) -> Self::Shorts;
    /// One signed byte for each 16 weights of a superblock, widened, as [`Isa::pick`] wants it: the even ones, then the odd ones.
    fn scales_of_16(self, scales: &[i8; 16]) -> Self::Shorts;
    /// The scales of part `PART` (32 weights), each over the eight lanes of its sixteen weights' products; of crossed parts those of
    /// part `2 PART` and the next.
    fn pick<const PART: usize>(self, scales: Self::Shorts) -> Self::Shorts;

    // ---- integers

    /// Eight zeros.
    fn zero_ints(self) -> Self::Ints;
    /// The same integer eight times.
    fn splat_int(self, a: i32) -> Self::Ints;
    /// 8 integers from memory.
    fn ints(self, from: &[i32; 8]) -> Self::Ints;
    /// Lane by lane sum, wrapping.
    fn add_ints(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// Lane by lane difference, wrapping.
    fn sub_ints(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// Writes the 8 integers.
    fn store_ints(self, a: Self::Ints, to: &mut [i32; 8]);
    /// Lane by lane `a << SHIFT`.
    fn shl_ints<const SHIFT: i32>(self, a: Self::Ints) -> Self::Ints;
    /// Lane `i` is the sum of the lanes of `a[i]`, wrapping.
    fn sum_each(self, a: &[Self::Ints; 8]) -> Self::Ints;
    /// Lane `i` is the sum of the lower four lanes of `a[i]`, lane `4 + i` that of the upper four, wrapping.
    fn sum_halves(self, a: &[Self::Ints; 4]) -> Self::Ints;
    /// The sums of neighbours, of `a` and then of `b`, wrapping.
    fn sum_pairs(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// Each integer as the nearest float, ties to even.
    fn to_floats(self, a: Self::Ints) -> Self::Floats;

    // ---- floats

    /// 8 floats from memory.
    fn floats(self, from: &[f32; 8]) -> Self::Floats;
    /// 8 half-precision floats from memory, little-endian, widened.
    fn halves(self, from: &[u8; 16]) -> Self::Floats;
    /// 8 half-precision floats given by their bits, widened.
    fn halves_of(self, bits: &[u16; 8]) -> Self::Floats;
    /// The half-precision floats, little-endian, at byte `at` of each of eight blocks one behind the other, widened.
    #[inline(always)]
    fn halves_of_blocks(self, blocks: &[u8], at: usize) -> Self::Floats {
        let mut halves = [0; 8];
        for (half, block) in halves.iter_mut().zip(blocks.chunks_exact(blocks.len() / 8)) {
            *half = u16::from_le_bytes([block[at], block[at + 1]]);
        }
        self.halves_of(&halves)
    }
    /// 8 brain floats from memory, little-endian, widened.
    fn brains(self, from: &[u8; 16]) -> Self::Floats;
    /// The same float eight times.
    fn splat(self, a: f32) -> Self::Floats;
    /// Writes the 8 floats.
    fn store(self, a: Self::Floats, to: &mut [f32; 8]);
    /// The floats rounded to half precision, ties to even.
    fn to_halves(self, a: Self::Floats) -> [u16; 8];
    /// `a + b`.
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a - b`.
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b`.
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a / b`.
    fn div(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `if a > b { a } else { b }`: where one is NaN, `b`.
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `if a < b { a } else { b }`: where one is NaN, `b`.
    fn min(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `if a < b { yes } else { no }`.
    fn select_less(
        self,
        a: Self::Floats,
        b: Self::Floats,
        yes: Self::Floats,
        no: Self::Floats,
    ) -> Self::Floats;
    /// The nearest integer, ties to even.
    fn round(self, a: Self::Floats) -> Self::Floats;
    /// Two to the power of `a`, an integer from -126 to 127.
    fn exp2_integer(self, a: Self::Floats) -> Self::Floats;
    /// The largest magnitude of the lanes; NaN where one is NaN.
    fn max_magnitude(self, a: Self::Floats) -> f32;
    /// Lane by lane the larger magnitude; NaN where one is NaN.
    fn max_magnitudes(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The sum of the lanes in one fixed order: `((0+4) + (2+6)) + ((1+5) + (3+7))`.
    fn sum(self, a: Self::Floats) -> f32;
    /// The sums of the lower four lanes and of the upper four: `(0+1) + (2+3)`, `(4+5) + (6+7)`.
    fn sum_fours(self, a: Self::Floats) -> [f32; 2];
    /// Integers from -127 to 127 as bytes: four registers to 32 codes in their order.
    fn to_codes(self, a: [Self::Floats; 4]) -> Self::Bytes;
    /// 8 signed bytes from memory, as floats.
    fn code_floats(self, from: &[i8; 8]) -> Self::Floats;
    /// The largest of the lanes; of lanes that are NaN, anything.
    fn max_lane(self, a: Self::Floats) -> f32;

    // ---- sixteen rows of a panel

    /// Four codes of each row.
    fn row_codes(self, from: &[[u8; 4]; 16]) -> Self::RowCodes;
    /// No products yet.
    fn no_sums(self) -> Self::RowSums;
    /// Adds the products of each row's four codes (0 to 127; with [`Isa::DOTS`] as [`Isa::SIGNED_BIAS`] leaves them; with neither that
    /// nor [`Isa::PAIRS`] signed ones too) and four signed ones (-127 to 127).
    fn add_products(self, to: Self::RowSums, w: Self::RowCodes, x: [i8; 4]) -> Self::RowSums;
    /// The sums in 32 bits.
    fn widen_sums(self, sums: Self::RowSums) -> Self::RowInts;
    /// Adds the sums in 32 bits, times each row's scale, which stands there twice.
    fn add_scaled_sums(
        self,
        to: Self::RowInts,
        sums: Self::RowSums,
        scales: &[[i16; 2]; 16],
    ) -> Self::RowInts;
    /// The same integer for each row.
    fn splat_rows(self, a: i32) -> Self::RowInts;
    /// An integer of each row from memory.
    fn row_ints(self, from: &[i32; 16]) -> Self::RowInts;
    /// Row by row `a << SHIFT`.
    fn shl_rows<const SHIFT: i32>(self, a: Self::RowInts) -> Self::RowInts;
    /// Row by row sum, wrapping.
    fn add_rows(self, a: Self::RowInts, b: Self::RowInts) -> Self::RowInts;
    /// Row by row difference, wrapping.
    fn sub_rows(self, a: Self::RowInts, b: Self::RowInts) -> Self::RowInts;
    /// Adds the products of each row's two integers and the two of `x`.
    fn add_pairs(self, to: Self::RowInts, w: &[[i16; 2]; 16], x: &[i16; 2]) -> Self::RowInts;
    /// Each integer as the nearest float, ties to even.
    fn row_ints_to_floats(self, a: Self::RowInts) -> Self::RowFloats;
    /// A float of each row from memory.
    fn row_floats(self, from: &[f32; 16]) -> Self::RowFloats;
    /// 16 half-precision floats given by their bits, widened.
    fn row_halves(self, bits: &[u16; 16]) -> Self::RowFloats;
    /// 16 brain floats given by their bits, widened.
    fn row_brains(self, bits: &[u16; 16]) -> Self::RowFloats;
    /// 16 signed bytes from memory, as floats.
    fn row_code_floats(self, from: &[i8; 16]) -> Self::RowFloats;
    /// Writes each row's float.
    fn store_row_floats(self, a: Self::RowFloats, to: &mut [f32; 16]);
    /// The same float for each row.
    fn splat_row_floats(self, a: f32) -> Self::RowFloats;
    /// Row by row `a + b`.
    fn add_row_floats(self, a: Self::RowFloats, b: Self::RowFloats) -> Self::RowFloats;
    /// Row by row `a * b`.
    fn mul_row_floats(self, a: Self::RowFloats, b: Self::RowFloats) -> Self::RowFloats;
    /// Row by row `a * b + c`, rounded once.
    fn fma_row_floats(self, a: Self::RowFloats, b: Self::RowFloats, c: Self::RowFloats) -> Self::RowFloats;
    /// Lane `i` is the sum of rows `i` and `i + 8`.
    fn fold_row_floats(self, a: Self::RowFloats) -> Self::Floats;

    /// Asks for the cache line `ahead` bytes behind `at`, which need not be readable.
    #[inline(always)]
    fn prefetch(self, at: *const u8, ahead: usize) {
        let _ = (at, ahead);
    }

    // ---- words made of words

    /// One signed byte for each 32 weights of a superblock whose parts lie crossed ([`crate::activations::Form::Crossed`]), as
    /// [`Isa::scales_of_16`] gives the first eight of sixteen.
    #[inline(always)]
    fn scales_of_crossed(self, scales: &[i8; 8]) -> Self::Shorts {
        self.scales_of_16(&bytemuck::cast([*scales, [0; 8]]))
    }

    /// Eight scales and behind them eight minimums, of 6 bits each and packed as in Q4_K, as [`Isa::scales_of_16`] gives sixteen.
    #[inline(always)]
    fn eight_scales_and_mins(self, packed: &[u8; 12]) -> Self::Shorts {
        let (scales, mins) = crate::quant::q4_k::scales_and_mins(packed);
        self.scales_of_16(&bytemuck::cast([scales, mins]))
    }

    /// Eight scales of 6 bits, less 32, packed as behind the first two of these bytes of IQ4_XS, as [`Isa::scales_of_crossed`].
    #[inline(always)]
    fn eight_scales(self, head: &[u8; 8]) -> Self::Shorts {
        self.scales_of_crossed(&crate::quant::iq4_xs::scales(head))
    }

    /// Sixteen scales of 6 bits, packed as in Q3_K: as [`Isa::scales_of_16`] and as [`Isa::widen`] give them.
    #[inline(always)]
    fn sixteen_scales(self, packed: &[u8; 12]) -> [Self::Shorts; 2] {
        let scales = crate::quant::q3_k::scales(packed);
        [self.scales_of_16(&scales), self.widen(&scales)]
    }

    /// [`Isa::add_products`] to no products yet.
    #[inline(always)]
    fn first_products(self, w: Self::RowCodes, x: [i8; 4]) -> Self::RowSums {
        self.add_products(self.no_sums(), w, x)
    }

    /// Magnitudes and signs (`0xFF` where negative) of signed bytes, where the level has [`Isa::PAIRS`].
    #[inline(always)]
    fn split_signs(self, a: Self::Bytes) -> [Self::Bytes; 2] {
        const { assert!(!Self::PAIRS) };
        [a; 2]
    }

    /// Adds the products of each row's four codes, given by magnitudes and such signs, and four signed ones, times each row's
    /// scale, where the level has [`Isa::PAIRS`]; too small by the sum of the negative codes' magnitudes, times the scale.
    #[inline(always)]
    fn add_signed_products(
        self,
        to: Self::RowInts,
        w: [Self::RowCodes; 2],
        x: [i8; 4],
        scales: &[[i16; 2]; 16],
    ) -> Self::RowInts {
        const { assert!(!Self::PAIRS) };
        let _ = (w, x, scales);
        to
    }

    /// Adds the same pair to the sums of each row, where the level has [`Isa::PAIRS`].
    #[inline(always)]
    fn add_to_pairs(self, sums: Self::RowSums, pair: [i16; 2]) -> Self::RowSums {
        const { assert!(!Self::PAIRS) };
        let _ = pair;
        sums
    }

    /// Lane `i` is [`Isa::sum`] of `a[i]`.
    #[inline(always)]
    fn sum_each_floats(self, a: &[Self::Floats; 8]) -> Self::Floats {
        let mut sums = [0.0; 8];
        for (sum, &a) in sums.iter_mut().zip(a) {
            *sum = self.sum(a);
        }
        self.floats(&sums)
    }

    /// Writes the 32 signed bytes.
    #[inline(always)]
    fn store_signed_bytes(self, a: Self::Bytes, to: &mut [i8; 32]) {
        self.store_bytes(a, bytemuck::cast_mut(to));
    }

    /// Rows `at` (modulo the table's length, a power of two) of a table, four of eight bytes.
    #[inline(always)]
    fn eights<const N: usize>(self, table: &[[i8; 8]; N], at: [usize; 4]) -> Self::Bytes {
        let mut rows = [[0; 8]; 4];
        for (row, at) in rows.iter_mut().zip(at) {
            *row = table[at % N];
        }
        self.signed_bytes(&bytemuck::cast(rows))
    }

    /// Rows `at` (modulo the table's length, a power of two) of a table, eight of four bytes.
    #[inline(always)]
    fn fours<const N: usize>(self, table: &[[i8; 4]; N], at: [usize; 8]) -> Self::Bytes {
        let mut rows = [[0; 4]; 8];
        for (row, at) in rows.iter_mut().zip(at) {
            *row = table[at % N];
        }
        self.signed_bytes(&bytemuck::cast(rows))
    }

    /// [`Isa::eights`] at the lower two bytes of each integer, the lowest first.
    #[inline(always)]
    fn eights_of_bytes(self, table: &[[i8; 8]; 256], at: [u32; 2]) -> Self::Bytes {
        let [[a, b, ..], [c, d, ..]] = at.map(u32::to_le_bytes);
        self.eights(table, [a, b, c, d].map(usize::from))
    }

    /// [`Isa::fours`] at the four bytes of each integer, the lowest first.
    #[inline(always)]
    fn fours_of_bytes(self, table: &[[i8; 4]; 256], at: [u32; 2]) -> Self::Bytes {
        self.fours(table, bytemuck::cast::<_, [u8; 8]>(at.map(u32::to_le_bytes)).map(usize::from))
    }

    /// [`Isa::eights`] at four integers of 16 bits, the lowest first.
    #[inline(always)]
    fn eights_of_shorts<const N: usize>(self, table: &[[i8; 8]; N], at: u64) -> Self::Bytes {
        self.eights(table, [0, 16, 32, 48].map(|shift| usize::from((at >> shift) as u16)))
    }

    /// [`Isa::fours`] at four integers of 16 bits and four others by turns, the lowest first.
    #[inline(always)]
    fn fours_of_shorts<const N: usize>(self, table: &[[i8; 4]; N], at: [u64; 2]) -> Self::Bytes {
        let mut by_turns = [0; 8];
        for (i, by_turns) in by_turns.iter_mut().enumerate() {
            *by_turns = usize::from((at[i % 2] >> (i / 2 * 16)) as u16);
        }
        self.fours(table, by_turns)
    }

    /// Byte by byte `3 a`, wrapping.
    #[inline(always)]
    fn triple_bytes(self, a: Self::Bytes) -> Self::Bytes {
        self.add_bytes(a, self.add_bytes(a, a))
    }

    /// The bytes as eight integers, little-endian.
    #[inline(always)]
    fn fours_of(self, a: Self::Bytes) -> [u32; 8] {
        let mut bytes = [0; 32];
        self.store_bytes(a, &mut bytes);
        bytemuck::cast::<_, [[u8; 4]; 8]>(bytes).map(u32::from_le_bytes)
    }
    /// `2 n + 1` for the uppermost nibble `n` of each four bytes (little-endian), as [`Isa::scales_of_crossed`] gives
    /// integers.
    #[inline(always)]
    fn odd_uppermost(self, fours: Self::Bytes) -> Self::Shorts {
        self.scales_of_crossed(&self.fours_of(fours).map(|four| 2 * (four >> 28) as i8 + 1))
    }
    /// Bits of parts that lie one after the other, in the order of parts that lie crossed.
    #[inline(always)]
    fn cross_bits(self, bits: Self::Bytes) -> Self::Bytes {
        let mut bytes = [0; 32];
        self.store_bytes(bits, &mut bytes);
        for two in bytes.as_chunks_mut::<8>().0 {
            let [a, b, c, d, e, f, g, h] = *two;
            *two = [a, b, e, f, c, d, g, h];
        }
        self.bytes(&bytes)
    }
    /// Four bytes for each part of a superblock, as the words on a part take them.
    #[inline(always)]
    fn for_parts(self, a: Self::Bytes) -> [Self::Bytes; 2] {
        [a; 2]
    }
    /// The bytes of part `PART` (32 weights), to each eight of them their byte added, wrapping.
    #[inline(always)]
    fn add_to_part<const PART: usize>(self, a: Self::Bytes, apart: [Self::Bytes; 2]) -> Self::Bytes {
        self.add_bytes(a, self.spread_bytes(self.fours_of(apart[0])[PART]))
    }
    /// The signed bytes of part `PART` (32 weights), those negated whose bit is set.
    #[inline(always)]
    fn negate_part<const PART: usize>(self, a: Self::Bytes, signs: [Self::Bytes; 2]) -> Self::Bytes {
        self.negate_where(a, self.fours_of(signs[0])[PART])
    }
    /// [`Isa::negate_part`] of a part where it lies.
    #[inline(always)]
    fn load_negated<const PART: usize>(self, parts: &[[i8; 32]; 8], signs: [Self::Bytes; 2]) -> Self::Bytes {
        self.negate_part::<PART>(self.signed_bytes(&parts[PART]), signs)
    }
    /// The signed bytes, those negated whose bit in `mask` is set.
    #[inline(always)]
    fn negate_where(self, a: Self::Bytes, mask: u32) -> Self::Bytes {
        self.negate(a, self.spread_bits(mask))
    }

    /// The products of `STEPS` times four codes of each row with those of `F` times four columns, added up: the
    /// microkernel of `gemm.rs`.
    #[inline(always)]
    fn products<const STEPS: usize, const F: usize>(
        self,
        w: &[[[u8; 4]; 16]; STEPS],
        x: &[&[[[i8; 4]; 4]; STEPS]; F],
    ) -> [[Self::RowSums; 4]; F] {
        let mut sums = [[self.no_sums(); 4]; F];
        // Written out: what the compiler leaves a loop counts on the ports that multiply.
        unrolled!(STEP in [0, 1, 2, 3, 4, 5, 6, 7] {
            if STEP < STEPS {
                let w = self.row_codes(&w[STEP]);
                for f in 0..F {
                    for c in 0..4 {
                        let x = x[f][STEP][c];
                        sums[f][c] = match STEP {
                            0 => self.first_products(w, x),
                            _ => self.add_products(sums[f][c], w, x),
                        };
                    }
                }
            }
        });
        sums
    }

    /// `e` to the power of `a`, within 2 units in the last place; 0 below -87.3, infinite above 88.7, NaN of NaN.
    ///
    /// A polynomial of degree 6 after reduction to `|r| <= ln 2 / 2` (Cody and Waite's two-part ln 2).
    #[inline(always)]
    fn exp(self, a: Self::Floats) -> Self::Floats {
        let n = self.round(self.mul(a, self.splat(core::f32::consts::LOG2_E)));
        // min and max turn NaN into a number; the last line turns it back.
        let n = self.min(self.max(n, self.splat(-126.0)), self.splat(127.0));
        let r = self.fma(n, self.splat(-0.693_359_4), a);
        let r = self.fma(n, self.splat(2.121_944_4e-4), r);
        let mut p = self.splat(1.388_888_9e-3);
        for c in [8.333_334e-3, 4.166_666_8e-2, 1.666_666_7e-1, 0.5, 1.0, 1.0] {
            p = self.fma(p, r, self.splat(c));
        }
        let e = self.mul(p, self.exp2_integer(n));
        let e = self.select_less(a, self.splat(-87.3), self.splat(0.0), e);
        let e = self.select_less(self.splat(88.7), a, self.splat(f32::INFINITY), e);
        // NaN - NaN and inf - inf: only a NaN argument must survive, so add 0 * a for the finite range of e.
        self.select_less(a, self.splat(f32::INFINITY), e, a)
    }

    /// `e` to the power of `a`, for `a` that is not positive: the bits of [`Isa::exp`], in fewer steps.
    #[inline(always)]
    fn exp_negative(self, a: Self::Floats) -> Self::Floats {
        self.exp_negative_each([a])[0]
    }

    /// The same of some registers, which take each step together: one alone waits for itself.
    #[inline(always)]
    fn exp_negative_each<const N: usize>(self, a: [Self::Floats; N]) -> [Self::Floats; N] {
        let mut n = a;
        for n in &mut n {
            *n =
                self.max(self.round(self.mul(*n, self.splat(core::f32::consts::LOG2_E))), self.splat(-126.0));
        }
        let mut r = a;
        for i in 0..N {
            r[i] = self.fma(n[i], self.splat(-0.693_359_4), r[i]);
        }
        for i in 0..N {
            r[i] = self.fma(n[i], self.splat(2.121_944_4e-4), r[i]);
        }
        let mut p = [self.splat(1.388_888_9e-3); N];
        for c in [8.333_334e-3, 4.166_666_8e-2, 1.666_666_7e-1, 0.5, 1.0, 1.0] {
            for i in 0..N {
                p[i] = self.fma(p[i], r[i], self.splat(c));
            }
        }
        for i in 0..N {
            let e = self.mul(p[i], self.exp2_integer(n[i]));
            // NaN comes through: it is less than nothing.
            p[i] = self.select_less(a[i], self.splat(-87.3), self.splat(0.0), e);
        }
        p
    }
}

/// What is left of values that come `N` at a time, followed by `fill`.
#[inline(always)]
pub(crate) fn filled<T: Copy, const N: usize>(left: &[T], fill: T) -> [T; N] {
    let mut last = [fill; N];
    let len = left.len().min(N);
    last[..len].copy_from_slice(&left[..len]);
    last
}

/// A loop's body once for each number, a constant in it.
macro_rules! unrolled {
    ($i:ident in [$($number:literal),+] $body:block) => { $({ const $i: usize = $number; $body })+ };
}
pub(crate) use unrolled;
