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

/// Bit `i` in byte `i`.
const BIT: i64 = 0x8040_2010_0804_0201_u64 as i64;

/// Byte `i` is `0xFF` where bit `i % 8` of byte `i` is set, else 0.
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
pub(super) unsafe fn where_bits(bytes: __m256i) -> __m256i {
    // SAFETY: the caller promises AVX2.
    unsafe {
        let bit = _mm256_set1_epi64x(BIT);
        _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit)
    }
}

/// [`Isa::load_negated`] with the signs of the part's half twice: written out, so that the compiler does not begin it for parts that
/// come much later, and spill.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_negated<const PART: usize>(parts: &[[i8; 32]; 8], halves: __m256i) -> __m256i {
    const { assert!(PART < 8) };
    let to;
    // SAFETY: instructions of AVX2 that read 32 bytes each of a table and of the parts, at an index below their length.
    unsafe {
        core::arch::asm!(
            "vpshufb {mask}, {halves}, [{table} + {offset}]",
            "vpand {mask}, {mask}, {bit}",
            "vpcmpeqb {mask}, {mask}, {bit}",
            "vpxor {to}, {mask}, [{parts} + {offset}]",
            "vpsubb {to}, {to}, {mask}",
            to = out(ymm_reg) to,
            mask = out(ymm_reg) _,
            halves = in(ymm_reg) halves,
            bit = in(ymm_reg) _mm256_set1_epi64x(BIT),
            table = in(reg) &SPREADS,
            parts = in(reg) parts,
            offset = const 32 * PART,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    to
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

/// [`Isa::eights_of_bytes`], written out for the same reason: the bytes part in general registers, so that they take one load.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn four_rows_of_bytes(table: &[[i8; 8]; 256], at: [u32; 2]) -> __m256i {
    let to: __m256i;
    // SAFETY: instructions of AVX2 that read rows of the table, at bytes.
    unsafe {
        core::arch::asm!(
            "movzx {i:e}, {a:l}",
            "movzx {a:e}, {a:h}",
            "vmovq {to:x}, qword ptr [{table} + 8 * {i}]",
            "vmovhps {to:x}, {to:x}, qword ptr [{table} + 8 * {a:r}]",
            "movzx {i:e}, {b:l}",
            "movzx {b:e}, {b:h}",
            "vmovq {upper:x}, qword ptr [{table} + 8 * {i}]",
            "vmovhps {upper:x}, {upper:x}, qword ptr [{table} + 8 * {b:r}]",
            "vinserti128 {to}, {to}, {upper:x}, 1",
            to = out(ymm_reg) to,
            upper = out(ymm_reg) _,
            table = in(reg) table,
            i = out(reg) _,
            a = inout(reg_abcd) at[0] => _,
            b = inout(reg_abcd) at[1] => _,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    to
}

/// [`Isa::fours_of_bytes`], likewise.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn eight_short_rows_of_bytes(table: &[[i8; 4]; 256], at: [u32; 2]) -> __m256i {
    let to: __m256i;
    // SAFETY: instructions of AVX2 that read rows of the table, at bytes.
    unsafe {
        core::arch::asm!(
            "movzx {i:e}, {a:l}",
            "movzx {j:e}, {a:h}",
            "shr {a:e}, 16",
            "vmovd {to:x}, dword ptr [{table} + 4 * {i}]",
            "vpinsrd {to:x}, {to:x}, dword ptr [{table} + 4 * {j}], 1",
            "movzx {i:e}, {a:l}",
            "movzx {j:e}, {a:h}",
            "vpinsrd {to:x}, {to:x}, dword ptr [{table} + 4 * {i}], 2",
            "vpinsrd {to:x}, {to:x}, dword ptr [{table} + 4 * {j}], 3",
            "movzx {i:e}, {b:l}",
            "movzx {j:e}, {b:h}",
            "shr {b:e}, 16",
            "vmovd {upper:x}, dword ptr [{table} + 4 * {i}]",
            "vpinsrd {upper:x}, {upper:x}, dword ptr [{table} + 4 * {j}], 1",
            "movzx {i:e}, {b:l}",
            "movzx {j:e}, {b:h}",
            "vpinsrd {upper:x}, {upper:x}, dword ptr [{table} + 4 * {i}], 2",
            "vpinsrd {upper:x}, {upper:x}, dword ptr [{table} + 4 * {j}], 3",
            "vinserti128 {to}, {to}, {upper:x}, 1",
            to = out(ymm_reg) to,
            upper = out(ymm_reg) _,
            table = in(reg) table,
            i = out(reg) _,
            j = out(reg_abcd) _,
            a = inout(reg_abcd) at[0] => _,
            b = inout(reg_abcd) at[1] => _,
            options(pure, readonly, nostack),
        );
    }
    to
}

/// Four integers of 16 bits, each modulo `N`, a power of two.
const fn shorts_modulo<const N: usize>(shorts: u64) -> u64 {
    const { assert!(N.is_power_of_two() && N <= 1 << 16) };
    shorts & ((N as u64 - 1) * 0x0001_0001_0001_0001)
}

/// [`Isa::eights_of_shorts`], likewise.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn four_rows_of_shorts<const N: usize>(table: &[[i8; 8]; N], at: u64) -> __m256i {
    let to: __m256i;
    // SAFETY: instructions of AVX2 that read rows of the table, at indices below its length.
    unsafe {
        core::arch::asm!(
            "movzx {i:e}, {at:x}",
            "shr {at}, 16",
            "vmovq {to:x}, qword ptr [{table} + 8 * {i}]",
            "movzx {i:e}, {at:x}",
            "shr {at}, 16",
            "vmovhps {to:x}, {to:x}, qword ptr [{table} + 8 * {i}]",
            "movzx {i:e}, {at:x}",
            "shr {at}, 16",
            "vmovq {upper:x}, qword ptr [{table} + 8 * {i}]",
            "vmovhps {upper:x}, {upper:x}, qword ptr [{table} + 8 * {at}]",
            "vinserti128 {to}, {to}, {upper:x}, 1",
            to = out(ymm_reg) to,
            upper = out(ymm_reg) _,
            table = in(reg) table,
            i = out(reg) _,
            at = inout(reg) shorts_modulo::<N>(at) => _,
            options(pure, readonly, nostack),
        );
    }
    to
}

/// [`Isa::fours_of_shorts`], likewise.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn eight_short_rows_of_shorts<const N: usize>(table: &[[i8; 4]; N], at: [u64; 2]) -> __m256i {
    let to: __m256i;
    let [even, odd] = at.map(shorts_modulo::<N>);
    // SAFETY: instructions of AVX2 that read rows of the table, at indices below its length.
    unsafe {
        core::arch::asm!(
            "movzx {i:e}, {even:x}",
            "movzx {j:e}, {odd:x}",
            "shr {even}, 16",
            "shr {odd}, 16",
            "vmovd {to:x}, dword ptr [{table} + 4 * {i}]",
            "vpinsrd {to:x}, {to:x}, dword ptr [{table} + 4 * {j}], 1",
            "movzx {i:e}, {even:x}",
            "movzx {j:e}, {odd:x}",
            "shr {even}, 16",
            "shr {odd}, 16",
            "vpinsrd {to:x}, {to:x}, dword ptr [{table} + 4 * {i}], 2",
            "vpinsrd {to:x}, {to:x}, dword ptr [{table} + 4 * {j}], 3",
            "movzx {i:e}, {even:x}",
            "movzx {j:e}, {odd:x}",
            "shr {even}, 16",
            "shr {odd}, 16",
            "vmovd {upper:x}, dword ptr [{table} + 4 * {i}]",
            "vpinsrd {upper:x}, {upper:x}, dword ptr [{table} + 4 * {j}], 1",
            "vpinsrd {upper:x}, {upper:x}, dword ptr [{table} + 4 * {even}], 2",
            "vpinsrd {upper:x}, {upper:x}, dword ptr [{table} + 4 * {odd}], 3",
            "vinserti128 {to}, {to}, {upper:x}, 1",
            to = out(ymm_reg) to,
            upper = out(ymm_reg) _,
            table = in(reg) table,
            i = out(reg) _,
            j = out(reg) _,
            even = inout(reg) even => _,
            odd = inout(reg) odd => _,
            options(pure, readonly, nostack),
        );
    }
    to
}

/// Mask that keeps the magnitude of a float.
pub(super) const MAGNITUDE: i32 = 0x7FFF_FFFF;
