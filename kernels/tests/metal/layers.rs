//! Everything between products and attention.

use gristmill_kernels::activation::Activation;
use gristmill_kernels::metal::launch::{self, Launch, Map, With};
use gristmill_kernels::rope::{Pairing, rotate};

use crate::device;
use crate::emulator::{Buffer, Emulator};
use crate::numbers::{ROUNDING, Random};

/// Runs a kernel that changes its first buffer in place.
fn in_place(device: &mut Emulator, launch: &Launch, x: &[f32], other: &[f32]) -> Vec<f32> {
    let buffer = device.floats(x);
    let mut buffers = vec![buffer];
    if !other.is_empty() {
        buffers.push(device.floats(other));
    }
    device.run(launch, &buffers);
    device.read(buffer, x.len())
}

fn check(found: &[f32], expected: impl IntoIterator<Item = (f64, f64)>, what: &str) {
    let mut count = 0;
    for (i, (&found, (expected, bound))) in found.iter().zip(expected).enumerate() {
        // What is too large for a float is infinite in both.
        let same =
            f64::from(found) == expected || found == expected as f32 || expected.is_nan() && found.is_nan();
        let error = (f64::from(found) - expected).abs();
        assert!(same || error <= bound, "{what} {i}: {found}, not {expected}; bound {bound}");
        count += 1;
    }
    assert_eq!(count, found.len(), "{what}");
}

#[test]
fn norms_are_right() {
    let mut device = device!();
    let mut random = Random(1);
    for width in [1usize, 7, 31, 32, 33, 128, 129, 257, 1024, 2050] {
        let rows = 3;
        let x: Vec<f32> = random.floats(rows * width).iter().map(|x| x * 3.0 + 0.5).collect();
        let (weight, bias) = (random.floats(width), random.floats(width));
        let eps = 1e-5;
        let (input, weights, biases) = (device.floats(&x), device.floats(&weight), device.floats(&bias));
        let (rms, layer) = (device.room(4 * x.len()), device.room(4 * x.len()));
        let (rows, w) = (rows as u32, width as u32);
        device.run(&launch::rms_norm(rows, w, eps), &[input, weights, rms]);
        device.run(&launch::layer_norm(rows, w, eps), &[input, weights, biases, layer]);
        // A sum on the way, with the bits of two kernels; its results may take the place of what was added.
        let (other, sum) = (device.floats(&random.floats(x.len())), device.floats(&x));
        let (sums, apart) = (device.floats(&x), device.room(4 * x.len()));
        device.run(&launch::with(With::Add, rows, w), &[sum, other]);
        device.run(&launch::rms_norm(rows, w, eps), &[sum, weights, apart]);
        device.run(&launch::add_rms_norm(rows, w, eps), &[sums, other, weights, other]);
        for (found, expected) in [(sums, sum), (other, apart)] {
            assert_eq!(
                device.read(found, x.len()),
                device.read(expected, x.len()),
                "add_rms_norm of {width}"
            );
        }
        let above = in_place(&mut device, &launch::sparse(rows, w, 0.5), &x, &[]);
        let (rms, layer) = (device.read(rms, x.len()), device.read(layer, x.len()));
        // Roundings of a term on its way into a sum, and some of what is made of the sum.
        let roundings = (width.div_ceil(32) + 31 + 8) as f64 * ROUNDING;
        for (number, row) in x.chunks_exact(width).enumerate() {
            let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
            let mean_of = |f: &dyn Fn(f64) -> f64| row.iter().map(|&x| f(x)).sum::<f64>() / width as f64;
            let scale = 1.0 / (mean_of(&|x| x * x) + f64::from(eps)).sqrt();
            let at = number * width..(number + 1) * width;
            let values = row.iter().zip(&weight).map(|(x, &w)| x * scale * f64::from(w));
            let what = format!("rms_norm of {width}");
            check(&rms[at.clone()], values.map(|y| (y, (roundings + 6.0 * ROUNDING) * y.abs())), &what);

            let mean = mean_of(&|x| x);
            let mean_error = roundings * mean_of(&f64::abs);
            let variance = mean_of(&|x| (x - mean) * (x - mean)) + f64::from(eps);
            let variance_error = roundings * variance
                + 2.0 * mean_error * mean_of(&|x| (x - mean).abs())
                + mean_error * mean_error;
            let scale = 1.0 / variance.sqrt();
            let values = row.iter().zip(weight.iter().zip(&bias)).map(|(x, (&w, &b))| {
                let (w, b) = (f64::from(w), f64::from(b));
                let off = scale * w.abs() * (mean_error + ROUNDING * (x.abs() + mean.abs()));
                let y = (x - mean) * scale * w;
                (y + b, off + (variance_error / variance + 6.0 * ROUNDING) * y.abs() + ROUNDING * b.abs())
            });
            check(&layer[at.clone()], values, &format!("layer_norm of {width}"));

            let variance = variance - f64::from(eps);
            let deviation = variance.sqrt();
            // The root of what is hardly above 0 is off by the root of its error.
            let off = if variance == 0.0 { variance_error.sqrt() } else { variance_error / deviation };
            let cutoff = mean + 0.5 * deviation;
            let bound = |x: f64| mean_error + off + 4.0 * ROUNDING * (x.abs() + mean.abs() + deviation);
            let values = row.iter().map(|&x| ((x - cutoff).max(0.0), bound(x)));
            check(&above[at], values, &format!("sparse of {width}"));
        }
    }
}

#[test]
fn heads_are_turned_as_on_the_cpu() {
    let mut device = device!();
    let mut random = Random(2);
    for pairing in [Pairing::Neighbours, Pairing::Halves] {
        for (tokens, heads, dim, pairs) in [(1, 1, 2, 1), (3, 5, 64, 32), (2, 7, 80, 16), (5, 2, 128, 64)] {
            let x = random.floats(tokens * heads * dim);
            let turns: Vec<[f32; 2]> = (0..tokens * pairs)
                .map(|_| {
                    let angle = random.float() * 9.0;
                    [angle.cos(), angle.sin()]
                })
                .collect();
            let (by, buffer) = (device.floats(turns.as_flattened()), device.floats(&x));
            let (t, width, d, p) = (tokens as u32, (heads * dim) as u32, dim as u32, pairs as u32);
            device.run(&launch::rope(t, width, d, p, pairing), &[by, buffer]);
            let found = device.read(buffer, x.len());
            let mut expected = x.clone();
            for (number, head) in expected.chunks_exact_mut(dim).enumerate() {
                rotate(pairing, head, &turns[number / heads * pairs..][..pairs]).unwrap();
            }
            // The product that the device may keep unrounded is half of two terms of at most one each.
            check(&found, expected.iter().map(|&y| (f64::from(y), 3.0 * ROUNDING * 2.0)), "rope");
        }
    }
}

fn values() -> Vec<f32> {
    let mut x: Vec<f32> = (-700..700).map(|i| i as f32 * 0.0337).collect();
    x.extend([0.0, -0.0, 1e-30, -1e-30, 90.0, -90.0, 1e5, -1e5, 1e30, -1e30, f32::NAN, f32::INFINITY]);
    x
}

/// `x / (1 + exp(-u))` with what its roundings come to: those of `u` grow with its size in the exponential.
fn logistic(x: f64, u: f64) -> (f64, f64) {
    let y = x / (1.0 + (-u).exp());
    // Where the exponential overflows in single precision the result is 0, which is less than the smallest normal float off.
    (y, (4.0 * u.abs() + 8.0) * ROUNDING * y.abs() + x.abs().max(1.0) * f64::from(f32::MIN_POSITIVE))
}

fn exact(activation: Activation, x: f64) -> (f64, f64) {
    match activation {
        Activation::Silu => logistic(x, x),
        Activation::GeluTanh => {
            logistic(x, 2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3)))
        }
        Activation::Gelu => {
            // The approximation is within 1.5e-7 of erf by its source.
            (0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt())), x.abs() * (0.75e-7 + 16.0 * ROUNDING))
        }
        // `max` would lose NaN.
        Activation::Relu => (if x < 0.0 { 0.0 } else { x }, 0.0),
        Activation::ReluSquared => (if x < 0.0 { 0.0 } else { x * x }, ROUNDING * x * x),
        Activation::Sigmoid => logistic(1.0, x),
        Activation::SwigluClamped => {
            let x = if x > 7.0 { 7.0 } else { x };
            logistic(x, 1.702 * x)
        }
        _ => (x, 0.0),
    }
}

const ACTIVATIONS: [Activation; 8] = [
    Activation::Silu,
    Activation::GeluTanh,
    Activation::Gelu,
    Activation::Relu,
    Activation::ReluSquared,
    Activation::Sigmoid,
    Activation::Identity,
    Activation::SwigluClamped,
];

#[test]
fn activations_and_gates_are_right() {
    let mut device = device!();
    for activation in ACTIVATIONS {
        let x = values();
        let (rows, width) = (4, (x.len() / 4) as u32);
        let found = in_place(&mut device, &launch::activate(activation, rows, width, false), &x, &[0.0]);
        let expected = x.iter().map(|&x| exact(activation, f64::from(x)));
        check(&found, expected, &format!("{activation:?}"));

        let x: Vec<f32> = x.iter().map(|&x| if x.is_finite() { x.clamp(-50.0, 50.0) } else { 1.0 }).collect();
        let up: Vec<f32> = x.iter().rev().map(|x| x * 0.3).collect();
        let found = in_place(&mut device, &launch::activate(activation, rows, width, true), &x, &up);
        let expected = x.iter().zip(&up).map(|(&x, &up)| {
            let (y, bound) = exact(activation, f64::from(x));
            let up = f64::from(up);
            let by = if activation == Activation::SwigluClamped { up.clamp(-7.0, 7.0) + 1.0 } else { up };
            // What is clamped and raised is rounded once more.
            (y * by, bound * by.abs() + 2.0 * ROUNDING * y.abs() * (by.abs() + 8.0))
        });
        check(&found, expected, &format!("{activation:?} as a gate"));
    }
}

#[test]
fn functions_of_each_value_are_right() {
    let mut device = device!();
    let x = values();
    let width = x.len() as u32;
    let mut run = |map: Map, exact: &dyn Fn(f64) -> (f64, f64)| {
        let found = in_place(&mut device, &launch::map(map, 1, width), &x, &[]);
        check(&found, x.iter().map(|&x| exact(f64::from(x))), &format!("{map:?}"));
    };
    run(Map::Scale(0.3), &|x| (x * f64::from(0.3f32), ROUNDING * x.abs() + f64::from(f32::from_bits(1))));
    run(Map::Clamp(5.0), &|x| (if x.is_nan() { x } else { x.clamp(-5.0, 5.0) }, 0.0));
    run(Map::SoftCap(30.0), &|x| (30.0 * (x / 30.0).tanh(), 16.0 * ROUNDING * 30.0));
    run(Map::Exp, &|x| (x.exp(), 4.0 * ROUNDING * x.exp() + f64::from(f32::from_bits(1))));
    run(Map::Softplus, &|x| {
        let y = if x > 30.0 { x } else { x.exp().ln_1p() };
        // Above 20 what lies between the two is below a rounding.
        (y, 12.0 * ROUNDING * y + f64::from(f32::from_bits(1)))
    });
}

#[test]
fn values_meet_those_of_another_matrix_of_their_row_and_of_their_column() {
    let mut device = device!();
    let mut random = Random(3);
    for (rows, width) in [(1usize, 1usize), (3, 63), (2, 64), (5, 65), (1, 300)] {
        let x = random.floats(rows * width);
        let y = random.floats(rows * width.max(rows));
        let mut run = |with: With, expected: &dyn Fn(f32, usize, usize) -> f32| {
            let launch = launch::with(with, rows as u32, width as u32);
            let found = in_place(&mut device, &launch, &x, &y);
            let expected: Vec<f32> =
                x.iter().enumerate().map(|(i, &x)| expected(x, i / width, i % width)).collect();
            assert_eq!(found, expected, "{with:?} {rows} x {width}");
        };
        run(With::Add, &|x, row, column| x + y[row * width + column]);
        run(With::RowFactor, &|x, row, _| x * y[row]);
        run(With::ColumnFactor, &|x, _, column| x * y[column]);
        run(With::ColumnTerm, &|x, _, column| x + y[column]);
    }
}

#[test]
fn rows_and_columns_are_brought_together() {
    let mut device = device!();
    let mut random = Random(4);
    let (rows, width) = (5usize, 70usize);
    let x = random.floats(rows * width);
    let input = device.floats(&x);

    let order = [4, 0, 4, 2];
    let (ids, out) = (device.ids(&order), device.room(4 * 4 * width));
    device.run(&launch::select(width as u32, rows as u32, 4), &[input, ids, out]);
    let expected: Vec<f32> =
        order.iter().flat_map(|&row| x[row as usize * width..][..width].to_vec()).collect();
    assert_eq!(device.read(out, 4 * width), expected);

    // Columns 3 .. 69 of each row become columns 2 .. 68 of rows of 80; others stay what they were.
    let out = device.floats(&vec![9.0; rows * 80]);
    device.run(&launch::copy_columns(rows as u32, 66, [width as u32, 3], [80, 2]), &[input, out]);
    let found = device.read(out, rows * 80);
    for (row, found) in found.chunks_exact(80).enumerate() {
        assert_eq!(found[2..68], x[row * width + 3..][..66]);
        assert!(found[..2].iter().chain(&found[68..]).all(|&x| x == 9.0));
    }

    let other = random.floats(rows * width);
    let factors = random.floats(rows * 2);
    let (second, by, out) = (device.floats(&other), device.floats(&factors), device.room(4 * x.len()));
    device.run(&launch::blend(rows as u32, width as u32, 0, 2), &[input, by, out]);
    device.run(&launch::blend(rows as u32, width as u32, 1, 2), &[second, by, out]);
    let expected = x.iter().zip(&other).enumerate().map(|(i, (&x, &y))| {
        let of = &factors[i / width * 2..];
        let terms = [f64::from(of[0]) * f64::from(x), f64::from(of[1]) * f64::from(y)];
        (terms[0] + terms[1], 3.0 * ROUNDING * (terms[0].abs() + terms[1].abs()))
    });
    check(&device.read(out, x.len()), expected, "blend");
}

#[test]
fn slots_of_a_token_are_added_in_the_order_of_its_choice() {
    let mut device = device!();
    let mut random = Random(5);
    let (tokens, per_token, width) = (3usize, 2usize, 65usize);
    let x = random.floats(tokens * per_token * width);
    let weights = random.floats(tokens * per_token);
    let chosen = [5u32, 0, 1, 4, 3, 2];
    for weighted in [false, true] {
        let (input, ids, by) = (device.floats(&x), device.ids(&chosen), device.floats(&weights));
        let out = device.room(4 * tokens * width);
        let launch = launch::combine(tokens as u32, width as u32, per_token as u32, weighted);
        device.run(&launch, &[input, ids, by, out]);
        let expected = (0..tokens * width).map(|i| {
            let terms = [0, 1].map(|n| {
                let slot = chosen[i / width * per_token + n] as usize;
                let weight = if weighted { f64::from(weights[slot]) } else { 1.0 };
                weight * f64::from(x[slot * width + i % width])
            });
            (terms[0] + terms[1], 3.0 * ROUNDING * (terms[0].abs() + terms[1].abs()))
        });
        check(&device.read(out, tokens * width), expected, "combine");
    }
}

/// Writes the largest of `input` to `values` and `places`, by way of parts where the launches want that.
fn top_k(
    device: &mut Emulator,
    (rows, width, k): (usize, usize, usize),
    [input, values, places]: [Buffer; 3],
) {
    let top = launch::TopK { rows: rows as u32, width: width as u32, k: k as u32 };
    let room = 4 * rows * top.parts() as usize * k;
    if top.parts() == 1 {
        return device.run(&top.launch(), &[input, input, values, places]);
    }
    let parts = [device.room(room), device.room(room)];
    device.run(&top.launch(), &[input, input, parts[0], parts[1]]);
    device.run(&top.join(), &[parts[0], parts[1], values, places]);
}

#[test]
fn the_largest_come_first_and_of_equal_ones_the_earlier() {
    let mut device = device!();
    let mut random = Random(6);
    for (rows, width, k) in
        [(1usize, 1usize, 1usize), (3, 31, 31), (2, 129, 40), (1, 5000, 1), (1, 5000, 64), (2, 12289, 1)]
    {
        // Few different values, so that many are equal.
        let mut x: Vec<f32> = (0..rows * width).map(|_| random.below(50) as f32 - 25.0).collect();
        x[0] = -0.0;
        x[width / 2] = f32::NEG_INFINITY;
        let input = device.floats(&x);
        let (values, places) = (device.room(4 * rows * k), device.room(4 * rows * k));
        top_k(&mut device, (rows, width, k), [input, values, places]);
        let (values, places) = (device.read(values, rows * k), device.read_ids(places, rows * k));
        for (row, x) in x.chunks_exact(width).enumerate() {
            let mut order: Vec<usize> = (0..width).collect();
            order.sort_by(|&a, &b| x[b].partial_cmp(&x[a]).unwrap().then(a.cmp(&b)));
            let found = row * k..(row + 1) * k;
            assert_eq!(places[found.clone()], order[..k].iter().map(|&i| i as u32).collect::<Vec<_>>());
            assert_eq!(values[found], order[..k].iter().map(|&i| x[i]).collect::<Vec<_>>());
        }
    }
    let input = device.floats(&[1.0, f32::INFINITY, f32::NAN, -f32::NAN, 2.0]);
    let (values, places) = (device.room(20), device.room(20));
    top_k(&mut device, (1, 5, 5), [input, values, places]);
    assert_eq!(device.read_ids(places, 5), [2, 3, 1, 4, 0], "NaN comes before everything");
    let mut x = vec![1.0; 9000];
    (x[4500], x[8500]) = (f32::NAN, f32::NAN);
    let input = device.floats(&x);
    top_k(&mut device, (1, 9000, 1), [input, values, places]);
    assert_eq!(device.read_ids(places, 1), [4500]);
    assert!(device.read(values, 1)[0].is_nan());
}
