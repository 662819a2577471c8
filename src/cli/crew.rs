//! Several transfers at a time; the first failure stops them all.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::failure::Failure;
use crate::signals::Stop;

/// Runs `work(index, check)` for every index below `count`, on at most `threads` threads, in order.
/// `check` fails once a signal arrived or another piece of work failed.
///
/// # Errors
/// The first failure. All work has ended by then.
pub fn in_parallel(
    count: usize,
    threads: usize,
    stop: &Stop,
    work: impl Fn(usize, &(dyn Fn() -> Result<(), Failure> + Sync)) -> Result<(), Failure> + Sync,
) -> Result<(), Failure> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let first: Mutex<Option<Failure>> = Mutex::new(None);
    let check = || match failed.load(Ordering::Relaxed) {
        // Never reported: the failure that set the flag is.
        true => Err(Failure::Other("another transfer failed".to_owned())),
        false => stop.check(),
    };
    let run = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count || failed.load(Ordering::Relaxed) {
                return;
            }
            if let Err(failure) = work(index, &check) {
                let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(failure);
                failed.store(true, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(count) {
            scope.spawn(run);
        }
        run();
    });
    first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_done_once() {
        let done = Mutex::new(Vec::new());
        let work = |index, _: &(dyn Fn() -> Result<(), Failure> + Sync)| {
            done.lock().unwrap().push(index);
            Ok(())
        };
        in_parallel(20, 3, &Stop::default(), work).unwrap();
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn the_first_failure_is_reported_and_stops_the_others() {
        let failure = in_parallel(4, 2, &Stop::default(), |index, check| match index {
            1 => Err(Failure::Usage("the cause".to_owned())),
            _ => loop {
                check()?;
                thread::yield_now();
            },
        });
        assert_eq!(failure.unwrap_err().to_string(), "the cause");
    }
}
