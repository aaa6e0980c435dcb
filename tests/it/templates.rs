//! Chat templates against the renders of transformers 4.57.6 (jinja2 3.1.6).

use std::path::Path;

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

#[test]
fn all_templates_render_as_transformers_renders_them() {
    let Some(folder) = goldens::folder("templates") else { return };
    let equal = compare(&folder);
    println!("{equal} renders are equal");
    assert_eq!(equal, 249);
}
