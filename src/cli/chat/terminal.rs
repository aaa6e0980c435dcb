//! The conversation in a terminal: a line editor with history, and commands that begin with a slash.

use std::path::Path;

use gristmill::Model;
use gristmill::generate::Chat as Conversation;
use rustyline::error::ReadlineError;
use rustyline::{
    Cmd, ConditionalEventHandler, DefaultEditor, Event, EventContext, EventHandler, KeyEvent, Movement,
    RepeatCount,
};
use serde_json::Value as Json;

use super::Talk;
use crate::cli::Done;
use crate::cli::failure::Failure;
use crate::cli::output::{self, note};

const HELP: &str = "\
/help          this list
/system TEXT   another system prompt, and a new conversation; without TEXT no system prompt
/reset         a new conversation
/save FILE     write the messages to FILE, as JSON
/stats         switch the line of statistics on or off
/quit          leave, as do Ctrl-D and Ctrl-C at an empty prompt

Ctrl-C stops an answer; what came of it stays part of the conversation. The arrow keys
bring back what you wrote. A message that begins with a slash needs a space
before it.";

/// What a line asks for.
enum Ask<'a> {
    Nothing,
    Help,
    System(&'a str),
    Reset,
    Save(&'a str),
    Stats,
    Quit,
    Unknown(&'a str),
    Message,
}

impl<'a> Ask<'a> {
    fn parse(line: &'a str) -> Self {
        if line.trim().is_empty() {
            return Ask::Nothing;
        }
        if !line.starts_with('/') {
            return Ask::Message;
        }
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match command {
            "/help" | "/?" => Ask::Help,
            "/system" => Ask::System(rest.trim()),
            "/reset" => Ask::Reset,
            "/save" => Ask::Save(rest.trim()),
            "/stats" => Ask::Stats,
            "/quit" | "/exit" => Ask::Quit,
            _ => Ask::Unknown(command),
        }
    }
}

/// Ctrl-C empties the line, and leaves where it is empty already.
struct EmptyOrLeave;

impl ConditionalEventHandler for EmptyOrLeave {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        Some(if context.line().is_empty() { Cmd::Interrupt } else { Cmd::Kill(Movement::WholeBuffer) })
    }
}

pub fn run(chat: &mut Conversation, talk: &mut Talk, toy: bool) -> Done {
    header(chat, talk, toy)?;
    let failed = |error: ReadlineError| Failure::new(format!("the terminal: {error}"));
    let mut editor = DefaultEditor::new().map_err(failed)?;
    editor.bind_sequence(KeyEvent::ctrl('c'), EventHandler::Conditional(Box::new(EmptyOrLeave)));
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Eof | ReadlineError::Interrupted) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        if !line.trim().is_empty() {
            let _ = editor.add_history_entry(line.as_str());
        }
        match Ask::parse(&line) {
            Ask::Nothing => {}
            Ask::Help => talk.out.aside(HELP)?,
            Ask::System("") => {
                chat.set_system(None);
                talk.out.aside("no system prompt; the conversation begins anew")?;
            }
            Ask::System(text) => {
                chat.set_system(Some(text.to_owned()));
                talk.out.aside("system prompt set; the conversation begins anew")?;
            }
            Ask::Reset => {
                chat.reset();
                talk.out.aside("the conversation begins anew")?;
            }
            Ask::Save("") => note(format_args!("error: /save: expected the name of a file")),
            Ask::Save(file) => match save(chat, Path::new(file)) {
                Ok(()) => talk.out.aside(&format!("{} messages saved to {file}", chat.messages().len()))?,
                Err(failure) => {
                    failure.report();
                }
            },
            Ask::Stats => {
                talk.stats = !talk.stats;
                talk.out.aside(if talk.stats { "statistics on" } else { "statistics off" })?;
            }
            Ask::Quit => return Ok(()),
            Ask::Unknown(command) => {
                note(format_args!("error: {command} is unknown; /help lists the commands"))
            }
            Ask::Message => match talk.answer(chat, line) {
                Ok(()) => {}
                Err(Failure::NobodyReads) => return Err(Failure::NobodyReads),
                Err(Failure::Interrupted) => talk.out.aside("(stopped)")?,
                Err(failure) => {
                    failure.report();
                    if matches!(failure, Failure::Library(gristmill::Error::ContextFull { .. })) {
                        talk.out.aside("/reset begins a new conversation")?;
                    }
                }
            },
        }
    }
}

fn save(chat: &Conversation, path: &Path) -> Done {
    let messages = Json::Array(chat.messages().to_vec());
    output::write_file(path, |out| writeln!(out, "{messages:#}").map_err(|error| Failure::file(path, error)))
}

fn header(chat: &Conversation, talk: &mut Talk, toy: bool) -> Done {
    let model = chat.stepper().model();
    talk.out.heading(&format!("{} with grist {}", name(model), env!("CARGO_PKG_VERSION")))?;
    let weights = model.file().tensors().map(|tensor| tensor.info.elements() as u64).sum();
    talk.out.aside(&format!(
        "{} weights, {}, context of {} tokens",
        output::count(weights),
        output::size(model.file().file_bytes()),
        chat.stepper().context(),
    ))?;
    if toy {
        talk.out.aside(
            "This is the built-in model, a toy: it answers simple questions in short sentences and knows little\n\
             else. For real answers give a .gguf file: grist chat MODEL",
        )?;
    }
    talk.out.aside("/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves\n")
}

/// The model's name, or else its file's.
fn name(model: &Model) -> String {
    let file = || Some(model.file().path()?.file_stem()?.to_string_lossy().into_owned());
    model.name().map(str::to_owned).or_else(file).unwrap_or_else(|| "a model without a name".to_owned())
}
