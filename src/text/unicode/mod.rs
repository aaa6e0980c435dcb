//! What the tokenizers need to know about characters.

mod tables;

use std::sync::OnceLock;

use tables::{CATEGORY_RUNS, DECOMPOSITION_RUNS, LOWER_CASE_RUNS};

/// The general category of a character, as a set of one bit; `WHITESPACE` is set beside it.
///
/// The end of a text has the empty class, which is in no set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Class(u8);

impl Class {
    /// No character at all.
    pub const END: Class = Class(0);
    /// `\p{N}`
    pub const NUMBER: Class = Class(0x02);
    /// `\p{L}`
    pub const LETTER: Class = Class(0x04);
    /// `\p{M}`
    pub const MARK: Class = Class(0x10);
    /// `\p{P}`
    pub const PUNCTUATION: Class = Class(0x20);
    /// `\p{S}`
    pub const SYMBOL: Class = Class(0x40);
    /// `\p{C}`
    pub const CONTROL: Class = Class(0x80);
    /// `\s`; it takes the bit of `\p{Z}`, which nothing asks for.
    pub const WHITESPACE: Class = Class(0x08);

    /// Whether the two sets meet.
    #[inline]
    pub const fn is(self, other: Class) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets together.
    pub const fn or(self, other: Class) -> Class {
        Class(self.0 | other.0)
    }

    /// The class of `c`.
    #[inline]
    pub fn of(c: char) -> Class {
        let pages = Pages::get();
        let c = c as usize;
        let page = pages.index.get(c >> PAGE_BITS).copied().unwrap_or(0);
        let at = (usize::from(page) << PAGE_BITS) | (c & (PAGE - 1));
        Class(pages.classes.get(at).copied().unwrap_or(0))
    }
}

const PAGE_BITS: usize = 7;
const PAGE: usize = 1 << PAGE_BITS;
const UNICODE_END: usize = 0x11_0000;
/// `\p{Z}` in the table of categories.
const SEPARATOR_BIT: u8 = 0x08;

/// A table in two steps: equal pages of 128 characters are stored once, some 40 KB in all.
struct Pages {
    index: Vec<u16>,
    classes: Vec<u8>,
}

impl Pages {
    fn get() -> &'static Pages {
        static PAGES: OnceLock<Pages> = OnceLock::new();
        PAGES.get_or_init(Pages::build)
    }

    fn build() -> Pages {
        let mut flat = Vec::with_capacity(UNICODE_END);
        for (i, &run) in CATEGORY_RUNS.iter().enumerate() {
            let end = CATEGORY_RUNS.get(i + 1).map_or(UNICODE_END, |&next| (next >> 8) as usize);
            flat.resize(end, run as u8 & !SEPARATOR_BIT);
        }
        for (c, class) in flat.iter_mut().enumerate() {
            if is_whitespace(c as u32) {
                *class |= Class::WHITESPACE.0;
            }
        }
        let (mut index, mut classes) = (Vec::new(), Vec::<u8>::new());
        let mut seen = std::collections::HashMap::new();
        for page in flat.chunks(PAGE) {
            let number = *seen.entry(page).or_insert_with(|| {
                classes.extend_from_slice(page);
                (classes.len() / PAGE - 1) as u16
            });
            index.push(number);
        }
        Pages { index, classes }
    }
}

const fn is_whitespace(c: u32) -> bool {
    matches!(c, 0x09..=0x0d | 0x20 | 0x85 | 0xa0 | 0x1680 | 0x2000..=0x200a | 0x2028 | 0x2029 | 0x202f | 0x205f | 0x3000)
}

/// The simple lower case of `c`, or `c`.
pub(super) fn to_lower(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    let code = c as u32;
    let run = LOWER_CASE_RUNS.partition_point(|&(first, ..)| first <= code);
    // Runs of step 2 interleave, so the one that holds `code` may begin before its neighbour.
    let near = LOWER_CASE_RUNS.get(run.saturating_sub(2)..run).unwrap_or_default();
    near.iter()
        .find(|&&(first, last, step, _)| code <= last && (code - first).is_multiple_of(step))
        .and_then(|&(.., add)| char::from_u32(code.wrapping_add_signed(add)))
        .unwrap_or(c)
}

/// The first character of the canonical decomposition of `c`: its letter without the accents.
pub(super) fn base_letter(c: char) -> char {
    let code = c as u32;
    let run = DECOMPOSITION_RUNS.partition_point(|&(first, ..)| first <= code);
    match run.checked_sub(1).and_then(|run| DECOMPOSITION_RUNS.get(run)) {
        Some(&(_, last, base)) if code <= last => char::from_u32(base).unwrap_or(c),
        _ => c,
    }
}

/// Whether `c` is a Chinese character that BERT's tokenizer sets apart as a word of its own.
///
/// The sixth range begins 0x100 late, as it does in the tokenizer that the models were trained with.
pub(super) fn is_bert_chinese(c: char) -> bool {
    matches!(c as u32,
        0x4e00..=0x9fff | 0x3400..=0x4dbf | 0x20000..=0x2a6df | 0x2a700..=0x2b73f | 0x2b740..=0x2b81f
        | 0x2b920..=0x2ceaf | 0xf900..=0xfaff | 0x2f800..=0x2fa1f)
}

/// Whether `c` is a Han ideograph.
pub(super) fn is_han(c: char) -> bool {
    matches!(c as u32,
        0x4e00..=0x9fff | 0x3400..=0x4dbf | 0x20000..=0x2a6df | 0x2a700..=0x2ebef | 0xf900..=0xfaff
        | 0x2f800..=0x2fa1f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_well_known_characters() {
        for (c, class) in [
            ('a', Class::LETTER),
            ('7', Class::NUMBER),
            ('½', Class::NUMBER),
            ('\u{301}', Class::MARK),
            ('!', Class::PUNCTUATION),
            ('+', Class::SYMBOL),
            ('語', Class::LETTER),
            ('\u{3000}', Class::WHITESPACE),
        ] {
            assert_eq!(Class::of(c), class, "{c:?}");
        }
        assert!(Class::of('\n').is(Class::WHITESPACE) && Class::of('\n').is(Class::CONTROL));
        assert!(!Class::of('\u{200b}').is(Class::WHITESPACE), "a zero-width space is none");
    }

    #[test]
    fn lower_case_and_base_letters() {
        for (c, lower) in
            [('Q', 'q'), ('É', 'é'), ('Ā', 'ā'), ('ā', 'ā'), ('Я', 'я'), ('中', '中'), ('Ÿ', 'ÿ')]
        {
            assert_eq!(to_lower(c), lower, "{c:?}");
        }
        for (c, base) in [('é', 'e'), ('Ǖ', 'U'), ('e', 'e'), ('中', '中'), ('ñ', 'n')] {
            assert_eq!(base_letter(c), base, "{c:?}");
        }
    }
}
