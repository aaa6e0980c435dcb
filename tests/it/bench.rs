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
    if cfg!(not(target_os = "macos")) {
        let expected = "error: the backend `metal` is not part of this build; use `cpu`; ";
        assert!(text(&output.stderr).starts_with(expected), "{}", text(&output.stderr));
        let output = grist(&["doctor", "--metal"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).starts_with(expected), "{}", text(&output.stderr));
        let output = grist(&["generate", "-p", "a", "-n", "1", "--backend", "metal", "--or-cpu"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    if cfg!(not(feature = "ggml")) {
        let output = grist(&["generate", "-p", "a", "--backend", "ggml"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("build with `--features ggml`"), "{}", text(&output.stderr));
    }
}

/// What a bench of one of the models of `tests/data` prints as JSON.
fn bench(args: &[&str]) -> Vec<Value> {
    let output = grist(&[&["bench", "--json", "--threads", "1"], args].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn threads_and_batches_are_compared_in_all_pairs() {
    let output =
        grist(&["bench", "--json", "-p", "16", "-n", "0", "-r", "1", "--threads", "1,2", "--batch", "4,16"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let found: Vec<_> = all.iter().map(|one| (one["threads"].as_u64(), one["batch"].as_u64())).collect();
    // No more threads than twice the processors: two are always given.
    assert_eq!(found, [(1, 4), (1, 16), (2, 4), (2, 16)].map(|(t, b)| (Some(t), Some(b))));
    // The same tokens need the same products, but four batches read the weights four times.
    let read = |one: &Value| one["bytes_read"].as_u64().unwrap();
    assert!(read(&all[0]) > 3 * read(&all[1]));
}

#[test]
fn only_some_commands_take_several_numbers() {
    for (flag, who) in [("--threads", "bench"), ("--ctx", "advise")] {
        let output = grist(&["generate", "-p", "a", flag, "1,2"]);
        assert_eq!(output.status.code(), Some(2));
        let expected = format!("{flag}: expected one number, found 2; `{who}` takes several");
        assert!(text(&output.stderr).contains(&expected), "{}", text(&output.stderr));
    }
}

#[test]
fn a_test_is_laid_beside_what_the_machine_gives() {
    let all = bench(&["-p", "8", "-n", "4", "-r", "2"]);
    for one in &all {
        let number = |key: &str| one[key].as_f64().unwrap_or_else(|| panic!("{key}: {one}"));
        let per_second = number("tokens_per_second") / if one["test"] == "pp8" { 8.0 } else { 4.0 };
        let read = number("bytes_read") * per_second / number("machine_read");
        assert!((read / number("read_share") - 1.0).abs() < 1e-9, "{one}");
        let codes = number("code_multiplications") / number("machine_codes");
        let floats = number("float_multiplications") / number("machine_floats");
        assert!(((codes + floats) * per_second / number("multiply_share") - 1.0).abs() < 1e-9, "{one}");
        assert!(number("load_seconds") > 0.0 && number("first_token_seconds") > 0.0);
        assert_eq!(one["reference_runs"].as_array().unwrap().len(), 2);
        assert_eq!(one["peak_memory"].is_u64(), cfg!(target_os = "linux"));
        assert!(one["predicted"].is_null() && one.get("peer").is_none());
    }
    // A token reads all weights but the embeddings, of which it reads a row.
    let generated = all[1]["bytes_read"].as_u64().unwrap();
    assert!(generated < 4 * all[1]["bytes"].as_u64().unwrap() * 11 / 10, "{generated}");
}

#[test]
fn a_prediction_stands_beside_each_measurement() {
    let all = bench(&["-p", "8", "-n", "4", "-r", "2", "--predict"]);
    for one in &all {
        let runs = |key: &str| -> Vec<f64> {
            one[key].as_array().unwrap().iter().map(|rate| rate.as_f64().unwrap()).collect()
        };
        let (predicted, found) = (runs("predicted_runs"), runs("runs"));
        assert_eq!((predicted.len(), found.len()), (2, 2));
        // Of two pairs the mean is the median.
        let ratio = (predicted[0] / found[0] + predicted[1] / found[1]) / 2.0;
        assert!((one["predicted_error"].as_f64().unwrap() - (ratio - 1.0)).abs() < 1e-9, "{one:#}");
        assert!((one["predicted"].as_f64().unwrap() - (predicted[0] + predicted[1]) / 2.0).abs() < 1e-6);
    }
    let output = grist(&["bench", "-p", "8", "-n", "0", "-r", "1", "--threads", "1", "--predict"]);
    let said = text(&output.stderr);
    assert!(
        said.contains("predictions: the worst is off by") && said.contains("ond 20 %")
            || said.contains("within 20 %"),
        "{said}"
    );
}

#[test]
fn lines_of_values_have_the_fields_of_the_objects() {
    let output = grist(&["bench", "-p", "4", "-n", "2", "-r", "2", "--threads", "1", "--output", "csv"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut lines = text(&output.stdout).lines().map(|line| line.split(',').collect::<Vec<_>>());
    let head = lines.next().unwrap();
    let column = |name: &str| head.iter().position(|head| *head == name).unwrap();
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.iter().map(|line| line[column("test")]).collect::<Vec<_>>(), ["pp4", "tg2"]);
    for line in lines {
        assert_eq!(line.len(), head.len(), "{line:?}");
        assert_eq!(line[column("model")], "built-in");
        assert!(line[column("tokens_per_second")].parse::<f64>().unwrap() > 0.0);
        assert_eq!(line[column("runs")].split(' ').count(), 2);
    }
}

#[cfg(unix)]
mod peer {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models/stories260K-f32.gguf");

    /// A program that writes down its arguments, prints `output` and ends with `code`.
    struct Program {
        path: PathBuf,
        log: PathBuf,
    }

    impl Program {
        fn new(name: &str, output: &str, code: i32) -> Self {
            let place = |what: &str| {
                std::env::temp_dir().join(format!("gristmill-{name}-{}{what}", std::process::id()))
            };
            let (path, log) = (place(""), place(".log"));
            let script = format!(
                "#!/bin/sh\necho \"$@\" >> '{}'\ncat <<'END'\n{output}\nEND\nexit {code}\n",
                log.display()
            );
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
            Program { path, log }
        }

        fn path(&self) -> &str {
            self.path.to_str().unwrap()
        }
    }

    impl Drop for Program {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.path);
            let _ = fs::remove_file(&self.log);
        }
    }

    const READINGS: &str = r#"[
        {"build_commit": "abc", "build_number": 7, "n_prompt": 8, "n_gen": 0, "n_depth": 0, "samples_ts": [16.0]},
        {"build_commit": "abc", "build_number": 7, "n_prompt": 0, "n_gen": 4, "n_depth": 0, "samples_ts": [4.0]}]"#;

    #[test]
    fn the_peer_runs_once_a_round_and_the_ratio_is_of_the_pairs() {
        let program = Program::new("peer", READINGS, 0);
        let all = bench(&["-p", "8", "-n", "4", "-r", "3", "--compare", program.path(), MODEL]);
        let log = fs::read_to_string(&program.log).unwrap();
        assert_eq!(log, format!("-o json -r 1 -p 8 -n 4 -t 1 -m {MODEL}\n").repeat(3));
        for (one, rate) in all.iter().zip([16.0, 4.0]) {
            let peer = &one["peer"];
            assert_eq!((&peer["about"], peer["tokens_per_second"].as_f64()), (&"abc (7)".into(), Some(rate)));
            assert_eq!(peer["runs"], Value::from(vec![rate; 3]));
            let number = |of: &Value, key: &str| of[key].as_f64().unwrap();
            for (ratio, own) in [("ratio", "tokens_per_second"), ("ratio_low", "min"), ("ratio_high", "max")]
            {
                let expected = number(one, own) / rate;
                assert!((number(peer, ratio) / expected - 1.0).abs() < 1e-12, "{ratio}: {one}");
            }
            // The true median is outside of three pairs with probability 2 / 8.
            assert_eq!(number(peer, "ratio_confidence"), 0.75);
        }
    }

    #[test]
    fn the_table_shows_both_and_the_ratio() {
        let program = Program::new("table", READINGS, 0);
        let args = ["bench", "-p", "8", "-n", "4", "-r", "1", "--compare", program.path(), MODEL];
        let output = grist(&args);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let lines: Vec<&str> = text(&output.stdout).lines().collect();
        assert!(lines[0].contains("llama-bench") && lines[0].contains("ratio"), "{}", lines[0]);
        assert!(lines[2].contains("16.00") && lines[3].contains("4.00"), "{lines:#?}");
    }

    #[test]
    fn a_peer_that_fails_is_told_with_what_it_said() {
        for (name, output, code, said) in [
            ("fails", "", 3, "exit status: 3"),
            ("chats", "no JSON", 0, "expected a list in JSON"),
            ("other", r#"[{"build_commit": "a", "n_prompt": 9, "n_gen": 0, "samples_ts": [1.0]}]"#, 0, "pp8"),
        ] {
            let program = Program::new(name, output, code);
            let output = grist(&["bench", "-p", "8", "-n", "0", "--compare", program.path(), MODEL]);
            assert_eq!(output.status.code(), Some(1));
            let told = text(&output.stderr);
            assert!(told.contains(program.path()) && told.contains(said), "{told}");
        }
        let output = grist(&["bench", "-p", "8", "--compare", "/nowhere/llama-bench", MODEL]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("/nowhere/llama-bench"));
    }

    #[test]
    fn the_built_in_model_cannot_be_compared() {
        let output = grist(&["bench", "--compare", "llama-bench"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("--compare: expected MODEL"));
    }
}
