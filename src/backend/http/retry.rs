//! What is tried again, when, and how fast the store as a whole goes on: pure policy, the same for all
//! object stores.
//!
//! Pauses double and are drawn from zero to their bound ("full jitter"), so that many clients that failed
//! together do not come back together. A server that asks for less slows every thread of the store:
//! requests then start one interval apart, the interval doubles with such an answer and shrinks with each
//! success. Answers to requests that were under way when it doubled say nothing new: otherwise a store
//! with many threads would slow down far more than one with few. Source of the shape: Amazon Builders'
//! Library, "Timeouts, retries and backoff with jitter".

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::limits::{
    ATTEMPTS_FIRST_CONTACT, PACE_FIRST, PACE_MAX, RECONNECT_PAUSE_MAX, RETRY_PAUSE_FIRST,
    RETRY_PAUSE_MAX, THROTTLED_ATTEMPTS_FACTOR,
};
use crate::sync::{AtomicBool, Mutex, Ordering, lock, sleep};
use crate::time::Deadline;

/// What an attempt's failure calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Another attempt cannot help.
    Terminal,
    /// Try again after a pause.
    Retry,
    /// Try again after a pause, not before the time the server named; the whole store slows down.
    Throttled(Option<Duration>),
    /// The server could not be reached: try again, but not for long if it never was.
    Unreachable,
    /// What was wrong has been set right (a region, a clock, a credential): try again at once. Each
    /// caller sees to it that this comes a bounded number of times.
    Corrected,
}

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub error: Error,
    pub verdict: Verdict,
}

impl Failure {
    pub fn terminal(error: Error) -> Failure {
        Failure { error, verdict: Verdict::Terminal }
    }
}

impl From<Error> for Failure {
    /// An error from below the request, such as absent credentials.
    fn from(error: Error) -> Failure {
        Failure::terminal(error)
    }
}

/// Runs the attempts of all requests of one store.
#[derive(Debug)]
pub(crate) struct Retrier {
    attempts_max: u32,
    /// Whether the server ever answered.
    reached: AtomicBool,
    pace: Mutex<Pace>,
}

/// How far apart the store's requests start.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    next_start: Instant,
    /// When the interval last doubled.
    slowed: Option<Instant>,
}

impl Retrier {
    pub fn new(attempts_max: u32) -> Retrier {
        Retrier {
            attempts_max: attempts_max.max(1),
            reached: AtomicBool::new(false),
            pace: Mutex::new(Pace {
                interval: Duration::ZERO,
                next_start: Instant::now(),
                slowed: None,
            }),
        }
    }

    /// Calls `attempt`, with the 1-based number of the attempt, until it succeeds, cannot succeed, or
    /// attempts or time are used up. The error is the last attempt's, with their number.
    pub fn run<T>(
        &self,
        deadline: &Deadline,
        mut attempt: impl FnMut(u32) -> Result<T, Failure>,
    ) -> Result<T> {
        let mut number = 1;
        let mut first: Option<Error> = None;
        loop {
            self.keep_pace(deadline);
            let started = Instant::now();
            let Failure { error, verdict } = match attempt(number) {
                Ok(value) => {
                    self.reached.store(true, Ordering::Relaxed);
                    lock(&self.pace).shrink();
                    return Ok(value);
                }
                Err(failure) => failure,
            };
            // What is terminal is seldom the server's word: absent keys, a certificate.
            if !matches!(verdict, Verdict::Unreachable | Verdict::Terminal) {
                self.reached.store(true, Ordering::Relaxed);
            }
            let draw = random_fraction();
            let pause = self.pause_after(verdict, number, draw, started);
            let in_time = |pause: &Duration| *pause < deadline.remaining();
            let Some(pause) = pause.filter(in_time) else {
                return Err(finish(error, first, number, deadline));
            };
            log::debug!("attempt {number} failed, the next follows in {pause:?}: {error}");
            first.get_or_insert(error);
            sleep(pause);
            number += 1;
        }
    }

    /// The pause after the attempt that `started` then; `None` if no other is to follow. `draw` is random in
    /// `0..1`.
    fn pause_after(
        &self,
        verdict: Verdict,
        number: u32,
        draw: f64,
        started: Instant,
    ) -> Option<Duration> {
        let (attempts_max, pause_max) = match verdict {
            Verdict::Terminal => return None,
            Verdict::Corrected => return Some(Duration::ZERO),
            Verdict::Unreachable if !self.reached.load(Ordering::Relaxed) => {
                (self.attempts_max.min(ATTEMPTS_FIRST_CONTACT), RETRY_PAUSE_MAX)
            }
            // A server that was there comes back, and a refused connection costs it nothing.
            Verdict::Unreachable => (u32::MAX, RECONNECT_PAUSE_MAX),
            // It is there and will take the request. Where one attempt was asked for, it is one.
            Verdict::Throttled(_) if self.attempts_max > 1 => {
                (self.attempts_max.saturating_mul(THROTTLED_ATTEMPTS_FACTOR), RETRY_PAUSE_MAX)
            }
            _ => (self.attempts_max, RETRY_PAUSE_MAX),
        };
        let named = match verdict {
            Verdict::Throttled(named) => Some(named.unwrap_or_default()),
            _ => None,
        };
        // Also after the last attempt: the other threads go on.
        if let Some(at_least) = named {
            lock(&self.pace).slow_down(started, Instant::now(), at_least);
        }
        if number >= attempts_max {
            return None;
        }
        let doubled = RETRY_PAUSE_FIRST.saturating_mul(1 << (number - 1).min(16));
        let pause = doubled.min(pause_max).mul_f64(draw);
        Some(pause.saturating_add(named.unwrap_or_default()))
    }

    /// Waits for this request's turn, as long as the deadline allows.
    fn keep_pace(&self, deadline: &Deadline) {
        let wait = lock(&self.pace).turn(Instant::now());
        if !wait.is_zero() {
            sleep(wait.min(deadline.remaining()));
        }
    }
}

impl Pace {
    /// How long the caller must wait for its turn, which is then taken.
    fn turn(&mut self, now: Instant) -> Duration {
        if self.interval.is_zero() && self.next_start <= now {
            return Duration::ZERO;
        }
        let start = self.next_start.max(now);
        self.next_start = start + self.interval;
        start - now
    }

    fn slow_down(&mut self, started: Instant, now: Instant, at_least: Duration) {
        if self.slowed.is_none_or(|slowed| started >= slowed) {
            self.interval = (self.interval * 2).clamp(PACE_FIRST, PACE_MAX);
            self.slowed = Some(now);
        }
        self.next_start = self.next_start.max(now + at_least.min(RETRY_PAUSE_MAX));
    }

    fn shrink(&mut self) {
        // A tenth at a time, and gone when it no longer matters.
        self.interval = self.interval * 9 / 10;
        if self.interval < PACE_FIRST / 10 {
            self.interval = Duration::ZERO;
        }
    }
}

/// The last error, with what was tried, and with the first one where that told something else.
fn finish(error: Error, first: Option<Error>, number: u32, deadline: &Deadline) -> Error {
    let mut error = error.with_attempts(number);
    if number > 1 {
        error = error.with_elapsed(deadline.elapsed());
    }
    if deadline.expired() && error.kind() == ErrorKind::Unavailable {
        error = error.with_kind(ErrorKind::TimedOut);
    }
    match first {
        Some(first) if first.detail() != error.detail() => error.with_first_cause(&first),
        _ => error,
    }
}

/// In `0..1`.
fn random_fraction() -> f64 {
    f64::from(crate::sync::random_u32()) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn failing(verdict: Verdict) -> Failure {
        let error = Error::new(ErrorKind::Unavailable, "put", "the server is not well");
        Failure { error, verdict }
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(60))
    }

    fn attempts_of(retrier: &Retrier, verdict: Verdict, deadline: &Deadline) -> (u32, Error) {
        let count = RefCell::new(0);
        let error = retrier
            .run(deadline, |number| -> Result<(), Failure> {
                *count.borrow_mut() = number;
                Err(failing(verdict))
            })
            .unwrap_err();
        (count.into_inner(), error)
    }

    #[test]
    fn terminal_errors_are_not_tried_again() {
        let (count, error) = attempts_of(&Retrier::new(5), Verdict::Terminal, &soon());
        assert_eq!((count, error.attempts()), (1, 1));
    }

    #[test]
    fn attempts_are_counted_and_told() {
        let (count, error) = attempts_of(&Retrier::new(4), Verdict::Retry, &soon());
        assert_eq!((count, error.attempts()), (4, 4));
        assert!(error.to_string().contains("tried 4 times"), "{error}");
    }

    #[test]
    fn a_server_never_reached_is_given_up_soon_and_one_that_was_there_waited_for() {
        let retrier = Retrier::new(4);
        let (count, _) = attempts_of(&retrier, Verdict::Unreachable, &soon());
        assert_eq!(count, ATTEMPTS_FIRST_CONTACT);
        retrier.run(&soon(), |_| Ok(())).unwrap();
        let started = Instant::now();
        // Longer than the pauses between four attempts.
        let deadline = Deadline::after(Duration::from_secs(2));
        let (count, _) = attempts_of(&retrier, Verdict::Unreachable, &deadline);
        assert!(count > 4 || started.elapsed() > Duration::from_millis(700), "{count}");
        let bound = |number| retrier.pause_after(Verdict::Unreachable, number, 1.0, started);
        assert_eq!(bound(1000), Some(RECONNECT_PAUSE_MAX));
    }

    #[test]
    fn no_pause_outlasts_the_deadline() {
        let deadline = Deadline::after(Duration::from_millis(50));
        let verdict = Verdict::Throttled(Some(Duration::from_secs(3600)));
        let (count, _) = attempts_of(&Retrier::new(9), verdict, &deadline);
        assert_eq!(count, 1);
    }

    #[test]
    fn pauses_double_up_to_their_bound() {
        let retrier = Retrier::new(u32::MAX);
        let now = Instant::now();
        let bound = |number| retrier.pause_after(Verdict::Retry, number, 1.0, now).unwrap();
        assert_eq!(bound(1), RETRY_PAUSE_FIRST);
        assert_eq!(bound(3), RETRY_PAUSE_FIRST * 4);
        assert_eq!(bound(40), RETRY_PAUSE_MAX);
        let named = Verdict::Throttled(Some(Duration::from_secs(7)));
        assert_eq!(retrier.pause_after(named, 1, 0.0, now), Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_throttled_store_starts_its_requests_apart_and_recovers() {
        let now = Instant::now();
        let mut pace = Pace { interval: Duration::ZERO, next_start: now, slowed: None };
        assert_eq!(pace.turn(now), Duration::ZERO);
        pace.slow_down(now, now, Duration::ZERO);
        assert_eq!(
            [pace.turn(now), pace.turn(now), pace.turn(now)],
            [0, 1, 2].map(|n| PACE_FIRST * n)
        );
        (0..20).for_each(|_| pace.slow_down(now, now, Duration::ZERO));
        assert_eq!(pace.interval, PACE_MAX);
        (0..200).for_each(|_| pace.shrink());
        assert_eq!(pace.turn(now + Duration::from_secs(60)), Duration::ZERO);
    }

    /// However many requests are under way when a store is throttled, they slow it down once.
    #[test]
    fn a_burst_of_throttled_answers_counts_once() {
        let before = Instant::now();
        let now = before + Duration::from_millis(50);
        let mut pace = Pace { interval: Duration::ZERO, next_start: before, slowed: None };
        (0..64).for_each(|_| pace.slow_down(before, now, Duration::ZERO));
        assert_eq!(pace.interval, PACE_FIRST);
        pace.slow_down(now, now + PACE_FIRST, Duration::ZERO);
        assert_eq!(pace.interval, PACE_FIRST * 2);
    }

    #[test]
    fn a_throttled_request_has_more_attempts() {
        let count = |attempts_max| {
            attempts_of(&Retrier::new(attempts_max), Verdict::Throttled(None), &soon()).0
        };
        assert_eq!([count(1), count(3)], [1, 3 * THROTTLED_ATTEMPTS_FACTOR]);
    }

    #[test]
    fn the_first_cause_is_not_forgotten() {
        let retrier = Retrier::new(2);
        let error = retrier
            .run(&soon(), |number| -> Result<(), Failure> {
                let detail = if number == 1 { "503 SlowDown" } else { "connection refused" };
                let error = Error::new(ErrorKind::Unavailable, "put", detail);
                Err(Failure { error, verdict: Verdict::Retry })
            })
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("connection refused") && text.contains("SlowDown"), "{text}");
    }
}
