//! The two faces of a model: the raw next-token stepper and the chat-templated generator.
#![forbid(unsafe_code)]

mod sampler;
mod stepper;

pub use sampler::{Sampler, SamplerOptions, log_softmax, logprob};
pub use stepper::{CancelHandle, Stepper, StepperOptions};
