//! One forward pass: some tokens of one sequence, from a position on.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::backend::{Act, Backend, Cache};
use crate::{Error, Result};

/// What a pass works on.
pub(crate) struct Pass<'a> {
    pub backend: &'a mut dyn Backend,
    pub cache: &'a mut Cache,
    /// The tokens, each below the vocabulary's length.
    pub tokens: &'a [u32],
    /// The position of the first token; the cache holds all before it.
    pub start: usize,
    /// The most tokens that the sequence may have.
    pub context: usize,
    /// Indices of the tokens whose logits are wanted.
    pub outputs: &'a [usize],
    /// Called before each layer with its number; stops the pass by `false`.
    pub go_on: &'a mut dyn FnMut(usize) -> bool,
}

impl Pass<'_> {
    /// The positions of the tokens.
    pub fn positions(&self) -> Range<usize> {
        self.start..self.start + self.tokens.len()
    }

    /// A copy of `x`.
    pub fn copy(&mut self, x: Act) -> Result<Act> {
        self.backend.columns(&[(x, 0..x.width)])
    }

    /// A layer's state number `part` of `len` values before the pass, to be changed.
    pub fn state(&mut self, layer: usize, part: usize, len: usize) -> Result<Act> {
        self.backend.state(&self.cache.states, (layer, part), self.start, len)
    }

    /// Keeps a layer's state number `part` after the pass.
    pub fn keep_state(&mut self, layer: usize, part: usize, state: Act) -> Result<()> {
        let end = self.positions().end;
        self.backend.keep_state(&mut self.cache.states, (layer, part), end, state)
    }

    /// Stops the pass here where the caller wants that.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn begin_layer(&mut self, layer: usize) -> Result<()> {
        if (self.go_on)(layer) { self.backend.begin_layer(layer) } else { Err(Error::Cancelled) }
    }
}
