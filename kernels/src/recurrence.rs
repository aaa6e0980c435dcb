//! Recurrences of a matrix: what linear attention keeps of all tokens before.
//!
//! A head's state `S` is a matrix `[key_dim, value_dim]`. For each token in order:
//!
//! ```text
//! S = decay S
//! d = rate (v - S' k)     with the delta rule (Schlag and others 2021; Yang and others 2024), or
//! d = rate v              without it (Mamba 2: Dao and Gu 2024)
//! S = S + k d'
//! o = S' q
//! ```
//!
//! Columns of `S` do not meet, so a head's values are cut into blocks of [`block`] columns, which threads share. Sums run
//! over the keys in order, as chains of fused multiply-adds: a result depends neither on the level nor on the batch.
#![forbid(unsafe_code)]

use crate::Mismatch;
use crate::dispatch::Task;
use crate::output::Output;
use crate::simd::{Isa, Level, filled};

/// Values that one block of a head's state holds; `None` for heads that cannot be cut into whole registers.
pub const fn block(value_dim: usize) -> Option<usize> {
    if value_dim == 0 || !value_dim.is_multiple_of(8) {
        None
    } else if value_dim.is_multiple_of(32) {
        Some(32)
    } else {
        Some(8)
    }
}

/// The rows of a block of a state, as wide as the results, of which there is a column for each of `steps`.
pub(crate) fn state_rows(state: &[f32], steps: usize, out: &Output<'_>) -> Result<usize, Mismatch> {
    let width = out.rows();
    if width == 0 || !width.is_multiple_of(8) || !state.len().is_multiple_of(width) {
        return Err(Mismatch {
            what: "floats of a state of whole rows",
            expected: width,
            found: state.len(),
        });
    }
    Mismatch::check("columns of results", steps, out.columns())?;
    Ok(state.len() / width)
}

/// What one token brings to a head: keys and queries `[key_dim]`, values of the block.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The key.
    pub key: &'a [f32],
    /// The query, with the factor of the results.
    pub query: &'a [f32],
    /// The block's values.
    pub value: &'a [f32],
    /// Factor of the state.
    pub decay: f32,
    /// Factor of what is added.
    pub rate: f32,
}

/// Carries a block `[key_dim, block]` of a head's state through the steps, and writes the results to `out`, a column for
/// each step.
///
/// # Errors
/// [`Mismatch`] where the lengths do not belong together.
pub fn recur<'a>(
    level: Level,
    delta: bool,
    state: &mut [f32],
    steps: impl ExactSizeIterator<Item = Step<'a>>,
    out: &mut Output<'_>,
) -> Result<(), Mismatch> {
    let (width, key_dim) = (out.rows(), state_rows(state, steps.len(), out)?);
    for (column, step) in steps.enumerate() {
        for (what, expected, found) in [
            ("values of a key", key_dim, step.key.len()),
            ("values of a query", key_dim, step.query.len()),
            ("values of a block", width, step.value.len()),
        ] {
            Mismatch::check(what, expected, found)?;
        }
        level.run(OneStep { delta, state, width, step, out: out.column(column) });
    }
    Ok(())
}

struct OneStep<'a> {
    delta: bool,
    state: &'a mut [f32],
    width: usize,
    step: Step<'a>,
    out: &'a mut [f32],
}

impl Task for OneStep<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        if self.width == 32 {
            step::<I, 4>(isa, self);
        } else {
            // Blocks of 8 columns each.
            step::<I, 1>(isa, self);
        }
    }
}

#[inline(always)]
fn step<I: Isa, const N: usize>(isa: I, task: OneStep<'_>) {
    let OneStep { delta, state, width, step, out } = task;
    let Step { key, query, value, decay, rate } = step;
    let (decay, rate) = (isa.splat(decay), isa.splat(rate));
    for at in (0..width).step_by(8 * N) {
        let mut d = [isa.splat(0.0); N];
        if delta {
            for (row, &key) in state.chunks_exact(width).zip(key) {
                let key = isa.splat(key);
                for (d, row) in d.iter_mut().zip(row[at..at + 8 * N].as_chunks::<8>().0) {
                    *d = isa.fma(isa.mul(isa.floats(row), decay), key, *d);
                }
            }
        }
        for (d, value) in d.iter_mut().zip(value[at..at + 8 * N].as_chunks::<8>().0) {
            *d = isa.mul(isa.sub(isa.floats(value), *d), rate);
        }
        let mut sums = [isa.splat(0.0); N];
        for ((row, &key), &query) in state.chunks_exact_mut(width).zip(key).zip(query) {
            let (key, query) = (isa.splat(key), isa.splat(query));
            let row = row[at..at + 8 * N].as_chunks_mut::<8>().0;
            for ((row, sum), &d) in row.iter_mut().zip(&mut sums).zip(&d) {
                let s = isa.fma(key, d, isa.mul(isa.floats(row), decay));
                isa.store(s, row);
                *sum = isa.fma(s, query, *sum);
            }
        }
        for (&sum, out) in sums.iter().zip(out[at..at + 8 * N].as_chunks_mut::<8>().0) {
            isa.store(sum, out);
        }
    }
}

/// A causal convolution of each channel by itself: `out[c] = bias[c] + sum over j of weights[j][c] rows[j][c]`, a chain of
/// fused multiply-adds in order of `j`, the oldest row first.
///
/// # Errors
/// [`Mismatch`] where the lengths do not belong together.
pub fn convolve(
    level: Level,
    weights: &[f32],
    bias: Option<&[f32]>,
    rows: &[f32],
    out: &mut [f32],
) -> Result<(), Mismatch> {
    let channels = out.len();
    for (what, expected, found) in [
        ("weights of a convolution", rows.len(), weights.len()),
        ("biases of a convolution", channels, bias.map_or(channels, <[f32]>::len)),
        ("rows of a convolution", 0, weights.len() % channels.max(1)),
    ] {
        Mismatch::check(what, expected, found)?;
    }
    match bias {
        Some(bias) => out.copy_from_slice(bias),
        None => out.fill(0.0),
    }
    for (weights, row) in weights.chunks_exact(channels.max(1)).zip(rows.chunks_exact(channels.max(1))) {
        level.run(MultiplyAdd { a: weights, b: row, sum: out });
    }
    Ok(())
}

struct MultiplyAdd<'a> {
    a: &'a [f32],
    b: &'a [f32],
    sum: &'a mut [f32],
}

impl Task for MultiplyAdd<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (a, a_left) = self.a.as_chunks::<8>();
        let (b, b_left) = self.b.as_chunks::<8>();
        let (sum, sum_left) = self.sum.as_chunks_mut::<8>();
        for ((a, b), sum) in a.iter().zip(b).zip(sum) {
            let s = isa.fma(isa.floats(a), isa.floats(b), isa.floats(sum));
            isa.store(s, sum);
        }
        let [a, b, mut sum] = [a_left, b_left, &*sum_left].map(|left| filled(left, 0.0));
        let s = isa.fma(isa.floats(&a), isa.floats(&b), isa.floats(&sum));
        isa.store(s, &mut sum);
        sum_left.copy_from_slice(&sum[..sum_left.len()]);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use core::ops::Range;

    use super::*;

    pub(crate) fn noise(i: usize) -> f32 {
        ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    const KEYS: usize = 12;

    /// `len` numbers from the `seed`-th on.
    pub(crate) fn row(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| noise(i + seed)).collect()
    }

    /// That nine tokens give the same results, and leave the same state of `rows` rows, at every level and in any batches.
    /// `run` carries a state through the tokens of a range.
    pub(crate) fn assert_neither_level_nor_batch_changes_a_bit(
        rows: usize,
        run: impl Fn(Level, &mut [f32], Range<usize>, &mut Output<'_>) -> Result<(), Mismatch>,
    ) {
        for width in [8, 16, 32] {
            let run_all = |level: Level, batches: &[usize]| {
                let mut state = row(rows * width, 77);
                let mut all = vec![f32::NAN; 9 * width];
                let mut first = 0;
                for &count in batches {
                    let out = &mut all[first * width..(first + count) * width];
                    let out = &mut Output::new(out, width).unwrap();
                    run(level, &mut state, first..first + count, out).unwrap();
                    first += count;
                }
                assert_eq!(first, 9);
                (all, state)
            };
            let expected = run_all(Level::SCALAR, &[9]);
            for level in Level::available() {
                assert_eq!(run_all(level, &[9]), expected, "{level}");
                assert_eq!(run_all(level, &[1, 3, 4, 1]), expected, "{level}");
            }
        }
    }

    #[test]
    fn neither_level_nor_batch_changes_a_bit() {
        for delta in [false, true] {
            assert_neither_level_nor_batch_changes_a_bit(KEYS, |level, state, tokens, out| {
                let tokens: Vec<_> = tokens
                    .map(|t| {
                        (row(KEYS, 1000 * t), row(KEYS, 1000 * t + 300), row(out.rows(), 1000 * t + 600), t)
                    })
                    .collect();
                let steps = tokens.iter().map(|(key, query, value, t)| Step {
                    key,
                    query,
                    value,
                    decay: 0.5 + 0.4 * noise(*t),
                    rate: 0.7,
                });
                recur(level, delta, state, steps, out)
            });
        }
    }

    #[test]
    fn a_step_is_its_formula() {
        for delta in [false, true] {
            let (mut state, key) = (vec![0.0; 2 * 8], [1.0, 2.0]);
            state[..8].fill(1.0);
            state[8..].fill(3.0);
            let step = Step { key: &key, query: &[1.0, -1.0], value: &[10.0; 8], decay: 0.5, rate: 0.25 };
            let mut out = [0.0; 8];
            recur(
                Level::detect(),
                delta,
                &mut state,
                [step].into_iter(),
                &mut Output::new(&mut out, 8).unwrap(),
            )
            .unwrap();
            // Without the rule d = 2.5; with it d = (10 - (0.5 * 1 + 1.5 * 2)) / 4 = 1.625.
            let d = if delta { 1.625 } else { 2.5 };
            assert_eq!(state[..8], [0.5 + d; 8]);
            assert_eq!(state[8..], [1.5 + 2.0 * d; 8]);
            assert_eq!(out, [0.5 + d - (1.5 + 2.0 * d); 8]);
        }
    }

    #[test]
    fn a_convolution_is_its_sum_and_the_same_at_every_level() {
        for channels in [1, 8, 13] {
            let weights: Vec<f32> = (0..3 * channels).map(noise).collect();
            let rows: Vec<f32> = (0..3 * channels).map(|i| noise(i + 99)).collect();
            let bias: Vec<f32> = (0..channels).map(|i| noise(i + 500)).collect();
            for level in Level::available() {
                let mut out = vec![0.0; channels];
                convolve(level, &weights, Some(&bias), &rows, &mut out).unwrap();
                for c in 0..channels {
                    let fma =
                        |sum: f32, j: usize| weights[j * channels + c].mul_add(rows[j * channels + c], sum);
                    assert_eq!(out[c], (0..3).fold(bias[c], fma), "{level}");
                }
            }
        }
    }

    #[test]
    fn lengths_must_match() {
        let step = Step { key: &[1.0], query: &[1.0], value: &[1.0; 8], decay: 1.0, rate: 1.0 };
        let mut out = [0.0; 8];
        let mut run = |state: &mut [f32], steps: &[Step<'_>]| {
            let out = &mut Output::new(&mut out, 8).unwrap();
            recur(Level::detect(), true, state, steps.iter().copied(), out)
        };
        assert!(run(&mut [0.0; 8], &[step]).is_ok());
        assert!(run(&mut [0.0; 16], &[step]).is_err());
        assert!(run(&mut [0.0; 9], &[step]).is_err());
        assert!(run(&mut [0.0; 8], &[step, step]).is_err());
        assert!(convolve(Level::detect(), &[0.0; 4], None, &[0.0; 6], &mut [0.0; 2]).is_err());
        assert!(convolve(Level::detect(), &[0.0; 4], Some(&[0.0]), &[0.0; 4], &mut [0.0; 2]).is_err());
        assert_eq!(block(24), Some(8));
        assert_eq!((block(128), block(12)), (Some(32), None));
    }
}
