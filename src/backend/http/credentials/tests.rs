//! Who fetches, who waits, and what happens when the fetch fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::sync_channel;
use std::thread;

use super::*;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// A clock that stands until it is moved.
#[derive(Clone)]
struct Hands(Arc<Mutex<(SystemTime, Instant)>>);

impl Hands {
    fn new() -> Hands {
        Hands(Arc::new(Mutex::new((SystemTime::now(), Instant::now()))))
    }

    fn advance(&self, by: Duration) {
        let mut now = lock(&self.0);
        *now = (now.0 + by, now.1 + by);
    }

    fn in_future(&self, by: Duration) -> Option<SystemTime> {
        Some(lock(&self.0).0 + by)
    }

    fn cache(&self) -> Refreshing<u64> {
        let hands = self.clone();
        Refreshing::with_clock(Box::new(move || *lock(&hands.0)))
    }
}

fn generous() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

fn failure() -> Error {
    Error::new(ErrorKind::Unavailable, "get credentials", "made to fail")
}

const HOUR: Duration = Duration::from_secs(3600);

/// What the cache says when a fetch would bring `next`.
fn get(cache: &Refreshing<u64>, next: u64, expires: Option<SystemTime>) -> u64 {
    *cache.get(&generous(), |_| Ok((next, expires))).unwrap()
}

#[test]
fn a_value_without_end_is_fetched_once() {
    let hands = Hands::new();
    let cache = hands.cache();
    assert_eq!(get(&cache, 1, None), 1);
    hands.advance(HOUR * 100_000);
    assert_eq!(get(&cache, 2, None), 1);
}

#[test]
fn a_value_is_refreshed_shortly_before_its_end() {
    for life in [HOUR * 12, HOUR, Duration::from_secs(60), Duration::from_secs(2)] {
        let margin = MARGIN_MAX.min(life / 4);
        let hands = Hands::new();
        let cache = hands.cache();
        let ends = hands.in_future(life);
        assert_eq!(get(&cache, 1, ends), 1);
        hands.advance(life - margin - Duration::from_millis(1));
        assert_eq!(get(&cache, 2, ends), 1, "{life:?}");
        hands.advance(Duration::from_millis(2));
        assert_eq!(get(&cache, 3, None), 3, "{life:?}");
    }
}

#[test]
fn a_failed_refresh_leaves_the_old_value_until_its_end_and_is_not_repeated_at_once() {
    let hands = Hands::new();
    let cache = hands.cache();
    assert_eq!(get(&cache, 1, hands.in_future(HOUR)), 1);
    hands.advance(HOUR - MARGIN_MAX);
    let tries = AtomicU64::new(0);
    let fail = |_: &Deadline| {
        tries.fetch_add(1, Ordering::Relaxed);
        Err(failure())
    };
    for _ in 0..16 {
        assert_eq!(*cache.get(&generous(), fail).unwrap(), 1);
    }
    assert_eq!(tries.load(Ordering::Relaxed), 1);
    hands.advance(PAUSE_WITH_VALUE);
    assert_eq!(*cache.get(&generous(), fail).unwrap(), 1);
    assert_eq!(tries.load(Ordering::Relaxed), 2);
    hands.advance(MARGIN_MAX);
    assert_eq!(cache.get(&generous(), fail).unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn a_failure_is_remembered_briefly() {
    let hands = Hands::new();
    let cache = hands.cache();
    assert!(cache.get(&generous(), |_| Err(failure())).is_err());
    let error = cache.get(&generous(), |_| Ok((1, None))).unwrap_err();
    assert!(error.to_string().contains("made to fail"), "{error}");
    hands.advance(PAUSE_WITHOUT_VALUE);
    assert_eq!(get(&cache, 2, None), 2);
}

#[test]
fn a_value_expired_on_arrival_is_used_for_a_while() {
    let hands = Hands::new();
    let cache = hands.cache();
    let past = SystemTime::UNIX_EPOCH;
    assert_eq!(get(&cache, 1, Some(past)), 1);
    assert_eq!(get(&cache, 2, Some(past)), 1);
    hands.advance(LIFE_OF_EXPIRED);
    assert_eq!(get(&cache, 3, Some(past)), 3);
}

#[test]
fn a_step_of_the_wall_clock_changes_nothing() {
    let hands = Hands::new();
    let cache = hands.cache();
    assert_eq!(get(&cache, 1, hands.in_future(HOUR)), 1);
    lock(&hands.0).0 += HOUR * 24;
    assert_eq!(get(&cache, 2, None), 1);
}

#[test]
fn threads_without_a_value_wait_for_one_fetch() {
    let cache = Refreshing::new();
    let fetches = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let value = cache.get(&generous(), |_| {
                    fetches.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(50));
                    Ok((7_u64, None))
                });
                assert_eq!(*value.unwrap(), 7);
            });
        }
    });
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
}

#[test]
fn threads_that_wait_for_a_failing_fetch_share_its_error() {
    let hands = Hands::new();
    let cache = hands.cache();
    let fetches = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let value = cache.get(&generous(), |_| {
                    fetches.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(50));
                    Err(failure())
                });
                assert_eq!(value.unwrap_err().kind(), ErrorKind::Unavailable);
            });
        }
    });
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
}

/// Runs `others` while a thread is within its fetch, then lets that fetch end with `outcome`.
fn while_fetching(
    cache: &Refreshing<u64>,
    outcome: Result<Fetched<u64>>,
    others: impl FnOnce(),
) -> Result<Arc<u64>> {
    let (begun, is_begun) = sync_channel::<()>(0);
    let (go, may_go) = sync_channel::<()>(0);
    thread::scope(|scope| {
        let fetcher = scope.spawn(move || {
            cache.get(&generous(), |_| {
                begun.send(()).unwrap();
                may_go.recv().unwrap();
                outcome
            })
        });
        is_begun.recv().unwrap();
        others();
        go.send(()).unwrap();
        fetcher.join().unwrap()
    })
}

#[test]
fn others_go_on_with_the_old_value_while_one_refreshes() {
    let hands = Hands::new();
    let cache = hands.cache();
    assert_eq!(get(&cache, 1, hands.in_future(HOUR)), 1);
    hands.advance(HOUR - MARGIN_MAX);
    let fetched = while_fetching(&cache, Ok((2, None)), || {
        // Were they to wait, the test would never end.
        assert_eq!(*cache.get(&generous(), |_| panic!("a second fetch")).unwrap(), 1);
    });
    assert_eq!(*fetched.unwrap(), 2);
    assert_eq!(get(&cache, 3, None), 2);
}

#[test]
fn a_wait_ends_with_the_deadline_of_the_one_who_waits() {
    let cache = Refreshing::new();
    let fetched = while_fetching(&cache, Ok((1, None)), || {
        let soon = Deadline::after(Duration::from_millis(20));
        let error = cache.get(&soon, |_| panic!("a second fetch")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
    assert_eq!(*fetched.unwrap(), 1);
}

#[test]
fn who_has_more_time_does_not_inherit_a_timeout() {
    let cache = Refreshing::new();
    let over = Deadline::after(Duration::ZERO);
    let late = || Error::new(ErrorKind::TimedOut, "get credentials", "late");
    assert!(cache.get(&over, |_| Err(late())).is_err());
    assert_eq!(get(&cache, 2, None), 2);
}

#[test]
fn a_fetch_that_panics_leaves_the_turn_to_the_next() {
    let cache = Refreshing::new();
    let fetch = || cache.get(&generous(), |_| panic!("in a fetch"));
    assert!(catch_unwind(AssertUnwindSafe(fetch)).is_err());
    assert_eq!(get(&cache, 1, None), 1);
}

#[test]
fn a_refused_value_is_fetched_again_once_however_many_say_so() {
    let cache = Refreshing::new();
    let first = cache.get(&generous(), |_| Ok((1_u64, None))).unwrap();
    let fetches = AtomicU64::new(1);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                cache.invalidate(&first);
                let fetch = |_: &Deadline| Ok((fetches.fetch_add(1, Ordering::SeqCst) + 1, None));
                assert_eq!(*cache.get(&generous(), fetch).unwrap(), 2);
            });
        }
    });
    assert_eq!(fetches.load(Ordering::SeqCst), 2);
    cache.invalidate(&first);
    assert_eq!(get(&cache, 9, None), 2, "a late complaint about the first");
}

#[test]
fn a_refresh_does_not_hold_a_thread_for_its_whole_deadline() {
    let hands = Hands::new();
    let cache = hands.cache();
    assert_eq!(get(&cache, 1, hands.in_future(HOUR)), 1);
    hands.advance(HOUR - MARGIN_MAX);
    let asked = AtomicBool::new(false);
    let value = cache.get(&Deadline::after(Duration::MAX), |deadline| {
        assert!(deadline.remaining() <= REFRESH_TIMEOUT);
        asked.store(true, Ordering::Relaxed);
        Err(failure())
    });
    assert_eq!(*value.unwrap(), 1);
    assert!(asked.load(Ordering::Relaxed));
}

#[test]
fn the_value_does_not_show() {
    let cache = Refreshing::new();
    let secret = "hunter2".to_owned();
    cache.get(&generous(), |_| Ok((secret, None))).unwrap();
    assert!(!format!("{cache:?}").contains("hunter2"));
}
