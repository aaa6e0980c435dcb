//! What holds for every format of the list.

use super::*;

/// Bytes that depend on nothing but the seed (xorshift).
fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    core::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(len)
    .collect()
}

/// A bit pattern that no block here gives: a signalling NaN with an odd payload.
const UNTOUCHED: u32 = 0x7f80_0001 | 0x5a5a;

#[test]
fn any_bytes_give_every_weight() {
    for &ty in GgmlType::COMPUTABLE {
        for seed in 0..64 {
            let bytes = random_bytes(seed, 5 * ty.block_bytes());
            let mut out = vec![f32::from_bits(UNTOUCHED); 5 * ty.block_len()];
            dequantize_row(ty, &bytes, &mut out).unwrap();
            assert!(out.iter().all(|w| w.to_bits() != UNTOUCHED), "{ty}: a weight was not written");
        }
        for fill in 0..=u8::MAX {
            let mut out = vec![f32::from_bits(UNTOUCHED); ty.block_len()];
            dequantize_row(ty, &vec![fill; ty.block_bytes()], &mut out).unwrap();
            assert!(out.iter().all(|w| w.to_bits() != UNTOUCHED), "{ty}: a weight was not written");
        }
    }
}

#[test]
fn a_block_of_zero_bytes_is_all_zeros() {
    for &ty in GgmlType::COMPUTABLE {
        let mut out = vec![f32::NAN; ty.block_len()];
        dequantize_row(ty, &vec![0; ty.block_bytes()], &mut out).unwrap();
        // MXFP4's smallest scale is no zero, but its code 0 is.
        assert!(out.iter().all(|&w| w == 0.0), "{ty}: {out:?}");
    }
}

#[test]
fn blocks_do_not_depend_on_their_neighbours() {
    for &ty in GgmlType::COMPUTABLE {
        let bytes = random_bytes(7, 4 * ty.block_bytes());
        let mut row = vec![0.0; 4 * ty.block_len()];
        dequantize_row(ty, &bytes, &mut row).unwrap();
        for (block, expected) in bytes.chunks(ty.block_bytes()).zip(row.chunks(ty.block_len())) {
            let mut out = vec![0.0; ty.block_len()];
            dequantize_row(ty, block, &mut out).unwrap();
            let bits = |row: &[f32]| row.iter().map(|w| w.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&out), bits(expected), "{ty}");
        }
    }
}

#[test]
fn lengths_must_match() {
    for &ty in GgmlType::COMPUTABLE {
        let (len, bytes) = (ty.block_len(), vec![0; 2 * ty.block_bytes()]);
        let mut out = vec![0.0; 3 * len];
        for room in [0, len, 2 * len - 1, 2 * len + 1, 3 * len] {
            if room != 2 * len {
                let error = dequantize_row(ty, &bytes, &mut out[..room]);
                assert_eq!(error, Err(RowError::Length { ty, weights: 2 * len, room }));
            }
        }
        if ty.block_bytes() > 1 {
            let ragged = &bytes[1..];
            let error = dequantize_row(ty, ragged, &mut out[..2 * len]);
            assert_eq!(error, Err(RowError::Ragged { ty, bytes: ragged.len() }));
        }
        assert_eq!(dequantize_row(ty, &[], &mut []), Ok(()));
    }
}

#[test]
fn a_block_fits_its_weights_to_the_room() {
    macro_rules! all {
        ($($file:ident::$block:ident: $path:ident,)*) => {$({
            let bytes = random_bytes(3, size_of::<$block>());
            let block = &blocks::<$block>(&bytes).unwrap()[0];
            let len = <$block as Block>::LEN;
            let mut out = vec![f32::from_bits(UNTOUCHED); len + 9];
            for room in (0..len).chain([len + 9]) {
                block.dequantize(&mut out[..room]);
            }
            assert!(out[len..].iter().all(|w| w.to_bits() == UNTOUCHED), "{}", stringify!($block));
        })*};
    }
    for_each_format!(all);
}

#[test]
fn the_list_names_each_type_once() {
    for (i, ty) in GgmlType::COMPUTABLE.iter().enumerate() {
        assert!(ty.is_computable());
        assert!(!GgmlType::COMPUTABLE[i + 1..].contains(ty), "{ty} is there twice");
    }
    let others = GgmlType::ALL.iter().filter(|ty| !ty.is_computable());
    for &ty in others {
        let error = dequantize_row(ty, &[], &mut []);
        assert_eq!(error, Err(RowError::NotComputable { ty }));
        assert!(error.unwrap_err().to_string().contains(ty.name()));
    }
}
