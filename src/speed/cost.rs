//! What a test needs of memory and of multipliers, and what that would take.
#![forbid(unsafe_code)]

use std::time::Instant;

use gristmill_kernels::simd::Level;

pub use crate::backend::gauge::Cost;

use super::suite::Options;
use super::{Kind, Test};
use crate::backend::cpu::threads::Threads;
use crate::backend::cpu::{Cpu, Workspace};
use crate::backend::gauge::{Book, Effort, Gauge};
use crate::backend::{Cache, Engine};
use crate::generate::BATCH;
use crate::model::Network;
use crate::model::pass::Pass;
use crate::{Model, Result};

impl Cost {
    /// What a test of `model` reads and multiplies, from its tensors: nothing is computed.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn of(model: &Model, test: Test, options: &Options) -> Result<Self> {
        Self::of_network(model.network(), model.level(), test, options)
    }

    pub(crate) fn of_network(
        network: &dyn Network,
        level: Level,
        test: Test,
        options: &Options,
    ) -> Result<Self> {
        let threads = Threads::new(1)?;
        let mut walk = Walk::new(network, level, &threads, Effort::Count, options.cache);
        let mut cost = Cost::default();
        for (pass, times) in passes(test, options) {
            walk.pass(&pass)?;
            cost.add(walk.book.cost(), times);
        }
        Ok(cost)
    }
}

/// A pass as far as its cost depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub tokens: usize,
    pub depth: usize,
    /// Whether the logits after the last token are wanted.
    pub logits: bool,
}

/// Passes of a prompt, without its last, that are looked at; more are counted as those in their middle.
const PASSES: usize = 8;
/// Tokens of a pass at most; larger ones are counted as several.
pub(crate) const LARGEST: usize = 1 << 14;
/// No sequence is deeper: sums of positions stay far from overflow.
const DEEPEST: usize = 1 << 48;

/// The passes of a test, each with how often it is to be counted: tokens that come one by one are all counted as the one in
/// their middle.
pub(crate) fn passes(test: Test, options: &Options) -> Vec<(Shape, u64)> {
    let Test { kind, tokens, depth } = test;
    if tokens == 0 {
        return Vec::new();
    }
    let at = |more: usize| depth.saturating_add(more).min(DEEPEST);
    if kind == Kind::Generate {
        return vec![(Shape { tokens: 1, depth: at(tokens / 2), logits: true }, tokens as u64)];
    }
    let batch = options.batch.unwrap_or(BATCH).clamp(1, LARGEST);
    // All but the last are full, and of no one's logits.
    let full = (tokens - 1) / batch;
    let groups = full.min(PASSES);
    let mut passes = Vec::new();
    let mut start = 0;
    for group in 0..groups {
        let count = full / groups + usize::from(group < full % groups);
        let middle = (start + count / 2).saturating_mul(batch);
        passes.push((Shape { tokens: batch, depth: at(middle), logits: false }, count as u64));
        start += count;
    }
    let before = full * batch;
    passes.push((Shape { tokens: tokens - before, depth: at(before), logits: true }, 1));
    passes
}

/// Walks a network through passes that are counted or timed rather than computed.
pub(crate) struct Walk<'a> {
    network: &'a dyn Network,
    level: Level,
    threads: &'a Threads,
    options_cache: crate::CacheTypes,
    work: Workspace,
    pub book: Book,
}

impl<'a> Walk<'a> {
    pub fn new(
        network: &'a dyn Network,
        level: Level,
        threads: &'a Threads,
        effort: Effort,
        cache: crate::CacheTypes,
    ) -> Self {
        let layers = network.cache_layers().len();
        let book = Book::new(effort, cache, layers);
        Walk { network, level, threads, options_cache: cache, work: Workspace::default(), book }
    }

    /// Bytes of activations that the passes took so far.
    pub fn working_bytes(&self) -> usize {
        self.work.bytes()
    }

    /// A pass. Gives the seconds between its operations: the network's own code, which runs as ever.
    pub fn pass(&mut self, shape: &Shape) -> Result<f64> {
        let Walk { network, level, threads, options_cache, work, book } = self;
        // Other tokens each, so that routers choose other experts.
        let vocabulary = network.vocabulary().max(1);
        let tokens: Vec<u32> = (0..shape.tokens).map(|i| (i * 7919 % vocabulary) as u32).collect();
        let last = [shape.tokens.saturating_sub(1)];
        let outputs: &[usize] = if shape.logits || network.is_encoder() { &last } else { &[] };
        let mut cache = Cache::new(*options_cache, network.cache_layers());
        book.begin();
        let engine = Engine::Cpu;
        let began = Instant::now();
        threads.enter(|team| {
            let cpu = Cpu::new(*level, &engine, team, work);
            let mut gauge = Gauge { cpu, book, depth: shape.depth };
            let mut pass = Pass {
                backend: &mut gauge,
                cache: &mut cache,
                tokens: &tokens,
                start: 0,
                context: shape.depth + shape.tokens,
                outputs,
                go_on: &mut |_| true,
            };
            if let Some(hidden) = network.hidden(&mut pass)?
                && !network.is_encoder()
            {
                network.logits(&mut pass, hidden)?;
            }
            Ok::<_, crate::Error>(())
        })?;
        let wall = began.elapsed().as_secs_f64();
        Ok((wall - book.inside()).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(tokens: usize, depth: usize, logits: bool) -> Shape {
        Shape { tokens, depth, logits }
    }

    #[test]
    fn a_prompt_is_as_many_passes_as_batches() {
        let options = Options { batch: Some(100), ..Options::default() };
        let expected = [(shape(100, 7, false), 1), (shape(100, 107, false), 1), (shape(50, 207, true), 1)];
        assert_eq!(passes(Test::prompt(250).at_depth(7), &options), expected);
        assert_eq!(passes(Test::prompt(512), &Options::default()), [(shape(512, 0, true), 1)]);
        assert_eq!(passes(Test::generate(128).at_depth(64), &options), [(shape(1, 128, true), 128)]);
        assert_eq!(passes(Test::prompt(0), &options), []);
        assert_eq!(passes(Test::generate(0), &options), []);
    }

    #[test]
    fn many_passes_are_told_by_some() {
        let options = Options { batch: Some(10), ..Options::default() };
        let some = passes(Test::prompt(205), &options);
        // Twenty full ones in eight groups of two or three, and the rest.
        assert_eq!(some.len(), 9);
        assert_eq!(some.iter().map(|(shape, times)| shape.tokens as u64 * times).sum::<u64>(), 205);
        assert_eq!([some[0], some[8]], [(shape(10, 10, false), 3), (shape(5, 200, true), 1)]);
        let most = passes(Test::prompt(usize::MAX).at_depth(usize::MAX), &options);
        assert!(most.len() == 9 && most.iter().all(|(shape, _)| shape.depth == DEEPEST));
    }

    /// stories260K: 5 layers of width 64, 8 heads over 4 of keys of 8 values, 172 inner values, 512 tokens, all in F32; the
    /// output matrix is the embedding.
    #[test]
    fn what_a_token_costs_follows_from_the_sizes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models/stories260K-f32.gguf");
        let model = Model::open(path).unwrap();
        let options = Options::default();
        let layer = 64 * 64 * 2 + 2 * 32 * 64 + 3 * 172 * 64;
        let cost = Cost::of(&model, Test::generate(1).at_depth(31), &options).unwrap();
        // One token sees 32 positions: a whole page of keys of 8 and values of 8, made 16, in half precision.
        assert_eq!(cost.floats, 5 * (layer + 32 * 8 * (8 + 8)) + 512 * 64);
        assert_eq!(cost.codes, 0);
        assert_eq!(cost.weights, 4 * (5 * layer + 512 * 64 + 64));
        assert_eq!(cost.cache, 5 * 32 * 4 * (8 + 16) * 2);
        // A prompt of three: the queries see 1 + 2 + 3 positions; the last layer's network and the output, one token.
        let cost = Cost::of(&model, Test::prompt(3), &options).unwrap();
        let network = 3 * 172 * 64;
        let all = 3 * 5 * layer - 2 * network + 5 * 6 * 8 * (8 + 8) + 512 * 64;
        assert_eq!(cost.floats, all);
    }
}
