//! `grist bench`: tokens per second, as llama-bench defines them, beside what the machine could do at most.

mod compare;
mod table;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use gristmill::advise::Advisor;
use gristmill::speed::{self, Case, Cost, Figures, Machine, Options, Ratio, Suite, Test, apple, memory};
use gristmill::{BackendKind, CacheType, Model};
use serde_json::{Value as Json, json};

use super::args::Common;
use super::failure::Failure;
use super::model::Source;
use super::output::{self, Out, note, size};
use super::{BUILD, Done, metal, progress};
use compare::Peer;

/// Measure tokens per second
///
/// As llama-bench does: ppN feeds a prompt of N random tokens to an empty sequence, tgN feeds N tokens to an empty
/// sequence one by one; with --depth D, to a sequence of D tokens (pp512 @ d4096). Nothing is sampled. After a run that
/// warms up, runs of all models, backends and tests alternate, so that whatever slows the machine down slows all of them; a
/// fixed workload between the rounds tells whether it did. The figure is the median. LIMIT is the part of what the memory
/// (generation) or the multipliers (prompts) of this machine give, by a measurement of both.
#[derive(Args)]
pub struct Bench {
    /// .gguf files [default: the built-in model]
    models: Vec<PathBuf>,
    /// Tokens of the prompt; several lengths with commas between; 0 for no such test
    #[arg(short, long, value_name = "N", value_delimiter = ',', default_value = "512")]
    prompt: Vec<u32>,
    /// Tokens to generate; several lengths with commas between; 0 for no such test
    #[arg(short = 'n', long = "generate", value_name = "N", value_delimiter = ',', default_value = "128")]
    generate: Vec<u32>,
    /// Tokens that the sequence has before; several depths with commas between
    #[arg(short, long, value_name = "N", value_delimiter = ',', default_value = "0")]
    depth: Vec<u32>,
    /// Tokens of a prompt in one pass; several numbers with commas between [default: 512]
    #[arg(short, long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    batch: Vec<u32>,
    /// Runs of each test
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Run this llama-bench in turn, on the same files with the same tests, and tell how many times as fast ours is
    #[arg(long, value_name = "PATH")]
    compare: Option<PathBuf>,
    /// Before each run predict its figure as `grist advise` does, from the file's header and a measurement of two seconds
    #[arg(long)]
    predict: bool,
    /// Write the figures to FILE as JSON, beside what the cost model predicts for the machine's GPU and whether its kernels give
    /// there what the CPU gives: a file to send back, for --backend metal
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// How the figures are printed
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Form::Md)]
    output: Form,
    /// The same as --output json
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Form {
    /// A table in Markdown
    Md,
    /// Lines of values with commas between
    Csv,
    /// An array of objects
    Json,
}

/// A model in one setting; its tests are neighbours in the suite.
struct Subject {
    name: String,
    model: Model,
    options: Options,
    /// Seconds that opening took.
    load: f64,
    /// Seconds until the first token of a short prompt.
    first_token: Option<Figures>,
    machine: Machine,
    /// What its tests need, each in its turn.
    costs: Vec<Cost>,
    /// What predicts, where that was asked for.
    advisor: Option<Advisor>,
    /// Tokens per second of each test as predicted, right before each run.
    predictions: Vec<Vec<f64>>,
    peer: Option<Peer>,
}

/// A test's figure as it was predicted.
#[derive(Clone, Copy)]
struct Prediction {
    /// Tokens per second, the median.
    rate: f64,
    /// How many times what was found a run later: the median.
    ratio: f64,
}

impl Subject {
    /// Predicts the tests, if that is wanted; tells whether it is.
    fn predict(&mut self, tests: &[Test]) -> Done<bool> {
        let Some(advisor) = &self.advisor else { return Ok(false) };
        self.predictions.resize_with(tests.len(), Vec::new);
        let predictions = advisor.predict(tests, &self.options)?;
        self.predictions.iter_mut().zip(predictions).for_each(|(all, (_, rate))| all.push(rate));
        Ok(true)
    }

    /// What was predicted of the test of this number, whose runs had these rates.
    fn prediction(&self, number: usize, rates: &[f64]) -> Option<Prediction> {
        let predicted = self.predictions.get(number)?;
        let pairs: Vec<(f64, f64)> = predicted.iter().copied().zip(rates.iter().copied()).collect();
        Some(Prediction { rate: Figures::of(predicted)?.median, ratio: Ratio::of_pairs(&pairs)?.median })
    }
}

/// How far predictions may be off.
const PREDICTED_WITHIN: f64 = 0.2;

pub fn run(args: &Bench, common: &Common) -> Done {
    let tests = tests(args)?;
    let mut subjects = subjects(args, common)?;
    let Some(first) = subjects.first() else {
        return Err(Failure::Usage("expected a model, found none".into()));
    };
    let mut suite = Suite::new(&first.model)?;
    for subject in &mut subjects {
        if args.predict {
            let advisor = Advisor::new(subject.model.file().clone())?;
            let advisor = advisor.level(subject.model.level()).threads(subject.model.thread_count());
            subject.advisor = Some(advisor);
        }
        suite.add(&subject.model, &subject.options, &tests)?;
        let cost = |&test: &Test| Cost::of(&subject.model, test, &subject.options);
        subject.costs = tests.iter().map(cost).collect::<gristmill::Result<_>>()?;
        let times = speed::first_token(&subject.model, &subject.options, usize::from(args.runs) + 1)?;
        // The first run warms up.
        subject.first_token = Figures::of(times.get(1..).unwrap_or_default());
    }
    let bar = progress::runs("measuring", subjects.len() * tests.len() * (usize::from(args.runs) + 1));
    let mut runs = 0;
    let mut done = || {
        runs += 1;
        bar.at(runs);
    };
    suite.warm_up(&mut done)?;
    for round in 0..args.runs {
        suite.begin_round();
        for (number, subject) in subjects.iter_mut().enumerate() {
            let own = number * tests.len()..(number + 1) * tests.len();
            if subject.predict(&tests)? {
                suite.warm_up_again(own.start)?;
            }
            // Who comes first takes turns, so that no one always has the machine as the other leaves it.
            let ours_first = round % 2 == 0;
            if ours_first {
                own.clone().try_for_each(|case| suite.run(case, &mut done))?;
            }
            if let Some(peer) = &mut subject.peer {
                peer.run(&subject.model, &subject.options, &tests)?;
            }
            if !ours_first {
                own.clone().try_for_each(|case| suite.run(case, &mut done))?;
            }
        }
    }
    drop(bar);
    let lines = table::lines(&subjects, &suite, tests.len())?;
    if let Some(path) = &args.report {
        let report = report(&subjects, &tests, &lines)?;
        output::write_file(path, |to| {
            writeln!(to, "{report:#}").map_err(|error| Failure::file(path, error))
        })?;
        note(format_args!("wrote {}", path.display()));
    }
    let mut out = Out::new();
    match args.output {
        _ if args.json => table::json(&lines, &mut out),
        Form::Json => table::json(&lines, &mut out),
        Form::Csv => table::csv(&lines, &mut out),
        Form::Md => {
            table::markdown(&lines, &mut out)?;
            tell(&subjects, &suite, tests.len());
            Ok(())
        }
    }
}

/// What a person with such a machine may send back.
fn report(subjects: &[Subject], tests: &[Test], lines: &[table::Line]) -> Done<Json> {
    let on_gpu = subjects.iter().any(|subject| subject.model.backend() == BackendKind::Metal);
    let examination = on_gpu.then(metal::examined).transpose()?;
    let predicted = |subject: &Subject, (test, cost): (&Test, &Cost)| {
        let about = &examination.as_ref().filter(|_| subject.model.backend() == BackendKind::Metal)?.about;
        let seconds = apple::seconds(&about.name, *cost, test.is_generation())?;
        Some(test.tokens() as f64 / seconds)
    };
    let all = subjects
        .iter()
        .flat_map(|subject| tests.iter().zip(&subject.costs).map(move |of_test| predicted(subject, of_test)));
    let figures = lines.iter().zip(all).map(|(line, predicted)| {
        let mut fields = line.fields().clone();
        fields.insert("predicted_for_gpu".into(), predicted.into());
        Json::Object(fields)
    });
    Ok(json!({
        "report": "grist bench --report",
        "build": BUILD,
        "figures": figures.collect::<Vec<_>>(),
        "gpu": examination.as_ref().map(metal::json),
    }))
}

/// The tests, those of a depth together.
fn tests(args: &Bench) -> Done<Vec<Test>> {
    let mut tests = Vec::new();
    for &depth in &args.depth {
        let prompts = args.prompt.iter().map(|&tokens| Test::prompt(tokens as usize));
        let all = prompts.chain(args.generate.iter().map(|&tokens| Test::generate(tokens as usize)));
        tests.extend(all.map(|test| test.at_depth(depth as usize)).filter(|test| test.tokens() > 0));
    }
    if tests.is_empty() {
        return Err(Failure::Usage("expected a test, found none: -p and -n are both 0".into()));
    }
    Ok(tests)
}

/// Every model on every backend, with every number of threads and every batch.
fn subjects(args: &Bench, common: &Common) -> Done<Vec<Subject>> {
    let given: Vec<Option<&PathBuf>> = match args.models.as_slice() {
        [] => vec![None],
        models => models.iter().map(Some).collect(),
    };
    if args.compare.is_some() && args.models.is_empty() {
        let message = "--compare: expected MODEL, found none: the built-in model is no file that another program can open";
        return Err(Failure::Usage(message.into()));
    }
    let batches: Vec<Option<usize>> = match args.batch.as_slice() {
        [] => vec![None],
        batches => batches.iter().map(|&batch| Some(batch as usize)).collect(),
    };
    let mut machines: Vec<Machine> = Vec::new();
    let mut subjects = Vec::new();
    for path in given {
        for backend in common.backends()? {
            for threads in common.thread_counts() {
                let began = Instant::now();
                let model = Source(path.map(PathBuf::as_path)).model_with(backend, threads, common)?;
                let load = began.elapsed().as_secs_f64();
                let known = machines.iter().find(|machine| machine.threads == model.thread_count());
                let machine = match known {
                    Some(machine) => *machine,
                    None => Machine::measure(model.level(), Some(model.thread_count()))?,
                };
                machines.push(machine);
                for &batch in &batches {
                    let context = common.ctx.map(|ctx| ctx as usize);
                    subjects.push(Subject {
                        name: path.map_or_else(|| "built-in".to_owned(), |path| path.display().to_string()),
                        model: model.clone(),
                        options: Options { cache: common.cache(CacheType::F16), context, batch },
                        load,
                        first_token: None,
                        machine,
                        costs: Vec::new(),
                        advisor: None,
                        predictions: Vec::new(),
                        peer: args.compare.as_ref().zip(path).map(|(program, path)| Peer::new(program, path)),
                    });
                }
            }
        }
    }
    Ok(subjects)
}

/// What is to be said beside the table.
fn tell(subjects: &[Subject], suite: &Suite, tests: usize) {
    let mut told: Vec<(&str, usize)> = Vec::new();
    for subject in subjects {
        let who = (subject.name.as_str(), subject.model.thread_count());
        if told.contains(&who) {
            continue;
        }
        told.push(who);
        let first = subject.first_token.map_or(f64::NAN, |figures| figures.median);
        note(format_args!(
            "{}: loaded in {}, first token of a 16-token prompt after {} ({} threads)",
            subject.name,
            seconds(subject.load),
            seconds(first),
            who.1,
        ));
    }
    let mut machines: Vec<Machine> = Vec::new();
    for Subject { machine, .. } in subjects {
        if !machines.contains(machine) {
            machines.push(*machine);
            note(format_args!(
                "machine, {} threads: reads {:.1} GB/s, multiplies {:.0} G codes and {:.0} G floats a second",
                machine.threads,
                machine.read / 1e9,
                machine.codes / 1e9,
                machine.floats / 1e9,
            ));
        }
    }
    let spread = Figures::of(suite.reference()).map_or(0.0, Figures::spread);
    let verdict = if spread > speed::STEADY { "do not believe these figures" } else { "steady" };
    note(format_args!("fixed workload between the rounds: spread {:.1} %: {verdict}", 100.0 * spread));
    let off = subjects.iter().zip(suite.cases().chunks(tests.max(1))).flat_map(|(subject, cases)| {
        let off = |(number, case): (usize, &Case)| {
            let off = subject.prediction(number, case.rates())?.ratio - 1.0;
            Some((off, subject.name.as_str(), case.test()))
        };
        cases.iter().enumerate().filter_map(off)
    });
    if let Some((off, name, test)) = off.max_by(|a, b| a.0.abs().total_cmp(&b.0.abs())) {
        let verdict = if off.abs() <= PREDICTED_WITHIN { "within" } else { "beyond" };
        note(format_args!(
            "predictions: the worst is off by {:+.0} % ({test} of {name}): {verdict} {:.0} %",
            100.0 * off,
            100.0 * PREDICTED_WITHIN,
        ));
    }
    match memory::peak() {
        Some(bytes) => note(format_args!("most memory at once: {}", size(bytes))),
        None => note(format_args!("most memory at once: this system does not tell")),
    }
}

/// A time for people.
fn seconds(time: f64) -> String {
    match time {
        time if time < 0.1 => format!("{:.1} ms", 1e3 * time),
        time => format!("{time:.2} s"),
    }
}
