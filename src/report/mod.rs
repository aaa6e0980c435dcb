//! Reports on quantization: how large, how fast and how near to the original the quantized files of a model are, and which
//! one to take.
//!
//! [`run`] measures files that are there, or quantizes them first, and writes `report.html`, `report.md` and `report.json`
//! into a folder. What was measured is kept there piece by piece, so that a report that was broken off goes on where it was.
//! [`verify`] measures all over again and says what differs.
//!
//! ```
//! use std::ops::ControlFlow;
//! use gristmill::quantize::Mix;
//! use gristmill::report::{Options, run};
//!
//! # let dir = std::env::temp_dir().join(format!("gristmill-report-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&dir).unwrap();
//! # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/vendor/models/tiny-instruct-q8_0.gguf");
//! # let text = dir.join("text.txt");
//! # std::fs::write(&text, "What is the capital of France? The capital of France is Paris. ".repeat(8)).unwrap();
//! let mut options = Options::new(&text, dir.join("out"));
//! options.models = vec![model.into()];
//! options.mixes = vec![Mix::named("Q4_K_M")?, Mix::named("Q2_K")?];
//! options.settings.context = 64;
//! options.settings.runs = 0; // nothing is timed
//! let outcome = run(&options, &mut |_| ControlFlow::Continue(()))?;
//! let [q4, q2] = outcome.report.cells.as_slice() else { panic!("two cells") };
//! assert!(q4.size.bytes > q2.size.bytes && dir.join("out/report.html").exists());
//! # std::fs::remove_dir_all(&dir).unwrap();
//! # Ok::<(), gristmill::Error>(())
//! ```
#![forbid(unsafe_code)]

mod alone;
mod choose;
mod columns;
pub mod data;
mod hash;
mod markdown;
mod measure;
mod notes;
mod page;
#[cfg(test)]
mod sample;
mod store;
mod text;
mod verify;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use gristmill_kernels::simd::Level;
use serde_json::json;

pub use choose::{front, recommend, word};
use data::{Cell, FORMAT, FileHash, Machine, Provenance, Report, Settings, Turn, Use};
pub use measure::peak;
pub use verify::{Again, Difference, verify};

use crate::backend::CacheType;
use crate::backend::cpu::cores;
use crate::backend::cpu::threads::Threads;
use crate::doctor;
use crate::model::file::ModelFile;
use crate::model::{Model, ModelOptions};
use crate::quantize::{self, Imatrix, Mix};
use crate::speed::memory::Memory;
use crate::speed::{Figures, Suite};
use crate::text::template::DateTime;
use crate::{Error, Result};
use store::Store;

/// What is written, and made of what.
#[derive(Clone, Debug)]
pub struct Options {
    /// The files to compare; where [`Options::mixes`] are given, the one file to quantize.
    pub models: Vec<PathBuf>,
    /// What they are compared with; by default the file that is quantized, or that of the most bits per weight.
    pub reference: Option<PathBuf>,
    /// What to quantize the file to.
    pub mixes: Vec<Mix>,
    /// The importance matrix to quantize with.
    pub imatrix: Option<PathBuf>,
    /// The text to read.
    pub text: PathBuf,
    /// The folder to write into.
    pub out: PathBuf,
    /// What to measure.
    pub settings: Settings,
    /// What the model is wanted for.
    pub wanted_for: Use,
    /// Bytes that it may take.
    pub memory_limit: Option<u64>,
    /// Threads to work with instead of one for each fast core.
    pub threads: Option<usize>,
    /// The instruction set instead of the fastest.
    pub level: Option<Level>,
    /// The program `grist`, to run each model in a process of its own and learn the most memory that it takes; where there is none,
    /// that is not measured.
    pub program: Option<PathBuf>,
    /// The command line, for the report to tell.
    pub command: String,
}

impl Options {
    /// A report on `text` into the folder `out`: chunks of 512 tokens, a prompt of 512 and a generation of 128 tokens timed
    /// five times.
    pub fn new(text: impl Into<PathBuf>, out: impl Into<PathBuf>) -> Self {
        let settings = Settings {
            context: 512,
            chunks: None,
            prompt: 512,
            generate: 128,
            runs: 5,
            memory_context: 4096,
        };
        Options {
            models: Vec::new(),
            reference: None,
            mixes: Vec::new(),
            imatrix: None,
            text: text.into(),
            out: out.into(),
            settings,
            wanted_for: Use::default(),
            memory_limit: None,
            threads: None,
            level: None,
            program: None,
            command: String::new(),
        }
    }
}

/// How far the work is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// What is done at the moment: `perplexity`, `speed`.
    pub step: &'a str,
    /// The model that it is done to.
    pub model: &'a str,
    /// Parts that are done.
    pub done: usize,
    /// How many there are.
    pub total: usize,
}

/// Hears how far the work is, and may end it.
pub type Tell<'a> = &'a mut dyn FnMut(Progress<'_>) -> ControlFlow<()>;

/// What became of a report.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The report.
    pub report: Report,
    /// The files that were written.
    pub files: Vec<PathBuf>,
    /// Pieces that were measured now.
    pub measured: usize,
    /// Pieces that were there from before.
    pub kept: usize,
}

/// A model of a report, before it is measured.
struct Entry {
    name: String,
    /// The path for opening, and the one that the report tells.
    path: PathBuf,
    told: PathBuf,
    mix: Option<Mix>,
}

/// Makes a report.
///
/// # Errors
/// [`Error::InvalidOption`] where there is nothing to compare; those of opening and quantizing files and of measuring;
/// [`Error::Io`]; [`Error::Cancelled`] where `tell` ended the work: what was finished is kept.
pub fn run(options: &Options, tell: Tell<'_>) -> Result<Outcome> {
    let mut bench = Bench::new(options)?;
    let (reference, entries) = entries(options, &mut bench, tell)?;
    let reference_model = bench.open(&reference.path)?;
    let mut settings = options.settings.clone();
    if let Some(trained) = reference_model.trained_context() {
        settings.memory_context = settings.memory_context.min(trained);
    }
    bench.settings = settings.clone();
    let mut cells = vec![bench.cell(&reference, None, tell)?];
    for entry in &entries {
        let hash = cells.first().map(|first| &first.file);
        cells.push(bench.cell(entry, Some(&reference_model).zip(hash), tell)?);
    }
    let paths: Vec<&Path> = [&reference].into_iter().chain(&entries).map(|entry| &*entry.path).collect();
    let drift = bench.together(&paths, &mut cells, tell)?;
    let first = cells.remove(0);
    cells.sort_by_key(|cell| std::cmp::Reverse(cell.size.bytes));
    choose::mark_fronts(&mut cells);
    let recommendation =
        choose::recommend(&cells, options.wanted_for, options.memory_limit, settings.memory_context);
    let imatrix = match options.imatrix.as_ref().filter(|_| !options.mixes.is_empty()) {
        Some(path) => Some(hash::of_files(path, std::slice::from_ref(path), &mut |_| Ok(()))?),
        None => None,
    };
    let name = reference_model.name().map(str::to_owned);
    let report = Report {
        format: FORMAT,
        title: name.unwrap_or_else(|| stem(&reference.path)),
        provenance: Provenance {
            program: program(),
            date: DateTime::now_utc().strftime("%Y-%m-%dT%H:%M:%SZ"),
            command: options.command.clone(),
            machine: bench.machine(),
            text: bench.text_hash.clone(),
            imatrix,
        },
        settings,
        reference: first,
        cells,
        drift,
        recommendation,
    };
    let files = write(&report, &options.out)?;
    Ok(Outcome { report, files, measured: bench.store.measured, kept: bench.store.kept })
}

/// Writes a report's three forms into a folder.
fn write(report: &Report, out: &Path) -> Result<Vec<PathBuf>> {
    let [json, html, md] = ["report.json", "report.html", "report.md"].map(|name| out.join(name));
    store::write_json(&json, report)?;
    store::write(&html, &page::page(report))?;
    store::write(&md, &markdown::markdown(report))?;
    Ok(vec![json, html, md])
}

/// The library and its version: what makes the figures what they are.
fn program() -> String {
    concat!("gristmill ", env!("CARGO_PKG_VERSION")).to_owned()
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// The processor's name, where the system tells it.
fn processor() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let names = ["model name", "Model", "Hardware"];
    let line = names.iter().find_map(|name| {
        info.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim()))
    });
    line.filter(|line| !line.is_empty()).map(str::to_owned)
}

/// The reference and the models to compare, quantized where that is asked for.
fn entries(options: &Options, bench: &mut Bench, tell: Tell<'_>) -> Result<(Entry, Vec<Entry>)> {
    let given =
        |path: &PathBuf| Entry { name: stem(path), path: path.clone(), told: path.clone(), mix: None };
    let mut entries: Vec<Entry> = match (options.models.as_slice(), options.mixes.as_slice()) {
        (models, []) => models.iter().map(given).collect(),
        ([model], mixes) => {
            let imatrix = options.imatrix.as_ref().map(Imatrix::open).transpose()?;
            let made = mixes.iter().map(|mix| bench.quantize(model, *mix, imatrix.as_ref(), tell));
            made.collect::<Result<_>>()?
        }
        (models, _) => {
            let (expected, found) = ("exactly one, to quantize".to_owned(), models.len().to_string());
            return Err(Error::InvalidOption { option: "models", expected, found });
        }
    };
    let reference = match (&options.reference, options.mixes.as_slice()) {
        (Some(path), _) => path.clone(),
        (None, []) => richest(&entries)?,
        (None, _) => options.models.first().cloned().unwrap_or_default(),
    };
    entries.retain(|entry| entry.path != reference);
    if entries.is_empty() {
        let (expected, found) = ("at least one beside the reference".to_owned(), "none".to_owned());
        return Err(Error::InvalidOption { option: "models", expected, found });
    }
    entries.insert(0, given(&reference));
    short_names(&mut entries);
    let reference = entries.remove(0);
    Ok((reference, entries))
}

/// The file of the most bits per weight.
fn richest(entries: &[Entry]) -> Result<PathBuf> {
    let mut best: Option<(f64, PathBuf)> = None;
    for entry in entries {
        let bits = measure::size(&ModelFile::open(&entry.path)?).bits_per_weight;
        if best.as_ref().is_none_or(|(most, _)| bits > *most) {
            best = Some((bits, entry.path.clone()));
        }
    }
    Ok(best.map(|(_, path)| path).unwrap_or_default())
}

/// Leaves of each name the quantization that it tells, unless two would be the same.
fn short_names(entries: &mut [Entry]) {
    let short = |entry: &Entry| match entry.mix {
        Some(mix) => mix.name().to_owned(),
        None => match doctor::quantization(&entry.name) {
            Some((said, _)) => said.to_ascii_uppercase(),
            None => entry.name.clone(),
        },
    };
    let names: Vec<String> = entries.iter().map(short).collect();
    let is_unique = |name: &String| names.iter().filter(|other| other == &name).count() == 1;
    for (entry, name) in entries.iter_mut().zip(&names) {
        if is_unique(name) {
            entry.name.clone_from(name);
        }
    }
}

/// What measures, and where it keeps what it found.
struct Bench {
    model: ModelOptions,
    settings: Settings,
    text: String,
    text_hash: FileHash,
    threads: Threads,
    level: Level,
    program: Option<PathBuf>,
    store: Store,
    out: PathBuf,
}

impl Bench {
    fn new(options: &Options) -> Result<Self> {
        let store = Store::new(Some(options.out.join("cells")))?;
        Bench::with(options, store)
    }

    fn with(options: &Options, store: Store) -> Result<Self> {
        let failed = |source| Error::Io { path: options.text.clone(), source };
        let text = fs::read_to_string(&options.text).map_err(failed)?;
        let text_hash = FileHash {
            path: options.text.to_string_lossy().into_owned(),
            bytes: text.len() as u64,
            sha256: hash::of_bytes(text.as_bytes()),
        };
        let mut model = ModelOptions::default();
        if let Some(threads) = options.threads {
            model = model.threads(threads);
        }
        let level = options.level.unwrap_or_else(Level::detect);
        let model = model.level(level.name());
        let threads = Threads::new(options.threads.unwrap_or_else(cores::default_count))?;
        let (settings, out, program) =
            (options.settings.clone(), options.out.clone(), options.program.clone());
        Ok(Bench { model, settings, text, text_hash, threads, level, program, store, out })
    }

    /// This machine, and what is used of it.
    fn machine(&self) -> Machine {
        Machine {
            cpu: processor().unwrap_or_else(|| "not told by the system".to_owned()),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            level: self.level.name().to_owned(),
            threads: self.threads.count(),
            memory: Memory::of_this_machine().map(|memory| memory.total),
        }
    }

    fn open(&self, path: &Path) -> Result<Model> {
        self.model.clone().open(path)
    }

    /// Quantizes a file into the folder `models`, unless it is there.
    fn quantize(
        &mut self,
        input: &Path,
        mix: Mix,
        imatrix: Option<&Imatrix>,
        tell: Tell<'_>,
    ) -> Result<Entry> {
        let folder = self.out.join("models");
        fs::create_dir_all(&folder).map_err(|source| Error::Io { path: folder.clone(), source })?;
        let file = format!("{}-{}.gguf", stem(input), mix.name());
        let (path, told) = (folder.join(&file), Path::new("models").join(&file));
        let name = mix.name();
        let source = self.hash(input, input, tell)?;
        let importance = imatrix.map(|imatrix| hash::of_bytes(format!("{:?}", imatrix.entries).as_bytes()));
        let key =
            json!({"quantized": mix.name(), "of": source.sha256, "imatrix": importance, "by": program()});
        let mut options = quantize::Options::new(mix).threads(self.threads.count()).level(self.level);
        if let Some(imatrix) = imatrix {
            options = options.imatrix(imatrix.clone());
        }
        let there = |bytes: &u64| fs::metadata(&path).is_ok_and(|about| about.len() == *bytes);
        self.store.get(key, there, || {
            quantize::quantize(input, &path, &options, |at| {
                tell(Progress {
                    step: "quantizing",
                    model: name,
                    done: (at.done >> 20) as usize,
                    total: (at.total >> 20) as usize,
                })
            })?;
            fs::metadata(&path)
                .map(|about| about.len())
                .map_err(|source| Error::Io { path: path.clone(), source })
        })?;
        Ok(Entry { name: name.to_owned(), path, told, mix: Some(mix) })
    }

    /// The hash of a model's files, told as that of `told`.
    fn hash(&self, path: &Path, told: &Path, tell: Tell<'_>) -> Result<FileHash> {
        let file = ModelFile::open(path)?;
        let parts: Vec<PathBuf> = file.parts().filter_map(|(path, _)| path.map(Path::to_owned)).collect();
        let total = (file.file_bytes() >> 20) as usize;
        let name = stem(path);
        let mut read = 0;
        hash::of_files(told, &parts, &mut |bytes| {
            read += bytes;
            let at = Progress { step: "hashing", model: &name, done: (read >> 20) as usize, total };
            if tell(at).is_break() { Err(Error::Cancelled) } else { Ok(()) }
        })
    }

    /// Measures one model, against the reference where it is another.
    fn cell(
        &mut self,
        entry: &Entry,
        reference: Option<(&Model, &FileHash)>,
        tell: Tell<'_>,
    ) -> Result<Cell> {
        let file = self.hash(&entry.path, &entry.told, tell)?;
        let model = self.open(&entry.path)?;
        let (settings, against) = (&self.settings, reference.map(|(_, hash)| &hash.sha256));
        let key = |what: &str, more: serde_json::Value| json!({"what": what, "file": file.sha256, "reference": against, "by": program(), "with": more});
        let mut tell = |step, done, total| {
            let at = Progress { step, model: &entry.name, done, total };
            if tell(at).is_break() { Err(Error::Cancelled) } else { Ok(()) }
        };
        let text = json!([self.text_hash.sha256, settings.context, settings.chunks]);
        let quality = self.store.get(
            key("quality", text),
            |_| true,
            || {
                let step = if reference.is_some() { "divergence" } else { "perplexity" };
                let other = reference.map(|(model, _)| model);
                measure::quality(&model, other, &self.text, settings, &mut |done, total| {
                    tell(step, done, total)
                })
            },
        )?;
        let tensors = match reference {
            None => Vec::new(),
            Some((reference, _)) => self.store.get(
                key("tensors", json!(null)),
                |_| true,
                || {
                    let (threads, level) = (&self.threads, self.level);
                    let mut tell = |done, total| tell("weights", done, total);
                    measure::tensors(model.file(), reference.file(), threads, level, &mut tell)
                },
            )?,
        };
        let cache = model.cache_bytes(CacheType::F16, settings.memory_context) as u64;
        Ok(Cell {
            name: entry.name.clone(),
            memory: file.bytes.saturating_add(cache),
            file,
            quantized: entry.mix.map(|mix| mix.name().to_owned()),
            size: measure::size(model.file()),
            quality,
            peak: None,
            speed: None,
            tensors,
            on_size_front: false,
            on_speed_front: false,
        })
    }

    /// Measures memory and speeds of all cells, whose files are at `paths`; gives how much the machine moved meanwhile.
    ///
    /// For their speeds models take turns, so that what slows the machine down slows all of them; each is open for its turn alone, as
    /// all of them together may not fit into memory. A round of turns is a piece that is kept.
    fn together(&mut self, paths: &[&Path], cells: &mut [Cell], tell: Tell<'_>) -> Result<Option<f64>> {
        let Machine { cpu, level, threads, .. } = self.machine();
        let Bench { model, settings, program, store, .. } = self;
        let Settings { prompt, generate, runs, .. } = *settings;
        let by = self::program();
        for (path, cell) in paths.iter().zip(cells.iter_mut()) {
            let Some(program) = program else { break };
            let with = json!([prompt, generate, level, threads]);
            let key = json!({"what": "peak", "file": cell.file.sha256, "by": by, "with": with});
            let mut go_on = || tell(Progress { step: "memory", model: &cell.name, done: 0, total: 1 });
            let measure = || alone::run(program, path, settings, &level, threads, &mut go_on);
            cell.peak = store.get(key, |_| true, measure)?;
        }
        let files: Vec<&str> = cells.iter().map(|cell| cell.file.sha256.as_str()).collect();
        let mut suite = None;
        let mut turns = vec![Vec::new(); cells.len()];
        for round in 0..runs {
            let with = json!([prompt, generate, cpu, level, threads]);
            let key = json!({"what": "turns", "files": files, "by": by, "with": with, "round": round});
            let found = store.get(
                key,
                |found: &Vec<Turn>| found.len() == paths.len(),
                || {
                    let mut found = Vec::new();
                    for (place, (path, cell)) in paths.iter().zip(&*cells).enumerate() {
                        let (done, total) = (round * paths.len() + place, runs * paths.len());
                        if tell(Progress { step: "speed", model: &cell.name, done, total }).is_break() {
                            return Err(Error::Cancelled);
                        }
                        let model = model.clone().open(path)?;
                        let suite = match &mut suite {
                            Some(suite) => suite,
                            none => none.insert(Suite::new(&model)?),
                        };
                        found.push(measure::turn(suite, &model, settings)?);
                    }
                    Ok(found)
                },
            )?;
            turns.iter_mut().zip(found).for_each(|(turns, turn)| turns.push(turn));
        }
        for (cell, turns) in cells.iter_mut().zip(&turns) {
            cell.speed = measure::speed(turns);
        }
        let reference: Vec<f64> = turns.iter().flatten().map(|turn| turn.reference).collect();
        Ok(Figures::of(&reference).map(Figures::spread))
    }
}
