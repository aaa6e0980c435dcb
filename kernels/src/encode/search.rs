//! ggml's searches for scales that leave little error, on `L` groups of `N` weights at once.
//!
//! Each tries a handful of scales, rounds to codes under each, and fits the best scale to those codes. What a search keeps
//! of a trial is not its codes but the numbers that they follow from, and makes the codes again at the end.
#![forbid(unsafe_code)]

use super::lanes::{Lanes, Mask};
use super::numbers::TINY;

/// What a search finds for each group.
pub(super) struct Found<const L: usize, const N: usize> {
    /// From 0 on.
    pub codes: [Lanes<L>; N],
    /// What a step of the codes is worth.
    pub scale: Lanes<L>,
    /// What is subtracted; 0 where the search knows no minimum.
    pub min: Lanes<L>,
}

/// Codes -`levels` to `levels` - 1, here raised by `levels`, without a minimum (ggml's `make_qx_quants` of kind 1).
#[inline(always)]
pub(super) fn symmetric<const L: usize, const N: usize>(
    levels: i32,
    x: &[Lanes<L>; N],
    weights: &[Lanes<L>; N],
) -> Found<L, N> {
    let (magnitude, largest) = magnitudes(x);
    let mut weighted = [Lanes::ZERO; N];
    for i in 0..N {
        weighted[i] = weights[i] * x[i];
    }
    let top = levels as f32;
    let mut inverse = Lanes::splat(-top) / largest;
    let (lx, l2) = sums(levels, inverse, x, weights, &weighted);
    let mut scale = l2.same(Lanes::ZERO).select(Lanes::ZERO, lx / l2);
    let mut best = scale * lx;
    for step in -9..=9 {
        if step == 0 {
            continue;
        }
        let trial = Lanes::splat(-(top + 0.1 * step as f32)) / largest;
        let (lx, l2) = sums(levels, trial, x, weights, &weighted);
        let better = Lanes::ZERO.less(l2).and((best * l2).less(lx * lx));
        if better.any() {
            scale = better.select(lx / l2, scale);
            best = better.select(scale * lx, best);
            inverse = better.select(trial, inverse);
        }
    }
    let zero = magnitude.less(Lanes::splat(TINY));
    let mut codes = [Lanes::ZERO; N];
    for i in 0..N {
        let code = (inverse * x[i]).nearest(-levels, levels - 1) + Lanes::splat(top);
        codes[i] = zero.select(Lanes::ZERO, code);
    }
    Found { codes, scale: zero.select(Lanes::ZERO, scale), min: Lanes::ZERO }
}

/// What the fit of a scale to the codes under `inverse` needs: the weighted sums of numbers times codes, and of codes squared.
#[inline(always)]
fn sums<const L: usize, const N: usize>(
    levels: i32,
    inverse: Lanes<L>,
    x: &[Lanes<L>; N],
    weights: &[Lanes<L>; N],
    weighted: &[Lanes<L>; N],
) -> (Lanes<L>, Lanes<L>) {
    let (mut lx, mut l2) = (Lanes::ZERO, Lanes::ZERO);
    for i in 0..N {
        let code = (inverse * x[i]).nearest(-levels, levels - 1);
        lx = lx + weighted[i] * code;
        l2 = l2 + weights[i] * code * code;
    }
    (lx, l2)
}

/// The largest magnitudes, and the first numbers that have them.
#[inline(always)]
pub(super) fn magnitudes<const L: usize, const N: usize>(x: &[Lanes<L>; N]) -> (Lanes<L>, Lanes<L>) {
    let (mut magnitude, mut largest) = (Lanes::ZERO, Lanes::ZERO);
    for &x in x {
        let larger = magnitude.less(x.abs());
        magnitude = larger.select(x.abs(), magnitude);
        largest = larger.select(x, largest);
    }
    (magnitude, largest)
}

/// Codes -4 to 3, here raised by 4, moved one by one while that lessens the error (ggml's `make_q3_quants`).
#[inline(always)]
pub(super) fn by_descent<const L: usize, const N: usize>(x: &[Lanes<L>; N]) -> Found<L, N> {
    const LEVELS: i32 = 4;
    let (magnitude, largest) = magnitudes(x);
    let inverse = Lanes::splat(-LEVELS as f32) / largest;
    let (mut codes, mut weights, mut weighted) = ([Lanes::ZERO; N], [Lanes::ZERO; N], [Lanes::ZERO; N]);
    let (mut lx, mut l2) = (Lanes::ZERO, Lanes::ZERO);
    for i in 0..N {
        codes[i] = (inverse * x[i]).nearest(-LEVELS, LEVELS - 1);
        weights[i] = x[i] * x[i];
        weighted[i] = weights[i] * x[i];
        lx = lx + weighted[i] * codes[i];
        l2 = l2 + weights[i] * codes[i] * codes[i];
    }
    for _ in 0..5 {
        let mut any = false;
        for i in 0..N {
            let lx_without = lx - weighted[i] * codes[i];
            let l2_without = l2 - weights[i] * codes[i] * codes[i];
            let code = (x[i] * l2_without / lx_without).nearest(-LEVELS, LEVELS - 1);
            let lx_with = lx_without + weighted[i] * code;
            let l2_with = l2_without + weights[i] * code * code;
            let better = Lanes::ZERO
                .less(lx_without)
                .and(code.same(codes[i]).not())
                .and(Lanes::ZERO.less(l2_with))
                .and((lx * lx * l2_with).less(lx_with * lx_with * l2));
            codes[i] = better.select(code, codes[i]);
            lx = better.select(lx_with, lx);
            l2 = better.select(l2_with, l2);
            any |= better.any();
        }
        if !any {
            break;
        }
    }
    let zero = magnitude.less(Lanes::splat(TINY));
    for code in &mut codes {
        *code = zero.select(Lanes::ZERO, *code + Lanes::splat(LEVELS as f32));
    }
    let scale = Lanes::ZERO.less(l2).and(zero.not()).select(lx / l2, Lanes::ZERO);
    Found { codes, scale, min: Lanes::ZERO }
}

/// How [`with_min`] looks for scales.
#[derive(Clone, Copy)]
pub(super) struct Tries {
    /// The largest code.
    pub levels: i32,
    /// The first trial's largest code is this much more, or less.
    pub from: f32,
    /// And that of each further one this much more than the one before.
    pub step: f32,
    /// Further trials.
    pub count: i32,
    /// The error is a sum of magnitudes rather than of squares.
    pub magnitudes: bool,
    /// Codes are kept in range before they are rounded (`make_qkx3_quants`) rather than after (`make_qkx2_quants`).
    pub clamp_first: bool,
}

/// Codes 0 to `tries.levels`, and a minimum that is not positive, here with its sign turned.
#[inline(always)]
pub(super) fn with_min<const L: usize, const N: usize>(
    tries: Tries,
    x: &[Lanes<L>; N],
    weights: &[Lanes<L>; N],
) -> Found<L, N> {
    let (mut min, mut max) = (x[0], x[0]);
    let mut sum_w = weights[0];
    let mut sum_x = sum_w * x[0];
    for i in 1..N {
        min = x[i].min(min);
        max = x[i].max(max);
        sum_w = sum_w + weights[i];
        sum_x = sum_x + weights[i] * x[i];
    }
    min = Lanes::ZERO.less(min).select(Lanes::ZERO, min);
    // The smallest number is never above the largest one: both searches ask the same.
    let flat = min.less(max).not();

    let top = tries.levels as f32;
    let mut scale = Lanes::splat(1.0) / (Lanes::splat(top) / (max - min));
    // The codes found follow from these two.
    let mut kept = (Lanes::splat(top) / (max - min), min, Mask::NONE);
    let mut codes = [Lanes::ZERO; N];
    for i in 0..N {
        codes[i] = (kept.0 * (x[i] - min)).nearest(0, tries.levels);
    }
    let mut best = error(tries, scale, min, &codes, x, weights);
    for trial in 0..=tries.count {
        let inverse = Lanes::splat(tries.from + tries.step * trial as f32 + top) / (max - min);
        let (mut l, mut l2, mut xl) = (Lanes::ZERO, Lanes::ZERO, Lanes::ZERO);
        for i in 0..N {
            codes[i] = code(tries, inverse * (x[i] - min));
            let weighted = weights[i] * codes[i];
            l = l + weighted;
            l2 = l2 + weighted * codes[i];
            xl = xl + weighted * x[i];
        }
        let determinant = sum_w * l2 - l * l;
        let mut this_scale = (sum_w * xl - sum_x * l) / determinant;
        let mut this_min = (l2 * sum_x - l * xl) / determinant;
        let above = Lanes::ZERO.less(this_min);
        this_min = above.select(Lanes::ZERO, this_min);
        this_scale = above.select(xl / l2, this_scale);
        let this = error(tries, this_scale, this_min, &codes, x, weights);
        let better = Lanes::ZERO.less(determinant).and(this.less(best));
        if better.any() {
            kept = (better.select(inverse, kept.0), better.select(min, kept.1), kept.2.or(better));
            best = better.select(this, best);
            scale = better.select(this_scale, scale);
            min = better.select(this_min, min);
        }
    }
    for i in 0..N {
        let shifted = kept.0 * (x[i] - kept.1);
        let found = kept.2.select(code(tries, shifted), shifted.nearest(0, tries.levels));
        codes[i] = flat.select(Lanes::ZERO, found);
    }
    Found { codes, scale: flat.select(Lanes::ZERO, scale), min: -min }
}

#[inline(always)]
fn code<const L: usize>(tries: Tries, x: Lanes<L>) -> Lanes<L> {
    if tries.clamp_first {
        let code = x.min(Lanes::splat(tries.levels as f32)).nearest(0, tries.levels);
        return Lanes::ZERO.less(x).select(code, Lanes::ZERO);
    }
    x.nearest(0, tries.levels)
}

#[inline(always)]
fn error<const L: usize, const N: usize>(
    tries: Tries,
    scale: Lanes<L>,
    min: Lanes<L>,
    codes: &[Lanes<L>; N],
    x: &[Lanes<L>; N],
    weights: &[Lanes<L>; N],
) -> Lanes<L> {
    let mut sum = Lanes::ZERO;
    for i in 0..N {
        let diff = scale * codes[i] + min - x[i];
        sum = sum + weights[i] * if tries.magnitudes { diff.abs() } else { diff * diff };
    }
    sum
}

/// Codes 0 to `levels` of numbers that are not negative (ggml's `make_qp_quants`).
#[inline(always)]
pub(super) fn positive<const L: usize, const N: usize>(
    levels: i32,
    x: &[Lanes<L>; N],
    weights: &[Lanes<L>; N],
) -> Found<L, N> {
    let mut max = Lanes::ZERO;
    for &x in x {
        max = max.max(x);
    }
    let top = levels as f32;
    let mut inverse = Lanes::splat(top) / max;
    // The codes of the first trial are kept as bytes.
    let mut best = {
        let scale = Lanes::splat(1.0) / inverse;
        let mut sum = Lanes::ZERO;
        for i in 0..N {
            let diff = x[i] - scale * (inverse * x[i]).nearest(i32::MIN, i32::MAX).byte();
            sum = sum + weights[i] * diff * diff;
        }
        sum
    };
    for step in -4..=4 {
        if step == 0 {
            continue;
        }
        let trial = Lanes::splat(0.1 * step as f32 + top) / max;
        let scale = Lanes::splat(1.0) / trial;
        let mut this = Lanes::ZERO;
        for i in 0..N {
            let diff = x[i] - scale * (trial * x[i]).nearest(i32::MIN, levels);
            this = this + weights[i] * diff * diff;
        }
        let better = this.less(best);
        best = better.select(this, best);
        inverse = better.select(trial, inverse);
    }
    let mut codes = [Lanes::ZERO; N];
    let (mut lx, mut l2) = (Lanes::ZERO, Lanes::ZERO);
    for i in 0..N {
        let code = (inverse * x[i]).nearest(i32::MIN, levels);
        codes[i] = code.byte();
        lx = lx + weights[i] * x[i] * code;
        l2 = l2 + weights[i] * code * code;
    }
    for _ in 0..5 {
        let mut any = false;
        for i in 0..N {
            let weighted = weights[i] * x[i];
            let lx_without = lx - weighted * codes[i];
            let l2_without = l2 - weights[i] * codes[i] * codes[i];
            let code = (x[i] * l2_without / lx_without).nearest(i32::MIN, levels);
            let lx_with = lx_without + weighted * code;
            let l2_with = l2_without + weights[i] * code * code;
            let better = Lanes::ZERO
                .less(lx_without)
                .and(Lanes::ZERO.less(l2_without))
                .and(code.same(codes[i]).not())
                .and((lx * lx * l2_with).less(lx_with * lx_with * l2));
            codes[i] = better.select(code.byte(), codes[i]);
            lx = better.select(lx_with, lx);
            l2 = better.select(l2_with, l2);
            any |= better.any();
        }
        if !any {
            break;
        }
    }
    let zero = max.less(Lanes::splat(TINY));
    for code in &mut codes {
        *code = zero.select(Lanes::ZERO, *code);
    }
    let scale = Lanes::ZERO.less(l2).and(zero.not()).select(lx / l2, Lanes::ZERO);
    Found { codes, scale, min: Lanes::ZERO }
}
