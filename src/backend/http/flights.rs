//! Which requests of an upload are under way.

use crate::error::{Error, ErrorKind, Result};
use crate::sync::{AtomicBool, Condvar, Mutex, Ordering, lock, wait};
use crate::time::Deadline;

/// Counts an upload's requests, and lets none begin once it has ended.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    ended: AtomicBool,
    count: Mutex<usize>,
    settled: Condvar,
}

/// A request under way, until dropped.
#[derive(Debug)]
pub(crate) struct Flight<'a>(&'a Flights);

impl Flights {
    /// Counts one more.
    ///
    /// # Errors
    /// `Cancelled` once the upload has ended.
    pub fn begin(&self) -> Result<Flight<'_>> {
        let mut count = lock(&self.count);
        if self.ended.load(Ordering::Acquire) {
            return Err(ended());
        }
        *count += 1;
        Ok(Flight(self))
    }

    /// Set once the upload has ended: no further attempt begins.
    pub fn ended(&self) -> &AtomicBool {
        &self.ended
    }

    /// Ends the upload and waits for what is under way, as long as the deadline allows.
    pub fn end(&self, deadline: &Deadline) {
        let mut count = lock(&self.count);
        self.ended.store(true, Ordering::Release);
        while *count > 0 {
            let (guard, time_left) = wait(&self.settled, count, deadline);
            count = guard;
            if !time_left {
                break;
            }
        }
    }

    /// Whether the upload has ended, and nothing is under way any more.
    pub fn are_over(&self) -> bool {
        let count = lock(&self.count);
        *count == 0 && self.ended.load(Ordering::Acquire)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        *lock(&self.0.count) -= 1;
        self.0.settled.notify_all();
    }
}

/// The error of a request that comes too late.
pub(crate) fn ended() -> Error {
    Error::new(ErrorKind::Cancelled, "write part", "the upload has ended")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_end_waits_for_what_is_under_way_and_lets_nothing_begin() {
        let flights = Flights::default();
        let flight = flights.begin().unwrap();
        flights.end(&Deadline::after(Duration::ZERO));
        assert!(!flights.are_over(), "one is under way");
        assert_eq!(flights.begin().unwrap_err().kind(), ErrorKind::Cancelled);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| flights.end(&Deadline::after(Duration::from_secs(60))));
            drop(flight);
            waiting.join().unwrap();
        });
        assert!(flights.are_over());
    }
}
