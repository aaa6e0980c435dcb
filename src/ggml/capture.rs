//! ggml's two ways of speaking, its log and its abort, turned into events and errors.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Once;

use ggml_sys as sys;

use crate::{Error, Result};

thread_local! {
    /// Whether a failed assertion on this thread may unwind to [`guarded`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    /// What ggml has logged on this thread since [`guarded`] began.
    static LOGGED: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What the abort callback throws.
struct Aborted(String);

/// Sets ggml's callbacks and fills the tables of its CPU part, once.
pub(super) fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: both callbacks are functions that live as long as the program and need no user data. Only this
        // place sets them, before any other call of ggml from this library.
        unsafe {
            sys::ggml_log_set(Some(on_log), std::ptr::null_mut());
            sys::ggml_set_abort_callback(Some(on_abort));
        }
        // SAFETY: takes nothing; fills tables under ggml's own lock.
        unsafe { sys::ggml_cpu_init() };
    });
}

/// Calls ggml so that a failed assertion on this thread comes back as an error with ggml's message.
///
/// # Safety
/// ggml must hold no lock and run no other thread on the caller's memory while `call` runs: unwinding would leave the
/// one locked and the other reading freed memory.
pub(super) unsafe fn guarded<T>(operation: &'static str, call: impl FnOnce() -> T) -> Result<T> {
    init();
    LOGGED.with_borrow_mut(String::clear);
    let outer = GUARDED.replace(sys::UNWINDS);
    let result = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(outer);
    result.map_err(|payload: Box<dyn Any + Send>| match payload.downcast::<Aborted>() {
        Ok(aborted) => Error::Ggml { operation, message: aborted.0 },
        Err(other) => resume_unwind(other),
    })
}

/// The error of a call that returned nothing, with what ggml logged on the way.
pub(super) fn failure(operation: &'static str) -> Error {
    let logged = LOGGED.take();
    let message =
        if logged.trim().is_empty() { "it gave no reason".to_owned() } else { logged.trim().to_owned() };
    Error::Ggml { operation, message }
}

/// A string of ggml's, which need not be UTF-8.
///
/// # Safety
/// `text` is null or a string that ends in a zero byte.
unsafe fn owned(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller promises the zero byte.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

unsafe extern "C-unwind" fn on_log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    // SAFETY: ggml hands its callback a formatted string.
    let text = unsafe { owned(text) };
    let line = text.trim_end();
    match level {
        sys::GGML_LOG_LEVEL_ERROR => tracing::error!(target: "ggml", "{line}"),
        sys::GGML_LOG_LEVEL_WARN => tracing::warn!(target: "ggml", "{line}"),
        sys::GGML_LOG_LEVEL_INFO => tracing::info!(target: "ggml", "{line}"),
        _ => tracing::debug!(target: "ggml", "{line}"),
    }
    // A thread that is ending has no such variable left; its log is in the events.
    let _ = LOGGED.try_with(|logged| {
        if let Ok(mut logged) = logged.try_borrow_mut() {
            // The last few lines are what explains a failure.
            if logged.len() > 4096 {
                logged.clear();
            }
            logged.push_str(&text);
        }
    });
}

unsafe extern "C-unwind" fn on_abort(message: *const c_char) {
    // SAFETY: ggml hands its callback a formatted string.
    let message = unsafe { owned(message) };
    if GUARDED.try_with(Cell::get) == Ok(true) {
        // Not a panic: nothing is printed, and `guarded` waits for it up the stack.
        resume_unwind(Box::new(Aborted(message)));
    }
    tracing::error!(target: "ggml", "{message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_assertion_comes_back_as_an_error_with_its_message() {
        if !sys::UNWINDS {
            return;
        }
        // SAFETY: the assertion on a null tensor fails at once: no lock is held, no thread runs.
        let result = unsafe {
            guarded("add a tensor", || {
                let empty = sys::gguf_init_empty();
                sys::gguf_add_tensor(empty, std::ptr::null());
            })
        };
        let Err(Error::Ggml { operation, message }) = result else { panic!("no error") };
        assert_eq!(operation, "add a tensor");
        assert!(message.contains("GGML_ASSERT(tensor) failed"), "{message}");
    }
}
