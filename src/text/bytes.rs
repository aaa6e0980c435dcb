//! GPT-2's spelling of bytes as printable characters, in which byte-level vocabularies are written.

/// The character that spells each byte: itself where it is printable Latin-1, else one from U+0100 on.
#[allow(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which would refuse an index out of range"
)]
const CHARS: [char; 256] = {
    let mut chars = ['\0'; 256];
    let (mut byte, mut moved) = (0, 0);
    while byte < 256 {
        let printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let code = if printable { byte } else { 256 + moved };
        if !printable {
            moved += 1;
        }
        chars[byte as usize] = match char::from_u32(code) {
            Some(c) => c,
            None => '\0',
        };
        byte += 1;
    }
    chars
};

/// The bytes that the characters from U+0100 to U+0143 spell.
#[allow(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which would refuse an index out of range"
)]
const MOVED: [u8; 68] = {
    let mut moved = [0; 68];
    let mut byte = 0;
    while byte < 256 {
        let code = CHARS[byte] as usize;
        if code >= 256 {
            moved[code - 256] = byte as u8;
        }
        byte += 1;
    }
    moved
};

/// The character that spells `byte`.
#[inline]
pub(super) fn spell(byte: u8) -> char {
    CHARS.get(usize::from(byte)).copied().unwrap_or_default()
}

/// The byte that `c` spells, if it spells one.
pub(super) fn unspell(c: char) -> Option<u8> {
    match c as u32 {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code => MOVED.get((code as usize).checked_sub(256)?).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_is_one_to_one() {
        assert_eq!((spell(b' '), spell(b'\n'), spell(b'a'), spell(0xad)), ('Ġ', 'Ċ', 'a', 'Ń'));
        assert!((0..=255).all(|byte| unspell(spell(byte)) == Some(byte)));
        assert_eq!((unspell(' '), unspell('▁'), unspell('\u{144}')), (None, None, None));
    }
}
