//! `grist embed`: a text as a vector.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use gristmill::CacheType;
use gristmill::embed::{EmbedOptions, Pooling};

use super::args::Common;
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::model::Source;
use super::output::note;
use super::{Done, input, npy, output};

/// Write the embedding of a text as a float32 .npy file of shape [1, width]
///
/// The tokens' vectors are pooled as the model's file says and normalized to length 1. With --pooling none there is one
/// row for each token, neither pooled nor normalized; with --pooling rank the row is the scores of a reranking model. The
/// tokenizer adds the special tokens that the model wants; what else a model wants to stand before a text (such as
/// `query: `) is yours to write. The file appears when it is complete.
#[derive(Args)]
pub struct Embed {
    /// A .gguf file [default: the built-in model]
    model: Option<PathBuf>,
    /// The text; `-` reads standard input
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true, required_unless_present = "tokens")]
    prompt: Option<String>,
    /// Token ids in place of a text, such as 1,2,3, used as they are; `-` reads them from standard input
    #[arg(long, value_name = "IDS", allow_hyphen_values = true, conflicts_with = "prompt")]
    tokens: Option<String>,
    /// How the tokens' vectors become one [default: what the file says; else mean for encoders, last for decoders]
    #[arg(long, value_name = "HOW", value_parser = PossibleValuesParser::new(Pooling::ALL.iter().map(|p| p.name())))]
    pooling: Option<String>,
    /// Do not normalize the pooled vector
    #[arg(long)]
    raw: bool,
    /// The file to write; `-` is standard output
    #[arg(long, value_name = "FILE.npy")]
    out: PathBuf,
}

pub fn run(args: &Embed, common: &Common) -> Done {
    let given =
        input::text_or_stdin(args.prompt.as_ref().or(args.tokens.as_ref()).map_or("-", |given| given))?;
    let ids = args.tokens.is_some().then(|| input::ids(&given)).transpose()?;
    if ids.as_ref().is_some_and(Vec::is_empty) {
        return Err(Failure::new("--tokens: expected at least one token id, found none"));
    }
    let model = Source::new(&args.model).model(common)?;
    let mut options = EmbedOptions::default().normalize(!args.raw).cache(common.cache(CacheType::F32));
    if let Some(context) = common.ctx {
        options = options.context(context as usize);
    }
    let asked = args.pooling.as_deref();
    let asked = asked.and_then(|name| Pooling::ALL.iter().find(|pooling| pooling.name() == name));
    if let Some(&pooling) = asked {
        options = options.pooling(pooling);
    }
    let mut embedder = model.embedder(options)?;
    let interrupt = Interrupt::new(embedder.cancel_handle());
    let embedding = interrupt.during(|| match &ids {
        Some(ids) => embedder.embed_tokens(ids),
        None => embedder.embed(&given),
    })?;
    output::write_file(&args.out, |out| {
        let failed = |error| npy::failed(&args.out, error);
        out.write_all(&npy::header(embedding.rows().len(), embedding.width())).map_err(failed)?;
        npy::write_row(out, embedding.values()).map_err(failed)
    })?;
    if asked.is_none() && model.pooling()?.is_none() {
        note(format_args!("note: the model's file names no pooling; taking `{}`", embedder.pooling()));
    }
    Ok(())
}
