//! Rows of weights of every kind, the same on every machine.

/// Numbers from the bits of a counter (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform between -1 and 1.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    }

    /// Roughly normal, with a standard deviation of 1.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() / 2.0
    }
}

/// How the weight of a place is made.
pub type Kind = fn(&mut Random, usize) -> f32;

/// Kinds of rows: like those of models, and such that lead every search astray that can be.
pub const KINDS: &[(&str, Kind)] = &[
    ("normal", |random, _| random.normal() * 0.02),
    ("uniform", |random, _| random.unit()),
    ("heavy tails", |random, _| random.normal().powi(3) * 0.1),
    ("zeros", |_, _| 0.0),
    ("zeros of both signs", |_, i| if i.is_multiple_of(2) { -0.0 } else { 0.0 }),
    ("constant", |_, _| 0.37),
    ("negative constant", |_, _| -0.37),
    ("positive", |random, _| random.unit().abs() + 0.1),
    ("negative", |random, _| -random.unit().abs() - 0.1),
    ("few", |random, i| if i.is_multiple_of(37) { random.normal() } else { 0.0 }),
    ("one outlier", |random, i| if i % 256 == 100 { 1000.0 } else { random.normal() * 0.01 }),
    ("ternary", |random, _| (random.next() % 3) as f32 - 1.0),
    ("whole", |random, _| (random.next() % 15) as f32 - 7.0),
    ("tiny", |random, _| random.normal() * 1e-12),
    ("below what counts", |random, _| random.normal() * 1e-18),
    ("denormal", |random, _| random.normal() * 1e-40),
    ("of all sizes", |random, _| random.normal() * 10_f32.powi((random.next() % 16) as i32 - 12)),
    ("large", |random, _| random.normal() * 1e6),
    ("beyond half precision", |random, _| random.normal() * 1e10),
    ("ramp", |_, i| i as f32 * 0.001 - 0.5),
    ("powers of two", |random, _| {
        2_f32.powi((random.next() % 20) as i32 - 10)
            * if random.next().is_multiple_of(2) { 1.0 } else { -1.0 }
    }),
    ("zeros between", |random, i| if (i / 16).is_multiple_of(2) { 0.0 } else { random.normal() }),
    ("groups of zeros", |random, i| if (i / 32).is_multiple_of(3) { 0.0 } else { random.normal() }),
    ("enormous", |random, _| random.normal() * 1e19),
    ("the largest", |random, _| random.unit() * 3e38),
];
