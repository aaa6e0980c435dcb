//! How fast models run here: tokens per second as llama-bench defines them, beside what the machine could do at most.
//!
//! A [`Suite`] lets tests of models take turns, so that whatever slows the machine down slows all of them, and runs a fixed
//! workload between the rounds, so that a machine that drifts is told from a model that does. [`Machine`] is what memory
//! and multipliers give, [`Cost`] what a test needs of them; [`peer`] runs llama.cpp's llama-bench for comparison.
//!
//! ```
//! use gristmill::Model;
//! use gristmill::speed::{Options, Suite, Test};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models/stories260K-f32.gguf");
//! let model = Model::open(path)?;
//! let mut suite = Suite::new(&model)?;
//! suite.add(&model, &Options::default(), &[Test::prompt(32), Test::generate(8).at_depth(16)])?;
//! suite.warm_up(&mut || ())?;
//! for _ in 0..3 {
//!     suite.round(&mut || ())?;
//! }
//! for case in suite.cases() {
//!     let figures = case.figures().ok_or("no runs")?;
//!     println!("{}: {:.1} tokens/s, spread {:.1} %", case.test(), figures.median, 100.0 * figures.spread());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod apple;
pub(crate) mod cost;
mod figures;
pub(crate) mod machine;
pub mod memory;
pub mod peer;
pub mod readings;
mod suite;

use std::fmt;

pub use cost::Cost;
pub use figures::{Course, Figures, Ratio, Remark, STEADY};
pub use machine::Machine;
pub use suite::{Case, Options, Suite, first_token};

/// What is measured: so many tokens, fed at once or one by one, to a sequence of some depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Test {
    kind: Kind,
    tokens: usize,
    depth: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Prompt,
    Generate,
}

impl Test {
    /// `pp`: a prompt of so many tokens.
    pub fn prompt(tokens: usize) -> Self {
        Test { kind: Kind::Prompt, tokens, depth: 0 }
    }

    /// `tg`: so many tokens one by one.
    pub fn generate(tokens: usize) -> Self {
        Test { kind: Kind::Generate, tokens, depth: 0 }
    }

    /// The same after so many tokens.
    #[must_use]
    pub fn at_depth(self, depth: usize) -> Self {
        Test { depth, ..self }
    }

    /// Tokens that are timed.
    pub fn tokens(self) -> usize {
        self.tokens
    }

    /// Tokens before those that are timed.
    pub fn depth(self) -> usize {
        self.depth
    }

    /// Whether the tokens are fed one by one.
    pub fn is_generation(self) -> bool {
        self.kind == Kind::Generate
    }

    /// Tokens of the sequence when the test ends.
    fn end(self) -> usize {
        self.depth.saturating_add(self.tokens)
    }
}

/// As llama-bench names it: `pp512`, `tg128 @ d4096`.
impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.tokens as u64;
        let (prompt, generate) = if self.is_generation() { (0, tokens) } else { (tokens, 0) };
        f.pad(&readings::name(prompt, generate, self.depth as u64))
    }
}
