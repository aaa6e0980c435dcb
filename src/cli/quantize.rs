//! `grist quantize`: another file of the same model in fewer bits.

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use clap::Args;
use gristmill::GgmlType;
use gristmill::gguf::Value;
use gristmill::model::file::ModelFile;
use gristmill::quantize::{Imatrix, Mix, Options, Plan, Planned, Splitting, plan, quantize};
use serde_json::json;

use super::args::Common;
use super::failure::Failure;
use super::output::{Out, note};
use super::{Done, interrupt, progress};

/// Make a smaller file of a model
///
/// The tensors get the types, and the bytes, that llama-quantize gives them. TYPE is a type or a mix of types by
/// llama-quantize's name, such as Q4_K_M, Q8_0 or IQ3_XS; COPY changes nothing, which joins or splits files.
/// A file in several parts is read by the name of any of them.
#[derive(Args)]
#[command(allow_missing_positional = true)]
pub struct Quantize {
    /// The .gguf file to read, best in F32, F16 or BF16
    input: PathBuf,
    /// The file to write; not needed with --dry-run
    #[arg(required_unless_present = "dry_run")]
    output: Option<PathBuf>,
    /// The type or mix: Q4_K_M, Q8_0, ...
    #[arg(value_name = "TYPE")]
    mix: String,
    /// An importance matrix, as llama-imatrix writes it
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    /// Use the importance only of tensors whose names hold NAME; may be given often
    #[arg(long, value_name = "NAME", conflicts_with = "exclude_weights")]
    include_weights: Vec<String>,
    /// Use no importance of tensors whose names hold NAME; may be given often
    #[arg(long, value_name = "NAME")]
    exclude_weights: Vec<String>,
    /// Give the tensors whose names match the regular expression PATTERN this type; may be given often, and the first that
    /// matches counts
    #[arg(long, value_name = "PATTERN=TYPE", value_parser = tensor_type)]
    tensor_type: Vec<(String, GgmlType)>,
    /// A file of such pairs, with spaces or newlines between
    #[arg(long, value_name = "FILE")]
    tensor_type_file: Option<PathBuf>,
    /// The type of output.weight
    #[arg(long, value_name = "TYPE", value_parser = ggml_type)]
    output_tensor_type: Option<GgmlType>,
    /// The type of the token embeddings
    #[arg(long, value_name = "TYPE", value_parser = ggml_type)]
    token_embedding_type: Option<GgmlType>,
    /// Give all tensors the same type
    #[arg(long)]
    pure: bool,
    /// Leave output.weight as it is
    #[arg(long)]
    leave_output_tensor: bool,
    /// Leave these layers out: 3,7,8, counted from 0
    #[arg(long, value_name = "N", value_delimiter = ',')]
    prune_layers: Vec<u32>,
    /// Change a key of the metadata; TYPE is int, float, bool or str; may be given often
    #[arg(long, value_name = "KEY=TYPE:VALUE", value_parser = metadata)]
    override_kv: Vec<(String, Value)>,
    /// Write as many parts as the input has
    #[arg(long)]
    keep_split: bool,
    /// Write parts of at most this size: 500M, 2G
    #[arg(long, value_name = "N(M|G)", value_parser = size, conflicts_with = "keep_split")]
    split_max_size: Option<u64>,
    /// Do not warn where tensors that are quantized already are quantized again
    #[arg(long)]
    allow_requantize: bool,
    /// Only say what would become of each tensor
    #[arg(long)]
    dry_run: bool,
    /// Print JSON: what would become of each tensor, or what was written
    #[arg(long)]
    json: bool,
}

fn ggml_type(name: &str) -> Result<GgmlType, String> {
    GgmlType::from_name(name).filter(|ty| ty.is_encodable()).ok_or_else(|| {
        let names: Vec<_> = GgmlType::ENCODABLE.iter().map(|ty| ty.name()).collect();
        format!("expected one of {}", names.join(", "))
    })
}

fn tensor_type(pair: &str) -> Result<(String, GgmlType), String> {
    match pair.split_once('=') {
        Some((pattern, ty)) if !pattern.is_empty() => Ok((pattern.to_owned(), ggml_type(ty)?)),
        _ => Err("expected PATTERN=TYPE, as in ffn_down=q6_K".to_owned()),
    }
}

/// A key and its value, as llama.cpp's programs write them.
fn metadata(text: &str) -> Result<(String, Value), String> {
    let expected = || {
        "expected KEY=TYPE:VALUE, as in general.name=str:Mine, with int of 32 bits, float, bool (true, false) or str".to_owned()
    };
    let (key, typed) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(expected)?;
    let (ty, value) = typed.split_once(':').ok_or_else(expected)?;
    let value = match ty {
        // Without its sign, as llama-quantize writes it.
        "int" => {
            value.parse::<i64>().ok().and_then(|int| u32::try_from(int.unsigned_abs()).ok()).map(Value::U32)
        }
        "float" => value.parse().ok().map(Value::F32),
        "bool" => value.parse().ok().map(Value::Bool),
        "str" => Some(Value::from(value)),
        _ => None,
    };
    Ok((key.to_owned(), value.ok_or_else(expected)?))
}

pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.strip_suffix(['M', 'm']) {
        Some(number) => (number, 1_000_000),
        None => (text.strip_suffix(['G', 'g']).unwrap_or_default(), 1_000_000_000),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|&size| size > 0)
        .ok_or_else(|| "expected a whole number above 0 with M or G behind it, as in 500M".to_owned())
}

impl Quantize {
    fn options(&self, common: &Common) -> Done<Options> {
        let mut options =
            Options::new(Mix::named(&self.mix)?).pure(self.pure).leave_output(self.leave_output_tensor);
        let mut pairs = self.tensor_type.clone();
        if let Some(path) = &self.tensor_type_file {
            let text = fs::read_to_string(path).map_err(|error| Failure::file(path, error))?;
            for pair in text.split_whitespace() {
                pairs.push(
                    tensor_type(pair).map_err(|error| Failure::file(path, format!("{pair}: {error}")))?,
                );
            }
        }
        for (pattern, ty) in pairs {
            options = options.tensor_type(pattern, ty);
        }
        if let Some(ty) = self.output_tensor_type {
            options = options.output_type(ty);
        }
        if let Some(ty) = self.token_embedding_type {
            options = options.token_embedding_type(ty);
        }
        if let Some(path) = &self.imatrix {
            let mut imatrix = Imatrix::open(path)?;
            let holds =
                |names: &[String], name: &str| names.iter().any(|inner| name.contains(inner.as_str()));
            imatrix.entries.retain(|name, _| {
                !holds(&self.exclude_weights, name)
                    && (self.include_weights.is_empty() || holds(&self.include_weights, name))
            });
            options = options.imatrix(imatrix);
        }
        options = options.prune_layers(self.prune_layers.iter().copied());
        for (key, value) in &self.override_kv {
            options = options.metadata(key, value.clone());
        }
        if self.keep_split {
            options = options.splitting(Splitting::Keep);
        } else if let Some(most) = self.split_max_size {
            options = options.splitting(Splitting::MaxBytes(most));
        }
        if let Some(threads) = common.threads {
            options = options.threads(threads.into());
        }
        if let Some(level) = common.level()? {
            options = options.level(level);
        }
        Ok(options)
    }
}

pub fn run(args: &Quantize, common: &Common) -> Done {
    let options = args.options(common)?;
    let plan = plan(&ModelFile::open(&args.input)?, &options)?;
    if plan.requantized > 0 && !args.allow_requantize {
        note(format_args!(
            "warning: {} tensors are quantized already and lose precision once more; better begin with F32, F16 or BF16",
            plan.requantized
        ));
    }
    if plan.fallbacks > 0 {
        note(format_args!(
            "note: {} tensors get a type of smaller blocks, for their rows are no whole number of larger ones",
            plan.fallbacks
        ));
    }
    let Some(output) = args.output.as_ref().filter(|_| !args.dry_run) else {
        return list(&plan, args.json);
    };
    let stop = interrupt::flag();
    let bar = progress::bytes("quantizing", plan.bytes_before());
    let report = quantize(&args.input, output, &options, |progress| {
        bar.at(progress.done as usize);
        if stop.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    drop(bar);
    if args.json {
        let json = json!({
            "files": report.files,
            "bytes_before": report.bytes_before,
            "bytes_after": report.bytes_after,
            "fallbacks": report.fallbacks,
            "requantized": report.requantized,
        });
        return Out::new().text(&format!("{json:#}\n"));
    }
    for file in &report.files {
        note(format_args!("wrote {}", file.display()));
    }
    note(format_args!("{}", sizes(report.bytes_before, report.bytes_after)));
    Ok(())
}

fn sizes(before: u64, after: u64) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!("tensors: {:.2} MiB before, {:.2} MiB after", mib(before), mib(after))
}

fn list(plan: &Plan, as_json: bool) -> Done {
    if let Some(tensor) = &plan.unweighed {
        note(format_args!("note: this needs an importance matrix (--imatrix), for `{tensor}` above all"));
    }
    let mut out = Out::new();
    if as_json {
        let tensor = |planned: &Planned| {
            json!({
                "name": planned.name,
                "shape": planned.tensor.shape(),
                "from": planned.tensor.ty.name(),
                "to": planned.ty.name(),
                "bytes": planned.bytes,
                "part": planned.part,
            })
        };
        let json = json!({
            "tensors": plan.tensors.iter().map(tensor).collect::<Vec<_>>(),
            "bytes_before": plan.bytes_before(),
            "bytes_after": plan.bytes_after(),
            "fallbacks": plan.fallbacks,
            "requantized": plan.requantized,
            "parts": plan.parts,
            "needs_importance": plan.unweighed.is_some(),
        });
        return out.text(&format!("{json:#}\n"));
    }
    for planned in &plan.tensors {
        let tensor = &planned.tensor;
        out.line(format_args!(
            "{:<40} {:>20} {:>8} -> {:<8} {:>12} bytes",
            planned.name,
            tensor.shape_text(),
            tensor.ty,
            planned.ty,
            planned.bytes
        ))?;
    }
    out.line(format_args!("{}", sizes(plan.bytes_before(), plan.bytes_after())))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_are_written_as_for_llama_quantize() {
        let value = |text: &str| metadata(text).map(|(key, value)| format!("{key} {} {value}", value.ty()));
        assert_eq!(value("a.b=int:-3").unwrap(), "a.b u32 3");
        assert_eq!(value("a=float:1e-5").unwrap(), "a f32 0.00001");
        assert_eq!(value("a=bool:true").unwrap(), "a bool true");
        assert_eq!(value("a=str:x=y:z").unwrap(), format!("a str {}", Value::from("x=y:z")));
        for text in
            ["", "a", "=int:1", "a=int", "a=int:x", "a=int:5000000000", "a=bool:1", "a=u8:1", "a=float:"]
        {
            assert!(metadata(text).is_err(), "{text}");
        }
    }
}
