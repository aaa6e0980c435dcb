//! The vocabulary in NEON, which every 64-bit ARM processor has: 32 codes are two registers.

use core::arch::aarch64::*;
use core::arch::asm;

use super::{Isa, rows_of_two_registers, words};

/// NEON as it is everywhere.
#[derive(Clone, Copy)]
pub struct Neon(());

impl Neon {
    /// # Safety
    /// The processor must have NEON.
    #[inline(always)]
    pub unsafe fn new() -> Self {
        Neon(())
    }
}

/// A word of a whole on both registers.
macro_rules! both {
    (|$($arg:ident),+| $body:expr) => {
        [
            { $(let $arg = $arg[0];)+ $body },
            { $(let $arg = $arg[1];)+ $body },
        ]
    };
}
pub(super) use both;

/// 32 bytes, 16 integers of 16 bits, 8 of 32 bits, 8 floats.
pub(super) type Bytes = [uint8x16_t; 2];
pub(super) type Shorts = [int16x8_t; 2];
pub(super) type Ints = [int32x4_t; 2];
pub(super) type Floats = [float32x4_t; 2];

/// The two registers at an address.
///
/// # Safety
/// The processor must have NEON, and 32 bytes at `from` must be readable.
#[inline(always)]
pub(super) unsafe fn load<T>(from: *const T) -> Bytes {
    // SAFETY: the caller promises just that.
    unsafe { [vld1q_u8(from.cast()), vld1q_u8(from.cast::<u8>().wrapping_add(16))] }
}

#[inline(always)]
pub(super) fn signed(a: uint8x16_t) -> int8x16_t {
    // SAFETY: every processor that this is compiled for has NEON.
    unsafe { vreinterpretq_s8_u8(a) }
}

/// Products of signed bytes, neighbours added.
///
/// # Safety
/// The processor must have NEON.
#[inline(always)]
pub(super) unsafe fn pairs(w: uint8x16_t, s: uint8x16_t) -> int16x8_t {
    // SAFETY: the caller promises NEON.
    unsafe {
        let (w, s) = (signed(w), signed(s));
        vpaddq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(s)), vmull_high_s8(w, s))
    }
}

/// Eight half-precision floats, widened.
///
/// # Safety
/// The processor must have NEON.
#[inline(always)]
pub(super) unsafe fn widen_halves(bits: uint16x8_t) -> Floats {
    let (low, high): (float32x4_t, float32x4_t);
    // SAFETY: the caller promises NEON, of which these are a part; they read and write registers only.
    unsafe {
        asm!(
            "fcvtl {low:v}.4s, {bits:v}.4h",
            "fcvtl2 {high:v}.4s, {bits:v}.8h",
            low = out(vreg) low,
            high = lateout(vreg) high,
            bits = in(vreg) bits,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    [low, high]
}

/// Eight floats rounded to half precision, ties to even.
///
/// # Safety
/// The processor must have NEON.
#[inline(always)]
pub(super) unsafe fn narrow_to_halves(a: Floats) -> uint16x8_t {
    let bits: uint16x8_t;
    // SAFETY: the caller promises NEON, of which these are a part; they read and write registers only.
    unsafe {
        asm!(
            "fcvtn {bits:v}.4h, {low:v}.4s",
            "fcvtn2 {bits:v}.8h, {high:v}.4s",
            bits = out(vreg) bits,
            low = in(vreg) a[0],
            high = in(vreg) a[1],
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    bits
}

/// Transposes 4 x 4 integers of 32 bits.
///
/// # Safety
/// The processor must have NEON.
#[inline(always)]
pub(super) unsafe fn transpose(rows: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
    // SAFETY: the caller promises NEON.
    unsafe {
        let (a, b) = (vreinterpretq_u32_u8(rows[0]), vreinterpretq_u32_u8(rows[1]));
        let (c, d) = (vreinterpretq_u32_u8(rows[2]), vreinterpretq_u32_u8(rows[3]));
        let even = [vreinterpretq_u64_u32(vtrn1q_u32(a, b)), vreinterpretq_u64_u32(vtrn1q_u32(c, d))];
        let odd = [vreinterpretq_u64_u32(vtrn2q_u32(a, b)), vreinterpretq_u64_u32(vtrn2q_u32(c, d))];
        [
            vreinterpretq_u8_u64(vtrn1q_u64(even[0], even[1])),
            vreinterpretq_u8_u64(vtrn1q_u64(odd[0], odd[1])),
            vreinterpretq_u8_u64(vtrn2q_u64(even[0], even[1])),
            vreinterpretq_u8_u64(vtrn2q_u64(odd[0], odd[1])),
        ]
    }
}

/// The words that NEON has and the levels above it do not better.
macro_rules! neon_words {
    () => {
        type Bytes = Bytes;
        type Shorts = Shorts;
        type Ints = Ints;
        type Floats = Floats;
        type RowCodes = [uint8x16_t; 4];

        #[inline(always)]
        fn exchange(self, a: Bytes, b: Bytes) -> [Bytes; 2] {
            [[a[0], b[0]], [a[1], b[1]]]
        }

        words! {
            fn bytes(from: &[u8; 32]) -> Bytes { load(from) }
            fn signed_bytes(from: &[i8; 32]) -> Bytes { load(from) }
            fn nibbles(from: &[u8; 16]) -> Bytes {
                let a = vld1q_u8(from.as_ptr());
                [vandq_u8(a, vdupq_n_u8(15)), vshrq_n_u8::<4>(a)]
            }
            fn nibbles_of_two(a: &[u8; 16], b: &[u8; 16]) -> [Bytes; 2] {
                let (a, b) = (vld1q_u8(a.as_ptr()), vld1q_u8(b.as_ptr()));
                let low = vdupq_n_u8(15);
                [[vandq_u8(a, low), vandq_u8(b, low)], [vshrq_n_u8::<4>(a), vshrq_n_u8::<4>(b)]]
            }
            fn quarters(from: &[u8; 8]) -> Bytes {
                // Each byte four times, its fields moved down by 0, 2, 4, 6 bits.
                let eight = vld1_u8(from.as_ptr());
                let twice = vzip1q_u8(vcombine_u8(eight, eight), vcombine_u8(eight, eight));
                let down = vreinterpretq_s8_u32(vdupq_n_u32(0xFAFC_FE00));
                let a = [vzip1q_u8(twice, twice), vzip2q_u8(twice, twice)];
                both!(|a| vandq_u8(vshlq_u8(a, down), vdupq_n_u8(3)))
            }
            fn second_fours(from: &[[u8; 8]; 8]) -> Bytes {
                let from: [uint32x4_t; 4] = core::array::from_fn(|i| vld1q_u32(from[2 * i].as_ptr().cast()));
                [
                    vreinterpretq_u8_u32(vuzp2q_u32(from[0], from[1])),
                    vreinterpretq_u8_u32(vuzp2q_u32(from[2], from[3])),
                ]
            }
            fn second_bytes(from: &[[u8; 2]; 32]) -> Bytes {
                let from: [uint8x16_t; 4] = core::array::from_fn(|i| vld1q_u8(from[8 * i].as_ptr()));
                [vuzp2q_u8(from[0], from[1]), vuzp2q_u8(from[2], from[3])]
            }
            fn sevens(a: Bytes) -> Bytes {
                // Neighbours first: fields of 14 bits in halves, then of 7 in bytes.
                both!(|a| {
                    let a = vreinterpretq_u32_u8(a);
                    let high = vandq_u32(vshlq_n_u32::<2>(a), vdupq_n_u32(0x3fff_0000));
                    let halves = vreinterpretq_u16_u32(vorrq_u32(vandq_u32(a, vdupq_n_u32(0x3fff)), high));
                    let high = vandq_u16(vshlq_n_u16::<1>(halves), vdupq_n_u16(0x7f00));
                    vreinterpretq_u8_u16(vorrq_u16(vandq_u16(halves, vdupq_n_u16(0x7f)), high))
                })
            }
            fn twice(from: &[u8; 16]) -> Bytes { [vld1q_u8(from.as_ptr()); 2] }
            fn splat_four(four: [u8; 4]) -> Bytes {
                [vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes(four))); 2]
            }
            fn splat_byte(byte: u8) -> Bytes { [vdupq_n_u8(byte); 2] }
            fn field<const SHIFT: i32, const MASK: u8>(a: Bytes) -> Bytes {
                // The intrinsic knows no shift by nothing.
                both!(|a| {
                    let down = match SHIFT {
                        0 => a,
                        1 => vshrq_n_u8::<1>(a),
                        2 => vshrq_n_u8::<2>(a),
                        3 => vshrq_n_u8::<3>(a),
                        4 => vshrq_n_u8::<4>(a),
                        5 => vshrq_n_u8::<5>(a),
                        6 => vshrq_n_u8::<6>(a),
                        _ => vshrq_n_u8::<7>(a),
                    };
                    vandq_u8(down, vdupq_n_u8(MASK))
                })
            }
            fn fields_of_halves<const FIRST: i32, const LAST: i32, const MASK: u8>(a: Bytes) -> Bytes {
                // Shifts to the left.
                let shift = [vdupq_n_s8(-FIRST as i8), vdupq_n_s8(-LAST as i8)];
                both!(|a, shift| vandq_u8(vshlq_u8(a, shift), vdupq_n_u8(MASK)))
            }
            fn raise<const SHIFT: i32>(a: Bytes) -> Bytes { both!(|a| vshlq_n_u8::<SHIFT>(a)) }
            fn or(a: Bytes, b: Bytes) -> Bytes { both!(|a, b| vorrq_u8(a, b)) }
            fn and(a: Bytes, b: Bytes) -> Bytes { both!(|a, b| vandq_u8(a, b)) }
            fn add_bytes(a: Bytes, b: Bytes) -> Bytes { both!(|a, b| vaddq_u8(a, b)) }
            fn sub_bytes(a: Bytes, b: Bytes) -> Bytes { both!(|a, b| vqsubq_u8(a, b)) }
            fn mean_bytes(a: Bytes, b: Bytes) -> Bytes { both!(|a, b| vrhaddq_u8(a, b)) }
            fn spread_bytes(four: u32) -> Bytes {
                let byte = four.to_le_bytes();
                [
                    vcombine_u8(vdup_n_u8(byte[0]), vdup_n_u8(byte[1])),
                    vcombine_u8(vdup_n_u8(byte[2]), vdup_n_u8(byte[3])),
                ]
            }
            fn negate(a: Bytes, mask: Bytes) -> Bytes { both!(|a, mask| vsubq_u8(veorq_u8(a, mask), mask)) }
            fn lookup(table: &[i8; 16], codes: Bytes) -> Bytes {
                let table = vld1q_u8(table.as_ptr().cast());
                both!(|codes| vqtbl1q_u8(table, codes))
            }
            fn store_bytes(a: Bytes, to: &mut [u8; 32]) {
                let to = to.as_chunks_mut::<16>().0;
                vst1q_u8(to[0].as_mut_ptr(), a[0]);
                vst1q_u8(to[1].as_mut_ptr(), a[1]);
            }
            fn deal(rows: [Bytes; 8]) -> [Bytes; 8] {
                let [a, b, c, d, e, f, g, h] = rows;
                let mut quads = rows;
                for half in 0..2 {
                    let low = transpose([a[half], b[half], c[half], d[half]]);
                    let high = transpose([e[half], f[half], g[half], h[half]]);
                    for i in 0..4 {
                        quads[4 * half + i] = [low[i], high[i]];
                    }
                }
                quads
            }
            fn sixteens(a: Bytes) -> [Bytes; 2] {
                both!(|a| {
                    let a = signed(a);
                    [
                        vreinterpretq_u8_s16(vmovl_s8(vget_low_s8(a))),
                        vreinterpretq_u8_s16(vmovl_high_s8(a)),
                    ]
                })
            }
            fn scale_sixteen(a: Bytes, by: i16) -> Bytes {
                both!(|a| vreinterpretq_u8_s16(vmulq_n_s16(vreinterpretq_s16_u8(a), by)))
            }
            fn split_sixteens(a: [Bytes; 2]) -> [Bytes; 2] {
                [
                    [vuzp1q_u8(a[0][0], a[0][1]), vuzp1q_u8(a[1][0], a[1][1])],
                    [vuzp2q_u8(a[0][0], a[0][1]), vuzp2q_u8(a[1][0], a[1][1])],
                ]
            }

            fn pairs_unsigned(u: Bytes, s: Bytes) -> Shorts { both!(|u, s| pairs(u, s)) }
            fn pairs_signed(w: Bytes, s: Bytes) -> Shorts { both!(|w, s| pairs(w, s)) }
            fn add_shorts(a: Shorts, b: Shorts) -> Shorts { both!(|a, b| vaddq_s16(a, b)) }
            fn shorts(from: &[i16; 16]) -> Shorts {
                let from = load(from);
                both!(|from| vreinterpretq_s16_u8(from))
            }
            fn add_dot_shorts(to: Ints, a: Shorts, b: Shorts) -> Ints {
                both!(|to, a, b| {
                    let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
                    vaddq_s32(to, vpaddq_s32(low, vmull_high_s16(a, b)))
                })
            }
            fn splat_pair(pair: [i16; 2]) -> Shorts {
                [vreinterpretq_s16_s32(vdupq_n_s32(bytemuck::cast(pair))); 2]
            }
            fn widen(from: &[i8; 16]) -> Shorts {
                let a = vld1q_s8(from.as_ptr());
                [vmovl_s8(vget_low_s8(a)), vmovl_high_s8(a)]
            }
            fn widen_twice(from: &[i8; 8]) -> Shorts {
                let wide = vmovl_s8(vld1_s8(from.as_ptr()));
                [vzip1q_s16(wide, wide), vzip2q_s16(wide, wide)]
            }
            fn scales_of_32(scales: &[i8; 8]) -> Shorts { [vmovl_s8(vld1_s8(scales.as_ptr())); 2] }
            fn scales_of_16(scales: &[i8; 16]) -> Shorts {
                // The even sixteens' scales in one register, the odd ones' in the other.
                let both = vld2_s8(scales.as_ptr());
                [vmovl_s8(both.0), vmovl_s8(both.1)]
            }
            fn pick<const PART: usize>(scales: Shorts) -> Shorts {
                let low = 2 * PART as u16;
                let lane = vreinterpretq_u8_u16(vdupq_n_u16((low + 1) << 8 | low));
                both!(|scales| vreinterpretq_s16_u8(vqtbl1q_u8(vreinterpretq_u8_s16(scales), lane)))
            }

            fn zero_ints() -> Ints { [vdupq_n_s32(0); 2] }
            fn splat_int(a: i32) -> Ints { [vdupq_n_s32(a); 2] }
            fn ints(from: &[i32; 8]) -> Ints {
                let from = load(from);
                both!(|from| vreinterpretq_s32_u8(from))
            }
            fn store_ints(a: Ints, to: &mut [i32; 8]) {
                let to = to.as_chunks_mut::<4>().0;
                vst1q_s32(to[0].as_mut_ptr(), a[0]);
                vst1q_s32(to[1].as_mut_ptr(), a[1]);
            }
            fn add_ints(a: Ints, b: Ints) -> Ints { both!(|a, b| vaddq_s32(a, b)) }
            fn sub_ints(a: Ints, b: Ints) -> Ints { both!(|a, b| vsubq_s32(a, b)) }
            fn shl_ints<const SHIFT: i32>(a: Ints) -> Ints { both!(|a| vshlq_n_s32::<SHIFT>(a)) }
            fn sum_each(a: &[Ints; 8]) -> Ints {
                let mut two = [vdupq_n_s32(0); 4];
                for i in 0..4 {
                    let [a, b] = [a[2 * i], a[2 * i + 1]];
                    two[i] = vpaddq_s32(vaddq_s32(a[0], a[1]), vaddq_s32(b[0], b[1]));
                }
                [vpaddq_s32(two[0], two[1]), vpaddq_s32(two[2], two[3])]
            }
            fn sum_halves(a: &[Ints; 4]) -> Ints {
                let &[a, b, c, d] = a;
                both!(|a, b, c, d| vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)))
            }
            fn sum_pairs(a: Ints, b: Ints) -> Ints { [vpaddq_s32(a[0], a[1]), vpaddq_s32(b[0], b[1])] }
            fn to_floats(a: Ints) -> Floats { both!(|a| vcvtq_f32_s32(a)) }

            fn floats(from: &[f32; 8]) -> Floats {
                let from = load(from);
                both!(|from| vreinterpretq_f32_u8(from))
            }
            fn halves(from: &[u8; 16]) -> Floats { widen_halves(vreinterpretq_u16_u8(vld1q_u8(from.as_ptr()))) }
            fn halves_of(bits: &[u16; 8]) -> Floats { widen_halves(vld1q_u16(bits.as_ptr())) }
            fn brains(from: &[u8; 16]) -> Floats {
                let bits = vreinterpretq_u16_u8(vld1q_u8(from.as_ptr()));
                [
                    vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(bits))),
                    vreinterpretq_f32_u32(vshll_high_n_u16::<16>(bits)),
                ]
            }
            fn splat(a: f32) -> Floats { [vdupq_n_f32(a); 2] }
            fn store(a: Floats, to: &mut [f32; 8]) {
                let to = to.as_chunks_mut::<4>().0;
                vst1q_f32(to[0].as_mut_ptr(), a[0]);
                vst1q_f32(to[1].as_mut_ptr(), a[1]);
            }
            fn to_halves(a: Floats) -> [u16; 8] {
                let mut to = [0; 8];
                vst1q_u16(to.as_mut_ptr(), narrow_to_halves(a));
                to
            }
            fn add(a: Floats, b: Floats) -> Floats { both!(|a, b| vaddq_f32(a, b)) }
            fn sub(a: Floats, b: Floats) -> Floats { both!(|a, b| vsubq_f32(a, b)) }
            fn mul(a: Floats, b: Floats) -> Floats { both!(|a, b| vmulq_f32(a, b)) }
            fn div(a: Floats, b: Floats) -> Floats { both!(|a, b| vdivq_f32(a, b)) }
            fn fma(a: Floats, b: Floats, c: Floats) -> Floats { both!(|a, b, c| vfmaq_f32(c, a, b)) }
            fn max(a: Floats, b: Floats) -> Floats { both!(|a, b| vbslq_f32(vcgtq_f32(a, b), a, b)) }
            fn min(a: Floats, b: Floats) -> Floats { both!(|a, b| vbslq_f32(vcltq_f32(a, b), a, b)) }
            fn select_less(a: Floats, b: Floats, yes: Floats, no: Floats) -> Floats {
                both!(|a, b, yes, no| vbslq_f32(vcltq_f32(a, b), yes, no))
            }
            fn round(a: Floats) -> Floats { both!(|a| vrndnq_f32(a)) }
            fn exp2_integer(a: Floats) -> Floats {
                both!(|a| {
                    let biased = vaddq_s32(vcvtnq_s32_f32(a), vdupq_n_s32(127));
                    vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
                })
            }
            fn max_magnitude(a: Floats) -> f32 {
                let [low, high] = both!(|a| vreinterpretq_u32_f32(vabsq_f32(a)));
                f32::from_bits(vmaxvq_u32(vmaxq_u32(low, high)))
            }
            fn max_magnitudes(a: Floats, b: Floats) -> Floats {
                both!(|a, b| {
                    let (a, b) = (vreinterpretq_u32_f32(vabsq_f32(a)), vreinterpretq_u32_f32(vabsq_f32(b)));
                    vreinterpretq_f32_u32(vmaxq_u32(a, b))
                })
            }
            fn sum(a: Floats) -> f32 {
                let four = vaddq_f32(a[0], a[1]);
                vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
            }
            fn sum_fours(a: Floats) -> [f32; 2] {
                let pairs = vpaddq_f32(a[0], a[1]);
                let fours = vpaddq_f32(pairs, pairs);
                [vgetq_lane_f32::<0>(fours), vgetq_lane_f32::<1>(fours)]
            }
            fn to_codes(a: [Floats; 4]) -> Bytes {
                let mut bytes = [vdup_n_s8(0); 4];
                for i in 0..4 {
                    let a = a[i];
                    let [low, high] = both!(|a| vmovn_s32(vcvtnq_s32_f32(a)));
                    bytes[i] = vmovn_s16(vcombine_s16(low, high));
                }
                [
                    vreinterpretq_u8_s8(vcombine_s8(bytes[0], bytes[1])),
                    vreinterpretq_u8_s8(vcombine_s8(bytes[2], bytes[3])),
                ]
            }

            fn code_floats(from: &[i8; 8]) -> Floats {
                let wide = vmovl_s8(vld1_s8(from.as_ptr()));
                [vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_high_s16(wide))]
            }
            fn max_lane(a: Floats) -> f32 { vmaxvq_f32(vmaxq_f32(a[0], a[1])) }

            fn row_codes(from: &[[u8; 4]; 16]) -> [uint8x16_t; 4] {
                let from = from.as_flattened().as_chunks::<32>().0;
                let ([a, b], [c, d]) = (load(&from[0]), load(&from[1]));
                [a, b, c, d]
            }
        }

        rows_of_two_registers!();

        #[inline(always)]
        fn spread_bits(self, mask: u32) -> Bytes {
            let bytes = self.spread_bytes(mask);
            // SAFETY: every aarch64 processor has NEON.
            unsafe {
                let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
                both!(|bytes| vtstq_u8(bytes, bit))
            }
        }

        #[inline(always)]
        fn prefetch(self, at: *const u8, ahead: usize) {
            let at = at.wrapping_add(ahead);
            // SAFETY: a prefetch reads nothing as far as the program can see and faults at no address.
            unsafe {
                asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(nostack, readonly, preserves_flags));
            }
        }
    };
}
pub(super) use neon_words;

/// `to` plus the sums, times the upper of each row's two scales, widened.
///
/// # Safety
/// The processor must have NEON.
#[inline(always)]
pub(super) unsafe fn add_scaled(to: [Ints; 2], sums: [Ints; 2], scales: &[[i16; 2]; 16]) -> [Ints; 2] {
    let scales = scales.as_chunks::<8>().0;
    // SAFETY: the caller promises NEON; eight rows have 32 bytes of scales.
    unsafe {
        let wide = [load(&scales[0]), load(&scales[1])];
        both!(|to, sums, wide| both!(|to, sums, wide| {
            vmlaq_s32(to, sums, vshrq_n_s32::<16>(vreinterpretq_s32_u8(wide)))
        }))
    }
}

impl Isa for Neon {
    /// Of 16 bits, one product for each code: two rows to a register.
    type RowSums = [int16x8_t; 8];

    const DOTS: bool = false;
    const SIGNED_BIAS: i32 = 0;
    const COLUMNS: usize = 4;

    neon_words!();

    words! {
        fn dot_two_unsigned(u: [Bytes; 2], s: [Bytes; 2]) -> Ints {
            let ([a, b], [x, y]) = (u, s);
            both!(|a, b, x, y| vpaddlq_s16(vaddq_s16(pairs(a, x), pairs(b, y))))
        }
        fn dot_two_signed(w: [Bytes; 2], s: [Bytes; 2]) -> Ints {
            let ([a, b], [x, y]) = (w, s);
            both!(|a, b, x, y| vaddq_s32(vpaddlq_s16(pairs(a, x)), vpaddlq_s16(pairs(b, y))))
        }
        fn no_sums() -> [int16x8_t; 8] { [vdupq_n_s16(0); 8] }
        fn add_products(to: [int16x8_t; 8], w: [uint8x16_t; 4], x: [i8; 4]) -> [int16x8_t; 8] {
            let x = vreinterpretq_s8_s32(vdupq_n_s32(bytemuck::cast(x)));
            let mut sums = to;
            for i in 0..4 {
                let w = signed(w[i]);
                sums[2 * i] = vmlal_s8(to[2 * i], vget_low_s8(w), vget_low_s8(x));
                sums[2 * i + 1] = vmlal_high_s8(to[2 * i + 1], w, x);
            }
            sums
        }
        fn widen_sums(sums: [int16x8_t; 8]) -> [Ints; 2] {
            let mut rows = [[vdupq_n_s32(0); 2]; 2];
            for i in 0..4 {
                rows[i / 2][i % 2] = vpaddq_s32(vpaddlq_s16(sums[2 * i]), vpaddlq_s16(sums[2 * i + 1]));
            }
            rows
        }
    }

    #[inline(always)]
    fn add_scaled_sums(self, to: [Ints; 2], sums: [int16x8_t; 8], scales: &[[i16; 2]; 16]) -> [Ints; 2] {
        // SAFETY: a value of this type proves that the processor has NEON.
        unsafe { add_scaled(to, self.widen_sums(sums), scales) }
    }
}
