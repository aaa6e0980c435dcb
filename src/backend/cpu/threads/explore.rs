//! An explorer of interleavings: what stands in for `std::sync` when `threads.rs` is tested.
//!
//! [`explore`] runs the protocol's own code on threads of which one runs at a time, and decides before each access to
//! what they share who goes on. It takes every decision that there is: after a run it goes back to the last decision
//! with an alternative and runs anew. The state of a run is what the shared variables hold and, for each thread, what
//! it does next and what each line of its code read last: all that the locals of these threads depend on. A state that
//! was met before is not explored again, which is what makes it end. Every access must be sequentially consistent (asserted), so no other order exists on any processor.
//!
//! A run fails if a task panics, if all threads wait (for a lock, to be woken, or in a loop for a variable to change),
//! or if the leader can write a cell while another thread reads it. Outside of [`explore`] the types are std's.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::atomic::Ordering::{self, SeqCst};
use std::sync::{self, Arc, LockResult, MutexGuard, PoisonError, atomic};

/// The thread that sets up a run and takes no part in it.
const CONTROLLER: usize = usize::MAX;

thread_local! {
    /// The run that this thread belongs to, and its number there.
    static PART: RefCell<Option<(Arc<Run>, usize)>> = const { RefCell::new(None) };
}

/// The run of this thread, if it takes part in one.
fn part() -> Option<(Arc<Run>, usize)> {
    PART.with_borrow(|part| part.clone()).filter(|&(_, me)| me != CONTROLLER)
}

/// What a thread needs to go on.
#[derive(Clone, Copy, PartialEq, Hash, Debug)]
enum Needs {
    Nothing,
    Change,
    Lock(usize),
    /// Somebody's notice, then the lock.
    Notice(usize),
    Ended,
}

/// A thread that is about to do something.
#[derive(Clone, Hash)]
struct Thread {
    needs: Needs,
    /// About to use a cell.
    cell: bool,
    /// Found in a loop that a variable has not the value it waits for.
    waiting: bool,
    /// Where it stands, and before which variable.
    next: Option<(Site, usize)>,
    /// What was read last at each place in the code.
    read: BTreeMap<Site, usize>,
}

/// A place in the code.
type Site = &'static Location<'static>;

/// A decision: who could go on, and which of them does.
struct Choice {
    options: Vec<usize>,
    taken: usize,
}

#[derive(Default)]
struct State {
    threads: Vec<Thread>,
    running: Option<usize>,
    over: Option<Result<(), String>>,
    memory: Vec<usize>,
    /// Who holds each lock.
    locks: Vec<Option<usize>>,
    path: Vec<Choice>,
    depth: usize,
    /// Whether this run has come to a state that was met before.
    known: bool,
    visited: HashSet<u64>,
    /// How often a thread may still be held up that could have gone on, if there is a bound.
    interruptions: Option<usize>,
}

impl State {
    /// Decides who goes on, now that all threads stand before their next access; `last` did the one before.
    fn decide(&mut self, last: usize) {
        if self.over.is_some() {
            return;
        }
        let using = |thread: &Thread| thread.cell;
        if self.threads.first().is_some_and(using) && self.threads.iter().skip(1).any(using) {
            return self.fail("a cell is used by the leader and by another thread at once");
        }
        let ready = |thread: &Thread| match thread.needs {
            Needs::Nothing => true,
            Needs::Lock(lock) => self.locks[lock].is_none(),
            Needs::Change | Needs::Notice(_) | Needs::Ended => false,
        };
        let mut options: Vec<usize> = (0..self.threads.len()).filter(|&i| ready(&self.threads[i])).collect();
        // Whoever ran goes on: so runs have few changes of threads, which take time.
        options.sort_by_key(|&thread| thread != last);
        let could_go_on = options.first() == Some(&last);
        if could_go_on && self.interruptions == Some(0) {
            options.truncate(1);
        }
        let chosen = match options.len() {
            0 if self.threads.iter().all(|thread| thread.needs == Needs::Ended) => {
                self.over = Some(Ok(()));
                return;
            }
            0 => return self.fail("all threads wait"),
            1 => options[0],
            _ if self.known => options[0],
            _ if self.depth < self.path.len() => {
                let choice = &self.path[self.depth];
                assert_eq!(choice.options, options, "runs differ that took the same decisions");
                self.depth += 1;
                choice.options[choice.taken]
            }
            _ => {
                self.known = !self.visited.insert(hash(&(
                    &self.threads,
                    &self.memory,
                    &self.locks,
                    self.interruptions.map(|left| (left, last)),
                )));
                let first = options[0];
                if !self.known {
                    self.path.push(Choice { options, taken: 0 });
                    self.depth += 1;
                }
                first
            }
        };
        if let Some(left) = &mut self.interruptions {
            *left -= usize::from(could_go_on && chosen != last);
        }
        let thread = &mut self.threads[chosen];
        if let Needs::Lock(lock) = thread.needs {
            self.locks[lock] = Some(chosen);
        }
        thread.needs = Needs::Nothing;
        self.running = Some(chosen);
    }

    fn fail(&mut self, why: &str) {
        let threads: Vec<Needs> = self.threads.iter().map(|thread| thread.needs).collect();
        self.over = Some(Err(format!("{why}; threads need {threads:?}, variables are {:?}", self.memory)));
        self.running = None;
    }
}

struct Run {
    state: sync::Mutex<State>,
    /// One for each thread, and the controller's.
    turns: [sync::Condvar; 4],
    over: sync::Condvar,
}

impl Run {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The point before each access: returns when it is the turn of thread `me`.
    fn point(&self, me: usize, needs: Needs, cell: bool, next: (Site, usize)) {
        let mut state = self.state();
        let thread = &mut state.threads[me];
        thread.needs = if std::mem::take(&mut thread.waiting) { Needs::Change } else { needs };
        thread.cell = cell;
        thread.next = Some(next);
        state.decide(me);
        self.until_turn(me, state);
    }

    /// Wakes whose turn it is, if that is not `me`.
    fn call(&self, state: &State, me: usize) {
        match state.running.filter(|_| state.over.is_none()) {
            Some(thread) if thread != me => self.turns[thread].notify_one(),
            Some(_) => (),
            None => self.over.notify_one(),
        }
    }

    fn until_turn(&self, me: usize, mut state: MutexGuard<'_, State>) {
        self.call(&state, me);
        // After a failure this never returns: the thread is left behind.
        while state.running != Some(me) {
            state = self.turns[me].wait(state).unwrap();
        }
        state.threads[me].cell = false;
    }

    /// Notes what thread `me` has read.
    fn read(&self, me: usize, site: Site, value: usize) {
        self.state().threads[me].read.insert(site, value);
    }

    /// Notes what a thread has written.
    fn wrote(&self, variable: usize, value: usize) {
        let mut state = self.state();
        if state.memory[variable] != value {
            state.memory[variable] = value;
            for thread in state.threads.iter_mut().filter(|thread| thread.needs == Needs::Change) {
                thread.needs = Needs::Nothing;
            }
        }
    }
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Runs the threads that `setup` returns, of which the first is the leader, in every order that makes a difference and
/// holds up at most `interruptions` times (no bound: `None`) a thread that could have gone on. Returns the number of runs, or how the
/// first that failed did.
pub(super) fn explore(
    interruptions: Option<usize>,
    setup: impl Fn() -> Vec<Box<dyn FnOnce() + Send>>,
) -> Result<usize, String> {
    let mut state = State { interruptions, ..State::default() };
    for runs in 1.. {
        let run = Arc::new(Run {
            state: sync::Mutex::new(state),
            turns: Default::default(),
            over: sync::Condvar::new(),
        });
        PART.set(Some((Arc::clone(&run), CONTROLLER)));
        let bodies = setup();
        PART.set(None);
        let thread =
            Thread { needs: Needs::Nothing, cell: false, waiting: false, next: None, read: BTreeMap::new() };
        run.state().threads = vec![thread; bodies.len()];
        let start = |(me, body): (usize, Box<dyn FnOnce() + Send>)| {
            let run = Arc::clone(&run);
            std::thread::spawn(move || {
                PART.set(Some((Arc::clone(&run), me)));
                run.until_turn(me, run.state());
                let ended = catch_unwind(AssertUnwindSafe(body));
                PART.set(None);
                let mut state = run.state();
                state.threads[me].needs = Needs::Ended;
                if ended.is_err() {
                    state.fail("a thread panicked");
                }
                state.decide(me);
                run.call(&state, me);
            })
        };
        let threads: Vec<_> = bodies.into_iter().enumerate().map(start).collect();
        run.state().decide(0);
        run.call(&run.state(), CONTROLLER);
        let over = |state: &mut State| state.over.is_none();
        let mut ended = run.over.wait_while(run.state(), over).unwrap();
        ended.over.take().unwrap_or(Ok(())).map_err(|why| format!("run {runs}: {why}"))?;
        state = State {
            path: std::mem::take(&mut ended.path),
            visited: std::mem::take(&mut ended.visited),
            interruptions,
            ..State::default()
        };
        drop(ended);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        while state.path.pop_if(|choice| choice.taken + 1 == choice.options.len()).is_some() {}
        match state.path.last_mut() {
            Some(choice) => choice.taken += 1,
            None => return Ok(runs),
        }
    }
    Ok(0)
}

#[derive(Default)]
pub(super) struct AtomicUsize {
    value: atomic::AtomicUsize,
    variable: usize,
}

impl AtomicUsize {
    pub fn new(value: usize) -> Self {
        let variable = PART.with_borrow(|part| {
            part.as_ref().map_or(0, |(run, _)| {
                let memory = &mut run.state().memory;
                memory.push(value);
                memory.len() - 1
            })
        });
        AtomicUsize { value: atomic::AtomicUsize::new(value), variable }
    }

    /// The value, though it is nobody's turn.
    pub fn peek(&self) -> usize {
        self.value.load(SeqCst)
    }

    #[track_caller]
    pub fn load(&self, order: Ordering) -> usize {
        self.fetch_update(order, order, |_| None).unwrap_or_else(|value| value)
    }

    #[track_caller]
    pub fn store(&self, value: usize, order: Ordering) {
        assert_eq!(order, SeqCst, "what the explorer assumes");
        if let Some((run, me)) = part() {
            run.point(me, Needs::Nothing, false, (Location::caller(), self.variable));
            run.wrote(self.variable, value);
        }
        self.value.store(value, SeqCst);
    }

    #[track_caller]
    pub fn fetch_add(&self, by: usize, order: Ordering) -> usize {
        self.fetch_update(order, order, |value| Some(value.wrapping_add(by))).unwrap_or_else(|value| value)
    }

    #[track_caller]
    pub fn fetch_sub(&self, by: usize, order: Ordering) -> usize {
        self.fetch_add(by.wrapping_neg(), order)
    }

    #[track_caller]
    pub fn fetch_update(
        &self,
        set: Ordering,
        get: Ordering,
        mut change: impl FnMut(usize) -> Option<usize>,
    ) -> Result<usize, usize> {
        assert_eq!((set, get), (SeqCst, SeqCst), "what the explorer assumes");
        let Some((run, me)) = part() else { return self.value.fetch_update(set, get, change) };
        let next = (Location::caller(), self.variable);
        run.point(me, Needs::Nothing, false, next);
        let old = self.value.load(SeqCst);
        run.read(me, next.0, old);
        let new = change(old).ok_or(old)?;
        run.wrote(self.variable, new);
        self.value.store(new, SeqCst);
        Ok(old)
    }
}

pub(super) struct AtomicBool(AtomicUsize);

impl AtomicBool {
    pub fn new(value: bool) -> Self {
        AtomicBool(AtomicUsize::new(value.into()))
    }

    #[track_caller]
    pub fn load(&self, order: Ordering) -> bool {
        self.0.load(order) != 0
    }

    #[track_caller]
    pub fn store(&self, value: bool, order: Ordering) {
        self.0.store(value.into(), order);
    }
}

pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub fn new(value: T) -> Self {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    #[track_caller]
    pub fn get(&self) -> *mut T {
        if let Some((run, me)) = part() {
            run.point(me, Needs::Nothing, true, (Location::caller(), 0));
        }
        self.0.get()
    }
}

pub(super) struct Mutex<T> {
    inner: sync::Mutex<T>,
    lock: usize,
}

pub(super) struct Guard<'a> {
    mutex: &'a Mutex<()>,
    /// Std's, outside of runs.
    inner: Option<MutexGuard<'a, ()>>,
}

impl Mutex<()> {
    pub fn new(value: ()) -> Self {
        let lock = PART.with_borrow(|part| {
            part.as_ref().map_or(0, |(run, _)| {
                let locks = &mut run.state().locks;
                locks.push(None);
                locks.len() - 1
            })
        });
        Mutex { inner: sync::Mutex::new(value), lock }
    }

    #[track_caller]
    pub fn lock(&self) -> LockResult<Guard<'_>> {
        let inner = match part() {
            Some((run, me)) => {
                run.point(me, Needs::Lock(self.lock), false, (Location::caller(), 0));
                None
            }
            None => Some(self.inner.lock().unwrap()),
        };
        Ok(Guard { mutex: self, inner })
    }
}

impl Drop for Guard<'_> {
    // No point of its own: nobody can tell this from doing it with the access before.
    fn drop(&mut self) {
        if let (None, Some((run, _))) = (&self.inner, part()) {
            run.state().locks[self.mutex.lock] = None;
        }
    }
}

pub(super) struct Condvar(sync::Condvar);

impl Condvar {
    pub fn new() -> Self {
        Condvar(sync::Condvar::new())
    }

    #[track_caller]
    pub fn wait<'a>(&self, mut guard: Guard<'a>) -> LockResult<Guard<'a>> {
        match (part(), guard.inner.take()) {
            (Some((run, me)), _) => {
                run.point(me, Needs::Nothing, false, (Location::caller(), 0));
                run.state().locks[guard.mutex.lock] = None;
                run.point(me, Needs::Notice(guard.mutex.lock), false, (Location::caller(), 0));
            }
            (None, inner) => guard.inner = inner.map(|inner| self.0.wait(inner).unwrap()),
        }
        Ok(guard)
    }

    #[track_caller]
    pub fn notify_all(&self) {
        let Some((run, me)) = part() else { return self.0.notify_all() };
        run.point(me, Needs::Nothing, false, (Location::caller(), 0));
        for thread in &mut run.state().threads {
            if let Needs::Notice(lock) = thread.needs {
                thread.needs = Needs::Lock(lock);
            }
        }
    }
}

/// Waits for a variable to change.
pub(super) fn yield_now() {
    let Some((run, me)) = part() else { return std::thread::yield_now() };
    run.state().threads[me].waiting = true;
}

mod tests {
    use super::*;

    #[test]
    fn a_wakeup_that_can_be_lost_is_found() {
        let pair = |locked: bool| {
            explore(None, || {
                let shared = Arc::new((AtomicBool::new(false), Mutex::new(()), Condvar::new()));
                let same = Arc::clone(&shared);
                let wake = move || {
                    shared.0.store(true, SeqCst);
                    let _guard = locked.then(|| shared.1.lock().unwrap());
                    shared.2.notify_all();
                };
                let sleep = move || {
                    let mut guard = same.1.lock().unwrap();
                    while !same.0.load(SeqCst) {
                        guard = same.2.wait(guard).unwrap();
                    }
                };
                vec![Box::new(wake), Box::new(sleep)]
            })
        };
        assert!(pair(true).unwrap() > 2);
        assert!(pair(false).unwrap_err().contains("all threads wait"));
    }

    #[test]
    fn a_cell_that_can_be_used_by_two_is_found() {
        let found = explore(None, || {
            let shared = Arc::new(AtomicBool::new(false));
            let same = Arc::clone(&shared);
            let write = move || {
                shared.store(true, SeqCst);
                UnsafeCell::new(()).get();
            };
            let read = move || {
                if same.load(SeqCst) {
                    UnsafeCell::new(()).get();
                }
            };
            vec![Box::new(write), Box::new(read)]
        });
        assert!(found.unwrap_err().contains("a cell is used"));
    }
}
