//! A bounded number of places, given in the order in which they were asked for.

use std::collections::VecDeque;
use std::time::Instant;

use crate::sync::{Condvar, Mutex, MutexGuard, lock, wait};
use crate::time::{Deadline, now};

/// Those that wait at a time, for which room is set aside.
const TURNS_EXPECTED: usize = 32;

/// Places that are taken and given back.
#[derive(Debug)]
pub(crate) struct Places {
    state: Mutex<State>,
    returned: Condvar,
    max: usize,
}

#[derive(Debug)]
struct State {
    taken: usize,
    /// Those that wait in turn, in the order in which they came.
    turns: VecDeque<u64>,
    next_turn: u64,
    /// When one of them last got what it waited for.
    served: Instant,
}

impl Places {
    pub fn new(max: usize) -> Places {
        Places {
            state: Mutex::new(State {
                taken: 0,
                turns: VecDeque::with_capacity(TURNS_EXPECTED),
                next_turn: 0,
                served: now(),
            }),
            returned: Condvar::new(),
            max,
        }
    }

    /// Takes a place if one is free that nobody waits for.
    pub fn take_now(&self) -> bool {
        let mut state = lock(&self.state);
        let free = state.turns.is_empty() && state.taken < self.max;
        state.taken += usize::from(free);
        free
    }

    /// Takes `count` places as soon as so many are free, past those that wait in turn. `false` at the deadline.
    pub fn take(&self, count: usize, deadline: &Deadline) -> bool {
        self.wait_for(lock(&self.state), count, None, *deadline)
    }

    /// Takes `count` places at once, behind those that wait already. `false` when there were none for the
    /// deadline's time since one ahead had its turn: so nobody waits longer than that for each one ahead.
    pub fn take_in_turn(&self, count: usize, deadline: &Deadline) -> bool {
        let mut state = lock(&self.state);
        let turn = state.next_turn;
        state.next_turn += 1;
        state.turns.push_back(turn);
        let taken = self.wait_for(state, count, Some(turn), *deadline);
        let mut state = lock(&self.state);
        state.turns.retain(|other| *other != turn);
        if taken {
            state.served = now();
        }
        let others_wait = !state.turns.is_empty();
        drop(state);
        if others_wait {
            self.returned.notify_all();
        }
        taken
    }

    fn wait_for(
        &self,
        mut state: MutexGuard<'_, State>,
        count: usize,
        turn: Option<u64>,
        mut deadline: Deadline,
    ) -> bool {
        let must_wait = |state: &State| {
            state.taken + count > self.max
                || turn.is_some_and(|turn| state.turns.front() != Some(&turn))
        };
        while must_wait(&state) {
            let (guard, time_left) = wait(&self.returned, state, &deadline);
            state = guard;
            if !time_left && must_wait(&state) {
                let renewed = deadline.restarted(state.served);
                if turn.is_none() || renewed.expired() {
                    return false;
                }
                deadline = renewed;
            }
        }
        state.taken += count;
        true
    }

    pub fn give_back(&self, count: usize) {
        lock(&self.state).taken -= count;
        // All: the one that is woken may need more than came back.
        self.returned.notify_all();
    }

    /// Places in use at this moment.
    pub fn taken(&self) -> usize {
        lock(&self.state).taken
    }

    pub fn max(&self) -> usize {
        self.max
    }

    /// Those that wait in turn at this moment.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        lock(&self.state).turns.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn who_comes_first_is_served_first_and_renews_the_patience_of_the_rest() {
        let places = Places::new(1);
        let timeout = Duration::from_millis(if cfg!(miri) { 20_000 } else { 800 });
        assert!(places.take_now() && !places.take_now());
        let served = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (places, served) = (&places, &served);
                scope.spawn(move || {
                    let taken = places.take_in_turn(1, &Deadline::after(timeout));
                    lock(served).push((n, taken));
                    // In all, the last waits for several timeouts.
                    std::thread::sleep(timeout / if cfg!(miri) { 1000 } else { 4 });
                    places.give_back(usize::from(taken));
                });
                while places.waiting() <= n {
                    std::thread::yield_now();
                }
            }
            assert!(!places.take_now(), "others wait for it");
            places.give_back(1);
        });
        let expected: Vec<(usize, bool)> = (0..8).map(|n| (n, true)).collect();
        assert_eq!(served.into_inner().unwrap(), expected);
        assert_eq!((places.taken(), places.waiting()), (0, 0));
    }

    #[test]
    fn a_line_that_stands_still_is_given_up() {
        let places = Places::new(1);
        let soon = Duration::from_millis(20);
        assert!(places.take_now());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert!(!places.take_in_turn(1, &Deadline::after(soon))));
            }
        });
        places.give_back(1);
        assert!(places.take_now() && places.waiting() == 0);
    }
}
