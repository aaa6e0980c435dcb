//! `hybriddna`: byte pairs, but for what stands between `<dna>` and `</dna>`, which is cut into six bases at a time.

use super::bpe::{Bpe, Scratch};
use super::vocab::{TokenId, Vocabulary};

const OPEN: &str = "<dna>";
const CLOSE: &str = "</dna>";
const UNKNOWN: &str = "<oov>";
/// Bases of a token. The last ones of a sequence are filled up with adenine.
const BASES: usize = 6;
/// Files write it behind bases, so that these are not taken for a word of the same letters.
const MARK: &str = "\u{e000}";

/// A byte-pair model that knows bases.
pub(super) struct Dna {
    pub bpe: Box<Bpe>,
    /// The tokens of [`OPEN`], [`CLOSE`] and [`UNKNOWN`]; without one of them all text is words.
    tags: Option<[TokenId; 3]>,
}

impl Dna {
    pub fn new(bpe: Box<Bpe>, vocab: &Vocabulary) -> Dna {
        let id = |tag: &str| vocab.id(tag.as_bytes());
        let tags = id(OPEN).zip(id(CLOSE)).zip(id(UNKNOWN));
        Dna { bpe, tags: tags.map(|((open, close), unknown)| [open, close, unknown]) }
    }

    /// Appends the ids of `text`.
    pub fn encode(&self, vocab: &Vocabulary, text: &str, scratch: &mut Scratch, ids: &mut Vec<TokenId>) {
        let Some([open, close, unknown]) = self.tags else {
            return self.bpe.encode(vocab, text, scratch, ids);
        };
        let mut rest = text;
        while let Some((before, inside)) = rest.split_once(OPEN) {
            self.bpe.encode(vocab, before, scratch, ids);
            ids.push(open);
            let (sequence, after) = match inside.split_once(CLOSE) {
                Some((sequence, after)) => (sequence, Some(after)),
                None => (inside, None),
            };
            for bases in sequence.as_bytes().chunks(BASES) {
                let mut text = bases.to_ascii_uppercase();
                text.resize(BASES, b'A');
                text.extend_from_slice(MARK.as_bytes());
                ids.push(vocab.id(&text).unwrap_or(unknown));
            }
            let Some(after) = after else { return };
            ids.push(close);
            rest = after;
        }
        self.bpe.encode(vocab, rest, scratch, ids);
    }

    /// The text of a token without what marks it as bases: such tokens stand behind [`UNKNOWN`].
    pub fn unmarked<'a>(&self, id: TokenId, text: &'a [u8]) -> &'a [u8] {
        match self.tags {
            Some([.., unknown]) if id > unknown => text.strip_suffix(MARK.as_bytes()).unwrap_or(text),
            _ => text,
        }
    }
}
