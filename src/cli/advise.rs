//! `grist advise`: what a model needs here and how fast it would be, from its file's header alone.

use std::path::PathBuf;

use clap::Args;
use gristmill::advise::{Advisor, Needed};
use gristmill::speed::memory::Memory;
use gristmill::speed::{Options, Test};
use gristmill::{CacheType, Level};
use serde_json::{Value as Json, json};

use super::Done;
use super::args::Common;
use super::inspect::cache_name;
use super::model::Source;
use super::output::{Out, count, size, table};

/// Tell what memory a model needs at some lengths of context, and how fast it would be here
///
/// Only the header of the file is read: it may still be on its way here. Memory follows from the header; speed is predicted
/// from a measurement of some two seconds of the operations that the model is made of. --ctx takes several lengths with
/// commas between; without it, some usual ones up to what the model was trained for.
#[derive(Args)]
pub struct Advise {
    /// A .gguf file, whole or only its beginning [default: the built-in model]
    model: Option<PathBuf>,
    /// Tokens of a prompt in one pass [default: 512]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16384))]
    batch: Option<u32>,
    /// Judge by so much memory instead of this machine's: 16G, 800M
    #[arg(long, value_name = "SIZE", value_parser = super::quantize::size)]
    memory: Option<u64>,
    /// Tell memory alone, and measure nothing
    #[arg(long)]
    no_speed: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lengths of context to tell of where none is given, as far as the model was trained for them.
const USUAL: [usize; 4] = [4096, 8192, 32768, 131_072];
/// Tokens of the prompt, and tokens that are generated, whose speed is told.
const PROMPT: usize = 512;
const GENERATED: usize = 128;

/// One length of context.
struct Row {
    context: usize,
    needed: Needed,
    /// Tokens per second at its end.
    generation: Option<f64>,
}

pub fn run(args: &Advise, common: &Common) -> Done {
    let source = Source::new(&args.model);
    let mut advisor = match source.0 {
        Some(path) => Advisor::open(path)?,
        None => Advisor::new(source.file()?)?,
    };
    let level = common.level()?.unwrap_or_else(Level::detect);
    advisor = advisor.level(level);
    if let Some(threads) = common.threads {
        advisor = advisor.threads(threads.into());
    }
    let options = Options {
        cache: common.cache(CacheType::F16),
        context: None,
        batch: args.batch.map(|batch| batch as usize),
    };
    let contexts = contexts(&advisor, common);
    let mut rows = Vec::new();
    for &context in &contexts {
        rows.push(Row { context, needed: advisor.memory(context, &options)?, generation: None });
    }
    let mut speeds = Vec::new();
    if !args.no_speed {
        let mut tests = vec![Test::prompt(PROMPT), Test::generate(GENERATED)];
        tests.extend(contexts.iter().map(|&context| Test::generate(1).at_depth(context.saturating_sub(1))));
        let encodes = advisor.is_encoder();
        tests.retain(|test| !encodes || !test.is_generation());
        let mut predicted = advisor.predict(&tests, &options)?.into_iter();
        speeds.extend(predicted.by_ref().take(if encodes { 1 } else { 2 }));
        rows.iter_mut().zip(predicted).for_each(|(row, (_, rate))| row.generation = Some(rate));
    }
    let memory = match args.memory {
        Some(total) => Some(Memory { total, available: total }),
        None => Memory::of_this_machine(),
    };
    let about = About { advisor: &advisor, options, rows, speeds, memory, level };
    let mut out = Out::new();
    if args.json { out.text(&format!("{:#}\n", about.json())) } else { about.print(&mut out) }
}

/// The lengths to tell of.
fn contexts(advisor: &Advisor, common: &Common) -> Vec<usize> {
    let asked = common.contexts();
    if !asked.is_empty() {
        return asked;
    }
    let trained = advisor.trained_context().unwrap_or(USUAL[0]);
    let mut usual: Vec<usize> = USUAL.into_iter().filter(|&context| context < trained).collect();
    usual.push(trained);
    usual
}

/// Whether so much memory is there.
fn fits(needed: u64, memory: Option<Memory>) -> (&'static str, String) {
    match memory {
        None => ("unknown", "unknown: this system does not tell its memory (--memory SIZE)".into()),
        Some(memory) if needed <= memory.available => ("yes", "yes".into()),
        Some(memory) if needed <= memory.total => {
            let short = needed - memory.available;
            ("tight", format!("if other programs leave {}", size(short)))
        }
        Some(memory) => ("no", format!("no, {} too much", size(needed - memory.total))),
    }
}

struct About<'a> {
    advisor: &'a Advisor,
    options: Options,
    rows: Vec<Row>,
    speeds: Vec<(Test, f64)>,
    memory: Option<Memory>,
    level: Level,
}

impl About<'_> {
    fn print(&self, out: &mut Out) -> Done {
        let mut row = |name: &str, what: &str| out.line(format_args!("{name:<13} {what}"));
        let file = self.advisor.file();
        let weights: u64 = file.infos().map(|info| info.elements() as u64).sum();
        row("architecture", self.advisor.architecture().name)?;
        row("parameters", &count(weights))?;
        let missing = match file.missing_bytes() {
            0 => String::new(),
            missing => format!("; {} of the file are not there yet", size(missing)),
        };
        row("weights", &format!("{}{missing}", size(self.advisor.weight_bytes())))?;
        row(
            "memory",
            &match self.memory {
                Some(memory) => {
                    format!("{}, of which {} can be had", size(memory.total), size(memory.available))
                }
                None => "this system does not tell".to_owned(),
            },
        )?;
        for (test, rate) in &self.speeds {
            row(&test.to_string(), &format!("{rate:.1} tokens/s, predicted (level {})", self.level))?;
        }
        out.line(format_args!(""))?;
        let cache = format!("cache ({})", cache_name(self.options.cache));
        let mut rows: Vec<Vec<String>> = vec![
            ["context", "weights", &cache, "working", "together", "fits", "tokens/s at its end"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for Row { context, needed, generation } in &self.rows {
            rows.push(vec![
                context.to_string(),
                size(needed.weights),
                size(needed.cache),
                size(needed.working),
                size(needed.total()),
                fits(needed.total(), self.memory).1,
                generation.map(|rate| format!("{rate:.1}")).unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        table(&rows, &[], out)
    }

    fn json(&self) -> Json {
        let file = self.advisor.file();
        let context = |row: &Row| {
            json!({
                "context": row.context,
                "weights": row.needed.weights,
                "cache": row.needed.cache,
                "working": row.needed.working,
                "total": row.needed.total(),
                "fits": fits(row.needed.total(), self.memory).0,
                "tokens_per_second": row.generation,
            })
        };
        let speed =
            |(test, rate): &(Test, f64)| json!({ "test": test.to_string(), "tokens_per_second": rate });
        json!({
            "architecture": self.advisor.architecture().name,
            "trained_context": self.advisor.trained_context(),
            "weights": self.advisor.weight_bytes(),
            "missing_bytes": file.missing_bytes(),
            "cache_type": cache_name(self.options.cache),
            "memory": self.memory.map(|memory| memory.total),
            "memory_available": self.memory.map(|memory| memory.available),
            "isa": self.level.name(),
            "predicted": self.speeds.iter().map(speed).collect::<Vec<_>>(),
            "contexts": self.rows.iter().map(context).collect::<Vec<_>>(),
        })
    }
}
