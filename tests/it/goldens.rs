//! Where the optional golden sets lie.

use std::path::PathBuf;

/// The folder `name` of the golden sets, or `None` where `GRISTMILL_GOLDENS` is not set.
///
/// A set that should be there and is not fails the test rather than skipping it.
#[allow(dead_code, reason = "the first golden tests are on their way")]
pub fn folder(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("GRISTMILL_GOLDENS")?).join(name);
    assert!(folder.is_dir(), "GRISTMILL_GOLDENS is set, but {} is no folder", folder.display());
    Some(folder)
}
