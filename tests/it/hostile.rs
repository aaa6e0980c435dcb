//! Attacks: files that lie, weights of random bits, arguments at and beyond their limits.
//!
//! What holds for all: a value or a typed error; no panic, no hang, no memory out of proportion.

mod arguments;
mod files;
mod idle;
