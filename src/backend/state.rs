//! The states of recurrent layers: what they keep of all tokens before, rather than of each.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Error, Result};

/// How many states of a layer are kept: the last one, and the one before the last pass, to which a pass that fails goes
/// back.
pub(crate) const KEPT: usize = 2;

/// A state, with the number of tokens that are in it.
type Kept = (usize, Arc<Vec<f32>>);

/// The states of one sequence, shared as its pages are.
#[derive(Clone, Debug, Default)]
pub(crate) struct States {
    /// The states of each recurrent layer, those of fewer tokens first.
    layers: BTreeMap<usize, Vec<Kept>>,
}

impl States {
    /// A copy of the state of `layer` after the first `position` tokens, `len` floats: zeros at the beginning.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn at(&self, layer: usize, position: usize, len: usize) -> Result<Vec<f32>> {
        let mut state = Vec::new();
        let bytes = len.saturating_mul(size_of::<f32>()) as u64;
        state.try_reserve_exact(len).map_err(|_| Error::OutOfMemory { what: "states of layers", bytes })?;
        if position == 0 {
            state.resize(len, 0.0);
            return Ok(state);
        }
        let kept = self.layers.get(&layer).into_iter().flatten().find(|(at, _)| *at == position);
        let (_, kept) = kept.ok_or(Error::Internal { what: "a state that is not kept" })?;
        state.extend_from_slice(kept);
        Ok(state)
    }

    /// Keeps the state of `layer` after the first `position` tokens.
    pub fn keep(&mut self, layer: usize, position: usize, state: Vec<f32>) {
        let kept = self.layers.entry(layer).or_default();
        kept.retain(|(at, _)| *at < position);
        kept.push((position, Arc::new(state)));
        let old = kept.len().saturating_sub(KEPT);
        kept.drain(..old);
    }

    /// Forgets the states after more than `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.layers.values_mut().for_each(|kept| kept.retain(|(at, _)| *at <= len));
    }

    /// Bytes that are held.
    #[cfg(test)]
    pub fn held_bytes(&self) -> usize {
        self.layers.values().flatten().map(|(_, state)| state.len() * size_of::<f32>()).sum()
    }

    /// From which position, at most `len`, all layers can go on.
    pub fn resume(&self, len: usize) -> usize {
        let mut position = len;
        loop {
            let recurrent = self.layers.values();
            let lowest = recurrent
                .map(|kept| kept.iter().map(|(at, _)| *at).filter(|&at| at <= position).max().unwrap_or(0))
                .min();
            match lowest {
                Some(lowest) if lowest < position => position = lowest,
                _ => return position,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_goes_on_from_a_kept_state_or_from_the_beginning() {
        let mut states = States::default();
        for position in [3, 8, 9] {
            states.keep(1, position, vec![position as f32; 2]);
        }
        assert_eq!(states.at(1, 9, 2).unwrap(), [9.0; 2]);
        assert_eq!((states.resume(9), states.resume(8), states.resume(7)), (9, 8, 0));
        assert!(states.at(1, 3, 2).is_err());
        assert_eq!(states.at(1, 0, 2).unwrap(), [0.0; 2]);
        let mut fork = states.clone();
        fork.truncate(8);
        assert_eq!((fork.resume(9), states.resume(9)), (8, 9));
        fork.truncate(2);
        assert_eq!(fork.resume(2), 0);
        assert_eq!(States::default().resume(7), 7);
    }

    #[test]
    fn a_pass_that_failed_half_way_is_taken_back_whole() {
        let mut states = States::default();
        for position in [4, 6] {
            states.keep(0, position, vec![0.0]);
            states.keep(2, position, vec![0.0]);
        }
        states.keep(0, 7, vec![0.0]);
        states.truncate(6);
        assert_eq!(states.resume(6), 6);
    }
}
