//! Our encoders beside ggml's quantizers: the same bytes for the same weights.

use std::fs;
use std::path::Path;

use gristmill::{Error, ggml};
use gristmill_kernels::encode::{EncodeError, Encoder};
use gristmill_kernels::quant::GgmlType;
use gristmill_kernels::simd::Level;

use super::Random;

/// How the weight of a place is made.
type Kind = fn(&mut Random, usize) -> f32;

/// Kinds of rows: like those of models, and such that lead every search astray that can be.
const KINDS: &[(&str, Kind)] = &[
    ("normal", |random, _| random.normal() * 0.02),
    ("uniform", |random, _| random.unit()),
    ("heavy tails", |random, _| random.normal().powi(3) * 0.1),
    ("zeros", |_, _| 0.0),
    ("zeros of both signs", |_, i| if i.is_multiple_of(2) { -0.0 } else { 0.0 }),
    ("constant", |_, _| 0.37),
    ("negative constant", |_, _| -0.37),
    ("positive", |random, _| random.unit().abs() + 0.1),
    ("negative", |random, _| -random.unit().abs() - 0.1),
    ("few", |random, i| if i.is_multiple_of(37) { random.normal() } else { 0.0 }),
    ("one outlier", |random, i| if i % 256 == 100 { 1000.0 } else { random.normal() * 0.01 }),
    ("ternary", |random, _| (random.next() % 3) as f32 - 1.0),
    ("whole", |random, _| (random.next() % 15) as f32 - 7.0),
    ("tiny", |random, _| random.normal() * 1e-12),
    ("below what counts", |random, _| random.normal() * 1e-18),
    ("denormal", |random, _| random.normal() * 1e-40),
    ("of all sizes", |random, _| random.normal() * 10_f32.powi((random.next() % 16) as i32 - 12)),
    ("large", |random, _| random.normal() * 1e6),
    ("beyond half precision", |random, _| random.normal() * 1e10),
    ("ramp", |_, i| i as f32 * 0.001 - 0.5),
    ("powers of two", |random, _| {
        2_f32.powi((random.next() % 20) as i32 - 10)
            * if random.next().is_multiple_of(2) { 1.0 } else { -1.0 }
    }),
    ("zeros between", |random, i| if (i / 16).is_multiple_of(2) { 0.0 } else { random.normal() }),
    ("groups of zeros", |random, i| if (i / 32).is_multiple_of(3) { 0.0 } else { random.normal() }),
    ("enormous", |random, _| random.normal() * 1e19),
    ("the largest", |random, _| random.unit() * 3e38),
];

const COLUMNS: usize = 768;
const ROWS: usize = 3;

/// Importances of the columns: usual ones, and such as only damaged files have.
fn importances(random: &mut Random) -> [(&'static str, Vec<f32>); 5] {
    let mut of = |value: fn(&mut Random, usize) -> f32| (0..COLUMNS).map(|i| value(random, i)).collect();
    [
        ("usual", of(|random, _| random.normal().powi(2) + 0.01)),
        ("zero", of(|_, _| 0.0)),
        ("one", of(|_, _| 1.0)),
        ("mostly zero", of(|_, i| if i.is_multiple_of(5) { 1.0 } else { 0.0 })),
        ("tiny", of(|random, _| random.unit().abs() * 1e-20)),
    ]
}

#[test]
fn every_kind_of_row_becomes_the_bytes_that_ggml_makes() {
    let (mut compared, mut refused, mut wrong) = (0, 0, Vec::new());
    for &ty in GgmlType::ENCODABLE {
        let encoder = Encoder::new(ty).unwrap();
        let mut random = Random(ty as u64);
        let importances = importances(&mut random);
        let importances = importances.iter().map(|(name, values)| (*name, Some(values.as_slice())));
        for (importance_name, importance) in [("none", None)].into_iter().chain(importances) {
            if importance.is_none() && ty.needs_importance() {
                continue;
            }
            for &(kind, make) in KINDS {
                // Where no point fits, ggml reads behind the end of the weights.
                if matches!(ty, GgmlType::IQ1_S | GgmlType::IQ1_M)
                    && matches!(kind, "enormous" | "the largest")
                {
                    continue;
                }
                let weights: Vec<f32> = (0..ROWS * COLUMNS).map(|i| make(&mut random, i)).collect();
                let theirs = ggml::quantize(ty, &weights, COLUMNS, importance);
                for level in Level::available() {
                    let mut ours = vec![0; ty.row_bytes(ROWS * COLUMNS).unwrap()];
                    let done = encoder.encode(level, &weights, COLUMNS, importance, &mut ours);
                    let same = match (&done, &theirs) {
                        (Ok(()), Ok(theirs)) => ours == *theirs,
                        (Err(EncodeError::OutOfRange { .. }), Err(Error::Ggml { .. })) => {
                            refused += 1;
                            true
                        }
                        _ => false,
                    };
                    compared += 1;
                    if !same {
                        let theirs = theirs.as_ref().map(|_| "other bytes").map_err(ToString::to_string);
                        wrong.push(format!(
                            "{ty} at {level}, {kind}, importance {importance_name}: {done:?}, {theirs:?}"
                        ));
                    }
                }
            }
        }
    }
    println!("{compared} comparisons, of which both refuse {refused}");
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong[..wrong.len().min(30)].join("\n"));
    assert!(compared > 5_000);
}

#[test]
fn the_types_are_those_that_ggml_quantizes() {
    for &ty in GgmlType::ALL {
        let theirs = ggml::quantize(ty, &[0.5; 256], 256, Some(&[1.0; 256]));
        assert_eq!(ty.is_encodable(), !matches!(theirs, Err(Error::GgmlUnsupported { .. })), "{ty}");
        assert_eq!(ty.needs_importance(), ggml::needs_importance(ty), "{ty}");
    }
}

#[test]
fn weights_of_a_real_model_become_the_bytes_that_ggml_makes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vendor/models/tiny-instruct-q8_0.gguf");
    let bytes = fs::read(path).unwrap();
    let gguf = gristmill::gguf::Gguf::parse(&bytes).unwrap();
    let tensor = gguf.tensor("blk.0.ffn_down.weight").unwrap();
    let (row_len, rows) = (tensor.row_len(), 16);
    let data = &bytes[tensor.range.start as usize..][..tensor.ty.row_bytes(row_len * rows).unwrap()];
    let mut weights = vec![0.0; row_len * rows];
    gristmill_kernels::quant::dequantize_row(tensor.ty, data, &mut weights).unwrap();
    for &ty in GgmlType::ENCODABLE.iter().filter(|ty| row_len.is_multiple_of(ty.block_len())) {
        for importance in [None, Some(vec![1.0; row_len])] {
            let Ok(theirs) = ggml::quantize(ty, &weights, row_len, importance.as_deref()) else { continue };
            let mut ours = vec![0; theirs.len()];
            let encoder = Encoder::new(ty).unwrap();
            encoder.encode(Level::detect(), &weights, row_len, importance.as_deref(), &mut ours).unwrap();
            assert!(ours == theirs, "{ty}, importance {}", importance.is_some());
        }
    }
}
