//! The arithmetic of gristmill: what a format's bits mean ([`quant`]), what a processor can say ([`simd`]),
//! and the loops over rows that join the two.
//!
//! This crate is `no_std` and allocates nothing. It knows no file, no thread and no model: slices come in,
//! slices go out.
#![cfg_attr(not(any(feature = "std", test)), no_std)]

pub mod quant;
