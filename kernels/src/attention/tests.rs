use super::*;

const PLAIN: Head = Head { key_dim: 40, value_dim: 24, scale: 0.15, cap: None };

fn noise(i: usize) -> f32 {
    ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// Keys and values of some positions, as they were and as a cache keeps them.
struct Cache {
    layout: Layout,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    lines: Vec<Line>,
}

impl Cache {
    /// The positions behind the last hold what was left of others: NaN.
    fn new(level: Level, head: Head, key_type: CacheType, value_type: CacheType, positions: usize) -> Cache {
        let layout = Layout::new(key_type, value_type, head.key_dim, head.value_dim);
        let blocks = positions.div_ceil(BLOCK);
        let mut lines = vec![Line::default(); blocks * layout.lines()];
        let row = |seed: usize, len: usize| -> Vec<f32> { (0..len).map(|i| noise(seed + i)).collect() };
        let mut keys: Vec<_> = (0..positions).map(|pos| row(pos * 100, head.key_dim)).collect();
        let mut values: Vec<_> = (0..positions).map(|pos| row(pos * 77 + 9, head.value_dim)).collect();
        let (nan_key, nan_value) = (vec![f32::NAN; head.key_dim], vec![f32::NAN; head.value_dim]);
        let refs = |rows: &[Vec<f32>], nan: &[f32]| -> Vec<Vec<f32>> {
            (0..blocks * BLOCK).map(|pos| rows.get(pos).map_or(nan, Vec::as_slice).to_vec()).collect()
        };
        let (all_keys, all_values) = (refs(&keys, &nan_key), refs(&values, &nan_value));
        for (block, lines) in lines.chunks_exact_mut(layout.lines()).enumerate() {
            // In two parts, the way tokens come.
            for part in [0..11, 11..BLOCK] {
                let at = part.start;
                let part = block * BLOCK + part.start..block * BLOCK + part.end;
                let keys: Vec<&[f32]> = all_keys[part.clone()].iter().map(Vec::as_slice).collect();
                let values: Vec<&[f32]> = all_values[part].iter().map(Vec::as_slice).collect();
                layout.put(level, lines, at, &keys, &values).unwrap();
            }
        }
        // What is kept is exact from here on, so that the errors that tests measure are attention's own.
        keys.iter_mut().for_each(|row| round(key_type, row));
        values.iter_mut().for_each(|row| round(value_type, row));
        Cache { layout, keys, values, lines }
    }

    fn blocks(&self) -> Vec<Block<'_>> {
        self.lines.chunks(self.layout.lines()).map(|lines| self.layout.block(lines).unwrap()).collect()
    }
}

/// What is left of a row that was kept.
fn round(ty: CacheType, row: &mut [f32]) {
    use half::{bf16, f16};
    for row in row.chunks_mut(32) {
        let extreme = row.iter().fold(0.0_f32, |m, &x| if x.abs() > m.abs() { x } else { m });
        for x in row {
            *x = match ty {
                CacheType::F32 => *x,
                CacheType::F16 => f16::from_f32(*x).to_f32(),
                CacheType::Bf16 => bf16::from_f32(*x).to_f32(),
                CacheType::Q8_0 => {
                    let scale = extreme.abs() / 127.0;
                    (*x / scale).round() * f16::from_f32(scale).to_f32()
                }
                CacheType::Q4_0 => {
                    let scale = extreme / -8.0;
                    ((*x / scale + 8.5).floor().min(15.0) - 8.0) * f16::from_f32(scale).to_f32()
                }
            };
        }
    }
}

/// Some tokens and what becomes of their scores.
struct Case {
    head: Head,
    group: usize,
    tokens: Vec<Vec<f32>>,
    visible: Vec<Range<usize>>,
    position: usize,
    slopes: Vec<f32>,
    sinks: Vec<f32>,
}

impl Case {
    fn new(head: Head, group: usize, visible: &[Range<usize>]) -> Case {
        let query = |t: usize| (0..group * head.key_dim).map(|i| noise(t * 1000 + i + 5) * 3.0).collect();
        let tokens = (0..visible.len()).map(query).collect();
        let visible = visible.to_vec();
        Case { head, group, tokens, visible, position: 60, slopes: vec![], sinks: vec![] }
    }

    /// The results of the tokens at `which`.
    fn run(&self, level: Level, blocks: &[Block<'_>], which: Range<usize>) -> Vec<f32> {
        let Case { head, group, .. } = *self;
        let tokens: Vec<&[f32]> = self.tokens[which.clone()].iter().map(Vec::as_slice).collect();
        let queries = Queries {
            tokens: &tokens,
            visible: &self.visible[which.clone()],
            position: self.position + which.start,
            group,
            slopes: &self.slopes,
        };
        let count = which.len() * group;
        let mut scratch = vec![f32::NAN; head.scratch_len(count)];
        let [mut span, mut total] = [(); 2].map(|()| vec![f32::NAN; head.partial_len(count)]);
        begin(head, count, &mut total).unwrap();
        for first in (0..blocks.len()).step_by(SPAN / BLOCK) {
            let (blocks, rest) = blocks[first..].split_at((SPAN / BLOCK).min(blocks.len() - first));
            let blocks = Span { first, blocks, next: rest.first() };
            attend(level, head, blocks, &queries, &mut scratch, &mut span).unwrap();
            join(level, head, count, &span, &mut total).unwrap();
        }
        let mut out = vec![f32::NAN; count * head.value_dim];
        let mut output = Output::new(&mut out, group * head.value_dim).unwrap();
        finish(level, head, group, &mut total, &self.sinks, &mut output).unwrap();
        out
    }

    /// Softmax of scores times values, in double precision.
    fn check(&self, cache: &Cache, found: &[f32]) {
        let Case { head, group, .. } = *self;
        for (t, seen) in self.visible.iter().enumerate() {
            for h in 0..group {
                let query = &self.tokens[t][h * head.key_dim..][..head.key_dim];
                let score = |pos: usize| {
                    let dot: f64 =
                        query.iter().zip(&cache.keys[pos]).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                    let score = dot * f64::from(head.scale);
                    let score =
                        head.cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh());
                    let far = pos.abs_diff(self.position + t) as f64;
                    score - self.slopes.get(h).map_or(0.0, |&slope| f64::from(slope) * far)
                };
                let weights: Vec<f64> = seen.clone().map(|pos| score(pos).exp()).collect();
                let sink = self.sinks.get(h).map_or(0.0, |&sink| f64::from(sink).exp());
                let all = weights.iter().sum::<f64>() + sink;
                for i in 0..head.value_dim {
                    let values = seen.clone().map(|pos| f64::from(cache.values[pos][i]));
                    let expected = values.zip(&weights).map(|(v, w)| v * w).sum::<f64>() / all;
                    let found = f64::from(found[(t * group + h) * head.value_dim + i]);
                    assert!(
                        (found - expected).abs() < 3e-6,
                        "{:?} token {t} head {h} value {i}: {found} {expected}",
                        cache.layout
                    );
                }
            }
        }
    }
}

const SEEN: [Range<usize>; 8] = [0..1, 0..32, 5..33, 0..64, 0..63, 1..64, 40..70, 69..70];

#[test]
fn attention_is_softmax_of_scores_times_values_whatever_the_cache_keeps() {
    for &key_type in CacheType::ALL {
        for &value_type in CacheType::ALL {
            let cache = Cache::new(Level::detect(), PLAIN, key_type, value_type, 70);
            // All together, and alone those of whole blocks, but for the last or the first position.
            for seen in [&SEEN[..], &SEEN[3..4], &SEEN[4..5], &SEEN[5..6]] {
                let case = Case::new(PLAIN, 3, seen);
                case.check(&cache, &case.run(Level::detect(), &cache.blocks(), 0..seen.len()));
            }
        }
    }
}

#[test]
fn scores_are_capped_and_slanted_and_sinks_take_their_part() {
    let cache = Cache::new(Level::detect(), PLAIN, CacheType::F32, CacheType::F32, 70);
    let visible = [0..70, 10..70, 0..63, 33..64];
    let head = Head { cap: Some(2.0), ..PLAIN };
    let cases = [
        Case::new(head, 3, &visible),
        Case { slopes: vec![0.5, 0.0, 0.004], ..Case::new(PLAIN, 3, &visible) },
        Case { sinks: vec![-1.0, 20.0, 3.0], ..Case::new(PLAIN, 3, &visible) },
        Case { slopes: vec![0.25, 0.5], sinks: vec![1.0, 2.0], ..Case::new(head, 2, &visible) },
    ];
    for case in cases {
        case.check(&cache, &case.run(Level::detect(), &cache.blocks(), 0..visible.len()));
    }
}

#[test]
fn neither_level_nor_batch_changes_a_bit() {
    let heads = [PLAIN, Head { key_dim: 65, value_dim: 33, scale: 0.1, cap: Some(4.0) }];
    let visible: Vec<_> = [0..597, 0..598, 60..599, 0..600, 530..601, 0..602, 599..603].into();
    for (number, &ty) in CacheType::ALL.iter().enumerate() {
        for head in heads {
            let cache = Cache::new(Level::SCALAR, head, ty, ty, 603);
            for level in Level::available() {
                let other = Cache::new(level, head, ty, ty, 603);
                let bytes = |cache: &Cache| bytemuck::cast_slice::<Line, u8>(&cache.lines).to_vec();
                assert!(bytes(&other) == bytes(&cache), "{ty} at {level}");
            }
            for group in [1 + number, 8] {
                let slopes = (0..group).map(|h| 0.01 * h as f32).collect();
                let case = Case { slopes, position: 597, ..Case::new(head, group, &visible) };
                let expected = case.run(Level::SCALAR, &cache.blocks(), 0..visible.len());
                // Two spans: levels and batches might agree on what is wrong.
                case.check(&cache, &expected);
                for level in Level::available() {
                    let found = case.run(level, &cache.blocks(), 0..visible.len());
                    assert_eq!(found, expected, "{ty} {level} group {group}");
                    let parts = [0..1, 1..3, 3..visible.len()];
                    let found: Vec<f32> =
                        parts.into_iter().flat_map(|part| case.run(level, &cache.blocks(), part)).collect();
                    assert_eq!(found, expected, "{ty} {level} group {group} in parts");
                }
            }
        }
    }
}

#[test]
fn damage_shows_where_it_is_seen_and_nowhere_else() {
    let mut cache = Cache::new(Level::detect(), PLAIN, CacheType::F16, CacheType::F16, 70);
    let nan = [f32::NAN; 40];
    let layout = cache.layout;
    let lines = &mut cache.lines[layout.lines()..2 * layout.lines()];
    layout.put(Level::detect(), lines, 8, &[&nan], &[&nan[..24]]).unwrap();
    // Position 40 is damaged.
    for group in [1, 4] {
        let case = Case::new(PLAIN, group, &[0..40, 0..41, 41..70, 30..70]);
        let found = case.run(Level::detect(), &cache.blocks(), 0..4);
        for (found, damaged) in found.chunks(group * 24).zip([false, true, false, true]) {
            assert!(found.iter().all(|x| x.is_nan() == damaged), "{found:?}");
        }
    }
}

#[test]
fn sizes_that_are_nothing_or_do_not_belong_together_are_refused() {
    let head = Head { key_dim: 4, value_dim: 4, scale: 1.0, cap: None };
    let lines = |head: Head| {
        let layout = Layout::new(CacheType::F32, CacheType::Q8_0, head.key_dim, head.value_dim);
        (layout, vec![Line::default(); layout.lines()])
    };
    let (layout, four) = lines(head);
    let blocks = [layout.block(&four).unwrap()];
    let attend = |head: Head, group, visible: &[Range<usize>], slopes: &[f32], scratch: usize| {
        let queries = Queries { tokens: &[&[0.0; 8]], visible, position: 0, group, slopes };
        let mut partial = vec![0.0; head.partial_len(group)];
        let span = Span { first: 0, blocks: &blocks, next: None };
        attend(Level::detect(), head, span, &queries, &mut vec![0.0; scratch], &mut partial)
    };
    let seen = core::array::from_fn::<_, 1, _>(|_| 0..1);
    assert_eq!(attend(head, 2, &seen, &[], head.scratch_len(2)), Ok(()));
    let expected = head.scratch_len(2);
    assert_eq!(
        attend(head, 2, &seen, &[], expected - 1),
        Err(Mismatch { what: "floats of scratch memory", expected, found: expected - 1 })
    );
    for (head, group) in [
        (Head { key_dim: 0, ..head }, 2),
        (Head { value_dim: 0, ..head }, 2),
        (Head { key_dim: 8, ..head }, 1),
        (Head { value_dim: 40, ..head }, 2),
        (head, 0),
        (head, 3),
    ] {
        assert!(attend(head, group, &seen, &[], 10_000).is_err(), "{head:?} {group}");
    }
    assert!(attend(head, 2, &[], &[], 10_000).is_err());
    assert!(attend(head, 2, &seen, &[1.0], 10_000).is_err());
    let mut lines = four.clone();
    assert!(layout.block(&lines[1..]).is_err());
    assert!(layout.put(Level::detect(), &mut lines, 0, &[&[0.0; 3]], &[&[0.0; 4]]).is_err());
    let two: [&[f32]; 2] = [&[0.0; 4]; 2];
    assert!(layout.put(Level::detect(), &mut lines, 31, &two, &two).is_err());
    assert!(join(Level::detect(), head, 2, &[0.0; 30], &mut [0.0; 36]).is_err());
    assert!(begin(head, 2, &mut [0.0; 30]).is_err());
}
