//! Ctrl-C and SIGTERM: the command stops at its next part and removes what it has not finished.
//!
//! The signals are blocked in every thread and taken by one that waits for them. It sets a flag which
//! the command polls once per part. Where nothing needs to be cleaned up the process ends at once;
//! else it ends when the command has unwound, at a second signal, or after [`GRACE`].

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use crate::failure::{Failure, status_of};
use crate::output::note;

/// How long a command may take to stop: a part on a slow medium, or a sync in progress.
const GRACE: Duration = Duration::from_secs(30);

/// Whether a signal arrived, and whether anything unfinished is lying about.
#[derive(Debug, Default)]
pub struct Stop {
    /// Number of the first signal, 0 before.
    signal: AtomicI32,
    /// Guards of [`Stop::protect`] alive.
    unfinished: AtomicUsize,
    /// What to say where there is no time to clean up.
    remains: Mutex<Option<String>>,
}

/// While it lives, a signal lets the command clean up.
pub struct Unfinished<'a>(&'a Stop);

impl Stop {
    /// Blocks the signals and starts the thread that takes them. Must run before any other thread starts,
    /// because threads inherit what is blocked.
    pub fn install() -> Result<Arc<Stop>, Failure> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        if !hangup_is_ignored() {
            signals.add(Signal::SIGHUP);
        }
        let failed = |why: &dyn std::fmt::Display| Failure::Other(format!("watch signals: {why}"));
        signals.thread_block().map_err(|e| failed(&e))?;
        let stop = Arc::new(Stop::default());
        let watched = Arc::clone(&stop);
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || watched.watch(signals))
            .map_err(|e| failed(&e))?;
        Ok(stop)
    }

    /// Fails once a signal arrived. To be asked before every part.
    pub fn check(&self) -> Result<(), Failure> {
        match self.signal() {
            Some(signal) => Err(Failure::Stopped(signal)),
            None => Ok(()),
        }
    }

    /// The first signal that arrived.
    pub fn signal(&self) -> Option<Signal> {
        Signal::try_from(self.signal.load(Ordering::SeqCst)).ok()
    }

    /// Announces that something unfinished is about to be made. Fails once a signal arrived.
    ///
    /// The count goes up before the flag is read, and the watcher sets the flag before it reads the
    /// count: at least one of the two sees the other.
    pub fn protect(&self) -> Result<Unfinished<'_>, Failure> {
        self.unfinished.fetch_add(1, Ordering::SeqCst);
        let guard = Unfinished(self);
        self.check()?;
        Ok(guard)
    }

    /// Says what will lie about if the command is busy for longer than it has to clean up.
    pub fn tell_remains(&self, what: Option<String>) {
        *self.remains.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    fn watch(self: Arc<Stop>, signals: SigSet) {
        let Ok(first) = signals.wait() else { return };
        self.signal.store(first as i32, Ordering::SeqCst);
        if self.unfinished.load(Ordering::SeqCst) > 0 {
            let stop = Arc::clone(&self);
            let _ = thread::Builder::new().name("grace".to_owned()).spawn(move || {
                thread::sleep(GRACE);
                let remains = stop.remains.lock().unwrap_or_else(PoisonError::into_inner);
                let remains = remains
                    .as_deref()
                    .unwrap_or("a temporary file may remain, `syncline gc` finds it");
                note(&format!("{first}: still busy after {} s; {remains}", GRACE.as_secs()));
                std::process::exit(status_of(first).into());
            });
            let _ = signals.wait();
        }
        std::process::exit(status_of(first).into());
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.unfinished.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether the caller asked us to outlive its terminal, as `nohup` does. A blocked signal would
/// otherwise be taken although it is ignored. (SIGINT is honoured even where it is ignored: a shell
/// ignores it for every command that ends in `&`, and an explicit `kill -INT` means it.)
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (Signal::SIGHUP as u32 - 1)) != 0
}
