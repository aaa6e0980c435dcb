//! How kernels are launched: which, with what arguments, in a grid of what size. The one place that knows tile sizes.
//!
//! A [`Launch`] names no buffers: each function says in what order the kernel takes them. Sizes are the caller's promise, as
//! the sizes of buffers are.

mod attention;

use core::fmt;

pub use attention::{Attention, cache_row};

use super::params::*;
use crate::activation::Activation;
use crate::quant::GgmlType;
use crate::rope::Pairing;

/// Threads of a simdgroup.
const LANES: u32 = 32;
/// Outputs of a threadgroup in `matvec`: rows of a simdgroup times simdgroups.
const MATVEC_ROWS: u32 = 4 * 2;
/// Tokens that share what `matvec4` reads of the weights.
const MATVEC_COLUMNS: u32 = 4;
/// Tokens from which tiles are multiplied. Of a tile's 64 tokens at least an eighth is then used; below it reading the weights
/// once for four tokens is cheaper.
const MATMUL_FROM: u32 = 9;
/// Outputs, and tokens, of a tile in `matmul`; in `matmul128` there are twice as many tokens.
pub const TILE: u32 = 64;
/// Tiles from which those of `matmul128` are taken also where their number is odd: of the last one half is not used.
const WIDE_FROM: u32 = 9;
/// The most threadgroup memory that a kernel may have, in bytes.
pub const MOST_SHARED: u32 = 32 * 1024;
/// Values of a part of a row in `top_k`: four for each thread of the most that a threadgroup may have.
const TOP_PART: u32 = 4 * 1024;
/// Threads of kernels that have one for each value (or eight of them).
const EACH: u32 = 64;
/// Room for [`Launch::params`]: the longest struct of arguments.
const MOST_PARAMS: usize = 68;

/// A kernel, by its name: of templates the formats belong to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Kernel {
    /// The name before the formats.
    pub stem: &'static str,
    /// Of which formats the instance is: none, one, or those of keys and of values.
    pub formats: [Option<GgmlType>; 2],
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.stem)?;
        for format in self.formats.iter().flatten() {
            f.write_str("_")?;
            for c in format.name().chars() {
                write!(f, "{}", c.to_ascii_lowercase())?;
            }
        }
        Ok(())
    }
}

/// A kernel with its arguments and its grid.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Launch {
    /// Which kernel.
    pub kernel: Kernel,
    /// Threadgroups in each direction.
    pub groups: [u32; 3],
    /// Threads of a threadgroup.
    pub threads: u32,
    /// Bytes of threadgroup memory.
    pub shared: u32,
    params: [u8; MOST_PARAMS],
    params_len: usize,
}

impl Launch {
    fn new<P: Params>(stem: &'static str, params: P) -> Self {
        let mut bytes = [0; MOST_PARAMS];
        bytes[..size_of::<P>()].copy_from_slice(bytemuck::bytes_of(&params));
        Launch {
            kernel: Kernel { stem, formats: [None; 2] },
            groups: [1; 3],
            threads: EACH,
            shared: 0,
            params: bytes,
            params_len: size_of::<P>(),
        }
    }

    fn of(mut self, format: GgmlType) -> Self {
        self.kernel.formats = [Some(format), None];
        self
    }

    fn grid(self, groups: [u32; 3], threads: u32, shared: u32) -> Self {
        Launch { groups, threads, shared, ..self }
    }

    /// A thread for each of `count` things of each of `rows` rows.
    fn each(self, count: u32, rows: u32) -> Self {
        self.grid([count.div_ceil(EACH), rows, 1], EACH, 0)
    }

    /// The kernel's arguments, for buffer 0.
    pub fn params(&self) -> &[u8] {
        &self.params[..self.params_len]
    }
}

/// What a product multiplies: a matrix of weights `[rows, len]`, or that of experts, with rows of activations.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Format of the weights.
    pub format: GgmlType,
    /// Inputs.
    pub len: u32,
    /// Outputs.
    pub rows: u32,
    /// Rows of activations.
    pub columns: u32,
    /// Whether there is a bias, `[rows]`, of experts `[experts, rows]`.
    pub bias: bool,
}

impl Product {
    fn params(&self) -> ProductParams {
        let row_bytes = self.format.row_bytes(self.len as usize).unwrap_or(0);
        ProductParams {
            len: self.len,
            rows: self.rows,
            columns: self.columns,
            row_bytes: row_bytes as u32,
            of: 0,
            first: 0,
            by_expert: 0,
            has_bias: u32::from(self.bias),
        }
    }

    fn matvec(&self, params: ProductParams) -> Launch {
        let groups = self.rows.div_ceil(MATVEC_ROWS);
        let (stem, columns) = match self.columns {
            0..=1 => ("matvec", self.columns),
            _ if params.by_expert != 0 => ("matvec", self.columns),
            _ => ("matvec4", self.columns.div_ceil(MATVEC_COLUMNS)),
        };
        Launch::new(stem, params).of(self.format).grid([groups, columns, 1], 2 * LANES, 0)
    }

    /// Tiles of `wide` times 64 tokens.
    fn matmul(&self, params: ProductParams, tiles: u32, wide: u32) -> Launch {
        let groups = [tiles, self.rows.div_ceil(TILE), 1];
        let stem = if wide == 1 { "matmul" } else { "matmul128" };
        // Two buffers of blocks of 72 floats: of 16 inputs for 64 outputs, and for all tokens.
        let shared = 2 * (1 + wide) * (TILE / 8 * 2) * 72 * 4;
        Launch::new(stem, params).of(self.format).grid(groups, 4 * LANES, shared)
    }

    /// Activations times the transposed matrix. Buffers: weights, activations `[columns, len]`, bias, nothing, results
    /// `[columns, rows]`. What is not there is any buffer.
    pub fn launch(&self) -> Launch {
        let tiles = self.columns.div_ceil(TILE);
        match tiles {
            _ if self.columns < MATMUL_FROM => self.matvec(self.params()),
            _ if tiles.is_multiple_of(2) || tiles >= WIDE_FROM => {
                self.matmul(self.params(), tiles.div_ceil(2), 2)
            }
            _ => self.matmul(self.params(), tiles, 1),
        }
    }

    /// The same by experts, each of which has `of` rows of the matrix and gives those from `first` on; `columns` are slots.
    /// Buffers as for [`Product::launch`], the fourth being the expert of each slot.
    pub fn by_slot(&self, of: u32, first: u32) -> Launch {
        self.matvec(ProductParams { of, first, by_expert: 1, ..self.params() })
    }

    /// As [`Product::by_slot`] for slots sorted by expert: the fourth buffer is `[tiles][3]`: expert, first slot, the one
    /// behind the last; at most [`TILE`] slots each.
    pub fn by_tile(&self, of: u32, first: u32, tiles: u32) -> Launch {
        self.matmul(ProductParams { of, first, by_expert: 1, ..self.params() }, tiles, 1)
    }
}

/// Rows of a table as floats. Buffers: table, row numbers `[count]`, results `[count, len]`.
pub fn lookup(format: GgmlType, len: u32, rows: u32, count: u32) -> Launch {
    let row_bytes = format.row_bytes(len as usize).unwrap_or(0) as u32;
    Launch::new("lookup", LookupParams { len, count, row_bytes, rows })
        .of(format)
        .each(len.div_ceil(8), count)
}

/// Rows of activations. Buffers: activations `[rows, len]`, row numbers `[count]`, results `[count, len]`.
pub fn select(len: u32, rows: u32, count: u32) -> Launch {
    Launch::new("select_rows", LookupParams { len, count, row_bytes: 0, rows }).each(len, count)
}

/// Simdgroups for a row of `width`: up to eight, each with some values for every lane.
fn simds(width: u32) -> u32 {
    width.div_ceil(4 * LANES).clamp(1, 8)
}

fn norm(stem: &'static str, rows: u32, width: u32, eps: f32) -> Launch {
    let simds = simds(width);
    // Two sums, of which each simdgroup gives a part.
    Launch::new(stem, NormParams { width, simds, eps }).grid([rows, 1, 1], simds * LANES, 2 * 4 * LANES)
}

/// Root mean square norm of each row. Buffers: activations `[rows, width]`, weights, results (which may be the activations).
pub fn rms_norm(rows: u32, width: u32, eps: f32) -> Launch {
    norm("rms_norm", rows, width, eps)
}

/// Adds rows, and gives the root mean square norm of each sum: bit by bit what [`with`] and [`rms_norm`] give. Buffers:
/// activations `[rows, width]`, in place, what is added, weights, results (which may be one of the first two).
pub fn add_rms_norm(rows: u32, width: u32, eps: f32) -> Launch {
    norm("add_rms_norm", rows, width, eps)
}

/// Layer norm of each row. Buffers: activations `[rows, width]`, weights, biases, results (which may be the activations).
pub fn layer_norm(rows: u32, width: u32, eps: f32) -> Launch {
    norm("layer_norm", rows, width, eps)
}

/// What of each value lies above its row's mean and so many standard deviations. Buffers: activations, changed in place.
pub fn sparse(rows: u32, width: u32, deviations: f32) -> Launch {
    norm("sparse", rows, width, deviations)
}

/// Turns the first `2 * pairs` values of each head. Buffers: cosines and sines `[tokens][pairs][2]`, activations, in place.
pub fn rope(tokens: u32, width: u32, head_dim: u32, pairs: u32, pairing: Pairing) -> Launch {
    let halves = u32::from(pairing == Pairing::Halves);
    let count = width / head_dim.max(1) * pairs;
    Launch::new("rope", RopeParams { tokens, width, head_dim, pairs, halves }).each(count, tokens)
}

/// `x = activation(x)`, times `up` where a gate multiplies. Buffers: `x` `[rows, width]`, in place, and `up`.
pub fn activate(activation: Activation, rows: u32, width: u32, has_up: bool) -> Launch {
    let kind = match activation {
        Activation::Silu => 0,
        Activation::GeluTanh => 1,
        Activation::Gelu => 2,
        Activation::Relu => 3,
        Activation::ReluSquared => 4,
        Activation::Sigmoid => 5,
        Activation::Identity => 6,
        Activation::SwigluClamped => 7,
    };
    let params = MapParams { rows, width, kind, has_up: u32::from(has_up), number: 0.0 };
    Launch::new("activate", params).each(width, rows)
}

/// A function of each value; the numbers are those of `metal/params.h`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Map {
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
}

/// `x = map(x)`. Buffers: `x` `[rows, width]`, in place.
pub fn map(map: Map, rows: u32, width: u32) -> Launch {
    let (kind, number) = match map {
        Map::Scale(factor) => (0, factor),
        Map::Clamp(bound) => (1, bound),
        Map::SoftCap(cap) => (2, cap),
        Map::Softplus => (3, 0.0),
        Map::Exp => (4, 0.0),
    };
    Launch::new("map_values", MapParams { rows, width, kind, has_up: 0, number }).each(width, rows)
}

/// What becomes of each value with another; the numbers are those of `metal/params.h`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum With {
    /// `x += y`, matrices alike.
    Add,
    /// `x *= y[row]`.
    RowFactor,
    /// `x *= y[column]`.
    ColumnFactor,
    /// `x += y[column]`.
    ColumnTerm,
}

/// Each value with another. Buffers: `x` `[rows, width]`, in place, and `y`.
pub fn with(with: With, rows: u32, width: u32) -> Launch {
    let params = MapParams { rows, width, kind: with as u32, has_up: 0, number: 0.0 };
    Launch::new("with_other", params).each(width, rows)
}

/// Copies `width` columns of a matrix of rows of `from_row`, from column `from` on, to columns `to` of rows of `to_row`.
/// Buffers: the matrix, the result.
pub fn copy_columns(rows: u32, width: u32, [from_row, from]: [u32; 2], [to_row, to]: [u32; 2]) -> Launch {
    let params = CopyParams { rows, width, from_row, from, to_row, to, stride: 0, factor: 0 };
    Launch::new("copy_columns", params).each(width, rows)
}

/// Adds each row times its factor number `factor` of `stride` to the result; number 0 is written, not added. Buffers: the
/// matrix `[rows, width]`, factors `[rows, stride]`, the result.
pub fn blend(rows: u32, width: u32, factor: u32, stride: u32) -> Launch {
    let params = CopyParams { rows, width, stride, factor, ..CopyParams::default() };
    Launch::new("blend", params).each(width, rows)
}

/// For each token the sum of its slots' rows, times their weights where `weighted`. Buffers: slots' rows, the slots of each
/// token `[tokens, per_token]`, weights of slots, results `[tokens, width]`.
pub fn combine(tokens: u32, width: u32, per_token: u32, weighted: bool) -> Launch {
    let params = CombineParams { tokens, width, per_token, weighted: u32::from(weighted) };
    Launch::new("combine", params).each(width, tokens)
}

/// The largest values of each row.
#[derive(Clone, Copy, Debug)]
pub struct TopK {
    /// Rows.
    pub rows: u32,
    /// Values of a row.
    pub width: u32,
    /// How many are wanted, at most `width`.
    pub k: u32,
}

impl TopK {
    /// Parts in which a row is looked through: a long one would keep a single core busy, and all others waiting.
    pub fn parts(&self) -> u32 {
        if self.k == 1 { self.width.div_ceil(TOP_PART).max(1) } else { 1 }
    }

    fn of(self, part: u32, has_ids: bool) -> Launch {
        let TopK { rows, width, k } = self;
        let (parts, simds) = (width.div_ceil(part.max(1)), part.div_ceil(4 * LANES).clamp(1, 32));
        let params = TopKParams { rows, width, k, simds, part, parts, has_ids: u32::from(has_ids) };
        Launch::new("top_k", params).grid([rows, parts, 1], simds * LANES, 2 * 4 * LANES)
    }

    /// Buffers: `[rows, width]`, any, the values `[rows, parts, k]`, their places shaped alike.
    pub fn launch(self) -> Launch {
        self.of(if self.parts() > 1 { TOP_PART } else { self.width }, false)
    }

    /// Of what the parts left, where there are several. Buffers: the values and the places that [`TopK::launch`] gave, the
    /// values `[rows, k]`, their places.
    pub fn join(self) -> Launch {
        let width = self.parts() * self.k;
        TopK { width, ..self }.of(width, true)
    }
}

/// What a router makes of its scores; the numbers are those of `metal/params.h`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Scoring {
    /// Shares of all experts.
    Softmax,
    /// Each expert by itself.
    Sigmoid,
    /// Shares of the chosen experts alone.
    SoftmaxOfChosen,
}

/// The choice of experts.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// What is made of the scores.
    pub scoring: Scoring,
    /// Experts in all.
    pub experts: u32,
    /// Experts of a token.
    pub used: u32,
    /// Groups of experts, and how many of them a token chooses from.
    pub groups: [u32; 2],
    /// Whether the weights of the chosen are made to sum to one.
    pub normalize: bool,
    /// Factor of all weights.
    pub scale: f32,
    /// Whether there is a bias, and whether experts have factors of their own.
    pub has: [bool; 2],
}

impl Route {
    fn shared(&self) -> u32 {
        self.experts.saturating_mul(2).saturating_add(self.groups[0]).saturating_mul(4)
    }

    /// Whether the kernel has room for so many experts: a lane for each that is chosen.
    pub fn fits(&self) -> bool {
        self.used <= LANES && self.used <= self.experts && self.shared() <= MOST_SHARED
    }

    /// Buffers: scores `[tokens, experts]`, biases and factors `[experts]`, the chosen `[tokens, used]`, their weights shaped
    /// alike.
    pub fn launch(&self, tokens: u32) -> Launch {
        let [has_bias, has_scales] = self.has.map(u32::from);
        let params = RouteParams {
            experts: self.experts,
            used: self.used,
            scoring: self.scoring as u32,
            normalize: u32::from(self.normalize),
            groups: self.groups[0],
            used_groups: self.groups[1],
            has_bias,
            has_scales,
            scale: self.scale,
        };
        Launch::new("route", params).grid([tokens, 1, 1], LANES, self.shared())
    }
}

/// A recurrence of matrices: `crate::recurrence` has the formulas.
#[derive(Clone, Copy, Debug)]
pub struct Recurrence {
    /// Heads of values, each with a state `[key_dim, value_dim]`.
    pub heads: u32,
    /// Heads of keys and queries: a divisor of `heads`.
    pub key_heads: u32,
    /// Values of a key.
    pub key_dim: u32,
    /// Values of a value.
    pub value_dim: u32,
    /// Whether what the state gives for a key is taken off its value.
    pub delta: bool,
    /// Whether head `i` has key head `i % key_heads`; else neighbours share one.
    pub tiled: bool,
}

impl Recurrence {
    /// Carries the states through the tokens. Buffers: queries and keys `[tokens, key_heads * key_dim]`, values `[tokens, heads *
    /// value_dim]`, decays and rates `[tokens, heads]`, states `[heads, key_dim, value_dim]` (in place), results as the values.
    pub fn launch(&self, tokens: u32) -> Launch {
        let params = RecurrenceParams {
            tokens,
            heads: self.heads,
            key_heads: self.key_heads,
            key_dim: self.key_dim,
            value_dim: self.value_dim,
            delta: u32::from(self.delta),
            tiled: u32::from(self.tiled),
        };
        Launch::new("recur", params).each(self.value_dim, self.heads)
    }
}

/// RWKV 7: `crate::wkv` has the formula. Buffers: receptances, decays, keys, `a`, `b` and values, all `[tokens, heads * dim]`,
/// states `[heads, dim, dim]` (in place), results as the values.
pub fn wkv(tokens: u32, heads: u32, dim: u32) -> Launch {
    let params = RecurrenceParams {
        tokens,
        heads,
        key_heads: heads,
        key_dim: dim,
        value_dim: dim,
        ..RecurrenceParams::default()
    };
    Launch::new("wkv", params).each(dim, heads)
}

/// A selective scan: `crate::scan` has the formula. Buffers: inputs and steps `[tokens, channels]`, the ways into and out of the
/// states `[tokens, states]`, rates `[states, channels]`, states shaped alike (in place), results as the inputs.
pub fn scan(tokens: u32, channels: u32, states: u32) -> Launch {
    Launch::new("scan", ScanParams { tokens, channels, states, has_bias: 0 }).each(channels, 1)
}

/// A causal convolution of each channel by itself over `taps` tokens. Buffers: inputs `[tokens, channels]`, weights `[taps,
/// channels]`, bias `[channels]`, the tokens before `[taps - 1, channels]` (in place), results as the inputs.
pub fn convolve(tokens: u32, channels: u32, taps: u32, has_bias: bool) -> Launch {
    let params = ScanParams { tokens, channels, states: taps, has_bias: u32::from(has_bias) };
    Launch::new("convolve", params).each(channels, 1)
}
