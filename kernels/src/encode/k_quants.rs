//! Superblocks of 256 whose groups have integer scales: Q2_K to Q6_K.
#![forbid(unsafe_code)]

use super::lanes::{Lanes, turn, turn_codes};
use super::numbers::{TINY, half, half_of, largest, nearest, sqrt, sum_of_squares, weigh};
use super::search::{Found, Tries, by_descent, positive, symmetric, with_min};
use super::{Encode, EncodeSuperblock, Failed, Points, superblocks};
use crate::quant::{Q2K, Q3K, Q4K, Q5K, Q6K, q4_k};

/// Sums of the groups' weights, in order.
#[inline(always)]
fn sums<const N: usize>(weights: &[[f32; N]]) -> impl Iterator<Item = f32> {
    weights.iter().map(|weights| {
        let mut sum = 0.0;
        for &weight in weights {
            sum += weight;
        }
        sum
    })
}

/// A superblock's errors' weights, in `L` groups of `N`, by the columns' importance.
#[inline(always)]
fn weighed<const L: usize, const N: usize>(
    x: &[f32; 256],
    importance: &[f32; 256],
    sigma2: f32,
) -> [[f32; N]; L] {
    let mut weights = [[0.0; N]; L];
    let groups = x.as_chunks::<N>().0.iter().zip(importance.as_chunks::<N>().0);
    for (weights, (x, importance)) in weights.iter_mut().zip(groups) {
        *weights = weigh(importance, sigma2, x);
    }
    weights
}

/// The largest of some numbers, at least 0.
#[inline(always)]
fn maximum(x: &[f32]) -> f32 {
    let mut max = 0.0;
    for &x in x {
        max = if x > max { x } else { max };
    }
    max
}

/// `L` numbers as one column of a lane each; a search of a superblock's scales is one group of `L` numbers.
#[inline(always)]
fn column<const L: usize>(x: [f32; L]) -> [Lanes<1>; L] {
    let mut column = [Lanes::ZERO; L];
    for l in 0..L {
        column[l] = Lanes([x[l]]);
    }
    column
}

/// The one group's codes.
#[inline(always)]
fn column_codes<const L: usize>(found: &Found<1, L>) -> [u8; L] {
    let [codes] = turn_codes(&found.codes);
    codes
}

/// The codes of groups of `N`, raised by `-low`, for scales and minimums as they are stored in the end. Where a scale is zero,
/// the search's codes stay.
#[inline(always)]
fn final_codes<const L: usize, const N: usize>(
    x: &[f32; 256],
    found: &Found<L, N>,
    scales: &[f32; L],
    mins: &[f32; L],
    (low, high): (i32, i32),
) -> [u8; 256] {
    let searched: [[u8; N]; L] = turn_codes(&found.codes);
    let mut codes = [0; 256];
    for (l, (codes, x)) in codes.as_chunks_mut::<N>().0.iter_mut().zip(x.as_chunks::<N>().0).enumerate() {
        let (d, dm) = (scales[l], mins[l]);
        if d == 0.0 {
            *codes = searched[l];
            continue;
        }
        for i in 0..N {
            let code = nearest((x[i] + dm) / d);
            let code = if code < high { code } else { high };
            codes[i] = ((if code > low { code } else { low }) - low) as u8;
        }
    }
    codes
}

impl EncodeSuperblock for Q2K {
    #[inline(always)]
    fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, _: &Points) -> Result<Self, Failed> {
        Ok(q2_k(x, importance))
    }
}

#[inline(always)]
fn q2_k(x: &[f32; 256], importance: Option<&[f32; 256]>) -> Q2K {
    let groups: [Lanes<16>; 16] = turn(x.as_chunks::<16>().0);
    let mut scales = [0; 16];
    let (found, d, dmin);
    if let Some(importance) = importance {
        let weights: [[f32; 16]; 16] = weighed(x, importance, sum_of_squares(x) / 256.0);
        let tries =
            Tries { levels: 3, from: -0.9, step: 0.05, count: 36, magnitudes: false, clamp_first: true };
        found = with_min(tries, &groups, &turn(&weights));
        let mut total = [0.0; 16];
        total.iter_mut().zip(sums(&weights)).for_each(|(total, sum)| *total = sum);
        let by_scale = positive(15, &column(found.scale.0), &column(total));
        let by_min = positive(15, &column(found.min.0), &column(total));
        (d, dmin) = (half_of(by_scale.scale.0[0]), half_of(by_min.scale.0[0]));
        let (low, high) = (column_codes(&by_scale), column_codes(&by_min));
        for l in 0..16 {
            scales[l] = low[l] | high[l] << 4;
        }
    } else {
        let weights = groups.map(Lanes::abs);
        let tries =
            Tries { levels: 3, from: -0.5, step: 0.1, count: 15, magnitudes: true, clamp_first: false };
        found = with_min(tries, &groups, &weights);
        let (max_scale, max_min) = (maximum(&found.scale.0), maximum(&found.min.0));
        d = half_of(max_scale / 15.0);
        dmin = half_of(max_min / 15.0);
        if max_scale > 0.0 {
            for l in 0..16 {
                scales[l] = nearest(15.0 / max_scale * found.scale.0[l]) as u8;
            }
        }
        if max_min > 0.0 {
            for l in 0..16 {
                scales[l] |= (nearest(15.0 / max_min * found.min.0[l]) << 4) as u8;
            }
        }
    }
    let codes = final_codes(
        x,
        &found,
        &scales.map(|scale| d.1 * f32::from(scale & 0x0f)),
        &scales.map(|scale| dmin.1 * f32::from(scale >> 4)),
        (0, 3),
    );
    Q2K::pack(d.0, dmin.0, scales, &codes)
}

impl Encode for Q3K {
    #[inline(always)]
    fn encode_row(x: &[f32], importance: Option<&[f32]>, _: &Points, out: &mut [Self]) -> Result<(), Failed> {
        if importance.is_some() {
            for ((x, importance), out) in superblocks(x, importance).zip(out) {
                *out = importance
                    .map_or_else(bytemuck::Zeroable::zeroed, |importance| q3_k_weighed(x, importance));
            }
            return Ok(());
        }
        // A descent is one long chain: two superblocks take hardly longer than one.
        for (x, out) in x.as_chunks::<256>().0.chunks(2).zip(out.chunks_mut(2)) {
            let groups = x.as_flattened().as_chunks::<16>().0;
            let found = by_descent::<32, 16>(&turn(groups));
            for (i, (x, out)) in x.iter().zip(out).enumerate() {
                *out = q3_k(x, &part(&found, i));
            }
        }
        Ok(())
    }
}

/// Sixteen of the groups that were searched together: the first or the last.
#[inline(always)]
fn part(found: &Found<32, 16>, i: usize) -> Found<16, 16> {
    Found {
        codes: found.codes.map(|codes| codes.half(i)),
        scale: found.scale.half(i),
        min: found.min.half(i),
    }
}

#[inline(always)]
fn q3_k(x: &[f32; 256], found: &Found<16, 16>) -> Q3K {
    let (_, max_scale) = largest(&found.scale.0);
    let (mut scales, mut d) = ([0; 16], half_of(0.0));
    if max_scale != 0.0 {
        let inverse = -32.0 / max_scale;
        for l in 0..16 {
            let code = i32::from(nearest(inverse * found.scale.0[l]) as i8);
            scales[l] = (code.clamp(-32, 31) + 32) as u8;
        }
        d = half_of(1.0 / inverse);
    }
    pack_q3_k(x, found, d, &scales)
}

#[inline(always)]
fn q3_k_weighed(x: &[f32; 256], importance: &[f32; 256]) -> Q3K {
    let weights: [[f32; 16]; 16] = weighed(x, importance, 2.0 * sum_of_squares(x) / 256.0);
    let found = symmetric(4, &turn(x.as_chunks::<16>().0), &turn(&weights));
    let mut total = [0.0; 16];
    total.iter_mut().zip(sums(&weights)).for_each(|(total, sum)| *total = sum);
    let by_scale = symmetric(32, &column(found.scale.0), &column(total));
    pack_q3_k(x, &found, half_of(by_scale.scale.0[0]), &column_codes(&by_scale))
}

#[inline(always)]
fn pack_q3_k(x: &[f32; 256], found: &Found<16, 16>, d: ([u8; 2], f32), scales: &[u8; 16]) -> Q3K {
    let weights = scales.map(|scale| d.1 * (f32::from(scale) - 32.0));
    let codes = final_codes(x, found, &weights, &[0.0; 16], (-4, 3));
    Q3K::pack(d.0, scales, &codes)
}

/// What Q4_K and Q5_K share: scales of scales and of minimums, the groups' scales, and the codes.
#[inline(always)]
fn with_six_bit_scales(
    x: &[f32; 256],
    importance: Option<&[f32; 256]>,
    tries: Tries,
) -> ([u8; 2], [u8; 2], [u8; 12], [u8; 256]) {
    let levels = tries.levels;
    let groups: [Lanes<8>; 32] = turn(x.as_chunks::<32>().0);
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    let (found, d, dmin);
    if let Some(importance) = importance {
        let weights: [[f32; 32]; 8] = weighed(x, importance, 2.0 * sum_of_squares(x) / 256.0);
        let tries = Tries { levels, from: -0.9, step: 0.05, count: 36, magnitudes: false, clamp_first: true };
        found = with_min(tries, &groups, &turn(&weights));
        let mut total = [0.0; 8];
        total.iter_mut().zip(sums(&weights)).for_each(|(total, sum)| *total = sum);
        let by_scale = positive(63, &column(found.scale.0), &column(total));
        let by_min = positive(63, &column(found.min.0), &column(total));
        (d, dmin) = (half_of(by_scale.scale.0[0]), half_of(by_min.scale.0[0]));
        (scales, mins) = (column_codes(&by_scale), column_codes(&by_min));
        if levels == 31 {
            scales = scales.map(|scale| scale.min(63));
            mins = mins.map(|min| min.min(63));
        }
    } else {
        let mut sum = Lanes::ZERO;
        for x in groups {
            sum = sum + x * x;
        }
        let mut mean = sum / Lanes::splat(32.0);
        for mean in &mut mean.0 {
            *mean = sqrt(*mean);
        }
        let mut weights = [Lanes::ZERO; 32];
        for i in 0..32 {
            weights[i] = mean + groups[i].abs();
        }
        found = with_min(tries, &groups, &weights);
        let (max_scale, max_min) = (maximum(&found.scale.0), maximum(&found.min.0));
        let inverse = |max: f32| if max > 0.0 { 63.0 / max } else { 0.0 };
        let (inverse_scale, inverse_min) = (inverse(max_scale), inverse(max_min));
        for l in 0..8 {
            scales[l] = (nearest(inverse_scale * found.scale.0[l]) as u8).min(63);
            mins[l] = (nearest(inverse_min * found.min.0[l]) as u8).min(63);
        }
        d = half_of(max_scale / 63.0);
        dmin = half_of(max_min / 63.0);
    }
    let packed = q4_k::pack_scales_and_mins(&scales, &mins);
    // As they are read back.
    let (scales, mins) = q4_k::scales_and_mins(&packed);
    let (weights, shifts) =
        (scales.map(|scale| d.1 * f32::from(scale)), mins.map(|min| dmin.1 * f32::from(min)));
    (d.0, dmin.0, packed, final_codes(x, &found, &weights, &shifts, (0, levels)))
}

impl EncodeSuperblock for Q4K {
    #[inline(always)]
    fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, _: &Points) -> Result<Self, Failed> {
        let tries =
            Tries { levels: 15, from: -1.0, step: 0.1, count: 20, magnitudes: false, clamp_first: false };
        let (d, dmin, scales, codes) = with_six_bit_scales(x, importance, tries);
        Ok(Self::pack(d, dmin, scales, &codes))
    }
}

impl EncodeSuperblock for Q5K {
    #[inline(always)]
    fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, _: &Points) -> Result<Self, Failed> {
        let tries =
            Tries { levels: 31, from: -0.5, step: 0.1, count: 15, magnitudes: false, clamp_first: false };
        let (d, dmin, scales, codes) = with_six_bit_scales(x, importance, tries);
        Ok(Self::pack(d, dmin, scales, &codes))
    }
}

impl EncodeSuperblock for Q6K {
    #[inline(always)]
    fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, _: &Points) -> Result<Self, Failed> {
        Ok(q6_k(x, importance))
    }
}

#[inline(always)]
fn q6_k(x: &[f32; 256], importance: Option<&[f32; 256]>) -> Q6K {
    let groups: [Lanes<16>; 16] = turn(x.as_chunks::<16>().0);
    let mut weights = groups;
    match importance {
        Some(importance) => weights = turn(importance.as_chunks::<16>().0),
        None => {
            for weight in &mut weights {
                *weight = *weight * *weight;
            }
        }
    }
    let found = symmetric(32, &groups, &weights);
    let (magnitude, max_scale) = largest(&found.scale.0);
    if magnitude < TINY {
        return Q6K::pack(half(0.0), [0; 16], &[0; 256]);
    }
    let inverse = -128.0 / max_scale;
    let d = half_of(1.0 / inverse);
    let mut scales = [0; 16];
    for l in 0..16 {
        scales[l] = nearest(inverse * found.scale.0[l]).min(127) as i8;
    }
    let weights = scales.map(|scale| d.1 * f32::from(scale));
    let codes = final_codes(x, &found, &weights, &[0.0; 16], (-32, 31));
    Q6K::pack(d.0, scales, &codes)
}
