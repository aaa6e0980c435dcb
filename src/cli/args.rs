//! Flags that several commands share.

use std::hash::{BuildHasher, RandomState};

use clap::Args;
use clap::builder::PossibleValuesParser;
use gristmill::eval;
use gristmill::generate::{CancelHandle, GenerateOptions, SamplerOptions, StepperOptions};
use gristmill::model::ModelOptions;
use gristmill::text::TokenizerOptions;
use gristmill::{BackendKind, CacheType, CacheTypes, Level, Model};

use super::Done;
use super::failure::Failure;
use super::output::note;

/// Flags of every command.
#[derive(Args)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// Threads that work at a time [default: fast physical cores that may be used] (`bench` takes several: 1,2)
    #[arg(long = "threads", global = true, value_name = "N", value_delimiter = ',',
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    all_threads: Vec<u16>,
    /// The one number of threads, where one is given.
    #[arg(skip)]
    pub threads: Option<u16>,
    /// Instruction set; results do not depend on it [default: auto, the fastest here]
    #[arg(long, global = true, value_name = "NAME",
          value_parser = PossibleValuesParser::new(Level::NAMES.iter().copied().chain(["auto"])))]
    pub isa: Option<String>,
    /// What computes; metal is Apple's GPU, ggml multiplies matrices by ggml, to compare with (`bench` takes several: cpu,ggml)
    #[arg(long, global = true, value_name = "NAME", value_delimiter = ',', default_value = "cpu",
          value_parser = PossibleValuesParser::new(["cpu", "ggml", "metal"]))]
    backend: Vec<String>,
    /// With --backend metal, leave so many layers to the GPU, from the first on, and the others to the CPU [default: all]
    #[arg(long, global = true, value_name = "N")]
    gpu_layers: Option<usize>,
    /// With --backend metal, leave the model to the CPU where the GPU cannot run it
    #[arg(long, global = true)]
    or_cpu: bool,
    /// The most tokens of a sequence [default: what the model was trained for; to measure over a text 512] (`advise` takes several: 4096,32768)
    #[arg(long = "ctx", global = true, value_name = "N", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..))]
    all_ctx: Vec<u32>,
    /// The one length, where one is given.
    #[arg(skip)]
    pub ctx: Option<u32>,
    /// Form in which keys and values are kept: f32, f16, bf16, q8_0, q4_0 [default: f16; for logits and embeddings f32]
    #[arg(long, global = true, value_name = "TYPE", visible_alias = "cache-type", value_parser = cache_type)]
    cache: Option<CacheType>,
    /// Form of the keys, where it is another
    #[arg(long, global = true, value_name = "TYPE", value_parser = cache_type)]
    cache_type_k: Option<CacheType>,
    /// Form of the values, where it is another
    #[arg(long, global = true, value_name = "TYPE", value_parser = cache_type)]
    cache_type_v: Option<CacheType>,
    /// Pre-tokenizer to use in place of the one that the file names, such as llama-bpe
    #[arg(long, global = true, value_name = "NAME")]
    pub pre: Option<String>,
    /// Tell on standard error what happens
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

fn cache_type(name: &str) -> Result<CacheType, String> {
    let names = || CacheType::ALL.iter().map(|ty| ty.name()).collect::<Vec<_>>().join(", ");
    CacheType::named(name).ok_or_else(|| format!("expected one of {}", names()))
}

impl Common {
    /// Takes the one number of threads and the one length of context, and refuses more of them where the command does not
    /// take several.
    pub fn settle(&mut self, several_threads: bool, several_contexts: bool) -> Done {
        let refused = |flag: &str, found: usize, who: &str| {
            Err(Failure::Usage(format!("{flag}: expected one number, found {found}; `{who}` takes several")))
        };
        match (self.all_threads.len(), self.all_ctx.len()) {
            (found @ 2.., _) if !several_threads => return refused("--threads", found, "bench"),
            (_, found @ 2..) if !several_contexts => return refused("--ctx", found, "advise"),
            _ => (),
        }
        self.threads = self.all_threads.first().copied();
        self.ctx = self.all_ctx.first().copied();
        Ok(())
    }

    /// The lengths of context that are asked for.
    pub fn contexts(&self) -> Vec<usize> {
        self.all_ctx.iter().map(|&ctx| ctx as usize).collect()
    }

    /// The instruction set that is asked for; `None` for the fastest.
    pub fn level(&self) -> Done<Option<Level>> {
        let Some(name) = self.isa.as_deref().filter(|&name| name != "auto") else { return Ok(None) };
        let available = || Level::available().map(Level::name).collect();
        let absent = || gristmill::Error::LevelAbsent { asked: name.to_owned(), available: available() };
        Ok(Some(Level::named(name).ok_or_else(absent)?))
    }

    /// The numbers of threads to compare; `None` for the usual one.
    pub fn thread_counts(&self) -> Vec<Option<u16>> {
        match self.all_threads.as_slice() {
            [] => vec![None],
            counts => counts.iter().copied().map(Some).collect(),
        }
    }

    /// The backends to compare.
    pub fn backends(&self) -> Done<Vec<BackendKind>> {
        Ok(self.backend.iter().map(|name| BackendKind::named(name)).collect::<Result<_, _>>()?)
    }

    /// The one backend.
    pub fn backend(&self) -> Done<BackendKind> {
        match self.backends()?.as_slice() {
            [backend] => Ok(*backend),
            more => {
                let found = more.len();
                Err(Failure::Usage(format!("--backend: expected one, found {found}; `bench` takes several")))
            }
        }
    }

    /// How a GPU is used.
    pub fn gpu(&self, options: ModelOptions) -> ModelOptions {
        let options = options.or_cpu(self.or_cpu);
        match self.gpu_layers {
            Some(layers) => options.gpu_layers(layers),
            None => options,
        }
    }

    /// The cache's types; those not given are `default`.
    pub fn cache(&self, default: CacheType) -> CacheTypes {
        let both = self.cache.unwrap_or(default);
        CacheTypes { keys: self.cache_type_k.unwrap_or(both), values: self.cache_type_v.unwrap_or(both) }
    }

    /// How a sequence is kept.
    pub fn stepper(&self, cache: CacheType) -> StepperOptions {
        let options = StepperOptions::default().cache(self.cache(cache));
        match self.ctx {
            Some(context) => options.context(context as usize),
            None => options,
        }
    }

    /// Warns where the context asked for is longer than what the model was trained for.
    pub fn warn_of_context(&self, model: &Model) {
        if let (Some(asked), Some(trained)) = (self.ctx, model.trained_context())
            && asked as usize > trained
        {
            note(format_args!(
                "note: --ctx {asked} is longer than the {trained} tokens that the model was trained for; \
                 expect nonsense beyond those"
            ));
        }
    }

    pub fn tokenizer(&self) -> TokenizerOptions {
        TokenizerOptions { pre: self.pre.clone() }
    }
}

/// Flags of the commands that measure over a text.
#[derive(Args)]
pub struct Measured {
    /// Read only the first N chunks of the text
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    chunks: Option<u32>,
}

impl Measured {
    /// How the text is read; `cancel` stops that.
    pub fn options(&self, common: &Common, cancel: &CancelHandle) -> eval::Options {
        let mut options = eval::Options::default().cache(common.cache(CacheType::F16)).cancel(cancel.clone());
        if let Some(context) = common.ctx {
            options = options.context(context as usize);
        }
        match self.chunks {
            Some(chunks) => options.limit(chunks as usize),
            None => options,
        }
    }
}

/// Flags of the commands that choose tokens.
#[derive(Args)]
#[command(next_help_heading = "Sampling")]
pub struct Sampling {
    /// Temperature; 0 always takes the likeliest token [default: 0.8]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temp: Option<f32>,
    /// Keep this many of the likeliest tokens; 0 keeps all [default: 40]
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Keep the likeliest tokens until their probabilities reach P; 1 keeps all [default: 0.95]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Keep tokens at least P times as likely as the likeliest; 0 keeps all [default: 0.05]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Keep tokens of typical surprise until their probabilities exceed P [default: 1, off]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    typical: Option<f32>,
    /// Divide the logits of tokens that came before [default: 1, off]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repeat_penalty: Option<f32>,
    /// Lower the logit of a token for each time that it came [default: 0, off]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Lower the logit of a token that came [default: 0, off]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Where the random numbers begin: the same seed gives the same text [default: another one each time]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Text that ends the output where it would appear; may be given often
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// The most tokens to generate; -1 is no bound but the context [default: 128; for chat -1]
    #[arg(short = 'n', value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..))]
    tokens: Option<i64>,
    /// Tell on standard error how many tokens there were, and how many a second
    #[arg(long)]
    pub stats: bool,
}

impl Sampling {
    /// The sampler's options; `temperature` where none is given.
    pub fn sampler(&self, temperature: f32) -> SamplerOptions {
        let mut options = SamplerOptions::default().temperature(self.temp.unwrap_or(temperature));
        options.top_k = self.top_k.unwrap_or(options.top_k);
        options.top_p = self.top_p.unwrap_or(options.top_p);
        options.min_p = self.min_p.unwrap_or(options.min_p);
        options.typical_p = self.typical.unwrap_or(options.typical_p);
        options.repeat_penalty = self.repeat_penalty.unwrap_or(options.repeat_penalty);
        options.frequency_penalty = self.frequency_penalty.unwrap_or(options.frequency_penalty);
        options.presence_penalty = self.presence_penalty.unwrap_or(options.presence_penalty);
        // The standard library's hash keys are the random numbers that come with it.
        options.seed = self.seed.unwrap_or_else(|| RandomState::new().hash_one(0));
        options
    }

    /// When output ends; after `tokens` tokens where nothing is said.
    pub fn generate(&self, tokens: Option<usize>) -> GenerateOptions {
        let most = match self.tokens {
            None => tokens,
            Some(tokens) => usize::try_from(tokens).ok(),
        };
        let options =
            most.map_or_else(GenerateOptions::default, |most| GenerateOptions::default().max_tokens(most));
        self.stop.iter().fold(options, |options, stop| options.stop(stop))
    }
}

/// With `-v`, tells a seed that nobody gave, so that the text can be made again.
pub fn tell_seed(common: &Common, options: &SamplerOptions) {
    if common.verbose && options.temperature != 0.0 {
        note(format_args!("seed: {}", options.seed));
    }
}
