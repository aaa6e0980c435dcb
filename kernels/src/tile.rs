//! Panels: a few rows of weights unpacked once, laid out for the microkernel of [`crate::gemm`].
//!
//! After unpacking, no code knows the format. Sixteen rows are interleaved four codes at a time, so that one
//! register holds four codes of eight rows and meets four activations broadcast to all lanes.
#![forbid(unsafe_code)]

use crate::Mismatch;
use crate::dispatch::Task;
use crate::quant::{Block, Codes, Scaled, Superblock};
use crate::simd::Isa;

/// Rows of a panel of integer codes.
pub(crate) const ROWS: usize = 16;
/// Rows of a panel of floats.
pub(crate) const FLOAT_ROWS: usize = 12;

/// One value for each row of a panel.
type Lanes = [f32; ROWS];

/// What the microkernel must know of a format.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub superblocks: bool,
    pub codes: Codes,
    /// What is subtracted from every code: zero or a power of two.
    pub offset: i32,
    pub mins: bool,
    /// Weights that share a group scale.
    pub group: usize,
}

impl Kind {
    pub fn of_scaled<B: Scaled>() -> Self {
        Kind { superblocks: false, codes: B::CODES, offset: B::OFFSET, mins: B::MINS, group: 32 }
    }

    pub fn of_superblocks<B: Superblock>() -> Self {
        let offset = i32::from(B::OFFSET);
        Kind { superblocks: true, codes: B::CODES, offset, mins: B::MINS, group: B::GROUP }
    }
}

/// Sixteen rows of integer codes. `len` weights a row; rows that are missing at the end of a matrix are zero.
pub(crate) struct Panel<'a> {
    pub kind: Kind,
    /// `[len / 4][row][4]`
    pub codes: &'a mut [[[u8; 4]; ROWS]],
    /// Superblocks: the scale of each sixteen, twice for each row: `[len / 16][row][2]`.
    pub group_scales: &'a mut [[[i16; 2]; ROWS]],
    /// Superblocks: the minimums (or the scales times the offset) of each two sixteens: `[len / 32][row][2]`.
    pub group_mins: &'a mut [[[i16; 2]; ROWS]],
    /// `[len / block][row]`
    pub scales: &'a mut [Lanes],
    /// `[len / block][row]`
    pub mins: &'a mut [Lanes],
}

/// Floats of scratch memory that a panel of rows of `len` weights needs, whatever the format.
pub fn scratch_len(len: usize) -> usize {
    let padded = len.next_multiple_of(256);
    // Codes 4 floats for each weight of sixteen rows; group scales and minimums 1 + 1/2 for each weight;
    // scales and minimums 2 x 16 for each 32. A panel of floats needs 12 for each weight.
    FLOAT_ROWS.saturating_mul(padded)
}

impl<'a> Panel<'a> {
    /// Cuts a panel for rows of `len` weights out of `scratch`.
    pub(crate) fn new(scratch: &'a mut [f32], len: usize, kind: Kind) -> Result<Self, Mismatch> {
        let block = if kind.superblocks { 256 } else { 32 };
        let needed = scratch_len(len);
        if scratch.len() < needed {
            return Err(Mismatch {
                what: "floats of scratch memory",
                expected: needed,
                found: scratch.len(),
            });
        }
        let (codes, rest) = scratch.split_at_mut(len / 4 * ROWS);
        let (group_scales, rest) = rest.split_at_mut(len / 16 * ROWS);
        let (group_mins, rest) = rest.split_at_mut(len / 32 * ROWS);
        let (scales, rest) = rest.split_at_mut(len / block * ROWS);
        let (mins, _) = rest.split_at_mut(len / block * ROWS);
        Ok(Panel {
            kind,
            codes: bytemuck::cast_slice_mut(codes),
            group_scales: bytemuck::cast_slice_mut(group_scales),
            group_mins: bytemuck::cast_slice_mut(group_mins),
            scales: scales.as_chunks_mut().0,
            mins: mins.as_chunks_mut().0,
        })
    }

    /// Puts 32 codes of a row in their places.
    #[inline(always)]
    fn put_codes<I: Isa>(&mut self, isa: I, row: usize, part: usize, codes: I::Bytes) {
        let mut bytes = [0; 32];
        isa.store_bytes(codes, &mut bytes);
        for (at, quad) in self.codes[8 * part..8 * part + 8].iter_mut().zip(bytes.as_chunks::<4>().0) {
            at[row] = *quad;
        }
    }

    /// Unpacks one row of scaled blocks.
    #[inline(always)]
    pub(crate) fn put_scaled<I: Isa, B: Scaled>(&mut self, isa: I, row: usize, blocks: &[B]) {
        for (i, block) in blocks.iter().enumerate() {
            for part in 0..B::PARTS {
                let at = i * B::PARTS + part;
                self.put_codes(isa, row, at, block.load_codes(isa, part));
                self.scales[at][row] = block.scale(part);
                if B::MINS {
                    self.mins[at][row] = block.min(part);
                }
            }
        }
    }

    /// Unpacks one row of superblocks.
    #[inline(always)]
    pub(crate) fn put_superblocks<I: Isa, B: Superblock>(&mut self, isa: I, row: usize, blocks: &[B]) {
        for (i, block) in blocks.iter().enumerate() {
            for part in 0..8 {
                self.put_codes(isa, row, 8 * i + part, block.load_codes(isa, part));
            }
            let scales = block.group_scales();
            for (at, scale) in self.group_scales[16 * i..][..16].iter_mut().zip(scales) {
                at[row] = [i16::from(scale); 2];
            }
            self.scales[i][row] = block.scale();
            if B::MINS || B::OFFSET != 0 {
                let (mins, factor) = if B::MINS { (block.group_mins(), 1) } else { (scales, B::OFFSET) };
                let pairs = mins.as_chunks::<2>().0;
                for (at, pair) in self.group_mins[8 * i..][..8].iter_mut().zip(pairs) {
                    at[row] = pair.map(|min| i16::from(min) * factor);
                }
            }
            if B::MINS {
                self.mins[i][row] = block.min_scale();
            }
        }
    }

    /// Makes row `row` a row of zeros.
    #[inline(always)]
    pub(crate) fn put_nothing(&mut self, row: usize) {
        self.codes.iter_mut().for_each(|at| at[row] = [0; 4]);
        self.group_scales.iter_mut().for_each(|at| at[row] = [0; 2]);
        self.group_mins.iter_mut().for_each(|at| at[row] = [0; 2]);
        self.scales.iter_mut().for_each(|at| at[row] = 0.0);
        self.mins.iter_mut().for_each(|at| at[row] = 0.0);
    }
}

/// Unpacks rows of scaled blocks: as many as there are, and zeros in the place of those that are missing.
pub(crate) struct UnpackScaled<'a, 'p, B> {
    pub rows: &'a [B],
    pub row_blocks: usize,
    pub panel: &'a mut Panel<'p>,
}

impl<B: Scaled> Task for UnpackScaled<'_, '_, B> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut count = 0;
        for row in self.rows.chunks_exact(self.row_blocks) {
            self.panel.put_scaled(isa, count, row);
            count += 1;
        }
        (count..ROWS).for_each(|row| self.panel.put_nothing(row));
    }
}

/// Unpacks rows of superblocks: as many as there are, and zeros in the place of those that are missing.
pub(crate) struct UnpackSuperblocks<'a, 'p, B> {
    pub rows: &'a [B],
    pub row_blocks: usize,
    pub panel: &'a mut Panel<'p>,
}

impl<B: Superblock> Task for UnpackSuperblocks<'_, '_, B> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut count = 0;
        for row in self.rows.chunks_exact(self.row_blocks) {
            self.panel.put_superblocks(isa, count, row);
            count += 1;
        }
        (count..ROWS).for_each(|row| self.panel.put_nothing(row));
    }
}

/// Unpacks rows of any format as floats, each padded with zeros to `padded` floats, a multiple of 32.
pub(crate) struct UnpackFloats<'a, B> {
    pub rows: &'a [B],
    pub row_blocks: usize,
    pub padded: usize,
    pub out: &'a mut [f32],
}

impl<B: Block> Task for UnpackFloats<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let rows = self.rows.chunks_exact(self.row_blocks);
        for (row, out) in rows.zip(self.out.chunks_exact_mut(self.padded)) {
            let (out, padding) = out.split_at_mut(self.row_blocks * B::LEN);
            B::unpack(isa, row, out);
            padding.fill(0.0);
        }
    }
}
