//! What this machine can do at most: read a mapped file, multiply bytes, multiply floats.

/// Names and figures; empty where nothing is known of the processor.
#[cfg(not(target_arch = "x86_64"))]
pub fn measure() -> Vec<(&'static str, String)> {
    Vec::new()
}

#[cfg(target_arch = "x86_64")]
pub use x86::measure;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;
    use std::io::Write;
    use std::time::Instant;

    use memmap2::Mmap;

    /// Bytes of the file: eight times a last-level cache of 32 MiB.
    const FILE: usize = 256 << 20;
    /// How far ahead of the loads to prefetch: some 4 KiB, where decode loops did best.
    const AHEAD: usize = 4096;
    const LOOPS: u64 = 2_000_000;
    const RUNS: usize = 15;

    pub fn measure() -> Vec<(&'static str, String)> {
        if !is_x86_feature_detected!("avx2") || !is_x86_feature_detected!("fma") {
            return Vec::new();
        }
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
                        // SAFETY: the processor was just found to have AVX2 and FMA.
                        scope.spawn(|| unsafe { read(part) });
                    }
                });
                map.len() as f64
            })
        };
        let mut limits = vec![
            ("reading a mapped file, AVX2 loads with prefetch, GB/s", shared(1)),
            ("the same, two threads, GB/s", shared(2)),
        ];
        let bytes = best(&|| {
            // SAFETY: the processor was just found to have AVX2 and FMA.
            unsafe { multiply_bytes() };
            (LOOPS * 8 * 32) as f64
        });
        limits.push(("byte multiplications, AVX2 (maddubs and add16 in registers), GMAC/s", bytes));
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
            let bytes = best(&|| {
                // SAFETY: the processor was just found to have AVX-512 and VNNI.
                unsafe { multiply_bytes_by_fours() };
                (LOOPS * 10 * 64) as f64
            });
            limits.push(("byte multiplications, AVX-512 (vpdpbusd in registers), GMAC/s", bytes));
        }
        let floats = best(&|| {
            // SAFETY: the processor was just found to have AVX2 and FMA.
            unsafe { multiply_floats() };
            (LOOPS * 10 * 8) as f64
        });
        limits.push(("float multiplications, AVX2 (fma in registers), GMAC/s", floats));
        limits
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

    #[target_feature(enable = "avx2")]
    fn read(bytes: &[u8]) {
        let mut sums = [_mm256_setzero_si256(); 4];
        for lines in bytes.as_chunks::<128>().0 {
            let start = lines.as_ptr();
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: four loads of 32 bytes, of 128 that are there.
                let load = unsafe { _mm256_loadu_si256(start.add(32 * i).cast()) };
                *sum = _mm256_xor_si256(*sum, load);
            }
            _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(AHEAD).cast());
            _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(AHEAD + 64).cast());
        }
        black_box(sums);
    }

    /// Eight multiplications of 32 bytes each a loop.
    #[target_feature(enable = "avx2")]
    fn multiply_bytes() {
        let a = [1, 2, 3, 4].map(|x| _mm256_set1_epi8(black_box(x)));
        let mut sums = [_mm256_setzero_si256(); 8];
        let b = [_mm256_set1_epi8(1), _mm256_set1_epi8(-1)];
        for _ in 0..LOOPS {
            // Read anew in each loop: the compiler does not know that it is always the same.
            let b = *black_box(&b);
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(a[i % 4], b[i / 4]));
            }
        }
        black_box(sums);
    }

    /// Ten multiplications of 64 bytes each a loop, added by fours to integers of 32 bits.
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn multiply_bytes_by_fours() {
        let mut sums = [_mm512_setzero_si512(); 10];
        let a = _mm512_set1_epi8(black_box(3));
        for _ in 0..LOOPS {
            // Read anew in each loop: the compiler does not know that it is always the same.
            let b = *black_box(&_mm512_set1_epi8(-1));
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }

    /// Ten multiplications of 8 floats each a loop: more than latency times throughput.
    #[target_feature(enable = "avx2,fma")]
    fn multiply_floats() {
        let (a, b) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
        let mut sums = [_mm256_setzero_ps(); 10];
        for _ in 0..LOOPS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(a, b, *sum);
            }
        }
        black_box(sums);
    }
}
