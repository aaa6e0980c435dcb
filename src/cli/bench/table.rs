//! The figures as a table, as lines of values, and as JSON: all from the same fields.

use gristmill::BackendKind;
use gristmill::speed::{Case, Figures, Suite, memory};
use serde_json::{Map, Value as Json, json};

use super::compare::Compared;
use super::{Prediction, Subject};
use crate::cli::Done;
use crate::cli::output::{self, Out};

/// A test of a model: what it is called in JSON, and its cells in the table.
pub struct Line {
    fields: Map<String, Json>,
    /// Head and cell of each column; columns that are empty in every line are left out.
    cells: Vec<(&'static str, String)>,
    remark: String,
}

impl Line {
    /// What it is in JSON.
    pub fn fields(&self) -> &Map<String, Json> {
        &self.fields
    }
}

/// A line for each test of each subject; `tests` is how many each has.
pub fn lines(subjects: &[Subject], suite: &Suite, tests: usize) -> Done<Vec<Line>> {
    let cases = suite.cases().chunks(tests.max(1));
    let mut lines = Vec::new();
    for (subject, cases) in subjects.iter().zip(cases) {
        for (number, case) in cases.iter().enumerate() {
            lines.extend(line(subject, suite, case, number));
        }
    }
    Ok(lines)
}

fn line(subject: &Subject, suite: &Suite, case: &Case, number: usize) -> Option<Line> {
    let figures = case.figures()?;
    let (model, test, machine) = (case.model(), case.test(), &subject.machine);
    let cost = subject.costs.get(number).copied().unwrap_or_default();
    let per_second = figures.median / test.tokens() as f64;
    let read = cost.bytes() as f64 * per_second / machine.read;
    let multiplied = machine.time_to_multiply(cost.codes, cost.floats) * per_second;
    let limit = match test.is_generation() {
        true => format!("{:.0} % of reading", 100.0 * read),
        false => format!("{:.0} % of multiplying", 100.0 * multiplied),
    };
    let remark = suite.remark(case).map(|remark| remark.to_string());
    let peer = subject.peer.as_ref();
    let compared = peer.and_then(|peer| peer.compared(test, case.rates()));
    let batch = subject.options.batch;
    let prediction = subject.prediction(number, case.rates());

    let mut fields = json!({
        "model": subject.name,
        "name": model.name(),
        "architecture": model.architecture().name,
        "bytes": model.file().file_bytes(),
        "test": test.to_string(),
        "tokens_per_second": figures.median,
        "min": figures.least,
        "max": figures.most,
        "spread": figures.spread(),
        "remark": remark,
        "runs": case.rates(),
        "backend": model.backend().name(),
        "threads": model.thread_count(),
        "isa": model.level().name(),
        "version": env!("CARGO_PKG_VERSION"),
        "batch": batch,
        "bytes_read": cost.bytes(),
        "code_multiplications": cost.codes,
        "float_multiplications": cost.floats,
        "read_share": read,
        "multiply_share": multiplied,
        "predicted": prediction.map(|prediction| prediction.rate),
        "predicted_error": prediction.map(|prediction| prediction.ratio - 1.0),
        "predicted_runs": subject.predictions.get(number),
        "load_seconds": subject.load,
        "first_token_seconds": subject.first_token.map(|figures| figures.median),
        "peak_memory": memory::peak(),
        "machine_read": machine.read,
        "machine_codes": machine.codes,
        "machine_floats": machine.floats,
        "reference_runs": suite.reference(),
        "reference_spread": Figures::of(suite.reference()).map(Figures::spread),
    });
    if let Some(fields) = fields.as_object_mut() {
        if let Some(version) = ggml_version(model.backend()) {
            fields.insert("ggml".into(), version.into());
        }
        if let Some((peer, compared)) = peer.zip(compared.as_ref()) {
            fields.insert("peer".into(), peer_json(&peer.about, compared));
        }
    }
    let cells = vec![
        ("model", subject.name.clone()),
        ("size", output::size(model.file().file_bytes())),
        ("backend", model.backend().name().to_owned()),
        ("threads", model.thread_count().to_string()),
        ("isa", model.level().name().to_owned()),
        ("batch", batch.map(|batch| batch.to_string()).unwrap_or_default()),
        ("test", test.to_string()),
        ("tokens/s", format!("{:.2}", figures.median)),
        ("min", format!("{:.2}", figures.least)),
        ("max", format!("{:.2}", figures.most)),
        ("spread", format!("{:.1} %", 100.0 * figures.spread())),
        ("limit", limit),
        ("predicted", prediction.map(predicted_cell).unwrap_or_default()),
        ("llama-bench", compared.as_ref().map(peer_cell).unwrap_or_default()),
        ("ratio", compared.as_ref().map(ratio_cell).unwrap_or_default()),
    ];
    let fields = fields.as_object().cloned().unwrap_or_default();
    Some(Line { fields, cells, remark: remark.unwrap_or_default() })
}

fn peer_json(about: &str, compared: &Compared<'_>) -> Json {
    json!({
        "about": about,
        "flash_attention": compared.flash,
        "tokens_per_second": compared.figures.median,
        "spread": compared.figures.spread(),
        "runs": compared.rates,
        "ratio": compared.ratio.median,
        "ratio_low": compared.ratio.low,
        "ratio_high": compared.ratio.high,
        "ratio_confidence": compared.ratio.confidence,
    })
}

fn peer_cell(compared: &Compared<'_>) -> String {
    let flash = compared.flash.map(|flash| format!(", fa {flash}")).unwrap_or_default();
    format!("{:.2} ({:.1} %{flash})", compared.figures.median, 100.0 * compared.figures.spread())
}

/// What was predicted, and by how much it is off.
fn predicted_cell(of: Prediction) -> String {
    format!("{:.2} ({:+.0} %)", of.rate, 100.0 * (of.ratio - 1.0))
}

/// The ratio, and between what it lies with what probability.
fn ratio_cell(compared: &Compared<'_>) -> String {
    let ratio = compared.ratio;
    let sure = 100.0 * ratio.confidence;
    format!("{:.2} ({:.2} to {:.2}, {sure:.0} %)", ratio.median, ratio.low, ratio.high)
}

/// The version of the ggml that computes.
#[cfg(feature = "ggml")]
fn ggml_version(backend: BackendKind) -> Option<&'static str> {
    (backend == BackendKind::Ggml).then(gristmill::ggml::version)
}

#[cfg(not(feature = "ggml"))]
fn ggml_version(_backend: BackendKind) -> Option<&'static str> {
    None
}

/// An array with an object for each line.
pub fn json(lines: &[Line], out: &mut Out) -> Done {
    let all: Vec<Json> = lines.iter().map(|line| Json::Object(line.fields.clone())).collect();
    out.text(&format!("{:#}\n", Json::from(all)))
}

/// A head, and a line of values for each: objects are laid flat, lists have spaces between.
pub fn csv(lines: &[Line], out: &mut Out) -> Done {
    let mut names: Vec<String> = Vec::new();
    let flat: Vec<Vec<(String, String)>> = lines.iter().map(|line| flatten(&line.fields)).collect();
    for (name, _) in flat.iter().flatten() {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    out.line(format_args!("{}", names.join(",")))?;
    for values in flat {
        let value = |name: &String| {
            let value = values.iter().find(|(own, _)| own == name);
            value.map(|(_, value)| quoted(value)).unwrap_or_default()
        };
        out.line(format_args!("{}", names.iter().map(value).collect::<Vec<_>>().join(",")))?;
    }
    Ok(())
}

fn flatten(fields: &Map<String, Json>) -> Vec<(String, String)> {
    let mut flat = Vec::new();
    for (name, value) in fields {
        match value {
            Json::Object(inner) => {
                let inner = flatten(inner).into_iter();
                flat.extend(inner.map(|(own, value)| (format!("{name}_{own}"), value)));
            }
            value => flat.push((name.clone(), plain(value))),
        }
    }
    flat
}

fn plain(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        Json::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(" "),
        value => value.to_string(),
    }
}

/// A value between commas, as RFC 4180 has it.
fn quoted(value: &str) -> String {
    match value.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", value.replace('"', "\"\"")),
        false => value.to_owned(),
    }
}

/// A table whose columns are as wide as their widest cell.
pub fn markdown(lines: &[Line], out: &mut Out) -> Done {
    let columns = lines.first().map_or(0, |line| line.cells.len());
    let cell = |line: &Line, column: usize| {
        line.cells.get(column).map(|(head, cell)| (*head, cell.clone())).unwrap_or_default()
    };
    let used: Vec<usize> =
        (0..columns).filter(|&column| lines.iter().any(|line| !cell(line, column).1.is_empty())).collect();
    let head = lines.first().map(|line| used.iter().map(|&column| cell(line, column).0.to_owned()).collect());
    let mut rows: Vec<Vec<String>> = head.into_iter().collect();
    rows.extend(lines.iter().map(|line| used.iter().map(|&column| cell(line, column).1).collect()));
    let remarks: Vec<&str> = lines.iter().map(|line| line.remark.as_str()).collect();
    output::table(&rows, &remarks, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_commas_and_quotes_are_quoted() {
        assert_eq!(quoted("plain"), "plain");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }

    #[test]
    fn objects_are_laid_flat() {
        let fields = json!({"a": [1, 2.5], "b": {"c": null, "d": {"e": "x"}}, "f": true});
        let flat = flatten(fields.as_object().unwrap());
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(flat, [pair("a", "1 2.5"), pair("b_c", ""), pair("b_d_e", "x"), pair("f", "true")]);
    }
}
