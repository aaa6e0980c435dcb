//! What the host asks of a GPU. There are two: Apple's (`apple.rs`), and the emulator that the tests bring along.

use gristmill_kernels::metal::Launch;

use crate::Result;

/// Where the bytes of a buffer are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// Where the host reads and writes them.
    Shared,
    /// Where only the GPU has to.
    Private,
}

/// What a device says of itself.
#[derive(Clone, PartialEq, Debug)]
pub struct About {
    /// Its name: `Apple M2 Max`.
    pub name: String,
    /// The system that it runs under.
    pub system: String,
    /// Bytes of memory that the machine has.
    pub memory: u64,
    /// Bytes that may be in use without harm.
    pub memory_limit: u64,
    /// Bytes that one buffer may have.
    pub buffer_limit: u64,
}

/// A GPU: buffers, which go by numbers that the device gives them, and work on them.
///
/// Work is only begun by [`Device::finish`] or before. Between two barriers it may be carried out in any order and at the same
/// time; who asks sees to it that nothing there depends on the other.
pub trait Device: Send {
    /// What the device is.
    fn about(&self) -> &About;
    /// A new buffer, of whatever numbers lie there.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device).
    fn allocate(&mut self, bytes: usize, place: Place) -> Result<u64>;
    /// A buffer over memory of the host, with the byte of it at which `bytes` begin: it may begin and end at borders of pages
    /// around them. `None` where the device cannot do that with them.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device).
    ///
    /// # Safety
    /// The pages must stay mapped until the buffer is freed.
    unsafe fn window(&mut self, bytes: &[u8]) -> Result<Option<(u64, usize)>>;
    /// Gives a buffer back that no work uses any more.
    fn free(&mut self, buffer: u64);
    /// Writes to a [`Place::Shared`] buffer, of which no work that was asked for uses this part.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device).
    fn write(&mut self, buffer: u64, offset: usize, bytes: &[u8]) -> Result<()>;
    /// Reads from a [`Place::Shared`] buffer, when all work is done.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device).
    fn read(&mut self, buffer: u64, offset: usize, to: &mut [u8]) -> Result<()>;
    /// Makes a kernel ready, where it is not yet.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) where there is none of this name, or the device cannot run it.
    fn prepare(&mut self, launch: &Launch) -> Result<()>;
    /// Asks for a kernel with these buffers, each from a byte on.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device).
    fn dispatch(&mut self, launch: &Launch, buffers: &[(u64, usize)]) -> Result<()>;
    /// What is asked for after sees what was asked for before.
    fn barrier(&mut self);
    /// Asks for a copy, which comes after everything before and before everything after.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device).
    fn copy(&mut self, from: (u64, usize), to: (u64, usize), bytes: usize) -> Result<()>;
    /// Waits until all work is done.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) where some of it failed.
    fn finish(&mut self) -> Result<()>;
}
