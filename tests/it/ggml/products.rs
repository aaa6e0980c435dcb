//! Row and matrix products beside ggml's.
//!
//! Both quantize the activations to 8 bits, each in its own way, so that products differ by what that rounding
//! explains. Where the activations are whole numbers of which the largest in each block is 127, both quantize them
//! without loss: what is left is the order of a few float additions.

use gristmill::ggml::{self, Threads, Weights};
use gristmill_kernels::quant::{GgmlType, dequantize_row};

use super::{Random, quantized};

const ROWS: usize = 48;
const COLS: usize = 1024;

/// The types of which ggml has products.
fn types() -> impl Iterator<Item = GgmlType> {
    GgmlType::COMPUTABLE.iter().copied().filter(|&ty| ggml::partner(ty).is_some())
}

/// Activations that 8 bits hold exactly: integers, the largest of each 32 being 127.
fn whole_numbers(columns: usize, random: &mut Random) -> Vec<f32> {
    let mut x: Vec<f32> = (0..columns * COLS).map(|_| (random.unit() * 20.0).round()).collect();
    x.iter_mut().step_by(32).for_each(|x| *x = 127.0);
    x
}

/// Weights as both see them, and the exact products with `x`, each with the sum of its terms' magnitudes.
struct Case {
    ty: GgmlType,
    bytes: Vec<u8>,
    exact: Vec<(f64, f64)>,
}

fn case(ty: GgmlType, x: &[f32], random: &mut Random) -> Option<Case> {
    let bytes = quantized(ty, ROWS, COLS, random)?;
    let mut weights = vec![0.0; ROWS * COLS];
    dequantize_row(ty, &bytes, &mut weights).unwrap();
    let exact = x
        .chunks(COLS)
        .flat_map(|x| {
            weights.chunks(COLS).map(|row| sum(row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x))))
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
        let Some(case) = case(ty, &x, &mut random) else { continue };
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
            let Some(case) = case(ty, &x, &mut random) else { continue };
            let mut layouts = vec![Weights::new(ty, ROWS, COLS, &case.bytes).unwrap()];
            if let Some(weights) = Weights::repacked(ty, ROWS, COLS, &case.bytes).unwrap() {
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
