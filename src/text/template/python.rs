//! Values as Python prints them: `str`, `repr` and `json.dumps`, each with a bound on what it may produce.

use std::fmt::Write as _;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

/// How deeply a value may nest before printing or storing it is refused; JSON input is bounded by the same.
pub(super) const MAX_DEPTH: usize = 160;

/// Bytes of printed values that one unit of fuel pays for.
const PRINTED_BYTES_PER_FUEL: usize = 8;

/// The error of a bound that was reached; [`super::failure`] tells it from a template's own mistakes.
#[derive(Debug)]
pub(super) struct LimitReached(pub String);

impl std::fmt::Display for LimitReached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LimitReached {}

pub(super) fn limit(what: impl Into<String>) -> Error {
    let what = what.into();
    Error::new(ErrorKind::InvalidOperation, what.clone()).with_source(LimitReached(what))
}

pub(super) fn error(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

pub(super) fn undefined(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::UndefinedError, what.into())
}

/// Fuel that is left; all that a template allocates is paid from it.
fn fuel(state: &State) -> u64 {
    state.fuel_levels().map_or(u64::MAX, |(_, remaining)| remaining)
}

/// Refuses an allocation of `bytes` that the fuel left could not pay for.
pub(super) fn afford(state: &State, bytes: usize) -> Result<(), Error> {
    if bytes as u64 / 64 < fuel(state) { Ok(()) } else { Err(ErrorKind::OutOfFuel.into()) }
}

/// Pays for looking at `items` values.
pub(super) fn charge(state: &State, items: usize) -> Result<(), Error> {
    state.consume_fuel(items as u64 / 2)
}

/// Text that grows no further than the fuel left pays for.
pub(super) struct Text {
    text: String,
    left: usize,
}

impl Text {
    pub fn new(state: &State) -> Self {
        let left = usize::try_from(fuel(state)).unwrap_or(usize::MAX).saturating_mul(PRINTED_BYTES_PER_FUEL);
        Self { text: String::new(), left }
    }

    pub fn push(&mut self, text: &str) -> Result<(), Error> {
        self.left = self.left.checked_sub(text.len()).ok_or(ErrorKind::OutOfFuel)?;
        self.text.push_str(text);
        Ok(())
    }

    pub fn finish(self, state: &State) -> Result<String, Error> {
        state.consume_fuel((self.text.len() / PRINTED_BYTES_PER_FUEL) as u64)?;
        Ok(self.text)
    }
}

/// Python's name for the type of a value.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "Undefined",
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Bytes => "bytes",
        ValueKind::Seq | ValueKind::Iterable if value.is_tuple() => "tuple",
        ValueKind::Seq => "list",
        ValueKind::Iterable => "iterator",
        ValueKind::Map => "dict",
        _ => "object",
    }
}

/// Whether the value is of a type that minijinja alone knows, such as a namespace.
pub(super) fn is_engine_object(value: &Value, name: &str) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with(name))
}

/// `str(value)`.
pub(super) fn str(state: &State, value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        afford(state, text.len())?;
        return Ok(text.to_owned());
    }
    let mut out = Text::new(state);
    write_str(&mut out, value)?;
    out.finish(state)
}

/// Writes `str(value)`.
pub(super) fn write_str(out: &mut Text, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.push(text),
        None if value.is_undefined() => Ok(()),
        None => write_repr(out, value, 0),
    }
}

fn write_repr(out: &mut Text, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(limit(format!("a value nests more than {MAX_DEPTH} deep")));
    }
    match value.kind() {
        ValueKind::Undefined => out.push("Undefined"),
        ValueKind::None => out.push("None"),
        ValueKind::Bool => out.push(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number if value.is_integer() => out.push(&value.to_string()),
        ValueKind::Number => out.push(&float(f64::try_from(value.clone())?)),
        ValueKind::String => out.push(&quoted(value.as_str().unwrap_or_default())),
        ValueKind::Seq | ValueKind::Iterable => {
            let tuple = value.is_tuple();
            out.push(if tuple { "(" } else { "[" })?;
            let mut count = 0;
            for item in value.try_iter()?.checked() {
                if count > 0 {
                    out.push(", ")?;
                }
                write_repr(out, &item?, depth + 1)?;
                count += 1;
            }
            out.push(match (tuple, count) {
                (true, 1) => ",)",
                (true, _) => ")",
                _ => "]",
            })
        }
        ValueKind::Map if is_engine_object(value, "Namespace") => out.push("<Namespace>"),
        ValueKind::Map => {
            out.push("{")?;
            for (at, key) in value.try_iter()?.checked().enumerate() {
                let key = key?;
                out.push(if at > 0 { ", " } else { "" })?;
                write_repr(out, &key, depth + 1)?;
                out.push(": ")?;
                write_repr(out, &value.get_item(&key)?, depth + 1)?;
            }
            out.push("}")
        }
        _ => out.push(&value.to_string()),
    }
}

/// `repr` of a float: the shortest digits that read back the same, with an exponent from 1e16 and below 1e-4.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.into();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if value != 0.0 && !(-4..16).contains(&exponent) => {
            format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        }
        _ => {
            let plain = value.to_string();
            if plain.contains('.') { plain } else { plain + ".0" }
        }
    }
}

/// `repr` of a string: in single quotes unless only those occur in it; what cannot be printed is escaped.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if c == quote => out.extend(['\\', c]),
            _ if printable(c) => out.push(c),
            _ => {
                // writing to a string does not fail
                let _ = match c as u32 {
                    code @ ..0x100 => write!(out, "\\x{code:02x}"),
                    code @ ..0x10000 => write!(out, "\\u{code:04x}"),
                    code => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
    out
}

/// `str.isprintable` for one character, but for code points that no Unicode version has assigned.
fn printable(c: char) -> bool {
    !matches!(c as u32,
        0..=0x1F | 0x7F..=0xA0 | 0xAD | 0x600..=0x605 | 0x61C | 0x6DD | 0x70F | 0x890..=0x891 | 0x8E2 | 0x1680
        | 0x180E | 0x2000..=0x200F | 0x2028..=0x202F | 0x205F..=0x206F | 0x3000 | 0xE000..=0xF8FF | 0xFEFF
        | 0xFFF0..=0xFFFB | 0xFFFE..=0xFFFF | 0x110BD | 0x110CD | 0x1BCA0..=0x1BCA3 | 0x1D173..=0x1D17A
        | 0xE0000..=0x10FFFF)
}

/// How `json.dumps` lays out its text.
pub(super) struct JsonStyle {
    pub ensure_ascii: bool,
    /// The indentation of one level; without one all is on one line.
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
    pub sort_keys: bool,
}

/// Writes `json.dumps(value)`.
pub(super) fn write_json(
    out: &mut Text,
    value: &Value,
    style: &JsonStyle,
    depth: usize,
) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(limit(format!("a value nests more than {MAX_DEPTH} deep")));
    }
    let start_item = |out: &mut Text, at: usize, depth: usize| -> Result<(), Error> {
        if at > 0 {
            out.push(&style.item_separator)?;
        }
        start_line(out, style, depth)
    };
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Number => out.push(&json_scalar(value)?),
        ValueKind::String => out.push(&json_string(value.as_str().unwrap_or_default(), style.ensure_ascii)),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push("[")?;
            let mut count = 0;
            for item in value.try_iter()?.checked() {
                start_item(out, count, depth + 1)?;
                write_json(out, &item?, style, depth + 1)?;
                count += 1;
            }
            if count > 0 {
                start_line(out, style, depth)?;
            }
            out.push("]")
        }
        ValueKind::Map if !is_engine_object(value, "Namespace") => {
            out.push("{")?;
            let mut keys = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
            if style.sort_keys {
                keys.sort();
            }
            let count = keys.len();
            for (at, key) in keys.into_iter().enumerate() {
                start_item(out, at, depth + 1)?;
                let name = match key.kind() {
                    ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
                    ValueKind::None | ValueKind::Bool | ValueKind::Number => json_scalar(&key)?,
                    _ => {
                        return Err(error(format!(
                            "keys of JSON objects must be strings, not {}",
                            type_name(&key)
                        )));
                    }
                };
                out.push(&json_string(&name, style.ensure_ascii))?;
                out.push(&style.key_separator)?;
                write_json(out, &value.get_item(&key)?, style, depth + 1)?;
            }
            if count > 0 {
                start_line(out, style, depth)?;
            }
            out.push("}")
        }
        _ => Err(error(format!("an object of type {} is not JSON serializable", type_name(value)))),
    }
}

fn start_line(out: &mut Text, style: &JsonStyle, depth: usize) -> Result<(), Error> {
    let Some(indent) = &style.indent else { return Ok(()) };
    out.push("\n")?;
    (0..depth).try_for_each(|_| out.push(indent))
}

fn json_scalar(value: &Value) -> Result<String, Error> {
    Ok(match value.kind() {
        ValueKind::None => "null".into(),
        ValueKind::Bool => if value.is_true() { "true" } else { "false" }.into(),
        _ if value.is_integer() => value.to_string(),
        _ => match f64::try_from(value.clone())? {
            nan if nan.is_nan() => "NaN".into(),
            f64::INFINITY => "Infinity".into(),
            f64::NEG_INFINITY => "-Infinity".into(),
            finite => float(finite),
        },
    })
}

fn json_string(text: &str, ensure_ascii: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            '\u{7f}'.. if ensure_ascii => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::float;

    /// Expected values from CPython 3.11, `repr`.
    #[test]
    fn floats_print_as_in_python() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.0 / 3.0, "0.3333333333333333"),
            (123456789.125, "123456789.125"),
        ];
        for (value, expected) in cases {
            assert_eq!(float(value), expected);
        }
    }
}
