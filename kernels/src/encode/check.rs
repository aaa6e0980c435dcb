//! Whether bytes hold numbers that can be computed with (ggml's `ggml_validate_row_data`).
#![forbid(unsafe_code)]

use crate::quant::GgmlType;

/// Where a block's half-precision scales lie.
fn scales(ty: GgmlType) -> &'static [usize] {
    use GgmlType::*;
    match ty {
        F16 | Q4_0 | Q5_0 | Q8_0 | Q1_0 | Q2_0 | IQ4_NL | IQ4_XS => &[0],
        IQ1_S | IQ2_XXS | IQ2_XS | IQ2_S | IQ3_XXS | IQ3_S => &[0],
        Q4_1 | Q5_1 | Q4_K | Q5_K => &[0, 2],
        Q2_K => &[80, 82],
        Q3_K => &[108],
        Q6_K => &[208],
        TQ1_0 => &[52],
        TQ2_0 => &[64],
        _ => &[],
    }
}

/// The first block of `bytes`, whole blocks of type `ty`, that has an infinity or NaN for a weight or a scale.
pub fn first_damaged_block(ty: GgmlType, bytes: &[u8]) -> Option<usize> {
    let scales = scales(ty);
    let short = |block: &[u8], at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
    let no_half = |bits: u16| bits & 0x7c00 == 0x7c00;
    let damaged = |block: &[u8]| match ty {
        GgmlType::F32 => u32::from(short(block, 2)) & 0x7f80 == 0x7f80,
        GgmlType::BF16 => short(block, 0) & 0x7f80 == 0x7f80,
        GgmlType::F64 => short(block, 6) & 0x7ff0 == 0x7ff0,
        GgmlType::MXFP4 => block[0] == 0xff,
        // The scale's nibbles are the highest of four numbers.
        GgmlType::IQ1_M => no_half(
            short(block, 54) & 0xf000
                | short(block, 52) >> 4 & 0x0f00
                | short(block, 50) >> 8 & 0x00f0
                | short(block, 48) >> 12,
        ),
        _ => scales.iter().any(|&at| no_half(short(block, at))),
    };
    bytes.chunks_exact(ty.block_bytes()).position(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinite_scales_are_found_where_they_lie() {
        for (ty, at) in
            [(GgmlType::Q4_0, 0), (GgmlType::Q6_K, 208), (GgmlType::Q2_K, 82), (GgmlType::TQ1_0, 52)]
        {
            let mut bytes = vec![0; 3 * ty.block_bytes()];
            assert_eq!(first_damaged_block(ty, &bytes), None);
            let place = 2 * ty.block_bytes() + at;
            bytes[place..place + 2].copy_from_slice(&0x7c00_u16.to_le_bytes());
            assert_eq!(first_damaged_block(ty, &bytes), Some(2), "{ty}");
        }
        let mut bytes = [0; 56];
        bytes[48..].copy_from_slice(&[0, 0, 0, 0, 0, 0xc0, 0, 0x70]);
        assert_eq!(first_damaged_block(GgmlType::IQ1_M, &bytes), Some(0));
        assert_eq!(first_damaged_block(GgmlType::F32, &f32::NAN.to_le_bytes()), Some(0));
        assert_eq!(first_damaged_block(GgmlType::F32, &1e38_f32.to_le_bytes()), None);
    }
}
