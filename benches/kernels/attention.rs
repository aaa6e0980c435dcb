//! Attention of one token and of a prompt, by cache type, head and depth; one thread.
//!
//! GB/s count the cache's bytes that a token reads; GFMA/s the products of a prompt's queries with the keys and values
//! that they see, two a pair of numbers. Best of some runs, of the processor's time: what it can do.

use std::time::{Duration, Instant};

use gristmill_kernels::Output;
use gristmill_kernels::attention::{self, BLOCK, CacheType, Head, Layout, Line, Queries, SPAN, Span};
use gristmill_kernels::simd::Level;

use super::Random;

/// Values of a head, heads of a group, heads of keys.
const HEADS: [[usize; 3]; 3] = [[64, 4, 8], [128, 4, 8], [128, 1, 32]];
/// Tokens of the prompt, and its tokens that are one task.
const PROMPT: usize = 512;
const TASK_QUERIES: usize = 128;

/// A cache as a sequence has it, in pages of its own for each block of positions.
struct Cache {
    head: Head,
    layout: Layout,
    kv_heads: usize,
    pages: Vec<Vec<Line>>,
}

impl Cache {
    fn new(ty: CacheType, dim: usize, kv_heads: usize, positions: usize) -> Self {
        let head = Head { key_dim: dim, value_dim: dim, scale: 1.0 / (dim as f32).sqrt(), cap: None };
        let layout = Layout::new(ty, ty, dim, dim);
        let mut random = Random(3);
        let rows: Vec<f32> = (0..BLOCK + 4 * dim).map(|_| random.unit()).collect();
        let page = |page: usize| {
            let mut lines = vec![Line::default(); kv_heads * layout.lines()];
            for (head, lines) in lines.chunks_exact_mut(layout.lines()).enumerate() {
                let row = |position: usize| &rows[(position + 7 * page + head) % (3 * dim)..][..dim];
                let rows: Vec<&[f32]> = (0..BLOCK).map(row).collect();
                layout.put(Level::detect(), lines, 0, &rows, &rows).unwrap();
            }
            lines
        };
        Cache { head, layout, kv_heads, pages: (0..positions.div_ceil(BLOCK)).map(page).collect() }
    }

    fn bytes(&self) -> usize {
        self.pages.iter().map(|page| size_of_val(page.as_slice())).sum()
    }
}

/// Memory of a task.
#[derive(Default)]
struct Room {
    scratch: Vec<f32>,
    span: Vec<f32>,
    total: Vec<f32>,
    out: Vec<f32>,
}

/// The tokens from `position` on, for one head of keys.
fn attend(level: Level, cache: &Cache, kv_head: usize, tokens: &[&[f32]], position: usize, room: &mut Room) {
    let Cache { head, layout, .. } = *cache;
    let group = tokens[0].len() / head.key_dim;
    let count = tokens.len() * group;
    let visible: Vec<_> = (0..tokens.len()).map(|token| 0..position + token + 1).collect();
    let queries = Queries { tokens, visible: &visible, position, group, slopes: &[] };
    room.scratch.resize(head.scratch_len(count), 0.0);
    room.span.resize(head.partial_len(count), 0.0);
    room.total.resize(head.partial_len(count), 0.0);
    room.out.resize(count * head.value_dim, 0.0);
    attention::begin(head, count, &mut room.total).unwrap();
    let pages = &cache.pages[..(position + tokens.len()).div_ceil(BLOCK)];
    let lines = kv_head * layout.lines()..(kv_head + 1) * layout.lines();
    let blocks: Vec<_> = pages.iter().map(|page| layout.block(&page[lines.clone()]).unwrap()).collect();
    for first in (0..blocks.len()).step_by(SPAN / BLOCK) {
        let (blocks, rest) = blocks[first..].split_at((SPAN / BLOCK).min(blocks.len() - first));
        let span = Span { first, blocks, next: rest.first() };
        attention::attend(level, head, span, &queries, &mut room.scratch, &mut room.span).unwrap();
        attention::join(level, head, count, &room.span, &mut room.total).unwrap();
    }
    let mut out = Output::new(&mut room.out, group * head.value_dim).unwrap();
    attention::finish(level, head, group, &mut room.total, &[], &mut out).unwrap();
    assert!(room.out.iter().all(|x| x.is_finite() && x.abs() <= 1.0), "results that are no means of values");
}

/// The least of some runs, in seconds.
fn best(least: Duration, mut work: impl FnMut()) -> f64 {
    let (began, mut best) = (Instant::now(), f64::INFINITY);
    for run in 0.. {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64());
        if run >= 2 && began.elapsed() > least {
            break;
        }
    }
    best
}

fn queries(tokens: usize, values: usize) -> Vec<Vec<f32>> {
    let mut random = Random(4);
    (0..tokens).map(|_| (0..values).map(|_| random.unit()).collect()).collect()
}

/// The table's lines.
pub fn measure(level: Level, quick: bool) -> Vec<String> {
    let depths: &[usize] = if quick { &[4096] } else { &[4096, 16384] };
    let least = Duration::from_millis(if quick { 20 } else { 200 });
    let mut lines = Vec::new();
    for [dim, group, kv_heads] in HEADS {
        for &ty in CacheType::ALL {
            let mut room = Room::default();
            let decode = depths.iter().map(|&depth| {
                let cache = Cache::new(ty, dim, kv_heads, depth);
                let token = queries(1, group * dim);
                let time = best(least, || {
                    (0..cache.kv_heads)
                        .for_each(|head| attend(level, &cache, head, &[&token[0]], depth - 1, &mut room));
                });
                format!("{:.1}", cache.bytes() as f64 / time / 1e9)
            });
            let mut cells: Vec<String> = decode.collect();
            cells.extend([0, depths[0]].map(|depth| {
                let cache = Cache::new(ty, dim, 1, depth + PROMPT);
                let tokens = queries(PROMPT, group * dim);
                let tokens: Vec<&[f32]> = tokens.iter().map(Vec::as_slice).collect();
                let per_task = TASK_QUERIES / group;
                let time = best(least, || {
                    for (task, tokens) in tokens.chunks(per_task).enumerate() {
                        attend(level, &cache, 0, tokens, depth + task * per_task, &mut room);
                    }
                });
                let seen: usize = (0..PROMPT).map(|token| depth + token + 1).sum();
                format!("{:.1}", (2 * seen * group * dim) as f64 / time / 1e9)
            }));
            lines.push(format!("| {dim} x {group} | {ty} | {} |", cells.join(" | ")));
        }
    }
    let heads: Vec<String> = depths.iter().map(|depth| format!("GB/s, 1 token at {depth}")).collect();
    let prompts = format!("GFMA/s, {PROMPT} tokens at 0 | at {}", depths[0]);
    let head = format!("| values x group | cache | {} | {prompts} |", heads.join(" | "));
    let rule = format!("|---|---|{}", "---:|".repeat(depths.len() + 2));
    [head, rule].into_iter().chain(lines).collect()
}
