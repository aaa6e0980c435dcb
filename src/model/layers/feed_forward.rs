//! The feed-forward network.
#![forbid(unsafe_code)]

use super::linear::Linear;
use crate::Result;
use crate::backend::{Act, Activation, Map, Norm};
use crate::model::loader::Loader;
use crate::model::pass::Pass;

/// What works on each token by itself.
pub(crate) trait FeedForward: Send + Sync {
    /// `x` `[tokens, width]` to `[tokens, width]`.
    fn forward(&self, pass: &mut Pass<'_>, x: Act) -> Result<Act>;
}

impl FeedForward for Box<dyn FeedForward> {
    fn forward(&self, pass: &mut Pass<'_>, x: Act) -> Result<Act> {
        (**self).forward(pass, x)
    }
}

/// With a gate, `down(activation(gate x) * up x)`, or without, `down(activation(up x))`.
pub(crate) struct Dense {
    pub activation: Activation,
    pub gate: Option<Linear>,
    pub up: Linear,
    pub down: Linear,
    /// The norm before the last matrix.
    pub norm: Option<Norm>,
    /// How many standard deviations above the mean a gate must be to count at all.
    pub sparsity: Option<f32>,
}

impl Dense {
    /// `ffn_{gate,up,down}` of a layer, of `feed_forward_length`. Where there is no gate of its own, `ffn_up` holds both:
    /// the gate's rows first.
    pub fn gated(loader: &Loader<'_>, layer: usize, width: usize, activation: Activation) -> Result<Self> {
        let inner = loader.size_at("feed_forward_length", layer)?;
        Self::named(loader, &format!("blk.{layer}"), "", width, inner, activation)
    }

    /// `prefix.ffn_{gate,up,down}suffix` of `inner` values.
    pub fn named(
        loader: &Loader<'_>,
        prefix: &str,
        suffix: &str,
        width: usize,
        inner: usize,
        activation: Activation,
    ) -> Result<Self> {
        let name = |part: &str| format!("{prefix}.ffn_{part}{suffix}");
        let down = Linear::load(loader, &name("down"), width, inner)?;
        let (gate, up) = match Linear::optional(loader, &name("gate"), inner, width)? {
            Some(gate) => (gate, Linear::load(loader, &name("up"), inner, width)?),
            None => {
                let half =
                    |start| Linear::load_rows(loader, &name("up"), 2 * inner, width, start..start + inner);
                (half(0)?, half(inner)?)
            }
        };
        Ok(Dense { activation, gate: Some(gate), up, down, norm: None, sparsity: None })
    }

    /// `ffn_{up,down}` of a layer, of `feed_forward_length`.
    pub fn plain(loader: &Loader<'_>, layer: usize, width: usize, activation: Activation) -> Result<Self> {
        let inner = loader.size_at("feed_forward_length", layer)?;
        Self::plain_named(loader, &format!("blk.{layer}.ffn"), "", width, inner, activation)
    }

    /// `prefix_{up,down}suffix` of `inner` values.
    pub fn plain_named(
        loader: &Loader<'_>,
        prefix: &str,
        suffix: &str,
        width: usize,
        inner: usize,
        activation: Activation,
    ) -> Result<Self> {
        Ok(Dense {
            activation,
            gate: None,
            up: Linear::load(loader, &format!("{prefix}_up{suffix}"), inner, width)?,
            down: Linear::load(loader, &format!("{prefix}_down{suffix}"), width, inner)?,
            norm: None,
            sparsity: None,
        })
    }
}

impl FeedForward for Dense {
    fn forward(&self, pass: &mut Pass<'_>, x: Act) -> Result<Act> {
        let inner = match &self.gate {
            Some(gate) => {
                let (gate, up) = (gate.forward(pass, x)?, self.up.forward(pass, x)?);
                if let Some(deviations) = self.sparsity {
                    pass.backend.map(Map::Sparse(deviations), gate)?;
                }
                pass.backend.gated(self.activation, gate, up)?;
                gate
            }
            None => {
                let up = self.up.forward(pass, x)?;
                pass.backend.activate(self.activation, up)?;
                up
            }
        };
        if let Some(norm) = &self.norm {
            pass.backend.norm_in_place(norm, inner)?;
        }
        self.down.forward(pass, inner)
    }
}
