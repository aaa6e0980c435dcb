//! The arithmetic of gristmill: what a format's bits mean ([`quant`]), what a processor can say ([`simd`]),
//! and the loops over rows that join the two; and the same for Apple's GPUs ([`metal`]).
//!
//! This crate is `no_std` and allocates nothing but the tables of [`encode`] and the text of [`metal::source`]. It knows no file,
//! no thread and no model: slices come in, slices go out. Every result is the same, bit for bit, at every
//! [`Level`](simd::Level).
#![cfg_attr(not(any(feature = "std", test)), no_std)]
#![allow(
    clippy::indexing_slicing,
    reason = "lengths are checked where a call enters the crate; inside, indices are bounded by them"
)]

extern crate alloc;

pub mod activation;
pub mod activations;
pub mod attention;
mod dispatch;
pub mod encode;
mod gemm;
mod gemm_floats;
mod gemm_matrix;
mod gemv;
pub mod limits;
pub mod logits;
pub mod metal;
mod mismatch;
pub mod norm;
mod output;
pub mod product;
pub mod quant;
pub mod recurrence;
pub mod rope;
mod rows;
pub mod scan;
pub mod simd;
mod tile;
pub mod wkv;

pub use mismatch::Mismatch;
pub use output::Output;
