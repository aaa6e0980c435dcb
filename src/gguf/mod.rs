//! Bytes to a checked description: the GGUF reader and writer.
#![forbid(unsafe_code)]
