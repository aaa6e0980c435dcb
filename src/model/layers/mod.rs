//! The parts that architectures are made of, a file for each idea.
#![forbid(unsafe_code)]

mod attention;
mod decoder;
mod experts;
mod feed_forward;
mod linear;

pub(crate) use attention::{Heads, SelfAttention, Temperature};
pub(crate) use decoder::{Block, Decoder, Mixer, Sizes};
pub(crate) use experts::{Experts, Router, Scoring, Shared};
pub(crate) use feed_forward::{Dense, FeedForward};
pub(crate) use linear::Linear;
