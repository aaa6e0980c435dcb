//! Rewrites a template's source from jinja2's dialect to minijinja's, line for line.
//!
//! minijinja parses almost the same language, but its operators and methods are its own. Here every tag is parsed
//! with jinja2's grammar and printed again with operators, slices, method calls and container literals spelled as
//! filters (`a + b` becomes `a|__add(b)`), which [`ops`](super::ops) and [`methods`](super::methods) define as
//! Python does, and with a bound on what they may allocate. Text, comments and raw blocks are copied. Each tag
//! keeps its count of newlines, so that line numbers in errors are the template's own.

use super::expression::Parser;
use super::lexer::{Kind, lex};

/// Where and why a template does not parse.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub line: usize,
    pub what: String,
}

pub(super) type Parsed<T> = Result<T, SyntaxError>;

/// How many `if`s and `elif`s may stand around one place; each is a level of minijinja's tree.
const MAX_BRANCHES: usize = 200;

/// The whole template in minijinja's dialect.
pub(super) fn rewrite(source: &str) -> Parsed<String> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    // jinja2 drops one newline at the end of the template.
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut out = String::with_capacity(source.len() * 2);
    let mut rest = source;
    let mut line = 1;
    // the `elif`s so far of each open `if`
    let mut branches: Vec<usize> = Vec::new();
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
                None => {
                    let (used, keyword) = rewrite_tag(&mut out, tag, open, line)?;
                    match keyword {
                        "if" => branches.push(0),
                        "endif" => drop(branches.pop()),
                        "elif" => branches.last_mut().into_iter().for_each(|count| *count += 1),
                        _ => {}
                    }
                    if branches.len() + branches.iter().sum::<usize>() > MAX_BRANCHES {
                        return fail(
                            line,
                            format!("`if`s and their branches nest more than {MAX_BRANCHES} deep"),
                        );
                    }
                    used
                }
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

pub(super) fn newlines(text: &str) -> usize {
    text.bytes().filter(|&b| b == b'\n').count()
}

pub(super) fn fail<T>(line: usize, what: impl Into<String>) -> Parsed<T> {
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

/// Rewrites the tag at the start of `source`; returns its length in bytes and the statement's keyword.
fn rewrite_tag<'a>(out: &mut String, source: &'a str, open: &str, line: usize) -> Parsed<(usize, &'a str)> {
    let tag = lex(source, open, line)?;
    let mut parser = Parser::new(&tag.tokens, tag.end_line);
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
    let keyword = tag.tokens.first().filter(|_| open == "{%").map_or("", |token| token.text);
    Ok((tag.length, keyword))
}

impl Parser<'_> {
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
                let mut marks = self.tokens.iter().skip(self.at).filter(|token| token.kind == Kind::Op);
                // without a value it is a block, whose filters may follow
                let block =
                    marks.find(|token| matches!(token.text, "=" | "|")).is_none_or(|token| token.text == "|");
                if block {
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
            other => {
                return fail(self.line(), format!("the statement `{other}` is not known in chat templates"));
            }
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
}
