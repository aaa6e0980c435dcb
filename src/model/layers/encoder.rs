//! The layers of BERT and its kin, which norm what they have added up, and what comes before and after them.
#![forbid(unsafe_code)]

use super::attention::{Heads, SelfAttention};
use super::decoder::{Mixer, Sizes};
use super::feed_forward::FeedForward;
use super::rank::RankHead;
use crate::backend::{Act, Constant, LayerShape, Matrix, Norm};
use crate::model::Network;
use crate::model::loader::{Loader, Norms};
use crate::model::pass::Pass;
use crate::model::rope::Rope;
use crate::{Error, Result};

/// One layer: `x = norm(x + attention(x))`, then the same with the feed-forward network.
pub(crate) struct EncoderLayer {
    pub attention: SelfAttention,
    attention_norm: Norm,
    /// Where it is there, `x` is added a second time and normed by this.
    second_norm: Option<Norm>,
    feed_forward: Box<dyn FeedForward>,
    feed_forward_norm: Norm,
}

impl EncoderLayer {
    /// With layer norms `attn_output_norm` and `layer_output_norm`, and `attn_norm_2` where it is there.
    pub fn new(
        loader: &Loader<'_>,
        layer: usize,
        width: usize,
        attention: SelfAttention,
        feed_forward: impl FeedForward + 'static,
    ) -> Result<Self> {
        let name = |name: &str| format!("blk.{layer}.{name}");
        let norm = |part: &str| Norms::Layer.load(loader, &name(part), width);
        let second = loader.has(&format!("{}.weight", name("attn_norm_2")));
        Ok(EncoderLayer {
            attention,
            attention_norm: norm("attn_output_norm")?,
            second_norm: second.then(|| norm("attn_norm_2")).transpose()?,
            feed_forward: Box::new(feed_forward),
            feed_forward_norm: norm("layer_output_norm")?,
        })
    }
}

/// An encoder of such layers. The public fields are what architectures change after [`Encoder::load`].
pub(crate) struct Encoder {
    embedding: Matrix,
    /// What is added to each token: the vector of the first of two sentences.
    segment: Option<Constant>,
    /// Positions that are learned, not turned.
    pub positions: Option<Matrix>,
    embedding_norm: Norm,
    pub ropes: Vec<Rope>,
    /// What one layer keeps while it works: layers take turns in one room.
    kept: LayerShape,
    layers: Vec<EncoderLayer>,
    head: Option<RankHead>,
}

impl Encoder {
    /// `token_embd`, `token_types`, `token_embd_norm`, and the layers that `layer` gives.
    pub fn load(
        loader: &Loader<'_>,
        layer: impl Fn(usize, Sizes, Heads) -> Result<EncoderLayer>,
    ) -> Result<Self> {
        let sizes = Sizes::load(loader)?;
        let width = sizes.width;
        let heads = Heads::of_encoder(loader, 0, width)?;
        let types = "token_types.weight";
        let segment = match loader.has(types) {
            true => {
                let mut table = loader.table(types, loader.vocabulary(types)?, width)?;
                table.truncate(width);
                Some(table.into())
            }
            false => None,
        };
        Ok(Encoder {
            embedding: loader.matrix("token_embd.weight", sizes.vocabulary, width)?,
            segment,
            positions: None,
            embedding_norm: Norms::Layer.load(loader, "token_embd_norm", width)?,
            ropes: Vec::new(),
            kept: heads.shape,
            layers: (0..sizes.layers).map(|number| layer(number, sizes, heads)).collect::<Result<_>>()?,
            head: RankHead::load(loader, width)?,
        })
    }

    /// The tokens as vectors `[tokens, width]`.
    fn embed(&self, pass: &mut Pass<'_>) -> Result<Act> {
        let tokens: Vec<usize> = pass.tokens.iter().map(|&token| token as usize).collect();
        let x = pass.backend.lookup(&self.embedding, &tokens)?;
        if let Some(segment) = &self.segment {
            pass.backend.shift_columns(segment, x)?;
        }
        if let Some(table) = &self.positions {
            let positions: Vec<usize> = pass.positions().collect();
            let positions = pass.backend.lookup(table, &positions)?;
            pass.backend.add(x, positions)?;
        }
        pass.backend.norm_in_place(&self.embedding_norm, x)?;
        Ok(x)
    }
}

impl Network for Encoder {
    fn vocabulary(&self) -> usize {
        self.embedding.rows
    }

    fn cache_layers(&self) -> Vec<LayerShape> {
        vec![self.kept]
    }

    fn most_positions(&self) -> Option<usize> {
        self.positions.as_ref().map(|table| table.rows)
    }

    fn hidden(&self, pass: &mut Pass<'_>) -> Result<Option<Act>> {
        let mut x = self.embed(pass)?;
        let turns = |rope: &Rope| rope.turns(pass.positions(), pass.context);
        let turned = self.ropes.iter().map(turns).collect::<Result<Vec<_>>>()?;
        for (number, layer) in self.layers.iter().enumerate() {
            pass.begin_layer(number)?;
            let mark = pass.backend.mark();
            let mut mixed = layer.attention.forward(pass, 0, x, &turned)?;
            let last = number + 1 == self.layers.len();
            if last {
                if pass.outputs.is_empty() {
                    return Ok(None);
                }
                x = pass.backend.select(x, pass.outputs)?;
                mixed = pass.backend.select(mixed, pass.outputs)?;
            }
            let mut norm = &layer.attention_norm;
            if let Some(second) = &layer.second_norm {
                pass.backend.add(mixed, x)?;
                pass.backend.norm_in_place(norm, mixed)?;
                norm = second;
            }
            pass.backend.add(x, mixed)?;
            pass.backend.norm_in_place(norm, x)?;
            if !last {
                pass.backend.release(mark);
            }
            let fed = layer.feed_forward.forward(pass, x)?;
            pass.backend.add(x, fed)?;
            pass.backend.norm_in_place(&layer.feed_forward_norm, x)?;
            if !last {
                pass.backend.release(mark);
            }
        }
        Ok(Some(x))
    }

    fn logits(&self, _pass: &mut Pass<'_>, _hidden: Act) -> Result<Act> {
        Err(Error::Internal { what: "logits of an encoder" })
    }

    fn ranks_mean(&self) -> bool {
        self.head.as_ref().is_some_and(|head| head.of_mean)
    }

    fn rank(&self, pass: &mut Pass<'_>, pooled: Act) -> Result<Option<Act>> {
        self.head.as_ref().map(|head| head.forward(pass, pooled)).transpose()
    }
}
