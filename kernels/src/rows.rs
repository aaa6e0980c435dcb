//! Rows of weights that decode reads together: by turns, and pass after pass.
#![forbid(unsafe_code)]

/// The most rows that are read by turns.
pub(crate) const TOGETHER: usize = 4;

/// The most passes at a time.
pub(crate) const PASSES: usize = 16;

/// Rows of one length that are multiplied together.
pub(crate) struct Rows<'a, B> {
    /// All rows that there are.
    pub all: &'a [B],
    /// Blocks in a row.
    pub len: usize,
    /// The first row of the first pass.
    pub first: usize,
    /// How many passes there are, at most [`PASSES`]: of neighbours.
    pub passes: usize,
    /// How many rows each has, read by turns.
    pub by_turns: usize,
    /// How far these are apart.
    pub apart: usize,
}

impl<'a, B> Rows<'a, B> {
    /// The number of row `r` of pass `p`.
    #[inline(always)]
    pub fn row(&self, p: usize, r: usize) -> usize {
        self.first + p + r * self.apart
    }

    /// The rows of pass `p`.
    #[inline(always)]
    pub fn pass(&self, p: usize) -> [&'a [B]; TOGETHER] {
        let mut pass = [&[][..]; TOGETHER];
        for (r, by_turns) in pass.iter_mut().enumerate().take(self.by_turns) {
            *by_turns = &self.all[self.row(p, r) * self.len..][..self.len];
        }
        pass
    }
}

/// The product of each row of each pass with each column.
pub(crate) type Products<const C: usize> = [[[f32; C]; TOGETHER]; PASSES];

/// All rows, of `len` blocks each, by turns of up to so many passes. Rows that are left over come last.
pub(crate) fn turns<B>(
    all: &[B],
    len: usize,
    streams: usize,
    passes: usize,
) -> impl Iterator<Item = Rows<'_, B>> {
    let (rows, by_turns) = (all.len() / len, streams.clamp(1, TOGETHER));
    let (apart, left) = (rows / by_turns, rows % by_turns);
    let whole = (0..apart).step_by(passes.max(1)).map(move |first| {
        let passes = passes.min(apart - first);
        Rows { all, len, first, passes, by_turns, apart }
    });
    let left = Rows { all, len, first: rows - left, passes: left, by_turns: 1, apart: 0 };
    whole.chain((left.passes > 0).then_some(left))
}
