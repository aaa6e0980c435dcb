//! SentencePiece's unigram model: of all ways to cut a text into tokens, the one whose scores sum highest.

use super::charsmap::Charsmap;
use super::trie::Trie;
use super::vocab::{TokenAttributes, TokenId, Vocabulary};
use crate::Result;
use crate::gguf::Metadata;

/// How much worse than the worst token an unknown character scores.
const UNKNOWN_PENALTY: f32 = 10.0;

/// A unigram model.
pub(super) struct Unigram {
    tokens: Trie,
    /// Tokens of the user's, which normalization leaves alone.
    user_defined: Trie,
    charsmap: Option<Charsmap>,
    unknown_score: f32,
    spaces: Spaces,
}

/// What becomes of spaces.
#[derive(Clone, Copy, Debug)]
struct Spaces {
    add_prefix: bool,
    /// Runs of spaces become one, and those at the ends none.
    merge: bool,
}

impl Unigram {
    pub fn new(metadata: &Metadata, vocab: &Vocabulary, add_space_prefix: bool) -> Result<Unigram> {
        let usable =
            TokenAttributes::NORMAL.union(TokenAttributes::USER_DEFINED).union(TokenAttributes::UNUSED);
        let with = |wanted: TokenAttributes| {
            vocab
                .iter()
                .filter(move |(.., attributes)| attributes.intersects(wanted))
                .map(|(id, text, _)| (text, id))
        };
        let lowest = vocab
            .iter()
            .filter(|(.., attributes)| attributes.intersects(TokenAttributes::NORMAL))
            .map(|(id, ..)| vocab.score(id))
            .fold(f32::MAX, |lowest, score| if score < lowest { score } else { lowest });
        Ok(Unigram {
            tokens: Trie::new(with(usable)),
            user_defined: Trie::new(with(TokenAttributes::USER_DEFINED)),
            charsmap: Charsmap::from_metadata(metadata)?,
            unknown_score: lowest - UNKNOWN_PENALTY,
            spaces: Spaces {
                add_prefix: add_space_prefix,
                merge: metadata.bool("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(false),
            },
        })
    }

    /// Appends the ids of `text`; a run of characters that no token has is one `unknown`.
    pub fn encode(
        &self,
        vocab: &Vocabulary,
        unknown: TokenId,
        text: &str,
        ids: &mut Vec<TokenId>,
    ) -> Result<()> {
        let text = self.normalize(text)?;
        if text.is_empty() {
            return Ok(());
        }
        // For each end of a prefix: the last token of its best cut, where that token begins, and the sum of scores.
        let mut best = vec![(unknown, 0_usize, f64::MIN); text.len() + 1];
        if let Some(start) = best.first_mut() {
            start.2 = 0.0;
        }
        let offer = |best: &mut [(TokenId, usize, f64)], end: usize, token, start, score| {
            if let Some(champion) = best.get_mut(end)
                && score > champion.2
            {
                *champion = (token, start, score);
            }
        };
        let mut start = 0;
        while let Some(rest) = text.get(start..).filter(|rest| !rest.is_empty()) {
            let char_len = rest.first().map_or(1, |&byte| utf8_len(byte)).min(rest.len());
            let score = best.get(start).map_or(f64::MIN, |&(.., score)| score);
            let mut whole_char = false;
            for (len, token) in self.tokens.prefixes(rest) {
                whole_char |= len == char_len;
                let user_defined = vocab.attributes(token).intersects(TokenAttributes::USER_DEFINED);
                let token_score = if user_defined { 0.0 } else { f64::from(vocab.score(token)) };
                offer(&mut best, start + len, token, start, score + token_score);
            }
            if !whole_char {
                offer(&mut best, start + char_len, unknown, start, score + f64::from(self.unknown_score));
            }
            start += char_len;
        }
        let first = ids.len();
        let (mut end, mut was_unknown) = (text.len(), false);
        while end > 0
            && let Some(&(token, start, _)) = best.get(end)
        {
            if !(was_unknown && token == unknown) {
                ids.push(token);
            }
            was_unknown = token == unknown;
            end = start;
        }
        if let Some(new) = ids.get_mut(first..) {
            new.reverse();
        }
        Ok(())
    }

    /// The text as the model wants it: characters replaced by the file's table, spaces as `▁`.
    fn normalize(&self, text: &str) -> Result<Vec<u8>> {
        let Spaces { add_prefix, merge } = self.spaces;
        let space = "▁".as_bytes();
        let mut out = Vec::with_capacity(text.len() + text.len() / 2);
        let (mut added, mut in_word) = (false, false);
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let (replacement, taken) = self.normalize_prefix(rest)?;
            for &byte in replacement {
                if byte == b' ' {
                    in_word = false;
                    if !merge {
                        out.extend_from_slice(space);
                    }
                    continue;
                }
                if !in_word && ((add_prefix && !added) || merge) {
                    out.extend_from_slice(space);
                    added = true;
                }
                in_word = true;
                out.push(byte);
            }
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(out)
    }

    /// What stands for the beginning of `text`, and how much of it that is: at least one byte.
    fn normalize_prefix<'a>(&'a self, text: &'a [u8]) -> Result<(&'a [u8], usize)> {
        let same = |len: usize| (text.get(..len).unwrap_or(text), len);
        // As in llama.cpp, the beginning of such a token is enough.
        let user_defined = self.user_defined.common_prefix(text);
        if user_defined > 0 {
            return Ok(same(user_defined));
        }
        if let Some(charsmap) = &self.charsmap
            && let Some(found) = charsmap.longest(text)?
        {
            return Ok(found);
        }
        // Four bytes hold any character; more would be looked at again for each.
        let head = text.get(..4).unwrap_or(text);
        Ok(match head.utf8_chunks().next() {
            Some(chunk) => match chunk.valid().chars().next() {
                Some(c) => same(c.len_utf8()),
                None => ("\u{fffd}".as_bytes(), 1),
            },
            None => (&[], 1),
        })
    }
}

/// The length of the character that begins with `byte`, by its high bits alone.
fn utf8_len(byte: u8) -> usize {
    match byte {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    }
}
