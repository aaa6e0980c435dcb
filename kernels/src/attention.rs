//! Attention of a few queries over one head's keys and values, block by block with an online softmax (Milakov and
//! Gimelshein 2018; Dao and others 2022).
//!
//! Keys and values come in blocks of [`BLOCK`] positions, counted from position 0 of the sequence whatever the batch
//! is, so a query's result does not depend on the queries beside it. For each query and each block in order:
//!
//! ```text
//! s[j] = scale * sum over i of q[i] k[i][j]       a chain of fused multiply-adds in order of i
//! m'   = max(m, s)                                over the positions that the query sees
//! p[j] = exp(s[j] - m'),   c = exp(m - m')
//! l    = l c + sum of p                           four registers of eight, one tree
//! o    = o c + sum over j of p[j] v[j]            a chain in order of j
//! ```
//!
//! and `o / l` at the end. Keys lie transposed, `[head_dim][BLOCK]`, so that both sums are the same loop: a row of
//! coefficients times a matrix whose rows are registers.
#![forbid(unsafe_code)]

use core::ops::Range;

use half::f16;

use crate::Mismatch;
use crate::dispatch::Task;
use crate::output::Output;
use crate::simd::{Isa, Level, scalar};

/// Positions in a block of keys and values.
pub const BLOCK: usize = 32;

/// The values of one head that are kept for a position, rounded up to whole registers.
pub const fn padded(dim: usize) -> usize {
    dim.next_multiple_of(BLOCK)
}

/// Numbers of a cache, in the precision in which they are kept.
#[derive(Clone, Copy, Debug)]
pub enum Numbers<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Half precision, by its bits.
    F16(&'a [u16]),
}

impl Numbers<'_> {
    fn len(&self) -> usize {
        match self {
            Numbers::F32(numbers) => numbers.len(),
            Numbers::F16(numbers) => numbers.len(),
        }
    }
}

/// One head's keys and values for [`BLOCK`] positions.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// `[key_dim][BLOCK]`
    pub keys: Numbers<'a>,
    /// `[BLOCK][padded(value_dim)]`
    pub values: Numbers<'a>,
}

/// The sizes that a head's queries, keys and values share.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Head {
    /// Values of a query and of a key.
    pub key_dim: usize,
    /// Values of a value and of a result.
    pub value_dim: usize,
    /// Factor of the scores, usually `1 / sqrt(key_dim)`.
    pub scale: f32,
}

impl Head {
    /// Floats of scratch memory that [`attend`] needs for this many queries.
    pub fn scratch_len(&self, queries: usize) -> usize {
        BLOCK * (self.key_dim + padded(self.value_dim)) + queries * (2 + padded(self.value_dim))
    }
}

/// Queries of one token: a group of heads that share keys and values.
pub struct Queries<'a> {
    /// `[tokens]` slices of `[group][key_dim]`.
    pub tokens: &'a [&'a [f32]],
    /// The positions that each token sees, `[tokens]`; none of them empty.
    pub visible: &'a [Range<usize>],
    /// Heads that share the keys and values.
    pub group: usize,
}

/// Writes the attention of `queries` over `blocks` to `out`, `[tokens][group * value_dim]`.
///
/// `blocks[i]` holds the positions from `(first + i) * BLOCK` on; positions behind the last block are not seen.
///
/// # Errors
/// [`Mismatch`] where the lengths do not belong together.
pub fn attend(
    level: Level,
    head: Head,
    first: usize,
    blocks: &[Block<'_>],
    queries: &Queries<'_>,
    scratch: &mut [f32],
    out: &mut Output<'_>,
) -> Result<(), Mismatch> {
    let Queries { tokens, visible, group } = *queries;
    let check = |what, expected, found| {
        if expected == found { Ok(()) } else { Err(Mismatch { what, expected, found }) }
    };
    for (what, size) in [
        ("values of a key", head.key_dim),
        ("values of a value", head.value_dim),
        ("heads of a group", group),
    ] {
        if size == 0 {
            return Err(Mismatch { what, expected: 1, found: 0 });
        }
    }
    check("ranges of visible positions", tokens.len(), visible.len())?;
    for token in tokens {
        check("values of a token's queries", group * head.key_dim, token.len())?;
    }
    check("tokens of results", tokens.len(), out.columns())?;
    check("values of a token's results", group * head.value_dim, out.rows())?;
    for block in blocks {
        check("keys of a block", head.key_dim * BLOCK, block.keys.len())?;
        check("values of a block", BLOCK * padded(head.value_dim), block.values.len())?;
    }
    let needed = head.scratch_len(tokens.len() * group);
    let Some(scratch) = scratch.get_mut(..needed) else {
        return Err(Mismatch { what: "floats of scratch memory", expected: needed, found: scratch.len() });
    };
    level.run(Attend { head, first, blocks, queries, scratch, out });
    Ok(())
}

struct Attend<'a, 'o> {
    head: Head,
    first: usize,
    blocks: &'a [Block<'a>],
    queries: &'a Queries<'a>,
    scratch: &'a mut [f32],
    out: &'a mut Output<'o>,
}

/// Where a query stands: the largest score and the sum of exponentials so far.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Softmax {
    max: f32,
    sum: f32,
}

impl Task for Attend<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Attend { head, first, blocks, queries, scratch, out } = self;
        let Queries { tokens, visible, group } = *queries;
        let width = padded(head.value_dim);
        let (key_room, scratch) = scratch.split_at_mut(BLOCK * head.key_dim);
        let (value_room, scratch) = scratch.split_at_mut(BLOCK * width);
        let (states, results) = scratch.split_at_mut(2 * tokens.len() * group);
        let states: &mut [Softmax] = bytemuck::cast_slice_mut(states);
        states.fill(Softmax { max: f32::NEG_INFINITY, sum: 0.0 });
        results.fill(0.0);

        for (start, block) in (first * BLOCK..).step_by(BLOCK).zip(blocks) {
            let seen = |token: usize| {
                let Range { start: from, end } = visible[token];
                from.max(start).min(start + BLOCK) - start..end.max(start).min(start + BLOCK) - start
            };
            if (0..tokens.len()).all(|token| seen(token).is_empty()) {
                continue;
            }
            let keys = widen(isa, block.keys, key_room);
            let values = widen(isa, block.values, value_room);
            let states = states.chunks_exact_mut(group);
            let results = results.chunks_exact_mut(group * width);
            for (token, ((query, states), results)) in tokens.iter().zip(states).zip(results).enumerate() {
                let seen = seen(token);
                if seen.is_empty() {
                    continue;
                }
                let mut query = query.chunks(2 * head.key_dim);
                let mut results = results.chunks_mut(2 * width);
                for states in states.chunks_mut(2) {
                    let (Some(query), Some(results)) = (query.next(), results.next()) else { break };
                    if states.len() == 2 {
                        step::<I, 2>(isa, head, query, keys, values, seen.clone(), states, results);
                    } else {
                        step::<I, 1>(isa, head, query, keys, values, seen.clone(), states, results);
                    }
                }
            }
        }

        let results = results.chunks_exact(width).zip(states);
        let mut results = results.map(|(result, state)| (&result[..head.value_dim], state.sum));
        for token in 0..tokens.len() {
            for (out, (result, sum)) in
                out.column(token).chunks_exact_mut(head.value_dim).zip(results.by_ref())
            {
                for (out, value) in out.iter_mut().zip(result) {
                    *out = value / sum;
                }
            }
        }
    }
}

/// One block for `Q` queries: scores, their exponentials, values.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the state of the loop over blocks, passed on")]
fn step<I: Isa, const Q: usize>(
    isa: I,
    head: Head,
    query: &[f32],
    keys: &[f32],
    values: &[f32],
    seen: Range<usize>,
    states: &mut [Softmax],
    results: &mut [f32],
) {
    let width = padded(head.value_dim);
    let rows = core::array::from_fn(|q| &query[q * head.key_dim..][..head.key_dim]);
    let scores = accumulate::<I, Q>(isa, [[isa.splat(0.0); 4]; Q], rows, keys, BLOCK, 0);

    let mut weights = [[0.0; BLOCK]; Q];
    for (q, (weights, state)) in weights.iter_mut().zip(states).enumerate() {
        for (weights, &scores) in weights.as_chunks_mut().0.iter_mut().zip(&scores[q]) {
            isa.store(isa.mul(scores, isa.splat(head.scale)), weights);
        }
        weights[..seen.start].fill(f32::NEG_INFINITY);
        weights[seen.end..].fill(f32::NEG_INFINITY);

        let weights = weights.as_chunks_mut::<8>().0;
        let mut largest = isa.splat(state.max);
        for weights in weights.iter() {
            largest = isa.max(isa.floats(weights), largest);
        }
        let mut lanes = [0.0; 8];
        isa.store(largest, &mut lanes);
        let largest = lanes.iter().fold(state.max, |m, &l| if l > m { l } else { m });
        let mut sums = [isa.splat(0.0); 4];
        for (weights, sum) in weights.iter_mut().zip(&mut sums) {
            *sum = isa.exp(isa.sub(isa.floats(weights), isa.splat(largest)));
            isa.store(*sum, weights);
        }
        let sum = isa.sum(isa.add(isa.add(sums[0], sums[2]), isa.add(sums[1], sums[3])));
        let mut correction = [0.0; 8];
        isa.store(isa.exp(isa.splat(state.max - largest)), &mut correction);
        *state = Softmax { max: largest, sum: scalar::fma(state.sum, correction[0], sum) };
        for result in results[q * width..][..width].as_chunks_mut::<8>().0 {
            isa.store(isa.mul(isa.floats(result), isa.splat(correction[0])), result);
        }
    }

    let coefficients = core::array::from_fn(|q| &weights[q][seen.clone()]);
    let values = &values[seen.start * width..seen.end * width];
    for at in (0..width).step_by(BLOCK) {
        let mut acc = [[isa.splat(0.0); 4]; Q];
        for (q, acc) in acc.iter_mut().enumerate() {
            for (acc, result) in acc.iter_mut().zip(results[q * width + at..][..BLOCK].as_chunks().0) {
                *acc = isa.floats(result);
            }
        }
        let acc = accumulate::<I, Q>(isa, acc, coefficients, values, width, at);
        for (q, acc) in acc.iter().enumerate() {
            let result = &mut results[q * width + at..][..BLOCK];
            for (result, &acc) in result.as_chunks_mut().0.iter_mut().zip(acc) {
                isa.store(acc, result);
            }
        }
    }
}

/// `acc[q] += sum over i of coefficients[q][i] * matrix[i]`, for the 32 columns from `at` on of a matrix whose rows
/// are `stride` long.
#[inline(always)]
fn accumulate<I: Isa, const Q: usize>(
    isa: I,
    mut acc: [[I::Floats; 4]; Q],
    coefficients: [&[f32]; Q],
    matrix: &[f32],
    stride: usize,
    at: usize,
) -> [[I::Floats; 4]; Q] {
    let matrix = &matrix[..stride * coefficients[0].len()];
    for (i, row) in matrix.chunks_exact(stride).enumerate() {
        let row = row[at..at + BLOCK].as_chunks::<8>().0;
        for (acc, coefficients) in acc.iter_mut().zip(&coefficients) {
            let coefficient = isa.splat(coefficients[i]);
            for (acc, row) in acc.iter_mut().zip(row) {
                *acc = isa.fma(coefficient, isa.floats(row), *acc);
            }
        }
    }
    acc
}

/// The numbers in single precision, in `room` where they are not.
#[inline(always)]
fn widen<'a, I: Isa>(isa: I, numbers: Numbers<'a>, room: &'a mut [f32]) -> &'a [f32] {
    match numbers {
        Numbers::F32(numbers) => numbers,
        Numbers::F16(numbers) => {
            for (room, numbers) in room.as_chunks_mut().0.iter_mut().zip(numbers.as_chunks().0) {
                isa.store(isa.halves_of(numbers), room);
            }
            room
        }
    }
}

/// Rounds numbers to half precision, ties to even, as they are kept in a cache.
pub fn to_half(x: f32) -> u16 {
    f16::from_f32(x).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head { key_dim: 40, value_dim: 24, scale: 0.15 };

    struct Cache {
        keys: Vec<f32>,
        values: Vec<f32>,
        half_keys: Vec<u16>,
        half_values: Vec<u16>,
    }

    fn noise(i: usize) -> f32 {
        ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Positions that no query may see are NaN.
    fn cache(positions: usize) -> Cache {
        let blocks = positions.div_ceil(BLOCK);
        let width = padded(HEAD.value_dim);
        let mut keys = vec![f32::NAN; blocks * BLOCK * HEAD.key_dim];
        let mut values = vec![f32::NAN; blocks * BLOCK * width];
        for pos in 0..positions {
            let (block, at) = (pos / BLOCK, pos % BLOCK);
            for i in 0..HEAD.key_dim {
                keys[(block * HEAD.key_dim + i) * BLOCK + at] =
                    f32::from(f16::from_f32(noise(pos * 100 + i)));
            }
            for i in 0..HEAD.value_dim {
                values[(block * BLOCK + at) * width + i] = f32::from(f16::from_f32(noise(pos * 77 + i + 9)));
            }
        }
        let half = |x: &Vec<f32>| x.iter().map(|&x| to_half(x)).collect();
        Cache { half_keys: half(&keys), half_values: half(&values), keys, values }
    }

    fn run(
        level: Level,
        cache: &Cache,
        half: bool,
        tokens: &[Vec<f32>],
        visible: &[Range<usize>],
        group: usize,
    ) -> Vec<f32> {
        let (k, v) = (HEAD.key_dim * BLOCK, padded(HEAD.value_dim) * BLOCK);
        let blocks: Vec<_> = (0..cache.keys.len() / k)
            .map(|b| match half {
                true => Block {
                    keys: Numbers::F16(&cache.half_keys[b * k..][..k]),
                    values: Numbers::F16(&cache.half_values[b * v..][..v]),
                },
                false => Block {
                    keys: Numbers::F32(&cache.keys[b * k..][..k]),
                    values: Numbers::F32(&cache.values[b * v..][..v]),
                },
            })
            .collect();
        let tokens: Vec<&[f32]> = tokens.iter().map(Vec::as_slice).collect();
        let mut out = vec![f32::NAN; tokens.len() * group * HEAD.value_dim];
        let mut scratch = vec![f32::NAN; HEAD.scratch_len(tokens.len() * group)];
        let queries = Queries { tokens: &tokens, visible, group };
        let mut output = Output::new(&mut out, group * HEAD.value_dim).unwrap();
        attend(level, HEAD, 0, &blocks, &queries, &mut scratch, &mut output).unwrap();
        out
    }

    fn queries(tokens: usize, group: usize) -> Vec<Vec<f32>> {
        (0..tokens)
            .map(|t| (0..group * HEAD.key_dim).map(|i| noise(t * 1000 + i + 5) * 3.0).collect())
            .collect()
    }

    #[test]
    fn attention_is_softmax_of_scores_times_values() {
        let (group, positions) = (3, 70);
        let cache = cache(positions);
        let visible = [0..1, 0..32, 5..33, 0..64, 40..70, 69..70];
        let tokens = queries(visible.len(), group);
        let found = run(Level::detect(), &cache, false, &tokens, &visible, group);
        for (t, seen) in visible.iter().enumerate() {
            for h in 0..group {
                let query = &tokens[t][h * HEAD.key_dim..][..HEAD.key_dim];
                let key = |pos: usize, i: usize| {
                    f64::from(cache.keys[(pos / BLOCK * HEAD.key_dim + i) * BLOCK + pos % BLOCK])
                };
                let score = |pos: usize| {
                    (0..HEAD.key_dim).map(|i| f64::from(query[i]) * key(pos, i)).sum::<f64>()
                        * f64::from(HEAD.scale)
                };
                let weights: Vec<f64> = seen.clone().map(|pos| score(pos).exp()).collect();
                for i in 0..HEAD.value_dim {
                    let value = |pos: usize| f64::from(cache.values[pos * padded(HEAD.value_dim) + i]);
                    let expected = seen.clone().zip(&weights).map(|(pos, w)| w * value(pos)).sum::<f64>()
                        / weights.iter().sum::<f64>();
                    let found = f64::from(found[(t * group + h) * HEAD.value_dim + i]);
                    assert!(
                        (found - expected).abs() < 2e-6,
                        "token {t} head {h} value {i}: {found} {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn sizes_that_are_nothing_or_do_not_belong_together_are_refused() {
        let query: &[f32] = &[0.0; 8];
        let keys = [0.0; 4 * BLOCK];
        let block = |keys, values| Block { keys: Numbers::F32(keys), values: Numbers::F32(values) };
        let attend = |head: Head, group, visible: &[Range<usize>], blocks: &[Block<'_>]| {
            let mut out = [0.0; 8];
            let queries = Queries { tokens: &[query], visible, group };
            let mut output = Output::new(&mut out, 8).unwrap();
            attend(Level::detect(), head, 0, blocks, &queries, &mut [0.0; 1000], &mut output)
        };
        let head = Head { key_dim: 4, value_dim: 4, scale: 1.0 };
        let values = [0.0; BLOCK * BLOCK];
        let seen = core::array::from_fn::<_, 1, _>(|_| 0..1);
        assert_eq!(
            attend(head, 2, &seen, &[block(&keys, &values)]),
            Err(Mismatch { what: "floats of scratch memory", expected: head.scratch_len(2), found: 1000 })
        );
        for (head, group) in [
            (Head { key_dim: 0, ..head }, 2),
            (Head { value_dim: 0, ..head }, 2),
            (Head { key_dim: 8, ..head }, 2),
            (head, 0),
            (head, 3),
        ] {
            assert!(attend(head, group, &seen, &[block(&keys, &values)]).is_err());
        }
        assert!(attend(head, 2, &[], &[]).is_err());
        assert!(attend(head, 2, &seen, &[block(&keys, &keys)]).is_err());
    }

    #[test]
    fn neither_level_nor_batch_nor_precision_of_exact_numbers_changes_a_bit() {
        let cache = cache(100);
        let visible = [0..97, 0..98, 60..99, 0..100];
        for group in 1..=5 {
            let tokens = queries(visible.len(), group);
            let expected = run(Level::SCALAR, &cache, false, &tokens, &visible, group);
            for level in Level::available() {
                for half in [false, true] {
                    assert_eq!(run(level, &cache, half, &tokens, &visible, group), expected, "{level}");
                }
            }
            let alone: Vec<f32> = (0..visible.len())
                .flat_map(|t| run(Level::detect(), &cache, true, &tokens[t..=t], &visible[t..=t], group))
                .collect();
            assert_eq!(alone, expected);
        }
    }
}
