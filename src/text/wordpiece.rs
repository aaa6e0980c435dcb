//! BERT's WordPiece: words apart, then the longest token that fits, again and again.

use super::trie::Trie;
use super::unicode::{Class, base_letter, is_bert_chinese, to_lower};
use super::vocab::{TokenId, Vocabulary};
use crate::Result;
use crate::gguf::Metadata;

const LOWER_CASE_KEY: &str = "tokenizer.ggml.normalizer.lowercase";
const STRIP_ACCENTS_KEY: &str = "tokenizer.ggml.normalizer.strip_accents";

/// How text is made ready for BERT.
#[derive(Clone, Copy, Debug)]
pub(super) struct Normalizer {
    pub lower_case: bool,
    pub strip_accents: bool,
}

impl Normalizer {
    /// Both are on unless the file says otherwise; accents follow case.
    pub fn from_metadata(metadata: &Metadata, default: bool) -> Result<Normalizer> {
        let lower_case = metadata.bool(LOWER_CASE_KEY)?.unwrap_or(default);
        Ok(Normalizer { lower_case, strip_accents: metadata.bool(STRIP_ACCENTS_KEY)?.unwrap_or(lower_case) })
    }

    /// The words of `text`, each given to `found` behind the `▁` with which tokens mark the beginning of words.
    fn words(self, text: &str, mut found: impl FnMut(&str)) {
        let mut word = String::from('▁');
        let start = word.len();
        for c in text.chars() {
            let c = if self.strip_accents { base_letter(c) } else { c };
            let class = Class::of(c);
            let space = class.is(Class::WHITESPACE);
            if !space
                && (c == '\u{fffd}'
                    || class.is(Class::CONTROL)
                    || (self.strip_accents && class.is(Class::MARK)))
            {
                continue;
            }
            let alone = class.is(Class::PUNCTUATION)
                || (c < '\u{7f}' && class.is(Class::SYMBOL))
                || is_bert_chinese(c);
            if (space || alone) && word.len() > start {
                found(&word);
                word.truncate(start);
            }
            if !space {
                word.push(if self.lower_case { to_lower(c) } else { c });
            }
            if alone {
                found(&word);
                word.truncate(start);
            }
        }
        if word.len() > start {
            found(&word);
        }
    }
}

/// A WordPiece model.
pub(super) struct WordPiece {
    normalizer: Normalizer,
    tokens: Trie,
}

impl WordPiece {
    pub fn new(metadata: &Metadata, vocab: &Vocabulary) -> Result<WordPiece> {
        Ok(WordPiece {
            normalizer: Normalizer::from_metadata(metadata, true)?,
            tokens: Trie::new(vocab.iter().map(|(id, text, _)| (text, id))),
        })
    }

    /// Appends the ids of `text`; a word that is no sequence of tokens is one `unknown`.
    pub fn encode(&self, unknown: TokenId, text: &str, ids: &mut Vec<TokenId>) {
        self.normalizer.words(text, |word| {
            let first = ids.len();
            let mut rest = word.as_bytes();
            while !rest.is_empty() {
                let Some((len, id)) = self.tokens.longest(rest).filter(|&(len, _)| len > 0) else {
                    ids.truncate(first);
                    ids.push(unknown);
                    return;
                };
                ids.push(id);
                rest = rest.get(len..).unwrap_or_default();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(lower_case: bool, text: &str) -> Vec<String> {
        let mut all = Vec::new();
        Normalizer { lower_case, strip_accents: lower_case }
            .words(text, |word| all.push(word.strip_prefix('▁').unwrap().to_owned()));
        all
    }

    #[test]
    fn words_are_cleaned_and_cut() {
        assert_eq!(
            words(true, "Ünïcode isn't\t中文,x\u{0}y\u{200b}"),
            ["unicode", "isn", "'", "t", "中", "文", ",", "xy"]
        );
        assert_eq!(words(false, "Éa e\u{301} $5"), ["Éa", "e\u{301}", "$", "5"]);
        assert!(words(true, " \n\u{a0}").is_empty());
    }
}
