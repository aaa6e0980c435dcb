//! Python's methods of strings, dicts and lists, as far as a template may call them.

use minijinja::formatting::FormatStyle;
use minijinja::value::{Rest, Tuple, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State, Value};

use super::ops::{self, SLOT};
use super::python::{self, Text, afford, charge, error, is_engine_object, type_name, undefined};

pub(super) fn register(env: &mut Environment<'static>) {
    env.add_filter("__method", |state: &mut State, values: Given| match values.into_values().as_slice() {
        [receiver, name, arguments @ ..] => {
            call(state, receiver, name.as_str().unwrap_or_default(), arguments)
        }
        _ => Err(error("a method call without a receiver")),
    });
    env.add_filter("__attribute", attribute);
}

/// What a filter takes after its value, keyword arguments among them.
pub(super) type Given = Rest<ValueOrKwargs>;

/// Positional and keyword arguments of one call.
pub(super) struct Arguments<'a> {
    positional: &'a [Value],
    keywords: Option<&'a Value>,
}

impl<'a> Arguments<'a> {
    pub fn new(values: &'a [Value]) -> Self {
        match values {
            [positional @ .., keywords] if keywords.is_kwargs() => {
                Self { positional, keywords: Some(keywords) }
            }
            positional => Self { positional, keywords: None },
        }
    }

    /// The argument at `at`, or named `name`.
    pub fn get(&self, at: usize, name: &str) -> Option<Value> {
        let keyword =
            || self.keywords.and_then(|map| map.get_attr(name).ok()).filter(|value| !value.is_undefined());
        self.positional.get(at).cloned().or_else(keyword)
    }

    pub fn text(&self, at: usize, name: &str) -> Result<Option<Value>, Error> {
        match self.get(at, name) {
            Some(value) if value.is_none() => Ok(None),
            Some(value) if value.as_str().is_none() => {
                Err(error(format!("the argument `{name}` must be a str, not {}", type_name(&value))))
            }
            found => Ok(found),
        }
    }

    pub fn int(&self, at: usize, name: &str) -> Result<Option<i64>, Error> {
        match self.get(at, name) {
            Some(value) if !value.is_none() => match value.as_i64() {
                Some(number) => Ok(Some(number)),
                None => {
                    Err(error(format!("the argument `{name}` must be an int, not {}", type_name(&value))))
                }
            },
            _ => Ok(None),
        }
    }

    pub fn flag(&self, at: usize, name: &str) -> bool {
        self.get(at, name).is_some_and(|value| value.is_true())
    }

    fn need(&self, at: usize, name: &str) -> Result<Value, Error> {
        self.get(at, name).ok_or_else(|| error(format!("the argument `{name}` is missing")))
    }

    fn need_text(&self, at: usize, name: &str) -> Result<Value, Error> {
        self.text(at, name)?.ok_or_else(|| error(format!("the argument `{name}` must be a str")))
    }
}

/// The value of `receiver.name` where a dict's own method hides its key of that name.
fn attribute(receiver: Value, name: &str) -> Result<Value, Error> {
    if receiver.is_undefined() {
        return Err(undefined(format!("the value that `.{name}` is read from is undefined")));
    }
    if is_dict(&receiver) {
        let shown = format!("<built-in method {name} of dict object>");
        return Ok(Value::from_object(BoundMethod(shown)));
    }
    receiver.get_attr(name)
}

/// A method that is looked at but not called: it is there, true, and nothing else.
#[derive(Debug)]
struct BoundMethod(String);

impl minijinja::value::Object for BoundMethod {
    fn repr(self: &std::sync::Arc<Self>) -> minijinja::value::ObjectRepr {
        minijinja::value::ObjectRepr::Plain
    }

    fn render(self: &std::sync::Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_dict(value: &Value) -> bool {
    value.kind() == ValueKind::Map
        && !["Namespace", "Loop", "Macro"].iter().any(|name| is_engine_object(value, name))
}

fn call(state: &mut State, receiver: &Value, name: &str, values: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(values);
    let known = if let Some(text) = receiver.as_str() {
        charge(state, text.len() / SLOT)?;
        let known = string(state, receiver, text, name, values, &arguments)?;
        known.map(|value| match value.as_str() {
            Some(text) if receiver.is_safe() => Value::from_safe_string(text.to_owned()),
            _ => value,
        })
    } else if is_dict(receiver) {
        dict(state, receiver, name, &arguments)?
    } else if matches!(receiver.kind(), ValueKind::Seq | ValueKind::Iterable) {
        list(state, receiver, name, &arguments)?
    } else if receiver.is_undefined() {
        return Err(undefined(format!("the value that `.{name}()` is called on is undefined")));
    } else {
        None
    };
    match known {
        Some(value) => Ok(value),
        None => receiver.call_method(state, name, values).map_err(|failed| match failed.kind() {
            minijinja::ErrorKind::UnknownMethod => {
                error(format!("'{}' object has no method '{name}'", type_name(receiver)))
            }
            _ => failed,
        }),
    }
}

/// transformers renders in jinja2's immutable sandbox, which refuses what would change a value.
fn immutable(receiver: &Value, name: &str) -> Error {
    let kind = type_name(receiver);
    error(format!(
        "access to attribute '{name}' of '{kind}' object is unsafe: chat templates cannot change values"
    ))
}

fn dict(state: &State, receiver: &Value, name: &str, arguments: &Arguments) -> Result<Option<Value>, Error> {
    let Some(map) = receiver.as_object() else { return Ok(None) };
    let pairs = || map.try_iter_pairs().into_iter().flatten();
    afford(state, map.enumerator_len().unwrap_or_default() * 3 * SLOT)?;
    Ok(Some(match name {
        "get" => {
            let key = arguments.need(0, "key")?;
            map.get_value(&key).or_else(|| arguments.get(1, "default")).unwrap_or(Value::from(()))
        }
        "items" => pairs().map(|(key, value)| Value::from(Tuple::from([key, value]))).collect(),
        "keys" => pairs().map(|(key, _)| key).collect(),
        "values" => pairs().map(|(_, value)| value).collect(),
        "copy" => receiver.clone(),
        "clear" | "fromkeys" | "pop" | "popitem" | "setdefault" | "update" => {
            return Err(immutable(receiver, name));
        }
        _ => return Ok(None),
    }))
}

fn list(state: &State, receiver: &Value, name: &str, arguments: &Arguments) -> Result<Option<Value>, Error> {
    Ok(Some(match name {
        "count" => {
            let wanted = arguments.need(0, "value")?;
            let items = ops::items(state, receiver)?;
            charge(state, items.len() * 2)?;
            items.iter().filter(|item| **item == wanted).count().into()
        }
        "index" => {
            let wanted = arguments.need(0, "value")?;
            let items = ops::items(state, receiver)?;
            charge(state, items.len() * 2)?;
            let at = items.iter().position(|item| *item == wanted);
            at.map(Value::from).ok_or_else(|| error("the value is not in the list"))?
        }
        "copy" => receiver.clone(),
        "append" | "clear" | "extend" | "insert" | "pop" | "remove" | "reverse" | "sort" => {
            return Err(immutable(receiver, name));
        }
        _ => return Ok(None),
    }))
}

/// `str.isspace` for one character.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `text.strip(chars)` on the sides asked for.
pub(super) fn strip<'a>(text: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let cut = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if left { text.trim_start_matches(cut) } else { text };
    if right { text.trim_end_matches(cut) } else { text }
}

/// `text.title()`: each run of letters begins upper-case.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        inside = c.is_alphabetic();
    }
    out
}

/// `text.capitalize()`.
pub(super) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    first + &chars.as_str().to_lowercase()
}

/// `text.replace(old, new, count)`, refused where the result would be too long.
pub(super) fn replace(state: &State, text: &str, old: &str, new: &str, count: i64) -> Result<Value, Error> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let places = text.matches(old).count().min(count);
    afford(state, text.len().saturating_add(places.saturating_mul(new.len())))?;
    Ok(text.replacen(old, new, count).into())
}

/// `text.split(separator, most)` from either end; without a separator, at runs of white space.
fn split<'a>(text: &'a str, separator: Option<&str>, most: Option<i64>, from_right: bool) -> Vec<&'a str> {
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX - 1);
    let Some(separator) = separator else {
        let mut parts = Vec::new();
        // the last part of a limited split keeps the white space at its outer end
        let mut rest = strip(text, None, !from_right, from_right);
        while !rest.is_empty() {
            let at = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
            let Some(at) = at.filter(|_| parts.len() < most) else {
                parts.push(rest);
                break;
            };
            let (before, after) = rest.split_at(at);
            if from_right {
                parts.push(strip(after, None, true, false));
                rest = strip(before, None, false, true);
            } else {
                parts.push(before);
                rest = strip(after, None, true, false);
            }
        }
        if from_right {
            parts.reverse();
        }
        return parts;
    };
    if from_right {
        let mut parts: Vec<&str> = text.rsplitn(most + 1, separator).collect();
        parts.reverse();
        parts
    } else {
        text.splitn(most + 1, separator).collect()
    }
}

fn split_lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c| {
            matches!(
                c,
                '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
            )
        });
        let Some(end) = end else {
            lines.push(rest);
            break;
        };
        let (line, after) = rest.split_at(end);
        let width =
            if after.starts_with("\r\n") { 2 } else { after.chars().next().map_or(1, char::len_utf8) };
        lines.push(if keep_ends { rest.get(..end + width).unwrap_or(line) } else { line });
        rest = after.get(width..).unwrap_or_default();
    }
    lines
}

/// Whether `text` starts or ends with one of the strings in `affix`, a string or a tuple of them.
fn has_affix(text: &str, affix: &Value, name: &str, test: fn(&str, &str) -> bool) -> Result<bool, Error> {
    if let Some(affix) = affix.as_str() {
        return Ok(test(text, affix));
    }
    if !affix.is_tuple() {
        let found = type_name(affix);
        return Err(error(format!("{name} first arg must be str or a tuple of str, not {found}")));
    }
    for item in affix.try_iter()?.checked() {
        if item?.as_str().is_some_and(|affix| test(text, affix)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `text` between as many fills as make it `width` characters wide.
fn pad(state: &State, text: &str, arguments: &Arguments, name: &str) -> Result<Value, Error> {
    let width = usize::try_from(arguments.int(0, "width")?.unwrap_or(0)).unwrap_or(0);
    let fill = arguments.text(1, "fillchar")?;
    let fill = fill.as_ref().and_then(Value::as_str).unwrap_or(if name == "zfill" { "0" } else { " " });
    let length = text.chars().count();
    let missing = width.saturating_sub(length);
    afford(state, text.len().saturating_add(missing.saturating_mul(fill.len())))?;
    let left = match name {
        "ljust" => 0,
        "center" => missing / 2 + (missing & width & 1),
        _ => missing,
    };
    let (before, after) = (fill.repeat(left), fill.repeat(missing - left));
    Ok(match (name, text.chars().next()) {
        ("zfill", Some(sign @ ('+' | '-'))) => {
            [&sign.to_string(), &before, text.get(1..).unwrap_or_default()].concat()
        }
        _ => [&before, text, &after].concat(),
    }
    .into())
}

fn string(
    state: &mut State,
    receiver: &Value,
    text: &str,
    name: &str,
    values: &[Value],
    arguments: &Arguments,
) -> Result<Option<Value>, Error> {
    let all = |test: fn(char) -> bool| Value::from(!text.is_empty() && text.chars().all(test));
    let character_index = |at: Option<usize>| at.map(|at| text.get(..at).unwrap_or_default().chars().count());
    let list = |parts: Vec<&str>| -> Result<Value, Error> {
        afford(state, parts.len() * SLOT)?;
        Ok(parts.into_iter().map(Value::from).collect())
    };
    Ok(Some(match name {
        "upper" => text.to_uppercase().into(),
        "lower" | "casefold" => text.to_lowercase().into(),
        "title" => title(text).into(),
        "capitalize" => capitalize(text).into(),
        "swapcase" => {
            let swap = |c: char| match c.is_uppercase() {
                true => c.to_lowercase().collect::<String>(),
                false => c.to_uppercase().collect(),
            };
            text.chars().map(swap).collect::<String>().into()
        }
        "strip" | "lstrip" | "rstrip" => {
            let chars = arguments.text(0, "chars")?;
            strip(text, chars.as_ref().and_then(Value::as_str), name != "rstrip", name != "lstrip").into()
        }
        "split" | "rsplit" => {
            let separator = arguments.text(0, "sep")?;
            if separator.as_ref().and_then(Value::as_str) == Some("") {
                return Err(error("empty separator"));
            }
            let most = arguments.int(1, "maxsplit")?;
            list(split(text, separator.as_ref().and_then(Value::as_str), most, name == "rsplit"))?
        }
        "splitlines" => list(split_lines(text, arguments.flag(0, "keepends")))?,
        "startswith" => {
            has_affix(text, &arguments.need(0, "prefix")?, name, |text, affix| text.starts_with(affix))?
                .into()
        }
        "endswith" => {
            has_affix(text, &arguments.need(0, "suffix")?, name, |text, affix| text.ends_with(affix))?.into()
        }
        "removeprefix" | "removesuffix" => {
            let affix = arguments.need_text(0, "affix")?;
            let affix = affix.as_str().unwrap_or_default();
            let cut =
                if name == "removeprefix" { text.strip_prefix(affix) } else { text.strip_suffix(affix) };
            cut.unwrap_or(text).into()
        }
        "replace" => {
            let (old, new) = (arguments.need_text(0, "old")?, arguments.need_text(1, "new")?);
            let count = arguments.int(2, "count")?.unwrap_or(-1);
            replace(state, text, old.as_str().unwrap_or_default(), new.as_str().unwrap_or_default(), count)?
        }
        "count" => {
            let part = arguments.need_text(0, "sub")?;
            text.matches(part.as_str().unwrap_or_default()).count().into()
        }
        "find" | "index" | "rfind" | "rindex" => {
            let part = arguments.need_text(0, "sub")?;
            let part = part.as_str().unwrap_or_default();
            let at = character_index(if name.starts_with('r') { text.rfind(part) } else { text.find(part) });
            match at {
                Some(at) => at.into(),
                None if name.ends_with("find") => Value::from(-1),
                None => return Err(error("substring not found")),
            }
        }
        "partition" | "rpartition" => {
            let separator = arguments.need_text(0, "sep")?;
            let separator = separator.as_str().unwrap_or_default();
            let parts = match name {
                "partition" => text.split_once(separator).map_or([text, "", ""], |(a, b)| [a, separator, b]),
                _ => text.rsplit_once(separator).map_or(["", "", text], |(a, b)| [a, separator, b]),
            };
            Tuple::from(parts.map(Value::from)).into()
        }
        "join" => {
            let mut out = Text::new(state);
            for (at, item) in arguments.need(0, "iterable")?.try_iter()?.checked().enumerate() {
                let item = item?;
                if at > 0 {
                    out.push(text)?;
                }
                match item.as_str() {
                    Some(item) => out.push(item)?,
                    None => {
                        let found = type_name(&item);
                        return Err(error(format!(
                            "sequence item {at}: expected str instance, {found} found"
                        )));
                    }
                }
            }
            out.finish(state)?.into()
        }
        "format" => ops::format(state, FormatStyle::StrFormat, text, values)?,
        "center" | "ljust" | "rjust" | "zfill" => pad(state, text, arguments, name)?,
        "isdigit" | "isdecimal" | "isnumeric" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isspace" => all(is_space),
        "isascii" => text.is_ascii().into(),
        "isupper" => (text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)).into(),
        "islower" => (text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)).into(),
        "istitle" => (text.chars().any(char::is_alphabetic) && title(text) == text).into(),
        "expandtabs" => {
            let width = usize::try_from(arguments.int(0, "tabsize")?.unwrap_or(8)).unwrap_or(0);
            let mut out = Text::new(state);
            let mut column = 0;
            for c in text.chars() {
                match c {
                    '\t' if width == 0 => {}
                    '\t' => {
                        let spaces = width - column % width;
                        column += spaces;
                        (0..spaces).try_for_each(|_| out.push(" "))?;
                    }
                    _ => {
                        column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
                        out.push(c.encode_utf8(&mut [0; 4]))?;
                    }
                }
            }
            out.finish(state)?.into()
        }
        "__str__" => python::str(state, receiver)?.into(),
        _ => return Ok(None),
    }))
}
