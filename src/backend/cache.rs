//! The keys and values of a sequence, in pages that sequences may share.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

pub use gristmill_kernels::attention::CacheType;
use gristmill_kernels::attention::{BLOCK, Block, Layout, Line};
use gristmill_kernels::simd::Level;

use super::metal;
use super::state::States;
use crate::{Error, Result};

/// Positions that can be taken back at least, though windows have moved on: see [`Cache::forget`].
pub(super) const ROLLBACK: usize = 128;

/// In which form keys, and values, are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheTypes {
    /// Form of the keys.
    pub keys: CacheType,
    /// Form of the values.
    pub values: CacheType,
}

impl From<CacheType> for CacheTypes {
    fn from(ty: CacheType) -> Self {
        CacheTypes { keys: ty, values: ty }
    }
}

/// Which positions a query sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Sees {
    /// All up to its own.
    #[default]
    Past,
    /// The last so many, its own among them.
    Last(usize),
    /// Those of its chunk of so many, up to its own.
    Chunk(usize),
    /// All, those behind its own too: encoders.
    All,
    /// Those that are at most so far away, on both sides.
    Near(usize),
}

impl Sees {
    /// What a query at `position` sees of a sequence of `end` positions.
    pub fn range(self, position: usize, end: usize) -> Range<usize> {
        let last = match self {
            Sees::All => end,
            Sees::Near(far) => position.saturating_add(far).saturating_add(1).min(end),
            Sees::Past | Sees::Last(_) | Sees::Chunk(_) => position + 1,
        };
        self.first(position)..last
    }

    /// Whether queries see positions behind their own.
    pub fn both_sides(self) -> bool {
        matches!(self, Sees::All | Sees::Near(_))
    }

    /// The first position that a query at `position` sees, and none behind it sees an earlier one.
    pub fn first(self, position: usize) -> usize {
        match self {
            Sees::Past | Sees::All => 0,
            Sees::Last(count) => (position + 1).saturating_sub(count.max(1)),
            Sees::Chunk(count) => position - position % count.max(1),
            Sees::Near(far) => position.saturating_sub(far),
        }
    }

    /// The most positions that are kept of a sequence of `len` that is fed `batch` at a time.
    fn kept(self, len: usize, batch: usize) -> usize {
        match self {
            Sees::Past | Sees::All => len,
            Sees::Last(count) | Sees::Chunk(count) | Sees::Near(count) => {
                len.min(count.saturating_add(ROLLBACK + BLOCK).saturating_add(batch))
            }
        }
    }
}

/// What one layer keeps for each position.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LayerShape {
    /// Heads that have keys and values of their own.
    pub heads: usize,
    /// Values of a key.
    pub key_dim: usize,
    /// Values of a value.
    pub value_dim: usize,
    /// What queries see: behind that nothing is kept.
    pub sees: Sees,
}

impl LayerShape {
    fn layout(&self, types: CacheTypes) -> Layout {
        Layout::new(types.keys, types.values, self.key_dim, self.value_dim)
    }

    /// Bytes that `positions` positions take; `usize::MAX` for more than can be counted.
    pub fn bytes(&self, types: CacheTypes, positions: usize) -> usize {
        let page = self.heads.saturating_mul(self.layout(types).lines()).saturating_mul(size_of::<Line>());
        page.saturating_mul(positions.div_ceil(BLOCK))
    }
}

/// [`BLOCK`] positions of one layer: a block of each head.
#[derive(Clone, Debug)]
struct Page(Vec<Line>);

impl Page {
    fn new(lines: usize) -> Result<Self> {
        let mut page = Vec::new();
        let bytes = lines.saturating_mul(size_of::<Line>()) as u64;
        page.try_reserve_exact(lines)
            .map_err(|_| Error::OutOfMemory { what: "keys and values of the cache", bytes })?;
        page.resize(lines, Line::default());
        Ok(Page(page))
    }
}

#[derive(Clone, Debug)]
struct Layer {
    shape: LayerShape,
    layout: Layout,
    /// `None` where forgotten: only before all others.
    pages: Vec<Option<Arc<Page>>>,
    forgotten: usize,
    /// What a device keeps in place of pages.
    on_device: Option<metal::Kept>,
}

impl Layer {
    /// The first position that is not forgotten.
    fn first(&self) -> usize {
        let on_device = self.on_device.as_ref().map_or(0, metal::Kept::first);
        on_device.max(self.forgotten * BLOCK)
    }
}

/// One head's block, to be written.
pub(crate) struct Room<'a> {
    /// Which head.
    pub head: usize,
    /// The positions that are to be written.
    pub positions: Range<usize>,
    layout: Layout,
    lines: &'a mut [Line],
}

impl Room<'_> {
    /// Keeps the head's keys and values for the positions.
    ///
    /// # Errors
    /// [`Error::Internal`] where there are more or fewer of them.
    pub fn put(&mut self, level: Level, keys: &[&[f32]], values: &[&[f32]]) -> Result<()> {
        let at = self.positions.start % BLOCK;
        Ok(self.layout.put(level, self.lines, at, keys, values)?)
    }
}

/// The keys and values of one sequence.
///
/// Pages are shared: a clone copies none of them, and writing to a page that another sequence still has copies that
/// page alone.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    /// What recurrent layers keep.
    pub states: States,
    types: CacheTypes,
    layers: Vec<Layer>,
}

impl Cache {
    pub fn new(types: CacheTypes, layers: impl IntoIterator<Item = LayerShape>) -> Self {
        let layer = |shape: LayerShape| Layer {
            shape,
            layout: shape.layout(types),
            pages: Vec::new(),
            forgotten: 0,
            on_device: None,
        };
        Cache { states: States::default(), types, layers: layers.into_iter().map(layer).collect() }
    }

    /// In which form keys and values are kept.
    pub fn types(&self) -> CacheTypes {
        self.types
    }

    /// What a device keeps of a layer.
    ///
    /// # Errors
    /// [`Error::Internal`] where there is no such layer.
    pub fn on_device(&mut self, layer: usize) -> Result<&mut Option<metal::Kept>> {
        let layer =
            self.layers.get_mut(layer).ok_or(Error::Internal { what: "a layer that is not there" })?;
        Ok(&mut layer.on_device)
    }

    /// Bytes that a sequence of `len` positions takes at most, fed `batch` at a time; `usize::MAX` for more than can be
    /// counted. The first `on_device` layers are kept by a GPU.
    pub fn bytes(
        types: CacheTypes,
        layers: &[LayerShape],
        len: usize,
        batch: usize,
        on_device: usize,
    ) -> usize {
        let bytes = |(layer, shape): (usize, &LayerShape)| {
            let kept = shape.sees.kept(len, batch);
            if layer < on_device { metal::Kept::bytes(types, shape, kept) } else { shape.bytes(types, kept) }
        };
        layers.iter().enumerate().map(bytes).fold(0, usize::saturating_add)
    }

    /// Forgets all positions from `len` on. Gives how many are left: fewer where a recurrent layer has no state of `len`
    /// positions, none where a window has forgotten what a query at `len` would see.
    pub fn truncate(&mut self, len: usize) -> usize {
        let len = self.states.resume(len);
        let gone = |layer: &Layer| layer.first() > layer.shape.sees.first(len);
        let len = if self.layers.iter().any(gone) { 0 } else { len };
        self.states.truncate(len);
        for layer in &mut self.layers {
            layer.pages.truncate(len.div_ceil(BLOCK));
            layer.forgotten = layer.forgotten.min(layer.pages.len());
            if len == 0 {
                layer.on_device = None;
            }
        }
        len
    }

    /// Forgets what of a layer no query from `start` on sees, nor one up to [`ROLLBACK`] before it.
    ///
    /// To be called when a pass begins, not when it ends: a pass that fails is taken back.
    pub fn forget(&mut self, layer: usize, start: usize) {
        let Some(layer) = self.layers.get_mut(layer) else { return };
        let first = layer.shape.sees.first(start.saturating_sub(ROLLBACK)) / BLOCK;
        let first = first.min(layer.pages.len());
        if let Some(pages) = layer.pages.get_mut(layer.forgotten..first) {
            pages.fill(None);
            layer.forgotten = first;
        }
    }

    /// The blocks of each head of a layer at `positions`, to be written: positions that follow those that are kept, or
    /// are among them.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where a page is needed and there is no memory for it.
    pub fn rooms(&mut self, layer: usize, positions: Range<usize>) -> Result<Vec<Room<'_>>> {
        let gone = || Error::Internal { what: "a place in the cache that is not there" };
        let layer = self.layers.get_mut(layer).ok_or_else(gone)?;
        let (layout, lines) = (layer.layout, layer.layout.lines());
        if positions.start.div_ceil(BLOCK) > layer.pages.len() {
            return Err(gone());
        }
        while layer.pages.len() < positions.end.div_ceil(BLOCK) {
            layer.pages.push(Some(Arc::new(Page::new(layer.shape.heads.saturating_mul(lines))?)));
        }
        let blocks = positions.start / BLOCK..positions.end.div_ceil(BLOCK);
        let pages = layer.pages.get_mut(blocks.clone()).ok_or_else(gone)?;
        let mut rooms = Vec::new();
        for (block, page) in blocks.zip(pages) {
            let page = Arc::make_mut(page.as_mut().ok_or_else(gone)?);
            let positions =
                positions.start.max(block * BLOCK)..positions.end.min((block + 1).saturating_mul(BLOCK));
            for (head, lines) in page.0.chunks_exact_mut(lines.max(1)).enumerate() {
                rooms.push(Room { head, positions: positions.clone(), layout, lines });
            }
        }
        Ok(rooms)
    }

    /// Bytes that are held.
    #[cfg(test)]
    pub fn held_bytes(&self) -> usize {
        let pages = self.layers.iter().flat_map(|layer| layer.pages.iter().flatten());
        pages.map(|page| page.0.len() * size_of::<Line>()).sum::<usize>() + self.states.held_bytes()
    }

    /// Makes a layer keep zeros for all positions up to `len` that it does not keep yet.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn lengthen(&mut self, layer: usize, len: usize) -> Result<()> {
        let kept = self.layers.get(layer).map_or(0, |layer| layer.pages.len() * BLOCK);
        if kept < len { self.rooms(layer, kept..len).map(drop) } else { Ok(()) }
    }

    /// The pages of a layer that hold these blocks.
    ///
    /// # Errors
    /// [`Error::Internal`] where they are not there.
    pub fn pages(&self, layer: usize, blocks: Range<usize>) -> Result<Pages<'_>> {
        let layer = self.layers.get(layer).ok_or(GONE)?;
        let pages = layer.pages.get(blocks.clone()).ok_or(GONE)?;
        let mut lines = Vec::with_capacity(pages.len());
        for page in pages {
            lines.push(page.as_ref().ok_or(GONE)?.0.as_slice());
        }
        Ok(Pages { layout: layer.layout, first: blocks.start, lines })
    }
}

const GONE: Error = Error::Internal { what: "blocks of the cache that are not there" };

/// Some pages of a layer, looked up once for all heads: each lies in a place of its own in memory.
pub(crate) struct Pages<'a> {
    layout: Layout,
    /// The first one's block.
    first: usize,
    lines: Vec<&'a [Line]>,
}

impl<'a> Pages<'a> {
    /// The blocks of one head.
    ///
    /// # Errors
    /// [`Error::Internal`] where they are not there.
    pub fn blocks(&self, head: usize, blocks: Range<usize>) -> Result<Vec<Block<'a>>> {
        let within = |block: usize| block.checked_sub(self.first).ok_or(GONE);
        let pages = self.lines.get(within(blocks.start)?..within(blocks.end)?).ok_or(GONE)?;
        let lines = self.layout.lines();
        let of_head = head * lines..(head + 1) * lines;
        let block = |page: &&'a [Line]| Ok(self.layout.block(page.get(of_head.clone()).ok_or(GONE)?)?);
        pages.iter().map(block).collect()
    }
}

#[cfg(test)]
mod tests {
    use gristmill_kernels::attention::Numbers;

    use super::*;

    const SHAPE: LayerShape = LayerShape { heads: 2, key_dim: 4, value_dim: 3, sees: Sees::Past };

    fn put(cache: &mut Cache, position: usize, keys: &[f32; 8], values: &[f32; 6]) {
        for mut room in cache.rooms(0, position..position + 1).unwrap() {
            let (key, value) = (&keys[4 * room.head..][..4], &values[3 * room.head..][..3]);
            room.put(Level::detect(), &[key], &[value]).unwrap();
        }
    }

    fn blocks(cache: &Cache, head: usize, blocks: Range<usize>) -> Result<Vec<Block<'_>>> {
        cache.pages(0, blocks.clone())?.blocks(head, blocks)
    }

    fn filled(len: usize, sees: Sees) -> Cache {
        let mut cache = Cache::new(CacheType::F32.into(), [LayerShape { sees, ..SHAPE }]);
        for pos in 0..len {
            let x = pos as f32;
            cache.forget(0, pos);
            let keys = [x, 1.0, 2.0, 3.0, x + 0.5, 5.0, 6.0, 7.0];
            put(&mut cache, pos, &keys, &[x, 8.0, 9.0, -x, 10.0, 11.0]);
        }
        cache
    }

    fn key(cache: &Cache, head: usize, pos: usize, i: usize) -> f32 {
        match blocks(cache, head, pos / BLOCK..pos / BLOCK + 1).unwrap()[0].keys {
            Numbers::F32(keys) => keys[(pos % BLOCK / 16 * 4 + i) * 16 + pos % 16],
            _ => f32::NAN,
        }
    }

    fn pages(cache: &Cache) -> usize {
        cache.layers[0].pages.iter().flatten().count()
    }

    #[test]
    fn keys_lie_in_panels_of_their_head() {
        let cache = filled(60, Sees::Past);
        assert_eq!((key(&cache, 0, 35, 0), key(&cache, 1, 55, 0), key(&cache, 1, 35, 3)), (35.0, 55.5, 7.0));
        let Numbers::F32(values) = blocks(&cache, 1, 1..2).unwrap()[0].values else { panic!() };
        assert_eq!(values[3 * 16..][..4], [-35.0, 10.0, 11.0, 0.0]);
    }

    #[test]
    fn a_fork_shares_pages_until_it_writes() {
        let first = filled(40, Sees::Past);
        let mut fork = first.clone();
        assert_eq!(fork.truncate(33), 33);
        put(&mut fork, 33, &[-1.0; 8], &[0.0; 6]);
        assert_eq!((key(&first, 0, 33, 0), key(&fork, 0, 33, 0)), (33.0, -1.0));
        let shared = |page: usize| {
            let page = |cache: &Cache| Arc::as_ptr(cache.layers[0].pages[page].as_ref().unwrap());
            page(&first) == page(&fork)
        };
        assert_eq!((shared(0), shared(1)), (true, false));
    }

    #[test]
    fn places_that_are_not_there_are_refused() {
        let mut cache = filled(40, Sees::Past);
        assert!(cache.rooms(1, 40..41).is_err() && cache.rooms(0, 70..71).is_err());
        assert!(blocks(&cache, 2, 0..1).is_err() && blocks(&cache, 0, 1..3).is_err());
    }

    #[test]
    fn what_no_window_sees_is_forgotten_and_the_rest_can_be_taken_back() {
        let mut cache = filled(1000, Sees::Last(50));
        // 999 - 128 - 49 = 822, in page 25 of 32.
        assert_eq!((pages(&cache), blocks(&cache, 0, 24..25).is_err()), (32 - 25, true));
        assert!(pages(&cache) <= Sees::Last(50).kept(1000, 1).div_ceil(BLOCK));
        let fork = cache.clone();
        assert_eq!(cache.truncate(1000 - ROLLBACK), 1000 - ROLLBACK);
        assert_eq!(key(&cache, 0, 850, 0), 850.0);
        assert_eq!(cache.truncate(840), 0);
        assert_eq!((pages(&cache), pages(&fork)), (0, 7));
        put(&mut cache, 0, &[4.0; 8], &[0.0; 6]);
        assert_eq!(key(&cache, 1, 0, 0), 4.0);
        assert_eq!(pages(&filled(1000, Sees::Past)), 32);
        assert_eq!(pages(&filled(1000, Sees::Chunk(512))), 32 - 16);
    }

    #[test]
    fn queries_see_what_they_should() {
        assert_eq!(Sees::Past.range(9, 20), 0..10);
        assert_eq!((Sees::Last(4).range(2, 20), Sees::Last(4).range(9, 20)), (0..3, 6..10));
        assert_eq!((Sees::Chunk(8).range(7, 20), Sees::Chunk(8).range(9, 20)), (0..8, 8..10));
        assert_eq!(Sees::All.range(9, 20), 0..20);
        assert_eq!((Sees::Near(3).range(1, 20), Sees::Near(3).range(18, 20)), (0..5, 15..20));
    }

    #[test]
    fn memory_is_counted_in_whole_pages() {
        let bytes = |ty: CacheType, shape, len| Cache::bytes(ty.into(), &[shape], len, 512, 0);
        // 2 pages of 2 heads, of 32 positions x (4 + 16 padded) numbers of 2 bytes.
        assert_eq!(bytes(CacheType::F16, SHAPE, 33), 2 * 2 * 32 * (4 + 16) * 2);
        assert_eq!(bytes(CacheType::F32, SHAPE, usize::MAX), usize::MAX);
        let shape = LayerShape { heads: 8, key_dim: 64, value_dim: 64, sees: Sees::Past };
        let half = bytes(CacheType::F16, shape, 4096);
        assert_eq!(bytes(CacheType::Q8_0, shape, 4096) * 16, half * 17 / 2);
        assert_eq!(bytes(CacheType::Q4_0, shape, 4096) * 16, half * 9 / 2);
        let windowed = LayerShape { sees: Sees::Last(128), ..shape };
        assert_eq!(bytes(CacheType::F16, windowed, 1 << 20), half * 800 / 4096);
    }
}
