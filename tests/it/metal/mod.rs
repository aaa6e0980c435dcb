//! Whole models on the GPU's kernels, by an emulator: the host's side as it is on a device, against the CPU.
//!
//! Where there is no compiler for the emulator, all of these say so and pass.

mod device;
#[allow(dead_code, reason = "shared with the kernels' own tests")]
#[path = "../../../kernels/tests/metal/emulator.rs"]
mod emulator;
mod faults;
mod greedy;
mod whole;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use gristmill::BackendKind;
use gristmill::model::ModelOptions;

use device::{Asked, Emulated, Fault};

/// Bytes that the emulator says it has.
const MEMORY: u64 = 1 << 30;

/// Whether there is a compiler for the emulator.
fn there() -> bool {
    emulator::Emulator::new().is_some()
}

/// Whether the emulator is built with a sanitizer, and slow.
fn slow() -> bool {
    std::env::var("GRISTMILL_METAL").is_ok_and(|build| build != "strict")
}

/// Options for a device of this seed, with this fault, that writes down what it is asked for.
fn on_emulator(seed: u64, fault: Fault, asked: &Arc<Mutex<Asked>>) -> ModelOptions {
    let asked = asked.clone();
    let open = move || Ok(Box::new(Emulated::new(seed, MEMORY, fault, asked.clone()).unwrap()) as Box<_>);
    ModelOptions::default().threads(1).backend(BackendKind::Metal).device(open)
}

/// A tiny model of some architecture.
fn architecture(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/architectures");
    PathBuf::from(folder).join(format!("{name}.gguf"))
}
