//! How attention is launched: four queries at a time or by tiles, and into how many parts the positions are cut.

use super::super::params::{AttentionParams, KeepParams};
use super::{LANES, Launch, MOST_SHARED};
use crate::quant::GgmlType;

/// Queries of a threadgroup in `attention`, and its simdgroups.
const QUERIES: u32 = 4;
const ATTENTION_SIMDS: u32 = 4;
/// Positions of a part: enough that joining parts costs little beside them.
const PART: u32 = 512;
/// Queries of a threadgroup in `attention_tile`, and positions of its blocks.
const TILE_QUERIES: u32 = 32;
const POSITIONS: u32 = 16;
/// Values of a head that a simdgroup has there; longer heads are shared by two, up to twice as many values.
const TILE_HEAD: u32 = 128;
/// Queries from which tiles are taken. One takes as long as 6.2 threadgroups of `attention` (`docs/metal.md` counts both), however
/// many of its queries are there, and reads keys and values once for all of them.
const TILED_FROM: u32 = 7 * QUERIES;
/// Threadgroups of `attention_tile` below which positions are parted: four for each of 32 cores. Of more, parts would only leave
/// more to be joined.
const TILE_GROUPS: u32 = 128;

/// How attention runs.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Formats of keys and of values in the cache: `f32`, `f16`, `bf16`, `q8_0` or `q4_0` each.
    pub cache: [GgmlType; 2],
    /// Tokens of the pass.
    pub tokens: u32,
    /// Heads of queries.
    pub heads: u32,
    /// Heads of keys.
    pub kv_heads: u32,
    /// Values of a key.
    pub key_dim: u32,
    /// Values of a value.
    pub value_dim: u32,
    /// Positions that the cache holds.
    pub capacity: u32,
    /// The position of the first token.
    pub position: u32,
    /// The first position that any token sees, and the one behind the last.
    pub visible: [u32; 2],
    /// Whether scores fall with the distance, and whether heads have sinks.
    pub has: [bool; 2],
    /// Factor of the scores.
    pub scale: f32,
    /// What scores are bent below.
    pub cap: Option<f32>,
}

/// Values of a row of the cache, with those that fill it, and its bytes.
pub fn cache_row(format: GgmlType, dim: u32) -> (u32, u32) {
    let len = dim.next_multiple_of(8.max(format.block_len() as u32));
    (len, format.row_bytes(len as usize).unwrap_or(0) as u32)
}

impl Attention {
    /// [`cache_row`] of keys and of values.
    fn rows(&self) -> [(u32, u32); 2] {
        let [keys, values] = self.cache;
        [cache_row(keys, self.key_dim), cache_row(values, self.value_dim)]
    }

    fn params(&self) -> AttentionParams {
        let [(key_len, key_bytes), (value_len, value_bytes)] = self.rows();
        let ([slopes, sinks], [part, parts]) = (self.has, self.parts());
        AttentionParams {
            tokens: self.tokens,
            heads: self.heads,
            group: self.heads / self.kv_heads.max(1),
            key_dim: self.key_dim,
            value_dim: self.value_dim,
            key_len,
            value_len,
            key_bytes,
            value_bytes,
            capacity: self.capacity,
            position: self.position,
            part,
            parts,
            has_slopes: u32::from(slopes),
            has_sinks: u32::from(sinks),
            scale: self.scale,
            cap: self.cap.unwrap_or(0.0),
        }
    }

    /// Queries that share a head of keys.
    fn queries(&self) -> u32 {
        self.tokens.saturating_mul(self.heads / self.kv_heads.max(1))
    }

    /// Whether tiles are multiplied: how many simdgroups then share a head.
    fn split(&self) -> Option<u32> {
        let longest = self.longest();
        (self.queries() >= TILED_FROM && longest <= 2 * TILE_HEAD).then(|| longest.div_ceil(TILE_HEAD))
    }

    /// Values of the longer of the rows of keys and of values.
    fn longest(&self) -> u32 {
        self.rows().map(|(len, _)| len).into_iter().fold(0, u32::max)
    }

    /// Positions of a part, and the number of parts, counted from position 0.
    fn parts(&self) -> [u32; 2] {
        let end = self.visible[1].max(1);
        let parts = end.div_ceil(PART);
        match self.split() {
            Some(_) => {
                let groups = self.queries().div_ceil(TILE_QUERIES).saturating_mul(self.kv_heads);
                let parts = parts.min(TILE_GROUPS.div_ceil(groups.max(1)));
                [end.div_ceil(parts).next_multiple_of(LANES), parts]
            }
            None => [PART, parts],
        }
    }

    /// Floats of what the parts leave for [`Attention::join`].
    pub fn partial_len(&self) -> usize {
        let [_, parts] = self.parts();
        [self.tokens, self.heads, parts, 2 + self.value_dim].iter().map(|&n| n as usize).product()
    }

    /// Whether the kernels have room for heads of this size.
    pub fn fits(&self) -> bool {
        let [_, (value_len, _)] = self.rows();
        value_len <= 3 * 8 * LANES && self.shared() <= MOST_SHARED
    }

    fn shared(&self) -> u32 {
        let [(key_len, _), (value_len, _)] = self.rows();
        let sums = 2 * ATTENTION_SIMDS * QUERIES + QUERIES.saturating_mul(value_len);
        4u32.saturating_mul(sums.max(QUERIES.saturating_mul(key_len)))
    }

    /// Scores, their softmax and what it sums, part by part. Buffers: queries, keys, values, what each token sees (first
    /// position, the one behind the last), slopes of heads, what the parts leave.
    pub fn launch(&self) -> Launch {
        let params = self.params();
        let (stem, queries, simds, shared) = match self.split() {
            Some(split) => {
                // A block of rows four floats apart; of each query scores and a row of a matrix; a number of each simdgroup.
                let (simds, scores) = (TILE_QUERIES / 8 * split, TILE_QUERIES * (split * POSITIONS + 8));
                let shared = 4 * (POSITIONS * (self.longest() + 4) + scores + simds);
                (if split == 1 { "attention_tile" } else { "attention_tile2" }, TILE_QUERIES, simds, shared)
            }
            None => {
                let stem = if params.value_len <= 8 * LANES { "attention" } else { "attention3" };
                (stem, QUERIES, ATTENTION_SIMDS, self.shared())
            }
        };
        let groups = [self.queries().div_ceil(queries), self.kv_heads, params.parts];
        let mut launch = Launch::new(stem, params).grid(groups, simds * LANES, shared);
        launch.kernel.formats = self.cache.map(Some);
        launch
    }

    /// Joins the parts. Buffers: what they left, sinks of heads, results `[tokens, heads * value_dim]`.
    pub fn join(&self) -> Launch {
        Launch::new("attention_join", self.params()).each(self.value_dim, self.tokens * self.heads)
    }

    /// Write keys, and values, of the pass's tokens to the cache. Buffers of each: `[tokens, kv_heads * dim]`, the cache.
    pub fn keep(&self) -> [Launch; 2] {
        let [keys, values] = self.cache;
        [self.keep_rows(keys, self.key_dim), self.keep_rows(values, self.value_dim)]
    }

    fn keep_rows(&self, format: GgmlType, dim: u32) -> Launch {
        let (len, row_bytes) = cache_row(format, dim);
        let params = KeepParams {
            tokens: self.tokens,
            heads: self.kv_heads,
            dim,
            len,
            row_bytes,
            capacity: self.capacity,
            position: self.position,
        };
        let unit = format.block_len() as u32;
        Launch::new("keep", params).of(format).each(self.kv_heads * (len / unit), self.tokens)
    }
}
