//! The pool of part buffers, and memory on loan.

use std::panic::{AssertUnwindSafe, catch_unwind};

use shuttle::thread::{spawn, yield_now};

use super::{TIMEOUT, explore, join, never, while_time_runs};
use crate::buffer::{Pool, PoolBuffer, lend, lend_mut};
use crate::error::ErrorKind;
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::time::Deadline;

const BYTES: usize = 4096;
const BUFFERS: u64 = 2;

/// Counts buffers in use by another way than the pool's.
#[derive(Default)]
struct InUse(AtomicU64);

impl InUse {
    fn hold(&self, buffers: Vec<PoolBuffer>) {
        let count = buffers.len() as u64;
        let before = self.0.fetch_add(count, Ordering::SeqCst);
        assert!(before + count <= BUFFERS, "{} buffers are in use", before + count);
        self.0.fetch_sub(count, Ordering::SeqCst);
        drop(buffers);
    }
}

type Take = fn(&Arc<Pool>) -> Vec<PoolBuffer>;

#[test]
fn whoever_waits_for_buffers_gets_them() {
    explore(|| {
        let (pool, in_use) = (Pool::new(BYTES, BUFFERS as usize), Arc::new(InUse::default()));
        let takers: [Take; 4] = [
            |pool| vec![pool.take_in_turn(&never()).unwrap()],
            |pool| vec![pool.take_in_turn(&never()).unwrap()],
            |pool| pool.take_many(BUFFERS as usize, &never()).unwrap(),
            |pool| vec![pool.take(&never()).unwrap()],
        ];
        let threads = takers.map(|take| {
            let (pool, in_use) = (Arc::clone(&pool), Arc::clone(&in_use));
            spawn(move || (0..2).for_each(|_| in_use.hold(take(&pool))))
        });
        join(threads);
        assert_eq!(pool.taken(), 0);
    });
}

/// Who gives up, also at the head of the line, keeps nothing from those behind.
#[test]
fn a_waiter_that_gives_up_wakes_the_next() {
    explore(|| {
        let pool = Pool::new(BYTES, 1);
        let held = pool.take(&never()).unwrap();
        let mut threads = Vec::new();
        let deadline = Deadline::after(TIMEOUT);
        for count in [1, 2] {
            let pool = Arc::clone(&pool);
            threads.push(spawn(move || {
                let taken = pool.take_many(count, &deadline);
                assert!(count == 1 || taken.is_err(), "there are not so many");
                assert!(taken.is_ok() || taken.is_err_and(|e| e.kind() == ErrorKind::TimedOut));
            }));
        }
        let patient = Arc::clone(&pool);
        threads.push(spawn(move || drop(patient.take_in_turn(&never()).unwrap())));
        // Again and again: each buffer that somebody gets renews the patience of those behind.
        threads.push(spawn(move || drop(held)));
        while_time_runs(TIMEOUT * 2, || join(threads));
        assert_eq!(pool.taken(), 0);
        drop(pool.take_in_turn(&Deadline::after(TIMEOUT)).unwrap());
    });
}

const FRESH: u8 = 1;
const HALF_DONE: u8 = 2;
const DONE: u8 = 3;
/// What the owner fills the memory with once it is the owner's again.
const RETURNED: u8 = 9;

/// Whether the lending function returns or unwinds.
fn lent_memory(unwinds: bool) {
    let mut memory = vec![FRESH; 8];
    let mut threads = Vec::new();
    let lending = catch_unwind(AssertUnwindSafe(|| {
        lend_mut(&mut memory, |lender| {
            for _ in 0..2 {
                let mut loan = lender.loan_next(4);
                threads.push(spawn(move || {
                    let fill = |memory: &mut [u8]| {
                        assert_eq!(memory, [FRESH; 4]);
                        memory.fill(HALF_DONE);
                        yield_now();
                        assert_eq!(memory, [HALF_DONE; 4]);
                        memory.fill(DONE);
                    };
                    loan.with(fill).is_some()
                }));
            }
            assert!(!unwinds, "on purpose");
        });
    }));
    assert_eq!(lending.is_err(), unwinds);
    let at_return = memory.clone();
    memory.fill(RETURNED);
    for (half, done) in at_return.chunks(4).zip(join(threads)) {
        assert_eq!(half, if done { [DONE; 4] } else { [FRESH; 4] });
    }
    assert_eq!(memory, [RETURNED; 8]);
}

#[test]
fn lent_memory_is_left_alone_after_its_return() {
    explore(|| lent_memory(false));
}

#[test]
fn lent_memory_is_left_alone_after_unwinding() {
    explore(|| lent_memory(true));
}

#[test]
fn memory_lent_to_read_is_not_read_after_its_return() {
    explore(|| {
        let mut memory = vec![FRESH; 4];
        let mut threads = Vec::new();
        lend(&memory, |lender| {
            for _ in 0..3 {
                let loan = lender.loan(0, 4);
                threads.push(spawn(move || {
                    loan.with(|memory| {
                        assert_eq!(memory, [FRESH; 4]);
                        yield_now();
                        assert_eq!(memory, [FRESH; 4]);
                    });
                }));
            }
        });
        memory.fill(RETURNED);
        join(threads);
    });
}
