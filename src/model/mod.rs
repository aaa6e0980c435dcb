//! What a model computes: the file that holds it, its parameters and weights, and a forward pass.
//!
//! One file for each architecture says which parameters it reads, which tensors it needs and how they are joined; the
//! parts are shared (`layers`). To add one, write its file, add a line to [`ARCHITECTURES`] and a golden case to the
//! tests.
#![deny(unsafe_code)]

mod baichuan;
mod bert;
mod bitnet;
mod bloom;
mod cohere2;
mod command_r;
mod deepseek2;
mod ernie4_5;
mod exaone4;
mod falcon;
mod falcon_h1;
pub mod file;
mod gemma;
mod gemma2;
mod gemma3;
mod gemma3n;
mod gemma4;
mod gemma_embedding;
mod glm4;
mod glm4moe;
mod gpt2;
mod gpt_oss;
mod gptneox;
mod granite;
mod granite_hybrid;
mod hunyuan_dense;
mod internlm2;
mod jamba;
mod jina_bert_v2;
mod layers;
mod lfm2;
mod llama;
mod llama4;
mod loader;
mod mamba;
mod mamba2;
mod minicpm;
mod mistral3;
mod modern_bert;
mod mpt;
mod nemotron;
mod nemotron_h;
mod nomic_bert;
mod olmo2;
mod olmoe;
pub(crate) mod outline;
pub(crate) mod pass;
mod phi2;
mod phi3;
mod phimoe;
mod qwen2;
mod qwen2moe;
mod qwen3;
mod qwen35;
mod qwen3moe;
mod qwen3next;
mod rope;
mod rwkv7;
mod seed_oss;
mod smollm3;
mod stablelm;
mod starcoder2;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use gristmill_kernels::simd::Level;

use crate::backend::cpu::cores;
use crate::backend::cpu::threads::Threads;
use crate::backend::cpu::{Cpu, Workspace};
use crate::backend::{
    Act, Backend, BackendKind, Cache, CacheType, Engine, LayerShape, Left, Observer, metal,
};
use crate::gguf::Metadata;
use crate::text::{Tokenizer, TokenizerOptions};
use crate::{Error, Result};
use file::{FileBytes, ModelFile, OpenOptions};
use loader::Loader;
use pass::Pass;

/// An architecture that can be run.
pub struct Architecture {
    /// Its name in GGUF files.
    pub name: &'static str,
    /// The models that have it.
    pub models: &'static str,
    /// Whose logits it agrees with, on tiny models with random weights.
    pub checked: &'static str,
    load: fn(&Loader<'_>) -> Result<Box<dyn Network>>,
}

impl Architecture {
    /// The architecture that a file names.
    fn of(file: &ModelFile) -> Result<&'static Self> {
        let name: &str = file.metadata().require("general.architecture")?;
        ARCHITECTURES.iter().find(|architecture| architecture.name == name).ok_or_else(|| {
            Error::UnsupportedArchitecture {
                found: name.to_owned(),
                known: ARCHITECTURES.iter().map(|architecture| architecture.name).collect(),
            }
        })
    }

    /// The network that `loader` reads.
    fn network(&self, loader: &Loader<'_>) -> Result<Box<dyn Network>> {
        let network = (self.load)(loader)?;
        if !loader.causal()? && !network.is_encoder() {
            return Err(loader.unsupported("attention to the tokens behind".to_owned()));
        }
        Ok(network)
    }

    /// The context that a model of this architecture was trained for, in tokens, as its metadata say.
    pub(crate) fn trained_context(&self, metadata: &Metadata) -> Option<usize> {
        let context = metadata.u32(&format!("{}.context_length", self.name)).ok().flatten();
        context.filter(|&context| context > 0).map(|context| context as usize)
    }
}

const TRANSFORMERS_4: &str = "transformers 4.57.6";
const TRANSFORMERS_5: &str = "transformers 5.23.0";
const LLAMA_CPP: &str = "llama.cpp (ggml 0.25.3)";

/// Every architecture that can be run: the one list, from which loading, documentation and tests follow.
pub const ARCHITECTURES: &[Architecture] = &[
    Architecture { name: "qwen35", models: "Qwen 3.5", checked: TRANSFORMERS_5, load: qwen35::load },
    Architecture {
        name: "qwen35moe",
        models: "Qwen 3.5 with experts",
        checked: TRANSFORMERS_5,
        load: qwen35::load_with_experts,
    },
    Architecture { name: "qwen3next", models: "Qwen 3 Next", checked: TRANSFORMERS_4, load: qwen3next::load },
    Architecture { name: "qwen3", models: "Qwen 3", checked: TRANSFORMERS_4, load: qwen3::load },
    Architecture {
        name: "qwen3moe",
        models: "Qwen 3 with experts",
        checked: TRANSFORMERS_4,
        load: qwen3moe::load,
    },
    Architecture { name: "gemma4", models: "Gemma 4", checked: TRANSFORMERS_5, load: gemma4::load },
    Architecture { name: "gemma3", models: "Gemma 3", checked: TRANSFORMERS_4, load: gemma3::load },
    Architecture {
        name: "mistral3",
        models: "Mistral 3, Ministral 3",
        checked: TRANSFORMERS_5,
        load: mistral3::load,
    },
    Architecture {
        name: "cohere2",
        models: "Command R7B, Command A",
        checked: TRANSFORMERS_4,
        load: cohere2::load,
    },
    Architecture { name: "exaone4", models: "EXAONE 4", checked: TRANSFORMERS_4, load: exaone4::load },
    Architecture { name: "gemma3n", models: "Gemma 3n", checked: TRANSFORMERS_4, load: gemma3n::load },
    Architecture { name: "gemma2", models: "Gemma 2", checked: TRANSFORMERS_4, load: gemma2::load },
    Architecture { name: "gemma", models: "Gemma", checked: TRANSFORMERS_4, load: gemma::load },
    Architecture {
        name: "llama",
        models: "Llama 1-3, Mistral, Mixtral, TinyLlama, SmolLM 1-2",
        checked: TRANSFORMERS_4,
        load: llama::load,
    },
    Architecture { name: "llama4", models: "Llama 4", checked: TRANSFORMERS_4, load: llama4::load },
    Architecture { name: "gpt-oss", models: "gpt-oss", checked: TRANSFORMERS_4, load: gpt_oss::load },
    Architecture { name: "qwen2", models: "Qwen 2, Qwen 2.5", checked: TRANSFORMERS_4, load: qwen2::load },
    Architecture {
        name: "qwen2moe",
        models: "Qwen 1.5 and 2 with experts",
        checked: TRANSFORMERS_4,
        load: qwen2moe::load,
    },
    Architecture { name: "phi2", models: "Phi 1-2", checked: TRANSFORMERS_4, load: phi2::load },
    Architecture { name: "phi3", models: "Phi 3-4", checked: TRANSFORMERS_4, load: phi3::load },
    Architecture {
        name: "phimoe",
        models: "Phi 3.5 with experts",
        checked: TRANSFORMERS_4,
        load: phimoe::load,
    },
    Architecture {
        name: "deepseek2",
        models: "DeepSeek V2, V3, R1, GLM 4.7 Flash",
        checked: TRANSFORMERS_4,
        load: deepseek2::load,
    },
    Architecture { name: "glm4", models: "GLM 4", checked: TRANSFORMERS_4, load: glm4::load },
    Architecture { name: "glm4moe", models: "GLM 4.5-4.7", checked: TRANSFORMERS_4, load: glm4moe::load },
    Architecture { name: "granite", models: "Granite 3", checked: TRANSFORMERS_4, load: granite::load },
    Architecture {
        name: "granitemoe",
        models: "Granite 3 with experts",
        checked: TRANSFORMERS_4,
        load: granite::load,
    },
    Architecture { name: "smollm3", models: "SmolLM 3", checked: TRANSFORMERS_4, load: smollm3::load },
    Architecture { name: "olmo2", models: "OLMo 2-3", checked: TRANSFORMERS_4, load: olmo2::load },
    Architecture { name: "olmoe", models: "OLMoE", checked: TRANSFORMERS_4, load: olmoe::load },
    Architecture {
        name: "command-r",
        models: "Command R, Aya",
        checked: TRANSFORMERS_4,
        load: command_r::load,
    },
    Architecture {
        name: "starcoder2",
        models: "StarCoder 2",
        checked: TRANSFORMERS_4,
        load: starcoder2::load,
    },
    Architecture { name: "stablelm", models: "StableLM", checked: TRANSFORMERS_4, load: stablelm::load },
    Architecture { name: "falcon", models: "Falcon", checked: TRANSFORMERS_4, load: falcon::load },
    Architecture {
        name: "gptneox",
        models: "GPT-NeoX, Pythia",
        checked: TRANSFORMERS_4,
        load: gptneox::load,
    },
    Architecture { name: "gpt2", models: "GPT-2", checked: TRANSFORMERS_4, load: gpt2::load },
    Architecture { name: "lfm2", models: "LFM 2", checked: TRANSFORMERS_4, load: lfm2::load },
    Architecture { name: "lfm2moe", models: "LFM 2 with experts", checked: TRANSFORMERS_5, load: lfm2::load },
    Architecture { name: "mamba2", models: "Mamba 2", checked: TRANSFORMERS_4, load: mamba2::load },
    Architecture {
        name: "granitehybrid",
        models: "Granite 4",
        checked: TRANSFORMERS_4,
        load: granite_hybrid::load,
    },
    Architecture { name: "falcon-h1", models: "Falcon H1", checked: TRANSFORMERS_4, load: falcon_h1::load },
    Architecture { name: "bloom", models: "BLOOM", checked: TRANSFORMERS_4, load: bloom::load },
    Architecture { name: "mpt", models: "MPT", checked: TRANSFORMERS_4, load: mpt::load },
    Architecture { name: "mamba", models: "Mamba, Falcon Mamba", checked: TRANSFORMERS_4, load: mamba::load },
    Architecture { name: "rwkv7", models: "RWKV 7", checked: LLAMA_CPP, load: rwkv7::load },
    Architecture { name: "jamba", models: "Jamba", checked: TRANSFORMERS_4, load: jamba::load },
    Architecture { name: "nemotron", models: "Nemotron", checked: TRANSFORMERS_4, load: nemotron::load },
    Architecture {
        name: "nemotron_h",
        models: "Nemotron H",
        checked: TRANSFORMERS_5,
        load: nemotron_h::load,
    },
    Architecture {
        name: "nemotron_h_moe",
        models: "Nemotron 3",
        checked: TRANSFORMERS_5,
        load: nemotron_h::load,
    },
    Architecture { name: "minicpm", models: "MiniCPM", checked: LLAMA_CPP, load: minicpm::load },
    Architecture { name: "internlm2", models: "InternLM 2", checked: LLAMA_CPP, load: internlm2::load },
    Architecture { name: "baichuan", models: "Baichuan 1-2", checked: LLAMA_CPP, load: baichuan::load },
    Architecture { name: "ernie4_5", models: "ERNIE 4.5", checked: TRANSFORMERS_4, load: ernie4_5::load },
    Architecture {
        name: "hunyuan-dense",
        models: "Hunyuan",
        checked: TRANSFORMERS_4,
        load: hunyuan_dense::load,
    },
    Architecture { name: "seed_oss", models: "Seed-OSS", checked: TRANSFORMERS_4, load: seed_oss::load },
    Architecture { name: "bitnet", models: "BitNet", checked: LLAMA_CPP, load: bitnet::load },
    Architecture {
        name: "bert",
        models: "BERT, RoBERTa, MiniLM, BGE, E5 (embeddings)",
        checked: TRANSFORMERS_4,
        load: bert::load,
    },
    Architecture {
        name: "nomic-bert",
        models: "Nomic Embed 1 (embeddings)",
        checked: TRANSFORMERS_5,
        load: nomic_bert::load,
    },
    Architecture {
        name: "nomic-bert-moe",
        models: "Nomic Embed 2 (embeddings)",
        checked: LLAMA_CPP,
        load: nomic_bert::load_with_experts,
    },
    Architecture {
        name: "modern-bert",
        models: "ModernBERT (embeddings)",
        checked: TRANSFORMERS_4,
        load: modern_bert::load,
    },
    Architecture {
        name: "jina-bert-v2",
        models: "Jina Embeddings 2 (embeddings)",
        checked: LLAMA_CPP,
        load: jina_bert_v2::load,
    },
    Architecture {
        name: "gemma-embedding",
        models: "EmbeddingGemma (embeddings)",
        checked: TRANSFORMERS_4,
        load: gemma_embedding::load,
    },
];

/// What an architecture gives once it is loaded.
pub(crate) trait Network: Send + Sync {
    /// Tokens in the vocabulary: the width of the logits.
    fn vocabulary(&self) -> usize;
    /// What each layer keeps for a position.
    fn cache_layers(&self) -> Vec<LayerShape>;
    /// Floats that recurrent layers keep of all positions together.
    fn state_len(&self) -> usize {
        0
    }
    /// How many positions there can be at all; `None` where the model sets no bound.
    fn most_positions(&self) -> Option<usize>;
    /// What the last layer and the norm behind it make of the pass's outputs, `[outputs, width]`; `None` where none are
    /// wanted.
    fn hidden(&self, pass: &mut Pass<'_>) -> Result<Option<Act>>;
    /// Logits `[outputs, vocabulary]` of what [`Network::hidden`] gave.
    fn logits(&self, pass: &mut Pass<'_>, hidden: Act) -> Result<Act>;
    /// What becomes of pooled vectors `[texts, width]`.
    fn project(&self, _pass: &mut Pass<'_>, pooled: Act) -> Result<Act> {
        Ok(pooled)
    }
    /// Whether [`Network::rank`] wants the mean of all tokens rather than one of them.
    fn ranks_mean(&self) -> bool {
        false
    }
    /// Scores of pooled vectors `[texts, width]`, by the head of a reranking model: `None` where there is none.
    fn rank(&self, _pass: &mut Pass<'_>, _pooled: Act) -> Result<Option<Act>> {
        Ok(None)
    }

    /// Whether tokens see those behind them: then a text must come as a whole, and has no next token.
    fn is_encoder(&self) -> bool {
        self.cache_layers().iter().any(|layer| layer.sees.both_sides())
    }
}

/// How a model is opened. Start from [`ModelOptions::default`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ModelOptions {
    file: OpenOptions,
    threads: Option<usize>,
    level: Option<String>,
    backend: BackendKind,
    gpu: Gpu,
    tokenizer: TokenizerOptions,
}

/// How a GPU is used.
#[derive(Clone, Default)]
struct Gpu {
    /// How many layers it takes; `None` for all.
    layers: Option<usize>,
    /// Whether the CPU takes them all where the GPU cannot.
    or_cpu: bool,
    /// What opens another device than the machine's.
    open: Option<metal::Open>,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Gpu { layers, or_cpu, open } = self;
        let mut gpu = f.debug_struct("Gpu");
        gpu.field("layers", layers).field("or_cpu", or_cpu).field("other", &open.is_some()).finish()
    }
}

impl Gpu {
    /// The backend for the model of a file, of an architecture of so many layers.
    fn engine(&self, file: &ModelFile, loader: &Loader<'_>) -> Result<Engine> {
        let layers = self.layers.unwrap_or(usize::MAX);
        let open = || match &self.open {
            Some(open) => open(),
            None => metal::open(),
        };
        let weights = weights_of_layers(file, layers.min(loader.size("block_count")?));
        let engine = open().and_then(|device| metal::Metal::new(device, layers, weights));
        match engine {
            Ok(metal) => Ok(Engine::Metal(Box::new(metal))),
            Err(error) if self.or_cpu => {
                tracing::warn!(%error, "the CPU takes what the GPU cannot");
                Ok(Engine::Cpu)
            }
            Err(error) => Err(error),
        }
    }
}

/// Bytes of the tensors of the first `layers` layers, and of those that belong to none.
fn weights_of_layers(file: &ModelFile, layers: usize) -> u64 {
    let layer = |name: &str| name.strip_prefix("blk.")?.split('.').next()?.parse::<usize>().ok();
    let there = file.infos().filter(|info| layer(&info.name).is_none_or(|layer| layer < layers));
    there.fold(0, |sum, info| sum.saturating_add(info.bytes()))
}

impl ModelOptions {
    /// How the file is opened: mapped (the default) or copied.
    pub fn file(mut self, options: OpenOptions) -> Self {
        self.file = options;
        self
    }

    /// How many threads work at a time; by default one for each physical core of the fast kind that the process may
    /// use. More than two for each processor would only wait for each other: [`Model::thread_count`] tells how many
    /// there are. Results do not depend on it.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// The instruction set, by name (`scalar`, `avx2`); by default the fastest that the processor has. Results do not
    /// depend on it.
    pub fn level(mut self, name: impl Into<String>) -> Self {
        self.level = Some(name.into());
        self
    }

    /// What computes: [`BackendKind::Cpu`] by default. Opening with [`BackendKind::Ggml`] feeds one token, so that the
    /// copies that ggml makes of the weights are there before the first prompt.
    pub fn backend(mut self, backend: BackendKind) -> Self {
        self.backend = backend;
        self
    }

    /// With [`BackendKind::Metal`], how many layers the GPU takes, from the first on; the CPU takes the others, and what comes
    /// after them. By default the GPU takes all.
    pub fn gpu_layers(mut self, layers: usize) -> Self {
        self.gpu.layers = Some(layers);
        self
    }

    /// Whether, with [`BackendKind::Metal`], the CPU takes the whole model where the GPU cannot be opened, refuses the kernels
    /// or has too little memory for the weights: [`Model::backend`] tells, and there is an event of `tracing`. By default
    /// that is an error.
    pub fn or_cpu(mut self, or_cpu: bool) -> Self {
        self.gpu.or_cpu = or_cpu;
        self
    }

    /// Takes another device in the place of the machine's, as tests do.
    #[doc(hidden)]
    pub fn device(
        mut self,
        open: impl Fn() -> Result<Box<dyn metal::Device>> + Send + Sync + 'static,
    ) -> Self {
        self.gpu.open = Some(Arc::new(open));
        self
    }

    /// The pre-tokenizer, by name, in place of the one that the file names.
    pub fn pre_tokenizer(mut self, name: impl Into<String>) -> Self {
        self.tokenizer.pre = Some(name.into());
        self
    }

    /// Opens the file at `path`.
    ///
    /// # Errors
    /// Those of [`Model::open`]; [`Error::LevelAbsent`] for an instruction set that the processor lacks;
    /// [`Error::BackendAbsent`] for a backend that this build lacks.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Model> {
        let file = self.file.open(path)?;
        self.build(file)
    }

    /// Takes a whole file in memory.
    ///
    /// # Errors
    /// Those of [`ModelOptions::open`].
    pub fn from_bytes(self, bytes: impl Into<FileBytes>) -> Result<Model> {
        self.build(ModelFile::from_bytes(bytes)?)
    }

    /// Takes a file that is open already.
    ///
    /// # Errors
    /// Those of [`ModelOptions::open`].
    pub fn build(self, file: ModelFile) -> Result<Model> {
        let level = match self.level.as_deref() {
            None | Some("auto") => Level::detect(),
            Some(name) => Level::named(name).ok_or_else(|| Error::LevelAbsent {
                asked: name.to_owned(),
                available: Level::available().map(Level::name).collect(),
            })?,
        };
        let architecture = Architecture::of(&file)?;
        let loader = Loader::new(&file, architecture.name);
        let network = architecture.network(&loader)?;
        let unused = loader.unread();
        let threads = Threads::new(self.threads.unwrap_or_else(cores::default_count))?;
        let engine = match self.backend {
            BackendKind::Cpu => Engine::Cpu,
            BackendKind::Ggml => Engine::ggml(threads.count())?,
            BackendKind::Metal => self.gpu.engine(&file, &loader)?,
        };
        tracing::debug!(
            architecture = architecture.name,
            %level,
            threads = threads.count(),
            backend = engine.kind().name(),
            "loaded a model"
        );
        let tokenizer = (self.tokenizer, OnceLock::new());
        let model =
            Model(Arc::new(Inner { file, architecture, network, unused, level, engine, threads, tokenizer }));
        if self.backend == BackendKind::Ggml {
            model.feed_one()?;
        }
        Ok(model)
    }
}

/// A model that is ready to run: cheap to clone, to be used from any thread.
///
/// Weights stay in the mapped file; what grows is a sequence's cache, held by its
/// [`Stepper`](crate::generate::Stepper).
#[derive(Clone)]
pub struct Model(Arc<Inner>);

struct Inner {
    file: ModelFile,
    architecture: &'static Architecture,
    network: Box<dyn Network>,
    unused: Vec<String>,
    level: Level,
    engine: Engine,
    threads: Threads,
    /// Made when it is first asked for: not every use of a model needs it.
    tokenizer: (TokenizerOptions, OnceLock<Tokenizer>),
}

impl Model {
    /// Opens and maps the GGUF file at `path`, and with it all parts of a split one.
    ///
    /// # Errors
    /// What is wrong with the file; [`Error::UnsupportedArchitecture`] and [`Error::UnsupportedFeature`] for models that
    /// this version cannot run.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        ModelOptions::default().open(path)
    }

    /// Takes a whole GGUF file in memory; static bytes are used in place.
    ///
    /// # Errors
    /// Those of [`Model::open`].
    pub fn from_bytes(bytes: impl Into<FileBytes>) -> Result<Self> {
        ModelOptions::default().from_bytes(bytes)
    }

    /// The model's file: tensors and metadata as they are.
    pub fn file(&self) -> &ModelFile {
        &self.0.file
    }

    /// The tensors of the file that the architecture has no use for, in the file's order.
    pub fn unused_tensors(&self) -> &[String] {
        &self.0.unused
    }

    /// The model's metadata.
    pub fn metadata(&self) -> &Metadata {
        self.0.file.metadata()
    }

    /// The model's architecture.
    pub fn architecture(&self) -> &'static Architecture {
        self.0.architecture
    }

    /// The name that the file gives the model.
    pub fn name(&self) -> Option<&str> {
        self.metadata().str("general.name").ok().flatten()
    }

    /// Tokens in the vocabulary: the width of the logits.
    pub fn vocabulary(&self) -> usize {
        self.0.network.vocabulary()
    }

    /// The context that the model was trained for, in tokens, as its metadata say.
    pub fn trained_context(&self) -> Option<usize> {
        self.0.architecture.trained_context(self.metadata())
    }

    /// The model's tokenizer.
    ///
    /// # Errors
    /// Those of [`Tokenizer::from_metadata`].
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let (options, made) = &self.0.tokenizer;
        match made.get() {
            Some(tokenizer) => Ok(tokenizer),
            None => {
                let tokenizer = Tokenizer::with_options(self.metadata(), options)?;
                Ok(made.get_or_init(|| tokenizer))
            }
        }
    }

    /// Whether the model is an encoder: tokens see those behind them too, so that there is no next token to predict.
    pub fn is_encoder(&self) -> bool {
        self.0.network.is_encoder()
    }

    /// The Jinja source of the model's chat template, where it has one.
    pub fn chat_template(&self) -> Option<&str> {
        self.metadata()
            .str("tokenizer.chat_template")
            .ok()
            .flatten()
            .filter(|source| !source.trim().is_empty())
    }

    /// The instruction set that the model runs on.
    pub fn level(&self) -> Level {
        self.0.level
    }

    /// What computes.
    pub fn backend(&self) -> BackendKind {
        self.0.engine.kind()
    }

    /// How many threads work at a time.
    pub fn thread_count(&self) -> usize {
        self.0.threads.count()
    }

    pub(crate) fn network(&self) -> &dyn Network {
        &*self.0.network
    }

    /// How many tokens a sequence may have where `asked` are asked for, or nothing is said.
    pub(crate) fn context_for(&self, asked: Option<usize>) -> Result<usize> {
        let most = self.network().most_positions();
        let trained = self.trained_context().unwrap_or(usize::MAX);
        let context = asked.unwrap_or_else(|| most.unwrap_or(trained));
        match most.filter(|&most| context > most) {
            Some(most) => Err(Error::ContextFull { needed: context, context: most }),
            None => Ok(context),
        }
    }

    /// Refuses tokens that are not in the vocabulary.
    pub(crate) fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let vocab = self.vocabulary();
        match tokens.iter().find(|&&token| token as usize >= vocab) {
            Some(&token) => Err(Error::TokenOutOfRange { token, vocab }),
            None => Ok(()),
        }
    }

    /// Does a pass on the model's backend and threads.
    pub(crate) fn pass<R>(
        &self,
        work: &mut Workspace,
        pass: impl FnOnce(&mut dyn Backend) -> Result<R>,
    ) -> Result<R> {
        self.observed_pass(work, None, pass)
    }

    /// As [`Model::pass`]; `observer` sees all products.
    pub(crate) fn observed_pass<R>(
        &self,
        work: &mut Workspace,
        observer: Option<Observer<'_>>,
        pass: impl FnOnce(&mut dyn Backend) -> Result<R>,
    ) -> Result<R> {
        let Inner { engine, threads, level, .. } = &*self.0;
        threads.enter(|team| engine.pass(Cpu::new(*level, engine, team, work).observed(observer), pass))
    }

    /// How many layers, the first ones, keep their keys and values on a GPU.
    pub(crate) fn layers_on_device(&self) -> usize {
        self.0.engine.layers_on_device()
    }

    /// The numbers of a row that a pass left on the device.
    pub(crate) fn read_left(&self, left: &Left) -> Result<Vec<f32>> {
        self.0.engine.read_left(left)
    }

    /// A pass over one token, of which nothing is kept but what the backend prepares for the next ones.
    fn feed_one(&self) -> Result<()> {
        let mut cache = Cache::new(CacheType::F16.into(), self.network().cache_layers());
        self.pass(&mut Workspace::default(), |backend| {
            let go_on = &mut |_| true;
            let cache = &mut cache;
            let mut pass = Pass { backend, cache, tokens: &[0], start: 0, context: 1, outputs: &[0], go_on };
            let Some(hidden) = self.network().hidden(&mut pass)? else { return Ok(()) };
            if !self.is_encoder() {
                self.network().logits(&mut pass, hidden)?;
            }
            Ok(())
        })
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("name", &self.name())
            .field("architecture", &self.0.architecture.name)
            .field("vocabulary", &self.vocabulary())
            .finish_non_exhaustive()
    }
}
