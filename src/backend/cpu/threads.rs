//! Threads: a leader that walks through a forward pass, and helpers that share the work of each step.
//!
//! The pool is entered once for a whole pass ([`Threads::enter`]). Helpers then wait for steps, spinning for some
//! microseconds and parking after that; a step's tasks are handed out by a counter, so that a slow or stolen core
//! takes fewer of them. A pass asks for those threads of the pool that are free, and its leader never waits for a
//! helper that has not begun: passes of several sequences may share one pool, and a pool that is busy elsewhere costs
//! speed only.
//!
//! This is the only file that knows rayon.

#[cfg(test)]
mod explore;

#[cfg(not(test))]
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::sync::atomic::Ordering::SeqCst;
#[cfg(not(test))]
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{self, Arc, PoisonError};
#[cfg(not(test))]
use std::sync::{Condvar, Mutex};
#[cfg(not(test))]
use std::thread::yield_now;

#[cfg(test)]
use explore::{AtomicBool, AtomicUsize, Condvar, Mutex, UnsafeCell, yield_now};

use super::cores;
use crate::{Error, Result};

/// Pauses before a waiting helper parks: some 20 to 50 microseconds.
const SPINS: usize = 2000;
/// How many threads there may be for each that the machine runs at a time. More would only wait for each other: a
/// step of some microseconds cannot wake them all.
const OVERSUBSCRIBED: usize = 2;

/// The threads of a model.
pub(crate) struct Threads {
    /// One thread less than work at a time: the caller's is the leader.
    pool: Option<rayon::ThreadPool>,
    count: usize,
    /// Threads of the pool that help, or are about to.
    busy: Arc<AtomicUsize>,
    /// How long helpers spin: not at all where they would spin in the way of those that work.
    spins: usize,
}

impl Threads {
    /// A pool for `count` threads, the caller's own among them: at least one, and at most twice as many as the machine
    /// runs at a time.
    ///
    /// # Errors
    /// [`Error::Threads`] where the operating system gives no more threads.
    pub fn new(count: usize) -> Result<Self> {
        let available = cores::available();
        let count = count.clamp(1, OVERSUBSCRIBED * available);
        let spins = if count > available { 0 } else { SPINS };
        let busy = Arc::default();
        if count == 1 {
            return Ok(Threads { pool: None, count, busy, spins });
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(count - 1)
            .thread_name(|i| format!("gristmill-{}", i + 1))
            .build()
            .map_err(|error| Error::Threads { count, reason: error.to_string() })?;
        Ok(Threads { pool: Some(pool), count, busy, spins })
    }

    /// How many threads work at a time.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Runs `lead` with the help of the pool's free threads, which stay until it returns.
    pub fn enter<R>(&self, lead: impl FnOnce(&Team<'_>) -> R) -> R {
        let shared = Arc::new(Shared::new(self.spins));
        // Helpers leave also when the leader unwinds.
        let _dismiss = Dismiss(&shared);
        for thread in 1..self.count {
            let (Some(pool), Some(place)) = (&self.pool, self.place()) else { break };
            let shared = Arc::clone(&shared);
            pool.spawn(move || shared.help(thread, place));
        }
        lead(&Team { shared: &shared, count: self.count })
    }

    /// A free thread of the pool.
    fn place(&self) -> Option<Place> {
        let free = |busy: usize| (busy + 1 < self.count).then_some(busy + 1);
        self.busy.fetch_update(SeqCst, SeqCst, free).ok()?;
        Some(Place(Arc::clone(&self.busy)))
    }
}

/// A thread of the pool that is taken, until this is dropped.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
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
        let chunks: Vec<sync::Mutex<&mut [f32]>> =
            data.chunks_mut(len.max(1)).map(sync::Mutex::new).collect();
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
    /// Helpers that have begun and not left.
    present: AtomicUsize,
    spins: usize,
}

// SAFETY: `step` is written only by the leader while `open` is false and `inside` is zero, and read only by helpers
// that have counted themselves `inside` and then seen `open` (both sequentially consistent, so one of the two sees
// the other); what it points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `step` is only followed under the rule above.
unsafe impl Send for Shared {}

/// Ends a pass: helpers that have begun leave, so that the next pass finds them free.
struct Dismiss<'a>(&'a Shared);

impl Drop for Dismiss<'_> {
    fn drop(&mut self) {
        self.0.dismissed.store(true, SeqCst);
        self.0.wake_sleepers();
        self.0.wait_for_none(&self.0.present);
    }
}

/// Ends a step: no helper joins it any more, and those inside have left.
struct Close<'a>(&'a Shared);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.open.store(false, SeqCst);
        self.0.wait_for_none(&self.0.inside);
    }
}

impl Shared {
    fn new(spins: usize) -> Self {
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
            present: AtomicUsize::new(0),
            spins,
        }
    }

    /// Waits until `helpers` is zero: for no longer than their last task takes.
    fn wait_for_none(&self, helpers: &AtomicUsize) {
        let mut spins = 0;
        while helpers.load(SeqCst) != 0 {
            spins += 1;
            if spins < self.spins { spin_loop() } else { yield_now() }
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
            // Whoever counted itself before waits by now. Not held any longer, for those that wake take it.
            drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_all();
        }
    }

    fn something_new(&self, seen: usize) -> bool {
        self.steps.load(SeqCst) != seen || self.dismissed.load(SeqCst)
    }

    fn help(&self, thread: usize, place: Place) {
        self.present.fetch_add(1, SeqCst);
        self.take_part(thread);
        // In this order: who has seen all helpers leave finds their places free.
        drop(place);
        self.present.fetch_sub(1, SeqCst);
    }

    /// Joins step after step until the pass ends.
    fn take_part(&self, thread: usize) {
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
        for _ in 0..self.spins.max(1) {
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
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU64, AtomicUsize};

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
    fn a_pass_does_not_wait_for_another_that_holds_the_pool() {
        let threads = Threads::new(2).unwrap();
        let sum = |team: &Team<'_>| {
            let sum = AtomicUsize::new(0);
            team.run(100, &|task, _| {
                sum.fetch_add(task, SeqCst);
            });
            assert_eq!(sum.into_inner(), 4950);
        };
        threads.enter(|outer| {
            sum(outer);
            for _ in 0..100 {
                threads.enter(sum);
            }
            sum(outer);
        });
        threads.enter(sum);
    }

    #[test]
    fn helpers_are_free_again_when_a_pass_ends() {
        let threads = Threads::new(2).unwrap();
        let both = Barrier::new(2);
        for _ in 0..200 {
            // Both tasks must run at once: without the helper this would hang.
            threads.enter(|team| {
                team.run(2, &|_, _| {
                    both.wait();
                })
            });
        }
    }

    #[test]
    fn there_are_never_many_more_threads_than_the_machine_runs() {
        assert_eq!(Threads::new(0).unwrap().count(), 1);
        assert_eq!(Threads::new(1_000_000).unwrap().count(), 2 * cores::available());
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

    /// A pass of `steps` with so many tasks each by a leader and `helpers`, which begin whenever it comes to it, in
    /// every order (see [`explore::explore`]). Each task must run once, while its step lasts; afterwards the helpers' places must be free. Where
    /// `panics`, the first step's last task does, and the leader must hear of it.
    fn explore_pass(
        interruptions: Option<usize>,
        helpers: usize,
        steps: &'static [usize],
        panics: bool,
    ) -> usize {
        let explored = explore::explore(interruptions, || {
            let shared = Arc::new(Shared::new(1));
            let busy = Arc::new(super::AtomicUsize::new(helpers));
            let help = |thread: usize| -> Box<dyn FnOnce() + Send> {
                let (shared, place) = (Arc::clone(&shared), Place(Arc::clone(&busy)));
                Box::new(move || shared.help(thread, place))
            };
            let mut threads: Vec<_> = (1..=helpers).map(help).collect();
            let counters = |&tasks: &usize| (0..tasks).map(|_| super::AtomicUsize::new(0)).collect();
            let ran: Vec<Vec<super::AtomicUsize>> = steps.iter().map(counters).collect();
            let lead = move || {
                let _dismiss = Dismiss(&shared);
                let now = AtomicUsize::new(0);
                for (step, ran) in ran.iter().enumerate() {
                    now.store(step, SeqCst);
                    shared.lead(ran.len(), &|task, thread| {
                        assert!(thread <= helpers);
                        ran[task].fetch_add(1, SeqCst);
                        assert_eq!(now.load(SeqCst), step);
                        if panics && step == 0 && task + 1 == ran.len() {
                            std::panic::resume_unwind(Box::new("a task"));
                        }
                    });
                    assert!(ran.iter().all(|ran| ran.peek() == 1));
                }
            };
            threads.insert(
                0,
                Box::new(move || {
                    let led = std::panic::catch_unwind(std::panic::AssertUnwindSafe(lead));
                    assert_eq!(led.is_err(), panics);
                }),
            );
            threads
        });
        explored.unwrap()
    }

    #[test]
    fn every_order_of_a_leader_and_a_helper_ends_well() {
        assert!(explore_pass(None, 1, &[1, 1], false) > 1000);
        assert!(explore_pass(None, 1, &[2], true) > 100);
    }

    /// What goes wrong mostly does by one or two interruptions.
    #[test]
    fn orders_of_a_leader_and_two_helpers_with_two_interruptions_end_well() {
        assert!(explore_pass(Some(2), 2, &[1], false) > 100);
    }
}
