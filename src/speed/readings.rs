//! What programs that measure models print, as numbers.
#![forbid(unsafe_code)]

use serde_json::Value as Json;

/// Tokens per second of one test, as one process measured them.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// As `grist bench` names it: `pp512`, `tg64 @ d4096`.
    pub test: String,
    /// Tokens per second of each run.
    pub rates: Vec<f64>,
    /// Which version of what measured.
    pub about: String,
}

/// The name of a test: of a prompt where it has tokens, else of generation.
pub fn name(prompt: u64, generate: u64, depth: u64) -> String {
    let test = match (prompt, generate) {
        (prompt, 0) => format!("pp{prompt}"),
        (0, generate) => format!("tg{generate}"),
        (prompt, generate) => format!("pp{prompt}+tg{generate}"),
    };
    match depth {
        0 => test,
        _ => format!("{test} @ d{depth}"),
    }
}

/// Reads what `grist bench --json` prints.
///
/// # Errors
/// What was expected and found where it is something else.
pub fn grist(text: &str) -> Result<Vec<Reading>, String> {
    entries(text)?
        .iter()
        .map(|entry| {
            let (version, isa) = (string(entry, "version")?, string(entry, "isa")?);
            Ok(Reading {
                test: string(entry, "test")?.to_owned(),
                rates: rates(entry, "runs")?,
                about: format!("gristmill {version} at level {isa}"),
            })
        })
        .collect()
}

/// Reads what `llama-bench -o json` prints: llama.cpp's, and that of forks which do not know a depth.
///
/// # Errors
/// What was expected and found where it is something else.
pub fn llama_bench(text: &str) -> Result<Vec<Reading>, String> {
    entries(text)?
        .iter()
        .map(|entry| {
            let count = |key| entry.get(key).and_then(Json::as_u64);
            let prompt = count("n_prompt").ok_or_else(|| missing("a number `n_prompt`", entry))?;
            let generate = count("n_gen").ok_or_else(|| missing("a number `n_gen`", entry))?;
            let number = count("build_number").filter(|&number| number > 0);
            let commit = string(entry, "build_commit")?;
            Ok(Reading {
                test: name(prompt, generate, count("n_depth").unwrap_or(0)),
                rates: rates(entry, "samples_ts")?,
                about: number.map_or_else(|| commit.to_owned(), |number| format!("{commit} ({number})")),
            })
        })
        .collect()
}

/// Reads the receipt that `ferrox bench --receipt` writes.
///
/// # Errors
/// What was expected and found where it is something else.
pub fn ferrox(text: &str) -> Result<Vec<Reading>, String> {
    let receipt: Json = serde_json::from_str(text).map_err(|error| format!("expected JSON: {error}"))?;
    let about = format!("ferrox {}", string(&receipt, "ferrox_version")?);
    let tests = receipt.get("tests").and_then(Json::as_array);
    tests
        .ok_or_else(|| missing("a list `tests`", &receipt))?
        .iter()
        .map(|entry| {
            Ok(Reading {
                test: string(entry, "test")?.to_owned(),
                rates: rates(entry, "ferrox_samples")?,
                about: about.clone(),
            })
        })
        .collect()
}

/// The list of a program that may have said something before it.
fn entries(text: &str) -> Result<Vec<Json>, String> {
    let list = text.find('[').and_then(|at| text.get(at..)).unwrap_or(text);
    serde_json::from_str(list).map_err(|error| format!("expected a list in JSON: {error}"))
}

fn string<'a>(entry: &'a Json, key: &str) -> Result<&'a str, String> {
    entry.get(key).and_then(Json::as_str).ok_or_else(|| missing(&format!("a string `{key}`"), entry))
}

fn rates(entry: &Json, key: &str) -> Result<Vec<f64>, String> {
    let rates = entry.get(key).and_then(Json::as_array);
    let rates = rates.and_then(|rates| rates.iter().map(Json::as_f64).collect::<Option<Vec<f64>>>());
    rates
        .filter(|rates| !rates.is_empty() && rates.iter().all(|rate| rate.is_finite() && *rate > 0.0))
        .ok_or_else(|| missing(&format!("rates above 0 in a list `{key}`"), entry))
}

fn missing(expected: &str, entry: &Json) -> String {
    format!("expected {expected}, found {entry}")
}
