//! The small models of `tests/data/models`.

use std::path::PathBuf;

use gristmill::Result;
use gristmill::gguf::{Gguf, Metadata, Writer};
use gristmill_kernels::quant::GgmlType;

pub const GPT2: &str = "gpt2.f16.gguf";
pub const LLAMA: &str = "llama3_rope.f16.gguf";
pub const QWEN3: &str = "qwen3.f16.gguf";
pub const MISTRAL: &str = "mistral.f16.gguf";
pub const STORIES: &str = "stories260K-f32.gguf";
pub const ALL: [&str; 5] = [GPT2, LLAMA, QWEN3, MISTRAL, STORIES];

/// The folder, or a file in it.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models")).join(name)
}

pub fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

/// The model that is built into the program.
pub fn instruct() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/vendor/models/tiny-instruct-q8_0.gguf"))
}

/// `len` different-looking tokens, all below 300.
pub fn tokens(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i * 7919 + 13) % 300).collect()
}

/// A file taken apart, to be put together otherwise.
#[derive(Clone)]
pub struct Parts {
    pub metadata: Metadata,
    pub tensors: Vec<Tensor>,
}

#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub ty: GgmlType,
    pub bytes: Vec<u8>,
}

impl Parts {
    pub fn of(file: &[u8]) -> Self {
        let gguf = Gguf::parse(file).unwrap();
        let tensors = gguf.tensors.iter().map(|tensor| Tensor {
            name: tensor.name.clone(),
            shape: tensor.shape().to_vec(),
            ty: tensor.ty,
            bytes: file[tensor.range.start as usize..tensor.range.end as usize].to_vec(),
        });
        Parts { tensors: tensors.collect(), metadata: gguf.metadata }
    }

    /// The file again; an error where the writer, too, knows better.
    pub fn file(&self) -> Result<Vec<u8>> {
        let mut writer = Writer::new(self.metadata.clone())?;
        for tensor in &self.tensors {
            writer.tensor(&tensor.name, &tensor.shape, tensor.ty)?;
        }
        let mut data = writer.start(Vec::new())?;
        for tensor in &self.tensors {
            data.write(&tensor.name, &tensor.bytes)?;
        }
        data.finish()
    }
}
