//! The line before the queue: who finds the queue full waits here, and those who wait get room in the order in
//! which they came. It moves whenever a thread takes a job.

use std::collections::VecDeque;
use std::time::Instant;

use crate::engine::queue::Job;
use crate::sync::{Mutex, Sender, Thread, lock, park, this_thread};
use crate::time::{Deadline, now};

/// Those that wait at a time, for which room is set aside.
const WAITING_EXPECTED: usize = 64;

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

    /// Queues a job behind those that wait already. Gives it back when the line stood still for the deadline's
    /// time: so nobody waits longer than that for each one ahead.
    pub fn send(&self, queue: &Sender<Job>, job: Job, deadline: &Deadline) -> Result<(), Job> {
        let mut state = lock(&self.0);
        let job = match state.waiting.is_empty() {
            true => match queue.try_send(job) {
                Ok(()) => return Ok(()),
                Err(full) => full.into_inner(),
            },
            false => job,
        };
        let place = state.next_place;
        state.next_place += 1;
        state.waiting.push_back((place, this_thread()));
        drop(state);
        let sent = self.wait(queue, job, place, *deadline);
        let mut state = lock(&self.0);
        state.waiting.retain(|(other, _)| *other != place);
        state.call_first();
        sent
    }

    fn wait(
        &self,
        queue: &Sender<Job>,
        mut job: Job,
        place: u64,
        mut deadline: Deadline,
    ) -> Result<(), Job> {
        loop {
            let state = lock(&self.0);
            if state.waiting.front().is_some_and(|(first, _)| *first == place) {
                match queue.try_send(job) {
                    Ok(()) => return Ok(()),
                    Err(full) => job = full.into_inner(),
                }
            }
            if deadline.expired() {
                deadline = deadline.restarted(state.moved);
                if deadline.expired() {
                    return Err(job);
                }
            }
            drop(state);
            park(&deadline);
        }
    }
}

impl State {
    fn call_first(&self) {
        if let Some((_, thread)) = self.waiting.front() {
            thread.unpark();
        }
    }
}
