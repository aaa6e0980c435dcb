//! Attention, cut into tasks.
//!
//! Of many tokens (a prompt) a task is some tokens of one head of keys, from their first position to their last. Of few
//! tokens at depth it is a part of the positions, some whole spans of one head of keys; what the tasks leave is joined in
//! a step of its own. Both go through the same spans in the same order, so that nobody can tell from the results.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use gristmill_kernels::Output;
use gristmill_kernels::attention::{self, BLOCK, Head, Queries, SPAN, Span};

use super::Cpu;
use crate::backend::cache::Pages;
use crate::backend::{Act, Attention, Cache};
use crate::{Error, Result};

/// Queries of a task, about: so many that widening a block of keys and values costs a few percent beside their products
/// (one in six for each tile of six), and that they and their sums stay in the second-level cache.
const QUERIES: usize = 128;
/// Tasks for each thread that even out cores of different speed.
const TASKS: usize = 8;

/// Keeps keys and values of the tokens from `start` on, where there are any, then attends.
pub(super) fn attend(
    cpu: &mut Cpu<'_>,
    spec: &Attention,
    cache: &mut Cache,
    layer: usize,
    start: usize,
    queries: Act,
    keys_values: Option<[Act; 2]>,
) -> Result<Act> {
    cache.forget(layer, start);
    if let Some([keys, values]) = keys_values {
        keep(cpu, spec, cache, layer, start..start + queries.rows, keys, values)?;
    }

    let shape = spec.shape;
    let (heads, group) = (shape.heads, spec.heads / shape.heads.max(1));
    let (tokens, threads) = (queries.rows, cpu.team.count());
    let head = Head { key_dim: shape.key_dim, value_dim: shape.value_dim, scale: spec.scale, cap: spec.cap };
    let per_task = (QUERIES / group.max(1)).clamp(1, tokens.max(1));
    let chunks = tokens.div_ceil(per_task);
    let partial = head.partial_len(per_task * group);
    cpu.make_scratch(head.scratch_len(per_task * group) + 2 * partial)?;

    let end = start + tokens;
    let first = shape.sees.range(start, end).start;
    let pages = cache.pages(layer, first / BLOCK..end.div_ceil(BLOCK))?;
    let first_span = first / SPAN;
    let spans = end.div_ceil(SPAN) - first_span;
    let per_part = (spans * heads).div_ceil(TASKS * threads).max(1);
    let parts = spans.div_ceil(per_part);
    // Where all tokens are one task a head, the spans make more of them.
    let split = chunks == 1 && parts > 1 && threads > 1;
    let sums = match split {
        true => Some(cpu.make(heads * parts * per_part, partial)?),
        false => None,
    };
    let (act, mut data) = cpu.make(tokens, spec.heads * shape.value_dim)?;
    let work = Work { cpu, spec, pages, start, end, head, group, queries };
    let Some((sums, mut room)) = sums else {
        work.by_tokens(per_task, &mut data)?;
        cpu.put(act, data);
        return Ok(act);
    };
    let done = work.by_spans(first_span..first_span + spans, per_part, &mut room, &mut data);
    cpu.put(sums, room);
    cpu.put(act, data);
    done.map(|()| act)
}

/// Writes keys and values of the tokens at `positions` to the cache.
fn keep(
    cpu: &Cpu<'_>,
    spec: &Attention,
    cache: &mut Cache,
    layer: usize,
    positions: Range<usize>,
    keys: Act,
    values: Act,
) -> Result<()> {
    let rooms = cache.rooms(layer, positions.clone())?;
    let rooms: Vec<_> = rooms.into_iter().map(Mutex::new).collect();
    let (key_rows, value_rows) = (cpu.numbers(keys), cpu.numbers(values));
    let failed = Failed::default();
    let job = |room: usize, _: usize| {
        let Some(room) = rooms.get(room) else { return };
        let mut room = room.lock().unwrap_or_else(PoisonError::into_inner);
        let head = room.head;
        fn rows(all: &[f32], width: usize, tokens: Range<usize>, head: usize, dim: usize) -> Vec<&[f32]> {
            let row = |token: usize| all.get(token * width + head * dim..token * width + (head + 1) * dim);
            tokens.map(|token| row(token).unwrap_or_default()).collect()
        }
        let tokens = room.positions.start - positions.start..room.positions.end - positions.start;
        let keys = rows(key_rows, keys.width, tokens.clone(), head, spec.shape.key_dim);
        let values = rows(value_rows, values.width, tokens, head, spec.shape.value_dim);
        failed.note(room.put(cpu.level, &keys, &values));
    };
    if key_rows.len() < super::WORTH_SHARING {
        (0..rooms.len()).for_each(|room| job(room, 0));
    } else {
        cpu.team.run(rooms.len(), &job);
    }
    failed.result()
}

/// The first failure of some tasks.
#[derive(Default)]
pub(super) struct Failed(Mutex<Option<Error>>);

impl Failed {
    pub fn note<E: Into<Error>>(&self, result: std::result::Result<(), E>) {
        if let Err(error) = result {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.into());
        }
    }

    pub fn result(self) -> Result<()> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

struct Work<'a, 'c> {
    cpu: &'a Cpu<'c>,
    spec: &'a Attention,
    /// All that the tokens see.
    pages: Pages<'a>,
    /// Positions of the tokens.
    start: usize,
    end: usize,
    head: Head,
    /// Heads that share keys and values.
    group: usize,
    queries: Act,
}

impl Work<'_, '_> {
    /// The queries of some tokens for one head of keys, and what they see.
    fn with_queries<R>(
        &self,
        tokens: Range<usize>,
        kv_head: usize,
        with: impl FnOnce(&Queries<'_>) -> R,
    ) -> R {
        let width = self.group * self.head.key_dim;
        let all = self.cpu.numbers(self.queries);
        let at = |token: usize| token * self.queries.width + kv_head * width;
        let slices: Vec<&[f32]> =
            tokens.clone().map(|token| all.get(at(token)..at(token) + width).unwrap_or_default()).collect();
        let sees = |token: usize| self.spec.shape.sees.range(self.start + token, self.end);
        let visible: Vec<_> = tokens.clone().map(sees).collect();
        let position = self.start + tokens.start;
        let slopes = self.of_group(&self.spec.slopes, kv_head);
        with(&Queries { tokens: &slices, visible: &visible, position, group: self.group, slopes })
    }

    fn of_group<'s>(&self, of_heads: &'s [f32], kv_head: usize) -> &'s [f32] {
        of_heads.get(kv_head * self.group..(kv_head + 1) * self.group).unwrap_or_default()
    }

    /// Each task some tokens, all that they see.
    fn by_tokens(&self, per_task: usize, data: &mut [f32]) -> Result<()> {
        let Work { head, group, .. } = *self;
        let output = Output::new(data, self.spec.heads * head.value_dim)?;
        let (tokens, heads) = (self.queries.rows, self.spec.shape.heads);
        let chunks = tokens.div_ceil(per_task);
        self.run(chunks * heads, |task, scratch| {
            // The last tokens see most: they come first, so that no long task is left for the end.
            let (chunk, kv_head) = (chunks - 1 - task / heads, task % heads);
            let tokens = chunk * per_task..((chunk + 1) * per_task).min(tokens);
            let partial = head.partial_len(tokens.len() * group);
            let (sums, scratch) = scratch.split_at_mut((2 * partial).min(scratch.len()));
            let (span_sums, total) = sums.split_at_mut(partial.min(sums.len()));
            attention::begin(head, tokens.len() * group, total)?;
            self.with_queries(tokens.clone(), kv_head, |queries| {
                let first = queries.visible.first().map_or(0, |seen| seen.start);
                let last = queries.visible.last().map_or(0, |seen| seen.end);
                for span in first / SPAN..last.div_ceil(SPAN) {
                    self.span(span, kv_head, queries, scratch, span_sums)?;
                    attention::join(self.cpu.level, head, tokens.len() * group, span_sums, total)?;
                }
                Ok::<_, Error>(())
            })?;
            let width = group * head.value_dim;
            // SAFETY: tasks have rows and columns of their own, and each task runs once.
            let mut out = unsafe { output.tile(kv_head * width..(kv_head + 1) * width, tokens) };
            let sinks = self.of_group(&self.spec.sinks, kv_head);
            Ok(attention::finish(self.cpu.level, head, group, total, sinks, &mut out)?)
        })
    }

    /// Each task some spans, for all tokens; `room` is for what they leave, `[heads][parts][per_part]` times as much as
    /// the tokens need.
    fn by_spans(
        &self,
        spans: Range<usize>,
        per_part: usize,
        room: &mut [f32],
        data: &mut [f32],
    ) -> Result<()> {
        let Work { head, group, .. } = *self;
        let (tokens, heads) = (self.queries.rows, self.spec.shape.heads);
        let count = tokens * group;
        let partial = head.partial_len(count);
        let parts = spans.len().div_ceil(per_part);
        let rooms: Vec<_> = room.chunks_mut((per_part * partial).max(1)).map(Mutex::new).collect();
        self.run(heads * parts, |task, scratch| {
            let (kv_head, part) = (task / parts, task % parts);
            let Some(room) = rooms.get(task) else { return Ok(()) };
            let mut room = room.lock().unwrap_or_else(PoisonError::into_inner);
            let mine = (spans.start + part * per_part..spans.end).take(per_part);
            self.with_queries(0..tokens, kv_head, |queries| {
                let mut rooms = room.chunks_exact_mut(partial.max(1)).zip(mine);
                rooms.try_for_each(|(room, span)| self.span(span, kv_head, queries, scratch, room))
            })
        })?;
        drop(rooms);
        let room = &*room;
        let output = Output::new(data, self.spec.heads * head.value_dim)?;
        self.run(heads, |kv_head, scratch| {
            let missing = || Error::Internal { what: "scratch memory of an attention that is not there" };
            let total = scratch.get_mut(..partial).ok_or_else(missing)?;
            attention::begin(head, count, total)?;
            let all = room.chunks_exact(partial.max(1)).skip(kv_head * parts * per_part).take(spans.len());
            for span in all {
                attention::join(self.cpu.level, head, count, span, total)?;
            }
            let width = group * head.value_dim;
            // SAFETY: tasks have rows of their own, and each task runs once.
            let mut out = unsafe { output.window(kv_head * width..(kv_head + 1) * width) };
            let sinks = self.of_group(&self.spec.sinks, kv_head);
            Ok(attention::finish(self.cpu.level, head, group, total, sinks, &mut out)?)
        })
    }

    /// One span for some queries.
    fn span(
        &self,
        span: usize,
        kv_head: usize,
        queries: &Queries<'_>,
        scratch: &mut [f32],
        partial: &mut [f32],
    ) -> Result<()> {
        let from = queries.visible.iter().map(|seen| seen.start).min().unwrap_or(0).max(span * SPAN);
        let last = queries.visible.iter().map(|seen| seen.end).max().unwrap_or(0);
        let first = from / BLOCK;
        let end = last.min((span + 1) * SPAN).div_ceil(BLOCK).max(first);
        // The first block of the next span too, where there is one.
        let blocks = self.pages.blocks(kv_head, first..last.div_ceil(BLOCK).clamp(first, end + 1))?;
        let (blocks, next) = blocks.split_at(end - first);
        let span = Span { first, blocks, next: next.first() };
        Ok(attention::attend(self.cpu.level, self.head, span, queries, scratch, partial)?)
    }

    /// Runs `job` with the thread's scratch memory.
    fn run(&self, tasks: usize, job: impl Fn(usize, &mut [f32]) -> Result<()> + Sync) -> Result<()> {
        let failed = Failed::default();
        self.cpu.team.run(tasks, &|task, thread| {
            let Some(scratch) = self.cpu.work.scratch.get(thread) else { return };
            let mut scratch = scratch.lock().unwrap_or_else(PoisonError::into_inner);
            failed.note(job(task, &mut scratch));
        });
        failed.result()
    }
}

#[cfg(test)]
mod tests {
    use gristmill_kernels::attention::CacheType;
    use gristmill_kernels::simd::Level;

    use super::super::Workspace;
    use super::super::threads::Threads;
    use super::*;
    use crate::backend::{Engine, LayerShape, Sees};

    const HEADS: usize = 4;
    const SHAPE: LayerShape = LayerShape { heads: 2, key_dim: 6, value_dim: 5, sees: Sees::Past };

    fn noise(i: usize) -> f32 {
        ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Row `position` of the queries (0), keys (1) or values (2).
    fn row(which: usize, position: usize) -> Vec<f32> {
        let width =
            [HEADS * SHAPE.key_dim, SHAPE.heads * SHAPE.key_dim, SHAPE.heads * SHAPE.value_dim][which];
        (0..width).map(|i| noise(position * 131 + i * 7 + which * 1009) * 2.0).collect()
    }

    /// The results of `len` positions that come in batches of these sizes in turn.
    fn run(spec: &Attention, types: CacheType, len: usize, batches: &[usize], threads: usize) -> Vec<f32> {
        let mut cache = Cache::new(types.into(), [spec.shape]);
        let mut work = Workspace::default();
        let mut results = Vec::new();
        let threads = Threads::new(threads).unwrap();
        let mut start = 0;
        for &batch in batches.iter().cycle() {
            let positions = start..(start + batch).min(len);
            threads.enter(|team| {
                let mut cpu = Cpu::new(Level::detect(), &Engine::Cpu, team, &mut work);
                let [q, k, v] = [0, 1, 2].map(|which| {
                    let rows: Vec<f32> = positions.clone().flat_map(|pos| row(which, pos)).collect();
                    let (act, mut data) = cpu.make(positions.len(), rows.len() / positions.len()).unwrap();
                    data.copy_from_slice(&rows);
                    cpu.put(act, data);
                    act
                });
                let out = attend(&mut cpu, spec, &mut cache, 0, positions.start, q, Some([k, v])).unwrap();
                results.extend_from_slice(cpu.numbers(out));
            });
            start = positions.end;
            if start == len {
                return results;
            }
        }
        results
    }

    /// Softmax of scores times values, in double precision.
    fn naive(spec: &Attention, len: usize, sees: impl Fn(usize, usize) -> bool) -> Vec<f64> {
        let Attention { scale, .. } = *spec;
        let mut results = Vec::new();
        for position in 0..len {
            let query = row(0, position);
            for head in 0..HEADS {
                let kv = head / (HEADS / SHAPE.heads);
                let query = &query[head * SHAPE.key_dim..][..SHAPE.key_dim];
                let mut sums = [0.0; SHAPE.value_dim];
                let mut all = spec.sinks.get(head).map_or(0.0, |&sink| f64::from(sink).exp());
                for other in (0..len).filter(|&other| sees(position, other)) {
                    let key = &row(1, other)[kv * SHAPE.key_dim..][..SHAPE.key_dim];
                    let dot: f64 = query.iter().zip(key).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                    let far = position.abs_diff(other) as f64;
                    let slope = spec.slopes.get(head).map_or(0.0, |&slope| f64::from(slope));
                    let weight = (dot * f64::from(scale) - slope * far).exp();
                    all += weight;
                    let value = &row(2, other)[kv * SHAPE.value_dim..][..SHAPE.value_dim];
                    sums.iter_mut().zip(value).for_each(|(sum, &v)| *sum += weight * f64::from(v));
                }
                results.extend(sums.map(|sum| sum / all));
            }
        }
        results
    }

    fn close(found: &[f32], expected: &[f64], what: &str) {
        assert_eq!(found.len(), expected.len());
        for (i, (&found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((f64::from(found) - expected).abs() < 3e-6, "{what}: {i}: {found} {expected}");
        }
    }

    #[test]
    fn tokens_see_what_they_should_however_they_come() {
        type Rule = fn(usize, usize) -> bool;
        let rules: [(Sees, Rule); 4] = [
            (Sees::Past, |position, other| other <= position),
            (Sees::Last(70), |position, other| other <= position && other + 70 > position),
            (Sees::Chunk(96), |position, other| other <= position && other / 96 == position / 96),
            (Sees::Last(1), |position, other| other == position),
        ];
        let len = 1100;
        for (sees, rule) in rules {
            let shape = LayerShape { sees, ..SHAPE };
            let spec = Attention {
                heads: HEADS,
                shape,
                scale: 0.4,
                sinks: vec![0.5, -1.0, 2.0, 0.0].into(),
                slopes: vec![0.0, 0.01, 0.1, 0.5].into(),
                ..Attention::default()
            };
            let found = run(&spec, CacheType::F32, len, &[512], 1);
            close(&found, &naive(&spec, len, rule), &format!("{sees:?}"));
            for (batches, threads) in [(&[1][..], 4), (&[37, 1, 300, 2], 3)] {
                assert!(run(&spec, CacheType::F32, len, batches, threads) == found, "{sees:?} {batches:?}");
            }
            let found = run(&spec, CacheType::Q8_0, len, &[512], 1);
            assert!(run(&spec, CacheType::Q8_0, len, &[1, 130], 4) == found, "{sees:?} q8_0");
        }
    }

    #[test]
    fn encoders_see_both_sides() {
        let len = 600;
        for (sees, far) in [(Sees::All, usize::MAX), (Sees::Near(40), 40)] {
            let shape = LayerShape { sees, ..SHAPE };
            let slopes = vec![0.01, 0.0, 0.1, 0.5];
            let spec =
                Attention { heads: HEADS, shape, scale: 0.4, slopes: slopes.into(), ..Attention::default() };
            let found = run(&spec, CacheType::F32, len, &[len], 2);
            let expected = naive(&spec, len, |position, other| position.abs_diff(other) <= far);
            close(&found, &expected, &format!("{sees:?}"));
        }
    }
}
