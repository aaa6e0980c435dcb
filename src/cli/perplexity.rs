//! `grist perplexity`: how well a model predicts a text, and how far it is from another model.

use std::path::PathBuf;

use clap::Args;
use gristmill::eval::{self, Distribution, Divergence, Estimate, divergence, perplexity};
use gristmill::generate::CancelHandle;
use serde_json::{Map, Value as Json, json};

use super::args::{Common, Measured};
use super::interrupt::Interrupt;
use super::model::Source;
use super::output::Out;
use super::{Done, input, progress};

/// Measure the perplexity of a text
///
/// As llama-perplexity does: the text is cut into chunks of --ctx tokens (512 where nothing is said), and the second half of
/// each is scored. With --reference also how far the model's predictions are from another's with the same vocabulary: of a
/// quantized file from the original. Errors are standard errors.
#[derive(Args)]
#[command(allow_missing_positional = true)]
pub struct Perplexity {
    /// A .gguf file [default: the built-in model]
    model: Option<PathBuf>,
    /// The text; `-` reads standard input
    #[arg(value_name = "TEXTFILE")]
    text: PathBuf,
    #[command(flatten)]
    measured: Measured,
    /// Begin each chunk N tokens behind the one before, and score its last N: sharper, and slower
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    stride: Option<u32>,
    /// The model to compare with
    #[arg(long, value_name = "MODEL")]
    reference: Option<PathBuf>,
    /// Print JSON rather than a table
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Perplexity, common: &Common) -> Done {
    let text = input::text_file(&args.text)?;
    let model = Source::new(&args.model).model(common)?;
    let reference = args.reference.as_ref().map(|path| Source(Some(path)).model(common)).transpose()?;
    common.warn_of_context(&model);
    let cancel = CancelHandle::default();
    let mut options = args.measured.options(common, &cancel);
    if let Some(stride) = args.stride {
        options = options.stride(stride as usize);
    }
    let interrupt = Interrupt::new(cancel);
    let bar = progress::Estimating::new(if reference.is_some() { "divergence" } else { "perplexity" });
    let found = interrupt.during(|| match &reference {
        None => perplexity(&model, &text, &options, |at| bar.at(at)).map(|found| (found, None)),
        Some(reference) => divergence(&model, reference, &text, &options, |at| bar.at(at))
            .map(|found| (found.model, Some(found))),
    });
    drop(bar);
    let (found, compared) = found?;
    let mut out = Out::new();
    if args.json {
        let mut json = of_perplexity(&found);
        json.insert("stride".to_owned(), json!(args.stride));
        json.extend(compared.iter().map(|compared| ("divergence".to_owned(), of_divergence(compared))));
        return out.text(&format!("{:#}\n", Json::Object(json)));
    }
    out.line(format_args!("perplexity           {}", found.perplexity))?;
    out.line(format_args!("bits per byte        {}", found.bits_per_byte))?;
    let eval::Perplexity { tokens, bytes, chunks, context, .. } = found;
    out.line(format_args!(
        "scored               {tokens} tokens ({bytes} bytes) in {chunks} chunks of {context}{}",
        args.stride.map(|stride| format!(", {stride} apart")).unwrap_or_default()
    ))?;
    compared.map_or(Ok(()), |compared| table(&mut out, &compared))
}

fn table(out: &mut Out, found: &Divergence) -> Done {
    let Divergence { kl, probability_change: change, .. } = found;
    let six = |of: Estimate| format!("{:.6} +/- {:.6}", of.value, of.error);
    let percent = |of: Estimate| format!("{:.3} +/- {:.3} %", 100.0 * of.value, 100.0 * of.error);
    out.line(format_args!("\nreference            {}", found.reference.perplexity))?;
    out.line(format_args!("ln of the ratio      {}", six(found.log_ratio)))?;
    out.line(format_args!("divergence in nats   {}", six(kl.mean())))?;
    for (name, fraction) in QUANTILES {
        out.line(format_args!("  {name:<18} {:.6}", kl.quantile(fraction)))?;
    }
    out.line(format_args!("change of p, mean    {}", percent(change.mean())))?;
    out.line(format_args!("change of p, RMS     {}", percent(found.rms_probability_change)))?;
    out.line(format_args!("same likeliest token {}", percent(found.same_top.estimate())))
}

/// The quantiles that are shown, by their names in tables.
const QUANTILES: [(&str, f64); 7] = [
    ("least", 0.0),
    ("median", 0.5),
    ("90 %", 0.9),
    ("95 %", 0.95),
    ("99 %", 0.99),
    ("99.9 %", 0.999),
    ("greatest", 1.0),
];

fn of_perplexity(found: &eval::Perplexity) -> Map<String, Json> {
    let mut json = Map::new();
    put(&mut json, "perplexity", found.perplexity);
    put(&mut json, "nll", found.nll);
    put(&mut json, "bits_per_byte", found.bits_per_byte);
    let counts =
        [("tokens", found.tokens), ("bytes", found.bytes), ("chunks", found.chunks), ("ctx", found.context)];
    json.extend(counts.map(|(name, count)| (name.to_owned(), count.into())));
    json
}

fn of_divergence(found: &Divergence) -> Json {
    let distribution = |of: &Distribution| {
        let mut json = Map::new();
        put(&mut json, "mean", of.mean());
        let names = ["min", "median", "p90", "p95", "p99", "p99.9", "max"];
        let values = QUANTILES.map(|(_, fraction)| of.quantile(fraction));
        json.extend(names.iter().zip(values).map(|(name, value)| ((*name).to_owned(), json!(value))));
        Json::Object(json)
    };
    let mut json = Map::new();
    json.insert("reference".to_owned(), Json::Object(of_perplexity(&found.reference)));
    put(&mut json, "log_ratio", found.log_ratio);
    json.insert("kl".to_owned(), distribution(&found.kl));
    json.insert("probability_change".to_owned(), distribution(&found.probability_change));
    put(&mut json, "rms_probability_change", found.rms_probability_change);
    put(&mut json, "same_top", found.same_top.estimate());
    Json::Object(json)
}

/// The fields `name` and `name_error`.
pub fn put(json: &mut Map<String, Json>, name: &str, estimate: Estimate) {
    json.insert(name.to_owned(), json!(estimate.value));
    json.insert(format!("{name}_error"), json!(estimate.error));
}
