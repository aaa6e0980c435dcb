//! jinja2's filters and tests, where minijinja's own differ from them, and transformers' `tojson`.

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Environment, Error, State, Value};

use super::methods::{self, Arguments, Given, capitalize, is_space, strip};
use super::ops::{self, built};
use super::python::{self, JsonStyle, Text, afford, error, is_engine_object, type_name, undefined};

pub(super) fn register(env: &mut Environment<'static>) {
    env.add_filter("tojson", to_json);
    env.add_filter("string", |state: &State, value: Value| match value.as_str() {
        Some(_) => Ok(value),
        None => python::str(state, &value).map(Value::from),
    });
    for name in ["length", "count"] {
        env.add_filter(name, length);
    }
    for name in ["default", "d"] {
        env.add_filter(name, default);
    }
    env.add_filter("trim", |state: &State, value: Value, chars: Option<Value>| -> Result<String, Error> {
        let text = python::str(state, &value)?;
        Ok(strip(&text, chars.as_ref().and_then(Value::as_str), true, true).to_owned())
    });
    env.add_filter("upper", |state: &State, value: Value| {
        Ok::<_, Error>(python::str(state, &value)?.to_uppercase())
    });
    env.add_filter("lower", |state: &State, value: Value| {
        Ok::<_, Error>(python::str(state, &value)?.to_lowercase())
    });
    env.add_filter("capitalize", |state: &State, value: Value| {
        Ok::<_, Error>(capitalize(&python::str(state, &value)?))
    });
    env.add_filter("title", title);
    env.add_filter("replace", replace);
    env.add_filter("indent", indent);
    env.add_filter("join", join);
    env.add_filter("items", items);
    env.add_filter("list", |state: &State, value: Value| sequence(state, &value).map(Value::from));
    env.add_filter("reverse", reverse);
    env.add_filter("first", |state: &State, value: Value| {
        Ok::<_, Error>(sequence(state, &value)?.first().cloned().unwrap_or_default())
    });
    env.add_filter("last", |state: &State, value: Value| {
        Ok::<_, Error>(sequence(state, &value)?.last().cloned().unwrap_or_default())
    });
    env.add_filter("dictsort", dict_sort);
    // jinja2's looks at attributes only, of which a dict's items are none
    env.add_filter("attr", |value: Value, name: &str| match is_mapping(&value) {
        true => Ok(Value::UNDEFINED),
        false => value.get_attr(name),
    });
    for name in ["escape", "e"] {
        env.add_filter(name, |state: &State, value: Value| match value.is_safe() {
            true => Ok(value),
            false => escape(state, &value).map(Value::from_safe_string),
        });
    }
    env.add_filter("int", int);
    env.add_filter("float", float);
    env.add_filter("wordcount", |state: &State, value: Value| {
        let text = python::str(state, &value)?;
        Ok::<_, Error>(
            text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count(),
        )
    });
    env.add_filter("center", |state: &mut State, value: Value, width: Option<i64>| {
        let text = Value::from(python::str(state, &value)?);
        state.apply_filter("__method", &[text, Value::from("center"), Value::from(width.unwrap_or(80))])
    });
    env.add_filter("format", |state: &State, value: Value, arguments: Given| {
        let arguments = arguments.into_values();
        let style = minijinja::formatting::FormatStyle::Printf;
        ops::format(state, style, value.as_str().unwrap_or_default(), &arguments)
    });
    // not jinja2's, and lazy
    for name in ["chain", "zip", "lines", "split", "bool"] {
        env.remove_filter(name);
    }

    env.add_test("sequence", |value: Value| {
        matches!(
            value.kind(),
            ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Iterable
        ) || is_mapping(&value)
    });
    env.add_test("iterable", |value: Value| {
        let is_object = matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
        is_object || matches!(value.kind(), ValueKind::Undefined | ValueKind::String) || is_mapping(&value)
    });
    env.add_test("mapping", |value: Value| is_mapping(&value));
    env.add_test("number", |value: Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool));
    env.add_test("callable", |value: Value| {
        value.kind() == ValueKind::Plain || is_engine_object(&value, "Macro")
    });
}

pub(super) fn is_mapping(value: &Value) -> bool {
    value.kind() == ValueKind::Map && !["Namespace", "Loop"].iter().any(|name| is_engine_object(value, name))
}

/// The items of anything that Python iterates over.
fn sequence(state: &State, value: &Value) -> Result<Vec<Value>, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(Vec::new()),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            afford(state, text.len().saturating_mul(ops::SLOT))?;
            Ok(text.chars().map(Value::from).collect())
        }
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => ops::items(state, value),
        _ => Err(error(format!("'{}' object is not iterable", type_name(value)))),
    }
}

fn to_json(state: &State, value: Value, values: Given) -> Result<Value, Error> {
    let values = values.into_values();
    let arguments = Arguments::new(&values);
    let indent = match arguments.get(1, "indent") {
        Some(text) if text.as_str().is_some() => text.as_str().map(str::to_owned),
        Some(width) if width.is_integer() || width.kind() == ValueKind::Bool => {
            let width = i64::try_from(width)?.clamp(0, 1_000) as usize;
            Some(" ".repeat(width))
        }
        Some(other) if !other.is_none() => {
            return Err(error(format!("indent cannot be {}", type_name(&other))));
        }
        _ => None,
    };
    let (mut item_separator, mut key_separator) =
        (if indent.is_some() { "," } else { ", " }.into(), ": ".into());
    if let Some(pair) = arguments.get(2, "separators").filter(|pair| !pair.is_none()) {
        match ops::items(state, &pair)?.as_slice() {
            [item, key] => {
                (item_separator, key_separator) = (python::str(state, item)?, python::str(state, key)?)
            }
            _ => return Err(error("separators must be a pair of strings")),
        }
    }
    let ensure_ascii = arguments.flag(0, "ensure_ascii");
    let sort_keys = arguments.flag(3, "sort_keys");
    let style = JsonStyle { ensure_ascii, indent, item_separator, key_separator, sort_keys };
    let mut out = Text::new(state);
    python::write_json(&mut out, &value, &style, 0)?;
    Ok(out.finish(state)?.into())
}

fn length(value: Value) -> Result<usize, Error> {
    match (value.as_str(), value.len()) {
        (Some(text), _) => Ok(text.chars().count()),
        (None, Some(length)) => Ok(length),
        _ if value.is_undefined() => Ok(0),
        _ => Err(error(format!("object of type '{}' has no len()", type_name(&value)))),
    }
}

fn default(value: Value, values: Given) -> Value {
    let values = values.into_values();
    let arguments = Arguments::new(&values);
    let replaced = value.is_undefined() || (arguments.flag(1, "boolean") && !value.is_true());
    if replaced { arguments.get(0, "default_value").unwrap_or_else(|| Value::from("")) } else { value }
}

/// Upper-cases the first letter of each word, a word beginning after a space, a hyphen or an opening bracket.
fn title(state: &State, value: Value) -> Result<String, Error> {
    let text = python::str(state, &value)?;
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        let boundary = is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
        if inside {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        inside = !boundary;
    }
    Ok(out)
}

fn replace(state: &State, value: Value, values: Given) -> Result<Value, Error> {
    let values = values.into_values();
    let arguments = Arguments::new(&values);
    let text = python::str(state, &value)?;
    let part = |at, name| python::str(state, &arguments.get(at, name).unwrap_or_default());
    let count = arguments.int(2, "count")?.unwrap_or(-1);
    methods::replace(state, &text, &part(0, "old")?, &part(1, "new")?, count)
}

fn indent(state: &State, value: Value, values: Given) -> Result<String, Error> {
    let values = values.into_values();
    let arguments = Arguments::new(&values);
    let text = python::str(state, &value)?;
    let prefix = match arguments.get(0, "width") {
        Some(prefix) if prefix.as_str().is_some() => python::str(state, &prefix)?,
        Some(width) => {
            let width = usize::try_from(i64::try_from(width)?.max(0)).unwrap_or(usize::MAX);
            afford(state, width)?;
            " ".repeat(width)
        }
        None => " ".repeat(4),
    };
    let (first, blank) = (arguments.flag(1, "first"), arguments.flag(2, "blank"));
    let mut out = Text::new(state);
    if first {
        out.push(&prefix)?;
    }
    for (at, line) in text.split('\n').enumerate() {
        if at > 0 {
            out.push("\n")?;
            if blank || !line.is_empty() {
                out.push(&prefix)?;
            }
        }
        out.push(line)?;
    }
    out.finish(state)
}

fn join(state: &State, value: Value, values: Given) -> Result<String, Error> {
    let values = values.into_values();
    let arguments = Arguments::new(&values);
    let separator = python::str(state, &arguments.get(0, "d").unwrap_or_else(|| Value::from("")))?;
    let attribute = arguments.get(1, "attribute").filter(|name| !name.is_none());
    let mut out = Text::new(state);
    for (at, item) in sequence(state, &value)?.into_iter().enumerate() {
        if at > 0 {
            out.push(&separator)?;
        }
        let item = match &attribute {
            Some(path) => lookup(item, path)?,
            None => item,
        };
        python::write_str(&mut out, &item)?;
    }
    out.finish(state)
}

/// MarkupSafe's `escape`.
pub(super) fn escape(state: &State, value: &Value) -> Result<String, Error> {
    let mut out = Text::new(state);
    for c in python::str(state, value)?.chars() {
        match c {
            '&' => out.push("&amp;")?,
            '<' => out.push("&lt;")?,
            '>' => out.push("&gt;")?,
            '\'' => out.push("&#39;")?,
            '"' => out.push("&#34;")?,
            _ => out.push(c.encode_utf8(&mut [0; 4]))?,
        }
    }
    out.finish(state)
}

/// The items of a dict in the order of their keys or values, strings without regard to case unless asked.
fn dict_sort(state: &State, value: Value, values: Given) -> Result<Value, Error> {
    let values = values.into_values();
    let arguments = Arguments::new(&values);
    let by = usize::from(arguments.get(1, "by").is_some_and(|by| by.as_str() == Some("value")));
    let Some(pairs) = value.as_object().and_then(|map| map.try_iter_pairs()).filter(|_| is_mapping(&value))
    else {
        return Err(error(format!("'{}' object has no items to sort", type_name(&value))));
    };
    afford(state, value.len().unwrap_or_default().saturating_mul(4 * ops::SLOT))?;
    let folded = |value: &Value| match value.as_str() {
        Some(text) if !arguments.flag(0, "case_sensitive") => Value::from(text.to_lowercase()),
        _ => value.clone(),
    };
    let mut pairs: Vec<_> =
        pairs.map(|(key, value)| (folded(if by == 0 { &key } else { &value }), key, value)).collect();
    pairs.sort_by(|a, b| if arguments.flag(2, "reverse") { b.0.cmp(&a.0) } else { a.0.cmp(&b.0) });
    Ok(pairs.into_iter().map(|(_, key, value)| Value::from(Tuple::from([key, value]))).collect())
}

/// The value at a path such as `function.name`.
fn lookup(value: Value, path: &Value) -> Result<Value, Error> {
    let Some(names) = path.as_str() else { return value.get_item(path) };
    names.split('.').try_fold(value, |value, name| match name.parse::<usize>() {
        Ok(index) => value.get_item(&Value::from(index)),
        Err(_) => value.get_attr(name),
    })
}

fn items(state: &mut State, value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(Vec::<Value>::new().into()),
        ValueKind::Map => state.apply_filter("__method", &[value, Value::from("items")]),
        _ => Err(error("can only get item pairs from a mapping")),
    }
}

fn reverse(state: &State, value: Value) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.chars().rev().collect::<String>().into());
    }
    if value.is_undefined() {
        return Err(undefined("what is reversed here is undefined"));
    }
    let mut items = sequence(state, &value)?;
    items.reverse();
    built(state, items.into())
}

/// Python's `int()` of a string: white space around it, a sign, digits with single underscores between them.
fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = strip(text, None, true, true);
    let (negative, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    let digits = match digits.get(..prefix.len()) {
        Some(found) if found.eq_ignore_ascii_case(prefix) => digits.get(prefix.len()..)?,
        _ => digits,
    };
    if digits.starts_with(['+', '-', '_']) || digits.ends_with('_') || digits.contains("__") {
        return None;
    }
    let value = i128::from_str_radix(&digits.replace('_', ""), base).ok()?;
    Some(if negative { -value } else { value })
}

fn parse_float(text: &str) -> Option<f64> {
    let text = strip(text, None, true, true);
    text.bytes().all(|b| b != b'_').then(|| text.parse().ok()).flatten()
}

fn int(value: Value, values: Given) -> Result<Value, Error> {
    let values = values.into_values();
    let arguments = Arguments::new(&values);
    let base = arguments
        .int(1, "base")?
        .and_then(|base| u32::try_from(base).ok())
        .filter(|base| (2..=36).contains(base));
    let fallback = || Ok(arguments.get(0, "default").unwrap_or(Value::from(0)));
    let truncated = |number: f64| {
        let whole = number.trunc();
        (whole.abs() < 1e38)
            .then(|| Value::from(whole as i128))
            .map(|value| i64::try_from(value.clone()).map_or(value, Value::from))
    };
    let found = match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            let whole = parse_int(text, base.unwrap_or(10));
            let whole =
                whole.map(|value| i64::try_from(value).map_or_else(|_| Value::from(value), Value::from));
            whole.or_else(|| parse_float(text).and_then(truncated))
        }
        ValueKind::Bool => Some(Value::from(i64::from(value.is_true()))),
        ValueKind::Number if value.is_integer() => Some(value),
        ValueKind::Number => truncated(f64::try_from(value)?),
        ValueKind::Undefined => return Err(undefined("what becomes an int here is undefined")),
        _ => None,
    };
    found.map_or_else(fallback, Ok)
}

fn float(value: Value, values: Given) -> Result<Value, Error> {
    let values = values.into_values();
    let arguments = Arguments::new(&values);
    let found = match value.kind() {
        ValueKind::String => parse_float(value.as_str().unwrap_or_default()),
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => Some(f64::try_from(value)?),
        ValueKind::Undefined => return Err(undefined("what becomes a float here is undefined")),
        _ => None,
    };
    Ok(found.map(Value::from).unwrap_or_else(|| arguments.get(0, "default").unwrap_or(Value::from(0.0))))
}

/// `dict(a=1)` and `dict(mapping)`.
pub(super) fn dict(state: &State, values: Given) -> Result<Value, Error> {
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    for value in &values.into_values() {
        match value
            .as_object()
            .and_then(|map| map.try_iter_pairs())
            .filter(|_| value.kind() == ValueKind::Map)
        {
            Some(found) => pairs.extend(found),
            None => {
                for pair in sequence(state, value)? {
                    match sequence(state, &pair)?.as_slice() {
                        [key, value] => pairs.push((key.clone(), value.clone())),
                        _ => return Err(error("dict() takes pairs")),
                    }
                }
            }
        }
    }
    afford(state, pairs.len() * 2 * ops::SLOT)?;
    built(state, Value::from_pairs(pairs))
}
