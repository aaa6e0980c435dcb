//! `grist chat`: a conversation by the model's own template.

mod terminal;

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use gristmill::CacheType;
use gristmill::generate::{Chat as Conversation, ChatOptions, Finish, Outcome, Overflow};
use serde_json::Value as Json;

use super::args::{Common, Sampling, tell_seed};
use super::failure::Failure;
use super::generate::{ending, rate};
use super::interrupt::Interrupt;
use super::model::Source;
use super::output::{Out, note};
use super::{Done, input, template};

/// Hold a conversation with an instruction-tuned model
///
/// In a terminal: a prompt with history; /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves. With -p one
/// answer is printed. Where standard input is no terminal, each line of it is a message and only the answers are
/// printed. The built-in model, a toy, answers with temperature 0 unless --temp says otherwise.
#[derive(Args)]
pub struct Chat {
    /// A .gguf file with a chat template [default: the built-in model]
    model: Option<PathBuf>,
    /// The system prompt
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// Say this, print the answer and leave; `-` reads standard input, less the newline at its end
    #[arg(short, long, value_name = "MESSAGE", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// A Jinja template to use in place of the model's
    #[arg(long, value_name = "FILE.jinja")]
    template: Option<PathBuf>,
    /// A variable for the template, such as enable_thinking=false; may be given often
    #[arg(long, value_name = "NAME=JSON", value_parser = template::variable)]
    var: Vec<(String, Json)>,
    /// Forget the oldest turns when the context is full, rather than refuse to go on
    #[arg(long)]
    drop_oldest: bool,
    #[command(flatten)]
    sampling: Sampling,
}

pub fn run(args: Chat, common: &Common) -> Done {
    let source = Source::new(&args.model);
    let sampler = args.sampling.sampler(if source.is_embedded() { 0.0 } else { 0.8 });
    tell_seed(common, &sampler);
    gristmill::generate::Sampler::new(sampler.clone())?;
    let mut options = ChatOptions::default()
        .sampler(sampler)
        .stepper(common.stepper(CacheType::F16))
        .generate(args.sampling.generate(None))
        .overflow(if args.drop_oldest { Overflow::DropOldest } else { Overflow::Refuse });
    if let Some(system) = args.system {
        options = options.system(system);
    }
    if let Some(path) = &args.template {
        options = options.template(input::text_file(path)?);
    }
    for (name, value) in args.var {
        options = options.variable(name, value);
    }
    let message = args.prompt.as_deref().map(message).transpose()?;
    let model = source.model(common)?;
    let mut chat = model.chat(options)?;
    let interrupt = Interrupt::new(chat.cancel_handle());
    let mut talk = Talk { out: Out::new(), interrupt, stats: args.sampling.stats };
    if let Some(message) = message {
        return talk.answer(&mut chat, message);
    }
    if io::stdin().is_terminal() && talk.out.is_terminal() {
        return terminal::run(&mut chat, &mut talk, source.is_embedded());
    }
    for line in io::stdin().lock().lines() {
        let line =
            line.map_err(|error| Failure::new(format!("standard input: expected lines of UTF-8: {error}")))?;
        if !line.trim().is_empty() {
            talk.answer(&mut chat, line)?;
        }
    }
    Ok(())
}

/// The message of `-p`.
fn message(given: &str) -> Done<String> {
    let mut text = input::text_or_stdin(given)?;
    if given == "-" && text.ends_with('\n') {
        text.truncate(text.len() - 1);
        if text.ends_with('\r') {
            text.truncate(text.len() - 1);
        }
    }
    Ok(text)
}

/// What answers go through.
struct Talk {
    out: Out,
    interrupt: Interrupt,
    stats: bool,
}

impl Talk {
    /// Says `message` and streams the answer, with a newline at its end also where it is interrupted.
    fn answer(&mut self, chat: &mut Conversation, message: String) -> Done {
        let Talk { out, interrupt, stats } = self;
        interrupt.during(|| {
            let began = Instant::now();
            let mut reply = match chat.send(message) {
                Err(gristmill::Error::Cancelled) => {
                    out.text("\n")?;
                    return Err(Failure::Interrupted);
                }
                reply => reply?,
            };
            let read = began.elapsed();
            match reply.plan().dropped {
                0 => {}
                dropped => {
                    note(format_args!("note: the context is full; {dropped} old messages are forgotten"))
                }
            }
            let began = Instant::now();
            let done: Done = reply.try_for_each(|piece| out.text(&piece?));
            let written = began.elapsed();
            if matches!(done, Ok(()) | Err(Failure::Interrupted)) {
                out.text("\n")?;
            }
            let outcome = reply.outcome();
            if outcome.finish == Some(Finish::Context) {
                note(format_args!(
                    "note: the context is full, so the answer is cut off (--ctx says how long it is)"
                ));
            }
            if *stats {
                note(format_args!("{}", statistics(&outcome, read, written)));
            }
            done
        })
    }
}

/// One line on an answer: the prompt's speed counts only what was not in the cache.
fn statistics(outcome: &Outcome, read: Duration, written: Duration) -> String {
    let fresh = outcome.prompt_tokens - outcome.cached_tokens.min(outcome.prompt_tokens);
    format!(
        "prompt: {} tokens ({} cached), {:.1} tokens/s; answer: {} tokens, {:.1} tokens/s; ended by: {}",
        outcome.prompt_tokens,
        outcome.cached_tokens,
        rate(fresh, read),
        outcome.answer_tokens,
        rate(outcome.answer_tokens, written),
        ending(outcome.finish.as_ref()),
    )
}
