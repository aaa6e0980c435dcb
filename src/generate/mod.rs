//! The two faces of a model.
//!
//! A **base** model continues text: feed it tokens and take the next ones, with a [`Stepper`]. An **instruction-tuned**
//! model answers turns: hold a conversation, with a [`Chat`]. Both run the same forward pass. What differs is how the
//! prompt is made (raw text, or the model's template) and when to stop (never of itself, or at the end of the turn); a
//! model that is asked in the wrong way answers nonsense, so the two are kept apart.
#![forbid(unsafe_code)]

mod chat;
mod generation;
mod last;
mod sampler;
mod stepper;

pub use chat::{Chat, ChatOptions, Evidence, Outcome, Overflow, PromptPlan, Reply};
pub use generation::{Finish, GenerateOptions, Generation, Step};
pub use sampler::{Sampler, SamplerOptions, log_softmax, logprob};
pub(crate) use stepper::{BATCH, cache_bytes};
pub use stepper::{CancelHandle, Stepper, StepperOptions};
