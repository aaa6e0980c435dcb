//! Writes GGUF files: the header first, from metadata and declared tensors, then the tensors' bytes as they come.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::io::{self, Write};

use byteorder::{BigEndian, LittleEndian};
use gristmill_kernels::quant::GgmlType;

use super::cursor::Number;
use super::metadata::Metadata;
use super::reader::{self, ByteOrder, MAX_NESTING};
use super::tensor::TensorInfo;
use super::value::{Array, Value};
use crate::{Error, Result};

/// The header of a file to be: metadata and the tensors that will follow.
///
/// Files are of version 3 and little-endian unless asked otherwise. Tensors are laid out in the order of
/// [`Writer::tensor`], as ggml wants them.
///
/// ```
/// use gristmill::gguf::{Gguf, Metadata, Writer};
/// use gristmill_kernels::quant::GgmlType;
///
/// let mut metadata = Metadata::new();
/// metadata.set("general.architecture", "toy");
/// let mut writer = Writer::new(metadata)?;
/// writer.tensor("weight", &[2, 1], GgmlType::F32)?;
/// let mut data = writer.start(Vec::new())?;
/// data.write("weight", &1_f32.to_le_bytes())?;
/// data.write("weight", &2_f32.to_le_bytes())?;
/// let file = data.finish()?;
///
/// let gguf = Gguf::parse(&file)?;
/// assert_eq!(gguf.metadata.str("general.architecture")?, Some("toy"));
/// assert_eq!(gguf.tensors[0].shape(), [2, 1]);
/// # Ok::<(), gristmill::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Writer {
    version: u32,
    byte_order: ByteOrder,
    alignment: u64,
    metadata: Metadata,
    /// Ranges are offsets from the beginning of the data section.
    tensors: Vec<TensorInfo>,
    names: HashSet<String>,
    /// Where the next tensor begins.
    offset: u64,
}

impl Writer {
    /// A file with these metadata, whose `general.alignment` sets the alignment of the tensors.
    ///
    /// # Errors
    /// Whatever the reader would refuse: [`Error::MetadataKey`], [`Error::MetadataNesting`],
    /// [`Error::GgufAlignment`].
    pub fn new(metadata: Metadata) -> Result<Self> {
        let alignment = reader::alignment(&metadata)?;
        for (index, (key, value)) in metadata.iter().enumerate() {
            if key.is_empty() {
                return Err(Error::MetadataKey { index: index as u64, found: String::new() });
            }
            if let Value::Array(array) = value
                && array.nesting() > MAX_NESTING
            {
                return Err(Error::MetadataNesting { key: key.to_owned() });
            }
        }
        Ok(Self {
            version: 3,
            byte_order: ByteOrder::Little,
            alignment,
            metadata,
            tensors: Vec::new(),
            names: HashSet::new(),
            offset: 0,
        })
    }

    /// Writes this version: 2 or 3, which differ in the number alone.
    ///
    /// # Errors
    /// [`Error::GgufVersion`] for others.
    pub fn version(mut self, version: u32) -> Result<Self> {
        reader::check_version(version)?;
        self.version = version;
        Ok(self)
    }

    /// Writes the header's numbers in this byte order. Tensors' bytes are written as they are given; see
    /// [`swap_bytes`](super::swap_bytes).
    pub fn byte_order(mut self, byte_order: ByteOrder) -> Self {
        self.byte_order = byte_order;
        self
    }

    /// Declares the next tensor; `shape` is in ggml's order, the row length first.
    ///
    /// # Errors
    /// [`Error::TensorDuplicate`] and whatever is wrong with the shape.
    pub fn tensor(&mut self, name: &str, shape: &[usize], ty: GgmlType) -> Result<()> {
        let sizes: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
        let (ne, bytes) = TensorInfo::layout(name, &sizes, ty)?;
        let begin = self.offset;
        let overflow = || Error::TensorOffset { tensor: name.to_owned(), found: begin, bytes };
        let end = begin.checked_add(bytes).ok_or_else(overflow)?;
        self.offset = end.checked_next_multiple_of(self.alignment).ok_or_else(overflow)?;
        if !self.names.insert(name.to_owned()) {
            return Err(Error::TensorDuplicate { tensor: name.to_owned() });
        }
        self.tensors.push(TensorInfo { name: name.to_owned(), ne, dims: shape.len(), ty, range: begin..end });
        Ok(())
    }

    /// Writes the header to `out`, and gives what writes the tensors after it.
    ///
    /// # Errors
    /// [`Error::GgufWrite`].
    pub fn start<W: Write>(self, mut out: W) -> Result<DataWriter<W>> {
        let mut header = match self.byte_order {
            ByteOrder::Little => self.header::<LittleEndian>(),
            ByteOrder::Big => self.header::<BigEndian>(),
        };
        if !self.tensors.is_empty() {
            let padding = padding(header.len() as u64, self.alignment);
            header.extend((0..padding).map(|_| 0));
        }
        out.write_all(&header).map_err(|source| Error::GgufWrite { source })?;
        let mut data =
            DataWriter { out, alignment: self.alignment, tensors: self.tensors.into(), next: 0, written: 0 };
        data.advance()?;
        Ok(data)
    }

    fn header<B: byteorder::ByteOrder>(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        self.version.write::<B>(&mut out);
        (self.tensors.len() as u64).write::<B>(&mut out);
        (self.metadata.len() as u64).write::<B>(&mut out);
        for (key, value) in self.metadata.iter() {
            write_string::<B>(key.as_bytes(), &mut out);
            value.ty().id().write::<B>(&mut out);
            write_value::<B>(value, &mut out);
        }
        for tensor in &self.tensors {
            write_string::<B>(tensor.name.as_bytes(), &mut out);
            (tensor.shape().len() as u32).write::<B>(&mut out);
            for &size in tensor.shape() {
                (size as u64).write::<B>(&mut out);
            }
            (tensor.ty as u32).write::<B>(&mut out);
            tensor.range.start.write::<B>(&mut out);
        }
        out
    }
}

/// Bytes from `position` to the next multiple of `alignment`, a power of two.
fn padding(position: u64, alignment: u64) -> u64 {
    position.wrapping_neg() & (alignment - 1)
}

fn write_string<B: byteorder::ByteOrder>(bytes: &[u8], out: &mut Vec<u8>) {
    (bytes.len() as u64).write::<B>(out);
    out.extend_from_slice(bytes);
}

fn write_numbers<B: byteorder::ByteOrder, T: Number>(numbers: &[T], out: &mut Vec<u8>) {
    numbers.iter().for_each(|number| number.write::<B>(out));
}

fn write_value<B: byteorder::ByteOrder>(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::U8(value) => value.write::<B>(out),
        Value::I8(value) => value.write::<B>(out),
        Value::U16(value) => value.write::<B>(out),
        Value::I16(value) => value.write::<B>(out),
        Value::U32(value) => value.write::<B>(out),
        Value::I32(value) => value.write::<B>(out),
        Value::F32(value) => value.write::<B>(out),
        Value::Bool(value) => u8::from(*value).write::<B>(out),
        Value::U64(value) => value.write::<B>(out),
        Value::I64(value) => value.write::<B>(out),
        Value::F64(value) => value.write::<B>(out),
        Value::String(bytes) => write_string::<B>(bytes, out),
        Value::Array(array) => write_array::<B>(array, out),
    }
}

fn write_array<B: byteorder::ByteOrder>(array: &Array, out: &mut Vec<u8>) {
    array.element_ty().id().write::<B>(out);
    (array.len() as u64).write::<B>(out);
    match array {
        Array::U8(numbers) => write_numbers::<B, _>(numbers, out),
        Array::I8(numbers) => write_numbers::<B, _>(numbers, out),
        Array::U16(numbers) => write_numbers::<B, _>(numbers, out),
        Array::I16(numbers) => write_numbers::<B, _>(numbers, out),
        Array::U32(numbers) => write_numbers::<B, _>(numbers, out),
        Array::I32(numbers) => write_numbers::<B, _>(numbers, out),
        Array::F32(numbers) => write_numbers::<B, _>(numbers, out),
        Array::Bool(flags) => out.extend(flags.iter().map(|&flag| u8::from(flag))),
        Array::U64(numbers) => write_numbers::<B, _>(numbers, out),
        Array::I64(numbers) => write_numbers::<B, _>(numbers, out),
        Array::F64(numbers) => write_numbers::<B, _>(numbers, out),
        Array::String(strings) => strings.iter().for_each(|string| write_string::<B>(string, out)),
        Array::Array(arrays) => arrays.iter().for_each(|array| write_array::<B>(array, out)),
    }
}

/// Writes the tensors' bytes, in the order in which they were declared, each padded to the alignment.
#[derive(Debug)]
pub struct DataWriter<W> {
    out: W,
    alignment: u64,
    tensors: Box<[TensorInfo]>,
    /// The tensor whose bytes come next.
    next: usize,
    /// Its bytes written so far.
    written: u64,
}

impl<W: Write> DataWriter<W> {
    /// Writes the next bytes of the tensor `name`: all of them at once, or some at a time.
    ///
    /// # Errors
    /// [`Error::TensorWrite`] where another tensor is due or the bytes are too many; [`Error::GgufWrite`].
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let wrong = |expected| Error::TensorWrite {
            tensor: name.to_owned(),
            expected,
            found: format!("{} bytes of it", bytes.len()),
        };
        let Some(tensor) = self.tensors.get(self.next) else {
            return Err(wrong("the end of the file".into()));
        };
        if tensor.name != name {
            return Err(wrong(format!("bytes of the tensor `{}`", tensor.name)));
        }
        let left = tensor.bytes() - self.written;
        if bytes.len() as u64 > left {
            return Err(wrong(format!("at most {left} bytes")));
        }
        self.out.write_all(bytes).map_err(|source| Error::GgufWrite { source })?;
        self.written += bytes.len() as u64;
        self.advance()
    }

    /// Ends the current tensor where it is complete.
    fn advance(&mut self) -> Result<()> {
        if let Some(tensor) = self.tensors.get(self.next)
            && self.written == tensor.bytes()
        {
            let mut zeros = io::Read::take(io::repeat(0), padding(self.written, self.alignment));
            io::copy(&mut zeros, &mut self.out).map_err(|source| Error::GgufWrite { source })?;
            self.next += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Flushes, and gives back what was written to.
    ///
    /// # Errors
    /// [`Error::TensorWrite`] where bytes are missing; [`Error::GgufWrite`].
    pub fn finish(mut self) -> Result<W> {
        if let Some(tensor) = self.tensors.get(self.next) {
            return Err(Error::TensorWrite {
                tensor: tensor.name.clone(),
                expected: format!("{} bytes", tensor.bytes()),
                found: format!("{} when the file was finished", self.written),
            });
        }
        self.out.flush().map_err(|source| Error::GgufWrite { source })?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{Gguf, Strings};

    /// One key of every kind, and arrays of every kind, nested and empty ones too.
    fn every_kind() -> Metadata {
        let mut metadata = Metadata::new();
        metadata.set("u8", 200_u8);
        metadata.set("i8", -100_i8);
        metadata.set("u16", 60_000_u16);
        metadata.set("i16", -30_000_i16);
        metadata.set("u32", 4_000_000_000_u32);
        metadata.set("i32", -2_000_000_000_i32);
        metadata.set("f32", -0.1_f32);
        metadata.set("bool", true);
        metadata.set("str", "grüß dich");
        metadata.set("bytes", Value::String(vec![0, 0xff, 0x80]));
        metadata.set("u64", u64::MAX);
        metadata.set("i64", i64::MIN);
        metadata.set("f64", 0.1_f64);
        metadata.set("u8s", vec![0_u8, 1, 255]);
        metadata.set("i8s", vec![-128_i8, 127]);
        metadata.set("u16s", vec![0_u16, 65_535]);
        metadata.set("i16s", vec![-32_768_i16]);
        metadata.set("u32s", vec![1_u32, 2, 3]);
        metadata.set("i32s", Vec::<i32>::new());
        metadata.set("f32s", vec![1.5_f32, f32::INFINITY]);
        metadata.set("bools", vec![true, false, true]);
        metadata.set("u64s", vec![u64::MAX, 0]);
        metadata.set("i64s", vec![i64::MIN, -1]);
        metadata.set("f64s", vec![1e300_f64]);
        metadata.set("strs", [&b"a"[..], b"", b"\xff\xfe"].into_iter().collect::<Strings>());
        let inner = Array::Array(vec![Array::U8(vec![1, 2]), Array::String(Strings::from_iter(["x"]))]);
        let middle = Array::Array(vec![inner.clone(), Array::Array(vec![])]);
        metadata.set("nested", Array::Array(vec![middle, Array::F32(vec![])]));
        metadata
    }

    fn write(writer: Writer, tensors: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut data = writer.start(Vec::new()).unwrap();
        for (name, bytes) in tensors {
            data.write(name, bytes).unwrap();
        }
        data.finish().unwrap()
    }

    #[test]
    fn what_is_written_is_read_back_in_both_versions_and_byte_orders() {
        for (version, byte_order) in
            [(2, ByteOrder::Little), (3, ByteOrder::Little), (2, ByteOrder::Big), (3, ByteOrder::Big)]
        {
            let mut writer =
                Writer::new(every_kind()).unwrap().version(version).unwrap().byte_order(byte_order);
            writer.tensor("scalar", &[], GgmlType::F32).unwrap();
            writer.tensor("q", &[64, 3, 2], GgmlType::Q4_0).unwrap();
            let file = write(writer, &[("scalar", vec![1; 4]), ("q", vec![2; 2 * 3 * 2 * 18])]);
            let gguf = Gguf::parse(&file).unwrap();
            assert_eq!((gguf.version, gguf.byte_order, gguf.alignment), (version, byte_order, 32));
            assert_eq!(gguf.metadata, every_kind());
            let [scalar, q] = &gguf.tensors[..] else { panic!("{:?}", gguf.tensors) };
            assert_eq!((scalar.shape(), scalar.elements(), scalar.bytes()), (&[][..], 1, 4));
            assert_eq!((q.shape(), q.rows(), q.elements(), q.bytes()), (&[64, 3, 2][..], 6, 384, 216));
            assert_eq!(q.range.start, scalar.range.start + 32);
            assert_eq!(&file[q.range.start as usize..q.range.end as usize], [2; 216]);
            assert_eq!(file.len() as u64, q.range.end.next_multiple_of(32));
        }
    }

    #[test]
    fn the_alignment_of_the_metadata_is_kept() {
        for alignment in [1_u32, 8, 64, 4096] {
            let mut metadata = Metadata::new();
            metadata.set("general.alignment", alignment);
            let mut writer = Writer::new(metadata).unwrap();
            writer.tensor("a", &[3], GgmlType::I8).unwrap();
            writer.tensor("b", &[5], GgmlType::I8).unwrap();
            let file = write(writer, &[("a", vec![1; 3]), ("b", vec![2; 5])]);
            let gguf = Gguf::parse(&file).unwrap();
            assert_eq!(gguf.alignment, u64::from(alignment));
            assert_eq!(gguf.data_start % gguf.alignment, 0);
            assert_eq!(gguf.tensors[1].range.start - gguf.data_start, 3_u64.next_multiple_of(gguf.alignment));
        }
    }

    #[test]
    fn a_header_without_tensors_ends_the_file() {
        let file = write(Writer::new(every_kind()).unwrap(), &[]);
        let gguf = Gguf::parse(&file).unwrap();
        assert_eq!((gguf.data_start, gguf.file_len()), (file.len() as u64, file.len() as u64));
    }

    #[test]
    fn tensors_are_written_in_order_and_whole() {
        let mut writer = Writer::new(Metadata::new()).unwrap();
        writer.tensor("a", &[4], GgmlType::I8).unwrap();
        writer.tensor("b", &[4], GgmlType::I8).unwrap();
        assert!(matches!(
            writer.tensor("a", &[4], GgmlType::I8),
            Err(Error::TensorDuplicate { tensor }) if tensor == "a"
        ));
        let mut data = writer.start(Vec::new()).unwrap();
        assert!(matches!(data.write("b", &[0; 4]), Err(Error::TensorWrite { tensor, .. }) if tensor == "b"));
        assert!(matches!(data.write("a", &[0; 5]), Err(Error::TensorWrite { tensor, .. }) if tensor == "a"));
        data.write("a", &[0; 3]).unwrap();
        data.write("a", &[0; 1]).unwrap();
        data.write("b", &[0; 3]).unwrap();
        assert!(matches!(data.finish(), Err(Error::TensorWrite { tensor, .. }) if tensor == "b"));
    }

    #[test]
    fn metadata_that_no_reader_takes_are_not_written() {
        let mut metadata = Metadata::new();
        metadata.set("", 1_u8);
        assert!(matches!(Writer::new(metadata), Err(Error::MetadataKey { index: 0, .. })));
        let mut metadata = Metadata::new();
        let deep = (0..MAX_NESTING).fold(Array::U8(vec![1]), |inner, _| Array::Array(vec![inner]));
        metadata.set("deep", deep);
        assert!(matches!(Writer::new(metadata), Err(Error::MetadataNesting { key }) if key == "deep"));
    }
}
