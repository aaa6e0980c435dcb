//! The operations on Apple's GPUs, by the kernels of `gristmill_kernels::metal`.
//!
//! ```text
//! gpu, attend,   which kernel, with which buffers, in what order       host     what lasts: weights, constants
//!   experts                                                            queue    the order of work: barriers, sums held back
//! handover       the first layers here, the others on the CPU          memory   buffers and their account
//! check          every kernel against the CPU                         device   what a GPU is asked for: apple, or an emulator
//! ```
//!
//! All that can be wrong between the kernels and a device is above `device`, so that tests on any machine carry it out.

#[cfg_attr(not(all(feature = "metal", target_os = "macos")), path = "apple_absent.rs")]
mod apple;
mod attend;
mod check;
mod device;
mod experts;
mod gpu;
mod handover;
mod host;
mod memory;
mod queue;

pub(crate) use attend::Kept;
pub use check::{Check, Examination, examine};
pub use device::{About, Device, Place};
pub(crate) use memory::Buffer;

use std::sync::{Arc, Mutex, PoisonError};

use super::Backend;
use super::cpu::Cpu;
use crate::Result;
use gpu::Gpu;
use handover::Handover;
use host::Host;

/// Opens a device.
pub(crate) type Open = Arc<dyn Fn() -> Result<Box<dyn Device>> + Send + Sync>;

/// The machine's GPU, its kernels compiled.
///
/// # Errors
/// [`Error::BackendAbsent`](crate::Error::BackendAbsent) where there is none, [`Error::Device`](crate::Error::Device) where it
/// refuses the kernels.
pub fn open() -> Result<Box<dyn Device>> {
    apple::open()
}

/// A device and what it holds of one model. Passes take turns.
pub(crate) struct Metal {
    host: Mutex<Host>,
    /// How many layers it takes.
    layers: usize,
}

impl Metal {
    /// On a device, for the first `layers` layers, whose weights are so many bytes.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`](crate::Error::DeviceMemory) where they are more than the device may hold.
    pub fn new(device: Box<dyn Device>, layers: usize, weights: u64) -> Result<Self> {
        let about = device.about().clone();
        let host = Host::new(device);
        host.memory().check(weights, "weights")?;
        tracing::debug!(device = about.name, limit = about.memory_limit, "layers run on the GPU");
        Ok(Metal { host: Mutex::new(host), layers })
    }

    /// A pass; `cpu` has the layers that are not the device's.
    pub fn pass<R>(&self, cpu: Cpu<'_>, pass: impl FnOnce(&mut dyn Backend) -> Result<R>) -> Result<R> {
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        let done = pass(&mut Handover::new(Gpu::new(&mut host), cpu, self.layers))?;
        // What was asked for last may be what is kept: whether that was done is known only now.
        host.finish()?;
        Ok(done)
    }

    /// How many layers it takes: the first ones.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// The first numbers of a buffer that outlives its pass.
    pub fn read(&self, buffer: &Buffer, floats: usize) -> Result<Vec<f32>> {
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        // What a later pass left undone is nothing to this.
        host.begin();
        Ok(host.read(buffer, floats)?.to_vec())
    }
}
