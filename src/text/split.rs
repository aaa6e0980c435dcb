//! Splits text into words, by hand where it pays and else by pattern.
//!
//! A split is a list of ends: each piece reaches from the end before it to its own. The hand-written splitters follow
//! llama.cpp's, which differ from the regexes that they stand for in corners; so do these.

use regex_automata::meta::{BuildError, Regex};
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};

use super::pre::{Spaces, Stage};
use super::unicode::{Class, is_han};

/// How [`Stage::Words`] reads: a word is letters, with one character before them that is neither letter, digit nor
/// line break.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    /// What a word consists of.
    pub letters: Class,
    /// At most so many digits together.
    pub digits: usize,
    /// Runs of Han ideographs are words of their own, and contractions belong to the word before them.
    pub han: bool,
}

/// The stages of a pre-tokenizer, patterns compiled.
pub(super) struct Splitter {
    stages: Vec<Compiled>,
}

enum Compiled {
    Hand(fn(Text<'_>, &mut Vec<u32>)),
    Words(Words),
    Classes(Regex, Spaces),
    Chars(Regex),
}

impl Splitter {
    /// Compiles the patterns; they are our own, so that an error is a fault of this file.
    pub fn new(stages: &[Stage]) -> Result<Splitter, Box<BuildError>> {
        let stages = stages.iter().map(|&stage| {
            Ok(match stage {
                Stage::Gpt2 => Compiled::Hand(gpt2),
                Stage::Words(words) => Compiled::Words(words),
                Stage::DigitGroups => Compiled::Hand(digit_groups),
                Stage::DigitCuts => Compiled::Hand(digit_cuts),
                Stage::Newlines => Compiled::Hand(newlines),
                Stage::Classes(alternatives, spaces) => {
                    Compiled::Classes(class_regex(alternatives, spaces)?, spaces)
                }
                Stage::Chars(pattern) => Compiled::Chars(Regex::new(pattern).map_err(Box::new)?),
            })
        });
        Ok(Splitter { stages: stages.collect::<Result<_, Box<BuildError>>>()? })
    }

    /// Splits `text`, which must be shorter than 4 GiB: the ends of the words go to `ends`.
    pub fn split(&self, text: &str, ends: &mut Vec<u32>, scratch: &mut Vec<u32>) {
        ends.clear();
        ends.push(text.len() as u32);
        for stage in &self.stages {
            scratch.clear();
            let mut start = 0;
            for &end in &*ends {
                let piece = text.get(start..end as usize).unwrap_or_default();
                let first = scratch.len();
                stage.split(piece, scratch);
                for end in scratch.iter_mut().skip(first) {
                    *end += start as u32;
                }
                start = end as usize;
            }
            std::mem::swap(ends, scratch);
        }
    }
}

impl Compiled {
    fn split(&self, piece: &str, ends: &mut Vec<u32>) {
        match self {
            Compiled::Hand(split) => split(Text(piece), ends),
            Compiled::Words(words) => words.split(Text(piece), ends),
            Compiled::Chars(regex) => {
                let matches = regex.find_iter(piece).map(|found| found.range());
                push_matches(matches, piece.len(), ends);
            }
            Compiled::Classes(regex, spaces) => {
                let first = ends.len();
                if piece.is_ascii() {
                    split_classes(regex, *spaces, piece.as_bytes(), ends);
                } else {
                    let classes: Vec<u8> = piece.chars().map(class_byte).collect();
                    split_classes(regex, *spaces, &classes, ends);
                    // From counts of characters to counts of bytes.
                    let (mut chars, mut seen) = (piece.chars(), 0);
                    for end in ends.iter_mut().skip(first) {
                        while seen < *end && chars.next().is_some() {
                            seen += 1;
                        }
                        *end = (piece.len() - chars.as_str().len()) as u32;
                    }
                }
            }
        }
    }
}

/// Pushes the ends of matches and of what lies between them.
fn push_matches(matches: impl Iterator<Item = std::ops::Range<usize>>, len: usize, ends: &mut Vec<u32>) {
    let mut last = 0;
    for found in matches {
        if found.start > last {
            ends.push(found.start as u32);
        }
        ends.push(found.end as u32);
        last = found.end;
    }
    if last < len {
        ends.push(len as u32);
    }
}

/// The byte that stands for a character in the text that category patterns run over.
fn class_byte(c: char) -> u8 {
    if c.is_ascii() {
        return c as u8;
    }
    match Class::of(c) {
        class if class.is(Class::WHITESPACE) => 0x0b,
        Class::NUMBER => 0xd1,
        Class::LETTER => 0xd2,
        Class::PUNCTUATION => 0xd3,
        Class::MARK => 0xd4,
        Class::SYMBOL => 0xd5,
        _ => 0xd0,
    }
}

/// Categories in patterns: what stands in their place inside brackets.
const CATEGORIES: [(&str, &str); 7] = [
    (r"\p{N}", r"\xD10-9"),
    (r"\p{L}", r"\xD2A-Za-z"),
    (r"\p{P}", r"\xD3!-\#%-*,-/:;?@\[-\]_{}"),
    (r"\p{M}", r"\xD4"),
    (r"\p{S}", r"\xD5$+<->^`|~"),
    (r"\p{L-az}", r"\xD2A-Z"),
    (r"\p{L-AZ}", r"\xD2a-z"),
];

/// Compiles alternatives over class bytes. Pattern 0 is the alternatives; pattern 1, where there is one, whitespace.
fn class_regex(alternatives: &[&str], spaces: Spaces) -> Result<Regex, Box<BuildError>> {
    let joined = alternatives.join("|");
    let (mut pattern, mut rest, mut inside) = (String::new(), joined.as_str(), false);
    while let Some(c) = rest.chars().next() {
        let category = CATEGORIES.iter().find(|(name, _)| rest.starts_with(name));
        let taken = match (c, category) {
            (_, Some((name, set))) => {
                pattern.push_str(&if inside { (*set).to_owned() } else { format!("[{set}]") });
                name.len()
            }
            ('\\', None) => {
                pattern.extend(rest.chars().take(2));
                2
            }
            _ => {
                inside = if inside { c != ']' } else { c == '[' };
                pattern.push(c);
                c.len_utf8()
            }
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    let patterns = [pattern.as_str(), r"\s+"];
    let used = if spaces == Spaces::Ignore { 1 } else { 2 };
    Regex::builder()
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .configure(Regex::config().utf8_empty(false))
        .build_many(patterns.get(..used).unwrap_or_default())
        .map_err(Box::new)
}

fn split_classes(regex: &Regex, spaces: Spaces, text: &[u8], ends: &mut Vec<u32>) {
    let is_space = |at: usize| text.get(at).is_some_and(|byte| matches!(byte, 9..=13 | b' '));
    let (mut at, mut last) = (0, 0);
    // A run of whitespace without line breaks that is being cut piecemeal need not be searched again.
    let mut known_run = 0;
    while at < text.len() {
        let (start, mut end) = if at + 1 < known_run {
            (at, known_run)
        } else {
            let Some(found) = regex.search(&Input::new(text).range(at..).anchored(Anchored::No)) else {
                break;
            };
            if found.pattern().as_usize() == 0 {
                known_run = 0;
            } else {
                known_run = found.end();
            }
            (found.start(), found.end())
        };
        if known_run > start {
            end = match spaces {
                Spaces::Cascade => start + cascade(end - start, end == text.len()),
                _ if end < text.len() && end - start > 1 && !is_space(end) => end - 1,
                _ => end,
            };
        }
        if start > last {
            ends.push(start as u32);
        }
        ends.push(end as u32);
        (at, last) = (end, end);
    }
    if last < text.len() {
        ends.push(text.len() as u32);
    }
}

/// The length of the piece that [`Spaces::Cascade`] takes off a run of `run` whitespace characters.
fn cascade(run: usize, at_end: bool) -> usize {
    let fits = |len: &usize| run > *len || (run == *len && at_end);
    [512, 256, 128, 64, 32, 16, 8, 4, 2].into_iter().find(fits).unwrap_or(1)
}

/// The text that a hand-written splitter reads, by byte position.
#[derive(Clone, Copy)]
struct Text<'a>(&'a str);

/// The character at a position; past the end, NUL of no class and length 0.
#[derive(Clone, Copy)]
struct At {
    c: char,
    class: Class,
    len: usize,
}

const SPACES_AND_WORDS: Class = Class::WHITESPACE.or(Class::LETTER).or(Class::NUMBER);

impl Text<'_> {
    fn len(self) -> usize {
        self.0.len()
    }

    #[inline]
    fn at(self, pos: usize) -> At {
        let c = match self.0.as_bytes().get(pos) {
            None => return At { c: '\0', class: Class::END, len: 0 },
            Some(&byte) if byte.is_ascii() => char::from(byte),
            Some(_) => self.0.get(pos..).and_then(|rest| rest.chars().next()).unwrap_or('\u{fffd}'),
        };
        At { c, class: Class::of(c), len: c.len_utf8() }
    }

    /// Past the run of characters of `class` from `pos`.
    #[inline]
    fn skip(self, mut pos: usize, class: Class) -> usize {
        loop {
            let at = self.at(pos);
            if !at.class.is(class) {
                return pos;
            }
            pos += at.len;
        }
    }

    /// Past the run of characters that are not of `class`.
    #[inline]
    fn skip_others(self, mut pos: usize, class: Class) -> usize {
        loop {
            let at = self.at(pos);
            if at.class == Class::END || at.class.is(class) {
                return pos;
            }
            pos += at.len;
        }
    }

    /// The length of an English contraction at `pos`, apostrophe included, or 0.
    fn contraction(self, pos: usize, any_case: bool) -> usize {
        let letter = |at: usize| {
            let byte = self.0.as_bytes().get(pos + at).copied().unwrap_or(0);
            if any_case { byte.to_ascii_lowercase() } else { byte }
        };
        match (letter(0), letter(1), letter(2)) {
            (b'\'', b's' | b't' | b'm' | b'd', _) => 2,
            (b'\'', b'r' | b'v', b'e') | (b'\'', b'l', b'l') => 3,
            _ => 0,
        }
    }

    /// Past the whitespace that makes a piece from `pos`: up to the last line break if `breaks` count, else all of it
    /// but for the last character where a word follows.
    fn skip_spaces(self, pos: usize, breaks: bool) -> usize {
        let (mut end, mut last, mut line_end) = (pos, pos, None);
        loop {
            let at = self.at(end);
            if !at.class.is(Class::WHITESPACE) {
                break;
            }
            last = end;
            end += at.len;
            if matches!(at.c, '\r' | '\n') {
                line_end = Some(end);
            }
        }
        match line_end {
            Some(line_end) if breaks => line_end,
            _ if last > pos && end < self.len() => last,
            _ => end,
        }
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)`
fn gpt2(text: Text<'_>, ends: &mut Vec<u32>) {
    let mut pos = 0;
    while pos < text.len() {
        let at = text.at(pos);
        let space = usize::from(at.c == ' ');
        let class = if space == 1 { text.at(pos + 1).class } else { at.class };
        let contraction = text.contraction(pos, false);
        pos = if contraction > 0 {
            pos + contraction
        } else if class.is(Class::LETTER) {
            text.skip(pos + space, Class::LETTER)
        } else if class.is(Class::NUMBER) {
            text.skip(pos + space, Class::NUMBER)
        } else if class != Class::END && !class.is(Class::WHITESPACE) {
            text.skip_others(pos + space, SPACES_AND_WORDS)
        } else {
            text.skip_spaces(pos, false)
        };
        ends.push(pos as u32);
    }
}

impl Words {
    fn split(self, text: Text<'_>, ends: &mut Vec<u32>) {
        let others = SPACES_AND_WORDS.or(self.letters);
        let mut pos = 0;
        while pos < text.len() {
            let at = text.at(pos);
            if !self.han {
                let contraction = text.contraction(pos, true);
                if contraction > 0 {
                    pos += contraction;
                    ends.push(pos as u32);
                    continue;
                }
            }
            if let Some(end) = self.word(text, pos, at) {
                pos = end;
            } else if at.class.is(Class::NUMBER) {
                for _ in 0..self.digits {
                    let digit = text.at(pos);
                    pos += if digit.class.is(Class::NUMBER) { digit.len } else { 0 };
                }
            } else {
                let space = usize::from(at.c == ' ');
                let class = if space == 1 { text.at(pos + 1).class } else { at.class };
                if class != Class::END && !class.is(others) {
                    pos = text.skip_others(pos + space, others);
                    while matches!(text.at(pos).c, '\r' | '\n') {
                        pos += 1;
                    }
                } else {
                    pos = text.skip_spaces(pos, true);
                }
            }
            ends.push(pos as u32);
        }
    }

    /// The end of the word that begins at `pos`, if one does.
    fn word(self, text: Text<'_>, pos: usize, at: At) -> Option<usize> {
        if matches!(at.c, '\r' | '\n') || at.class.is(Class::NUMBER) {
            return None;
        }
        let next = text.at(pos + at.len);
        if !self.han {
            let word = at.class.is(self.letters) || next.class.is(self.letters);
            return word.then(|| text.skip(pos + at.len, self.letters));
        }
        let is_letter = |at: At| at.class.is(Class::LETTER) && !is_han(at.c);
        let run = |mut pos, wanted: &dyn Fn(At) -> bool| {
            loop {
                let at = text.at(pos);
                if !wanted(at) {
                    return pos;
                }
                pos += at.len;
            }
        };
        if is_han(at.c) {
            return Some(run(pos, &|at| is_han(at.c)));
        }
        if !is_letter(at) && (at.class.is(Class::LETTER) || !is_letter(next)) {
            return None;
        }
        let end = run(pos + at.len, &is_letter);
        Some(end + text.contraction(end, true))
    }
}

/// Runs of digits, cut into threes from the right; text before a run goes with its first group.
fn digit_groups(text: Text<'_>, ends: &mut Vec<u32>) {
    let (mut pos, mut last) = (0, 0);
    while pos < text.len() {
        pos = text.skip_others(pos, Class::NUMBER);
        let mut left = text.0.get(pos..text.skip(pos, Class::NUMBER)).unwrap_or_default().chars().count();
        while left > 0 {
            pos += text.at(pos).len;
            left -= 1;
            if left.is_multiple_of(3) {
                ends.push(pos as u32);
                last = pos;
            }
        }
    }
    if last < text.len() {
        ends.push(text.len() as u32);
    }
}

/// `(?=(\d{3})+(?!\d))`: cuts before each digit that begins a whole number of threes up to the end of its run.
fn digit_cuts(text: Text<'_>, ends: &mut Vec<u32>) {
    let bytes = text.0.as_bytes();
    let mut pos = 0;
    while pos < bytes.len() {
        let digits = bytes.iter().skip(pos).take_while(|byte| byte.is_ascii_digit()).count();
        let first = if digits % 3 == 0 { 0 } else { digits % 3 };
        ends.extend((first..digits).step_by(3).map(|cut| (pos + cut) as u32).filter(|&cut| cut > 0));
        pos += digits;
        pos += bytes.iter().skip(pos).take_while(|byte| !byte.is_ascii_digit()).count();
    }
    ends.push(bytes.len() as u32);
}

/// `[^\n]+|[\n]+`
fn newlines(text: Text<'_>, ends: &mut Vec<u32>) {
    let bytes = text.0.as_bytes();
    let change = |(&a, &b): (&u8, &u8)| (a == b'\n') != (b == b'\n');
    let pairs = bytes.iter().zip(bytes.iter().skip(1));
    ends.extend(pairs.zip(1u32..).filter(|&(pair, _)| change(pair)).map(|(_, end)| end));
    ends.push(bytes.len() as u32);
}

#[cfg(test)]
mod tests {
    use super::super::pre::{self, PreTokenizer};
    use super::*;

    fn splitter(name: &str) -> Splitter {
        Splitter::new(PreTokenizer::named(name).unwrap().stages).unwrap()
    }

    fn split(name: &str, text: &str) -> Vec<String> {
        split_by(&splitter(name), text)
    }

    fn split_by(splitter: &Splitter, text: &str) -> Vec<String> {
        let (mut ends, mut scratch) = (Vec::new(), Vec::new());
        splitter.split(text, &mut ends, &mut scratch);
        let mut start = 0;
        ends.iter()
            .map(|&end| text[std::mem::replace(&mut start, end as usize)..end as usize].to_owned())
            .collect()
    }

    #[test]
    fn every_pre_tokenizer_compiles_and_loses_nothing() {
        let text = "It's  10,000.5 ½ \u{e9}t\u{301}é\r\n\n \t日本語カナ'RE don’t <sentinel:12>\u{3000}x\u{a0}\u{a0} 👩‍👩‍👧 ";
        for name in pre::names() {
            assert_eq!(split(name, text).concat(), text, "{name}");
            assert_eq!(split(name, " ").concat(), " ", "{name}");
        }
    }

    /// By llama.cpp's `unicode_regex_split` with the patterns of its `llama-vocab.cpp` (llama-cpp-sys-2 0.1.161): every name
    /// that it knows, and how many bytes each word of each text has.
    #[test]
    fn every_name_splits_as_in_llama_cpp() {
        #[derive(serde::Deserialize)]
        struct Splits {
            texts: Vec<String>,
            splits: Vec<Alike>,
        }
        #[derive(serde::Deserialize)]
        struct Alike {
            names: Vec<String>,
            words: Vec<Vec<usize>>,
        }
        let splits: Splits =
            serde_json::from_str(include_str!("../../tests/data/tokenizers/splits.json")).unwrap();
        let mut names: Vec<_> = splits.splits.iter().flat_map(|alike| &alike.names).collect();
        names.sort_unstable();
        assert_eq!(names, pre::names());
        for Alike { names, words } in &splits.splits {
            assert_eq!(words.len(), splits.texts.len());
            for name in names {
                let splitter = splitter(name);
                for (text, words) in splits.texts.iter().zip(words) {
                    let found: Vec<_> = split_by(&splitter, text).iter().map(String::len).collect();
                    assert_eq!(found, *words, "{name} {text:?}");
                }
            }
        }
    }

    #[test]
    fn words_as_the_models_were_trained_on_them() {
        assert_eq!(
            split("gpt-2", "It's  a\n\nday 12345"),
            ["It", "'s", " ", " a", "\n", "\n", "day", " 12345"]
        );
        assert_eq!(
            split("llama-bpe", "IT'S 12345 a\n\n b"),
            ["IT", "'S", " ", "123", "45", " a", "\n\n", " b"]
        );
        assert_eq!(split("qwen2", "a+=12;\n x"), ["a", "+=", "1", "2", ";\n", " x"]);
        assert_eq!(split("tekken", "aBCd HTTPServer"), ["a", "BCd", " HTTPServer"]);
        assert_eq!(split("superbpe", "1234567 by"), ["1", "234", "567", " by"]);
        assert_eq!(split("afmoe", "12345 by"), ["12", "345", " by"]);
        assert_eq!(split("jais-2", "a      b"), ["a", "    ", " ", " b"]);
        assert_eq!(split("gemma4", "a b\n\nc"), ["a b", "\n\n", "c"]);
    }
}
