//! Ctrl-C: stops the work at hand; where there is none, or at the second time, the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gristmill::generate::CancelHandle;

/// Tells Ctrl-C what to stop. There is one in a program.
pub struct Interrupt {
    working: Arc<AtomicBool>,
    cancel: CancelHandle,
}

impl Interrupt {
    /// From now on Ctrl-C stops what `cancel` stops.
    pub fn new(cancel: CancelHandle) -> Self {
        let working = Arc::new(AtomicBool::new(false));
        let interrupt = Interrupt { working: working.clone(), cancel: cancel.clone() };
        let installed = ctrlc::set_handler(move || match working.swap(false, Ordering::SeqCst) {
            true => cancel.cancel(),
            false => std::process::exit(130),
        });
        if let Err(error) = installed {
            tracing::warn!(%error, "Ctrl-C ends the program at once");
        }
        interrupt
    }

    /// Does some work, which Ctrl-C stops: all of it in one call, as a wish of before is forgotten.
    pub fn during<R>(&self, work: impl FnOnce() -> R) -> R {
        self.cancel.reset();
        self.working.store(true, Ordering::SeqCst);
        let done = work();
        self.working.store(false, Ordering::SeqCst);
        done
    }
}

/// A flag that Ctrl-C sets, for work that looks at it; at the second time the program ends.
pub fn flag() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    let installed = ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    });
    if let Err(error) = installed {
        tracing::warn!(%error, "Ctrl-C ends the program at once");
    }
    stop
}
