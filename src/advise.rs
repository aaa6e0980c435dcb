//! What a model would need here, and how fast it would run, from the header of its file alone.
//!
//! The weights are not read, and need not be there: a file that is still being fetched will do. Memory follows from the
//! sizes that the header gives. Speed follows from a measurement of a second or two: the model's own network is walked
//! through, and each operation that it asks for is carried out a few times on memory that stands in for the weights, with the
//! loops, threads and formats that the model would run with; like operations are then taken to take as long. What the
//! measurement cannot know is what else the machine will do.
//!
//! ```
//! use gristmill::advise::Advisor;
//! use gristmill::speed::{Options, Test};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models/stories260K-f32.gguf");
//! let advisor = Advisor::open(path)?;
//! let needed = advisor.memory(512, &Options::default())?;
//! assert_eq!(needed.cache, 5 * 512 * 4 * (8 + 16) * 2); // layers, tokens, heads, a key and a value (padded), bytes
//! for (test, rate) in advisor.predict(&[Test::prompt(128), Test::generate(16)], &Options::default())? {
//!     println!("{test}: {rate:.0} tokens/s");
//! }
//! # Ok::<(), gristmill::Error>(())
//! ```
#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use gristmill_kernels::simd::Level;

use crate::backend::cpu::cores;
use crate::backend::cpu::threads::Threads;
use crate::backend::gauge::{Effort, median};
use crate::generate::{BATCH, cache_bytes};
use crate::gguf::Metadata;
use crate::model::Architecture;
use crate::model::file::{ModelFile, OpenOptions};
use crate::model::outline::Outline;
use crate::speed::cost::{LARGEST, Shape, Walk, passes};
use crate::speed::machine::memory;
use crate::speed::memory::Memory;
use crate::speed::{Cost, Options, Test};
use crate::{Error, Result};

/// Bytes of memory that stands in for weights where speed is measured: more than caches hold, which on servers are of some hundred
/// MiB; and how small a part of the memory that can be had.
const MEASURED: usize = 1 << 30;
const MEASURED_PART: u64 = 4;
/// The same where only sizes count.
const UNMEASURED: usize = 4 << 20;
/// Seconds of carrying operations out, about: with the walks between them a measurement takes some two.
const SECONDS: f64 = 1.2;
/// Walks through a pass at least.
const WALKS: usize = 5;
/// The longest row of a tensor, and the most of its rows, that a model is believed to have.
const LONGEST: usize = 1 << 22;

/// Bytes of memory that a model needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    /// The weights. They are mapped: shared with other processes that run the model, and read again from the file where
    /// memory is short, slowly.
    pub weights: u64,
    /// Keys, values and states of one sequence of the length that was asked for.
    pub cache: u64,
    /// What passes work in: activations, their quantized forms, scratch memory, logits.
    pub working: u64,
}

impl Needed {
    /// All together.
    pub fn total(self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(self.working)
    }
}

/// Tells what a model needs from its file's header.
pub struct Advisor {
    file: ModelFile,
    architecture: &'static Architecture,
    level: Level,
    threads: Option<usize>,
    encoder: bool,
}

impl Advisor {
    /// Of the file at `path`, of which only the header must be there.
    ///
    /// # Errors
    /// Those of [`OpenOptions::open`]; where the header is not whole, [`Error::GgufTruncated`] says how much is missing at
    /// least. Those of [`Advisor::new`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(OpenOptions::new().incomplete(true).open(path)?)
    }

    /// Of an open file.
    ///
    /// # Errors
    /// Those of [`Model::open`](crate::Model::open), but for what tensors hold.
    pub fn new(file: ModelFile) -> Result<Self> {
        if let Some(info) = file.infos().find(|info| info.shape().iter().any(|&size| size > LONGEST)) {
            let (tensor, found) = (info.name.clone(), info.shape_text());
            let expected = format!("of no size above {LONGEST}");
            return Err(Error::TensorShape { tensor, expected, found });
        }
        let outline = Outline::of(&file, Arc::new(memory(UNMEASURED)?))?;
        let (architecture, encoder) = (outline.architecture, outline.network.is_encoder());
        Ok(Advisor { file, architecture, level: Level::detect(), threads: None, encoder })
    }

    /// The instruction set; by default the fastest that the processor has.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// How many threads work at a time; by default as many as a model would have.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// The file.
    pub fn file(&self) -> &ModelFile {
        &self.file
    }

    /// The model's metadata.
    pub fn metadata(&self) -> &Metadata {
        self.file.metadata()
    }

    /// The model's architecture.
    pub fn architecture(&self) -> &'static Architecture {
        self.architecture
    }

    /// The context that the model was trained for, in tokens, as its metadata say.
    pub fn trained_context(&self) -> Option<usize> {
        self.architecture.trained_context(self.metadata())
    }

    /// Whether the model is an encoder, which generates nothing.
    pub fn is_encoder(&self) -> bool {
        self.encoder
    }

    /// Bytes of the tensors, those that are not there yet among them.
    pub fn weight_bytes(&self) -> u64 {
        self.file.infos().map(|info| info.bytes()).fold(0, u64::saturating_add)
    }

    fn outline(&self, bytes: usize) -> Result<Outline> {
        Outline::of(&self.file, Arc::new(memory(bytes)?))
    }

    fn make_threads(&self) -> Result<Threads> {
        Threads::new(self.threads.unwrap_or_else(cores::default_count))
    }

    /// The memory for one sequence of `context` tokens.
    ///
    /// All of it for the CPU: the cache is counted as [`Model::cache_bytes`](crate::Model::cache_bytes) counts it there. What
    /// passes work in is found by walking through the largest: a batch of a prompt, of 16,384 tokens at most, and a token at the
    /// end of the context.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Threads`].
    pub fn memory(&self, context: usize, options: &Options) -> Result<Needed> {
        let outline = self.outline(UNMEASURED)?;
        let network = &*outline.network;
        let batch = options.batch.unwrap_or(BATCH).max(1);
        let threads = self.make_threads()?;
        let mut walk = Walk::new(network, self.level, &threads, Effort::Try, options.cache);
        let largest = Test::prompt(batch.min(context).clamp(1, LARGEST));
        let last = Test::generate(1).at_depth(context.saturating_sub(1));
        for (shape, _) in [largest, last].into_iter().flat_map(|test| passes(test, options)) {
            walk.pass(&shape)?;
        }
        let logits = if network.is_encoder() { 0 } else { network.vocabulary() * size_of::<f32>() };
        Ok(Needed {
            weights: self.weight_bytes(),
            cache: cache_bytes(network, options.cache, context, batch, 0) as u64,
            working: (walk.working_bytes() + logits) as u64,
        })
    }

    /// What a test reads and multiplies.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Threads`].
    pub fn cost(&self, test: Test, options: &Options) -> Result<Cost> {
        let outline = self.outline(UNMEASURED)?;
        Cost::of_network(&*outline.network, self.level, test, options)
    }

    /// The tokens per second of each test on this machine, by a measurement of some two seconds.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Threads`].
    pub fn predict(&self, tests: &[Test], options: &Options) -> Result<Vec<(Test, f64)>> {
        let weights = usize::try_from(self.weight_bytes()).unwrap_or(usize::MAX);
        let there = Memory::of_this_machine().map(|memory| (memory.available / MEASURED_PART) as usize);
        let outline = self.outline(weights.min(MEASURED).min(there.unwrap_or(MEASURED)).max(1))?;
        let threads = self.make_threads()?;
        let mut walk = Walk::new(&*outline.network, self.level, &threads, Effort::Time, options.cache);
        let shapes: usize = tests.iter().map(|&test| passes(test, options).len()).sum();
        let share = SECONDS / shapes.max(1) as f64;
        let mut predictions = Vec::new();
        for &test in tests {
            let mut seconds = 0.0;
            for (shape, times) in passes(test, options) {
                seconds += pass_seconds(&mut walk, &shape, share)? * times as f64;
            }
            predictions.push((test, test.tokens() as f64 / seconds));
        }
        Ok(predictions)
    }
}

/// The seconds of a pass, of its operations and between them, by carrying operations out for `granted` seconds.
fn pass_seconds(walk: &mut Walk<'_>, shape: &Shape, granted: f64) -> Result<f64> {
    walk.book.grant(granted);
    let (mut between, began) = (Vec::new(), Instant::now());
    while between.len() < WALKS || began.elapsed().as_secs_f64() < granted {
        between.push(walk.pass(shape)?);
    }
    Ok(walk.book.seconds() + median(&between))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;
    use crate::generate::StepperOptions;

    fn path(name: &str) -> String {
        format!("{}/tests/data/architectures/{name}.gguf", env!("CARGO_MANIFEST_DIR"))
    }

    /// Attention of several kinds, windows, chunks, experts, latent attention, recurrent layers.
    const MODELS: [&str; 10] = [
        "qwen2",
        "gemma3",
        "gpt-oss",
        "llama4",
        "deepseek2-lite",
        "granitehybrid",
        "qwen35",
        "rwkv7",
        "lfm2",
        "mamba2",
    ];

    #[test]
    fn the_cache_that_is_told_is_the_cache_that_is_taken() {
        for name in MODELS {
            let advisor = Advisor::open(path(name)).unwrap();
            let model = Model::open(path(name)).unwrap();
            for (ty, context) in [(crate::CacheType::F16, 40), (crate::CacheType::Q8_0, 97)] {
                let options = Options { cache: ty.into(), ..Options::default() };
                let told = advisor.memory(context, &options).unwrap().cache;
                let mut stepper =
                    model.stepper(StepperOptions::default().cache(ty).context(context)).unwrap();
                let tokens: Vec<u32> = (0..context).map(|i| (i % model.vocabulary()) as u32).collect();
                // In two parts, so that recurrent layers keep two states.
                stepper.feed(&tokens[..context / 2]).unwrap();
                stepper.feed(&tokens[context / 2..]).unwrap();
                assert_eq!(told, stepper.held_bytes() as u64, "{name}, {context} tokens in {ty}");
            }
        }
    }

    #[test]
    fn a_header_alone_tells_what_the_whole_file_tells() {
        for name in MODELS {
            let whole = Advisor::open(path(name)).unwrap();
            let bytes = std::fs::read(path(name)).unwrap();
            let header = usize::try_from(whole.file().header().data_start).unwrap();
            let place =
                std::env::temp_dir().join(format!("gristmill-advise-{}-{name}.gguf", std::process::id()));
            std::fs::write(&place, &bytes[..header + 1]).unwrap();
            let part = Advisor::open(&place);
            std::fs::remove_file(&place).unwrap();
            let part = part.unwrap();
            assert_eq!(whole.file().missing_bytes(), 0);
            assert_eq!(part.file().missing_bytes(), (bytes.len() - header - 1) as u64, "{name}");
            let options = Options::default();
            assert_eq!(part.memory(64, &options).unwrap(), whole.memory(64, &options).unwrap(), "{name}");
            for test in [Test::prompt(20), Test::generate(4).at_depth(30)] {
                let cost = part.cost(test, &options).unwrap();
                assert_eq!(cost, whole.cost(test, &options).unwrap(), "{name} {test}");
                let model = Model::open(path(name)).unwrap();
                assert_eq!(cost, Cost::of(&model, test, &options).unwrap(), "{name} {test}");
            }
        }
    }

    #[test]
    fn every_architecture_can_be_walked_through() {
        let folder = format!("{}/tests/data/architectures", env!("CARGO_MANIFEST_DIR"));
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "gguf") {
                continue;
            }
            count += 1;
            let advisor = Advisor::open(&path).unwrap().threads(1);
            let needed = advisor.memory(33, &Options::default()).unwrap();
            assert!(needed.weights > 0 && needed.working > 0, "{}: {needed:?}", path.display());
            let cost = advisor.cost(Test::prompt(8), &Options::default()).unwrap();
            assert!(cost.weights > 0 && cost.codes + cost.floats > 0, "{}: {cost:?}", path.display());
        }
        assert!(count > 50, "{count}");
    }

    #[test]
    fn what_passes_work_in_is_what_a_sequence_takes() {
        // No window and no state: a sequence takes its cache, its activations and the last logits.
        for name in ["gemma", "falcon", "seed-oss"] {
            let context = 64;
            let told =
                Advisor::open(path(name)).unwrap().threads(1).memory(context, &Options::default()).unwrap();
            let model = crate::model::ModelOptions::default().threads(1).open(path(name)).unwrap();
            let mut stepper = model.stepper(StepperOptions::default().context(context)).unwrap();
            let tokens: Vec<u32> = (0..context).map(|i| (i % model.vocabulary()) as u32).collect();
            stepper.feed(&tokens).unwrap();
            stepper.truncate(context - 1);
            stepper.feed(&tokens[context - 1..]).unwrap();
            assert_eq!(told.working, stepper.working_bytes() as u64, "{name}");
        }
    }

    #[test]
    fn predictions_are_of_the_tests_that_were_asked_for() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models/stories260K-f32.gguf");
        let advisor = Advisor::open(path).unwrap().threads(1);
        let tests = [Test::prompt(40), Test::generate(4).at_depth(100)];
        let options = Options { batch: Some(16), ..Options::default() };
        let predictions = advisor.predict(&tests, &options).unwrap();
        assert_eq!(predictions.iter().map(|(test, _)| *test).collect::<Vec<_>>(), tests);
        assert!(predictions.iter().all(|(_, rate)| rate.is_finite() && *rate > 0.0), "{predictions:?}");
    }
}
