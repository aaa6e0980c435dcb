//! The vocabulary in AVX2, FMA and F16C: 32 codes are one register.

use core::arch::x86_64::*;

use super::x86::*;
use super::{Isa, rows_of_two_registers, words};

/// AVX2 with FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The processor must have AVX2, FMA and F16C.
    #[inline(always)]
    pub unsafe fn new() -> Self {
        Avx2(())
    }
}

/// `to` plus the products of pairs, as `_mm256_add_epi16(to, _mm256_maddubs_epi16(w, x))`, of both halves: written out, because
/// the compiler would make a tree of the sums of several such steps and spill most of them. Both products stand before the sums, which
/// then wait less.
#[inline]
#[target_feature(enable = "avx2")]
fn add_pair_products([low, high]: [__m256i; 2], w: [__m256i; 2], x: __m256i) -> [__m256i; 2] {
    let (mut low, mut high) = (low, high);
    // SAFETY: four instructions of AVX2 on registers.
    unsafe {
        core::arch::asm!(
            "vpmaddubsw {low_product}, {low_w}, {x}",
            "vpmaddubsw {high_product}, {high_w}, {x}",
            "vpaddw {low}, {low}, {low_product}",
            "vpaddw {high}, {high}, {high_product}",
            low_product = out(ymm_reg) _,
            high_product = out(ymm_reg) _,
            low = inout(ymm_reg) low,
            high = inout(ymm_reg) high,
            low_w = in(ymm_reg) w[0],
            high_w = in(ymm_reg) w[1],
            x = in(ymm_reg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    [low, high]
}

/// `to` plus `sums` times `scales`, pairs added, of both halves: written out, because the compiler would put it off until all columns'
/// sums are there, and spill them.
#[inline]
#[target_feature(enable = "avx2")]
fn add_scaled([low, high]: [__m256i; 2], sums: [__m256i; 2], scales: &[[i16; 2]; 16]) -> [__m256i; 2] {
    let (mut low, mut high) = (low, high);
    // SAFETY: four instructions of AVX2, of which the first two read the 64 bytes of `scales`.
    unsafe {
        core::arch::asm!(
            "vpmaddwd {low_product}, {low_sums}, [{scales}]",
            "vpmaddwd {high_product}, {high_sums}, [{scales} + 32]",
            "vpaddd {low}, {low}, {low_product}",
            "vpaddd {high}, {high}, {high_product}",
            low_product = out(ymm_reg) _,
            high_product = out(ymm_reg) _,
            low = inout(ymm_reg) low,
            high = inout(ymm_reg) high,
            low_sums = in(ymm_reg) sums[0],
            high_sums = in(ymm_reg) sums[1],
            scales = in(reg) scales,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    [low, high]
}

/// `to` plus the products of magnitudes and `x`, whose bits are inverted where the sign is negative, times `scales`.
#[inline]
#[target_feature(enable = "avx2")]
fn add_signed(to: __m256i, [magnitudes, signs]: [__m256i; 2], x: __m256i, scales: __m256i) -> __m256i {
    let mut to = to;
    // SAFETY: four instructions of AVX2 on registers.
    unsafe {
        core::arch::asm!(
            "vpxor {product}, {x}, {signs}",
            "vpmaddubsw {product}, {magnitudes}, {product}",
            "vpmaddwd {product}, {product}, {scales}",
            "vpaddd {to}, {to}, {product}",
            product = out(ymm_reg) _,
            to = inout(ymm_reg) to,
            magnitudes = in(ymm_reg) magnitudes,
            signs = in(ymm_reg) signs,
            x = in(ymm_reg) x,
            scales = in(ymm_reg) scales,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    to
}

/// The words that AVX2 has and the levels above it do not better.
macro_rules! avx2_words {
    () => {
        type Bytes = __m256i;
        type Shorts = __m256i;
        type Ints = __m256i;
        type Floats = __m256;

        words! {
            fn bytes(from: &[u8; 32]) -> __m256i { _mm256_loadu_si256(p(from)) }
            fn signed_bytes(from: &[i8; 32]) -> __m256i { _mm256_loadu_si256(p(from)) }
            fn nibbles(from: &[u8; 16]) -> __m256i {
                let twice = _mm256_broadcastsi128_si256(_mm_loadu_si128(from.as_ptr().cast()));
                let shifted = _mm256_srlv_epi64(twice, _mm256_setr_epi64x(0, 0, 4, 4));
                _mm256_and_si256(shifted, _mm256_set1_epi8(15))
            }
            fn nibbles_of_two(a: &[u8; 16], b: &[u8; 16]) -> [__m256i; 2] {
                let (a, b) = (_mm_loadu_si128(a.as_ptr().cast()), _mm_loadu_si128(b.as_ptr().cast()));
                let (both, mask) = (_mm256_set_m128i(b, a), _mm256_set1_epi8(15));
                [_mm256_and_si256(both, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask)]
            }
            fn exchange(a: __m256i, b: __m256i) -> [__m256i; 2] {
                [_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b)]
            }
            fn quarters(from: &[u8; 8]) -> __m256i {
                // Each byte in 32 bits; field k moves by 6 k bits into byte k.
                let wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.as_ptr().cast()));
                let two = _mm256_or_si256(wide, _mm256_slli_epi32::<12>(wide));
                let four = _mm256_or_si256(two, _mm256_slli_epi32::<6>(two));
                _mm256_and_si256(four, _mm256_set1_epi8(3))
            }
            fn eights<const N: usize>(table: &[[i8; 8]; N], at: [usize; 4]) -> __m256i { four_rows(table, at) }
            fn eights_of_bytes(table: &[[i8; 8]; 256], at: [u32; 2]) -> __m256i { four_rows_of_bytes(table, at) }
            fn fours_of_bytes(table: &[[i8; 4]; 256], at: [u32; 2]) -> __m256i { eight_short_rows_of_bytes(table, at) }
            fn eights_of_shorts<const N: usize>(table: &[[i8; 8]; N], at: u64) -> __m256i { four_rows_of_shorts(table, at) }
            fn fours_of_shorts<const N: usize>(table: &[[i8; 4]; N], at: [u64; 2]) -> __m256i {
                eight_short_rows_of_shorts(table, at)
            }
            fn second_fours(from: &[[u8; 8]; 8]) -> __m256i {
                let [a, b] = [0, 4].map(|at| _mm256_loadu_ps(from[at].as_ptr().cast()));
                let dealt = _mm256_castps_pd(_mm256_shuffle_ps::<0b11_01_11_01>(a, b));
                _mm256_castpd_si256(_mm256_permute4x64_pd::<0b11_01_10_00>(dealt))
            }
            fn second_bytes(from: &[[u8; 2]; 32]) -> __m256i {
                let [a, b] = [0, 16].map(|at| _mm256_srli_epi16::<8>(_mm256_loadu_si256(from[at].as_ptr().cast())));
                _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(a, b))
            }
            fn sevens(a: __m256i) -> __m256i {
                // Neighbours first: fields of 14 bits in halves, then of 7 in bytes.
                let low = _mm256_and_si256(a, _mm256_set1_epi32(0x3fff));
                let high = _mm256_and_si256(_mm256_slli_epi32::<2>(a), _mm256_set1_epi32(0x3fff_0000));
                let halves = _mm256_or_si256(low, high);
                let low = _mm256_and_si256(halves, _mm256_set1_epi16(0x7f));
                let high = _mm256_and_si256(_mm256_slli_epi16::<1>(halves), _mm256_set1_epi16(0x7f00));
                _mm256_or_si256(low, high)
            }
            fn twice(from: &[u8; 16]) -> __m256i {
                _mm256_broadcastsi128_si256(_mm_loadu_si128(from.as_ptr().cast()))
            }
            fn splat_four(four: [u8; 4]) -> __m256i { _mm256_set1_epi32(i32::from_le_bytes(four)) }
            fn splat_byte(byte: u8) -> __m256i { _mm256_set1_epi8(byte as i8) }
            fn field<const SHIFT: i32, const MASK: u8>(a: __m256i) -> __m256i {
                _mm256_and_si256(_mm256_srli_epi16::<SHIFT>(a), _mm256_set1_epi8(MASK as i8))
            }
            fn fields_of_halves<const FIRST: i32, const LAST: i32, const MASK: u8>(a: __m256i) -> __m256i {
                const { assert!(FIRST.signum() * LAST.signum() >= 0) };
                let (first, last) = (i64::from(FIRST.abs()), i64::from(LAST.abs()));
                let shifts = _mm256_setr_epi64x(first, first, last, last);
                let shifted = match FIRST + LAST {
                    0.. => _mm256_srlv_epi64(a, shifts),
                    _ => _mm256_sllv_epi64(a, shifts),
                };
                _mm256_and_si256(shifted, _mm256_set1_epi8(MASK as i8))
            }
            fn raise<const SHIFT: i32>(a: __m256i) -> __m256i { _mm256_slli_epi16::<SHIFT>(a) }
            fn or(a: __m256i, b: __m256i) -> __m256i { _mm256_or_si256(a, b) }
            fn and(a: __m256i, b: __m256i) -> __m256i { _mm256_and_si256(a, b) }
            fn add_bytes(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi8(a, b) }
            fn sub_bytes(a: __m256i, b: __m256i) -> __m256i { _mm256_subs_epu8(a, b) }
            fn triple_bytes(a: __m256i) -> __m256i { triple(a) }
            fn mean_bytes(a: __m256i, b: __m256i) -> __m256i { mean(a, b) }
            fn spread_bytes(four: u32) -> __m256i {
                _mm256_shuffle_epi8(
                    _mm256_set1_epi32(four as i32),
                    _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303),
                )
            }
            fn negate(a: __m256i, mask: __m256i) -> __m256i {
                _mm256_sub_epi8(_mm256_xor_si256(a, mask), mask)
            }
            fn lookup(table: &[i8; 16], codes: __m256i) -> __m256i {
                _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())), codes)
            }
            fn store_bytes(a: __m256i, to: &mut [u8; 32]) { _mm256_storeu_si256(to.as_mut_ptr().cast(), a) }
            fn deal(rows: [__m256i; 8]) -> [__m256i; 8] {
                // Transposes 8 x 8 integers of 32 bits: by pairs, by fours, by halves.
                let [a, b, c, d, e, f, g, h] = rows;
                let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
                let (ef, gh) = (_mm256_unpacklo_epi32(e, f), _mm256_unpacklo_epi32(g, h));
                let (ab2, cd2) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
                let (ef2, gh2) = (_mm256_unpackhi_epi32(e, f), _mm256_unpackhi_epi32(g, h));
                let low = [
                    _mm256_unpacklo_epi64(ab, cd),
                    _mm256_unpackhi_epi64(ab, cd),
                    _mm256_unpacklo_epi64(ab2, cd2),
                    _mm256_unpackhi_epi64(ab2, cd2),
                ];
                let high = [
                    _mm256_unpacklo_epi64(ef, gh),
                    _mm256_unpackhi_epi64(ef, gh),
                    _mm256_unpacklo_epi64(ef2, gh2),
                    _mm256_unpackhi_epi64(ef2, gh2),
                ];
                [
                    _mm256_permute2x128_si256::<0x20>(low[0], high[0]),
                    _mm256_permute2x128_si256::<0x20>(low[1], high[1]),
                    _mm256_permute2x128_si256::<0x20>(low[2], high[2]),
                    _mm256_permute2x128_si256::<0x20>(low[3], high[3]),
                    _mm256_permute2x128_si256::<0x31>(low[0], high[0]),
                    _mm256_permute2x128_si256::<0x31>(low[1], high[1]),
                    _mm256_permute2x128_si256::<0x31>(low[2], high[2]),
                    _mm256_permute2x128_si256::<0x31>(low[3], high[3]),
                ]
            }
            fn sixteens(a: __m256i) -> [__m256i; 2] {
                [
                    _mm256_cvtepi8_epi16(_mm256_castsi256_si128(a)),
                    _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(a)),
                ]
            }
            fn scale_sixteen(a: __m256i, by: i16) -> __m256i { _mm256_mullo_epi16(a, _mm256_set1_epi16(by)) }
            fn split_sixteens(a: [__m256i; 2]) -> [__m256i; 2] {
                let mask = _mm256_set1_epi16(0xff);
                let low = _mm256_packus_epi16(_mm256_and_si256(a[0], mask), _mm256_and_si256(a[1], mask));
                let high = _mm256_packus_epi16(_mm256_srli_epi16::<8>(a[0]), _mm256_srli_epi16::<8>(a[1]));
                [_mm256_permute4x64_epi64::<0b11_01_10_00>(low), _mm256_permute4x64_epi64::<0b11_01_10_00>(high)]
            }

            fn pairs_unsigned(u: __m256i, s: __m256i) -> __m256i { _mm256_maddubs_epi16(u, s) }
            fn pairs_signed(w: __m256i, s: __m256i) -> __m256i {
                _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(s, w))
            }
            fn add_shorts(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi16(a, b) }
            fn shorts(from: &[i16; 16]) -> __m256i { _mm256_loadu_si256(p(from)) }
            fn splat_pair(pair: [i16; 2]) -> __m256i { _mm256_set1_epi32(bytemuck::cast(pair)) }
            fn widen(from: &[i8; 16]) -> __m256i { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.as_ptr().cast())) }
            fn widen_twice(from: &[i8; 8]) -> __m256i {
                let eight = _mm_loadl_epi64(from.as_ptr().cast());
                _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(eight, eight))
            }
            fn scales_of_32(scales: &[i8; 8]) -> __m256i {
                _mm256_broadcastsi128_si256(_mm_cvtepi8_epi16(_mm_loadl_epi64(scales.as_ptr().cast())))
            }
            fn scales_of_16(scales: &[i8; 16]) -> __m256i {
                dealt_scales(_mm_loadu_si128(scales.as_ptr().cast()))
            }
            fn cross_bits(bits: __m256i) -> __m256i {
                let places = _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
                _mm256_shuffle_epi8(bits, _mm256_broadcastsi128_si256(places))
            }
            fn pick<const PART: usize>(scales: __m256i) -> __m256i { pick::<PART>(scales) }
            fn odd_uppermost(fours: __m256i) -> __m256i {
                let upper = _mm256_srli_epi32::<28>(fours);
                let odd = _mm256_or_si256(_mm256_add_epi32(upper, upper), _mm256_set1_epi32(1));
                let dealt = _mm256_permutevar8x32_epi32(odd, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
                _mm256_packus_epi32(dealt, dealt)
            }
            fn eight_scales_and_mins(packed: &[u8; 12]) -> __m256i {
                let packed = twelve_bytes(packed);
                // The first four scales, the last four's lower bits, and the minimums likewise.
                let low = _mm_shuffle_epi8(
                    packed,
                    _mm_setr_epi8(0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 8, 9, 10, 11),
                );
                let low = _mm_and_si128(
                    _mm_srlv_epi32(low, _mm_setr_epi32(0, 0, 0, 4)),
                    _mm_setr_epi32(0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f),
                );
                let upper = _mm_and_si128(_mm_srli_epi32::<2>(packed), _mm_set1_epi8(0x30));
                let upper = _mm_shuffle_epi8(
                    upper,
                    _mm_setr_epi8(-1, -1, -1, -1, 0, 1, 2, 3, -1, -1, -1, -1, 4, 5, 6, 7),
                );
                dealt_scales(_mm_or_si128(low, upper))
            }
            fn eight_scales(head: &[u8; 8]) -> __m256i {
                // Even ones in the first four bytes, odd ones in those behind the eighth.
                let head = _mm_loadl_epi64(head.as_ptr().cast());
                let low = _mm_srlv_epi32(_mm_shuffle_epi32::<0b01_01_01_01>(head), _mm_setr_epi32(0, 0, 4, 4));
                let low = _mm_and_si128(low, _mm_set1_epi8(0x0f));
                // Of each byte, four fields of two bits: first the lower two raised by four bits, then all as they are.
                let upper = _mm_unpacklo_epi8(_mm_slli_epi16::<4>(head), head);
                let upper = _mm_srlv_epi32(_mm_shuffle_epi32::<0b01_01_01_01>(upper), _mm_setr_epi32(0, 0, 2, 2));
                let upper = _mm_and_si128(upper, _mm_set1_epi8(0x30));
                _mm256_cvtepi8_epi16(_mm_sub_epi8(_mm_or_si128(low, upper), _mm_set1_epi8(32)))
            }
            fn sixteen_scales(packed: &[u8; 12]) -> [__m256i; 2] {
                let packed = twelve_bytes(packed);
                let low = _mm_shuffle_epi32::<0b01_00_01_00>(packed);
                let low = _mm_and_si128(
                    _mm_srlv_epi32(low, _mm_setr_epi32(0, 0, 4, 4)),
                    _mm_set1_epi8(0x0f),
                );
                let upper = _mm_shuffle_epi32::<0b10_10_10_10>(packed);
                let upper = _mm_and_si128(
                    _mm_srlv_epi32(upper, _mm_setr_epi32(0, 2, 4, 6)),
                    _mm_set1_epi8(0x03),
                );
                let scales = _mm_or_si128(low, _mm_slli_epi32::<4>(upper));
                let scales = _mm_sub_epi8(scales, _mm_set1_epi8(32));
                [dealt_scales(scales), _mm256_cvtepi8_epi16(scales)]
            }

            fn zero_ints() -> __m256i { _mm256_setzero_si256() }
            fn splat_int(a: i32) -> __m256i { _mm256_set1_epi32(a) }
            fn ints(from: &[i32; 8]) -> __m256i { _mm256_loadu_si256(p(from)) }
            fn store_ints(a: __m256i, to: &mut [i32; 8]) { _mm256_storeu_si256(to.as_mut_ptr().cast(), a) }
            fn add_ints(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
            fn sub_ints(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi32(a, b) }
            fn shl_ints<const SHIFT: i32>(a: __m256i) -> __m256i { _mm256_slli_epi32::<SHIFT>(a) }
            fn sum_each(a: &[__m256i; 8]) -> __m256i {
                let low = sum_four(a[0], a[1], a[2], a[3]);
                let high = sum_four(a[4], a[5], a[6], a[7]);
                _mm256_add_epi32(
                    _mm256_permute2x128_si256::<0x20>(low, high),
                    _mm256_permute2x128_si256::<0x31>(low, high),
                )
            }
            fn sum_halves(a: &[__m256i; 4]) -> __m256i { sum_four(a[0], a[1], a[2], a[3]) }
            fn sum_pairs(a: __m256i, b: __m256i) -> __m256i {
                let (a, b) = (_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
                let [even, odd] = [
                    _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(a, b)),
                    _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(a, b)),
                ];
                _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_add_epi32(even, odd))
            }
            fn to_floats(a: __m256i) -> __m256 { _mm256_cvtepi32_ps(a) }

            fn floats(from: &[f32; 8]) -> __m256 { _mm256_loadu_ps(from.as_ptr()) }
            fn halves(from: &[u8; 16]) -> __m256 { _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())) }
            fn halves_of(bits: &[u16; 8]) -> __m256 { _mm256_cvtph_ps(_mm_loadu_si128(bits.as_ptr().cast())) }
            fn halves_of_blocks(blocks: &[u8], at: usize) -> __m256 { _mm256_cvtph_ps(shorts_of_blocks(blocks, at)) }
            fn brains(from: &[u8; 16]) -> __m256 {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            }
            fn splat(a: f32) -> __m256 { _mm256_set1_ps(a) }
            fn store(a: __m256, to: &mut [f32; 8]) { _mm256_storeu_ps(to.as_mut_ptr(), a) }
            fn to_halves(a: __m256) -> [u16; 8] {
                let mut to = [0; 8];
                _mm_storeu_si128(to.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a));
                to
            }
            fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
            fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
            fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
            fn div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
            fn fma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
            fn max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
            fn min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
            fn select_less(a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
                _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
            }
            fn round(a: __m256) -> __m256 {
                _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
            }
            fn exp2_integer(a: __m256) -> __m256 {
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(a), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
            }
            fn max_magnitude(a: __m256) -> f32 {
                let bits = _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(MAGNITUDE));
                let four = _mm_max_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256::<1>(bits));
                let two = _mm_max_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
                let one = _mm_max_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two));
                f32::from_bits(_mm_cvtsi128_si32(one) as u32)
            }
            fn max_magnitudes(a: __m256, b: __m256) -> __m256 {
                let mask = _mm256_set1_epi32(MAGNITUDE);
                _mm256_castsi256_ps(_mm256_max_epi32(
                    _mm256_and_si256(_mm256_castps_si256(a), mask),
                    _mm256_and_si256(_mm256_castps_si256(b), mask),
                ))
            }
            fn sum(a: __m256) -> f32 {
                let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
            }
            fn sum_each_floats(a: &[__m256; 8]) -> __m256 {
                // Lower halves of 0 to 3, upper halves of 4 to 7, each register folded once; then folded by pairs, then by lanes.
                let once = [
                    fold_two(a[0], a[4]), fold_two(a[1], a[5]), fold_two(a[2], a[6]), fold_two(a[3], a[7]),
                ];
                let [low, high] = [fold_pairs(once[0], once[1]), fold_pairs(once[2], once[3])];
                _mm256_add_ps(
                    _mm256_shuffle_ps::<0b10_00_10_00>(low, high),
                    _mm256_shuffle_ps::<0b11_01_11_01>(low, high),
                )
            }
            fn sum_fours(a: __m256) -> [f32; 2] {
                let pairs = _mm256_add_ps(a, _mm256_movehdup_ps(a));
                let fours = _mm256_add_ps(pairs, _mm256_permute_ps::<2>(pairs));
                [_mm256_cvtss_f32(fours), _mm_cvtss_f32(_mm256_extractf128_ps::<1>(fours))]
            }
            fn to_codes(a: [__m256; 4]) -> __m256i {
                let low = _mm256_packs_epi32(_mm256_cvtps_epi32(a[0]), _mm256_cvtps_epi32(a[1]));
                let high = _mm256_packs_epi32(_mm256_cvtps_epi32(a[2]), _mm256_cvtps_epi32(a[3]));
                let packed = _mm256_packs_epi16(low, high);
                _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
            }
            fn code_floats(from: &[i8; 8]) -> __m256 {
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.as_ptr().cast())))
            }
            fn max_lane(a: __m256) -> f32 {
                let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
                let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
            }
        }

        #[inline(always)]
        fn spread_bits(self, mask: u32) -> __m256i {
            let bytes = self.spread_bytes(mask);
            // SAFETY: a value of the level's type proves that the processor has AVX2.
            unsafe { where_bits(bytes) }
        }

        #[inline(always)]
        fn prefetch(self, at: *const u8, ahead: usize) {
            // SAFETY: a prefetch reads nothing as far as the program can see and faults at no address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(ahead).cast()) }
        }
    };
}
pub(super) use avx2_words;

/// The words on a panel's sixteen rows of codes, for levels that hold them as two registers.
macro_rules! codes_of_two_registers {
    () => {
        type RowCodes = [__m256i; 2];
        /// Of 16 bits, a pair of neighbours for each row; of 32, where the level has dot products.
        type RowSums = [__m256i; 2];

        words! {
            fn row_codes(from: &[[u8; 4]; 16]) -> [__m256i; 2] {
                let from = from.as_flattened().as_chunks::<32>().0;
                [_mm256_loadu_si256(p(&from[0])), _mm256_loadu_si256(p(&from[1]))]
            }
            fn no_sums() -> [__m256i; 2] { [_mm256_setzero_si256(); 2] }
        }
    };
}
pub(super) use codes_of_two_registers;

/// The words on what lies apart for each part, for levels without masks of a bit for each byte.
macro_rules! parts_in_halves {
    () => {
        words! {
            fn for_parts(a: __m256i) -> [__m256i; 2] {
                [_mm256_permute4x64_epi64::<0b01_00_01_00>(a), _mm256_permute4x64_epi64::<0b11_10_11_10>(a)]
            }
        }

        #[inline(always)]
        fn add_to_part<const PART: usize>(self, a: __m256i, apart: [__m256i; 2]) -> __m256i {
            // SAFETY: a value of the level's type proves that the processor has AVX2.
            self.add_bytes(a, unsafe { spread::<PART>(apart[PART / 4]) })
        }

        #[inline(always)]
        fn negate_part<const PART: usize>(self, a: __m256i, signs: [__m256i; 2]) -> __m256i {
            // SAFETY: a value of the level's type proves that the processor has AVX2.
            self.negate(a, unsafe { where_bits(spread::<PART>(signs[PART / 4])) })
        }

        #[inline(always)]
        fn load_negated<const PART: usize>(self, parts: &[[i8; 32]; 8], signs: [__m256i; 2]) -> __m256i {
            // SAFETY: a value of the level's type proves that the processor has AVX2.
            unsafe { load_negated::<PART>(parts, signs[PART / 4]) }
        }
    };
}
pub(super) use parts_in_halves;

impl Isa for Avx2 {
    const DOTS: bool = false;
    const PAIRS: bool = true;
    const SIGNED_BIAS: i32 = 0;
    const COLUMNS: usize = 4;

    avx2_words!();
    codes_of_two_registers!();
    parts_in_halves!();
    rows_of_two_registers!();

    words! {
        fn dot_two_unsigned(u: [__m256i; 2], s: [__m256i; 2]) -> __m256i {
            let pairs = _mm256_add_epi16(_mm256_maddubs_epi16(u[0], s[0]), _mm256_maddubs_epi16(u[1], s[1]));
            _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
        }
        fn sum_products(u: &[[__m256i; 2]; 4], s: [[&[i8; 32]; 2]; 4]) -> __m256i {
            // All sixteen products of a sum fit 16 bits.
            let mut sums = [_mm256_setzero_si256(); 4];
            for i in 0..4 {
                sums[i] = _mm256_add_epi16(
                    _mm256_maddubs_epi16(u[i][0], _mm256_loadu_si256(p(s[i][0]))),
                    _mm256_maddubs_epi16(u[i][1], _mm256_loadu_si256(p(s[i][1]))),
                );
            }
            let [a, b, c, d] = sums;
            let ab = _mm256_add_epi16(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let cd = _mm256_add_epi16(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
            let sums = _mm256_add_epi16(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
            _mm256_madd_epi16(sums, _mm256_set1_epi16(1))
        }
        fn dot_two_signed(w: [__m256i; 2], s: [__m256i; 2]) -> __m256i {
            let one = _mm256_set1_epi16(1);
            let a = _mm256_maddubs_epi16(_mm256_abs_epi8(w[0]), _mm256_sign_epi8(s[0], w[0]));
            let b = _mm256_maddubs_epi16(_mm256_abs_epi8(w[1]), _mm256_sign_epi8(s[1], w[1]));
            _mm256_add_epi32(_mm256_madd_epi16(a, one), _mm256_madd_epi16(b, one))
        }
        fn add_dot_shorts(to: __m256i, a: __m256i, b: __m256i) -> __m256i {
            _mm256_add_epi32(to, _mm256_madd_epi16(a, b))
        }
        fn add_products(to: [__m256i; 2], w: [__m256i; 2], x: [i8; 4]) -> [__m256i; 2] {
            let x = _mm256_set1_epi32(bytemuck::cast(x));
            add_pair_products(to, w, x)
        }
        fn first_products(w: [__m256i; 2], x: [i8; 4]) -> [__m256i; 2] {
            let x = _mm256_set1_epi32(bytemuck::cast(x));
            [_mm256_maddubs_epi16(w[0], x), _mm256_maddubs_epi16(w[1], x)]
        }
        fn split_signs(a: __m256i) -> [__m256i; 2] {
            [_mm256_abs_epi8(a), _mm256_cmpgt_epi8(_mm256_setzero_si256(), a)]
        }
        fn add_signed_products(
            to: [__m256i; 2],
            w: [[__m256i; 2]; 2],
            x: [i8; 4],
            scales: &[[i16; 2]; 16]
        ) -> [__m256i; 2] {
            let x = _mm256_set1_epi32(bytemuck::cast(x));
            let scales = scales.as_flattened().as_chunks::<16>().0;
            [
                add_signed(to[0], [w[0][0], w[1][0]], x, _mm256_loadu_si256(p(&scales[0]))),
                add_signed(to[1], [w[0][1], w[1][1]], x, _mm256_loadu_si256(p(&scales[1]))),
            ]
        }
        fn add_to_pairs(sums: [__m256i; 2], pair: [i16; 2]) -> [__m256i; 2] {
            let pair = _mm256_set1_epi32(bytemuck::cast(pair));
            [_mm256_add_epi16(sums[0], pair), _mm256_add_epi16(sums[1], pair)]
        }
        fn widen_sums(sums: [__m256i; 2]) -> [__m256i; 2] {
            let one = _mm256_set1_epi16(1);
            [_mm256_madd_epi16(sums[0], one), _mm256_madd_epi16(sums[1], one)]
        }
        fn add_scaled_sums(to: [__m256i; 2], sums: [__m256i; 2], scales: &[[i16; 2]; 16]) -> [__m256i; 2] {
            add_scaled(to, sums, scales)
        }
    }
}
