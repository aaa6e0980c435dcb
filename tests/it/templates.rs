//! Chat templates against the renders of transformers 4.57.6 (jinja2 3.1.6).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

use std::path::{Path, PathBuf};

use gristmill::Error;
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
                    let near = |text: &str| {
                        String::from_utf8_lossy(
                            &text.as_bytes()
                                [at.saturating_sub(30).min(text.len())..(at + 40).min(text.len())],
                        )
                        .into_owned()
                    };
                    wrong.push(format!(
                        "{name}/{case}: at byte {at}: {:?}, expected {:?}",
                        near(&text),
                        near(expected)
                    ));
                }
                (Err(error), Some(_)) => wrong.push(format!("{name}/{case}: {error}")),
                // where transformers refuses, a refusal is right, and so is a sensible render
                (_, None) => {}
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
            (Ok(text), Some(expected)) => {
                wrong.push(format!("{source}\n   renders  {text:?}\n   expected {expected:?}"))
            }
            (Err(error), Some(_)) => wrong.push(format!("{source}\n   {error}")),
            (Ok(text), None) => {
                wrong.push(format!("{source}\n   renders  {text:?}\n   expected {}", feature["error"]))
            }
            (Err(_), None) => {}
        }
    }
    assert!(wrong.is_empty(), "{} snippets differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn all_templates_render_as_transformers_renders_them() {
    let Some(folder) = goldens::folder("templates") else { return };
    let equal = compare(&folder);
    assert_eq!(equal, 249);
}

/// What each hostile template ends in, by the variant's name.
fn outcome(source: &str) -> &'static str {
    let input = RenderInput::new(serde_json::json!([{"role": "user", "content": "Hi"}]));
    match ChatTemplate::new(source).and_then(|template| template.render(&input)) {
        Ok(_) => "rendered",
        Err(Error::TemplateSyntax { .. }) => "syntax",
        Err(Error::TemplateFailed { .. }) => "failed",
        Err(Error::TemplateLimit { .. }) => "limit",
        Err(_) => "other",
    }
}

#[test]
fn hostile_templates_end_soon_in_a_typed_error() {
    let in_loop = |set: &str| {
        format!(
            "{{% set ns = namespace(x={set}) %}}{{% for i in range(100000) %}}{{% set ns.x = {} %}}{{% endfor %}}{{{{ ns.x }}}}",
            "STEP"
        )
    };
    let step = |first: &str, step: &str| in_loop(first).replace("STEP", step);
    let cases = [
        // work
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}".into(), "limit"),
        ("{% for a in range(99999) %}{{ 'xxxxxxxxxxxxxxxx' * 100 }}{% endfor %}".into(), "limit"),
        ("{% for a in range(1000000000) %}{% endfor %}".into(), "failed"),
        ("{{ [[1] * 50000] * 50000 }}".into(), "limit"),
        ("{% for a in range(9999) %}{{ range(99999) | list | sort | length }}{% endfor %}".into(), "limit"),
        // memory
        ("{{ 'a' * 10 ** 9 }}".into(), "limit"),
        ("{{ 'a' * 10 ** 9 | length }}".into(), "failed"),
        ("{{ [1] * 10 ** 9 }}".into(), "limit"),
        ("{{ (1,) * 10 ** 9 }}".into(), "limit"),
        ("{{ 10 ** 10 ** 10 }}".into(), "limit"),
        ("{{ 2 ** 1000 }}".into(), "limit"),
        ("{{ '%999999999d' % 1 }}".into(), "limit"),
        ("{{ '%*d' % (999999999, 1) }}".into(), "limit"),
        ("{{ '%.999999999f' % 1.5 }}".into(), "limit"),
        ("{{ '{:>999999999}'.format(1) }}".into(), "limit"),
        ("{{ '{:{}}'.format(1, 999999999) }}".into(), "limit"),
        ("{{ '%9999d' * 9999 % ((1,) * 9999) }}".into(), "limit"),
        ("{{ 'a'.center(999999999) }}".into(), "limit"),
        ("{{ 'a'.zfill(999999999) }}".into(), "limit"),
        ("{{ 'a' | center(999999999) }}".into(), "limit"),
        ("{{ ('a\\n' * 1000) | indent(999999999) }}".into(), "limit"),
        ("{{ ('a\\n' * 10000) | indent(100000) }}".into(), "limit"),
        ("{{ '\\t'.expandtabs(999999999) }}".into(), "limit"),
        ("{{ ([1] * 10000) | tojson(indent='x' * 10000) }}".into(), "limit"),
        ("{{ ('a' * 100000).replace('a', 'b' * 100000) }}".into(), "limit"),
        ("{{ ('a' * 100000) | replace('a', 'b' * 100000) }}".into(), "limit"),
        ("{{ ('a' * 100000).join('b' * 100000) }}".into(), "limit"),
        ("{{ ('b' * 100000) | join('a' * 100000) }}".into(), "limit"),
        (step("'a'", "ns.x ~ ns.x"), "limit"),
        (step("'a'", "ns.x + ns.x"), "limit"),
        (step("[1]", "ns.x + ns.x"), "limit"),
        // depth
        (step("1", "[ns.x]"), "limit"),
        (step("1", "(ns.x,)"), "limit"),
        (step("1", "{'a': ns.x}"), "limit"),
        (step("1", "dict(a=ns.x)"), "limit"),
        (step("1", "[ns.x] * 1"), "limit"),
        (step("1", "[ns.x, ns.x]"), "limit"),
        (step("[1]", "ns.x[0:]"), "limit"),
        (step("[1]", "ns.x | reverse"), "limit"),
        (step("[1]", "ns.x | list | batch(1) | list"), "limit"),
        (step("[1]", "ns.x | slice(1) | list"), "limit"),
        (step("1", "namespace(a=ns.x)"), "failed"),
        ("{% set ns = namespace() %}{% set ns.x = [ns] %}".into(), "failed"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".into(), "limit"),
        ("{% macro m(x) %}{{ m([x, x]) }}{% endmacro %}{{ m(1) }}".into(), "limit"),
        ("{% for x in [1] recursive %}{{ loop([x]) }}{% endfor %}".into(), "limit"),
        // the parser
        (format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000)), "syntax"),
        (format!("{{{{ {}{} }}}}", "[".repeat(100_000), "]".repeat(100_000)), "syntax"),
        (format!("{{{{ {}1 }}}}", "not ".repeat(100_000)), "syntax"),
        (format!("{{{{ {}1 }}}}", "-".repeat(100_000)), "syntax"),
        (format!("{{{{ 1{} }}}}", " + 1".repeat(100_000)), "syntax"),
        (format!("{{{{ 1{} }}}}", " or 1".repeat(100_000)), "syntax"),
        (format!("{{{{ 1{} }}}}", " if 1".repeat(100_000)), "syntax"),
        (format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(50_000)), "syntax"),
        (format!("{{{{ 1{} }}}}", "|string".repeat(100_000)), "syntax"),
        (format!("{{{{ a{} }}}}", ".a".repeat(100_000)), "syntax"),
        (format!("{{{{ a{} }}}}", "[0]".repeat(100_000)), "syntax"),
        ("{% if 1 %}".repeat(50_000), "syntax"),
        (format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(50_000)), "syntax"),
        (format!("{{{{ m{} }}}}", "()".repeat(350)), "failed"),
        (format!("{{{{ 1{} }}}}", " + 1".repeat(390)), "rendered"),
        (format!("{{{{ {}1{} }}}}", "(".repeat(50), ")".repeat(50)), "rendered"),
        (" ".repeat(2 << 20), "limit"),
    ];
    let mut wrong = Vec::new();
    for (source, expected) in cases {
        let started = std::time::Instant::now();
        let found = outcome(&source);
        let took = started.elapsed();
        let shown: String = source.chars().take(120).collect();
        if found != expected || took.as_secs() >= 5 {
            wrong.push(format!("{shown}: {found} after {took:?}, expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn output_and_input_are_bounded() {
    let template = ChatTemplate::new("{% for m in messages %}{{ m.content }}{% endfor %}").unwrap();
    let message = serde_json::json!({"role": "user", "content": "x".repeat(1000)});
    let mut input = RenderInput::new(Value::from(vec![message; 10_000]));
    // ten megabytes of input pay for their own output
    assert_eq!(template.render(&input).unwrap().len(), 10_000_000);
    let echo = ChatTemplate::new(
        "{% for i in range(40) %}{% for m in messages %}{{ m.content }}{% endfor %}{% endfor %}",
    );
    assert!(matches!(echo.unwrap().render(&input), Err(Error::TemplateLimit { .. })));
    input.messages = (0..1000).fold(Value::Null, |inner, _| Value::from(vec![inner]));
    assert!(matches!(template.render(&input), Err(Error::TemplateLimit { .. })));
    // not even dropping such a value may recurse into it
    while let Some(inner) = input.messages.get_mut(0).map(Value::take) {
        input.messages = inner;
    }
}

#[test]
fn errors_say_where_and_what() {
    let input = RenderInput::new(serde_json::json!([]));
    let fail =
        |source: &str| ChatTemplate::new(source).and_then(|template| template.render(&input)).unwrap_err();
    match fail("a\n{{ 'x\ny' }}\n{% if\n1 %}\n{{ foo.bar }}{% endif %}") {
        Error::TemplateFailed { line: 6, .. } => {}
        other => panic!("{other:?}"),
    }
    match fail("a\n{% if true %}\n{{ 1 +\n }}\n{% endif %}") {
        Error::TemplateSyntax { line: 4, what } => {
            assert_eq!(what, "expected an expression, found the end of the tag")
        }
        other => panic!("{other:?}"),
    }
    match fail("\n{# a\nb #}{% for x in y %}") {
        Error::TemplateSyntax { line: 3, .. } => {}
        other => panic!("{other:?}"),
    }
    match fail("{% macro m() %}{{ raise_exception('Only ' ~ 2) }}{% endmacro %}{{ m() }}") {
        Error::TemplateRefused { message } => assert_eq!(message, "Only 2"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn probes_tell_what_a_template_takes() {
    let load = |name: &str| {
        ChatTemplate::new(&std::fs::read_to_string(data().join(format!("{name}.jinja"))).unwrap()).unwrap()
    };
    let gemma = load("google-gemma-2-2b-it");
    assert!(!gemma.supports_system() && !gemma.supports_tools());
    assert_eq!(gemma.generation_prompt().as_deref(), Some("<start_of_turn>model\n"));
    let qwen = load("Qwen-Qwen3-0.6B");
    assert!(qwen.supports_system() && qwen.supports_tools());
    assert_eq!(qwen.generation_prompt().as_deref(), Some("<|im_start|>assistant\n"));
    // jinja2 refuses to iterate over None; here it is empty, as a template without tools is better rendered
    let lenient = ChatTemplate::new("{% for tool in tools %}{{ tool }}{% endfor %}.").unwrap();
    assert_eq!(lenient.render(&RenderInput::new(serde_json::json!([]))).unwrap(), ".");
}

#[test]
fn a_template_is_shared_between_threads() {
    fn assert_shared<T: Send + Sync + Clone>() {}
    assert_shared::<ChatTemplate>();
}
