//! What is wrong on purpose is found: so the emulator's checks check something.

use gristmill_kernels::metal::Launch;
use gristmill_kernels::metal::launch::{self, Attention, Product};
use gristmill_kernels::quant::GgmlType;

use crate::attention::PLAIN;
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

/// Fourteen tokens of two heads, one tile that is not full; a value of the first block is damaged.
fn attention(device: &mut Emulator, seed: u64) -> Result<Vec<u8>, String> {
    let spec = Attention {
        cache: [GgmlType::Q8_0, GgmlType::F16],
        tokens: 14,
        heads: 2,
        kv_heads: 1,
        capacity: 50,
        position: 36,
        visible: [0, 50],
        scale: 0.0005,
        ..PLAIN
    };
    let mut random = Random(3);
    let [queries, slopes] = [14 * 2 * 64, 1].map(|count| device.floats(&random.floats(count)));
    let [keys, mut values] = spec.cache.map(|format| random.weights(format, 64, 50));
    values[2 * 64 + 1] = 0x7e;
    let [keys, values] = [keys, values].map(|bytes| device.buffer(&bytes));
    let visible = device.ids((37..51).map(|end| [end % 3, end]).collect::<Vec<_>>().as_flattened());
    let bytes = 4 * spec.partial_len();
    let partial = device.room(bytes);
    device.seed(seed);
    device.run(&spec.launch(), &[queries, keys, values, visible, slopes, partial]);
    device.try_read(partial, bytes)
}

type Run = fn(&mut Emulator, u64) -> Result<Vec<u8>, String>;

/// Whether some order of the threads gives other bits than the right kernel.
fn shows(run: Run, device: &mut Emulator, right: &[u8]) -> bool {
    (0..20).any(|seed| run(device, seed) != Ok(right.to_vec()))
}

#[test]
fn a_missing_barrier_shows_in_some_order_of_the_threads() {
    let right = product(&mut device!(), 0).unwrap();
    assert!(!shows(product, &mut device!(), &right), "the right kernel gives the same bits in every order");
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
        assert!(shows(product, &mut device, &right), "{right_text}");
    }
}

#[test]
fn a_missing_barrier_or_factor_of_attention_shows() {
    let right = attention(&mut device!(), 0).unwrap();
    assert!(!shows(attention, &mut device!(), &right), "the right kernel gives the same bits in every order");
    const BARRIER: &str = "threadgroup_barrier(mem_flags::mem_threadgroup);\n";
    let without =
        |before: &str, after: &str| (format!("{before}{BARRIER}{after}"), format!("{before}{after}"));
    let barriers = [
        // Queries on their way through the block: before they are loaded, and before others take their place.
        (": 0.0f;\n        }\n        ", "        if (own / POSITIONS"),
        ("        ", "    }\n#pragma unroll\n"),
        // Keys, scores, weights and values, damaged ones, and before the next block.
        ("        ", "\n        simdgroup_float8x8 product"),
        ("        ", "\n        const bool bad"),
        ("        ", "\n        float worst"),
        ("            ", "            float check = 0.0f;\n            for (ushort i = 0; i < count"),
        ("        ", "    }\n\n    if (t % sharing"),
        // Results on their way out: before they are read, and before others take their place.
        ("        ", "        if (tile + at"),
        ("        ", "    }\n}"),
    ];
    let faults = barriers.map(|(before, after)| without(before, after)).into_iter().chain(
        [
            // What is not the largest score, sums that do not shrink, a damaged value in its matrix, and the mask of other positions.
            ("largest_of(most, sharing, lane)", "largest_of(most, 1, lane)"),
            ("fma(sum, factor, ", "fma(sum, 1.0f, "),
            ("diagonal[softmaxed % 8] = factor", "diagonal[softmaxed % 8] = 1.0f"),
            ("if (worst > 0.0f)", "if (worst > 1.0f)"),
            ("start + t % sharing * count + i, s[i]", "start, s[i]"),
        ]
        .map(|(right, wrong)| (right.to_owned(), wrong.to_owned())),
    );
    let hidden: Vec<_> = faults
        .filter(|(right_text, wrong_text)| {
            let device = with_fault("attention_tile.metal", right_text, wrong_text);
            !device.is_some_and(|mut device| shows(attention, &mut device, &right))
        })
        .collect();
    assert!(hidden.is_empty(), "{hidden:#?}");
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
    assert!(shows(product, &mut device, &right));
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
