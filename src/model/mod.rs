//! What a model is made of: the file that holds it.

pub mod file;
