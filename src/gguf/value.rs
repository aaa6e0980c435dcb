//! The values that metadata hold: twelve kinds of scalars and strings, and arrays of them.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;

/// The kind of a metadata value, by the id that files use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    /// Every kind, in the order of the ids.
    pub const ALL: [ValueType; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// The kind with this id.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(id).ok()?).copied()
    }

    /// The id that files use.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// The name that ggml prints, such as `u32` or `str`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "str",
            Self::Array => "arr",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }

    /// The fewest bytes that a value of this kind takes in a file: a string is at least its length, an array at
    /// least its kind and length.
    pub const fn min_bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Many strings in one buffer, so that a vocabulary of 280,000 merges costs two allocations.
///
/// The strings are bytes: files hold vocabularies that are not UTF-8.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Strings {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Strings {
    /// No strings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Room for `strings` strings of `bytes` bytes in all.
    pub fn with_capacity(strings: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(strings) }
    }

    /// Appends a string.
    pub fn push(&mut self, string: impl AsRef<[u8]>) {
        self.bytes.extend_from_slice(string.as_ref());
        self.ends.push(self.bytes.len());
    }

    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The string at `index`.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.bytes.get(start..end)
    }

    /// The strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + DoubleEndedIterator + Clone {
        (0..self.len()).map(|index| self.get(index).unwrap_or_default())
    }

    /// Bytes of all the strings together.
    pub fn total_bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl fmt::Debug for Strings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(String::from_utf8_lossy)).finish()
    }
}

impl<S: AsRef<[u8]>> FromIterator<S> for Strings {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut all = Self::new();
        strings.into_iter().for_each(|string| all.push(string));
        all
    }
}

macro_rules! values {
    ($($variant:ident($ty:ty)),* $(,)?) => {
        /// One metadata value.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs, reason = "the variants are the kinds of ValueType")]
        pub enum Value {
            $($variant($ty),)*
            /// Bytes that are mostly, but need not be, UTF-8.
            String(Vec<u8>),
            Array(Array),
        }

        /// An array of values of one kind. Arrays may nest, up to [`MAX_NESTING`](super::MAX_NESTING) levels.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs, reason = "the variants are the kinds of ValueType")]
        pub enum Array {
            $($variant(Vec<$ty>),)*
            String(Strings),
            Array(Vec<Array>),
        }

        impl Value {
            /// The value's kind.
            pub fn ty(&self) -> ValueType {
                match self {
                    $(Self::$variant(_) => ValueType::$variant,)*
                    Self::String(_) => ValueType::String,
                    Self::Array(_) => ValueType::Array,
                }
            }
        }

        impl Array {
            /// The kind of the elements.
            pub fn element_ty(&self) -> ValueType {
                match self {
                    $(Self::$variant(_) => ValueType::$variant,)*
                    Self::String(_) => ValueType::String,
                    Self::Array(_) => ValueType::Array,
                }
            }

            /// How many elements there are.
            pub fn len(&self) -> usize {
                match self {
                    $(Self::$variant(elements) => elements.len(),)*
                    Self::String(strings) => strings.len(),
                    Self::Array(arrays) => arrays.len(),
                }
            }

            /// Leaves only the elements at places that `keep` says yes to.
            pub fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
                let mut at = 0;
                let mut next = || {
                    at += 1;
                    keep(at - 1)
                };
                match self {
                    $(Self::$variant(elements) => elements.retain(|_| next()),)*
                    Self::String(strings) => {
                        let kept = strings.iter().filter(|_| next()).collect();
                        *strings = kept;
                    }
                    Self::Array(arrays) => arrays.retain(|_| next()),
                }
            }

            /// The element at `index`, as a value of its own.
            pub fn get(&self, index: usize) -> Option<Value> {
                match self {
                    $(Self::$variant(elements) => elements.get(index).map(|&element| Value::$variant(element)),)*
                    Self::String(strings) => strings.get(index).map(|bytes| Value::String(bytes.to_vec())),
                    Self::Array(arrays) => arrays.get(index).cloned().map(Value::Array),
                }
            }
        }

        $(
            impl From<$ty> for Value {
                fn from(value: $ty) -> Self {
                    Self::$variant(value)
                }
            }

            impl From<Vec<$ty>> for Value {
                fn from(values: Vec<$ty>) -> Self {
                    Self::Array(Array::$variant(values))
                }
            }
        )*
    };
}

values! {
    U8(u8), I8(i8), U16(u16), I16(i16), U32(u32), I32(i32), F32(f32), Bool(bool), U64(u64), I64(i64), F64(f64),
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::String(value.into())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::String(value.into_bytes())
    }
}

impl From<Strings> for Value {
    fn from(value: Strings) -> Self {
        Self::Array(Array::String(value))
    }
}

impl From<Array> for Value {
    fn from(value: Array) -> Self {
        Self::Array(value)
    }
}

impl Value {
    /// The value of an integer of any width; `None` for other kinds.
    fn integer(&self) -> Option<i128> {
        match *self {
            Self::U8(value) => Some(value.into()),
            Self::I8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::I16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::I32(value) => Some(value.into()),
            Self::U64(value) => Some(value.into()),
            Self::I64(value) => Some(value.into()),
            _ => None,
        }
    }

    /// A few words for error messages: `i32 -1`, `array of 7 str`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Array(array) => format!("array of {} {}", array.len(), array.element_ty()),
            Self::String(bytes) if std::str::from_utf8(bytes).is_err() => {
                format!("str of {} bytes that is not UTF-8", bytes.len())
            }
            Self::String(bytes) if bytes.len() > 60 => format!("str of {} bytes", bytes.len()),
            other => format!("{} {other}", other.ty()),
        }
    }
}

impl Array {
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Levels of arrays: 1 for an array of anything but arrays.
    pub fn nesting(&self) -> usize {
        match self {
            Self::Array(arrays) => 1 + arrays.iter().map(Array::nesting).max().unwrap_or(0),
            _ => 1,
        }
    }

    /// The elements as integers of type `T`: `None` if they are no integers or if one does not fit.
    fn integers<T: TryFrom<i128>>(&self) -> Option<Vec<T>> {
        fn convert<S: Copy + Into<i128>, T: TryFrom<i128>>(elements: &[S]) -> Option<Vec<T>> {
            elements.iter().map(|&element| T::try_from(element.into()).ok()).collect()
        }
        match self {
            Self::U8(elements) => convert(elements),
            Self::I8(elements) => convert(elements),
            Self::U16(elements) => convert(elements),
            Self::I16(elements) => convert(elements),
            Self::U32(elements) => convert(elements),
            Self::I32(elements) => convert(elements),
            Self::U64(elements) => convert(elements),
            Self::I64(elements) => convert(elements),
            _ => None,
        }
    }
}

/// How many elements of an array are shown by [`Display`](fmt::Display).
const SHOWN: usize = 8;

/// The value as a person would write it; strings are quoted, long arrays cut with their length told.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U8(value) => value.fmt(f),
            Self::I8(value) => value.fmt(f),
            Self::U16(value) => value.fmt(f),
            Self::I16(value) => value.fmt(f),
            Self::U32(value) => value.fmt(f),
            Self::I32(value) => value.fmt(f),
            Self::F32(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::U64(value) => value.fmt(f),
            Self::I64(value) => value.fmt(f),
            Self::F64(value) => value.fmt(f),
            Self::String(bytes) => write!(f, "{:?}", String::from_utf8_lossy(bytes)),
            Self::Array(array) => array.fmt(f),
        }
    }
}

/// The first few elements in brackets; where there are more, their number follows.
impl fmt::Display for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, element) in (0..self.len().min(SHOWN)).filter_map(|i| Some((i, self.get(i)?))) {
            if index > 0 {
                f.write_str(", ")?;
            }
            element.fmt(f)?;
        }
        if self.len() > SHOWN {
            write!(f, ", ... {} in all", self.len())?;
        }
        f.write_str("]")
    }
}

/// What a metadata value can be read as; see [`Metadata::get_as`](super::Metadata::get_as).
///
/// Integers of any width convert where the value fits; nothing else converts but `f64` to `f32`.
pub trait FromValue<'a>: Sized {
    /// What the caller wants, for the error message: `a u32`.
    const EXPECTED: &'static str;

    /// Reads `value`, or says by `None` that it is something else.
    fn from_value(value: &'a Value) -> Option<Self>;
}

macro_rules! from_integer {
    ($($ty:ty: $expected:literal, $array:literal;)*) => {$(
        impl FromValue<'_> for $ty {
            const EXPECTED: &'static str = $expected;
            fn from_value(value: &Value) -> Option<Self> {
                value.integer()?.try_into().ok()
            }
        }

        impl FromValue<'_> for Vec<$ty> {
            const EXPECTED: &'static str = $array;
            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    Value::Array(array) => array.integers(),
                    _ => None,
                }
            }
        }
    )*};
}

from_integer! {
    u8: "a u8", "an array of u8";
    u16: "a u16", "an array of u16";
    u32: "a u32", "an array of u32";
    u64: "a u64", "an array of u64";
    i32: "an i32", "an array of i32";
    i64: "an i64", "an array of i64";
    usize: "a size", "an array of sizes";
}

macro_rules! from_value {
    ($($life:lifetime $ty:ty: $expected:literal, $($pattern:pat => $result:expr),+;)*) => {$(
        impl<$life> FromValue<$life> for $ty {
            const EXPECTED: &'static str = $expected;
            fn from_value(value: &$life Value) -> Option<Self> {
                match value {
                    $($pattern => $result,)+
                    _ => None,
                }
            }
        }
    )*};
}

from_value! {
    'a f32: "an f32", Value::F32(value) => Some(*value), Value::F64(value) => Some(*value as f32);
    'a f64: "an f64", Value::F32(value) => Some((*value).into()), Value::F64(value) => Some(*value);
    'a bool: "a bool", Value::Bool(value) => Some(*value);
    'a &'a str: "a UTF-8 string", Value::String(bytes) => std::str::from_utf8(bytes).ok();
    'a &'a [u8]: "a string", Value::String(bytes) => Some(bytes);
    'a &'a Array: "an array", Value::Array(array) => Some(array);
    'a &'a Strings: "an array of strings", Value::Array(Array::String(strings)) => Some(strings);
    'a &'a [bool]: "an array of bool", Value::Array(Array::Bool(elements)) => Some(elements);
    'a Cow<'a, [f32]>: "an array of f32",
        Value::Array(Array::F32(elements)) => Some(elements.into()),
        Value::Array(Array::F64(elements)) => Some(elements.iter().map(|&element| element as f32).collect());
    'a Cow<'a, [i32]>: "an array of i32",
        Value::Array(Array::I32(elements)) => Some(elements.into()),
        Value::Array(array) => array.integers().map(Cow::Owned);
    'a Cow<'a, [u32]>: "an array of u32",
        Value::Array(Array::U32(elements)) => Some(elements.into()),
        Value::Array(array) => array.integers().map(Cow::Owned);
}
