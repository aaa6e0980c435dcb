//! What becomes of a block's scores: bent, lowered, and turned into exponentials, with what is known of the blocks before.
#![forbid(unsafe_code)]

use core::ops::Range;

use super::BLOCK;
use crate::simd::{Isa, scalar};

/// Where a query stands: the largest score and the sum of exponentials so far.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Softmax {
    pub max: f32,
    pub sum: f32,
}

impl Softmax {
    pub const NOTHING: Softmax = Softmax { max: f32::NEG_INFINITY, sum: 0.0 };

    pub fn saw_nothing(self) -> bool {
        self.max == f32::NEG_INFINITY && self.sum == 0.0
    }
}

/// Turns a block's scores into exponentials; the factors of what was summed before. All queries take each step together, so
/// that none waits for another's chain.
#[inline(always)]
pub(super) fn softmax<I: Isa, const Q: usize>(
    isa: I,
    seen: &[Range<usize>; Q],
    weights: &mut [[f32; BLOCK]; Q],
    states: &mut [Softmax; Q],
) -> [f32; Q] {
    let mut largest = [0.0; Q];
    for q in 0..Q {
        let mut most = isa.splat(states[q].max);
        for weights in weights[q].as_chunks::<8>().0 {
            // In this order NaN is passed over here; it shows in the sum.
            most = isa.max(isa.floats(weights), most);
        }
        largest[q] = isa.max_lane(most);
    }
    let mut sums = [isa.splat(0.0); 8];
    for (weights, (&largest, total)) in weights.iter_mut().zip(largest.iter().zip(&mut sums)) {
        let weights = weights.as_chunks_mut::<8>().0;
        let mut sums = [isa.splat(0.0); BLOCK / 8];
        for (sum, weights) in sums.iter_mut().zip(weights.iter()) {
            *sum = isa.sub(isa.floats(weights), isa.splat(largest));
        }
        sums = isa.exp_negative_each(sums);
        for (&sum, weights) in sums.iter().zip(weights) {
            isa.store(sum, weights);
        }
        *total = isa.add(isa.add(sums[0], sums[2]), isa.add(sums[1], sums[3]));
    }
    let (mut more, mut corrections) = ([0.0; 8], [0.0; 8]);
    isa.store(isa.sum_each_floats(&sums), &mut more);
    for q in 0..Q {
        // So that the exponential is one, be it of nothing that was seen.
        corrections[q] = if largest[q] == states[q].max { 0.0 } else { states[q].max - largest[q] };
    }
    isa.store(isa.exp_negative(isa.floats(&corrections)), &mut corrections);
    for q in 0..Q {
        if !seen[q].is_empty() {
            let sum = scalar::fma(states[q].sum, corrections[q], more[q]);
            states[q] = Softmax { max: largest[q], sum };
        }
    }
    core::array::from_fn(|q| corrections[q])
}

/// `e` to the power of one number that is not positive.
#[inline(always)]
pub(super) fn exp<I: Isa>(isa: I, a: f32) -> f32 {
    let mut lanes = [0.0; 8];
    isa.store(isa.exp_negative(isa.splat(a)), &mut lanes);
    lanes[0]
}

/// `cap tanh(s / cap)`, as `cap - 2 cap / (1 + exp(2 s / cap))`.
#[inline(always)]
pub(super) fn bend<I: Isa>(isa: I, scores: &mut [f32; BLOCK], cap: f32) {
    for scores in scores.as_chunks_mut::<8>().0 {
        let e = isa.exp(isa.mul(isa.floats(scores), isa.splat(2.0 / cap)));
        let rest = isa.div(isa.splat(2.0 * cap), isa.add(isa.splat(1.0), e));
        isa.store(isa.sub(isa.splat(cap), rest), scores);
    }
}

/// Lowers each score by the slope times how far its position is.
#[inline(always)]
pub(super) fn slant<I: Isa>(isa: I, scores: &mut [f32; BLOCK], slope: f32, distance: f32) {
    const STEPS: [f32; 8] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
    for (number, scores) in scores.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let distance = isa.add(isa.splat(distance + (8 * number) as f32), isa.floats(&STEPS));
        let far = isa.max(distance, isa.sub(isa.splat(0.0), distance));
        isa.store(isa.fma(isa.splat(-slope), far, isa.floats(scores)), scores);
    }
}
