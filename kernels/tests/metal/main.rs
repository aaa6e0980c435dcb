//! The kernels for Apple's GPUs, run unchanged on an emulator of the grid and compared with the scalar kernels of the same
//! crate (dequantizing: bit by bit) or with sums in double precision, whose bounds are the roundings that a kernel makes.
//!
//! Needs clang 16 or later; without it the tests say that they are skipped. `metal/emulator` says what is checked on the way.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "in a test, each of these is a failure with its place, or its report"
)]

mod attention;
mod emulator;
mod faults;
mod layers;
mod numbers;
mod products;
mod recurrence;
mod sources;

use emulator::Emulator;
use gristmill_kernels::quant::GgmlType;

/// Runs a test's body with an emulator, or says why not; `?` for tests.
macro_rules! device {
    () => {
        match crate::emulator::Emulator::new() {
            Some(emulator) => emulator,
            None => return,
        }
    };
}
pub(crate) use device;

#[test]
fn every_kernel_of_every_format_is_there() {
    let mut device: Emulator = device!();
    let found = device.kernels();
    let mut expected: Vec<String> = [
        "activate",
        "add_rms_norm",
        "attention_join",
        "blend",
        "combine",
        "convolve",
        "copy_columns",
        "layer_norm",
        "map_values",
        "recur",
        "rms_norm",
        "rope",
        "route",
        "scan",
        "select_rows",
        "sparse",
        "top_k",
        "with_other",
        "wkv",
    ]
    .map(str::to_owned)
    .to_vec();
    for stem in ["matvec", "matvec4", "matmul", "matmul128", "lookup"] {
        expected.extend(GgmlType::COMPUTABLE.iter().map(|ty| format!("{stem}_{}", ty.name().to_lowercase())));
    }
    let kept = ["f32", "f16", "bf16", "q8_0", "q4_0"];
    expected.extend(kept.map(|ty| format!("keep_{ty}")));
    for stem in ["attention", "attention3", "attention_tile", "attention_tile2"] {
        let pairs = kept.into_iter().flat_map(|keys| kept.map(|values| format!("{stem}_{keys}_{values}")));
        expected.extend(pairs);
    }
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn the_sources_compile_as_one_text_too() {
    if let Some(result) = emulator::compile_as_one() {
        result.unwrap();
    }
}
