//! What a report says, as `report.json` holds it.

use serde::{Deserialize, Serialize};

/// The form of `report.json`; files of another are refused.
pub const FORMAT: u32 = 1;

/// A whole report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// The model's name.
    pub title: String,
    /// Where the figures come from.
    pub provenance: Provenance,
    /// What was measured, and how.
    pub settings: Settings,
    /// The model that the others are compared with; its [`Quality::divergence`] is `None`.
    pub reference: Cell,
    /// The models that are compared, the largest first.
    pub cells: Vec<Cell>,
    /// Most less least of a fixed workload's speed, run before each turn, as a part of the median: how much the machine moved while
    /// speeds were measured; `None` where nothing was timed.
    #[serde(default)]
    pub drift: Option<f64>,
    /// What to take.
    pub recommendation: Recommendation,
}

impl Report {
    /// The cells, the reference first.
    pub fn all(&self) -> impl Iterator<Item = &Cell> {
        std::iter::once(&self.reference).chain(&self.cells)
    }
}

/// Where the figures of a report come from: enough to get them again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The program and its version.
    pub program: String,
    /// When the report was made: UTC, ISO 8601.
    pub date: String,
    /// The command line; empty where a program called the library.
    pub command: String,
    /// Where it was made.
    pub machine: Machine,
    /// The text that was read.
    pub text: FileHash,
    /// The importance matrix that files were quantized with.
    pub imatrix: Option<FileHash>,
}

/// A machine, and what of it was used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name, as far as the system tells.
    pub cpu: String,
    /// The operating system and the processor's architecture.
    pub system: String,
    /// The instruction set that was used.
    pub level: String,
    /// Threads that worked at a time.
    pub threads: usize,
    /// Bytes of memory that may be used, where the system tells.
    pub memory: Option<u64>,
}

/// A file, told from all others by its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHash {
    /// Its path as it was given, or from the report's folder.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 in hexadecimal digits; of a file in parts, of the parts' hashes one behind the other.
    pub sha256: String,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Tokens of a chunk of text.
    pub context: usize,
    /// The most chunks that were read; all where there is no bound.
    pub chunks: Option<usize>,
    /// Tokens of the prompt that was timed.
    pub prompt: usize,
    /// Tokens of the generation that was timed.
    pub generate: usize,
    /// How often each was timed; 0 where nothing was.
    pub runs: usize,
    /// Tokens of the context that memory is reckoned for.
    pub memory_context: usize,
}

/// All that is said of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// A short name, no other cell's: the quantization, where that tells it.
    pub name: String,
    /// The file.
    pub file: FileHash,
    /// The mix, where the file was quantized for the report.
    pub quantized: Option<String>,
    /// What the file is made of.
    pub size: Size,
    /// Bytes that running takes: the file, and the cache of [`Settings::memory_context`] tokens.
    pub memory: u64,
    /// The most bytes that a process held which did nothing but run it, with the prompt and the generation that are timed; `None`
    /// where that was not measured.
    #[serde(default)]
    pub peak: Option<u64>,
    /// How well it predicts the text.
    pub quality: Quality,
    /// How fast it is; `None` where nothing was timed.
    pub speed: Option<Speed>,
    /// How far each matrix is from the reference's; empty for the reference.
    pub tensors: Vec<TensorError>,
    /// Whether nothing smaller diverges less.
    pub on_size_front: bool,
    /// Whether nothing that generates faster diverges less.
    pub on_speed_front: bool,
}

/// What a file is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Weights of all tensors.
    pub weights: u64,
    /// Bits of a weight on average.
    pub bits_per_weight: f64,
    /// The tensors by type, those with most bytes first.
    pub types: Vec<TypeShare>,
}

/// The tensors of one type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TypeShare {
    /// The type's name, as ggml prints it.
    pub ty: String,
    /// How many tensors have it.
    pub tensors: u64,
    /// Their weights.
    pub weights: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl TypeShare {
    /// Bits of a weight.
    pub fn bits_per_weight(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.weights.max(1) as f64
    }
}

/// A number and its standard error; 0 where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The number.
    pub value: f64,
    /// Its standard error.
    pub error: f64,
}

/// How well a model predicts the text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// The perplexity.
    pub perplexity: Measured,
    /// Bits that the model takes for a byte of the text.
    pub bits_per_byte: Measured,
    /// Tokens that were scored.
    pub tokens: usize,
    /// Chunks that were read.
    pub chunks: usize,
    /// How far its predictions are from the reference's; `None` for the reference.
    pub divergence: Option<Divergence>,
}

/// How far a model's predictions are from the reference's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// The mean Kullback-Leibler divergence of a position, in nats.
    pub mean: Measured,
    /// The divergence that half of the positions lie below.
    pub median: f64,
    /// That 99 of 100 lie below.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
    /// The share of positions at which both find the same token likeliest.
    pub same_top: Measured,
    /// The logarithm of its perplexity over the reference's.
    pub log_ratio: Measured,
}

/// How fast a model is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Tokens of the prompt in a second.
    pub prompt: Rate,
    /// Tokens that are generated in a second.
    pub generate: Rate,
}

/// A model's turn in a round: one run of each test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Turn {
    /// How often in a second the fixed workload could be done right before.
    pub reference: f64,
    /// Tokens of the prompt in a second.
    pub prompt: f64,
    /// Tokens that were generated in a second.
    pub generate: f64,
}

/// Tokens per second, over several runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// The run in the middle.
    pub median: f64,
    /// The slowest.
    pub least: f64,
    /// The fastest.
    pub most: f64,
    /// Why it should not be believed, where it should not.
    pub remark: Option<String>,
}

/// How far a matrix is from the reference's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorError {
    /// The layer; `None` outside of layers.
    pub layer: Option<u32>,
    /// What it is in its layer: `attn_q`, `ffn_down`.
    pub kind: String,
    /// Its type.
    pub ty: String,
    /// The root mean square of the errors over that of the reference's weights.
    pub error: f64,
}

/// What a model is wanted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// Answers that appear as fast as can be: generation counts.
    #[default]
    Chat,
    /// Long inputs, short outputs: prompts count.
    Batch,
    /// As near to the reference as memory allows.
    Quality,
    /// As small as can be borne.
    Small,
}

impl Use {
    /// All of them.
    pub const ALL: [Use; 4] = [Use::Chat, Use::Batch, Use::Quality, Use::Small];

    /// Its name: `chat`, `batch`, `quality`, `small`.
    pub fn name(self) -> &'static str {
        match self {
            Use::Chat => "chat",
            Use::Batch => "batch",
            Use::Quality => "quality",
            Use::Small => "small",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Use> {
        Use::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// What to take, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recommendation {
    /// What the model is wanted for.
    pub wanted_for: Use,
    /// Bytes that it may take; `None` where nothing bounds it.
    pub memory_limit: Option<u64>,
    /// The cell's name; `None` where none fits.
    pub choice: Option<String>,
    /// The reasons, sentence by sentence.
    pub reasons: Vec<String>,
}
