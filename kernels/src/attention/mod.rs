//! Attention of some queries over one head's keys and values, block by block with an online softmax (Milakov and
//! Gimelshein 2018; Dao and others 2022).
//!
//! Keys and values come in blocks of [`BLOCK`] positions, and blocks in spans of [`SPAN`] positions, counted from
//! position 0 of the sequence whatever the batch is, so a query's result depends neither on the queries beside it nor on
//! who computes which span. [`attend`] goes through one span, for each query and each block in order:
//!
//! ```text
//! s[j] = sum over i of (scale q[i]) k[i][j]       a chain of fused multiply-adds in order of i
//! s[j] = cap tanh(s[j] / cap)                     where scores are capped
//! s[j] = s[j] - slope |position - j|              where there are slopes
//! m'   = max(m, s)                                over the positions that the query sees
//! p[j] = exp(s[j] - m'),   c = exp(m - m')
//! l    = l c + sum of p                           four registers of eight, one tree
//! o    = o c + sum over j of p[j] v[j]            a chain in order of j
//! ```
//!
//! from `m = -inf, l = 0, o = 0`; [`join`] adds the spans up in order, in the same way; [`finish`] counts in the sink,
//! where there is one, and gives `o / l`.
//!
//! Numbers of quantized types are a code times the scale `d` that 32 of them share, and never multiplied one by one: the sum
//! over `i` is a chain for each group, then a chain over the groups of `d[g][j]` times those; values are added as
//! `(p[j] d[g][j]) code`. All types meet the same loops as floats.
//!
//! Few queries (decode) read the panels where they lie, and fetch the next block meanwhile; for more, a block is widened
//! once to single precision.
#![forbid(unsafe_code)]

mod layout;
mod panel;
mod softmax;
#[cfg(test)]
mod tests;

use core::ops::Range;

pub use layout::{Block, CacheType, Layout, Line, Numbers};

use crate::Mismatch;
use crate::dispatch::Task;
use crate::output::Output;
use crate::simd::{Isa, Level, scalar};
use layout::{columns, rows};
use panel::Matrix;
use softmax::{Softmax, bend, exp, slant, softmax};

/// Positions in a block of keys and values.
pub const BLOCK: usize = 32;
/// Positions in a span: so many that joining spans costs nothing beside them, so few that a long context is work for
/// several threads.
pub const SPAN: usize = 512;
/// Columns of a panel: two registers.
const PANEL: usize = 16;
/// Values that share a scale.
const GROUP: usize = 32;
/// The most queries that share a register of numbers.
const TILE: usize = 6;
/// Queries up to which a block is not widened: two tiles may each do that for themselves while they multiply.
const FEW: usize = 2 * TILE;

/// What a head's queries, keys and values share.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Head {
    /// Values of a query and of a key.
    pub key_dim: usize,
    /// Values of a value and of a result.
    pub value_dim: usize,
    /// Factor of the scores, usually `1 / sqrt(key_dim)`.
    pub scale: f32,
    /// Scores are bent into `-cap .. cap`.
    pub cap: Option<f32>,
}

impl Head {
    /// Floats of scratch memory that [`attend`] needs for this many queries.
    pub fn scratch_len(&self, queries: usize) -> usize {
        BLOCK * (rows(self.key_dim) + columns(self.value_dim) + 2 * TILE) + queries * self.key_dim
    }

    /// Floats of what [`attend`] leaves for [`join`]: for each query where it stands, then for each its sums.
    pub fn partial_len(&self, queries: usize) -> usize {
        queries * (2 + columns(self.value_dim))
    }
}

/// The blocks of one span, or some of them, side by side.
#[derive(Clone, Copy)]
pub struct Span<'a> {
    /// The number of the first: it holds the positions from `first * BLOCK` on.
    pub first: usize,
    /// One head's keys and values.
    pub blocks: &'a [Block<'a>],
    /// What is attended to after them, fetched meanwhile.
    pub next: Option<&'a Block<'a>>,
}

/// Queries of some tokens: of the group of heads that share keys and values.
pub struct Queries<'a> {
    /// `[tokens]` slices of `[group][key_dim]`.
    pub tokens: &'a [&'a [f32]],
    /// The positions that each token sees, `[tokens]`.
    pub visible: &'a [Range<usize>],
    /// The position of the first token.
    pub position: usize,
    /// Heads that share the keys and values.
    pub group: usize,
    /// How fast each head's scores fall with the distance (Press, Smith and Lewis 2022), `[group]`; or empty.
    pub slopes: &'a [f32],
}

fn check(what: &'static str, expected: usize, found: usize) -> Result<(), Mismatch> {
    if expected == found { Ok(()) } else { Err(Mismatch { what, expected, found }) }
}

/// States and sums of [`Head::partial_len`] floats.
fn parts(queries: usize, partial: &mut [f32]) -> (&mut [Softmax], &mut [f32]) {
    let (states, results) = partial.split_at_mut(2 * queries);
    (bytemuck::cast_slice_mut(states), results)
}

/// Goes through the blocks of one span: writes to `partial` where each query stands after them, for [`join`].
///
/// That the blocks are of one span is the caller's part of the promise that results do not depend on the batch.
///
/// # Errors
/// [`Mismatch`] where the lengths do not belong together.
pub fn attend(
    level: Level,
    head: Head,
    span: Span<'_>,
    queries: &Queries<'_>,
    scratch: &mut [f32],
    partial: &mut [f32],
) -> Result<(), Mismatch> {
    let Span { first, blocks, next } = span;
    let Queries { tokens, visible, group, slopes, .. } = *queries;
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
    if !slopes.is_empty() {
        check("slopes of a group", group, slopes.len())?;
    }
    for block in blocks {
        block.keys.check(rows(head.key_dim), head.key_dim.div_ceil(GROUP))?;
        block.values.check(columns(head.value_dim), head.value_dim.div_ceil(GROUP))?;
    }
    let count = tokens.len() * group;
    check("floats of sums", head.partial_len(count), partial.len())?;
    let needed = head.scratch_len(count);
    let Some(scratch) = scratch.get_mut(..needed) else {
        return Err(Mismatch { what: "floats of scratch memory", expected: needed, found: scratch.len() });
    };
    let (states, results) = parts(count, partial);
    states.fill(Softmax::NOTHING);
    results.fill(0.0);
    let (key_room, scratch) = scratch.split_at_mut(BLOCK * rows(head.key_dim));
    let (value_room, scratch) = scratch.split_at_mut(BLOCK * columns(head.value_dim));
    let (weights, packed) = scratch.split_at_mut(2 * TILE * BLOCK);
    let (weights, scaled) = weights.as_chunks_mut::<BLOCK>().0.split_at_mut(TILE);
    level.run(Pack { head, tokens, packed: &mut *packed });
    let few = count <= FEW;
    let width = columns(head.value_dim);

    for (number, block) in blocks.iter().enumerate() {
        let start = (first + number) * BLOCK;
        let positions = start..start + BLOCK;
        if visible.iter().all(|seen| seen.start.max(positions.start) >= seen.end.min(positions.end)) {
            continue;
        }
        let whole = visible.iter().all(|seen| seen.start <= positions.start && seen.end >= positions.end);
        let next = blocks.get(number + 1).or(next).unwrap_or(block);
        let (keys, values) =
            level.run(Prepare { block, next, few, key_room: &mut *key_room, value_room: &mut *value_room });
        let ready = Ready { head, queries, start, whole, keys, values };
        // The next block is fetched once, so that it does not drive this one out before its time.
        let others = ready.fetching_nothing();
        let mut at = 0;
        while at < count {
            let size = tile_size(count - at);
            let tile = Tile {
                block: if at + size == count { &ready } else { &others },
                first: at,
                queries: &packed[at * head.key_dim..][..size * head.key_dim],
                weights: &mut weights[..size],
                scaled: &mut scaled[..size],
                states: &mut states[at..at + size],
                results: &mut results[at * width..][..size * width],
            };
            match size {
                1 => tile.attend::<1>(level),
                2 => tile.attend::<2>(level),
                3 => tile.attend::<3>(level),
                4 => tile.attend::<4>(level),
                _ => tile.attend::<TILE>(level),
            }
            at += size;
        }
    }
    Ok(())
}

/// Queries of the next tile, of `left`: six where that leaves no crumbs.
fn tile_size(left: usize) -> usize {
    match left {
        0..=4 => left,
        5 => 3,
        7 | 8 | 11 => 4,
        _ => TILE,
    }
}

/// Writes the queries times the scale tile by tile, `[key_dim][tile_size]`.
struct Pack<'a> {
    head: Head,
    tokens: &'a [&'a [f32]],
    packed: &'a mut [f32],
}

impl Task for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let Pack { head: Head { key_dim, scale, .. }, tokens, mut packed } = self;
        let mut queries = tokens.iter().flat_map(|token| token.chunks_exact(key_dim));
        while !packed.is_empty() {
            let size = tile_size(packed.len() / key_dim);
            let (tile, rest) = packed.split_at_mut(size * key_dim);
            let mut lines = [&[][..]; TILE];
            for (line, query) in lines.iter_mut().zip(queries.by_ref().take(size)) {
                *line = query;
            }
            match size {
                1 => interleave::<1>(&lines, scale, tile),
                2 => interleave::<2>(&lines, scale, tile),
                3 => interleave::<3>(&lines, scale, tile),
                4 => interleave::<4>(&lines, scale, tile),
                _ => interleave::<TILE>(&lines, scale, tile),
            }
            packed = rest;
        }
    }
}

/// Writes the first `Q` of the lines times the scale, `[len][Q]`.
#[inline(always)]
fn interleave<const Q: usize>(lines: &[&[f32]; TILE], scale: f32, tile: &mut [f32]) {
    let tile = tile.as_chunks_mut::<Q>().0;
    let mut exact = [&[][..]; Q];
    for q in 0..Q {
        exact[q] = &lines[q][..tile.len()];
    }
    for (i, to) in tile.iter_mut().enumerate() {
        for q in 0..Q {
            to[q] = exact[q][i] * scale;
        }
    }
}

/// Makes a block ready to be multiplied.
struct Prepare<'a> {
    block: &'a Block<'a>,
    next: &'a Block<'a>,
    few: bool,
    key_room: &'a mut [f32],
    value_room: &'a mut [f32],
}

impl<'a> Task for Prepare<'a> {
    type Output = (Matrix<'a>, Matrix<'a>);

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> (Matrix<'a>, Matrix<'a>) {
        let Prepare { block, next, few, key_room, value_room } = self;
        (
            ready(isa, block.keys, &next.keys, few, key_room),
            ready(isa, block.values, &next.values, few, value_room),
        )
    }
}

#[inline(always)]
fn ready<'a, I: Isa>(
    isa: I,
    numbers: Numbers<'a>,
    next: &Numbers<'_>,
    few: bool,
    room: &'a mut [f32],
) -> Matrix<'a> {
    let (next, scales) = (next.start(), numbers.scales());
    match few {
        true => Matrix { panels: panel::direct(isa, numbers, next, room), scales, next },
        false => Matrix::new(panel::widen(isa, numbers, next, room), scales),
    }
}

/// A block of keys and values, ready to be multiplied, and who attends to it.
struct Ready<'a> {
    head: Head,
    queries: &'a Queries<'a>,
    /// The block's first position.
    start: usize,
    /// Whether all tokens see all of its positions.
    whole: bool,
    keys: Matrix<'a>,
    values: Matrix<'a>,
}

impl Ready<'_> {
    fn fetching_nothing(&self) -> Self {
        Ready { keys: self.keys.fetching_nothing(), values: self.values.fetching_nothing(), ..*self }
    }

    /// Which of the block's positions a query sees.
    fn seen(&self, query: usize) -> Range<usize> {
        if self.whole {
            return 0..BLOCK;
        }
        let Range { start, end } = self.queries.visible[query / self.queries.group];
        let within = self.start..self.start + BLOCK;
        start.clamp(within.start, within.end) - self.start..end.clamp(within.start, within.end) - self.start
    }
}

/// Some queries at one block.
struct Tile<'a> {
    block: &'a Ready<'a>,
    /// The first one's place among all.
    first: usize,
    /// `[key_dim][Q]`
    queries: &'a [f32],
    /// Room for scores and what becomes of them, `[Q]`.
    weights: &'a mut [[f32; BLOCK]],
    /// Room for weights times scales, `[Q]`.
    scaled: &'a mut [[f32; BLOCK]],
    states: &'a mut [Softmax],
    /// `[Q][columns]`
    results: &'a mut [f32],
}

impl Tile<'_> {
    fn attend<const Q: usize>(mut self, level: Level) {
        let mut seen = [const { 0..0 }; Q];
        for (q, seen) in seen.iter_mut().enumerate() {
            *seen = self.block.seen(self.first + q);
        }
        if seen.iter().all(Range::is_empty) {
            return;
        }
        let alike = seen.windows(2).all(|pair| pair[0] == pair[1]);
        let corrections = level.run(Weigh { tile: &mut self, seen: &seen, alike });
        if alike {
            return;
        }
        // Where queries see different positions, those that see the same go together: a position that a query does not
        // see has no part in its sum, be it damaged.
        let Tile { weights, scaled, block, results, .. } = self;
        let width = results.len() / Q;
        let mut at = 0;
        while at < Q {
            let same = seen[at..].iter().take_while(|&other| *other == seen[at]).count().min(4);
            let part = Part {
                weights: &weights[at..at + same],
                scaled: &mut scaled[..same],
                corrections: &corrections[at..at + same],
                seen: seen[at].clone(),
                values: block.values,
                results: &mut results[at * width..(at + same) * width],
            };
            match same {
                _ if seen[at].is_empty() => {}
                1 => level.run(Values::<'_, 1>(part)),
                2 => level.run(Values::<'_, 2>(part)),
                3 => level.run(Values::<'_, 3>(part)),
                _ => level.run(Values::<'_, 4>(part)),
            }
            at += same;
        }
    }
}

/// Scores and their exponentials, and the values too where all queries see the same positions; gives the factors of
/// what was summed before.
struct Weigh<'t, 'a, const Q: usize> {
    tile: &'t mut Tile<'a>,
    seen: &'t [Range<usize>; Q],
    alike: bool,
}

impl<const Q: usize> Task for Weigh<'_, '_, Q> {
    type Output = [f32; Q];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [f32; Q] {
        let Weigh { tile: Tile { block, first, queries, weights, scaled, states, results }, seen, alike } =
            self;
        let Ready { head, queries: &Queries { group, position, slopes, .. }, start, whole, .. } = **block;
        let queries = queries.as_chunks::<Q>().0;
        let weights = &mut weights.as_chunks_mut::<Q>().0[0];
        let scaled = &mut scaled.as_chunks_mut::<Q>().0[0];
        let states = &mut states.as_chunks_mut::<Q>().0[0];
        panel::scores::<I, Q>(isa, queries, &block.keys, rows(head.key_dim), weights);
        if let Some(cap) = head.cap {
            weights.iter_mut().for_each(|weights| bend(isa, weights, cap));
        }
        if !slopes.is_empty() {
            for (query, weights) in (*first..).zip(weights.iter_mut()) {
                // Positions are far below 2^24, where floats are exact.
                let distance = start as f32 - (position + query / group) as f32;
                slant(isa, weights, slopes[query % group], distance);
            }
        }
        if !whole {
            for (weights, seen) in weights.iter_mut().zip(seen) {
                weights[..seen.start].fill(f32::NEG_INFINITY);
                weights[seen.end..].fill(f32::NEG_INFINITY);
            }
        }
        let corrections = softmax(isa, seen, weights, states);
        if alike {
            let seen = seen[0].clone();
            let weights = panel::Weights { weights, corrections, seen, scaled };
            panel::values::<I, Q>(isa, weights, &block.values, results);
        }
        corrections
    }
}

/// Some queries of a tile, with their weights: what is left is to add up the values.
struct Part<'a> {
    weights: &'a [[f32; BLOCK]],
    scaled: &'a mut [[f32; BLOCK]],
    corrections: &'a [f32],
    seen: Range<usize>,
    values: Matrix<'a>,
    results: &'a mut [f32],
}

struct Values<'a, const Q: usize>(Part<'a>);

impl<const Q: usize> Task for Values<'_, Q> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Part { weights, scaled, corrections, seen, values, results } = self.0;
        let scaled = &mut scaled.as_chunks_mut::<Q>().0[0];
        let weights = &weights.as_chunks::<Q>().0[0];
        let corrections = corrections.as_chunks::<Q>().0[0];
        panel::values::<I, Q>(isa, panel::Weights { weights, corrections, seen, scaled }, &values, results);
    }
}

/// A sum of no spans, for [`join`] to begin with.
///
/// # Errors
/// [`Mismatch`] where `total` is not as long as `queries` need.
pub fn begin(head: Head, queries: usize, total: &mut [f32]) -> Result<(), Mismatch> {
    check("floats of sums", head.partial_len(queries), total.len())?;
    let (states, results) = parts(queries, total);
    states.fill(Softmax::NOTHING);
    results.fill(0.0);
    Ok(())
}

/// Adds the next span, as [`attend`] left it, to those before.
///
/// # Errors
/// [`Mismatch`] where the two are not as long as `queries` need.
pub fn join(
    level: Level,
    head: Head,
    queries: usize,
    span: &[f32],
    total: &mut [f32],
) -> Result<(), Mismatch> {
    check("floats of sums", head.partial_len(queries), total.len())?;
    check("floats of sums", head.partial_len(queries), span.len())?;
    let (states, results) = span.split_at(2 * queries);
    let span = (bytemuck::cast_slice(states), results);
    level.run(Join { width: columns(head.value_dim), span, total: parts(queries, total) });
    Ok(())
}

struct Join<'a> {
    width: usize,
    span: (&'a [Softmax], &'a [f32]),
    total: (&'a mut [Softmax], &'a mut [f32]),
}

impl Task for Join<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Join { width, span, total } = self;
        let span = span.0.iter().zip(span.1.chunks_exact(width));
        let total = total.0.iter_mut().zip(total.1.chunks_exact_mut(width));
        for ((&from, more), (state, sums)) in span.zip(total) {
            if from.saw_nothing() {
                continue;
            }
            let max = if from.max > state.max { from.max } else { state.max };
            let (old, new) = (exp(isa, state.max - max), exp(isa, from.max - max));
            *state = Softmax { max, sum: scalar::fma(state.sum, old, from.sum * new) };
            let (old, new) = (isa.splat(old), isa.splat(new));
            for (sum, more) in sums.as_chunks_mut::<8>().0.iter_mut().zip(more.as_chunks::<8>().0) {
                let more = isa.mul(isa.floats(more), new);
                isa.store(isa.fma(isa.floats(sum), old, more), sum);
            }
        }
    }
}

/// Writes the results to `out`, `[tokens][group * value_dim]`; `sinks` are scores of each head that take part in its
/// softmax and stand for no position, `[group]`, or empty.
///
/// # Errors
/// [`Mismatch`] where the lengths do not belong together.
pub fn finish(
    level: Level,
    head: Head,
    group: usize,
    total: &mut [f32],
    sinks: &[f32],
    out: &mut Output<'_>,
) -> Result<(), Mismatch> {
    let queries = out.columns() * group;
    check("values of a token's results", group * head.value_dim, out.rows())?;
    check("floats of sums", head.partial_len(queries), total.len())?;
    if !sinks.is_empty() {
        check("sinks of a group", group, sinks.len())?;
    }
    let width = columns(head.value_dim);
    let (states, results) = parts(queries, total);
    level.run(Finish { dim: head.value_dim, width, group, states, results, sinks, out });
    Ok(())
}

struct Finish<'a, 'o> {
    dim: usize,
    width: usize,
    group: usize,
    states: &'a [Softmax],
    results: &'a [f32],
    sinks: &'a [f32],
    out: &'a mut Output<'o>,
}

impl Task for Finish<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Finish { dim, width, group, states, results, sinks, out } = self;
        let mut queries = states.iter().zip(results.chunks_exact(width));
        for token in 0..out.columns() {
            let heads = out.column(token).chunks_exact_mut(dim).zip(queries.by_ref());
            for (head, (out, (state, sums))) in heads.enumerate() {
                let (mut factor, mut sum) = (1.0, state.sum);
                if let Some(&sink) = sinks.get(head % group) {
                    let max = if sink > state.max { sink } else { state.max };
                    factor = exp(isa, state.max - max);
                    sum = scalar::fma(state.sum, factor, exp(isa, sink - max));
                }
                for (out, value) in out.iter_mut().zip(sums) {
                    *out = value * factor / sum;
                }
            }
        }
    }
}
