//! A tensor's entry in the table: name, shape, type and where its bytes lie.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;

use gristmill_kernels::quant::GgmlType;

use crate::{Error, Result};

/// The most dimensions that a tensor has.
pub const MAX_DIMS: usize = 4;

/// What a file says of one tensor, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The tensor's name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Sizes in ggml's order: `ne[0]` is the length of a row, `ne[1]` the number of rows. Sizes beyond
    /// [`TensorInfo::dims`] are 1; none is 0, and their product is a `usize`.
    pub ne: [usize; MAX_DIMS],
    /// How many sizes the file gives, 0 to 4.
    pub dims: usize,
    /// The format of the weights.
    pub ty: GgmlType,
    /// Where the bytes lie, from the beginning of the file that holds them.
    pub range: Range<u64>,
}

impl TensorInfo {
    /// Checks name, shape and type as every tensor of a file must be, and gives the tensor's size in bytes.
    ///
    /// # Errors
    /// [`Error::TensorDims`], [`Error::TensorZeroDim`], [`Error::TensorRow`], [`Error::TensorSize`].
    pub(super) fn layout(name: &str, dims: &[u64], ty: GgmlType) -> Result<([usize; MAX_DIMS], u64)> {
        let too_large = || Error::TensorSize { tensor: name.to_owned(), shape: Shape(dims).to_string(), ty };
        let mut ne = [1; MAX_DIMS];
        if dims.len() > MAX_DIMS {
            return Err(Error::TensorDims { tensor: name.to_owned(), found: dims.len() as u64 });
        }
        if dims.contains(&0) {
            return Err(Error::TensorZeroDim { tensor: name.to_owned(), shape: Shape(dims).to_string() });
        }
        for (size, &dim) in ne.iter_mut().zip(dims) {
            *size = usize::try_from(dim).map_err(|_| too_large())?;
        }
        let [row_len, rows @ ..] = ne;
        if !row_len.is_multiple_of(ty.block_len()) {
            return Err(Error::TensorRow { tensor: name.to_owned(), ty, found: row_len });
        }
        // The number of weights must be countable too, not only the bytes, which may be fewer.
        let multiply = |first: usize| rows.iter().try_fold(first, |product, &size| product.checked_mul(size));
        multiply(row_len).filter(|&weights| isize::try_from(weights).is_ok()).ok_or_else(too_large)?;
        let bytes = ty
            .row_bytes(row_len)
            .and_then(multiply)
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or_else(too_large)?;
        Ok((ne, bytes as u64))
    }

    /// The sizes that the file gives, in ggml's order.
    pub fn shape(&self) -> &[usize] {
        self.ne.get(..self.dims).unwrap_or(&self.ne)
    }

    /// Weights in a row.
    pub fn row_len(&self) -> usize {
        let [row_len, ..] = self.ne;
        row_len
    }

    /// Rows of all matrices of the tensor together.
    pub fn rows(&self) -> usize {
        let [_, rows @ ..] = self.ne;
        rows.iter().product()
    }

    /// Weights in the tensor.
    pub fn elements(&self) -> usize {
        self.ne.iter().product()
    }

    /// Bytes of the tensor.
    pub fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// The shape in ggml's order, for people: `[2048, 32000]`.
    pub fn shape_text(&self) -> String {
        Shape(self.shape()).to_string()
    }
}

/// One line: name, type and shape.
impl fmt::Display for TensorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.ty, self.shape_text())
    }
}

/// Prints sizes as `[2048, 32000]`.
struct Shape<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Shape<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, size) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            size.fmt(f)?;
        }
        f.write_str("]")
    }
}
