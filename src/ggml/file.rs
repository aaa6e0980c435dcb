//! GGUF files as ggml reads and writes them.

use std::ffi::{CStr, CString, c_char};
use std::ops::Range;
use std::path::Path;
use std::ptr::{self, NonNull};

use ggml_sys as sys;
use gristmill_kernels::quant::GgmlType;

use super::rows::{Readable, aligned};
use super::{capture, check_len, row_bytes, signed, traits};
use crate::gguf::{Array, Metadata, Strings, Value};
use crate::{Error, Result};

/// What ggml makes of a tensor's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its ggml type id.
    pub type_id: u32,
    /// Its sizes in ggml's order, the row length first, filled up with ones.
    pub ne: [usize; 4],
    /// Where its bytes lie, from the beginning of the file.
    pub range: Range<u64>,
}

/// The header of a GGUF file, read by ggml.
pub struct File(Header);

/// Owns ggml's description of a file.
struct Header(NonNull<sys::gguf_context>);

// SAFETY: ggml's description is plain memory, which nothing but this value knows of.
unsafe impl Send for Header {}

impl Drop for Header {
    fn drop(&mut self) {
        // SAFETY: made by one of the gguf_init functions and freed once.
        unsafe { sys::gguf_free(self.0.as_ptr()) };
    }
}

const HEADER_ONLY: sys::gguf_init_params = sys::gguf_init_params { no_alloc: true, ctx: ptr::null_mut() };

impl File {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// ggml refuses the file; the error carries what it logged.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path_to_c(path)?;
        // SAFETY: the name ends in a zero byte; ggml takes no lock and starts no thread to read a header.
        let header = unsafe {
            capture::guarded("read a GGUF file", || sys::gguf_init_from_file(name.as_ptr(), HEADER_ONLY))
        }?;
        NonNull::new(header)
            .map(|header| Self(Header(header)))
            .ok_or_else(|| capture::failure("read a GGUF file"))
    }

    /// Reads a header from memory. ggml keeps nothing of `bytes`.
    ///
    /// # Errors
    /// As for [`File::open`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        // SAFETY: pointer and length are those of a slice that outlives the call; no lock, no thread.
        let header = unsafe {
            capture::guarded("read a GGUF file", || {
                sys::gguf_init_from_buffer(bytes.as_ptr().cast(), bytes.len(), HEADER_ONLY)
            })
        }?;
        NonNull::new(header)
            .map(|header| Self(Header(header)))
            .ok_or_else(|| capture::failure("read a GGUF file"))
    }

    fn header(&self) -> *const sys::gguf_context {
        self.0.0.as_ptr()
    }

    /// The version of the format.
    pub fn version(&self) -> u32 {
        // SAFETY: the header is alive.
        unsafe { sys::gguf_get_version(self.header()) }
    }

    /// The alignment of tensor data.
    pub fn alignment(&self) -> usize {
        // SAFETY: the header is alive.
        unsafe { sys::gguf_get_alignment(self.header()) }
    }

    /// Where the data section begins in the file.
    pub fn data_offset(&self) -> usize {
        // SAFETY: the header is alive.
        unsafe { sys::gguf_get_data_offset(self.header()) }
    }

    /// All keys and values, in the order of the file. A string with a zero byte is cut there, by ggml.
    pub fn metadata(&self) -> Metadata {
        let header = self.header();
        // SAFETY: the header is alive.
        let count = unsafe { sys::gguf_get_n_kv(header) };
        let mut metadata = Metadata::new();
        for id in 0..count {
            // SAFETY: the id is below the count of keys.
            let (key, value) = unsafe { (bytes(sys::gguf_get_key(header, id)), value(header, id)) };
            if let Some(value) = value {
                metadata.set(&String::from_utf8_lossy(key), value);
            }
        }
        metadata
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> Vec<Tensor> {
        let header = self.header();
        // SAFETY: the header is alive.
        let count = unsafe { sys::gguf_get_n_tensors(header) };
        let data = self.data_offset();
        let read = |id| {
            // SAFETY: the id is below the count of tensors; ggml gives a pointer to GGML_MAX_DIMS = 4 sizes.
            let (ne, name, type_id, offset, size) = unsafe {
                (
                    sys::gguf_get_tensor_ne(header, id).cast::<[i64; 4]>().read(),
                    bytes(sys::gguf_get_tensor_name(header, id)),
                    sys::gguf_get_tensor_type(header, id),
                    sys::gguf_get_tensor_offset(header, id),
                    sys::gguf_get_tensor_size(header, id),
                )
            };
            let start = data.saturating_add(offset);
            Tensor {
                name: String::from_utf8_lossy(name).into_owned(),
                type_id,
                // ggml refuses negative sizes.
                ne: ne.map(|size| usize::try_from(size).unwrap_or(0)),
                range: start as u64..start.saturating_add(size) as u64,
            }
        };
        (0..count).map(read).collect()
    }
}

/// Makes the functions that take a value apart by GGUF's types, of which each has its own function in ggml.
macro_rules! scalars {
    ($($variant:ident $type:ty, $id:ident, $get:ident, $set:ident;)*) => {
        /// The value of a key; `None` for a type that this library does not know.
        ///
        /// # Safety
        /// The header is alive and has a key of this id.
        unsafe fn value(header: *const sys::gguf_context, id: i64) -> Option<Value> {
            // SAFETY: each getter is called for a key of its own type, which is asked for first. An array's data
            // holds as many values of its type as it says, in the byte order of this machine.
            unsafe {
                Some(match sys::gguf_get_kv_type(header, id) {
                    $(sys::$id => Value::$variant(sys::$get(header, id)),)*
                    // A file may hold any byte for a bool; a Rust bool may not.
                    sys::GGUF_TYPE_BOOL => Value::Bool(sys::gguf_get_val_data(header, id).cast::<u8>().read() != 0),
                    sys::GGUF_TYPE_STRING => Value::String(bytes(sys::gguf_get_val_str(header, id)).to_vec()),
                    sys::GGUF_TYPE_ARRAY => {
                        let len = sys::gguf_get_arr_n(header, id);
                        Value::Array(match sys::gguf_get_arr_type(header, id) {
                            sys::GGUF_TYPE_STRING => Array::String(Strings::from_iter(
                                (0..len).map(|i| bytes(sys::gguf_get_arr_str(header, id, i))),
                            )),
                            sys::GGUF_TYPE_BOOL => {
                                let data = sys::gguf_get_arr_data(header, id).cast::<u8>();
                                Array::Bool((0..len).map(|i| data.add(i).read() != 0).collect())
                            }
                            $(sys::$id => {
                                let data = sys::gguf_get_arr_data(header, id).cast::<$type>();
                                Array::$variant((0..len).map(|i| data.add(i).read_unaligned()).collect())
                            })*
                            _ => return None,
                        })
                    }
                    _ => return None,
                })
            }
        }

        /// Sets a key.
        ///
        /// # Safety
        /// The header is alive, and the call is guarded: ggml asserts what it asks of reserved keys.
        unsafe fn set(header: *mut sys::gguf_context, key: &CStr, value: &Value) -> Result<()> {
            let key = key.as_ptr();
            // SAFETY: the key ends in a zero byte. ggml copies what it is given: a scalar, a string that ends in a zero
            // byte, or as many values as the array has.
            unsafe {
                match value {
                    $(Value::$variant(value) => sys::$set(header, key, *value),)*
                    Value::Bool(value) => sys::gguf_set_val_bool(header, key, *value),
                    Value::String(value) => sys::gguf_set_val_str(header, key, to_c(value)?.as_ptr()),
                    Value::Array(array) => match array {
                        $(Array::$variant(values) => {
                            sys::gguf_set_arr_data(header, key, sys::$id, values.as_ptr().cast(), values.len());
                        })*
                        Array::Bool(values) => {
                            // A Rust bool is the byte 0 or 1, which is how ggml holds it.
                            let data = values.as_ptr().cast();
                            sys::gguf_set_arr_data(header, key, sys::GGUF_TYPE_BOOL, data, values.len());
                        }
                        Array::String(values) => {
                            let values: Vec<CString> = values.iter().map(to_c).collect::<Result<_>>()?;
                            let mut pointers: Vec<*const c_char> = values.iter().map(|value| value.as_ptr()).collect();
                            sys::gguf_set_arr_str(header, key, pointers.as_mut_ptr(), pointers.len());
                        }
                        Array::Array(_) => {
                            let message = "it has no arrays of arrays".to_owned();
                            return Err(Error::Ggml { operation: "set a key", message });
                        }
                    },
                }
            }
            Ok(())
        }
    };
}

scalars! {
    U8 u8, GGUF_TYPE_UINT8, gguf_get_val_u8, gguf_set_val_u8;
    I8 i8, GGUF_TYPE_INT8, gguf_get_val_i8, gguf_set_val_i8;
    U16 u16, GGUF_TYPE_UINT16, gguf_get_val_u16, gguf_set_val_u16;
    I16 i16, GGUF_TYPE_INT16, gguf_get_val_i16, gguf_set_val_i16;
    U32 u32, GGUF_TYPE_UINT32, gguf_get_val_u32, gguf_set_val_u32;
    I32 i32, GGUF_TYPE_INT32, gguf_get_val_i32, gguf_set_val_i32;
    F32 f32, GGUF_TYPE_FLOAT32, gguf_get_val_f32, gguf_set_val_f32;
    U64 u64, GGUF_TYPE_UINT64, gguf_get_val_u64, gguf_set_val_u64;
    I64 i64, GGUF_TYPE_INT64, gguf_get_val_i64, gguf_set_val_i64;
    F64 f64, GGUF_TYPE_FLOAT64, gguf_get_val_f64, gguf_set_val_f64;
}

/// A string of ggml's.
///
/// # Safety
/// The text ends in a zero byte and stays as it is for as long as the slice is used.
unsafe fn bytes<'t>(text: *const c_char) -> &'t [u8] {
    // SAFETY: what the caller promises.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}

fn to_c(text: impl AsRef<[u8]>) -> Result<CString> {
    let text = text.as_ref();
    CString::new(text).map_err(|_| Error::Ggml {
        operation: "take a string",
        message: format!("{:?} holds a zero byte, at which C would end it", String::from_utf8_lossy(text)),
    })
}

fn path_to_c(path: &Path) -> Result<CString> {
    let text = path.to_str().ok_or_else(|| Error::Ggml {
        operation: "take a path",
        message: format!("{} is not UTF-8", path.display()),
    })?;
    to_c(text)
}

/// Builds a GGUF file and has ggml write it.
pub struct FileBuilder<'a> {
    header: Header,
    tensors: Vec<Readable<'a>>,
}

impl<'a> FileBuilder<'a> {
    /// An empty file.
    ///
    /// # Errors
    /// ggml has no memory.
    pub fn new() -> Result<Self> {
        capture::init();
        // SAFETY: takes nothing.
        let header = NonNull::new(unsafe { sys::gguf_init_empty() });
        let header = header.map(Header).ok_or_else(|| capture::failure("make a GGUF file"))?;
        Ok(Self { header, tensors: Vec::new() })
    }

    /// Sets a key.
    ///
    /// # Errors
    /// A zero byte in a string, an array of arrays, an empty key, or an alignment other than 32, the only one that
    /// ggml writes.
    pub fn set(&mut self, key: &str, value: &Value) -> Result<()> {
        // SAFETY: the header is alive.
        let alignment = unsafe { sys::gguf_get_alignment(self.header.0.as_ptr()) };
        if key == "general.alignment" && *value != Value::U32(alignment as u32) {
            let message = format!("it places tensors at multiples of {alignment}, whatever {key} says");
            return Err(Error::Ggml { operation: "set a key", message });
        }
        let key = to_c(key)?;
        // SAFETY: the header is alive; no lock, no thread.
        unsafe { capture::guarded("set a key", || set(self.header.0.as_ptr(), &key, value)) }?
    }

    /// Adds a tensor: up to four dimensions, the row length first.
    ///
    /// # Errors
    /// A type that ggml does not know, a shape of no or more than four dimensions or with rows that are no whole
    /// blocks, data of another size, a name of more than 63 bytes or one that is taken.
    pub fn tensor(&mut self, name: &str, ty: GgmlType, shape: &[usize], data: &'a [u8]) -> Result<()> {
        if traits(ty).is_none() {
            return Err(Error::GgmlUnsupported { operation: "tensor", ty });
        }
        if shape.is_empty() || shape.len() > 4 {
            return Err(Error::GgmlSize {
                what: "dimensions",
                expected: "1 to 4".to_owned(),
                found: shape.len(),
            });
        }
        if name.len() > 63 {
            let expected = "at most 63".to_owned();
            return Err(Error::GgmlSize { what: "bytes of a tensor's name", expected, found: name.len() });
        }
        let values = shape.iter().try_fold(1_usize, |product, &len| product.checked_mul(len));
        let values = values.ok_or_else(|| Error::GgmlSize {
            what: "dimensions",
            expected: "a tensor that fits into memory".to_owned(),
            found: shape.len(),
        })?;
        row_bytes(ty, shape.first().copied().unwrap_or(0), "values in a row")?;
        check_len("bytes of a tensor", row_bytes(ty, values, "values")?, data.len())?;
        let name = to_c(name)?;
        let data = aligned(data);
        let dims: Vec<i64> = shape.iter().map(|&len| signed("dimension", len)).collect::<Result<_>>()?;
        let count: i32 = signed("dimensions", dims.len())?;
        // SAFETY: a context for one description. The tensor gets the type, which ggml knows, `count` dimensions and
        // data of its size, which `self.tensors` keeps until the file is written; ggml copies the description, so that
        // the context may go. No lock is held where an assertion may fail: on a name that is taken.
        unsafe {
            let mem_size = 2 * sys::ggml_tensor_overhead();
            let params = sys::ggml_init_params { mem_size, mem_buffer: ptr::null_mut(), no_alloc: true };
            let context = sys::ggml_init(params);
            if context.is_null() {
                return Err(capture::failure("make a context"));
            }
            let added = capture::guarded("add a tensor", || {
                let tensor = sys::ggml_new_tensor(context, ty as sys::ggml_type, count, dims.as_ptr());
                sys::ggml_set_name(tensor, name.as_ptr());
                (*tensor).data = data.as_ptr().cast_mut().cast();
                sys::gguf_add_tensor(self.header.0.as_ptr(), tensor);
            });
            sys::ggml_free(context);
            added?;
        }
        self.tensors.push(data);
        Ok(())
    }

    /// Writes the file.
    ///
    /// # Errors
    /// ggml cannot write it.
    pub fn write(&self, path: &Path) -> Result<()> {
        let name = path_to_c(path)?;
        // SAFETY: the header is alive and the data of its tensors is kept by `self.tensors`; no lock, no thread.
        let written = unsafe {
            capture::guarded("write a GGUF file", || {
                sys::gguf_write_to_file(self.header.0.as_ptr(), name.as_ptr(), false)
            })
        }?;
        if written { Ok(()) } else { Err(capture::failure("write a GGUF file")) }
    }
}
