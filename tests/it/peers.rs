//! What is read from the programs that measure models.

use gristmill::speed::Test;
use gristmill::speed::readings::{Reading, ferrox, grist, llama_bench, name};

fn reading(test: &str, rates: &[f64], about: &str) -> Reading {
    Reading { test: test.to_owned(), rates: rates.to_vec(), about: about.to_owned() }
}

#[test]
fn grist_says_tests_and_runs() {
    let text = r#"[
        {"model": "a.gguf", "test": "pp512", "tokens_per_second": 142.0, "runs": [141.0, 143.0],
         "backend": "cpu", "threads": 2, "isa": "avx2", "version": "0.1.0"},
        {"model": "a.gguf", "test": "tg64 @ d4096", "runs": [31.5], "isa": "avx2", "version": "0.1.0"}
    ]"#;
    let about = "gristmill 0.1.0 at level avx2";
    assert_eq!(
        grist(text),
        Ok(vec![reading("pp512", &[141.0, 143.0], about), reading("tg64 @ d4096", &[31.5], about)])
    );
}

/// Of llama.cpp with ggml 0.25.3, less what is not read; forks have no `n_depth`, and print before the list.
#[test]
fn llama_bench_says_lengths_and_samples() {
    let text = r#"warming up
    [
        {"build_commit": "unknown", "build_number": 0, "flash_attn": -1, "n_prompt": 16, "n_gen": 0, "n_depth": 0,
         "avg_ts": 3.297595, "samples_ns": [ 4852021574 ], "samples_ts": [ 3.29759 ]},
        {"build_commit": "1a2b3c4", "build_number": 7000, "flash_attn": 1, "n_prompt": 0, "n_gen": 2, "n_depth": 64,
         "samples_ts": [ 1.5, 1.25 ]},
        {"build_commit": "fork", "n_prompt": 0, "n_gen": 2, "samples_ts": [ 1 ]}
    ]"#;
    assert_eq!(
        llama_bench(text),
        Ok(vec![
            reading("pp16", &[3.29759], "unknown"),
            reading("tg2 @ d64", &[1.5, 1.25], "1a2b3c4 (7000)"),
            reading("tg2", &[1.0], "fork"),
        ])
    );
}

#[test]
fn a_receipt_of_ferrox_says_tests_and_samples() {
    let text = r#"{"backend": "cpu", "ferrox_version": "0.25.0", "threads": 2, "tests": [
        {"test": "pp512", "ferrox_tps": 46.0, "ferrox_samples": [45.0, 46.0, 47.0], "llama_tps": null},
        {"test": "tg64", "ferrox_tps": 6.9, "ferrox_samples": [6.9]}
    ]}"#;
    assert_eq!(
        ferrox(text),
        Ok(vec![
            reading("pp512", &[45.0, 46.0, 47.0], "ferrox 0.25.0"),
            reading("tg64", &[6.9], "ferrox 0.25.0")
        ])
    );
}

#[test]
fn what_is_no_measurement_is_refused() {
    for (read, text) in [
        (grist as fn(&str) -> _, "error: no such file"),
        (grist, r#"[{"test": "pp1", "isa": "avx2", "version": "0.1.0"}]"#),
        (grist, r#"[{"test": "pp1", "isa": "avx2", "version": "0.1.0", "runs": []}]"#),
        (llama_bench, ""),
        (llama_bench, r#"[{"build_commit": "a", "n_prompt": 1, "n_gen": 0, "samples_ts": [0.0]}]"#),
        (llama_bench, r#"[{"build_commit": "a", "n_gen": 1, "samples_ts": [1.0]}]"#),
        (ferrox, r#"{"ferrox_version": "0.25.0"}"#),
    ] {
        let found: Result<Vec<Reading>, String> = read(text);
        assert!(found.as_ref().is_err_and(|message| message.contains("expected")), "{text}: {found:?}");
    }
}

#[test]
fn tests_are_named_alike_by_all() {
    assert_eq!(name(512, 0, 0), "pp512");
    assert_eq!(name(0, 64, 4096), "tg64 @ d4096");
    assert_eq!(name(512, 64, 0), "pp512+tg64");
    assert_eq!(Test::prompt(512).to_string(), "pp512");
    assert_eq!(Test::generate(64).at_depth(4096).to_string(), "tg64 @ d4096");
}
