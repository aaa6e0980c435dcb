//! ggml as a judge and a peer: its quantizers, row products, matrix products and GGUF files, behind safe calls.
//!
//! The feature `ggml` builds this and nothing else needs it. Every number that gristmill's own kernels give can be
//! laid beside the one that ggml gives for the same bytes in the same process. Nothing here holds arithmetic of ours.
//!
//! Slices are checked before a call, so that none can reach past its end. ggml's log goes to `tracing` events, and an
//! assertion that fails inside ggml is returned as [`enum@crate::Error`] where that can be done: everywhere but in the
//! threads of a matrix product, whose shapes are checked here, and in a system library, of which it is not known
//! whether its frames can be unwound.
//!
//! ```
//! use gristmill::ggml;
//! use gristmill_kernels::quant::GgmlType;
//!
//! let row: Vec<f32> = (0..64).map(|i| (i as f32 / 10.0).sin()).collect();
//! let bytes = ggml::quantize(GgmlType::Q8_0, &row, 64, None)?;
//! assert_eq!(bytes.len(), 2 * 34);
//! let mut back = vec![0.0; 64];
//! ggml::dequantize(GgmlType::Q8_0, &bytes, &mut back)?;
//! assert!(row.iter().zip(&back).all(|(a, b)| (a - b).abs() < 0.01));
//! # Ok::<(), gristmill::Error>(())
//! ```

mod capture;
mod file;
mod product;
mod rows;

use std::ffi::CStr;

use ggml_sys as sys;
use gristmill_kernels::quant::GgmlType;

use crate::{Error, Result};

pub use file::{File, FileBuilder, Tensor};
pub use product::{Threads, Weights};
pub use rows::{
    dequantize, dot, free_tables, needs_importance, partner, quantize, quantize_activations,
    quantize_reference,
};

/// The version of the ggml that is linked, such as `0.26.0`.
pub fn version() -> &'static str {
    // SAFETY: ggml_version takes nothing and returns a string literal.
    let version = unsafe { CStr::from_ptr(sys::ggml_version()) };
    version.to_str().unwrap_or("unknown")
}

/// What this ggml knows about a type, or `None` where its blocks are not those of [`GgmlType`]: types that ggml has
/// removed, or a source tree that has changed one.
fn traits(ty: GgmlType) -> Option<&'static sys::ggml_type_traits> {
    capture::init();
    let id = ty as sys::ggml_type;
    if id >= sys::GGML_TYPE_COUNT {
        return None;
    }
    // SAFETY: the id lies within ggml's table, which is constant and lives as long as the program.
    let traits = unsafe { sys::ggml_get_type_traits(id).as_ref() }?;
    let same_len = usize::try_from(traits.blck_size) == Ok(ty.block_len());
    (same_len && traits.type_size == ty.block_bytes()).then_some(traits)
}

/// What ggml's CPU part knows about a type; `None` as for [`traits`].
fn cpu_traits(ty: GgmlType) -> Option<&'static sys::ggml_type_traits_cpu> {
    traits(ty)?;
    // SAFETY: `traits` has checked that the id lies within ggml's tables, which are constant.
    unsafe { sys::ggml_get_type_traits_cpu(ty as sys::ggml_type).as_ref() }
}

/// Whether ggml knows the type, with the block length and block size that [`GgmlType`] states.
pub fn knows(ty: GgmlType) -> bool {
    traits(ty).is_some()
}

/// Bytes of `len` weights, or the error that names `what` where they are no whole number of blocks.
fn row_bytes(ty: GgmlType, len: usize, what: &'static str) -> Result<usize> {
    ty.row_bytes(len).ok_or_else(|| Error::GgmlSize {
        what,
        expected: format!("a multiple of {}, the block of {ty}", ty.block_len()),
        found: len,
    })
}

fn check_len(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::GgmlSize { what, expected: expected.to_string(), found })
}

/// A count as the signed integer that ggml's C takes.
fn signed<T: TryFrom<usize>>(what: &'static str, count: usize) -> Result<T> {
    let expected = || format!("a count that fits into {} bits", 8 * size_of::<T>() - 1);
    T::try_from(count).map_err(|_| Error::GgmlSize { what, expected: expected(), found: count })
}
