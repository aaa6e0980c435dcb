//! The safe calls refuse what ggml would fail on.

use gristmill::{Error, ggml};
use gristmill_kernels::quant::GgmlType;

use super::Random;

#[test]
fn a_row_of_broken_blocks_is_refused() {
    let error = ggml::quantize(GgmlType::Q4_K, &[0.0; 300], 300, None).unwrap_err();
    assert!(matches!(error, Error::GgmlSize { found: 300, .. }), "{error}");
    let error = ggml::dequantize(GgmlType::Q4_0, &[0; 17], &mut [0.0; 32]).unwrap_err();
    assert!(matches!(error, Error::GgmlSize { found: 17, .. }), "{error}");
    let error = ggml::dot(GgmlType::Q4_0, 32, &[0; 18], &[0; 33]).unwrap_err();
    assert_eq!(error.to_string(), "bytes of activations: ggml would need 34, found 33");
}

#[test]
fn a_type_that_needs_an_importance_says_so() {
    let needing: Vec<_> = GgmlType::ALL.iter().copied().filter(|&ty| ggml::needs_importance(ty)).collect();
    assert_eq!(needing, [GgmlType::IQ2_XXS, GgmlType::IQ2_XS, GgmlType::IQ1_S]);
    for ty in needing {
        let error = ggml::quantize(ty, &[0.5; 256], 256, None).unwrap_err();
        assert!(matches!(error, Error::GgmlImatrix { ty: found } if found == ty), "{error}");
    }
}

#[test]
fn what_is_not_finite_is_refused() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut row = [1.0; 256];
        row[77] = bad;
        let error = ggml::quantize(GgmlType::IQ3_S, &row, 256, None).unwrap_err();
        assert!(matches!(error, Error::GgmlNotFinite { index: 77, .. }), "{error}");
    }
}

#[test]
fn removed_types_are_refused() {
    for ty in super::REMOVED {
        let mut out = vec![0.0; ty.block_len()];
        let error = ggml::dequantize(ty, &vec![0; ty.block_bytes()], &mut out).unwrap_err();
        assert!(matches!(error, Error::GgmlUnsupported { .. }), "{error}");
        assert!(ggml::quantize(ty, &out, out.len(), None).is_err());
        assert_eq!(ggml::partner(ty), None);
    }
}

#[test]
fn the_largest_numbers_end_in_bytes_or_an_error_never_in_an_abort() {
    let mut random = Random(11);
    for &ty in GgmlType::ALL {
        for scale in [f32::MIN_POSITIVE, 1e30, f32::MAX] {
            let row: Vec<f32> = (0..256).map(|_| random.unit() * scale).collect();
            match ggml::quantize(ty, &row, 256, Some(&[1.0; 256])) {
                Ok(bytes) => assert_eq!(Some(bytes.len()), ty.row_bytes(256)),
                Err(Error::GgmlUnsupported { .. } | Error::Ggml { .. } | Error::GgmlSize { .. }) => {}
                Err(error) => panic!("{ty}: {error}"),
            }
        }
    }
}

#[test]
fn the_importance_changes_what_is_chosen() {
    let mut random = Random(12);
    let row: Vec<f32> = (0..256).map(|_| random.normal()).collect();
    let first: Vec<f32> = (0..256).map(|i| if i < 32 { 100.0 } else { 0.01 }).collect();
    let plain = ggml::quantize(GgmlType::Q4_0, &row, 256, None).unwrap();
    let weighed = ggml::quantize(GgmlType::Q4_0, &row, 256, Some(&first)).unwrap();
    assert_ne!(plain, weighed);
}
