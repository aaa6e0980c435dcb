//! Gristmill runs quantized language models in the GGUF format on CPUs: as a library, and as the program `grist`.
//!
//! Weights stay in the mapped file and are multiplied where they lie, in integers, by loops written once over a small
//! SIMD vocabulary. Nothing panics, prints or reads the environment; every failure is a typed [`Error`]; everything is
//! [`Send`], and can be cancelled. The same prompt gives the same logits, bit for bit, whatever the instruction set, the
//! number of threads and the way the prompt is cut into batches.
//!
//! # Two kinds of models, two faces
//!
//! A **base model** has learned to continue text, and an **instruction-tuned** one to answer turns that are marked up as
//! its template says. Both have the same architecture; asked in the other's way, both give nonsense. So there are two
//! faces: [`generate::Stepper`] continues tokens and knows no turns, and [`generate::Chat`] makes prompts by the model's
//! own template and refuses a model without one.
//!
//! The raw next-token stepper:
//!
//! ```
//! use gristmill::Model;
//! use gristmill::generate::{GenerateOptions, Sampler, SamplerOptions, StepperOptions};
//! use gristmill::text::EncodeOptions;
//!
//! # fn main() -> Result<(), gristmill::Error> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vendor/models/tiny-instruct-q8_0.gguf");
//! let model = Model::open(path)?; // mapped: Send + Sync, cheap to clone
//! let mut stepper = model.stepper(StepperOptions::default())?;
//! stepper.feed(&model.tokenizer()?.encode("Once upon a time", EncodeOptions::PROMPT)?)?;
//! assert_eq!(stepper.logits().len(), model.vocabulary());
//!
//! let mut sampler = Sampler::new(SamplerOptions::greedy())?;
//! let mut text = String::new();
//! for step in stepper.generate(&mut sampler, GenerateOptions::default().max_tokens(12))? {
//!     text.push_str(step?.text());
//! }
//! assert_eq!(text, ", there was a little boy named Timmy. Timmy loved to");
//! # Ok(())
//! # }
//! ```
//!
//! The chat-templated generator:
//!
//! ```
//! use gristmill::Model;
//! use gristmill::generate::{ChatOptions, SamplerOptions};
//!
//! # fn main() -> Result<(), gristmill::Error> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vendor/models/tiny-instruct-q8_0.gguf");
//! let model = Model::open(path)?;
//! let options = ChatOptions::default().system("You are a pirate.").sampler(SamplerOptions::greedy());
//! let mut chat = model.chat(options)?; // Err(NoChatTemplate) on a base model, with the evidence
//! let mut answer = String::new();
//! for piece in chat.send("What is the capital of France?")? {
//!     answer.push_str(&piece?);
//! }
//! assert_eq!(answer, "Arr, matey! The capital of France is Paris.");
//! # Ok(())
//! # }
//! ```
//!
//! # The rooms
//!
//! [`gguf`] reads and writes files; [`text`] turns strings into tokens and back, and renders templates; [`model`] opens
//! models; [`generate`] runs them, [`embed`] makes vectors of texts, [`quantize`] makes files smaller, [`eval`] measures how
//! well models do and [`speed`] how fast they are, [`report`] compares quantized files by both, [`doctor`] says what is wrong
//! with a file, and [`advise`] tells from a header what a model would need. The arithmetic is a package of its own,
//! [`gristmill_kernels`].

pub mod advise;
mod backend;
pub mod doctor;
pub mod embed;
mod error;
pub mod eval;
pub mod generate;
#[cfg(feature = "ggml")]
pub mod ggml;
pub mod gguf;
pub mod model;
pub mod quantize;
pub mod report;
pub mod speed;
pub mod text;

pub mod metal {
    //! Apple's GPU: the machine's, and whether its kernels give there what the CPU gives. Models run on it by
    //! [`ModelOptions::backend`](crate::model::ModelOptions::backend).

    pub use crate::backend::metal::{About, Check, Device, Examination, Place, examine, open};
}

pub use backend::{BackendKind, CacheType, CacheTypes};
pub use error::{Error, Result};
pub use gristmill_kernels::quant::GgmlType;
pub use gristmill_kernels::simd::Level;
pub use model::Model;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
