//! The keys and values of a sequence, in pages that sequences may share.
#![forbid(unsafe_code)]

use std::sync::Arc;

use gristmill_kernels::attention::{BLOCK, Block, Numbers, padded, to_half};

use super::state::States;
use crate::{Error, Result};

/// In which precision keys and values are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum CacheType {
    /// Half precision: half the memory, and close enough for generation.
    #[default]
    F16,
    /// Single precision: nothing is lost.
    F32,
}

impl CacheType {
    /// Bytes of a number.
    pub const fn bytes(self) -> usize {
        match self {
            CacheType::F16 => 2,
            CacheType::F32 => 4,
        }
    }
}

/// What one layer keeps for each position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LayerShape {
    /// Heads that have keys and values of their own.
    pub heads: usize,
    /// Values of a key.
    pub key_dim: usize,
    /// Values of a value.
    pub value_dim: usize,
}

impl LayerShape {
    /// Numbers of a page: keys and values, padding included.
    fn page_numbers(&self) -> usize {
        let numbers = self.key_dim.saturating_add(padded(self.value_dim));
        self.heads.saturating_mul(BLOCK).saturating_mul(numbers)
    }
}

#[derive(Clone, Debug)]
enum Store {
    F16(Vec<u16>),
    F32(Vec<f32>),
}

impl Store {
    fn new(ty: CacheType, len: usize) -> Result<Self> {
        Ok(match ty {
            CacheType::F16 => Store::F16(zeros(len)?),
            CacheType::F32 => Store::F32(zeros(len)?),
        })
    }

    fn numbers(&self, at: usize, len: usize) -> Numbers<'_> {
        match self {
            Store::F16(numbers) => Numbers::F16(numbers.get(at..at + len).unwrap_or_default()),
            Store::F32(numbers) => Numbers::F32(numbers.get(at..at + len).unwrap_or_default()),
        }
    }

    /// Writes `values` from `at` on, `stride` numbers apart.
    fn put(&mut self, at: usize, stride: usize, values: &[f32]) {
        match self {
            Store::F16(numbers) => {
                let places = numbers.iter_mut().skip(at).step_by(stride);
                places.zip(values).for_each(|(place, &value)| *place = to_half(value));
            }
            Store::F32(numbers) => {
                let places = numbers.iter_mut().skip(at).step_by(stride);
                places.zip(values).for_each(|(place, &value)| *place = value);
            }
        }
    }
}

fn zeros<T: Default + Clone>(len: usize) -> Result<Vec<T>> {
    let mut numbers = Vec::new();
    let bytes = len.saturating_mul(size_of::<T>()) as u64;
    numbers
        .try_reserve_exact(len)
        .map_err(|_| Error::OutOfMemory { what: "keys and values of the cache", bytes })?;
    numbers.resize(len, T::default());
    Ok(numbers)
}

/// [`BLOCK`] positions of one layer.
#[derive(Clone, Debug)]
struct Page {
    /// `[head][key_dim][BLOCK]`: as [`gristmill_kernels::attention`] wants them, transposed.
    keys: Store,
    /// `[head][BLOCK][padded(value_dim)]`
    values: Store,
}

/// The keys and values of one sequence.
///
/// Pages are shared: a clone copies none of them, and writing to a page that another sequence still has copies that
/// page alone.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    /// What recurrent layers keep.
    pub states: States,
    ty: CacheType,
    layers: Vec<(LayerShape, Vec<Arc<Page>>)>,
}

impl Cache {
    pub fn new(ty: CacheType, layers: impl IntoIterator<Item = LayerShape>) -> Self {
        Cache { states: States::default(), ty, layers: layers.into_iter().map(|shape| (shape, Vec::new())).collect() }
    }

    /// Bytes that a sequence of `len` positions takes; `usize::MAX` for more than can be counted.
    pub fn bytes(ty: CacheType, layers: &[LayerShape], len: usize) -> usize {
        let numbers = layers.iter().fold(0, |sum: usize, shape| sum.saturating_add(shape.page_numbers()));
        numbers.saturating_mul(ty.bytes()).saturating_mul(len.div_ceil(BLOCK))
    }

    /// Forgets all positions from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.states.truncate(len);
        for (_, pages) in &mut self.layers {
            pages.truncate(len.div_ceil(BLOCK));
        }
    }

    /// Keeps `keys` `[heads * key_dim]` and `values` `[heads * value_dim]` for a position of a layer, the next one or
    /// one that was kept before.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where a page is needed and there is no memory for it.
    pub fn put(&mut self, layer: usize, position: usize, keys: &[f32], values: &[f32]) -> Result<()> {
        let gone = || Error::Internal { what: "a place in the cache that is not there" };
        let (shape, pages) = self.layers.get_mut(layer).ok_or_else(gone)?;
        let (width, at) = (padded(shape.value_dim), position % BLOCK);
        if position / BLOCK == pages.len() {
            pages.push(Arc::new(Page {
                keys: Store::new(self.ty, shape.heads * shape.key_dim * BLOCK)?,
                values: Store::new(self.ty, shape.heads * BLOCK * width)?,
            }));
        }
        let page = Arc::make_mut(pages.get_mut(position / BLOCK).ok_or_else(gone)?);
        for (head, keys) in keys.chunks_exact(shape.key_dim).enumerate() {
            page.keys.put(head * shape.key_dim * BLOCK + at, BLOCK, keys);
        }
        for (head, values) in values.chunks_exact(shape.value_dim).enumerate() {
            page.values.put((head * BLOCK + at) * width, 1, values);
        }
        Ok(())
    }

    /// The blocks of one head of a layer, from block `first` on.
    pub fn blocks(&self, layer: usize, head: usize, first: usize) -> Vec<Block<'_>> {
        let Some((shape, pages)) = self.layers.get(layer) else { return Vec::new() };
        let (keys, values) = (shape.key_dim * BLOCK, BLOCK * padded(shape.value_dim));
        let blocks = pages.iter().skip(first).map(|page| Block {
            keys: page.keys.numbers(head * keys, keys),
            values: page.values.numbers(head * values, values),
        });
        blocks.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: LayerShape = LayerShape { heads: 2, key_dim: 4, value_dim: 3 };

    fn filled(len: usize) -> Cache {
        let mut cache = Cache::new(CacheType::F32, [SHAPE]);
        for pos in 0..len {
            let x = pos as f32;
            cache
                .put(0, pos, &[x, 1.0, 2.0, 3.0, x + 0.5, 5.0, 6.0, 7.0], &[x, 8.0, 9.0, -x, 10.0, 11.0])
                .unwrap();
        }
        cache
    }

    fn key(cache: &Cache, head: usize, pos: usize, i: usize) -> f32 {
        match cache.blocks(0, head, pos / BLOCK)[0].keys {
            Numbers::F32(keys) => keys[i * BLOCK + pos % BLOCK],
            Numbers::F16(_) => f32::NAN,
        }
    }

    #[test]
    fn keys_lie_transposed_by_head() {
        let cache = filled(40);
        assert_eq!((key(&cache, 0, 35, 0), key(&cache, 1, 35, 0), key(&cache, 1, 35, 3)), (35.0, 35.5, 7.0));
        let Numbers::F32(values) = cache.blocks(0, 1, 1)[0].values else { panic!() };
        assert_eq!(values[3 * padded(3)..][..4], [-35.0, 10.0, 11.0, 0.0]);
    }

    #[test]
    fn a_fork_shares_pages_until_it_writes() {
        let first = filled(40);
        let mut fork = first.clone();
        fork.truncate(33);
        fork.put(0, 33, &[-1.0; 8], &[0.0; 6]).unwrap();
        assert_eq!((key(&first, 0, 33, 0), key(&fork, 0, 33, 0)), (33.0, -1.0));
        let pages = |cache: &Cache| cache.layers[0].1.iter().map(Arc::as_ptr).collect::<Vec<_>>();
        assert_eq!(pages(&first)[0], pages(&fork)[0]);
        assert_ne!(pages(&first)[1], pages(&fork)[1]);
    }

    #[test]
    fn memory_is_counted_in_whole_pages() {
        // 2 heads x 32 positions x (4 + 32 padded) numbers of 2 bytes
        assert_eq!(Cache::bytes(CacheType::F16, &[SHAPE], 33), 2 * 2 * 32 * (4 + 32) * 2);
        assert_eq!(Cache::bytes(CacheType::F32, &[SHAPE; 3], usize::MAX), usize::MAX);
    }
}
