//! The right-hand side of a product: columns of activations, as floats or as 8-bit codes.
//!
//! Formats with integer codes multiply codes with codes, so the activations of a product are first quantized to 8
//! bits: the scale is the largest magnitude over 127, the codes are rounded to the nearest, ties to even. One scale
//! serves 32 activations ([`Form::Scaled`]) or 256 ([`Form::Superblocks`]), as the format of the weights demands.
//! A NaN or infinity among the activations makes its scale NaN or infinite, and so reaches the result.
#![forbid(unsafe_code)]

use crate::Mismatch;
use crate::dispatch::Task;
use crate::simd::{Isa, Level};

/// How a format of weights wants the activations of its products.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// As they are.
    Floats,
    /// 8-bit codes, a scale and a sum of codes for every 32.
    Scaled,
    /// 8-bit codes, a scale for every 256 and the sums of codes of a superblock ([`Sums`]).
    Superblocks,
}

/// The sums of the codes of 256 activations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Sums {
    /// Of each 16 codes.
    pub of_16: [i16; 16],
    /// Of each 32 codes.
    pub of_32: [i16; 8],
}

impl Form {
    /// Activations that share a scale; the length of a column is a multiple of it.
    pub const fn block_len(self) -> usize {
        match self {
            Form::Floats => 1,
            Form::Scaled => 32,
            Form::Superblocks => 256,
        }
    }

    /// Numbers of 32 bits that the sums of `len` activations take.
    pub const fn sums_len(self, len: usize) -> usize {
        match self {
            Form::Floats => 0,
            Form::Scaled => len / 32,
            Form::Superblocks => len / 256 * (size_of::<Sums>() / 4),
        }
    }
}

/// Columns of activations, each `len` long, one behind the other.
#[derive(Clone, Copy)]
pub struct Columns<'a> {
    form: Form,
    len: usize,
    count: usize,
    floats: &'a [f32],
    codes: &'a [i8],
    scales: &'a [f32],
    sums: &'a [i32],
}

impl<'a> Columns<'a> {
    /// Columns as floats, of `len` each.
    ///
    /// # Errors
    /// [`Mismatch`] where `floats` is no whole number of columns.
    pub fn floats(floats: &'a [f32], len: usize) -> Result<Self, Mismatch> {
        if len == 0 || !floats.len().is_multiple_of(len) {
            return Err(Mismatch { what: "floats of whole columns", expected: len, found: floats.len() });
        }
        let count = floats.len() / len;
        Ok(Columns { form: Form::Floats, len, count, floats, codes: &[], scales: &[], sums: &[] })
    }

    /// Columns that [`quantize`] made, of `len` each: codes `[count, len]`, scales `[count, len / block]`, sums
    /// `[count, form.sums_len(len)]`.
    ///
    /// # Errors
    /// [`Mismatch`] where the form is [`Form::Floats`], `len` is not a multiple of the form's block, or the slices
    /// do not belong together.
    pub fn quantized(
        form: Form,
        len: usize,
        codes: &'a [i8],
        scales: &'a [f32],
        sums: &'a [i32],
    ) -> Result<Self, Mismatch> {
        let block = form.block_len();
        if form == Form::Floats || len == 0 || !len.is_multiple_of(block) || !codes.len().is_multiple_of(len)
        {
            return Err(Mismatch {
                what: "codes of whole columns of whole blocks",
                expected: len,
                found: codes.len(),
            });
        }
        if scales.len() != codes.len() / block {
            return Err(Mismatch { what: "scales", expected: codes.len() / block, found: scales.len() });
        }
        if sums.len() != form.sums_len(codes.len()) {
            return Err(Mismatch { what: "sums", expected: form.sums_len(codes.len()), found: sums.len() });
        }
        let count = codes.len() / len;
        Ok(Columns { form, len, count, floats: &[], codes, scales, sums })
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

    /// Column `c` as floats.
    #[inline(always)]
    pub(crate) fn float_column(&self, c: usize) -> &'a [f32] {
        &self.floats[c * self.len..][..self.len]
    }

    /// The codes of column `c`, by 32.
    #[inline(always)]
    pub(crate) fn codes(&self, c: usize) -> &'a [[i8; 32]] {
        self.codes[c * self.len..][..self.len].as_chunks().0
    }

    /// The scales of column `c`, one for each block of the form.
    #[inline(always)]
    pub(crate) fn scales(&self, c: usize) -> &'a [f32] {
        let blocks = self.len / self.form.block_len();
        &self.scales[c * blocks..][..blocks]
    }

    /// The sums of the codes of column `c`, one for each 32 codes.
    #[inline(always)]
    pub(crate) fn sums(&self, c: usize) -> &'a [i32] {
        &self.sums[c * (self.len / 32)..][..self.len / 32]
    }

    /// The sums of the codes of column `c`, for each superblock.
    #[inline(always)]
    pub(crate) fn superblock_sums(&self, c: usize) -> &'a [Sums] {
        let len = self.form.sums_len(self.len);
        bytemuck::cast_slice(&self.sums[c * len..][..len])
    }
}

/// Quantizes one column `x` to `form`: codes `[len]`, scales `[len / block]`, sums
/// `[form.sums_len(len)]`.
///
/// # Errors
/// [`Mismatch`] where the lengths do not belong together or `form` is [`Form::Floats`].
pub fn quantize(
    level: Level,
    form: Form,
    x: &[f32],
    codes: &mut [i8],
    scales: &mut [f32],
    sums: &mut [i32],
) -> Result<(), Mismatch> {
    let len = x.len();
    Columns::quantized(form, len, codes, scales, sums)?;
    if codes.len() != len {
        return Err(Mismatch { what: "codes", expected: len, found: codes.len() });
    }
    level.run(Quantize { form, x, codes, scales, sums });
    Ok(())
}

struct Quantize<'a> {
    form: Form,
    x: &'a [f32],
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
}

impl Task for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let block = self.form.block_len();
        let blocks = self.x.chunks_exact(block).zip(self.codes.chunks_exact_mut(block));
        for (i, (x, codes)) in blocks.enumerate() {
            let x = x.as_chunks::<8>().0.as_chunks::<4>().0;
            let mut largest = isa.splat(0.0);
            for x in x.as_flattened() {
                largest = isa.max_magnitudes(largest, isa.floats(x));
            }
            let largest = isa.max_magnitude(largest);
            let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
            self.scales[i] = largest / 127.0;
            let mut of_superblock = Sums { of_16: [0; 16], of_32: [0; 8] };
            for (part, (x, codes)) in x.iter().zip(codes.as_chunks_mut::<32>().0).enumerate() {
                let rounded = code_floats(isa, x, inverse);
                isa.store_signed_bytes(isa.to_codes(rounded), codes);
                let even = isa.sum(isa.add(rounded[0], rounded[1])) as i16;
                let odd = isa.sum(isa.add(rounded[2], rounded[3])) as i16;
                if self.form == Form::Scaled {
                    self.sums[i] = i32::from(even) + i32::from(odd);
                } else {
                    of_superblock.of_16.as_chunks_mut::<2>().0[part] = [even, odd];
                    of_superblock.of_32[part] = even + odd;
                }
            }
            if self.form == Form::Superblocks {
                bytemuck::cast_slice_mut::<i32, Sums>(self.sums)[i] = of_superblock;
            }
        }
    }
}

/// 32 activations times `inverse`, rounded and kept within -127 to 127 (NaN becomes -127).
#[inline(always)]
fn code_floats<I: Isa>(isa: I, x: &[[f32; 8]; 4], inverse: f32) -> [I::Floats; 4] {
    let (inverse, limit) = (isa.splat(inverse), isa.splat(127.0));
    let mut rounded = [limit; 4];
    for (rounded, x) in rounded.iter_mut().zip(x) {
        let scaled = isa.round(isa.mul(isa.floats(x), inverse));
        *rounded = isa.min(isa.max(scaled, isa.splat(-127.0)), limit);
    }
    rounded
}
