//! Chat templates: the Jinja source that a model carries, compiled once and rendered as transformers renders it.
//!
//! transformers renders with jinja2 in an immutable sandbox (`trim_blocks`, `lstrip_blocks`, loop controls,
//! `{% generation %}`, its own `tojson`, `raise_exception` and `strftime_now`). Here minijinja does, and what differs
//! between the two is made equal: `source.rs` rewrites operators and method calls into filters, and the other files
//! define those as Python does. A template comes from a file that nobody vouched for, so every render has a bound on
//! its work, its memory, its output and its depth; what exceeds one ends in [`Error::TemplateLimit`].
//!
//! ```
//! use gristmill::text::template::{ChatTemplate, RenderInput};
//!
//! let template = ChatTemplate::new("{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}\n{% endfor %}")?;
//! let input = RenderInput::new(serde_json::json!([{"role": "user", "content": " Hi "}]));
//! assert_eq!(template.render(&input)?, "<user>Hi\n");
//! # Ok::<(), gristmill::Error>(())
//! ```
#![forbid(unsafe_code)]

mod clock;
mod expression;
mod filters;
mod lexer;
mod methods;
mod ops;
mod python;
mod source;

use std::io;

use minijinja::value::Rest;
use minijinja::{Environment, ErrorKind, State, UndefinedBehavior, Value};
use serde_json::{Value as Json, json};

pub use clock::DateTime;

use crate::{Error, Result};

/// What a template is rendered with.
#[derive(Clone, Debug, Default)]
pub struct RenderInput {
    /// The conversation: an array of objects with `role`, `content` and what else the template reads.
    pub messages: Json,
    /// Descriptions of the tools that the model may call, an array; `None` is given to the template as `none`.
    pub tools: Option<Json>,
    /// Documents to answer from, an array; `None` is given to the template as `none`.
    pub documents: Option<Json>,
    /// Whether the text ends with the start of the assistant's turn.
    pub add_generation_prompt: bool,
    /// The text of the BOS token, undefined in the template where it is `None`.
    pub bos_token: Option<String>,
    /// The text of the EOS token, undefined in the template where it is `None`.
    pub eos_token: Option<String>,
    /// Further variables, such as `enable_thinking`; they win over the fields above.
    pub variables: serde_json::Map<String, Json>,
    /// What `strftime_now` prints; the system clock in UTC where it is `None`.
    pub now: Option<DateTime>,
    /// What the render may use.
    pub limits: Limits,
}

impl RenderInput {
    /// An input of messages only, with the generation prompt.
    pub fn new(messages: Json) -> Self {
        Self { messages, add_generation_prompt: true, ..Self::default() }
    }
}

/// Bounds on one render, so that a hostile template ends soon and in little memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Work: a step of the template costs one unit, and 64 bytes that it produces one more, so that memory is bounded
    /// by 64 bytes a unit. The input adds to it: 4 units a byte and 400 a JSON value.
    pub fuel: u64,
    /// Bytes of output. The input adds to it: 16 a byte.
    pub output_bytes: usize,
}

impl Default for Limits {
    /// 500,000 units (some 32 MB at the very most, and less than a second) and 4 MiB, and what the input adds.
    fn default() -> Self {
        Self { fuel: 500_000, output_bytes: 4 << 20 }
    }
}

/// A compiled chat template, to be shared between threads at will.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: String,
    env: Environment<'static>,
}

const NAME: &str = "chat_template";

/// No published template comes near this.
const MAX_SOURCE_BYTES: usize = 1 << 20;

/// minijinja counts four for a macro's call; 200 lets macros nest 50 deep.
const MAX_RECURSION: usize = 200;

impl ChatTemplate {
    /// Compiles the Jinja source of a template, as GGUF's `tokenizer.chat_template` holds it.
    ///
    /// # Errors
    /// [`Error::TemplateSyntax`] with the line where it does not parse, [`Error::TemplateLimit`] for a source of more
    /// than a megabyte.
    pub fn new(source: &str) -> Result<Self> {
        if source.len() > MAX_SOURCE_BYTES {
            let what = format!("its source has {} bytes, at most {MAX_SOURCE_BYTES} are read", source.len());
            return Err(Error::TemplateLimit { what });
        }
        let rewritten = source::rewrite(source)
            .map_err(|source::SyntaxError { line, what }| Error::TemplateSyntax { line, what })?;
        let mut env = Environment::new();
        let mut syntax = minijinja::syntax::SyntaxConfig::builder();
        // the rewritten source has lost its last newline already
        syntax.trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true);
        env.set_syntax(syntax.build().map_err(|error| syntax_error(&error))?);
        env.set_undefined_behavior(UndefinedBehavior::Lenient);
        env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        env.set_recursion_limit(MAX_RECURSION);
        env.set_formatter(|out, state, value| match value.as_str() {
            Some(text) => out.write_str(text).map_err(minijinja::Error::from),
            None => out.write_str(&python::str(state, value)?).map_err(minijinja::Error::from),
        });
        ops::register(&mut env);
        methods::register(&mut env);
        filters::register(&mut env);
        env.remove_global("debug");
        env.add_function("dict", filters::dict);
        env.add_function("raise_exception", raise_exception);
        env.add_template_owned(NAME, rewritten).map_err(|error| syntax_error(&error))?;
        Ok(Self { source: source.to_owned(), env })
    }

    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// [`Error::TemplateRefused`] with the template's own words where it calls `raise_exception`,
    /// [`Error::TemplateFailed`] where it reads what is not there or mixes types, [`Error::TemplateLimit`] where it
    /// exceeds [`RenderInput::limits`].
    pub fn render(&self, input: &RenderInput) -> Result<String> {
        let mut size = Size::default();
        let fields = [Some(&input.messages), input.tools.as_ref(), input.documents.as_ref()];
        fields
            .into_iter()
            .flatten()
            .chain(input.variables.values())
            .try_for_each(|json| size.add(json, 0))?;
        let mut env = self.env.clone();
        let paid = size.bytes.saturating_mul(4).saturating_add(size.values.saturating_mul(400));
        env.set_fuel(Some(input.limits.fuel.saturating_add(paid)));
        let now = input.now;
        env.add_function("strftime_now", move |format: &str| {
            now.unwrap_or_else(DateTime::now_utc).strftime(format)
        });

        let mut variables: Vec<(String, Value)> = vec![
            ("messages".into(), from_json(&input.messages)),
            ("tools".into(), input.tools.as_ref().map_or(Value::from(()), from_json)),
            ("documents".into(), input.documents.as_ref().map_or(Value::from(()), from_json)),
            ("add_generation_prompt".into(), Value::from(input.add_generation_prompt)),
        ];
        let tokens = [("bos_token", &input.bos_token), ("eos_token", &input.eos_token)];
        variables.extend(
            tokens.into_iter().filter_map(|(name, token)| Some((name.into(), token.as_deref()?.into()))),
        );
        variables.extend(input.variables.iter().map(|(name, value)| (name.clone(), from_json(value))));

        let room = usize::try_from(size.bytes.saturating_mul(16)).unwrap_or(usize::MAX);
        let mut out =
            BoundedOutput { text: Vec::new(), left: input.limits.output_bytes.saturating_add(room) };
        let template = env.get_template(NAME).map_err(|error| failure(&error))?;
        match template.render_captured_to(Value::from_pairs(variables), &mut out) {
            Ok(_) => {}
            Err(error) => return Err(failure(&error)),
        }
        String::from_utf8(out.text)
            .map_err(|_| Error::TemplateFailed { line: 0, what: "the output is not UTF-8".into() })
    }

    /// Whether the text of a system message appears in the render of a conversation that starts with one.
    pub fn supports_system(&self) -> bool {
        const MARK: &str = "gristmill-system-probe";
        let messages = |content: fn(&str) -> Json| json!([{"role": "system", "content": content(MARK)}, {"role": "user", "content": content("Hi")}]);
        self.probe(messages, None, MARK)
    }

    /// Whether the name of a tool appears in a render that is given its description.
    pub fn supports_tools(&self) -> bool {
        const MARK: &str = "gristmill_tool_probe";
        let parameters = json!({
            "type": "object",
            "properties": {"place": {"type": "string", "description": "Where"}},
            "required": ["place"],
        });
        let function = json!({"name": MARK, "description": "Looks it up", "parameters": parameters});
        let tools = json!([{"type": "function", "function": function}]);
        self.probe(|content| json!([{"role": "user", "content": content("Hi")}]), Some(tools), MARK)
    }

    /// The text that `add_generation_prompt` adds after a user's message: the start of the assistant's turn.
    ///
    /// `None` where the template does not render such a message, or does not end with that text.
    pub fn generation_prompt(&self) -> Option<String> {
        contents().into_iter().find_map(|content| {
            let mut input = probe_input(json!([{"role": "user", "content": content("Hi")}]));
            let with = self.render(&input).ok()?;
            input.add_generation_prompt = false;
            let without = self.render(&input).ok()?;
            with.strip_prefix(&without).map(str::to_owned)
        })
    }

    fn probe(&self, messages: impl Fn(fn(&str) -> Json) -> Json, tools: Option<Json>, mark: &str) -> bool {
        contents().into_iter().any(|content| {
            let input = RenderInput { tools: tools.clone(), ..probe_input(messages(content)) };
            self.render(&input).is_ok_and(|text| text.contains(mark))
        })
    }
}

/// The two forms that a message's content takes: a string, and a list of parts.
fn contents() -> [fn(&str) -> Json; 2] {
    [|text| json!(text), |text| json!([{"type": "text", "text": text}])]
}

fn probe_input(messages: Json) -> RenderInput {
    RenderInput {
        bos_token: Some(String::new()),
        eos_token: Some(String::new()),
        now: DateTime::parse("2026-01-01"),
        ..RenderInput::new(messages)
    }
}

/// How large an input is: the bytes of its strings, and how many JSON values it holds.
#[derive(Default)]
struct Size {
    bytes: u64,
    values: u64,
}

impl Size {
    fn add(&mut self, json: &Json, depth: usize) -> Result<()> {
        if depth > python::MAX_DEPTH {
            let what = format!("the input nests more than {} deep", python::MAX_DEPTH);
            return Err(Error::TemplateLimit { what });
        }
        self.values += 1;
        match json {
            Json::String(text) => self.bytes += text.len() as u64,
            Json::Array(items) => items.iter().try_for_each(|item| self.add(item, depth + 1))?,
            Json::Object(pairs) => {
                for (key, value) in pairs {
                    self.bytes += key.len() as u64;
                    self.add(value, depth + 1)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A JSON value as the template sees it, keys in their order; [`Size::add`] has bounded its depth.
fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => (*value).into(),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.as_f64().into(),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => items.iter().map(from_json).collect(),
        Json::Object(pairs) => {
            Value::from_pairs(pairs.iter().map(|(key, value)| (key.as_str(), from_json(value))))
        }
    }
}

/// Output that refuses to grow past its bound.
struct BoundedOutput {
    text: Vec<u8>,
    left: usize,
}

impl io::Write for BoundedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.left.checked_sub(bytes.len()) {
            Some(left) => self.left = left,
            None => return Err(io::ErrorKind::StorageFull.into()),
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The message of a template that called `raise_exception`.
#[derive(Debug)]
struct Raised(String);

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn raise_exception(state: &State, arguments: Rest<Value>) -> std::result::Result<Value, minijinja::Error> {
    let message = python::str(state, &arguments.first().cloned().unwrap_or_default())?;
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

fn describe(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) if error.kind() == ErrorKind::InvalidOperation => detail.to_owned(),
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

fn syntax_error(error: &minijinja::Error) -> Error {
    Error::TemplateSyntax { line: error.line().unwrap_or(1), what: describe(error) }
}

/// The error of a render, told apart by what caused it.
fn failure(error: &minijinja::Error) -> Error {
    // an error met inside a macro or a loop may be wrapped by one that says where
    let mut innermost = error;
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(found) = cause {
        if let Some(Raised(message)) = found.downcast_ref() {
            return Error::TemplateRefused { message: message.clone() };
        }
        if let Some(python::LimitReached(what)) = found.downcast_ref() {
            return Error::TemplateLimit { what: what.clone() };
        }
        if let Some(inner) = found.downcast_ref::<minijinja::Error>() {
            innermost = inner;
        }
        cause = found.source();
    }
    let limit = |what: &str| Error::TemplateLimit { what: what.into() };
    match innermost.kind() {
        ErrorKind::OutOfFuel => limit("it takes more work or memory than its fuel allows"),
        ErrorKind::WriteFailure => limit("its output grows too long"),
        ErrorKind::InvalidOperation if innermost.detail() == Some("recursion limit exceeded") => {
            limit("its macros or loops call themselves too deeply")
        }
        _ => Error::TemplateFailed { line: error.line().unwrap_or(0), what: describe(innermost) },
    }
}
