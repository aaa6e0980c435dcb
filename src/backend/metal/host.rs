//! What lasts from pass to pass: the device, what it holds of a model, and room for activations.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap};

use gristmill_kernels::metal::Launch;

use super::device::{Device, Place};
use super::memory::{Buffer, Memory};
use super::queue::{Arg, Queue, Sum, Work};
use crate::backend::{Constant, Matrix};
use crate::{Error, Result};

/// Uploads begin at such a byte: the most that any argument asks for.
const ALIGNED: usize = 256;
/// Bytes of a buffer for uploads, at least.
const UPLOADS: usize = 1 << 20;

/// A device with what it holds.
pub(super) struct Host {
    queue: Queue,
    memory: Memory,
    constants: HashMap<usize, (Constant, Buffer)>,
    weights: HashMap<(usize, usize), (Buffer, usize)>,
    /// Activations, as many as a pass ever had at a time.
    slots: Vec<Buffer>,
    zeros: Option<Buffer>,
    /// The last one is filled up to a byte; all before are full.
    uploads: Vec<Buffer>,
    uploaded: usize,
    numbers: Vec<f32>,
}

impl Host {
    pub fn new(device: Box<dyn Device>) -> Self {
        let memory = Memory::new(device.about().memory_limit);
        Host {
            queue: Queue::new(device),
            memory,
            constants: HashMap::new(),
            weights: HashMap::new(),
            slots: Vec::new(),
            zeros: None,
            uploads: Vec::new(),
            uploaded: 0,
            numbers: Vec::new(),
        }
    }

    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The kernels that were asked for.
    pub fn kernels(&self) -> &BTreeSet<String> {
        self.queue.kernels()
    }

    /// Readies for a pass: what one that failed left undone is done with, whatever comes of it.
    pub fn begin(&mut self) {
        if let Err(error) = self.finish() {
            tracing::debug!(%error, "what a pass left undone failed");
        }
        self.constants.retain(|_, (constant, _)| !constant.is_last());
        self.weights.retain(|_, (buffer, _)| !buffer.is_orphan());
        self.memory.sweep(self.queue.device());
    }

    /// A new buffer.
    pub fn buffer(&mut self, bytes: usize, place: Place, what: &'static str) -> Result<Buffer> {
        self.memory.buffer(self.queue.device(), bytes, place, what)
    }

    /// The buffer of slot `slot`, with room for so many floats.
    pub fn slot(&mut self, slot: usize, floats: usize) -> Result<Buffer> {
        let bytes = floats.saturating_mul(size_of::<f32>());
        match self.slots.get(slot) {
            Some(buffer) if buffer.bytes() >= bytes => return Ok(buffer.clone()),
            _ => (),
        }
        // Prompts differ in length: not each one more should make a new buffer.
        let buffer =
            self.buffer(bytes.checked_next_power_of_two().unwrap_or(bytes), Place::Shared, "activations")?;
        match self.slots.get_mut(slot) {
            Some(place) => *place = buffer.clone(),
            None => self.slots.push(buffer.clone()),
        }
        Ok(buffer)
    }

    /// The buffer of a slot that was made.
    pub fn made(&self, slot: usize) -> Result<Buffer> {
        self.slots.get(slot).cloned().ok_or(Error::Internal { what: "activations that are not there" })
    }

    /// The weights of a matrix.
    pub fn weights(&mut self, matrix: &Matrix) -> Result<Arg> {
        let id = matrix.id();
        let (buffer, offset) = match self.weights.get(&id) {
            Some(known) => known.clone(),
            None => {
                let made = self.memory.weights(self.queue.device(), matrix)?;
                self.weights.insert(id, made.clone());
                made
            }
        };
        Ok((buffer, offset).into())
    }

    /// Numbers that do not change, as `form` has them.
    pub fn constant(&mut self, constant: &Constant, form: impl FnOnce(&[f32]) -> Vec<f32>) -> Result<Arg> {
        let buffer = match self.constants.get(&constant.id()) {
            Some((_, buffer)) => buffer.clone(),
            None => {
                let numbers = form(constant);
                let bytes: &[u8] = bytemuck::cast_slice(&numbers);
                let buffer = self.buffer(bytes.len(), Place::Shared, "constants")?;
                self.queue.device().write(buffer.id(), 0, bytes)?;
                self.constants.insert(constant.id(), (constant.clone(), buffer.clone()));
                buffer
            }
        };
        Ok(Arg::read(&buffer))
    }

    /// Numbers for the pass at hand.
    pub fn upload<T: bytemuck::NoUninit>(&mut self, numbers: &[T]) -> Result<Arg> {
        let bytes: &[u8] = bytemuck::cast_slice(numbers);
        let at = self.uploaded.next_multiple_of(ALIGNED);
        let (buffer, at) = match self.uploads.last() {
            Some(last) if at + bytes.len() <= last.bytes() => (last.clone(), at),
            _ => {
                let buffer = self.buffer(bytes.len().max(UPLOADS), Place::Shared, "uploads")?;
                self.uploads.push(buffer.clone());
                (buffer, 0)
            }
        };
        self.queue.device().write(buffer.id(), at, bytes)?;
        self.uploaded = at + bytes.len();
        Ok((buffer, at).into())
    }

    /// As many zeros.
    pub fn zeros(&mut self, floats: usize) -> Result<Arg> {
        let bytes = floats.saturating_mul(size_of::<f32>());
        match &self.zeros {
            Some(zeros) if zeros.bytes() >= bytes => Ok(Arg::read(zeros)),
            _ => {
                let zeros = self.buffer(bytes, Place::Shared, "zeros")?;
                self.queue.device().write(zeros.id(), 0, &vec![0; bytes])?;
                Ok(Arg::read(self.zeros.insert(zeros)))
            }
        }
    }

    /// Asks for `x += y`, by a kernel of these two.
    pub fn add(&mut self, launch: Launch, shape: [u32; 2], x: Arg, y: Arg) -> Result<()> {
        self.queue.ask(Work::Sum(Sum { launch, x, y, shape }))
    }

    /// Takes back a sum to `x` that was asked for last: `x` and `y`.
    pub fn take_sum(&mut self, shape: [u32; 2], x: &Buffer) -> Option<[Arg; 2]> {
        self.queue.take_sum(shape, x)
    }

    /// Asks for a kernel.
    pub fn run(&mut self, launch: &Launch, args: &[Arg]) -> Result<()> {
        self.queue.ask(Work::Kernel(launch, args))
    }

    /// Asks for a copy.
    pub fn copy(&mut self, from: (&Buffer, usize), to: (&Buffer, usize), bytes: usize) -> Result<()> {
        self.queue.ask(Work::Copy([from, to], bytes))
    }

    /// Waits until all is done.
    pub fn finish(&mut self) -> Result<()> {
        if !self.queue.is_busy() {
            return Ok(());
        }
        let done = self.queue.ask(Work::Finish);
        // The last buffer for uploads is the largest, or as large as any.
        let all = self.uploads.len();
        self.uploads.drain(..all.saturating_sub(1));
        self.uploaded = 0;
        done
    }

    /// The first numbers of a buffer, when all is done.
    pub fn read(&mut self, buffer: &Buffer, floats: usize) -> Result<&[f32]> {
        self.finish()?;
        self.numbers.clear();
        self.numbers.resize(floats, 0.0);
        self.queue.device().read(buffer.id(), 0, bytemuck::cast_slice_mut(&mut self.numbers))?;
        Ok(&self.numbers)
    }
}
