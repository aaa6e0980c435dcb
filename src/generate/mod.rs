//! The two faces of a model: the raw next-token stepper and the chat-templated generator.
#![forbid(unsafe_code)]

mod stepper;

pub use stepper::{CancelHandle, Stepper, StepperOptions};
