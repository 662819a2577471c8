//! The line before the queue: who finds the queue full waits here, and those who wait get room in the order in
//! which they came. It moves whenever a thread takes a job.

use std::collections::VecDeque;
use std::time::Instant;

use crate::engine::queue::Job;
use crate::sync::{Mutex, Sender, Thread, lock, park, this_thread};
use crate::time::{Deadline, now};

/// Those that wait at a time, for which room is set aside.
const WAITING_EXPECTED: usize = 64;

/// How long one waits for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Until the line stood still for the deadline's time: nobody waits longer than that for each one ahead.
    WhileItMoves,
    UntilDeadline,
}

#[derive(Debug)]
pub(super) struct Line(Mutex<State>);

#[derive(Debug)]
struct State {
    /// In the order in which they came. Each is woken by itself: to wake all for each job would take more
    /// time than small jobs.
    waiting: VecDeque<(u64, Thread)>,
    next_place: u64,
    moved: Instant,
}

impl Line {
    pub fn new() -> Line {
        Line(Mutex::new(State {
            waiting: VecDeque::with_capacity(WAITING_EXPECTED),
            next_place: 0,
            moved: now(),
        }))
    }

    /// When a thread last took a job.
    pub fn moved(&self) -> Instant {
        lock(&self.0).moved
    }

    /// A thread has taken a job: there is room for the first in line.
    pub fn advance(&self) {
        let mut state = lock(&self.0);
        state.moved = now();
        state.call_first();
    }

    /// Queues a job behind those that wait already. `false` when the time is up; the job is dropped then.
    pub fn send(
        &self,
        queue: &Sender<Job>,
        job: Job,
        deadline: &Deadline,
        patience: Patience,
    ) -> bool {
        let mut state = lock(&self.0);
        let mut place = None;
        if !state.waiting.is_empty() || queue.is_full() {
            let own = state.join();
            drop(state);
            let waited = self.wait(queue, own, *deadline, patience);
            place = Some(own);
            state = lock(&self.0);
            if !waited {
                state.leave(own);
                return false;
            }
        }
        // There is room: only who is first in line puts something in.
        let sent = queue.try_send(job);
        if let Some(place) = place {
            state.leave(place);
        }
        // Before a job that was not taken: its end looks at the line.
        drop(state);
        sent.is_ok()
    }

    /// Waits until there is room for the one at this place. `false` when the time is up.
    fn wait(
        &self,
        queue: &Sender<Job>,
        place: u64,
        mut deadline: Deadline,
        patience: Patience,
    ) -> bool {
        loop {
            let state = lock(&self.0);
            if !queue.is_full() && state.waiting.front().is_some_and(|(first, _)| *first == place) {
                return true;
            }
            if deadline.expired() {
                if patience == Patience::WhileItMoves {
                    deadline = deadline.restarted(state.moved);
                }
                if deadline.expired() {
                    return false;
                }
            }
            drop(state);
            park(&deadline);
        }
    }
}

impl State {
    fn join(&mut self) -> u64 {
        let place = self.next_place;
        self.next_place += 1;
        self.waiting.push_back((place, this_thread()));
        place
    }

    fn leave(&mut self, place: u64) {
        self.waiting.retain(|(other, _)| *other != place);
        self.call_first();
    }

    fn call_first(&self) {
        if let Some((_, thread)) = self.waiting.front() {
            thread.unpark();
        }
    }
}

// The model's channels cannot be looked into.
#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::engine::queue::CallJob;
    use crate::engine::ticket::{Batch, Pending};
    use crate::sync::{Arc, AtomicBool, Ordering, bounded};
    use std::time::Duration;

    fn job(uri: &str) -> Job {
        let pending = Pending::new(&Batch::new(1));
        Job::Call(Box::new(CallJob::new("test", &Arc::from(uri), pending, || Ok(()))))
    }

    fn send(line: &Line, queue: &Sender<Job>, uri: &str, timeout: Duration) -> bool {
        line.send(queue, job(uri), &Deadline::after(timeout), Patience::WhileItMoves)
    }

    fn wait_for(line: &Line, waiting: usize) {
        while lock(&line.0).waiting.len() != waiting {
            std::thread::yield_now();
        }
    }

    #[test]
    fn who_comes_first_is_served_first_and_as_long_as_the_line_moves() {
        const WAITING: usize = 8;
        let timeout = Duration::from_millis(if cfg!(miri) { 20_000 } else { 1000 });
        let (line, (sender, receiver)) = (Line::new(), bounded(2));
        for n in 0..2 {
            assert!(send(&line, &sender, &n.to_string(), timeout));
        }
        std::thread::scope(|scope| {
            for n in 0..WAITING {
                let (line, sender) = (&line, &sender);
                let uri = (n + 2).to_string();
                scope.spawn(move || {
                    assert!(send(line, sender, &uri, timeout), "{uri}");
                });
                wait_for(line, n + 1);
            }
            for n in 0..WAITING + 2 {
                // The last waits for several timeouts in all.
                std::thread::sleep(timeout / if cfg!(miri) { 1000 } else { 4 });
                let taken: Job = receiver.recv_timeout(Duration::from_secs(60)).unwrap();
                line.advance();
                assert_eq!(&**taken.subject().1, n.to_string());
            }
        });
        assert!(lock(&line.0).waiting.is_empty());
    }

    #[test]
    fn a_fixed_time_ends_however_the_line_moves() {
        const MOVES_MAX: usize = 300;
        let timeout = Duration::from_millis(100);
        let (line, (sender, _receiver)) = (Line::new(), bounded(1));
        assert!(send(&line, &sender, "first", timeout));
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mover = scope.spawn(|| {
                let still = |_: &usize| {
                    line.advance();
                    std::thread::sleep(timeout / 10);
                    !over.load(Ordering::Acquire)
                };
                (0..MOVES_MAX).take_while(still).count()
            });
            let deadline = Deadline::after(timeout);
            assert!(!line.send(&sender, job("late"), &deadline, Patience::UntilDeadline));
            over.store(true, Ordering::Release);
            assert!(mover.join().unwrap() < MOVES_MAX, "the wait was renewed");
        });
    }

    #[test]
    fn a_line_that_stands_still_is_given_up_and_goes_on_later() {
        let soon = Duration::from_millis(20);
        let (line, (sender, receiver)) = (Line::new(), bounded(1));
        assert!(send(&line, &sender, "first", soon));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    assert!(!send(&line, &sender, "late", soon));
                });
            }
        });
        drop(receiver.recv().unwrap());
        line.advance();
        assert!(send(&line, &sender, "again", soon));
        assert_eq!((receiver.len(), lock(&line.0).waiting.len()), (1, 0));
    }
}
