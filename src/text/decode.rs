//! From tokens to text, one token at a time.

use super::tokenizer::Tokenizer;
use super::vocab::TokenId;

/// How ids become text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Show control and unknown tokens by their text.
    pub special: bool,
    /// Leave out the space that the text begins with, if encoding puts one there.
    pub strip_space_prefix: bool,
}

impl DecodeOptions {
    /// For the ids of a whole text: what was encoded comes back.
    pub const WHOLE: DecodeOptions = DecodeOptions { special: false, strip_space_prefix: true };
    /// For ids that continue a text.
    pub const CONTINUATION: DecodeOptions = DecodeOptions { special: false, strip_space_prefix: false };
}

/// For the ids of a whole text.
impl Default for DecodeOptions {
    fn default() -> DecodeOptions {
        DecodeOptions::WHOLE
    }
}

/// Turns tokens into text as they come, whole characters at a time.
///
/// Bytes that begin a character are held back until a token completes it. Once they cannot become a character they
/// turn into U+FFFD, one for each longest sequence that could have begun one: as soon as the byte comes that does not
/// fit, or at [`Decoder::finish`].
#[derive(Clone, Debug)]
pub struct Decoder {
    tokenizer: Tokenizer,
    special: bool,
    strip_space: bool,
    pending: Vec<u8>,
    text: String,
}

impl Decoder {
    pub(super) fn new(tokenizer: Tokenizer, special: bool, strip_space: bool) -> Decoder {
        Decoder { tokenizer, special, strip_space, pending: Vec::new(), text: String::new() }
    }

    /// Takes a token; gives the text that is complete now, which may be empty. Ids outside the vocabulary add nothing.
    pub fn push(&mut self, id: TokenId) -> &str {
        let start = self.pending.len();
        self.tokenizer.push_token(id, self.special, &mut self.pending);
        if self.strip_space
            && let Some(&first) = self.pending.get(start)
        {
            self.strip_space = false;
            if first == b' ' {
                self.pending.remove(start);
            }
        }
        self.text.clear();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    self.text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, invalid) = rest.split_at_checked(error.valid_up_to()).unwrap_or((rest, &[]));
                    self.text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    rest = invalid;
                    let Some(bad) = error.error_len() else { break };
                    self.text.push(char::REPLACEMENT_CHARACTER);
                    rest = rest.get(bad..).unwrap_or_default();
                }
            }
        }
        let done = self.pending.len() - rest.len();
        self.pending.drain(..done);
        &self.text
    }

    /// How many bytes are held back: at most three.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Ends the text: what is held back becomes U+FFFD. The decoder can then take another text.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        if !self.pending.is_empty() {
            self.pending.clear();
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        &self.text
    }
}
