//! The chat template: whether it can be used, and whether it fits the tokenizer.

use serde_json::{Value as Json, json};

use super::tokens::shown;
use super::{Report, Subject};
use crate::generate::Evidence;
use crate::text::template::{ChatTemplate, DateTime, RenderInput};
use crate::text::{EncodeOptions, TokenAttributes, TokenId, Tokenizer};
use crate::{Error, Result};

/// Words that stand in no template.
const SYSTEM: &str = "Quillfeather sets the rules.";
const FIRST: &str = "Marrowbone asks one thing.";
const ANSWER: &str = "Thistledown answers it.";
const SECOND: &str = "Marrowbone asks another.";

pub(super) fn check(subject: &Subject<'_>, report: &mut Report) {
    if subject.is_encoder() {
        return;
    }
    let evidence = Evidence::from_metadata(subject.metadata);
    let Some(source) = subject.text("tokenizer.chat_template").filter(|_| evidence.template) else {
        let file = subject.path.and_then(|path| path.file_stem()?.to_str());
        let instruct = [evidence.name.as_deref(), file].into_iter().flatten().any(|name| {
            let name = name.to_ascii_lowercase();
            ["instruct", "chat", "-it"].iter().any(|mark| name.contains(mark))
        });
        if instruct {
            report.warn(
                "kind",
                format!("by its name instruct, but it has no template ({evidence})"),
                "Convert it again with its template, or give one to `grist template` and `Chat`.",
            );
        } else if !subject.tensors.is_empty() {
            report.ok("kind", format!("base ({evidence})"));
            report.note(
                "template",
                "there is none: a base model",
                "Use `grist generate`; `grist chat` refuses it.",
            );
        }
        return;
    };
    report.ok("kind", format!("instruct ({evidence})"));
    let template = match ChatTemplate::new(source) {
        Ok(template) => template,
        Err(error) => {
            report.fault(
                "template",
                error.to_string(),
                "Without a template that parses there is no chat: correct it.",
            );
            return;
        }
    };
    let probe = Probe { template: &template, tokenizer: subject.tokenizer };
    if let Some(first) = one_turn(&probe, report) {
        begin(&probe, &first, report);
        several_turns(&probe, report);
        system(&probe, report);
        match template.supports_tools() {
            true => report.ok("template", "it shows tools to the model"),
            false => report.note("template", "it knows no tools", ""),
        }
    }
}

/// A template and what it is rendered with.
struct Probe<'a> {
    template: &'a ChatTemplate,
    tokenizer: Option<&'a Tokenizer>,
}

impl Probe<'_> {
    fn special(&self, id: impl Fn(&Tokenizer) -> Option<TokenId>) -> Option<String> {
        let tokenizer = self.tokenizer?;
        Some(String::from_utf8_lossy(tokenizer.token_text(id(tokenizer)?)?).into_owned())
    }

    fn bos(&self) -> Option<String> {
        self.special(|tokenizer| tokenizer.special_tokens().bos)
    }

    /// Renders turns; with contents as strings, or else as lists of parts.
    fn render(&self, turns: &[(&str, &str)], prompt: bool) -> Result<String> {
        let render = |content: fn(&str) -> Json| {
            let messages = turns.iter().map(|(role, text)| json!({"role": role, "content": content(text)}));
            let mut input = RenderInput::new(messages.collect());
            input.add_generation_prompt = prompt;
            input.bos_token = self.bos();
            input.eos_token = self.special(|tokenizer| tokenizer.special_tokens().eos);
            input.now = DateTime::parse("2026-01-01");
            self.template.render(&input)
        };
        render(|text| json!(text))
            .or_else(|error| render(|text| json!([{"type": "text", "text": text}])).map_err(|_| error))
    }
}

fn one_turn(probe: &Probe<'_>, report: &mut Report) -> Option<String> {
    match probe.render(&[("user", FIRST)], true) {
        Ok(text) if text.contains(FIRST) => {
            report.ok("template", "it parses, and renders a turn");
            Some(text)
        }
        Ok(_) => {
            report.fault(
                "template",
                "the user's words are not in what it renders",
                "The model never sees them: correct it.",
            );
            None
        }
        Err(error) => {
            report.fault(
                "template",
                format!("a turn cannot be rendered: {error}"),
                "There is no chat without: correct it.",
            );
            None
        }
    }
}

/// How a prompt begins and ends.
fn begin(probe: &Probe<'_>, first: &str, report: &mut Report) {
    if let (Some(tokenizer), Some(bos)) = (probe.tokenizer, probe.bos().filter(|bos| !bos.is_empty())) {
        if first.starts_with(&format!("{bos}{bos}")) {
            report.fault(
                "template",
                format!("it writes BOS, `{bos}`, twice"),
                "Models answer worse after a doubled BOS: take one out of the template.",
            );
        } else if first.starts_with(&bos) && tokenizer.add_bos() {
            report.note(
                "template",
                format!("it writes BOS, `{bos}`, and the tokenizer adds it too"),
                "`grist` and `Chat` put it once; whoever encodes a rendered prompt must not add special tokens.",
            );
        }
    }
    match probe.template.generation_prompt() {
        Some(text) if text.trim().is_empty() => report.note(
            "template",
            "nothing begins the assistant's turn",
            "So it is with some models; where answers begin with a role's name, the template lacks it.",
        ),
        Some(_) => {}
        None => report.note("template", "what begins the assistant's turn does not stand at the end", ""),
    }
}

/// Whether earlier turns are rendered, and whether what ends an answer there is a token that generation ends with.
fn several_turns(probe: &Probe<'_>, report: &mut Report) {
    let turns = [("user", FIRST), ("assistant", ANSWER), ("user", SECOND)];
    let text = match probe.render(&turns, true) {
        Ok(text) => text,
        Err(error) => {
            report.warn(
                "template",
                format!("several turns cannot be rendered: {error}"),
                "Only one question can be asked.",
            );
            return;
        }
    };
    let places: Vec<Option<usize>> = turns.iter().map(|(_, words)| text.find(words)).collect();
    if !(places.iter().all(Option::is_some) && places.is_sorted()) {
        report.warn(
            "template",
            "of several turns some are lost, or their order changes",
            "The model forgets what was said; look whether this is meant.",
        );
        return;
    }
    let Some(tokenizer) = probe.tokenizer else { return };
    let after =
        text.split_once(ANSWER).and_then(|(_, rest)| rest.split_once(SECOND)).map(|(between, _)| between);
    let Ok(ids) = tokenizer.encode(after.unwrap_or_default(), EncodeOptions::TEMPLATE) else { return };
    let marks = TokenAttributes::CONTROL.union(TokenAttributes::USER_DEFINED);
    match ids.into_iter().find(|&id| tokenizer.token_attributes(id).intersects(marks)) {
        Some(id) if tokenizer.is_end_of_generation(id) => {
            report.ok("template", format!("answers end with {}, which ends generation", shown(tokenizer, id)));
        }
        // Harmony ends each message but the last one so, and the last one with another token.
        Some(_) if tokenizer.token_id("<|return|>").is_some_and(|id| tokenizer.is_end_of_generation(id)) => {
            report.ok("template", "answers end with `<|return|>`, which ends generation");
        }
        Some(id) => report.fault(
            "template",
            format!("answers end with {}, but that token does not end generation", shown(tokenizer, id)),
            "The model will go on and speak for the user: set tokenizer.ggml.eot_token_id to it, or give it as --stop.",
        ),
        None => report.warn(
            "template",
            "no special token ends an answer",
            "The model may go on and speak for the user: give what the template writes there as --stop.",
        ),
    }
}

fn system(probe: &Probe<'_>, report: &mut Report) {
    match probe.render(&[("system", SYSTEM), ("user", FIRST)], true) {
        Ok(text) if text.contains(SYSTEM) && text.contains(FIRST) => {
            report.ok("template", "it shows the system prompt to the model");
        }
        Ok(_) => report.warn(
            "template",
            "it drops the system prompt",
            "What --system says never reaches the model: say it in the first turn.",
        ),
        Err(Error::TemplateRefused { message, .. }) => {
            report.note(
                "template",
                format!("it refuses a system prompt: {message}"),
                "Say it in the first turn.",
            );
        }
        Err(error) => {
            report.warn(
                "template",
                format!("a system prompt cannot be rendered: {error}"),
                "Say it in the first turn.",
            );
        }
    }
}
