//! What a format means: one file for each ggml tensor type that can be computed, and the list of them.
//!
//! A format's file holds a picture of its bits, the block struct, its constants and `dequantize` in plain scalar
//! Rust, which is the specification that every faster path must equal.

mod ggml_type;

pub use ggml_type::GgmlType;

/// One block of a quantized format, as it lies in a file.
///
/// The bounds make the cast from file bytes safe: any bytes are a valid block ([`bytemuck::AnyBitPattern`]) and,
/// since blocks are made of byte arrays only, any address is aligned for one.
pub trait Block: bytemuck::Pod {
    /// The ggml type of which this is a block.
    const TYPE: GgmlType;
    /// Weights in a block.
    const LEN: usize;

    /// Writes the block's [`Block::LEN`] weights to `out`, exactly as ggml's own `to_float` gives them.
    fn dequantize(&self, out: &mut [f32]);
}
