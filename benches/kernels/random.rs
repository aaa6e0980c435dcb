//! Random weights, the same in every run.

use gristmill_kernels::quant::{GgmlType, dequantize_row};

/// A generator of random numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// 64 random bits.
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

    /// A block of random bits whose weights are of the size that weights have, not NaN nor as large as 10^38; `None` for
    /// types that have none such, or no weights.
    pub fn block(&mut self, ty: GgmlType) -> Option<Vec<u8>> {
        let mut weights = vec![0.0_f32; ty.block_len()];
        for _ in 0..100_000 {
            let bytes: Vec<u8> = (0..ty.block_bytes()).map(|_| (self.next() >> 56) as u8).collect();
            dequantize_row(ty, &bytes, &mut weights).ok()?;
            let largest = weights.iter().fold(0.0_f32, |largest, w| largest.max(w.abs()));
            if weights.iter().all(|w| w.is_finite()) && (1e-3..1.0).contains(&largest) {
                return Some(bytes);
            }
        }
        None
    }
}
