//! Dequantized weights are ggml's, bit for bit.

use std::fs;
use std::path::{Path, PathBuf};

use gristmill::ggml;
use gristmill::gguf::Gguf;
use gristmill_kernels::quant::{GgmlType, dequantize_row};

use super::{Random, quantized};
use crate::goldens;

/// The computable types that ggml has no `to_float` for.
const NOT_IN_GGML: [GgmlType; 6] =
    [GgmlType::F64, GgmlType::I8, GgmlType::I16, GgmlType::I32, GgmlType::I64, GgmlType::Q8_1];

/// The types to compare: all that both can compute.
fn types() -> impl Iterator<Item = GgmlType> {
    GgmlType::COMPUTABLE.iter().copied().filter(|ty| !NOT_IN_GGML.contains(ty))
}

/// Dequantizes the same bytes with both and fails where a weight differs in a bit. Any NaN equals any other.
fn compare(ty: GgmlType, bytes: &[u8], what: &str) {
    let len = bytes.len() / ty.block_bytes() * ty.block_len();
    let (mut ours, mut theirs) = (vec![0.0_f32; len], vec![0.0_f32; len]);
    dequantize_row(ty, bytes, &mut ours).unwrap();
    ggml::dequantize(ty, bytes, &mut theirs).unwrap();
    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    if let Some(at) = ours.iter().zip(&theirs).position(|pair| !same(pair)) {
        let block = at / ty.block_len();
        let block_bytes = &bytes[block * ty.block_bytes()..][..ty.block_bytes()];
        panic!(
            "{ty}, {what}: weight {} of block {block} is {:?} ({:08x}), ggml {} says {:?} ({:08x}); the block: {block_bytes:02x?}",
            at % ty.block_len(),
            ours[at],
            ours[at].to_bits(),
            ggml::version(),
            theirs[at],
            theirs[at].to_bits(),
        );
    }
}

#[test]
fn ggml_lacks_a_dequantizer_for_just_the_types_that_are_left_out() {
    let lacking: Vec<_> = GgmlType::COMPUTABLE
        .iter()
        .copied()
        .filter(|&ty| {
            let mut out = vec![0.0; ty.block_len()];
            ggml::dequantize(ty, &vec![0; ty.block_bytes()], &mut out).is_err()
        })
        .collect();
    let mut left_out = NOT_IN_GGML.to_vec();
    left_out.retain(|ty| ty.is_computable());
    let sorted = |mut types: Vec<GgmlType>| {
        types.sort();
        types
    };
    assert_eq!(sorted(lacking), sorted(left_out));
}

#[test]
fn blocks_that_ggml_quantized() {
    let compared =
        types().filter_map(|ty| quantized(ty).map(|bytes| compare(ty, bytes, "quantized by ggml")));
    let count = compared.count();
    assert!(count > 20, "{count} types");
}

#[test]
fn random_bytes() {
    let mut random = Random(2);
    for ty in types() {
        compare(ty, &random.bytes(512 * ty.block_bytes()), "random bytes");
    }
}

#[test]
fn every_byte_of_a_block_at_every_value() {
    let mut random = Random(3);
    for ty in types() {
        // Three backgrounds: nothing, all bits, and noise. Together they reach every value of a scale of 8 bits.
        let size = ty.block_bytes();
        for (what, background) in
            [("zeros", vec![0; size]), ("ones", vec![0xff; size]), ("noise", random.bytes(size))]
        {
            let mut blocks = Vec::with_capacity(size * size * 256);
            for at in 0..size {
                for value in 0..=255 {
                    let start = blocks.len();
                    blocks.extend_from_slice(&background);
                    blocks[start + at] = value;
                }
            }
            compare(ty, &blocks, what);
        }
    }
}

#[test]
fn zero_subnormal_infinite_and_nan_scales_wherever_they_may_lie() {
    // Of f16: zeros, subnormals, the largest, infinities, quiet and signalling NaN.
    let halves =
        [0x0000_u16, 0x8000, 0x0001, 0x83ff, 0x0400, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00, 0x7c01, 0xffff];
    let floats = [
        0_u32,
        1 << 31,
        1,
        0x007f_ffff,
        0x0080_0000,
        0x7f7f_ffff,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0x7f80_0001,
    ];
    let mut random = Random(4);
    for ty in types() {
        let mut blocks = Vec::new();
        let size = ty.block_bytes();
        let halves = halves.iter().map(|half| half.to_le_bytes().to_vec());
        let floats = floats.iter().map(|float| float.to_le_bytes().to_vec());
        for special in halves.chain(floats) {
            for at in 0..(size + 1).saturating_sub(special.len()) {
                let mut block = random.bytes(size);
                block[at..][..special.len()].copy_from_slice(&special);
                blocks.extend(block);
            }
        }
        compare(ty, &blocks, "special scales");
    }
}

#[test]
fn rows_that_start_at_odd_addresses() {
    let mut random = Random(5);
    for ty in types() {
        let bytes = random.bytes(4 * ty.block_bytes() + 8);
        for start in 0..8 {
            compare(ty, &bytes[start..][..4 * ty.block_bytes()], "odd address");
        }
    }
}

/// The model files below a folder, in order.
fn models(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "gguf"));
    files.sort();
    files
}

#[test]
fn every_tensor_of_the_golden_models() {
    let (Some(real), Some(parity)) = (goldens::folder("models"), goldens::folder("parity")) else { return };
    let mut files = models(&real);
    files.extend(models(&parity.join("open/quant")));
    files.extend(models(&parity.join("open/models")));
    let mut seen = Vec::new();
    let mut weights = 0;
    for path in &files {
        let bytes = fs::read(path).unwrap();
        let gguf = Gguf::parse(&bytes).unwrap();
        for tensor in gguf.tensors.iter().filter(|tensor| types().any(|ty| ty == tensor.ty)) {
            let data = &bytes[tensor.range.start as usize..tensor.range.end as usize];
            compare(tensor.ty, data, &format!("{} of {}", tensor.name, path.display()));
            seen.push(tensor.ty);
            weights += tensor.elements();
        }
    }
    seen.sort();
    seen.dedup();
    println!("{weights} weights of {} files in {} types: {seen:?}", files.len(), seen.len());
    assert!(seen.len() >= 10, "the golden models hold {} of the formats only", seen.len());
}

#[test]
fn rows_of_a_real_model_in_every_type() {
    let Some(real) = goldens::folder("models") else { return };
    let bytes = fs::read(real.join("tiny-base-f16.gguf")).unwrap();
    let gguf = Gguf::parse(&bytes).unwrap();
    let mut types_seen = 0;
    for ty in types() {
        let mut compared = 0;
        for tensor in gguf.tensors.iter().filter(|tensor| tensor.ty == GgmlType::F16) {
            let row_len = tensor.row_len();
            // The first row of every tensor: the slowest quantizers take their time.
            let rows = 1;
            let data = &bytes[tensor.range.start as usize..][..rows * row_len * 2];
            let mut values = vec![0.0; rows * row_len];
            dequantize_row(GgmlType::F16, data, &mut values).unwrap();
            let importance = vec![1.0; row_len];
            let importance = ggml::needs_importance(ty).then_some(&*importance);
            if let Ok(quantized) = ggml::quantize(ty, &values, row_len, importance) {
                compare(ty, &quantized, &tensor.name);
                compared += rows;
            }
        }
        types_seen += usize::from(compared > 0);
    }
    println!("rows of a real model in {types_seen} types");
    assert!(types_seen > 20, "{types_seen}");
}
