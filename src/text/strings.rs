//! A hash table that finds the strings of a vocabulary.

use std::hash::{BuildHasher, RandomState};

use crate::gguf::Strings;

/// The 64-bit seeded multiply-and-fold hash of the tables here.
///
/// Seeded per table, since a file chooses the strings and could else choose them to collide.
#[derive(Clone, Copy)]
pub(super) struct Hash {
    seed: u64,
}

const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl Hash {
    pub fn new() -> Hash {
        Hash { seed: RandomState::new().hash_one(0) | 1 }
    }

    #[inline]
    pub fn bytes(self, text: &[u8]) -> u64 {
        let mut hash = self.seed ^ (text.len() as u64).wrapping_mul(MIX);
        let (words, tail) = text.as_chunks::<8>();
        for word in words {
            hash = fold(hash ^ u64::from_le_bytes(*word), MIX);
        }
        let last = tail.iter().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
        fold(hash ^ last, self.seed)
    }

    #[inline]
    pub fn word(self, word: u64) -> u64 {
        fold(word ^ self.seed, MIX)
    }
}

/// Finds the number of a string among [`Strings`]: open addressing over hash tags and numbers.
pub(super) struct Index {
    hash: Hash,
    /// `tag << 32 | number + 1`, or 0.
    slots: Vec<u64>,
    used: usize,
}

impl Index {
    /// A table that holds `count` strings without growing.
    pub fn with_capacity(count: usize) -> Index {
        Index { hash: Hash::new(), slots: vec![0; (count * 2).next_power_of_two().max(16)], used: 0 }
    }

    /// The number of `text` in `texts`.
    #[inline]
    pub fn get(&self, text: &[u8], texts: &Strings) -> Option<u32> {
        let hash = self.hash.bytes(text);
        let at = self.find(hash, text, texts);
        (self.slots.get(at).copied().unwrap_or(0) as u32).checked_sub(1)
    }

    /// Stores `id` as the number of `text`; returns the number that it takes the place of.
    pub fn insert(&mut self, text: &[u8], id: u32, texts: &Strings) -> Option<u32> {
        if self.used * 2 >= self.slots.len() {
            self.grow(texts);
        }
        let hash = self.hash.bytes(text);
        let at = self.find(hash, text, texts);
        let slot = self.slots.get_mut(at)?;
        let old = (*slot as u32).checked_sub(1);
        *slot = hash >> 32 << 32 | u64::from(id + 1);
        self.used += usize::from(old.is_none());
        old
    }

    /// The slot that holds `text` or the free one where it belongs; one is always free.
    #[inline]
    fn find(&self, hash: u64, text: &[u8], texts: &Strings) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while let Some(&slot) = self.slots.get(at)
            && slot != 0
            && !(slot >> 32 == hash >> 32 && texts.get(slot as u32 as usize - 1) == Some(text))
        {
            at = (at + 1) & mask;
        }
        at
    }

    fn grow(&mut self, texts: &Strings) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![0; old.len() * 2];
        for slot in old.into_iter().filter(|&slot| slot != 0) {
            let text = texts.get(slot as u32 as usize - 1).unwrap_or_default();
            let at = self.find(self.hash.bytes(text), text, texts);
            if let Some(free) = self.slots.get_mut(at) {
                *free = slot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_found_again() {
        let (mut texts, mut index) = (Strings::new(), Index::with_capacity(0));
        for i in 0..1000u32 {
            let text = format!("{i:x}").repeat(i as usize % 5);
            texts.push(&text);
            index.insert(text.as_bytes(), i, &texts);
        }
        for i in 0..1000u32 {
            let text = format!("{i:x}").repeat(i as usize % 5);
            let found = index.get(text.as_bytes(), &texts).unwrap();
            assert_eq!(texts.get(found as usize).unwrap(), text.as_bytes());
            assert!(found >= i, "the later of two equal strings stays");
        }
        assert_eq!(index.get(b"no such string", &texts), None);
    }
}
