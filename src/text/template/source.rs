//! Rewrites a template's source from jinja2's dialect to minijinja's, line for line.
//!
//! minijinja parses almost the same language, but its operators and methods are its own. Here every tag is parsed
//! with jinja2's grammar and printed again with operators, slices, method calls and container literals spelled as
//! filters (`a + b` becomes `a|__add(b)`), which [`ops`](super::ops) and [`methods`](super::methods) define as
//! Python does, and with a bound on what they may allocate. Text, comments and raw blocks are copied. Each tag
//! keeps its count of newlines, so that line numbers in errors are the template's own.

/// Where and why a template does not parse.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub line: usize,
    pub what: String,
}

type Parsed<T> = Result<T, SyntaxError>;

/// How deeply expressions may nest; minijinja's own parser stops near 150 levels of its own counting.
const MAX_NESTING: usize = 60;

/// How many operators, filters, attributes and the like one tag may hold: each may be a level of minijinja's tree,
/// which it walks by recursion.
const MAX_LINKS: usize = 400;

/// Attributes that jinja2 finds on a dict before it looks for a key of that name.
const DICT_METHODS: [&str; 11] =
    ["clear", "copy", "fromkeys", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"];

/// The whole template in minijinja's dialect.
pub(super) fn rewrite(source: &str) -> Parsed<String> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    // jinja2 drops one newline at the end of the template.
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut out = String::with_capacity(source.len() * 2);
    let mut rest = source;
    let mut line = 1;
    while let Some((at, open)) = next_tag(rest) {
        let (text, tag) = rest.split_at(at);
        out.push_str(text);
        line += newlines(text);
        let used = match open {
            "{#" => match tag.find("#}") {
                Some(end) => copy(&mut out, tag, end + 2),
                None => return fail(line, "the comment that starts here is never closed with `#}`"),
            },
            _ => match raw_block(tag, open) {
                Some(Some(length)) => copy_raw(&mut out, tag, length),
                Some(None) => return fail(line, "the raw block that starts here has no `{% endraw %}`"),
                None => rewrite_tag(&mut out, tag, open, line)?,
            },
        };
        let (tag, after) = tag.split_at(used);
        line += newlines(tag);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn copy(out: &mut String, tag: &str, length: usize) -> usize {
    out.push_str(tag.split_at(length).0);
    length
}

/// Copies a raw block; jinja2 keeps the newline after `{% raw %}`, which minijinja does for `+%}`.
fn copy_raw(out: &mut String, tag: &str, length: usize) -> usize {
    let block = tag.split_at(length).0;
    match block.split_once("%}") {
        Some((open, body)) if !open.ends_with(['-', '+']) => out.extend([open, "+%}", body]),
        _ => out.push_str(block),
    }
    length
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|&b| b == b'\n').count()
}

fn fail<T>(line: usize, what: impl Into<String>) -> Parsed<T> {
    Err(SyntaxError { line, what: what.into() })
}

fn next_tag(text: &str) -> Option<(usize, &'static str)> {
    let mut from = 0;
    loop {
        let at = from + text.get(from..)?.find('{')?;
        match text.as_bytes().get(at + 1) {
            Some(b'{') => return Some((at, "{{")),
            Some(b'%') => return Some((at, "{%")),
            Some(b'#') => return Some((at, "{#")),
            _ => from = at + 1,
        }
    }
}

/// If a raw block starts here: its length in bytes through `{% endraw %}`, or `None` inside where that is missing.
fn raw_block(tag: &str, open: &str) -> Option<Option<usize>> {
    if open != "{%" {
        return None;
    }
    let body = bare_tag(tag, "raw")?;
    let mut from = tag.len() - body.len();
    loop {
        let Some(at) = tag.get(from..).and_then(|rest| rest.find("{%")) else { return Some(None) };
        from += at;
        if let Some(after) = tag.get(from..).and_then(|rest| bare_tag(rest, "endraw")) {
            return Some(Some(tag.len() - after.len()));
        }
        from += 2;
    }
}

/// What follows `{% name %}` at the start of `tag`.
fn bare_tag<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let rest = tag.strip_prefix("{%")?;
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).trim_start().strip_prefix(name)?.trim_start();
    rest.strip_prefix(['-', '+']).unwrap_or(rest).strip_prefix("%}")
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Name,
    Number,
    Str(String),
    Op,
}

#[derive(Clone, Debug)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    /// Newlines before the token.
    lead: usize,
    line: usize,
}

/// The tokens of a tag, the marks that control whitespace, and its length in bytes.
struct Tag<'a> {
    tokens: Vec<Token<'a>>,
    open_mark: &'a str,
    close_mark: &'a str,
    length: usize,
    end_line: usize,
}

const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "*", "/", "%", "~", "(", ")", "[", "]", "{", "}", ">", "<", "=",
    ".", ":", "|", ",", ";",
];

fn lex<'a>(tag: &'a str, open: &str, mut line: usize) -> Parsed<Tag<'a>> {
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
                None => return fail(line, format!("a string holds an escape that Python does not know: {inner:?}")),
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
        bytes.iter().skip(from).take_while(|b| b.is_ascii_alphanumeric() && !matches!(b, b'e' | b'E') || **b == b'_')
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

/// A string as a literal that minijinja reads.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

fn rewrite_tag(out: &mut String, source: &str, open: &str, line: usize) -> Parsed<usize> {
    let tag = lex(source, open, line)?;
    let mut parser = Parser { tokens: &tag.tokens, at: 0, end_line: tag.end_line, depth: 0, links: 0 };
    let text = if open == "{%" { parser.statement()? } else { parser.tuple(true)? };
    if let Some(token) = parser.peek() {
        return fail(token.line, format!("unexpected `{}`", token.text));
    }
    let wanted = newlines(source.get(..tag.length).unwrap_or_default());
    let missing = wanted.saturating_sub(newlines(&text));
    out.push_str(open);
    out.push_str(tag.open_mark);
    out.push(' ');
    out.push_str(&text);
    out.extend(std::iter::repeat_n('\n', missing));
    out.push(' ');
    out.push_str(tag.close_mark);
    out.push_str(if open == "{%" { "%}" } else { "}}" });
    Ok(tag.length)
}

/// Prints a tag's tokens again while it parses them.
struct Parser<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    end_line: usize,
    depth: usize,
    links: usize,
}

/// A printed operand.
struct Operand {
    text: String,
    /// It ends in filters of ours, so it needs parentheses before a subscript, attribute or call.
    piped: bool,
    /// It is made of literals only.
    constant: bool,
}

impl Operand {
    fn closed(self) -> String {
        if self.piped { format!("({})", self.text) } else { self.text }
    }
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token<'a>> {
        self.tokens.get(self.at)
    }

    fn is(&self, text: &str) -> bool {
        self.peek().is_some_and(|token| token.text == text && !matches!(token.kind, Kind::Str(_)))
    }

    fn next_is(&self, text: &str) -> bool {
        self.tokens.get(self.at + 1).is_some_and(|token| token.text == text && !matches!(token.kind, Kind::Str(_)))
    }

    /// Takes the token `text` and returns the newlines before it, if it is next.
    fn take(&mut self, text: &str) -> Option<String> {
        self.is(text).then(|| self.advance().map(|token| "\n".repeat(token.lead)).unwrap_or_default())
    }

    fn advance(&mut self) -> Option<&'a Token<'a>> {
        let token = self.peek();
        self.at += 1;
        token
    }

    /// Counts one more link of a chain.
    fn link(&mut self) -> Parsed<()> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return fail(self.line(), format!("one tag holds more than {MAX_LINKS} operators and filters"));
        }
        Ok(())
    }

    fn line(&self) -> usize {
        self.peek().map_or(self.end_line, |token| token.line)
    }

    fn unexpected<T>(&self, expected: &str) -> Parsed<T> {
        match self.peek() {
            Some(token) => fail(token.line, format!("expected {expected}, found `{}`", token.text)),
            None => fail(self.end_line, format!("expected {expected}, found the end of the tag")),
        }
    }

    fn expect(&mut self, text: &str) -> Parsed<String> {
        match self.take(text) {
            Some(lead) => Ok(lead),
            None => self.unexpected(&format!("`{text}`")),
        }
    }

    fn name(&mut self) -> Parsed<&'a str> {
        match self.peek() {
            Some(token) if token.kind == Kind::Name => {
                self.at += 1;
                Ok(token.text)
            }
            _ => self.unexpected("a name"),
        }
    }

    /// Copies tokens until `stop`, which must come.
    fn copy_until(&mut self, stop: &str, out: &mut String) -> Parsed<()> {
        while !self.is(stop) {
            let Some(token) = self.advance() else { return self.unexpected(&format!("`{stop}`")) };
            out.extend(std::iter::repeat_n('\n', token.lead));
            out.push_str(token.text);
            out.push(' ');
        }
        Ok(())
    }

    fn statement(&mut self) -> Parsed<String> {
        let keyword = self.name()?;
        let mut out = format!("{keyword} ");
        match keyword {
            "for" => {
                self.copy_until("in", &mut out)?;
                out += &self.expect("in")?;
                out += "in ";
                out += &self.tuple(false)?;
                if let Some(lead) = self.take("if") {
                    out += &lead;
                    out += " if ";
                    out += &self.expression()?.text;
                }
                if let Some(lead) = self.take("recursive") {
                    out += &lead;
                    out += " recursive";
                }
            }
            "if" | "elif" => out += &self.tuple(true)?,
            "set" => {
                let target_start = self.at;
                if !self.tokens.iter().skip(self.at).any(|token| token.text == "=" && token.kind == Kind::Op) {
                    self.copy_set_block(&mut out)?;
                } else if self.tokens.iter().skip(self.at).take_while(|t| t.text != "=").any(|t| t.text == "|") {
                    self.copy_set_block(&mut out)?;
                } else {
                    self.copy_until("=", &mut out)?;
                    out += &self.expect("=")?;
                    let dotted =
                        self.tokens.iter().take(self.at).skip(target_start).any(|token| token.text == ".");
                    let value = self.tuple(true)?;
                    // a namespace lives on between iterations, so what goes in is checked
                    out += &if dotted { format!("= ({value})|__stored") } else { format!("= {value}") };
                }
            }
            "macro" => {
                out += self.name()?;
                out += &self.parameters()?;
            }
            "call" => {
                if self.is("(") {
                    out += &self.parameters()?;
                    out.push(' ');
                }
                out += &self.expression()?.text;
            }
            "filter" => {
                out += self.name()?;
                if self.is("(") {
                    out += &self.arguments()?;
                }
                out += &self.filters(&mut true)?;
            }
            "with" => {
                while self.peek().is_some() {
                    self.copy_until("=", &mut out)?;
                    out += &self.expect("=")?;
                    out += "= ";
                    out += &self.expression()?.text;
                    if let Some(lead) = self.take(",") {
                        out += &lead;
                        out += ", ";
                    }
                }
            }
            // transformers marks the model's own words with it; a scope, and nothing else here
            "generation" => return Ok("with ".into()),
            "endgeneration" => return Ok("endwith ".into()),
            "do" | "autoescape" => out += &self.expression()?.text,
            "else" | "endfor" | "endif" | "endset" | "endmacro" | "endcall" | "endfilter" | "endwith"
            | "endautoescape" | "break" | "continue" => {
                // jinja2 takes a name after some of these
                while self.advance().is_some() {}
            }
            other => return fail(self.line(), format!("the statement `{other}` is not known in chat templates")),
        }
        Ok(out)
    }

    fn copy_set_block(&mut self, out: &mut String) -> Parsed<()> {
        while let Some(token) = self.peek().filter(|token| token.text != "|") {
            out.push_str(token.text);
            self.at += 1;
        }
        *out += &self.filters(&mut true)?;
        Ok(())
    }

    /// `(a, b=1)` of a macro or call block.
    fn parameters(&mut self) -> Parsed<String> {
        let mut out = self.expect("(")?;
        out.push('(');
        while !self.is(")") {
            out += self.name()?;
            if let Some(lead) = self.take("=") {
                out += &lead;
                out.push('=');
                out += &self.expression()?.text;
            }
            match self.take(",") {
                Some(lead) => out += &format!("{lead}, "),
                None if self.is(")") => {}
                None => return self.unexpected("`,` or `)`"),
            }
        }
        out += &self.expect(")")?;
        out.push(')');
        Ok(out)
    }

    /// One expression, or several with commas between them, which make a tuple.
    fn tuple(&mut self, with_if: bool) -> Parsed<String> {
        let mut items = Vec::new();
        let mut comma = false;
        loop {
            if comma && (self.peek().is_none() || self.is("if") || self.is("recursive")) {
                break;
            }
            let item = if with_if { self.expression()? } else { self.or()? };
            let lead = self.take(",");
            items.push(item.text + lead.as_deref().unwrap_or_default());
            if lead.is_none() {
                break;
            }
            comma = true;
        }
        if comma { Ok(format!("({},)|__built", items.join(", "))) } else { Ok(items.concat()) }
    }

    fn expression(&mut self) -> Parsed<Operand> {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return fail(self.line(), format!("expressions nest more than {MAX_NESTING} deep"));
        }
        let mut value = self.or()?;
        while let Some(lead) = self.take("if") {
            self.link()?;
            let test = self.or()?;
            value.text += &format!("{lead} if {}", test.text);
            if let Some(lead) = self.take("else") {
                let other = self.expression()?;
                value.text += &format!("{lead} else {}", other.text);
            }
            value.constant = false;
        }
        self.depth -= 1;
        Ok(value)
    }

    fn or(&mut self) -> Parsed<Operand> {
        let mut left = self.and()?;
        while let Some(lead) = self.take("or") {
            self.link()?;
            left.text += &format!("{lead} or {}", self.and()?.text);
            left.constant = false;
        }
        Ok(left)
    }

    fn and(&mut self) -> Parsed<Operand> {
        let mut left = self.not()?;
        while let Some(lead) = self.take("and") {
            self.link()?;
            left.text += &format!("{lead} and {}", self.not()?.text);
            left.constant = false;
        }
        Ok(left)
    }

    fn not(&mut self) -> Parsed<Operand> {
        let mut prefix = String::new();
        while let Some(lead) = self.take("not") {
            self.link()?;
            prefix += &format!("{lead}not ");
        }
        let mut value = self.compare()?;
        if !prefix.is_empty() {
            value.text = prefix + &value.text;
            value.constant = false;
        }
        Ok(value)
    }

    fn compare(&mut self) -> Parsed<Operand> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let (op, lead) = if self.is("not") && self.next_is("in") {
                ("not in", self.expect("not")? + &self.expect("in")?)
            } else if let Some(op) = ["==", "!=", "<", "<=", ">", ">=", "in"].into_iter().find(|op| self.is(op)) {
                (op, self.expect(op)?)
            } else {
                break;
            };
            self.link()?;
            rest.push((op, lead, self.sum()?));
        }
        let mut operators = rest.into_iter();
        let text = match (operators.next(), operators.as_slice()) {
            (None, _) => return Ok(first),
            (Some((op, lead, right)), []) => {
                let (left, right) = (first.text, right.text);
                match op {
                    "==" | "!=" => format!("{left}{lead} {op} {right}"),
                    "in" => format!("{left}{lead}|__in({right})"),
                    "not in" => format!("(not {left}{lead}|__in({right}))"),
                    _ => format!("{left}{lead}|__compare(\"{op}\", {right})"),
                }
            }
            (Some(second), _) => std::iter::once(second)
                .chain(operators)
                .fold(first.text, |text, (op, lead, right)| format!("{text}{lead} {op} {}", right.text)),
        };
        Ok(Operand { text, piped: false, constant: false })
    }

    /// A chain of operators of one precedence, as a chain of filters.
    fn chain(
        &mut self,
        operators: &[(&str, &str)],
        operand: impl Fn(&mut Self) -> Parsed<Operand>,
    ) -> Parsed<Operand> {
        let mut left = operand(self)?;
        while let Some((op, filter)) = operators.iter().find(|(op, _)| self.is(op)) {
            self.link()?;
            let lead = self.expect(op)?;
            let right = operand(self)?;
            left.text += &format!("{lead}|{filter}({})", right.text);
            left.piped = true;
            left.constant = false;
        }
        Ok(left)
    }

    fn sum(&mut self) -> Parsed<Operand> {
        self.chain(&[("+", "__add"), ("-", "__sub")], Self::concat)
    }

    fn concat(&mut self) -> Parsed<Operand> {
        self.chain(&[("~", "__concat")], Self::product)
    }

    fn product(&mut self) -> Parsed<Operand> {
        self.chain(&[("*", "__mul"), ("//", "__floordiv"), ("/", "__div"), ("%", "__mod")], Self::power)
    }

    fn power(&mut self) -> Parsed<Operand> {
        self.chain(&[("**", "__pow")], Self::unary)
    }

    fn unary(&mut self) -> Parsed<Operand> {
        let mut value = self.signed()?;
        let mut constant = value.constant;
        let filters = self.filters(&mut constant)?;
        value.piped |= !filters.is_empty();
        value.text += &filters;
        value.constant = constant;
        Ok(value)
    }

    /// A primary with its subscripts, attributes and calls, and the signs before it.
    fn signed(&mut self) -> Parsed<Operand> {
        if let Some(lead) = self.take("-") {
            self.depth += 1;
            if self.depth > MAX_NESTING {
                return fail(self.line(), format!("expressions nest more than {MAX_NESTING} deep"));
            }
            let value = self.signed()?;
            self.depth -= 1;
            // filters after it apply to the negated value
            let constant = value.constant;
            return Ok(Operand { text: format!("{lead}(-{})", value.closed()), piped: false, constant });
        }
        while self.take("+").is_some() {}
        let primary = self.primary()?;
        self.postfix(primary)
    }

    fn primary(&mut self) -> Parsed<Operand> {
        let Some(token) = self.advance() else {
            self.at -= 1;
            return self.unexpected("an expression");
        };
        let lead = "\n".repeat(token.lead);
        let plain = |text: String, constant| Ok(Operand { text, piped: false, constant });
        match (&token.kind, token.text) {
            (Kind::Name, "and" | "or" | "if" | "else" | "is" | "in" | "not") => {
                self.at -= 1;
                self.unexpected("an expression")
            }
            (Kind::Name, name) => {
                plain(lead + name, matches!(name, "true" | "True" | "false" | "False" | "none" | "None"))
            }
            (Kind::Number, number) => plain(lead + number, true),
            (Kind::Str(first), _) => {
                let mut text = first.clone();
                while let Some(Token { kind: Kind::Str(more), .. }) = self.peek() {
                    text += more;
                    self.at += 1;
                }
                plain(lead + &quote(&text), true)
            }
            (Kind::Op, "(") => {
                let (items, comma, constant, end) = self.items(")")?;
                let inner = items.join(", ");
                if items.is_empty() {
                    plain(format!("{lead}({end})"), true)
                } else if comma {
                    self.built(format!("{lead}({inner},{end})"), constant)
                } else {
                    plain(format!("{lead}({inner}{end})"), constant)
                }
            }
            (Kind::Op, "[") => {
                let (items, _, constant, end) = self.items("]")?;
                self.built(format!("{lead}[{}{end}]", items.join(", ")), constant)
            }
            (Kind::Op, "{") => {
                let mut items = Vec::new();
                let mut constant = true;
                while !self.is("}") {
                    let key = self.expression()?;
                    let lead = self.expect(":")?;
                    let value = self.expression()?;
                    constant &= key.constant && value.constant;
                    let item = format!("{}{lead}: {}", key.text, value.text);
                    match self.take(",") {
                        Some(lead) => items.push(item + &lead),
                        None if self.is("}") => items.push(item),
                        None => return self.unexpected("`,` or `}`"),
                    }
                }
                let end = self.expect("}")?;
                self.built(format!("{lead}{{{}{end}}}", items.join(", ")), constant)
            }
            _ => {
                self.at -= 1;
                self.unexpected("an expression")
            }
        }
    }

    /// A container literal: its size and depth are checked when it holds anything but literals.
    fn built(&self, text: String, constant: bool) -> Parsed<Operand> {
        let text = if constant { text } else { text + "|__built" };
        Ok(Operand { text, piped: !constant, constant })
    }

    /// Expressions with commas between them up to `close`: their texts, whether a comma was seen, whether all are
    /// literals, and the newlines before `close`.
    fn items(&mut self, close: &str) -> Parsed<(Vec<String>, bool, bool, String)> {
        let (mut items, mut comma, mut constant) = (Vec::new(), false, true);
        while !self.is(close) {
            let item = self.expression()?;
            constant &= item.constant;
            match self.take(",") {
                Some(lead) => {
                    comma = true;
                    items.push(item.text + &lead);
                }
                None if self.is(close) => items.push(item.text),
                None => return self.unexpected(&format!("`,` or `{close}`")),
            }
        }
        let end = self.expect(close)?;
        Ok((items, comma, constant, end))
    }

    fn postfix(&mut self, mut value: Operand) -> Parsed<Operand> {
        loop {
            if self.is(".") || self.is("[") || self.is("(") {
                self.link()?;
            }
            if let Some(lead) = self.take(".") {
                let Some(token) = self.advance() else {
                    self.at -= 1;
                    return self.unexpected("an attribute");
                };
                match token.kind {
                    Kind::Name if self.is("(") => {
                        let arguments = self.arguments()?;
                        let arguments = match arguments.trim_start().strip_prefix('(') {
                            Some(")") => String::from(")"),
                            Some(rest) => format!(", {rest}"),
                            None => return self.unexpected("`(`"),
                        };
                        value.text += &format!("{lead}|__method(\"{}\"{arguments}", token.text);
                        value.piped = true;
                    }
                    Kind::Name if DICT_METHODS.contains(&token.text) => {
                        value.text += &format!("{lead}|__attribute(\"{}\")", token.text);
                        value.piped = true;
                    }
                    Kind::Name | Kind::Number => {
                        let text = format!("{}{lead}.{}", value.closed(), token.text);
                        value = Operand { text, piped: false, constant: false };
                    }
                    _ => {
                        self.at -= 1;
                        return self.unexpected("an attribute");
                    }
                }
            } else if self.is("[") {
                value = self.subscript(value)?;
            } else if self.is("(") {
                let arguments = self.arguments()?;
                value = Operand { text: value.closed() + &arguments, piped: false, constant: false };
            } else {
                return Ok(value);
            }
            value.constant = false;
        }
    }

    fn subscript(&mut self, value: Operand) -> Parsed<Operand> {
        let lead = self.expect("[")?;
        let mut parts = vec![None];
        while !self.is("]") {
            if self.take(":").is_some() {
                parts.push(None);
            } else if parts.last().is_some_and(Option::is_none) {
                let part = self.expression()?.text;
                parts.pop();
                parts.push(Some(part));
            } else {
                return self.unexpected("`]`");
            }
        }
        let end = self.expect("]")?;
        let mut parts = parts.into_iter();
        match (parts.next().flatten(), parts.len()) {
            (Some(index), 0) => {
                Ok(Operand { text: format!("{}{lead}[{index}{end}]", value.closed()), piped: false, constant: false })
            }
            (start, 1 | 2) => {
                let none = || String::from("none");
                let start = start.unwrap_or_else(none);
                let stop = parts.next().flatten().unwrap_or_else(none);
                let step = parts.next().flatten().unwrap_or_else(none);
                let text = format!("{}{lead}|__slice({start}, {stop}, {step}{end})", value.text);
                Ok(Operand { text, piped: true, constant: false })
            }
            _ => self.unexpected("an index or a slice"),
        }
    }

    /// `(a, *b, c=1, **d)`.
    fn arguments(&mut self) -> Parsed<String> {
        let mut out = self.expect("(")?;
        out.push('(');
        while !self.is(")") {
            if let Some(lead) = self.take("**") {
                out += &format!("{lead}**");
            } else if let Some(lead) = self.take("*") {
                out += &format!("{lead}*");
            } else if self.next_is("=") {
                out += &format!("{}=", self.name()?);
                out += &self.expect("=")?;
            }
            out += &self.expression()?.text;
            match self.take(",") {
                Some(lead) => out += &format!("{lead}, "),
                None if self.is(")") => {}
                None => return self.unexpected("`,` or `)`"),
            }
        }
        out += &self.expect(")")?;
        // a trailing comma would read as an empty argument once a method's name stands before the first
        let trimmed = out.trim_end_matches([' ', ',', '\n']);
        let cut = out.split_off(trimmed.len());
        out.extend(cut.chars().filter(|c| *c == '\n'));
        out.push(')');
        Ok(out)
    }

    /// The filters and tests after an operand.
    fn filters(&mut self, constant: &mut bool) -> Parsed<String> {
        let mut out = String::new();
        loop {
            if self.is("|") || self.is("is") {
                self.link()?;
            }
            if let Some(lead) = self.take("|") {
                out += &format!("{lead}|{}", self.dotted_name()?);
                if self.is("(") {
                    out += &self.arguments()?;
                }
            } else if let Some(lead) = self.take("is") {
                out += &format!("{lead} is ");
                if self.take("not").is_some() {
                    out += "not ";
                }
                out += &self.dotted_name()?;
                if self.is("(") {
                    out += &self.arguments()?;
                } else if self.starts_test_argument() {
                    let primary = self.primary()?;
                    out += &format!("({})", self.postfix(primary)?.text);
                }
            } else {
                return Ok(out);
            }
            *constant = false;
        }
    }

    fn dotted_name(&mut self) -> Parsed<String> {
        let mut name = self.name()?.to_owned();
        while self.take(".").is_some() {
            name += &format!(".{}", self.name()?);
        }
        Ok(name)
    }

    fn starts_test_argument(&self) -> bool {
        self.peek().is_some_and(|token| match token.kind {
            Kind::Name => !matches!(token.text, "else" | "or" | "and" | "if" | "is" | "not" | "in"),
            Kind::Number | Kind::Str(_) => true,
            Kind::Op => matches!(token.text, "[" | "{"),
        })
    }
}
