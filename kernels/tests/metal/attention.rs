//! Attention, and keys and values on their way into the cache.

use gristmill_kernels::metal::launch::{Attention, cache_row};
use gristmill_kernels::quant::{GgmlType, dequantize_row};

use crate::device;
use crate::emulator::{Buffer, Emulator};
use crate::numbers::{ROUNDING, Random};

const CACHE_TYPES: [GgmlType; 5] =
    [GgmlType::F32, GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0, GgmlType::Q4_0];

/// One token that attends to itself.
pub const PLAIN: Attention = Attention {
    cache: [GgmlType::F32; 2],
    tokens: 1,
    heads: 6,
    kv_heads: 2,
    key_dim: 64,
    value_dim: 64,
    capacity: 96,
    position: 0,
    visible: [0, 1],
    has: [false; 2],
    scale: 0.15,
    cap: None,
};

/// Rows of the cache as floats, `[kv_heads][positions]`, and its buffer.
struct Kept {
    rows: Vec<Vec<Vec<f32>>>,
    buffer: Buffer,
}

/// Keeps random keys and values for `positions` positions, some tokens at a time; those behind stay NaN.
fn keep(device: &mut Emulator, spec: &Attention, positions: u32, random: &mut Random) -> [Kept; 2] {
    [0, 1].map(|which| keep_some(device, spec, which, positions, random))
}

/// The same for keys, number 0, or values.
fn keep_some(
    device: &mut Emulator,
    spec: &Attention,
    which: usize,
    positions: u32,
    random: &mut Random,
) -> Kept {
    let (format, dim) = (spec.cache[which], [spec.key_dim, spec.value_dim][which]);
    let (len, row_bytes) = cache_row(format, dim);
    let bytes = (spec.kv_heads * spec.capacity * row_bytes) as usize;
    let buffer = device.room(bytes);
    let mut position = 0;
    while position < positions {
        let tokens = (1 + random.below(40.min(spec.capacity as usize)) as u32).min(positions - position);
        let x: Vec<f32> = random.floats((tokens * spec.kv_heads * dim) as usize);
        let input = device.floats(&x);
        device.run(&Attention { tokens, position, ..*spec }.keep()[which], &[input, buffer]);
        position += tokens;
    }
    let bytes = device.try_read(buffer, bytes).unwrap();
    let row = |head: u32, position: u32| {
        let at = ((head * spec.capacity + position % spec.capacity) * row_bytes) as usize;
        let mut out = vec![0.0; len as usize];
        dequantize_row(format, &bytes[at..at + row_bytes as usize], &mut out).unwrap();
        out
    };
    let first = positions.saturating_sub(spec.capacity);
    let of_head = |head| (0..positions).map(|at| if at < first { vec![] } else { row(head, at) }).collect();
    Kept { rows: (0..spec.kv_heads).map(of_head).collect(), buffer }
}

#[test]
fn what_is_kept_is_what_ggml_would_write() {
    let mut device = device!();
    let mut random = Random(1);
    for ty in CACHE_TYPES {
        // 40 values: 24 that only fill the second block.
        for dim in [32, 40] {
            let few = Attention { tokens: 5, kv_heads: 3, capacity: 5, position: 3, ..PLAIN };
            let spec = Attention { cache: [GgmlType::F32, ty], value_dim: dim, ..few };
            let mut x = random.floats((spec.tokens * spec.kv_heads * dim) as usize);
            x[..32].fill(0.0);
            x[40] = 0.5;
            let (len, row_bytes) = cache_row(ty, dim);
            let room = (spec.kv_heads * spec.capacity * row_bytes) as usize;
            let (input, cache) = (device.floats(&x), device.room(room));
            device.run(&spec.keep()[1], &[input, cache]);
            let found = device.try_read(cache, room).unwrap();
            for token in 0..spec.tokens {
                for head in 0..spec.kv_heads {
                    let from = ((token * spec.kv_heads + head) * dim) as usize;
                    let mut row = x[from..from + dim as usize].to_vec();
                    row.resize(len as usize, 0.0);
                    let mut expected = vec![0; row_bytes as usize];
                    encode(ty, &row, &mut expected);
                    let at = ((head * spec.capacity + (3 + token) % spec.capacity) * row_bytes) as usize;
                    assert_eq!(
                        found[at..at + row_bytes as usize],
                        expected,
                        "{ty} token {token} head {head}"
                    );
                }
            }
        }
    }
}

/// The crate's own quantizer, which writes what ggml's does.
fn encode(ty: GgmlType, row: &[f32], out: &mut [u8]) {
    let encoder = gristmill_kernels::encode::Encoder::new(ty).unwrap();
    encoder.encode(gristmill_kernels::simd::Level::SCALAR, row, row.len(), None, out).unwrap();
}

/// Some tokens and what becomes of their scores.
struct Case {
    spec: Attention,
    visible: Vec<[u32; 2]>,
    slopes: Vec<f32>,
    sinks: Vec<f32>,
}

impl Case {
    fn new(spec: Attention, visible: &[[u32; 2]]) -> Case {
        let all = [visible.iter().map(|v| v[0]).min().unwrap(), visible.iter().map(|v| v[1]).max().unwrap()];
        let spec = Attention { tokens: visible.len() as u32, visible: all, ..spec };
        Case { spec, visible: visible.to_vec(), slopes: vec![], sinks: vec![] }
    }

    /// The same, where as many tokens attend as are multiplied in tiles by the kernel `stem`.
    fn tiled(spec: Attention, visible: &[[u32; 2]], stem: &str) -> Case {
        let case = Case::new(spec, visible);
        assert_eq!(case.spec.launch().kernel.stem, stem, "{:?}", case.spec);
        case
    }

    fn run(&self, device: &mut Emulator, queries: &[f32], [keys, values]: &[Kept; 2]) -> Vec<f32> {
        let spec = Attention { has: [!self.slopes.is_empty(), !self.sinks.is_empty()], ..self.spec };
        assert!(spec.fits());
        let input = device.floats(queries);
        let visible = device.ids(self.visible.as_flattened());
        let some = |numbers: &[f32]| if numbers.is_empty() { vec![0.0] } else { numbers.to_vec() };
        let (slopes, sinks) = (device.floats(&some(&self.slopes)), device.floats(&some(&self.sinks)));
        let partial = device.room(4 * spec.partial_len());
        let count = (spec.tokens * spec.heads * spec.value_dim) as usize;
        let out = device.room(4 * count);
        device.run(&spec.launch(), &[input, keys.buffer, values.buffer, visible, slopes, partial]);
        device.run(&spec.join(), &[partial, sinks, out]);
        device.read(out, count)
    }

    /// Softmax of scores times values in double precision; the bound follows the errors of scores into the weights.
    fn check(&self, device: &mut Emulator, kept: &[Kept; 2], random: &mut Random) {
        let Attention { tokens, heads, kv_heads, key_dim, value_dim, .. } = self.spec;
        let (key_dim, value_dim) = (key_dim as usize, value_dim as usize);
        let queries: Vec<f32> =
            random.floats((tokens * heads) as usize * key_dim).iter().map(|x| 3.0 * x).collect();
        let found = self.run(device, &queries, kept);
        let [keys, values] = kept;
        for (number, query) in queries.chunks_exact(key_dim).enumerate() {
            let (token, head) = (number / heads as usize, number % heads as usize);
            let kv_head = head / (heads / kv_heads) as usize;
            let [from, to] = self.visible[token].map(|at| at as usize);
            let (mut scores, mut error) = (Vec::new(), 0f64);
            for at in from..to {
                let terms =
                    query.iter().zip(&keys.rows[kv_head][at]).map(|(&q, &k)| f64::from(q) * f64::from(k));
                let scale = f64::from(self.spec.scale);
                let size: f64 = terms.clone().map(f64::abs).sum::<f64>() * scale;
                let mut score = terms.sum::<f64>() * scale;
                // One rounding for each value, and some for the scales of blocks.
                let mut off = (key_dim + 4) as f64 * ROUNDING * size;
                if let Some(cap) = self.spec.cap.map(f64::from) {
                    score = cap * (score / cap).tanh();
                    off += 8.0 * ROUNDING * cap;
                }
                if let Some(&slope) = self.slopes.get(head) {
                    let far = at.abs_diff(self.spec.position as usize + token) as f64 * f64::from(slope);
                    score -= far;
                    off += 3.0 * ROUNDING * (score.abs() + far);
                }
                scores.push(score);
                error = error.max(off + ROUNDING * score.abs());
            }
            let most = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
            let sink = self.sinks.get(head).map_or(0.0, |&sink| (f64::from(sink) - most).exp());
            let all = weights.iter().sum::<f64>() + sink;
            // Differences of scores, exponentials and sums: errors of scores count twice, everything else once.
            let spread = scores.iter().map(|score| most - score).fold(0.0, f64::max);
            let relative = 2.0 * (error + ROUNDING * spread) + ((to - from) + 64) as f64 * ROUNDING;
            for i in 0..value_dim {
                let terms =
                    weights.iter().zip(&values.rows[kv_head][from..to]).map(|(w, v)| w * f64::from(v[i]));
                let expected = terms.clone().sum::<f64>() / all;
                let bound = 2.0 * relative * terms.map(f64::abs).sum::<f64>() / all;
                let found = f64::from(found[number * value_dim + i]);
                assert!(
                    (found - expected).abs() <= bound,
                    "{:?} token {token} head {head} value {i}: {found}, not {expected}; bound {bound}",
                    self.spec
                );
            }
        }
    }
}

#[test]
fn attention_is_softmax_of_scores_times_values_in_every_cache() {
    let mut device = device!();
    let mut random = Random(2);
    let pairs = CACHE_TYPES.into_iter().flat_map(|keys| CACHE_TYPES.map(|values| [keys, values]));
    for (seed, cache) in pairs.enumerate() {
        device.seed(seed as u64);
        let spec = Attention { cache, position: 64, ..PLAIN };
        let kept = keep(&mut device, &spec, 70, &mut random);
        for visible in [&[[0, 70]][..], &[[0, 65], [0, 66], [0, 67], [0, 68], [0, 69], [0, 70]]] {
            Case::new(spec, visible).check(&mut device, &kept, &mut random);
        }
    }
}

#[test]
fn heads_of_any_size_and_windows_at_any_place() {
    let mut device = device!();
    let mut random = Random(3);
    let windows: [&[[u32; 2]]; 3] =
        [&[[0, 1], [31, 32], [31, 33], [32, 64]], &[[40, 70], [69, 70]], &[[3, 35]]];
    for (number, (key_dim, value_dim, heads, kv_heads)) in [
        (40, 24, 2, 1),
        (128, 128, 8, 2),
        (80, 80, 3, 3),
        (192, 128, 5, 1),
        (256, 256, 4, 2),
        (72, 512, 5, 1),
    ]
    .into_iter()
    .enumerate()
    {
        use GgmlType::{F16, Q8_0};
        for cache in [[F16, F16], [Q8_0, Q8_0], [Q8_0, F16], [F16, Q8_0]] {
            let spec = Attention { cache, key_dim, value_dim, heads, kv_heads, position: 60, ..PLAIN };
            let kept = keep(&mut device, &spec, 70, &mut random);
            Case::new(spec, windows[number % 3]).check(&mut device, &kept, &mut random);
        }
    }
}

#[test]
fn scores_are_capped_and_slanted_and_sinks_take_their_part() {
    let mut device = device!();
    let mut random = Random(4);
    let spec = Attention { position: 60, ..PLAIN };
    let kept = keep(&mut device, &spec, 70, &mut random);
    let visible = [[0, 70], [10, 70], [0, 63], [33, 64]];
    let capped = Attention { cap: Some(2.0), ..spec };
    let heads = |from: [f32; 3]| [from, from].concat();
    for case in [
        Case::new(capped, &visible),
        Case { slopes: heads([0.5, 0.0, 0.004]), ..Case::new(spec, &visible) },
        Case { sinks: heads([-1.0, 20.0, 3.0]), ..Case::new(spec, &visible) },
        Case {
            slopes: heads([0.25, 0.5, 0.1]),
            sinks: heads([1.0, 2.0, 0.0]),
            ..Case::new(capped, &visible)
        },
    ] {
        case.check(&mut device, &kept, &mut random);
    }
}

#[test]
fn long_sequences_are_joined_from_parts_and_places_are_used_again() {
    let mut device = device!();
    let mut random = Random(5);
    let spec = Attention {
        cache: [GgmlType::F16; 2],
        key_dim: 32,
        value_dim: 32,
        heads: 2,
        kv_heads: 1,
        capacity: 1100,
        position: 1299,
        ..PLAIN
    };
    let kept = keep(&mut device, &spec, 1300, &mut random);
    for visible in [[200, 1300], [511, 513], [1023, 1025], [1024, 1300], [600, 700]] {
        Case::new(spec, &[visible]).check(&mut device, &kept, &mut random);
    }
}

#[test]
fn what_a_query_does_not_see_has_no_part_be_it_damaged() {
    let mut device = device!();
    let mut random = Random(6);
    // Behind position 40 the cache holds NaN.
    let spec = Attention { position: 39, ..PLAIN };
    let kept = keep(&mut device, &spec, 40, &mut random);
    Case::new(spec, &[[0, 40], [0, 39]]).check(&mut device, &kept, &mut random);
    let sees_it = Case::new(spec, &[[0, 40], [0, 41]]);
    let queries = random.floats(2 * 6 * 64);
    let found = sees_it.run(&mut device, &queries, &kept);
    let (first, second) = found.split_at(6 * 64);
    assert!(first.iter().all(|x| x.is_finite()) && second.iter().all(|x| x.is_nan()));
}

/// What each of `tokens` tokens sees, the last of them everything before `end`.
fn causal(tokens: u32, end: u32) -> Vec<[u32; 2]> {
    (end - tokens..end).map(|position| [0, position + 1]).collect()
}

#[test]
fn tiles_of_queries_attend_in_every_cache() {
    let mut device = device!();
    let mut random = Random(7);
    let pairs = CACHE_TYPES.into_iter().flat_map(|keys| CACHE_TYPES.map(|values| [keys, values]));
    for (seed, cache) in pairs.enumerate() {
        device.seed(seed as u64);
        let spec = Attention { cache, position: 28, ..PLAIN };
        let kept = keep(&mut device, &spec, 39, &mut random);
        Case::tiled(spec, &causal(11, 39), "attention_tile").check(&mut device, &kept, &mut random);
        let spec = Attention { heads: 2, kv_heads: 1, key_dim: 136, value_dim: 160, position: 6, ..spec };
        let kept = keep(&mut device, &spec, 20, &mut random);
        Case::tiled(spec, &causal(14, 20), "attention_tile2").check(&mut device, &kept, &mut random);
    }
}

#[test]
fn tiles_of_any_size_see_windows_at_any_place() {
    use GgmlType::{F16, F32, Q4_0};
    let mut device = device!();
    let mut random = Random(8);
    // Values of a key and of a value, heads, heads of keys, tokens, positions: the edges of rows, blocks, tiles and shares.
    for (key_dim, value_dim, heads, kv_heads, tokens, positions, stem) in [
        (8, 8, 1, 1, 28, 28, "attention_tile"),
        (64, 64, 4, 1, 7, 15, "attention_tile"),
        (64, 64, 4, 1, 8, 16, "attention_tile"),
        (40, 24, 3, 1, 11, 17, "attention_tile"),
        (24, 40, 5, 1, 13, 31, "attention_tile"),
        (30, 21, 2, 1, 16, 33, "attention_tile"),
        (128, 128, 8, 2, 8, 48, "attention_tile"),
        (128, 72, 35, 1, 1, 70, "attention_tile"),
        (129, 16, 4, 1, 7, 20, "attention_tile2"),
        (8, 136, 2, 2, 33, 40, "attention_tile2"),
        (192, 128, 6, 2, 10, 18, "attention_tile2"),
        (256, 256, 2, 1, 15, 33, "attention_tile2"),
        (257, 128, 4, 1, 7, 20, "attention"),
        (64, 64, 3, 1, 9, 20, "attention"),
    ] {
        for (cache, sees) in [([F32, F32], 0), ([F16, Q4_0], 1), ([Q4_0, F16], 2), ([F16, F16], 3)] {
            let position = positions - tokens;
            let spec = Attention { cache, key_dim, value_dim, heads, kv_heads, position, ..PLAIN };
            let visible: Vec<[u32; 2]> = match sees {
                0 => causal(tokens, positions),
                // A window, the whole sequence, and what has nothing to do with its neighbours.
                1 => {
                    causal(tokens, positions).into_iter().map(|[_, to]| [to.saturating_sub(5), to]).collect()
                }
                2 => vec![[0, positions]; tokens as usize],
                _ => (0..tokens)
                    .map(|_| {
                        let from = random.below(positions as usize) as u32;
                        [from, from + 1 + random.below((positions - from) as usize) as u32]
                    })
                    .collect(),
            };
            let kept = keep(&mut device, &spec, positions, &mut random);
            Case::tiled(spec, &visible, stem).check(&mut device, &kept, &mut random);
        }
    }
}

#[test]
fn tiles_are_capped_and_slanted_and_take_sinks_and_larger_scores() {
    let mut device = device!();
    let mut random = Random(9);
    for (dim, stem) in [(32, "attention_tile"), (136, "attention_tile2")] {
        // Scores grow towards the end: what was summed before shrinks in most blocks.
        let spec = Attention { key_dim: dim, value_dim: dim, position: 59, ..PLAIN };
        let kept = keep(&mut device, &spec, 70, &mut random);
        let visible = causal(11, 70);
        let capped = Attention { cap: Some(2.0), ..spec };
        let steep = Attention { scale: 2.0, ..spec };
        let heads = |from: [f32; 3]| [from, from].concat();
        for case in [
            Case::tiled(capped, &visible, stem),
            Case::tiled(steep, &visible, stem),
            Case { slopes: heads([1.0, 0.0, 0.004]), ..Case::tiled(spec, &visible, stem) },
            Case { sinks: heads([-1.0, 30.0, 3.0]), ..Case::tiled(steep, &visible, stem) },
            Case {
                slopes: heads([0.25, 3.0, 0.1]),
                sinks: heads([1.0, 2.0, 0.0]),
                ..Case::tiled(capped, &visible, stem)
            },
        ] {
            case.check(&mut device, &kept, &mut random);
        }
    }
}

#[test]
fn tiles_of_long_sequences_are_joined_from_parts_and_places_are_used_again() {
    let mut device = device!();
    let mut random = Random(10);
    let sizes = Attention { key_dim: 16, value_dim: 16, heads: 4, kv_heads: 1, ..PLAIN };
    let spec = Attention { cache: [GgmlType::F16; 2], capacity: 1100, position: 1293, ..sizes };
    let kept = keep(&mut device, &spec, 1300, &mut random);
    for first in [200, 1090, 1280] {
        let visible: Vec<_> = (1293..1300).map(|position| [first, position + 1]).collect();
        let case = Case::tiled(spec, &visible, "attention_tile");
        assert!(case.spec.launch().groups[2] > 1, "several parts");
        case.check(&mut device, &kept, &mut random);
    }
    // The wrap within a block, and a cache of fewer positions than a block has.
    for (capacity, positions) in [(40, 55), (9, 31)] {
        let spec = Attention { capacity, position: positions - 7, ..sizes };
        let kept = keep(&mut device, &spec, positions, &mut random);
        let visible = vec![[positions - capacity, positions]; 7];
        Case::tiled(spec, &visible, "attention_tile").check(&mut device, &kept, &mut random);
    }
}

#[test]
fn what_a_query_of_a_tile_does_not_see_has_no_part_be_it_damaged() {
    let mut device = device!();
    let mut random = Random(11);
    for (dim, stem) in [(32, "attention_tile"), (136, "attention_tile2")] {
        let spec = Attention { key_dim: dim, value_dim: dim, position: 20, ..PLAIN };
        let kept = keep(&mut device, &spec, 40, &mut random);
        // Some tokens see position 21, others end before it or begin behind it, and position 40 nobody kept.
        let sees = |token: u32| match token % 4 {
            0 => [0, 21],
            1 => [22, 40],
            2 => [5, 22],
            _ => [21, 38],
        };
        let case = Case::tiled(spec, &(0..12).map(sees).collect::<Vec<_>>(), stem);
        let queries = random.floats((12 * spec.heads * dim) as usize);
        let right = case.run(&mut device, &queries, &kept);
        for (which, damage) in [(0, f32::NAN), (1, f32::NAN), (1, f32::INFINITY)] {
            // A number of position 21, of the first head of keys.
            let at = 4 * (21 * dim as usize + 3);
            device.write(kept[which].buffer, at, &damage.to_le_bytes());
            let found = case.run(&mut device, &queries, &kept);
            let all = found.chunks(dim as usize).zip(right.chunks(dim as usize)).enumerate();
            for (number, (found, right)) in all {
                let (token, head) = (number as u32 / spec.heads, number as u32 % spec.heads);
                if token % 4 >= 2 && head < spec.heads / spec.kv_heads {
                    assert!(found.iter().all(|x| x.is_nan()), "token {token} head {head} sees it");
                } else {
                    assert_eq!(found, right, "token {token} head {head} does not see it");
                }
            }
            let row = &kept[which].rows[0][21];
            device.write(kept[which].buffer, at, &row[3].to_le_bytes());
        }
        // What nobody kept, that one token sees.
        let mut visible = vec![[0, 40]; 12];
        visible[7] = [0, 41];
        let found = Case::tiled(spec, &visible, stem).run(&mut device, &queries, &kept);
        for (token, found) in found.chunks((spec.heads * dim) as usize).enumerate() {
            assert!(found.iter().all(|x| x.is_nan() == (token == 7) && x.is_finite() == (token != 7)));
        }
    }
}

#[test]
fn many_tiles_leave_little_to_be_joined() {
    // A batch at some depth: one part; few queries at the same depth: parts for the whole device.
    let spec = Attention { heads: 32, kv_heads: 8, visible: [0, 8192], ..PLAIN };
    let groups = |tokens: u32| Attention { tokens, ..spec }.launch().groups;
    assert_eq!(groups(512), [64, 8, 1]);
    assert_eq!(groups(7), [1, 8, 16]);
    assert_eq!(groups(6), [6, 8, 16], "too few queries for a tile");
    let spec = Attention { tokens: 512, ..spec };
    assert_eq!(spec.partial_len(), 512 * 32 * (2 + 64));
}
