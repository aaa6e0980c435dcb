//! The grids of the IQ formats, searched for the point nearest to some weights.
//!
//! Weights are rounded to levels first. Where those levels are a point of the grid, it is taken; where they are not, the
//! points that lie nearest to them are compared one by one. Which those are is worked out once, when an encoder is made.

use alloc::vec::Vec;

use super::Failed;
use crate::quant::GgmlType;
use crate::quant::grids;

/// A grid of points of `DIM` coordinates, and what lies nearest to each combination of levels.
pub(super) struct Grid<const DIM: usize> {
    /// The points' levels.
    points: Vec<[u8; DIM]>,
    /// For each combination of levels: the point's index, or -1 - (where its neighbours begin).
    map: Vec<i32>,
    /// Runs of indices, each behind its length.
    neighbours: Vec<u16>,
}

/// The grid that a type's encoder needs.
pub(super) enum Points {
    None,
    Eight(Grid<8>),
    Four(Grid<4>),
}

impl Points {
    /// The grid of this type; [`Points::None`] where it has none.
    pub(super) fn of(ty: GgmlType) -> Self {
        use GgmlType::*;
        match ty {
            IQ2_XXS => Self::Eight(Grid::new(&grids::IQ2_XXS, 3, 2)),
            IQ2_XS => Self::Eight(Grid::new(&grids::IQ2_XS, 3, 2)),
            IQ2_S => Self::Eight(Grid::new(&grids::IQ2_S, 3, 1)),
            IQ1_S | IQ1_M => Self::Eight(Grid::new(&grids::IQ1, 3, 3)),
            IQ3_XXS => Self::Four(Grid::new(&grids::IQ3_XXS, 8, 2)),
            IQ3_S => Self::Four(Grid::new(&grids::IQ3_S, 8, 3)),
            _ => Self::None,
        }
    }

    pub(super) fn eight(&self) -> Result<&Grid<8>, Failed> {
        if let Self::Eight(grid) = self { Ok(grid) } else { Err(Failed) }
    }

    pub(super) fn four(&self) -> Result<&Grid<4>, Failed> {
        if let Self::Four(grid) = self { Ok(grid) } else { Err(Failed) }
    }
}

impl<const DIM: usize> Grid<DIM> {
    /// Bits of a level in the number of a combination.
    const BITS: usize = 16 / DIM - (DIM == 4) as usize;

    /// Of each combination off the grid, the neighbours are all points at the `distances` smallest distances.
    fn new(grid: &[[i8; DIM]], levels: u8, distances: usize) -> Self {
        // The coordinates' values, in rising order, are the levels.
        let mut values: Vec<i8> = grid.as_flattened().to_vec();
        values.sort_unstable();
        values.dedup();
        let level = |value: &i8| values.iter().position(|other| other == value).unwrap_or(0) as u8;
        let points: Vec<[u8; DIM]> = grid.iter().map(|point| point.each_ref().map(level)).collect();

        let mut map = alloc::vec![i32::MIN; 1 << (Self::BITS * DIM)];
        for (index, point) in points.iter().enumerate() {
            map[Self::number(point)] = index as i32;
        }
        let mut neighbours = Vec::new();
        let mut at = Vec::new();
        let mut combination = [0; DIM];
        loop {
            let number = Self::number(&combination);
            if map[number] < 0 {
                map[number] = -1 - neighbours.len() as i32;
                at.clear();
                at.extend(points.iter().map(|point| distance(point, &combination)));
                let begin = neighbours.len();
                neighbours.push(0);
                let mut nearest = 0;
                for _ in 0..distances {
                    // The next larger distance; each run is in the order of the points.
                    let Some(next) = at.iter().copied().filter(|&d| d > nearest).min() else { break };
                    nearest = next;
                    let run = at.iter().enumerate().filter(|&(_, &d)| d == nearest);
                    neighbours.extend(run.map(|(index, _)| index as u16));
                }
                neighbours[begin] = (neighbours.len() - begin - 1) as u16;
            }
            // The next combination, the first coordinate fastest.
            let mut i = 0;
            while i < DIM && combination[i] + 1 == levels {
                combination[i] = 0;
                i += 1;
            }
            if i == DIM {
                break;
            }
            combination[i] += 1;
        }
        Self { points, map, neighbours }
    }

    /// The number of a combination of levels.
    #[inline(always)]
    fn number(levels: &[u8; DIM]) -> usize {
        let mut number = 0;
        for i in 0..DIM {
            number |= usize::from(levels[i]) << (Self::BITS * i);
        }
        number
    }

    /// The levels of a point.
    #[inline(always)]
    pub(super) fn point(&self, index: u16) -> &[u8; DIM] {
        &self.points[usize::from(index)]
    }

    /// The point of these levels, or else the points nearest to them.
    #[inline(always)]
    pub(super) fn find(&self, levels: &[u8; DIM]) -> Result<u16, &[u16]> {
        let at = self.map[Self::number(levels)];
        if at >= 0 {
            return Ok(at as u16);
        }
        let begin = (-1 - at) as usize;
        let count = usize::from(self.neighbours[begin]);
        Err(&self.neighbours[begin + 1..begin + 1 + count])
    }

    /// Of these points the first whose error is least, by what each level of each coordinate costs.
    #[inline(always)]
    pub(super) fn cheapest<const LEVELS: usize>(
        &self,
        neighbours: &[u16],
        costs: &[[f32; LEVELS]; DIM],
    ) -> Result<u16, Failed> {
        let (mut least, mut found) = (f32::MAX, None);
        for &index in neighbours {
            let point = self.point(index);
            let mut error = 0.0;
            for i in 0..DIM {
                error += costs[i][usize::from(point[i]) % LEVELS];
            }
            if error < least {
                (least, found) = (error, Some(index));
            }
        }
        found.ok_or(Failed)
    }
}

#[inline(always)]
fn distance<const DIM: usize>(a: &[u8; DIM], b: &[u8; DIM]) -> u32 {
    let mut sum = 0;
    for i in 0..DIM {
        let diff = i32::from(a[i]) - i32::from(b[i]);
        sum += (diff * diff) as u32;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_the_nearest_points() {
        let grid = Grid::new(&grids::IQ3_S, 8, 3);
        let Err(neighbours) = grid.find(&[0, 0, 0, 3]) else { panic!("on the grid") };
        let distances: Vec<_> =
            neighbours.iter().map(|&index| distance(grid.point(index), &[0, 0, 0, 3])).collect();
        assert!(distances.is_sorted(), "{distances:?}");
        let mut distinct = distances.clone();
        distinct.dedup();
        assert_eq!(distinct.len(), 3);
        // None is left out.
        let within = grid.points.iter().filter(|point| distance(point, &[0, 0, 0, 3]) <= distinct[2]).count();
        assert_eq!(within, neighbours.len());
    }

    #[test]
    fn each_point_is_found_where_it_lies() {
        let grid = Grid::new(&grids::IQ2_XS, 3, 2);
        for (index, point) in grid.points.iter().enumerate() {
            assert_eq!(grid.find(point), Ok(index as u16));
        }
    }
}
