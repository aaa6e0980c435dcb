//! Buffers, their account, and what becomes of those that nobody has any more.
#![allow(unsafe_code, reason = "a device reads weights where they lie; see `Memory::weights`")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::device::{Device, Place};
use crate::backend::Matrix;
use crate::{Error, Result};

/// What is left of a buffer that nobody has any more.
struct Lost {
    id: u64,
    bytes: usize,
    place: Place,
    /// Of weights: what must live as long as the device has the buffer.
    over: Option<Bytes>,
}

type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A buffer of the device: cheap to clone, given back when the last one goes.
#[derive(Clone)]
pub(crate) struct Buffer(Arc<Held>);

struct Held {
    id: u64,
    bytes: usize,
    place: Place,
    over: Option<Bytes>,
    lost: Arc<Mutex<Vec<Lost>>>,
}

impl Buffer {
    pub fn id(&self) -> u64 {
        self.0.id
    }

    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// Whether the weights that it holds are nobody else's any more.
    pub(super) fn is_orphan(&self) -> bool {
        self.0.over.as_ref().is_some_and(|over| Arc::strong_count(over) == 1)
    }

    /// Whether nobody else has it.
    pub fn is_own(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({}, {} bytes)", self.0.id, self.0.bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let lost = Lost { id: self.id, bytes: self.bytes, place: self.place, over: self.over.take() };
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).push(lost);
    }
}

/// All buffers of a device.
pub(super) struct Memory {
    limit: u64,
    used: u64,
    lost: Arc<Mutex<Vec<Lost>>>,
    /// Buffers to be used again, by their size.
    spare: HashMap<(usize, Place), Vec<u64>>,
}

impl Memory {
    pub fn new(limit: u64) -> Self {
        Memory { limit, used: 0, lost: Arc::default(), spare: HashMap::new() }
    }

    /// Refuses what does not fit beside what is in use.
    pub fn check(&self, bytes: u64, what: &'static str) -> Result<()> {
        if self.used.saturating_add(bytes) > self.limit {
            return Err(Error::DeviceMemory { what, needed: bytes, used: self.used, limit: self.limit });
        }
        Ok(())
    }

    fn held(&self, id: u64, bytes: usize, place: Place, over: Option<Bytes>) -> Buffer {
        Buffer(Arc::new(Held { id, bytes, place, over, lost: self.lost.clone() }))
    }

    /// A buffer of at least one byte, of whatever numbers lie there.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`]; those of the device.
    pub fn buffer(
        &mut self,
        device: &mut dyn Device,
        bytes: usize,
        place: Place,
        what: &'static str,
    ) -> Result<Buffer> {
        let (id, bytes) = self.allocate(device, bytes, place, what)?;
        Ok(self.held(id, bytes, place, None))
    }

    /// A new buffer, or a spare one, and its bytes.
    fn allocate(
        &mut self,
        device: &mut dyn Device,
        bytes: usize,
        place: Place,
        what: &'static str,
    ) -> Result<(u64, usize)> {
        let bytes = bytes.max(4);
        let limit = device.about().buffer_limit;
        if bytes as u64 > limit {
            return Err(Error::DeviceMemory { what, needed: bytes as u64, used: 0, limit });
        }
        if let Some(id) = self.spare.get_mut(&(bytes, place)).and_then(Vec::pop) {
            return Ok((id, bytes));
        }
        if self.check(bytes as u64, what).is_err() {
            self.free_spare(device);
        }
        self.check(bytes as u64, what)?;
        let id = device.allocate(bytes, place)?;
        self.used += bytes as u64;
        Ok((id, bytes))
    }

    /// The weights of a matrix and the byte at which they begin: where they lie, or copied where that cannot be.
    ///
    /// # Errors
    /// Those of [`Memory::buffer`].
    pub fn weights(&mut self, device: &mut dyn Device, matrix: &Matrix) -> Result<(Buffer, usize)> {
        const WHAT: &str = "weights";
        let (bytes, limit) = (matrix.bytes(), device.about().buffer_limit);
        if bytes.len() as u64 > limit {
            return Err(Error::DeviceMemory { what: WHAT, needed: bytes.len() as u64, used: 0, limit });
        }
        if matrix.is_mapped() {
            self.check(bytes.len() as u64, WHAT)?;
            // SAFETY: the mapping lives as long as the matrix' share in it, which is given up with the number of the buffer
            // when that is freed; and it is whole pages.
            let window = unsafe { device.window(bytes) }?;
            if let Some((id, offset)) = window {
                self.used += bytes.len() as u64;
                let over = Some(matrix.bytes.clone());
                return Ok((self.held(id, bytes.len(), Place::Shared, over), offset));
            }
        }
        let (id, size) = self.allocate(device, bytes.len(), Place::Shared, WHAT)?;
        // The share keeps the matrix' place in memory from being another's, by which it is known.
        let buffer = self.held(id, size, Place::Shared, Some(matrix.bytes.clone()));
        device.write(id, 0, bytes)?;
        Ok((buffer, 0))
    }

    /// Takes in what was lost; to be called when the device is idle.
    pub fn sweep(&mut self, device: &mut dyn Device) {
        let lost = std::mem::take(&mut *self.lost.lock().unwrap_or_else(PoisonError::into_inner));
        for Lost { id, bytes, place, over } in lost {
            if over.is_some() {
                device.free(id);
                self.used = self.used.saturating_sub(bytes as u64);
            } else {
                self.spare.entry((bytes, place)).or_default().push(id);
            }
        }
    }

    fn free_spare(&mut self, device: &mut dyn Device) {
        for ((bytes, _), ids) in self.spare.drain() {
            for id in ids {
                device.free(id);
                self.used = self.used.saturating_sub(bytes as u64);
            }
        }
    }
}
