//! The vocabulary in plain Rust: the specification of every word.
#![forbid(unsafe_code)]

use half::f16;

use super::{Isa, rows_of_two_registers};

/// Plain Rust, on any processor.
#[derive(Clone, Copy)]
pub struct Scalar;

#[inline(always)]
fn lanes<T, const N: usize>(f: impl FnMut(usize) -> T) -> [T; N] {
    core::array::from_fn(f)
}

/// One rounding of `a * b + c`.
#[inline(always)]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    #[cfg(any(feature = "std", test))]
    return a.mul_add(b, c);
    #[cfg(not(any(feature = "std", test)))]
    return libm::fmaf(a, b, c);
}

impl Isa for Scalar {
    type Bytes = [u8; 32];
    type Shorts = [i16; 16];
    type Ints = [i32; 8];
    type Floats = [f32; 8];
    type RowCodes = [[u8; 4]; 16];
    type RowSums = [i32; 16];

    const DOTS: bool = true;
    const SIGNED_BIAS: i32 = 0;
    const COLUMNS: usize = 4;

    rows_of_two_registers!();

    #[inline(always)]
    fn bytes(self, from: &[u8; 32]) -> [u8; 32] {
        *from
    }
    #[inline(always)]
    fn signed_bytes(self, from: &[i8; 32]) -> [u8; 32] {
        bytemuck::cast(*from)
    }
    #[inline(always)]
    fn nibbles(self, from: &[u8; 16]) -> [u8; 32] {
        lanes(|i| if i < 16 { from[i] & 15 } else { from[i - 16] >> 4 })
    }
    #[inline(always)]
    fn nibbles_of_two(self, a: &[u8; 16], b: &[u8; 16]) -> [[u8; 32]; 2] {
        self.exchange(self.nibbles(a), self.nibbles(b))
    }
    #[inline(always)]
    fn exchange(self, a: [u8; 32], b: [u8; 32]) -> [[u8; 32]; 2] {
        lanes(|half| lanes(|i| if i < 16 { a[16 * half + i] } else { b[16 * half + i - 16] }))
    }
    #[inline(always)]
    fn quarters(self, from: &[u8; 8]) -> [u8; 32] {
        lanes(|i| from[i / 4] >> (2 * (i % 4)) & 3)
    }
    #[inline(always)]
    fn second_fours(self, from: &[[u8; 8]; 8]) -> [u8; 32] {
        lanes(|i| from[i / 4][4 + i % 4])
    }
    #[inline(always)]
    fn second_bytes(self, from: &[[u8; 2]; 32]) -> [u8; 32] {
        from.map(|[_, second]| second)
    }
    #[inline(always)]
    fn sevens(self, a: [u8; 32]) -> [u8; 32] {
        lanes(|i| {
            let four =
                u32::from_le_bytes([a[i / 4 * 4], a[i / 4 * 4 + 1], a[i / 4 * 4 + 2], a[i / 4 * 4 + 3]]);
            (four >> (7 * (i % 4)) & 0x7f) as u8
        })
    }
    #[inline(always)]
    fn twice(self, from: &[u8; 16]) -> [u8; 32] {
        lanes(|i| from[i % 16])
    }
    #[inline(always)]
    fn splat_four(self, four: [u8; 4]) -> [u8; 32] {
        lanes(|i| four[i % 4])
    }
    #[inline(always)]
    fn splat_byte(self, byte: u8) -> [u8; 32] {
        [byte; 32]
    }
    #[inline(always)]
    fn field<const SHIFT: i32, const MASK: u8>(self, a: [u8; 32]) -> [u8; 32] {
        a.map(|a| (a >> SHIFT) & MASK)
    }
    #[inline(always)]
    fn fields_of_halves<const FIRST: i32, const LAST: i32, const MASK: u8>(self, a: [u8; 32]) -> [u8; 32] {
        lanes(|i| match if i < 16 { FIRST } else { LAST } {
            shift @ 0.. => a[i] >> shift & MASK,
            shift => a[i] << -shift & MASK,
        })
    }
    #[inline(always)]
    fn raise<const SHIFT: i32>(self, a: [u8; 32]) -> [u8; 32] {
        a.map(|a| a << SHIFT)
    }
    #[inline(always)]
    fn or(self, a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        lanes(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn and(self, a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        lanes(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn add_bytes(self, a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        lanes(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn sub_bytes(self, a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        lanes(|i| a[i].saturating_sub(b[i]))
    }
    #[inline(always)]
    fn mean_bytes(self, a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        lanes(|i| ((u16::from(a[i]) + u16::from(b[i])).div_ceil(2)) as u8)
    }
    #[inline(always)]
    fn spread_bytes(self, four: u32) -> [u8; 32] {
        lanes(|i| four.to_le_bytes()[i / 8])
    }
    #[inline(always)]
    fn negate(self, a: [u8; 32], mask: [u8; 32]) -> [u8; 32] {
        lanes(|i| (a[i] ^ mask[i]).wrapping_sub(mask[i]))
    }
    #[inline(always)]
    fn spread_bits(self, mask: u32) -> [u8; 32] {
        lanes(|i| if mask >> i & 1 == 1 { 0xFF } else { 0 })
    }
    #[inline(always)]
    fn lookup(self, table: &[i8; 16], codes: [u8; 32]) -> [u8; 32] {
        codes.map(|c| table[usize::from(c & 15)] as u8)
    }
    #[inline(always)]
    fn store_bytes(self, a: [u8; 32], to: &mut [u8; 32]) {
        *to = a;
    }
    #[inline(always)]
    fn deal(self, rows: [[u8; 32]; 8]) -> [[u8; 32]; 8] {
        lanes(|q| lanes(|i| rows[i / 4][4 * q + i % 4]))
    }
    #[inline(always)]
    fn sixteens(self, a: [u8; 32]) -> [[u8; 32]; 2] {
        lanes(|half| bytemuck::cast::<[i16; 16], _>(lanes(|i| i16::from(a[16 * half + i] as i8))))
    }
    #[inline(always)]
    fn scale_sixteen(self, a: [u8; 32], by: i16) -> [u8; 32] {
        bytemuck::cast(bytemuck::cast::<_, [i16; 16]>(a).map(|a| a.wrapping_mul(by)))
    }
    #[inline(always)]
    fn split_sixteens(self, a: [[u8; 32]; 2]) -> [[u8; 32]; 2] {
        let wide: [i16; 32] = bytemuck::cast(a);
        [wide.map(|a| a as u8), wide.map(|a| (a >> 8) as u8)]
    }

    #[inline(always)]
    fn pairs_unsigned(self, u: [u8; 32], s: [u8; 32]) -> [i16; 16] {
        let product = |i: usize| i16::from(u[i]) * i16::from(s[i] as i8);
        lanes(|i| product(2 * i).wrapping_add(product(2 * i + 1)))
    }
    #[inline(always)]
    fn add_shorts(self, a: [i16; 16], b: [i16; 16]) -> [i16; 16] {
        lanes(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn pairs_signed(self, w: [u8; 32], s: [u8; 32]) -> [i16; 16] {
        let product = |i: usize| i16::from(w[i] as i8) * i16::from(s[i] as i8);
        lanes(|i| product(2 * i).wrapping_add(product(2 * i + 1)))
    }
    #[inline(always)]
    fn dot_two_unsigned(self, u: [[u8; 32]; 2], s: [[u8; 32]; 2]) -> [i32; 8] {
        let four = |r: usize, i: usize| {
            (4 * i..4 * i + 4).map(|i| i32::from(u[r][i]) * i32::from(s[r][i] as i8)).sum::<i32>()
        };
        lanes(|i| four(0, i) + four(1, i))
    }
    #[inline(always)]
    fn dot_two_signed(self, w: [[u8; 32]; 2], s: [[u8; 32]; 2]) -> [i32; 8] {
        let four = |r: usize, i: usize| {
            (4 * i..4 * i + 4).map(|i| i32::from(w[r][i] as i8) * i32::from(s[r][i] as i8)).sum::<i32>()
        };
        lanes(|i| four(0, i) + four(1, i))
    }
    #[inline(always)]
    fn shorts(self, from: &[i16; 16]) -> [i16; 16] {
        *from
    }
    #[inline(always)]
    fn add_dot_shorts(self, to: [i32; 8], a: [i16; 16], b: [i16; 16]) -> [i32; 8] {
        let product = |i: usize| i32::from(a[i]) * i32::from(b[i]);
        lanes(|i| to[i].wrapping_add(product(2 * i)).wrapping_add(product(2 * i + 1)))
    }
    #[inline(always)]
    fn splat_pair(self, pair: [i16; 2]) -> [i16; 16] {
        lanes(|i| pair[i % 2])
    }
    #[inline(always)]
    fn widen(self, from: &[i8; 16]) -> [i16; 16] {
        from.map(i16::from)
    }
    #[inline(always)]
    fn widen_twice(self, from: &[i8; 8]) -> [i16; 16] {
        lanes(|i| i16::from(from[i / 2]))
    }
    #[inline(always)]
    fn scales_of_32(self, scales: &[i8; 8]) -> [i16; 16] {
        lanes(|i| scales[i % 8].into())
    }
    #[inline(always)]
    fn scales_of_16(self, scales: &[i8; 16]) -> [i16; 16] {
        lanes(|i| scales[i % 8 * 2 + i / 8].into())
    }
    #[inline(always)]
    fn pick<const PART: usize>(self, scales: [i16; 16]) -> [i16; 16] {
        lanes(|i| scales[i / 8 * 8 + PART])
    }

    #[inline(always)]
    fn zero_ints(self) -> [i32; 8] {
        [0; 8]
    }
    #[inline(always)]
    fn splat_int(self, a: i32) -> [i32; 8] {
        [a; 8]
    }
    #[inline(always)]
    fn ints(self, from: &[i32; 8]) -> [i32; 8] {
        *from
    }
    #[inline(always)]
    fn store_ints(self, a: [i32; 8], to: &mut [i32; 8]) {
        *to = a;
    }
    #[inline(always)]
    fn add_ints(self, a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        lanes(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn sub_ints(self, a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        lanes(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn shl_ints<const SHIFT: i32>(self, a: [i32; 8]) -> [i32; 8] {
        a.map(|a| a << SHIFT)
    }
    #[inline(always)]
    fn sum_each(self, a: &[[i32; 8]; 8]) -> [i32; 8] {
        a.map(|a| a.into_iter().fold(0, i32::wrapping_add))
    }
    #[inline(always)]
    fn sum_halves(self, a: &[[i32; 8]; 4]) -> [i32; 8] {
        lanes(|i| a[i % 4][i / 4 * 4..][..4].iter().fold(0_i32, |sum, &lane| sum.wrapping_add(lane)))
    }
    #[inline(always)]
    fn sum_pairs(self, a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        lanes(|i| {
            if i < 4 { a[2 * i].wrapping_add(a[2 * i + 1]) } else { b[2 * i - 8].wrapping_add(b[2 * i - 7]) }
        })
    }
    #[inline(always)]
    fn to_floats(self, a: [i32; 8]) -> [f32; 8] {
        a.map(|a| a as f32)
    }

    #[inline(always)]
    fn floats(self, from: &[f32; 8]) -> [f32; 8] {
        *from
    }
    #[inline(always)]
    fn halves(self, from: &[u8; 16]) -> [f32; 8] {
        lanes(|i| f16::from_le_bytes([from[2 * i], from[2 * i + 1]]).to_f32())
    }
    #[inline(always)]
    fn halves_of(self, bits: &[u16; 8]) -> [f32; 8] {
        bits.map(|bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    fn brains(self, from: &[u8; 16]) -> [f32; 8] {
        lanes(|i| f32::from_le_bytes([0, 0, from[2 * i], from[2 * i + 1]]))
    }
    #[inline(always)]
    fn splat(self, a: f32) -> [f32; 8] {
        [a; 8]
    }
    #[inline(always)]
    fn store(self, a: [f32; 8], to: &mut [f32; 8]) {
        *to = a;
    }
    #[inline(always)]
    fn to_halves(self, a: [f32; 8]) -> [u16; 8] {
        a.map(|a| f16::from_f32(a).to_bits())
    }
    #[inline(always)]
    fn add(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        lanes(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        lanes(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        lanes(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        lanes(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        lanes(|i| fma(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        lanes(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        lanes(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn select_less(self, a: [f32; 8], b: [f32; 8], yes: [f32; 8], no: [f32; 8]) -> [f32; 8] {
        lanes(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn round(self, a: [f32; 8]) -> [f32; 8] {
        a.map(libm::rintf)
    }
    #[inline(always)]
    fn exp2_integer(self, a: [f32; 8]) -> [f32; 8] {
        a.map(|a| f32::from_bits(((a as i32).wrapping_add(127) as u32) << 23))
    }
    #[inline(always)]
    fn max_magnitude(self, a: [f32; 8]) -> f32 {
        f32::from_bits(a.into_iter().fold(0, |m, a| m.max(a.to_bits() & 0x7FFF_FFFF)))
    }
    #[inline(always)]
    fn max_magnitudes(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        let magnitude = |a: f32| a.to_bits() & 0x7FFF_FFFF;
        lanes(|i| f32::from_bits(magnitude(a[i]).max(magnitude(b[i]))))
    }
    #[inline(always)]
    fn sum(self, a: [f32; 8]) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    #[inline(always)]
    fn sum_fours(self, a: [f32; 8]) -> [f32; 2] {
        [(a[0] + a[1]) + (a[2] + a[3]), (a[4] + a[5]) + (a[6] + a[7])]
    }
    #[inline(always)]
    fn to_codes(self, a: [[f32; 8]; 4]) -> [u8; 32] {
        lanes(|i| a[i / 8][i % 8] as i8 as u8)
    }
    #[inline(always)]
    fn code_floats(self, from: &[i8; 8]) -> [f32; 8] {
        from.map(f32::from)
    }
    #[inline(always)]
    fn max_lane(self, a: [f32; 8]) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, |m, a| if a > m { a } else { m })
    }

    #[inline(always)]
    fn row_codes(self, from: &[[u8; 4]; 16]) -> [[u8; 4]; 16] {
        *from
    }
    #[inline(always)]
    fn no_sums(self) -> [i32; 16] {
        [0; 16]
    }
    #[inline(always)]
    fn add_products(self, to: [i32; 16], w: [[u8; 4]; 16], x: [i8; 4]) -> [i32; 16] {
        let dot = |w: [u8; 4]| w.iter().zip(x).map(|(&w, x)| i32::from(w as i8) * i32::from(x)).sum();
        lanes(|row| to[row].wrapping_add(dot(w[row])))
    }
    #[inline(always)]
    fn widen_sums(self, sums: [i32; 16]) -> [[i32; 8]; 2] {
        lanes(|half| lanes(|i| sums[8 * half + i]))
    }
    #[inline(always)]
    fn add_scaled_sums(self, to: [[i32; 8]; 2], sums: [i32; 16], scales: &[[i16; 2]; 16]) -> [[i32; 8]; 2] {
        self.add_rows(to, self.widen_sums(lanes(|row| sums[row].wrapping_mul(i32::from(scales[row][0])))))
    }
}
