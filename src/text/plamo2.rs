//! PLaMo 2's tokenizer: the cut of least cost, where each token costs its negated score.

use super::trie::Trie;
use super::vocab::{TokenAttributes, TokenId, Vocabulary};
use crate::{Error, Result};

/// What a character costs that no token has.
const UNKNOWN_COST: i64 = 10_000_000;
/// Tokens that cost as much as this are never used.
const TOO_DEAR: i64 = 20_000_000;

/// A PLaMo 2 model.
pub(super) struct Plamo2 {
    tokens: Trie,
    bytes: Vec<TokenId>,
}

impl Plamo2 {
    pub fn new(vocab: &Vocabulary) -> Result<Plamo2> {
        let bytes = (0..=255).map(|byte| vocab.byte_token(byte).ok_or(Error::TokenizerMissingByte { byte }));
        let pieces = vocab.iter().filter(|(.., attributes)| !attributes.intersects(TokenAttributes::BYTE));
        Ok(Plamo2 {
            tokens: Trie::new(pieces.map(|(id, text, _)| (text, id))),
            bytes: bytes.collect::<Result<_>>()?,
        })
    }

    /// Appends the ids of `text`. Costs are whole ten-thousandths; of equal cuts the longest first token is taken.
    pub fn encode(&self, vocab: &Vocabulary, text: &str, ids: &mut Vec<TokenId>) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // For each beginning of a suffix: the cost of its best cut, the first token of that and where it ends.
        let mut best = vec![(i64::MAX, None, 0); text.len() + 1];
        if let Some(end) = best.last_mut() {
            end.0 = 0;
        }
        for (start, c) in text.char_indices().rev() {
            let rest = text.as_bytes().get(start..).unwrap_or_default();
            let cost_from = |end: usize| best.get(end).map_or(i64::MAX, |&(cost, ..)| cost);
            let mut found = (1 << 60, None, start + c.len_utf8());
            for (len, token) in self.tokens.prefixes(rest) {
                let score = f64::from(vocab.score(token));
                let cost =
                    if score.is_finite() { -i64::from((score * 1e4).round() as i32) } else { TOO_DEAR };
                let total = cost_from(start + len).saturating_add(cost);
                if cost < TOO_DEAR && total <= found.0 && text.is_char_boundary(start + len) {
                    found = (total, Some(token), start + len);
                }
            }
            let end = start + c.len_utf8();
            let unknown = cost_from(end).saturating_add(UNKNOWN_COST);
            if unknown < found.0 {
                found = (unknown, None, end);
            }
            if let Some(best) = best.get_mut(start) {
                *best = found;
            }
        }
        let mut start = 0;
        while start < text.len()
            && let Some(&(_, token, end)) = best.get(start)
        {
            match token {
                Some(token) => ids.push(token),
                None => {
                    let bytes = text.as_bytes().get(start..end).unwrap_or_default();
                    ids.extend(bytes.iter().filter_map(|&byte| self.bytes.get(usize::from(byte))));
                }
            }
            start = end;
        }
    }
}
