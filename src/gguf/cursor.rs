//! A place in a slice from which numbers of one byte order are read, and the same for writing.
#![forbid(unsafe_code)]

use std::marker::PhantomData;

use byteorder::ByteOrder;

/// A number as it lies in a file.
pub(super) trait Number: Copy {
    /// Bytes that it takes.
    const SIZE: usize;

    /// Reads it from [`Number::SIZE`] bytes; fewer give `None`.
    fn read<B: ByteOrder>(bytes: &[u8]) -> Option<Self>;

    /// Appends it to `out`.
    fn write<B: ByteOrder>(self, out: &mut Vec<u8>);
}

macro_rules! numbers {
    ($($ty:ty, $size:literal, $read:ident, $write:ident;)*) => {$(
        impl Number for $ty {
            const SIZE: usize = $size;

            #[inline]
            fn read<B: ByteOrder>(bytes: &[u8]) -> Option<Self> {
                Some(B::$read(bytes.get(..$size)?))
            }

            fn write<B: ByteOrder>(self, out: &mut Vec<u8>) {
                let mut bytes = [0; $size];
                B::$write(&mut bytes, self);
                out.extend_from_slice(&bytes);
            }
        }
    )*};
}

numbers! {
    u16, 2, read_u16, write_u16;
    i16, 2, read_i16, write_i16;
    u32, 4, read_u32, write_u32;
    i32, 4, read_i32, write_i32;
    f32, 4, read_f32, write_f32;
    u64, 8, read_u64, write_u64;
    i64, 8, read_i64, write_i64;
    f64, 8, read_f64, write_f64;
}

impl Number for u8 {
    const SIZE: usize = 1;

    fn read<B: ByteOrder>(bytes: &[u8]) -> Option<Self> {
        bytes.first().copied()
    }

    fn write<B: ByteOrder>(self, out: &mut Vec<u8>) {
        out.push(self);
    }
}

impl Number for i8 {
    const SIZE: usize = 1;

    fn read<B: ByteOrder>(bytes: &[u8]) -> Option<Self> {
        bytes.first().map(|&byte| byte.cast_signed())
    }

    fn write<B: ByteOrder>(self, out: &mut Vec<u8>) {
        out.push(self.cast_unsigned());
    }
}

/// More bytes were wanted than there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Short {
    /// Where they were wanted.
    pub at: u64,
    /// How many were wanted.
    pub needed: u64,
    /// How many are left from there on.
    pub left: u64,
}

/// A place in `bytes`, moving forward.
pub(super) struct Cursor<'a, B> {
    bytes: &'a [u8],
    at: usize,
    order: PhantomData<B>,
}

impl<'a, B: ByteOrder> Cursor<'a, B> {
    pub fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, order: PhantomData }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// What to say where `needed` bytes are wanted that are not there.
    fn short(&self, needed: u64) -> Short {
        Short { at: self.at as u64, needed, left: self.left() as u64 }
    }

    /// The next `count` bytes.
    #[inline]
    pub fn take(&mut self, count: u64) -> Result<&'a [u8], Short> {
        let bytes = usize::try_from(count)
            .ok()
            .and_then(|count| self.bytes.get(self.at..self.at.checked_add(count)?))
            .ok_or_else(|| self.short(count))?;
        self.at += bytes.len();
        Ok(bytes)
    }

    /// The next number.
    #[inline]
    pub fn number<T: Number>(&mut self) -> Result<T, Short> {
        let bytes = self.take(T::SIZE as u64)?;
        T::read::<B>(bytes).ok_or_else(|| self.short(T::SIZE as u64))
    }

    /// The next `count` numbers.
    pub fn numbers<T: Number>(&mut self, count: u64) -> Result<Vec<T>, Short> {
        let bytes = self.take(count.saturating_mul(T::SIZE as u64))?;
        Ok(bytes.chunks_exact(T::SIZE).filter_map(T::read::<B>).collect())
    }

    /// The next string: a 64-bit length and as many bytes.
    #[inline]
    pub fn string(&mut self) -> Result<&'a [u8], Short> {
        let length = self.number()?;
        self.take(length)
    }

    /// Refuses a `count` of things that take at least `min_bytes` each if the bytes left cannot hold them.
    pub fn check_count(&self, count: u64, min_bytes: usize) -> Result<(), Short> {
        let needed = count.saturating_mul(min_bytes as u64);
        if needed > self.left() as u64 { Err(self.short(needed)) } else { Ok(()) }
    }
}
