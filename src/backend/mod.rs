//! The operations that a model may ask for, and the machines that carry them out.
//!
//! A forward pass speaks to a [`Backend`] in handles ([`Act`]); where the numbers lie is the backend's matter.

pub(crate) mod cache;
mod constant;
pub(crate) mod cpu;
mod experts;
pub(crate) mod gauge;
#[cfg_attr(not(feature = "ggml"), path = "ggml_absent.rs")]
mod ggml;
pub(crate) mod metal;
mod recurrence;
mod router;
mod state;

pub(crate) use cache::{Cache, LayerShape, Sees};
pub use cache::{CacheType, CacheTypes};
pub(crate) use constant::Constant;
pub(crate) use experts::{Grouped, Held, Slots};
pub use gristmill_kernels::activation::Activation;
pub(crate) use gristmill_kernels::rope::Pairing;
pub(crate) use recurrence::{Convolution, Recurrence, Scan, Wkv};
pub(crate) use router::{Router, Scoring};
pub(crate) use state::{KEPT as KEPT_STATES, State, States};

use std::ops::Range;
use std::sync::Arc;

use gristmill_kernels::quant::GgmlType;

use crate::{Error, Result};

/// What carries out a model's operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum BackendKind {
    /// Gristmill's own loops, on the processor's cores.
    #[default]
    Cpu,
    /// As [`BackendKind::Cpu`], but matrices are multiplied by ggml's CPU part, in the layout that ggml prefers for
    /// them (a copy of the weights, where it has one): what kernels alone change, in numbers and in speed. There only
    /// with the feature `ggml`.
    Ggml,
    /// Apple's GPU, or some layers on it and the others as [`BackendKind::Cpu`]. There only on macOS, with the feature `metal`.
    Metal,
}

impl BackendKind {
    /// Every backend, whether or not this build has it.
    pub const ALL: &'static [BackendKind] = &[BackendKind::Cpu, BackendKind::Ggml, BackendKind::Metal];

    /// The backend of this name: `cpu`, `ggml`, `metal`.
    ///
    /// # Errors
    /// [`Error::BackendAbsent`].
    pub fn named(name: &str) -> Result<Self> {
        let found = Self::ALL.iter().copied().find(|kind| kind.name() == name);
        found.ok_or_else(|| Error::BackendAbsent { asked: name.to_owned(), hint: "use `cpu`" })
    }

    /// The backend's name.
    pub fn name(self) -> &'static str {
        match self {
            BackendKind::Cpu => "cpu",
            BackendKind::Ggml => "ggml",
            BackendKind::Metal => "metal",
        }
    }
}

/// Who carries out a model's operations.
pub(crate) enum Engine {
    Cpu,
    /// As `Cpu`, but for products.
    Ggml(ggml::Ggml),
    Metal(Box<metal::Metal>),
}

impl Engine {
    /// ggml's loops for `threads` threads.
    pub fn ggml(threads: usize) -> Result<Self> {
        ggml::Ggml::new(threads).map(Engine::Ggml)
    }

    pub fn kind(&self) -> BackendKind {
        match self {
            Engine::Cpu => BackendKind::Cpu,
            Engine::Ggml(_) => BackendKind::Ggml,
            Engine::Metal(_) => BackendKind::Metal,
        }
    }

    /// A pass; what is not another's is `cpu`'s. Who observes products sees those of the CPU.
    pub fn pass<R>(
        &self,
        mut cpu: cpu::Cpu<'_>,
        pass: impl FnOnce(&mut dyn Backend) -> Result<R>,
    ) -> Result<R> {
        match self {
            Engine::Metal(metal) if !cpu.is_observed() => metal.pass(cpu, pass),
            _ => pass(&mut cpu),
        }
    }

    /// How many layers, the first ones, keep their keys and values on a device.
    pub fn layers_on_device(&self) -> usize {
        match self {
            Engine::Metal(metal) => metal.layers(),
            Engine::Cpu | Engine::Ggml(_) => 0,
        }
    }

    /// The numbers of a row that was left on the device.
    pub fn read_left(&self, left: &Left) -> Result<Vec<f32>> {
        match self {
            Engine::Metal(metal) => metal.read(&left.row, left.width),
            Engine::Cpu | Engine::Ggml(_) => {
                Err(Error::Internal { what: "a row left on a device that is not there" })
            }
        }
    }

    /// Has another's loops write the product of `weights` with each row of `x` into `out`; false where that is left to
    /// our own.
    fn multiply(&self, weights: &Matrix, x: &[f32], out: &mut [f32]) -> Result<bool> {
        match self {
            Engine::Cpu | Engine::Metal(_) => Ok(false),
            Engine::Ggml(ggml) => ggml.multiply(weights, x, out),
        }
    }
}

/// A matrix of activations `[rows, width]` that a backend holds: a row for each token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Act {
    slot: usize,
    pub rows: usize,
    pub width: usize,
}

impl Act {
    /// The same numbers as `[rows * width / width', width']`: heads as rows.
    pub fn split(self, width: usize) -> Self {
        Act { slot: self.slot, rows: self.rows * self.width / width.max(1), width }
    }
}

/// A row of numbers that was left on a device, and what was read of it.
#[derive(Clone, Debug)]
pub(crate) struct Left {
    row: metal::Buffer,
    pub width: usize,
    /// The largest of the numbers, and the place of the first that is as large; NaN is larger than all others.
    pub largest: f32,
    pub place: u32,
}

/// How many activations a backend holds; see [`Backend::mark`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(usize);

/// A matrix of weights `[rows, len]` in some format: a row gives one output, `len` is the number of inputs.
pub(crate) struct Matrix {
    pub ty: GgmlType,
    pub rows: usize,
    pub len: usize,
    /// The tensor that it is, or is a part of, and which of that tensor's rows is its first.
    pub tensor: Box<str>,
    pub first_row: usize,
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    /// Whether the bytes are part of a mapped file.
    mapped: bool,
    /// Bytes before the first row.
    offset: usize,
    /// What ggml makes of it, once it is asked to multiply.
    #[cfg_attr(not(feature = "ggml"), allow(dead_code, reason = "nobody asks where there is no ggml"))]
    prepared: ggml::Prepared,
}

impl Matrix {
    /// A matrix over `bytes`, which hold `rows` rows of `len` weights: those of `tensor` from `first_row` on.
    pub fn new(
        (tensor, first_row): (&str, usize),
        ty: GgmlType,
        rows: usize,
        len: usize,
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> Self {
        let (tensor, bytes) = (tensor.into(), Arc::new(bytes));
        let prepared = ggml::Prepared::new();
        Matrix { ty, rows, len, tensor, first_row, bytes, mapped: false, offset: 0, prepared }
    }

    /// The same, with bytes that are part of a mapped file.
    pub fn mapped(self, mapped: bool) -> Self {
        Matrix { mapped, ..self }
    }

    /// Whether the bytes are part of a mapped file.
    pub fn is_mapped(&self) -> bool {
        self.mapped
    }

    /// Tells these weights from all others that exist.
    pub fn id(&self) -> (usize, usize) {
        (Arc::as_ptr(&self.bytes).cast::<u8>() as usize, self.offset)
    }

    /// The rows as they lie in the file.
    pub fn bytes(&self) -> &[u8] {
        (*self.bytes).as_ref().get(self.offset..).unwrap_or_default()
    }

    /// Some of the rows.
    pub fn window(&self, rows: Range<usize>) -> Self {
        let offset = self.offset + rows.start * self.ty.row_bytes(self.len).unwrap_or(0);
        let (tensor, bytes, prepared) = (self.tensor.clone(), self.bytes.clone(), ggml::Prepared::new());
        let first_row = self.first_row + rows.start;
        let Matrix { ty, len, mapped, .. } = *self;
        Matrix { ty, rows: rows.len(), len, tensor, first_row, bytes, mapped, offset, prepared }
    }
}

/// Inputs that are about to be multiplied.
pub(crate) struct Product<'a> {
    pub weights: &'a Matrix,
    /// Where the matrix is that of several experts, the rows of the inputs that go to each.
    pub experts: Option<&'a [(usize, Range<usize>)]>,
    /// `[rows, weights.len]`
    pub inputs: &'a [f32],
}

/// Sees each product of a pass.
pub(crate) type Observer<'a> = &'a (dyn Fn(Product<'_>) + Sync);

/// The norm of a row.
#[derive(Debug)]
pub(crate) enum Norm {
    /// Root mean square.
    Rms { weight: Constant, eps: f32 },
    /// Mean and variance.
    Layer { weight: Constant, bias: Constant, eps: f32 },
}

impl Norm {
    /// How many values have a weight.
    pub fn len(&self) -> usize {
        match self {
            Norm::Rms { weight, .. } | Norm::Layer { weight, .. } => weight.len(),
        }
    }
}

/// A function of each value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Map {
    /// `factor * x`.
    Scale(f32),
    /// `x` kept between `-bound` and `bound`.
    Clamp(f32),
    /// `cap * tanh(x / cap)`.
    SoftCap(f32),
    /// `ln(1 + exp(x))`.
    Softplus,
    /// `exp(x)`.
    Exp,
    /// `x` less its row's mean and so many standard deviations, where that is positive, else 0.
    Sparse(f32),
}

/// `ln(1 + exp(x))`.
pub(crate) fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { libm::log1pf(libm::expf(x)) }
}

/// The angles of rotary embedding for the tokens of a pass: cosine and sine of each pair, `[tokens][pairs][2]`.
pub(crate) struct Turns {
    pub pairing: Pairing,
    pub pairs: usize,
    pub by: Constant,
}

/// How the heads of an attention share keys, and what becomes of their scores.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attention {
    /// Heads of queries: a multiple of the layer's heads of keys.
    pub heads: usize,
    pub shape: LayerShape,
    /// Factor of the scores.
    pub scale: f32,
    /// Scores `s` become `cap tanh(s / cap)`.
    pub cap: Option<f32>,
    /// For each head a score that takes part in the softmax and stands for no position; or empty.
    pub sinks: Constant,
    /// For each head how much its scores fall with each position of distance (ALiBi); or empty.
    pub slopes: Constant,
}

/// The operations of a forward pass, on matrices `[tokens, width]`.
///
/// Shapes are the caller's promise, checked once when a model is loaded; an operation on shapes that do not belong
/// together is an [`Error::Internal`](crate::Error::Internal), never a panic.
pub(crate) trait Backend {
    /// The rows `rows` of a table, as floats: `[rows.len(), table.len]`.
    fn lookup(&mut self, table: &Matrix, rows: &[usize]) -> Result<Act>;
    /// `x` times the matrix transposed, plus the bias: `[tokens, weights.rows]`.
    fn linear(&mut self, weights: &Matrix, bias: Option<&Constant>, x: Act) -> Result<Act>;
    /// The norm of each row, as a new matrix.
    fn norm(&mut self, norm: &Norm, x: Act) -> Result<Act>;
    /// The norm of each row, in place.
    fn norm_in_place(&mut self, norm: &Norm, x: Act) -> Result<()>;
    /// Turns each head of `head_dim` values of each token, in place.
    fn rope(&mut self, turns: &Turns, head_dim: usize, x: Act) -> Result<()>;
    /// Keeps keys and values of the pass's tokens at positions `start ..` of `layer`, then attends: `[tokens, heads *
    /// value_dim]`.
    #[allow(clippy::too_many_arguments, reason = "the inputs of attention are this many")]
    fn attention(
        &mut self,
        spec: &Attention,
        cache: &mut Cache,
        layer: usize,
        start: usize,
        queries: Act,
        keys: Act,
        values: Act,
    ) -> Result<Act>;
    /// Attends to what another layer of the same pass has kept: `[tokens, heads * value_dim]`.
    fn attend_again(
        &mut self,
        spec: &Attention,
        cache: &mut Cache,
        layer: usize,
        start: usize,
        queries: Act,
    ) -> Result<Act>;
    /// `gate = activation(gate) * up`.
    fn gated(&mut self, activation: Activation, gate: Act, up: Act) -> Result<()>;
    /// `x = activation(x)`.
    fn activate(&mut self, activation: Activation, x: Act) -> Result<()>;
    /// `x = map(x)`.
    fn map(&mut self, map: Map, x: Act) -> Result<()>;
    /// Each row of `x` times the one value of `factors` `[rows, 1]`.
    fn scale_rows(&mut self, x: Act, factors: Act) -> Result<()>;
    /// The experts of each token by their scores `[tokens, experts]`.
    fn route(&mut self, router: &Router, scores: Act) -> Result<Slots> {
        Ok(router.slots(self.read(scores)?))
    }
    /// `x` `[slots, inputs]` times the transposed matrix of each slot's expert: `[slots, outputs]`.
    fn linear_grouped(&mut self, weights: &Grouped, slots: &Slots, x: Act) -> Result<Act>;
    /// Writes to `to` for each token the sum of its rows in `parts`, times `factors` `[tokens, parts]`, in their order.
    fn blend(&mut self, to: Act, parts: &[Act], factors: &[f32]) -> Result<()>;
    /// Each row of `x` times its weight, in place.
    fn weigh(&mut self, weights: &[f32], x: Act) -> Result<()>;
    /// Each row of `x` `[slots, width]` times its slot's weight, in place.
    fn weigh_slots(&mut self, slots: &Slots, x: Act) -> Result<()> {
        self.weigh(&slots.weights, x)
    }
    /// For each token the sum of its slots' rows of `x`, times their weights where `weighted`, in the order in which the
    /// token chose them: `[tokens, width]`.
    fn combine(&mut self, slots: &Slots, weighted: bool, x: Act) -> Result<Act>;
    /// Each row of `x` times `factors`, value by value, in place.
    fn scale_columns(&mut self, factors: &Constant, x: Act) -> Result<()>;
    /// Each row of `x` plus `terms`, value by value, in place.
    fn shift_columns(&mut self, terms: &Constant, x: Act) -> Result<()>;
    /// Columns of matrices of as many rows, side by side, as a new matrix.
    fn columns(&mut self, parts: &[(Act, Range<usize>)]) -> Result<Act>;
    /// A layer's state number `part` of `len` values after the first `position` tokens, to be changed: zeros at the beginning.
    fn state(&mut self, states: &States, of: (usize, usize), position: usize, len: usize) -> Result<Act>;
    /// Keeps a layer's state number `part` after the first `position` tokens.
    fn keep_state(
        &mut self,
        states: &mut States,
        of: (usize, usize),
        position: usize,
        state: Act,
    ) -> Result<()>;
    /// The convolution of `x` `[tokens, channels]` over the tokens, from the last ones of `state` on, which become those of
    /// `x`.
    fn convolve(&mut self, by: &Convolution, state: Act, x: Act) -> Result<Act>;
    /// Carries `state` through the tokens: of queries, keys `[tokens, key_heads * key_dim]`, values `[tokens, heads *
    /// value_dim]`, decays and rates `[tokens, heads]` it makes results shaped as the values.
    fn recur(
        &mut self,
        by: &Recurrence,
        state: Act,
        queries_keys_values: [Act; 3],
        decays_rates: [Act; 2],
    ) -> Result<Act>;
    /// Carries the states of a selective scan through the tokens: of inputs and steps `[tokens, channels]` and the ways into
    /// and out of the states `[tokens, states]` it makes results `[tokens, channels]`.
    fn scan(&mut self, by: &Scan, state: Act, inputs_steps_into_out: [Act; 4]) -> Result<Act>;
    /// Carries `state` through the tokens: of receptances, decays, keys, `a`, `b` and values, all `[tokens, heads * dim]`, it
    /// makes results shaped alike.
    fn wkv(&mut self, by: &Wkv, state: Act, inputs: [Act; 6]) -> Result<Act>;
    /// `x += y`.
    fn add(&mut self, x: Act, y: Act) -> Result<()>;
    /// The rows `rows` of `x`, as a new matrix.
    fn select(&mut self, x: Act, rows: &[usize]) -> Result<Act>;
    /// A new matrix of these numbers, rows of `width`.
    fn write(&mut self, width: usize, numbers: &[f32]) -> Result<Act>;
    /// Tells that what follows is a layer's work.
    ///
    /// Called where nothing but what the layers have in common is held.
    fn begin_layer(&mut self, _layer: usize) -> Result<()> {
        Ok(())
    }
    /// The numbers of `x`.
    fn read(&mut self, x: Act) -> Result<&[f32]>;
    /// Leaves the one row of `x` on the device until somebody [reads it](Engine::read_left), and tells its largest value.
    /// `None` where the numbers are at hand.
    fn leave(&mut self, _x: Act) -> Result<Option<Left>> {
        Ok(None)
    }
    /// Calls `look` with each row of `x` and its number, on all threads.
    fn look_at_rows(&mut self, x: Act, look: &(dyn Fn(usize, &[f32]) + Sync)) -> Result<()>;
    /// Where the activations made so far end.
    fn mark(&self) -> Mark;
    /// Forgets the activations that were made since `mark`.
    fn release(&mut self, mark: Mark);
}
