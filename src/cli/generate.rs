//! `grist generate`: the raw next-token stepper.

use std::io::{IsTerminal, stderr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use gristmill::CacheType;
use gristmill::generate::{Finish, Sampler};
use gristmill::text::{EncodeOptions, Tokenizer};

use super::args::{Common, Sampling, tell_seed};
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::model::Source;
use super::output::{Out, note};
use super::{Done, input, progress};

/// Continue a text
///
/// Prints the continuation only, not the text itself, as the model produces it; on a terminal a newline follows. The
/// text is given to the model as it is: BOS comes first where the model's metadata say so, special tokens in the text
/// are recognized, and no chat template is applied (see `grist chat` for that).
#[derive(Args)]
pub struct Generate {
    /// A .gguf file [default: the built-in model]
    model: Option<PathBuf>,
    /// The text to continue; `-` reads standard input, as it is, with the newline at its end if there is one
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: String,
    #[command(flatten)]
    sampling: Sampling,
}

/// Tokens to generate where nothing is said.
const TOKENS: usize = 128;

pub fn run(args: Generate, common: &Common) -> Done {
    let options = args.sampling.sampler(0.8);
    tell_seed(common, &options);
    let mut sampler = Sampler::new(options)?;
    let prompt = input::text_or_stdin(&args.prompt)?;
    let model = Source::new(&args.model).model(common)?;
    common.warn_of_context(&model);
    // First, for a model that has no next token needs no tokenizer to be refused.
    let mut stepper = model.stepper(common.stepper(CacheType::F16))?;
    let tokens = tokens(model.tokenizer()?, &prompt)?;
    if model.chat_template().is_some() && stderr().is_terminal() {
        note(format_args!("note: this model is instruction-tuned; `grist chat` talks to it as it expects"));
    }
    let interrupt = Interrupt::new(stepper.cancel_handle());
    let mut out = Out::new();

    interrupt.during(|| {
        let began = Instant::now();
        let bar = progress::tokens("reading the prompt", tokens.len());
        stepper.feed_with(&tokens, |done| bar.at(done.end))?;
        drop(bar);
        let read = began.elapsed();

        let began = Instant::now();
        let mut generation = stepper.generate(&mut sampler, args.sampling.generate(Some(TOKENS)))?;
        let done: Done = generation.try_for_each(|step| out.text(step?.text()));
        let written = began.elapsed();
        if !matches!(done, Err(Failure::NobodyReads)) {
            out.finish()?;
        }
        if args.sampling.stats {
            note(format_args!(
                "prompt: {} tokens, {:.1} tokens/s; generated: {} tokens, {:.1} tokens/s; ended by: {}",
                tokens.len(),
                rate(tokens.len(), read),
                generation.tokens(),
                rate(generation.tokens(), written),
                ending(generation.finish_reason()),
            ));
        }
        done
    })
}

/// Why generation ended, in a word.
pub fn ending(finish: Option<&Finish>) -> String {
    finish.map_or_else(|| "stopped".to_owned(), ToString::to_string)
}

/// Tokens a second.
pub fn rate(tokens: usize, time: Duration) -> f64 {
    tokens as f64 / time.as_secs_f64().max(1e-9)
}

/// The tokens of a text that is to be continued: BOS first where the model wants it, once, and nothing at the end.
fn tokens(tokenizer: &Tokenizer, text: &str) -> Done<Vec<u32>> {
    let mut tokens = tokenizer.encode(text, EncodeOptions::TEMPLATE)?;
    let bos = tokenizer.special_tokens().bos.filter(|_| tokenizer.add_bos());
    if let Some(bos) = bos.filter(|bos| tokens.first() != Some(bos)) {
        tokens.insert(0, bos);
    }
    Ok(tokens)
}
