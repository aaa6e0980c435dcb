//! Rotary position embedding (Su and others 2021): pairs of a head's values turned by an angle that grows with the
//! position.
#![forbid(unsafe_code)]

use crate::Mismatch;

/// Which values of a head form the pairs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pairing {
    /// Neighbours: `(x[2i], x[2i + 1])`.
    Neighbours,
    /// Halves of the rotated part: `(x[i], x[i + n / 2])`, as in GPT-NeoX.
    Halves,
}

/// Turns the first `2 * turns.len()` values of one head, in place. `turns[i]` is the cosine and the sine of pair
/// `i`'s angle.
///
/// # Errors
/// [`Mismatch`] where the head is shorter than the pairs.
pub fn rotate(pairing: Pairing, head: &mut [f32], turns: &[[f32; 2]]) -> Result<(), Mismatch> {
    let len = head.len();
    let Some((head, _)) = head.split_at_mut_checked(2 * turns.len()) else {
        return Err(Mismatch { what: "values of a head", expected: 2 * turns.len(), found: len });
    };
    let turn = |a: &mut f32, b: &mut f32, [cos, sin]: [f32; 2]| {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    };
    match pairing {
        Pairing::Neighbours => {
            for ([a, b], &by) in head.as_chunks_mut::<2>().0.iter_mut().zip(turns) {
                turn(a, b, by);
            }
        }
        Pairing::Halves => {
            let (first, second) = head.split_at_mut(turns.len());
            for ((a, b), &by) in first.iter_mut().zip(second).zip(turns) {
                turn(a, b, by);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Quarter turns: (a, b) becomes (-b, a).
    #[test]
    fn a_quarter_turn_exchanges_the_pair() {
        let turns = [[0.0, 1.0]; 2];
        let mut head = [1.0, 2.0, 3.0, 4.0, 5.0];
        rotate(Pairing::Neighbours, &mut head, &turns).unwrap();
        assert_eq!(head, [-2.0, 1.0, -4.0, 3.0, 5.0]);
        let mut head = [1.0, 2.0, 3.0, 4.0, 5.0];
        rotate(Pairing::Halves, &mut head, &turns).unwrap();
        assert_eq!(head, [-3.0, -4.0, 1.0, 2.0, 5.0]);
        assert!(rotate(Pairing::Halves, &mut head, &[[0.0; 2]; 3]).is_err());
    }
}
