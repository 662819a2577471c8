//! The only door to threads, locks and channels, so that a model checker can stand in it.
//!
//! Under `--cfg shuttle` it does (`sync/model.rs`): the tests in `store/schedules/` then choose the order of
//! the threads themselves, thousands of them a second, and any that hangs is printed and can be run again.
//! It is shuttle and not loom: loom's `Arc` has no `Weak` and carries no `dyn Upload`, `str` or slice, and
//! its exhaustive search ends for a lock and a flag, not for a store with its threads.

#[cfg(all(test, shuttle))]
pub(crate) mod model;
#[cfg(not(all(test, shuttle)))]
mod native {
    pub(crate) use crossbeam_channel::{Receiver, Sender, bounded};
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64};
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
    pub(crate) use std::thread::{JoinHandle, Thread, ThreadId, current as this_thread, sleep};

    pub(super) use std::thread::{Builder, park_timeout};
}

#[cfg(all(test, shuttle))]
use model as kind;
#[cfg(not(all(test, shuttle)))]
use native as kind;

pub(crate) use kind::{
    AtomicBool, AtomicU64, Condvar, JoinHandle, Mutex, MutexGuard, OnceLock, Receiver, Sender,
    Thread, ThreadId, bounded, sleep, this_thread,
};
pub(crate) use std::sync::atomic::Ordering;
pub(crate) use std::sync::{Arc, PoisonError, Weak};

use std::sync::atomic::AtomicU32;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::error::{Error, Result};
use crate::time::Deadline;

/// Locks, whatever a panicking holder left: every structure behind these locks is valid at each
/// step, since a job's panic is caught before it could unwind through a half-made change.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits on `condvar` until notified or until `deadline`. Returns the guard and whether time is left.
pub(crate) fn wait<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: &Deadline,
) -> (MutexGuard<'a, T>, bool) {
    let remaining = deadline.remaining();
    if remaining.is_zero() {
        return (guard, false);
    }
    let (guard, _) = condvar
        .wait_timeout(guard, remaining.min(LONGEST_WAIT))
        .unwrap_or_else(PoisonError::into_inner);
    (guard, !deadline.expired())
}

/// Waits until the calling thread is unparked or until `deadline`; sometimes not so long.
pub(crate) fn park(deadline: &Deadline) {
    kind::park_timeout(deadline.remaining().min(LONGEST_WAIT));
}

/// The platform's clocks overflow on absurd waits; a waiter wakes at least this often.
const LONGEST_WAIT: std::time::Duration = std::time::Duration::from_secs(3600);

/// Starts a named thread, in which the host program's signal handlers never run.
pub(crate) fn spawn(name: String, f: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    // A thread inherits the mask, so that no signal finds it before its first step.
    let before = if cfg!(any(miri, all(test, shuttle))) {
        None
    } else {
        blocked_in_threads().thread_swap_mask(SigmaskHow::SIG_BLOCK).ok()
    };
    let spawned = kind::Builder::new().name(name).spawn(f);
    if let Some(before) = before {
        // Restores what was just read: the kernel has no reason to refuse it.
        let _ = before.thread_set_mask();
    }
    spawned.map_err(|e| Error::from_io("start I/O thread", e))
}

/// All signals but those that a thread's own instructions raise, and a profiler's. SIGXFSZ is among the
/// blocked: a write beyond the limit of file sizes is then an error and not the end of the process.
fn blocked_in_threads() -> SigSet {
    let mut signals = SigSet::all();
    for own in [
        Signal::SIGBUS,
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGPROF,
        Signal::SIGSEGV,
        Signal::SIGSYS,
        Signal::SIGTRAP,
    ] {
        signals.remove(own);
    }
    signals
}

/// The process. Another one after a fork, in which threads of before do not exist.
pub(crate) fn process_id() -> u32 {
    std::process::id()
}

/// Starts another program. It stands here with what else runs beside a thread: whoever starts one waits for
/// it or ends it.
pub(crate) fn start_program(
    command: &mut std::process::Command,
) -> std::io::Result<std::process::Child> {
    command.spawn()
}

/// A pool of named threads of its own, never the process-wide one.
pub(crate) struct ThreadPool {
    /// `None` only while it is dropped.
    threads: Option<rayon::ThreadPool>,
    owner: Owner,
}

impl ThreadPool {
    pub fn new(name: &'static str, threads: usize) -> Result<ThreadPool> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .spawn_handler(|thread| {
                let started = spawn(format!("{name}-{}", thread.index()), || thread.run());
                started.map(drop).map_err(std::io::Error::other)
            })
            .build()
            .map_err(|e| Error::from_io("start threads", std::io::Error::other(e)))?;
        Ok(ThreadPool { threads: Some(threads), owner: Owner::of_this_process() })
    }

    /// The threads, which are there in the process that started them alone.
    pub fn threads(&self) -> &rayon::ThreadPool {
        self.threads.as_ref().expect("the threads live until drop")
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        if self.owner.is_another_process() {
            // To tell the threads of the end would take locks that one of them may have held.
            std::mem::forget(self.threads.take());
        }
    }
}

/// Which process a thing is used by: the one that claims it first. In the child of a fork the threads of
/// before do not exist, and a lock that one of them held stays held for ever: what is another process's is
/// neither used nor tidied up.
#[derive(Debug, Default)]
pub(crate) struct Owner(AtomicU32);

impl Owner {
    pub fn of_this_process() -> Owner {
        Owner(AtomicU32::new(process_id()))
    }

    /// Makes this process the owner unless there is one.
    pub fn claim(&self) {
        if self.0.load(Ordering::Acquire) == 0 {
            // No process has the number 0.
            let _ = self.0.compare_exchange(0, process_id(), Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// As if the owner had been a parent of this process.
    #[cfg(test)]
    pub fn was_another_process(&self) {
        self.0.store(u32::MAX, Ordering::Release);
    }

    /// Whether the owner is another process than this one.
    pub fn is_another_process(&self) -> bool {
        let owner = self.0.load(Ordering::Acquire);
        owner != 0 && owner != process_id()
    }
}

/// State of the process: the child of a fork begins with its own.
pub(crate) struct OfProcess<T> {
    owner: Owner,
    state: Mutex<Option<T>>,
    /// Of the child of a fork, and of its children.
    next: OnceLock<Box<OfProcess<T>>>,
}

impl<T> OfProcess<T> {
    pub const fn new() -> OfProcess<T> {
        let owner = Owner(AtomicU32::new(0));
        OfProcess { owner, state: Mutex::new(None), next: OnceLock::new() }
    }

    /// The state of this process; `None` at first.
    pub fn lock(&self) -> MutexGuard<'_, Option<T>> {
        let mut own = self;
        loop {
            own.owner.claim();
            if !own.owner.is_another_process() {
                return lock(&own.state);
            }
            own = own.next.get_or_init(|| Box::new(OfProcess::new()));
        }
    }
}

/// Processors that this process may run on.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Random bits, for pauses that must not coincide. Each from keys of its own, which std seeds from the
/// system; not for secrets.
pub(crate) fn random_u32() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() as u32
}

/// The calling thread.
pub(crate) fn thread_id() -> ThreadId {
    this_thread().id()
}
