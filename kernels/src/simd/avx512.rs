//! AVX-512 with VNNI (Intel since Ice Lake, AMD since Zen 4): AVX2's words with better products, and a panel's sixteen
//! rows in one register.

use core::arch::x86_64::*;

use super::avx2::avx2_words;
use super::x86::*;
use super::{Isa, words};

/// AVX-512 F, BW, DQ, VL and VNNI beside AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The processor must have AVX2, FMA, F16C, and AVX-512 F, BW, DQ, VL and VNNI.
    #[inline(always)]
    pub unsafe fn new() -> Self {
        Avx512(())
    }
}

/// `_mm256_dpwssd_epi32`: written out, because the compiler makes two instructions of it.
#[inline]
#[target_feature(enable = "avx512vl,avx512vnni")]
fn add_dots(to: __m256i, a: __m256i, b: __m256i) -> __m256i {
    let mut to = to;
    // SAFETY: an instruction of VNNI on registers.
    unsafe {
        core::arch::asm!(
            "vpdpwssd {to}, {a}, {b}",
            to = inout(ymm_reg) to,
            a = in(ymm_reg) a,
            b = in(ymm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    to
}

/// `_mm512_dpwssd_epi32` with `x` for every row: written out, because the compiler makes three instructions of it to
/// shorten a chain that nothing waits for.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn add_pair_products(to: __m512i, w: __m512i, x: &[i16; 2]) -> __m512i {
    let mut to = to;
    // SAFETY: an instruction of VNNI that reads the four bytes of `x`.
    unsafe {
        core::arch::asm!(
            "vpdpwssd {to}, {w}, dword ptr [{x}]{{1to16}}",
            to = inout(zmm_reg) to,
            w = in(zmm_reg) w,
            x = in(reg) x,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    to
}

impl Isa for Avx512 {
    type RowCodes = __m512i;
    type RowSums = __m512i;
    type RowInts = __m512i;
    type RowFloats = __m512;

    const DOTS: bool = true;
    const SIGNED_BIAS: i32 = 128;
    const COLUMNS: usize = 8;

    avx2_words!();

    #[inline(always)]
    fn negate_where(self, a: __m256i, mask: u32) -> __m256i {
        // SAFETY: a value of the level's type proves that the processor has the instruction.
        unsafe { _mm256_mask_sub_epi8(a, mask, _mm256_setzero_si256(), a) }
    }

    #[inline(always)]
    fn widen_sums(self, sums: __m512i) -> __m512i {
        sums
    }

    words! {
        fn dot_two_unsigned(u: [__m256i; 2], s: [__m256i; 2]) -> __m256i {
            _mm256_dpbusd_epi32(_mm256_dpbusd_epi32(_mm256_setzero_si256(), u[0], s[0]), u[1], s[1])
        }
        fn dot_two_signed(w: [__m256i; 2], s: [__m256i; 2]) -> __m256i {
            let a = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_abs_epi8(w[0]), _mm256_sign_epi8(s[0], w[0]));
            _mm256_dpbusd_epi32(a, _mm256_abs_epi8(w[1]), _mm256_sign_epi8(s[1], w[1]))
        }
        fn add_dot_shorts(to: __m256i, a: __m256i, b: __m256i) -> __m256i { add_dots(to, a, b) }
        fn row_codes(from: &[[u8; 4]; 16]) -> __m512i { _mm512_loadu_si512(from.as_ptr().cast()) }
        fn no_sums() -> __m512i { _mm512_setzero_si512() }
        fn add_products(to: __m512i, w: __m512i, x: [i8; 4]) -> __m512i {
            _mm512_dpbusd_epi32(to, w, _mm512_set1_epi32(bytemuck::cast(x)))
        }
        fn add_scaled_sums(to: __m512i, sums: __m512i, scales: &[[i16; 2]; 16]) -> __m512i {
            // The upper of the two scales, widened, is a multiplier of 32 bits.
            let wide = _mm512_srai_epi32::<16>(_mm512_loadu_si512(scales.as_ptr().cast()));
            _mm512_add_epi32(to, _mm512_mullo_epi32(sums, wide))
        }
        fn splat_rows(a: i32) -> __m512i { _mm512_set1_epi32(a) }
        fn row_ints(from: &[i32; 16]) -> __m512i { _mm512_loadu_si512(from.as_ptr().cast()) }
        fn shl_rows<const SHIFT: i32>(a: __m512i) -> __m512i { _mm512_sllv_epi32(a, _mm512_set1_epi32(SHIFT)) }
        fn add_rows(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
        fn sub_rows(a: __m512i, b: __m512i) -> __m512i { _mm512_sub_epi32(a, b) }
        fn add_pairs(to: __m512i, w: &[[i16; 2]; 16], x: &[i16; 2]) -> __m512i {
            add_pair_products(to, _mm512_loadu_si512(w.as_ptr().cast()), x)
        }
        fn row_ints_to_floats(a: __m512i) -> __m512 { _mm512_cvtepi32_ps(a) }
        fn row_floats(from: &[f32; 16]) -> __m512 { _mm512_loadu_ps(from.as_ptr()) }
        fn row_halves(bits: &[u16; 16]) -> __m512 { _mm512_cvtph_ps(_mm256_loadu_si256(p(bits))) }
        fn row_brains(bits: &[u16; 16]) -> __m512 {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p(bits)));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
        fn row_code_floats(from: &[i8; 16]) -> __m512 {
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast())))
        }
        fn store_row_floats(a: __m512, to: &mut [f32; 16]) { _mm512_storeu_ps(to.as_mut_ptr(), a) }
        fn splat_row_floats(a: f32) -> __m512 { _mm512_set1_ps(a) }
        fn add_row_floats(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn mul_row_floats(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn fma_row_floats(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn fold_row_floats(a: __m512) -> __m256 {
            _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a))
        }
    }
}
