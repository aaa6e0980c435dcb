//! SentencePiece's table of replacements (`precompiled_charsmap`): an XOR-compressed double array over UTF-8 bytes.
//!
//! ```text
//! u32 little-endian: bytes of the array | array of u32 | replacements, each ended by NUL
//!
//! node: bit 31 set: a value          bits 10-30  base    bit 9  base is to be shifted by 8
//!                                    bit 8       a value hangs at base
//!                                    bits 0-7    the byte that leads here
//! ```

use crate::gguf::{Array, Metadata};
use crate::{Error, Result};

const KEY: &str = "tokenizer.ggml.precompiled_charsmap";

/// The table.
pub(super) struct Charsmap {
    nodes: Vec<u32>,
    replacements: Vec<u8>,
}

fn bad(reason: &'static str) -> Error {
    Error::TokenizerCharsmap { reason }
}

impl Charsmap {
    /// Reads the table, if the file has one.
    pub fn from_metadata(metadata: &Metadata) -> Result<Option<Charsmap>> {
        let bytes = match metadata.get_as::<&Array>(KEY)? {
            None => return Ok(None),
            Some(Array::U8(bytes)) => bytes.clone(),
            Some(Array::I8(bytes)) => bytes.iter().map(|&byte| byte.cast_unsigned()).collect(),
            Some(_) => return Err(bad("it is no array of bytes")),
        };
        let (len, rest) = bytes.split_first_chunk().ok_or_else(|| bad("it is shorter than its header"))?;
        let len = u32::from_le_bytes(*len) as usize;
        if len >= rest.len() {
            return Err(bad("its array reaches past its end"));
        }
        let (array, replacements) = rest.split_at(len);
        let (nodes, _) = array.as_chunks();
        Ok(Some(Charsmap {
            nodes: nodes.iter().map(|&node| u32::from_le_bytes(node)).collect(),
            replacements: replacements.to_vec(),
        }))
    }

    fn node(&self, at: u32) -> Result<u32> {
        self.nodes.get(at as usize).copied().ok_or_else(|| bad("a node lies outside its array"))
    }

    /// The replacement of the longest entry that `text` begins with, and that entry's length.
    ///
    /// The walk takes a byte of `text` with each step, so that no table makes it endless.
    pub fn longest(&self, text: &[u8]) -> Result<Option<(&[u8], usize)>> {
        if self.nodes.is_empty() {
            return Ok(None);
        }
        let base = |node: u32| (node >> 10) << ((node & 1 << 9) >> 6);
        let mut at = base(self.node(0)?);
        let mut found = None;
        for (&byte, len) in text.iter().zip(1..) {
            if byte == 0 {
                break;
            }
            at ^= u32::from(byte);
            let node = self.node(at)?;
            if node & (1 << 31 | 0xff) != u32::from(byte) {
                break;
            }
            at ^= base(node);
            if node >> 8 & 1 == 1 {
                found = Some((self.node(at)? & !(1 << 31), len));
            }
        }
        let Some((start, len)) = found else { return Ok(None) };
        let tail =
            self.replacements.get(start as usize..).ok_or_else(|| bad("a replacement lies outside it"))?;
        let end =
            tail.iter().position(|&byte| byte == 0).ok_or_else(|| bad("its last replacement has no end"))?;
        Ok(Some((tail.get(..end).unwrap_or_default(), len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(nodes: &[u32], replacements: &[u8]) -> Result<Option<Charsmap>> {
        let mut bytes = (nodes.len() as u32 * 4).to_le_bytes().to_vec();
        bytes.extend(nodes.iter().flat_map(|node| node.to_le_bytes()));
        bytes.extend(replacements);
        let mut metadata = Metadata::new();
        metadata.set(KEY, bytes);
        Charsmap::from_metadata(&metadata)
    }

    /// `A` becomes `xy`: the root's base is 0, so that node 0x41 is its child, whose value hangs at base 0x100.
    fn sample() -> Vec<u32> {
        let mut nodes = vec![0; 0x142];
        nodes[0x41] = 0x100 << 10 | 1 << 8 | 0x41;
        nodes[0x41 ^ 0x100] = 1 << 31 | 1;
        nodes
    }

    #[test]
    fn the_longest_entry_is_replaced() {
        let map = table(&sample(), b"\0xy\0").unwrap().unwrap();
        assert_eq!(map.longest(b"AA").unwrap(), Some((&b"xy"[..], 1)));
        assert_eq!(map.longest(b"B").unwrap(), None);
        assert_eq!(map.longest(b"\0").unwrap(), None);
    }

    #[test]
    fn bad_tables_are_errors() {
        let reason = |result: Result<_>| match result {
            Err(Error::TokenizerCharsmap { reason }) => reason,
            _ => panic!("no error"),
        };
        assert!(reason(table(&[0; 4], b"").map(|_| ())).contains("past its end"));
        let map = table(&[0; 4], b"\0").unwrap().unwrap();
        assert!(reason(map.longest(b"A").map(|_| ())).contains("outside its array"));
        let map = table(&sample(), b"\0xy").unwrap().unwrap();
        assert!(reason(map.longest(b"A").map(|_| ())).contains("no end"));
        let map = table(&sample(), b"\0").unwrap().unwrap();
        assert!(reason(map.longest(b"A").map(|_| ())).contains("no end"));
        let mut metadata = Metadata::new();
        metadata.set(KEY, vec![1_u8, 2]);
        assert!(reason(Charsmap::from_metadata(&metadata).map(|_| ())).contains("header"));
    }
}
