//! RWKV's World tokenizer: the longest token that fits, again and again.

use super::trie::Trie;
use super::vocab::{TokenId, Vocabulary};

/// The bytes of a token, which files spell with `\n`, `\xNN` and the like.
pub(super) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter().copied();
    let digit = |byte: u8| match byte {
        b'a'.. => byte.wrapping_sub(b'a').wrapping_add(10),
        _ => byte.wrapping_sub(b'0'),
    };
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b't') => bytes.push(b'\t'),
            Some(b'n') => bytes.push(b'\n'),
            Some(b'r') => bytes.push(b'\r'),
            Some(b'x') => {
                if let (Some(high), Some(low)) = (rest.next(), rest.next()) {
                    bytes.push((digit(high) << 4).wrapping_add(digit(low)));
                }
            }
            other => bytes.extend(other),
        }
    }
    bytes
}

/// An RWKV World model.
pub(super) struct Rwkv {
    tokens: Trie,
}

impl Rwkv {
    pub fn new(vocab: &Vocabulary) -> Rwkv {
        let texts: Vec<_> = vocab.iter().map(|(id, text, _)| (unescape(text), id)).collect();
        Rwkv { tokens: Trie::new(texts.iter().map(|(text, id)| (text.as_slice(), *id))) }
    }

    /// Appends the ids of `text`; a byte that begins no token is `unknown`, or nothing where there is none.
    pub fn encode(&self, unknown: Option<TokenId>, text: &str, ids: &mut Vec<TokenId>) {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let (len, id) = match self.tokens.longest(rest) {
                Some((len, id)) if len > 0 => (len, Some(id)),
                _ => (1, unknown),
            };
            ids.extend(id);
            rest = rest.get(len..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        assert_eq!(unescape(br"a\n\t\\\x00\xe4'"), b"a\n\t\\\x00\xe4'");
        assert_eq!(unescape(br"\x4"), b"");
        assert_eq!(unescape(br"\"), b"");
    }
}
