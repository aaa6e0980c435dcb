//! The last tokens of the text, counted.

use std::collections::{HashMap, VecDeque};

use super::SamplerOptions;

/// A window of the last accepted tokens, with how often each is in it. Empty for good where no penalty is set.
#[derive(Clone, Debug)]
pub(super) struct History {
    limit: usize,
    recent: VecDeque<u32>,
    // The order in which this iterates is not fixed, and must not matter.
    counts: HashMap<u32, u32>,
}

impl History {
    pub fn new(options: &SamplerOptions) -> Self {
        let limit = if options.penalizes() { options.penalty_last_n } else { 0 };
        History { limit, recent: VecDeque::new(), counts: HashMap::new() }
    }

    pub fn push(&mut self, token: u32) {
        if self.limit == 0 {
            return;
        }
        if self.recent.len() >= self.limit
            && let Some(oldest) = self.recent.pop_front()
            && let Some(count) = self.counts.get_mut(&oldest)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&oldest);
            }
        }
        self.recent.push_back(token);
        *self.counts.entry(token).or_insert(0) += 1;
    }

    pub fn clear(&mut self) {
        self.recent.clear();
        self.counts.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.recent.is_empty()
    }

    /// Each token of the window, once, with its count (at least 1), in no fixed order.
    pub fn counts(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.counts.iter().map(|(&token, &count)| (token, count))
    }
}
