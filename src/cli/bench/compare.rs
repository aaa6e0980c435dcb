//! llama-bench in turn with ours.

use std::path::{Path, PathBuf};

use gristmill::Model;
use gristmill::speed::peer::{LlamaBench, Order};
use gristmill::speed::{Figures, Options, Ratio, Test};

use crate::cli::Done;
use crate::cli::failure::Failure;

/// A llama-bench on one file, and what it measured so far.
pub struct Peer {
    program: LlamaBench,
    path: PathBuf,
    /// Which version it is.
    pub about: String,
    series: Vec<Series>,
}

/// The runs of one test in one setting.
struct Series {
    test: Test,
    flash: Option<&'static str>,
    rates: Vec<f64>,
}

/// How a peer did in a test.
pub struct Compared<'a> {
    pub figures: Figures,
    pub rates: &'a [f64],
    /// Flash attention in the faster setting, where there were two.
    pub flash: Option<&'static str>,
    pub ratio: Ratio,
}

impl Peer {
    pub fn new(program: &Path, path: &Path) -> Self {
        let program = LlamaBench { program: program.to_owned() };
        Peer { program, path: path.to_owned(), about: String::new(), series: Vec::new() }
    }

    /// One run of each test.
    pub fn run(&mut self, model: &Model, options: &Options, tests: &[Test]) -> Done {
        let mut depths: Vec<usize> = tests.iter().map(|test| test.depth()).collect();
        depths.dedup();
        for depth in depths {
            for &flash in LlamaBench::flash(depth, options.cache) {
                let mine: Vec<Test> = tests.iter().copied().filter(|test| test.depth() == depth).collect();
                let tokens = |generation: bool| -> Vec<usize> {
                    let kind = mine.iter().filter(|test| test.is_generation() == generation);
                    kind.map(|test| test.tokens()).collect()
                };
                let readings = self.program.run(&Order {
                    model: &self.path,
                    prompts: &tokens(false),
                    generations: &tokens(true),
                    depth,
                    threads: model.thread_count(),
                    batch: options.batch,
                    cache: options.cache,
                    flash,
                })?;
                for test in mine {
                    let name = test.to_string();
                    let reading = readings.iter().find(|reading| reading.test == name);
                    let rate = reading.and_then(|reading| Some((reading, *reading.rates.first()?)));
                    let Some((reading, rate)) = rate else {
                        let program = self.program.program.display();
                        return Err(Failure::new(format!(
                            "{program}: expected a figure of {name}, found none"
                        )));
                    };
                    self.about.clone_from(&reading.about);
                    let same = |series: &&mut Series| series.test == test && series.flash == flash;
                    match self.series.iter_mut().find(same) {
                        Some(series) => series.rates.push(rate),
                        None => self.series.push(Series { test, flash, rates: vec![rate] }),
                    }
                }
            }
        }
        Ok(())
    }

    /// Its faster setting in a test, beside our runs of the same rounds.
    pub fn compared(&self, test: Test, ours: &[f64]) -> Option<Compared<'_>> {
        let all = self.series.iter().filter(|series| series.test == test);
        let all = all.filter_map(|series| Some((series, Figures::of(&series.rates)?)));
        let (series, figures) = all.max_by(|(_, a), (_, b)| a.median.total_cmp(&b.median))?;
        let pairs: Vec<(f64, f64)> = ours.iter().copied().zip(series.rates.iter().copied()).collect();
        Some(Compared { figures, rates: &series.rates, flash: series.flash, ratio: Ratio::of_pairs(&pairs)? })
    }
}
