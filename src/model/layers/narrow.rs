//! A product through few values (LoRA: Hu and others 2021).
#![forbid(unsafe_code)]

use super::linear::Linear;
use crate::Result;
use crate::backend::{Act, Constant};
use crate::model::loader::Loader;
use crate::model::pass::Pass;

/// A narrow product between two matrices, and the terms after it.
pub(crate) struct Narrow {
    into: Linear,
    out_of: Linear,
    terms: Option<Constant>,
}

impl Narrow {
    /// `prefix1`, `prefix2` and, where they are there, the terms `prefix0`: from `width` values to as many.
    pub fn load(loader: &Loader<'_>, prefix: &str, width: usize) -> Result<Self> {
        let name = |n: u8| format!("{prefix}{n}");
        let rank = loader.vocabulary(&format!("{}.weight", name(1)))?;
        Ok(Narrow {
            into: Linear::load(loader, &name(1), rank, width)?,
            out_of: Linear::load(loader, &name(2), width, rank)?,
            terms: loader.optional_vector(&format!("{}.weight", name(0)), width)?.map(Constant::from),
        })
    }

    /// `terms + out_of(middle(into x))`.
    pub fn forward(
        &self,
        pass: &mut Pass<'_>,
        x: Act,
        middle: impl FnOnce(&mut Pass<'_>, Act) -> Result<()>,
    ) -> Result<Act> {
        let narrow = self.into.forward(pass, x)?;
        middle(pass, narrow)?;
        let y = self.out_of.forward(pass, narrow)?;
        if let Some(terms) = &self.terms {
            pass.backend.shift_columns(terms, y)?;
        }
        Ok(y)
    }
}
