//! Expressions: parsed with jinja2's grammar and printed again for minijinja.

use super::lexer::{Kind, Token};
use super::source::{Parsed, fail};

/// How deeply expressions may nest; minijinja's own parser stops near 150 levels of its own counting.
const MAX_NESTING: usize = 60;

/// How many operators, filters, attributes and the like one tag may hold: each may be a level of minijinja's tree,
/// which it walks by recursion.
const MAX_LINKS: usize = 400;

/// Attributes that jinja2 finds on a dict before it looks for a key of that name.
const DICT_METHODS: [&str; 11] =
    ["clear", "copy", "fromkeys", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"];

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

/// Prints a tag's tokens again while it parses them.
pub(super) struct Parser<'a> {
    pub tokens: &'a [Token<'a>],
    pub at: usize,
    end_line: usize,
    depth: usize,
    links: usize,
}

/// A printed operand.
pub(super) struct Operand {
    pub text: String,
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
    pub fn new(tokens: &'a [Token<'a>], end_line: usize) -> Self {
        Self { tokens, at: 0, end_line, depth: 0, links: 0 }
    }

    pub fn peek(&self) -> Option<&'a Token<'a>> {
        self.tokens.get(self.at)
    }

    pub fn is(&self, text: &str) -> bool {
        self.peek().is_some_and(|token| token.text == text && !matches!(token.kind, Kind::Str(_)))
    }

    fn next_is(&self, text: &str) -> bool {
        self.tokens
            .get(self.at + 1)
            .is_some_and(|token| token.text == text && !matches!(token.kind, Kind::Str(_)))
    }

    /// Takes the token `text` and returns the newlines before it, if it is next.
    pub fn take(&mut self, text: &str) -> Option<String> {
        self.is(text).then(|| self.advance().map(|token| "\n".repeat(token.lead)).unwrap_or_default())
    }

    pub fn advance(&mut self) -> Option<&'a Token<'a>> {
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

    pub fn line(&self) -> usize {
        self.peek().map_or(self.end_line, |token| token.line)
    }

    pub fn unexpected<T>(&self, expected: &str) -> Parsed<T> {
        match self.peek() {
            Some(token) => fail(token.line, format!("expected {expected}, found `{}`", token.text)),
            None => fail(self.end_line, format!("expected {expected}, found the end of the tag")),
        }
    }

    pub fn expect(&mut self, text: &str) -> Parsed<String> {
        match self.take(text) {
            Some(lead) => Ok(lead),
            None => self.unexpected(&format!("`{text}`")),
        }
    }

    pub fn name(&mut self) -> Parsed<&'a str> {
        match self.peek() {
            Some(token) if token.kind == Kind::Name => {
                self.at += 1;
                Ok(token.text)
            }
            _ => self.unexpected("a name"),
        }
    }

    /// Copies tokens until `stop`, which must come.
    pub fn copy_until(&mut self, stop: &str, out: &mut String) -> Parsed<()> {
        while !self.is(stop) {
            let Some(token) = self.advance() else { return self.unexpected(&format!("`{stop}`")) };
            out.extend(std::iter::repeat_n('\n', token.lead));
            out.push_str(token.text);
            out.push(' ');
        }
        Ok(())
    }

    /// One expression, or several with commas between them, which make a tuple.
    pub fn tuple(&mut self, with_if: bool) -> Parsed<String> {
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

    pub fn expression(&mut self) -> Parsed<Operand> {
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
            } else if let Some(op) =
                ["==", "!=", "<", "<=", ">", ">=", "in"].into_iter().find(|op| self.is(op))
            {
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
            (Some(index), 0) => Ok(Operand {
                text: format!("{}{lead}[{index}{end}]", value.closed()),
                piped: false,
                constant: false,
            }),
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
    pub fn arguments(&mut self) -> Parsed<String> {
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
    pub fn filters(&mut self, constant: &mut bool) -> Parsed<String> {
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
