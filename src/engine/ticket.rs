//! How callers wait for jobs: a batch counts what is outstanding, keeps the outcomes, and latches the
//! first error. Every job carries a [`Pending`], which completes the count whatever happens to the job.

use std::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, AtomicBool, Condvar, Mutex, Ordering, lock, wait};
use crate::time::{Deadline, now};

/// The jobs of one writer, one read or one call.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    /// Set with the first error or by `withdraw`: jobs still queued are skipped. Outside the lock,
    /// since each write call asks it.
    dead: AtomicBool,
}

#[derive(Debug)]
struct State<T> {
    outstanding: usize,
    /// Those of them that a thread has begun.
    begun: usize,
    /// When a job last began, completed, or got on.
    progress: Instant,
    outcomes: Vec<T>,
    first_error: Option<Error>,
}

impl<T> Batch<T> {
    /// Expecting about `outcomes` outcomes: room for them is set aside.
    pub fn new(outcomes: usize) -> Arc<Batch<T>> {
        Arc::new(Batch {
            state: Mutex::new(State {
                outstanding: 0,
                begun: 0,
                progress: now(),
                outcomes: Vec::with_capacity(outcomes),
                first_error: None,
            }),
            changed: Condvar::new(),
            dead: AtomicBool::new(false),
        })
    }

    /// The first error, if any.
    pub fn check(&self) -> Result<()> {
        if !self.is_dead() {
            return Ok(());
        }
        match &lock(&self.state).first_error {
            Some(error) => Err(error.clone()),
            None => Err(Error::new(ErrorKind::Cancelled, "write", "the operation was cancelled")),
        }
    }

    /// Whether jobs of this batch are to be skipped.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Latches `error` unless there is one already; returns the one that is latched.
    pub fn fail(&self, error: Error) -> Error {
        let mut state = lock(&self.state);
        let first = state.first_error.get_or_insert(error).clone();
        self.dead.store(true, Ordering::Release);
        first
    }

    /// Lets jobs still queued be skipped.
    pub fn withdraw(&self) {
        self.dead.store(true, Ordering::Release);
    }

    /// Whether nothing is outstanding.
    pub fn is_idle(&self) -> bool {
        lock(&self.state).outstanding == 0
    }

    /// Waits until nothing is outstanding. `false` at the deadline.
    pub fn wait_idle_until(&self, deadline: &Deadline) -> bool {
        let mut state = lock(&self.state);
        while state.outstanding > 0 {
            let (guard, time_left) = wait(&self.changed, state, deadline);
            state = guard;
            if !time_left && state.outstanding > 0 {
                return false;
            }
        }
        true
    }

    /// Waits until nothing is outstanding, as long as jobs begin, get on and complete: each time renews the
    /// deadline. While none has begun, so does `line_moved`, the time when those ahead in the queue last did.
    /// `Err` is the deadline that passed.
    ///
    /// Nobody is woken by a completion that is not the last; what it renews is seen when the time is up.
    pub fn wait_idle(
        &self,
        mut deadline: Deadline,
        line_moved: impl Fn() -> Instant,
    ) -> Result<(), Deadline> {
        let mut state = lock(&self.state);
        while state.outstanding > 0 {
            let (guard, time_left) = wait(&self.changed, state, &deadline);
            state = guard;
            if !time_left && state.outstanding > 0 {
                let progress = match state.begun {
                    0 => state.progress.max(line_moved()),
                    _ => state.progress,
                };
                let renewed = deadline.restarted(progress);
                if renewed.expired() {
                    return Err(deadline);
                }
                deadline = renewed;
            }
        }
        Ok(())
    }

    /// Renews the patience of those in [`wait_idle`](Batch::wait_idle): a job is not done, but gets on.
    pub fn progress(&self) {
        lock(&self.state).progress = now();
    }

    /// The outcomes so far, leaving none.
    pub fn take_outcomes(&self) -> Vec<T> {
        std::mem::take(&mut lock(&self.state).outcomes)
    }

    /// The outcome of a batch of one.
    pub fn take_single(&self) -> Result<T> {
        self.check()?;
        let none = || Error::new(ErrorKind::Cancelled, "call", "the job was dropped");
        lock(&self.state).outcomes.pop().ok_or_else(none)
    }
}

/// One outstanding job of a batch. Dropping it without an outcome counts the job as skipped.
#[derive(Debug)]
pub(crate) struct Pending<T> {
    batch: Arc<Batch<T>>,
    begun: bool,
}

impl<T> Pending<T> {
    pub fn new(batch: &Arc<Batch<T>>) -> Pending<T> {
        lock(&batch.state).outstanding += 1;
        Pending { batch: Arc::clone(batch), begun: false }
    }

    /// Whether the job is to be skipped.
    pub fn is_dead(&self) -> bool {
        self.batch.is_dead()
    }

    /// A thread is at the job from now on.
    pub fn begin(&mut self) {
        let mut state = lock(&self.batch.state);
        state.begun += usize::from(!std::mem::replace(&mut self.begun, true));
        state.progress = now();
    }

    /// Renews the patience of those who wait: the job is not done, but gets on.
    pub fn progress(&self) {
        self.batch.progress();
    }

    /// Completes the job.
    pub fn complete(self, outcome: Result<T>) {
        match outcome {
            Ok(outcome) => lock(&self.batch.state).outcomes.push(outcome),
            Err(error) => drop(self.batch.fail(error)),
        }
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.batch.state);
        state.outstanding -= 1;
        state.begun -= usize::from(self.begun);
        state.progress = now();
        let idle = state.outstanding == 0;
        drop(state);
        if idle {
            self.batch.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::AtomicU64;
    use std::time::Duration;

    #[test]
    fn the_first_error_stays() {
        let batch = Batch::<()>::new(2);
        let (a, b) = (Pending::new(&batch), Pending::new(&batch));
        b.complete(Err(Error::invalid("write", "first")));
        a.complete(Err(Error::invalid("write", "second")));
        assert!(batch.check().unwrap_err().to_string().contains("first"));
        assert!(batch.wait_idle_until(&Deadline::after(Duration::ZERO)));
    }

    #[test]
    fn a_dropped_job_counts_as_skipped() {
        let batch = Batch::<u8>::new(1);
        let pending = Pending::new(&batch);
        assert!(!batch.wait_idle_until(&Deadline::after(Duration::ZERO)));
        drop(pending);
        assert!(batch.wait_idle_until(&Deadline::after(Duration::ZERO)));
        assert!(batch.take_single().is_err());
    }

    #[test]
    fn progress_renews_the_deadline() {
        let timeout = Duration::from_millis(200);
        let batch = Batch::<u8>::new(2);
        let pending = [Pending::new(&batch), Pending::new(&batch)];
        let started = Instant::now();
        let waited = std::thread::scope(|scope| {
            scope.spawn(|| {
                // Beyond one timeout in all, but never without a word for as long.
                while started.elapsed() < timeout * 3 {
                    std::thread::sleep(timeout / 20);
                    batch.progress();
                }
                pending.into_iter().for_each(|p| p.complete(Ok(1)));
            });
            batch.wait_idle(Deadline::after(timeout), || started)
        });
        assert!(waited.is_ok());
        assert_eq!(batch.take_outcomes(), [1, 1]);
    }

    #[test]
    fn without_progress_a_wait_ends() {
        let timeout = Duration::from_millis(50);
        let batch = Batch::<u8>::new(2);
        let pending = [Pending::new(&batch), Pending::new(&batch)];
        batch.progress();
        let started = Instant::now();
        assert!(batch.wait_idle(Deadline::after(timeout), || started).is_err());
        assert!(started.elapsed() >= timeout);
        drop(pending);
        assert!(batch.wait_idle(Deadline::after(timeout), || started).is_ok());
    }

    #[test]
    fn what_is_queued_waits_as_long_as_the_line_moves() {
        let timeout = Duration::from_millis(50);
        let batch = Batch::<u8>::new(1);
        let mut pending = Pending::new(&batch);
        let moves = AtomicU64::new(0);
        let moving = || {
            // Some moves, and then none.
            match moves.fetch_add(1, Ordering::AcqRel) {
                0..4 => Instant::now(),
                _ => Instant::now().checked_sub(timeout * 2).unwrap(),
            }
        };
        let started = Instant::now();
        assert!(batch.wait_idle(Deadline::after(timeout), moving).is_err());
        assert!(started.elapsed() >= timeout * 5);
        pending.begin();
        assert!(batch.wait_idle(Deadline::after(timeout), Instant::now).is_err());
        drop(pending);
        assert!(batch.wait_idle(Deadline::after(timeout), Instant::now).is_ok());
    }
}
