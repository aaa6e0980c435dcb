//! `grist imatrix`: what matters when a model is quantized.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use gristmill::eval::imatrix;
use gristmill::generate::CancelHandle;

use super::args::{Common, Measured};
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::model::Source;
use super::output::note;
use super::{Done, input, output, progress};

/// Measure which columns of the weights matter, for `quantize --imatrix`
///
/// As llama-imatrix does, in the GGUF form that llama.cpp reads too: the model reads the text in chunks of --ctx tokens (512
/// where nothing is said), and the squares of what goes into each tensor are summed. The file appears when it is complete.
#[derive(Args)]
#[command(allow_missing_positional = true)]
pub struct Imatrix {
    /// A .gguf file, best in F32, F16 or BF16 [default: the built-in model]
    model: Option<PathBuf>,
    /// The text; `-` reads standard input
    #[arg(value_name = "TEXTFILE")]
    text: PathBuf,
    #[command(flatten)]
    measured: Measured,
    /// Measure output.weight too
    #[arg(long)]
    process_output: bool,
    /// The file to write; `-` is standard output
    #[arg(long, value_name = "FILE.gguf")]
    out: PathBuf,
}

pub fn run(args: &Imatrix, common: &Common) -> Done {
    let text = input::text_file(&args.text)?;
    let model = Source::new(&args.model).model(common)?;
    let parts = model.file().parts().filter_map(|(path, _)| path);
    if parts.chain([args.text.as_path()]).any(|path| same(path, &args.out)) {
        return Err(Failure::file(&args.out, "this is the input itself: give the output another name"));
    }
    common.warn_of_context(&model);
    let cancel = CancelHandle::default();
    let options = args.measured.options(common, &cancel);
    let interrupt = Interrupt::new(cancel);
    let bar = progress::Estimating::new("measuring");
    let dataset = args.text.to_string_lossy();
    let sums = interrupt
        .during(|| imatrix(&model, &text, &dataset, args.process_output, &options, |at| bar.at(at)))?;
    drop(bar);
    output::write_file(&args.out, |out| Ok(sums.write(out)?))?;
    let unreached: usize =
        sums.tensors.values().map(|tensor| tensor.counts.iter().filter(|&&count| count == 0).count()).sum();
    if unreached > 0 {
        note(format_args!(
            "note: {unreached} matrices of experts were never used; a longer text may reach them"
        ));
    }
    note(format_args!("measured {} tensors over {} chunks", sums.tensors.len(), sums.chunks));
    Ok(())
}

/// Whether both paths lead to one file.
fn same(a: &Path, b: &Path) -> bool {
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}
