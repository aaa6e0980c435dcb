//! `grist doctor`: what is wrong with a file, and what could be better.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use clap::Args;
use gristmill::doctor::{Finding, Options, Report, Severity, examine, examine_file};
use serde_json::json;

use super::args::Common;
use super::failure::Failure;
use super::metal;
use super::model::Source;
use super::output::Out;
use super::{Done, interrupt, progress};

/// Examine a model's file: template, special tokens, tokenizer, name against contents, damaged weights
///
/// Ends with 0 where no fault was found, else with 1; with --strict, warnings count as faults do. Notes say what is worth
/// knowing, and what would make the model faster or smaller on this machine.
#[derive(Args)]
pub struct Doctor {
    /// The .gguf file to examine [default: the built-in model]
    model: Option<PathBuf>,
    /// Examine the machine's GPU instead: whether every kernel compiles there and gives what the CPU gives
    #[arg(long, conflicts_with_all = ["model", "quick", "strict"])]
    metal: bool,
    /// Do not read the weights: header, tokenizer and template only
    #[arg(long)]
    quick: bool,
    /// End with 1 where there are warnings, too
    #[arg(long)]
    strict: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Doctor, common: &Common) -> Done {
    if args.metal {
        return metal::tell(args.json);
    }
    let options = Options {
        weights: !args.quick,
        threads: common.threads.map(Into::into),
        level: common.level()?,
        context: common.ctx.map(|context| context as usize),
    };
    let stop = interrupt::flag();
    let mut bar = None;
    let progress = |at: gristmill::doctor::Progress| {
        bar.get_or_insert_with(|| progress::bytes("reading", at.total)).at(at.done as usize);
        if stop.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let report = match &args.model {
        Some(path) => examine(path, &options, progress)?,
        None => examine_file(&Source(None).file()?, &options, progress)?,
    };
    drop(bar);
    let name = args.model.as_ref().map_or_else(|| "built-in".to_owned(), |path| path.display().to_string());
    print(&name, &report, args.json)?;
    let (faults, warnings) = (report.count(Severity::Fault), report.count(Severity::Warning));
    match report.worst() {
        Severity::Fault => Err(Failure::new(format!("{name}: {}", counted(faults, "fault")))),
        Severity::Warning if args.strict => {
            Err(Failure::new(format!("{name}: {} (--strict)", counted(warnings, "warning"))))
        }
        _ => Ok(()),
    }
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn print(name: &str, report: &Report, as_json: bool) -> Done {
    let mut out = Out::new();
    let [faults, warnings, notes] =
        [Severity::Fault, Severity::Warning, Severity::Note].map(|level| report.count(level));
    if as_json {
        let json = json!({
            "model": name,
            "faults": faults,
            "warnings": warnings,
            "notes": notes,
            "findings": report.findings,
        });
        return out.text(&format!("{json:#}\n"));
    }
    let counts = [counted(faults, "fault"), counted(warnings, "warning"), counted(notes, "note")];
    out.heading(&format!("{name}: {}", counts.join(", ")))?;
    // What matters most comes first; within a level the order of the checks stays.
    let mut findings: Vec<&Finding> = report.findings.iter().collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    for finding in findings {
        out.line(format_args!("{:<8} {:<15} {}", finding.level.name(), finding.check, finding.text))?;
        if let Some(advice) = &finding.advice {
            out.aside(&format!("{:<24} {advice}", ""))?;
        }
    }
    Ok(())
}
