//! The selective scan of Mamba (Gu and Dao 2023): each channel has states of its own, each of which decays at its own rate.
//!
//! For each token in order, of channel `c` and its states `n`:
//!
//! ```text
//! s[n][c] = exp(step[c] a[n][c]) s[n][c] + b[n] (step[c] x[c])
//! y[c]    = sum over n of s[n][c] c[n]              a chain of fused multiply-adds in order of n
//! ```
//!
//! Channels do not meet: threads share blocks of them, [`crate::recurrence::block`] wide.
#![forbid(unsafe_code)]

use crate::Mismatch;
use crate::dispatch::Task;
use crate::output::Output;
use crate::recurrence::state_rows;
use crate::simd::{Isa, Level};

/// What one token brings to a block of channels.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The block's inputs.
    pub x: &'a [f32],
    /// The lengths of its steps.
    pub steps: &'a [f32],
    /// How inputs enter each state.
    pub b: &'a [f32],
    /// How each state enters the results.
    pub c: &'a [f32],
}

/// Carries the states `[states, block]` of a block of channels with the rates `a`, shaped alike, through the tokens, and
/// writes the results to `out`, a column for each token.
///
/// # Errors
/// [`Mismatch`] where the lengths do not belong together.
pub fn scan<'a>(
    level: Level,
    a: &[f32],
    state: &mut [f32],
    tokens: impl ExactSizeIterator<Item = Step<'a>>,
    out: &mut Output<'_>,
) -> Result<(), Mismatch> {
    let (width, states) = (out.rows(), state_rows(state, tokens.len(), out)?);
    Mismatch::check("rates of states", state.len(), a.len())?;
    for (column, step) in tokens.enumerate() {
        for (what, expected, found) in [
            ("inputs of a block", width, step.x.len()),
            ("steps of a block", width, step.steps.len()),
            ("ways into states", states, step.b.len()),
            ("ways out of states", states, step.c.len()),
        ] {
            Mismatch::check(what, expected, found)?;
        }
        level.run(OneToken { a, state, step, out: out.column(column) });
    }
    Ok(())
}

struct OneToken<'a> {
    a: &'a [f32],
    state: &'a mut [f32],
    step: Step<'a>,
    out: &'a mut [f32],
}

impl Task for OneToken<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let OneToken { a, state, step, out } = self;
        let width = out.len();
        for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let length = isa.floats(&step.steps.as_chunks().0[i]);
            let input = isa.mul(length, isa.floats(&step.x.as_chunks().0[i]));
            let mut y = isa.splat(0.0);
            let rows = a.chunks_exact(width).zip(state.chunks_exact_mut(width));
            for ((a, state), (&b, &c)) in rows.zip(step.b.iter().zip(step.c)) {
                let state = &mut state.as_chunks_mut::<8>().0[i];
                let decay = isa.exp(isa.mul(length, isa.floats(&a.as_chunks().0[i])));
                let s = isa.fma(isa.splat(b), input, isa.mul(isa.floats(state), decay));
                isa.store(s, state);
                y = isa.fma(s, isa.splat(c), y);
            }
            isa.store(y, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recurrence::tests::{assert_neither_level_nor_batch_changes_a_bit, row};

    const STATES: usize = 5;

    #[test]
    fn neither_level_nor_batch_changes_a_bit() {
        assert_neither_level_nor_batch_changes_a_bit(STATES, |level, state, tokens, out| {
            let width = out.rows();
            let a: Vec<f32> = row(STATES * width, 5).iter().map(|x| x - 1.5).collect();
            let tokens: Vec<_> = tokens
                .map(|t| {
                    let steps: Vec<f32> = row(width, 1000 * t).iter().map(|x| x + 1.0).collect();
                    (row(width, 1000 * t + 1), steps, row(STATES, 1000 * t + 2), row(STATES, 1000 * t + 3))
                })
                .collect();
            let steps = tokens.iter().map(|(x, steps, b, c)| Step { x, steps, b, c });
            scan(level, &a, state, steps, out)
        });
    }

    #[test]
    fn a_step_is_its_formula_and_lengths_must_match() {
        let (mut state, mut out) = ([1.0; 16], [0.0; 8]);
        let step = Step { x: &[3.0; 8], steps: &[0.5; 8], b: &[1.0, 2.0], c: &[1.0, -1.0] };
        let rates = [-2.0; 16];
        let run = |state: &mut [f32], rates: &[f32], out: &mut [f32; 8]| {
            let mut out = Output::new(out, 8).unwrap();
            scan(Level::detect(), rates, state, [step].into_iter(), &mut out)
        };
        run(&mut state, &rates, &mut out).unwrap();
        let decay = (-1.0f32).exp();
        for (found, expected) in [(state[0], decay + 1.5), (state[8], decay + 3.0), (out[0], -1.5)] {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        assert!(run(&mut [0.0; 8], &rates[..8], &mut out).is_err());
        assert!(run(&mut state, &rates[..8], &mut out).is_err());
    }
}
