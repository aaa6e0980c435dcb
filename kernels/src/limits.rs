//! What a processor can do at most: read memory, multiply codes, multiply floats. Yardsticks to hold products against.

use core::hint::black_box;

use crate::dispatch::Task;
use crate::gemv::ahead;
use crate::simd::amx::Amx;
use crate::simd::{Isa, Level};

/// Bytes that are read of one place before the next one's turn.
const TURN: usize = 512;

/// Reads all of `bytes` as the loops of decode read weights: 32 bytes at a time, prefetched, from [`Level::streams`] places by
/// turns. Gives a sum, so that the reading is not left out.
pub fn read(level: Level, bytes: &[u8]) -> u8 {
    level.run(Read { bytes, streams: level.streams() })
}

/// Multiplies codes of 8 bits in registers, `rounds` times over, and gives how many multiplications that was. On levels
/// with a matrix product for vectors these are their dot products still; a matrix unit multiplies its matrices.
pub fn multiply_codes(level: Level, rounds: u64) -> u64 {
    if let Some(mut unit) = Amx::of(level) {
        return unit.multiply(rounds);
    }
    level.run(Codes(rounds))
}

/// Multiplies and adds floats of 32 bits in registers, `rounds` times over, and gives how many multiplications that was.
pub fn multiply_floats(level: Level, rounds: u64) -> u64 {
    level.run(Floats(rounds))
}

struct Read<'a> {
    bytes: &'a [u8],
    streams: usize,
}

impl Task for Read<'_> {
    type Output = u8;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> u8 {
        let mut sums = [isa.splat_byte(0); 4];
        let (turns, rest) = self.bytes.as_chunks::<TURN>();
        let apart = turns.len() / self.streams;
        let (by_turns, left) = turns.split_at(apart * self.streams);
        for i in 0..apart {
            for stream in by_turns.chunks_exact(apart) {
                sums = read_turn(isa, &stream[i], sums, self.streams);
            }
        }
        for turn in left {
            sums = read_turn(isa, turn, sums, 1);
        }
        let mut sum = rest.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        for lane in sums {
            let mut bytes = [0; 32];
            isa.store_bytes(lane, &mut bytes);
            sum = bytes.iter().fold(sum, |sum, byte| sum.wrapping_add(*byte));
        }
        sum
    }
}

#[inline(always)]
fn read_turn<I: Isa>(isa: I, turn: &[u8; TURN], mut sums: [I::Bytes; 4], streams: usize) -> [I::Bytes; 4] {
    for line in turn.as_chunks::<128>().0 {
        let parts = line.as_chunks::<32>().0;
        for i in 0..4 {
            sums[i] = isa.add_bytes(sums[i], isa.bytes(&parts[i]));
        }
        isa.prefetch(line.as_ptr(), ahead(streams));
        isa.prefetch(line.as_ptr(), ahead(streams) + 64);
    }
    sums
}

struct Codes(u64);

impl Task for Codes {
    type Output = u64;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> u64 {
        // As many sums as registers hold: more than latency times throughput.
        if I::COLUMNS == 8 { codes::<I, 12>(isa, self.0) } else { codes::<I, 4>(isa, self.0) }
    }
}

#[inline(always)]
fn codes<I: Isa, const SUMS: usize>(isa: I, rounds: u64) -> u64 {
    let w = isa.row_codes(black_box(&[[1; 4]; 16]));
    let mut sums = [isa.no_sums(); SUMS];
    for _ in 0..rounds {
        // Asked for anew in each round: the compiler does not know that it is always the same.
        let x = black_box([-1; 4]);
        for sum in &mut sums {
            *sum = isa.add_products(*sum, w, x);
        }
    }
    for sum in sums {
        let mut floats = [0.0; 16];
        isa.store_row_floats(isa.row_ints_to_floats(isa.widen_sums(sum)), &mut floats);
        black_box(floats);
    }
    rounds * (SUMS * 64) as u64
}

struct Floats(u64);

impl Task for Floats {
    type Output = u64;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> u64 {
        if I::COLUMNS == 8 { floats::<I, 12>(isa, self.0) } else { floats::<I, 5>(isa, self.0) }
    }
}

#[inline(always)]
fn floats<I: Isa, const SUMS: usize>(isa: I, rounds: u64) -> u64 {
    let a = isa.row_floats(black_box(&[0.5; 16]));
    let mut sums = [isa.splat_row_floats(0.0); SUMS];
    for _ in 0..rounds {
        let b = isa.splat_row_floats(black_box(0.25));
        for sum in &mut sums {
            *sum = isa.fma_row_floats(a, b, *sum);
        }
    }
    for sum in sums {
        let mut floats = [0.0; 16];
        isa.store_row_floats(sum, &mut floats);
        black_box(floats);
    }
    rounds * (SUMS * 16) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_read_at_every_level() {
        let bytes: [u8; 1003] = core::array::from_fn(|i| (i * 7 % 251) as u8);
        let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        for level in Level::available() {
            for len in [0, 1, 127, 128, 1003] {
                assert_eq!(read(level, &bytes[..len]), sum(&bytes[..len]), "{level}, {len} bytes");
            }
        }
    }

    #[test]
    fn multiplications_are_counted_by_rounds() {
        for level in Level::available() {
            for multiply in [multiply_codes, multiply_floats] {
                let one = multiply(level, 1);
                assert!(one > 0);
                assert_eq!((multiply(level, 0), multiply(level, 50)), (0, 50 * one), "{level}");
            }
        }
    }
}
