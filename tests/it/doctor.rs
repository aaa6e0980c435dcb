//! The doctor: each thing that can be wrong is found, and what is whole is left alone.

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;

use gristmill::doctor::{Options, Report, Severity, examine, examine_file};
use gristmill::gguf::{Array, Strings, Value};
use gristmill::model::file::ModelFile;
use gristmill::{Error, GgmlType};

use crate::models::{self, Parts, Tensor};

fn instruct() -> Parts {
    Parts::of(&fs::read(models::instruct()).unwrap())
}

fn threads(count: usize) -> Options {
    Options { threads: Some(count), ..Options::default() }
}

fn examined(parts: &Parts) -> Report {
    let file = ModelFile::from_bytes(parts.file().unwrap()).unwrap();
    examine_file(&file, &threads(2), |_| ControlFlow::Continue(())).unwrap()
}

/// Whether there is a finding of this level for the check whose text holds `words`.
fn finds(report: &Report, level: Severity, check: &str, words: &str) -> bool {
    let mut findings = report.findings.iter();
    findings.any(|finding| finding.level == level && finding.check == check && finding.text.contains(words))
}

/// A file of a test's own, removed with it.
struct OwnFile(PathBuf);

impl OwnFile {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let folder = std::env::temp_dir().join(format!("gristmill-doctor-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        OwnFile(path)
    }

    fn examined(&self) -> Report {
        examine(&self.0, &threads(1), |_| ControlFlow::Continue(())).unwrap()
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.parent().unwrap());
    }
}

fn tensor<'a>(parts: &'a mut Parts, name: &str) -> &'a mut Tensor {
    parts.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
}

#[test]
fn a_model_without_a_fault_gets_no_warning() {
    let report = examined(&instruct());
    assert_eq!(report.worst(), Severity::Note, "{report:#?}");
    for (check, words) in [
        ("template", "answers end with `<|im_end|>`"),
        ("template", "system prompt"),
        ("kind", "instruct"),
        ("special tokens", "ids in range"),
        ("vocabulary", "2048 tokens"),
        ("architecture", "it runs"),
        ("architecture", "finite logits"),
        ("tensors", "all are used"),
        ("weights", "all numbers are finite"),
        ("name", "Q8_0: 100 %"),
    ] {
        assert!(finds(&report, Severity::Ok, check, words), "{check}: {words}\n{report:#?}");
    }
}

#[test]
fn without_weights_nothing_is_read() {
    let mut parts = instruct();
    tensor(&mut parts, "output_norm.weight").bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let file = ModelFile::from_bytes(parts.file().unwrap()).unwrap();
    let report = examine_file(&file, &Options { weights: false, ..Options::default() }, |_| {
        panic!("nothing is to be read")
    })
    .unwrap();
    assert!(report.findings.iter().all(|finding| finding.check != "weights"));
    let stopped = examine_file(&file, &Options::default(), |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(Error::Cancelled)));
}

/// What is done to a whole model, and the finding that it must give.
type Case = (&'static str, fn(&mut Parts), Severity, &'static str, &'static str);

const END: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_start|>{% endfor %}";
const LOSES: &str = "{% for m in messages[-1:] %}{{ m.content }}<|im_end|>{% endfor %}";
const DOUBLED: &str =
    "{{ bos_token + bos_token }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}";
const USER_ONLY: &str =
    "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}";
const NO_END: &str = "{% for m in messages %}{{ m.content }}\n{% endfor %}";
const REFUSES: &str = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No system.') }}{% endif %}\
                       {{ m.content }}<|im_end|>{% endfor %}";

fn set_template(parts: &mut Parts, source: &str) {
    parts.metadata.set("tokenizer.chat_template", source);
}

const CASES: &[Case] = &[
    ("template: syntax", |p| set_template(p, "{% for %}"), Severity::Fault, "template", "line 1"),
    ("template: end", |p| set_template(p, END), Severity::Fault, "template", "does not end generation"),
    ("template: loses turns", |p| set_template(p, LOSES), Severity::Warning, "template", "some are lost"),
    ("template: BOS", |p| set_template(p, DOUBLED), Severity::Fault, "template", "twice"),
    (
        "template: no system",
        |p| set_template(p, USER_ONLY),
        Severity::Warning,
        "template",
        "drops the system",
    ),
    ("template: no end", |p| set_template(p, NO_END), Severity::Warning, "template", "no special token"),
    ("template: refuses", |p| set_template(p, REFUSES), Severity::Note, "template", "No system."),
    ("template: words", |p| set_template(p, "Hi"), Severity::Fault, "template", "user's words"),
    (
        "template: none",
        |p| drop(p.metadata.remove("tokenizer.chat_template")),
        Severity::Warning,
        "kind",
        "it has no template",
    ),
    (
        "special: range",
        |p| p.metadata.set("tokenizer.ggml.eos_token_id", 9999_u32),
        Severity::Fault,
        "special tokens",
        "eos_token_id is 9999",
    ),
    (
        "special: padding",
        |p| p.metadata.set("tokenizer.ggml.padding_token_id", 9999_u32),
        Severity::Warning,
        "special tokens",
        "padding_token_id is 9999",
    ),
    (
        "special: ordinary",
        |p| p.metadata.set("tokenizer.ggml.eos_token_id", 300_u32),
        Severity::Warning,
        "special tokens",
        "ordinary text",
    ),
    (
        "special: EOS",
        |p| p.metadata.set("tokenizer.ggml.add_eos_token", true),
        Severity::Warning,
        "special tokens",
        "behind every prompt",
    ),
    ("tokenizer: pre", |p| p.metadata.set("tokenizer.ggml.pre", "odd"), Severity::Fault, "tokenizer", "odd"),
    (
        "tokenizer: default",
        |p| p.metadata.set("tokenizer.ggml.pre", "default"),
        Severity::Warning,
        "tokenizer",
        "did not know",
    ),
    (
        "tokenizer: none",
        |p| drop(p.metadata.remove("tokenizer.ggml.model")),
        Severity::Warning,
        "tokenizer",
        "has none",
    ),
    ("vocabulary", one_more_token, Severity::Fault, "vocabulary", "only 2048 rows"),
    (
        "architecture",
        |p| p.metadata.set("general.architecture", "nobody"),
        Severity::Fault,
        "architecture",
        "nobody",
    ),
    (
        "tensors: missing",
        |p| p.tensors.retain(|tensor| tensor.name != "blk.3.ffn_up.weight"),
        Severity::Fault,
        "architecture",
        "blk.3.ffn_up.weight",
    ),
    (
        "tensors: bias",
        |p| p.tensors.push(Tensor { name: "blk.1.odd.bias".into(), ..bias() }),
        Severity::Warning,
        "tensors",
        "blk.1.odd.bias",
    ),
    (
        "tensors: other",
        |p| p.tensors.push(Tensor { name: "odd.weight".into(), ..bias() }),
        Severity::Note,
        "tensors",
        "odd.weight",
    ),
    (
        "weights: scale",
        |p| tensor(p, "blk.2.ffn_up.weight").bytes[34..36].copy_from_slice(&0x7c00_u16.to_le_bytes()),
        Severity::Fault,
        "weights",
        "blk.2.ffn_up.weight (32 of",
    ),
    (
        "weights: zeros",
        |p| tensor(p, "blk.2.ffn_up.weight").bytes.fill(0),
        Severity::Warning,
        "weights",
        "blk.2.ffn_up.weight (100.0 % zeros)",
    ),
    (
        "weights: one row of zeros",
        |p| tensor(p, "blk.2.ffn_up.weight").bytes[..256 / 32 * 34].fill(0),
        Severity::Note,
        "weights",
        "rows of zeros in blk.2.ffn_up.weight",
    ),
    ("weights: constant", constant_row, Severity::Warning, "weights", "one and the same number"),
    (
        "importance: named",
        |p| p.metadata.set("quantize.imatrix.file", "made.gguf"),
        Severity::Ok,
        "importance",
        "made.gguf",
    ),
    ("importance: missing", iq2, Severity::Warning, "importance", "1 matrices have a type that needs"),
    ("name: type", named_f16, Severity::Ok, "name", "F16"),
];

fn bias() -> Tensor {
    Tensor { name: String::new(), shape: vec![4], ty: GgmlType::F32, bytes: vec![0; 16] }
}

fn one_more_token(parts: &mut Parts) {
    let key = "tokenizer.ggml.tokens";
    let mut tokens: Strings = parts.metadata.strings(key).unwrap().unwrap().clone();
    tokens.push("one more");
    parts.metadata.set(key, tokens);
    let key = "tokenizer.ggml.token_type";
    if let Some(Value::Array(Array::I32(types))) = parts.metadata.get(key).cloned() {
        parts.metadata.set(key, [types, vec![1]].concat());
    }
}

fn constant_row(parts: &mut Parts) {
    let bytes = &mut tensor(parts, "blk.2.ffn_up.weight").bytes;
    // Q8_0: a scale and 32 codes.
    let block = bytes[..34].to_vec();
    for place in bytes[..256 / 32 * 34].chunks_exact_mut(34) {
        place[..2].copy_from_slice(&block[..2]);
        place[2..].fill(5);
    }
}

fn iq2(parts: &mut Parts) {
    let tensor = tensor(parts, "blk.2.ffn_up.weight");
    let rows: usize = tensor.shape[1..].iter().product();
    (tensor.ty, tensor.bytes) =
        (GgmlType::IQ2_XS, vec![1; rows * GgmlType::IQ2_XS.row_bytes(tensor.shape[0]).unwrap()]);
}

fn named_f16(parts: &mut Parts) {
    *parts = Parts::of(&models::bytes(models::QWEN3));
    parts.metadata.set("general.file_type", 1_u32);
}

#[test]
fn what_is_wrong_is_found() {
    assert_eq!(tensor(&mut instruct(), "blk.2.ffn_up.weight").shape[0], 256);
    let mut missed = Vec::new();
    for (what, change, level, check, words) in CASES {
        let mut parts = instruct();
        change(&mut parts);
        let report = examined(&parts);
        if !finds(&report, *level, check, words) {
            missed.push(format!("{what}: {report:#?}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn a_name_that_promises_other_contents_is_a_warning() {
    let bytes = fs::read(models::instruct()).unwrap();
    let lies = OwnFile::new("Some-7B-Q4_K_M.gguf", &bytes).examined();
    assert!(finds(
        &lies,
        Severity::Warning,
        "name",
        "the name says Q4_K_M, but 100 % of the layers' weights are q8_0"
    ));
    assert!(finds(&lies, Severity::Warning, "name", "the name says 7B parameters, there are 4.6 M"));
    let honest = OwnFile::new("tiny-5M-q8_0.gguf", &bytes).examined();
    assert!(honest.findings.iter().all(|finding| finding.check != "name" || finding.level == Severity::Ok));
    let part = OwnFile::new("tiny-00002-of-00003.gguf", &bytes).examined();
    assert!(finds(&part, Severity::Warning, "name", "part 2 of 3, but the file is whole"));
}

#[test]
fn a_file_that_is_cut_short_is_examined_as_far_as_it_goes() {
    let bytes = fs::read(models::instruct()).unwrap();
    let half = OwnFile::new("half.gguf", &bytes[..bytes.len() / 2]).examined();
    assert!(finds(&half, Severity::Fault, "file", "50.0 %"), "{half:#?}");
    assert!(finds(&half, Severity::Ok, "template", "answers end with"));
    assert!(finds(&half, Severity::Ok, "vocabulary", "2048 tokens"));
    let header = OwnFile::new("header.gguf", &bytes[..2000]).examined();
    assert_eq!((header.count(Severity::Fault), header.findings.len()), (1, 1), "{header:#?}");
    let other = OwnFile::new("other.gguf", b"PK\x03\x04 and so on").examined();
    assert!(finds(&other, Severity::Fault, "file", "not a GGUF file"));
}

#[cfg(feature = "cli")]
#[test]
fn the_exit_code_says_whether_there_are_faults() {
    use std::process::Command;
    let run = |args: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_grist")).arg("doctor").args(args).output().unwrap();
        let json: Option<serde_json::Value> = serde_json::from_slice(&done.stdout).ok();
        (done.status.code().unwrap(), json, String::from_utf8(done.stderr).unwrap())
    };
    let whole = models::instruct();
    let (code, json, err) = run(&[whole.to_str().unwrap(), "--json", "--strict"]);
    let json = json.unwrap();
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!((&json["faults"], &json["warnings"]), (&0.into(), &0.into()));
    assert_eq!(json["findings"][0]["level"], "ok");

    let bytes = fs::read(&whole).unwrap();
    let lies = OwnFile::new("x-Q2_K.gguf", &bytes);
    let path = lies.0.to_str().unwrap();
    assert_eq!(run(&[path, "--quick"]).0, 0);
    let (code, _, err) = run(&[path, "--quick", "--strict"]);
    assert_eq!(code, 1);
    assert!(err.ends_with("1 warning (--strict)\n"), "{err}");

    let half = OwnFile::new("half.gguf", &bytes[..bytes.len() / 2]);
    let (code, _, err) = run(&[half.0.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(err.starts_with("error: ") && err.ends_with("2 faults\n"), "{err}");
}
