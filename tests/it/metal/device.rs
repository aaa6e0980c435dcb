//! The emulator as a device, and the faults that a device, or who drives it, could have.

use std::sync::{Arc, Mutex};

use gristmill::metal::{About, Device, Place};
use gristmill::{Error, Result};
use gristmill_kernels::metal::Launch;

use super::emulator::{Buffer, Emulator};

/// What is wrong on purpose.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Fault {
    None,
    /// The barrier of this number is left out.
    Barrier(usize),
    /// This dispatch's results go a little further on.
    Offset(usize),
    /// A threadgroup is missing of this dispatch.
    Grid(usize),
    /// The first two buffers of this dispatch are exchanged; of a sum, which does not tell them apart, the second and the third.
    Order(usize),
    /// This upload never arrives: what lay there before is used, zeros in new memory.
    Stale(usize),
    /// No further work can be done from this dispatch on.
    Broken(usize),
    /// More bytes than so many at a time cannot be read back.
    Unread(usize),
}

/// What was asked of a device.
#[derive(Default, Debug)]
pub struct Asked {
    pub barriers: usize,
    pub dispatches: Vec<String>,
    pub writes: usize,
    pub copies: usize,
    pub finishes: usize,
    /// Bytes that only the device has to read and write.
    pub private: usize,
    /// Bytes that the host read.
    pub read: usize,
}

/// What was asked for and not begun: as on a device, what the host writes meanwhile is there before.
enum Work {
    Dispatch(Box<Launch>, Vec<(Buffer, usize)>),
    Barrier,
    Copy((u64, usize), (u64, usize), usize),
}

pub struct Emulated {
    emulator: Emulator,
    encoded: Vec<Work>,
    about: About,
    kernels: Vec<String>,
    fault: Fault,
    asked: Arc<Mutex<Asked>>,
    /// Four bytes to be read where only the order matters.
    probe: Buffer,
}

impl Emulated {
    /// `None` where there is no compiler for it.
    pub fn new(seed: u64, memory: u64, fault: Fault, asked: Arc<Mutex<Asked>>) -> Option<Self> {
        let mut emulator = Emulator::new()?;
        emulator.seed(seed);
        let about = About {
            name: "emulator".into(),
            system: "none".into(),
            memory,
            memory_limit: memory,
            buffer_limit: memory / 2,
        };
        let (kernels, probe) = (emulator.kernels(), emulator.room(4));
        Some(Emulated { emulator, encoded: Vec::new(), about, kernels, fault, asked, probe })
    }
}

fn failed(said: String) -> Error {
    Error::Device { doing: "emulated", said }
}

impl Device for Emulated {
    fn about(&self) -> &About {
        &self.about
    }

    fn allocate(&mut self, bytes: usize, place: Place) -> Result<u64> {
        if place == Place::Private {
            self.asked.lock().unwrap().private += bytes;
        }
        self.emulator.try_room(bytes).map(|buffer| buffer.0).map_err(failed)
    }

    unsafe fn window(&mut self, bytes: &[u8]) -> Result<Option<(u64, usize)>> {
        // A window begins somewhat before, as at the border of a page.
        let before = bytes.as_ptr() as usize % 64;
        let buffer = self.emulator.try_room(before + bytes.len()).map_err(failed)?;
        self.emulator.write(buffer, before, bytes);
        Ok(Some((buffer.0, before)))
    }

    fn free(&mut self, buffer: u64) {
        self.emulator.free(Buffer(buffer));
    }

    fn write(&mut self, buffer: u64, offset: usize, bytes: &[u8]) -> Result<()> {
        let mut asked = self.asked.lock().unwrap();
        asked.writes += 1;
        if self.fault != Fault::Stale(asked.writes) {
            self.emulator.write(Buffer(buffer), offset, bytes);
            return Ok(());
        }
        // The emulator's new memory would not do: kernels take a row beyond the end for the last one, which may be the right one.
        let before = self.emulator.try_read_at(Buffer(buffer), offset, bytes.len()).map_err(failed)?;
        if before.iter().all(|&byte| byte == 0xFF) {
            self.emulator.write(Buffer(buffer), offset, &vec![0; bytes.len()]);
        }
        Ok(())
    }

    fn read(&mut self, buffer: u64, offset: usize, to: &mut [u8]) -> Result<()> {
        if matches!(self.fault, Fault::Unread(most) if to.len() > most) {
            return Err(failed("unread".into()));
        }
        let bytes = self.emulator.try_read_at(Buffer(buffer), offset, to.len()).map_err(failed)?;
        to.copy_from_slice(&bytes);
        self.asked.lock().unwrap().read += to.len();
        Ok(())
    }

    fn prepare(&mut self, launch: &Launch) -> Result<()> {
        let name = launch.kernel.to_string();
        match self.kernels.contains(&name) {
            true => Ok(()),
            false => Err(failed(format!("no kernel {name}"))),
        }
    }

    fn dispatch(&mut self, launch: &Launch, buffers: &[(u64, usize)]) -> Result<()> {
        let mut asked = self.asked.lock().unwrap();
        asked.dispatches.push(launch.kernel.to_string());
        let number = asked.dispatches.len();
        let mut launch = *launch;
        let mut buffers: Vec<_> = buffers.iter().map(|&(id, offset)| (Buffer(id), offset)).collect();
        match self.fault {
            Fault::Offset(n) if n == number => buffers.last_mut().unwrap().1 += 4,
            Fault::Grid(n) if n == number => {
                let most = (0..3).max_by_key(|&i| launch.groups[i]).unwrap();
                launch.groups[most] -= 1;
            }
            Fault::Order(n) if n == number => {
                let first = usize::from(launch.kernel.to_string() == "add_rms_norm");
                buffers.swap(first, first + 1);
            }
            Fault::Broken(n) if n <= number => return Err(failed("broken".into())),
            _ => (),
        }
        if !launch.groups.contains(&0) {
            self.encoded.push(Work::Dispatch(Box::new(launch), buffers));
        }
        Ok(())
    }

    fn barrier(&mut self) {
        let mut asked = self.asked.lock().unwrap();
        asked.barriers += 1;
        if self.fault != Fault::Barrier(asked.barriers) {
            self.encoded.push(Work::Barrier);
        }
    }

    fn copy(&mut self, from: (u64, usize), to: (u64, usize), bytes: usize) -> Result<()> {
        self.asked.lock().unwrap().copies += 1;
        self.encoded.push(Work::Copy(from, to, bytes));
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.asked.lock().unwrap().finishes += 1;
        for work in std::mem::take(&mut self.encoded) {
            match work {
                Work::Dispatch(launch, buffers) => self.emulator.dispatch(&launch, &buffers),
                Work::Barrier => self.emulator.barrier(),
                Work::Copy(from, to, bytes) => {
                    let moved = self.emulator.try_read_at(Buffer(from.0), from.1, bytes).map_err(failed)?;
                    self.emulator.write(Buffer(to.0), to.1, &moved);
                }
            }
        }
        self.emulator.try_read(self.probe, 4).map(drop).map_err(failed)
    }
}
