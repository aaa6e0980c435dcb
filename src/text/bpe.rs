//! Byte-pair encoding: merges by rank, in words that a pre-tokenizer cut.
//!
//! A word begins as one symbol for each byte (or character, in vocabularies spelled in UTF-8). Of all neighbours that
//! a rule joins, those with the lowest rank are joined first, the leftmost where ranks are equal. Symbols are token
//! ids, or numbers past them for parts of rules that are no tokens.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::bytes;
use super::pre::{Flags, PreTokenizer};
use super::split::Splitter;
use super::strings::{Hash, Index};
use super::vocab::{TokenId, Vocabulary};
use crate::gguf::{Metadata, Strings};
use crate::{Error, Result};

pub(super) const MERGES_KEY: &str = "tokenizer.ggml.merges";
/// No symbol: text that neither a token nor a rule has.
const NONE: u32 = u32::MAX;
/// Up to this many symbols, looking through them all for the best pair beats keeping a heap.
const SHORT_WORD: usize = 32;

/// A byte-pair model.
pub(super) struct Bpe {
    pub flags: Flags,
    splitter: Splitter,
    merges: Merges,
    /// The symbol of each byte, where words begin as bytes; else that of each one-byte character.
    bytes: [u32; 256],
    /// Texts of the symbols past the vocabulary, and how to find them.
    parts: Strings,
    part_index: Index,
    tokens: u32,
}

impl Bpe {
    /// Reads the rules. Where `merges` may be absent, there are none.
    pub fn new(metadata: &Metadata, vocab: &Vocabulary, pre: &PreTokenizer, optional: bool) -> Result<Bpe> {
        let splitter = Splitter::new(pre.stages).map_err(|error| Error::PreTokenizerPattern {
            name: pre.names.concat(),
            reason: error.to_string(),
        })?;
        let none = Strings::new();
        let rules = match metadata.strings(MERGES_KEY)? {
            Some(rules) => rules,
            None if optional => &none,
            None => metadata.require(MERGES_KEY)?,
        };
        let mut bpe = Bpe {
            flags: pre.flags,
            splitter,
            merges: Merges::with_capacity(rules.len()),
            bytes: [NONE; 256],
            parts: Strings::new(),
            part_index: Index::with_capacity(0),
            tokens: vocab.len() as u32,
        };
        let (mut joined, mut last) = (Vec::new(), NONE);
        for (rank, rule) in rules.iter().enumerate() {
            // The first character may be a space itself.
            let Some(space) = rule.iter().skip(1).position(|&byte| byte == b' ') else { continue };
            let (left, right) = rule.split_at(space + 1);
            let right = right.get(1..).unwrap_or_default();
            if right.is_empty() {
                continue;
            }
            joined.clear();
            joined.extend_from_slice(left);
            joined.extend_from_slice(right);
            let pair = (bpe.symbol(vocab, left), bpe.symbol(vocab, right));
            // Rules are mostly in the order of the tokens that they make.
            let near = [last, last.wrapping_add(1)].into_iter().find(|&id| vocab.text(id) == Some(&joined));
            let merged = near.unwrap_or_else(|| bpe.symbol(vocab, &joined));
            last = merged;
            bpe.merges.insert(pair, Merge { rank: rank as u32, symbol: merged });
        }
        for byte in 0..=255u8 {
            let mut spelled = [0; 4];
            let text = match bpe.flags.byte_encoded {
                true => bytes::spell(byte).encode_utf8(&mut spelled).as_bytes(),
                false => &[byte],
            };
            let symbol = bpe.known_symbol(vocab, text).unwrap_or(NONE);
            if let Some(entry) = bpe.bytes.get_mut(usize::from(byte)) {
                *entry = symbol;
            }
        }
        Ok(bpe)
    }

    fn known_symbol(&self, vocab: &Vocabulary, text: &[u8]) -> Option<u32> {
        let part = || self.part_index.get(text, &self.parts).map(|part| self.tokens.saturating_add(part));
        vocab.id(text).or_else(part)
    }

    fn symbol(&mut self, vocab: &Vocabulary, text: &[u8]) -> u32 {
        if let Some(symbol) = self.known_symbol(vocab, text) {
            return symbol;
        }
        let part = self.parts.len() as u32;
        self.parts.push(text);
        self.part_index.insert(text, part, &self.parts);
        self.tokens.saturating_add(part)
    }

    /// Appends the ids of `text`, which is spelled as the flags say.
    pub fn encode(&self, vocab: &Vocabulary, text: &str, scratch: &mut Scratch, ids: &mut Vec<TokenId>) {
        let Scratch { ends, other_ends, words, cache } = scratch;
        self.splitter.split(text, ends, other_ends);
        let mut start = 0;
        for &end in &*ends {
            let word = text.get(start..end as usize).unwrap_or_default();
            start = end as usize;
            if self.flags.metaspace && word.bytes().any(|byte| byte != b'\n') {
                self.encode_metaspace(vocab, word, words, cache, ids);
            } else {
                self.encode_cached(vocab, word, words, cache, ids);
            }
        }
    }

    /// Encodes a line as words that each begin with `▁`.
    fn encode_metaspace(
        &self,
        vocab: &Vocabulary,
        line: &str,
        words: &mut Words,
        cache: &mut Cache,
        ids: &mut Vec<u32>,
    ) {
        let line = if line.starts_with('▁') { line.to_owned() } else { format!("▁{line}") };
        let mut start = 0;
        let cuts = line.match_indices('▁').map(|(at, _)| at).skip(1).chain([line.len()]);
        for end in cuts {
            self.encode_cached(vocab, line.get(start..end).unwrap_or_default(), words, cache, ids);
            start = end;
        }
    }

    fn encode_cached(
        &self,
        vocab: &Vocabulary,
        word: &str,
        words: &mut Words,
        cache: &mut Cache,
        ids: &mut Vec<u32>,
    ) {
        if let Some(known) = cache.get(word.as_bytes()) {
            ids.extend_from_slice(known);
            return;
        }
        let first = ids.len();
        self.encode_word(vocab, word, words, ids);
        cache.insert(word.as_bytes(), ids.get(first..).unwrap_or_default());
    }

    fn encode_word(&self, vocab: &Vocabulary, word: &str, words: &mut Words, ids: &mut Vec<TokenId>) {
        let whole_newlines = self.flags.whole_newlines && word.bytes().all(|byte| byte == b'\n');
        if (self.flags.ignore_merges || whole_newlines) && word.len() <= MAX_WHOLE_WORD {
            let token = if self.flags.byte_encoded {
                words.spelled.clear();
                words.spelled.extend(word.bytes().map(bytes::spell));
                vocab.id(words.spelled.as_bytes())
            } else {
                vocab.id(word.as_bytes())
            };
            if let Some(token) = token {
                ids.push(token);
                return;
            }
        }
        words.symbols.clear();
        if self.flags.byte_encoded {
            let symbols =
                word.bytes().zip(0..).map(|(byte, start)| Symbol { id: self.byte_symbol(byte), start });
            words.symbols.extend(symbols);
        } else {
            let symbols = word.char_indices().map(|(start, c)| {
                let id = match u8::try_from(c) {
                    Ok(byte) if byte.is_ascii() => self.byte_symbol(byte),
                    _ => self.known_symbol(vocab, c.encode_utf8(&mut [0; 4]).as_bytes()).unwrap_or(NONE),
                };
                Symbol { id, start: start as u32 }
            });
            words.symbols.extend(symbols);
        }
        if words.symbols.len() <= SHORT_WORD {
            self.merge_short(words);
        } else {
            self.merge_long(words);
        }
        let mut symbols = words.symbols.iter().peekable();
        while let Some(&Symbol { id, start }) = symbols.next() {
            if id < self.tokens {
                ids.push(id);
                continue;
            }
            let end = symbols.peek().map_or(word.len(), |next| next.start as usize);
            self.push_bytes(vocab, word.as_bytes().get(start as usize..end).unwrap_or_default(), ids);
        }
    }

    #[inline]
    fn byte_symbol(&self, byte: u8) -> u32 {
        self.bytes.get(usize::from(byte)).copied().unwrap_or(NONE)
    }

    /// A symbol that is no token, byte by byte; bytes without a token are left out, as llama.cpp leaves them out.
    fn push_bytes(&self, vocab: &Vocabulary, text: &[u8], ids: &mut Vec<TokenId>) {
        for &byte in text {
            if self.flags.byte_encoded {
                // Single bytes of the spelling are looked up, and those beyond ASCII are tokens in no sane vocabulary.
                let mut spelled = [0; 4];
                let spelled = bytes::spell(byte).encode_utf8(&mut spelled).as_bytes();
                ids.extend(spelled.iter().filter_map(|&byte| vocab.id(&[byte])));
            } else {
                ids.extend(vocab.byte_token(byte));
            }
        }
    }

    /// Joins pairs, looking each time through the ranks of them all: quadratic, and fast for short words.
    fn merge_short(&self, words: &mut Words) {
        let Words { symbols, pairs, .. } = words;
        pairs.clear();
        pairs.extend(symbols.windows(2).map(|pair| match pair {
            [a, b] => self.merges.get(a.id, b.id),
            _ => Merge::NEVER,
        }));
        loop {
            let best = pairs.iter().enumerate().min_by_key(|(_, merge)| merge.rank);
            let Some((at, &merge)) = best.filter(|(_, merge)| merge.rank != Merge::NEVER.rank) else {
                return;
            };
            symbols.remove(at + 1);
            pairs.remove(at);
            let id = |at: usize| symbols.get(at).map_or(NONE, |symbol| symbol.id);
            let (before, after) = (at.checked_sub(1).map_or(NONE, id), id(at + 1));
            if let Some(symbol) = symbols.get_mut(at) {
                symbol.id = merge.symbol;
            }
            if let Some(pair) = pairs.get_mut(at) {
                *pair = self.merges.get(merge.symbol, after);
            }
            if let Some(pair) = at.checked_sub(1).and_then(|at| pairs.get_mut(at)) {
                *pair = self.merges.get(before, merge.symbol);
            }
        }
    }

    /// Joins pairs in the order of a heap over a linked list, in O(n log n).
    fn merge_long(&self, words: &mut Words) {
        let Words { symbols, links, heap, .. } = words;
        let last = symbols.len() as u32 - 1;
        links.clear();
        links.extend((0..=last).map(|at| Link {
            before: at.wrapping_sub(1),
            after: if at == last { NONE } else { at + 1 },
            merge: Merge::NEVER,
        }));
        heap.clear();
        for at in 0..last {
            self.offer(symbols, links, heap, at);
        }
        while let Some(Reverse((rank, at))) = heap.pop() {
            let Some(&Link { before, after, merge }) = links.get(at as usize) else { continue };
            // A pair that has changed since carries another rank, and one that is gone none.
            if merge.rank != rank {
                continue;
            }
            let Some(&Link { after: beyond, .. }) = links.get(after as usize) else { continue };
            if let Some(symbol) = symbols.get_mut(at as usize) {
                symbol.id = merge.symbol;
            }
            if let Some(gone) = links.get_mut(after as usize) {
                *gone = Link { before: NONE, after: NONE, merge: Merge::NEVER };
            }
            if let Some(symbol) = symbols.get_mut(after as usize) {
                symbol.start = NONE;
            }
            if let Some(link) = links.get_mut(at as usize) {
                *link = Link { before, after: beyond, merge: Merge::NEVER };
            }
            if let Some(link) = links.get_mut(beyond as usize) {
                link.before = at;
            }
            self.offer(symbols, links, heap, before);
            self.offer(symbols, links, heap, at);
        }
        symbols.retain(|symbol| symbol.start != NONE);
    }

    /// Puts the pair that begins at `at` on the heap if a rule joins it.
    fn offer(&self, symbols: &[Symbol], links: &mut [Link], heap: &mut Heap, at: u32) {
        let Some(link) = links.get_mut(at as usize) else { return };
        let id = |at: u32| symbols.get(at as usize).map_or(NONE, |symbol| symbol.id);
        link.merge = self.merges.get(id(at), id(link.after));
        if link.merge.rank != Merge::NEVER.rank {
            heap.push(Reverse((link.merge.rank, at)));
        }
    }
}

/// No token is longer; it spares a giant word its spelling.
const MAX_WHOLE_WORD: usize = 1 << 16;

/// What a rule does: its rank, and the symbol that it makes.
#[derive(Clone, Copy)]
struct Merge {
    rank: u32,
    symbol: u32,
}

impl Merge {
    const NEVER: Merge = Merge { rank: u32::MAX, symbol: NONE };
}

/// The rules by the pair that they join: open addressing, at most three quarters full.
struct Merges {
    hash: Hash,
    slots: Vec<(u64, Merge)>,
}

/// The pair of two [`NONE`], which no rule joins.
const FREE: u64 = u64::MAX;

impl Merges {
    fn with_capacity(rules: usize) -> Merges {
        let slots = (rules + rules / 3 + 1).next_power_of_two();
        Merges { hash: Hash::new(), slots: vec![(FREE, Merge::NEVER); slots] }
    }

    #[inline]
    fn get(&self, left: u32, right: u32) -> Merge {
        let pair = u64::from(left) << 32 | u64::from(right);
        self.slots.get(self.find(pair)).map_or(Merge::NEVER, |&(_, merge)| merge)
    }

    /// Adds a rule; of several for one pair the first stays.
    fn insert(&mut self, (left, right): (u32, u32), merge: Merge) {
        let pair = u64::from(left) << 32 | u64::from(right);
        let at = self.find(pair);
        if let Some(slot) = self.slots.get_mut(at)
            && slot.0 == FREE
        {
            *slot = (pair, merge);
        }
    }

    #[inline]
    fn find(&self, pair: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = self.hash.word(pair) as usize & mask;
        while let Some(&(key, _)) = self.slots.get(at)
            && key != pair
            && key != FREE
        {
            at = (at + 1) & mask;
        }
        at
    }
}

type Heap = BinaryHeap<Reverse<(u32, u32)>>;

#[derive(Clone, Copy)]
struct Symbol {
    id: u32,
    /// Where it begins in the word; [`NONE`] once it is joined to the one before it.
    start: u32,
}

#[derive(Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
    /// What joins the symbol here to the next.
    merge: Merge,
}

/// Buffers that one call of `encode` after another uses.
#[derive(Default)]
pub(super) struct Scratch {
    ends: Vec<u32>,
    other_ends: Vec<u32>,
    words: Words,
    cache: Cache,
}

impl Scratch {
    /// Lets go of what a giant text needed.
    pub fn shrink(&mut self) {
        let Words { spelled, symbols, pairs, links, heap } = &mut self.words;
        self.ends.clear();
        self.ends.shrink_to(KEPT);
        self.other_ends.clear();
        self.other_ends.shrink_to(KEPT);
        spelled.clear();
        spelled.shrink_to(KEPT);
        pairs.clear();
        pairs.shrink_to(KEPT);
        symbols.clear();
        symbols.shrink_to(KEPT);
        links.clear();
        links.shrink_to(KEPT);
        heap.clear();
        heap.shrink_to(KEPT);
    }
}

/// Elements that buffers keep between calls.
const KEPT: usize = 1 << 14;

#[derive(Default)]
struct Words {
    spelled: String,
    symbols: Vec<Symbol>,
    pairs: Vec<Merge>,
    links: Vec<Link>,
    heap: Heap,
}

/// Short words that were encoded lately, each in the one slot that its hash names.
struct Cache {
    hash: Hash,
    slots: Vec<CachedWord>,
}

/// Half a megabyte: the working vocabulary of a text, in the second-level cache of any processor.
const CACHED_WORDS: usize = 1 << 13;
const CACHED_BYTES: usize = 30;
const CACHED_IDS: usize = 8;

#[derive(Clone, Copy)]
struct CachedWord {
    len: u8,
    count: u8,
    word: [u8; CACHED_BYTES],
    ids: [u32; CACHED_IDS],
}

impl Default for Cache {
    fn default() -> Cache {
        Cache { hash: Hash::new(), slots: Vec::new() }
    }
}

impl Cache {
    fn get(&self, word: &[u8]) -> Option<&[u32]> {
        if word.is_empty() || word.len() > CACHED_BYTES {
            return None;
        }
        let slot = self.slots.get(self.hash.bytes(word) as usize & (CACHED_WORDS - 1))?;
        (slot.word.get(..usize::from(slot.len)) == Some(word))
            .then(|| slot.ids.get(..usize::from(slot.count)))?
    }

    fn insert(&mut self, word: &[u8], ids: &[u32]) {
        if self.slots.is_empty() {
            let free = CachedWord { len: 0, count: 0, word: [0; CACHED_BYTES], ids: [0; CACHED_IDS] };
            self.slots.resize(CACHED_WORDS, free);
        }
        let at = self.hash.bytes(word) as usize & (CACHED_WORDS - 1);
        if let Some(slot) = self.slots.get_mut(at)
            && let Some(room) = slot.word.get_mut(..word.len())
            && let Some(id_room) = slot.ids.get_mut(..ids.len())
        {
            room.copy_from_slice(word);
            id_room.copy_from_slice(ids);
            (slot.len, slot.count) = (word.len() as u8, ids.len() as u8);
        }
    }
}
