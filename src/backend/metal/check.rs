//! Every kernel on a device, against the scalar loops of the CPU.
//!
//! Operations are carried out by both backends and their results compared; products, whose inputs the CPU rounds to eight bits,
//! are compared with sums in double precision over weights that the CPU has dequantized.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use gristmill_kernels::quant::{GgmlType, dequantize_row};
use gristmill_kernels::rope::Pairing;
use gristmill_kernels::simd::Level;

use super::device::{About, Device};
use super::gpu::{Gpu, internal};
use super::host::Host;
use crate::backend::cpu::threads::Threads;
use crate::backend::cpu::{Cpu, Workspace};
use crate::backend::{
    Act, Activation, Attention, Backend, Cache, CacheType, CacheTypes, Constant, Convolution, Engine,
    Grouped, LayerShape, Map, Matrix, Norm, Recurrence, Router, Scan, Scoring, Sees, Slots, Turns, Wkv,
};
use crate::{Error, Result};

/// How far off results may be: of the largest number in them, or in a product of the largest sum that there could be. Roundings
/// explain a tenth of it; one wrong weight is ten times as much.
const BOUND: f64 = 1e-4;

/// What came of one operation.
#[derive(Clone, Debug)]
pub struct Check {
    /// The operation, and the format where there is one.
    pub what: String,
    /// The kernels that it was the first to use.
    pub kernels: Vec<String>,
    /// How far off the worst number was; [`Check::bound`] is what roundings explain.
    pub worst: f64,
    /// What the device or its compiler said, where it failed.
    pub failed: Option<String>,
}

impl Check {
    /// How far off results may be.
    pub fn bound() -> f64 {
        BOUND
    }

    /// Whether the device gave what the CPU gives.
    pub fn agrees(&self) -> bool {
        self.failed.is_none() && self.worst <= BOUND
    }
}

/// Every operation with every kernel, on a device.
pub struct Examination {
    /// The device.
    pub about: About,
    /// What came of each operation.
    pub checks: Vec<Check>,
}

impl Examination {
    /// How many operations did not give what the CPU gives.
    pub fn faults(&self) -> usize {
        self.checks.iter().filter(|check| !check.agrees()).count()
    }
}

/// Numbers between -1 and 1, the same every time (splitmix64).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    /// Rows of any bits that are numbers of moderate size.
    fn weights(&mut self, ty: GgmlType, len: usize, rows: usize) -> Vec<u8> {
        let mut bytes = vec![0; ty.row_bytes(len).unwrap_or(0) * rows];
        let mut numbers = vec![0.0; ty.block_len()];
        for block in bytes.chunks_exact_mut(ty.block_bytes()) {
            // A block of zeros stays where no draw is moderate.
            for _ in 0..100 {
                let drawn: Vec<u8> = block.iter().map(|_| self.bits() as u8).collect();
                let done = dequantize_row(ty, &drawn, &mut numbers).is_ok();
                if done && numbers.iter().all(|x| x.abs() < 1e4) {
                    block.copy_from_slice(&drawn);
                    break;
                }
            }
        }
        bytes
    }
}

/// Carries out every operation on `device`, and compares.
///
/// # Errors
/// [`Error::OutOfMemory`] on the CPU's side; what the device does wrong is told by the checks.
pub fn examine(device: Box<dyn Device>) -> Result<Examination> {
    let about = device.about().clone();
    let (host, threads) = (Host::new(device), Threads::new(1)?);
    let mut run = Run { host, threads, known: BTreeSet::new(), checks: Vec::new() };
    run.products()?;
    run.layers()?;
    run.attention()?;
    run.recurrences()?;
    run.largest();
    Ok(Examination { about, checks: run.checks })
}

struct Run {
    host: Host,
    threads: Threads,
    known: BTreeSet<String>,
    checks: Vec<Check>,
}

/// How far `found` is off, of `unit`; what is not a number here must not be one there.
fn worst(expected: &[f64], found: &[f32], units: impl Fn(usize) -> f64) -> f64 {
    if expected.len() != found.len() {
        return f64::INFINITY;
    }
    let far = |(i, (&expected, &found)): (usize, (&f64, &f32))| {
        let found = f64::from(found);
        match expected == found || expected.is_nan() && found.is_nan() {
            true => 0.0,
            false => (expected - found).abs() / units(i).max(f64::MIN_POSITIVE),
        }
    };
    // A NaN on one side only is a distance of NaN, which `max` would pass over.
    let far = expected.iter().zip(found).enumerate().map(far);
    far.fold(0.0, |worst: f64, far| if far.is_nan() { f64::INFINITY } else { worst.max(far) })
}

impl Run {
    fn note(&mut self, what: String, outcome: Result<f64>) {
        let kernels = self.host.kernels().difference(&self.known).cloned().collect();
        self.known.extend(self.host.kernels().iter().cloned());
        let (worst, failed) = match outcome {
            Ok(worst) => (worst, None),
            Err(error) => (f64::INFINITY, Some(error.to_string())),
        };
        self.checks.push(Check { what, kernels, worst, failed });
    }

    fn on_gpu(&mut self, job: impl FnOnce(&mut Gpu<'_>) -> Result<Act>) -> Result<Vec<f32>> {
        let mut gpu = Gpu::new(&mut self.host);
        let act = job(&mut gpu)?;
        Ok(gpu.read(act)?.to_vec())
    }

    /// Carries out a job on both, each with a cache of its own.
    fn both(
        &mut self,
        what: impl Into<String>,
        (types, shape): (impl Into<CacheTypes>, LayerShape),
        job: impl Fn(&mut dyn Backend, &mut Cache) -> Result<Act>,
    ) -> Result<()> {
        let types = types.into();
        let cache = || Cache::new(types, [shape]);
        let mut work = Workspace::default();
        let expected: Vec<f64> = self.threads.enter(|team| {
            let mut cpu = Cpu::new(Level::SCALAR, &Engine::Cpu, team, &mut work);
            let act = job(&mut cpu, &mut cache())?;
            Ok::<_, Error>(cpu.numbers(act).iter().map(|&x| f64::from(x)).collect())
        })?;
        let found = self.on_gpu(|gpu| job(gpu, &mut cache()));
        let largest = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        self.note(what.into(), found.map(|found| worst(&expected, &found, |_| largest)));
        Ok(())
    }

    /// As [`Run::both`], without a cache.
    fn each(&mut self, what: impl Into<String>, job: impl Fn(&mut dyn Backend) -> Result<Act>) -> Result<()> {
        self.both(what, (CacheType::F32, LayerShape::default()), |backend, _| job(backend))
    }

    fn products(&mut self) -> Result<()> {
        let mut random = Random(1);
        for &ty in GgmlType::COMPUTABLE {
            // Beyond a tile's edge.
            let (rows, len) = (66, if ty.block_len() == 1 { 77 } else { ty.block_len().max(32) * 2 });
            let row_bytes = ty.row_bytes(len).unwrap_or(0);
            let bytes = random.weights(ty, len, rows);
            let mut weights = vec![0.0; rows * len];
            let whole = bytes.chunks_exact(row_bytes.max(1)).zip(weights.chunks_exact_mut(len));
            for (bytes, to) in whole {
                dequantize_row(ty, bytes, to).map_err(|_| internal("a row that cannot be dequantized"))?;
            }
            let matrix = Matrix::new(("check", 0), ty, rows, len, bytes);
            let ids = [rows - 1, 0, 7, 7];
            let expected: Vec<f64> = ids
                .iter()
                .flat_map(|row| weights.iter().skip(row * len).take(len).map(|&x| f64::from(x)))
                .collect();
            let found = self.on_gpu(|gpu| gpu.lookup(&matrix, &ids));
            // These must be the same to the bit.
            self.note(format!("lookup {ty}"), found.map(|found| worst(&expected, &found, |_| 0.0)));
            for columns in [1, 5, 9, 66] {
                let x = random.floats(columns * len);
                let bias: Constant = random.floats(rows).into();
                let found = self.on_gpu(|gpu| {
                    let x = gpu.write(len, &x)?;
                    gpu.linear(&matrix, Some(&bias), x)
                });
                let all = (0..rows * columns).map(|i| (0, i % rows, i / rows));
                let found = found.map(|found| products(&weights, len, &x, Some(&bias), all, &found));
                self.note(format!("product {ty}, columns {columns}"), found);
            }
        }
        self.experts(&mut random)?;
        self.routers(&mut random)
    }

    fn experts(&mut self, random: &mut Random) -> Result<()> {
        let (of, first, rows, len, experts) = (20, 3, 10, 64, 3);
        let ty = GgmlType::F32;
        let weights = random.floats(experts * of * len);
        let bytes: Vec<u8> = weights.iter().flat_map(|x| x.to_le_bytes()).collect();
        let weights_of = Matrix::new(("check", 0), ty, experts * of, len, bytes);
        let grouped = Grouped { weights: weights_of, of, first, rows, bias: None };
        for tokens in [2, 70] {
            let chosen: Vec<_> = (0..tokens).map(|token| vec![(token % 2, 0.25), (2, 0.75)]).collect();
            let slots = Slots::new(&chosen);
            let x = random.floats(slots.tokens.len() * len);
            let found = self.on_gpu(|gpu| {
                let x = gpu.write(len, &x)?;
                gpu.linear_grouped(&grouped, &slots, x)
            });
            let of_slot = slots.runs.iter().flat_map(|(expert, run)| run.clone().map(|slot| (*expert, slot)));
            let all =
                of_slot.flat_map(|(expert, slot)| (0..rows).map(move |row| (expert * of + first, row, slot)));
            let found = found.map(|found| products(&weights, len, &x, None, all, &found));
            self.note(format!("product by expert, {tokens} tokens"), found);
            let y = random.floats(slots.tokens.len() * len);
            self.each(format!("experts joined, {tokens} tokens"), |backend| {
                let y = backend.write(len, &y)?;
                backend.weigh(&slots.weights, y)?;
                backend.combine(&slots, true, y)
            })?;
        }
        Ok(())
    }

    /// Experts that routers of every kind choose, known by their bias.
    fn routers(&mut self, random: &mut Random) -> Result<()> {
        let (tokens, len) = (3, 4);
        // Fewer experts than lanes, and more; weights as they are, and changed in all ways.
        for (count, used, groups) in [(5, 2, (1, 1)), (72, 6, (9, 4)), (40, 8, (40, 20))] {
            for scoring in [Scoring::Softmax, Scoring::Sigmoid, Scoring::SoftmaxOfChosen] {
                for changed in [false, true] {
                    let mut vector = || changed.then(|| Constant::from(random.floats(count)));
                    let router = Router {
                        scoring,
                        count,
                        used,
                        normalize: changed,
                        scale: if changed { 2.5 } else { 1.0 },
                        groups,
                        bias: vector(),
                        expert_scales: vector(),
                        choice: None,
                    };
                    let mut scores = random.floats(tokens * count);
                    // Equal ones: the first counts more.
                    if let Some(some) = scores.get_mut(1..4) {
                        some.fill(1.5);
                    }
                    let zeros =
                        Matrix::new(("check", 0), GgmlType::F32, count, len, vec![0_u8; count * len * 4]);
                    let bias: Vec<f32> = (0..count).map(|expert| 1.0 + expert as f32 * 0.37).collect();
                    let known = Grouped { weights: zeros, of: 1, first: 0, rows: 1, bias: Some(bias.into()) };
                    let x = random.floats(tokens * len);
                    self.each(format!("router of {used} of {count}, {scoring:?}, {changed}"), |backend| {
                        let (scores, x) = (backend.write(count, &scores)?, backend.write(len, &x)?);
                        let slots = backend.route(&router, scores)?;
                        let x = backend.select(x, &slots.tokens)?;
                        let which = backend.linear_grouped(&known, &slots, x)?;
                        backend.weigh_slots(&slots, which)?;
                        backend.combine(&slots, true, which)
                    })?;
                }
            }
        }
        Ok(())
    }

    fn layers(&mut self) -> Result<()> {
        let mut random = Random(2);
        for width in [40, 700] {
            let (x, y) = (random.floats(3 * width), random.floats(3 * width));
            let (weight, bias): (Constant, Constant) =
                (random.floats(width).into(), random.floats(width).into());
            let rms = Norm::Rms { weight: weight.clone(), eps: 1e-5 };
            let layer = Norm::Layer { weight: weight.clone(), bias: bias.clone(), eps: 1e-5 };
            for (name, norm) in [("rms norm", rms), ("layer norm", layer)] {
                self.each(format!("{name} of {width}"), |backend| {
                    let x = backend.write(width, &x)?;
                    let y = backend.norm(&norm, x)?;
                    backend.norm_in_place(&norm, y)?;
                    backend.add(y, x)?;
                    let z = backend.norm(&norm, y)?;
                    backend.add(z, y)?;
                    Ok(z)
                })?;
            }
            for pairing in [Pairing::Halves, Pairing::Neighbours] {
                let by: Vec<f32> =
                    (0..3 * 8).flat_map(|i| [libm::cosf(i as f32), libm::sinf(i as f32)]).collect();
                let turns = Turns { pairing, pairs: 8, by: by.into() };
                self.each(format!("rope of {width}, {pairing:?}"), |backend| {
                    let x = backend.write(width, &x)?;
                    backend.rope(&turns, 20, x)?;
                    Ok(x)
                })?;
            }
            use Activation as A;
            for activation in [
                A::Silu,
                A::GeluTanh,
                A::Gelu,
                A::Relu,
                A::ReluSquared,
                A::Sigmoid,
                A::Identity,
                A::SwigluClamped,
            ] {
                self.each(format!("{activation:?} of {width}"), |backend| {
                    let (x, y) = (backend.write(width, &x)?, backend.write(width, &y)?);
                    backend.gated(activation, x, y)?;
                    // Writes what was only read since the last barrier.
                    backend.activate(activation, y)?;
                    backend.columns(&[(x, 1..width), (y, 0..3)])
                })?;
            }
            let maps = [
                Map::Scale(3.0),
                Map::Clamp(0.5),
                Map::SoftCap(0.7),
                Map::Softplus,
                Map::Exp,
                Map::Sparse(0.4),
            ];
            for map in maps {
                self.each(format!("{map:?} of {width}"), |backend| {
                    let x = backend.write(width, &x)?;
                    backend.map(map, x)?;
                    Ok(x)
                })?;
            }
            self.each(format!("rows and columns of {width}"), |backend| {
                let (x, y) = (backend.write(width, &x)?, backend.write(width, &y)?);
                backend.scale_columns(&weight, x)?;
                backend.shift_columns(&bias, x)?;
                let factors = backend.columns(&[(y, 2..3)])?;
                backend.scale_rows(x, factors)?;
                let to = backend.columns(&[(y, 0..width)])?;
                backend.blend(to, &[x, y], &[1.0, 2.0, -0.5, 0.25, 3.0, -1.0])?;
                backend.select(to, &[2, 0, 0])
            })?;
        }
        Ok(())
    }

    fn attention(&mut self) -> Result<()> {
        let mut random = Random(3);
        let pairs = CacheType::ALL
            .iter()
            .flat_map(|&keys| CacheType::ALL.iter().map(move |&values| CacheTypes { keys, values }));
        for types in pairs {
            let shapes = [32, 160, 264].map(|dim| (dim, Sees::Past));
            let others = [(40, Sees::Last(5)), (32, Sees::All)];
            // Two forms are four kernels more: by the size of heads, and for a prompt others than for a token.
            let some = if types.keys == types.values { others.len() } else { 0 };
            for (dim, sees) in shapes.into_iter().chain(others.into_iter().take(some)) {
                let shape = LayerShape { heads: 2, key_dim: dim, value_dim: dim, sees };
                let spec = Attention {
                    heads: 4,
                    shape,
                    scale: 0.3,
                    cap: (dim == 40).then_some(20.0),
                    sinks: if dim == 40 { random.floats(4).into() } else { Constant::default() },
                    slopes: if dim == 264 { random.floats(4).into() } else { Constant::default() },
                };
                // Two queries a token to a head of keys: more than a tile of them.
                let whole = 18;
                let [q, k, v] = [4, 2, 2].map(|heads| random.floats((whole + 1) * heads * dim));
                let (keys, values) = (types.keys.name(), types.values.name());
                let name = format!("attention, keys {keys}, values {values}, heads of {dim}, {sees:?}");
                // Codes of a few bits may differ where a number lies between two of them.
                self.both(name, (types, shape), |backend, cache| {
                    let mut results = Vec::new();
                    for tokens in [0..whole, whole..whole + 1] {
                        let mut part = |heads: usize, all: &[f32]| {
                            let rows = all.chunks_exact(heads * dim).skip(tokens.start).take(tokens.len());
                            backend.write(heads * dim, &rows.flatten().copied().collect::<Vec<_>>())
                        };
                        let (q, k, v) = (part(4, &q)?, part(2, &k)?, part(2, &v)?);
                        let y = backend.attention(&spec, cache, 0, tokens.start, q, k, v)?;
                        results.extend_from_slice(backend.read(y)?);
                    }
                    backend.write(4 * dim, &results)
                })?;
            }
        }
        Ok(())
    }

    fn recurrences(&mut self) -> Result<()> {
        let mut random = Random(4);
        let tokens = 5;
        for delta in [true, false] {
            let by = Recurrence { heads: 4, key_heads: 2, key_dim: 16, value_dim: 24, delta, tiled: delta };
            let [q, k, v, decays, rates] =
                [2 * 16, 2 * 16, 4 * 24, 4, 4].map(|width| random.floats(tokens * width));
            self.both(
                format!("recurrence{}", if delta { " with the delta rule" } else { "" }),
                (CacheType::F32, LayerShape::default()),
                |backend, cache| {
                    // Twice, so that what is kept is taken up.
                    let mut y = None;
                    for turn in 0..2 {
                        let state = backend.state(&cache.states, (0, 0), turn * tokens, by.state_len())?;
                        let qkv = [
                            backend.write(2 * 16, &q)?,
                            backend.write(2 * 16, &k)?,
                            backend.write(4 * 24, &v)?,
                        ];
                        let gates = [backend.write(4, &decays)?, backend.write(4, &rates)?];
                        y = Some(backend.recur(&by, state, qkv, gates)?);
                        backend.keep_state(&mut cache.states, (0, 0), (turn + 1) * tokens, state)?;
                    }
                    y.ok_or_else(|| internal("no turn was taken"))
                },
            )?;
        }
        let by = Wkv { heads: 2, dim: 16 };
        let inputs: [Vec<f32>; 6] = std::array::from_fn(|_| random.floats(tokens * 32));
        self.both("wkv", (CacheType::F32, LayerShape::default()), |backend, cache| {
            let state = backend.state(&cache.states, (0, 0), 0, by.state_len())?;
            let mut acts = Vec::new();
            for input in &inputs {
                acts.push(backend.write(32, input)?);
            }
            let acts = acts.try_into().map_err(|_| internal("six inputs"))?;
            backend.wkv(&by, state, acts)
        })?;
        let (channels, states) = (72, 6);
        let by = Scan::new(random.floats(channels * states), channels, states)
            .ok_or_else(|| internal("channels of no whole blocks"))?;
        let inputs = [channels, channels, states, states].map(|width| (width, random.floats(tokens * width)));
        self.both("scan", (CacheType::F32, LayerShape::default()), |backend, cache| {
            let state = backend.state(&cache.states, (0, 0), 0, by.state_len())?;
            let mut acts = Vec::new();
            for (width, input) in &inputs {
                acts.push(backend.write(*width, input)?);
            }
            let acts = acts.try_into().map_err(|_| internal("four inputs"))?;
            backend.scan(&by, state, acts)
        })?;
        let by = Convolution {
            weights: random.floats(4 * channels).into(),
            bias: Some(random.floats(channels).into()),
            channels,
        };
        let x = random.floats(tokens * channels);
        self.both("convolution", (CacheType::F32, LayerShape::default()), |backend, cache| {
            let state = backend.state(&cache.states, (0, 0), 0, by.state_len())?;
            let x = backend.write(channels, &x)?;
            let y = backend.convolve(&by, state, x)?;
            backend.convolve(&by, state, y)
        })
    }

    /// The largest of many.
    fn largest(&mut self) {
        let mut numbers = Random(5).floats(5000);
        if let Some(x) = numbers.get_mut(4321) {
            *x = 2.0;
        }
        let mut gpu = Gpu::new(&mut self.host);
        let left = gpu.write(numbers.len(), &numbers).and_then(|x| gpu.leave(x)).and_then(|left| {
            let left = left.ok_or_else(|| internal("a row that is not left"))?;
            match left.place {
                4321 => Ok(left.largest),
                _ => Err(internal("the largest number is found in another place")),
            }
        });
        let found = left.map(|largest| worst(&[2.0], &[largest], |_| 0.0));
        self.note("largest".to_owned(), found);
    }
}

/// How far products are off: for each the first row of its expert, the row there and the column.
fn products(
    weights: &[f32],
    len: usize,
    x: &[f32],
    bias: Option<&Constant>,
    all: impl Iterator<Item = (usize, usize, usize)>,
    found: &[f32],
) -> f64 {
    let (mut sums, mut units) = (Vec::new(), Vec::new());
    for (first, row, column) in all {
        let weights = weights.iter().skip((first + row) * len).take(len);
        let x = x.iter().skip(column * len).take(len);
        let add = bias.and_then(|bias| bias.get(row)).map_or(0.0, |&x| f64::from(x));
        let (mut sum, mut most, mut size) = (add, 0.0f64, 0.0);
        for (&w, &x) in weights.zip(x) {
            sum += f64::from(w) * f64::from(x);
            most = most.max(f64::from(w).abs());
            size += f64::from(x).abs();
        }
        sums.push(sum);
        units.push(most * size + add.abs());
    }
    worst(&sums, found, |i| units.get(i).copied().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_on_one_side_only_is_as_far_off_as_can_be() {
        assert_eq!(worst(&[1.0, 2.0], &[1.0, 2.5], |_| 2.0), 0.25);
        assert_eq!(worst(&[f64::NAN, 0.0], &[f32::NAN, 0.0], |_| 0.0), 0.0);
        for found in [[f32::NAN, 1.0], [1.0, f32::NAN]] {
            assert_eq!(worst(&[1.0, 1.0], &found, |_| 1.0), f64::INFINITY);
        }
        assert_eq!(worst(&[f64::NAN], &[1.0], |_| 1.0), f64::INFINITY);
        assert_eq!(worst(&[1.0], &[], |_| 1.0), f64::INFINITY);
        assert!(worst(&[1.0], &[1.0f32.next_up()], |_| 0.0) > 1.0, "to the bit");
    }
}
