//! Row and matrix products beside ggml's.
//!
//! Both quantize the activations to 8 bits, each in its own way, so that products differ by what that rounding
//! explains. Where the activations are whole numbers of which the largest in each block is 127, both quantize them
//! without loss: what is left is the order of a few float additions.

use gristmill::ggml::{self, Threads, Weights};
use gristmill_kernels::Output;
use gristmill_kernels::activations::{Columns, Layout, Room, quantize};
use gristmill_kernels::product::{form, multiply, scratch_len};
use gristmill_kernels::quant::{GgmlType, dequantize_row};
use gristmill_kernels::simd::Level;

use super::{COLS, ROWS, Random, quantized};

/// The types of which ggml has products.
fn types() -> impl Iterator<Item = GgmlType> {
    GgmlType::COMPUTABLE.iter().copied().filter(|&ty| ggml::partner(ty).is_some())
}

/// Activations that 8 bits hold exactly: integers, the largest of each 16 being 127.
fn whole_numbers(columns: usize, random: &mut Random) -> Vec<f32> {
    let mut x: Vec<f32> = (0..columns * COLS).map(|_| (random.unit() * 20.0).round()).collect();
    x.iter_mut().step_by(16).for_each(|x| *x = 127.0);
    x
}

/// Weights as both see them, and the exact products with `x`, each with the sum of its terms' magnitudes.
struct Case {
    ty: GgmlType,
    bytes: &'static [u8],
    exact: Vec<(f64, f64)>,
}

fn case(ty: GgmlType, x: &[f32]) -> Option<Case> {
    let bytes = quantized(ty)?;
    let mut weights = vec![0.0; ROWS * COLS];
    dequantize_row(ty, bytes, &mut weights).unwrap();
    let exact = x
        .chunks(COLS)
        .flat_map(|x| {
            weights
                .chunks(COLS)
                .map(move |row| sum(row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x))))
        })
        .collect();
    Some(Case { ty, bytes, exact })
}

fn sum(terms: impl Iterator<Item = f64>) -> (f64, f64) {
    terms.fold((0.0, 0.0), |(sum, magnitude), term| (sum + term, magnitude + term.abs()))
}

/// Fails where a product is farther from the exact one than `relative` times the sum of its terms' magnitudes.
fn check(case: &Case, products: &[f32], relative: f64, what: &str) {
    assert_eq!(products.len(), case.exact.len());
    for (i, (&found, &(exact, magnitude))) in products.iter().zip(&case.exact).enumerate() {
        let off = (f64::from(found) - exact).abs();
        assert!(
            off <= relative * magnitude,
            "{}, {what}: product {i} is {found}, exactly {exact}: {off:e} off, of terms that sum to {magnitude}",
            case.ty,
        );
    }
}

/// Room for the rounding of float additions: some 32 of them one behind the other, half a unit each, and for bf16
/// products whose unit sums lose a little more.
const ORDER_OF_ADDITIONS: f64 = 32.0 * f32::EPSILON as f64;

#[test]
fn ggml_has_products_for_every_format_but_these() {
    let without: Vec<_> =
        GgmlType::COMPUTABLE.iter().copied().filter(|&ty| ggml::partner(ty).is_none()).collect();
    use GgmlType::*;
    let mut expected = vec![F64, I8, I16, I32, I64, Q8_1, Q8_K];
    expected.retain(|ty| ty.is_computable());
    assert_eq!(without.len(), expected.len(), "{without:?}");
    assert!(expected.iter().all(|ty| without.contains(ty)), "{without:?}");
}

#[test]
fn ggml_row_products_of_whole_numbers_are_exact_but_for_the_order_of_additions() {
    let mut random = Random(31);
    let x = whole_numbers(1, &mut random);
    let mut count = 0;
    for ty in types() {
        let Some(case) = case(ty, &x) else { continue };
        let activations = ggml::quantize_activations(ggml::partner(ty).unwrap(), &x).unwrap();
        let products: Vec<f32> = case
            .bytes
            .chunks(ty.row_bytes(COLS).unwrap())
            .map(|row| ggml::dot(ty, COLS, row, &activations).unwrap())
            .collect();
        check(&case, &products, ORDER_OF_ADDITIONS, "row product");
        count += 1;
    }
    assert!(count > 20, "{count} types");
}

#[test]
fn ggml_matrix_products_agree_for_any_layout_and_number_of_columns_and_threads() {
    let mut random = Random(32);
    let mut pools = [1, 2].map(|count| Threads::new(count).unwrap());
    let mut repacked = Vec::new();
    for columns in [1, 2, 5, 32] {
        let x = whole_numbers(columns, &mut random);
        for ty in types() {
            let Some(case) = case(ty, &x) else { continue };
            let mut layouts = vec![Weights::new(ty, ROWS, COLS, case.bytes).unwrap()];
            if let Some(weights) = Weights::repacked(ty, ROWS, COLS, case.bytes).unwrap() {
                layouts.push(weights);
                repacked.push(ty);
            }
            for (weights, layout) in layouts.iter().zip(["in place", "repacked"]) {
                for (pool, threads) in pools.iter_mut().zip(["1 thread", "2 threads"]) {
                    let mut out = vec![f32::NAN; columns * ROWS];
                    pool.mul_mat(weights, &x, &mut out).unwrap();
                    check(
                        &case,
                        &out,
                        ORDER_OF_ADDITIONS,
                        &format!("{columns} columns, {layout}, {threads}"),
                    );
                }
            }
        }
    }
    repacked.dedup();
    println!("repacked by ggml on this processor: {repacked:?}");
}

#[test]
fn products_of_other_shapes_are_refused() {
    let mut pool = Threads::new(1).unwrap();
    let bytes = vec![0; 2 * 18];
    let weights = Weights::new(GgmlType::Q4_0, 2, 32, &bytes).unwrap();
    assert!(pool.mul_mat(&weights, &[0.0; 33], &mut [0.0; 2]).is_err());
    assert!(pool.mul_mat(&weights, &[0.0; 32], &mut [0.0; 3]).is_err());
    assert!(pool.mul_mat(&weights, &[0.0; 32], &mut [1.0; 2]).is_ok());
    assert!(Weights::new(GgmlType::Q4_0, 3, 32, &bytes).is_err());
    assert!(Weights::new(GgmlType::Q4_0, 2, 0, &[]).is_err());
    assert!(Weights::new(GgmlType::Q8_K, 1, 256, &[0; 292]).is_err());
    assert!(Threads::new(0).is_err());
}

/// Our product of a case's weights and `x`.
fn ours(level: Level, case: &Case, x: &[f32]) -> Vec<f32> {
    let layout = Layout::new(level, form(case.ty).unwrap(), COLS, x.len() / COLS).unwrap();
    let [n_codes, n_scales, n_sums] = layout.total_lens();
    let (mut codes, mut scales, mut sums) = (vec![0; n_codes], vec![0.0; n_scales], vec![0; n_sums]);
    let mut room = Room { codes: &mut codes, scales: &mut scales, sums: &mut sums };
    for part in layout.parts(x, &mut room) {
        quantize(level, layout, part).unwrap();
    }
    let columns = Columns::quantized(layout, &codes, &scales, &sums);
    let mut out = vec![f32::NAN; x.len() / COLS * ROWS];
    let mut scratch = vec![0.0; scratch_len(x.len() / COLS)];
    let output = Output::new(&mut out, ROWS).unwrap();
    multiply(level, case.ty, case.bytes, columns.unwrap(), &mut scratch, output).unwrap();
    out
}

#[test]
fn our_products_of_whole_numbers_are_exact_but_for_the_order_of_additions() {
    let mut random = Random(33);
    let mut count = 0;
    for columns in [1, 2, 5, 32] {
        let x = whole_numbers(columns, &mut random);
        for ty in types() {
            let Some(case) = case(ty, &x) else { continue };
            for level in Level::available() {
                let products = ours(level, &case, &x);
                check(
                    &case,
                    &products,
                    ORDER_OF_ADDITIONS,
                    &format!("{columns} columns at {}", level.name()),
                );
            }
            count += 1;
        }
    }
    assert!(count > 4 * 20, "{count} cases");
}

#[test]
fn our_products_of_any_activations_differ_from_ggmls_by_what_rounding_them_explains() {
    let mut random = Random(34);
    let mut pool = Threads::new(1).unwrap();
    for columns in [1, 7] {
        let x: Vec<f32> = (0..columns * COLS).map(|_| random.normal()).collect();
        for ty in types() {
            let Some(case) = case(ty, &x) else { continue };
            let mut theirs = vec![f32::NAN; columns * ROWS];
            pool.mul_mat(&Weights::new(ty, ROWS, COLS, case.bytes).unwrap(), &x, &mut theirs).unwrap();
            let ours = ours(Level::detect(), &case, &x);
            let our_block = Some(form(ty).unwrap().block_len()).filter(|&len| len > 1);
            // What ggml rounds: blocks of codes with a scale of 16 bits, superblocks of codes, or 16-bit floats.
            let (their_block, rounding) = match ggml::partner(ty).unwrap() {
                GgmlType::Q8_0 | GgmlType::Q8_1 => (Some(32), 1.0 / 2048.0),
                GgmlType::Q8_K => (Some(256), 0.0),
                GgmlType::F16 => (None, 1.0 / 2048.0),
                GgmlType::BF16 => (None, 1.0 / 256.0),
                GgmlType::F32 => (None, 0.0),
                other => panic!("{ty}: an unknown partner {other}"),
            };

            let mut weights = vec![0.0; ROWS * COLS];
            dequantize_row(ty, case.bytes, &mut weights).unwrap();
            for (i, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                let row = &weights[i % ROWS * COLS..][..COLS];
                let x = &x[i / ROWS * COLS..][..COLS];
                let variance = code_variance(row, x, our_block) + code_variance(row, x, their_block);
                let off = f64::from((ours - theirs).abs());
                let allowed = 8.0 * variance.sqrt() + (rounding + ORDER_OF_ADDITIONS) * case.exact[i].1;
                assert!(off <= allowed, "{ty}: {ours}, ggml {theirs}: {off:e} apart, {allowed:e} explained");
            }
        }
    }
}

/// The variance that a product owes to rounding its activations to 8 bits in blocks of `block`: each is off by up to
/// half a step, evenly, which is a variance of a twelfth of the step's square.
fn code_variance(row: &[f32], x: &[f32], block: Option<usize>) -> f64 {
    let Some(block) = block else { return 0.0 };
    let of_block = |(row, x): (&[f32], &[f32])| {
        let step = f64::from(x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()))) / 127.0;
        row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>() * step.powi(2) / 12.0
    };
    row.chunks(block).zip(x.chunks(block)).map(of_block).sum()
}
