//! `grist choices`: multiple-choice tasks.

use std::path::PathBuf;

use clap::Args;
use gristmill::CacheType;
use gristmill::eval::{Options, Share, Task, choices};
use gristmill::generate::CancelHandle;
use serde_json::{Map, Value as Json, json};

use super::args::Common;
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::model::Source;
use super::output::Out;
use super::perplexity::put;
use super::{Done, input, progress};

/// Answer multiple-choice tasks, by the likelihood of each answer
///
/// FILE has a JSON object on each line, in the published form of HellaSwag, Winogrande, ARC or MMLU; prompts are those of
/// lm-evaluation-harness without examples. `acc` takes the likeliest answer, `acc_norm` and `acc_bytes` the likeliest for its
/// length in characters and bytes. Errors are standard errors; the interval is Wilson's, of 95 %.
#[derive(Args)]
#[command(allow_missing_positional = true)]
pub struct Choices {
    /// A .gguf file [default: the built-in model]
    model: Option<PathBuf>,
    /// The tasks; `-` reads standard input
    #[arg(value_name = "FILE.jsonl")]
    tasks: PathBuf,
    /// Answer only the first N tasks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Print JSON rather than a table
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Choices, common: &Common) -> Done {
    let tasks =
        Task::parse(&input::text_file(&args.tasks)?).map_err(|error| Failure::file(&args.tasks, error))?;
    let model = Source::new(&args.model).model(common)?;
    common.warn_of_context(&model);
    let cancel = CancelHandle::default();
    let mut options = Options::default().cache(common.cache(CacheType::F16)).cancel(cancel.clone());
    if let Some(context) = common.ctx {
        options = options.context(context as usize);
    }
    if let Some(limit) = args.limit {
        options = options.limit(limit as usize);
    }
    let interrupt = Interrupt::new(cancel);
    let bar = progress::Estimating::new("acc");
    let found = interrupt.during(|| choices(&model, &tasks, &options, |at| bar.at(at)));
    drop(bar);
    let found = found?;
    let shares = [("acc", found.likeliest), ("acc_norm", found.per_character), ("acc_bytes", found.per_byte)];
    let mut out = Out::new();
    if args.json {
        return out.text(&format!("{:#}\n", of_shares(&shares)));
    }
    for (name, share) in shares {
        let (estimate, (low, high)) = (share.estimate(), share.interval());
        let Share { right, of } = share;
        out.line(format_args!("{name:<10} {estimate}  ({low:.4} to {high:.4}; {right} of {of})"))?;
    }
    Ok(())
}

fn of_shares(shares: &[(&str, Share)]) -> Json {
    let mut json = Map::new();
    for &(name, share) in shares {
        put(&mut json, name, share.estimate());
        let (low, high) = share.interval();
        json.insert(format!("{name}_interval"), json!([low, high]));
    }
    json.insert("tasks".to_owned(), shares.first().map_or(0, |(_, share)| share.of).into());
    Json::Object(json)
}
