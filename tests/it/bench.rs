//! `grist bench` and the choice of a backend, by the program itself.

use std::process::{Command, Output};

use serde_json::Value;

fn grist(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_grist")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn json_has_an_object_for_each_test_with_its_runs() {
    let output = grist(&["bench", "-p", "16,0", "-n", "4", "-r", "3", "--threads", "1", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty());
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(all.iter().map(|one| &one["test"]).collect::<Vec<_>>(), ["pp16", "tg4"]);
    for one in &all {
        assert_eq!(
            (&one["model"], &one["backend"], &one["threads"]),
            (&"built-in".into(), &"cpu".into(), &1.into())
        );
        let runs: Vec<f64> =
            one["runs"].as_array().unwrap().iter().map(|run| run.as_f64().unwrap()).collect();
        assert_eq!(runs.len(), 3);
        let median = one["tokens_per_second"].as_f64().unwrap();
        assert!(runs.contains(&median) && median > 0.0);
        assert!(one["min"].as_f64().unwrap() <= median && median <= one["max"].as_f64().unwrap());
    }
}

#[test]
fn the_table_has_a_line_for_each_test() {
    let output = grist(&["bench", "-p", "0", "-n", "2,3", "-r", "1", "--isa", "scalar"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    assert!(lines[0].starts_with("| model") && lines[0].contains("tokens/s"));
    assert!(lines[2].contains("| scalar |") && lines[2].contains("tg2"), "{}", lines[2]);
    assert!(lines[3].contains("tg3"));
}

#[test]
fn no_test_at_all_is_a_wrong_command_line() {
    let output = grist(&["bench", "-p", "0", "-n", "0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("expected a test"));
}

#[test]
fn only_bench_takes_several_backends() {
    let output = grist(&["generate", "-p", "a", "--backend", "cpu,cpu"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--backend: expected one, found 2"), "{}", text(&output.stderr));
}

#[test]
fn a_backend_that_is_absent_is_named_with_the_way_to_get_it() {
    let output = grist(&["generate", "-p", "a", "--backend", "metal"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "error: the backend `metal` is not part of this build; use `cpu`\n");
    if cfg!(not(feature = "ggml")) {
        let output = grist(&["generate", "-p", "a", "--backend", "ggml"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("build with `--features ggml`"), "{}", text(&output.stderr));
    }
}
