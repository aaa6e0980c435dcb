//! Files in several parts: `NAME-00001-of-00003.gguf` and so on, as llama.cpp's `gguf-split` writes them.
//!
//! Each part is a GGUF file of its own with some of the tensors; the first holds the model's metadata. The names
//! count from 1, the key `split.no` from 0.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::Gguf;
use super::metadata::Metadata;
use crate::{Error, Result};

/// Which part this is, counted from 0.
pub const NUMBER_KEY: &str = "split.no";
/// How many parts there are.
pub const COUNT_KEY: &str = "split.count";
/// How many tensors all parts hold together.
pub const TENSORS_KEY: &str = "split.tensors.count";

/// The name of one part, taken to pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartName {
    /// The path up to the number.
    prefix: PathBuf,
    /// Which part, counted from 0.
    pub number: u16,
    /// Of how many.
    pub count: u16,
}

impl PartName {
    /// Reads the end of `path`; `None` where it is not the name of a part. File names must be UTF-8.
    ///
    /// ```
    /// use gristmill::gguf::split::PartName;
    ///
    /// let name = PartName::parse("models/big-00002-of-00003.gguf".as_ref()).unwrap();
    /// assert_eq!((name.number, name.count), (1, 3));
    /// assert_eq!(name.path(0).to_str(), Some("models/big-00001-of-00003.gguf"));
    /// assert_eq!(PartName::parse("models/big.gguf".as_ref()), None);
    /// ```
    pub fn parse(path: &Path) -> Option<Self> {
        let (rest, count) = path.file_name()?.to_str()?.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let (number, count) = (five_digits(number)?, five_digits(count)?);
        if number == 0 || number > count {
            return None;
        }
        Some(Self { prefix: path.with_file_name(prefix), number: number - 1, count })
    }

    /// The path of part `number`, counted from 0.
    pub fn path(&self, number: u16) -> PathBuf {
        let mut path = self.prefix.clone().into_os_string();
        path.push(format!("-{:05}-of-{:05}.gguf", u32::from(number) + 1, self.count));
        path.into()
    }

    /// The paths of all parts in order.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = PathBuf> {
        (0..self.count).map(|number| self.path(number))
    }
}

fn five_digits(text: &str) -> Option<u16> {
    (text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// How many parts the file with these metadata belongs to: 1 where it is no split file.
///
/// # Errors
/// [`Error::MetadataType`].
pub fn count(metadata: &Metadata) -> Result<u16> {
    Ok(metadata.get_as::<u16>(COUNT_KEY)?.unwrap_or(1).max(1))
}

/// Checks that `part` says of itself to be part `number` of `count`, as llama.cpp does.
///
/// # Errors
/// [`Error::SplitMismatch`], [`Error::MetadataMissing`], [`Error::MetadataType`].
pub fn check_part(part: &Metadata, number: u16, count: u16) -> Result<()> {
    equal(NUMBER_KEY, number.into(), part.require::<u16>(NUMBER_KEY)?.into())?;
    match part.get_as::<u16>(COUNT_KEY)? {
        Some(found) => equal(COUNT_KEY, count.into(), found.into()),
        None => Ok(()),
    }
}

/// Checks that all `parts` together hold as many tensors as the first one says.
///
/// # Errors
/// [`Error::SplitMismatch`], [`Error::MetadataMissing`], [`Error::MetadataType`].
pub fn check_tensors<'a>(parts: impl Iterator<Item = &'a Gguf> + Clone) -> Result<()> {
    let Some(first) = parts.clone().next() else { return Ok(()) };
    let held = parts.map(|part| part.tensors.len() as u64).sum();
    equal(TENSORS_KEY, held, first.metadata.require::<u64>(TENSORS_KEY)?)
}

fn equal(key: &'static str, expected: u64, found: u64) -> Result<()> {
    if found == expected { Ok(()) } else { Err(Error::SplitMismatch { key, expected, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_as_gguf_split_gives_them_are_parts() {
        for name in [
            "a.gguf",
            "a-1-of-3.gguf",
            "a-00000-of-00003.gguf",
            "a-00004-of-00003.gguf",
            "a-00001-of-00003.bin",
            "a-+0001-of-00003.gguf",
            "a-00001-of-99999.gguf",
            "a00001-of-00003.gguf",
            "-of-.gguf",
            "",
        ] {
            assert_eq!(PartName::parse(Path::new(name)), None, "{name}");
        }
    }

    #[test]
    fn all_parts_are_found_from_any() {
        let paths: Vec<_> =
            PartName::parse(Path::new("x/of-1-of-00001-of-00002.gguf")).unwrap().paths().collect();
        assert_eq!(
            paths,
            ["x/of-1-of-00001-of-00002.gguf", "x/of-1-of-00002-of-00002.gguf"].map(PathBuf::from)
        );
        for path in &paths {
            assert_eq!(PartName::parse(path).unwrap().paths().collect::<Vec<_>>(), paths);
        }
    }

    #[test]
    fn parts_must_say_who_they_are() {
        let mut metadata = Metadata::new();
        assert!(
            matches!(check_part(&metadata, 0, 2), Err(Error::MetadataMissing { key, .. }) if key == NUMBER_KEY)
        );
        metadata.set(NUMBER_KEY, 1_u16);
        metadata.set(COUNT_KEY, 3_u16);
        check_part(&metadata, 1, 3).unwrap();
        assert!(matches!(
            check_part(&metadata, 0, 3),
            Err(Error::SplitMismatch { key: NUMBER_KEY, expected: 0, found: 1 })
        ));
        assert!(matches!(
            check_part(&metadata, 1, 2),
            Err(Error::SplitMismatch { key: COUNT_KEY, expected: 2, found: 3 })
        ));
    }
}
