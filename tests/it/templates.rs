//! Chat templates against the renders of transformers 4.57.6 (jinja2 3.1.6).

use std::path::{Path, PathBuf};

use gristmill::text::template::{ChatTemplate, DateTime, RenderInput};
use serde_json::Value;

use crate::goldens;

/// The input that a case of an `expected.json` describes.
fn input(set: &Value, case: &Value) -> RenderInput {
    let text = |name: &str| set[name].as_str().map(str::to_owned);
    let mut input = RenderInput {
        now: DateTime::parse(set["now"].as_str().unwrap()),
        bos_token: text("bos_token"),
        eos_token: text("eos_token"),
        ..RenderInput::new(case["messages"].clone())
    };
    for (name, value) in case.as_object().unwrap() {
        match name.as_str() {
            "messages" => {}
            "tools" => input.tools = Some(value.clone()),
            "documents" => input.documents = Some(value.clone()),
            "add_generation_prompt" => input.add_generation_prompt = value.as_bool().unwrap(),
            _ => drop(input.variables.insert(name.clone(), value.clone())),
        }
    }
    input
}

/// Renders every template of a folder with every case and reports all that differ. Returns how many were equal.
fn compare(folder: &Path) -> usize {
    let set: Value = serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let mut equal = 0;
    let mut wrong = Vec::new();
    for (name, expected) in set["expected"].as_object().unwrap() {
        let source = std::fs::read_to_string(folder.join(format!("{name}.jinja"))).unwrap();
        let template = match ChatTemplate::new(&source) {
            Ok(template) => template,
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        for (case, expected) in expected.as_object().unwrap() {
            match (template.render(&input(&set, &set["cases"][case])), expected["text"].as_str()) {
                (Ok(text), Some(expected)) if text == expected => equal += 1,
                (Ok(text), Some(expected)) => {
                    let at = text.bytes().zip(expected.bytes()).take_while(|(a, b)| a == b).count();
                    let near = |text: &str| String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(30).min(text.len())..(at + 40).min(text.len())]).into_owned();
                    wrong.push(format!("{name}/{case}: at byte {at}: {:?}, expected {:?}", near(&text), near(expected)));
                }
                (Err(error), Some(_)) => wrong.push(format!("{name}/{case}: {error}")),
                // where transformers refuses, so do we, or render something sensible
                (Err(error), None) => println!("{name}/{case}: {error} (transformers: {})", expected["error"]),
                (Ok(text), None) => println!("{name}/{case}: {text:?} (transformers: {})", expected["error"]),
            }
        }
    }
    assert!(wrong.is_empty(), "{} renders differ:\n{}", wrong.len(), wrong.join("\n"));
    equal
}

/// A handful of real templates, with the same cases.
#[test]
fn some_templates_render_as_transformers_renders_them() {
    assert_eq!(compare(&data()), 46);
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/templates")
}

/// Each snippet of `features.txt` renders as jinja2 3.1.6 renders it, and fails where that fails.
#[test]
fn features_render_as_in_jinja2() {
    let set: Value = serde_json::from_slice(&std::fs::read(data().join("expected.json")).unwrap()).unwrap();
    let input = input(&set, &set["cases"]["features"]);
    let mut wrong = Vec::new();
    for feature in set["features"].as_array().unwrap() {
        let source = feature["source"].as_str().unwrap();
        let rendered = ChatTemplate::new(source).and_then(|template| template.render(&input));
        match (rendered, feature["text"].as_str()) {
            (Ok(text), Some(expected)) if text == expected => {}
            (Ok(text), Some(expected)) => wrong.push(format!("{source}\n   renders  {text:?}\n   expected {expected:?}")),
            (Err(error), Some(_)) => wrong.push(format!("{source}\n   {error}")),
            (Ok(text), None) => wrong.push(format!("{source}\n   renders  {text:?}\n   expected {}", feature["error"])),
            (Err(_), None) => {}
        }
    }
    assert!(wrong.is_empty(), "{} snippets differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn all_templates_render_as_transformers_renders_them() {
    let Some(folder) = goldens::folder("templates") else { return };
    let equal = compare(&folder);
    println!("{equal} renders are equal");
    assert_eq!(equal, 249);
}
