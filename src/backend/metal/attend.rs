//! Attention over keys and values that the device keeps.
//!
//! A layer's keys (and values) are one buffer `[heads][capacity]` of rows, of which positions take turns: position `p` lies in row
//! `p % capacity`. So a window moves on by itself, and what it leaves is overwritten. A sequence that grows gets a larger buffer,
//! and one that shares its buffers with another gets its own before it writes.
#![forbid(unsafe_code)]

use std::ops::Range;

use gristmill_kernels::attention::BLOCK;
use gristmill_kernels::metal::launch::{self, cache_row};
use gristmill_kernels::quant::GgmlType;

use super::device::Place;
use super::gpu::{Gpu, internal, size};
use super::memory::Buffer;
use super::queue::Arg;
use crate::backend::cache::ROLLBACK;
use crate::backend::{Act, Attention, Backend, Cache, CacheType, CacheTypes, LayerShape};
use crate::{Error, Result};

/// Bytes that the parts of positions may leave to be joined: of more tokens some come after the others.
const PARTS: usize = 64 << 20;

/// The keys and values of one layer.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    buffers: [Buffer; 2],
    /// Positions that they hold.
    capacity: usize,
    /// The first position that nothing was written over, and the one behind the last that ever was written.
    first: usize,
    end: usize,
}

impl Kept {
    /// The first position that is still there.
    pub fn first(&self) -> usize {
        self.first
    }

    /// Bytes of a layer that had to have room for so many positions; `usize::MAX` for more than can be counted.
    pub fn bytes(types: CacheTypes, shape: &LayerShape, positions: usize) -> usize {
        let row = |format: GgmlType, dim: usize| {
            let dim = u32::try_from(dim).ok().filter(|&dim| dim < 1 << 30)?;
            Some(cache_row(format, dim).1 as usize)
        };
        let rows = shape.heads.saturating_mul(capacity(positions));
        let [keys, values] = formats(types);
        row(keys, shape.key_dim)
            .zip(row(values, shape.value_dim))
            .map_or(usize::MAX, |(key, value)| rows.saturating_mul(key + value))
    }
}

/// Positions that a buffer gets where so many are needed: half as many again, so that a sequence that grows is copied seldom.
fn capacity(needed: usize) -> usize {
    needed.saturating_add(needed / 2).checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX)
}

/// The formats in which kernels keep keys and values.
fn formats(types: CacheTypes) -> [GgmlType; 2] {
    [types.keys, types.values].map(|ty| match ty {
        CacheType::F16 => GgmlType::F16,
        CacheType::Bf16 => GgmlType::BF16,
        CacheType::Q8_0 => GgmlType::Q8_0,
        CacheType::Q4_0 => GgmlType::Q4_0,
        _ => GgmlType::F32,
    })
}

impl Gpu<'_> {
    /// Keeps keys and values of the tokens from `start` on, where there are any, then attends.
    pub(super) fn attend(
        &mut self,
        spec: &Attention,
        cache: &mut Cache,
        layer: usize,
        start: usize,
        queries: Act,
        keys_values: Option<[Act; 2]>,
    ) -> Result<Act> {
        let shape = spec.shape;
        let (tokens, end) = (queries.rows, start + queries.rows);
        let mut launch = launch::Attention {
            cache: formats(cache.types()),
            tokens: size(tokens)?,
            heads: size(spec.heads)?,
            kv_heads: size(shape.heads)?,
            key_dim: size(shape.key_dim)?,
            value_dim: size(shape.value_dim)?,
            capacity: 0,
            position: size(start)?,
            visible: [0; 2],
            has: [!spec.slopes.is_empty(), !spec.sinks.is_empty()],
            scale: spec.scale,
            cap: spec.cap,
        };
        if !launch.fits() {
            let feature = format!("heads of {} and {} values", shape.key_dim, shape.value_dim);
            return Err(Error::DeviceUnsupported { feature, hint: "use the backend `cpu`" });
        }
        if queries.width != spec.heads * shape.key_dim
            || shape.heads == 0
            || !spec.heads.is_multiple_of(shape.heads)
        {
            return Err(internal("an attention of other sizes"));
        }
        let place = cache.on_device(layer)?;
        if let Some([keys, values]) = keys_values {
            if [keys.width, values.width] != [shape.heads * shape.key_dim, shape.heads * shape.value_dim]
                || [keys.rows, values.rows] != [tokens; 2]
            {
                return Err(internal("keys and values of other sizes"));
            }
            let kept = self.room(place, &shape, launch.cache, start..end)?;
            launch.capacity = size(kept.capacity)?;
            for ((x, launch), buffer) in [keys, values].into_iter().zip(launch.keep()).zip(&kept.buffers) {
                let x = Arg::read(&self.buffer(x)?);
                self.host.run(&launch, &[x, Arg::write(buffer)])?;
            }
        }
        let kept = place.as_ref().ok_or_else(|| internal("keys and values that nobody kept"))?;
        if shape.sees.range(start, end).start < kept.first || kept.end < end {
            return Err(internal("positions that are not kept"));
        }
        launch.capacity = size(kept.capacity)?;
        let [keys, values] = kept.buffers.clone();

        let (act, out) = self.make(tokens, spec.heads * shape.value_dim)?;
        let slopes = self.optional(Some(&spec.slopes).filter(|slopes| !slopes.is_empty()), queries)?;
        let sinks = self.optional(Some(&spec.sinks).filter(|sinks| !sinks.is_empty()), queries)?;
        let (slopes, sinks) = (slopes.clone(), sinks.clone());
        let query = self.buffer(queries)?;
        let sees = |tokens: Range<usize>| -> Result<(Vec<u32>, [u32; 2])> {
            let ranges: Vec<_> = tokens.map(|token| shape.sees.range(start + token, end)).collect();
            let first = ranges.iter().map(|seen| seen.start).min().unwrap_or(0);
            let last = ranges.iter().map(|seen| seen.end).max().unwrap_or(0);
            let ends = ranges.into_iter().flat_map(|seen| [seen.start, seen.end]);
            Ok((ends.map(size).collect::<Result<_>>()?, [size(first)?, size(last)?]))
        };
        (_, launch.visible) = sees(0..tokens)?;
        launch.tokens = 1;
        let per_token = launch.partial_len().saturating_mul(size_of::<f32>());
        let together = (PARTS / per_token.max(1)).clamp(1, tokens.max(1));
        for from in (0..tokens).step_by(together) {
            let some = from..tokens.min(from + together);
            let visible;
            (visible, launch.visible) = sees(some.clone())?;
            launch.tokens = size(some.len())?;
            launch.position = size(start + from)?;
            let mark = self.mark();
            let (_, parts) = self.make(1, launch.partial_len())?;
            let args = [
                Arg::read(&query).at(from * queries.width * size_of::<f32>()),
                Arg::read(&keys),
                Arg::read(&values),
                self.host.upload(&visible)?,
                slopes.clone(),
                Arg::write(&parts),
            ];
            self.host.run(&launch.launch(), &args)?;
            let out = Arg::write(&out).at(from * act.width * size_of::<f32>());
            self.host.run(&launch.join(), &[Arg::read(&parts), sinks.clone(), out])?;
            self.release(mark);
        }
        Ok(act)
    }

    /// Makes sure that keys and values of `positions` can be written, and all that a query there or [`ROLLBACK`] before sees
    /// stays.
    fn room<'k>(
        &mut self,
        kept: &'k mut Option<Kept>,
        shape: &LayerShape,
        formats: [GgmlType; 2],
        positions: Range<usize>,
    ) -> Result<&'k Kept> {
        let start = positions.start;
        let needed = positions.end - shape.sees.first(start.saturating_sub(ROLLBACK));
        let fits = |kept: &Kept| kept.capacity >= needed;
        if !kept.as_ref().is_some_and(|kept| fits(kept) && kept.buffers.iter().all(Buffer::is_own)) {
            let capacity = match kept {
                Some(kept) if fits(kept) => kept.capacity,
                _ => capacity(needed),
            };
            let mut made = Vec::new();
            for (format, dim) in formats.into_iter().zip([shape.key_dim, shape.value_dim]) {
                let (_, row) = cache_row(format, size(dim)?);
                let bytes = shape.heads.saturating_mul(capacity).saturating_mul(row as usize);
                made.push((self.host.buffer(bytes, Place::Private, "keys and values")?, row as usize));
            }
            let [(keys, key_row), (values, value_row)] =
                <[_; 2]>::try_from(made).map_err(|_| internal("keys without values"))?;
            let mut first = start;
            if let Some(old) = kept.as_ref() {
                first = old.first.max(start.min(old.end).saturating_sub(capacity)).min(start);
                for (from, to, row) in [(0, &keys, key_row), (1, &values, value_row)] {
                    let Some(from) = old.buffers.get(from) else { continue };
                    for (old_row, new_row, count) in moves(first..start.min(old.end), old.capacity, capacity)
                    {
                        for head in 0..shape.heads {
                            let from = (from, (head * old.capacity + old_row) * row);
                            self.host.copy(from, (to, (head * capacity + new_row) * row), count * row)?;
                        }
                    }
                }
            } else if start > 0 {
                return Err(internal("positions that are not kept"));
            }
            *kept = Some(Kept { buffers: [keys, values], capacity, first, end: start });
        }
        let kept = kept.as_mut().ok_or_else(|| internal("keys and values that nobody kept"))?;
        kept.end = kept.end.max(positions.end);
        kept.first = kept.first.max(kept.end.saturating_sub(kept.capacity));
        Ok(kept)
    }
}

/// Where positions lie in a buffer of `from` positions, and in one of `to`, and how many side by side in both.
fn moves(positions: Range<usize>, from: usize, to: usize) -> Vec<(usize, usize, usize)> {
    let mut all = Vec::new();
    let mut position = positions.start;
    while position < positions.end {
        let (old, new) = (position % from, position % to);
        let count = (from - old).min(to - new).min(positions.end - position);
        all.push((old, new, count));
        position += count;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_side_by_side_in_both_buffers_is_moved_together() {
        assert_eq!(moves(0..5, 8, 16), [(0, 0, 5)]);
        assert_eq!(moves(5..12, 8, 10), [(5, 5, 3), (0, 8, 2), (2, 0, 2)]);
        assert_eq!(moves(3..3, 8, 10), []);
        for (position, (old, new)) in (70..133).zip(
            moves(70..133, 64, 96).into_iter().flat_map(|(old, new, count)| (old..old + count).zip(new..)),
        ) {
            assert_eq!((old, new), (position % 64, position % 96));
        }
    }
}
