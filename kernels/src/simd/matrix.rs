//! A matrix unit: what multiplies small matrices of codes, sixteen columns of activations with sixteen rows of weights.
//!
//! Its sums are exact, so they are the sums that the vocabulary's words give. `Loops`, for tests, says what they are; [`super::amx`]
//! is the unit of Intel's Xeons.
#![forbid(unsafe_code)]

/// Rows of weights, and columns of activations, that a matrix holds.
pub(crate) const SIDE: usize = 16;

/// Four codes of each row of weights.
pub(crate) type Quad = [[u8; 4]; SIDE];
/// `K` codes of activations of each column.
pub(crate) type Codes<const K: usize> = [[i8; K]; SIDE];
/// Sums, `[column][row]`.
pub(crate) type Sums = [[i32; SIDE]; SIDE];

/// What multiplies superblocks of weights with twice sixteen columns.
pub(crate) trait Superblocks {
    /// Products of 256 weights of 16 bits each, given by their `low` bytes (unsigned) and `high` bytes (signed): for each
    /// sixteen columns the sums of the low bytes' products and those of the high bytes'.
    fn superblock(
        &mut self,
        low: &[Quad; 64],
        high: &[Quad; 64],
        x: [&[Codes<64>; 4]; 2],
        to: &mut [[Sums; 2]; 2],
    );
}

/// What multiplies parts of 32 weights with twice sixteen columns.
pub(crate) trait Parts {
    /// Products of 32 weights of 8 bits each (signed).
    fn part(&mut self, w: &[Quad; 8], x: [&Codes<32>; 2], to: &mut [Sums; 2]);
}

/// The specification.
#[cfg(test)]
pub(crate) struct Loops;

#[cfg(test)]
impl Superblocks for Loops {
    fn superblock(
        &mut self,
        low: &[Quad; 64],
        high: &[Quad; 64],
        x: [&[Codes<64>; 4]; 2],
        to: &mut [[Sums; 2]; 2],
    ) {
        for (x, to) in x.into_iter().zip(to) {
            *to = [[[0; SIDE]; SIDE]; 2];
            for (i, x) in x.iter().enumerate() {
                add(&low[16 * i..][..16], x, i32::from, &mut to[0]);
                add(&high[16 * i..][..16], x, |code| i32::from(code as i8), &mut to[1]);
            }
        }
    }
}

#[cfg(test)]
impl Parts for Loops {
    fn part(&mut self, w: &[Quad; 8], x: [&Codes<32>; 2], to: &mut [Sums; 2]) {
        for (x, to) in x.into_iter().zip(to) {
            *to = [[0; SIDE]; SIDE];
            add(w, x, |code| i32::from(code as i8), to);
        }
    }
}

/// Adds the products of `K` codes, of which those of weights are read by `value`.
#[cfg(test)]
fn add<const K: usize>(w: &[Quad], x: &Codes<K>, value: impl Fn(u8) -> i32, to: &mut Sums) {
    for (x, to) in x.iter().zip(to) {
        for (w, x) in w.iter().zip(x.as_chunks::<4>().0) {
            for (w, to) in w.iter().zip(&mut *to) {
                for (&w, &x) in w.iter().zip(x) {
                    *to += value(w) * i32::from(x);
                }
            }
        }
    }
}
