//! Tests of models that take turns.
#![forbid(unsafe_code)]

use std::time::Instant;

use super::figures::{Figures, Remark};
use super::machine::{Yardstick, random};
use super::{Kind, Test};
use crate::generate::{Stepper, StepperOptions};
use crate::{CacheTypes, Error, Model, Result};

/// Tokens of the prompt whose first token is waited for.
const FIRST: usize = 16;
/// Bytes that the reference workload reads: some milliseconds' worth, more than caches hold.
const REFERENCE: usize = 64 << 20;
/// Codes that it multiplies, about: as long as reading takes where multipliers are fast. No measurement decides it, so that what one
/// process found can be laid beside what another found.
const REFERENCE_CODES: u64 = 1 << 29;

/// How a model is measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// In which form keys and values are kept.
    pub cache: CacheTypes,
    /// The most tokens of a sequence; by default as many as the longest test has, whatever the model was trained for.
    pub context: Option<usize>,
    /// Tokens of a prompt that are fed in one pass; by default as many as a [`Stepper`] feeds.
    pub batch: Option<usize>,
}

/// A test of a model, and its runs so far.
pub struct Case {
    model: Model,
    test: Test,
    options: Options,
    stepper: StepperOptions,
    /// The tokens before the test, then its own.
    tokens: Vec<u32>,
    /// The sequence of the tokens before the test, where there are some; runs fork it.
    deep: Option<Stepper>,
    /// Tokens per second of each run.
    rates: Vec<f64>,
}

impl Case {
    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The test.
    pub fn test(&self) -> Test {
        self.test
    }

    /// How it is measured.
    pub fn options(&self) -> Options {
        self.options
    }

    /// Tokens per second of each run.
    pub fn rates(&self) -> &[f64] {
        &self.rates
    }

    /// Median, least and most of the runs; `None` where there are none.
    pub fn figures(&self) -> Option<Figures> {
        Figures::of(&self.rates)
    }

    /// Feeds the tokens before the test, or takes the sequence of another case that has fed the same.
    fn deepen(&mut self, others: &[Case]) -> Result<()> {
        let depth = self.test.depth;
        let same =
            others.iter().find(|other| other.test.depth == depth).and_then(|other| other.deep.as_ref());
        self.deep = match same {
            _ if depth == 0 => None,
            Some(deep) => Some(deep.fork()),
            None => {
                let mut deep = self.model.stepper(self.stepper.clone())?;
                deep.feed(self.tokens.get(..depth).unwrap_or_default())?;
                Some(deep)
            }
        };
        Ok(())
    }

    /// One run: tokens per second.
    fn measure(&self) -> Result<f64> {
        let mut stepper = match &self.deep {
            Some(deep) => deep.fork(),
            None => self.model.stepper(self.stepper.clone())?,
        };
        let tokens = self.tokens.get(stepper.len()..).unwrap_or_default();
        let at_a_time = if self.test.kind == Kind::Generate { 1 } else { tokens.len().max(1) };
        let began = Instant::now();
        for tokens in tokens.chunks(at_a_time) {
            stepper.feed(tokens)?;
        }
        let rate = tokens.len() as f64 / began.elapsed().as_secs_f64().max(1e-9);
        let logits = stepper.try_logits()?;
        match logits.iter().enumerate().find(|(_, logit)| !logit.is_finite()) {
            Some((token, &found)) => Err(Error::NonFiniteLogit { token, logits: logits.len(), found }),
            None => Ok(rate),
        }
    }
}

/// Tests of models that take turns, round by round, and a fixed workload between the rounds.
pub struct Suite {
    cases: Vec<Case>,
    yardstick: Yardstick,
    /// Multiplications of a run of the workload.
    rounds: u64,
    reference: Vec<f64>,
}

impl Suite {
    /// A suite without tests, whose reference workload runs as `model` does: its threads, its instructions.
    ///
    /// # Errors
    /// [`Error::Threads`], [`Error::OutOfMemory`].
    pub fn new(model: &Model) -> Result<Self> {
        let yardstick = Yardstick::new(model.level(), Some(model.thread_count()), REFERENCE)?;
        let rounds = yardstick.rounds_for(gristmill_kernels::limits::multiply_codes, REFERENCE_CODES);
        Ok(Suite { cases: Vec::new(), yardstick, rounds, reference: Vec::new() })
    }

    /// Adds tests of a model, and feeds what they need before.
    ///
    /// # Errors
    /// Those of [`Model::stepper`] and [`Stepper::feed`].
    pub fn add(&mut self, model: &Model, options: &Options, tests: &[Test]) -> Result<()> {
        // Random tokens mean nothing, so the trained context is no bound.
        let longest = tests.iter().map(|test| test.end()).max().unwrap_or(0);
        let mut stepper =
            StepperOptions::default().cache(options.cache).context(options.context.unwrap_or(longest));
        if let Some(batch) = options.batch {
            stepper = stepper.batch(batch);
        }
        let first = self.cases.len();
        for &test in tests {
            let mut case = Case {
                model: model.clone(),
                test,
                options: *options,
                stepper: stepper.clone(),
                tokens: random_tokens(model, test.end()),
                deep: None,
                rates: Vec::new(),
            };
            case.deepen(self.cases.get(first..).unwrap_or_default())?;
            self.cases.push(case);
        }
        Ok(())
    }

    /// The tests, with their runs so far.
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// Takes the tests out, and with them what holds their models open.
    pub fn take_cases(&mut self) -> Vec<Case> {
        std::mem::take(&mut self.cases)
    }

    /// Runs each test once and keeps nothing of it; calls `done` after each.
    ///
    /// # Errors
    /// Those of [`Stepper::feed`]; [`Error::NonFiniteLogit`] where the model gives no logits to speak of.
    pub fn warm_up(&mut self, done: &mut dyn FnMut()) -> Result<()> {
        self.run_reference();
        for case in &self.cases {
            case.measure()?;
            done();
        }
        Ok(())
    }

    /// Runs the test of this number once and keeps nothing of it: after other work that left the caches cold.
    ///
    /// # Errors
    /// Those of [`Suite::warm_up`].
    pub fn warm_up_again(&self, case: usize) -> Result<()> {
        self.cases.get(case).map_or(Ok(()), |case| case.measure().map(|_| ()))
    }

    /// Runs the reference workload and each test once; calls `done` after each test.
    ///
    /// # Errors
    /// Those of [`Suite::warm_up`].
    pub fn round(&mut self, done: &mut dyn FnMut()) -> Result<()> {
        self.begin_round();
        (0..self.cases.len()).try_for_each(|case| self.run(case, done))
    }

    /// Runs the reference workload, before tests that are [run](Suite::run) one by one.
    pub fn begin_round(&mut self) {
        let reference = self.run_reference();
        self.reference.push(reference);
    }

    /// Runs the test of this number once, then calls `done`; does nothing where there is none.
    ///
    /// # Errors
    /// Those of [`Suite::warm_up`].
    pub fn run(&mut self, case: usize, done: &mut dyn FnMut()) -> Result<()> {
        let Some(case) = self.cases.get_mut(case) else { return Ok(()) };
        let rate = case.measure()?;
        case.rates.push(rate);
        done();
        Ok(())
    }

    /// How often in a second the reference workload could be done, round by round: reading memory, multiplying codes.
    pub fn reference(&self) -> &[f64] {
        &self.reference
    }

    /// Why a case's median should not be believed.
    pub fn remark(&self, case: &Case) -> Option<Remark> {
        Remark::of(&case.rates, &self.reference)
    }

    /// The best of three, since what it is about is the speed of the machine, not of its other work for some milliseconds:
    /// that hits the tests, which take longer, on average.
    fn run_reference(&self) -> f64 {
        let run = || {
            let began = Instant::now();
            self.yardstick.read();
            self.yardstick.multiply(gristmill_kernels::limits::multiply_codes, self.rounds);
            1.0 / began.elapsed().as_secs_f64().max(1e-9)
        };
        (0..3).map(|_| run()).fold(0.0, f64::max)
    }
}

/// Seconds until a new sequence has the logits after a prompt of 16 tokens: of `runs` sequences, each time.
///
/// # Errors
/// Those of [`Model::stepper`] and [`Stepper::feed`].
pub fn first_token(model: &Model, options: &Options, runs: usize) -> Result<Vec<f64>> {
    let tokens = random_tokens(model, FIRST);
    let run = |_| {
        let began = Instant::now();
        let mut stepper =
            model.stepper(StepperOptions::default().cache(options.cache).context(tokens.len()))?;
        stepper.feed(&tokens)?;
        Ok(began.elapsed().as_secs_f64())
    };
    (0..runs).map(run).collect()
}

/// BOS where the model begins with it, then random tokens: the same in every run.
fn random_tokens(model: &Model, count: usize) -> Vec<u32> {
    let bos = model.tokenizer().ok().and_then(|tokenizer| {
        let bos = tokenizer.special_tokens().bos;
        bos.filter(|&bos| tokenizer.add_bos() && (bos as usize) < model.vocabulary())
    });
    let mut state = 1_u64;
    let vocabulary = model.vocabulary().max(1) as u64;
    let random = std::iter::repeat_with(|| ((random(&mut state) >> 33) % vocabulary) as u32);
    bos.into_iter().chain(random).take(count).collect()
}
