//! Modules import in one direction only: from those before them in this table.

use std::fs;
use std::path::{Path, PathBuf};

/// Each module of the crate, with those that it may import from besides itself.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // Errors carry and name things of the rooms above.
    ("error", &["gguf", "generate", "ggml"]),
    ("gguf", &["error"]),
    ("text", &["error", "gguf"]),
    // One of the backends multiplies by ggml, where the feature is on.
    ("backend", &["error", "ggml"]),
    ("model", &["error", "gguf", "text", "backend"]),
    ("generate", &["error", "gguf", "text", "backend", "model"]),
    ("embed", &["error", "text", "backend", "model", "generate"]),
    ("quantize", &["error", "gguf", "backend", "model"]),
    ("speed", &["error", "backend", "model", "generate"]),
    ("eval", &["error", "backend", "model", "generate", "text", "quantize"]),
    ("doctor", &["error", "gguf", "text", "backend", "model", "generate", "quantize", "speed"]),
    (
        "report",
        &["error", "gguf", "text", "backend", "model", "generate", "quantize", "speed", "eval", "doctor"],
    ),
    ("advise", &["error", "gguf", "backend", "model", "generate", "speed"]),
    ("ggml", &["error", "gguf"]),
    // The crate's root joins the modules; the program beside it reaches the crate only as others do.
    (
        "lib",
        &[
            "error", "gguf", "text", "backend", "model", "generate", "embed", "quantize", "speed", "eval",
            "doctor", "advise", "report", "ggml",
        ],
    ),
    ("main", &["cli"]),
    ("cli", &[]),
];

/// What the root re-exports, by the module that it comes from.
const REEXPORTS: &[(&str, &str)] = &[
    ("Error", "error"),
    ("Result", "error"),
    ("CacheType", "backend"),
    ("CacheTypes", "backend"),
    ("Model", "model"),
];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// The names right after each `crate::`, those of `crate::{a, b::c}` too.
fn imports(code: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.push(name(rest));
            continue;
        };
        let (mut depth, mut begins) = (0, true);
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if begins && !c.is_whitespace() => {
                    found.push(name(&list[i..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    found
}

/// The code without comments, and without the tests at a file's foot.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn modules_import_in_one_direction() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let mut files = Vec::new();
    sources(root, &mut files);
    assert!(files.len() > 50);
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for file in files {
        let inside = file.strip_prefix(root).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: the module `{module}` is not in the table", inside.display()));
            continue;
        };
        for import in imports(&code(&file)) {
            let from = REEXPORTS.iter().find(|(name, _)| *name == import).map_or(&*import, |(_, from)| from);
            checked += 1;
            if from != module && !allowed.contains(&from) {
                wrong.push(format!("{}: `{module}` imports `crate::{import}`", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 50, "{checked} imports found");
}

#[test]
fn imports_are_found_in_all_their_forms() {
    let code = "use crate::a::b;\npub(crate) use crate::{c, d::{e, f},\n    g::*};\nlet x = crate::h::i();";
    assert_eq!(imports(code), ["a", "c", "d", "g", "h"]);
}
