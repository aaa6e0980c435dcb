//! The parts that architectures are made of, a file for each idea.
#![forbid(unsafe_code)]

mod attention;
mod decoder;
mod delta_net;
mod encoder;
mod experts;
mod feed_forward;
mod kept_attention;
mod latent;
mod linear;
mod mamba;
mod mamba2;
mod narrow;
mod per_layer;
mod rank;

pub(crate) use crate::backend::{Router, Scoring};
pub(crate) use attention::{Heads, SelfAttention, Temperature};
pub(crate) use decoder::{Block, Decoder, Mixer, Sizes, Turned};
pub(crate) use delta_net::{DeltaNet, convolution};
pub(crate) use encoder::{Encoder, EncoderLayer};
pub(crate) use experts::{Experts, Shared};
pub(crate) use feed_forward::{Dense, FeedForward};
pub(crate) use kept_attention::KeptAttention;
pub(crate) use latent::LatentAttention;
pub(crate) use linear::{Linear, magnitudes};
pub(crate) use mamba::Mamba;
pub(crate) use mamba2::Mamba2;
pub(crate) use narrow::Narrow;
pub(crate) use per_layer::{PerLayer, PerLayerBlock};
