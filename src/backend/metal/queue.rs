//! The work that a device is asked for, in its order: with barriers where one depends on another, and with a sum that is held
//! back for a norm that may do it on its way.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashSet};

use gristmill_kernels::metal::Launch;

use super::device::Device;
use super::memory::Buffer;
use crate::Result;

/// What a kernel does with a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Does {
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

/// A sum `x += y`, by a kernel of these two.
pub(super) struct Sum {
    pub launch: Launch,
    pub x: Arg,
    pub y: Arg,
    /// Rows and width.
    pub shape: [u32; 2],
}

/// What a device may be asked for.
pub(super) enum Work<'a> {
    Kernel(&'a Launch, &'a [Arg]),
    /// Held back until it is known what comes next: a norm of it may do it on its way.
    Sum(Sum),
    /// Bytes from one place to another.
    Copy([(&'a Buffer, usize); 2], usize),
    /// That all is done.
    Finish,
}

/// A device and what it was asked for.
pub(super) struct Queue {
    device: Box<dyn Device>,
    hazards: Hazards,
    /// What was asked for after everything else, and is not yet asked of the device.
    held: Option<Sum>,
    /// Whether work was asked for that is not done.
    busy: bool,
    /// The kernels that were asked for.
    kernels: BTreeSet<String>,
}

impl Queue {
    pub fn new(device: Box<dyn Device>) -> Self {
        Queue { device, hazards: Hazards::default(), held: None, busy: false, kernels: BTreeSet::new() }
    }

    /// The device, for its buffers; for work there is [`Queue::ask`].
    pub fn device(&mut self) -> &mut dyn Device {
        &mut *self.device
    }

    pub fn kernels(&self) -> &BTreeSet<String> {
        &self.kernels
    }

    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Takes back a sum to `x` that was asked for last: `x` and `y`.
    pub fn take_sum(&mut self, shape: [u32; 2], x: &Buffer) -> Option<[Arg; 2]> {
        let sum = self.held.take_if(|sum| sum.shape == shape && sum.x.buffer.id() == x.id())?;
        Some([sum.x, sum.y])
    }

    /// Asks for work. There is no other way, so that a sum that is held back comes before it, whatever it is.
    pub fn ask(&mut self, work: Work<'_>) -> Result<()> {
        let before = match self.held.take() {
            Some(Sum { launch, x, y, .. }) => self.dispatch(&launch, &[x, y]),
            None => Ok(()),
        };
        self.busy = !matches!(work, Work::Finish);
        match work {
            Work::Kernel(launch, args) => before.and_then(|()| self.dispatch(launch, args)),
            Work::Sum(sum) => before.map(|()| self.held = Some(sum)),
            Work::Copy([from, to], bytes) => before.and_then(|()| {
                self.hazards.clear();
                self.device.copy((from.0.id(), from.1), (to.0.id(), to.1), bytes)
            }),
            Work::Finish => {
                self.hazards.clear();
                // Also where the sum could not be asked for: other work is under way.
                before.and(self.device.finish())
            }
        }
    }

    fn dispatch(&mut self, launch: &Launch, args: &[Arg]) -> Result<()> {
        if launch.groups.contains(&0) {
            return Ok(());
        }
        self.device.prepare(launch)?;
        if self.hazards.note(args) {
            self.device.barrier();
        }
        self.kernels.insert(launch.kernel.to_string());
        let buffers: Vec<_> = args.iter().map(|arg| (arg.buffer.id(), arg.offset)).collect();
        self.device.dispatch(launch, &buffers)
    }
}
