//! Products of each format, ours beside ggml's, and the limits of the machine:
//! `cargo bench --features ggml --bench kernels -- [FORMAT]... [--quick] [--level=NAME]`
//!
//! One thread. Rates count what a product needs, whoever computes it: the bytes of the weights once, and a
//! multiplication for each weight and column; quantizing the activations is part of every product, ours and ggml's.
//! The contenders alternate, round by round, and the figure is that of the best round: what a
//! machine shared with others lets through. Every answer is checked
//! against the product of the dequantized weights, so that no contender is fast by being wrong.
//!
//! GB/s are of one column and a matrix that no cache holds; GMAC/s of a matrix of 2048 x 2048. Without the feature
//! `ggml`, ours alone. A FORMAT is part of a name, such as `q4_` or `iq`; `attention` measures attention.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark prints its figures, and fails where it cannot go on"
)]

mod attention;
mod limits;
mod random;

use std::time::{Duration, Instant};

use gristmill_kernels::Output;
use gristmill_kernels::activations::{Columns, Layout, Room, quantize};
use gristmill_kernels::product::{form, multiply, scratch_len};
use gristmill_kernels::quant::{GgmlType, dequantize_row};
use gristmill_kernels::simd::Level;
use random::Random;

/// Sizes of the small matrix, and the numbers of columns that it is multiplied with.
const SIDE: usize = 2048;
const COLUMNS: [usize; 6] = [1, 2, 4, 8, 16, 512];
/// Length of the large matrix's rows: that of a feed-forward layer of a model of some billion weights.
const LARGE_ROW: usize = 8192;
/// Types that no model's matrices have: partners of activations, and whole numbers.
const NOT_WEIGHTS: [GgmlType; 7] = [
    GgmlType::F64,
    GgmlType::I8,
    GgmlType::I16,
    GgmlType::I32,
    GgmlType::I64,
    GgmlType::Q8_1,
    GgmlType::Q8_K,
];

struct Settings {
    level: Level,
    /// Bytes of the large matrix: twice a last-level cache of 32 MiB.
    large: usize,
    rounds: usize,
    /// The least that a contender is timed in a round.
    least: Duration,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).map(|arg| arg.to_lowercase()).collect();
    let quick = args.iter().any(|arg| arg == "--quick");
    let wanted: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let level = args.iter().find_map(|arg| arg.strip_prefix("--level="));
    let level = level.map_or(Level::detect(), |name| Level::named(name).unwrap());
    let settings = match quick {
        true => Settings { level, large: 64 << 20, rounds: 3, least: Duration::from_millis(4) },
        false => Settings { level, large: 64 << 20, rounds: 7, least: Duration::from_millis(8) },
    };
    let began = Instant::now();
    println!("{}\n", about(level));
    println!("| limit, of one thread where not said | |\n|---|---:|");
    for (what, figure) in limits::measure(level) {
        println!("| {what} | {figure} |");
    }
    println!("\n| format | | GB/s, 1 column | {} |", COLUMNS.map(|n| format!("GMAC/s, {n}")).join(" | "));
    println!("|---|---|{}", "---:|".repeat(1 + COLUMNS.len()));
    let formats = GgmlType::COMPUTABLE.iter().filter(|ty| !NOT_WEIGHTS.contains(ty)).filter(|ty| {
        let name = ty.to_string().to_lowercase();
        wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str()))
    });
    for &ty in formats {
        for line in measure(ty, &settings) {
            println!("{line}");
        }
    }
    if wanted.is_empty() || wanted.iter().any(|wanted| *wanted == "attention") {
        println!();
        attention::measure(level, quick).iter().for_each(|line| println!("{line}"));
    }
    println!("\n{:.0} s in all", began.elapsed().as_secs_f64());
}

/// What was measured with what.
fn about(level: Level) -> String {
    let ours = format!("gristmill {} at level {level}", env!("CARGO_PKG_VERSION"));
    #[cfg(feature = "ggml")]
    let ours = format!("{ours}, ggml {}", gristmill::ggml::version());
    ours
}

/// A matrix and its activations, and what their products should be.
struct Problem {
    ty: GgmlType,
    rows: usize,
    len: usize,
    weights: Vec<u8>,
    /// `[columns, len]`.
    x: Vec<f32>,
}

impl Problem {
    /// `rows` rows of `len` weights, made of the blocks of `pool` in turn.
    fn new(ty: GgmlType, pool: &[Vec<u8>], rows: usize, len: usize, columns: usize) -> Self {
        let blocks = rows * len / ty.block_len();
        // Walking by a prime gives each row other blocks.
        let weights = (0..blocks).flat_map(|i| &pool[(i * 7 + i / 911) % pool.len()]).copied().collect();
        let mut random = Random(2);
        let x = (0..columns * len).map(|_| random.unit()).collect();
        Problem { ty, rows, len, weights, x }
    }

    /// Checks some of the products `out` `[columns, rows]` of the first `columns` columns.
    fn check(&self, columns: usize, out: &[f32], who: &str) {
        assert!(out.iter().all(|y| y.is_finite()), "{}, {who}: products that are not finite", self.ty);
        let row_bytes = self.ty.row_bytes(self.len).unwrap();
        let mut weights = vec![0.0; self.len];
        for row in [0, 1, self.rows / 2, self.rows - 1] {
            dequantize_row(self.ty, &self.weights[row * row_bytes..][..row_bytes], &mut weights).unwrap();
            let norm = weights.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt();
            for column in [0, columns / 2, columns - 1] {
                let x = &self.x[column * self.len..][..self.len];
                let exact: f64 = weights.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
                let found = f64::from(out[column * self.rows + row]);
                // Activations up to 1 are rounded to steps of 1/127, off by 0.0023 on average: sixteen times that is
                // no accident any more.
                assert!(
                    (found - exact).abs() <= 0.036 * norm,
                    "{}, {who}, {columns} columns: product {found}, exactly {exact}",
                    self.ty
                );
            }
        }
    }
}

/// Computes `out` `[columns, rows]` for the first columns of a problem.
trait Contender {
    fn name(&self) -> &'static str;
    fn multiply(&mut self, x: &[f32], out: &mut [f32]);
}

struct Ours<'a> {
    level: Level,
    problem: &'a Problem,
    codes: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
    scratch: Vec<f32>,
}

impl<'a> Ours<'a> {
    fn new(problem: &'a Problem, level: Level) -> Self {
        let scratch = vec![];
        Ours { level, problem, codes: vec![], scales: vec![], sums: vec![], scratch }
    }
}

impl Contender for Ours<'_> {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn multiply(&mut self, x: &[f32], out: &mut [f32]) {
        let Problem { ty, len, rows, ref weights, .. } = *self.problem;
        let (level, form) = (self.level, form(ty).unwrap());
        self.scratch.resize(scratch_len(x.len() / len), 0.0);
        let layout = Layout::new(level, form, len, x.len() / len).unwrap();
        let [codes, scales, sums] = layout.total_lens();
        self.codes.resize(codes, 0);
        self.scales.resize(scales, 0.0);
        self.sums.resize(sums, 0);
        let mut room = Room { codes: &mut self.codes, scales: &mut self.scales, sums: &mut self.sums };
        for part in layout.parts(x, &mut room) {
            quantize(level, layout, part).unwrap();
        }
        let columns = Columns::quantized(layout, &self.codes, &self.scales, &self.sums);
        let out = Output::new(out, rows).unwrap();
        multiply(level, ty, weights, columns.unwrap(), &mut self.scratch, out).unwrap();
    }
}

#[cfg(feature = "ggml")]
struct Theirs<'a> {
    name: &'static str,
    weights: gristmill::ggml::Weights<'a>,
    threads: gristmill::ggml::Threads,
}

#[cfg(feature = "ggml")]
impl Contender for Theirs<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn multiply(&mut self, x: &[f32], out: &mut [f32]) {
        self.threads.mul_mat(&self.weights, x, out).unwrap();
    }
}

/// ggml's products: in the file's layout, and in the one that it prefers where it has one.
#[cfg(feature = "ggml")]
fn theirs(problem: &Problem) -> Vec<Box<dyn Contender + '_>> {
    use gristmill::ggml::{Threads, Weights};
    let Problem { ty, rows, len, ref weights, .. } = *problem;
    if gristmill::ggml::partner(ty).is_none() {
        return Vec::new();
    }
    let plain = Weights::new(ty, rows, len, weights).unwrap();
    let repacked = Weights::repacked(ty, rows, len, weights).unwrap();
    [("ggml", Some(plain)), ("ggml, repacked", repacked)]
        .into_iter()
        .filter_map(|(name, weights)| {
            let contender = Theirs { name, weights: weights?, threads: Threads::new(1).unwrap() };
            Some(Box::new(contender) as Box<dyn Contender>)
        })
        .collect()
}

#[cfg(not(feature = "ggml"))]
fn theirs(_problem: &Problem) -> Vec<Box<dyn Contender + '_>> {
    Vec::new()
}

/// Seconds of a product by each contender, with its name.
fn time(problem: &Problem, columns: usize, settings: &Settings) -> Vec<(&'static str, f64)> {
    let mut contenders: Vec<Box<dyn Contender + '_>> = vec![Box::new(Ours::new(problem, settings.level))];
    contenders.extend(theirs(problem));
    let x = &problem.x[..columns * problem.len];
    let mut out = vec![f32::NAN; columns * problem.rows];
    let mut times = vec![Vec::new(); contenders.len()];
    // The first round warms up, and is checked.
    for round in 0..=settings.rounds {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            if round == 0 {
                out.fill(f32::NAN);
                contender.multiply(x, &mut out);
                problem.check(columns, &out, contender.name());
                continue;
            }
            let (began, mut count) = (Instant::now(), 0);
            while count == 0 || began.elapsed() < settings.least {
                contender.multiply(x, &mut out);
                count += 1;
            }
            times.push(began.elapsed().as_secs_f64() / f64::from(count));
        }
    }
    contenders.iter().zip(times).map(|(contender, times)| (contender.name(), best(&times))).collect()
}

fn best(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The lines of a format's table: a contender each.
fn measure(ty: GgmlType, settings: &Settings) -> Vec<String> {
    let mut random = Random(1);
    let pool: Vec<Vec<u8>> = (0..65_536 / ty.block_len()).map(|_| random.block(ty).unwrap()).collect();
    let row_bytes = ty.row_bytes(LARGE_ROW).unwrap();
    let rows = (settings.large / row_bytes).next_multiple_of(16);
    let large = Problem::new(ty, &pool, rows, LARGE_ROW, 1);
    let mut lines: Vec<(&str, Vec<String>)> = time(&large, 1, settings)
        .into_iter()
        .map(|(name, seconds)| (name, vec![format!("{:.1}", large.weights.len() as f64 / seconds / 1e9)]))
        .collect();
    drop(large);
    let small = Problem::new(ty, &pool, SIDE, SIDE, 512);
    for columns in COLUMNS {
        for ((_, cells), (_, seconds)) in lines.iter_mut().zip(time(&small, columns, settings)) {
            cells.push(format!("{:.1}", (SIDE * SIDE * columns) as f64 / seconds / 1e9));
        }
    }
    lines.into_iter().map(|(name, cells)| format!("| {ty} | {name} | {} |", cells.join(" | "))).collect()
}
