//! `grist logits`: the measuring tool.

use std::path::PathBuf;

use clap::Args;
use gristmill::CacheType;

use super::args::Common;
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::model::Source;
use super::{Done, input, npy, output, progress};

/// Write the logits after each of some tokens as a float32 .npy file of shape [positions, vocabulary]
///
/// Keys and values are kept in f32 unless --cache says otherwise. The file appears when it is complete.
#[derive(Args)]
pub struct Logits {
    /// A .gguf file [default: the built-in model]
    model: Option<PathBuf>,
    /// Token ids, such as 1,2,3; `-` reads them from standard input
    #[arg(long, value_name = "IDS", allow_hyphen_values = true)]
    tokens: String,
    /// The file to write; `-` is standard output
    #[arg(long, value_name = "FILE.npy")]
    out: PathBuf,
    /// Only the logits after the last token
    #[arg(long)]
    last: bool,
    /// Tokens to feed in one pass; results do not depend on it
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
}

pub fn run(args: &Logits, common: &Common) -> Done {
    let tokens = input::ids(&input::text_or_stdin(&args.tokens)?)?;
    if tokens.is_empty() {
        return Err(Failure::new("--tokens: expected at least one token id, found none"));
    }
    let model = Source::new(&args.model).model(common)?;
    let options = common.stepper(CacheType::F32).batch(args.batch as usize);
    let mut stepper = model.stepper(options)?;
    let cancel = stepper.cancel_handle();
    let interrupt = Interrupt::new(cancel.clone());
    let bar = progress::tokens("feeding", tokens.len());
    output::write_file(&args.out, |out| {
        let failed = |error| npy::failed(&args.out, error);
        let rows = if args.last { 1 } else { tokens.len() };
        out.write_all(&npy::header(rows, model.vocabulary())).map_err(failed)?;
        if args.last {
            interrupt.during(|| stepper.feed_with(&tokens, |done| bar.at(done.end)))?;
            return npy::write_row(out, stepper.try_logits()?).map_err(failed);
        }
        let mut written = Ok(());
        let fed = interrupt.during(|| {
            stepper.feed_each(&tokens, |index, row| {
                bar.at(index + 1);
                if written.is_ok() {
                    written = npy::write_row(out, row);
                    if written.is_err() {
                        cancel.cancel();
                    }
                }
            })
        });
        written.map_err(failed)?;
        Ok(fed?)
    })
}
