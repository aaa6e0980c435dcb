//! The random numbers: xoshiro256++ (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021;
//! <https://prng.di.unimi.it/xoshiro256plusplus.c>), its state filled by SplitMix64 as its authors advise.
//!
//! Own code rather than a crate, because the stream is a promise of ours: a seed must give the same text with every
//! version of this library. The crates that hold this generator have changed, between versions, what a seed gives
//! (`rand_xoshiro` did so for `seed_from_u64`), and do not promise otherwise.

/// A xoshiro256++ generator.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: [u64; 4],
}

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut counter = seed;
        // SplitMix64 visits each value once, so the four are never all zero, which xoshiro could not leave.
        Random { state: std::array::from_fn(|_| split_mix(&mut counter)) }
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number in `[0, 1)`: one of the 2^53 multiples of 2^-53, each as likely.
    pub fn unit(&mut self) -> f64 {
        const STEP: f64 = 1.0 / (1u64 << 53) as f64;
        (self.next() >> 11) as f64 * STEP
    }
}

/// SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>).
fn split_mix(counter: &mut u64) -> u64 {
    *counter = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *counter;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The vectors of both tests are from the authors' C programs, by way of rand_xoshiro 0.8.1.
    #[test]
    fn xoshiro_gives_the_numbers_of_the_reference() {
        let mut random = Random { state: [1, 2, 3, 4] };
        let expected = [
            41943041,
            58720359,
            3588806011781223,
            3591011842654386,
            9228616714210784205,
            9973669472204895162,
            14011001112246962877,
            12406186145184390807,
            15849039046786891736,
            10450023813501588000,
        ];
        assert_eq!(expected.map(|_| random.next()), expected);
    }

    #[test]
    fn split_mix_gives_the_numbers_of_the_reference() {
        let mut counter = 1477776061723855037;
        let expected = [
            1985237415132408290,
            2979275885539914483,
            13511426838097143398,
            8488337342461049707,
            15141737807933549159,
        ];
        assert_eq!(expected.map(|_| split_mix(&mut counter)), expected);
    }

    #[test]
    fn units_are_below_one_at_the_extremes() {
        // Makes the next number 2^64 - 1: rotl(a + d, 23) + a with a = 0 and d all ones.
        let mut random = Random { state: [0, 0, 0, u64::MAX] };
        assert_eq!(random.unit(), 1.0 - f64::EPSILON / 2.0);
        let mut random = Random { state: [0, 1, 0, 0] };
        assert_eq!(random.unit(), 0.0);
    }
}
