//! The logits after the last token, where they are.
#![forbid(unsafe_code)]

use std::sync::OnceLock;

use crate::Result;
use crate::backend::Left;
use crate::model::Model;

/// Logits that are here, or on a device until somebody asks for them.
#[derive(Clone, Debug, Default)]
pub(super) struct Logits {
    here: OnceLock<Vec<f32>>,
    left: Option<Left>,
}

impl Logits {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.left.is_none() && self.here.get().is_none_or(Vec::is_empty)
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.left = None;
        if let Some(here) = self.here.get_mut() {
            here.clear();
        }
    }

    /// Takes a row that is here.
    pub fn set(&mut self, row: &[f32]) {
        self.left = None;
        let mut here = self.here.take().unwrap_or_default();
        here.clear();
        here.extend_from_slice(row);
        self.here = here.into();
    }

    /// Takes a row that was left on `model`'s device.
    pub fn set_left(&mut self, left: Left) {
        *self = Logits { here: OnceLock::new(), left: Some(left) };
    }

    /// What is known of them without all being here.
    pub fn left(&self) -> Option<&Left> {
        self.left.as_ref().filter(|_| self.here.get().is_none())
    }

    /// All of them.
    ///
    /// # Errors
    /// Those of `model`'s device, where they are there.
    pub fn all(&self, model: &Model) -> Result<&[f32]> {
        if let Some(left) = self.left() {
            let row = model.read_left(left)?;
            return Ok(self.here.get_or_init(|| row));
        }
        Ok(self.here.get().map(Vec::as_slice).unwrap_or_default())
    }

    /// Bytes that are here.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.here.get().map_or(0, |row| row.len() * size_of::<f32>())
    }
}
