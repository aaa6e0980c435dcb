//! Turns the weights of big-endian files into little-endian ones, and back.
#![forbid(unsafe_code)]

use gristmill_kernels::quant::GgmlType;

use super::tensor::TensorInfo;
use crate::{Error, Result};

/// Swaps the bytes of each number in a tensor's blocks, in place.
///
/// Of the quantized types those are known that gguf-py's `gguf_convert_endian.py` converts; for the others it is
/// not settled what a big-endian file holds.
///
/// # Errors
/// [`Error::BigEndianTensor`] for the other types; `data` is then unchanged.
pub fn swap_bytes(tensor: &TensorInfo, data: &mut [u8]) -> Result<()> {
    let fields = fields(tensor.ty)
        .ok_or_else(|| Error::BigEndianTensor { tensor: tensor.name.clone(), ty: tensor.ty })?;
    for block in data.chunks_exact_mut(tensor.ty.block_bytes()) {
        for &(at, size) in fields {
            if let Some(number) = block.get_mut(at..at + size) {
                number.reverse();
            }
        }
    }
    Ok(())
}

/// The numbers of more than one byte in a block: where they begin, and their sizes.
fn fields(ty: GgmlType) -> Option<&'static [(usize, usize)]> {
    Some(match ty {
        GgmlType::F64 | GgmlType::I64 => &[(0, 8)],
        GgmlType::F32 | GgmlType::I32 => &[(0, 4)],
        GgmlType::F16 | GgmlType::BF16 | GgmlType::I16 => &[(0, 2)],
        GgmlType::I8 | GgmlType::MXFP4 | GgmlType::NVFP4 => &[],
        GgmlType::Q4_0 | GgmlType::Q8_0 => &[(0, 2)],
        GgmlType::Q4_K => &[(0, 2), (2, 2)],
        GgmlType::Q6_K => &[(208, 2)],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(ty: GgmlType) -> TensorInfo {
        TensorInfo { name: "t".into(), ne: [2 * ty.block_len(), 1, 1, 1], dims: 1, ty, range: 0..1 }
    }

    #[test]
    fn only_the_numbers_of_a_block_change() {
        let mut data: Vec<u8> = (0..36).collect();
        swap_bytes(&tensor(GgmlType::Q4_0), &mut data).unwrap();
        let mut expected: Vec<u8> = (0..36).collect();
        expected.swap(0, 1);
        expected.swap(18, 19);
        assert_eq!(data, expected);
    }

    #[test]
    fn swapping_twice_changes_nothing() {
        for &ty in GgmlType::ALL {
            let data: Vec<u8> = (0..2 * ty.block_bytes()).map(|i| i as u8).collect();
            let mut swapped = data.clone();
            match swap_bytes(&tensor(ty), &mut swapped) {
                Ok(()) => swap_bytes(&tensor(ty), &mut swapped).unwrap(),
                Err(Error::BigEndianTensor { ty: of, .. }) => assert_eq!(of, ty),
                Err(other) => panic!("{other}"),
            }
            assert_eq!(swapped, data, "{ty}");
        }
    }
}
