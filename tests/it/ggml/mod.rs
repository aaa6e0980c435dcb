//! Ours beside ggml's: the same bytes through both, in one process.
//!
//! The reference is the ggml that is linked, whose version is [`ggml::version`]: 0.26.0 with the source that Cargo.lock
//! pins. The comparisons walk [`GgmlType::COMPUTABLE`], so that a new format is judged without being named here.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests, which may fail as tests do"
)]

mod backend;
mod dequantize;
mod encode;
mod files;
mod products;
mod rows;

use std::sync::LazyLock;

use gristmill::ggml;
use gristmill_kernels::quant::GgmlType;

/// A small generator of random numbers (splitmix64), so that every run sees the same blocks.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 56) as u8).collect()
    }

    /// Uniform between -1 and 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    }

    /// Roughly normal, with a standard deviation of 1: weights of real models look so.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() / 2.0
    }
}

/// Rows of the matrices below, and weights in a row.
const ROWS: usize = 16;
const COLS: usize = 512;

/// `ROWS` rows of roughly normal weights in type `ty`, as ggml quantizes them; `None` where it has no quantizer.
///
/// Made once for all tests: ggml takes seconds to build the tables of its IQ quantizers.
fn quantized(ty: GgmlType) -> Option<&'static [u8]> {
    static ALL: LazyLock<Vec<Option<Vec<u8>>>> = LazyLock::new(|| {
        let mut random = Random(1);
        let values: Vec<f32> = (0..ROWS * COLS).map(|_| random.normal()).collect();
        let importance: Vec<f32> = (0..COLS).map(|_| random.unit().abs() + 0.1).collect();
        let quantize = |&ty: &GgmlType| {
            let importance = ggml::needs_importance(ty).then_some(&*importance);
            match ggml::quantize(ty, &values, COLS, importance) {
                Ok(bytes) => Some(bytes),
                Err(gristmill::Error::GgmlUnsupported { .. }) => None,
                Err(error) => panic!("{ty}: {error}"),
            }
        };
        GgmlType::ALL.iter().map(quantize).collect()
    });
    ALL[GgmlType::ALL.iter().position(|&other| other == ty)?].as_deref()
}

/// Types that ggml has given up, of which it knows no more than the id.
const REMOVED: [GgmlType; 8] = [
    GgmlType::Q4_2,
    GgmlType::Q4_3,
    GgmlType::Q4_0_4_4,
    GgmlType::Q4_0_4_8,
    GgmlType::Q4_0_8_8,
    GgmlType::IQ4_NL_4_4,
    GgmlType::IQ4_NL_4_8,
    GgmlType::IQ4_NL_8_8,
];

#[test]
fn ggml_has_each_type_with_the_same_blocks_except_those_that_it_removed() {
    let unknown: Vec<_> = GgmlType::ALL.iter().copied().filter(|&ty| !ggml::knows(ty)).collect();
    assert_eq!(unknown, REMOVED);
}

#[test]
fn the_linked_ggml_says_its_version() {
    let numbers: Vec<_> = ggml::version().split('.').map(str::parse::<u32>).collect();
    assert_eq!(numbers.len(), 3, "{}", ggml::version());
    assert!(numbers.iter().all(Result::is_ok), "{}", ggml::version());
}
