//! Panels: a span of sixteen rows of weights, unpacked once and laid out for the microkernel of [`crate::gemm`].
//!
//! After unpacking, no code knows the format. The rows are interleaved four codes at a time, so that a register holds
//! four codes of each row and meets four activations broadcast to all lanes.
//!
//! Processors that multiply only unsigned bytes with signed ones, and have no dot product of them ([`Isa::PAIRS`]), take the magnitudes
//! of signed codes and invert the activations' bits where a code is negative. That is one less than their negative, so what is missing,
//! the sum of the negative codes' magnitudes, is added up beforehand. For a matrix unit superblocks' codes are multiplied with their
//! group scales, and the low and high bytes of that lie apart.
#![forbid(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "loops over several arrays of registers, without closures")]

use core::ops::Range;

use crate::Mismatch;
use crate::activations::CENTRE;
use crate::attention::Line;
use crate::dispatch::Task;
use crate::gemv::SPAN;
use crate::quant::{Block, Codes, Groups, Scaled, Superblock, eight};
use crate::simd::Isa;

/// Rows of a panel of integer codes.
pub(crate) const ROWS: usize = 16;
/// A column's sums of some neighbouring panels. They go to the results together, since there columns are far apart: a few
/// cache lines of each, in a page of its own.
pub(crate) type Strip = [[f32; ROWS]; 4];

/// Floats of memory for a panel.
const PANEL_LEN: usize = crate::gemm_floats::SCRATCH_LEN;

/// Floats of scratch memory that a product with so many columns needs: a panel, the sums of a few panels for each, and what is skipped to
/// begin with a cache line.
pub const fn scratch_len(columns: usize) -> usize {
    let strip = size_of::<Strip>() / size_of::<f32>();
    columns.saturating_mul(strip).saturating_add(PANEL_LEN + size_of::<Line>() / size_of::<f32>())
}

/// What scratch memory is for.
pub(crate) struct Scratch<'a> {
    /// Of [`PANEL_LEN`] floats.
    pub panel: &'a mut [f32],
    /// One for each column.
    pub strips: &'a mut [Strip],
}

impl<'a> Scratch<'a> {
    /// Cuts it, from the first whole cache line of `scratch` on: the microkernel's loads would straddle lines otherwise.
    ///
    /// # Errors
    /// [`Mismatch`] where `scratch` is shorter than [`scratch_len`].
    pub fn new(scratch: &'a mut [f32], columns: usize) -> Result<Self, Mismatch> {
        let found = scratch.len();
        let (_, lines, _) = bytemuck::pod_align_to_mut::<f32, Line>(scratch);
        let (panel, rest) =
            bytemuck::cast_slice_mut(lines).split_at_mut_checked(PANEL_LEN).unwrap_or_default();
        match rest.as_chunks_mut().0.as_chunks_mut().0.get_mut(..columns) {
            Some(strips) if !panel.is_empty() => Ok(Scratch { panel, strips }),
            _ => Err(Mismatch { what: "floats of scratch", expected: scratch_len(columns), found }),
        }
    }
}

/// What the microkernel must know of a format.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub superblocks: bool,
    /// What is added to every code on its way into the panel, wrapping.
    shift: u8,
    /// What is to be subtracted from every code in the panel.
    pub offset: i32,
    pub mins: bool,
    /// Weights that share a group scale.
    pub group: usize,
    pub width: Width,
    /// Steps of four codes whose products are added up before they are widened.
    pub steps: usize,
    /// Whether sums of pairs are centred by [`crate::activations::Sums::of_pairs`], which takes off the offset.
    pub centred: bool,
    /// Whether the panel is for a matrix unit.
    pub matrices: bool,
}

/// How codes lie in a panel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// Bytes, `[len / 4][row][4]`.
    Bytes,
    /// The codes' magnitudes and their signs (`0xFF` where a code is negative) in turns, `[len / 4][2][row][4]`: were they as far apart
    /// as a span is long, a load of one would hinder a load of the other.
    Signed,
    /// Integers of 16 bits, of superblocks times the group scales: all low bytes, then all high bytes, both as [`Width::Bytes`].
    Planes,
}

impl Kind {
    fn new<I: Isa>(
        matrices: bool,
        superblocks: bool,
        codes: Codes,
        offset: i32,
        mins: bool,
        group: usize,
    ) -> Self {
        let centred = I::PAIRS && superblocks && codes == Codes::Unsigned(63) && offset == i32::from(CENTRE);
        let (width, shift, offset) = match codes {
            _ if matrices && superblocks => (Width::Planes, -offset, 0),
            _ if matrices => (Width::Bytes, -offset, 0),
            Codes::Signed if I::DOTS => (Width::Bytes, I::SIGNED_BIAS, I::SIGNED_BIAS),
            Codes::Signed if I::PAIRS => (Width::Signed, 0, 0),
            Codes::Signed => (Width::Bytes, 0, 0),
            Codes::Unsigned(_) if centred => (Width::Bytes, 0, 0),
            Codes::Unsigned(_) => (Width::Bytes, 0, offset),
        };
        let fit = match codes {
            Codes::Unsigned(_) if centred => 4,
            _ if !I::DOTS => codes.sums_in_16_bits(),
            _ => 8,
        };
        // A group's sum must not run into the next group, which has another scale.
        let steps = fit.min(group / 4);
        Kind { superblocks, shift: shift as u8, offset, mins, group, width, steps, centred, matrices }
    }

    fn of_scaled<I: Isa, B: Scaled>(matrices: bool) -> Self {
        // For a part `gemm` takes an offset off or adds minimums, never both.
        const { assert!(!B::MINS || B::OFFSET == 0 && !matches!(B::CODES, Codes::Signed)) };
        Self::new::<I>(matrices, false, B::CODES, B::OFFSET, B::MINS, B::GROUP)
    }

    fn of_superblocks<I: Isa, B: Superblock>(matrices: bool) -> Self {
        const { assert!(!matches!(B::CODES, Codes::Signed) || B::GROUP == 32) };
        Self::new::<I>(matrices, true, B::CODES, i32::from(B::OFFSET), B::MINS, B::GROUP)
    }

    /// Whether integer products of `group_mins` with the activations' sums are needed.
    pub fn has_group_mins(&self) -> bool {
        self.superblocks && (self.mins || self.offset != 0)
    }
}

/// A span of sixteen rows of integer codes, `len` weights of each; where a matrix ends earlier, its last row again.
pub(crate) struct Panel<'a> {
    pub kind: Kind,
    pub len: usize,
    /// As [`Width`] says.
    pub codes: &'a mut [[[u8; 4]; ROWS]],
    /// Where signs lie apart, the magnitudes of negative codes, of superblocks times the group scales, added up: `[len / block][row]`.
    pub missing: &'a mut [[i32; ROWS]],
    /// Superblocks: the integer scale of each group, twice for each row: `[len / group][row][2]`.
    pub group_scales: &'a mut [[[i16; 2]; ROWS]],
    /// Superblocks: the minimums (or the scales times the offset) of each two groups: `[len / group / 2][row][2]`.
    pub group_mins: &'a mut [[[i16; 2]; ROWS]],
    /// `[len / 256][row]` of superblocks, else `[len / group][row]`
    pub scales: &'a mut [[f32; ROWS]],
    /// What the minimums (of superblocks: negative) are multiplied with: `[len / block][row]`
    pub mins: &'a mut [[f32; ROWS]],
}

impl<'a> Panel<'a> {
    /// Cuts a panel for `len` weights of each row, at most [`SPAN`], out of `scratch`.
    ///
    /// # Errors
    /// [`Mismatch`] where `scratch` is shorter than [`PANEL_LEN`].
    fn new(scratch: &'a mut [f32], len: usize, kind: Kind) -> Result<Self, Mismatch> {
        // Codes 4 or 8 floats for each weight, group scales and minimums at most 1 + 1/2, scales and minimums 1.
        const { assert!((8 + 2) * SPAN + SPAN / 2 <= PANEL_LEN) };
        if scratch.len() < PANEL_LEN || len > SPAN {
            return Err(Mismatch { what: "floats of a panel", expected: PANEL_LEN, found: scratch.len() });
        }
        let block = if kind.superblocks { 256 } else { kind.group };
        let groups = if kind.superblocks && kind.width != Width::Planes { len / kind.group } else { 0 };
        let pairs = if kind.has_group_mins() { len / kind.group / 2 } else { 0 };
        let (codes, rest) = scratch.split_at_mut(len / if kind.width == Width::Bytes { 4 } else { 2 } * ROWS);
        let (group_scales, rest) = rest.split_at_mut(groups * ROWS);
        let (group_mins, rest) = rest.split_at_mut(pairs * ROWS);
        let (scales, rest) = rest.split_at_mut(len / block * ROWS);
        let (mins, rest) = rest.split_at_mut(if kind.mins { len / block * ROWS } else { 0 });
        let (missing, _) =
            rest.split_at_mut(if kind.width == Width::Signed { len / block * ROWS } else { 0 });
        Ok(Panel {
            kind,
            len,
            codes: bytemuck::cast_slice_mut(codes),
            group_scales: bytemuck::cast_slice_mut(group_scales),
            group_mins: bytemuck::cast_slice_mut(group_mins),
            scales: scales.as_chunks_mut().0,
            mins: mins.as_chunks_mut().0,
            missing: bytemuck::cast_slice_mut(missing),
        })
    }

    /// Puts the codes of part `part` (32 weights) of eight rows, from row `8 half` on, in their places, given the scales of each row's two
    /// sixteens. What is missing where signs lie apart is added to `missing`.
    #[inline(always)]
    fn put_codes<I: Isa>(
        &mut self,
        isa: I,
        (part, half): (usize, usize),
        codes: [I::Bytes; 8],
        scales: [[i16; 2]; 8],
        missing: &mut [I::Ints; 8],
    ) {
        let mut codes = codes;
        if self.kind.shift != 0 {
            let shift = isa.splat_byte(self.kind.shift);
            for codes in &mut codes {
                *codes = isa.add_bytes(*codes, shift);
            }
        }
        let mut upper = codes;
        for row in 0..8 {
            match self.kind.width {
                Width::Bytes => {}
                Width::Signed => {
                    [codes[row], upper[row]] = isa.split_signs(codes[row]);
                    let negative = isa.pairs_unsigned(codes[row], upper[row]);
                    let scale = isa.splat_pair([-scales[row][0]; 2]);
                    missing[row] = isa.add_dot_shorts(missing[row], negative, scale);
                }
                Width::Planes => {
                    let mut sixteens = isa.sixteens(codes[row]);
                    for (sixteen, scale) in sixteens.iter_mut().zip(scales[row]) {
                        *sixteen = isa.scale_sixteen(*sixteen, scale);
                    }
                    [codes[row], upper[row]] = isa.split_sixteens(sixteens);
                }
            }
        }
        match self.kind.width {
            Width::Bytes => put::<I, 1>(isa, &mut self.codes[8 * part..], half, codes),
            Width::Signed => {
                put::<I, 2>(isa, &mut self.codes[16 * part..], half, codes);
                put::<I, 2>(isa, &mut self.codes[16 * part + 1..], half, upper);
            }
            Width::Planes => {
                put::<I, 1>(isa, &mut self.codes[8 * part..], half, codes);
                put::<I, 1>(isa, &mut self.codes[self.len / 4 + 8 * part..], half, upper);
            }
        }
    }

    /// Keeps what is missing of eight rows, from row `8 half` on, in block `block`.
    #[inline(always)]
    fn keep_missing<I: Isa>(&mut self, isa: I, (block, half): (usize, usize), missing: &[I::Ints; 8]) {
        if let Some(to) = self.missing.get_mut(block) {
            isa.store_ints(isa.sum_each(missing), &mut to.as_chunks_mut().0[half]);
        }
    }
}

/// Stores eight registers of eight rows each as eight places of eight rows, in half `half` of them: the first place of each `EVERY`.
#[inline(always)]
fn put<I: Isa, const EVERY: usize>(isa: I, to: &mut [[[u8; 4]; ROWS]], half: usize, rows: [I::Bytes; 8]) {
    let places = isa.deal(rows);
    for (to, place) in to.iter_mut().step_by(EVERY).zip(places) {
        isa.store_bytes(place, &mut to.as_flattened_mut().as_chunks_mut().0[half]);
    }
}

/// The rows of a panel: slices of the blocks that the panel holds; the last row again where there are fewer.
#[inline(always)]
fn rows_of<B>(rows: &[B], row_blocks: usize, first: usize, count: usize) -> [&[B]; ROWS] {
    let last = (rows.len() / row_blocks).saturating_sub(1);
    core::array::from_fn(|row| &rows[row.min(last) * row_blocks + first..][..count])
}

/// Unpacks `count` blocks, from block `first` on, of up to sixteen rows of `row_blocks` blocks.
pub(crate) struct Unpack<'a, 's, B> {
    /// Whether the panel is for a matrix unit.
    pub matrices: bool,
    pub rows: &'a [B],
    pub row_blocks: usize,
    pub first: usize,
    pub count: usize,
    pub scratch: &'s mut [f32],
}

impl<'s, B: Block> Unpack<'_, 's, B> {
    /// Unpacks scaled blocks.
    #[inline(always)]
    pub fn scaled<I: Isa>(self, isa: I) -> Result<Panel<'s>, Mismatch>
    where
        B: Scaled,
    {
        let rows = rows_of(self.rows, self.row_blocks, self.first, self.count);
        let mut panel =
            Panel::new(self.scratch, self.count * B::LEN, Kind::of_scaled::<I, B>(self.matrices))?;
        for block in 0..self.count {
            for half in 0..2 {
                let row = |i: usize| &rows[8 * half + i][block];
                for group in 0..B::LEN / B::GROUP {
                    let scales = eight(isa, |i| row(i).scale(group));
                    let at = block * (B::LEN / B::GROUP) + group;
                    isa.store(scales, &mut panel.scales[at].as_chunks_mut().0[half]);
                }
                for part in 0..B::PARTS {
                    let mut codes = [isa.splat_byte(0); 8];
                    for (i, codes) in codes.iter_mut().enumerate() {
                        *codes = row(i).load_codes(isa, part);
                    }
                    let at = block * B::PARTS + part;
                    let mut missing = [isa.zero_ints(); 8];
                    panel.put_codes(isa, (at, half), codes, [[1; 2]; 8], &mut missing);
                    panel.keep_missing(isa, (at, half), &missing);
                    if B::MINS {
                        let mins = eight(isa, |i| row(i).min());
                        isa.store(mins, &mut panel.mins[at].as_chunks_mut().0[half]);
                    }
                }
            }
        }
        Ok(panel)
    }

    /// Unpacks superblocks.
    #[inline(always)]
    pub fn superblocks<I: Isa>(self, isa: I) -> Result<Panel<'s>, Mismatch>
    where
        B: Superblock,
    {
        let rows = rows_of(self.rows, self.row_blocks, self.first, self.count);
        let kind = Kind::of_superblocks::<I, B>(self.matrices);
        let mut panel = Panel::new(self.scratch, self.count * B::LEN, kind)?;
        let groups = 256 / B::GROUP;
        for block in 0..self.count {
            for half in 0..2 {
                let row = |i: usize| &rows[8 * half + i][block];
                let mut floats = eight(isa, |i| row(i).scale());
                if B::UNIT != 1.0 {
                    floats = isa.mul(floats, isa.splat(B::UNIT));
                }
                isa.store(floats, &mut panel.scales[block].as_chunks_mut().0[half]);
                if B::MINS {
                    let mins = isa.mul(eight(isa, |i| row(i).min_scale()), isa.splat(-1.0));
                    isa.store(mins, &mut panel.mins[block].as_chunks_mut().0[half]);
                }
                // Rows of two integers for each place, dealt to the places like codes: the compiler's own way to write
                // them one by one takes as long as all codes.
                let (mut scales, mut pairs) = ([[0; 16]; 8], [[0; 16]; 8]);
                for i in 0..8 {
                    scales[i] = integers(row(i).group_scales());
                    if B::MINS {
                        pairs[i] = integers(row(i).group_mins());
                    } else if kind.has_group_mins() {
                        pairs[i] = scales[i].map(|scale| scale * kind.offset as i16);
                    }
                }
                if kind.width != Width::Planes {
                    let places = &mut panel.group_scales[groups * block..][..groups];
                    for (of_eight, places) in places.chunks_exact_mut(8).enumerate() {
                        let mut rows = [isa.splat_byte(0); 8];
                        for (row, scales) in rows.iter_mut().zip(&scales) {
                            let scales = &scales.as_chunks::<8>().0[of_eight];
                            *row = isa.bytes(&bytemuck::cast(scales.map(|scale| [scale; 2])));
                        }
                        put::<I, 1>(isa, bytemuck::cast_slice_mut(places), half, rows);
                    }
                }
                if kind.has_group_mins() {
                    let mut rows = [isa.splat_byte(0); 8];
                    for (row, pairs) in rows.iter_mut().zip(&pairs) {
                        *row = isa.bytes(&bytemuck::cast(*pairs));
                    }
                    let places = &mut panel.group_mins[groups / 2 * block..][..groups / 2];
                    put::<I, 1>(isa, bytemuck::cast_slice_mut(places), half, rows);
                }
                let mut apart = [[0; 8]; 8];
                for i in 0..8 {
                    if B::SIGNS {
                        apart[i] = isa.fours_of(row(i).signs(isa));
                    } else if B::SHIFTS {
                        apart[i] = isa.fours_of(row(i).shifts(isa));
                    }
                }
                let mut missing = [isa.zero_ints(); 8];
                for part in 0..8 {
                    let mut codes = [isa.splat_byte(0); 8];
                    for (i, codes) in codes.iter_mut().enumerate() {
                        *codes = row(i).load_codes(isa, part);
                        if B::SIGNS {
                            let levels = isa.negate_where(*codes, apart[i][part]);
                            *codes = isa.add_bytes(levels, isa.splat_byte(B::OFFSET as u8));
                        } else if B::SHIFTS {
                            *codes = isa.add_bytes(*codes, isa.spread_bytes(apart[i][part]));
                        }
                    }
                    let of_16 = |i| 16 * i / B::GROUP;
                    let scales = scales.map(|of_row| [of_row[of_16(2 * part)], of_row[of_16(2 * part + 1)]]);
                    panel.put_codes(isa, (8 * block + part, half), codes, scales, &mut missing);
                }
                panel.keep_missing(isa, (block, half), &missing);
            }
        }
        Ok(panel)
    }
}

/// The groups' integers, widened: 16 or 8 of them.
#[inline(always)]
fn integers(groups: Groups) -> [i16; 16] {
    match groups {
        Groups::Of16(groups) => groups.map(i16::from),
        Groups::Of32(groups) => core::array::from_fn(|i| if i < 8 { i16::from(groups[i]) } else { 0 }),
    }
}

/// What a panel is unpacked from: `len` bytes of each row, from byte `start` on. Its rows are too short for the processor to see
/// them coming.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub rows: &'a [u8],
    pub row_bytes: usize,
    pub start: usize,
    pub len: usize,
}

impl Source<'_> {
    /// Has the memory bring some rows of the panel.
    #[inline(always)]
    pub fn fetch<I: Isa>(self, isa: I, rows: Range<usize>) {
        for row in rows {
            let Some(bytes) = self.rows.get(row * self.row_bytes + self.start..) else { return };
            // Lines begin anywhere in it.
            for line in (0..self.len + 63).step_by(64) {
                isa.prefetch(bytes.as_ptr(), line);
            }
        }
    }
}

/// Fetches all rows.
impl Task for Source<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.fetch(isa, 0..ROWS);
    }
}
