//! Importance matrices: how much the errors of each column of each tensor count, as llama-imatrix measures them.
//!
//! Two kinds of file are read: GGUF files with sums and counts, which are written too, and the older form without a name of
//! its own.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use gristmill_kernels::quant::GgmlType;

use crate::backend::Product;
use crate::gguf::{Gguf, Metadata, Strings, Value, Writer};
use crate::{Error, Result};

/// Importances by the names of tensors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imatrix {
    /// For each tensor one number a column; for tensors of experts, one a column and expert.
    pub entries: BTreeMap<String, Vec<f32>>,
    /// The file's path as it was given.
    pub path: String,
    /// The texts that were measured, as the file names them.
    pub datasets: Vec<String>,
    /// Chunks of text that were measured; 0 where the file does not say.
    pub chunks: u32,
}

impl Imatrix {
    /// Reads a file of either kind.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Imatrix`] where it is neither, is damaged, or holds numbers that are not finite.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let mut read = if bytes.starts_with(b"GGUF") { from_gguf(&bytes) } else { from_legacy(&bytes) }
            .map_err(|error| error.in_file(path))?;
        read.path = path.to_string_lossy().into_owned();
        for (name, values) in &read.entries {
            if let Some(found) = values.iter().find(|value| !value.is_finite()) {
                return Err(wrong(format!("the importance of `{name}` holds {found}")).in_file(path));
            }
        }
        if read.entries.is_empty() {
            return Err(wrong("it has no entries").in_file(path));
        }
        Ok(read)
    }
}

fn wrong(reason: impl Into<String>) -> Error {
    Error::Imatrix { reason: reason.into() }
}

/// The numbers of an F32 tensor.
fn floats(bytes: &[u8], gguf: &Gguf, name: &str) -> Result<Vec<f32>> {
    let missing = || wrong(format!("the tensor `{name}` is missing, or no F32"));
    let tensor = gguf.tensor(name).filter(|tensor| tensor.ty == GgmlType::F32).ok_or_else(missing)?;
    let place = tensor.range.start as usize..tensor.range.end as usize;
    let bytes = bytes.get(place).ok_or_else(missing)?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

fn from_gguf(bytes: &[u8]) -> Result<Imatrix> {
    let gguf = Gguf::parse(bytes)?;
    let metadata = &gguf.metadata;
    let (Some(datasets), Some(chunks), Some(_)) = (
        metadata.strings("imatrix.datasets")?,
        metadata.u32("imatrix.chunk_count")?,
        metadata.u32("imatrix.chunk_size")?,
    ) else {
        let keys = "imatrix.datasets, imatrix.chunk_count and imatrix.chunk_size";
        return Err(wrong(format!("expected the metadata keys {keys}: it is no importance matrix")));
    };
    let datasets = datasets.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let mut read = Imatrix { datasets, chunks, ..Imatrix::default() };
    for tensor in &gguf.tensors {
        let Some(name) = tensor.name.strip_suffix(".in_sum2") else { continue };
        let mut values = floats(bytes, &gguf, &tensor.name)?;
        let counts = floats(bytes, &gguf, &counts_of(name))?;
        let columns = values.len().checked_div(counts.len()).unwrap_or(0);
        if columns == 0 {
            return Err(wrong(format!("`{name}` has {} counts for {} sums", counts.len(), values.len())));
        }
        for (values, count) in values.chunks_mut(columns).zip(counts) {
            let count = count.round();
            for value in values {
                // What was never reached counts everywhere alike.
                *value = if count > 0.0 { *value / count } else { 1.0 };
            }
        }
        read.entries.insert(name.to_owned(), values);
    }
    Ok(read)
}

/// Reads numbers and strings one after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let short =
            || wrong("expected an importance matrix, found the end of the file: it is cut short, or none");
        let (bytes, rest) = self.0.split_at_checked(len).ok_or_else(short)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn i32(&mut self) -> Result<i32> {
        let bytes = self.bytes(4)?;
        Ok(bytes.first_chunk().map_or(0, |bytes| i32::from_le_bytes(*bytes)))
    }

    /// A count, at least `least`.
    fn count(&mut self, least: usize) -> Result<usize> {
        let found = self.i32()?;
        usize::try_from(found).ok().filter(|&count| count >= least).ok_or_else(|| {
            wrong(format!("expected a count of at least {least}, found {found}: it is no importance matrix"))
        })
    }
}

fn from_legacy(bytes: &[u8]) -> Result<Imatrix> {
    let mut reader = Reader(bytes);
    let mut read = Imatrix::default();
    for _ in 0..reader.count(1)? {
        let len = reader.count(0)?;
        let name = String::from_utf8_lossy(reader.bytes(len)?).into_owned();
        let calls = reader.i32()?;
        let len = reader.count(1)?.saturating_mul(4);
        let values = reader.bytes(len)?.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
        let calls = if calls > 0 { calls as f32 } else { 1.0 };
        read.entries.insert(name, values.map(|value| value / calls).collect());
    }
    // The rest is not in every file.
    if let Ok(chunks) = reader.i32() {
        read.chunks = u32::try_from(chunks).unwrap_or(0);
        if let Ok(name) = reader.count(1).and_then(|len| reader.bytes(len)) {
            read.datasets.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    Ok(read)
}

/// What was measured of one tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TensorSums {
    /// For each column the sum of its inputs' squares; for tensors of experts, expert by expert.
    pub sums: Vec<f64>,
    /// Inputs that were summed: of the tensor, or of each expert.
    pub counts: Vec<u64>,
}

/// An importance matrix in the making: sums of squares, as [`eval::imatrix`](crate::eval::imatrix()) finds them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImatrixSums {
    /// What was measured, by the names of tensors.
    pub tensors: BTreeMap<String, TensorSums>,
    /// What the file will say was measured.
    pub dataset: String,
    /// Chunks of text that were measured.
    pub chunks: u32,
    /// Tokens of a chunk.
    pub context: u32,
}

impl ImatrixSums {
    pub(crate) fn new(dataset: &str, context: usize) -> Self {
        let context = u32::try_from(context).unwrap_or(u32::MAX);
        ImatrixSums { dataset: dataset.to_owned(), context, ..ImatrixSums::default() }
    }

    /// Adds the inputs of a product; `shape` is the tensor's.
    pub(crate) fn add(&mut self, product: &Product<'_>, shape: &[usize]) {
        let (columns, rows) = (product.weights.len, shape.get(1).copied().unwrap_or(1).max(1));
        let matrices = shape.get(2).copied().unwrap_or(1);
        let (matrix, row) = (product.weights.first_row / rows, product.weights.first_row % rows);
        // Rows that are multiplied apart from the first ones have the same inputs.
        if row != 0 || columns == 0 {
            return;
        }
        let new = || TensorSums { sums: vec![0.0; columns * matrices], counts: vec![0; matrices] };
        let tensor = self.tensors.entry(product.weights.tensor.to_string()).or_insert_with(new);
        let whole = [(matrix, 0..product.inputs.len() / columns)];
        for (matrix, run) in product.experts.unwrap_or(&whole) {
            let inputs = product.inputs.get(run.start * columns..run.end * columns);
            let sums = tensor.sums.get_mut(matrix * columns..(matrix + 1) * columns);
            let (Some(inputs), Some(sums), Some(count)) = (inputs, sums, tensor.counts.get_mut(*matrix))
            else {
                continue;
            };
            *count += run.len() as u64;
            for input in inputs.chunks_exact(columns) {
                sums.iter_mut().zip(input).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
            }
        }
    }

    /// Counts a chunk whose inputs were all added.
    pub(crate) fn end_chunk(&mut self) -> Result<()> {
        self.chunks += 1;
        match self.tensors.iter().find(|(_, tensor)| tensor.sums.iter().any(|sum| !sum.is_finite())) {
            Some((tensor, _)) => Err(Error::NonFiniteInputs { tensor: tensor.clone() }),
            None => Ok(()),
        }
    }

    /// Writes it in the GGUF form of llama-imatrix.
    ///
    /// # Errors
    /// [`Error::GgufWrite`].
    pub fn write(&self, out: impl Write) -> Result<()> {
        let mut metadata = Metadata::new();
        metadata.set("general.type", "imatrix");
        metadata.set("imatrix.datasets", [&self.dataset].into_iter().collect::<Strings>());
        metadata.set("imatrix.chunk_count", self.chunks);
        metadata.set("imatrix.chunk_size", self.context);
        let mut writer = Writer::new(metadata)?;
        for (name, tensor) in &self.tensors {
            // A dimension of one at the end is left out, as llama.cpp does.
            let matrices = Some(tensor.counts.len()).filter(|&matrices| matrices > 1);
            let shape = |columns: usize| [Some(columns), matrices].into_iter().flatten().collect::<Vec<_>>();
            let columns = tensor.sums.len() / tensor.counts.len().max(1);
            writer.tensor(&sums_of(name), &shape(columns), GgmlType::F32)?;
            writer.tensor(&counts_of(name), &shape(1), GgmlType::F32)?;
        }
        let mut data = writer.start(out)?;
        for (name, tensor) in &self.tensors {
            let bytes = |numbers: &mut dyn Iterator<Item = f32>| {
                numbers.flat_map(f32::to_le_bytes).collect::<Vec<_>>()
            };
            data.write(&sums_of(name), &bytes(&mut tensor.sums.iter().map(|&sum| sum as f32)))?;
            data.write(&counts_of(name), &bytes(&mut tensor.counts.iter().map(|&count| count as f32)))?;
        }
        data.finish().map(|_| ())
    }
}

/// The names of the tensors that hold what was measured of a tensor.
fn sums_of(name: &str) -> String {
    format!("{name}.in_sum2")
}

fn counts_of(name: &str) -> String {
    format!("{name}.counts")
}

/// What llama-quantize writes into the file about the importance matrix.
pub(super) fn provenance(imatrix: &Imatrix) -> Vec<(&'static str, Value)> {
    // As many bytes as it has room for.
    let text = |text: &str| Value::String(text.bytes().take(127).collect());
    let mut keys = vec![("quantize.imatrix.file", text(&imatrix.path))];
    keys.extend(imatrix.datasets.first().map(|name| ("quantize.imatrix.dataset", text(name))));
    keys.push(("quantize.imatrix.entries_count", Value::U32(imatrix.entries.len() as u32)));
    if imatrix.chunks > 0 {
        keys.push(("quantize.imatrix.chunks_count", Value::U32(imatrix.chunks)));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Matrix;

    fn file(name: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("gristmill-imatrix-{}-{name}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        path
    }

    fn read(name: &str, bytes: &[u8]) -> Result<Imatrix> {
        let path = file(name, bytes);
        let read = Imatrix::open(&path);
        fs::remove_file(path).unwrap();
        read
    }

    fn le(numbers: &[f32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    #[test]
    fn sums_are_divided_by_counts_and_unreached_experts_count_alike() {
        let mut metadata = Metadata::new();
        metadata.set("imatrix.datasets", ["a.txt"].into_iter().collect::<Strings>());
        metadata.set("imatrix.chunk_count", 3_u32);
        metadata.set("imatrix.chunk_size", 512_u32);
        let mut writer = Writer::new(metadata).unwrap();
        writer.tensor("blk.0.ffn_up_exps.weight.in_sum2", &[2, 2], GgmlType::F32).unwrap();
        writer.tensor("blk.0.ffn_up_exps.weight.counts", &[1, 2], GgmlType::F32).unwrap();
        let mut data = writer.start(Vec::new()).unwrap();
        data.write("blk.0.ffn_up_exps.weight.in_sum2", &le(&[8.0, 4.0, 5.0, 6.0])).unwrap();
        data.write("blk.0.ffn_up_exps.weight.counts", &le(&[4.0, 0.0])).unwrap();
        let read = read("gguf", &data.finish().unwrap()).unwrap();
        assert_eq!(read.entries["blk.0.ffn_up_exps.weight"], [2.0, 1.0, 1.0, 1.0]);
        assert_eq!((read.chunks, read.datasets), (3, vec!["a.txt".to_owned()]));
    }

    fn matrix(tensor: &str, first_row: usize, columns: usize) -> Matrix {
        Matrix::new((tensor, first_row), GgmlType::F32, 2, columns, Vec::new())
    }

    #[test]
    fn squares_are_summed_for_each_column_and_expert() {
        let mut sums = ImatrixSums::new("a.txt", 2);
        let inputs = [1.0, 2.0, 3.0, 4.0];
        let dense = matrix("dense", 0, 2);
        let rest = matrix("dense", 2, 2);
        for weights in [&dense, &rest] {
            // The second is the lower part of a fused tensor, multiplied with the same inputs.
            sums.add(&Product { weights, experts: None, inputs: &inputs }, &[2, 4]);
        }
        let experts = [(0, 0..1), (2, 1..2)];
        let weights = &matrix("experts", 0, 2);
        for _ in 0..2 {
            sums.add(&Product { weights, experts: Some(&experts), inputs: &inputs }, &[2, 2, 3]);
        }
        sums.end_chunk().unwrap();
        assert_eq!(sums.chunks, 1);
        assert_eq!(sums.tensors["dense"], TensorSums { sums: vec![10.0, 20.0], counts: vec![2] });
        let expected = TensorSums { sums: vec![2.0, 8.0, 0.0, 0.0, 18.0, 32.0], counts: vec![2, 0, 2] };
        assert_eq!(sums.tensors["experts"], expected);
        let mut bytes = Vec::new();
        sums.write(&mut bytes).unwrap();
        let read = read("written", &bytes).unwrap();
        assert_eq!(read.entries["experts"], [1.0, 4.0, 1.0, 1.0, 9.0, 16.0]);
        sums.add(&Product { weights, experts: None, inputs: &[f32::NAN, 0.0] }, &[2, 2, 3]);
        assert!(matches!(sums.end_chunk(), Err(Error::NonFiniteInputs { tensor }) if tensor == "experts"));
    }

    fn legacy(value: f32) -> Vec<u8> {
        let mut bytes = 1_i32.to_le_bytes().to_vec();
        bytes.extend(1_i32.to_le_bytes());
        bytes.extend(b"w");
        bytes.extend(2_i32.to_le_bytes());
        bytes.extend(2_i32.to_le_bytes());
        bytes.extend(le(&[value, 3.0]));
        bytes
    }

    #[test]
    fn the_older_form_is_read_with_and_without_its_end() {
        let mut bytes = legacy(1.0);
        assert_eq!(read("short", &bytes).unwrap().entries["w"], [0.5, 1.5]);
        bytes.extend(7_i32.to_le_bytes());
        bytes.extend(2_i32.to_le_bytes());
        bytes.extend(b"ab");
        let read = read("long", &bytes).unwrap();
        assert_eq!((read.chunks, read.datasets), (7, vec!["ab".to_owned()]));
    }

    #[test]
    fn damage_is_told() {
        let reasons = [
            read("empty", &[]),
            read("cut", &legacy(1.0)[..20]),
            read("negative", &(-1_i32).to_le_bytes()),
            read("nan", &legacy(f32::NAN)),
        ];
        for reason in reasons {
            let Err(Error::InFile { source, .. }) = reason else { panic!("{reason:?}") };
            assert!(matches!(*source, Error::Imatrix { .. }), "{source}");
        }
    }
}
