//! `grist report`: the quantized files of a model compared.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use clap::builder::PossibleValuesParser;
use gristmill::model::ModelOptions;
use gristmill::quantize::Mix;
use gristmill::report::data::Use;
use gristmill::report::{Again, Difference, Options, Progress, peak, run as make, verify};
use gristmill::{BackendKind, CacheType};
use serde_json::json;

use super::args::Common;
use super::failure::Failure;
use super::output::{Out, note};
use super::progress::Steps;
use super::{Done, interrupt};

/// Compare the quantized files of a model: size, speed, memory, perplexity, divergence
///
/// Writes report.html, report.md and report.json. Either several files are given, or one in F32, F16 or BF16 and the --types to
/// quantize it to. What was measured is kept in the folder, so that the same command goes on where it was stopped.
#[derive(Args)]
pub struct Report {
    /// The .gguf files, or the one to quantize
    #[arg(required_unless_present = "verify")]
    models: Vec<PathBuf>,
    /// The text to read
    #[arg(long, value_name = "FILE", required_unless_present_any = ["verify", "alone"])]
    text: Option<PathBuf>,
    /// The folder to write into
    #[arg(long, value_name = "DIR", required_unless_present_any = ["verify", "alone"])]
    out: Option<PathBuf>,
    /// The model to compare with [default: the one that is quantized, or that of the most bits per weight]
    #[arg(long, value_name = "MODEL")]
    reference: Option<PathBuf>,
    /// Quantize the model to these: Q8_0,Q4_K_M,...
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// The importance matrix to quantize with
    #[arg(long, value_name = "FILE", requires = "types")]
    imatrix: Option<PathBuf>,
    /// Read only the first N chunks of the text
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    chunks: Option<u32>,
    /// Tokens of the prompt that is timed
    #[arg(short = 'p', value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    prompt: u32,
    /// Tokens of the generation that is timed
    #[arg(short = 'n', value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    generate: u32,
    /// How often each is timed; 0 measures no speed
    #[arg(short = 'r', value_name = "N", default_value_t = 5)]
    runs: u32,
    /// Recommend what fits into this much memory: 8G, 900M
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory_limit: Option<u64>,
    /// Recommend for: chat (fast generation), batch (fast prompts), quality, small
    #[arg(long = "use", value_name = "USE", default_value = "chat",
          value_parser = PossibleValuesParser::new(Use::ALL.map(Use::name)))]
    wanted_for: String,
    /// Measure the figures of this report.json again, and say what differs; ends with 1 where anything does but speeds and memory
    #[arg(long, value_name = "FILE", conflicts_with_all = ["models", "text", "out"])]
    verify: Option<PathBuf>,
    /// Run one model once, and print the bytes that this process held at most
    #[arg(long, hide = true, conflicts_with_all = ["verify", "text", "out"])]
    alone: bool,
    /// Print JSON: what was written, or what differs
    #[arg(long)]
    json: bool,
}

/// A size as people write it: powers of 1,024.
fn memory(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.strip_suffix(['G', 'g']) {
        Some(number) => (number, f64::from(1 << 30)),
        None => (text.strip_suffix(['M', 'm']).unwrap_or_default(), f64::from(1 << 20)),
    };
    let bytes = number.parse::<f64>().ok().map(|number| number * unit);
    let bytes = bytes.filter(|bytes| (1.0..1e18).contains(bytes));
    bytes
        .map(|bytes| bytes as u64)
        .ok_or_else(|| "expected a number above 0 with M or G behind it, as in 8G".to_owned())
}

/// What hears of progress: a bar, and Ctrl-C.
struct Watch {
    bar: Steps,
    stop: Arc<AtomicBool>,
}

impl Watch {
    fn new() -> Self {
        Watch { bar: Steps::new(), stop: interrupt::flag() }
    }

    fn at(&mut self, at: Progress<'_>) -> ControlFlow<()> {
        self.bar.at(at.step, at.model, at.done, at.total);
        if self.stop.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

pub fn run(args: &Report, common: &Common) -> Done {
    if common.backend()? != BackendKind::Cpu || common.cache(CacheType::F16) != CacheType::F16.into() {
        return Err(Failure::Usage(
            "expected neither --backend nor --cache: a report is of our products, with a cache of f16"
                .to_owned(),
        ));
    }
    if let Some(path) = &args.verify {
        return again(path, args.json, common);
    }
    if args.alone {
        return alone(args, common);
    }
    let (Some(text), Some(out)) = (&args.text, &args.out) else {
        return Err(Failure::Usage("expected --text and --out".to_owned()));
    };
    let mut options = Options::new(text, out);
    options.models.clone_from(&args.models);
    options.reference.clone_from(&args.reference);
    options.mixes = args.types.iter().map(|name| Mix::named(name)).collect::<Result<_, _>>()?;
    options.imatrix.clone_from(&args.imatrix);
    let settings = &mut options.settings;
    settings.context = common.ctx.map_or(settings.context, |ctx| ctx as usize);
    settings.chunks = args.chunks.map(|chunks| chunks as usize);
    (settings.prompt, settings.generate) = (args.prompt as usize, args.generate as usize);
    settings.runs = args.runs as usize;
    options.memory_limit = args.memory_limit;
    options.wanted_for = Use::named(&args.wanted_for).unwrap_or_default();
    options.threads = common.threads.map(Into::into);
    options.level = common.level()?;
    options.program = std::env::current_exe().ok();
    options.command = command();
    let mut watch = Watch::new();
    let outcome = make(&options, &mut |at| watch.at(at))?;
    drop(watch);
    let mut out = Out::new();
    if args.json {
        let json = json!({
            "files": outcome.files,
            "measured": outcome.measured,
            "kept": outcome.kept,
            "recommendation": outcome.report.recommendation,
        });
        return out.text(&format!("{json:#}\n"));
    }
    for reason in &outcome.report.recommendation.reasons {
        out.line(format_args!("{reason}"))?;
    }
    for file in &outcome.files {
        note(format_args!("wrote {}", file.display()));
    }
    Ok(())
}

/// What [`Options::program`] is asked for.
fn alone(args: &Report, common: &Common) -> Done {
    let [model] = args.models.as_slice() else {
        return Err(Failure::Usage("expected one MODEL with --alone".to_owned()));
    };
    let mut settings = Options::new("", "").settings;
    (settings.prompt, settings.generate) = (args.prompt as usize, args.generate as usize);
    let mut options = ModelOptions::default();
    if let Some(threads) = common.threads {
        options = options.threads(threads.into());
    }
    if let Some(level) = common.level()? {
        options = options.level(level.name());
    }
    match peak(model, &settings, &options)? {
        Some(bytes) => Out::new().line(format_args!("{bytes}")),
        None => Ok(()),
    }
}

/// The command line, as a shell would take it again.
fn command() -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=:+@%".contains(c);
    let quoted = |word: String| match word.chars().all(plain) && !word.is_empty() {
        true => word,
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    let words = std::env::args_os().skip(1).map(|word| quoted(word.to_string_lossy().into_owned()));
    std::iter::once("grist".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// Verifies a report.
fn again(path: &Path, as_json: bool, common: &Common) -> Done {
    let mut watch = Watch::new();
    let (threads, level, program) =
        (common.threads.map(Into::into), common.level()?, std::env::current_exe().ok());
    let found = verify(path, &Again { threads, level, program }, &mut |at| watch.at(at))?;
    drop(watch);
    let mut out = Out::new();
    if as_json {
        let one = |found: &Difference| {
            json!({
                "cell": found.cell,
                "what": found.what,
                "expected": found.expected,
                "found": found.found,
                "exact": found.exact,
            })
        };
        let all: Vec<_> = found.iter().map(one).collect();
        out.text(&format!("{:#}\n", json!(all)))?;
    } else {
        for Difference { cell, what, expected, found, exact } in &found {
            let cell = cell.as_deref().unwrap_or("report");
            let kind = if *exact { "differs" } else { "moved  " };
            out.line(format_args!("{kind} {cell} {what}: expected {expected}, found {found}"))?;
        }
    }
    match found.iter().filter(|found| found.exact).count() {
        0 => {
            note(format_args!(
                "{}: every figure is the same, but for speeds and memory that are told above",
                path.display()
            ));
            Ok(())
        }
        1 => Err(Failure::file(path, "1 figure differs")),
        count => Err(Failure::file(path, format_args!("{count} figures differ"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_written_with_a_unit() {
        assert_eq!((memory("8G"), memory("1.5m"), memory("900M")), (Ok(8 << 30), Ok(3 << 19), Ok(900 << 20)));
        for text in ["", "8", "G", "-1G", "0G", "1e99G", "NaNG"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }
}
