//! What is wrong on purpose is found: so the emulator's checks check something.

use gristmill_kernels::metal::Launch;
use gristmill_kernels::metal::launch::{self, Product};
use gristmill_kernels::quant::GgmlType;

use crate::device;
use crate::emulator::{Emulator, with_fault};
use crate::numbers::Random;

/// A kernel with a fault; says so where there is no compiler.
macro_rules! faulty {
    ($($fault:expr),*) => {
        match with_fault($($fault),*) {
            Some(emulator) => emulator,
            None => return,
        }
    };
}

fn norm(device: &mut Emulator) -> Result<Vec<u8>, String> {
    let x = device.floats(&Random(1).floats(300));
    let out = device.room(1200);
    device.run(&launch::rms_norm(1, 300, 1e-5), &[x, x, out]);
    device.try_read(out, 1200)
}

/// 66 columns, so that tiles are multiplied.
fn product(device: &mut Emulator, seed: u64) -> Result<Vec<u8>, String> {
    let mut random = Random(2);
    let weights = device.buffer(&random.weights(GgmlType::Q4_0, 64, 70));
    let x = device.floats(&random.floats(64 * 66));
    let out = device.room(4 * 70 * 66);
    let format = Product { format: GgmlType::Q4_0, len: 64, rows: 70, columns: 66, bias: false };
    device.seed(seed);
    device.run(&format.launch(), &[weights, x, x, x, out]);
    device.try_read(out, 4 * 70 * 66)
}

#[test]
fn a_sum_that_some_lanes_do_not_reach_is_reported_with_both_lines() {
    let mut device = faulty!(
        "norm.metal",
        "    const float sum = simd_sum(mine);\n",
        "    float sum = mine;\n    if (lane < 7) {\n        sum = simd_sum(mine);\n    }\n"
    );
    let words = norm(&mut device).unwrap_err();
    assert!(words.contains("divergent") && words.matches("norm.metal:").count() >= 2, "{words}");
}

#[test]
fn a_barrier_that_some_threads_do_not_reach_is_reported() {
    const BARRIER: &str =
        "        slots[simd] = sum;\n    }\n    threadgroup_barrier(mem_flags::mem_threadgroup);\n";
    let mut device = faulty!(
        "norm.metal",
        BARRIER,
        &BARRIER.replace("    threadgroup_barrier", "    if (simd == 0) threadgroup_barrier")
    );
    let words = norm(&mut device).unwrap_err();
    // Without the barrier there is a race too, which the sanitizer of threads may see first.
    let found = words.contains("divergent") && words.contains("norm.metal:") || words.contains("data race");
    assert!(found, "{words}");
}

/// Whether some order of the threads gives other bits than the right kernel.
fn shows(device: &mut Emulator, right: &[u8]) -> bool {
    (0..20).any(|seed| product(device, seed) != Ok(right.to_vec()))
}

#[test]
fn a_missing_barrier_shows_in_some_order_of_the_threads() {
    let right = product(&mut device!(), 0).unwrap();
    assert!(!shows(&mut device!(), &right), "the right kernel gives the same bits in every order");
    for (right_text, wrong_text) in [
        // Between unpacking a step and multiplying it.
        (
            "        threadgroup_barrier(mem_flags::mem_threadgroup);\n    }\n\n    // Half of",
            "    }\n\n    // Half of",
        ),
        // Between the tile's results and their way out.
        (
            "        threadgroup_barrier(mem_flags::mem_threadgroup);\n        for (ushort i = t;",
            "        for (ushort i = t;",
        ),
        // Between one half of the tile on its way out and the other.
        (
            "            }\n        }\n        threadgroup_barrier(mem_flags::mem_threadgroup);\n    }\n}",
            "            }\n        }\n    }\n}",
        ),
    ] {
        let mut device = faulty!("matmul.metal", right_text, wrong_text);
        assert!(shows(&mut device, &right), "{right_text}");
    }
}

#[test]
fn threadgroup_memory_that_nobody_wrote_shows() {
    let right = product(&mut device!(), 0).unwrap();
    // Half of the activations of a step are not copied.
    let mut device = faulty!(
        "matmul.metal",
        "                x_to[1] = float4",
        "                if (t % 2 == 0) x_to[1] = float4"
    );
    assert!(shows(&mut device, &right));
}

#[test]
fn limits_of_the_device_are_kept() {
    let refused = |change: fn(&mut Launch)| {
        let mut device = Emulator::new()?;
        let x = device.floats(&[1.0; 64]);
        let mut launch = launch::rms_norm(1, 64, 1e-5);
        change(&mut launch);
        device.run(&launch, &[x, x, x]);
        Some(device.try_read(x, 4).unwrap_err())
    };
    type Change = fn(&mut Launch);
    let expected: [(Change, &str); 4] = [
        (|launch| launch.threads = 1056, "1056 threads"),
        (|launch| launch.threads = 33, "33 threads"),
        (|launch| launch.shared = 32 * 1024 + 4, "32772 bytes of threadgroup memory"),
        (|launch| launch.groups[1] = 0, "a grid of nothing"),
    ];
    for (change, words) in expected {
        let Some(said) = refused(change) else { return };
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn arguments_of_another_kernel_are_refused() {
    let mut device = device!();
    let x = device.floats(&[1.0; 64]);
    device.run(&launch::rms_norm(1, 64, 1e-5), &[x, x]);
    let words = device.try_read(x, 4).unwrap_err();
    assert!(words.contains("rms_norm") && words.contains("too few buffers"), "{words}");
    let mut device = device!();
    let x = device.floats(&[1.0; 64]);
    let mut launch = launch::rms_norm(1, 64, 1e-5);
    launch.kernel.stem = "rope";
    device.run(&launch, &[x, x]);
    let words = device.try_read(x, 4).unwrap_err();
    assert!(words.contains("parameters of another size"), "{words}");
}

#[test]
fn dispatches_without_a_barrier_run_in_any_order() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let mut device = device!();
        device.seed(seed);
        let x = device.floats(&[1.0]);
        device.dispatch(&launch::map(launch::Map::Scale(3.0), 1, 1), &[(x, 0)]);
        device.dispatch(&launch::map(launch::Map::Clamp(2.0), 1, 1), &[(x, 0)]);
        seen.insert(device.read(x, 1)[0].to_bits());
    }
    assert_eq!(seen.len(), 2, "2 or 3, as the order may be");
}
