//! Every format against vectors that ggml and gguf-py made, bit for bit.
//!
//! `tests/data/dequant/INDEX.json` names the files: for each type a row that ggml quantized from random weights
//! and, for the quantized types, one of random codes, each with the weights that `to_float` of ggml (as vendored in
//! llama-cpp-python 0.3.36) and gguf-py 0.19.0, where it knows the type, read from it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and its helpers too"
)]

use std::fs;
use std::path::{Path, PathBuf};

use gristmill_kernels::quant::{GgmlType, dequantize_row};
use serde_json::Value;

use crate::goldens;

/// The values of a one-dimensional little-endian f32 array as numpy saves it (format version 1).
fn read_npy(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "{}", path.display());
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert!(String::from_utf8_lossy(&bytes[10..10 + header]).contains("'<f4'"), "{}", path.display());
    let (values, rest) = bytes[10 + header..].as_chunks::<4>();
    assert!(rest.is_empty());
    values.iter().map(|&value| f32::from_le_bytes(value)).collect()
}

/// Compares every vector of a folder; gives their number and the types that they cover.
fn check(folder: &Path) -> (usize, Vec<GgmlType>) {
    let index = fs::read_to_string(folder.join("INDEX.json")).unwrap();
    let index: Value = serde_json::from_str(&index).unwrap();
    let (mut count, mut types, mut failures) = (0, Vec::new(), Vec::new());
    for entry in index["vectors"].as_array().unwrap() {
        let ty = GgmlType::from_name(entry["type"].as_str().unwrap()).unwrap();
        assert_eq!(u64::from(ty as u32), entry["type_id"].as_u64().unwrap(), "{ty}");
        types.push(ty);
        for vector in [Some(entry), entry.get("random_codes")].into_iter().flatten() {
            let file = vector["data"].as_str().unwrap();
            let bytes = fs::read(folder.join(file)).unwrap();
            let expected = read_npy(&folder.join(vector["expected"].as_str().unwrap()));
            let mut out = vec![f32::NAN; expected.len()];
            dequantize_row(ty, &bytes, &mut out).unwrap_or_else(|e| panic!("{file}: {e}"));
            let differing = out.iter().zip(&expected).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
            if differing > 0 {
                let i = out.iter().zip(&expected).position(|(a, b)| a.to_bits() != b.to_bits()).unwrap();
                failures.push(format!(
                    "{file}: {differing} of {} weights differ, first weight {i}: expected {:e}, found {:e}",
                    expected.len(),
                    expected[i],
                    out[i]
                ));
            }
            count += 1;
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    (count, types)
}

#[test]
fn weights_are_ggmls_bit_for_bit() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/dequant");
    let (count, types) = check(&folder);
    assert_eq!(count, 53);
    // ggml itself has no `to_float` for these, or stores them in no file.
    let without = "F64 I8 I16 I32 I64 Q8_1 Q8_K".split(' ').map(|name| GgmlType::from_name(name).unwrap());
    let without: Vec<_> = without.collect();
    for &ty in GgmlType::COMPUTABLE {
        assert!(types.contains(&ty) != without.contains(&ty), "{ty}");
    }
}

#[test]
fn golden_vectors_are_ggmls_bit_for_bit() {
    let Some(folder) = goldens::folder("parity/open/dequant") else { return };
    let (count, _) = check(&folder);
    println!("{count} vectors passed bit for bit");
}
