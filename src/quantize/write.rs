//! Files that appear under their names only when they are whole.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Files under temporary names beside their final ones. What is not finished is removed.
#[derive(Default)]
pub(super) struct Unfinished(Vec<(PathBuf, PathBuf)>);

impl Unfinished {
    /// Begins the file that will be at `path`.
    pub fn begin(&mut self, path: &Path) -> Result<BufWriter<File>> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.part", std::process::id()));
        let temporary = path.with_file_name(name);
        let failed = |source| Error::Io { path: path.to_owned(), source };
        if path.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let file = File::create(&temporary).map_err(failed)?;
        self.0.push((temporary, path.to_owned()));
        Ok(BufWriter::with_capacity(1 << 20, file))
    }

    /// Gives all files their names.
    pub fn finish(mut self) -> Result<()> {
        for (temporary, path) in std::mem::take(&mut self.0) {
            fs::rename(&temporary, &path).map_err(|source| {
                let _ = fs::remove_file(&temporary);
                Error::Io { path, source }
            })?;
        }
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        for (temporary, _) in &self.0 {
            if let Err(error) = fs::remove_file(temporary) {
                tracing::debug!(%error, path = %temporary.display(), "a file stays behind");
            }
        }
    }
}

/// Whether both paths lead to one file, by whatever links.
pub(super) fn same_file(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if let (Ok(a), Ok(b)) = (fs::metadata(a), fs::metadata(b)) {
            return (a.dev(), a.ino()) == (b.dev(), b.ino());
        }
    }
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
