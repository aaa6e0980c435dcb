//! A model's network without its weights: what a file's header alone tells.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use memmap2::MmapMut;

use super::file::ModelFile;
use super::loader::Loader;
use super::{Architecture, Network};
use crate::{Error, Result};

/// Floats that vectors may have in all: a header can promise more than there is memory for.
const FLOATS: usize = 1 << 26;
/// Bytes at which windows of the memory begin: those of a line of a cache.
const LINE: usize = 64;

/// What stands in for the weights of a file: matrices share some memory, and vectors are ones.
pub(crate) struct StandIn {
    memory: Arc<MmapMut>,
    /// Where the next matrix begins.
    next: Cell<usize>,
    floats: Cell<usize>,
}

/// A part of the memory.
struct Window {
    memory: Arc<MmapMut>,
    bytes: Range<usize>,
}

impl AsRef<[u8]> for Window {
    fn as_ref(&self) -> &[u8] {
        self.memory.get(self.bytes.clone()).unwrap_or_default()
    }
}

impl StandIn {
    pub fn new(memory: Arc<MmapMut>) -> Self {
        StandIn { memory, next: Cell::new(0), floats: Cell::new(0) }
    }

    /// So many bytes, or as many as there are: matrices follow each other in the memory, again and again.
    pub fn bytes(&self, len: usize) -> impl AsRef<[u8]> + Send + Sync + use<> {
        let len = len.min(self.memory.len());
        let next = self.next.get();
        let start = if len > self.memory.len() - next { 0 } else { next };
        let end = start + len;
        self.next.set(end.next_multiple_of(LINE).min(self.memory.len()));
        Window { memory: self.memory.clone(), bytes: start..end }
    }

    /// So many ones.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where the file's vectors are of more floats than any model's.
    pub fn floats(&self, len: usize) -> Result<Vec<f32>> {
        let all = self.floats.get().saturating_add(len);
        self.floats.set(all);
        if all > FLOATS {
            let bytes = (all as u64).saturating_mul(4);
            return Err(Error::OutOfMemory { what: "vectors that no model has", bytes });
        }
        Ok(vec![1.0; len])
    }
}

/// What a header tells of a model.
pub(crate) struct Outline {
    pub architecture: &'static Architecture,
    /// To walk through, not to compute with.
    pub network: Box<dyn Network>,
}

impl Outline {
    /// Of a file, all of whose tensors need not be there; its matrices are windows of `memory`.
    ///
    /// # Errors
    /// Those of [`Model::open`](crate::Model::open), but for what tensors hold.
    pub fn of(file: &ModelFile, memory: Arc<MmapMut>) -> Result<Self> {
        let architecture = Architecture::of(file)?;
        let loader = Loader::without_weights(file, architecture.name, StandIn::new(memory));
        Ok(Outline { architecture, network: architecture.network(&loader)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_follow_each_other_and_begin_again_at_the_end() {
        let stand_in = StandIn::new(Arc::new(MmapMut::map_anon(256).unwrap()));
        let place = |len: usize| {
            let bytes = stand_in.bytes(len);
            let at = bytes.as_ref().as_ptr() as usize - stand_in.memory.as_ptr() as usize;
            (at, bytes.as_ref().len())
        };
        assert_eq!([place(100), place(64), place(65), place(1)], [(0, 100), (128, 64), (0, 65), (128, 1)]);
        assert_eq!([place(300), place(256), place(10)], [(0, 256), (0, 256), (0, 10)]);
    }

    #[test]
    fn vectors_of_more_than_any_model_are_refused() {
        let stand_in = StandIn::new(Arc::new(MmapMut::map_anon(1).unwrap()));
        assert_eq!(stand_in.floats(3).unwrap(), [1.0; 3]);
        assert!(matches!(stand_in.floats(FLOATS), Err(Error::OutOfMemory { .. })));
        assert!(matches!(stand_in.floats(usize::MAX), Err(Error::OutOfMemory { .. })));
    }
}
