//! Doing one thing to many objects: a job for each I/O thread, which takes one object after the other. So an
//! object costs no wait for room in the queue, and no thread of the caller's wakes up for it.

use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::engine::ticket::Batch;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, lock};
use crate::time::{Deadline, now};

/// Longest that a job goes on to further objects: then those who wait in the queue have their turn, who would
/// else see no progress of their own for as long as the sweep takes.
const SWEEP_SLICE: Duration = Duration::from_millis(500);

impl Engine {
    /// Calls `step` for each of `items`, several at a time, and returns when all are done. What became of an
    /// item, `step` keeps in it, and says whether the medium answered; its deadline begins with the item. `step`
    /// must not panic.
    ///
    /// # Errors
    /// `TimedOut` if for one timeout no item was done, or the medium [answered](answered) none of those that
    /// were begun side by side, one after the other, for half of one: the next would take beyond it. No further
    /// item is begun then, and those that were begun may still be under way.
    pub fn sweep<T: Send + Sync + 'static>(
        &self,
        operation: &'static str,
        uri: &Arc<str>,
        items: &Arc<[T]>,
        step: impl Fn(&T, &Deadline) -> bool + Send + Sync + 'static,
    ) -> Result<()> {
        let (step, next) = (Arc::new(step), Arc::new(AtomicU64::new(0)));
        let begun = || next.load(Ordering::Acquire) as usize;
        let mut silence = Duration::ZERO;
        while begun() < items.len() {
            let slice = Arc::new(Slice::default());
            self.sweep_on(operation, uri, items, &step, (&next, &slice))?;
            silence = slice.silence().map_or(Duration::ZERO, |more| silence + more);
            if begun() < items.len()
                && let Some(error) = self.unanswered(operation, silence)
            {
                return Err(error.with_uri(&**uri));
            }
        }
        Ok(())
    }

    /// Goes on with the items from `next`, for one slice of time.
    fn sweep_on<T: Send + Sync + 'static>(
        &self,
        operation: &'static str,
        uri: &Arc<str>,
        items: &Arc<[T]>,
        step: &Arc<impl Fn(&T, &Deadline) -> bool + Send + Sync + 'static>,
        (next, slice): (&Arc<AtomicU64>, &Arc<Slice>),
    ) -> Result<()> {
        let batch = Batch::new(1);
        let deadline = self.deadline();
        let left = items.len() - next.load(Ordering::Acquire) as usize;
        let mut queued = Ok(());
        for _ in 0..self.config().io_threads().min(left) {
            let (own, items) = (Arc::clone(&batch), Arc::clone(items));
            let (step, next, slice) = (Arc::clone(step), Arc::clone(next), Arc::clone(slice));
            let run = move || {
                let started = slice.begin();
                while !own.is_dead()
                    && let Some(item) = items.get(next.fetch_add(1, Ordering::AcqRel) as usize)
                {
                    if step(item, &deadline.renewed().for_work()) {
                        slice.answered.store(true, Ordering::Release);
                    }
                    own.progress();
                    if now().saturating_duration_since(started) > SWEEP_SLICE {
                        break;
                    }
                }
                Ok(())
            };
            queued = self.submit_call(&batch, operation, uri, deadline, run);
            if queued.is_err() {
                break;
            }
        }
        let done = queued.and_then(|()| match self.settle(&batch) {
            Ok(()) => batch.check(),
            Err(deadline) => Err(self.stalled(operation, &deadline).with_uri(&**uri)),
        });
        batch.withdraw();
        done
    }
}

/// The items that are begun in one slice of time.
#[derive(Debug, Default)]
struct Slice {
    /// When the first of them was.
    began: Mutex<Option<Instant>>,
    answered: AtomicBool,
}

impl Slice {
    fn begin(&self) -> Instant {
        let now = now();
        lock(&self.began).get_or_insert(now);
        now
    }

    /// For how long the medium has answered nothing; `None` if it has answered.
    fn silence(&self) -> Option<Duration> {
        let began = lock(&self.began).unwrap_or_else(now);
        let answered = self.answered.load(Ordering::Acquire);
        (!answered).then(|| now().saturating_duration_since(began))
    }
}

/// Whether the medium had something to say about an item.
pub(crate) fn answered<T>(outcome: &Result<T>) -> bool {
    let silent =
        |error: &Error| matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Unavailable);
    !outcome.as_ref().err().is_some_and(silent)
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_long_sweep_gives_others_their_turn() {
        let config = Config::builder()
            .part_bytes(64 * 1024)
            .io_threads(1)
            .queue_depth_parts(2)
            .build()
            .unwrap();
        let engine = Engine::new("sweep", None, &config);
        let uri: Arc<str> = Arc::from("mem://sweep");
        let (items, done): (Arc<[()]>, _) = (vec![(); 2000].into(), Arc::new(AtomicU64::new(0)));
        std::thread::scope(|scope| {
            let counted = Arc::clone(&done);
            let sweep = scope.spawn(|| {
                engine.sweep("test", &uri, &items, move |(), _| {
                    std::thread::sleep(Duration::from_millis(1));
                    counted.fetch_add(1, Ordering::AcqRel);
                    true
                })
            });
            while done.load(Ordering::Acquire) == 0 {
                std::thread::yield_now();
            }
            let seen = Arc::clone(&done);
            let before = engine.call("test", &uri, move |_| Ok(seen.load(Ordering::Acquire)));
            assert!(before.unwrap() < 2000, "the call had to wait for the whole sweep");
            sweep.join().unwrap().unwrap();
        });
        assert_eq!(done.load(Ordering::Acquire), 2000, "each item once");
    }

    #[test]
    fn an_item_that_gets_no_answer_takes_no_other_with_it() {
        let config = Config::builder().io_threads(2).timeout(Duration::from_secs(2));
        let engine = Engine::new("sweep", None, &config.build().unwrap());
        let uri: Arc<str> = Arc::from("mem://sweep");
        // More than a slice takes, so that the others wait for the end of the silent one.
        let items: Arc<[usize]> = (0..1000).collect();
        let done = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&done);
        let swept = engine.sweep("test", &uri, &items, move |item, deadline| {
            let is_silent = *item == 0;
            std::thread::sleep(match is_silent {
                true => deadline.remaining(),
                false => Duration::from_millis(1),
            });
            counted.fetch_add(1, Ordering::AcqRel);
            !is_silent
        });
        swept.unwrap();
        assert_eq!(done.load(Ordering::Acquire), 1000);
    }

    #[test]
    fn a_sweep_of_a_medium_that_stands_still_ends() {
        let timeout = Duration::from_millis(300);
        let config = Config::builder().io_threads(2).timeout(timeout).build().unwrap();
        let engine = Engine::new("sweep", None, &config);
        let uri: Arc<str> = Arc::from("mem://sweep");
        let (items, done): (Arc<[()]>, _) = (vec![(); 100].into(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&done);
        let swept = engine.sweep("test", &uri, &items, move |(), deadline| {
            std::thread::sleep(deadline.remaining());
            counted.fetch_add(1, Ordering::AcqRel);
            false
        });
        assert_eq!(swept.unwrap_err().kind(), ErrorKind::TimedOut);
        let done = done.load(Ordering::Acquire);
        assert!((1..=8).contains(&done), "{done} items of a medium that stands still were tried");
    }

    /// Such as one that no connection can be made to.
    #[test]
    fn a_sweep_of_a_medium_that_refuses_sooner_ends_too() {
        let timeout = SWEEP_SLICE * 4;
        let config = Config::builder().io_threads(2).timeout(timeout).build().unwrap();
        let engine = Engine::new("sweep", None, &config);
        let uri: Arc<str> = Arc::from("mem://sweep");
        let (items, done): (Arc<[()]>, _) = (vec![(); 200].into(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&done);
        let swept = engine.sweep("test", &uri, &items, move |(), _| {
            std::thread::sleep(timeout / 10);
            counted.fetch_add(1, Ordering::AcqRel);
            false
        });
        assert_eq!(swept.unwrap_err().kind(), ErrorKind::TimedOut);
        let done = done.load(Ordering::Acquire);
        assert!(done < 100, "{done} items of a medium that answers nothing were tried");
    }
}
