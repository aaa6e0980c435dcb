//! The commands of `grist`: one file each. Standard output carries what was asked for and nothing else.
#![forbid(unsafe_code)]

mod advise;
mod args;
mod bench;
mod chat;
mod choices;
mod doctor;
mod embed;
mod failure;
mod generate;
mod imatrix;
mod input;
mod inspect;
mod interrupt;
mod logits;
mod metal;
mod model;
mod npy;
mod output;
mod perplexity;
mod progress;
mod quantize;
mod report;
mod template;
mod tokenize;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use args::Common;
use failure::Failure;

/// How a command ends.
type Done<T = ()> = Result<T, Failure>;

/// What `--version` prints: the version, and what the program was built with.
const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("GRISTMILL_BUILD"), ")");

/// Runs quantized GGUF language models on the CPU.
///
/// `generate` continues a text, which is what base models are for; `chat` holds a conversation with an
/// instruction-tuned model. Where MODEL is left out, a very small model that is built into the program runs: a toy.
#[derive(Parser)]
#[command(name = "grist", version, long_version = BUILD, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Generate(generate::Generate),
    Chat(chat::Chat),
    Inspect(inspect::Inspect),
    Advise(advise::Advise),
    Tokenize(tokenize::Tokenize),
    Template(template::Template),
    Logits(logits::Logits),
    Embed(embed::Embed),
    Bench(bench::Bench),
    Quantize(quantize::Quantize),
    Doctor(doctor::Doctor),
    Report(report::Report),
    Imatrix(imatrix::Imatrix),
    Perplexity(perplexity::Perplexity),
    Choices(choices::Choices),
}

/// Reads the command line and obeys it. Ends with 0, with 1 for errors, 2 for a wrong command line, 130 after Ctrl-C.
pub fn main() -> ExitCode {
    let mut cli = Cli::parse();
    if cli.common.verbose {
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
            .init();
    }
    let several_threads = matches!(cli.command, Command::Bench(_));
    let settled = cli.common.settle(several_threads, matches!(cli.command, Command::Advise(_)));
    let common = &cli.common;
    let done = settled.and_then(|()| common.backends()).and_then(|_| match cli.command {
        Command::Generate(args) => generate::run(args, common),
        Command::Chat(args) => chat::run(args, common),
        Command::Inspect(args) => inspect::run(&args, common),
        Command::Advise(args) => advise::run(&args, common),
        Command::Tokenize(args) => tokenize::run(&args, common),
        Command::Template(args) => template::run(args, common),
        Command::Logits(args) => logits::run(&args, common),
        Command::Embed(args) => embed::run(&args, common),
        Command::Bench(args) => bench::run(&args, common),
        Command::Quantize(args) => quantize::run(&args, common),
        Command::Doctor(args) => doctor::run(&args, common),
        Command::Report(args) => report::run(&args, common),
        Command::Imatrix(args) => imatrix::run(&args, common),
        Command::Perplexity(args) => perplexity::run(&args, common),
        Command::Choices(args) => choices::run(&args, common),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
