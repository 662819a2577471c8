//! The only door to threads, locks and channels, so that a model checker can stand in it.

pub(crate) use crossbeam_channel::{Receiver, Sender, bounded};
pub(crate) use rayon::ThreadPool;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
pub(crate) use std::thread::{JoinHandle, ThreadId};

use std::thread::Builder;

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

/// The platform's clocks overflow on absurd waits; a waiter wakes at least this often.
const LONGEST_WAIT: std::time::Duration = std::time::Duration::from_secs(3600);

/// Starts a named thread, in which the host program's signal handlers never run.
pub(crate) fn spawn(name: String, f: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    // A thread inherits the mask, so that no signal finds it before its first step.
    let before = if cfg!(miri) {
        None
    } else {
        blocked_in_threads().thread_swap_mask(SigmaskHow::SIG_BLOCK).ok()
    };
    let spawned = Builder::new().name(name).spawn(f);
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
pub(crate) fn thread_pool(name: &'static str, threads: usize) -> Result<ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .spawn_handler(|thread| {
            let started = spawn(format!("{name}-{}", thread.index()), || thread.run());
            started.map(drop).map_err(std::io::Error::other)
        })
        .build()
        .map_err(|e| Error::from_io("start threads", std::io::Error::other(e)))
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

/// Blocks the calling thread.
pub(crate) fn sleep(duration: std::time::Duration) {
    std::thread::sleep(duration);
}

/// The calling thread.
pub(crate) fn thread_id() -> ThreadId {
    std::thread::current().id()
}
