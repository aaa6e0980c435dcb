//! Where a model comes from: a file, or the program itself.

use std::path::{Path, PathBuf};

use gristmill::model::ModelOptions;
use gristmill::model::file::ModelFile;
use gristmill::{BackendKind, Model};

use super::Done;
use super::args::Common;
#[cfg(not(feature = "embedded-model"))]
use super::failure::Failure;

/// See vendor/models/SOURCES.md.
#[cfg(feature = "embedded-model")]
static EMBEDDED: &[u8] = include_bytes!("../../vendor/models/tiny-instruct-q8_0.gguf");

#[cfg(feature = "embedded-model")]
fn embedded() -> Done<&'static [u8]> {
    Ok(EMBEDDED)
}

#[cfg(not(feature = "embedded-model"))]
fn embedded() -> Done<&'static [u8]> {
    Err(Failure::new(
        "expected MODEL, found none: this program was built without the feature `embedded-model`, \
         so give the path of a .gguf file",
    ))
}

/// A model by its path; the built-in one where there is none.
#[derive(Clone, Copy)]
pub struct Source<'a>(pub Option<&'a Path>);

impl<'a> Source<'a> {
    pub fn new(path: &'a Option<PathBuf>) -> Self {
        Source(path.as_deref())
    }

    pub fn is_embedded(self) -> bool {
        self.0.is_none()
    }

    /// The file, whatever is in it.
    pub fn file(self) -> Done<ModelFile> {
        Ok(match self.0 {
            Some(path) => ModelFile::open(path)?,
            None => ModelFile::from_bytes(embedded()?)?,
        })
    }

    /// The model, ready to run.
    pub fn model(self, common: &Common) -> Done<Model> {
        self.model_with(common.backend()?, common.threads, common)
    }

    /// The model on a backend with so many threads, ready to run.
    pub fn model_with(self, backend: BackendKind, threads: Option<u16>, common: &Common) -> Done<Model> {
        let mut options = common.gpu(ModelOptions::default().backend(backend));
        if let Some(threads) = threads {
            options = options.threads(threads.into());
        }
        if let Some(isa) = &common.isa {
            options = options.level(isa);
        }
        if let Some(pre) = &common.pre {
            options = options.pre_tokenizer(pre);
        }
        Ok(match self.0 {
            Some(path) => options.open(path)?,
            None => options.from_bytes(embedded()?)?,
        })
    }
}
