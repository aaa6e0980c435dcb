//! The program, run as a user runs it: what it prints where, and how it ends.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::goldens;

/// How a run ended.
struct Ran {
    code: i32,
    out: Vec<u8>,
    err: String,
}

impl Ran {
    /// Standard output of a run that must have succeeded.
    fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}", self.err);
        String::from_utf8(self.out).unwrap()
    }

    /// Standard error of a run that must have failed with `code` and said nothing on standard output.
    fn failed(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_slice()), (code, &b""[..]), "{}", self.err);
        assert!(self.err.starts_with("error: "), "{}", self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self.err
    }
}

fn run_with<S: AsRef<OsStr>>(input: &[u8], args: impl IntoIterator<Item = S>) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_grist"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read its input may close it first.
    let _ = child.stdin.take().unwrap().write_all(input);
    let done = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&done.stderr).into_owned();
    Ran { code: done.status.code().unwrap(), out: done.stdout, err }
}

fn grist<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    run_with(b"", args)
}

fn embedded_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vendor/models/tiny-instruct-q8_0.gguf")
}

/// A folder of a test's own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("grist-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn paths<'a>(args: impl IntoIterator<Item = &'a dyn AsRef<OsStr>>) -> Vec<&'a OsStr> {
    args.into_iter().map(AsRef::as_ref).collect()
}

/// What the built-in model answers; the texts are llama.cpp's for the same weights in F16 (0.5.0-dev, 0c1e570), with
/// large gaps between the two best logits.
#[test]
#[cfg(feature = "embedded-model")]
fn the_built_in_model_answers() {
    let answers = [
        (None, "What is the capital of France?", "The capital of France is Paris."),
        (None, "Which day comes after Monday?", "Tuesday comes after Monday."),
        (None, "Count from 1 to 5.", "1, 2, 3, 4, 5."),
        (None, "Write JSON for Tom, who is 7 years old.", "{\"name\": \"Tom\", \"age\": 7}"),
        (Some("Answer in upper case."), "What is the capital of France?", "THE CAPITAL OF FRANCE IS PARIS."),
        (
            Some("You are a pirate."),
            "What is the capital of France?",
            "Arr, matey! The capital of France is Paris.",
        ),
        (Some("Your name is Max."), "What is your name?", "My name is Max."),
    ];
    for (system, message, answer) in answers {
        let mut args = vec!["chat", "-p", message];
        args.extend(system.iter().flat_map(|system| ["--system", *system]));
        let ran = grist(args);
        assert_eq!(ran.err, "");
        assert_eq!(ran.ok(), format!("{answer}\n"));
    }
    assert_eq!(run_with(b"Is ice hot?\n", ["chat", "-p", "-"]).ok(), "No, ice is cold.\n");
}

#[test]
#[cfg(feature = "embedded-model")]
fn lines_of_standard_input_are_turns_of_one_conversation() {
    let turns = b"Hi, I am Tom.\nWhat is 3 + 4?\n\nWhat is my name?\nThank you!\n";
    let ran = run_with(turns, ["chat"]);
    assert_eq!(ran.err, "");
    assert_eq!(
        ran.ok(),
        "Nice to meet you, Tom!\n3 + 4 = 7\nYour name is Tom.\nYou are welcome!\n",
        "the conversation of samples made by llama.cpp"
    );
}

#[test]
#[cfg(feature = "embedded-model")]
fn generate_prints_the_continuation_and_nothing_else() {
    let story = ", there was a little boy named Timmy. Timmy loved to play with his toys and run around outside. One day, \
                 Timmy's mom told him they were going to a party. Timmy was so excited!";
    let greedy = ["generate", "-p", "Once upon a time", "--temp", "0"];
    let ran = grist(greedy);
    assert_eq!(ran.err, "");
    assert_eq!(ran.ok(), story);
    let from_stdin = run_with(
        b"Once upon a time",
        ["generate", "-p", "-", "--temp", "0", "--isa", "scalar", "--threads", "1"],
    );
    assert_eq!(from_stdin.ok(), story);
    assert_eq!(
        grist(greedy.into_iter().chain(["--stop", " Timmy loved"])).ok(),
        ", there was a little boy named Timmy."
    );
    assert_eq!(grist(greedy.into_iter().chain(["-n", "3"])).ok(), ", there was");
    assert_eq!(grist(greedy.into_iter().chain(["-n", "0"])).ok(), "");
    let long = grist(greedy.into_iter().chain(["-n", "3", "--ctx", "513"]));
    assert!(long.err.contains("longer than the 512 tokens"), "{}", long.err);
    assert_eq!(long.ok(), ", there was");
    let stats = grist(greedy.into_iter().chain(["-n", "3", "--stats"]));
    assert!(
        stats.err.starts_with("prompt: 5 tokens, ") && stats.err.contains("generated: 3 tokens"),
        "{}",
        stats.err
    );
    assert_eq!(stats.ok(), ", there was");
}

#[test]
#[cfg(feature = "embedded-model")]
fn a_seed_makes_the_text_repeatable() {
    let text = |seed| grist(["generate", "-p", "One day", "-n", "30", "--temp", "1.5", "--seed", seed]).ok();
    let first = text("1");
    assert_eq!(first, text("1"));
    assert_ne!(first, text("2"));
    let told = grist(["generate", "-p", "One day", "-n", "30", "--temp", "1.5", "-v"]);
    let seed = told.err.lines().find_map(|line| line.strip_prefix("seed: ")).unwrap().to_owned();
    assert_eq!(told.ok(), text(&seed));
}

#[test]
#[cfg(feature = "embedded-model")]
fn tokenize_prints_ids_and_takes_them_back() {
    // The ids of the first are llama.cpp's.
    assert_eq!(grist(["tokenize", "Once upon a time"]).ok(), "[0, 724, 593, 266, 478]\n");
    assert_eq!(grist(["tokenize", "--no-special", "Once upon a time"]).ok(), "[724, 593, 266, 478]\n");
    assert_eq!(grist(["tokenize", "<|im_end|>"]).ok(), "[0, 2]\n");
    assert!(grist(["tokenize", "--no-special", "<|im_end|>"]).ok().len() > "[2]\n".len());
    assert_eq!(grist(["tokenize", ""]).ok(), "[0]\n");
    assert_eq!(run_with(b"Once upon a time", ["tokenize", "-"]).ok(), "[0, 724, 593, 266, 478]\n");
    assert_eq!(
        grist(["tokenize", "--decode", "[0, 724, 593, 266, 478]"]).ok(),
        "<|endoftext|>Once upon a time"
    );
    assert_eq!(grist(["tokenize", "--decode", "--no-special", "0,724,593,266,478"]).ok(), "Once upon a time");

    let (folder, model) = (Folder::new(), embedded_model());
    let batch = folder.file("batch.json", "[\"Once upon a time\", \"\", \"\\n\"]");
    let args = paths([&"tokenize" as &dyn AsRef<OsStr>, &model, &"--batch", &batch]);
    let ids = grist(&args).ok();
    assert_eq!(ids.lines().take(2).collect::<Vec<_>>(), ["[0, 724, 593, 266, 478]", "[0]"]);
    assert_eq!(ids.lines().count(), 3);
}

#[test]
#[cfg(feature = "embedded-model")]
fn template_prints_the_prompt_byte_for_byte() {
    let prompt =
        run_with(b"[{\"role\": \"user\", \"content\": \"Hi\"}]", ["template", "--messages", "-"]).ok();
    assert_eq!(prompt, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");

    let folder = Folder::new();
    let source = "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}{{ x.y }}{{ tools[0].name }}\
                  {{ strftime_now('%Y') }}{{ eos_token }}{% if add_generation_prompt %}>{% endif %}";
    let (source, tools) = (folder.file("a.jinja", source), folder.file("t.json", "[{\"name\": \"f\"}]"));
    let given: Vec<&dyn AsRef<OsStr>> = vec![&"template", &source, &"--messages", &"-", &"--tools", &tools];
    let rest = ["--var", "x={\"y\": 5}", "--now", "2026-01-15T12:00:00", "--bos", "<s>", "--eos", "</s>"];
    let args: Vec<&OsStr> = paths(given).into_iter().chain(rest.iter().map(OsStr::new)).collect();
    let messages = b"[{\"content\": \"a\"}, {\"content\": \"b\"}]";
    assert_eq!(run_with(messages, &args).ok(), "<s>[a][b]5f2026</s>>");
    let bare = args.iter().copied().chain([OsStr::new("--no-generation-prompt")]);
    assert_eq!(run_with(messages, bare).ok(), "<s>[a][b]5f2026</s>");
}

#[test]
#[cfg(feature = "embedded-model")]
fn logits_are_a_numpy_file_whatever_the_batch() {
    let folder = Folder::new();
    let logits = |name: &str, more: &[&str]| {
        let out = folder.0.join(name);
        let args = ["logits", "--tokens", "0,724,593,266,478", "--out", out.to_str().unwrap()];
        assert_eq!(grist(args.iter().chain(more)).ok(), "");
        fs::read(out).unwrap()
    };
    let all = logits("all.npy", &[]);
    let header = 10 + usize::from(u16::from_le_bytes([all[8], all[9]]));
    assert_eq!((&all[..8], header % 64, all[header - 1]), (&b"\x93NUMPY\x01\x00"[..], 0, b'\n'));
    let text = String::from_utf8_lossy(&all[10..header]).into_owned();
    assert_eq!(text.trim_end(), "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 2048), }");
    assert_eq!(all.len(), header + 5 * 2048 * 4);
    assert!(logits("one.npy", &["--batch", "1"]) == all, "token by token");
    let last = logits("last.npy", &["--last"]);
    assert!(last.ends_with(&all[all.len() - 2048 * 4..]) && last.len() < header + 2 * 2048 * 4);
    // The likeliest token after "Once upon a time" is a comma, as in the text that `generate` gives.
    let row: Vec<f32> = all[all.len() - 2048 * 4..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let best = (0..2048).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
    assert_eq!(grist(["tokenize", "--decode", &best.to_string()]).ok(), ",");
    let left: Vec<_> = fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
#[cfg(feature = "embedded-model")]
fn embeddings_are_a_numpy_file() {
    let folder = Folder::new();
    let embed = |args: &[&str]| {
        let out = folder.0.join("x.npy");
        let ran = grist(args.iter().map(OsStr::new).chain([OsStr::new("--out"), out.as_ref()]));
        (ran.err.clone(), ran.ok(), crate::logits::npy(&out))
    };
    let prompt = ["embed", "-p", "Once upon a time"];
    let (note, out, (width, last)) = embed(&prompt);
    assert_eq!(note, "note: the model's file names no pooling; taking `last`\n");
    assert_eq!((out.as_str(), last.len()), ("", width));
    assert!((last.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    // The text's tokens, as they are.
    let ids = grist(["tokenize", prompt[2]]).ok();
    let (_, _, (_, rows)) = embed(&["embed", "--tokens", ids.trim(), "--pooling", "none"]);
    assert_eq!(rows.len(), width * ids.split(',').count());
    let (note, _, (_, raw)) = embed(&["embed", "--tokens", ids.trim(), "--pooling", "last", "--raw"]);
    assert_eq!((note.as_str(), &rows[rows.len() - width..]), ("", raw.as_slice()));

    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/architectures/nomic-bert.gguf");
    let (note, _, (width, mean)) = embed(&["embed", model, "--tokens", "3,4,5"]);
    assert_eq!((note.as_str(), width, mean.len()), ("", 32, 32));
    assert!(grist(["logits", model, "--tokens", "3", "--out", "-"]).failed(1).contains("encoder"));
    assert!(
        grist(["inspect", model]).ok().contains("kind          encoder, for embeddings (pooling: mean)\n")
    );
    let json: Value = serde_json::from_str(&grist(["inspect", model, "--json"]).ok()).unwrap();
    assert_eq!((&json["encoder"], &json["pooling"]), (&true.into(), &"mean".into()));
}

#[test]
#[cfg(feature = "embedded-model")]
fn inspect_describes_the_built_in_model() {
    let text = grist(["inspect", "--tensors"]).ok();
    for expected in [
        "name          tiny-instruct\n",
        "runs          yes\n",
        "BOS goes first: tokenizer.ggml.add_bos_token says so\n",
        "8.500 bits per weight\n",
        "kind          instruct (chat template: yes; end-of-turn tokens: <|im_end|>; name: tiny-instruct)\n",
        "blk.5.ffn_down.weight",
    ] {
        assert!(text.contains(expected), "{expected:?} in:\n{text}");
    }
    let json: Value = serde_json::from_str(&grist(["inspect", "--json", "--ctx", "512"]).ok()).unwrap();
    assert_eq!(json["parameters"], 4_590_848);
    assert_eq!(json["types"][1]["type"], "q8_0");
    assert_eq!(json["types"][1]["bits_per_weight"], 8.5);
    // 6 layers x 512 positions x 4 heads x (32 + 32) numbers of 2 bytes
    assert_eq!(json["memory"]["cache_bytes"], 6 * 512 * 4 * 64 * 2);
    assert_eq!(json["memory"]["file_bytes"], fs::metadata(embedded_model()).unwrap().len());
    assert_eq!((&json["instruct"], &json["template_compiles"]), (&Value::Bool(true), &Value::Bool(true)));
}

#[test]
fn inspect_describes_what_cannot_be_run() {
    use gristmill::gguf::{Metadata, Strings, Writer};
    let folder = Folder::new();
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "mamba\u{1b}[2J");
    metadata.set("general.name", "Vocabulary");
    metadata.set("tokenizer.ggml.model", "gpt2");
    metadata.set("tokenizer.ggml.pre", "gpt-2");
    metadata.set("tokenizer.ggml.tokens", ["a", "b"].into_iter().collect::<Strings>());
    metadata.set("tokenizer.ggml.merges", Strings::new());
    let mut bytes = Vec::new();
    Writer::new(metadata).unwrap().start(&mut bytes).unwrap().finish().unwrap();
    let file = folder.file("vocab.gguf", bytes);
    let json = grist(paths([&"inspect" as &dyn AsRef<OsStr>, &file, &"--json"])).ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["runs"], &json["vocabulary"]), (&Value::Bool(false), &Value::from(2)));
    assert!(json["refusal"].as_str().unwrap().contains("not supported"), "{json}");
    let text = grist(paths([&"inspect" as &dyn AsRef<OsStr>, &file])).ok();
    assert!(text.contains("runs          no: the architecture"), "{text}");
    let ids = grist(paths([&"tokenize" as &dyn AsRef<OsStr>, &file, &"abba"])).ok();
    assert_eq!(ids, "[0, 1, 1, 0]\n");
    let error = grist(paths([&"chat" as &dyn AsRef<OsStr>, &file, &"-p", &"a"])).failed(1);
    // What a file says cannot steer the terminal.
    assert!(error.contains("`mamba\u{fffd}[2J`"), "{error}");
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    for args in [
        &["frobnicate"][..],
        &["generate"],
        &["generate", "-p", "a", "--threads", "0"],
        &["generate", "-p", "a", "--ctx", "18446744073709551616"],
        &["generate", "-p", "a", "-n", "-2"],
        &["generate", "-p", "a", "--isa", "mmx"],
        &["tokenize"],
        &["tokenize", "a", "--batch", "b", "c"],
        &["template", "--messages", "a", "--now", "yesterday"],
        &["template", "--messages", "a", "--var", "x=y"],
        &["logits", "--tokens", "1"],
        &["embed", "--tokens", "1"],
        &["embed", "--out", "x.npy"],
        &["embed", "-p", "a", "--tokens", "1", "--out", "x.npy"],
        &["embed", "-p", "a", "--pooling", "max", "--out", "x.npy"],
    ] {
        grist(args).failed(2);
    }
}

#[test]
#[cfg(feature = "embedded-model")]
fn every_error_is_one_message() {
    let isa = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
    let dir = std::env::temp_dir();
    let dir = dir.to_str().unwrap();
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for (args, expected) in [
        (&["generate", "-p", "a", "--temp", "NaN"][..], "`temperature` must be a finite number"),
        (&["chat", "-p", "a", "--top-p", "2"], "`top_p` must be"),
        (&["generate", "-p", "a", "--backend", "metal"], "backend `metal`"),
        (&["generate", "-p", "a", "--isa", isa], "is not available here"),
        (&["generate", "-p", "a", "--pre", "nonsense"], "pre-tokenizer \"nonsense\" is not known"),
        (&["generate", "-p", "a b c", "--ctx", "2"], "do not fit the context of 2"),
        (&["generate", dir, "-p", "a"], "is a folder"),
        (&["generate", manifest, "-p", "a"], "not a GGUF file"),
        (&["generate", "no-such-file.gguf", "-p", "a"], "no-such-file.gguf: "),
        (&["inspect", "no-such-file.gguf"], "no-such-file.gguf: "),
        (&["logits", "--tokens", "2048", "--out", "x.npy"], "token 2048 is not in the vocabulary"),
        (&["logits", "--tokens", "", "--out", "x.npy"], "at least one token"),
        (&["logits", "--tokens", "1,-1", "--out", "x.npy"], "\"-1\""),
        (&["logits", "--tokens", "1", "--out", "no-such-folder/x.npy"], "no-such-folder/x.npy: "),
        (&["embed", "--tokens", "2048", "--out", "x.npy"], "token 2048 is not in the vocabulary"),
        (&["embed", "--tokens", "", "--out", "x.npy"], "at least one token"),
        (&["embed", "-p", "a", "--pooling", "rank", "--out", "x.npy"], "cannot be pooled by `rank`"),
        (&["embed", "-p", "a b c", "--ctx", "2", "--out", "x.npy"], "do not fit the context of 2"),
        (&["embed", "-p", "a", "--out", "no-such-folder/x.npy"], "no-such-folder/x.npy: "),
        (&["tokenize", "--batch", manifest], "expected JSON"),
        (&["tokenize", "--decode", "2048"], "token 2048 is not in the vocabulary"),
        (&["template", "--messages", dir], dir),
    ] {
        let error = grist(args).failed(1);
        assert!(error.contains(expected), "{args:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
    }
    for args in [&["tokenize", "-"], &["generate", "-p-"], &["template", "--messages=-"]] {
        assert!(run_with(b"ab\xff", args).failed(1).contains("at byte 2"), "{args:?}");
    }
}

#[test]
fn a_file_that_is_cut_anywhere_is_an_error() {
    let (folder, whole) = (Folder::new(), fs::read(embedded_model()).unwrap());
    let header = 110_000;
    let cuts = (0..64).step_by(5).chain((64..header).step_by(9_973)).chain([1_000_000, whole.len() - 1]);
    for cut in cuts {
        let file = folder.file("cut.gguf", &whole[..cut]);
        for command in [&["inspect"][..], &["generate", "-p", "a"], &["tokenize", "a"]] {
            let mut args = paths([&command[0] as &dyn AsRef<OsStr>, &file]);
            args.extend(command[1..].iter().map(OsStr::new));
            grist(args).failed(1);
        }
    }
}

/// `grist ... | head -c 4`
#[test]
#[cfg(feature = "embedded-model")]
fn a_reader_that_leaves_is_no_error() {
    use std::io::Read;
    let args = ["generate", "-p", "The little dog ran to", "--temp", "0", "-n", "-1"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_grist"))
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut start = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    let done = child.wait_with_output().unwrap();
    assert_eq!((&start, done.status.code(), done.stderr.as_slice()), (b" the", Some(0), &b""[..]));
}

/// Arguments that are no text at all: only paths may be such.
#[test]
#[cfg(all(unix, feature = "embedded-model"))]
fn paths_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let folder = Folder::new();
    let strange = folder.0.join(OsStr::from_bytes(b"\xff\xfe.gguf"));
    if fs::copy(embedded_model(), &strange).is_err() {
        return; // this file system wants UTF-8
    }
    let ids = grist(paths([&"tokenize" as &dyn AsRef<OsStr>, &strange, &"Once"])).ok();
    assert_eq!(ids, "[0, 724]\n");
    grist([OsStr::new("tokenize"), OsStr::from_bytes(b"\xff")]).failed(1);
}

#[test]
#[cfg(not(feature = "embedded-model"))]
fn without_the_built_in_model_one_must_be_given() {
    for args in [&["generate", "-p", "a"][..], &["chat", "-p", "a"], &["inspect"], &["tokenize", "a"]] {
        assert!(grist(args).failed(1).contains("embedded-model"), "{args:?}");
    }
}

#[test]
fn a_base_model_refuses_to_chat_and_continues_stories() {
    let Some(folder) = goldens::folder("models") else { return };
    let base = folder.join("tiny-base-f16.gguf");
    let base = base.to_str().unwrap();
    let error = grist(["chat", base, "-p", "Hello!"]).failed(1);
    for evidence in ["base model", "chat template: none", "name: tiny-base", "grist generate"] {
        assert!(error.contains(evidence), "{error}");
    }
    let greedy = ["generate", base, "--temp", "0", "--cache", "f32"];
    let story = grist(greedy.into_iter().chain(["-p", "Once upon a time", "-n", "40"])).ok();
    assert!(
        story.starts_with(
            ", there was a little girl named Lily. She loved to play with her toys and make her favorite toy."
        ),
        "{story}"
    );
    let json: Value = serde_json::from_str(&grist(["inspect", base, "--json"]).ok()).unwrap();
    assert_eq!((&json["instruct"], &json["template"]), (&Value::Bool(false), &Value::Bool(false)));
}

/// The greedy texts that llama.cpp (0.5.0-dev, 0c1e570) gives for stories260K.
#[test]
fn stories_are_those_of_llama_cpp() {
    let Some(folder) = goldens::folder("models") else { return };
    let model = folder.join("stories260K-f32.gguf");
    let expected = fs::read_to_string(folder.join("stories260K-greedy.txt")).unwrap();
    let mut compared = 0;
    for case in expected.split("## prompt: ").skip(1) {
        let line = |start: &str| case.lines().find_map(|line| line.strip_prefix(start)).unwrap();
        let prompt: String = serde_json::from_str(case.lines().next().unwrap()).unwrap();
        let text: String = serde_json::from_str(line("text: ")).unwrap();
        let count =
            case.lines().find_map(|line| line.strip_prefix("output ids (")?.split_once(')')).unwrap().0;
        let args: Vec<&dyn AsRef<OsStr>> =
            vec![&"generate", &model, &"-p", &prompt, &"-n", &count, &"--temp", &"0", &"--cache", &"f32"];
        // The texts there were decoded apart from the prompt, which loses a first space, and show control tokens.
        assert_eq!(grist(paths(args)).ok().trim_start(), text.replace("<s>", ""), "{prompt:?}");
        compared += 1;
    }
    assert_eq!(compared, 3);
}

fn english() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers/english.txt")
}

#[test]
fn perplexity_prints_what_the_library_measures() {
    let (model, text) = (embedded_model(), english());
    let options = gristmill::eval::Options::default().context(64).limit(2);
    let found = gristmill::eval::perplexity(
        &gristmill::Model::open(&model).unwrap(),
        &fs::read_to_string(&text).unwrap(),
        &options,
        |_| (),
    )
    .unwrap();
    let args = paths([&"perplexity" as _, &model as _, &text as _, &"--ctx=64" as _, &"--chunks=2" as _]);
    let printed = grist(args.clone()).ok();
    assert!(printed.starts_with(&format!("perplexity           {}\n", found.perplexity)), "{printed}");
    let json = OsStr::new("--json");
    let compared = grist(args.into_iter().chain([json, OsStr::new("--reference"), model.as_os_str()])).ok();
    // Read by hand, to the last bit: serde_json's numbers may be one off. The first of a name is the model's own.
    let number = |name: &str| -> f64 {
        let start = format!("\"{name}\": ");
        let found = compared.lines().find_map(|line| line.trim().strip_prefix(&start)).unwrap();
        found.trim_end_matches(',').parse().unwrap()
    };
    assert_eq!(number("perplexity"), found.perplexity.value);
    assert_eq!(number("bits_per_byte_error"), found.bits_per_byte.error);
    let compared: Value = serde_json::from_str(&compared).unwrap();
    let compared = &compared["divergence"];
    assert_eq!((&compared["kl"]["max"], &compared["same_top"]), (&0.0.into(), &1.0.into()));
}

#[test]
fn an_importance_matrix_appears_whole_and_never_in_the_place_of_its_input() {
    let folder = Folder::new();
    let text = folder.file("text.txt", fs::read(english()).unwrap());
    let model = folder.file("model.gguf", fs::read(embedded_model()).unwrap());
    let args = |out: &Path| {
        let args: [&dyn AsRef<OsStr>; 6] = [&"imatrix", &model, &text, &"--ctx=64", &"--chunks=1", &"--out"];
        grist(args.map(AsRef::as_ref).into_iter().chain([out.as_os_str()]))
    };
    for input in [&text, &model] {
        let told = args(input).failed(1);
        assert!(told.contains("this is the input itself"), "{told}");
    }
    assert_eq!(fs::read(&text).unwrap(), fs::read(english()).unwrap());
    let out = folder.0.join("imatrix.gguf");
    assert_eq!(args(&out).ok(), "");
    assert_eq!(gristmill::quantize::Imatrix::open(&out).unwrap().chunks, 1);
    let mut names: Vec<_> =
        fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["imatrix.gguf", "model.gguf", "text.txt"]);
}

#[test]
#[cfg(feature = "embedded-model")]
fn choices_are_answered_and_errors_name_file_line_and_field() {
    let folder = Folder::new();
    let good = r#"{"question": "What is the capital of France?", "choices": ["Paris", "Rome"], "answer": 0}"#;
    let tasks = folder.file("tasks.jsonl", format!("{good}\n{good}\n"));
    let printed = grist(paths([&"choices" as _, &tasks as _])).ok();
    assert_eq!(
        printed.lines().map(|line| line.split_once(' ').unwrap().0).collect::<Vec<_>>(),
        ["acc", "acc_norm", "acc_bytes"]
    );
    let json: Value =
        serde_json::from_str(&grist(paths([&"choices" as _, &tasks as _, &"--json" as _])).ok()).unwrap();
    assert_eq!(json["tasks"], 2);
    let tasks = folder.file("damaged.jsonl", format!("{good}\n{}\n", good.replace("0}", "7}")));
    let told = grist(paths([&"choices" as _, &tasks as _])).failed(1);
    assert!(
        told.contains("damaged.jsonl: line 2: the field `answer` must be one of the choices, found 7"),
        "{told}"
    );
}
