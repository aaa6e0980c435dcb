//! What this machine can do at most: read memory, multiply codes, multiply floats.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use gristmill_kernels::limits;
use gristmill_kernels::simd::Level;
use memmap2::MmapMut;

use crate::backend::cpu::cores;
use crate::backend::cpu::threads::Threads;
use crate::{Error, Result};

/// Bytes that are read, of which no usual cache holds much.
const MEMORY: usize = 256 << 20;
/// Bytes of a task, as large as those of decode are.
const TASK: usize = 256 << 10;
/// Tasks of multiplying for each thread, so that one that begins late takes fewer.
const SHARES: usize = 4;
/// Bytes that are repeated where weights are stood in for.
const PATTERN: usize = 1 << 20;
/// How long one run of multiplying takes, about.
const RUN: Duration = Duration::from_millis(8);
/// Runs of which the best counts: what the machine can do, not what was left of it by others.
const RUNS: usize = 12;

/// Rates of this machine, all its threads together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Bytes read from memory in a second, as the loops of decode read weights.
    pub read: f64,
    /// Multiplications of 8-bit codes in a second, added up in registers.
    pub codes: f64,
    /// Multiplications of 32-bit floats in a second, added up in registers.
    pub floats: f64,
    /// Threads that worked.
    pub threads: usize,
    /// The instruction set.
    pub level: Level,
}

impl Machine {
    /// Measures for about half a second: at `level` with `threads` threads, by default as many as a model would have.
    ///
    /// # Errors
    /// [`Error::Threads`], [`Error::OutOfMemory`].
    pub fn measure(level: Level, threads: Option<usize>) -> Result<Self> {
        let yardstick = Yardstick::new(level, threads, MEMORY)?;
        let best = |work: &dyn Fn() -> f64| (0..RUNS).map(|_| work()).fold(0.0, f64::max);
        let (codes, floats) =
            (yardstick.rounds(limits::multiply_codes), yardstick.rounds(limits::multiply_floats));
        Ok(Machine {
            read: best(&|| yardstick.read()),
            codes: best(&|| yardstick.multiply(limits::multiply_codes, codes)),
            floats: best(&|| yardstick.multiply(limits::multiply_floats, floats)),
            threads: yardstick.threads.count(),
            level,
        })
    }

    /// The time that these multiplications take at least.
    pub fn time_to_multiply(&self, codes: u64, floats: u64) -> f64 {
        codes as f64 / self.codes + floats as f64 / self.floats
    }
}

/// Fixed work that only the machine's own speed changes.
pub(super) struct Yardstick {
    level: Level,
    threads: Threads,
    memory: MmapMut,
}

impl Yardstick {
    pub fn new(level: Level, threads: Option<usize>, bytes: usize) -> Result<Self> {
        let threads = Threads::new(threads.unwrap_or_else(cores::default_count))?;
        Ok(Yardstick { level, threads, memory: memory(bytes)? })
    }

    /// Reads the memory once: bytes in a second.
    pub fn read(&self) -> f64 {
        let tasks: Vec<&[u8]> = self.memory.chunks(TASK).collect();
        let took = self.time(tasks.len(), |task| {
            black_box(limits::read(self.level, tasks.get(task).copied().unwrap_or_default()));
        });
        self.memory.len() as f64 / took
    }

    /// Rounds of a task that takes its share of a run.
    pub fn rounds(&self, multiply: fn(Level, u64) -> u64) -> u64 {
        let least = RUN.as_secs_f64() / SHARES as f64;
        let mut rounds = 64;
        loop {
            let began = Instant::now();
            multiply(self.level, rounds);
            if began.elapsed().as_secs_f64() >= least / 2.0 || rounds > 1 << 40 {
                return rounds;
            }
            rounds *= 2;
        }
    }

    /// Rounds of a task where all tasks of a run together multiply about `count` times.
    pub fn rounds_for(&self, multiply: fn(Level, u64) -> u64, count: u64) -> u64 {
        let tasks = (SHARES * self.threads.count()) as u64;
        (count / multiply(self.level, 1).saturating_mul(tasks).max(1)).max(1)
    }

    /// Multiplications in a second.
    pub fn multiply(&self, multiply: fn(Level, u64) -> u64, rounds: u64) -> f64 {
        let tasks = SHARES * self.threads.count();
        let took = self.time(tasks, |_| {
            black_box(multiply(self.level, rounds));
        });
        (multiply(self.level, 1) * rounds) as f64 * tasks as f64 / took
    }

    /// Seconds that the tasks take on all threads.
    fn time(&self, tasks: usize, job: impl Fn(usize) + Sync) -> f64 {
        self.threads.enter(|team| {
            // The helpers wake.
            team.run(team.count(), &|_, _| ());
            let began = Instant::now();
            team.run(tasks, &|task, _| job(task));
            began.elapsed().as_secs_f64().max(1e-9)
        })
    }
}

/// Bytes as weights have them, in memory of pages as mapped files have. In every format they are numbers that are neither
/// tiny, huge nor missing, so that no processor takes its slow way: each byte is 3 or 11 in its upper half.
pub(crate) fn memory(bytes: usize) -> Result<MmapMut> {
    let out = |_| Error::OutOfMemory { what: "memory to measure with", bytes: bytes as u64 };
    let mut memory = MmapMut::map_anon(bytes.max(1)).map_err(out)?;
    #[cfg(target_os = "linux")]
    if let Err(error) = memory.advise(memmap2::Advice::NoHugePage) {
        tracing::debug!(%error, "the system may give large pages, which files do not have");
    }
    let mut state = 1_u64;
    let (begin, rest) = memory.split_at_mut(PATTERN.min(bytes.max(1)));
    for bytes in begin.as_chunks_mut::<8>().0 {
        *bytes = (random(&mut state) & 0x8F8F_8F8F_8F8F_8F8F | 0x3030_3030_3030_3030).to_le_bytes();
    }
    for bytes in rest.chunks_mut(PATTERN) {
        bytes.copy_from_slice(begin.get(..bytes.len()).unwrap_or_default());
    }
    Ok(memory)
}

/// The next of a sequence of random numbers, by Knuth's MMIX generator; its upper bits are the good ones.
pub(super) fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state
}

#[cfg(test)]
mod tests {
    use gristmill_kernels::quant::{GgmlType, dequantize_row};

    use super::*;

    #[test]
    fn every_format_finds_usual_numbers_in_the_memory() {
        let memory = memory(1 << 16).unwrap();
        // F64, which no model's matrices have, reaches further down than F32 does.
        for ty in GgmlType::COMPUTABLE.iter().filter(|ty| **ty != GgmlType::F64) {
            let len = ty.block_len() * 64;
            let mut weights = vec![0.0; len];
            dequantize_row(*ty, &memory[..ty.row_bytes(len).unwrap()], &mut weights).unwrap();
            let tiny = weights.iter().filter(|weight| weight.is_subnormal()).count();
            assert!(weights.iter().all(|weight| weight.is_finite()) && tiny == 0, "{ty}: {tiny} subnormal");
            assert!(weights.iter().any(|&weight| weight != 0.0), "{ty}");
        }
    }

    #[test]
    fn a_machine_has_rates() {
        let machine = Machine::measure(Level::detect(), Some(1)).unwrap();
        for rate in [machine.read, machine.codes, machine.floats] {
            assert!(rate.is_finite() && rate > 0.0, "{machine:?}");
        }
        let machine = Machine { codes: 100.0, floats: 10.0, ..machine };
        assert!((machine.time_to_multiply(50, 20) - 2.5).abs() < 1e-12);
    }
}
