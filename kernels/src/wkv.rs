//! The recurrence of RWKV 7 (Peng and others 2025): a matrix whose rows decay at rates of their own, and which is corrected
//! along one direction before a key is added.
//!
//! A head's state `S` is a matrix `[key_dim, value_dim]`. For each token in order:
//!
//! ```text
//! d = S' a
//! S = diag(decay) S + b d' + k v'
//! o = S' r
//! ```
//!
//! As in [`crate::recurrence`], columns of `S` do not meet: threads share blocks of them, and sums run over the keys in
//! order, as chains of fused multiply-adds.
#![forbid(unsafe_code)]

use crate::Mismatch;
use crate::dispatch::Task;
use crate::output::Output;
use crate::recurrence::state_rows;
use crate::simd::{Isa, Level};

/// What one token brings to a head: vectors of `[key_dim]`, and values of the block.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// What asks for the results.
    pub receptance: &'a [f32],
    /// The factors of the state's rows.
    pub decay: &'a [f32],
    /// The key.
    pub key: &'a [f32],
    /// What the state is asked for before.
    pub a: &'a [f32],
    /// Where what it answers is added.
    pub b: &'a [f32],
    /// The block's values.
    pub value: &'a [f32],
}

/// Carries a block `[key_dim, block]` of a head's state through the steps, and writes the results to `out`, a column for
/// each step.
///
/// # Errors
/// [`Mismatch`] where the lengths do not belong together.
pub fn wkv<'a>(
    level: Level,
    state: &mut [f32],
    steps: impl ExactSizeIterator<Item = Step<'a>>,
    out: &mut Output<'_>,
) -> Result<(), Mismatch> {
    let (width, key_dim) = (out.rows(), state_rows(state, steps.len(), out)?);
    for (column, step) in steps.enumerate() {
        let Step { receptance, decay, key, a, b, value } = step;
        for vector in [receptance, decay, key, a, b] {
            Mismatch::check("values of a key", key_dim, vector.len())?;
        }
        Mismatch::check("values of a block", width, value.len())?;
        level.run(OneStep { state, step, out: out.column(column) });
    }
    Ok(())
}

struct OneStep<'a> {
    state: &'a mut [f32],
    step: Step<'a>,
    out: &'a mut [f32],
}

impl Task for OneStep<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let OneStep { state, step, out } = self;
        let width = out.len();
        for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let mut d = isa.splat(0.0);
            for (row, &a) in state.chunks_exact(width).zip(step.a) {
                d = isa.fma(isa.floats(&row.as_chunks().0[i]), isa.splat(a), d);
            }
            let value = isa.floats(&step.value.as_chunks().0[i]);
            let mut sum = isa.splat(0.0);
            for (j, row) in state.chunks_exact_mut(width).enumerate() {
                let row = &mut row.as_chunks_mut::<8>().0[i];
                let s = isa.mul(isa.floats(row), isa.splat(step.decay[j]));
                let s = isa.fma(isa.splat(step.b[j]), d, s);
                let s = isa.fma(isa.splat(step.key[j]), value, s);
                isa.store(s, row);
                sum = isa.fma(s, isa.splat(step.receptance[j]), sum);
            }
            isa.store(sum, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recurrence::tests::{assert_neither_level_nor_batch_changes_a_bit, row};

    const KEYS: usize = 6;

    #[test]
    fn neither_level_nor_batch_changes_a_bit() {
        assert_neither_level_nor_batch_changes_a_bit(KEYS, |level, state, tokens, out| {
            let tokens: Vec<_> = tokens
                .map(|t| {
                    ([0, 1, 2, 3, 4].map(|i| row(KEYS, 1000 * t + 100 * i)), row(out.rows(), 1000 * t + 7))
                })
                .collect();
            let steps = tokens.iter().map(|([receptance, decay, key, a, b], value)| Step {
                receptance,
                decay,
                key,
                a,
                b,
                value,
            });
            wkv(level, state, steps, out)
        });
    }

    #[test]
    fn a_step_is_its_formula_and_lengths_must_match() {
        let (mut state, mut out) = ([1.0; 16], [0.0; 8]);
        let step = Step {
            receptance: &[1.0, -1.0],
            decay: &[0.5, 0.25],
            key: &[1.0, 2.0],
            a: &[1.0, 2.0],
            b: &[1.0, 0.0],
            value: &[3.0; 8],
        };
        let run = |state: &mut [f32], step, out: &mut [f32; 8]| {
            wkv(Level::detect(), state, [step].into_iter(), &mut Output::new(out, 8).unwrap())
        };
        run(&mut state, step, &mut out).unwrap();
        // d = 3; the rows are 0.5 + 3 + 3 and 0.25 + 6.
        assert_eq!((state[0], state[8], out[0]), (6.5, 6.25, 0.25));
        assert!(run(&mut [0.0; 24], step, &mut out).is_err());
        assert!(run(&mut state, Step { value: &[0.0; 7], ..step }, &mut out).is_err());
    }
}
