//! [`Amx`] where processors have none.
#![forbid(unsafe_code)]

use super::Level;
use super::matrix::{Codes, Parts, Quad, Sums, Superblocks};

/// Of which there is no value.
pub(crate) enum Amx<const DEPTH: usize> {}

impl<const DEPTH: usize> Amx<DEPTH> {
    pub fn of(_: Level) -> Option<Self> {
        None
    }
}

impl Amx<64> {
    pub fn multiply(&mut self, _: u64) -> u64 {
        match *self {}
    }
}

impl Superblocks for Amx<64> {
    fn superblock(
        &mut self,
        _: &[Quad; 64],
        _: &[Quad; 64],
        _: [&[Codes<64>; 4]; 2],
        _: &mut [[Sums; 2]; 2],
    ) {
        match *self {}
    }
}

impl Parts for Amx<32> {
    fn part(&mut self, _: &[Quad; 8], _: [&Codes<32>; 2], _: &mut [Sums; 2]) {
        match *self {}
    }
}
