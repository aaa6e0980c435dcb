//! The layers of a decoder, and what comes before and after them.
#![forbid(unsafe_code)]

use super::feed_forward::FeedForward;
use super::linear::Linear;
use super::per_layer::{PerLayer, PerLayerBlock};
use super::rank::RankHead;
use crate::backend::{Act, LayerShape, Map, Matrix, Norm, Turns};
use crate::model::Network;
use crate::model::loader::{Loader, Norms};
use crate::model::pass::Pass;
use crate::model::rope::Rope;
use crate::{Error, Result};

/// The angles of a pass's tokens, for each of the decoder's ropes.
pub(crate) type Turned = [Turns];

/// What lets tokens see those before them: attention, or a recurrence.
pub(crate) trait Mixer: Send + Sync {
    /// What is kept of each position.
    fn shape(&self) -> LayerShape;
    /// `x` `[tokens, width]` to `[tokens, width]`.
    fn forward(&self, pass: &mut Pass<'_>, layer: usize, x: Act, turned: &Turned) -> Result<Act>;
    /// Floats that are kept of all positions together.
    fn state_len(&self) -> usize {
        0
    }
}

impl Mixer for Box<dyn Mixer> {
    fn shape(&self) -> LayerShape {
        (**self).shape()
    }

    fn forward(&self, pass: &mut Pass<'_>, layer: usize, x: Act, turned: &Turned) -> Result<Act> {
        (**self).forward(pass, layer, x, turned)
    }

    fn state_len(&self) -> usize {
        (**self).state_len()
    }
}

/// The most layers that a file may announce.
const MOST_LAYERS: usize = 1 << 16;

/// The sizes that every decoder has.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// Values of a token between the layers.
    pub width: usize,
    pub layers: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
}

impl Sizes {
    pub fn load(loader: &Loader<'_>) -> Result<Self> {
        let width = loader.size("embedding_length")?;
        let layers = loader.size("block_count")?;
        if layers > MOST_LAYERS {
            let (key, found) = (loader.key("block_count"), layers.to_string());
            return Err(Error::MetadataType { key, expected: "as many layers as a model can have", found });
        }
        Ok(Sizes { width, layers, vocabulary: loader.vocabulary("token_embd.weight")? })
    }
}

/// One layer: `x += scale * post(mixer(norm x))`, then the same with the feed-forward network.
pub(crate) struct Block {
    pub mixer_norm: Option<Norm>,
    pub mixer: Box<dyn Mixer>,
    pub mixer_post_norm: Option<Norm>,
    /// The norm before the feed-forward network. Where that is parallel and has none of its own, it takes the mixer's.
    pub feed_forward_norm: Option<Norm>,
    pub feed_forward: Option<Box<dyn FeedForward>>,
    pub feed_forward_post_norm: Option<Norm>,
    /// Whether the feed-forward network takes what the mixer took, rather than what it gave.
    pub parallel: bool,
    /// Factor of what is added.
    pub residual_scale: f32,
    /// What mixes in the layer's own embeddings.
    pub per_layer: Option<PerLayerBlock>,
    /// Factor of the layer's results.
    pub output_scale: f32,
}

impl Block {
    /// With norms `attn_norm` and `ffn_norm` before the two parts.
    pub fn new(
        loader: &Loader<'_>,
        layer: usize,
        width: usize,
        norms: Norms,
        mixer: impl Mixer + 'static,
        feed_forward: impl FeedForward + 'static,
    ) -> Result<Self> {
        Ok(Block {
            feed_forward_norm: Some(norms.load(loader, &format!("blk.{layer}.ffn_norm"), width)?),
            ..Self::without_second_norm(loader, layer, width, norms, mixer, feed_forward)?
        })
    }

    /// With the norm `attn_norm` alone.
    pub fn without_second_norm(
        loader: &Loader<'_>,
        layer: usize,
        width: usize,
        norms: Norms,
        mixer: impl Mixer + 'static,
        feed_forward: impl FeedForward + 'static,
    ) -> Result<Self> {
        Ok(Block {
            mixer_norm: Some(norms.load(loader, &format!("blk.{layer}.attn_norm"), width)?),
            ..Self::bare(mixer, Some(Box::new(feed_forward)))
        })
    }

    /// With root mean square norms `post_attention_norm` and `post_ffw_norm` after the two parts, and none before them.
    pub fn with_post_norms_alone(
        loader: &Loader<'_>,
        layer: usize,
        width: usize,
        mixer: impl Mixer + 'static,
        feed_forward: impl FeedForward + 'static,
    ) -> Result<Self> {
        Self::bare(mixer, Some(Box::new(feed_forward))).with_post_norms(loader, layer, width)
    }

    /// With root mean square norms `post_attention_norm` and `post_ffw_norm` after the two parts.
    pub fn with_post_norms(self, loader: &Loader<'_>, layer: usize, width: usize) -> Result<Self> {
        let norm = |name: &str| Norms::Rms.load(loader, &format!("blk.{layer}.{name}"), width).map(Some);
        Ok(Block {
            mixer_post_norm: norm("post_attention_norm")?,
            feed_forward_post_norm: norm("post_ffw_norm")?,
            ..self
        })
    }

    /// Without a feed-forward network, and the norm `attn_norm`.
    pub fn mixer_alone(
        loader: &Loader<'_>,
        layer: usize,
        width: usize,
        mixer: impl Mixer + 'static,
    ) -> Result<Self> {
        let norm = Norms::Rms.load(loader, &format!("blk.{layer}.attn_norm"), width)?;
        Ok(Block { mixer_norm: Some(norm), ..Self::bare(mixer, None) })
    }

    /// Without any norm.
    pub fn bare(mixer: impl Mixer + 'static, feed_forward: Option<Box<dyn FeedForward>>) -> Self {
        Block {
            mixer_norm: None,
            mixer: Box::new(mixer),
            mixer_post_norm: None,
            feed_forward_norm: None,
            feed_forward,
            feed_forward_post_norm: None,
            parallel: false,
            residual_scale: 1.0,
            per_layer: None,
            output_scale: 1.0,
        }
    }
}

/// A decoder of blocks. The public fields are what architectures change after [`Decoder::load`].
pub(crate) struct Decoder {
    pub embedding: Matrix,
    /// Factor of the embeddings.
    pub embedding_scale: f32,
    pub embedding_norm: Option<Norm>,
    /// Positions that are learned, not turned.
    pub positions: Option<Matrix>,
    /// Embeddings for each layer.
    pub per_layer: Option<PerLayer>,
    pub ropes: Vec<Rope>,
    pub blocks: Vec<Block>,
    pub output_norm: Norm,
    /// The output matrix, where it is not the embedding.
    pub output: Option<Linear>,
    /// Factor of the logits.
    pub logit_scale: f32,
    /// The bound that logits come near to but do not pass.
    pub logit_cap: Option<f32>,
    /// What pooled vectors go through.
    pub after_pooling: Vec<Linear>,
    /// What makes scores of them, in models that rerank.
    pub rank_head: Option<RankHead>,
}

impl Decoder {
    /// `token_embd`, the blocks that `block` gives for each layer, `output_norm`, and `output` where it is there.
    pub fn load(
        loader: &Loader<'_>,
        sizes: Sizes,
        norms: Norms,
        ropes: Vec<Rope>,
        block: impl Fn(usize) -> Result<Block>,
    ) -> Result<Self> {
        Self::load_named(loader, sizes, norms, "output_norm", ropes, block)
    }

    /// As [`Decoder::load`], with the last norm under another name.
    pub fn load_named(
        loader: &Loader<'_>,
        sizes: Sizes,
        norms: Norms,
        output_norm: &str,
        ropes: Vec<Rope>,
        block: impl Fn(usize) -> Result<Block>,
    ) -> Result<Self> {
        let Sizes { width, layers, vocabulary } = sizes;
        Ok(Decoder {
            embedding: loader.matrix("token_embd.weight", vocabulary, width)?,
            embedding_scale: 1.0,
            embedding_norm: None,
            positions: None,
            per_layer: None,
            ropes,
            blocks: (0..layers).map(block).collect::<Result<_>>()?,
            output_norm: norms.load(loader, output_norm, width)?,
            output: Linear::optional(loader, "output", vocabulary, width)?,
            logit_scale: 1.0,
            logit_cap: None,
            after_pooling: Vec::new(),
            rank_head: RankHead::load(loader, width)?,
        })
    }

    /// The tokens as vectors `[tokens, width]`.
    fn embed(&self, pass: &mut Pass<'_>) -> Result<Act> {
        let tokens: Vec<usize> = pass.tokens.iter().map(|&token| token as usize).collect();
        let x = pass.backend.lookup(&self.embedding, &tokens)?;
        if self.embedding_scale != 1.0 {
            pass.backend.map(Map::Scale(self.embedding_scale), x)?;
        }
        if let Some(table) = &self.positions {
            let positions: Vec<usize> = pass.positions().collect();
            let positions = pass.backend.lookup(table, &positions)?;
            pass.backend.add(x, positions)?;
        }
        if let Some(norm) = &self.embedding_norm {
            pass.backend.norm_in_place(norm, x)?;
        }
        Ok(x)
    }
}

/// `x += scale * post(y)`; `y` is spent.
fn join(pass: &mut Pass<'_>, x: Act, y: Act, post: Option<&Norm>, scale: f32) -> Result<()> {
    if let Some(norm) = post {
        pass.backend.norm_in_place(norm, y)?;
    }
    if scale != 1.0 {
        pass.backend.map(Map::Scale(scale), y)?;
    }
    pass.backend.add(x, y)
}

fn normed(pass: &mut Pass<'_>, norm: Option<&Norm>, x: Act) -> Result<Act> {
    norm.map_or(Ok(x), |norm| pass.backend.norm(norm, x))
}

impl Network for Decoder {
    fn vocabulary(&self) -> usize {
        self.embedding.rows
    }

    fn cache_layers(&self) -> Vec<LayerShape> {
        self.blocks.iter().map(|block| block.mixer.shape()).collect()
    }

    fn state_len(&self) -> usize {
        self.blocks.iter().fold(0, |sum, block| sum.saturating_add(block.mixer.state_len()))
    }

    fn most_positions(&self) -> Option<usize> {
        self.positions.as_ref().map(|table| table.rows)
    }

    fn hidden(&self, pass: &mut Pass<'_>) -> Result<Option<Act>> {
        let mut x = self.embed(pass)?;
        let turned = self
            .ropes
            .iter()
            .map(|rope| rope.turns(pass.positions(), pass.context))
            .collect::<Result<Vec<_>>>()?;
        let mut vectors = self.per_layer.as_ref().map(|all| all.vectors(pass, x)).transpose()?;
        for (layer, block) in self.blocks.iter().enumerate() {
            pass.begin_layer(layer)?;
            let mark = pass.backend.mark();
            let mut input = normed(pass, block.mixer_norm.as_ref(), x)?;
            let mut mixed = block.mixer.forward(pass, layer, input, &turned)?;
            let last = layer + 1 == self.blocks.len();
            if last {
                // What follows the last mixer is only needed where logits are wanted.
                if pass.outputs.is_empty() {
                    return Ok(None);
                }
                x = pass.backend.select(x, pass.outputs)?;
                mixed = pass.backend.select(mixed, pass.outputs)?;
                if block.parallel {
                    input = pass.backend.select(input, pass.outputs)?;
                }
                vectors = vectors.map(|vectors| pass.backend.select(vectors, pass.outputs)).transpose()?;
            }
            let (post, scale) = (block.mixer_post_norm.as_ref(), block.residual_scale);
            if !block.parallel {
                join(pass, x, mixed, post, scale)?;
                if !last {
                    pass.backend.release(mark);
                }
            }
            if let Some(feed_forward) = &block.feed_forward {
                let input = match &block.feed_forward_norm {
                    None if block.parallel => input,
                    norm => normed(pass, norm.as_ref(), x)?,
                };
                let fed = feed_forward.forward(pass, input)?;
                if block.parallel {
                    join(pass, x, mixed, post, scale)?;
                }
                join(pass, x, fed, block.feed_forward_post_norm.as_ref(), scale)?;
            }
            if let (Some(per_layer), Some(vectors)) = (&block.per_layer, vectors) {
                let own = per_layer.forward(pass, layer, x, vectors)?;
                pass.backend.add(x, own)?;
            }
            if block.output_scale != 1.0 {
                pass.backend.map(Map::Scale(block.output_scale), x)?;
            }
            if !last {
                pass.backend.release(mark);
            }
        }
        pass.backend.norm_in_place(&self.output_norm, x)?;
        Ok(Some(x))
    }

    fn logits(&self, pass: &mut Pass<'_>, hidden: Act) -> Result<Act> {
        let logits = match &self.output {
            Some(output) => output.forward(pass, hidden)?,
            None => pass.backend.linear(&self.embedding, None, hidden)?,
        };
        if self.logit_scale != 1.0 {
            pass.backend.map(Map::Scale(self.logit_scale), logits)?;
        }
        if let Some(cap) = self.logit_cap {
            pass.backend.map(Map::SoftCap(cap), logits)?;
        }
        Ok(logits)
    }

    fn project(&self, pass: &mut Pass<'_>, pooled: Act) -> Result<Act> {
        self.after_pooling.iter().try_fold(pooled, |x, dense| dense.forward(pass, x))
    }

    fn ranks_mean(&self) -> bool {
        self.rank_head.as_ref().is_some_and(|head| head.of_mean)
    }

    fn rank(&self, pass: &mut Pass<'_>, pooled: Act) -> Result<Option<Act>> {
        self.rank_head.as_ref().map(|head| head.forward(pass, pooled)).transpose()
    }
}
