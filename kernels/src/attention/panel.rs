//! A few rows of coefficients times a block's panels: the two products of attention.
//!
//! Coefficients of `Q` queries share each register of numbers that is loaded (and widened). `Q` up to six keeps all sums in
//! registers: of sixteen, where two hold a panel's row; of thirty-two, where each holds one and panels come in pairs.
#![forbid(unsafe_code)]

use core::ops::Range;

use super::layout::Numbers;
use super::{BLOCK, GROUP, PANEL};
use crate::simd::Isa;

/// How numbers of a panel become floats.
trait Element {
    /// What lies in the panel.
    type Raw: Copy + 'static;

    fn load<I: Isa>(isa: I, from: &[Self::Raw; PANEL]) -> I::RowFloats;
}

struct Single;
struct Half;
struct Brain;
struct Code;

impl Element for Single {
    type Raw = f32;

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[f32; PANEL]) -> I::RowFloats {
        isa.row_floats(from)
    }
}

impl Element for Half {
    type Raw = u16;

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[u16; PANEL]) -> I::RowFloats {
        isa.row_halves(from)
    }
}

impl Element for Brain {
    type Raw = u16;

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[u16; PANEL]) -> I::RowFloats {
        isa.row_brains(from)
    }
}

impl Element for Code {
    type Raw = i8;

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[i8; PANEL]) -> I::RowFloats {
        isa.row_code_floats(from)
    }
}

/// Numbers as the loops read them.
#[derive(Clone, Copy)]
pub(super) enum Panels<'a> {
    F32(&'a [f32]),
    F16(&'a [u16]),
    Bf16(&'a [u16]),
    I8(&'a [i8]),
}

impl Panels<'_> {
    fn start(&self) -> *const u8 {
        match self {
            Panels::F32(numbers) => numbers.as_ptr().cast(),
            Panels::F16(numbers) | Panels::Bf16(numbers) => numbers.as_ptr().cast(),
            Panels::I8(numbers) => numbers.as_ptr().cast(),
        }
    }
}

/// One side of a block, ready to be multiplied.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub panels: Panels<'a>,
    /// `[groups][BLOCK]`; none where there are none.
    pub scales: Option<&'a [u16]>,
    /// Memory to fetch meanwhile: as much as the panels take.
    pub next: *const u8,
}

impl<'a> Matrix<'a> {
    /// The panels with nothing to fetch.
    pub fn new(panels: Panels<'a>, scales: Option<&'a [u16]>) -> Self {
        Matrix { panels, scales, next: panels.start() }
    }

    /// The same with nothing to fetch.
    pub fn fetching_nothing(self) -> Self {
        Matrix::new(self.panels, self.scales)
    }
}

/// Whether panels are multiplied two at a time: with few queries one alone would wait for its sums, and so it would with all
/// where a register holds a row of it.
const fn in_pairs<I: Isa>(queries: usize) -> bool {
    queries <= 2 || I::COLUMNS == 8
}

/// The sums of `Q` queries and `P` panels.
type Sums<I, const Q: usize, const P: usize> = [[<I as Isa>::RowFloats; P]; Q];

/// Writes to `scores` those of `Q` queries, `[key_dim][Q]`, with the block's positions: where keys have scales, a chain for
/// each group, and a chain of those times their scales.
#[inline(always)]
pub(super) fn scores<I: Isa, const Q: usize>(
    isa: I,
    queries: &[[f32; Q]],
    keys: &Matrix<'_>,
    rows: usize,
    scores: &mut [[f32; BLOCK]; Q],
) {
    match keys.panels {
        Panels::F32(panels) => scores_of::<I, Single, Q>(isa, queries, panels, keys, rows, scores),
        Panels::F16(panels) => scores_of::<I, Half, Q>(isa, queries, panels, keys, rows, scores),
        Panels::Bf16(panels) => scores_of::<I, Brain, Q>(isa, queries, panels, keys, rows, scores),
        Panels::I8(panels) => scores_of::<I, Code, Q>(isa, queries, panels, keys, rows, scores),
    }
}

#[inline(always)]
fn scores_of<I: Isa, E: Element, const Q: usize>(
    isa: I,
    queries: &[[f32; Q]],
    panels: &[E::Raw],
    keys: &Matrix<'_>,
    rows: usize,
    scores: &mut [[f32; BLOCK]; Q],
) {
    if in_pairs::<I>(Q) {
        let (low, high) = panels.split_at(rows * PANEL);
        scores_of_panels::<I, E, Q, 2>(isa, queries, [low, high], keys, 0, scores);
    } else {
        for (number, panel) in panels.chunks_exact(rows * PANEL).enumerate() {
            scores_of_panels::<I, E, Q, 1>(isa, queries, [panel], keys, number, scores);
        }
    }
}

/// As [`scores`], with the panels from the `first` on.
#[inline(always)]
fn scores_of_panels<I: Isa, E: Element, const Q: usize, const P: usize>(
    isa: I,
    queries: &[[f32; Q]],
    panels: [&[E::Raw]; P],
    keys: &Matrix<'_>,
    first: usize,
    scores: &mut [[f32; BLOCK]; Q],
) {
    let bytes = size_of_val(panels[0]);
    let mut next = [keys.next; P];
    let mut rows: [&[[E::Raw; PANEL]]; P] = [&[]; P];
    for p in 0..P {
        next[p] = keys.next.wrapping_add((first + p) * bytes);
        rows[p] = panels[p].as_chunks().0;
    }
    let mut total = [[isa.splat_row_floats(0.0); P]; Q];
    match keys.scales {
        None => chain::<I, E, Q, P>(isa, &mut total, queries, rows, 0, next),
        Some(scales) => {
            let groups = queries.chunks(GROUP).zip(scales.as_chunks::<BLOCK>().0);
            for (number, (queries, scales)) in groups.enumerate() {
                let mut group = [[isa.splat_row_floats(0.0); P]; Q];
                chain::<I, E, Q, P>(isa, &mut group, queries, rows, number * GROUP, next);
                for p in 0..P {
                    let scales = isa.row_halves(&scales.as_chunks().0[first + p]);
                    for q in 0..Q {
                        total[q][p] = isa.fma_row_floats(scales, group[q][p], total[q][p]);
                    }
                }
            }
        }
    }
    for (scores, total) in scores.iter_mut().zip(total) {
        for (scores, &total) in scores.as_chunks_mut().0[first..].iter_mut().zip(&total) {
            isa.store_row_floats(total, scores);
        }
    }
}

/// The rows from `from` on, one for each of the coefficients.
#[inline(always)]
fn chain<I: Isa, E: Element, const Q: usize, const P: usize>(
    isa: I,
    acc: &mut Sums<I, Q, P>,
    coefficients: &[[f32; Q]],
    mut rows: [&[[E::Raw; PANEL]]; P],
    from: usize,
    mut next: [*const u8; P],
) {
    let mut sums = *acc;
    for rows in &mut rows {
        *rows = &rows[from..from + coefficients.len()];
    }
    for next in &mut next {
        *next = next.wrapping_add(from * size_of::<[E::Raw; PANEL]>());
    }
    for (i, (coefficients, first)) in coefficients.iter().zip(rows[0]).enumerate() {
        let mut row = [first; P];
        for p in 0..P {
            if p > 0 {
                row[p] = &rows[p][i];
            }
            if size_of::<E::Raw>() < 4 {
                isa.prefetch(next[p], i * size_of::<[E::Raw; PANEL]>());
            }
        }
        multiply_row::<I, E, Q, P>(isa, &mut sums, |q| coefficients[q], row);
    }
    *acc = sums;
}

/// `acc[q][p] += coefficient(q) * rows[p]`
#[inline(always)]
fn multiply_row<I: Isa, E: Element, const Q: usize, const P: usize>(
    isa: I,
    acc: &mut Sums<I, Q, P>,
    coefficient: impl Fn(usize) -> f32,
    rows: [&[E::Raw; PANEL]; P],
) {
    let mut wide = [isa.splat_row_floats(0.0); P];
    for (wide, row) in wide.iter_mut().zip(rows) {
        *wide = E::load(isa, row);
    }
    for (q, acc) in acc.iter_mut().enumerate() {
        let coefficient = isa.splat_row_floats(coefficient(q));
        for (acc, row) in acc.iter_mut().zip(wide) {
            *acc = isa.fma_row_floats(coefficient, row, *acc);
        }
    }
}

/// What [`values`] adds up for `Q` queries.
pub(super) struct Weights<'a, const Q: usize> {
    pub weights: &'a [[f32; BLOCK]; Q],
    /// Factors of what was summed before.
    pub corrections: [f32; Q],
    /// The positions that all of them see.
    pub seen: Range<usize>,
    /// Room for the weights times the scales.
    pub scaled: &'a mut [[f32; BLOCK]; Q],
}

/// `results[q] = results[q] * corrections[q] + weights[q] * values` over the positions `seen`: a chain in order of the
/// positions. Where values have scales, the weights are multiplied with them first.
#[inline(always)]
pub(super) fn values<I: Isa, const Q: usize>(
    isa: I,
    weights: Weights<'_, Q>,
    values: &Matrix<'_>,
    results: &mut [f32],
) {
    match values.panels {
        Panels::F32(panels) => values_of::<I, Single, Q>(isa, weights, panels, values, results),
        Panels::F16(panels) => values_of::<I, Half, Q>(isa, weights, panels, values, results),
        Panels::Bf16(panels) => values_of::<I, Brain, Q>(isa, weights, panels, values, results),
        Panels::I8(panels) => values_of::<I, Code, Q>(isa, weights, panels, values, results),
    }
}

#[inline(always)]
fn values_of<I: Isa, E: Element, const Q: usize>(
    isa: I,
    mut weights: Weights<'_, Q>,
    panels: &[E::Raw],
    values: &Matrix<'_>,
    results: &mut [f32],
) {
    let mut panels = panels.chunks_exact(BLOCK * PANEL).enumerate();
    // Panels come in pairs of one group's columns; the last may be alone.
    while let Some((number, panel)) = panels.next() {
        if let (Some(scales), 0) = (values.scales, number % (GROUP / PANEL)) {
            let scales = &scales[number * PANEL / GROUP * BLOCK..][..BLOCK];
            for (scaled, weights) in weights.scaled.iter_mut().zip(weights.weights) {
                let weights = weights.as_chunks::<8>().0.iter().zip(scales.as_chunks::<8>().0);
                for (scaled, (weights, scales)) in scaled.as_chunks_mut::<8>().0.iter_mut().zip(weights) {
                    isa.store(isa.mul(isa.floats(weights), isa.halves_of(scales)), scaled);
                }
            }
        }
        let second = if in_pairs::<I>(Q) { panels.next() } else { None };
        match second {
            Some((_, second)) => {
                values_of_panels::<I, E, Q, 2>(isa, &mut weights, [panel, second], values, number, results);
            }
            None => values_of_panels::<I, E, Q, 1>(isa, &mut weights, [panel], values, number, results),
        }
    }
}

/// As [`values`], with the panels from the `first` on.
#[inline(always)]
fn values_of_panels<I: Isa, E: Element, const Q: usize, const P: usize>(
    isa: I,
    weights: &mut Weights<'_, Q>,
    panels: [&[E::Raw]; P],
    values: &Matrix<'_>,
    first: usize,
    results: &mut [f32],
) {
    let Weights { weights, corrections, seen, scaled } = weights;
    let weights = if values.scales.is_some() { &**scaled } else { *weights };
    let results = results.as_chunks_mut::<PANEL>().0;
    let width = results.len() / Q;
    // Multiplying by one changes nothing.
    let rescale = corrections.iter().any(|&c| c != 1.0);
    let mut acc = [[isa.splat_row_floats(0.0); P]; Q];
    for q in 0..Q {
        for p in 0..P {
            acc[q][p] = isa.row_floats(&results[q * width + first + p]);
        }
    }
    if rescale {
        for (acc, &correction) in acc.iter_mut().zip(corrections.iter()) {
            for acc in acc {
                *acc = isa.mul_row_floats(*acc, isa.splat_row_floats(correction));
            }
        }
    }
    let mut rows = [&panels[0].as_chunks::<PANEL>().0.as_chunks::<BLOCK>().0[0]; P];
    let mut next = [values.next; P];
    for p in 0..P {
        rows[p] = &panels[p].as_chunks::<PANEL>().0.as_chunks::<BLOCK>().0[0];
        next[p] = values.next.wrapping_add((first + p) * size_of_val(panels[p]));
    }
    // Cut once more, so that the compiler sees it.
    for j in seen.start..seen.end.min(BLOCK) {
        let mut row = [&rows[0][j]; P];
        for p in 0..P {
            row[p] = &rows[p][j];
            if size_of::<E::Raw>() < 4 {
                isa.prefetch(next[p], j * size_of::<[E::Raw; PANEL]>());
            }
        }
        multiply_row::<I, E, Q, P>(isa, &mut acc, |q| weights[q][j], row);
    }
    for q in 0..Q {
        for p in 0..P {
            isa.store_row_floats(acc[q][p], &mut results[q * width + first + p]);
        }
    }
}

/// The numbers as panels of single precision in `room`, codes without their scales; `next` is fetched meanwhile.
#[inline(always)]
pub(super) fn widen<'a, I: Isa>(
    isa: I,
    numbers: Numbers<'a>,
    next: *const u8,
    room: &'a mut [f32],
) -> Panels<'a> {
    match numbers {
        Numbers::F32(numbers) => return Panels::F32(numbers),
        Numbers::F16(numbers) => widen_of::<I, Half>(isa, numbers, next, room),
        Numbers::Bf16(numbers) => widen_of::<I, Brain>(isa, numbers, next, room),
        Numbers::Q8 { codes, .. } => widen_of::<I, Code>(isa, codes, next, room),
        Numbers::Q4 { codes, .. } => {
            for (i, (codes, room)) in codes.as_chunks().0.iter().zip(room.as_chunks_mut::<32>().0).enumerate()
            {
                isa.prefetch(next, i * 16);
                let bytes = nibble_codes(isa, codes);
                for (bytes, room) in bytes.as_chunks().0.iter().zip(room.as_chunks_mut().0) {
                    isa.store(isa.code_floats(bytes), room);
                }
            }
        }
    }
    Panels::F32(room)
}

#[inline(always)]
fn widen_of<I: Isa, E: Element>(isa: I, numbers: &[E::Raw], next: *const u8, room: &mut [f32]) {
    let numbers = numbers.as_chunks::<PANEL>().0;
    for (i, (numbers, room)) in numbers.iter().zip(room.as_chunks_mut::<PANEL>().0).enumerate() {
        isa.prefetch(next, i * size_of_val(numbers));
        isa.store_row_floats(E::load(isa, numbers), room);
    }
}

/// The numbers as panels that are read once or twice only: as they are, but 4-bit codes as bytes in `room`.
#[inline(always)]
pub(super) fn direct<'a, I: Isa>(
    isa: I,
    numbers: Numbers<'a>,
    next: *const u8,
    room: &'a mut [f32],
) -> Panels<'a> {
    match numbers {
        Numbers::F32(numbers) => Panels::F32(numbers),
        Numbers::F16(numbers) => Panels::F16(numbers),
        Numbers::Bf16(numbers) => Panels::Bf16(numbers),
        Numbers::Q8 { codes, .. } => Panels::I8(codes),
        Numbers::Q4 { codes, .. } => {
            let room: &mut [i8] = bytemuck::cast_slice_mut(room);
            for (i, (codes, room)) in codes.as_chunks().0.iter().zip(room.as_chunks_mut().0).enumerate() {
                isa.prefetch(next, i * 16);
                *room = nibble_codes(isa, codes);
            }
            Panels::I8(&room[..2 * codes.len()])
        }
    }
}

/// Two rows of 4-bit codes, -8 to 7.
#[inline(always)]
fn nibble_codes<I: Isa>(isa: I, codes: &[u8; 16]) -> [i8; 32] {
    let mut bytes = [0; 32];
    let minus_eight = isa.splat_byte(8_u8.wrapping_neg());
    isa.store_signed_bytes(isa.add_bytes(isa.nibbles(codes), minus_eight), &mut bytes);
    bytes
}
