//! What the checker must find: classic mistakes in a queue for one.

use std::panic::{AssertUnwindSafe, catch_unwind};

use shuttle::FailurePersistence;
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler};
use shuttle::thread::spawn;

use super::{SCHEDULES, join, never, run};
use crate::sync::{Arc, AtomicBool, Condvar, Mutex, Ordering, lock, wait};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mistake {
    None,
    /// Who puts something in tells nobody.
    Untold,
    /// One is told where two wait for different things.
    OneTold,
    /// Whether there is room is asked before the lock is taken, and believed after.
    AskedOutside,
    /// Who was woken believes that it is there.
    AskedOnce,
}

/// Room for one number.
struct Queue {
    mistake: Mistake,
    full: AtomicBool,
    place: Mutex<Option<u8>>,
    changed: Condvar,
}

impl Queue {
    fn put(&self, number: u8) {
        let mut place;
        if self.mistake == Mistake::AskedOutside {
            let full = self.full.load(Ordering::SeqCst);
            place = lock(&self.place);
            if full {
                place = wait(&self.changed, place, &never()).0;
            }
        } else {
            place = lock(&self.place);
            while place.is_some() {
                place = wait(&self.changed, place, &never()).0;
            }
        }
        assert!(place.replace(number).is_none(), "a number was lost");
        self.full.store(true, Ordering::SeqCst);
        drop(place);
        self.tell(self.mistake != Mistake::Untold);
    }

    fn take(&self) -> u8 {
        let mut place = lock(&self.place);
        if self.mistake == Mistake::AskedOnce {
            if place.is_none() {
                place = wait(&self.changed, place, &never()).0;
            }
        } else {
            while place.is_none() {
                place = wait(&self.changed, place, &never()).0;
            }
        }
        let number = place.take().expect("there is one");
        self.full.store(false, Ordering::SeqCst);
        drop(place);
        self.tell(true);
        number
    }

    fn tell(&self, at_all: bool) {
        match self.mistake {
            _ if !at_all => {}
            Mistake::OneTold => self.changed.notify_one(),
            _ => self.changed.notify_all(),
        }
    }
}

/// Two put in two numbers each, and two take them out.
fn scenario(mistake: Mistake) {
    let queue = Arc::new(Queue {
        mistake,
        full: AtomicBool::new(false),
        place: Mutex::new(None),
        changed: Condvar::new(),
    });
    let mut threads = Vec::new();
    for base in [10, 20] {
        let (put, take) = (Arc::clone(&queue), Arc::clone(&queue));
        threads.push(spawn(move || {
            (0..2).for_each(|n| put.put(base + n));
            Vec::new()
        }));
        threads.push(spawn(move || (0..2).map(|_| take.take()).collect::<Vec<u8>>()));
    }
    let mut taken = join(threads).concat();
    taken.sort_unstable();
    assert_eq!(taken, [10, 11, 20, 21]);
}

fn finds(mistake: Mistake, by_chance: bool) -> bool {
    let scenario = Arc::new(move || scenario(mistake));
    let search = || match by_chance {
        true => run(RandomScheduler::new(SCHEDULES), FailurePersistence::None, scenario),
        false => run(PctScheduler::new(3, SCHEDULES), FailurePersistence::None, scenario),
    };
    catch_unwind(AssertUnwindSafe(search)).is_err()
}

#[test]
fn the_checker_finds_what_is_wrong_and_nothing_else() {
    for by_chance in [true, false] {
        assert!(!finds(Mistake::None, by_chance), "there is no mistake");
        for mistake in
            [Mistake::Untold, Mistake::OneTold, Mistake::AskedOutside, Mistake::AskedOnce]
        {
            assert!(finds(mistake, by_chance), "{mistake:?} was not found, by chance: {by_chance}");
        }
    }
}

#[test]
fn a_schedule_that_fails_fails_again() {
    let directory = tempfile::tempdir().unwrap();
    let kept = FailurePersistence::File(Some(directory.path().to_owned()));
    let broken = Arc::new(|| scenario(Mistake::OneTold));
    let first = AssertUnwindSafe(|| run(RandomScheduler::new(SCHEDULES), kept, broken.clone()));
    catch_unwind(first).unwrap_err();
    let file = std::fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
    for mistake in [Mistake::OneTold, Mistake::None] {
        let mut schedule = ReplayScheduler::new_from_file(&file).unwrap();
        schedule.set_allow_incomplete();
        let again = || run(schedule, FailurePersistence::None, Arc::new(move || scenario(mistake)));
        let fails = catch_unwind(AssertUnwindSafe(again)).is_err();
        assert!(fails || mistake == Mistake::None, "the same schedule ends well");
    }
}
