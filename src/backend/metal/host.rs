//! What lasts from pass to pass: the device, what it holds of a model, and the order of the work that is asked of it.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap, HashSet};

use gristmill_kernels::metal::Launch;

use super::device::{Device, Place};
use super::memory::{Buffer, Memory};
use crate::backend::{Constant, Matrix};
use crate::{Error, Result};

/// Uploads begin at such a byte: the most that any argument asks for.
const ALIGNED: usize = 256;
/// Bytes of a buffer for uploads, at least.
const UPLOADS: usize = 1 << 20;

/// What a kernel does with a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Does {
    Read,
    /// Writes it, or changes it in place.
    Write,
}

/// A buffer that a kernel is given, from a byte on.
#[derive(Clone)]
pub(super) struct Arg {
    buffer: Buffer,
    offset: usize,
    does: Does,
}

impl Arg {
    pub fn read(buffer: &Buffer) -> Self {
        Arg { buffer: buffer.clone(), offset: 0, does: Does::Read }
    }

    pub fn write(buffer: &Buffer) -> Self {
        Arg { buffer: buffer.clone(), offset: 0, does: Does::Write }
    }

    /// The same, some bytes further on.
    pub fn at(self, bytes: usize) -> Self {
        Arg { offset: self.offset + bytes, ..self }
    }
}

impl From<(Buffer, usize)> for Arg {
    fn from((buffer, offset): (Buffer, usize)) -> Self {
        Arg { buffer, offset, does: Does::Read }
    }
}

/// What was asked for since the last barrier reads and writes.
#[derive(Default)]
struct Hazards {
    read: HashSet<u64>,
    written: HashSet<u64>,
}

impl Hazards {
    /// Notes a dispatch. Gives whether there must be a barrier before it: where it reads what another wrote, or writes what
    /// another read or wrote.
    fn note(&mut self, args: &[Arg]) -> bool {
        let meets = |arg: &Arg| {
            let id = arg.buffer.id();
            self.written.contains(&id) || arg.does == Does::Write && self.read.contains(&id)
        };
        let barrier = args.iter().any(meets);
        if barrier {
            self.clear();
        }
        for arg in args {
            let set = if arg.does == Does::Write { &mut self.written } else { &mut self.read };
            set.insert(arg.buffer.id());
        }
        barrier
    }

    fn clear(&mut self) {
        self.read.clear();
        self.written.clear();
    }
}

/// A sum `x += y` that was asked for last: a norm of it may do it on its way.
struct Sum {
    launch: Launch,
    x: Arg,
    y: Arg,
    /// Rows and width.
    shape: [u32; 2],
}

/// A device with what it holds.
pub(super) struct Host {
    device: Box<dyn Device>,
    memory: Memory,
    hazards: Hazards,
    /// What was asked for after everything else, and is not yet asked of the device.
    sum: Option<Sum>,
    /// Whether work was asked for that is not done.
    busy: bool,
    constants: HashMap<usize, (Constant, Buffer)>,
    weights: HashMap<(usize, usize), (Buffer, usize)>,
    /// Activations, as many as a pass ever had at a time.
    slots: Vec<Buffer>,
    zeros: Option<Buffer>,
    /// The last one is filled up to a byte; all before are full.
    uploads: Vec<Buffer>,
    uploaded: usize,
    numbers: Vec<f32>,
    /// The kernels that were asked for.
    kernels: BTreeSet<String>,
}

impl Host {
    pub fn new(device: Box<dyn Device>) -> Self {
        let memory = Memory::new(device.about().memory_limit);
        Host {
            device,
            memory,
            hazards: Hazards::default(),
            sum: None,
            busy: false,
            constants: HashMap::new(),
            weights: HashMap::new(),
            slots: Vec::new(),
            zeros: None,
            uploads: Vec::new(),
            uploaded: 0,
            numbers: Vec::new(),
            kernels: BTreeSet::new(),
        }
    }

    pub fn device(&self) -> &dyn Device {
        &*self.device
    }

    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    pub fn kernels(&self) -> &BTreeSet<String> {
        &self.kernels
    }

    /// Readies for a pass: what one that failed left undone is done with, whatever comes of it.
    pub fn begin(&mut self) {
        if let Err(error) = self.finish() {
            tracing::debug!(%error, "what a pass left undone failed");
        }
        self.constants.retain(|_, (constant, _)| !constant.is_last());
        self.weights.retain(|_, (buffer, _)| !buffer.is_orphan());
        self.memory.sweep(&mut *self.device);
    }

    /// A new buffer.
    pub fn buffer(&mut self, bytes: usize, place: Place, what: &'static str) -> Result<Buffer> {
        self.memory.buffer(&mut *self.device, bytes, place, what)
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
                let made = self.memory.weights(&mut *self.device, matrix)?;
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
                self.device.write(buffer.id(), 0, bytes)?;
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
        self.device.write(buffer.id(), at, bytes)?;
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
                self.device.write(zeros.id(), 0, &vec![0; bytes])?;
                Ok(Arg::read(self.zeros.insert(zeros)))
            }
        }
    }

    /// Asks for `x += y`, by a kernel of these two.
    pub fn add(&mut self, launch: Launch, shape: [u32; 2], x: Arg, y: Arg) -> Result<()> {
        self.flush()?;
        self.busy = true;
        self.sum = Some(Sum { launch, x, y, shape });
        Ok(())
    }

    /// Takes back a sum to `x` that was asked for last: `x` and `y`.
    pub fn take_sum(&mut self, shape: [u32; 2], x: &Buffer) -> Option<[Arg; 2]> {
        let sum = self.sum.take_if(|sum| sum.shape == shape && sum.x.buffer.id() == x.id())?;
        Some([sum.x, sum.y])
    }

    fn flush(&mut self) -> Result<()> {
        match self.sum.take() {
            Some(Sum { launch, x, y, .. }) => self.run(&launch, &[x, y]),
            None => Ok(()),
        }
    }

    /// Asks for a kernel.
    pub fn run(&mut self, launch: &Launch, args: &[Arg]) -> Result<()> {
        self.flush()?;
        if launch.groups.contains(&0) {
            return Ok(());
        }
        self.device.prepare(launch)?;
        if self.hazards.note(args) {
            self.device.barrier();
        }
        self.kernels.insert(launch.kernel.to_string());
        let buffers: Vec<_> = args.iter().map(|arg| (arg.buffer.id(), arg.offset)).collect();
        self.busy = true;
        self.device.dispatch(launch, &buffers)
    }

    /// Asks for a copy.
    pub fn copy(&mut self, from: (&Buffer, usize), to: (&Buffer, usize), bytes: usize) -> Result<()> {
        self.flush()?;
        self.busy = true;
        self.hazards.clear();
        self.device.copy((from.0.id(), from.1), (to.0.id(), to.1), bytes)
    }

    /// Waits until all is done.
    pub fn finish(&mut self) -> Result<()> {
        if !self.busy {
            return Ok(());
        }
        let asked = self.flush();
        self.busy = false;
        self.hazards.clear();
        let done = asked.and(self.device.finish());
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
        self.device.read(buffer.id(), 0, bytemuck::cast_slice_mut(&mut self.numbers))?;
        Ok(&self.numbers)
    }
}
