//! Threads: a leader that walks through a forward pass, and helpers that share the work of each step.
//!
//! The pool is entered once for a whole pass ([`Threads::enter`]). Helpers then wait for steps, spinning for some
//! microseconds and parking after that; a step's tasks are handed out by a counter, so that a slow or stolen core
//! takes fewer of them. The leader never waits for a helper that has not begun, so passes of several sequences may
//! share one pool, and a pool that is busy elsewhere costs speed only.
//!
//! This is the only file that knows rayon.

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::{Error, Result};

/// Pauses before a waiting helper parks: some 20 to 50 microseconds.
const SPINS: usize = 2000;

/// The threads of a model.
pub(crate) struct Threads {
    /// One thread less than work at a time: the caller's is the leader.
    pool: Option<rayon::ThreadPool>,
    count: usize,
}

impl Threads {
    /// A pool for `count` threads, the caller's own among them; at least one.
    ///
    /// # Errors
    /// [`Error::Threads`] where the operating system gives no more threads.
    pub fn new(count: usize) -> Result<Self> {
        let count = count.clamp(1, 1024);
        if count == 1 {
            return Ok(Threads { pool: None, count });
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(count - 1)
            .thread_name(|i| format!("gristmill-{}", i + 1))
            .build()
            .map_err(|error| Error::Threads { count, reason: error.to_string() })?;
        Ok(Threads { pool: Some(pool), count })
    }

    /// How many threads work at a time.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Runs `lead` with the help of the pool's threads, which stay until it returns.
    pub fn enter<R>(&self, lead: impl FnOnce(&Team<'_>) -> R) -> R {
        let shared = Shared::new();
        let team = Team { shared: &shared, count: self.count };
        let Some(pool) = &self.pool else { return lead(&team) };
        pool.in_place_scope(|scope| {
            for thread in 1..self.count {
                let shared = &shared;
                scope.spawn(move |_| shared.help(thread));
            }
            // Helpers leave also when the leader unwinds.
            let _dismiss = Dismiss(&shared);
            lead(&team)
        })
    }
}

/// The number of threads that suits this machine: what the process may use, as affinity and cgroup quota say.
pub(crate) fn default_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The threads of one forward pass.
pub(crate) struct Team<'a> {
    shared: &'a Shared,
    count: usize,
}

/// A task of a step: called with the task's number and the thread's.
type Job<'a> = &'a (dyn Fn(usize, usize) + Sync);

impl Team<'_> {
    /// How many threads work at a time.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Calls `job(task, thread)` for each task below `tasks`, spread over the threads; returns when all are done.
    pub fn run(&self, tasks: usize, job: Job<'_>) {
        if self.count == 1 || tasks <= 1 {
            (0..tasks).for_each(|task| job(task, 0));
        } else {
            self.shared.lead(tasks, job);
        }
    }

    /// Calls `job(chunk, part)` for each part of `data` of `len` values.
    pub fn for_each_chunk(&self, data: &mut [f32], len: usize, job: impl Fn(usize, &mut [f32]) + Sync) {
        let chunks: Vec<Mutex<&mut [f32]>> = data.chunks_mut(len.max(1)).map(Mutex::new).collect();
        self.run(chunks.len(), &|task, _| {
            if let Some(chunk) = chunks.get(task) {
                job(task, &mut chunk.lock().unwrap_or_else(PoisonError::into_inner));
            }
        });
    }
}

/// A job whose lifetime only the leader knows.
type ErasedJob = dyn Fn(usize, usize) + Sync;

struct Shared {
    /// Whether a step is there to be joined.
    open: AtomicBool,
    /// Helpers that are in the step or look whether there is one.
    inside: AtomicUsize,
    next: AtomicUsize,
    /// Steps so far.
    steps: AtomicUsize,
    /// The step: its tasks and their number. Written by the leader while no helper is inside.
    step: UnsafeCell<(usize, *const ErasedJob)>,
    dismissed: AtomicBool,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    /// Whether a task panicked on a helper.
    failed: AtomicBool,
}

// SAFETY: `step` is written only by the leader while `open` is false and `inside` is zero, and read only by helpers
// that have counted themselves `inside` and then seen `open` (both sequentially consistent, so one of the two sees
// the other); what it points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `step` is only followed under the rule above.
unsafe impl Send for Shared {}

struct Dismiss<'a>(&'a Shared);

impl Drop for Dismiss<'_> {
    fn drop(&mut self) {
        self.0.dismissed.store(true, SeqCst);
        self.0.wake_sleepers();
    }
}

/// Ends a step: no helper joins it any more, and those inside have left.
struct Close<'a>(&'a Shared);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.open.store(false, SeqCst);
        let mut spins = 0;
        while self.0.inside.load(SeqCst) != 0 {
            spins += 1;
            if spins < SPINS { spin_loop() } else { std::thread::yield_now() }
        }
    }
}

impl Shared {
    fn new() -> Self {
        Shared {
            open: AtomicBool::new(false),
            inside: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            steps: AtomicUsize::new(0),
            step: UnsafeCell::new((0, &|_, _| ())),
            dismissed: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            failed: AtomicBool::new(false),
        }
    }

    fn lead(&self, tasks: usize, job: Job<'_>) {
        // SAFETY: no helper is inside (`Close` waited for that) and none reads the step before `open` is set. The
        // lifetime is erased; `close` below is dropped before this call returns, also by unwinding, and after
        // that nobody follows the pointer.
        unsafe {
            let job = std::mem::transmute::<Job<'_>, &'static ErasedJob>(job);
            *self.step.get() = (tasks, job);
        }
        self.next.store(0, SeqCst);
        let close = Close(self);
        self.open.store(true, SeqCst);
        self.steps.fetch_add(1, SeqCst);
        self.wake_sleepers();
        self.take_tasks(tasks, job, 0);
        drop(close);
        if self.failed.load(SeqCst) {
            // A task panicked on a helper: so does the pass, as it would have without helpers.
            std::panic::resume_unwind(Box::new("a task of a parallel step panicked"));
        }
    }

    fn take_tasks(&self, tasks: usize, job: Job<'_>, thread: usize) {
        loop {
            let task = self.next.fetch_add(1, SeqCst);
            if task >= tasks {
                return;
            }
            job(task, thread);
        }
    }

    fn wake_sleepers(&self) {
        if self.sleepers.load(SeqCst) != 0 {
            let _asleep = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.wake.notify_all();
        }
    }

    fn something_new(&self, seen: usize) -> bool {
        self.steps.load(SeqCst) != seen || self.dismissed.load(SeqCst)
    }

    fn help(&self, thread: usize) {
        let mut seen = 0;
        loop {
            self.wait(seen);
            seen = self.steps.load(SeqCst);
            if self.dismissed.load(SeqCst) {
                return;
            }
            self.inside.fetch_add(1, SeqCst);
            if self.open.load(SeqCst) {
                // SAFETY: counted inside and the step open: the leader keeps step and job until we have left.
                let (tasks, job) = unsafe { *self.step.get() };
                // SAFETY: as above; the pointer came from a reference.
                let job = unsafe { &*job };
                let work = std::panic::AssertUnwindSafe(|| self.take_tasks(tasks, job, thread));
                if std::panic::catch_unwind(work).is_err() {
                    self.failed.store(true, SeqCst);
                }
            }
            self.inside.fetch_sub(1, SeqCst);
        }
    }

    /// Waits for a step after the first `seen`, or for the end, spinning first.
    fn wait(&self, seen: usize) {
        for _ in 0..SPINS {
            if self.something_new(seen) {
                return;
            }
            spin_loop();
        }
        let mut asleep = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, SeqCst);
        while !self.something_new(seen) {
            asleep = self.wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn every_task_runs_once_whatever_the_threads() {
        for threads in [1, 2, 3, 8] {
            let threads = Threads::new(threads).unwrap();
            threads.enter(|team| {
                for tasks in (0..200).chain([1000, 10_000]) {
                    let sum = AtomicU64::new(0);
                    team.run(tasks, &|task, thread| {
                        assert!(thread < threads.count());
                        sum.fetch_add(task as u64 + 1, SeqCst);
                    });
                    assert_eq!(sum.into_inner(), (tasks * (tasks + 1) / 2) as u64);
                }
            });
        }
    }

    #[test]
    fn helpers_that_slept_wake_up() {
        let threads = Threads::new(3).unwrap();
        threads.enter(|team| {
            for _ in 0..5 {
                std::thread::sleep(std::time::Duration::from_millis(2));
                let ran = AtomicUsize::new(0);
                team.run(64, &|_, _| {
                    ran.fetch_add(1, SeqCst);
                });
                assert_eq!(ran.into_inner(), 64);
            }
        });
    }

    #[test]
    fn passes_of_several_callers_share_a_pool() {
        let threads = Threads::new(4).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        threads.enter(|team| {
                            let mut data = vec![1.0; 1000];
                            team.for_each_chunk(&mut data, 7, |i, chunk| chunk.fill(i as f32));
                            assert!(data.iter().enumerate().all(|(i, &x)| x == (i / 7) as f32));
                        });
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_of_a_task_reaches_the_caller_and_nobody_hangs() {
        let threads = Threads::new(3).unwrap();
        for _ in 0..20 {
            let pass = || threads.enter(|team| team.run(100, &|task, _| assert_ne!(task, 50)));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(pass)).is_err());
        }
        threads.enter(|team| team.run(10, &|_, _| ()));
    }
}
