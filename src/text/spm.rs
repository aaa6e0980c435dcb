//! SentencePiece's byte-pair model: neighbours whose joined text is a token are joined, best score first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::vocab::{TokenId, Vocabulary};

/// How a space is spelled.
const SPACE: &str = "▁";
/// No symbol.
const NONE: u32 = u32::MAX;

/// The model's memory, and what is known of its vocabulary.
pub(super) struct Spm {
    /// Whether no token has a `▁` behind another character. Then no pair of symbols joins two words, and words can be
    /// encoded by themselves.
    words_apart: bool,
}

/// Buffers that words share.
#[derive(Default)]
struct Scratch {
    symbols: Vec<Symbol>,
    heap: BinaryHeap<Pair>,
}

impl Spm {
    pub fn new(vocab: &Vocabulary) -> Spm {
        let apart = |id: TokenId| {
            let text = vocab.text(id).unwrap_or_default();
            word_starts(text).next().is_none()
        };
        Spm { words_apart: (0..vocab.len() as TokenId).all(apart) }
    }

    /// Appends the ids of `text`, whose spaces are spelled `▁` already and which is shorter than 4 GiB.
    ///
    /// Characters without a token become their `<0xNN>` tokens, else one-byte tokens, else `unknown`. Returns the first
    /// byte that has none of them.
    pub fn encode(
        &self,
        vocab: &Vocabulary,
        unknown: Option<TokenId>,
        text: &str,
        ids: &mut Vec<TokenId>,
    ) -> Option<u8> {
        let mut scratch = Scratch::default();
        let mut missing = None;
        let mut start = 0;
        let ends = word_starts(text.as_bytes()).filter(|_| self.words_apart).chain([text.len()]);
        for end in ends {
            let word = text.get(start..end).unwrap_or_default();
            missing = missing.or(encode_word(vocab, unknown, word, &mut scratch, ids));
            start = end;
        }
        missing
    }
}

/// Where a `▁` stands behind another character.
fn word_starts(text: &[u8]) -> impl Iterator<Item = usize> {
    let space = SPACE.as_bytes();
    let starts = text.windows(space.len()).enumerate().filter(move |&(_, window)| window == space);
    starts
        .map(|(at, _)| at)
        .filter(move |&at| at > 0 && !text.get(..at).is_some_and(|text| text.ends_with(space)))
}

fn encode_word(
    vocab: &Vocabulary,
    unknown: Option<TokenId>,
    text: &str,
    scratch: &mut Scratch,
    ids: &mut Vec<TokenId>,
) -> Option<u8> {
    let Scratch { symbols, heap } = scratch;
    symbols.clear();
    heap.clear();
    symbols.extend(text.char_indices().zip(0u32..).map(|((start, c), at)| Symbol {
        start: start as u32,
        len: c.len_utf8() as u32,
        before: at.wrapping_sub(1),
        after: at + 1,
    }));
    if let Some(last) = symbols.last_mut() {
        last.after = NONE;
    }
    let slice = |start: u32, len: u32| {
        text.as_bytes().get(start as usize..start as usize + len as usize).unwrap_or_default()
    };
    let offer = |symbols: &[Symbol], heap: &mut BinaryHeap<Pair>, left: u32| {
        let Some(&Symbol { start, len, after, .. }) = symbols.get(left as usize) else { return };
        let Some(right) = symbols.get(after as usize) else { return };
        if let Some(token) = vocab.id(slice(start, len + right.len)) {
            heap.push(Pair { score: Score(vocab.score(token)), left, len: len + right.len });
        }
    };
    for left in 0..symbols.len() as u32 {
        offer(symbols, heap, left);
    }
    while let Some(pair) = heap.pop() {
        let Some(&Symbol { len, before, after, .. }) = symbols.get(pair.left as usize) else { continue };
        let Some(&right) = symbols.get(after as usize) else { continue };
        // A symbol that was joined to another has length 0; one that grew makes another pair.
        if len == 0 || len + right.len != pair.len {
            continue;
        }
        if let Some(left) = symbols.get_mut(pair.left as usize) {
            (left.len, left.after) = (pair.len, right.after);
        }
        if let Some(gone) = symbols.get_mut(after as usize) {
            gone.len = 0;
        }
        if let Some(next) = symbols.get_mut(right.after as usize) {
            next.before = pair.left;
        }
        offer(symbols, heap, before);
        offer(symbols, heap, pair.left);
    }
    let mut missing = None;
    for symbol in symbols.iter().filter(|symbol| symbol.len > 0) {
        let text = slice(symbol.start, symbol.len);
        if let Some(id) = vocab.id(text) {
            ids.push(id);
            continue;
        }
        for &byte in text {
            match vocab.byte_token(byte).or_else(|| vocab.id(&[byte])).or(unknown) {
                Some(id) => ids.push(id),
                None => missing = missing.or(Some(byte)),
            }
        }
    }
    missing
}

#[derive(Clone, Copy)]
struct Symbol {
    start: u32,
    /// In bytes; 0 once it is joined to the one before it.
    len: u32,
    before: u32,
    after: u32,
}

/// A score, in an order that is total whatever a file holds.
#[derive(Clone, Copy)]
struct Score(f32);

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        // 0.0 and -0.0 are one score.
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Score {}

/// Two neighbours that a token joins: the best score first, then the leftmost.
#[derive(PartialEq, Eq)]
struct Pair {
    score: Score,
    left: u32,
    len: u32,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.cmp(&other.score).then(other.left.cmp(&self.left)).then(self.len.cmp(&other.len))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
