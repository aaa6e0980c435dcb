//! Measures a report's figures again.

use std::fs;
use std::path::{Path, PathBuf};

use gristmill_kernels::simd::Level;
use serde_json::Value as Json;

use super::data::{Cell, FORMAT, FileHash, Rate, Report};
use super::store::Store;
use super::text::size;
use super::{Bench, Entry, Options, Tell, choose, hash};
use crate::model::Model;
use crate::quantize::{Imatrix, Mix};
use crate::{Error, Result};

/// Something that is not as a report says.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The cell; `None` where it concerns all.
    pub cell: Option<String>,
    /// What it is, as `report.json` names it: `quality.divergence.mean.value`.
    pub what: String,
    /// What the report says.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// Whether it must be the same everywhere; speeds and the memory of processes need not.
    pub exact: bool,
}

/// How to measure a report again: as a model would run by itself, where nothing else is said.
#[derive(Clone, Debug, Default)]
pub struct Again {
    /// Threads to work with.
    pub threads: Option<usize>,
    /// The instruction set.
    pub level: Option<Level>,
    /// See [`Options::program`].
    pub program: Option<PathBuf>,
}

/// Measures again what the report at `path` (its `report.json`) says, and gives what differs.
///
/// Files are looked for at the paths that the report gives, from here and from its own folder; those that were quantized for
/// the report, and are gone, are quantized again. Sizes, hashes, perplexities, divergences and errors of tensors must be the
/// same to the last bit, speeds within their intervals, and the memory that processes took within a tenth.
///
/// # Errors
/// [`Error::Io`] and [`Error::ReportForm`] for the report itself; those of [`run`](super::run()).
pub fn verify(path: impl AsRef<Path>, again: &Again, tell: Tell<'_>) -> Result<Vec<Difference>> {
    let path = path.as_ref();
    let report = read(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let find = |told: &str| {
        let here = PathBuf::from(told);
        if here.exists() { here } else { folder.join(told) }
    };
    let provenance = &report.provenance;
    let mut options = Options::new(find(&provenance.text.path), folder);
    (options.threads, options.level) = (again.threads, again.level);
    (options.program, options.settings) = (again.program.clone(), report.settings.clone());
    options.imatrix = provenance.imatrix.as_ref().map(|imatrix| find(&imatrix.path));
    let mut bench = Bench::with(&options, Store::new(None)?)?;
    let mut found = Differences::default();
    found.check(None, "provenance.text.sha256", &provenance.text.sha256, &bench.text_hash.sha256);
    if let (Some(path), Some(told)) = (&options.imatrix, &provenance.imatrix) {
        let now = hash::of_files(path, std::slice::from_ref(path), &mut |_| Ok(()))?;
        found.check(None, "provenance.imatrix.sha256", &told.sha256, &now.sha256);
    }
    let imatrix = options.imatrix.as_ref().map(Imatrix::open).transpose()?;
    let reference_path = find(&report.reference.file.path);
    let mut reference: Option<(Model, FileHash)> = None;
    let (mut places, mut cells) = (Vec::new(), Vec::new());
    for cell in report.all() {
        let mut place = find(&cell.file.path);
        let mix = cell.quantized.as_deref().map(Mix::named).transpose()?;
        if let Some(mix) = mix.filter(|_| !place.exists()) {
            place = bench.quantize(&reference_path, mix, imatrix.as_ref(), tell)?.path;
        }
        let told = PathBuf::from(&cell.file.path);
        let entry = Entry { name: cell.name.clone(), path: place.clone(), told, mix };
        let against = reference.as_ref().map(|(model, file)| (model, file));
        let now = bench.cell(&entry, against, tell)?;
        if reference.is_none() {
            reference = Some((bench.open(&place)?, now.file.clone()));
        }
        places.push(place);
        cells.push(now);
    }
    let paths: Vec<&Path> = places.iter().map(PathBuf::as_path).collect();
    bench.together(&paths, &mut cells, tell)?;
    report.all().zip(&cells).try_for_each(|(expected, now)| found.cells(expected, now))?;
    found.conclusions(&report)?;
    Ok(found.0)
}

/// Reads a report.
fn read(path: &Path) -> Result<Report> {
    let bytes = fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let wrong = |reason: String| Error::ReportForm { path: path.to_owned(), reason };
    let json: Json = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    match json.get("format").and_then(Json::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {}
        other => {
            let found = other.map_or_else(|| "none".to_owned(), |format| format.to_string());
            return Err(wrong(format!("expected `format` {FORMAT}, found {found}")));
        }
    }
    serde_json::from_value(json).map_err(|error| wrong(error.to_string()))
}

/// What differs so far.
#[derive(Default)]
struct Differences(Vec<Difference>);

impl Differences {
    fn check(&mut self, cell: Option<&str>, what: &str, expected: &str, found: &str) {
        if expected != found {
            self.0.push(Difference {
                cell: cell.map(str::to_owned),
                what: what.to_owned(),
                expected: expected.to_owned(),
                found: found.to_owned(),
                exact: true,
            });
        }
    }

    /// Compares a cell with what was measured now.
    fn cells(&mut self, expected: &Cell, found: &Cell) -> Result<()> {
        if let (Some(before), Some(now)) = (&expected.speed, &found.speed) {
            self.rates(&expected.name, "speed.prompt", &before.prompt, &now.prompt);
            self.rates(&expected.name, "speed.generate", &before.generate, &now.generate);
        }
        if let (Some(before), Some(now)) = (expected.peak, found.peak)
            && before.abs_diff(now) > before / 10
        {
            self.loose(&expected.name, "peak", size(before), size(now));
        }
        // What follows from all cells together is compared by itself.
        let plain = |cell: &Cell| {
            let cell =
                Cell { speed: None, peak: None, on_size_front: false, on_speed_front: false, ..cell.clone() };
            json(&cell)
        };
        self.values(Some(&expected.name), "", &plain(expected)?, &plain(found)?);
        Ok(())
    }

    /// Compares fronts and recommendation with what follows from the report's own figures.
    fn conclusions(&mut self, report: &Report) -> Result<()> {
        let mut cells = report.cells.clone();
        choose::mark_fronts(&mut cells);
        for (said, now) in report.cells.iter().zip(&cells) {
            let marks = |cell: &Cell| (cell.on_size_front.to_string(), cell.on_speed_front.to_string());
            let ((size, speed), (size_now, speed_now)) = (marks(said), marks(now));
            self.check(Some(&said.name), "on_size_front", &size, &size_now);
            self.check(Some(&said.name), "on_speed_front", &speed, &speed_now);
        }
        let said = &report.recommendation;
        let now =
            choose::recommend(&cells, said.wanted_for, said.memory_limit, report.settings.memory_context);
        self.values(None, "recommendation", &json(said)?, &json(&now)?);
        Ok(())
    }

    fn rates(&mut self, cell: &str, what: &str, expected: &Rate, found: &Rate) {
        if expected.least > found.most || found.least > expected.most {
            let shown = |rate: &Rate| format!("{:.1} to {:.1} tokens/s", rate.least, rate.most);
            self.loose(cell, what, shown(expected), shown(found));
        }
    }

    /// A difference that there may be.
    fn loose(&mut self, cell: &str, what: &str, expected: String, found: String) {
        let (cell, what) = (Some(cell.to_owned()), what.to_owned());
        self.0.push(Difference { cell, what, expected, found, exact: false });
    }

    /// Walks through two values side by side.
    fn values(&mut self, cell: Option<&str>, at: &str, expected: &Json, found: &Json) {
        let below = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
        match (expected, found) {
            (Json::Object(expected), Json::Object(found)) => {
                for (key, value) in expected {
                    self.values(cell, &below(key), value, found.get(key).unwrap_or(&Json::Null));
                }
            }
            (Json::Array(expected), Json::Array(found)) if expected.len() == found.len() => {
                for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
                    self.values(cell, &below(&index.to_string()), expected, found);
                }
            }
            (expected, found) => self.check(cell, at, &expected.to_string(), &found.to_string()),
        }
    }
}

fn json(value: &impl serde::Serialize) -> Result<Json> {
    serde_json::to_value(value).map_err(|_| Error::Internal { what: "a report that is no JSON" })
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn between(change: impl FnOnce(&mut Cell)) -> Vec<Difference> {
        let cell = sample::report().cells.remove(2);
        let mut other = cell.clone();
        change(&mut other);
        let mut found = Differences::default();
        found.cells(&cell, &other).unwrap();
        found.0
    }

    #[test]
    fn the_last_bit_of_a_figure_counts() {
        assert_eq!(between(|_| ()), []);
        let found = between(|cell| {
            let mean = &mut cell.quality.divergence.as_mut().unwrap().mean.value;
            *mean = mean.next_up();
        });
        let [one] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((one.what.as_str(), one.exact), ("quality.divergence.mean.value", true));
        assert_eq!((one.cell.as_deref(), one.expected.as_str()), (Some("Q4_K_M"), "0.03"));
    }

    #[test]
    fn speeds_differ_where_their_intervals_do_not_meet() {
        let faster = |factor: f64| {
            between(|cell| {
                let rate = &mut cell.speed.as_mut().unwrap().generate;
                (rate.least, rate.median, rate.most) =
                    (rate.least * factor, rate.median * factor, rate.most * factor);
            })
        };
        assert_eq!(faster(1.05), []);
        let found = faster(1.1);
        assert_eq!((found.len(), found[0].what.as_str(), found[0].exact), (1, "speed.generate", false));
    }

    #[test]
    fn the_memory_of_processes_may_differ_by_a_tenth() {
        let other =
            |factor: f64| between(|cell| cell.peak = cell.peak.map(|peak| (peak as f64 * factor) as u64));
        assert_eq!(other(1.05), []);
        let found = other(1.2);
        assert_eq!((found.len(), found[0].what.as_str(), found[0].exact), (1, "peak", false));
    }

    #[test]
    fn conclusions_must_follow_from_the_figures() {
        let mut report = sample::report();
        let found = |report: &Report| {
            let mut found = Differences::default();
            found.conclusions(report).unwrap();
            found.0.iter().map(|one| one.what.clone()).collect::<Vec<_>>()
        };
        assert!(found(&report).is_empty());
        report.recommendation.choice = Some("Q2_K".to_owned());
        report.cells[4].on_speed_front = true;
        assert_eq!(found(&report), ["on_speed_front", "recommendation.choice"]);
    }
}
