//! The tokens of one tag of a template, as jinja2 reads them.

use super::source::{Parsed, fail, newlines};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Name,
    Number,
    Str(String),
    Op,
}

#[derive(Clone, Debug)]
pub(super) struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    /// Newlines before the token.
    pub lead: usize,
    pub line: usize,
}

/// The tokens of a tag, the marks that control whitespace, and its length in bytes.
pub(super) struct Tag<'a> {
    pub tokens: Vec<Token<'a>>,
    pub open_mark: &'a str,
    pub close_mark: &'a str,
    pub length: usize,
    pub end_line: usize,
}

const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "*", "/", "%", "~", "(", ")", "[", "]", "{", "}", ">", "<",
    "=", ".", ":", "|", ",", ";",
];

/// Reads the tag at the start of `tag`, which begins on `line` with `open`.
pub(super) fn lex<'a>(tag: &'a str, open: &str, mut line: usize) -> Parsed<Tag<'a>> {
    let close = if open == "{%" { "%}" } else { "}}" };
    let first_line = line;
    let mut rest = tag.get(2..).unwrap_or_default();
    let open_mark = rest.get(..1).filter(|mark| matches!(*mark, "-" | "+")).unwrap_or_default();
    rest = rest.get(open_mark.len()..).unwrap_or_default();
    let mut tokens = Vec::new();
    let mut depth = 0usize;
    let mut lead = 0;
    loop {
        let body = rest.trim_start();
        let skipped = newlines(rest.get(..rest.len() - body.len()).unwrap_or_default());
        line += skipped;
        lead += skipped;
        rest = body;
        let Some(first) = rest.chars().next() else {
            return fail(first_line, format!("the tag that starts here is never closed with `{close}`"));
        };
        if depth == 0 {
            let mark = rest.get(..1).filter(|mark| matches!(*mark, "-" | "+")).unwrap_or_default();
            if let Some(after) = rest.get(mark.len()..).and_then(|rest| rest.strip_prefix(close)) {
                let length = tag.len() - after.len();
                return Ok(Tag { tokens, open_mark, close_mark: mark, length, end_line: line });
            }
        }
        let (kind, length) = if first == '"' || first == '\'' {
            let Some(length) = string_length(rest, first) else {
                return fail(line, "a string in this tag is never closed");
            };
            let inner = rest.get(1..length - 1).unwrap_or_default();
            match unescape(inner) {
                Some(text) => (Kind::Str(text), length),
                None => {
                    return fail(
                        line,
                        format!("a string holds an escape that Python does not know: {inner:?}"),
                    );
                }
            }
        } else if first.is_ascii_digit() {
            (Kind::Number, number_length(rest, tokens.last().is_some_and(|token| token.text == ".")))
        } else if first == '_' || first.is_alphabetic() {
            (Kind::Name, rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len()))
        } else {
            match OPERATORS.iter().find(|op| rest.starts_with(**op)) {
                Some(op) => (Kind::Op, op.len()),
                None => return fail(line, format!("unexpected character {first:?}")),
            }
        };
        let (text, after) = rest.split_at(length);
        if kind == Kind::Op {
            match text {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => match depth.checked_sub(1) {
                    Some(less) => depth = less,
                    None => return fail(line, format!("unexpected `{text}`")),
                },
                _ => {}
            }
        }
        tokens.push(Token { kind, text, lead, line });
        line += newlines(text);
        // newlines within a string are carried by the token after it
        lead = newlines(text);
        rest = after;
    }
}

fn string_length(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The length of the number that starts `text`; after a dot only an index can follow, no fraction.
fn number_length(text: &str, after_dot: bool) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| {
        bytes
            .iter()
            .skip(from)
            .take_while(|b| b.is_ascii_alphanumeric() && !matches!(b, b'e' | b'E') || **b == b'_')
            .count()
    };
    if matches!(bytes.get(1), Some(b'x' | b'X' | b'o' | b'O' | b'b' | b'B')) {
        return bytes.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
    }
    let mut length = digits(0);
    if after_dot {
        return length;
    }
    if bytes.get(length) == Some(&b'.') && bytes.get(length + 1).is_some_and(u8::is_ascii_digit) {
        length += 1 + digits(length + 1);
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        if bytes.get(length + 1 + sign).is_some_and(u8::is_ascii_digit) {
            length += 1 + sign + digits(length + 1 + sign);
        }
    }
    length
}

/// Python's escapes in a string literal; an unknown one keeps its backslash. `None` for one cut short.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut high: Option<u32> = None;
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let hex = |chars: &mut std::iter::Peekable<std::str::Chars>, digits: usize| {
            (0..digits).try_fold(0u32, |value, _| Some((value << 4) | chars.next()?.to_digit(16)?))
        };
        let code = match chars.next()? {
            '\n' => continue,
            c @ ('\\' | '\'' | '"') => c as u32,
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            'x' => hex(&mut chars, 2)?,
            'u' => hex(&mut chars, 4)?,
            'U' => hex(&mut chars, 8)?,
            c @ '0'..='7' => {
                let mut value = c.to_digit(8)?;
                for _ in 0..2 {
                    let Some(digit) = chars.peek().and_then(|c| c.to_digit(8)) else { break };
                    value = value * 8 + digit;
                    chars.next();
                }
                value
            }
            other => {
                out.push('\\');
                out.push(other);
                continue;
            }
        };
        match (high.take(), code) {
            (Some(high), 0xDC00..=0xDFFF) => {
                out.push(char::from_u32(0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00))?);
                continue;
            }
            (Some(_), _) => out.push('\u{FFFD}'),
            (None, _) => {}
        }
        match code {
            0xD800..=0xDBFF if chars.peek() == Some(&'\\') => high = Some(code),
            0xD800..=0xDFFF => out.push('\u{FFFD}'),
            _ => out.push(char::from_u32(code)?),
        }
    }
    if high.is_some() {
        out.push('\u{FFFD}');
    }
    Some(out)
}
