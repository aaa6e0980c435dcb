//! What this machine can do at most: read a mapped file, multiply bytes, multiply floats.

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use gristmill_kernels::limits;
use gristmill_kernels::simd::Level;
use memmap2::Mmap;

/// Bytes of the file: eight times a last-level cache of 32 MiB.
const FILE: usize = 256 << 20;
const ROUNDS: u64 = 2_000_000;
const RUNS: usize = 15;

/// Names and figures.
pub fn measure(level: Level) -> Vec<(&'static str, String)> {
    let map = file();
    // The best of some runs: what it can do at most, not what was left of it by others.
    let best = |work: &dyn Fn() -> f64| {
        let rates = (0..RUNS).map(|_| rate(work));
        format!("{:.1}", rates.fold(0.0, f64::max) / 1e9)
    };
    let shared = |threads: usize| {
        best(&|| {
            std::thread::scope(|scope| {
                for part in map.chunks(map.len() / threads) {
                    scope.spawn(|| black_box(limits::read(level, part)));
                }
            });
            map.len() as f64
        })
    };
    vec![
        ("reading a mapped file, loads with prefetch, GB/s", shared(1)),
        ("the same, two threads, GB/s", shared(2)),
        (
            "byte multiplications, added up in registers, GMAC/s",
            best(&|| limits::multiply_codes(level, ROUNDS) as f64),
        ),
        (
            "float multiplications, added up in registers, GMAC/s",
            best(&|| limits::multiply_floats(level, ROUNDS) as f64),
        ),
    ]
}

/// What `work` counts, by second.
fn rate(work: &dyn Fn() -> f64) -> f64 {
    let began = Instant::now();
    let amount = work();
    amount / began.elapsed().as_secs_f64()
}

/// A mapped file without a name, in the page cache.
fn file() -> Mmap {
    let path = std::env::temp_dir().join(format!("gristmill-kernels-{}", std::process::id()));
    let mut file = std::fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    std::fs::remove_file(&path).unwrap();
    let piece: Vec<u8> = (0..1 << 20).map(|i| (i * 31 % 251) as u8).collect();
    (0..FILE / piece.len()).for_each(|_| file.write_all(&piece).unwrap());
    // SAFETY: the file has no name any more, so that nobody else changes or truncates it.
    unsafe { Mmap::map(&file) }.unwrap()
}
