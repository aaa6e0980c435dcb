//! Numbers for tests: random, the same every time, and blocks of every format.

use gristmill_kernels::quant::{GgmlType, dequantize_row};

/// The relative error of one rounding to single precision.
pub const ROUNDING: f64 = 1.0 / (1u64 << 24) as f64;

/// Random numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// Between -1 and 1.
    pub fn float(&mut self) -> f32 {
        ((self.bits() >> 40) as f32 / (1 << 23) as f32) - 1.0
    }

    pub fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.bits() as u8).collect()
    }

    /// Rows of weights whose codes are any, and whose scales are of moderate size.
    pub fn weights(&mut self, ty: GgmlType, len: usize, rows: usize) -> Vec<u8> {
        let mut bytes = self.bytes(ty.row_bytes(len).unwrap() * rows);
        for block in bytes.chunks_exact_mut(ty.block_bytes()) {
            match ty {
                GgmlType::F32 | GgmlType::Q8_K => block[..4].copy_from_slice(&self.float().to_le_bytes()),
                GgmlType::F64 => block.copy_from_slice(&f64::from(self.float()).to_le_bytes()),
                GgmlType::BF16 => block.copy_from_slice(&self.float().to_le_bytes()[2..]),
                // An exponent from 2^-7 to 2^7.
                GgmlType::MXFP4 => block[0] = 120 + block[0] % 15,
                // The upper bits of its scale: from 2^-7 to 2.
                GgmlType::IQ1_M => block[55] = block[55] & 0x8f | 0x20,
                _ => {
                    for half in halves(ty) {
                        // An exponent from 2^-7 to 2^8, and any sign and mantissa.
                        block[half + 1] = block[half + 1] & 0x83 | ((8 + self.below(16) as u8) << 2);
                    }
                }
            }
        }
        bytes
    }
}

/// Where the half-precision scales of a block lie.
fn halves(ty: GgmlType) -> &'static [usize] {
    use GgmlType::*;
    match ty {
        Q4_1 | Q5_1 | Q8_1 | Q4_K | Q5_K => &[0, 2],
        Q2_K => &[80, 82],
        Q3_K => &[108],
        Q6_K => &[208],
        TQ1_0 => &[52],
        TQ2_0 => &[64],
        I8 | I16 | I32 | I64 | NVFP4 => &[],
        _ => &[0],
    }
}

/// The most that offset or minimum of a block can come to.
fn offset(ty: GgmlType, block: &[u8]) -> f64 {
    use GgmlType::*;
    // Which of the scales, and times what.
    let (which, times) = match ty {
        Q4_0 => (0, 8.0),
        Q5_0 => (0, 16.0),
        Q4_1 | Q5_1 => (1, 1.0),
        Q2_K => (1, 15.0),
        Q4_K | Q5_K => (1, 63.0),
        Q3_K => (0, 4.0 * 32.0),
        Q6_K => (0, 32.0 * 128.0),
        TQ1_0 | TQ2_0 | Q1_0 | Q2_0 => (0, 1.0),
        _ => return 0.0,
    };
    let at = halves(ty)[which];
    times * f64::from(half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32().abs())
}

/// Rows of floats from rows of weights.
pub fn dequantized(ty: GgmlType, bytes: &[u8], len: usize) -> Vec<Vec<f32>> {
    let rows = bytes.chunks_exact(ty.row_bytes(len).unwrap());
    rows.map(|row| {
        let mut out = vec![0.0; len];
        dequantize_row(ty, row, &mut out).unwrap();
        out
    })
    .collect()
}

/// How large the numbers are whose sum a weight is: itself, and what offset and minimum add and take away.
pub fn magnitudes(ty: GgmlType, bytes: &[u8], len: usize) -> Vec<Vec<f64>> {
    let rows = bytes.chunks_exact(ty.row_bytes(len).unwrap());
    rows.zip(dequantized(ty, bytes, len))
        .map(|(row, weights)| {
            let offsets: Vec<f64> =
                row.chunks_exact(ty.block_bytes()).map(|block| offset(ty, block)).collect();
            let weights = weights.iter().enumerate();
            weights.map(|(i, w)| f64::from(w.abs()) + 2.0 * offsets[i / ty.block_len()]).collect()
        })
        .collect()
}
