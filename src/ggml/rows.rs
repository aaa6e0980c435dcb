//! Quantizing, dequantizing and multiplying single rows.

use std::sync::{PoisonError, RwLock};

use ggml_sys as sys;
use gristmill_kernels::quant::GgmlType;

use super::{capture, check_len, cpu_traits, row_bytes, signed, traits};
use crate::{Error, Result};

/// Held for reading while a quantizer uses the tables that [`free_tables`] frees.
static TABLES: RwLock<()> = RwLock::new(());

/// Whether [`quantize`] needs an importance for each column.
pub fn needs_importance(ty: GgmlType) -> bool {
    // SAFETY: compares the id with a few constants.
    unsafe { sys::ggml_quantize_requires_imatrix(ty as sys::ggml_type) }
}

/// The types that `ggml_quantize_chunk` of ggml 0.26 handles; it fails an assertion on others.
fn has_quantizer(ty: GgmlType) -> bool {
    use GgmlType::*;
    matches!(ty, F32 | F16 | BF16 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | Q2_K | Q3_K | Q4_K | Q5_K | Q6_K)
        || matches!(ty, IQ1_S | IQ1_M | IQ2_XXS | IQ2_XS | IQ2_S | IQ3_XXS | IQ3_S | IQ4_NL | IQ4_XS)
        || matches!(ty, TQ1_0 | TQ2_0 | MXFP4 | NVFP4 | Q1_0 | Q2_0)
}

/// Quantizes rows of `row_len` values with `ggml_quantize_chunk`, as llama-quantize does.
///
/// `importance` weighs the error of each column: `row_len` values that hold for all rows. Types for which
/// [`needs_importance`] says so cannot do without it.
///
/// # Errors
/// The type has no quantizer in ggml, the slices do not hold whole rows of whole blocks, a value is not finite, or an
/// assertion inside ggml fails (its search for the nearest grid point gives up on some extreme values).
pub fn quantize(ty: GgmlType, values: &[f32], row_len: usize, importance: Option<&[f32]>) -> Result<Vec<u8>> {
    if traits(ty).is_none() || !has_quantizer(ty) {
        return Err(Error::GgmlUnsupported { operation: "quantizer", ty });
    }
    row_bytes(ty, row_len, "values in a row")?;
    let whole = row_len != 0 && values.len().is_multiple_of(row_len);
    if !whole {
        let expected = format!("a multiple of {row_len}, the length of a row that is not empty");
        return Err(Error::GgmlSize { what: "values", expected, found: values.len() });
    }
    if importance.is_none() && needs_importance(ty) {
        return Err(Error::GgmlImatrix { ty });
    }
    check_finite(values)?;
    if let Some(importance) = importance {
        check_len("importance values", row_len, importance.len())?;
        check_finite(importance)?;
    }
    let mut out = Aligned::zeroed(row_bytes(ty, values.len(), "values")?);
    let rows: i64 = signed("rows", values.len() / row_len)?;
    let per_row: i64 = signed("values in a row", row_len)?;

    let _tables = TABLES.read().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: any type id may be given. Called before the guard, since it works under a lock.
    unsafe { sys::ggml_quantize_init(ty as sys::ggml_type) };
    let importance = importance.map_or(std::ptr::null(), <[f32]>::as_ptr);
    // SAFETY: `values` holds rows x per_row values, `out` the bytes of their blocks with the alignment of any block,
    // `importance` is null or holds per_row values. The quantizers run on this thread; the one lock that the call takes
    // is released before they start.
    let written = unsafe {
        capture::guarded("quantize", || {
            let out = out.as_mut_ptr().cast();
            sys::ggml_quantize_chunk(ty as sys::ggml_type, values.as_ptr(), out, 0, rows, per_row, importance)
        })
    }?;
    check_len("bytes that ggml wrote", out.len, written)?;
    Ok(out.into_bytes())
}

/// Frees the tables that [`quantize`] has built for the IQ types; it builds them again when they are needed.
pub fn free_tables() {
    let _tables = TABLES.write().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the lock says that no quantizer of this process's safe code uses the tables.
    unsafe { sys::ggml_quantize_free() };
}

/// Quantizes one row as ggml's CPU part quantizes activations before a product: [`partner`] names the type.
///
/// # Errors
/// ggml has no such function for the type, the row is no whole number of blocks, or a value is not finite.
pub fn quantize_activations(ty: GgmlType, values: &[f32]) -> Result<Vec<u8>> {
    let from_float = cpu_traits(ty).and_then(|traits| traits.from_float);
    from_floats(ty, values, from_float, "quantizer of activations")
}

/// Quantizes one row with ggml's reference in plain C, which every processor's code should equal.
///
/// # Errors
/// As for [`quantize_activations`].
pub fn quantize_reference(ty: GgmlType, values: &[f32]) -> Result<Vec<u8>> {
    let from_float = traits(ty).and_then(|traits| traits.from_float_ref);
    from_floats(ty, values, from_float, "reference quantizer")
}

fn from_floats(
    ty: GgmlType,
    values: &[f32],
    from_float: sys::ggml_from_float_t,
    operation: &'static str,
) -> Result<Vec<u8>> {
    let from_float = from_float.ok_or(Error::GgmlUnsupported { operation, ty })?;
    let mut out = Aligned::zeroed(row_bytes(ty, values.len(), "values")?);
    let len: i64 = signed("values", values.len())?;
    check_finite(values)?;
    let _tables = TABLES.read().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: any type id may be given. Called before the guard, since it works under a lock.
    unsafe { sys::ggml_quantize_init(ty as sys::ggml_type) };
    // SAFETY: `values` holds len values and `out` the bytes of their blocks, with the alignment of any block; the
    // function runs on this thread and takes no lock.
    unsafe { capture::guarded(operation, || from_float(values.as_ptr(), out.as_mut_ptr().cast(), len)) }?;
    Ok(out.into_bytes())
}

/// Writes the weights of one or more rows to `out`, by ggml's `to_float`. F32, of which ggml has none, is copied;
/// Q8_K, whose function ggml keeps out of its table, needs ggml built from source.
///
/// # Errors
/// ggml cannot dequantize the type, `out` is no whole number of blocks, or `bytes` is not their size.
pub fn dequantize(ty: GgmlType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    let unsupported = Error::GgmlUnsupported { operation: "dequantizer", ty };
    let Some(traits) = traits(ty) else { return Err(unsupported) };
    check_len("bytes", row_bytes(ty, out.len(), "weights")?, bytes.len())?;
    if ty == GgmlType::F32 {
        for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*bytes);
        }
        return Ok(());
    }
    let to_float = traits.to_float.or(sys::untabled_to_float(ty as sys::ggml_type));
    let Some(to_float) = to_float else { return Err(unsupported) };
    let bytes = aligned(bytes);
    let len: i64 = signed("weights", out.len())?;
    // SAFETY: `bytes` holds the blocks of len weights, aligned, and `out` has room for them. ggml's dequantizers take
    // any bits: what they use as an index into a grid has no more bits than the grid has rows.
    unsafe { capture::guarded("dequantize", || to_float(bytes.as_ptr().cast(), out.as_mut_ptr(), len)) }
}

/// The type to which ggml quantizes activations before it multiplies them with rows of `ty`; `None` where it has no
/// row product for the type.
pub fn partner(ty: GgmlType) -> Option<GgmlType> {
    let traits = cpu_traits(ty)?;
    traits.vec_dot?;
    GgmlType::from_id(traits.vec_dot_type)
}

/// The product of a row of weights with a row of activations in the weights' [`partner`] type, by ggml's `vec_dot`
/// for this processor. `len` is the number of weights.
///
/// # Errors
/// ggml has no row product for the type, `len` is no whole number of blocks of both types, or the slices are not of
/// its size.
pub fn dot(ty: GgmlType, len: usize, weights: &[u8], activations: &[u8]) -> Result<f32> {
    let unsupported = Error::GgmlUnsupported { operation: "row product", ty };
    let (Some(partner), Some(traits)) = (partner(ty), cpu_traits(ty)) else { return Err(unsupported) };
    let Some(vec_dot) = traits.vec_dot else { return Err(unsupported) };
    check_len("bytes of weights", row_bytes(ty, len, "weights")?, weights.len())?;
    check_len("bytes of activations", row_bytes(partner, len, "activations")?, activations.len())?;
    let len: i32 = signed("weights", len)?;
    let (weights, activations) = (aligned(weights), aligned(activations));
    let mut sum = 0.0;
    // SAFETY: both slices hold `len` values in the types that the function takes, aligned; one row (`nrc` = 1) is
    // asked for, so the strides are not used and one float is written.
    unsafe {
        capture::guarded("multiply rows", || {
            vec_dot(len, &raw mut sum, 0, weights.as_ptr().cast(), 0, activations.as_ptr().cast(), 0, 1);
        })
    }?;
    Ok(sum)
}

fn check_finite(values: &[f32]) -> Result<()> {
    match values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        Some((index, &value)) => Err(Error::GgmlNotFinite { index, value }),
        None => Ok(()),
    }
}

/// Bytes that start where C may read a block: the caller's own where they do, otherwise a copy.
pub(super) enum Readable<'a> {
    InPlace(&'a [u8]),
    Copied(Aligned),
}

/// The most that any block of ggml asks for its address to be a multiple of: it holds floats and words of 32 bits.
const ALIGNMENT: usize = align_of::<u32>();

pub(super) fn aligned(bytes: &[u8]) -> Readable<'_> {
    if bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) {
        return Readable::InPlace(bytes);
    }
    let mut copy = Aligned::zeroed(bytes.len());
    copy.bytes_mut().copy_from_slice(bytes);
    Readable::Copied(copy)
}

impl Readable<'_> {
    /// Valid for reading as many bytes as were given, for as long as this value lives.
    pub(super) fn as_ptr(&self) -> *const u8 {
        match self {
            Self::InPlace(bytes) => bytes.as_ptr(),
            Self::Copied(copy) => copy.words.as_ptr().cast(),
        }
    }
}

/// Bytes of our own that start at a multiple of [`ALIGNMENT`].
pub(super) struct Aligned {
    words: Vec<u32>,
    len: usize,
}

impl Aligned {
    fn zeroed(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(ALIGNMENT)], len }
    }

    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.words.as_mut_ptr().cast()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the words are at least `len` bytes, initialized, and borrowed for as long as the slice.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), self.len) }
    }

    fn into_bytes(mut self) -> Vec<u8> {
        self.bytes_mut().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_built_again_after_they_were_freed() {
        let row: Vec<f32> = (0..256_u16).map(|i| (f32::from(i) / 7.0).sin()).collect();
        let before = quantize(GgmlType::IQ3_XXS, &row, 256, None).unwrap();
        free_tables();
        assert_eq!(before, quantize(GgmlType::IQ3_XXS, &row, 256, None).unwrap());
    }
}
