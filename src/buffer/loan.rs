//! The loan of a caller's memory to the I/O threads, for `write_borrowed` and `read_into`.
//!
//! An I/O thread sees lent memory only inside [`Loan::with`] or [`LoanMut::with`]. [`lend`] and
//! [`lend_mut`] return, or unwind, only after the loan is revoked and no thread is inside: a job still
//! queued then finds the loan revoked and never looks. This is the only unsafe code of the crate; the
//! argument is the one of `std::thread::scope`: the guard lives in the lending function's own frame,
//! so that no caller can forget it.

use std::marker::PhantomData;
use std::time::Duration;

use crate::sync::{Arc, Condvar, Mutex, lock, wait};
use crate::time::Deadline;

/// How often a lender that waits for a running system call says so in the log.
const STALL_REPORT_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Terms {
    state: Mutex<TermsState>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct TermsState {
    revoked: bool,
    /// Threads inside `with`.
    inside: usize,
}

impl Terms {
    fn enter(&self) -> Option<Inside<'_>> {
        let mut state = lock(&self.state);
        if state.revoked {
            return None;
        }
        state.inside += 1;
        Some(Inside(self))
    }
}

/// A thread inside a loan; leaves when dropped, by return or by unwinding.
struct Inside<'a>(&'a Terms);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).inside -= 1;
        self.0.left.notify_all();
    }
}

/// Revokes the loan when dropped and waits until every thread has left, however long that takes.
struct Revoke<'a>(&'a Terms);

impl Drop for Revoke<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.revoked = true;
        let mut report = Deadline::after(STALL_REPORT_INTERVAL);
        while state.inside > 0 {
            let (guard, time_left) = wait(&self.0.left, state, &report);
            state = guard;
            if !time_left && state.inside > 0 {
                log::warn!("waiting for {} I/O calls on borrowed memory to end", state.inside);
                report = Deadline::after(STALL_REPORT_INTERVAL);
            }
        }
    }
}

/// Lends `memory` for reading while `f` runs.
pub(crate) fn lend<R>(memory: &[u8], f: impl FnOnce(&Lender<'_>) -> R) -> R {
    let terms = Arc::new(Terms::default());
    let _revoke = Revoke(&terms);
    f(&Lender { memory, terms: &terms })
}

/// Lends many memories, each for reading, while `f` runs.
pub(crate) fn lend_many<R>(memories: &[&[u8]], f: impl FnOnce(Vec<Loan>) -> R) -> R {
    let terms = Arc::new(Terms::default());
    let _revoke = Revoke(&terms);
    let loan = |memory: &&[u8]| Lender { memory, terms: &terms }.loan(0, memory.len());
    f(memories.iter().map(loan).collect())
}

/// Hands out loans of its memory.
pub(crate) struct Lender<'a> {
    memory: &'a [u8],
    terms: &'a Arc<Terms>,
}

impl Lender<'_> {
    /// A loan of `memory[from..to]`.
    ///
    /// # Panics
    /// If the range does not lie within the memory.
    pub fn loan(&self, from: usize, to: usize) -> Loan {
        let slice = &self.memory[from..to];
        Loan { start: slice.as_ptr(), bytes: slice.len(), terms: Arc::clone(self.terms) }
    }
}

/// Memory lent for reading.
#[derive(Debug)]
pub(crate) struct Loan {
    start: *const u8,
    bytes: usize,
    terms: Arc<Terms>,
}

// SAFETY: the pointer is followed only in `with`, whose argument holds on any thread: the terms keep
// the memory alive and unchanged while a thread is inside.
unsafe impl Send for Loan {}

impl Loan {
    /// Runs `f` on the memory, unless the loan is revoked.
    pub fn with<R>(&self, f: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let _inside = self.terms.enter()?;
        // SAFETY: `start` and `bytes` are of a slice that `lend` borrows until `Revoke` has seen every
        // thread leave; `_inside` is dropped after `f`, so the slice is alive and shared all along.
        let memory = unsafe { std::slice::from_raw_parts(self.start, self.bytes) };
        Some(f(memory))
    }
}

/// Lends `memory` for writing while `f` runs.
pub(crate) fn lend_mut<R>(memory: &mut [u8], f: impl FnOnce(&mut LenderMut<'_>) -> R) -> R {
    let terms = Arc::new(Terms::default());
    let _revoke = Revoke(&terms);
    let start = memory.as_mut_ptr();
    f(&mut LenderMut { start, bytes: memory.len(), terms: &terms, memory: PhantomData })
}

/// Hands out loans of its memory, each byte once, front to back.
pub(crate) struct LenderMut<'a> {
    start: *mut u8,
    bytes: usize,
    terms: &'a Arc<Terms>,
    memory: PhantomData<&'a mut [u8]>,
}

impl LenderMut<'_> {
    /// A loan of the next `bytes` bytes. No other loan overlaps it.
    ///
    /// # Panics
    /// If fewer are left.
    pub fn loan_next(&mut self, bytes: usize) -> LoanMut {
        assert!(bytes <= self.bytes, "lent more than there is");
        let loan = LoanMut { start: self.start, bytes, terms: Arc::clone(self.terms) };
        // SAFETY: `bytes` is at most what is left, so the result is within the slice or one past its end.
        self.start = unsafe { self.start.add(bytes) };
        self.bytes -= bytes;
        loan
    }
}

/// Memory lent for writing, to one holder.
#[derive(Debug)]
pub(crate) struct LoanMut {
    start: *mut u8,
    bytes: usize,
    terms: Arc<Terms>,
}

// SAFETY: as for `Loan`; and no other `LoanMut` covers these bytes.
unsafe impl Send for LoanMut {}

impl LoanMut {
    /// Runs `f` on the memory, unless the loan is revoked.
    pub fn with<R>(&mut self, f: impl FnOnce(&mut [u8]) -> R) -> Option<R> {
        let _inside = self.terms.enter()?;
        // SAFETY: `lend_mut` holds the only reference to the memory and does not use it until `Revoke`
        // has seen every thread leave; `loan_next` hands each byte to one `LoanMut`, and `&mut self`
        // admits one `with` at a time, so this is the only reference to these bytes while `f` runs.
        let memory = unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) };
        Some(f(memory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn threads_read_and_write_lent_memory() {
        let source = vec![3u8; 4096];
        let mut target = vec![0u8; 4096];
        lend(&source, |lender| {
            lend_mut(&mut target, |target| {
                std::thread::scope(|scope| {
                    for at in (0..4096).step_by(1024) {
                        let from = lender.loan(at, at + 1024);
                        let mut to = target.loan_next(1024);
                        scope.spawn(move || {
                            from.with(|from| to.with(|to| to.copy_from_slice(from)).unwrap())
                                .unwrap();
                        });
                    }
                });
            });
        });
        assert_eq!(source, target);
    }

    #[test]
    fn a_revoked_loan_is_not_looked_at() {
        let mut memory = vec![1u8; 16];
        let mut kept = lend_mut(&mut memory, |lender| lender.loan_next(16));
        memory.fill(2);
        assert!(kept.with(|memory| memory.fill(9)).is_none());
        let kept = lend(&memory, |lender| lender.loan(0, 16));
        assert!(kept.with(|_| ()).is_none());
        assert_eq!(memory, [2; 16]);
    }

    /// The return waits for the thread inside: when it comes, the memory is the caller's again. Under
    /// Miri a thread that still wrote would be a data race with the `fill` below.
    #[test]
    fn lending_waits_for_threads_inside_on_return_and_on_unwind() {
        for unwind in [false, true] {
            let mut memory = vec![0u8; 64];
            let (entered, entry) = std::sync::mpsc::channel();
            let (go, wait_go) = std::sync::mpsc::channel::<()>();
            std::thread::scope(|scope| {
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    lend_mut(&mut memory, |lender| {
                        let mut loan = lender.loan_next(64);
                        scope.spawn(move || {
                            loan.with(|memory| {
                                entered.send(()).unwrap();
                                wait_go.recv().unwrap();
                                memory.fill(7);
                            })
                            .unwrap();
                        });
                        entry.recv().unwrap();
                        // Let the lender go while the thread is inside: it must wait for the fill.
                        go.send(()).unwrap();
                        assert!(!unwind, "unwinding on purpose");
                    })
                }));
                assert_eq!(outcome.is_err(), unwind);
                assert_eq!(memory, [7; 64]);
                memory.fill(8);
            });
        }
    }
}
