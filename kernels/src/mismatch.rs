//! The one error of the loops: slices that do not belong together.
#![forbid(unsafe_code)]

use core::fmt;

/// Slices whose lengths do not belong together, or a type that cannot be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// What was counted.
    pub what: &'static str,
    /// How many there should have been, or of what there should have been a multiple.
    pub expected: usize,
    /// How many there were.
    pub found: usize,
}

impl Mismatch {
    /// That there are as many as there should be.
    pub(crate) fn check(what: &'static str, expected: usize, found: usize) -> Result<(), Self> {
        if expected == found { Ok(()) } else { Err(Mismatch { what, expected, found }) }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} {}, found {}", self.expected, self.what, self.found)
    }
}

impl core::error::Error for Mismatch {}
