//! The metadata of a file: keys and values in file order, with typed getters whose errors name the key.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::value::{FromValue, Strings, Value};
use crate::{Error, Result};

/// Keys and values, in the order of the file.
///
/// Every getter gives `Ok(None)` for an absent key and an [`Error::MetadataType`] for a value of another kind;
/// [`Metadata::require`] makes an absent key an [`Error::MetadataMissing`].
///
/// ```
/// use gristmill::gguf::Metadata;
///
/// let mut metadata = Metadata::new();
/// metadata.set("llama.block_count", 22_u64);
/// assert_eq!(metadata.u32("llama.block_count")?, Some(22));
/// assert_eq!(metadata.u32("llama.expert_count")?, None);
/// assert!(metadata.str("llama.block_count").is_err());
/// assert_eq!(metadata.require::<usize>("llama.block_count")?, 22);
/// # Ok::<(), gristmill::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    entries: Vec<(Arc<str>, Value)>,
    index: HashMap<Arc<str>, usize>,
}

/// Equal where the same keys stand in the same order with equal values.
impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Metadata {
    /// No metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys and values in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> + Clone {
        self.entries.iter().map(|(key, value)| (&**key, value))
    }

    /// Whether `key` is there.
    pub fn contains(&self, key: &str) -> bool {
        self.index.contains_key(key)
    }

    /// The value of `key`, of whatever kind.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(*self.index.get(key)?).map(|(_, value)| value)
    }

    /// Sets `key`: in place where it is there already, else at the end.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.index.get(key).and_then(|&at| self.entries.get_mut(at)) {
            Some((_, old)) => *old = value,
            None => {
                let key: Arc<str> = key.into();
                self.index.insert(key.clone(), self.entries.len());
                self.entries.push((key, value));
            }
        }
    }

    /// Takes `key` out; the others keep their order.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.index.remove(key)?;
        let (_, value) = self.entries.remove(at);
        for (position, (key, _)) in self.entries.iter().enumerate().skip(at) {
            self.index.insert(key.clone(), position);
        }
        Some(value)
    }

    /// The value of `key` as a `T`.
    ///
    /// # Errors
    /// [`Error::MetadataType`] where the value is something else, or an integer too large for `T`.
    pub fn get_as<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match T::from_value(value) {
            Some(value) => Ok(Some(value)),
            None => Err(Error::MetadataType {
                key: key.to_owned(),
                expected: T::EXPECTED,
                found: value.describe(),
            }),
        }
    }

    /// The value of `key`, which must be there, as a `T`.
    ///
    /// # Errors
    /// [`Error::MetadataMissing`], and those of [`Metadata::get_as`].
    pub fn require<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T> {
        self.get_as(key)?.ok_or_else(|| Error::MetadataMissing { key: key.to_owned(), expected: T::EXPECTED })
    }

    /// A UTF-8 string.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        self.get_as(key)
    }

    /// An integer that fits a `u32`.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.get_as(key)
    }

    /// An integer that fits a `u64`.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.get_as(key)
    }

    /// A float.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.get_as(key)
    }

    /// A boolean.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.get_as(key)
    }

    /// An array of strings, such as `tokenizer.ggml.tokens`.
    pub fn strings(&self, key: &str) -> Result<Option<&Strings>> {
        self.get_as(key)
    }

    /// An array of floats, such as `tokenizer.ggml.scores`.
    pub fn f32s(&self, key: &str) -> Result<Option<Cow<'_, [f32]>>> {
        self.get_as(key)
    }

    /// An array of integers that fit an `i32`, such as `tokenizer.ggml.token_type`; borrowed where it is one.
    pub fn i32s(&self, key: &str) -> Result<Option<Cow<'_, [i32]>>> {
        self.get_as(key)
    }

    /// An array of integers that fit a `u32`; borrowed where it is one.
    pub fn u32s(&self, key: &str) -> Result<Option<Cow<'_, [u32]>>> {
        self.get_as(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Array;

    fn sample() -> Metadata {
        let mut metadata = Metadata::new();
        metadata.set("name", "toy");
        metadata.set("layers", 3_u16);
        metadata.set("negative", -1_i32);
        metadata.set("big", u64::MAX);
        metadata.set("eps", 1e-5_f32);
        metadata.set("tokens", ["a", "", "bc"].into_iter().collect::<Strings>());
        metadata.set("types", vec![1_i32, 3, 6]);
        metadata.set("bytes", Value::String(vec![0xff, 0xfe]));
        metadata
    }

    #[test]
    fn integers_convert_where_they_fit() {
        let metadata = sample();
        assert_eq!(metadata.u32("layers").unwrap(), Some(3));
        assert_eq!(metadata.u64("layers").unwrap(), Some(3));
        assert_eq!(metadata.u64("big").unwrap(), Some(u64::MAX));
        assert_eq!(metadata.get_as::<i64>("negative").unwrap(), Some(-1));
        assert_eq!(metadata.u32s("types").unwrap().unwrap(), &[1, 3, 6][..]);
        for (key, found) in [("negative", "i32 -1"), ("big", "u64 18446744073709551615")] {
            match metadata.u32(key) {
                Err(Error::MetadataType { key: at, expected: "a u32", found: what }) => {
                    assert_eq!((at.as_str(), what.as_str()), (key, found));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_string_need_not_be_utf8_unless_asked_for_as_such() {
        let metadata = sample();
        assert_eq!(metadata.get_as::<&[u8]>("bytes").unwrap(), Some(&[0xff, 0xfe][..]));
        let error = metadata.str("bytes").unwrap_err().to_string();
        assert!(error.contains("bytes") && error.contains("not UTF-8"), "{error}");
    }

    #[test]
    fn absent_is_none_and_required_is_an_error_that_names_the_key() {
        let metadata = sample();
        assert_eq!(metadata.bool("absent").unwrap(), None);
        match metadata.require::<u32>("absent") {
            Err(Error::MetadataMissing { key, expected: "a u32" }) => assert_eq!(key, "absent"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn order_is_kept_when_keys_are_set_again_and_removed() {
        let mut metadata = sample();
        metadata.set("layers", 4_u32);
        assert_eq!(metadata.remove("name"), Some("toy".into()));
        assert_eq!(metadata.remove("name"), None);
        let keys: Vec<_> = metadata.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["layers", "negative", "big", "eps", "tokens", "types", "bytes"]);
        assert_eq!(metadata.u32("layers").unwrap(), Some(4));
        assert_eq!(metadata.f32("eps").unwrap(), Some(1e-5));
        let tokens = metadata.strings("tokens").unwrap().unwrap();
        assert_eq!(tokens.iter().collect::<Vec<_>>(), [&b"a"[..], b"", b"bc"]);
        assert_eq!((tokens.get(2), tokens.get(3)), (Some(&b"bc"[..]), None));
    }

    #[test]
    fn long_arrays_are_shown_cut() {
        let mut metadata = Metadata::new();
        metadata.set("k", (0..20_u8).collect::<Vec<_>>());
        metadata.set("n", Array::Array(vec![Array::Bool(vec![true]), Array::String(Strings::new())]));
        let shown: Vec<_> = metadata.iter().map(|(_, value)| value.to_string()).collect();
        assert_eq!(shown, ["[0, 1, 2, 3, 4, 5, 6, 7, ... 20 in all]", "[[true], []]"]);
    }
}
