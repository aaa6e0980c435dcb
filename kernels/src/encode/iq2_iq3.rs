//! Points of a grid with signs beside them: IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS and IQ3_S.
#![forbid(unsafe_code)]

use super::lanes::Lanes;
use super::numbers::{TINY, half, nearest, sqrt, sum_of_squares, weigh};
use super::points::Grid;
use super::search::positive;
use super::{EncodeSuperblock, Failed, Points};
use crate::quant::{Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs};

/// What tells these formats apart.
struct Rules {
    /// Signs come in eights of which an even number is negative.
    even: bool,
    /// A group whose largest magnitude is below this is zero.
    tiny: f32,
    /// Trials to each side, and by how much they lie apart.
    tries: i32,
    step: f32,
    /// The first scale is searched for rather than taken from the largest magnitude.
    fitted: bool,
    /// Which points are looked for again under the scale that was found.
    again: Again,
}

#[derive(PartialEq)]
enum Again {
    /// All.
    Always,
    /// All, where one was off the grid.
    Together,
    /// Those that were off the grid.
    Apart,
}

/// A group of `N` weights, encoded.
struct Group<const N: usize> {
    /// The points' indices; only the first `N / DIM` count.
    points: [u16; 8],
    /// Of eight weights each; only the first `N / 8` count.
    signs: [u8; 4],
    scale: f32,
    /// All its weights are as good as zero, and nothing was searched for.
    skipped: bool,
}

/// The sums that a scale is fitted with.
#[inline(always)]
fn sums<const N: usize>(levels: &[u8; N], x: &[f32; N], weights: &[f32; N]) -> (f32, f32) {
    let (mut qx, mut q2) = (0.0, 0.0);
    for i in 0..N {
        let q = (2 * i32::from(levels[i]) + 1) as f32;
        qx += weights[i] * x[i] * q;
        q2 += weights[i] * q * q;
    }
    (qx, q2)
}

/// The levels nearest to the weights under the inverse of a scale.
#[inline(always)]
fn round<const N: usize, const LEVELS: usize>(inverse: f32, x: &[f32; N]) -> [u8; N] {
    let mut levels = [0; N];
    for i in 0..N {
        let level = nearest(0.5 * (inverse * x[i] - 1.0));
        levels[i] = level.min(LEVELS as i32 - 1).max(0) as u8;
    }
    levels
}

/// Moves levels that are off the grid to the best point near them. Gives the point, and whether they were on the grid.
#[inline(always)]
fn settle<const DIM: usize, const LEVELS: usize>(
    grid: &Grid<DIM>,
    levels: &mut [u8; DIM],
    x: &[f32; DIM],
    weights: &[f32; DIM],
    scale: f32,
) -> Result<(u16, bool), Failed> {
    match grid.find(levels) {
        Ok(index) => Ok((index, true)),
        Err(neighbours) => {
            let mut costs = [[0.0; LEVELS]; DIM];
            for i in 0..DIM {
                for level in 0..LEVELS {
                    let diff = scale * (2 * level + 1) as f32 - x[i];
                    costs[i][level] = weights[i] * diff * diff;
                }
            }
            let index = grid.cheapest(neighbours, &costs)?;
            *levels = *grid.point(index);
            Ok((index, false))
        }
    }
}

/// The magnitudes and the signs of a group; where signs must be even, the weight that matters least gives way.
#[inline(always)]
fn magnitudes<const N: usize>(x: &[f32; N], weights: &[f32; N], even: bool) -> ([f32; N], [u8; 4]) {
    let (mut magnitudes, mut signs) = ([0.0; N], [0; 4]);
    for i in 0..N {
        // Weights are finite: there is no third case.
        let negative = x[i] < 0.0;
        magnitudes[i] = if negative { -x[i] } else { x[i] };
        signs[i / 8] |= u8::from(negative) << (i % 8);
    }
    if even {
        for k in 0..N / 8 {
            if signs[k].count_ones().is_multiple_of(2) {
                continue;
            }
            let cost = |i: usize| weights[8 * k + i] * x[8 * k + i] * x[8 * k + i];
            let (mut least, mut at) = (cost(0), 0);
            for i in 1..8 {
                if cost(i) < least {
                    (least, at) = (cost(i), i);
                }
            }
            magnitudes[8 * k + at] = -magnitudes[8 * k + at];
            signs[k] ^= 1 << at;
        }
    }
    (magnitudes, signs)
}

/// Searches for a group's scale and points; `None` where the group is zero.
#[inline(always)]
fn group<const N: usize, const DIM: usize, const LEVELS: usize>(
    rules: &Rules,
    grid: &Grid<DIM>,
    x: &[f32; N],
    weights: &[f32; N],
) -> Result<Option<Group<N>>, Failed> {
    let roots = weights.map(sqrt);
    let (x, mut signs) = magnitudes(x, weights, rules.even);
    let mut max = x[0];
    for &x in &x {
        max = if max > x { max } else { x };
    }
    if max < rules.tiny || max == 0.0 {
        return Ok(None);
    }
    let top = (2 * LEVELS - 1) as f32;
    let mut scale = max / top;
    if rules.fitted {
        let fitted = positive(LEVELS as i32 + 1, &x.map(|x| Lanes([x])), &weights.map(|w| Lanes([w])));
        scale = fitted.scale.0[0];
        max = scale * LEVELS as f32;
        if max <= 0.0 {
            return Ok(None);
        }
    }
    let (mut best, mut levels) = (0.0, [0; N]);
    let mut on_grid = [rules.again == Again::Apart; 8];
    for step in -rules.tries..=rules.tries {
        let inverse = (top + step as f32 * rules.step) / max;
        let mut trial: [u8; N] = round::<N, LEVELS>(inverse, &x);
        let mut trial_on_grid = [true; 8];
        for k in 0..N / DIM {
            let (levels, x, roots) = (part(&mut trial, k)?, chunk(&x, k)?, chunk(&roots, k)?);
            trial_on_grid[k] = settle::<DIM, LEVELS>(grid, levels, x, roots, 1.0 / inverse)?.1;
        }
        let (qx, q2) = sums(&trial, &x, weights);
        if q2 > 0.0 && qx * qx > best * q2 {
            scale = qx / q2;
            best = scale * qx;
            (levels, on_grid) = (trial, trial_on_grid);
        }
    }
    let off_grid = on_grid[..N / DIM].contains(&false);
    if scale > 0.0 && (off_grid || rules.again == Again::Always) {
        let again: [u8; N] = round::<N, LEVELS>(1.0 / scale, &x);
        for k in 0..N / DIM {
            if rules.again == Again::Apart && on_grid[k] {
                continue;
            }
            let levels = part(&mut levels, k)?;
            *levels = *chunk(&again, k)?;
            settle::<DIM, LEVELS>(grid, levels, chunk(&x, k)?, chunk(&roots, k)?, scale)?;
        }
        let (qx, q2) = sums(&levels, &x, weights);
        if q2 > 0.0 {
            scale = qx / q2;
        }
    }
    if scale < 0.0 {
        scale = -scale;
        signs = signs.map(|signs| !signs);
    }
    if scale.is_nan() {
        return Err(Failed);
    }
    let mut points = [0; 8];
    for k in 0..N / DIM {
        points[k] = grid.find(chunk(&levels, k)?).map_err(|_| Failed)?;
    }
    Ok(Some(Group { points, signs, scale, skipped: false }))
}

/// Part `k` of an array.
#[inline(always)]
fn chunk<T, const N: usize, const DIM: usize>(x: &[T; N], k: usize) -> Result<&[T; DIM], Failed> {
    x.as_chunks().0.get(k).ok_or(Failed)
}

/// Part `k` of an array.
#[inline(always)]
fn part<T, const N: usize, const DIM: usize>(x: &mut [T; N], k: usize) -> Result<&mut [T; DIM], Failed> {
    x.as_chunks_mut().0.get_mut(k).ok_or(Failed)
}

/// The scale of a superblock, and codes 0 to 15 of its groups' scales.
fn scales<const GROUPS: usize>(scales: &[f32; GROUPS]) -> Option<(f32, [u8; GROUPS])> {
    let mut max = 0.0;
    for &scale in scales {
        max = if max > scale { max } else { scale };
    }
    if max == 0.0 {
        return None;
    }
    let d = max / 31.0;
    let inverse = 1.0 / d;
    Some((d, scales.map(|scale| nearest(0.5 * (inverse * scale - 1.0)).clamp(0, 15) as u8)))
}

/// The groups of a superblock; its scale, and the codes of their scales.
type Superblock<const N: usize, const GROUPS: usize> = ([Group<N>; GROUPS], Option<(f32, [u8; GROUPS])>);

/// All groups of a superblock: the groups' points and signs, the superblock's scale, and codes of the groups' scales. Without a
/// scale the whole superblock is zero.
#[inline(always)]
fn superblock<const N: usize, const GROUPS: usize, const DIM: usize, const LEVELS: usize>(
    rules: &Rules,
    grid: &Grid<DIM>,
    x: &[f32; 256],
    weights: impl Fn(usize, &[f32; N]) -> [f32; N],
) -> Result<Superblock<N, GROUPS>, Failed> {
    let mut groups: [Group<N>; GROUPS] =
        core::array::from_fn(|_| Group { points: [0; 8], signs: [0; 4], scale: 0.0, skipped: true });
    for (g, (x, out)) in x.as_chunks::<N>().0.iter().zip(&mut groups).enumerate() {
        if let Some(found) = group::<N, DIM, LEVELS>(rules, grid, x, &weights(g, x))? {
            *out = found;
        }
    }
    let scales = scales(&groups.each_ref().map(|group| group.scale));
    Ok((groups, scales))
}

/// Part `g` of a superblock's importance.
#[inline(always)]
fn of_group<const N: usize>(importance: &[f32; 256], g: usize) -> &[f32; N] {
    &importance.as_chunks().0[g]
}

impl EncodeSuperblock for Iq2Xxs {
    #[inline(always)]
    fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, points: &Points) -> Result<Self, Failed> {
        let rules = Rules { even: true, tiny: TINY, tries: 6, step: 0.1, fitted: true, again: Again::Always };
        let grid = points.eight()?;
        let importance = importance.ok_or(Failed)?;
        let sigma2 = sum_of_squares(x) / 256.0;
        let weights = |g, x: &_| weigh(of_group(importance, g), sigma2, x);
        let (groups, scales) = superblock::<32, 8, 8, 3>(&rules, grid, x, weights)?;
        let Some((d, scales)) = scales else { return Ok(bytemuck::Zeroable::zeroed()) };
        Ok(Self::pack(half(d), |g| (&groups[g].points, &groups[g].signs, scales[g])))
    }
}

impl EncodeSuperblock for Iq2Xs {
    #[inline(always)]
    fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, points: &Points) -> Result<Self, Failed> {
        let rules = Rules { even: true, tiny: TINY, tries: 9, step: 0.1, fitted: false, again: Again::Apart };
        let grid = points.eight()?;
        let importance = importance.ok_or(Failed)?;
        let sigma2 = sum_of_squares(x) / 256.0;
        let weights = |g, x: &_| weigh(of_group(importance, g), sigma2, x);
        let (groups, scales) = superblock::<16, 16, 8, 3>(&rules, grid, x, weights)?;
        let Some((d, scales)) = scales else { return Ok(bytemuck::Zeroable::zeroed()) };
        let point = |p: usize| (groups[p / 2].points[p % 2], groups[p / 2].signs[p % 2]);
        Ok(Self::pack(half(d), &scales, point))
    }
}

impl EncodeSuperblock for Iq2S {
    #[inline(always)]
    fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, points: &Points) -> Result<Self, Failed> {
        let rules =
            Rules { even: false, tiny: 1e-8, tries: 9, step: 0.1, fitted: false, again: Again::Apart };
        let grid = points.eight()?;
        let sigma2 = 2.0 * sum_of_squares(x) / 256.0;
        let weights = |g, x: &[f32; 16]| match importance {
            Some(importance) => weigh(of_group(importance, g), sigma2, x),
            None => x.map(|x| 0.25 * sigma2 + x * x),
        };
        let (groups, scales) = superblock::<16, 16, 8, 3>(&rules, grid, x, weights)?;
        let (d, scales) = scales.unwrap_or_default();
        let point = |p: usize| (groups[p / 2].points[p % 2], groups[p / 2].signs[p % 2]);
        Ok(Self::pack(half(d * 0.9875), &scales, point))
    }
}

/// The weights of an IQ3 group's errors.
#[inline(always)]
fn iq3_weights(importance: Option<&[f32; 256]>, g: usize, sigma2: f32, x: &[f32; 32]) -> [f32; 32] {
    match importance {
        Some(importance) => weigh(of_group(importance, g), sigma2, x),
        None => x.map(|x| x * x),
    }
}

impl EncodeSuperblock for Iq3Xxs {
    #[inline(always)]
    fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, points: &Points) -> Result<Self, Failed> {
        let rules =
            Rules { even: true, tiny: 1e-8, tries: 15, step: 0.2, fitted: false, again: Again::Apart };
        let grid = points.four()?;
        let sigma2 = 2.0 * sum_of_squares(x) / 256.0;
        let weights = |g, x: &_| iq3_weights(importance, g, sigma2, x);
        let (groups, scales) = superblock::<32, 8, 4, 8>(&rules, grid, x, weights)?;
        let Some((d, scales)) = scales else { return Ok(bytemuck::Zeroable::zeroed()) };
        Ok(Self::pack(half(d * 1.0125), |g| (&groups[g].points, &groups[g].signs, scales[g])))
    }
}

impl EncodeSuperblock for Iq3S {
    #[inline(always)]
    fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, points: &Points) -> Result<Self, Failed> {
        let rules =
            Rules { even: false, tiny: 0.0, tries: 9, step: 0.2, fitted: false, again: Again::Together };
        let grid = points.four()?;
        let sigma2 = 2.0 * sum_of_squares(x) / 256.0;
        let weights = |g, x: &_| iq3_weights(importance, g, sigma2, x);
        let (groups, scales) = superblock::<32, 8, 4, 8>(&rules, grid, x, weights)?;
        let (d, scales) = scales.unwrap_or_default();
        // ggml does not move on behind a group of zeros: what follows takes its place, but for the ninth bits.
        let mut places = [None; 8];
        let searched = (0..8).filter(|&g| !groups[g].skipped);
        places.iter_mut().zip(searched).for_each(|(place, g)| *place = Some(g));
        const NOTHING: (&[u16; 8], &[u8; 4]) = (&[0; 8], &[0; 4]);
        let moved = |g: usize| places[g].map_or(NOTHING, |g: usize| (&groups[g].points, &groups[g].signs));
        Ok(Self::pack(half(d * 1.033), &scales, moved, |g| &groups[g].points))
    }
}
