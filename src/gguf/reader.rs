//! Reads and checks the header of a GGUF file.
//!
//! What a hostile file can do: make the reader return an error, or a description of tensors that lie inside the
//! file. What it cannot do: make it panic, recurse deeper than [`MAX_NESTING`], or allocate more than a small
//! multiple of the header's own bytes. A count is believed only as far as the bytes that are left can hold it, and
//! tables grow as their entries are read, never by the count.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fmt;

use byteorder::{BigEndian, LittleEndian};
use gristmill_kernels::quant::GgmlType;

use super::cursor::{Cursor, Short};
use super::metadata::Metadata;
use super::tensor::{MAX_DIMS, TensorInfo};
use super::value::{Array, Strings, Value, ValueType};
use crate::{Error, Result};

/// Alignment of tensors where `general.alignment` does not say another.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// Levels of arrays in a metadata value. ggml writes one; files with more than two are not known.
pub const MAX_NESTING: usize = 4;

/// The key that says to how many bytes tensors are aligned.
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";

/// The fewest bytes of a key and its value: the key's length, one byte of key, the kind, one byte of value.
const MIN_ENTRY: usize = 8 + 1 + 4 + 1;

/// The fewest bytes of a tensor's entry: length of the name, number of sizes, type, offset.
const MIN_TENSOR: usize = 8 + 4 + 4 + 8;

/// The order of the bytes in a number. Files are little-endian but for a few made for big-endian machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// Least byte first.
    Little,
    /// Greatest byte first.
    Big,
}

impl fmt::Display for ByteOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Little => "little-endian",
            Self::Big => "big-endian",
        })
    }
}

/// The checked description of a GGUF file.
#[derive(Clone, Debug, PartialEq)]
pub struct Gguf {
    /// The format's version: 2 or 3.
    pub version: u32,
    /// The byte order of the file's numbers, those in the tensors too.
    pub byte_order: ByteOrder,
    /// Each tensor begins at a multiple of this many bytes from [`Gguf::data_start`]; a power of two.
    pub alignment: u64,
    /// Keys and values.
    pub metadata: Metadata,
    /// The tensors in the order of the file's table.
    pub tensors: Vec<TensorInfo>,
    /// Where the tensors' bytes begin.
    pub data_start: u64,
}

/// What was being read, for error messages.
enum Place<'a> {
    Counts,
    Key(u64),
    Value(&'a str),
    TensorEntry(u64),
    Tensor(&'a str),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counts => f.write_str("the version and the counts"),
            Self::Key(index) => write!(f, "metadata key number {index}"),
            Self::Value(key) => write!(f, "the value of the metadata key `{key}`"),
            Self::TensorEntry(index) => write!(f, "entry {index} of the tensor table"),
            Self::Tensor(name) => write!(f, "the table entry of the tensor `{name}`"),
        }
    }
}

trait At<T> {
    fn at(self, place: Place<'_>) -> Result<T>;
}

impl<T> At<T> for Result<T, Short> {
    fn at(self, place: Place<'_>) -> Result<T> {
        self.map_err(|Short { at, needed, left }| Error::GgufTruncated {
            place: place.to_string(),
            at,
            needed,
            left,
        })
    }
}

impl Gguf {
    /// Reads the header of the whole file `bytes`. Only header bytes are touched, so that a mapped file of any
    /// size takes milliseconds.
    ///
    /// # Errors
    /// [`Error::NotGguf`], [`Error::GgufVersion`], and an error that names the key or the tensor for whatever is
    /// wrong with one.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let gguf = Self::parse_header(bytes)?;
        for tensor in &gguf.tensors {
            if tensor.range.end > bytes.len() as u64 {
                return Err(Error::TensorOutside {
                    tensor: tensor.name.clone(),
                    end: tensor.range.end,
                    file_len: bytes.len() as u64,
                });
            }
        }
        Ok(gguf)
    }

    /// Reads the header from the beginning of a file, all of which need not be there yet: everything is checked but
    /// that the tensors lie inside `bytes`.
    ///
    /// # Errors
    /// Those of [`Gguf::parse`]. Where `bytes` ends inside the header, [`Error::GgufTruncated`] says how many bytes
    /// are needed at least: `at + needed`.
    pub fn parse_header(bytes: &[u8]) -> Result<Self> {
        let magic = bytes.get(..4).unwrap_or(bytes);
        if magic != b"GGUF" {
            return Err(Error::NotGguf { found: magic.to_vec(), hint: guess(bytes) });
        }
        let version: u32 = Cursor::<LittleEndian>::new(bytes, 4).number().at(Place::Counts)?;
        // As ggml tells them apart: a version that fits 16 bits leaves the other half empty.
        if version & 0xffff == 0 && version != 0 {
            parse::<BigEndian>(bytes, version.swap_bytes(), ByteOrder::Big)
        } else {
            parse::<LittleEndian>(bytes, version, ByteOrder::Little)
        }
    }

    /// The tensor called `name`. A search through the table; to look up many, build an index.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Bytes that a file with this header has at least: the end of the last tensor.
    pub fn file_len(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.range.end).max().unwrap_or(self.data_start)
    }
}

/// What a file might be that does not begin as GGUF files do; empty where there is no guess.
fn guess(bytes: &[u8]) -> &'static str {
    const KNOWN: &[(&[u8], &str)] = &[
        (b"FUGG", "; the bytes of this file are swapped in fours"),
        (b"lmgg", "; this is the old GGML format of before August 2023: convert the original model again"),
        (b"fmgg", "; this is the old GGMF format of before August 2023: convert the original model again"),
        (b"tjgg", "; this is the old GGJT format of before August 2023: convert the original model again"),
        (b"algg", "; this is an old GGLA adapter: convert the original adapter again"),
        (b"PK\x03\x04", "; this is a zip archive, maybe a PyTorch checkpoint: convert it to GGUF first"),
        (
            b"\x80\x02",
            "; this looks like a Python pickle, maybe a PyTorch checkpoint: convert it to GGUF first",
        ),
        (b"\x1f\x8b", "; this file is compressed by gzip: unpack it first"),
        (b"\x28\xb5\x2f\xfd", "; this file is compressed by zstd: unpack it first"),
        (b"\x89HDF", "; this is an HDF5 file: convert the model to GGUF first"),
        (
            b"version https://git-lfs",
            "; this is a pointer of Git LFS, not the file itself: run `git lfs pull`",
        ),
        (b"<", "; this looks like a web page, maybe an error of the server it was fetched from"),
    ];
    if let Some((_, hint)) = KNOWN.iter().find(|(start, _)| bytes.starts_with(start)) {
        return hint;
    }
    // safetensors: the length of a JSON object in 64 bits, then the object.
    match (bytes.get(4..8), bytes.get(8)) {
        (Some([0, 0, 0, 0]), Some(b'{')) => "; this is a safetensors file: convert the model to GGUF first",
        _ => "",
    }
}

pub(super) fn check_version(version: u32) -> Result<()> {
    if (2..=3).contains(&version) { Ok(()) } else { Err(Error::GgufVersion { found: version }) }
}

fn parse<B: byteorder::ByteOrder>(bytes: &[u8], version: u32, byte_order: ByteOrder) -> Result<Gguf> {
    check_version(version)?;
    let mut cursor = Cursor::<B>::new(bytes, 8);
    let tensor_count: u64 = cursor.number().at(Place::Counts)?;
    let entry_count: u64 = cursor.number().at(Place::Counts)?;
    cursor.check_count(entry_count, MIN_ENTRY).at(Place::Counts)?;
    cursor.check_count(tensor_count, MIN_TENSOR).at(Place::Counts)?;

    let metadata = read_metadata(&mut cursor, entry_count)?;
    let alignment = alignment(&metadata)?;
    let mut tensors = read_tensors(&mut cursor, tensor_count)?;
    let header_len = cursor.position() as u64;
    // Without tensors there is no data section that would have to be aligned.
    let data_start = if tensors.is_empty() {
        header_len
    } else {
        header_len.checked_next_multiple_of(alignment).ok_or(Error::GgufAlignment { found: alignment })?
    };
    place_tensors(&mut tensors, data_start, alignment)?;
    Ok(Gguf { version, byte_order, alignment, metadata, tensors, data_start })
}

fn read_metadata<B: byteorder::ByteOrder>(cursor: &mut Cursor<'_, B>, count: u64) -> Result<Metadata> {
    let mut metadata = Metadata::new();
    for index in 0..count {
        // Copied before it is checked: a mapped file may change in between.
        let key = match String::from_utf8(cursor.string().at(Place::Key(index))?.to_vec()) {
            Ok(key) if !key.is_empty() => key,
            Ok(found) => return Err(Error::MetadataKey { index, found }),
            Err(error) => {
                let found = String::from_utf8_lossy(error.as_bytes()).into_owned();
                return Err(Error::MetadataKey { index, found });
            }
        };
        if metadata.contains(&key) {
            return Err(Error::MetadataDuplicate { key });
        }
        let ty = read_type(cursor, &key)?;
        metadata.set(&key, read_value(cursor, &key, ty)?);
    }
    Ok(metadata)
}

fn read_type<B: byteorder::ByteOrder>(cursor: &mut Cursor<'_, B>, key: &str) -> Result<ValueType> {
    let id = cursor.number().at(Place::Value(key))?;
    ValueType::from_id(id).ok_or_else(|| Error::MetadataUnknownType { key: key.to_owned(), found: id })
}

fn read_bool(byte: u8, key: &str) -> Result<bool> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(Error::MetadataBool { key: key.to_owned(), found }),
    }
}

fn read_value<B: byteorder::ByteOrder>(
    cursor: &mut Cursor<'_, B>,
    key: &str,
    ty: ValueType,
) -> Result<Value> {
    let place = Place::Value(key);
    Ok(match ty {
        ValueType::U8 => Value::U8(cursor.number().at(place)?),
        ValueType::I8 => Value::I8(cursor.number().at(place)?),
        ValueType::U16 => Value::U16(cursor.number().at(place)?),
        ValueType::I16 => Value::I16(cursor.number().at(place)?),
        ValueType::U32 => Value::U32(cursor.number().at(place)?),
        ValueType::I32 => Value::I32(cursor.number().at(place)?),
        ValueType::F32 => Value::F32(cursor.number().at(place)?),
        ValueType::Bool => Value::Bool(read_bool(cursor.number().at(place)?, key)?),
        ValueType::String => Value::String(cursor.string().at(place)?.to_vec()),
        ValueType::Array => Value::Array(read_array(cursor, key, 1)?),
        ValueType::U64 => Value::U64(cursor.number().at(place)?),
        ValueType::I64 => Value::I64(cursor.number().at(place)?),
        ValueType::F64 => Value::F64(cursor.number().at(place)?),
    })
}

/// Reads an array that stands at the given level of nesting, 1 being the outermost.
fn read_array<B: byteorder::ByteOrder>(cursor: &mut Cursor<'_, B>, key: &str, level: usize) -> Result<Array> {
    if level > MAX_NESTING {
        return Err(Error::MetadataNesting { key: key.to_owned() });
    }
    let ty = read_type(cursor, key)?;
    let count: u64 = cursor.number().at(Place::Value(key))?;
    let place = Place::Value(key);
    cursor.check_count(count, ty.min_bytes()).at(Place::Value(key))?;
    Ok(match ty {
        ValueType::U8 => Array::U8(cursor.numbers(count).at(place)?),
        ValueType::I8 => Array::I8(cursor.numbers(count).at(place)?),
        ValueType::U16 => Array::U16(cursor.numbers(count).at(place)?),
        ValueType::I16 => Array::I16(cursor.numbers(count).at(place)?),
        ValueType::U32 => Array::U32(cursor.numbers(count).at(place)?),
        ValueType::I32 => Array::I32(cursor.numbers(count).at(place)?),
        ValueType::F32 => Array::F32(cursor.numbers(count).at(place)?),
        ValueType::U64 => Array::U64(cursor.numbers(count).at(place)?),
        ValueType::I64 => Array::I64(cursor.numbers(count).at(place)?),
        ValueType::F64 => Array::F64(cursor.numbers(count).at(place)?),
        ValueType::Bool => {
            let bytes = cursor.take(count).at(place)?;
            Array::Bool(bytes.iter().map(|&byte| read_bool(byte, key)).collect::<Result<_>>()?)
        }
        ValueType::String => {
            let mut strings = Strings::new();
            for _ in 0..count {
                strings.push(cursor.string().at(Place::Value(key))?);
            }
            Array::String(strings)
        }
        ValueType::Array => {
            let mut arrays = Vec::new();
            for _ in 0..count {
                arrays.push(read_array(cursor, key, level + 1)?);
            }
            Array::Array(arrays)
        }
    })
}

/// The alignment that the metadata ask for. ggml wants a `u32` that is a power of two, so nothing else is taken.
pub(super) fn alignment(metadata: &Metadata) -> Result<u64> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::U32(alignment)) if alignment.is_power_of_two() => Ok((*alignment).into()),
        Some(Value::U32(alignment)) => Err(Error::GgufAlignment { found: (*alignment).into() }),
        Some(other) => Err(Error::MetadataType {
            key: ALIGNMENT_KEY.to_owned(),
            expected: "a u32",
            found: other.describe(),
        }),
    }
}

/// Reads the tensor table; ranges hold offsets from the beginning of the data section.
fn read_tensors<B: byteorder::ByteOrder>(cursor: &mut Cursor<'_, B>, count: u64) -> Result<Vec<TensorInfo>> {
    let mut tensors = Vec::new();
    for index in 0..count {
        let bytes = cursor.string().at(Place::TensorEntry(index))?.to_vec();
        let name = String::from_utf8(bytes).map_err(|error| Error::TensorName {
            index,
            found: String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })?;
        let dims: u32 = cursor.number().at(Place::Tensor(&name))?;
        if dims as usize > MAX_DIMS {
            return Err(Error::TensorDims { tensor: name, found: dims.into() });
        }
        let sizes: Vec<u64> = cursor.numbers(dims.into()).at(Place::Tensor(&name))?;
        let id: u32 = cursor.number().at(Place::Tensor(&name))?;
        let Some(ty) = GgmlType::from_id(id) else {
            return Err(Error::TensorUnknownType { tensor: name, found: id });
        };
        let offset: u64 = cursor.number().at(Place::Tensor(&name))?;
        let (ne, bytes) = TensorInfo::layout(&name, &sizes, ty)?;
        let Some(end) = offset.checked_add(bytes) else {
            return Err(Error::TensorOffset { tensor: name, found: offset, bytes });
        };
        tensors.push(TensorInfo { name, ne, dims: sizes.len(), ty, range: offset..end });
    }
    let mut names = HashSet::new();
    match tensors.iter().find(|tensor| !names.insert(&tensor.name)) {
        Some(twice) => Err(Error::TensorDuplicate { tensor: twice.name.clone() }),
        None => Ok(tensors),
    }
}

/// Turns offsets into places in the file, and sees that they are aligned and that no two tensors overlap.
///
/// ggml wants more: that tensors lie in the table's order without gaps but for alignment.
fn place_tensors(tensors: &mut [TensorInfo], data_start: u64, alignment: u64) -> Result<()> {
    for tensor in &mut *tensors {
        let offset = tensor.range.start;
        if !offset.is_multiple_of(alignment) {
            return Err(Error::TensorUnaligned { tensor: tensor.name.clone(), found: offset, alignment });
        }
        let Some(end) = data_start.checked_add(tensor.range.end) else {
            let bytes = tensor.bytes();
            return Err(Error::TensorOffset { tensor: tensor.name.clone(), found: offset, bytes });
        };
        tensor.range = end - tensor.bytes()..end;
    }
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_by_key(|tensor| tensor.range.start);
    for (first, second) in order.iter().zip(order.iter().skip(1)) {
        if first.range.end > second.range.start {
            return Err(Error::TensorOverlap { tensor: second.name.clone(), other: first.name.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
