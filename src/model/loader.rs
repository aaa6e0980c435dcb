//! What an architecture reads a model from: parameters by their short names, tensors with the shapes they must have.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashSet;

use gristmill_kernels::product;
use gristmill_kernels::quant::{GgmlType, dequantize_row};

use super::outline::StandIn;
use crate::backend::{Matrix, Norm};
use crate::gguf::{Array, Metadata, TensorInfo, Value};
use crate::model::file::{ModelFile, TensorHandle};
use crate::{Error, Result};

/// The largest size that a parameter may give.
const LARGEST: usize = 1 << 28;

/// A model's file as an architecture sees it.
pub(crate) struct Loader<'a> {
    file: &'a ModelFile,
    arch: &'a str,
    /// The tensors that were read.
    read: RefCell<HashSet<String>>,
    /// What stands in for the weights.
    stand_in: Option<StandIn>,
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
        Loader { file, arch, read: RefCell::default(), stand_in: None }
    }

    /// Reads parameters and shapes from the file, but no weights.
    pub fn without_weights(file: &'a ModelFile, arch: &'a str, stand_in: StandIn) -> Self {
        Loader { stand_in: Some(stand_in), ..Loader::new(file, arch) }
    }

    /// The tensors of the file that nobody has read, in the file's order.
    pub fn unread(&self) -> Vec<String> {
        let read = self.read.borrow();
        let names = self.file.tensors().map(|tensor| &tensor.info.name);
        names.filter(|name| !read.contains(*name)).cloned().collect()
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
        if let Some(values) = self.layered(name)? {
            let first = values.first().copied();
            if values.iter().any(|&value| Some(value) != first) {
                let key = self.key(name);
                return Err(self.unsupported(format!("different values of `{key}` in different layers")));
            }
        }
        self.optional_size_at(name, 0)
    }

    /// An integer parameter of a layer, which must be there and not be zero: from an array of one value for each layer,
    /// or one for all.
    pub fn size_at(&self, name: &str, layer: usize) -> Result<usize> {
        let key = self.key(name);
        let size = self.optional_size_at(name, layer)?;
        size.ok_or(Error::MetadataMissing { key, expected: "a positive integer" })
    }

    /// As [`Loader::size_at`], where it is there.
    pub fn optional_size_at(&self, name: &str, layer: usize) -> Result<Option<usize>> {
        match self.count_at(name, layer)? {
            Some(0) => {
                let (expected, found) = ("a positive integer", "0".into());
                Err(Error::MetadataType { key: self.key(name), expected, found })
            }
            // So that products of a few sizes cannot overflow.
            Some(size) if size > LARGEST => {
                let (expected, found) = ("a size that a model can have", size.to_string());
                Err(Error::MetadataType { key: self.key(name), expected, found })
            }
            size => Ok(size),
        }
    }

    /// An integer parameter of a layer, zero among them.
    pub fn count_at(&self, name: &str, layer: usize) -> Result<Option<usize>> {
        let count = match self.layered(name)? {
            Some(values) => values.get(layer).copied(),
            None => self.metadata().u32(&self.key(name))?,
        };
        Ok(count.map(|count| count as usize))
    }

    /// Whether tokens see none behind their own, as they do unless `attention.causal` says otherwise.
    pub fn causal(&self) -> Result<bool> {
        Ok(self.metadata().bool(&self.key("attention.causal"))?.unwrap_or(true))
    }

    /// Whether a layer has no attention: no heads of keys.
    pub fn recurrent(&self, layer: usize) -> Result<bool> {
        Ok(self.count_at("attention.head_count_kv", layer)? == Some(0))
    }

    /// An array of one integer for each layer; `None` for anything but an array.
    fn layered(&self, name: &str) -> Result<Option<Vec<u32>>> {
        let key = self.key(name);
        let metadata = self.metadata();
        let Some(Value::Array(_)) = metadata.get(&key) else { return Ok(None) };
        let values = metadata.u32s(&key)?.unwrap_or_default();
        if Some(values.len() as u64) != metadata.u64(&self.key("block_count"))? {
            let found = format!("{} of them", values.len());
            return Err(Error::MetadataType { key, expected: "one value for each layer", found });
        }
        Ok(Some(values.to_vec()))
    }

    /// The window of a layer's attention: `attention.sliding_window`, for the layers that have one by
    /// `attention.sliding_window_pattern`. That is either a boolean for each layer or one number, `period` where it is
    /// left out: of so many layers the last sees all positions.
    pub fn window(&self, layer: usize, period: usize) -> Result<Option<usize>> {
        self.window_but_for(layer, period, |layer, period| (layer + 1).is_multiple_of(period))
    }

    /// As [`Loader::window`]; of so many layers the first sees all positions.
    pub fn window_after_first(&self, layer: usize, period: usize) -> Result<Option<usize>> {
        self.window_but_for(layer, period, |layer, period| layer.is_multiple_of(period))
    }

    fn window_but_for(
        &self,
        layer: usize,
        period: usize,
        sees_all: fn(usize, usize) -> bool,
    ) -> Result<Option<usize>> {
        let window = self.count_at("attention.sliding_window", layer)?.filter(|&window| window > 0);
        let key = self.key("attention.sliding_window_pattern");
        if let Some(Value::Array(Array::Bool(windows))) = self.metadata().get(&key) {
            let has_window = windows.get(layer).copied().ok_or_else(|| {
                let found = format!("{} of them", windows.len());
                Error::MetadataType { key, expected: "one value for each layer", found }
            })?;
            return Ok(window.filter(|_| has_window));
        }
        let period = self.optional_size("attention.sliding_window_pattern")?.unwrap_or(period);
        Ok(window.filter(|_| !sees_all(layer, period)))
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

    /// What a root mean square norm adds below its root. A few models have it under the layer norms' name.
    pub fn rms_epsilon(&self) -> Result<f32> {
        let own = "attention.layer_norm_rms_epsilon";
        let other = "attention.layer_norm_epsilon";
        let use_other =
            !self.metadata().contains(&self.key(own)) && self.metadata().contains(&self.key(other));
        self.epsilon(if use_other { other } else { own })
    }

    /// Refuses the model for a feature that it needs and this version lacks.
    pub fn unsupported(&self, feature: String) -> Error {
        Error::UnsupportedFeature { architecture: self.arch.to_owned(), feature }
    }

    /// The error for a tensor that is not there.
    pub fn missing(&self, tensor: String) -> Error {
        Error::TensorMissing { tensor, architecture: self.arch.to_owned() }
    }

    /// The weights of the tensor `name`, where it is there.
    pub fn len(&self, name: &str) -> Option<usize> {
        self.file.info(name).map(|info| info.shape().iter().product())
    }

    /// Whether the model has a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.file.info(name).is_some()
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<(TensorHandle, &'a TensorInfo)> {
        let missing = || self.missing(name.to_owned());
        let handle = self.file.handle(name).ok_or_else(missing)?;
        let info = self.file.info(name).ok_or_else(missing)?;
        if self.stand_in.is_none() {
            handle.view().ok_or_else(missing)?;
        }
        if !same_shape(info.shape(), shape) {
            let expected = shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
            return Err(Error::TensorShape { tensor: name.to_owned(), expected, found: info.shape_text() });
        }
        if product::form(info.ty).is_none() {
            return Err(Error::TensorType { tensor: name.to_owned(), ty: info.ty });
        }
        self.read.borrow_mut().insert(name.to_owned());
        Ok((handle, info))
    }

    /// Rows of the tensor `name` as a matrix, from its row `first_row` on.
    fn rows(
        &self,
        (name, first_row): (&str, usize),
        ty: GgmlType,
        rows: usize,
        len: usize,
        from: Rows,
    ) -> Matrix {
        let place = (name, first_row);
        match &self.stand_in {
            None => {
                let mapped = from.tensor.is_mapped();
                Matrix::new(place, ty, rows, len, from).mapped(mapped)
            }
            Some(stand_in) => Matrix::new(place, ty, rows, len, stand_in.bytes(from.bytes.len())),
        }
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
        let (tensor, &TensorInfo { ty, .. }) = self.tensor(name, &[len, all])?;
        let row_bytes = ty.row_bytes(len).unwrap_or(0);
        let bytes = rows.start * row_bytes..rows.end * row_bytes;
        Ok(self.rows((name, rows.start), ty, rows.len(), len, Rows { tensor, bytes }))
    }

    /// The number of tokens: the rows of the embedding `name`.
    pub fn vocabulary(&self, name: &str) -> Result<usize> {
        let info = self.file.info(name).ok_or_else(|| self.missing(name.to_owned()))?;
        Ok(info.rows())
    }

    /// The matrices of `experts` experts, `name` `[experts, rows, len]`, one below the other.
    pub fn experts(&self, name: &str, experts: usize, rows: usize, len: usize) -> Result<Matrix> {
        let (tensor, info) = self.tensor(name, &[len, rows, experts])?;
        let bytes = 0..usize::try_from(info.bytes()).unwrap_or(usize::MAX);
        Ok(self.rows((name, 0), info.ty, rows * experts, len, Rows { tensor, bytes }))
    }

    /// One of `count` matrices in the tensor `name` `[count, rows, len]`.
    pub fn nth_matrix(&self, name: &str, count: usize, n: usize, rows: usize, len: usize) -> Result<Matrix> {
        let (tensor, info) = self.tensor(name, &[len, rows, count])?;
        let bytes = usize::try_from(info.bytes()).unwrap_or(usize::MAX) / count.max(1);
        Ok(self.rows(
            (name, n * rows),
            info.ty,
            rows,
            len,
            Rows { tensor, bytes: n * bytes..(n + 1) * bytes },
        ))
    }

    fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (tensor, _) = self.tensor(name, shape)?;
        if let Some(stand_in) = &self.stand_in {
            return stand_in.floats(shape.iter().product());
        }
        let mut floats = vec![0.0; shape.iter().product()];
        let view = tensor.view().ok_or(Error::Internal { what: "a tensor that is gone" })?;
        dequantize_row(view.info.ty, view.bytes, &mut floats)
            .map_err(|_| Error::TensorType { tensor: name.to_owned(), ty: view.info.ty })?;
        Ok(floats)
    }

    /// The vector `name` of `len` floats.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.floats(name, &[len])
    }

    /// The tensor `name` of any shape with `len` floats.
    pub fn vector_of(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let shape = self.file.info(name).map(|info| info.shape().to_vec());
        let shape = shape.filter(|shape| shape.iter().product::<usize>() == len);
        self.floats(name, shape.as_deref().unwrap_or(&[len]))
    }

    /// As [`Loader::vector_of`], where it is there.
    pub fn optional_vector_of(&self, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        if self.has(name) { self.vector_of(name, len).map(Some) } else { Ok(None) }
    }

    /// The matrix `name` of `rows` rows of `len` as floats, row by row.
    pub fn table(&self, name: &str, rows: usize, len: usize) -> Result<Vec<f32>> {
        self.floats(name, &[len, rows])
    }

    /// As [`Loader::table`], where it is there.
    pub fn optional_table(&self, name: &str, rows: usize, len: usize) -> Result<Option<Vec<f32>>> {
        if self.has(name) { self.table(name, rows, len).map(Some) } else { Ok(None) }
    }

    /// The vector `name`, where it is there.
    pub fn optional_vector(&self, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        if self.has(name) { self.vector(name, len).map(Some) } else { Ok(None) }
    }
}

/// Whether two shapes are the same; dimensions of one at the end may be left out.
fn same_shape(found: &[usize], expected: &[usize]) -> bool {
    let dims = |shape: &[usize]| std::array::from_fn::<_, 4, _>(|i| shape.get(i).copied().unwrap_or(1));
    dims(found) == dims(expected)
}

/// The kind of a model's norms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Norms {
    /// Root mean square, under `attention.layer_norm_rms_epsilon`.
    Rms,
    /// Layer norms, under `attention.layer_norm_epsilon`, with or without a bias.
    Layer,
    /// Layer norms, under `attention.layer_norm_rms_epsilon`.
    LayerByRmsKey,
}

impl Norms {
    /// The norm `name.weight` (and `name.bias`) over `len` values.
    pub fn load(self, loader: &Loader<'_>, name: &str, len: usize) -> Result<Norm> {
        // A few files leave the suffix out.
        let bare = loader.has(name).then(|| loader.vector(name, len)).transpose()?;
        let weight = bare.map_or_else(|| loader.vector(&format!("{name}.weight"), len), Ok)?;
        match self {
            Norms::Rms => Ok(Norm::Rms { weight: weight.into(), eps: loader.rms_epsilon()? }),
            Norms::Layer | Norms::LayerByRmsKey => {
                let bias = loader.optional_vector(&format!("{name}.bias"), len)?;
                let key = if self == Norms::Layer { "layer_norm_epsilon" } else { "layer_norm_rms_epsilon" };
                let eps = loader.epsilon(&format!("attention.{key}"))?;
                Ok(Norm::Layer {
                    weight: weight.into(),
                    bias: bias.unwrap_or_else(|| vec![0.0; len]).into(),
                    eps,
                })
            }
        }
    }

    /// The root mean square norm over `len` values, without weights.
    pub fn unit(loader: &Loader<'_>, len: usize) -> Result<Norm> {
        Ok(Norm::Rms { weight: vec![1.0; len].into(), eps: loader.rms_epsilon()? })
    }
}
