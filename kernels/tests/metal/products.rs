//! Formats and products.

use gristmill_kernels::metal::launch::{self, Product, TILE};
use gristmill_kernels::quant::GgmlType;

use crate::device;
use crate::emulator::Emulator;
use crate::numbers::{ROUNDING, Random, dequantized, magnitudes};

#[test]
fn every_format_is_dequantized_to_the_bit_whatever_its_bytes() {
    let mut device = device!();
    let mut random = Random(1);
    for &ty in GgmlType::COMPUTABLE {
        // Rows of every length around an eight, where blocks allow it.
        let lens: &[usize] = if ty.block_len() == 1 { &[1, 7, 8, 9, 515] } else { &[1, 3] };
        for &len in lens {
            let (len, rows) = (len * ty.block_len(), 5);
            let row_bytes = ty.row_bytes(len).unwrap();
            let mut bytes = random.bytes(row_bytes * rows);
            // Scales of all kinds, infinite and NaN among them; the first row has all bits set, the second none.
            bytes[..row_bytes].fill(0xff);
            bytes[row_bytes..2 * row_bytes].fill(0);
            let expected = dequantized(ty, &bytes, len);
            let order = [4u32, 0, 1, 1, 3, 2];
            let (table, ids) = (device.buffer(&bytes), device.ids(&order));
            let out = device.room(4 * len * order.len());
            device.run(&launch::lookup(ty, len as u32, rows as u32, order.len() as u32), &[table, ids, out]);
            let found = device.read(out, len * order.len());
            for (found, &row) in found.chunks_exact(len).zip(&order) {
                for (i, (found, expected)) in found.iter().zip(&expected[row as usize]).enumerate() {
                    let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
                    assert!(same, "{ty} row {row} weight {i} of {len}: {found}, not {expected}");
                }
            }
        }
    }
}

#[test]
fn doubles_are_rounded_to_the_nearest_float() {
    let mut device = device!();
    let mut random = Random(2);
    // Around every edge of the floats: ties, the smallest, the largest, and anything.
    let mut bits: Vec<u64> = Vec::new();
    for edge in [f32::MIN_POSITIVE, f32::MAX, f32::from_bits(1), f32::from_bits(2), 1.0, 1.5] {
        for near in [edge, edge.next_up(), edge.next_down()] {
            let (here, up) = (f64::from(near), f64::from(near.next_up()));
            for x in [here, (here + up) / 2.0, here / 2.0, here * 2.0, f64::from(near) * 1.000_000_1] {
                for x in [x, x.next_up(), x.next_down(), -x] {
                    bits.push(x.to_bits());
                }
            }
        }
    }
    bits.extend((0..2000).map(|_| random.bits()));
    bits.extend((0..2000).map(|_| random.bits() & !(0x7ff << 52) | (860 + random.bits() % 330) << 52));
    let bytes: Vec<u8> = bits.iter().flat_map(|x| x.to_le_bytes()).collect();
    let (table, ids, out) = (device.buffer(&bytes), device.ids(&[0]), device.room(4 * bits.len()));
    device.run(&launch::lookup(GgmlType::F64, bits.len() as u32, 1, 1), &[table, ids, out]);
    for (found, &bits) in device.read(out, bits.len()).iter().zip(&bits) {
        let expected = f64::from_bits(bits) as f32;
        let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
        assert!(same, "{bits:#018x} = {}: {found}, not {expected}", f64::from_bits(bits));
    }
}

/// A product as it should be, and how far it may be off: each term goes through so many roundings at most.
struct Expected {
    sums: Vec<f64>,
    bounds: Vec<f64>,
}

impl Expected {
    /// Of each column with the rows of its expert (0 for all where there are none), first of them `first`.
    fn new(
        ty: GgmlType,
        matrix: &[u8],
        [len, rows, of, first]: [usize; 4],
        columns: &[f32],
        experts: &[u32],
        bias: Option<&[f32]>,
        roundings: f64,
    ) -> Expected {
        let (weights, sizes) = (dequantized(ty, matrix, len), magnitudes(ty, matrix, len));
        let (mut sums, mut bounds) = (Vec::new(), Vec::new());
        for (column, &expert) in columns.chunks_exact(len).zip(experts) {
            for row in 0..rows {
                let at = expert as usize * of + first + row;
                let add = bias.map_or(0.0, |bias| f64::from(bias[expert as usize * rows + row]));
                let terms = weights[at].iter().zip(column).map(|(&w, &x)| f64::from(w) * f64::from(x));
                let sizes = sizes[at].iter().zip(column).map(|(&size, &x)| size * f64::from(x.abs()));
                sums.push(terms.sum::<f64>() + add);
                bounds.push(roundings * ROUNDING * (sizes.sum::<f64>() + add.abs()));
            }
        }
        Expected { sums, bounds }
    }

    fn check(&self, found: &[f32], what: &str) {
        assert_eq!(found.len(), self.sums.len());
        for (i, (&found, (sum, bound))) in found.iter().zip(self.sums.iter().zip(&self.bounds)).enumerate() {
            let error = (f64::from(found) - sum).abs();
            assert!(error <= *bound, "{what}, result {i}: {found}, not {sum}; off by {error}, bound {bound}");
        }
    }
}

/// Roundings of a term in `matvec`: those of an eight (8), of its scale, offset and minimum (4) and of the weight itself, one
/// for each eight of a lane (of 32 lanes, each of which takes four at a time), those of the lanes (31 in any order) and the bias.
fn by_lanes(len: usize) -> f64 {
    (8 + 4 + 1 + 4 * len.div_ceil(8 * 4 * 32) + 31 + 1) as f64
}

/// Roundings of a term in `matmul`: one for each input, that of the weight itself, and the bias.
fn in_a_chain(len: usize) -> f64 {
    (len + 2) as f64
}

fn check(ty: GgmlType, len: usize, rows: usize, columns: usize, seed: u64, device: &mut Emulator) {
    let mut random = Random(seed);
    let matrix = random.weights(ty, len, rows);
    let x = random.floats(len * columns);
    let bias = seed.is_multiple_of(2).then(|| random.floats(rows));
    let format = Product {
        format: ty,
        len: len as u32,
        rows: rows as u32,
        columns: columns as u32,
        bias: bias.is_some(),
    };
    let launch = format.launch();
    device.seed(seed);
    let weights = device.buffer(&matrix);
    let (input, add) = (device.floats(&x), device.floats(bias.as_deref().unwrap_or(&[0.0])));
    let out = device.room(4 * rows * columns);
    device.run(&launch, &[weights, input, add, add, out]);
    let roundings = if launch.kernel.stem.starts_with("matmul") { in_a_chain(len) } else { by_lanes(len) };
    let experts = vec![0; columns];
    let expected = Expected::new(ty, &matrix, [len, rows, 0, 0], &x, &experts, bias.as_deref(), roundings);
    let what = format!("{} of {rows} x {len} by {columns}", launch.kernel);
    expected.check(&device.read(out, rows * columns), &what);
}

#[test]
fn products_of_every_format_are_right() {
    let mut device = device!();
    for (number, &ty) in GgmlType::COMPUTABLE.iter().enumerate() {
        let block = ty.block_len();
        for (rows, columns) in [(5, 1), (9, 3), (65, 11), (3, 66)] {
            // Plain formats have a tail behind the last eight, and behind the last step of 16.
            let len = if block == 1 { 523 } else { (block * 3).max(288 / block * block) };
            check(ty, len, rows, columns, (7 * number + rows) as u64, &mut device);
        }
    }
}

#[test]
fn products_are_right_at_the_edges_of_every_tile() {
    let mut device = device!();
    for (seed, rows) in [1, 4, 7, 8, 9, 16, 63, 64, 65, 130].into_iter().enumerate() {
        for columns in [1, 2, 4, 5, 8, 9, 16, 63, 64, 65, 127, 128, 129, 193, 513] {
            // What a tile of both kernels has room for, and one more.
            if rows * columns <= 130 * 16 || rows <= 65 && columns <= 65 || columns == 128 {
                check(GgmlType::Q4_0, 64, rows, columns, seed as u64, &mut device);
            }
        }
    }
    for len in [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 255, 256, 257, 511, 512, 513, 1030] {
        check(GgmlType::F16, len, 3, 1, len as u64, &mut device);
        check(GgmlType::F32, len, 3, 4, len as u64, &mut device);
        check(GgmlType::BF16, len, 3, 10, len as u64, &mut device);
    }
}

#[test]
fn experts_are_found_by_their_index() {
    let mut device = device!();
    let mut random = Random(3);
    let (ty, len, rows, of, first, experts) = (GgmlType::Q4_K, 256, 70, 150, 75, 4);
    let matrix = random.weights(ty, len, of * experts);
    let bias = random.floats(rows * experts);
    let of_slots: Vec<u32> = [0; 3].into_iter().chain([2; 66]).chain([3; 1]).collect();
    let x = random.floats(len * of_slots.len());
    let slots = of_slots.len();
    let format = Product { format: ty, len: 256, rows: 70, columns: slots as u32, bias: true };
    let (weights, input, add) = (device.buffer(&matrix), device.floats(&x), device.floats(&bias));
    let shape = [len, rows, of, first];

    let (ids, out) = (device.ids(&of_slots), device.room(4 * rows * slots));
    device.run(&format.by_slot(of as u32, first as u32), &[weights, input, add, ids, out]);
    let expected = Expected::new(ty, &matrix, shape, &x, &of_slots, Some(&bias), by_lanes(len));
    expected.check(&device.read(out, rows * slots), "by slot");

    let tiles = [0, 0, 3, 2, 3, 3 + TILE, 2, 3 + TILE, 69, 3, 69, 70];
    let (runs, out) = (device.ids(&tiles), device.room(4 * rows * slots));
    device.run(&format.by_tile(of as u32, first as u32, 4), &[weights, input, add, runs, out]);
    let expected = Expected::new(ty, &matrix, shape, &x, &of_slots, Some(&bias), in_a_chain(len));
    expected.check(&device.read(out, rows * slots), "by tile");
}

#[test]
fn damage_reaches_the_result_and_no_neighbour() {
    let mut device = device!();
    let (len, rows) = (64, 70);
    let mut random = Random(4);
    let matrix = random.weights(GgmlType::Q8_0, len, rows);
    for (columns, damaged) in [(1, 0), (3, 2), (66, 65)] {
        let mut x = random.floats(len * columns);
        x[damaged * len + 5] = f32::NAN;
        let format =
            Product { format: GgmlType::Q8_0, len: 64, rows: 70, columns: columns as u32, bias: false };
        let (weights, input) = (device.buffer(&matrix), device.floats(&x));
        let out = device.room(4 * rows * columns);
        device.run(&format.launch(), &[weights, input, input, input, out]);
        for (i, found) in device.read(out, rows * columns).iter().enumerate() {
            assert_eq!(found.is_nan(), i / rows == damaged, "result {i} of {columns} columns: {found}");
        }
    }
}
