//! Matrices of float32 as .npy files.

use std::io::{self, Write};
use std::path::Path;

use super::failure::Failure;

/// What is wrong with writing the file at `path`.
pub fn failed(path: &Path, error: io::Error) -> Failure {
    if path.as_os_str() == "-" { error.into() } else { Failure::file(path, error) }
}

/// Writes some numbers.
pub fn write_row(out: &mut dyn Write, row: &[f32]) -> io::Result<()> {
    row.iter().try_for_each(|x| out.write_all(&x.to_le_bytes()))
}

/// The beginning of a .npy file, version 1.0: the numbers follow at a multiple of 64 bytes.
/// <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>
pub fn header(rows: usize, columns: usize) -> Vec<u8> {
    const BEFORE: usize = 10;
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let len = (BEFORE + text.len() + 1).next_multiple_of(64) - BEFORE;
    text.extend(std::iter::repeat_n(' ', len - text.len() - 1));
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&(len as u16).to_le_bytes());
    header.extend_from_slice(text.as_bytes());
    header
}
