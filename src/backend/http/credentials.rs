//! A cache of one thing that expires: fetched when first asked for, refreshed once for all threads.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, lock, wait};
use crate::time::Deadline;

/// Refreshed this long before its end, or in the last quarter of a life that is short.
const MARGIN_MAX: Duration = Duration::from_secs(5 * 60);

/// How long a value is used that was already expired when it came: then a clock is wrong, and which one
/// only the server can tell.
const LIFE_OF_EXPIRED: Duration = Duration::from_secs(60);

/// No second attempt within this time after a failure, where there is no valid value: threads that
/// fail together get one error.
const PAUSE_WITHOUT_VALUE: Duration = Duration::from_secs(1);

/// The same where the old value is still valid.
const PAUSE_WITH_VALUE: Duration = Duration::from_secs(10);

/// Longest that a refresh holds up a thread while the old value is still valid.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(20);

/// What is fetched, and when it ends.
pub(crate) type Fetched<T> = (T, Option<SystemTime>);

/// A value of type `T` that expires and is fetched again. One thread fetches; the others go on with the
/// old value while it is valid, and wait where there is none.
pub(crate) struct Refreshing<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    clock: Clock,
}

/// The wall's time and a steady one.
type Clock = Box<dyn Fn() -> (SystemTime, Instant) + Send + Sync>;

struct State<T> {
    held: Option<Held<T>>,
    /// Whether a thread is fetching.
    fetching: bool,
    failure: Option<(Instant, Error)>,
}

/// Its times are of the steady clock: a step of the wall's clock after the fetch changes nothing.
struct Held<T> {
    value: Arc<T>,
    /// `None`: never.
    refresh_at: Option<Instant>,
    /// `None`: never.
    ends_at: Option<Instant>,
}

impl<T: Send + Sync> Refreshing<T> {
    pub fn new() -> Refreshing<T> {
        Refreshing::with_clock(Box::new(|| (SystemTime::now(), Instant::now())))
    }

    fn with_clock(clock: Clock) -> Refreshing<T> {
        let state = State { held: None, fetching: false, failure: None };
        Refreshing { state: Mutex::new(state), changed: Condvar::new(), clock }
    }

    /// The value, fetched if there is none or if it ends soon. `fetch` runs without a lock, in this
    /// thread, at most once.
    ///
    /// # Errors
    /// That of `fetch`, also of another thread a moment ago; `TimedOut` if another thread fetches beyond
    /// the deadline. Never while an earlier value is valid: then a failure is logged.
    pub fn get(
        &self,
        deadline: &Deadline,
        fetch: impl FnOnce(&Deadline) -> Result<Fetched<T>>,
    ) -> Result<Arc<T>> {
        let mut state = lock(&self.state);
        loop {
            let (_, now) = (self.clock)();
            let valid = state.held.as_ref().filter(|held| held.ends_at.is_none_or(|at| now < at));
            if let Some(held) = valid {
                let fresh = held.refresh_at.is_none_or(|at| now < at);
                if fresh || state.fetching || state.paused(now, PAUSE_WITH_VALUE).is_some() {
                    return Ok(Arc::clone(&held.value));
                }
                let old = Arc::clone(&held.value);
                return Ok(self.refresh(state, deadline, old, fetch));
            }
            if let Some(failure) = state.paused(now, PAUSE_WITHOUT_VALUE) {
                return Err(failure);
            }
            if !state.fetching {
                return self.fetch(state, deadline, fetch);
            }
            let (guard, in_time) = wait(&self.changed, state, deadline);
            state = guard;
            if !in_time {
                let what = "another thread still fetches them";
                return Err(Error::new(ErrorKind::TimedOut, "get credentials", what)
                    .with_elapsed(deadline.elapsed()));
            }
        }
    }

    /// Makes the cache forget `stale`, which the server refused. Nothing happens if another thread said so
    /// before: its place may already be taken by a new value.
    pub fn invalidate(&self, stale: &Arc<T>) {
        self.forget(|held| Arc::ptr_eq(held, stale));
    }

    /// The same for who knows the stale value by another sign.
    pub fn invalidate_where(&self, is_stale: impl FnOnce(&T) -> bool) {
        self.forget(|held| is_stale(held));
    }

    fn forget(&self, is_stale: impl FnOnce(&Arc<T>) -> bool) {
        let mut state = lock(&self.state);
        if state.held.as_ref().is_some_and(|held| is_stale(&held.value)) {
            state.held = None;
            // It is another question now than the one that failed.
            state.failure = None;
        }
    }

    /// Fetches ahead of time; the old value does where that fails.
    fn refresh(
        &self,
        state: MutexGuard<'_, State<T>>,
        deadline: &Deadline,
        old: Arc<T>,
        fetch: impl FnOnce(&Deadline) -> Result<Fetched<T>>,
    ) -> Arc<T> {
        let soon = Deadline::after(deadline.remaining().min(REFRESH_TIMEOUT));
        self.fetch(state, &soon, fetch).unwrap_or_else(|error| {
            log::warn!("credentials could not be refreshed, the old ones are still valid: {error}");
            old
        })
    }

    fn fetch(
        &self,
        mut state: MutexGuard<'_, State<T>>,
        deadline: &Deadline,
        fetch: impl FnOnce(&Deadline) -> Result<Fetched<T>>,
    ) -> Result<Arc<T>> {
        state.fetching = true;
        drop(state);
        let turn = Turn(self);
        let outcome = fetch(deadline);
        let (wall, now) = (self.clock)();
        let mut state = lock(&self.state);
        let outcome = match outcome {
            Ok((value, expires)) => {
                let held = Held::new(value, expires, wall, now);
                let value = Arc::clone(&held.value);
                state.held = Some(held);
                state.failure = None;
                Ok(value)
            }
            Err(error) => {
                // Whoever ran out of time says nothing about those that have more. They have waited long
                // enough not to hammer.
                let counts = error.kind() != ErrorKind::TimedOut || !deadline.expired();
                state.failure = counts.then(|| (now, error.clone()));
                Err(error)
            }
        };
        drop(state);
        drop(turn);
        outcome
    }
}

impl<T> State<T> {
    /// The last failure, while it is too early for another attempt.
    fn paused(&self, now: Instant, pause: Duration) -> Option<Error> {
        let (at, error) = self.failure.as_ref()?;
        (now.saturating_duration_since(*at) < pause).then(|| error.clone())
    }
}

impl<T> Held<T> {
    fn new(value: T, expires: Option<SystemTime>, wall: SystemTime, now: Instant) -> Held<T> {
        let value = Arc::new(value);
        let Some(expires) = expires else { return Held { value, refresh_at: None, ends_at: None } };
        let left = expires.duration_since(wall).unwrap_or_default();
        let life = if left.is_zero() {
            log::warn!(
                "the credentials that came are expired by this machine's clock: is it right?"
            );
            LIFE_OF_EXPIRED
        } else {
            left
        };
        let margin = MARGIN_MAX.min(life / 4);
        // A time beyond the clock's range never comes.
        Held { value, refresh_at: now.checked_add(life - margin), ends_at: now.checked_add(life) }
    }
}

/// The turn to fetch. Given back also when the fetch panics, so that nobody waits for ever.
struct Turn<'a, T>(&'a Refreshing<T>);

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        lock(&self.0.state).fetching = false;
        self.0.changed.notify_all();
    }
}

/// Without the value, which is a secret.
impl<T> fmt::Debug for Refreshing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.state);
        f.debug_struct("Refreshing")
            .field("held", &state.held.is_some())
            .field("fetching", &state.fetching)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
