//! `grist tokenize`: text to ids, and back.

use std::path::{Path, PathBuf};

use clap::Args;
use gristmill::text::{DecodeOptions, EncodeOptions, Tokenizer};

use super::args::Common;
use super::failure::Failure;
use super::model::Source;
use super::output::Out;
use super::{Done, input};

/// Print the token ids of a text as one JSON array
///
/// BOS and EOS are added as the model's metadata say, and special tokens in the text are recognized; with --no-special
/// neither. Files that hold a vocabulary and no weights will do.
#[derive(Args)]
#[command(override_usage = "grist tokenize [OPTIONS] [MODEL] <TEXT>\n       \
                            grist tokenize [OPTIONS] [MODEL] --batch <FILE.json>")]
pub struct Tokenize {
    /// A .gguf file [default: the built-in model], then the text; `-` reads standard input
    #[arg(num_args = 0..=2, value_names = ["MODEL", "TEXT"])]
    given: Vec<std::ffi::OsString>,
    /// Tokenize each string of a JSON array; each gives one line
    #[arg(long, value_name = "FILE.json")]
    batch: Option<PathBuf>,
    /// Add no special tokens, and recognize none
    #[arg(long)]
    no_special: bool,
    /// The other way: TEXT is token ids (1,2,3), their text is printed; with --no-special without special tokens
    #[arg(long, conflicts_with = "batch")]
    decode: bool,
}

pub fn run(args: &Tokenize, common: &Common) -> Done {
    let (model, text) = match (args.given.as_slice(), &args.batch) {
        ([], Some(_)) => (None, None),
        ([model], Some(_)) => (Some(model), None),
        ([model, text], None) => (Some(model), Some(text)),
        ([text], None) if !is_model(Path::new(text)) => (None, Some(text)),
        (_, Some(_)) => return Err(Failure::Usage("expected either TEXT or --batch, found both".into())),
        _ => {
            let expected = "expected TEXT, `-` for standard input, or --batch FILE.json, found none";
            return Err(Failure::Usage(expected.into()));
        }
    };
    let file = Source(model.map(Path::new)).file()?;
    let tokenizer = Tokenizer::with_options(file.metadata(), &common.tokenizer())?;
    let options = if args.no_special { EncodeOptions::TEXT } else { EncodeOptions::PROMPT };
    let mut out = Out::new();
    if let Some(path) = &args.batch {
        let texts: Vec<String> = serde_json::from_value(input::json(path)?).map_err(|error| {
            Failure::file(path, format_args!("expected a JSON array of strings: {error}"))
        })?;
        for text in texts {
            out.line(format_args!("{:?}", tokenizer.encode(&text, options)?))?;
        }
        return Ok(());
    }
    let text =
        text.map(|text| text.to_str().ok_or_else(|| Failure::new("TEXT: expected UTF-8, found other bytes")));
    let text = input::text_or_stdin(text.transpose()?.unwrap_or("-"))?;
    if args.decode {
        return decode(&tokenizer, &text, !args.no_special, &mut out);
    }
    out.line(format_args!("{:?}", tokenizer.encode(&text, options)?))
}

/// Whether one lone argument names a model rather than being the text.
fn is_model(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) && path.is_file()
}

fn decode(tokenizer: &Tokenizer, text: &str, special: bool, out: &mut Out) -> Done {
    let ids = input::ids(text)?;
    let vocab = tokenizer.vocab_len();
    if let Some(&token) = ids.iter().find(|&&id| id as usize >= vocab) {
        return Err(gristmill::Error::TokenOutOfRange { token, vocab }.into());
    }
    let bytes = tokenizer.decode_with(&ids, DecodeOptions { special, ..DecodeOptions::WHOLE });
    match out.is_terminal() {
        true => out.text(&String::from_utf8_lossy(&bytes))?,
        false => out.bytes(&bytes)?,
    }
    out.finish()
}
