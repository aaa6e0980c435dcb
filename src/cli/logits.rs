//! `grist logits`: the measuring tool.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use gristmill::CacheType;

use super::args::Common;
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::model::Source;
use super::{Done, input, output, progress};

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
        let failed = |error| file_failed(&args.out, error);
        let rows = if args.last { 1 } else { tokens.len() };
        out.write_all(&npy_header(rows, model.vocabulary())).map_err(failed)?;
        if args.last {
            interrupt.during(|| stepper.feed_with(&tokens, |done| bar.at(done.end)))?;
            return write_row(out, stepper.logits()).map_err(failed);
        }
        let mut written = Ok(());
        let fed = interrupt.during(|| {
            stepper.feed_each(&tokens, |index, row| {
                bar.at(index + 1);
                if written.is_ok() {
                    written = write_row(out, row);
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

fn file_failed(path: &Path, error: io::Error) -> Failure {
    if path.as_os_str() == "-" { error.into() } else { Failure::file(path, error) }
}

fn write_row(out: &mut dyn Write, row: &[f32]) -> io::Result<()> {
    row.iter().try_for_each(|logit| out.write_all(&logit.to_le_bytes()))
}

/// The beginning of a .npy file, version 1.0: the numbers follow at a multiple of 64 bytes.
/// <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>
fn npy_header(rows: usize, columns: usize) -> Vec<u8> {
    const BEFORE: usize = 10;
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let len = (BEFORE + text.len() + 1).next_multiple_of(64) - BEFORE;
    text.extend(std::iter::repeat_n(' ', len - text.len() - 1));
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&(len as u16).to_le_bytes());
    header.extend_from_slice(text.as_bytes());
    header
}
