//! AVX2 and the byte products of AVX-VNNI: laptops since Intel's Alder Lake and AMD's Zen 5.

use core::arch::x86_64::*;

use super::avx2::{avx2_words, codes_of_two_registers, parts_in_halves};
use super::x86::*;
use super::{Isa, rows_of_two_registers, words};

/// AVX2 with FMA, F16C and AVX-VNNI.
#[derive(Clone, Copy)]
pub struct AvxVnni(());

impl AvxVnni {
    /// # Safety
    /// The processor must have AVX2, FMA, F16C and AVX-VNNI.
    #[inline(always)]
    pub unsafe fn new() -> Self {
        AvxVnni(())
    }
}

impl Isa for AvxVnni {
    const DOTS: bool = true;
    const SIGNED_BIAS: i32 = 128;
    const COLUMNS: usize = 4;

    avx2_words!();
    codes_of_two_registers!();
    parts_in_halves!();
    rows_of_two_registers!();

    #[inline(always)]
    fn widen_sums(self, sums: [__m256i; 2]) -> [__m256i; 2] {
        sums
    }

    words! {
        fn dot_two_unsigned(u: [__m256i; 2], s: [__m256i; 2]) -> __m256i {
            _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), u[0], s[0]), u[1], s[1])
        }
        fn dot_two_signed(w: [__m256i; 2], s: [__m256i; 2]) -> __m256i {
            let a = _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), _mm256_abs_epi8(w[0]), _mm256_sign_epi8(s[0], w[0]));
            _mm256_dpbusd_avx_epi32(a, _mm256_abs_epi8(w[1]), _mm256_sign_epi8(s[1], w[1]))
        }
        fn add_dot_shorts(to: __m256i, a: __m256i, b: __m256i) -> __m256i {
            _mm256_dpwssd_avx_epi32(to, a, b)
        }
        fn add_products(to: [__m256i; 2], w: [__m256i; 2], x: [i8; 4]) -> [__m256i; 2] {
            let x = _mm256_set1_epi32(bytemuck::cast(x));
            [_mm256_dpbusd_avx_epi32(to[0], w[0], x), _mm256_dpbusd_avx_epi32(to[1], w[1], x)]
        }
        fn add_scaled_sums(to: [__m256i; 2], sums: [__m256i; 2], scales: &[[i16; 2]; 16]) -> [__m256i; 2] {
            // The upper of the two scales, widened, is a multiplier of 32 bits.
            let scales = scales.as_flattened().as_chunks::<16>().0;
            let low = _mm256_srai_epi32::<16>(_mm256_loadu_si256(p(&scales[0])));
            let high = _mm256_srai_epi32::<16>(_mm256_loadu_si256(p(&scales[1])));
            let (low, high) = (_mm256_mullo_epi32(sums[0], low), _mm256_mullo_epi32(sums[1], high));
            [_mm256_add_epi32(to[0], low), _mm256_add_epi32(to[1], high)]
        }
    }
}
