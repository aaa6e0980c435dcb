//! Matrix products, as ggml's CPU part computes a `mul_mat` graph.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use ggml_sys as sys;
use gristmill_kernels::quant::GgmlType;

use super::rows::{Readable, aligned, partner};
use super::{capture, check_len, row_bytes, signed};
use crate::{Error, Result};

/// A weight matrix in a form that ggml multiplies: rows x columns, each row whole blocks.
pub struct Weights<'a> {
    ty: GgmlType,
    rows: usize,
    cols: usize,
    layout: Layout<'a>,
}

enum Layout<'a> {
    /// As in a file.
    Plain(Readable<'a>),
    /// In a buffer of ggml's, rows interleaved for this processor.
    Repacked { buffer: NonNull<sys::ggml_backend_buffer>, data: *mut c_void, extra: *mut c_void },
}

// SAFETY: after construction the bytes, the buffer and what `extra` points to (constant tables of ggml's) are only
// read, by products through a shared reference, and the buffer is freed by the one owner.
unsafe impl Send for Weights<'_> {}
// SAFETY: as above: all that a shared reference allows is reading.
unsafe impl Sync for Weights<'_> {}

impl<'a> Weights<'a> {
    /// A matrix in the layout of a file. The bytes are used in place, unless they start at an odd address.
    ///
    /// # Errors
    /// ggml has no product for the type, `cols` is zero or no whole number of blocks, or `bytes` is not the size.
    pub fn new(ty: GgmlType, rows: usize, cols: usize, bytes: &'a [u8]) -> Result<Self> {
        check_matrix(ty, rows, cols, bytes)?;
        Ok(Self { ty, rows, cols, layout: Layout::Plain(aligned(bytes)) })
    }

    /// A copy of the matrix in the layout that ggml prefers on this processor, as llama.cpp makes it when it loads a
    /// model; `None` where ggml has no better one than the file's for this type and shape.
    ///
    /// # Errors
    /// As for [`Weights::new`], and where ggml has no memory or refuses the data.
    pub fn repacked(
        ty: GgmlType,
        rows: usize,
        cols: usize,
        bytes: &[u8],
    ) -> Result<Option<Weights<'static>>> {
        check_matrix(ty, rows, cols, bytes)?;
        if rows == 0 {
            return Ok(None);
        }
        let bytes = aligned(bytes);
        let context = Context::new()?;
        let weights = context.matrix(ty, rows, cols)?;
        let one_column = context.matrix(GgmlType::F32, 1, cols)?;
        // SAFETY: both tensors belong to the context, and their shapes agree: F32, `cols` columns.
        let product = unsafe { sys::ggml_mul_mat(context.0.as_ptr(), weights, one_column) };
        for buffer_type in extra_buffer_types() {
            // SAFETY: the tensors live in `context`, the buffer types and the device as long as the program. An empty
            // buffer tells the device which layout is meant, as llama.cpp does it; it is freed before the next step,
            // and the buffer that is kept is freed by `Layout`'s owner. `bytes` is the tensor's size, as checked.
            let buffer = unsafe {
                let asked = sys::ggml_backend_buft_alloc_buffer(buffer_type, 0);
                (*weights).buffer = asked;
                let device = sys::ggml_backend_buft_get_device(buffer_type);
                let suits = !device.is_null() && sys::ggml_backend_dev_supports_op(device, product);
                (*weights).buffer = ptr::null_mut();
                sys::ggml_backend_buffer_free(asked);
                if !suits {
                    continue;
                }
                let size = sys::ggml_backend_buft_get_alloc_size(buffer_type, weights);
                NonNull::new(sys::ggml_backend_buft_alloc_buffer(buffer_type, size))
            };
            let buffer = buffer.ok_or_else(|| capture::failure("allocate a repacked matrix"))?;
            // SAFETY: as above; the buffer has just been made of the size that the tensor needs in it. No lock is held
            // and no other thread runs.
            unsafe {
                capture::guarded("repack a matrix", || {
                    let base = sys::ggml_backend_buffer_get_base(buffer.as_ptr());
                    sys::ggml_backend_tensor_alloc(buffer.as_ptr(), weights, base);
                    sys::ggml_backend_tensor_set(
                        weights,
                        bytes.as_ptr().cast(),
                        0,
                        sys::ggml_nbytes(weights),
                    );
                })
            }?;
            // SAFETY: the tensor is alive and its fields were set by the calls above.
            let layout =
                unsafe { Layout::Repacked { buffer, data: (*weights).data, extra: (*weights).extra } };
            return Ok(Some(Weights { ty, rows, cols, layout }));
        }
        Ok(None)
    }

    /// What a model keeps of a matrix, if it is to be multiplied often: [`Weights::repacked`], or else a copy where
    /// the bytes start at an odd address; `None` where [`Weights::new`] uses them as well as anything.
    ///
    /// # Errors
    /// As for [`Weights::repacked`].
    pub fn prepared(
        ty: GgmlType,
        rows: usize,
        cols: usize,
        bytes: &[u8],
    ) -> Result<Option<Weights<'static>>> {
        let repacked = Self::repacked(ty, rows, cols, bytes)?;
        let copied = || match aligned(bytes) {
            Readable::Copied(copy) => {
                Some(Weights { ty, rows, cols, layout: Layout::Plain(Readable::Copied(copy)) })
            }
            Readable::InPlace(_) => None,
        };
        Ok(repacked.or_else(copied))
    }

    /// The type of the weights.
    pub fn ty(&self) -> GgmlType {
        self.ty
    }

    /// Rows, the number of outputs, and columns, the number of inputs.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }
}

impl Drop for Weights<'_> {
    fn drop(&mut self) {
        if let Layout::Repacked { buffer, .. } = self.layout {
            // SAFETY: made by `repacked`, owned by this value alone, and no product that uses it is running.
            unsafe { sys::ggml_backend_buffer_free(buffer.as_ptr()) };
        }
    }
}

fn check_matrix(ty: GgmlType, rows: usize, cols: usize, bytes: &[u8]) -> Result<()> {
    if partner(ty).is_none() {
        return Err(Error::GgmlUnsupported { operation: "matrix product", ty });
    }
    if cols == 0 {
        return Err(Error::GgmlSize { what: "columns", expected: "at least one".to_owned(), found: 0 });
    }
    let expected = row_bytes(ty, cols, "columns")?.checked_mul(rows);
    let expected = expected.ok_or_else(|| Error::GgmlSize {
        what: "rows",
        expected: "a matrix that fits into memory".to_owned(),
        found: rows,
    })?;
    check_len("bytes of weights", expected, bytes.len())
}

/// The layouts other than the file's that ggml's CPU part has on this processor.
fn extra_buffer_types() -> Vec<sys::ggml_backend_buffer_type_t> {
    // SAFETY: the registry of the CPU part is constant. The name stands for a function of the type to which the
    // pointer is turned, by ggml-backend.h, and the CPU part has one device. The list ends in a null.
    unsafe {
        let registry = sys::ggml_backend_cpu_reg();
        let device = sys::ggml_backend_reg_dev_get(registry, 0);
        let function =
            sys::ggml_backend_reg_get_proc_address(registry, c"ggml_backend_dev_get_extra_bufts".as_ptr());
        let function = std::mem::transmute::<*mut c_void, sys::ggml_backend_dev_get_extra_bufts_t>(function);
        let Some(function) = function else { return Vec::new() };
        let mut next = function(device);
        let mut types = Vec::new();
        while !next.is_null() && !(*next).is_null() {
            types.push(*next);
            next = next.add(1);
        }
        types
    }
}

/// A ggml context that holds tensors' descriptions, no data.
struct Context(NonNull<sys::ggml_context>);

/// Nodes that a product's graph has room for.
const GRAPH_SIZE: usize = 8;

impl Context {
    fn new() -> Result<Self> {
        capture::init();
        // SAFETY: both take no pointer. ggml allocates the memory of the context itself.
        let context = unsafe {
            let mem_size =
                8 * sys::ggml_tensor_overhead() + sys::ggml_graph_overhead_custom(GRAPH_SIZE, false);
            sys::ggml_init(sys::ggml_init_params { mem_size, mem_buffer: ptr::null_mut(), no_alloc: true })
        };
        NonNull::new(context).map(Self).ok_or_else(|| capture::failure("make a context"))
    }

    /// A tensor of `rows` rows of `cols` values, without data. The context has room for seven beside a graph.
    fn matrix(&self, ty: GgmlType, rows: usize, cols: usize) -> Result<*mut sys::ggml_tensor> {
        let (rows, cols) = (signed("rows", rows)?, signed("columns", cols)?);
        // SAFETY: the context is alive, and the type is one that ggml knows: the callers have asked for its partner.
        Ok(unsafe { sys::ggml_new_tensor_2d(self.0.as_ptr(), ty as sys::ggml_type, cols, rows) })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by `new` and freed once; tensors of it are used only while it lives.
        unsafe { sys::ggml_free(self.0.as_ptr()) };
    }
}

/// 64 bytes at a multiple of 64: scratch memory for vector stores.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line(#[allow(dead_code, reason = "ggml writes and reads it")] [u8; 64]);

/// ggml's own threads, with what they need for one product at a time. Kept from product to product, as llama.cpp does.
pub struct Threads {
    pool: NonNull<sys::ggml_threadpool>,
    count: i32,
    context: Context,
    scratch: Vec<Line>,
    /// The pool runs on the memory of whoever calls it: one caller at a time.
    exclusive: PhantomData<*mut ()>,
}

// SAFETY: the pool's threads wait on its own lock for work and do not care which thread brings it; the context is used
// through `&mut self` only.
unsafe impl Send for Threads {}

impl Threads {
    /// Starts `count` threads, the caller of a product being one of them; at least one, at most 512.
    ///
    /// # Errors
    /// The count is out of range, or ggml cannot start them.
    pub fn new(count: usize) -> Result<Self> {
        if count == 0 || count > sys::GGML_MAX_N_THREADS as usize {
            let expected = format!("1 to {}", sys::GGML_MAX_N_THREADS);
            return Err(Error::GgmlSize { what: "threads", expected, found: count });
        }
        let context = Context::new()?;
        let count = signed("threads", count)?;
        // SAFETY: the parameters are filled by ggml and live until the call returns.
        let pool = unsafe {
            let mut params = sys::ggml_threadpool_params_default(count);
            // Wait for the next product some milliseconds before sleeping, not a tenth of a second: other threads may
            // have work for the core meanwhile.
            params.poll = 1;
            sys::ggml_threadpool_new(&raw mut params)
        };
        let pool = NonNull::new(pool).ok_or_else(|| capture::failure("start threads"))?;
        Ok(Self { pool, count, context, scratch: Vec::new(), exclusive: PhantomData })
    }

    /// Multiplies: `out` (n x rows) = `x` (n x columns) times the transpose of `weights` (rows x columns), all row by
    /// row. ggml quantizes `x` to the weights' partner type on the way.
    ///
    /// # Errors
    /// `x` does not hold whole rows, `out` is not of the product's size, or ggml has no memory.
    pub fn mul_mat(&mut self, weights: &Weights<'_>, x: &[f32], out: &mut [f32]) -> Result<()> {
        let (rows, cols) = weights.shape();
        if !x.len().is_multiple_of(cols) {
            let expected = format!("a multiple of {cols}, the columns of the weights");
            return Err(Error::GgmlSize { what: "values of x", expected, found: x.len() });
        }
        let n = x.len() / cols;
        // An overflowing product is no length that a slice can have.
        check_len("values of the product", rows.saturating_mul(n), out.len())?;
        if out.is_empty() {
            return Ok(());
        }
        // SAFETY: what the context holds is left from the last product and no longer used.
        unsafe { sys::ggml_reset(self.context.0.as_ptr()) };
        let left = self.context.matrix(weights.ty, rows, cols)?;
        let right = self.context.matrix(GgmlType::F32, n, cols)?;
        // SAFETY: the three tensors live in the context and get memory of just their sizes, which `Weights` and the
        // checks above have compared; the weights and `x` are sources, which ggml only reads. The graph, the plan and
        // its scratch memory outlive the computation, which has ended in all threads when the call returns.
        let status = unsafe {
            match &weights.layout {
                Layout::Plain(bytes) => (*left).data = bytes.as_ptr().cast_mut().cast(),
                Layout::Repacked { buffer, data, extra } => {
                    (*left).buffer = buffer.as_ptr();
                    (*left).data = *data;
                    (*left).extra = *extra;
                }
            }
            (*right).data = x.as_ptr().cast_mut().cast();
            let product = sys::ggml_mul_mat(self.context.0.as_ptr(), left, right);
            (*product).data = out.as_mut_ptr().cast();
            let graph = sys::ggml_new_graph_custom(self.context.0.as_ptr(), GRAPH_SIZE, false);
            sys::ggml_build_forward_expand(graph, product);
            let mut plan = sys::ggml_graph_plan(graph, self.count, self.pool.as_ptr());
            let lines = plan.work_size.div_ceil(size_of::<Line>());
            if self.scratch.len() < lines {
                self.scratch.resize(lines, Line([0; 64]));
            }
            plan.work_data = self.scratch.as_mut_ptr().cast();
            sys::ggml_graph_compute(graph, &raw mut plan)
        };
        match status {
            sys::GGML_STATUS_SUCCESS => Ok(()),
            _ => Err(capture::failure("multiply matrices")),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once, idle: a product has ended when `mul_mat` returns.
        unsafe { sys::ggml_threadpool_free(self.pool.as_ptr()) };
    }
}
