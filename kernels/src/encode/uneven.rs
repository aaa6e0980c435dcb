//! Codes that choose from levels: IQ4_NL and IQ4_XS (uneven ones), MXFP4 and NVFP4 (tiny floats).
#![forbid(unsafe_code)]

use super::lanes::{Lanes, turn};
use super::numbers::{TINY, half, largest, nearest, sum_of_squares, truncated, weigh};
use super::search::magnitudes;
use super::{Encode, EncodeSuperblock, Failed, Points};
use crate::quant::iq4_nl::LEVELS;
use crate::quant::mxfp4::{DOUBLED, half_e8m0};
use crate::quant::nvfp4::half_ue4m3;
use crate::quant::{Iq4Nl, Iq4Xs, Mxfp4, Nvfp4};

/// Groups of 32 that are searched side by side.
const L: usize = 8;

/// Where the next level is nearer: halfway between two levels. A number just there goes up.
const BORDERS: [f32; 15] = {
    let mut borders = [0.0; 15];
    let mut k = 0;
    while k < 15 {
        borders[k] = (LEVELS[k] as f32 + LEVELS[k + 1] as f32) / 2.0;
        k += 1;
    }
    borders
};

/// The codes of the nearest levels. NaN has the last one's, as in ggml.
#[inline(always)]
fn codes(inverse: f32, x: &[f32; 32]) -> [u8; 32] {
    let mut codes = [0; 32];
    for i in 0..32 {
        let x = inverse * x[i];
        let mut code = 0;
        for border in BORDERS {
            code += if x < border { 0 } else { 1 };
        }
        codes[i] = code;
    }
    codes
}

/// What the fit of a scale to the nearest levels under `inverse` needs.
#[inline(always)]
fn sums(inverse: Lanes<L>, x: &[Lanes<L>; 32], weights: &[Lanes<L>; 32]) -> (Lanes<L>, Lanes<L>) {
    let (mut qx, mut q2) = (Lanes::ZERO, Lanes::ZERO);
    for i in 0..32 {
        let scaled = inverse * x[i];
        let mut level = Lanes::splat(f32::from(LEVELS[0]));
        for k in 0..15 {
            let step = Lanes::splat(f32::from(LEVELS[k + 1]) - f32::from(LEVELS[k]));
            level = level + scaled.less(Lanes::splat(BORDERS[k])).select(Lanes::ZERO, step);
        }
        let weighted = weights[i] * level;
        qx = qx + weighted * x[i];
        q2 = q2 + weighted * level;
    }
    (qx, q2)
}

/// The scales of eight groups (ggml's `quantize_row_iq4_nl_impl` with seven tries to each side).
#[inline(always)]
fn scales(x: &[Lanes<L>; 32], weights: &[Lanes<L>; 32]) -> [f32; L] {
    let (magnitude, largest) = magnitudes(x);
    let first = f32::from(LEVELS[0]);
    let mut scale = -largest / Lanes::splat(first);
    let (qx, q2) = sums(Lanes::splat(1.0) / scale, x, weights);
    scale = Lanes::ZERO.less(q2).select(qx / q2, Lanes::ZERO);
    let mut best = scale * qx;
    for step in -7..=7 {
        let inverse = Lanes::splat(step as f32 + first) / largest;
        let (qx, q2) = sums(inverse, x, weights);
        let better = Lanes::ZERO.less(q2).and((best * q2).less(qx * qx));
        scale = better.select(qx / q2, scale);
        best = better.select(scale * qx, best);
    }
    magnitude.less(Lanes::splat(TINY)).select(Lanes::ZERO, scale).0
}

/// The weights of a group's errors.
#[inline(always)]
fn weights(x: &[f32; 32], importance: Option<&[f32; 32]>, sigma2: f32) -> [f32; 32] {
    match importance {
        Some(importance) => weigh(importance, sigma2, x),
        None => x.map(|x| x * x),
    }
}

impl Encode for Iq4Nl {
    #[inline(always)]
    fn encode_row(x: &[f32], importance: Option<&[f32]>, _: &Points, out: &mut [Self]) -> Result<(), Failed> {
        let importance = importance.map_or(&[][..], |importance| importance.as_chunks::<32>().0);
        for (n, (x, out)) in x.as_chunks::<32>().0.chunks(L).zip(out.chunks_mut(L)).enumerate() {
            let mut weighed = [[0.0; 32]; L];
            for (l, (weighed, x)) in weighed.iter_mut().zip(x).enumerate() {
                let sigma2 = sum_of_squares(x) * (2.0 / 32.0);
                *weighed = weights(x, importance.get(n * L + l), sigma2);
            }
            let scales = scales(&turn(x), &turn(&weighed));
            for ((x, out), scale) in x.iter().zip(out).zip(scales) {
                let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
                *out = Self::pack(half(scale), &codes(inverse, x));
            }
        }
        Ok(())
    }
}

impl EncodeSuperblock for Iq4Xs {
    #[inline(always)]
    fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, _: &Points) -> Result<Self, Failed> {
        let sigma2 = sum_of_squares(x) * (2.0 / 256.0);
        let x = x.as_chunks::<32>().0;
        let importance = importance.map(|importance| importance.as_chunks::<32>().0);
        let mut weighed = [[0.0; 32]; L];
        for (l, (weighed, x)) in weighed.iter_mut().zip(x).enumerate() {
            *weighed = weights(x, importance.map(|importance| &importance[l]), sigma2);
        }
        let scales = scales(&turn(x), &turn(&weighed));
        let d = -largest(&scales).1 / 32.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let (mut packed, mut all) = ([0; 8], [[0; 32]; 8]);
        for l in 0..8 {
            let code = nearest(inverse * scales[l]).clamp(-32, 31);
            let scale = d * code as f32;
            all[l] = codes(if scale == 0.0 { 0.0 } else { 1.0 / scale }, &x[l]);
            packed[l] = (code + 32) as u8;
        }
        Ok(Self::pack(half(d), &packed, &all))
    }
}

/// The codes of the nearest tiny floats, the first where two are as near.
#[inline(always)]
fn tiny_floats<const N: usize>(x: &[f32; N], d: f32) -> [u8; N] {
    let mut codes = [0; N];
    for i in 0..N {
        let mut error = (f32::from(DOUBLED[0]) * d - x[i]).abs();
        let mut code = 0;
        for k in 1..16 {
            let this = (f32::from(DOUBLED[k]) * d - x[i]).abs();
            code = if this < error { k as u32 } else { code };
            error = if this < error { this } else { error };
        }
        codes[i] = code as u8;
    }
    codes
}

impl Encode for Mxfp4 {
    #[inline(always)]
    fn encode_row(x: &[f32], _: Option<&[f32]>, _: &Points, out: &mut [Self]) -> Result<(), Failed> {
        for (x, out) in x.as_chunks::<32>().0.iter().zip(out) {
            let (magnitude, _) = largest(x);
            let e = if magnitude > 0.0 { truncated(floor_log2(magnitude) - 2.0 + 127.0) as u8 } else { 0 };
            *out = Self::pack(e, &tiny_floats(x, half_e8m0(e)));
        }
        Ok(())
    }
}

/// `floorf(log2f(x))` of a positive number, as the C library rounds the logarithm: what lies just below a power of two is
/// taken for it.
fn floor_log2(x: f32) -> f32 {
    libm::floorf(libm::log2(f64::from(x)) as f32)
}

impl Encode for Nvfp4 {
    #[inline(always)]
    fn encode_row(x: &[f32], _: Option<&[f32]>, _: &Points, out: &mut [Self]) -> Result<(), Failed> {
        for (x, out) in x.as_chunks::<64>().0.iter().zip(out) {
            let (mut d, mut codes) = ([0; 4], [[0; 16]; 4]);
            for (g, x) in x.as_chunks::<16>().0.iter().enumerate() {
                d[g] = ue4m3(largest(x).0 / 6.0);
                codes[g] = tiny_floats(x, half_ue4m3(d[g]));
            }
            *out = Self::pack(d, &codes);
        }
        Ok(())
    }
}

/// A number that is not negative as UE4M3 (ggml's `ggml_fp32_to_ue4m3`): ties go up, and what is too large is 448.
fn ue4m3(x: f32) -> u8 {
    if x <= 0.0 {
        return 0;
    }
    let bits = x.min(448.0).to_bits();
    let exponent = (bits >> 23) as i32 - 127 + 7;
    if exponent <= 0 {
        return truncated(x * 512.0 + 0.5).min(7) as u8;
    }
    // A mantissa that overflows raises the exponent.
    let rounded = ((exponent as u32) << 3 | bits >> 20 & 0x07) + (bits >> 19 & 1);
    if rounded < 15 << 3 { rounded as u8 } else { 0x7e }
}
