//! Pieces that words of several levels of x86 are made of, all of them AVX2.

use core::arch::x86_64::*;

use super::unrolled;

#[inline(always)]
pub(super) const fn p<T>(from: &T) -> *const __m256i {
    (from as *const T).cast()
}

/// Twelve bytes, and four zeros.
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
pub(super) unsafe fn twelve_bytes(from: &[u8; 12]) -> __m128i {
    let [_, _, last] = bytemuck::cast::<_, [[u8; 4]; 3]>(*from);
    // SAFETY: the caller promises AVX2; the load reads the first eight of the bytes.
    unsafe {
        let first = _mm_loadl_epi64(from.as_ptr().cast());
        _mm_insert_epi32::<2>(first, i32::from_le_bytes(last))
    }
}

/// The scales of groups of 16 widened, the even sixteens' in the lower half, the odd ones' in the upper.
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
pub(super) unsafe fn dealt_scales(scales: __m128i) -> __m256i {
    // SAFETY: the caller promises AVX2.
    unsafe {
        let places = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
        _mm256_cvtepi8_epi16(_mm_shuffle_epi8(scales, places))
    }
}

/// The sums of four registers' 128-bit lanes: lane `i` of each half is the sum of that half of the `i`-th register.
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
pub(super) unsafe fn sum_four(a: __m256i, b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    // SAFETY: the caller promises AVX2.
    unsafe {
        let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd))
    }
}

/// The two bytes at byte `at` of each of eight blocks one behind the other.
///
/// # Safety
/// The processor must have AVX.
#[inline(always)]
pub(super) unsafe fn shorts_of_blocks(blocks: &[u8], at: usize) -> __m128i {
    let apart = blocks.len() / 8;
    // Two bytes less than a block from one to the next put those of block `i` in place `i`; the eighth sixteen then end with the
    // blocks at the latest.
    let sixteen =
        |i: usize| blocks[i * (apart - 2) + at..].first_chunk::<16>().map_or([0; 16], |&bytes| bytes);
    // SAFETY: the caller promises AVX; loads are of arrays of sixteen bytes.
    unsafe {
        let mut shorts = _mm_loadu_si128(sixteen(0).as_ptr().cast());
        unrolled!(I in [1, 2, 3, 4, 5, 6, 7] {
            shorts = _mm_blend_epi16::<{ 1 << I }>(shorts, _mm_loadu_si128(sixteen(I).as_ptr().cast()));
        });
        shorts
    }
}

/// The lower half of `a` plus its upper one; above it the same of `b`.
///
/// # Safety
/// The processor must have AVX.
#[inline(always)]
pub(super) unsafe fn fold_two(a: __m256, b: __m256) -> __m256 {
    // SAFETY: the caller promises AVX.
    unsafe { _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b)) }
}

/// In each half, the lower two lanes of `a` plus its upper two; above them the same of `b`.
///
/// # Safety
/// The processor must have AVX.
#[inline(always)]
pub(super) unsafe fn fold_pairs(a: __m256, b: __m256) -> __m256 {
    // SAFETY: the caller promises AVX.
    unsafe {
        let (a, b) = (_mm256_castps_pd(a), _mm256_castps_pd(b));
        _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)), _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)))
    }
}

/// Places of the bytes of the `part`-th of eight integers of 16 bits, for all eight lanes of a half.
static PICKS: [[u8; 32]; 8] = {
    let mut picks = [[0; 32]; 8];
    let mut i = 0;
    while i < 256 {
        picks[i / 32][i % 32] = (i / 32 * 2 + i % 2) as u8;
        i += 1;
    }
    picks
};

/// [`Isa::pick`] by one shuffle: the compiler would make two of it where both halves are the same.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn pick<const PART: usize>(scales: __m256i) -> __m256i {
    shuffle::<PART>(&PICKS, scales)
}

/// Places of the bytes of the `part`-th of eight integers of 32 bits, each for eight lanes, in halves that hold four of them.
static SPREADS: [[u8; 32]; 8] = {
    let mut spreads = [[0; 32]; 8];
    let mut i = 0;
    while i < 256 {
        spreads[i / 32][i % 32] = (i % 128 / 8) as u8;
        i += 1;
    }
    spreads
};

/// The bytes of integer `PART`, each eight times, from halves that hold its four: the compiler would take three shuffles from the
/// register before the halves were doubled.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn spread<const PART: usize>(halves: __m256i) -> __m256i {
    shuffle::<PART>(&SPREADS, halves)
}

/// `_mm256_shuffle_epi8` by row `ROW` of a table: written out, so that the compiler does not see what it does.
#[inline]
#[target_feature(enable = "avx2")]
fn shuffle<const ROW: usize>(table: &'static [[u8; 32]; 8], bytes: __m256i) -> __m256i {
    const { assert!(ROW < 8) };
    let to;
    // SAFETY: an instruction of AVX2 that reads 32 bytes of a table, at an index below its length.
    unsafe {
        core::arch::asm!(
            "vpshufb {to}, {bytes}, [{table} + {offset}]",
            to = out(ymm_reg) to,
            bytes = in(ymm_reg) bytes,
            table = in(reg) table,
            offset = const 32 * ROW,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    to
}

/// Byte `i` is `0xFF` where bit `i % 8` of byte `i` is set, else 0.
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
pub(super) unsafe fn where_bits(bytes: __m256i) -> __m256i {
    // SAFETY: the caller promises AVX2.
    unsafe {
        let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
        _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit)
    }
}

/// `_mm256_avg_epu8`: written out, because the compiler makes three instructions of a mean with nothing.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn mean(a: __m256i, b: __m256i) -> __m256i {
    let to;
    // SAFETY: an instruction of AVX2 on registers.
    unsafe {
        core::arch::asm!(
            "vpavgb {to}, {a}, {b}",
            to = out(ymm_reg) to,
            a = in(ymm_reg) a,
            b = in(ymm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    to
}

/// [`Isa::triple_bytes`]: written out, because the compiler makes wide multiplications by 9 and 27 of two and three in a row.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn triple(a: __m256i) -> __m256i {
    let to;
    // SAFETY: two instructions of AVX2 on registers.
    unsafe {
        core::arch::asm!(
            "vpaddb {to}, {a}, {a}",
            "vpaddb {to}, {to}, {a}",
            to = out(ymm_reg) to,
            a = in(ymm_reg) a,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    to
}

/// [`Isa::eights`]: written out, because the compiler makes a gathering load of it, which takes twice as long.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn four_rows<const N: usize>(table: &[[i8; 8]; N], at: [usize; 4]) -> __m256i {
    const { assert!(N.is_power_of_two()) };
    let to: __m256i;
    // SAFETY: instructions of AVX2 that read rows of the table, at indices below its length.
    unsafe {
        core::arch::asm!(
            "vmovq {to:x}, qword ptr [{table} + 8 * {a}]",
            "vmovq {upper:x}, qword ptr [{table} + 8 * {c}]",
            "vmovhps {to:x}, {to:x}, qword ptr [{table} + 8 * {b}]",
            "vmovhps {upper:x}, {upper:x}, qword ptr [{table} + 8 * {d}]",
            "vinserti128 {to}, {to}, {upper:x}, 1",
            to = out(ymm_reg) to,
            upper = out(ymm_reg) _,
            table = in(reg) table,
            a = in(reg) at[0] % N,
            b = in(reg) at[1] % N,
            c = in(reg) at[2] % N,
            d = in(reg) at[3] % N,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    to
}

/// Half of [`Isa::fours`], as [`four_rows`] are read.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn four_short_rows<const N: usize>(table: &[[i8; 4]; N], at: [usize; 4]) -> __m128i {
    const { assert!(N.is_power_of_two()) };
    let to: __m128i;
    // SAFETY: instructions of AVX2 that read rows of the table, at indices below its length.
    unsafe {
        core::arch::asm!(
            "vmovd {to}, dword ptr [{table} + 4 * {a}]",
            "vpinsrd {to}, {to}, dword ptr [{table} + 4 * {b}], 1",
            "vpinsrd {to}, {to}, dword ptr [{table} + 4 * {c}], 2",
            "vpinsrd {to}, {to}, dword ptr [{table} + 4 * {d}], 3",
            to = out(xmm_reg) to,
            table = in(reg) table,
            a = in(reg) at[0] % N,
            b = in(reg) at[1] % N,
            c = in(reg) at[2] % N,
            d = in(reg) at[3] % N,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    to
}

/// Mask that keeps the magnitude of a float.
pub(super) const MAGNITUDE: i32 = 0x7FFF_FFFF;
