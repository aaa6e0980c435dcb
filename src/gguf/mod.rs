//! GGUF files: bytes in, a checked description out, and the way back.
//!
//! [`Gguf::parse`] reads the header of a file that lies in memory (or is mapped) and checks it once and wholly:
//! whoever holds a [`Gguf`] may rely on each tensor's bytes lying inside the file. [`Writer`] builds files.
//! [`split`] knows how files that come in several parts are named.
//!
//! This module knows no model: what keys and tensors mean is said elsewhere. Nor does it open files.
#![forbid(unsafe_code)]

mod cursor;
mod metadata;
mod reader;
pub mod split;
mod swap;
mod tensor;
mod value;
mod writer;

pub use metadata::Metadata;
pub use reader::{ByteOrder, DEFAULT_ALIGNMENT, Gguf, MAX_NESTING};
pub use swap::swap_bytes;
pub use tensor::{MAX_DIMS, TensorInfo};
pub use value::{Array, FromValue, Strings, Value, ValueType};
pub use writer::{DataWriter, Writer};
