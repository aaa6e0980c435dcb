//! Files told apart by SHA-256.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::data::FileHash;
use crate::{Error, Result};

/// The hash of some bytes, in hexadecimal digits.
pub fn of_bytes(bytes: &[u8]) -> String {
    digits(&Sha256::digest(bytes))
}

fn digits(hash: &[u8]) -> String {
    hash.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The hash of a file, or of several that are one model's: then that of each part, with commas between.
///
/// `tell` hears of each megabyte.
pub fn of_files(name: &Path, files: &[PathBuf], tell: &mut dyn FnMut(u64) -> Result<()>) -> Result<FileHash> {
    let mut hashes = Vec::new();
    let mut bytes = 0;
    let mut buffer = vec![0; 1 << 20];
    for path in files {
        let failed = |source| Error::Io { path: path.clone(), source };
        let mut file = File::open(path).map_err(failed)?;
        let mut hash = Sha256::new();
        loop {
            let read = file.read(&mut buffer).map_err(failed)?;
            let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
            hash.update(part);
            bytes += read as u64;
            tell(read as u64)?;
        }
        hashes.push(digits(&hash.finalize()));
    }
    Ok(FileHash { path: name.to_string_lossy().into_owned(), bytes, sha256: hashes.join(",") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_sha_256() {
        // FIPS 180-2, appendix B.1
        assert_eq!(of_bytes(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
