//! From logits to tokens, and from tokens to text.

mod sampler;

pub use sampler::{Sampler, SamplerOptions, log_softmax, logprob};
