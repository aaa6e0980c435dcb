//! `grist advise`, by the program itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gristmill::gguf::Gguf;
use serde_json::Value;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models/stories260K-f32.gguf");

fn advise(args: &[&str]) -> Output {
    let program = Command::new(env!("CARGO_BIN_EXE_grist")).arg("advise").args(args).output();
    program.unwrap()
}

fn json(args: &[&str]) -> Value {
    let output = advise(&[&["--json"], args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The first bytes of the model, in a file of their own.
struct Beginning(PathBuf);

impl Beginning {
    fn new(name: &str, len: usize) -> Self {
        let path = std::env::temp_dir().join(format!("gristmill-{name}-{}.gguf", std::process::id()));
        fs::write(&path, &fs::read(MODEL).unwrap()[..len]).unwrap();
        Beginning(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn header_len(path: &Path) -> usize {
    Gguf::parse(&fs::read(path).unwrap()).unwrap().data_start.try_into().unwrap()
}

#[test]
fn each_context_is_told_with_what_it_needs() {
    let about = json(&[MODEL, "--ctx", "64,512", "--no-speed", "--memory", "3M"]);
    let contexts = about["contexts"].as_array().unwrap();
    for (context, tokens) in contexts.iter().zip([64, 512]) {
        let number = |key: &str| context[key].as_u64().unwrap();
        assert_eq!(number("context"), tokens);
        // Five layers of four heads of a key of 8 and a value of 16 (padded) in half precision.
        assert_eq!(number("cache"), 5 * tokens * 4 * 24 * 2);
        assert_eq!(number("total"), number("weights") + number("cache") + number("working"));
        assert_eq!(context["fits"], if number("total") <= 3_000_000 { "yes" } else { "no" });
        assert!(context["tokens_per_second"].is_null());
    }
    assert_eq!((contexts.len(), &contexts[1]["fits"]), (2, &"no".into()), "{about:#}");
}

#[test]
fn a_smaller_form_of_the_cache_is_counted_as_such() {
    let cache = |ty: &str| {
        json(&[MODEL, "--ctx", "512", "--no-speed", "--cache", ty])["contexts"][0]["cache"].as_u64().unwrap()
    };
    assert_eq!(cache("f32"), 2 * cache("f16"));
}

#[test]
fn a_file_that_is_still_on_its_way_will_do() {
    let whole = json(&[MODEL, "--no-speed", "--memory", "1G"]);
    let header = header_len(MODEL.as_ref());
    let part = Beginning::new("part", header + 1000);
    let told = json(&[part.path(), "--no-speed", "--memory", "1G"]);
    assert_eq!((&told["contexts"], &told["weights"]), (&whole["contexts"], &whole["weights"]));
    let missing = fs::metadata(MODEL).unwrap().len() - header as u64 - 1000;
    assert_eq!((told["missing_bytes"].as_u64(), whole["missing_bytes"].as_u64()), (Some(missing), Some(0)));
    // Speed is measured on memory that stands in for the weights.
    let told = json(&[part.path(), "--ctx", "32", "--threads", "1"]);
    let tests: Vec<_> = told["predicted"].as_array().unwrap().iter().collect();
    assert_eq!(tests.iter().map(|one| &one["test"]).collect::<Vec<_>>(), ["pp512", "tg128"]);
    for rate in tests.into_iter().chain(told["contexts"].as_array().unwrap()) {
        assert!(rate["tokens_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{told:#}");
    }
}

#[test]
fn half_a_header_is_refused_with_what_is_missing() {
    let part = Beginning::new("half", header_len(MODEL.as_ref()) / 2);
    let output = advise(&[part.path()]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(part.path()) && said.contains("bytes") && said.contains("cut short"), "{said}");
}

#[test]
fn no_other_command_runs_a_part_of_a_file() {
    let part = Beginning::new("run", header_len(MODEL.as_ref()) + 1000);
    let program =
        Command::new(env!("CARGO_BIN_EXE_grist")).args(["generate", "-p", "a", part.path()]).output();
    assert_eq!(program.unwrap().status.code(), Some(1));
}

#[test]
fn the_table_has_a_line_for_each_context() {
    let output = advise(&[MODEL, "--ctx", "64,128", "--no-speed"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(
        lines[0].starts_with("| context ") && lines[2].starts_with("| 64 ") && lines[3].starts_with("| 128 ")
    );
}

#[test]
fn an_encoder_generates_nothing() {
    let bert = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/architectures/bert.gguf");
    let about = json(&[bert, "--threads", "1"]);
    let tests: Vec<_> = about["predicted"].as_array().unwrap().iter().map(|one| &one["test"]).collect();
    assert_eq!(tests, ["pp512"]);
    assert!(about["contexts"][0]["tokens_per_second"].is_null());
}
