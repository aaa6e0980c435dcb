//! The states of recurrent layers: what they keep of all tokens before, rather than of each.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::metal;
use crate::{Error, Result};

/// How many states of a layer are kept: the last one, and the one before the last pass, to which a pass that fails goes
/// back.
pub(crate) const KEPT: usize = 2;

/// What a recurrent layer keeps, where the backend that made it has it.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// In memory.
    Host(Arc<[f32]>),
    /// With a device.
    Device(metal::Buffer),
}

impl State {
    /// The numbers of a state in memory.
    ///
    /// # Errors
    /// [`Error::Internal`] where a device has it.
    pub fn host(&self) -> Result<&[f32]> {
        match self {
            State::Host(numbers) => Ok(numbers),
            State::Device(_) => Err(Error::Internal { what: "a state that another backend has" }),
        }
    }
}

/// The states of one sequence, shared as its pages are.
#[derive(Clone, Debug, Default)]
pub(crate) struct States {
    /// The states of each recurrent layer, of which a layer may have several, with the number of tokens that are in them; those
    /// of fewer tokens first.
    layers: BTreeMap<(usize, usize), Vec<(usize, State)>>,
}

impl States {
    /// A layer's state of some number after the first `position` tokens.
    pub fn at(&self, of: (usize, usize), position: usize) -> Option<&State> {
        let kept = self.layers.get(&of).into_iter().flatten();
        kept.filter(|_| position > 0).find(|(at, _)| *at == position).map(|(_, state)| state)
    }

    /// Keeps a layer's state of some number after the first `position` tokens.
    pub fn keep(&mut self, of: (usize, usize), position: usize, state: State) {
        let kept = self.layers.entry(of).or_default();
        kept.retain(|(at, _)| *at < position);
        kept.push((position, state));
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
        self.layers.values().flatten().map(|(_, state)| state.host().map_or(0, size_of_val)).sum()
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

    fn state(number: f32) -> State {
        State::Host([number; 2].into())
    }

    #[test]
    fn a_sequence_goes_on_from_a_kept_state_or_from_the_beginning() {
        let mut states = States::default();
        for position in [3, 8, 9] {
            states.keep((1, 0), position, state(position as f32));
        }
        assert_eq!(states.at((1, 0), 9).unwrap().host().unwrap(), [9.0; 2]);
        assert_eq!((states.resume(9), states.resume(8), states.resume(7)), (9, 8, 0));
        assert!(
            states.at((1, 0), 3).is_none()
                && states.at((1, 0), 0).is_none()
                && states.at((1, 1), 9).is_none()
        );
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
            states.keep((0, 0), position, state(0.0));
            states.keep((2, 1), position, state(0.0));
        }
        states.keep((0, 0), 7, state(0.0));
        states.truncate(6);
        assert_eq!(states.resume(6), 6);
    }
}
