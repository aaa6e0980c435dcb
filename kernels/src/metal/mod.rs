//! The same formats and operations for Apple's GPUs: the kernels' sources in the language Metal, their arguments, and how each
//! is launched. Nothing here needs a device, so that tests run the kernels under an emulator (`metal/emulator`).
#![forbid(unsafe_code)]

use alloc::collections::BTreeSet;
use alloc::string::String;

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
        "attention.metal" "attention_tile.metal" "gather.metal" "keep.metal" "lookup.metal" "map.metal" "matmul.metal"
        "matvec.metal" "norm.metal" "recurrence.metal" "rope.metal" "route.metal" "top_k.metal"
        "attention.h" "bits.h" "common.h" "formats.h" "grids.h" "one_by_one.h" "order.h" "params.h"
        "quant/bf16.h" "quant/f16.h" "quant/f32.h" "quant/f64.h" "quant/ints.h"
        "quant/iq1_m.h" "quant/iq1_s.h" "quant/iq2_s.h" "quant/iq2_xs.h" "quant/iq2_xxs.h" "quant/iq3_s.h"
        "quant/iq3_xxs.h" "quant/iq4_nl.h" "quant/iq4_xs.h" "quant/mxfp4.h" "quant/nvfp4.h"
        "quant/q1_0.h" "quant/q2_0.h" "quant/q2_k.h" "quant/q3_k.h" "quant/q4_0.h" "quant/q4_1.h" "quant/q4_k.h"
        "quant/q5_0.h" "quant/q5_1.h" "quant/q5_k.h" "quant/q6_k.h" "quant/q8_0.h" "quant/q8_1.h" "quant/q8_k.h"
        "quant/tq1_0.h" "quant/tq2_0.h"
    }
};

/// All kernels as one source, for a compiler that is given text: what a source includes stands where it is first asked for.
pub fn source() -> String {
    let (mut text, mut seen) = (String::new(), BTreeSet::new());
    for (path, _) in SOURCES.iter().filter(|(path, _)| path.ends_with(".metal")) {
        add(path, &mut text, &mut seen);
    }
    text
}

fn add(path: &str, to: &mut String, seen: &mut BTreeSet<String>) {
    let Some((_, source)) = SOURCES.iter().find(|(other, _)| *other == path) else { return };
    if !seen.insert(path.into()) {
        return;
    }
    for line in source.lines().filter(|line| *line != "#pragma once") {
        match line.strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"')) {
            // Headers of formats ask for each other, and for those of the folder above.
            Some(name) => match (name.strip_prefix("../"), path.starts_with("quant/") && !name.contains('/'))
            {
                (Some(above), _) => add(above, to, seen),
                (None, true) => add(&alloc::format!("quant/{name}"), to, seen),
                (None, false) => add(name, to, seen),
            },
            None => {
                to.push_str(line);
                to.push('\n');
            }
        }
    }
}
