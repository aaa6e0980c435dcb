//! Attention, cut into tasks.
//!
//! Of many tokens (a prompt) a task is some tokens of one head of keys, from their first position to their last. Of few
//! tokens at depth it is a part of the positions, some whole spans of one head of keys; what the tasks leave is joined in
//! a step of its own. Both go through the same spans in the same order, so that nobody can tell from the results.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use gristmill_kernels::Output;
use gristmill_kernels::attention::{self, BLOCK, Head, Queries, SPAN};

use super::Cpu;
use crate::backend::{Act, Attention, Backend, Cache};
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
    let first_span = shape.sees.range(start, end).start / SPAN;
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
    let work = Work { cpu, spec, cache, layer, start, end, head, group, queries };
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
    let (key_rows, value_rows) = (cpu.read(keys), cpu.read(values));
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
struct Failed(Mutex<Option<Error>>);

impl Failed {
    fn note<E: Into<Error>>(&self, result: std::result::Result<(), E>) {
        if let Err(error) = result {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.into());
        }
    }

    fn result(self) -> Result<()> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

struct Work<'a, 'c> {
    cpu: &'a Cpu<'c>,
    spec: &'a Attention,
    cache: &'a Cache,
    layer: usize,
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
        let all = self.cpu.read(self.queries);
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
        let to = queries.visible.iter().map(|seen| seen.end).max().unwrap_or(0).min((span + 1) * SPAN);
        let blocks = from / BLOCK..to.div_ceil(BLOCK).max(from / BLOCK);
        let first = blocks.start;
        let blocks = self.cache.blocks(self.layer, kv_head, blocks)?;
        Ok(attention::attend(self.cpu.level, self.head, first, &blocks, queries, scratch, partial)?)
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
