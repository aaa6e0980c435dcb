//! GGUF files: bytes in, a checked description out, and the way back.
//!
//! [`Gguf::parse`] reads the header of a file that lies in memory (or is mapped) and checks it once and wholly:
//! whoever holds a [`Gguf`] may rely on each tensor's bytes lying inside the file.
//!
//! This module knows no model: what keys and tensors mean is said elsewhere. Nor does it open files.

mod cursor;
mod metadata;
mod reader;
mod tensor;
mod value;

pub use metadata::Metadata;
pub use reader::{ByteOrder, DEFAULT_ALIGNMENT, Gguf, MAX_NESTING};
pub use tensor::{MAX_DIMS, TensorInfo};
pub use value::{Array, FromValue, Strings, Value, ValueType};
