//! What an architecture reads a model from: parameters by their short names, tensors with the shapes they must have.
#![forbid(unsafe_code)]

use gristmill_kernels::product;
use gristmill_kernels::quant::{GgmlType, dequantize_row};

use crate::backend::{Matrix, Norm};
use crate::gguf::{Metadata, Value};
use crate::model::file::{ModelFile, TensorHandle};
use crate::{Error, Result};

/// A model's file as an architecture sees it.
pub(crate) struct Loader<'a> {
    file: &'a ModelFile,
    arch: &'a str,
}

/// Some rows of a tensor, with a share in the file.
struct Rows {
    tensor: TensorHandle,
    bytes: std::ops::Range<usize>,
}

impl AsRef<[u8]> for Rows {
    fn as_ref(&self) -> &[u8] {
        let bytes = self.tensor.view().and_then(|view| view.bytes.get(self.bytes.clone()));
        bytes.unwrap_or_default()
    }
}

impl<'a> Loader<'a> {
    pub fn new(file: &'a ModelFile, arch: &'a str) -> Self {
        Loader { file, arch }
    }

    pub fn metadata(&self) -> &'a Metadata {
        self.file.metadata()
    }

    /// The whole name of a parameter: `llama.block_count` for `block_count`.
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.arch)
    }

    /// An integer parameter that must be there and not be zero.
    pub fn size(&self, name: &str) -> Result<usize> {
        let key = self.key(name);
        match self.optional_size(name)? {
            Some(size) => Ok(size),
            None => Err(Error::MetadataMissing { key, expected: "a positive integer" }),
        }
    }

    /// An integer parameter that, where it is there, must not be zero. An array must have one value for each layer, and
    /// give all layers the same.
    pub fn optional_size(&self, name: &str) -> Result<Option<usize>> {
        let key = self.key(name);
        let metadata = self.metadata();
        let size = match metadata.get(&key) {
            Some(Value::Array(_)) => {
                let values = metadata.u32s(&key)?.unwrap_or_default();
                if Some(values.len() as u64) != metadata.u64(&self.key("block_count"))? {
                    let found = format!("{} of them", values.len());
                    return Err(Error::MetadataType { key, expected: "one value for each layer", found });
                }
                let first = values.first().copied();
                if values.iter().any(|&value| Some(value) != first) {
                    return Err(self.unsupported(format!("different values of `{key}` in different layers")));
                }
                first
            }
            _ => metadata.u32(&key)?,
        };
        match size {
            Some(0) => Err(Error::MetadataType { key, expected: "a positive integer", found: "0".into() }),
            size => Ok(size.map(|size| size as usize)),
        }
    }

    /// A float parameter that must be there and be finite.
    pub fn float(&self, name: &str) -> Result<f32> {
        let key = self.key(name);
        self.optional_float(name)?.ok_or(Error::MetadataMissing { key, expected: "a float" })
    }

    /// A float parameter that, where it is there, must be finite.
    pub fn optional_float(&self, name: &str) -> Result<Option<f32>> {
        let key = self.key(name);
        match self.metadata().f32(&key)? {
            Some(found) if !found.is_finite() => {
                Err(Error::MetadataType { key, expected: "a finite number", found: found.to_string() })
            }
            value => Ok(value),
        }
    }

    /// A float parameter that must be there and be finite and not negative: what a norm adds below its root.
    fn epsilon(&self, name: &str) -> Result<f32> {
        let key = self.key(name);
        match self.float(name)? {
            eps if eps < 0.0 => {
                let found = eps.to_string();
                Err(Error::MetadataType { key, expected: "a number that is not negative", found })
            }
            eps => Ok(eps),
        }
    }

    /// Refuses the model for a feature that it needs and this version lacks.
    pub fn unsupported(&self, feature: String) -> Error {
        Error::UnsupportedFeature { architecture: self.arch.to_owned(), feature }
    }

    /// Whether the model has a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.file.tensor(name).is_some()
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorHandle> {
        let missing = || Error::TensorMissing { tensor: name.to_owned(), architecture: self.arch.to_owned() };
        let handle = self.file.handle(name).ok_or_else(missing)?;
        let info = handle.view().ok_or_else(missing)?.info;
        if info.shape() != shape {
            let expected = shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
            return Err(Error::TensorShape { tensor: name.to_owned(), expected, found: info.shape_text() });
        }
        if product::form(info.ty).is_none() {
            return Err(Error::TensorType { tensor: name.to_owned(), ty: info.ty });
        }
        Ok(handle)
    }

    /// The matrix `name`, which must have `rows` rows (outputs) of `len` weights (inputs).
    pub fn matrix(&self, name: &str, rows: usize, len: usize) -> Result<Matrix> {
        self.matrix_rows(name, rows, len, 0..rows)
    }

    /// Some of the rows of the matrix `name`, which must have `all` rows of `len` weights: one part of a fused matrix.
    pub fn matrix_rows(
        &self,
        name: &str,
        all: usize,
        len: usize,
        rows: std::ops::Range<usize>,
    ) -> Result<Matrix> {
        let tensor = self.tensor(name, &[len, all])?;
        let ty = tensor.view().map_or(GgmlType::F32, |view| view.info.ty);
        let row_bytes = ty.row_bytes(len).unwrap_or(0);
        let bytes = rows.start * row_bytes..rows.end * row_bytes;
        Ok(Matrix::new(ty, rows.len(), len, Rows { tensor, bytes }))
    }

    /// The number of tokens: the rows of the embedding `name`.
    pub fn vocabulary(&self, name: &str) -> Result<usize> {
        let missing = || Error::TensorMissing { tensor: name.to_owned(), architecture: self.arch.to_owned() };
        let info = self.file.tensor(name).ok_or_else(missing)?.info;
        Ok(info.rows())
    }

    /// The vector `name` of `len` floats.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let tensor = self.tensor(name, &[len])?;
        let mut floats = vec![0.0; len];
        let view = tensor.view().ok_or(Error::Internal { what: "a tensor that is gone" })?;
        dequantize_row(view.info.ty, view.bytes, &mut floats)
            .map_err(|_| Error::TensorType { tensor: name.to_owned(), ty: view.info.ty })?;
        Ok(floats)
    }

    /// The vector `name`, where it is there.
    pub fn optional_vector(&self, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        if self.has(name) { self.vector(name, len).map(Some) } else { Ok(None) }
    }

    /// The root mean square norm `name.weight` over `len` values.
    pub fn rms_norm(&self, name: &str, len: usize) -> Result<Norm> {
        let eps = self.epsilon("attention.layer_norm_rms_epsilon")?;
        Ok(Norm::Rms { weight: self.vector(&format!("{name}.weight"), len)?, eps })
    }

    /// The layer norm `name.weight`, `name.bias` over `len` values.
    pub fn layer_norm(&self, name: &str, len: usize) -> Result<Norm> {
        let eps = self.epsilon("attention.layer_norm_epsilon")?;
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        Ok(Norm::Layer { weight: self.vector(&weight, len)?, bias: self.vector(&bias, len)?, eps })
    }
}
