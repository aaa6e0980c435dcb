//! Which tokens go to which expert, in the order in which experts are multiplied.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::{Act, Constant, Matrix};

/// The matrices of several experts, one below the other: `[experts * of, len]`, of which each expert takes some rows.
pub(crate) struct Grouped {
    pub weights: Matrix,
    /// Rows of one expert in all.
    pub of: usize,
    /// The first of the rows that are taken, and how many.
    pub first: usize,
    pub rows: usize,
    /// `[experts * rows]`
    pub bias: Option<Constant>,
}

/// A slot is one token's place at one of its experts. Slots are sorted by expert, so that each expert's are one run; for
/// an expert they are in the order of the tokens.
pub(crate) struct Slots {
    /// Experts that are used, each with its slots.
    pub runs: Vec<(usize, Range<usize>)>,
    /// The token of each slot.
    pub tokens: Vec<usize>,
    /// The weight of each slot.
    pub weights: Vec<f32>,
    /// The slots of each token in the order of its choice, `[tokens, per_token]`.
    pub chosen: Vec<usize>,
    /// Experts for a token.
    pub per_token: usize,
    /// Where a device made the choice and nobody read it. Then there are neither runs nor weights, and slots are in the order
    /// of the tokens.
    pub held: Option<Held>,
}

/// A choice that a device holds.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    /// The expert of each slot, a whole number, and its weight: `[tokens, per_token]`.
    pub experts: Act,
    pub weights: Act,
    /// How many experts were to be chosen from.
    pub count: usize,
}

impl Slots {
    /// Of as many tokens, by a choice that a device holds.
    pub fn held(tokens: usize, per_token: usize, held: Held) -> Self {
        let slots = tokens * per_token;
        Slots {
            runs: Vec::new(),
            tokens: (0..slots).map(|slot| slot / per_token.max(1)).collect(),
            weights: Vec::new(),
            chosen: (0..slots).collect(),
            per_token,
            held: Some(held),
        }
    }

    /// From the experts that each token chose, with their weights: as many for each token.
    pub fn new(chosen: &[Vec<(usize, f32)>]) -> Self {
        let per_token = chosen.first().map_or(0, Vec::len);
        let places = chosen.iter().enumerate();
        let mut places: Vec<(usize, usize, usize, f32)> = places
            .flat_map(|(token, experts)| {
                experts.iter().enumerate().map(move |(i, &(expert, weight))| (expert, token, i, weight))
            })
            .collect();
        places.sort_by_key(|&(expert, token, i, _)| (expert, token, i));
        let mut slots = Slots {
            runs: Vec::new(),
            tokens: Vec::with_capacity(places.len()),
            weights: Vec::with_capacity(places.len()),
            chosen: vec![0; chosen.len() * per_token],
            per_token,
            held: None,
        };
        for (slot, (expert, token, i, weight)) in places.into_iter().enumerate() {
            match slots.runs.last_mut() {
                Some((last, run)) if *last == expert => run.end = slot + 1,
                _ => slots.runs.push((expert, slot..slot + 1)),
            }
            slots.tokens.push(token);
            slots.weights.push(weight);
            if let Some(place) = slots.chosen.get_mut(token * per_token + i) {
                *place = slot;
            }
        }
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_runs_of_experts() {
        let slots = Slots::new(&[vec![(3, 0.75), (0, 0.25)], vec![(3, 0.5), (1, 0.5)]]);
        assert_eq!(slots.runs, [(0, 0..1), (1, 1..2), (3, 2..4)]);
        assert_eq!(slots.tokens, [0, 1, 0, 1]);
        assert_eq!(slots.weights, [0.25, 0.5, 0.75, 0.5]);
        assert_eq!(slots.chosen, [2, 0, 3, 1]);
    }
}
