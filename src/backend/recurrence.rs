//! What recurrent layers ask of a backend.
#![forbid(unsafe_code)]

use gristmill_kernels::recurrence::block;

use super::Constant;

/// A causal convolution of each channel by itself.
pub(crate) struct Convolution {
    /// `[taps, channels]`, the oldest token's first.
    pub weights: Constant,
    /// `[channels]`
    pub bias: Option<Constant>,
    pub channels: usize,
}

impl Convolution {
    /// Floats that are kept: the last tokens but one, `[taps - 1, channels]`.
    pub fn state_len(&self) -> usize {
        self.weights.len().saturating_sub(self.channels)
    }
}

/// The sizes of a recurrence of matrices; see `gristmill_kernels::recurrence`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recurrence {
    /// Heads of values, each with a state.
    pub heads: usize,
    /// Heads of keys and queries: a divisor of `heads`.
    pub key_heads: usize,
    pub key_dim: usize,
    pub value_dim: usize,
    /// Whether what the state already gives for a key is taken off its value.
    pub delta: bool,
    /// Whether neighbouring heads of values have different heads of keys (head `i` has key head `i % key_heads`).
    pub tiled: bool,
}

impl Recurrence {
    /// Floats that are kept.
    pub fn state_len(&self) -> usize {
        self.heads.saturating_mul(self.key_dim).saturating_mul(self.value_dim)
    }

    /// The head of keys of a head of values.
    pub fn key_head(&self, head: usize) -> usize {
        if self.tiled { head % self.key_heads } else { head / (self.heads / self.key_heads).max(1) }
    }
}

/// A selective scan: channels with states of their own; see `gristmill_kernels::scan`.
pub(crate) struct Scan {
    pub channels: usize,
    pub states: usize,
    /// Channels of a block.
    pub block: usize,
    /// The rates of the states, `[channels / block, states, block]`.
    pub rates: Constant,
}

impl Scan {
    /// From rates `[channels, states]`; `None` where the channels are no whole number of blocks.
    pub fn new(rates: Vec<f32>, channels: usize, states: usize) -> Option<Self> {
        let block = block(channels)?;
        let mut sorted = Vec::with_capacity(rates.len());
        for channels in rates.chunks(block * states) {
            for state in 0..states {
                sorted.extend(channels.iter().skip(state).step_by(states));
            }
        }
        Some(Scan { channels, states, block, rates: sorted.into() })
    }

    /// The rates as `[states, channels]`.
    pub fn rates_by_state(&self) -> Vec<f32> {
        let blocks = self.rates.chunks(self.block * self.states);
        let state = |state| {
            blocks.clone().flat_map(move |block| block.iter().skip(state * self.block).take(self.block))
        };
        (0..self.states).flat_map(state).copied().collect()
    }

    /// Floats that are kept.
    pub fn state_len(&self) -> usize {
        self.channels.saturating_mul(self.states)
    }
}

/// The sizes of RWKV's recurrence: heads whose keys and values are as long; see `gristmill_kernels::wkv`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wkv {
    pub heads: usize,
    pub dim: usize,
}

impl Wkv {
    /// Floats that are kept.
    pub fn state_len(&self) -> usize {
        self.heads.saturating_mul(self.dim).saturating_mul(self.dim)
    }
}
