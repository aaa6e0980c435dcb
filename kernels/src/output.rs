//! Where products write: a window on the rows of a matrix of columns, so that threads can share one matrix.

use core::marker::PhantomData;
use core::ops::Range;

use crate::Mismatch;

/// Rows of a matrix `[columns, rows]` of floats (columns lie one behind the other), to be written by one thread.
pub struct Output<'a> {
    start: *mut f32,
    /// Floats from one column to the next.
    stride: usize,
    rows: usize,
    columns: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: an `Output` is a borrowed `&mut [f32]` but for the gaps between its columns, which it never touches.
unsafe impl Send for Output<'_> {}
// SAFETY: through a shared `Output` only `window` can be reached, whose callers keep windows disjoint.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    /// The whole of `matrix`, which has columns of `rows` floats.
    ///
    /// # Errors
    /// [`Mismatch`] where `matrix` is no whole number of columns.
    pub fn new(matrix: &'a mut [f32], rows: usize) -> Result<Self, Mismatch> {
        if rows == 0 || !matrix.len().is_multiple_of(rows) {
            return Err(Mismatch { what: "floats of whole columns", expected: rows, found: matrix.len() });
        }
        let columns = matrix.len() / rows;
        Ok(Output { start: matrix.as_mut_ptr(), stride: rows, rows, columns, lifetime: PhantomData })
    }

    /// The rows of the window.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The columns of the window.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// A part of the rows, cut to the rows that there are.
    ///
    /// # Safety
    /// While the window lives nothing else reads or writes these rows, neither through `self` nor through another
    /// window.
    pub unsafe fn window(&self, rows: Range<usize>) -> Output<'_> {
        // SAFETY: the caller promises as much for these rows of all columns.
        unsafe { self.tile(rows, 0..self.columns) }
    }

    /// A part of the rows of some columns, cut to what there is.
    ///
    /// # Safety
    /// While the window lives nothing else reads or writes these rows of these columns, neither through `self` nor
    /// through another window.
    pub unsafe fn tile(&self, rows: Range<usize>, columns: Range<usize>) -> Output<'_> {
        let (row, last_row) = (rows.start.min(self.rows), rows.end.min(self.rows));
        let (column, last_column) = (columns.start.min(self.columns), columns.end.min(self.columns));
        Output {
            // Within the matrix, or past the end of a window without rows or columns, which is never followed.
            start: self.start.wrapping_add(column * self.stride + row),
            stride: self.stride,
            rows: last_row.saturating_sub(row),
            columns: last_column.saturating_sub(column),
            lifetime: PhantomData,
        }
    }

    /// The rows of one column.
    #[inline(always)]
    pub(crate) fn column(&mut self, column: usize) -> &mut [f32] {
        if column >= self.columns {
            return &mut [];
        }
        // SAFETY: the window was cut from a live `&mut [f32]` of `stride * columns` floats at a row offset for
        // which `rows` more are left, and `&mut self` keeps others out.
        unsafe { core::slice::from_raw_parts_mut(self.start.wrapping_add(column * self.stride), self.rows) }
    }
}
