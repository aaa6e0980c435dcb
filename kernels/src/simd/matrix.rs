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
            for (column, row, i) in places(256) {
                let x = i32::from(x[i / 64][column][i % 64]);
                to[0][column][row] += x * i32::from(low[i / 4][row][i % 4]);
                to[1][column][row] += x * i32::from(high[i / 4][row][i % 4] as i8);
            }
        }
    }
}

#[cfg(test)]
impl Parts for Loops {
    fn part(&mut self, w: &[Quad; 8], x: [&Codes<32>; 2], to: &mut [Sums; 2]) {
        for (x, to) in x.into_iter().zip(to) {
            *to = [[0; SIDE]; SIDE];
            for (column, row, i) in places(32) {
                to[column][row] += i32::from(x[column][i]) * i32::from(w[i / 4][row][i % 4] as i8);
            }
        }
    }
}

/// Every column, row and code of `codes`.
#[cfg(test)]
fn places(codes: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..SIDE * SIDE * codes).map(move |i| (i / codes / SIDE, i / codes % SIDE, i % codes))
}
