//! `grist template`: what a model sees of a conversation.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use gristmill::gguf::Metadata;
use gristmill::text::Tokenizer;
use gristmill::text::template::{ChatTemplate, DateTime, RenderInput};
use serde_json::Value as Json;

use super::args::Common;
use super::failure::Failure;
use super::model::Source;
use super::output::Out;
use super::{Done, input};

/// Print the prompt that a chat template makes of a conversation, byte for byte
#[derive(Args)]
pub struct Template {
    /// A .gguf file with a chat template, or a template's Jinja source [default: the built-in model]
    model: Option<PathBuf>,
    /// A JSON array of messages, or an object with `messages` and perhaps `tools`, `documents`,
    /// `add_generation_prompt` and variables; `-` reads standard input
    #[arg(long, value_name = "FILE.json")]
    messages: PathBuf,
    /// A JSON array of the tools that may be called
    #[arg(long, value_name = "FILE.json")]
    tools: Option<PathBuf>,
    /// Do not begin the assistant's answer
    #[arg(long)]
    no_generation_prompt: bool,
    /// A variable for the template, such as enable_thinking=false; may be given often
    #[arg(long, value_name = "NAME=JSON", value_parser = variable)]
    var: Vec<(String, Json)>,
    /// The time that the template sees, such as 2026-01-15T12:00:00 [default: the clock's, UTC]
    #[arg(long, value_name = "TIME", value_parser = time)]
    now: Option<DateTime>,
    /// Text of the BOS token [default: the model's]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    bos: Option<String>,
    /// Text of the EOS token [default: the model's]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    eos: Option<String>,
}

/// Reads `NAME=JSON`.
pub fn variable(text: &str) -> Result<(String, Json), String> {
    let (name, json) = text.split_once('=').ok_or("expected NAME=JSON")?;
    let json =
        serde_json::from_str(json).map_err(|error| format!("expected JSON after `{name}=`: {error}"))?;
    Ok((name.to_owned(), json))
}

fn time(text: &str) -> Result<DateTime, String> {
    DateTime::parse(text).ok_or_else(|| "expected a time such as 2026-01-15T12:00:00".to_owned())
}

pub fn run(args: Template, common: &Common) -> Done {
    let mut input = input_of(input::json(&args.messages)?, &args.messages)?;
    if let Some(path) = &args.tools {
        input.tools = Some(input::json(path)?);
    }
    input.add_generation_prompt &= !args.no_generation_prompt;
    input.variables.extend(args.var);
    input.now = args.now;
    let source = match args.model.as_deref() {
        Some(path) if !is_gguf(path)? => input::text_file(path)?,
        path => {
            let file = Source(path).file()?;
            (input.bos_token, input.eos_token) = token_texts(file.metadata(), common);
            let template = file.metadata().str("tokenizer.chat_template")?;
            template.map(str::to_owned).ok_or_else(|| {
                Failure::new(
                    "expected the metadata key `tokenizer.chat_template`, found none: this is a base model, \
                     or its template is kept elsewhere; give the template's .jinja file in place of MODEL",
                )
            })?
        }
    };
    input.bos_token = args.bos.or(input.bos_token);
    input.eos_token = args.eos.or(input.eos_token);
    let prompt = ChatTemplate::new(&source)?.render(&input)?;
    Out::new().bytes(prompt.as_bytes())
}

/// The messages, and what else the file gives.
fn input_of(json: Json, path: &Path) -> Done<RenderInput> {
    let expected = || Failure::file(path, "expected a JSON array of messages, or an object with `messages`");
    let mut fields = match json {
        Json::Array(_) => return Ok(RenderInput::new(json)),
        Json::Object(fields) => fields,
        _ => return Err(expected()),
    };
    let messages = fields.shift_remove("messages").filter(Json::is_array).ok_or_else(expected)?;
    let mut input = RenderInput::new(messages);
    input.tools = fields.shift_remove("tools").filter(|tools| !tools.is_null());
    input.documents = fields.shift_remove("documents").filter(|documents| !documents.is_null());
    if let Some(add) = fields.shift_remove("add_generation_prompt") {
        input.add_generation_prompt = add
            .as_bool()
            .ok_or_else(|| Failure::file(path, "`add_generation_prompt`: expected true or false"))?;
    }
    input.variables = fields;
    Ok(input)
}

/// Whether the file at `path` is to be read as a model: by its name or its first bytes.
fn is_gguf(path: &Path) -> Done<bool> {
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
        return Ok(true);
    }
    // What is no regular file may not be read twice.
    if !path.is_file() {
        return Ok(false);
    }
    let mut magic = Vec::new();
    let file = File::open(path).map_err(|error| Failure::file(path, error))?;
    file.take(4).read_to_end(&mut magic).map_err(|error| Failure::file(path, error))?;
    Ok(magic == b"GGUF")
}

/// The texts of BOS and EOS; none where the file has no tokenizer that can be read.
fn token_texts(metadata: &Metadata, common: &Common) -> (Option<String>, Option<String>) {
    let Ok(tokenizer) = Tokenizer::with_options(metadata, &common.tokenizer()) else { return (None, None) };
    let text = |id: Option<u32>| Some(String::from_utf8_lossy(tokenizer.token_text(id?)?).into_owned());
    let special = tokenizer.special_tokens();
    (text(special.bos), text(special.eos))
}
