//! The right-hand side of a product: columns of activations, as floats or as 8-bit codes.
//!
//! Formats with integer codes multiply codes with codes, so the activations of a product are first quantized to 8
//! bits: the scale is the largest magnitude over 127, the codes are rounded to the nearest, ties to even. One scale
//! serves 16 activations ([`Form::Sixteens`]), 32 ([`Form::Scaled`]) or 256 ([`Form::Superblocks`]), as the format of the
//! weights demands.
//! A NaN or infinity among the activations makes its scale NaN or infinite, and so reaches the result.
#![forbid(unsafe_code)]

use core::mem;

use crate::dispatch::Task;
use crate::simd::matrix::SIDE;
use crate::simd::{Isa, Level};
use crate::{Mismatch, gemm_floats};

/// How a format of weights wants the activations of its products.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// As they are: in the place of scales, without codes and sums.
    Floats,
    /// 8-bit codes, a scale and a sum of codes for every 16.
    Sixteens,
    /// 8-bit codes, a scale and a sum of codes for every 32.
    Scaled,
    /// 8-bit codes, a scale for every 256 and the sums of codes of a superblock ([`Sums`]).
    Superblocks,
    /// The same for few columns, each two parts of 32 codes crossed: the first sixteen of both, then the last sixteen of both. So one
    /// register of weights' scales, one for each 32, serves both registers of codes.
    Crossed,
}

/// The sums of the codes of 256 activations.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Sums {
    /// Of each 16 codes. In [`Form::Crossed`] of each 32, in the places that minimums have behind scales: even ones from 4 on, odd ones
    /// from 12 on, between zeros.
    pub of_16: [i16; 16],
    /// Of each 32 codes.
    pub of_32: [i16; 8],
    /// Of each 16 codes the first two of each four, and the last two: times -32. Zeros in layouts for levels that do not add
    /// up pairs ([`Isa::PAIRS`]), and where columns are few.
    pub of_pairs: [[i16; 2]; 16],
}

/// What [`Sums::of_pairs`] take off: the offset of codes of six bits. With it, four products of such pairs fit 16 bits.
pub(crate) const CENTRE: i16 = 32;

impl Form {
    /// Activations that share a scale.
    pub const fn block_len(self) -> usize {
        match self {
            Form::Floats => 1,
            Form::Sixteens => 16,
            Form::Scaled => 32,
            Form::Superblocks | Form::Crossed => 256,
        }
    }

    /// The form that weights of this form take so many columns in: only few lie crossed.
    pub(crate) const fn of_columns(self, count: usize) -> Form {
        if matches!(self, Form::Crossed) && count >= PANEL_COLUMNS { Form::Superblocks } else { self }
    }

    /// The length of a column is a multiple of it.
    const fn unit(self) -> usize {
        if matches!(self, Form::Sixteens) { 64 } else { self.block_len() }
    }

    /// Numbers of 32 bits that the sums of `len` activations take.
    pub const fn sums_len(self, len: usize) -> usize {
        match self {
            Form::Floats => 0,
            Form::Sixteens => len / 16,
            Form::Scaled => len / 32,
            Form::Superblocks | Form::Crossed => len / 256 * (size_of::<Sums>() / 4),
        }
    }
}

/// Columns from which on products unpack panels of weights ([`crate::product`]); their codes are interleaved.
pub(crate) const PANEL_COLUMNS: usize = 12;
/// The same of floats.
pub(crate) const FLOAT_PANEL_COLUMNS: usize = 6;
/// Columns whose codes are interleaved.
pub(crate) const INTERLEAVED: usize = 4;

/// How columns of codes lie in memory.
///
/// Few columns lie one behind the other, each with zeros behind it up to 256 codes and eight scales, which lie as decode takes them:
/// with a scale for each 32, of eight parts the first sixteens of parts 0 and 4, their last, those of parts 1 and 5 and so on;
/// with a scale for each 16, each 64 codes by eights, the even ones first; or crossed ([`Form::Crossed`]).
///
/// Of many columns, each four are interleaved: four codes of each, block by block a scale of each, and so the sums. For a matrix unit
/// sixteen are: 32 codes of each with a scale for each 32, 64 codes of each with a scale for each 256. Columns that are missing at the end
/// are zeros. Floats of many columns are dealt out to planes (`gemm_floats`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    form: Form,
    len: usize,
    count: usize,
    together: usize,
    /// Whether there are [`Sums::of_pairs`].
    pairs: bool,
}

impl Layout {
    /// For `count` columns of `len` activations each, to be multiplied on `level`.
    ///
    /// # Errors
    /// [`Mismatch`] where `len` is no number of whole blocks of weights.
    pub fn new(level: Level, form: Form, len: usize, count: usize) -> Result<Self, Mismatch> {
        let unit = form.unit();
        if len == 0 || !len.is_multiple_of(unit) {
            return Err(Mismatch { what: "activations of whole blocks", expected: unit, found: len });
        }
        let form = form.of_columns(count);
        let together = together(level, form, count);
        Ok(Layout { form, len, count, together, pairs: takes_pairs(level, form, together) })
    }

    /// Columns that are quantized together: 1, 4 or 16.
    pub fn together(&self) -> usize {
        self.together
    }

    /// Codes of a column that follow each other where columns are interleaved.
    fn run(&self) -> usize {
        match (self.together, self.form) {
            (SIDE, Form::Superblocks) => 64,
            (SIDE, _) => 32,
            _ => 4,
        }
    }

    /// Codes, scales and sums of columns that are quantized together.
    pub fn lens(&self) -> [usize; 3] {
        if self.form == Form::Floats {
            let padded = if self.together == 1 { self.len } else { self.len.next_multiple_of(32) };
            return [0, self.together * padded, 0];
        }
        if self.together == 1 {
            return [padded(self.len), 8 * eights(self.form, self.len), self.form.sums_len(padded(self.len))];
        }
        let len = self.together * self.len;
        [len, len / self.form.block_len(), self.form.sums_len(len)]
    }

    /// Codes, scales and sums of all columns.
    pub fn total_lens(&self) -> [usize; 3] {
        self.lens().map(|len| len.saturating_mul(self.count.div_ceil(self.together())))
    }

    /// Cuts columns, one behind the other, into what is quantized together, and takes room for it from the front of `room`.
    pub fn parts<'a>(self, x: &'a [f32], room: &mut Room<'a>) -> impl Iterator<Item = Part<'a>> {
        x.chunks(self.together * self.len).map(move |x| Part { x, room: room.take(self.lens()) })
    }

    fn check(&self, columns: usize, found: [usize; 3]) -> Result<(), Mismatch> {
        let expected = self.lens().map(|len| len * columns.div_ceil(self.together()));
        for ((what, expected), found) in ["codes", "scales", "sums"].into_iter().zip(expected).zip(found) {
            if expected != found {
                return Err(Mismatch { what, expected, found });
            }
        }
        Ok(())
    }
}

/// Where quantized columns go: so many of each as [`Layout::total_lens`] says.
pub struct Room<'a> {
    /// 8-bit codes.
    pub codes: &'a mut [i8],
    /// Scales; best from the start of a cache line on where they are floats in their place.
    pub scales: &'a mut [f32],
    /// Sums of codes.
    pub sums: &'a mut [i32],
}

impl<'a> Room<'a> {
    /// Takes so many codes, scales and sums from its front, none where there are fewer.
    fn take(&mut self, [codes, scales, sums]: [usize; 3]) -> Self {
        fn front<'a, T>(all: &mut &'a mut [T], len: usize) -> &'a mut [T] {
            let (front, rest) = mem::take(all).split_at_mut_checked(len).unwrap_or_default();
            *all = rest;
            front
        }
        Room {
            codes: front(&mut self.codes, codes),
            scales: front(&mut self.scales, scales),
            sums: front(&mut self.sums, sums),
        }
    }
}

/// Columns that are quantized together ([`Layout::together`]), or what is left of them at the end.
pub struct Part<'a> {
    /// One behind the other.
    x: &'a [f32],
    room: Room<'a>,
}

/// Codes of one of few columns of `len` activations, with the zeros behind it: decode takes 256 at a time.
const fn padded(len: usize) -> usize {
    len.next_multiple_of(256)
}

/// Scales of such a column, eight at a time.
const fn eights(form: Form, len: usize) -> usize {
    (padded(len) / form.block_len()).div_ceil(8)
}

/// How many of `count` columns lie together on `level`. No matrix unit takes 16 weights at a time.
fn together(level: Level, form: Form, count: usize) -> usize {
    match form {
        Form::Floats if count < FLOAT_PANEL_COLUMNS => 1,
        Form::Floats => gemm_floats::together(level),
        _ if count < PANEL_COLUMNS => 1,
        Form::Scaled | Form::Superblocks if level.has_matrix_unit() => SIDE,
        _ => INTERLEAVED,
    }
}

/// Whether products on `level` take [`Sums::of_pairs`] of columns that lie so many together.
fn takes_pairs(level: Level, form: Form, together: usize) -> bool {
    struct Pairs;

    impl Task for Pairs {
        type Output = bool;

        #[inline(always)]
        fn run<I: Isa>(self, _: I) -> bool {
            I::PAIRS
        }
    }
    form == Form::Superblocks && together == INTERLEAVED && level.run(Pairs)
}

/// Columns of activations, each `len` long.
#[derive(Clone, Copy)]
pub struct Columns<'a> {
    form: Form,
    len: usize,
    count: usize,
    together: usize,
    pairs: bool,
    codes: &'a [i8],
    scales: &'a [f32],
    sums: &'a [i32],
}

/// `N` interleaved columns, in runs of `K` codes.
#[derive(Clone, Copy)]
pub(crate) struct Interleaved<'a, const N: usize, const K: usize> {
    /// `[len / K][column][K]`
    pub codes: &'a [[[i8; K]; N]],
    /// `[len / block][column]`
    pub scales: &'a [[f32; N]],
    /// As the form has them: `[len / block][column]` integers, or `[len / 256][column]` of [`Sums`].
    sums: &'a [i32],
}

/// Columns as the microkernel of [`crate::gemm`] takes them.
pub(crate) type Four<'a> = Interleaved<'a, INTERLEAVED, 4>;

impl<'a, const N: usize, const K: usize> Interleaved<'a, N, K> {
    /// The sums of the codes of each block.
    #[inline(always)]
    pub fn sums(&self) -> &'a [[i32; N]] {
        self.sums.as_chunks().0
    }

    /// The sums of each superblock.
    #[inline(always)]
    pub fn superblock_sums(&self) -> &'a [[Sums; N]] {
        bytemuck::cast_slice::<i32, Sums>(self.sums).as_chunks().0
    }
}

impl<'a> Columns<'a> {
    /// Columns that [`quantize`] made in `layout`.
    ///
    /// # Errors
    /// [`Mismatch`] where the lengths are not the layout's [`Layout::total_lens`].
    pub fn quantized(
        layout: Layout,
        codes: &'a [i8],
        scales: &'a [f32],
        sums: &'a [i32],
    ) -> Result<Self, Mismatch> {
        layout.check(layout.count, [codes.len(), scales.len(), sums.len()])?;
        let Layout { form, len, count, together, pairs } = layout;
        Ok(Columns { form, len, count, together, pairs, codes, scales, sums })
    }

    /// How the activations are written.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Activations in a column.
    #[allow(clippy::len_without_is_empty, reason = "a column is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The number of columns.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether products on `level` find the columns as they take them.
    pub(crate) fn suit(&self, level: Level) -> bool {
        self.together == together(level, self.form, self.count)
            && (self.pairs || !takes_pairs(level, self.form, self.together))
    }

    /// Whether they lie as a matrix unit takes them.
    pub(crate) fn are_for_matrices(&self) -> bool {
        self.together == SIDE
    }

    /// Column `c` as floats; for few columns.
    #[inline(always)]
    pub(crate) fn float_column(&self, c: usize) -> &'a [f32] {
        &self.scales[c * self.len..][..self.len]
    }

    /// All columns as floats; many, as [`gemm_floats`] takes them.
    #[inline(always)]
    pub(crate) fn all_floats(&self) -> &'a [f32] {
        self.scales
    }

    /// The codes of column `c`, by 32, in the order of few columns ([`Layout`]).
    #[inline(always)]
    pub(crate) fn codes(&self, c: usize) -> &'a [[i8; 32]] {
        let len = padded(self.len);
        self.codes[c * len..][..len].as_chunks().0
    }

    /// The scales of column `c`, one for each block of the form, zeros behind them; for few columns.
    #[inline(always)]
    pub(crate) fn scales(&self, c: usize) -> &'a [[f32; 8]] {
        let eights = eights(self.form, self.len);
        &self.scales.as_chunks().0[c * eights..][..eights]
    }

    /// The sums of the codes of column `c`, one for each block of 16 or 32, zeros behind them; for few columns.
    #[inline(always)]
    pub(crate) fn sums(&self, c: usize) -> &'a [[i32; 8]] {
        let eights = eights(self.form, self.len);
        &self.sums.as_chunks().0[c * eights..][..eights]
    }

    /// The sums of the codes of column `c`, for each superblock; for few columns.
    #[inline(always)]
    pub(crate) fn superblock_sums(&self, c: usize) -> &'a [Sums] {
        let len = self.form.sums_len(self.len);
        bytemuck::cast_slice(&self.sums[c * len..][..len])
    }

    /// The `i`-th `N` columns, of many: `count` activations from `start` on, whole blocks.
    #[inline(always)]
    pub(crate) fn interleaved<const N: usize, const K: usize>(
        &self,
        i: usize,
        start: usize,
        count: usize,
    ) -> Interleaved<'a, N, K> {
        let first = N * (i * self.len + start);
        let count = N * count;
        let block = self.form.block_len();
        let sums = (self.form.sums_len(first), self.form.sums_len(count));
        Interleaved {
            codes: self.codes[first..][..count].as_chunks().0.as_chunks().0,
            scales: self.scales[first / block..][..count / block].as_chunks().0,
            sums: &self.sums[sums.0..][..sums.1],
        }
    }
}

/// Quantizes columns that lie together.
///
/// # Errors
/// [`Mismatch`] where the part is none of the layout's [`Layout::parts`], or there was no room for it.
pub fn quantize(level: Level, layout: Layout, part: Part<'_>) -> Result<(), Mismatch> {
    let Part { x, room: Room { codes, scales, sums } } = part;
    let columns = x.len() / layout.len;
    if columns == 0 || columns > layout.together() || !x.len().is_multiple_of(layout.len) {
        return Err(Mismatch { what: "activations of whole columns", expected: layout.len, found: x.len() });
    }
    layout.check(columns, [codes.len(), scales.len(), sums.len()])?;
    // What is missing stays zero: whole columns, or the end of one.
    let from = if columns < layout.together { 0 } else { layout.together * (layout.len / 256 * 256) };
    codes.iter_mut().skip(from).for_each(|code| *code = 0);
    scales.iter_mut().skip(from / layout.form.block_len()).for_each(|scale| *scale = 0.0);
    sums.iter_mut().skip(layout.form.sums_len(from)).for_each(|sum| *sum = 0);
    level.run(Quantize { layout, x, codes, scales, sums });
    Ok(())
}

struct Quantize<'a> {
    layout: Layout,
    x: &'a [f32],
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
}

impl Task for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Layout { form, len, pairs, .. } = self.layout;
        match form {
            Form::Floats if self.layout.together == 1 => return self.scales.copy_from_slice(self.x),
            Form::Floats => return gemm_floats::deal_columns::<I>(self.x, len, self.scales),
            _ => (),
        }
        let (together, run) = (self.layout.together(), self.layout.run());
        // Sixteens come by twos.
        let block = form.block_len().max(32);
        for (column, x) in self.x.chunks_exact(len).enumerate() {
            for (i, x) in x.chunks_exact(block).enumerate() {
                let x = x.as_chunks::<8>().0.as_chunks::<4>().0;
                let mut inverse = [0.0; 2];
                if let (Form::Sixteens, Some(x)) = (form, x.first()) {
                    for (half, x) in x.chunks_exact(2).enumerate() {
                        let scale = &mut self.scales[(2 * i + half) * together + column];
                        (*scale, inverse[half]) = scale_of(isa, x);
                    }
                } else {
                    let (scale, of_all) = scale_of(isa, x.as_flattened());
                    (self.scales[i * together + column], inverse) = (scale, [of_all; 2]);
                }
                let mut of_superblock = Sums { of_16: [0; 16], of_32: [0; 8], of_pairs: [[0; 2]; 16] };
                for (part, x) in x.iter().enumerate() {
                    let rounded = code_floats(isa, x, inverse);
                    let mut codes = [0; 32];
                    let as_bytes = isa.to_codes(rounded);
                    isa.store_signed_bytes(as_bytes, &mut codes);
                    let at = i * block + 32 * part;
                    if together == 1 && form == Form::Scaled {
                        let sixteens = self.codes[at / 256 * 256..][..256].as_chunks_mut::<16>().0;
                        let place = i % 4 * 4 + i / 4 % 2;
                        [sixteens[place], sixteens[place + 2]] = bytemuck::cast(codes);
                    } else if together == 1 && form == Form::Sixteens {
                        let eights = self.codes[at / 64 * 64..][..64].as_chunks_mut::<8>().0;
                        for (j, codes) in codes.as_chunks().0.iter().enumerate() {
                            eights[4 * (j % 2) + 2 * (i % 2) + j / 2] = *codes;
                        }
                    } else if form == Form::Crossed {
                        let sixteens = self.codes[i * block..][..256].as_chunks_mut::<16>().0;
                        let place = part / 2 * 4 + part % 2;
                        [sixteens[place], sixteens[place + 2]] = bytemuck::cast(codes);
                    } else if together == 1 {
                        self.codes[at..][..32].copy_from_slice(&codes);
                    } else if run < codes.len() {
                        let places =
                            self.codes.as_chunks_mut::<4>().0[at / 4 * together..].chunks_exact_mut(together);
                        for (place, quad) in places.zip(codes.as_chunks().0) {
                            place[column] = *quad;
                        }
                    } else {
                        let place = (at / run * together + column) * run + at % run;
                        self.codes[place..][..32].copy_from_slice(&codes);
                    }
                    let even = isa.sum(isa.add(rounded[0], rounded[1])) as i16;
                    let odd = isa.sum(isa.add(rounded[2], rounded[3])) as i16;
                    match form {
                        Form::Sixteens => {
                            self.sums[2 * i * together + column] = even.into();
                            self.sums[(2 * i + 1) * together + column] = odd.into();
                        }
                        Form::Scaled => {
                            self.sums[i * together + column] = i32::from(even) + i32::from(odd);
                        }
                        _ => {
                            of_superblock.of_16.as_chunks_mut::<2>().0[part] = [even, odd];
                            of_superblock.of_32[part] = even + odd;
                            if pairs {
                                of_superblock.of_pairs.as_chunks_mut().0[part] = centres(isa, as_bytes);
                            }
                        }
                    }
                }
                if form == Form::Crossed {
                    let [a, b, c, d, e, f, g, h] = of_superblock.of_32;
                    of_superblock.of_16 = [0, 0, 0, 0, a, c, e, g, 0, 0, 0, 0, b, d, f, h];
                }
                if matches!(form, Form::Superblocks | Form::Crossed) {
                    bytemuck::cast_slice_mut::<i32, Sums>(self.sums)[i * together + column] = of_superblock;
                }
            }
        }
    }
}

/// [`Sums::of_pairs`] of 32 codes.
#[inline(always)]
fn centres<I: Isa>(isa: I, codes: I::Bytes) -> [[i16; 2]; 2] {
    let pairs = isa.pairs_unsigned(isa.splat_byte(1), codes);
    let first = isa.add_dot_shorts(isa.zero_ints(), pairs, isa.splat_pair([-CENTRE, 0]));
    let second = isa.add_dot_shorts(isa.zero_ints(), pairs, isa.splat_pair([0, -CENTRE]));
    let mut sums = [0.0; 8];
    isa.store(isa.to_floats(isa.sum_halves(&[first, second, first, second])), &mut sums);
    let [a, b, _, _, c, d, ..] = sums.map(|sum| sum as i16);
    [[a, b], [c, d]]
}

/// The scale of activations that share it, and what they are multiplied with to be codes.
#[inline(always)]
fn scale_of<I: Isa>(isa: I, x: &[[f32; 8]]) -> (f32, f32) {
    let mut largest = isa.splat(0.0);
    for x in x {
        largest = isa.max_magnitudes(largest, isa.floats(x));
    }
    let largest = isa.max_magnitude(largest);
    (largest / 127.0, if largest == 0.0 { 0.0 } else { 127.0 / largest })
}

/// 32 activations, each sixteen times its `inverse`, rounded and kept within -127 to 127 (NaN becomes -127).
#[inline(always)]
fn code_floats<I: Isa>(isa: I, x: &[[f32; 8]; 4], inverse: [f32; 2]) -> [I::Floats; 4] {
    let limit = isa.splat(127.0);
    let mut rounded = [limit; 4];
    for (i, (rounded, x)) in rounded.iter_mut().zip(x).enumerate() {
        let scaled = isa.round(isa.mul(isa.floats(x), isa.splat(inverse[i / 2])));
        *rounded = isa.min(isa.max(scaled, isa.splat(-127.0)), limit);
    }
    rounded
}
