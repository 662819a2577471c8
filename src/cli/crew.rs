//! Several transfers at a time; the first failure stops them all.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use nix::sys::resource::{Resource, getrlimit};

use crate::failure::Failure;
use crate::signals::Stop;

/// Most files that go together, where each of a few threads has a group.
const GROUP_FILES_MAX: usize = 64;

/// The share of the descriptors a process may have that files under way take: a quarter is 4.
const DESCRIPTORS_SHARE: u64 = 4;

/// Most files that go together where each of so many threads has a group: all that are under way have
/// descriptors.
pub fn group_files_max(threads: usize) -> usize {
    // Where the kernel does not say, the other bound stands alone.
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let files = usize::try_from(soft / DESCRIPTORS_SHARE).unwrap_or(usize::MAX);
    (files / threads.max(1)).clamp(1, GROUP_FILES_MAX)
}

/// What is transferred together: neighbours, at most `files_max` and of at most `bytes_max` bytes in all. One
/// without a size, and one that is larger, goes alone.
pub fn groups(
    sizes: impl Iterator<Item = Option<u64>>,
    files_max: usize,
    bytes_max: usize,
) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    // Of the last group; `None` where nothing may join it.
    let mut bytes: Option<u64> = None;
    for (index, size) in sizes.enumerate() {
        let joined = bytes.zip(size).map(|(bytes, size)| bytes.saturating_add(size));
        match (groups.last_mut(), joined) {
            (Some(group), Some(joined))
                if joined <= bytes_max as u64 && group.len() < files_max =>
            {
                group.end = index + 1;
                bytes = Some(joined);
            }
            _ => {
                groups.push(index..index + 1);
                bytes = size;
            }
        }
    }
    groups
}

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
    fn small_neighbours_go_together() {
        let found = |sizes: &[Option<u64>]| groups(sizes.iter().copied(), 4, 10);
        assert_eq!(found(&[]), []);
        let sizes = [Some(4), Some(6), Some(1), None, Some(1), Some(11), Some(0), Some(0)];
        assert_eq!(found(&sizes), [0..2, 2..3, 3..4, 4..5, 5..6, 6..8]);
        assert_eq!(found(&[Some(0); 5]), [0..4, 4..5]);
    }

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
