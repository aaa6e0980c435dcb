//! `grist bench`: tokens per second, as llama-bench defines them.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use gristmill::generate::{Stepper, StepperOptions};
use gristmill::{BackendKind, CacheType, Model};
use serde_json::{Value as Json, json};

use super::args::Common;
use super::failure::Failure;
use super::generate::rate;
use super::model::Source;
use super::output::{self, Out};
use super::{Done, progress};

/// Measure tokens per second
///
/// As llama-bench does: ppN feeds a prompt of N random tokens to an empty sequence, tgN feeds N tokens to an empty
/// sequence one by one; with --depth D, to a sequence of D tokens (pp512 @ d4096). Nothing is sampled. After a run that warms up, runs of all models, backends and tests alternate,
/// so that whatever slows the machine down slows all of them. The figure is the median.
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
    /// Runs of each test
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Print JSON rather than a table
    #[arg(long)]
    json: bool,
}

/// Spread above which a median says little: the machine had other work, or its clock moved.
const STEADY: f64 = 0.1;

#[derive(Clone, Copy)]
struct Test {
    kind: Kind,
    tokens: usize,
    /// Tokens before those that are timed.
    depth: usize,
}

#[derive(Clone, Copy)]
enum Kind {
    Prompt,
    Generate,
}

impl Test {
    fn name(self) -> String {
        let Test { kind, tokens, depth } = self;
        let kind = match kind {
            Kind::Prompt => "pp",
            Kind::Generate => "tg",
        };
        match depth {
            0 => format!("{kind}{tokens}"),
            _ => format!("{kind}{tokens} @ d{depth}"),
        }
    }

    /// Tokens fed in one pass.
    fn at_a_time(self) -> usize {
        match self.kind {
            Kind::Prompt => self.tokens.max(1),
            Kind::Generate => 1,
        }
    }
}

/// One line of the table: a test of a model on a backend.
struct Case {
    name: String,
    model: Model,
    test: Test,
    options: StepperOptions,
    /// The tokens before the test, then its own.
    tokens: Vec<u32>,
    /// The sequence of the tokens before the test, where there are some; tests fork it.
    deep: Option<Stepper>,
    /// Tokens per second of each run.
    rates: Vec<f64>,
}

pub fn run(args: &Bench, common: &Common) -> Done {
    let test = |kind, tokens: u32, depth: u32| Test { kind, tokens: tokens as usize, depth: depth as usize };
    let at = |&depth: &u32| {
        let prompts = args.prompt.iter().map(move |&tokens| test(Kind::Prompt, tokens, depth));
        prompts.chain(args.generate.iter().map(move |&tokens| test(Kind::Generate, tokens, depth)))
    };
    let tests: Vec<Test> = args.depth.iter().flat_map(at).filter(|test| test.tokens > 0).collect();
    if tests.is_empty() {
        return Err(Failure::Usage("expected a test, found none: -p and -n are both 0".into()));
    }
    let mut cases = cases(args, &tests, common)?;
    deepen(&mut cases)?;
    let bar = progress::runs("measuring", cases.len() * (usize::from(args.runs) + 1));
    for round in 0..=usize::from(args.runs) {
        let count = cases.len();
        for (number, case) in cases.iter_mut().enumerate() {
            let rate = case.measure()?;
            // The first round warms up.
            if round > 0 {
                case.rates.push(rate);
            }
            bar.at(round * count + number + 1);
        }
    }
    drop(bar);
    let mut out = Out::new();
    if args.json {
        let all: Vec<Json> = cases.iter().map(Case::json).collect();
        return out.text(&format!("{:#}\n", Json::from(all)));
    }
    table(&cases, &mut out)
}

/// Every test of every model on every backend.
fn cases(args: &Bench, tests: &[Test], common: &Common) -> Done<Vec<Case>> {
    let built_in = [None];
    let given: Vec<Option<&PathBuf>> = args.models.iter().map(Some).collect();
    let mut cases = Vec::new();
    for &path in if given.is_empty() { built_in.as_slice() } else { &given } {
        for backend in common.backends()? {
            let model = Source(path.map(PathBuf::as_path)).model_on(backend, common)?;
            for &test in tests {
                let mut options = common.stepper(CacheType::F16);
                if common.ctx.is_none() {
                    // Random tokens mean nothing, so the trained context is no bound.
                    let longest = tests.iter().map(|test| test.depth.saturating_add(test.tokens)).max();
                    options = options.context(longest.unwrap_or(0));
                }
                cases.push(Case {
                    name: path.map_or_else(|| "built-in".to_owned(), |path| path.display().to_string()),
                    tokens: random_tokens(&model, test.depth.saturating_add(test.tokens)),
                    model: model.clone(),
                    test,
                    options,
                    deep: None,
                    rates: Vec::new(),
                });
            }
        }
    }
    Ok(cases)
}

/// Feeds the tokens before each test: once for all tests of a model at this depth.
fn deepen(cases: &mut [Case]) -> Done {
    for number in 0..cases.len() {
        let (before, rest) = cases.split_at_mut(number);
        let Some(case) = rest.first_mut().filter(|case| case.test.depth > 0) else { continue };
        let same = |other: &&Case| {
            let backends = (other.model.backend(), case.model.backend());
            other.name == case.name && backends.0 == backends.1 && other.test.depth == case.test.depth
        };
        let deep = before.iter().find(same).and_then(|other| other.deep.as_ref()).map(Stepper::fork);
        case.deep = Some(match deep {
            Some(deep) => deep,
            None => {
                let mut deep = case.model.stepper(case.options.clone())?;
                deep.feed(case.tokens.get(..case.test.depth).unwrap_or_default())?;
                deep
            }
        });
    }
    Ok(())
}

/// BOS where the model begins with it, then random tokens: the same in every run.
fn random_tokens(model: &Model, count: usize) -> Vec<u32> {
    let bos = model.tokenizer().ok().and_then(|tokenizer| {
        tokenizer
            .special_tokens()
            .bos
            .filter(|&bos| tokenizer.add_bos() && (bos as usize) < model.vocabulary())
    });
    let mut state = 1_u64;
    let random = std::iter::repeat_with(|| {
        // Knuth's MMIX generator; its upper bits are good enough to pick tokens.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % model.vocabulary().max(1) as u64) as u32
    });
    bos.into_iter().chain(random).take(count).collect()
}

impl Case {
    /// One run: tokens per second.
    fn measure(&self) -> Done<f64> {
        let mut stepper = match &self.deep {
            Some(deep) => deep.fork(),
            None => self.model.stepper(self.options.clone())?,
        };
        let tokens = self.tokens.get(stepper.len()..).unwrap_or_default();
        let began = Instant::now();
        for tokens in tokens.chunks(self.test.at_a_time()) {
            stepper.feed(tokens)?;
        }
        let rate = rate(tokens.len(), began.elapsed());
        if stepper.logits().iter().any(|logit| !logit.is_finite()) {
            let test = self.test.name();
            return Err(Failure::new(format!(
                "{}: expected finite logits after {test}, found others",
                self.name
            )));
        }
        Ok(rate)
    }

    /// Median, least and most.
    fn figures(&self) -> (f64, f64, f64) {
        let mut sorted = self.rates.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let (upper, lower) = (sorted.len() / 2, sorted.len().saturating_sub(1) / 2);
        ((at(lower) + at(upper)) / 2.0, at(0), at(sorted.len().saturating_sub(1)))
    }

    /// Most less least, as a part of the median.
    fn spread(&self) -> f64 {
        let (median, least, most) = self.figures();
        (most - least) / median
    }

    /// What is to be said of runs that differ much.
    fn remark(&self) -> Option<&'static str> {
        if self.spread() <= STEADY {
            return None;
        }
        let ordered = |by: fn(&f64, &f64) -> bool| self.rates.is_sorted_by(by);
        Some(match () {
            () if ordered(|a, b| a >= b) => "drifts: slower from run to run",
            () if ordered(|a, b| a <= b) => "drifts: faster from run to run",
            () => "unsteady",
        })
    }

    fn json(&self) -> Json {
        let (median, least, most) = self.figures();
        let mut json = json!({
            "model": self.name,
            "name": self.model.name(),
            "architecture": self.model.architecture().name,
            "bytes": self.model.file().file_bytes(),
            "test": self.test.name(),
            "tokens_per_second": median,
            "min": least,
            "max": most,
            "spread": self.spread(),
            "remark": self.remark(),
            "runs": self.rates,
            "backend": self.model.backend().name(),
            "threads": self.model.thread_count(),
            "isa": self.model.level().name(),
            "version": env!("CARGO_PKG_VERSION"),
        });
        if let Some(version) = ggml_version(self.model.backend())
            && let Some(fields) = json.as_object_mut()
        {
            fields.insert("ggml".into(), version.into());
        }
        json
    }
}

/// The version of the ggml that computes.
#[cfg(feature = "ggml")]
fn ggml_version(backend: BackendKind) -> Option<&'static str> {
    (backend == BackendKind::Ggml).then(gristmill::ggml::version)
}

#[cfg(not(feature = "ggml"))]
fn ggml_version(_backend: BackendKind) -> Option<&'static str> {
    None
}

fn table(cases: &[Case], out: &mut Out) -> Done {
    let head = ["model", "size", "backend", "threads", "isa", "test", "tokens/s", "min", "max", "spread"];
    let mut rows = vec![head.map(str::to_owned)];
    for case in cases {
        let (median, least, most) = case.figures();
        rows.push([
            case.name.clone(),
            output::size(case.model.file().file_bytes()),
            case.model.backend().name().to_owned(),
            case.model.thread_count().to_string(),
            case.model.level().name().to_owned(),
            case.test.name(),
            format!("{median:.2}"),
            format!("{least:.2}"),
            format!("{most:.2}"),
            format!("{:.1} %", 100.0 * case.spread()),
        ]);
    }
    let mut widths = [0; 10];
    for row in &rows {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
    }
    let remarks = std::iter::once(None).chain(cases.iter().map(Case::remark));
    for (number, (row, remark)) in rows.iter().zip(remarks).enumerate() {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:width$}"),
            _ => format!("{cell:>width$}"),
        });
        let cells = cells.collect::<Vec<_>>().join(" | ");
        let remark = remark.map(|remark| format!(" {remark}")).unwrap_or_default();
        out.line(format_args!("| {cells} |{remark}"))?;
        if number == 0 {
            let rules = widths.iter().enumerate().map(|(column, &width)| match column {
                0 => "-".repeat(width + 2),
                _ => format!("{}:", "-".repeat(width + 1)),
            });
            out.line(format_args!("|{}|", rules.collect::<Vec<_>>().join("|")))?;
        }
    }
    Ok(())
}
