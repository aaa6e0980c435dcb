//! How a head's keys and values lie in a block of the cache, and how they are written there.
//!
//! Both are matrices cut into panels of [`PANEL`] columns, each panel row by row, so that a row of coefficients times
//! the matrix reads memory in its order:
//!
//! ```text
//! keys      rows are the key's values, columns the BLOCK positions         [BLOCK / PANEL][rows][PANEL]
//! values    rows are the BLOCK positions, columns the value's values       [columns / PANEL][BLOCK][PANEL]
//! scales    of quantized types: one for each GROUP values of a position    [groups][BLOCK], half precision
//! ```
#![forbid(unsafe_code)]

use half::{bf16, f16};

use super::{BLOCK, GROUP, PANEL, check};
use crate::Mismatch;
use crate::dispatch::Task;
use crate::simd::{Isa, Level, filled};

/// A cache line of a block's bytes.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub struct Line([u8; LINE]);

const LINE: usize = 64;

impl Default for Line {
    fn default() -> Self {
        Line([0; LINE])
    }
}

/// In which form keys and values are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum CacheType {
    /// Half precision: half the memory, and close enough for generation.
    #[default]
    F16,
    /// Single precision: nothing is lost.
    F32,
    /// Brain floats: the range of single precision, three digits.
    Bf16,
    /// 8-bit codes and a scale for 32 values: 8.5 bits a value, hardly to be told from half precision.
    Q8_0,
    /// 4-bit codes and a scale for 32 values: 4.5 bits a value, for contexts that would not fit otherwise.
    Q4_0,
}

impl CacheType {
    /// Every type.
    pub const ALL: &'static [CacheType] =
        &[CacheType::F32, CacheType::F16, CacheType::Bf16, CacheType::Q8_0, CacheType::Q4_0];

    /// The type's name: `f32`, `f16`, `bf16`, `q8_0`, `q4_0`.
    pub const fn name(self) -> &'static str {
        match self {
            CacheType::F16 => "f16",
            CacheType::F32 => "f32",
            CacheType::Bf16 => "bf16",
            CacheType::Q8_0 => "q8_0",
            CacheType::Q4_0 => "q4_0",
        }
    }

    /// The type of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|ty| ty.name() == name)
    }

    /// Bytes of this many numbers, an even number of them.
    const fn bytes(self, numbers: usize) -> usize {
        match self {
            CacheType::F32 => numbers.saturating_mul(4),
            CacheType::F16 | CacheType::Bf16 => numbers.saturating_mul(2),
            CacheType::Q8_0 => numbers,
            CacheType::Q4_0 => numbers / 2,
        }
    }

    const fn has_scales(self) -> bool {
        matches!(self, CacheType::Q8_0 | CacheType::Q4_0)
    }
}

impl core::fmt::Display for CacheType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

/// The numbers of a head's keys or values in a block.
#[derive(Clone, Copy, Debug)]
pub enum Numbers<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Half precision, by its bits.
    F16(&'a [u16]),
    /// Brain floats, by their bits.
    Bf16(&'a [u16]),
    /// Codes from -127 to 127, and scales.
    Q8 {
        /// The codes.
        codes: &'a [i8],
        /// Half precision, by its bits.
        scales: &'a [u16],
    },
    /// Codes from 0 to 15 that stand for -8 to 7, a byte for those of an even row (low nibble) and the next; and scales.
    Q4 {
        /// The codes.
        codes: &'a [u8],
        /// Half precision, by its bits.
        scales: &'a [u16],
    },
}

impl<'a> Numbers<'a> {
    /// `codes` and `scales` begin at a cache line, so that casts fail for none.
    fn new(ty: CacheType, codes: &'a [u8], scales: &'a [u8]) -> Self {
        match ty {
            CacheType::F32 => Numbers::F32(bytemuck::cast_slice(codes)),
            CacheType::F16 => Numbers::F16(bytemuck::cast_slice(codes)),
            CacheType::Bf16 => Numbers::Bf16(bytemuck::cast_slice(codes)),
            CacheType::Q8_0 => {
                Numbers::Q8 { codes: bytemuck::cast_slice(codes), scales: bytemuck::cast_slice(scales) }
            }
            CacheType::Q4_0 => Numbers::Q4 { codes, scales: bytemuck::cast_slice(scales) },
        }
    }

    /// Whether these are as many numbers as `lines` of a block's positions, and as many scales as `groups` of them.
    pub(super) fn check(&self, lines: usize, groups: usize) -> Result<(), Mismatch> {
        let (found, scales) = match *self {
            Numbers::F32(numbers) => (numbers.len(), None),
            Numbers::F16(numbers) | Numbers::Bf16(numbers) => (numbers.len(), None),
            Numbers::Q8 { codes, scales } => (codes.len(), Some(scales.len())),
            Numbers::Q4 { codes, scales } => (2 * codes.len(), Some(scales.len())),
        };
        check("numbers of a block", lines * BLOCK, found)?;
        scales.map_or(Ok(()), |found| check("scales of a block", groups * BLOCK, found))
    }

    /// Where the numbers begin.
    pub(super) fn start(&self) -> *const u8 {
        match *self {
            Numbers::F32(numbers) => numbers.as_ptr().cast(),
            Numbers::F16(numbers) | Numbers::Bf16(numbers) => numbers.as_ptr().cast(),
            Numbers::Q8 { codes, .. } => codes.as_ptr().cast(),
            Numbers::Q4 { codes, .. } => codes.as_ptr(),
        }
    }

    /// The scales, where there are some.
    pub(super) fn scales(&self) -> Option<&'a [u16]> {
        match *self {
            Numbers::Q8 { scales, .. } | Numbers::Q4 { scales, .. } => Some(scales),
            _ => None,
        }
    }
}

/// One head's keys and values for [`BLOCK`] positions.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// The keys.
    pub keys: Numbers<'a>,
    /// The values.
    pub values: Numbers<'a>,
}

/// How a head's keys and values lie in a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    key_type: CacheType,
    value_type: CacheType,
    key_dim: usize,
    value_dim: usize,
    places: Places,
}

/// A value's columns: whole panels.
pub(super) const fn columns(value_dim: usize) -> usize {
    value_dim.next_multiple_of(PANEL)
}

/// A key's rows: whole pairs, so that 4-bit codes fill their bytes.
pub(super) const fn rows(key_dim: usize) -> usize {
    key_dim.next_multiple_of(2)
}

/// Where the parts of a block begin, and where the last one ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Places {
    key_scales: usize,
    values: usize,
    value_scales: usize,
    end: usize,
}

impl Layout {
    /// For keys of `key_dim` values and values of `value_dim`.
    pub fn new(key_type: CacheType, value_type: CacheType, key_dim: usize, value_dim: usize) -> Self {
        let after = |start: usize, bytes: usize| {
            start.saturating_add(bytes).checked_next_multiple_of(LINE).unwrap_or(usize::MAX)
        };
        let scales = |ty: CacheType, dim: usize| match ty.has_scales() {
            true => dim.div_ceil(GROUP).saturating_mul(2 * BLOCK),
            false => 0,
        };
        let numbers = |count: usize| count.saturating_mul(BLOCK);
        let key_scales = after(0, key_type.bytes(numbers(rows(key_dim))));
        let values = after(key_scales, scales(key_type, key_dim));
        let value_scales = after(values, value_type.bytes(numbers(columns(value_dim))));
        let end = after(value_scales, scales(value_type, value_dim));
        let places = Places { key_scales, values, value_scales, end };
        Layout { key_type, value_type, key_dim, value_dim, places }
    }

    /// Lines of a block of one head; as many as there may be for more than can be counted.
    pub fn lines(&self) -> usize {
        self.places.end / LINE
    }

    /// The block in `lines`.
    ///
    /// # Errors
    /// [`Mismatch`] where there are not as many lines as a block has.
    pub fn block<'a>(&self, lines: &'a [Line]) -> Result<Block<'a>, Mismatch> {
        check("lines of a block", self.lines(), lines.len())?;
        let Places { key_scales, values, value_scales, end } = self.places;
        let bytes = bytemuck::cast_slice(lines);
        let side = |ty: CacheType, parts: [usize; 3], numbers: usize, dim: usize| {
            let codes = &bytes[parts[0]..][..ty.bytes(numbers * BLOCK)];
            let scales = &bytes[parts[1]..parts[2]];
            Numbers::new(ty, codes, &scales[..scales.len().min(dim.div_ceil(GROUP) * 2 * BLOCK)])
        };
        Ok(Block {
            keys: side(self.key_type, [0, key_scales, values], rows(self.key_dim), self.key_dim),
            values: side(
                self.value_type,
                [values, value_scales, end],
                columns(self.value_dim),
                self.value_dim,
            ),
        })
    }

    /// Writes `keys` and `values` of consecutive positions to the block in `lines`, the first to position `at`.
    ///
    /// # Errors
    /// [`Mismatch`] where the block has not as many lines or positions, or a key or value not as many values.
    pub fn put(
        &self,
        level: Level,
        lines: &mut [Line],
        at: usize,
        keys: &[&[f32]],
        values: &[&[f32]],
    ) -> Result<(), Mismatch> {
        check("lines of a block", self.lines(), lines.len())?;
        if keys.len() != values.len() || at + keys.len() > BLOCK {
            return Err(Mismatch { what: "positions of a block", expected: BLOCK, found: at + keys.len() });
        }
        for (rows, expected) in [(keys, self.key_dim), (values, self.value_dim)] {
            if let Some(row) = rows.iter().find(|row| row.len() != expected) {
                return Err(Mismatch { what: "values of a head", expected, found: row.len() });
            }
        }
        let Places { key_scales, values: value_start, value_scales, .. } = self.places;
        let key_rows = rows(self.key_dim);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(lines);
        let (key_bytes, value_bytes) = bytes.split_at_mut(value_start);
        let (codes, scales) = key_bytes.split_at_mut(key_scales);
        let side = Side { ty: self.key_type, keys: true, rows: key_rows };
        level.run(Put { side, codes, scales, at, from: keys });
        let (codes, scales) = value_bytes.split_at_mut(value_scales - value_start);
        let side = Side { ty: self.value_type, keys: false, rows: BLOCK };
        level.run(Put { side, codes, scales, at, from: values });
        Ok(())
    }
}

/// Keys or values of a block.
#[derive(Clone, Copy)]
struct Side {
    ty: CacheType,
    keys: bool,
    /// Rows of a panel.
    rows: usize,
}

impl Side {
    /// Row, and the number of the element in its panels, of value `i` of the position `at`.
    #[inline(always)]
    fn place(self, at: usize, i: usize) -> (usize, usize) {
        let (row, column) = if self.keys { (i, at) } else { (at, i) };
        (row, (column / PANEL * self.rows + row) * PANEL + column % PANEL)
    }
}

struct Put<'a> {
    side: Side,
    codes: &'a mut [u8],
    scales: &'a mut [u8],
    at: usize,
    /// `[positions]` rows of values.
    from: &'a [&'a [f32]],
}

impl Task for Put<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Put { side, codes, scales, at, from } = self;
        for (at, values) in (at..).zip(from) {
            match side.ty {
                CacheType::F32 => {
                    let places = codes.as_chunks_mut::<4>().0;
                    for (number, values) in values.chunks(8).enumerate() {
                        scatter(side, places, at, 8 * number, values.iter().map(|x| x.to_ne_bytes()));
                    }
                }
                CacheType::F16 | CacheType::Bf16 => {
                    let places = codes.as_chunks_mut::<2>().0;
                    for (number, values) in values.chunks(8).enumerate() {
                        let eight = filled(values, 0.0);
                        let bits = match side.ty {
                            CacheType::F16 => isa.to_halves(isa.floats(&eight)),
                            _ => eight.map(|x| bf16::from_f32(x).to_bits()),
                        };
                        let bytes = bits.into_iter().take(values.len()).map(u16::to_ne_bytes);
                        scatter(side, places, at, 8 * number, bytes);
                    }
                }
                CacheType::Q8_0 | CacheType::Q4_0 => quantize(side, codes, scales, at, values),
            }
        }
    }
}

/// Writes up to eight values of a position, from value `i` on.
#[inline(always)]
fn scatter<const N: usize>(
    side: Side,
    places: &mut [[u8; N]],
    at: usize,
    i: usize,
    bytes: impl Iterator<Item = [u8; N]>,
) {
    let (_, start) = side.place(at, i);
    let stride = if side.keys { PANEL } else { 1 };
    for (number, bytes) in bytes.enumerate() {
        places[start + number * stride] = bytes;
    }
}

/// Writes the values of a position as codes under a scale for each group, as ggml's reference makes them.
fn quantize(side: Side, codes: &mut [u8], scales: &mut [u8], at: usize, values: &[f32]) {
    let scales = scales.as_chunks_mut::<2>().0;
    for (group, values) in values.chunks(GROUP).enumerate() {
        // Of the largest magnitude, with its sign; NaN where one is NaN.
        let extreme =
            values.iter().fold(0.0_f32, |m, &x| if x.abs() > m.abs() || x.is_nan() { x } else { m });
        let scale = match side.ty {
            CacheType::Q8_0 => extreme.abs() / 127.0,
            _ => extreme / -8.0,
        };
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        scales[group * BLOCK + at] = f16::from_f32(scale).to_bits().to_ne_bytes();
        for (i, &x) in values.iter().enumerate() {
            let (row, place) = side.place(at, group * GROUP + i);
            if side.ty == CacheType::Q8_0 {
                codes[place] = libm::roundf(x * inverse) as i8 as u8;
            } else {
                let code = ((x * inverse + 8.5) as u8).min(15);
                // The place among pairs of rows.
                let column = place % PANEL;
                let byte = &mut codes[(place / PANEL - row % 2) / 2 * PANEL + column];
                *byte = if row % 2 == 0 { *byte & 0xF0 | code } else { *byte & 0x0F | code << 4 };
            }
        }
    }
}
