//! Every format, at every level, at sizes around each edge: the bits are those of the scalar level, row by row; and
//! they are right, against a sum in double precision.

use super::*;
use crate::activations::{Layout, Room, quantize};
use crate::rows::TOGETHER;

/// A small generator of numbers (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Roughly normal, with mean 0 and deviation 1.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32).sum::<f32>() - 6.0
    }
}

/// Random blocks whose scales are tame: bytes are random, but no weight is infinite, NaN or huge.
fn weights(ty: GgmlType, count: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut weights = vec![0.0; ty.block_len()];
    while bytes.len() < count / ty.block_len() * ty.block_bytes() {
        let mut block: Vec<u8> = (0..ty.block_bytes()).map(|_| random.next() as u8).collect();
        match ty {
            // Of random bytes, few would be tame.
            GgmlType::F64 => block.copy_from_slice(&f64::from(random.normal()).to_le_bytes()),
            GgmlType::I32 | GgmlType::I64 => block[1..].fill(0),
            _ => (),
        }
        quant::dequantize_row(ty, &block, &mut weights).unwrap();
        if weights.iter().all(|w| w.abs() < 4e4) {
            bytes.extend(block);
        }
    }
    bytes
}

struct Activations {
    level: Level,
    form: Form,
    len: usize,
    floats: Vec<f32>,
    codes: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
}

impl Activations {
    fn new(level: Level, form: Form, len: usize, floats: Vec<f32>) -> Self {
        let (mut codes, mut scales, mut sums) = (vec![], vec![], vec![]);
        let layout = Layout::new(level, form, len, floats.len() / len).unwrap();
        let [n_codes, n_scales, n_sums] = layout.total_lens();
        codes.resize(n_codes, 1);
        scales.resize(n_scales, f32::NAN);
        sums.resize(n_sums, 1);
        let mut room = Room { codes: &mut codes, scales: &mut scales, sums: &mut sums };
        for part in layout.parts(&floats, &mut room) {
            quantize(level, layout, part).unwrap();
        }
        Activations { level, form, len, floats, codes, scales, sums }
    }

    fn columns(&self) -> Columns<'_> {
        let layout = Layout::new(self.level, self.form, self.len, self.floats.len() / self.len).unwrap();
        Columns::quantized(layout, &self.codes, &self.scales, &self.sums).unwrap()
    }

    /// What the product of few columns really multiplies: codes times scales.
    fn dequantized(&self) -> Vec<f32> {
        match self.form {
            Form::Floats => self.floats.clone(),
            form => {
                let scale = |i: usize| self.scales[i / form.block_len()];
                // Where a scale serves 32, the sixteens of parts 0 and 4, 1 and 5 and so on lie together; crossed, those of neighbours;
                // where it serves 16, eights with the even ones first.
                let place = |i: usize| match form {
                    Form::Scaled => {
                        i / 256 * 256 + i / 32 % 4 * 64 + i / 16 % 2 * 32 + i / 128 % 2 * 16 + i % 16
                    }
                    Form::Crossed => i / 64 * 64 + i / 16 % 2 * 32 + i / 32 % 2 * 16 + i % 16,
                    Form::Sixteens => i / 64 * 64 + i / 16 % 4 * 8 + i / 8 % 2 * 32 + i % 8,
                    _ => i,
                };
                let starts = (0..self.codes.len()).step_by(self.len.next_multiple_of(256));
                let columns = starts.flat_map(|start| start..start + self.len);
                columns.map(|i| f32::from(self.codes[place(i)]) * scale(i)).collect()
            }
        }
    }
}

fn product(level: Level, ty: GgmlType, weights: &[u8], rows: usize, x: Columns<'_>) -> Vec<f32> {
    product_by_turns(level, level.streams(), ty, weights, rows, x)
}

fn product_by_turns(
    level: Level,
    streams: usize,
    ty: GgmlType,
    weights: &[u8],
    rows: usize,
    x: Columns<'_>,
) -> Vec<f32> {
    let mut out = vec![f32::NAN; rows * x.count()];
    let mut scratch = vec![f32::NAN; scratch_len(x.count())];
    let output = Output::new(&mut out, rows).unwrap();
    multiply_by_turns(level, streams, ty, weights, x, &mut scratch, output).unwrap();
    out
}

/// Bits, with all NaNs alike.
fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// What is laid beside the scalar level.
fn levels() -> impl Iterator<Item = Level> {
    Level::available().chain([Level::SCALAR_MATRICES])
}

fn lengths(ty: GgmlType) -> Vec<usize> {
    let step = form(ty).unwrap().block_len().max(ty.block_len());
    let mut lengths: Vec<usize> = [1, 2, 3, 8, 9].iter().map(|n| n * step).collect();
    if step == 1 {
        lengths.extend([31, 32, 33, 255, 256, 257, 300, 1300]);
    } else if step < 256 {
        lengths.extend([7 * step, 15 * step, 17 * step, 41 * step, 67 * step]);
    }
    lengths
}

#[test]
fn every_level_batch_and_panel_gives_the_scalar_bits() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut failures = Vec::new();
    for &ty in GgmlType::COMPUTABLE {
        for len in lengths(ty) {
            let mut sizes = vec![(1, 1), (3, 2), (16, 3), (3, 9), (17, 12), (33, 31), (18, 49)];
            // Several turns of rows for any number of streams, and rows left over.
            sizes.push((TOGETHER * PASSES + 7, 1));
            if form(ty) == Some(Form::Floats) {
                sizes.push((gemm_floats::ROWS + 7, 10));
            } else {
                sizes.push((PANELS * ROWS + 17, 13));
            }
            for (rows, count) in sizes {
                let weights = weights(ty, rows * len, &mut random);
                let floats: Vec<f32> = (0..count * len).map(|_| random.normal()).collect();
                let x = Activations::new(Level::SCALAR, form(ty).unwrap(), len, floats);
                let mut expected = Vec::new();
                for floats in x.floats.chunks(len) {
                    let column = Activations::new(Level::SCALAR, x.form, len, floats.to_vec());
                    expected.extend(product(Level::SCALAR, ty, &weights, rows, column.columns()));
                }
                for level in levels() {
                    let x = Activations::new(level, x.form, len, x.floats.clone());
                    for streams in if count < PANEL_COLUMNS { 1..=TOGETHER } else { 1..=1 } {
                        let found = product_by_turns(level, streams, ty, &weights, rows, x.columns());
                        if bits(&found) != bits(&expected) {
                            failures.push(format!(
                                "{ty} {level}: {rows} rows of {len} ({streams} by turns) times {count} columns"
                            ));
                        }
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "differ from the scalar level:\n{}", failures.join("\n"));
}

#[test]
fn products_are_right_to_rounding() {
    let mut random = Random(42);
    let mut failures = Vec::new();
    for &ty in GgmlType::COMPUTABLE {
        for len in lengths(ty) {
            let rows = 5;
            let weights = weights(ty, rows * len, &mut random);
            let floats: Vec<f32> = (0..len).map(|_| random.normal()).collect();
            let x = Activations::new(Level::detect(), form(ty).unwrap(), len, floats);
            let found = product(Level::detect(), ty, &weights, rows, x.columns());
            let mut w = vec![0.0; rows * len];
            quant::dequantize_row(ty, &weights, &mut w).unwrap();
            for (row, (w, found)) in w.chunks(len).zip(found).enumerate() {
                let terms = || w.iter().zip(x.dequantized()).map(|(&w, x)| f64::from(w) * f64::from(x));
                let (expected, magnitude) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
                // A minimum's terms are larger than the weights', so the bound speaks of the largest weight.
                let largest = f64::from(w.iter().fold(0.0_f32, |m, w| m.max(w.abs())));
                let bound = 1e-6 * (magnitude + largest * len as f64);
                if (f64::from(found) - expected).abs() > bound {
                    failures.push(format!("{ty}, row {row} of {len}: {found} for {expected} +- {bound}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "wrong:\n{}", failures.join("\n"));
}

#[test]
fn hostile_blocks_give_the_same_bits_at_every_level() {
    let mut failures = Vec::new();
    for &ty in GgmlType::COMPUTABLE {
        let len = 512;
        for byte in [0x00, 0xFF, 0x7F, 0x80, 0x01, 0x7C] {
            let weights = vec![byte; ty.row_bytes(len).unwrap() * 3];
            for value in [0.0, 1.0, -1e-40, 3e38, f32::INFINITY, f32::NAN] {
                let mut floats: Vec<f32> = (0..2 * len).map(|i| (i % 7) as f32 - 3.0).collect();
                floats[len / 2] = value;
                let x = |level| Activations::new(level, form(ty).unwrap(), len, floats.clone());
                let expected = product(Level::SCALAR, ty, &weights, 3, x(Level::SCALAR).columns());
                for level in levels() {
                    if bits(&product(level, ty, &weights, 3, x(level).columns())) != bits(&expected) {
                        failures.push(format!("{ty} {level}: bytes {byte:#x}, activation {value}"));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "differ from the scalar level:\n{}", failures.join("\n"));
}

#[test]
fn the_largest_codes_and_activations_overflow_nowhere() {
    let mut random = Random(11);
    let mut failures = Vec::new();
    for &ty in GgmlType::COMPUTABLE {
        let len = ty.block_len().max(256);
        let bytes = ty.row_bytes(len).unwrap();
        let filled = (0..=u8::MAX).map(|fill| vec![fill; bytes]);
        let random: Vec<Vec<u8>> = (0..64).map(|_| weights(ty, len, &mut random)).collect();
        for (i, weights) in filled.chain(random).enumerate() {
            let mut w = vec![0.0; len];
            quant::dequantize_row(ty, &weights, &mut w).unwrap();
            // Activation codes of 127 and -127 only, also each of its weight's sign.
            let agreeing = w.iter().map(|&w| if w < 0.0 { -1.0 } else { 1.0 });
            let floats: Vec<f32> = (0..2 * len)
                .map(|i| if i < len { 1.0 } else { -1.0 })
                .chain(agreeing.clone())
                .chain(agreeing.map(|x| -x))
                .collect();
            let mut expected = vec![];
            for floats in floats.chunks(len) {
                let x = Activations::new(Level::SCALAR, form(ty).unwrap(), len, floats.to_vec());
                expected.extend(product(Level::SCALAR, ty, &weights, 1, x.columns()));
            }
            let limit = 1e-5 * w.iter().map(|w| f64::from(w.abs())).fold(0.0, f64::max) * len as f64;
            let exact = floats
                .chunks(len)
                .map(|x| x.iter().zip(&w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum::<f64>());
            for (exact, &found) in exact.zip(&expected) {
                let far = (f64::from(found) - exact).abs() > limit;
                // Where minimums cancel all weights, what is left is rounding.
                if limit > 0.0 && limit < 1e30 && found.is_finite() && far {
                    failures.push(format!("{ty}, pattern {i}: {found} for {exact}"));
                }
            }
            for level in levels() {
                // Row by row; and some, the outermost bytes among them, as panels.
                let both: &[_] = if matches!(i % 16, 0 | 15) { &[1, 4] } else { &[1] };
                for &copies in both {
                    let x = Activations::new(level, form(ty).unwrap(), len, floats.repeat(copies));
                    if bits(&product(level, ty, &weights, 1, x.columns())) != bits(&expected.repeat(copies)) {
                        failures.push(format!("{ty} {level}: pattern {i}, {copies} times"));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "wrong:\n{}", failures.join("\n"));
}

#[test]
fn a_nan_among_the_activations_reaches_every_result() {
    for &ty in GgmlType::COMPUTABLE {
        let len = 512;
        let mut floats = vec![1.0; len];
        floats[100] = f32::NAN;
        let x = Activations::new(Level::detect(), form(ty).unwrap(), len, floats);
        let weights = weights(ty, 2 * len, &mut Random(7));
        let out = product(Level::detect(), ty, &weights, 2, x.columns());
        assert!(out.iter().all(|x| x.is_nan()), "{ty}: {out:?}");
    }
}

#[test]
fn columns_laid_out_for_another_level_give_the_same_bits_or_are_refused() {
    let (ty, len, columns) = (GgmlType::Q6_K, 256, PANEL_COLUMNS + 1);
    let mut random = Random(23);
    let floats: Vec<f32> = (0..columns * len).map(|_| random.normal()).collect();
    let weights = weights(ty, len, &mut random);
    let x = |level| Activations::new(level, form(ty).unwrap(), len, floats.clone());
    let expected = bits(&product(Level::SCALAR, ty, &weights, 1, x(Level::SCALAR).columns()));
    for of in levels() {
        for on in levels() {
            let x = x(of);
            let (mut out, mut scratch) = (vec![0.0; columns], vec![0.0; scratch_len(columns)]);
            let results = Output::new(&mut out, 1).unwrap();
            match multiply(on, ty, &weights, x.columns(), &mut scratch, results) {
                Ok(()) => assert_eq!(bits(&out), expected, "of {of} on {on}"),
                Err(refused) => {
                    assert_eq!(refused.what, "columns in the form of the weights", "of {of} on {on}")
                }
            }
            assert!(x.columns().suit(of), "{of}");
        }
    }
}

#[test]
fn lengths_that_do_not_belong_together_are_refused() {
    let x = |columns: usize| Activations::new(Level::SCALAR, Form::Floats, 64, vec![0.0; 64 * columns]);
    let (one, two) = (x(1), x(2));
    let columns = one.columns();
    let call = |ty, weights: &[u8], columns: Columns<'_>| {
        let mut out = vec![0.0; 2 * if columns.count() > 2 { columns.count() } else { 1 }];
        multiply(Level::SCALAR, ty, weights, columns, &mut [], Output::new(&mut out, 2).unwrap())
            .unwrap_err()
            .what
    };
    assert_eq!(call(GgmlType::F32, &[0; 511], columns), "bytes of whole rows");
    assert_eq!(call(GgmlType::Q4_0, &[0; 72], columns), "columns in the form of the weights");
    assert_eq!(call(GgmlType::Q4_K, &[0; 72], columns), "weights of whole blocks");
    assert_eq!(call(GgmlType::F32, &[0; 512], columns), "floats of scratch");
    // Columns as a matrix unit takes them, for a level that has none.
    let many = Activations::new(Level::SCALAR_MATRICES, Form::Scaled, 32, vec![0.0; 32 * PANEL_COLUMNS]);
    assert_eq!(call(GgmlType::Q4_0, &[0; 36], many.columns()), "columns in the form of the weights");
    assert_eq!(call(GgmlType::F32, &[0; 512], two.columns()), "columns of results");
    assert!(Layout::new(Level::SCALAR, Form::Floats, 0, 1).is_err());
    assert!(Layout::new(Level::SCALAR, Form::Superblocks, 64, 1).is_err());
    let layout = Layout::new(Level::SCALAR, Form::Scaled, 64, 1).unwrap();
    assert!(Columns::quantized(layout, &[0; 64], &[], &[]).is_err());
}
