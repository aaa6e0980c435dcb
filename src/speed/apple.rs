//! What the kernels for Apple's GPUs should reach, by the cost model of `docs/metal.md`.
#![forbid(unsafe_code)]

use super::Cost;

/// A chip: what its memory gives, and where it is published, its cores and their clock. Of a name with several chips, the largest.
struct Chip {
    name: &'static str,
    /// Bytes a second, by Apple's specifications.
    read: f64,
    /// Cores of 128 lanes and their clock, by <https://github.com/philipturner/metal-benchmarks>.
    cores: Option<(f64, f64)>,
}

const fn chip(name: &'static str, gigabytes: f64, cores: Option<(f64, f64)>) -> Chip {
    Chip { name, read: gigabytes * 1e9, cores }
}

const CHIPS: &[Chip] = &[
    chip("Apple M1", 68.25, Some((8.0, 1.278e9))),
    chip("Apple M1 Max", 400.0, Some((32.0, 1.296e9))),
    chip("Apple M2", 100.0, Some((10.0, 1.398e9))),
    chip("Apple M2 Max", 400.0, Some((38.0, 1.398e9))),
    chip("Apple M1 Pro", 200.0, None),
    chip("Apple M1 Ultra", 800.0, None),
    chip("Apple M2 Pro", 200.0, None),
    chip("Apple M2 Ultra", 800.0, None),
    chip("Apple M3", 100.0, None),
    chip("Apple M3 Pro", 150.0, None),
    chip("Apple M3 Max", 400.0, None),
    chip("Apple M3 Ultra", 819.0, None),
    chip("Apple M4", 120.0, None),
    chip("Apple M4 Pro", 273.0, None),
    chip("Apple M4 Max", 546.0, None),
];

/// The part of the memory's speed that decoding should reach, and of the multipliers' that prompts should.
const READING: f64 = 0.9;
const MULTIPLYING: f64 = 0.8 * 0.79;

/// The seconds that work of this cost should take on the chip of this name: its reading, or its multiplications, whichever takes
/// longer. `None` where too little is known of the chip.
pub fn seconds(chip: &str, cost: Cost, generation: bool) -> Option<f64> {
    let chip = CHIPS.iter().find(|known| known.name == chip)?;
    let reading = cost.bytes() as f64 / (READING * chip.read);
    let multiplications = cost.codes.saturating_add(cost.floats) as f64;
    match chip.cores {
        Some((cores, clock)) => Some(reading.max(multiplications / (MULTIPLYING * cores * clock * 128.0))),
        None => generation.then_some(reading),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_figures_are_those_of_the_documentation() {
        // Llama 3.1 8B in q4_K_M: 4.92 GB, 8.03 billion weights.
        let cost =
            |tokens: u64| Cost { weights: 4_920_000_000, cache: 0, codes: tokens * 8_030_000_000, floats: 0 };
        let per_second = |chip, tokens: u64, generation| {
            seconds(chip, cost(tokens), generation).map(|time| (tokens as f64 / time).round())
        };
        assert_eq!(per_second("Apple M4", 1, true), Some(22.0));
        assert_eq!(per_second("Apple M1 Max", 1, true), Some(73.0));
        assert_eq!(per_second("Apple M1 Max", 512, false), Some(418.0));
        assert_eq!(per_second("Apple M4", 512, false), None);
        assert_eq!(per_second("Intel Iris", 1, true), None);
    }
}
