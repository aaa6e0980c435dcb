//! In the place of `apple.rs` where there is no Metal: no device can be opened.
#![forbid(unsafe_code)]

use super::Device;
use crate::{Error, Result};

pub fn open() -> Result<Box<dyn Device>> {
    let hint = "use `cpu`; it is there in builds for macOS with the feature `metal`, which is on unless it is turned off";
    Err(Error::BackendAbsent { asked: "metal".to_owned(), hint })
}
