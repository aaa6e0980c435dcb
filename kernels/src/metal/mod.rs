//! The same formats and operations for Apple's GPUs: the kernels' sources in the language Metal, their arguments, and how each
//! is launched. Nothing here needs a device, so that tests run the kernels under an emulator (`metal/emulator`).
#![forbid(unsafe_code)]

pub mod launch;
pub mod params;
#[cfg(test)]
mod tests;

pub use launch::{Kernel, Launch};

/// The kernels' sources, by their paths below `kernels/metal`.
pub const SOURCES: &[(&str, &str)] = &{
    macro_rules! sources {
        ($($path:literal)*) => { [$(($path, include_str!(concat!("../../metal/", $path)))),*] };
    }
    sources! {
        "attention.metal" "gather.metal" "keep.metal" "lookup.metal" "map.metal" "matmul.metal" "matvec.metal"
        "norm.metal" "rope.metal" "top_k.metal"
        "bits.h" "common.h" "formats.h" "grids.h" "one_by_one.h" "params.h"
        "quant/bf16.h" "quant/f16.h" "quant/f32.h" "quant/f64.h" "quant/ints.h"
        "quant/iq1_m.h" "quant/iq1_s.h" "quant/iq2_s.h" "quant/iq2_xs.h" "quant/iq2_xxs.h" "quant/iq3_s.h"
        "quant/iq3_xxs.h" "quant/iq4_nl.h" "quant/iq4_xs.h" "quant/mxfp4.h" "quant/nvfp4.h"
        "quant/q1_0.h" "quant/q2_0.h" "quant/q2_k.h" "quant/q3_k.h" "quant/q4_0.h" "quant/q4_1.h" "quant/q4_k.h"
        "quant/q5_0.h" "quant/q5_1.h" "quant/q5_k.h" "quant/q6_k.h" "quant/q8_0.h" "quant/q8_1.h" "quant/q8_k.h"
        "quant/tq1_0.h" "quant/tq2_0.h"
    }
};
