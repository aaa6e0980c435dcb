//! Reports: whole runs, broken off and taken up, and verified.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use gristmill::eval;
use gristmill::quantize::Mix;
use gristmill::report::data::Report;
use gristmill::report::{Again, Difference, Options, Outcome, Progress, run, verify};
use gristmill::{Error, Model};

use crate::models;

/// Quantizations of the built-in model over some text, in a folder of a test's own.
struct Setting {
    folder: PathBuf,
    options: Options,
}

const MIXES: [&str; 3] = ["Q6_K", "Q4_0", "Q2_K"];

fn mixes(names: &[&str]) -> Vec<Mix> {
    names.iter().map(|name| Mix::named(name).unwrap()).collect()
}

impl Setting {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("gristmill-report-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let text = folder.join("text.txt");
        let turns = [
            "What is the capital of France? ",
            "The capital of France is Paris. ",
            "Is ice hot? No, it is cold.\n",
        ];
        fs::write(&text, (0..60).map(|i| turns[i * i % 3]).collect::<String>()).unwrap();
        let mut options = Options::new(&text, folder.join("out"));
        options.models = vec![models::instruct()];
        options.mixes = mixes(&MIXES);
        (options.settings.context, options.settings.chunks, options.settings.runs) = (64, Some(4), 0);
        options.threads = Some(2);
        Setting { folder, options }
    }

    fn run(&self) -> Outcome {
        run(&self.options, &mut |_| ControlFlow::Continue(())).unwrap()
    }

    fn out(&self, name: &str) -> PathBuf {
        self.options.out.join(name)
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn differences(path: &Path) -> Vec<Difference> {
    verify(path, &Again { threads: Some(2), ..Again::default() }, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn names(report: &Report) -> Vec<&str> {
    report.cells.iter().map(|cell| cell.name.as_str()).collect()
}

#[test]
fn the_figures_are_those_of_the_modules_that_measure() {
    let setting = Setting::new("figures");
    let report = setting.run().report;
    assert_eq!(names(&report), MIXES);
    let text = fs::read_to_string(&setting.options.text).unwrap();
    let options = eval::Options::default().context(64).limit(4);
    let reference = Model::open(models::instruct()).unwrap();
    let alone = eval::perplexity(&reference, &text, &options, |_| ()).unwrap();
    assert_eq!(report.reference.quality.perplexity.value, alone.perplexity.value);
    assert!(report.reference.quality.divergence.is_none() && report.reference.tensors.is_empty());
    for cell in &report.cells {
        let path = setting.out(&cell.file.path);
        let model = Model::open(&path).unwrap();
        let found = eval::divergence(&model, &reference, &text, &options, |_| ()).unwrap();
        let divergence = cell.quality.divergence.as_ref().unwrap();
        assert_eq!(divergence.mean.value, found.kl.mean().value, "{}", cell.name);
        assert_eq!(divergence.same_top.value, found.same_top.estimate().value);
        assert_eq!((divergence.p99, divergence.max), (found.kl.quantile(0.99), found.kl.max()));
        assert_eq!(cell.quality.perplexity.value, found.model.perplexity.value);
        assert_eq!(cell.file.bytes, fs::metadata(&path).unwrap().len());
        assert_eq!(cell.tensors.len(), 44);
    }
    let [six, _, two] = report.cells.as_slice() else { panic!("three") };
    for (six, two) in six.tensors.iter().zip(&two.tensors) {
        // Fewer bits, more error; Q2_K leaves the output in six bits.
        assert_eq!((six.layer, &six.kind), (two.layer, &two.kind));
        assert_eq!(six.error < two.error, six.ty != two.ty, "{six:?} {two:?}");
    }
    let total: u64 = two.size.types.iter().map(|share| share.bytes).sum();
    assert_eq!(total, two.size.bytes);
}

#[test]
fn the_three_files_say_the_same() {
    let setting = Setting::new("files");
    let outcome = setting.run();
    let json: Report = serde_json::from_slice(&fs::read(setting.out("report.json")).unwrap()).unwrap();
    assert_eq!(json, outcome.report);
    let html = fs::read_to_string(setting.out("report.html")).unwrap();
    let markdown = fs::read_to_string(setting.out("report.md")).unwrap();
    for cell in json.all() {
        for text in [&html, &markdown] {
            assert!(text.contains(&cell.name) && text.contains(&cell.file.sha256), "{}", cell.name);
        }
    }
    assert!(!html.contains("://"), "the page names another place");
}

#[test]
fn what_was_measured_is_kept() {
    let mut setting = Setting::new("kept");
    let first = setting.run();
    // Three files to make; of each, quality and tensors; of the reference, quality.
    assert_eq!((first.measured, first.kept), (3 + 3 * 2 + 1, 0));
    let second = setting.run();
    assert_eq!((second.measured, second.kept), (0, first.measured));
    assert_eq!(second.report.cells, first.report.cells);

    setting.options.mixes = mixes(&["Q6_K", "Q4_0", "Q2_K", "Q3_K_S"]);
    let third = setting.run();
    assert_eq!((third.measured, third.kept), (1 + 2, first.measured));
    assert_eq!(names(&third.report), ["Q6_K", "Q4_0", "Q3_K_S", "Q2_K"]);

    // Another text measures the qualities again, and nothing else.
    fs::write(&setting.options.text, "The sun is yellow. What is the sun? ".repeat(60)).unwrap();
    assert_eq!(setting.run().measured, 5);
}

#[test]
fn speeds_are_kept_round_by_round() {
    let mut setting = Setting::new("rounds");
    setting.options.mixes = mixes(&["Q4_0"]);
    let settings = &mut setting.options.settings;
    (settings.prompt, settings.generate, settings.runs) = (8, 2, 2);
    let mut turns = Vec::new();
    let mut stop = |at: Progress<'_>| {
        if at.step == "speed" {
            turns.push((at.model.to_owned(), at.done, at.total));
        }
        if turns.len() == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert!(matches!(run(&setting.options, &mut stop), Err(Error::Cancelled)));
    let names: Vec<&str> = turns.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["Q8_0", "Q4_0", "Q8_0", "Q4_0"]);
    assert_eq!((turns[3].1, turns[3].2), (3, 4));
    // The first round was whole; the second is run again, and only that.
    let before = fs::read_dir(setting.out("cells")).unwrap().count();
    let outcome = setting.run();
    assert_eq!((outcome.measured, outcome.kept), (1, before));
    assert!(outcome.report.drift.is_some());
    for cell in outcome.report.all() {
        let speed = cell.speed.as_ref().unwrap();
        assert!(speed.prompt.least <= speed.prompt.median && speed.generate.least > 0.0, "{speed:?}");
        assert_eq!(cell.peak, None);
    }
    // A third round needs no more than itself; another model takes turns with the others from the start.
    setting.options.settings.runs = 3;
    assert_eq!(setting.run().measured, 1);
    setting.options.mixes = mixes(&["Q4_0", "Q2_K"]);
    assert_eq!(setting.run().measured, 1 + 2 + 3);
}

#[test]
fn a_report_that_was_broken_off_goes_on() {
    let setting = Setting::new("broken");
    let mut stop = |at: Progress<'_>| match (at.step, at.model) {
        ("divergence", "Q4_0") => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    assert!(matches!(run(&setting.options, &mut stop), Err(Error::Cancelled)));
    assert!(!setting.out("report.json").exists());
    let outcome = setting.run();
    // Three files, a piece of the reference and two of Q6_K were there.
    assert_eq!((outcome.measured, outcome.kept), (4, 6));
}

#[test]
fn files_that_are_there_are_compared_with_the_one_of_most_bits() {
    let setting = Setting::new("given");
    setting.run();
    let mut given = setting.options.clone();
    given.mixes.clear();
    given.out = setting.folder.join("second");
    given.models = ["Q2_K", "Q6_K", "Q4_0"]
        .map(|mix| setting.out(&format!("models/tiny-instruct-q8_0-{mix}.gguf")))
        .to_vec();
    let report = run(&given, &mut |_| ControlFlow::Continue(())).unwrap().report;
    assert_eq!((report.reference.name.as_str(), names(&report)), ("Q6_K", vec!["Q4_0", "Q2_K"]));
    assert!(report.all().all(|cell| cell.quantized.is_none()));

    given.models.truncate(1);
    let alone = run(&given, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(alone, Err(Error::InvalidOption { option: "models", .. })), "{alone:?}");
}

#[test]
fn verifying_finds_what_was_altered_and_nothing_else() {
    let setting = Setting::new("verify");
    setting.run();
    let path = setting.out("report.json");
    assert_eq!(differences(&path), []);

    // A file that is gone is made again.
    let made = setting.out("models/tiny-instruct-q8_0-Q4_0.gguf");
    fs::remove_file(&made).unwrap();
    assert_eq!(differences(&path), []);
    assert!(made.exists());

    let whole = fs::read_to_string(&path).unwrap();
    let mut report: Report = serde_json::from_str(&whole).unwrap();
    report.cells[1].quality.perplexity.value += 1e-9;
    report.cells[2].on_size_front = !report.cells[2].on_size_front;
    fs::write(&path, serde_json::to_string(&report).unwrap()).unwrap();
    let found: Vec<_> = differences(&path).into_iter().map(|one| (one.cell, one.what, one.exact)).collect();
    let expected = [
        (Some("Q4_0".to_owned()), "quality.perplexity.value".to_owned(), true),
        (Some("Q2_K".to_owned()), "on_size_front".to_owned(), true),
    ];
    assert_eq!(found, expected);

    fs::write(&path, whole.replace("\"format\": 1", "\"format\": 9")).unwrap();
    let other = verify(&path, &Again::default(), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(other, Err(Error::ReportForm { .. })), "{other:?}");
}

#[cfg(feature = "cli")]
#[test]
fn the_program_makes_a_report_and_verifies_it() {
    use std::process::Command;
    let setting = Setting::new("cli");
    let run = |args: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_grist")).arg("report").args(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
    };
    let (model, text, out) = (models::instruct(), &setting.options.text, &setting.options.out);
    let [model, text, out] = [&model, text, out].map(|path| path.to_str().unwrap());
    let args = [model, "--text", text, "--out", out, "--types", "Q4_0,Q2_K", "--ctx", "64", "--chunks", "2"];
    let timed =
        ["-p", "8", "-n", "2", "-r", "2", "--threads", "1", "--use", "quality", "--memory-limit", "1G"];
    let (code, stdout, stderr) = run(&[&args[..], &timed[..]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.starts_with("Take Q4_0 to stay as near to the original as can be, within 1 GiB."),
        "{stdout}"
    );
    assert_eq!(stderr.matches("wrote ").count(), 3, "{stderr}");

    let path = setting.out("report.json");
    let report: Report = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(report.all().all(|cell| cell.speed.as_ref().is_some_and(|speed| speed.generate.median > 0.0)));
    if cfg!(target_os = "linux") {
        for cell in report.all() {
            let (peak, file) = (cell.peak.unwrap(), cell.file.bytes);
            assert!((file..file + (64 << 20)).contains(&peak), "{}: {peak} for {file}", cell.name);
        }
    }
    assert!(
        report.provenance.command.starts_with("grist report ") && report.provenance.command.ends_with("1G")
    );
    assert!(fs::read_to_string(setting.out("report.html")).unwrap().contains("Speed against divergence"));

    let (code, _, stderr) = run(&["--verify", path.to_str().unwrap()]);
    assert_eq!(code, 0, "{stderr}");
    let altered = fs::read_to_string(&path).unwrap().replace("\"attn_q\"", "\"attn_x\"");
    fs::write(&path, altered).unwrap();
    let (code, stdout, stderr) = run(&["--verify", path.to_str().unwrap()]);
    assert_eq!(code, 1, "{stderr}");
    assert!(
        stdout.contains("differs Q4_0 tensors.") && stderr.contains("figures differ"),
        "{stdout}{stderr}"
    );
    assert_eq!(run(&["x.gguf"]).0, 2);
}
