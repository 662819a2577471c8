//! Batches and their tickets: completion, the latch of the first error, patience.

use shuttle::thread::spawn;

use super::{TIMEOUT, explore, join, never, time_runs_out};
use crate::engine::{Batch, Pending};
use crate::error::Error;
use crate::sync::{Arc, model};
use crate::time::{Deadline, now};

fn failure(text: &str) -> Error {
    Error::invalid("test", text)
}

#[test]
fn every_ticket_completes_once_and_wakes_all_who_wait() {
    explore(|| {
        let (batch, began) = (Batch::<u8>::new(1), now());
        let [done, failed, dropped] = [(); 3].map(|()| Pending::new(&batch));
        let (one, other) = (Arc::clone(&batch), Arc::clone(&batch));
        join([
            spawn(move || done.complete(Ok(7))),
            spawn(move || failed.complete(Err(failure("first")))),
            spawn(move || drop(dropped)),
            spawn(move || assert!(one.wait_idle_until(&never()))),
            spawn(move || assert!(other.wait_idle(never(), || began).is_ok())),
        ]);
        assert!(batch.is_idle());
        assert_eq!(batch.take_outcomes(), [7]);
        assert!(batch.check().unwrap_err().to_string().contains("first"));
    });
}

#[test]
fn the_first_error_latches() {
    explore(|| {
        let batch = Batch::<()>::new(2);
        let mut threads = Vec::new();
        for text in ["one", "other"] {
            let (pending, batch) = (Pending::new(&batch), Arc::clone(&batch));
            threads.push(spawn(move || {
                pending.complete(Err(failure(text)));
                Some(batch.check().unwrap_err().to_string())
            }));
        }
        let reader = Arc::clone(&batch);
        threads.push(spawn(move || reader.check().err().map(|error| error.to_string())));
        let told: Vec<String> = join(threads).into_iter().flatten().collect();
        let latched = batch.fail(failure("late")).to_string();
        assert!(told.iter().all(|text| *text == latched), "{told:?}, then {latched}");
    });
}

/// A deadline passes for one who waits too long, and what was waited for is done all the same.
#[test]
fn a_wait_ends_with_the_job_or_the_deadline() {
    explore(|| {
        let (batch, began) = (Batch::<u8>::new(1), now());
        let pending = Pending::new(&batch);
        let mut threads = vec![time_runs_out(), spawn(move || pending.complete(Ok(1)))];
        for patient in [false, true] {
            let batch = Arc::clone(&batch);
            let deadline = Deadline::after(TIMEOUT);
            threads.push(spawn(move || {
                let in_time = if patient {
                    batch.wait_idle(deadline, || began).is_ok()
                } else {
                    batch.wait_idle_until(&deadline)
                };
                assert!(in_time || deadline.expired());
            }));
        }
        join(threads);
        assert!(batch.wait_idle_until(&never()));
        assert_eq!(batch.take_outcomes(), [1]);
    });
}

/// Beyond the timeout in all, but never for as long without a word.
#[test]
fn progress_renews_the_deadline() {
    explore(|| {
        let (batch, began) = (Batch::<u8>::new(1), now());
        let pending = Pending::new(&batch);
        let waiting = Arc::clone(&batch);
        let waiter = spawn(move || waiting.wait_idle(Deadline::after(TIMEOUT), || began).is_ok());
        let job = spawn(move || {
            for _ in 0..3 {
                pending.progress();
                model::pass(TIMEOUT * 6 / 10);
            }
            pending.complete(Ok(1));
            true
        });
        assert_eq!(join([waiter, job]), [true, true]);
    });
}
