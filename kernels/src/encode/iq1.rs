//! Ternary points, shifted up or down: IQ1_S and IQ1_M.
//!
//! With three levels the best split of a group's weights can be found by trying all: sorted, those below one border take the
//! lowest level, those above another the highest. Both levels' sums follow from sums over the sorted weights.
#![forbid(unsafe_code)]

use super::numbers::{half, largest, nearest, sum_of_squares, weigh};
use super::points::Grid;
use super::{EncodeSuperblock, Failed, Points};
use crate::quant::iq1_s::SHIFT;
use crate::quant::{Iq1M, Iq1S};

/// The levels, shifted up and down.
const SHIFTED: [[f32; 3]; 2] = [[-1.0 + SHIFT, SHIFT, 1.0 + SHIFT], [-1.0 - SHIFT, -SHIFT, 1.0 - SHIFT]];

/// The best split found.
#[derive(Clone, Copy)]
struct Split {
    scale: f32,
    /// `scale` times the sum of weights times levels: what the fit takes off the error.
    score: f32,
    /// Where the middle and the highest level begin, in the order of the sorted weights, and which shift; `None` at first.
    found: Option<(usize, usize, usize)>,
}

impl Split {
    #[inline(always)]
    fn offer(&mut self, qx: f32, q2: f32, found: (usize, usize, usize)) {
        if q2 > 0.0 && qx * qx > self.score * q2 {
            self.scale = qx / q2;
            self.score = self.scale * qx;
            self.found = Some(found);
        }
    }
}

/// The places of the numbers in rising order; equal ones keep theirs.
#[inline(always)]
fn sorted<const N: usize>(x: &[f32; N]) -> [usize; N] {
    let mut order = [0; N];
    for i in 0..N {
        // Insertion, for there are few.
        let mut at = i;
        while at > 0 && x[i] < x[order[at - 1]] {
            order[at] = order[at - 1];
            at -= 1;
        }
        order[at] = i;
    }
    order
}

/// The levels 0 to 2 that a split gives.
#[inline(always)]
fn levels<const N: usize>(order: &[usize; N], middle: usize, high: usize, turned: bool) -> [u8; N] {
    let mut levels = [0; N];
    for (j, &i) in order.iter().enumerate() {
        let level = u8::from(j >= middle) + u8::from(j >= high);
        levels[i] = if turned { 2 - level } else { level };
    }
    levels
}

/// Eight weights' point: that of their levels, or the best near it.
#[inline(always)]
fn point(
    grid: &Grid<8>,
    levels: &[u8; 8],
    x: &[f32; 8],
    weights: &[f32; 8],
    scale: f32,
    values: &[f32; 3],
) -> Result<(u16, bool), Failed> {
    let neighbours = match grid.find(levels) {
        Ok(index) => return Ok((index, true)),
        Err(neighbours) => neighbours,
    };
    let mut costs = [[0.0; 3]; 8];
    for i in 0..8 {
        for level in 0..3 {
            let diff = scale * values[level] - x[i];
            costs[i][level] = weights[i] * diff * diff;
        }
    }
    Ok((grid.cheapest(neighbours, &costs)?, false))
}

/// Adds what the fit of a scale to a point needs.
#[inline(always)]
fn add_sums(
    sums: &mut (f32, f32),
    levels: &[u8; 8],
    x: &[f32; 8],
    weights: &[f32; 8],
    value: impl Fn(usize) -> f32,
) {
    for i in 0..8 {
        let q = value(usize::from(levels[i]) % 3);
        sums.0 += weights[i] * q * x[i];
        sums.1 += weights[i] * q * q;
    }
}

/// A group of `N` weights, encoded.
#[derive(Clone, Copy)]
struct Group {
    /// The points' indices; IQ1_M has two.
    points: [u16; 4],
    scale: f32,
    /// For each point, whether it is shifted down.
    down: [bool; 4],
}

/// Where a group is zero: the first point, and no scale.
const ZERO: Group = Group { points: [0; 4], scale: 0.0, down: [false; 4] };

/// Finds the points of a split, and fits the scale to them where one was off the grid.
#[inline(always)]
fn finish<const N: usize>(
    grid: &Grid<8>,
    levels: &[u8; N],
    x: &[f32; N],
    weights: &[f32; N],
    mut scale: f32,
    down: [bool; 4],
) -> Result<Group, Failed> {
    let mut points = [0; 4];
    let mut all_on_grid = true;
    let parts = levels.as_chunks().0.iter().zip(x.as_chunks().0).zip(weights.as_chunks().0);
    for (k, ((levels, x), weights)) in parts.clone().enumerate() {
        let on_grid;
        (points[k], on_grid) = point(grid, levels, x, weights, scale, &SHIFTED[usize::from(down[k])])?;
        all_on_grid &= on_grid;
    }
    if !all_on_grid {
        let mut sums = (0.0, 0.0);
        for (k, ((_, x), weights)) in parts.enumerate() {
            let values = &SHIFTED[usize::from(down[k])];
            add_sums(&mut sums, grid.point(points[k]), x, weights, |level| values[level]);
        }
        if sums.0 > 0.0 && sums.1 > 0.0 {
            scale = sums.0 / sums.1;
        }
    }
    if scale >= 0.0 { Ok(Group { points, scale, down }) } else { Err(Failed) }
}

/// The scale of a superblock, and codes 0 to 7 of its groups' scales; `None` where all are zero.
#[inline(always)]
fn scales<const GROUPS: usize>(groups: &[Group; GROUPS]) -> Option<(f32, [u8; GROUPS])> {
    let mut max = 0.0;
    for group in groups {
        max = if max > group.scale { max } else { group.scale };
    }
    if max == 0.0 {
        return None;
    }
    let d = max / 15.0;
    let inverse = 1.0 / d;
    Some((d, groups.map(|group| nearest(0.5 * (inverse * group.scale - 1.0)).clamp(0, 7) as u8)))
}

/// The largest magnitude.
#[inline(always)]
fn magnitude(x: &[f32]) -> f32 {
    largest(x).0
}

#[inline(always)]
fn iq1_s_group(grid: &Grid<8>, x: &[f32; 32], weights: &[f32; 32]) -> Result<Group, Failed> {
    let max = magnitude(x);
    if max < 1e-12 {
        return Ok(ZERO);
    }
    let order = sorted(x);
    let (mut sum_x, mut sum_w) = ([0.0; 33], [0.0; 33]);
    for (j, &i) in order.iter().enumerate() {
        sum_x[j + 1] = sum_x[j] + weights[i] * x[i];
        sum_w[j + 1] = sum_w[j] + weights[i];
    }
    let mut split = Split { scale: max, score: -f32::MAX, found: None };
    for middle in 0..=32 {
        let mut sums = [[(0.0, 0.0); 2]; 33];
        for high in middle..=32 {
            for (shift, v) in SHIFTED.iter().enumerate() {
                let x = [sum_x[middle] - sum_x[0], sum_x[high] - sum_x[middle], sum_x[32] - sum_x[high]];
                let w = [sum_w[middle] - sum_w[0], sum_w[high] - sum_w[middle], sum_w[32] - sum_w[high]];
                sums[high][shift] = (
                    x[0] * v[0] + x[1] * v[1] + x[2] * v[2],
                    w[0] * v[0] * v[0] + w[1] * v[1] * v[1] + w[2] * v[2] * v[2],
                );
            }
        }
        for high in middle..=32 {
            for shift in 0..2 {
                let (qx, q2) = sums[high][shift];
                split.offer(qx, q2, (middle, high, shift));
            }
        }
    }
    let Some((middle, high, shift)) = split.found else { return Ok(ZERO) };
    let turned = split.scale < 0.0;
    let levels = levels(&order, middle, high, turned);
    finish(grid, &levels, x, weights, split.scale.abs(), [(shift == 1) != turned; 4])
}

impl EncodeSuperblock for Iq1S {
    #[inline(always)]
    fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, points: &Points) -> Result<Self, Failed> {
        let grid = points.eight()?;
        let importance = importance.ok_or(Failed)?.as_chunks::<32>().0;
        let sigma2 = 2.0 * sum_of_squares(x) / 256.0;
        let mut groups = [ZERO; 8];
        for ((x, importance), group) in x.as_chunks().0.iter().zip(importance).zip(&mut groups) {
            *group = iq1_s_group(grid, x, &weigh(importance, sigma2, x))?;
        }
        let group = |g: usize| (&groups[g].points, groups[g].down[0]);
        Ok(match scales(&groups) {
            Some((d, scales)) => Self::pack(half(d * 1.125), &scales, group),
            // The shifts are written with the scales.
            None => Self::pack([0; 2], &[0; 8], |g| (group(g).0, false)),
        })
    }
}

/// A group of IQ1_M: each half has its shift, so the sums are kept for each half.
#[inline(always)]
fn iq1_m_group(grid: &Grid<8>, x: &[f32; 16], weights: &[f32; 16]) -> Result<Group, Failed> {
    let max = magnitude(x);
    if max < 1e-7 {
        return Ok(ZERO);
    }
    let order = sorted(x);
    let (mut sum_x, mut sum_w) = ([[0.0; 17]; 2], [[0.0; 17]; 2]);
    for (j, &i) in order.iter().enumerate() {
        let half = i / 8;
        sum_x[half][j + 1] = sum_x[half][j] + weights[i] * x[i];
        sum_w[half][j + 1] = sum_w[half][j] + weights[i];
        sum_x[1 - half][j + 1] = sum_x[1 - half][j];
        sum_w[1 - half][j + 1] = sum_w[1 - half][j];
    }
    // By how much the square of a level is above that of the next.
    let falls = SHIFTED.map(|v| [v[0] * v[0] - v[1] * v[1], v[1] * v[1] - v[2] * v[2]]);
    let mut split = Split { scale: max, score: -f32::MAX, found: None };
    for middle in 0..=16 {
        for high in middle..=16 {
            let (mut qx, mut q2) = ([[0.0; 2]; 2], [[0.0; 2]; 2]);
            for shift in 0..2 {
                let top = SHIFTED[shift][2];
                for half in 0..2 {
                    let below = sum_x[half][middle] + sum_x[half][high];
                    qx[shift][half] = sum_x[half][16] * top - below;
                    q2[shift][half] = sum_w[half][16] * top * top
                        + sum_w[half][middle] * falls[shift][0]
                        + sum_w[half][high] * falls[shift][1];
                }
            }
            for shifts in 0..4 {
                let (first, second) = (shifts / 2, shifts % 2);
                let (qx, q2) = (qx[first][0] + qx[second][1], q2[first][0] + q2[second][1]);
                split.offer(qx, q2, (middle, high, shifts));
            }
        }
    }
    let Some((middle, high, shifts)) = split.found else { return Ok(ZERO) };
    let turned = split.scale < 0.0;
    let levels = levels(&order, middle, high, turned);
    let down = [(shifts / 2 == 1) != turned, (shifts % 2 == 1) != turned, false, false];
    finish(grid, &levels, x, weights, split.scale.abs(), down)
}

impl EncodeSuperblock for Iq1M {
    #[inline(always)]
    fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, points: &Points) -> Result<Self, Failed> {
        let grid = points.eight()?;
        let importance = importance.map(|importance| importance.as_chunks::<16>().0);
        let sigma2 = 2.0 * sum_of_squares(x) / 256.0;
        let (mut groups, mut weights) = ([ZERO; 16], [[0.0; 16]; 16]);
        for (g, x) in x.as_chunks().0.iter().enumerate() {
            weights[g] = match importance {
                Some(importance) => weigh(&importance[g], sigma2, x),
                None => x.map(|x| x * x),
            };
            groups[g] = iq1_m_group(grid, x, &weights[g])?;
        }
        let Some((mut d, scales)) = scales(&groups) else {
            return Ok(Self::pack([0; 2], &[0; 16], |p| (groups[p / 2].points[p % 2], false)));
        };
        // The scale is fitted once more, to what the groups have become.
        let mut sums = (0.0, 0.0);
        for (g, x) in x.as_chunks::<16>().0.iter().enumerate() {
            let scale = f32::from(2 * scales[g] + 1);
            for (k, (x, weights)) in x.as_chunks().0.iter().zip(weights[g].as_chunks().0).enumerate() {
                let values = &SHIFTED[usize::from(groups[g].down[k])];
                let levels = grid.point(groups[g].points[k]);
                add_sums(&mut sums, levels, x, weights, |level| values[level] * scale);
            }
        }
        if sums.1 > 0.0 {
            d = sums.0 / sums.1;
        }
        let point = |p: usize| (groups[p / 2].points[p % 2], groups[p / 2].down[p % 2]);
        Ok(Self::pack(half(d * 1.1125), &scales, point))
    }
}
