//! A few rows of coefficients times a block's panels: the two products of attention.
//!
//! Coefficients of `Q` queries share each register of numbers that is loaded (and widened); with two registers of a
//! panel's row, `Q` up to six keeps all sums in sixteen registers.
#![forbid(unsafe_code)]

use core::ops::Range;

use super::layout::Numbers;
use super::{BLOCK, GROUP, PANEL};
use crate::simd::Isa;

/// How numbers of a panel become floats.
trait Element {
    /// What lies in the panel.
    type Raw: Copy + 'static;

    fn load<I: Isa>(isa: I, from: &[Self::Raw; 8]) -> I::Floats;
}

struct Single;
struct Half;
struct Brain;
struct Code;

impl Element for Single {
    type Raw = f32;

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[f32; 8]) -> I::Floats {
        isa.floats(from)
    }
}

impl Element for Half {
    type Raw = u16;

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[u16; 8]) -> I::Floats {
        isa.halves_of(from)
    }
}

impl Element for Brain {
    type Raw = u16;

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[u16; 8]) -> I::Floats {
        isa.brains(&bytemuck::cast(from.map(u16::to_le)))
    }
}

impl Element for Code {
    type Raw = i8;

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[i8; 8]) -> I::Floats {
        isa.code_floats(from)
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
}

/// Writes to `scores` those of `Q` queries, `[key_dim][Q]`, with the block's positions: where keys have scales, a chain for each
/// group, and a chain of those times their scales.
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
    for (half, panel) in panels.chunks_exact(rows * PANEL).enumerate() {
        let next = keys.next.wrapping_add(half * size_of_val(panel));
        let mut total = [[isa.splat(0.0); 2]; Q];
        match keys.scales {
            None => chain::<I, E, Q>(isa, &mut total, queries, panel.as_chunks().0, next),
            Some(scales) => {
                let groups = queries.chunks(GROUP).zip(panel.chunks(GROUP * PANEL));
                let groups = groups.zip(scales.as_chunks::<BLOCK>().0).enumerate();
                for (number, ((queries, panel), scales)) in groups {
                    let next = next.wrapping_add(number * GROUP * PANEL * size_of::<E::Raw>());
                    let mut group = [[isa.splat(0.0); 2]; Q];
                    chain::<I, E, Q>(isa, &mut group, queries, panel.as_chunks().0, next);
                    let scales = scales[half * PANEL..][..PANEL].as_chunks::<8>().0;
                    let scales = [isa.halves_of(&scales[0]), isa.halves_of(&scales[1])];
                    for (total, group) in total.iter_mut().zip(group) {
                        for r in 0..2 {
                            total[r] = isa.fma(scales[r], group[r], total[r]);
                        }
                    }
                }
            }
        }
        for (scores, total) in scores.iter_mut().zip(total) {
            let scores = scores[half * PANEL..][..PANEL].as_chunks_mut::<8>().0;
            isa.store(total[0], &mut scores[0]);
            isa.store(total[1], &mut scores[1]);
        }
    }
}

#[inline(always)]
fn chain<I: Isa, E: Element, const Q: usize>(
    isa: I,
    acc: &mut [[I::Floats; 2]; Q],
    coefficients: &[[f32; Q]],
    rows: &[[E::Raw; PANEL]],
    next: *const u8,
) {
    let mut sums = *acc;
    for (i, (coefficients, row)) in coefficients.iter().zip(rows).enumerate() {
        if size_of::<E::Raw>() < 4 {
            isa.prefetch(next, i * size_of_val(row));
        }
        multiply_row::<I, E, Q>(isa, &mut sums, |q| coefficients[q], row);
    }
    *acc = sums;
}

/// `acc[q] += coefficient(q) * row`
#[inline(always)]
fn multiply_row<I: Isa, E: Element, const Q: usize>(
    isa: I,
    acc: &mut [[I::Floats; 2]; Q],
    coefficient: impl Fn(usize) -> f32,
    row: &[E::Raw; PANEL],
) {
    let row = row.as_chunks::<8>().0;
    let row = [E::load(isa, &row[0]), E::load(isa, &row[1])];
    for (q, acc) in acc.iter_mut().enumerate() {
        let coefficient = isa.splat(coefficient(q));
        acc[0] = isa.fma(coefficient, row[0], acc[0]);
        acc[1] = isa.fma(coefficient, row[1], acc[1]);
    }
}

/// `results[q] = results[q] * corrections[q] + weights[q] * values` over the positions `seen`: a chain in order of the
/// positions. Where values have scales, the weights are multiplied with them first, into `scaled`.
#[inline(always)]
pub(super) fn values<I: Isa, const Q: usize>(
    isa: I,
    weights: &[[f32; BLOCK]; Q],
    corrections: &[f32; Q],
    seen: Range<usize>,
    values: &Matrix<'_>,
    scaled: &mut [[f32; BLOCK]; Q],
    results: &mut [f32],
) {
    match values.panels {
        Panels::F32(panels) => {
            values_of::<I, Single, Q>(isa, weights, corrections, seen, panels, values, scaled, results)
        }
        Panels::F16(panels) => {
            values_of::<I, Half, Q>(isa, weights, corrections, seen, panels, values, scaled, results)
        }
        Panels::Bf16(panels) => {
            values_of::<I, Brain, Q>(isa, weights, corrections, seen, panels, values, scaled, results)
        }
        Panels::I8(panels) => {
            values_of::<I, Code, Q>(isa, weights, corrections, seen, panels, values, scaled, results)
        }
    }
}

#[inline(always)]
fn values_of<I: Isa, E: Element, const Q: usize>(
    isa: I,
    weights: &[[f32; BLOCK]; Q],
    corrections: &[f32; Q],
    seen: Range<usize>,
    panels: &[E::Raw],
    values: &Matrix<'_>,
    scaled: &mut [[f32; BLOCK]; Q],
    results: &mut [f32],
) {
    let width = results.len() / Q;
    // Multiplying by one changes nothing.
    let rescale = corrections.iter().any(|&c| c != 1.0);
    for (number, panel) in panels.chunks_exact(BLOCK * PANEL).enumerate() {
        let next = values.next.wrapping_add(number * size_of_val(panel));
        if let (Some(scales), 0) = (values.scales, number % (GROUP / PANEL)) {
            let scales = &scales[number * PANEL / GROUP * BLOCK..][..BLOCK];
            for (scaled, weights) in scaled.iter_mut().zip(weights) {
                let weights = weights.as_chunks::<8>().0.iter().zip(scales.as_chunks::<8>().0);
                for (scaled, (weights, scales)) in scaled.as_chunks_mut::<8>().0.iter_mut().zip(weights) {
                    isa.store(isa.mul(isa.floats(weights), isa.halves_of(scales)), scaled);
                }
            }
        }
        let mut acc = [[isa.splat(0.0); 2]; Q];
        for (q, acc) in acc.iter_mut().enumerate() {
            let result = results[q * width + number * PANEL..][..PANEL].as_chunks::<8>().0;
            for r in 0..2 {
                acc[r] = isa.floats(&result[r]);
                if rescale {
                    acc[r] = isa.mul(acc[r], isa.splat(corrections[q]));
                }
            }
        }
        let rows = &panel.as_chunks::<PANEL>().0.as_chunks::<BLOCK>().0[0];
        let weights = if values.scales.is_some() { &*scaled } else { weights };
        // Cut once more, so that the compiler sees it.
        for j in seen.start..seen.end.min(BLOCK) {
            if size_of::<E::Raw>() < 4 {
                isa.prefetch(next, j * PANEL * size_of::<E::Raw>());
            }
            multiply_row::<I, E, Q>(isa, &mut acc, |q| weights[q][j], &rows[j]);
        }
        for (q, acc) in acc.iter().enumerate() {
            let result = results[q * width + number * PANEL..][..PANEL].as_chunks_mut::<8>().0;
            isa.store(acc[0], &mut result[0]);
            isa.store(acc[1], &mut result[1]);
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
        for (numbers, room) in numbers.as_chunks().0.iter().zip(room.as_chunks_mut().0) {
            isa.store(E::load(isa, numbers), room);
        }
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
