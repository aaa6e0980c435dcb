//! Finds special tokens in a text before anything else looks at it.

use super::special::PARTITIONING;
use super::trie::{ROOT, Trie};
use super::vocab::{TokenAttributes, TokenId, Vocabulary};

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment<'a> {
    Text(&'a str),
    Token(TokenId),
}

/// The special tokens of a vocabulary, longest first.
pub(super) struct Partition {
    tokens: Vec<Special>,
    /// Finds the positions in `tokens` of the texts that begin somewhere.
    texts: Trie,
    /// Whether some special token begins with a byte.
    first_bytes: [bool; 256],
}

struct Special {
    id: TokenId,
    text: String,
    attributes: TokenAttributes,
}

impl Partition {
    pub fn new(vocab: &Vocabulary) -> Partition {
        let mut tokens: Vec<_> = vocab
            .iter()
            .filter(|(.., attributes)| attributes.intersects(PARTITIONING))
            // A token that is no UTF-8 occurs in no text.
            .filter_map(|(id, text, attributes)| {
                Some(Special { id, text: String::from_utf8(text.to_vec()).ok()?, attributes })
            })
            .collect();
        tokens.sort_by_key(|special| std::cmp::Reverse(special.text.len()));
        let texts = Trie::new(tokens.iter().zip(0..).map(|(special, at)| (special.text.as_bytes(), at)));
        let mut first_bytes = [false; 256];
        for (byte, first) in (0..=255).zip(&mut first_bytes) {
            *first = texts.child(ROOT, byte).is_some();
        }
        Partition { tokens, texts, first_bytes }
    }

    /// Cuts `text` at special tokens: at the longest ones first, and at each from left to right. Without `parse`
    /// control and unknown tokens count as text.
    pub fn split<'a>(&self, text: &'a str, parse: bool) -> Vec<Fragment<'a>> {
        let mut fragments = vec![Fragment::Text(text)];
        fragments.retain(|_| !text.is_empty());
        let hidden = TokenAttributes::CONTROL.union(TokenAttributes::UNKNOWN);
        for special in self.present(text) {
            if parse || !special.attributes.intersects(hidden) {
                let cut = fragments.iter().any(|fragment| match fragment {
                    Fragment::Text(text) => text.contains(&special.text),
                    Fragment::Token(_) => false,
                });
                if cut {
                    fragments = special.cut(&fragments);
                }
            }
        }
        fragments
    }

    /// The special tokens whose text occurs somewhere, longest first.
    fn present(&self, text: &str) -> impl Iterator<Item = &Special> {
        let mut present = vec![false; self.tokens.len()];
        let bytes = text.as_bytes();
        for (start, &byte) in bytes.iter().enumerate() {
            if self.first_bytes.get(usize::from(byte)) == Some(&true) {
                for (_, at) in self.texts.prefixes(bytes.get(start..).unwrap_or_default()) {
                    if let Some(present) = present.get_mut(at as usize) {
                        *present = true;
                    }
                }
            }
        }
        self.tokens.iter().zip(present).filter(|(_, present)| *present).map(|(special, _)| special)
    }
}

impl Special {
    fn cut<'a>(&self, fragments: &[Fragment<'a>]) -> Vec<Fragment<'a>> {
        // What C's isspace calls a space.
        let is_space = |c: char| matches!(c, ' ' | '\t'..='\r');
        let mut cut = Vec::with_capacity(fragments.len() + 2);
        let push_text = |cut: &mut Vec<_>, text: &'a str| {
            if !text.is_empty() {
                cut.push(Fragment::Text(text));
            }
        };
        for &fragment in fragments {
            let Fragment::Text(mut rest) = fragment else {
                cut.push(fragment);
                continue;
            };
            while let Some((mut before, mut after)) = rest.split_once(&self.text) {
                if self.attributes.intersects(TokenAttributes::STRIP_LEFT) {
                    before = before.trim_end_matches(is_space);
                }
                if self.attributes.intersects(TokenAttributes::STRIP_RIGHT) {
                    after = after.trim_start_matches(is_space);
                }
                push_text(&mut cut, before);
                cut.push(Fragment::Token(self.id));
                rest = after;
            }
            push_text(&mut cut, rest);
        }
        cut
    }
}
