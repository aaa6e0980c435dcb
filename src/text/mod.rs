//! Strings to ids and back: tokenizers and chat templates.
#![forbid(unsafe_code)]

pub mod template;
