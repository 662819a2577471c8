//! The engine: its start, its queue, calls, sweeps, and its end.

use std::time::Duration;

use shuttle::thread::{spawn, yield_now};

use super::{TIMEOUT, choose, explore, join, time_runs_out};
use crate::config::Config;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::sync::{Arc, AtomicU64, Ordering, model};

const PART_BYTES: usize = 64 * 1024;

fn engine(threads: usize, timeout: Duration) -> Arc<Engine> {
    let config = Config::builder()
        .part_bytes(PART_BYTES)
        .io_threads(threads)
        .queue_depth_parts(1)
        .timeout(timeout)
        .build()
        .unwrap();
    Engine::new("model", None, &config)
}

fn uri() -> Arc<str> {
    Arc::from("mem://model/object")
}

/// Also those who come while another starts the threads.
#[test]
fn every_call_is_answered() {
    for threads in [1, 2] {
        explore(move || {
            let engine = engine(threads, TIMEOUT);
            let callers = (0..3u64).map(|n| {
                let engine = Arc::clone(&engine);
                spawn(move || engine.call("test", &uri(), move |_| Ok(n)).unwrap() == n)
            });
            assert!(join(callers.collect::<Vec<_>>()).into_iter().all(|own| own));
        });
    }
}

/// Counts the ends of what a job owns.
struct Owned(Arc<AtomicU64>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Jobs fail and panic, their callers may give up waiting for room or for the outcome, and the engine ends
/// while jobs of nobody's are still queued.
#[test]
fn what_a_job_owns_is_gone_once_when_the_engine_is() {
    const JOBS: u64 = 3;
    explore(|| {
        let (engine, ended) = (engine(1, TIMEOUT), Arc::new(AtomicU64::new(0)));
        let clock = time_runs_out();
        let callers = (0..JOBS).map(|n| {
            let (engine, owned) = (Arc::clone(&engine), Owned(Arc::clone(&ended)));
            spawn(move || {
                let outcome = engine.call("test", &uri(), move |_| {
                    let _owned = owned;
                    yield_now();
                    match n {
                        0 => panic!("on purpose"),
                        1 => Err(Error::invalid("test", "on purpose")),
                        _ => Ok(()),
                    }
                });
                let told = outcome.map_or_else(|error| Some(error.kind()), |()| None);
                let of_job =
                    [Some(ErrorKind::Panicked), Some(ErrorKind::InvalidInput), None][n as usize];
                assert!(told == of_job || told == Some(ErrorKind::TimedOut), "{told:?}");
            })
        });
        let callers: Vec<_> = callers.collect();
        drop(engine);
        join(callers.into_iter().chain([clock]));
        assert_eq!(ended.load(Ordering::SeqCst), JOBS);
    });
}

/// Two sweeps at once, cut into slices of time at any moment.
#[test]
fn a_sweep_takes_each_item_once() {
    const ITEMS: usize = 3;
    explore(|| {
        // Time passes beyond a slice, but not beyond half the timeout: so long the medium may be silent.
        let engine = engine(2, TIMEOUT * 2);
        let sweeps = [(); 2].map(|()| {
            let engine = Arc::clone(&engine);
            spawn(move || {
                let taken: Arc<[AtomicU64]> = (0..ITEMS).map(|_| AtomicU64::new(0)).collect();
                let step = |item: &AtomicU64, _: &_| {
                    item.fetch_add(1, Ordering::SeqCst);
                    true
                };
                engine.sweep("test", &uri(), &taken, step).unwrap();
                assert!(taken.iter().all(|item| item.load(Ordering::SeqCst) == 1));
            })
        });
        let clock = spawn(|| model::pass(Duration::from_millis(600)));
        join(sweeps.into_iter().chain([clock]));
    });
}

/// A sweep whose time is up begins nothing after it has returned.
#[test]
fn a_sweep_that_gives_up_leaves_the_rest_alone() {
    // Far more than the threads have in their hands.
    const ITEMS: usize = 8;
    explore(|| {
        let threads = 1 + choose(2);
        let engine = engine(threads as usize, TIMEOUT);
        let items: Arc<[()]> = vec![(); ITEMS].into();
        let clock = time_runs_out();
        let begun = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&begun);
        let swept = engine.sweep("test", &uri(), &items, move |(), _| {
            count.fetch_add(1, Ordering::SeqCst);
            yield_now();
            true
        });
        let at_return = begun.load(Ordering::SeqCst);
        match swept {
            Ok(()) => assert_eq!(at_return, ITEMS as u64),
            Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut),
        }
        join([clock]);
        drop(engine);
        // What each thread had in its hand may still begin.
        assert!(begun.load(Ordering::SeqCst) <= at_return + threads);
    });
}
