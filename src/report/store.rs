//! Keeps what was measured, piece by piece, so that a report that was broken off goes on where it was.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::hash;
use crate::{Error, Result};

/// A folder of finished pieces, or none.
pub struct Store {
    folder: Option<PathBuf>,
    /// Pieces that were measured now.
    pub measured: usize,
    /// Pieces that were there.
    pub kept: usize,
}

/// A piece, with all that it depends on.
#[derive(Serialize, Deserialize)]
struct Piece<T> {
    key: Json,
    value: T,
}

impl Store {
    /// A store in `folder`, which is made where it is not there; without one nothing is kept.
    pub fn new(folder: Option<PathBuf>) -> Result<Self> {
        if let Some(folder) = &folder {
            fs::create_dir_all(folder).map_err(|source| Error::Io { path: folder.clone(), source })?;
        }
        Ok(Store { folder, measured: 0, kept: 0 })
    }

    /// The piece of this key, where it is kept and `good`; else what `measure` finds, which is kept from now on.
    pub fn get<T: Serialize + DeserializeOwned>(
        &mut self,
        key: Json,
        good: impl FnOnce(&T) -> bool,
        measure: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let path = self.folder.as_ref().map(|folder| {
            let name = hash::of_bytes(key.to_string().as_bytes());
            folder.join(format!("{}.json", name.get(..24).unwrap_or(&name)))
        });
        // A piece that cannot be read is measured again.
        let kept = path.as_ref().and_then(|path| fs::read(path).ok());
        let kept = kept.and_then(|bytes| serde_json::from_slice::<Piece<T>>(&bytes).ok());
        if let Some(piece) = kept.filter(|piece| piece.key == key && good(&piece.value)) {
            self.kept += 1;
            return Ok(piece.value);
        }
        let piece = Piece { key, value: measure()? };
        self.measured += 1;
        if let Some(path) = &path {
            write_json(path, &piece)?;
        }
        Ok(piece.value)
    }
}

/// Writes JSON to a file that is there whole or not at all.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let failed =
        |error: serde_json::Error| Error::Io { path: path.to_owned(), source: io::Error::other(error) };
    let mut text = serde_json::to_string_pretty(value).map_err(failed)?;
    text.push('\n');
    write(path, &text)
}

/// Writes a file that is there whole or not at all.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let written = fs::write(&part, text).and_then(|()| fs::rename(&part, path));
    written.map_err(|source| {
        let _ = fs::remove_file(&part);
        Error::Io { path: path.to_owned(), source }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_piece_is_measured_once_for_a_key() {
        let folder = std::env::temp_dir().join(format!("gristmill-store-{}", std::process::id()));
        let get = |key: u32, good: bool, value: f64| {
            let mut store = Store::new(Some(folder.clone())).unwrap();
            let found = store.get(json!({ "key": key }), |_| good, || Ok(value)).unwrap();
            (found, store.measured)
        };
        // The shortest digits of a number must give its bits again.
        let odd = 0.1 + 0.2;
        assert_eq!(get(1, true, odd), (odd, 1));
        assert_eq!(get(1, true, 2.0), (odd, 0));
        assert_eq!(get(2, true, 3.0), (3.0, 1));
        assert_eq!(get(2, false, 4.0), (4.0, 1));
        let damaged = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        damaged.for_each(|path| fs::write(path, "{").unwrap());
        assert_eq!(get(1, true, 5.0), (5.0, 1));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn without_a_folder_nothing_is_kept() {
        let mut store = Store::new(None).unwrap();
        for _ in 0..2 {
            assert_eq!(store.get(json!(1), |_| true, || Ok(1)).unwrap(), 1);
        }
        assert_eq!(store.measured, 2);
    }
}
