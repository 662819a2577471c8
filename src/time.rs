//! Time as the crate sees it: a deadline made once at the API, and checkpoint timestamps.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

use crate::error::{Error, Result};

/// The present moment, by which waits end.
#[cfg(not(all(test, shuttle)))]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(all(test, shuttle))]
pub(crate) use crate::sync::model::now;

/// The moment by which a call must have made progress. One value, made at the API, passed down.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    started: Instant,
    at: Option<Instant>,
}

impl Deadline {
    /// `timeout` from now. A timeout too large for the clock means never.
    pub fn after(timeout: Duration) -> Deadline {
        let started = now();
        Deadline { started, at: started.checked_add(timeout) }
    }

    /// For the work that somebody waits for until this one: a twentieth earlier, at most a second, so
    /// that what the work found out reaches the one who waits.
    pub fn for_work(&self) -> Deadline {
        let sooner = |at: Instant| {
            let margin = at.saturating_duration_since(self.started) / 20;
            at.checked_sub(margin.min(Duration::from_secs(1))).unwrap_or(at)
        };
        Deadline { started: self.started, at: self.at.map(sooner) }
    }

    /// As long as this one, from `moment` on.
    pub fn restarted(&self, moment: Instant) -> Deadline {
        let at = self.at.and_then(|at| moment.checked_add(at.duration_since(self.started)));
        Deadline { started: moment, at }
    }

    /// As long as this one, from now on.
    pub fn renewed(&self) -> Deadline {
        self.restarted(now())
    }

    /// Time left; zero when it has passed, the longest duration when it never does.
    pub fn remaining(&self) -> Duration {
        match self.at {
            Some(at) => at.saturating_duration_since(now()),
            None => Duration::MAX,
        }
    }

    /// Whether it has passed.
    pub fn expired(&self) -> bool {
        self.remaining().is_zero()
    }

    /// Time since the deadline was made.
    pub fn elapsed(&self) -> Duration {
        now().saturating_duration_since(self.started)
    }

    /// The instant itself, for waits that take one; `None` when it never comes.
    pub fn instant(&self) -> Option<Instant> {
        self.at
    }
}

/// The timestamp in a checkpoint's name: `YYYYMMDD-HHMMSS-mmm`, UTC.
///
/// All ranks of one save use the same value, given by the caller or broadcast, never each its own
/// clock. Any name of letters, digits, `-` and `_` is read (the ancestor writes no milliseconds).
/// The order is that of the text, which is that of time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Timestamp(String);

/// Longest timestamp in a name.
const TIMESTAMP_BYTES_MAX: usize = 64;

impl Timestamp {
    /// The present moment by this machine's clock. Call it in one process only and hand it to all ranks.
    pub fn now() -> Timestamp {
        Timestamp::from_system_time(SystemTime::now())
    }

    /// The timestamp of a moment.
    pub fn from_system_time(time: SystemTime) -> Timestamp {
        let time = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        Timestamp(time.strftime("%Y%m%d-%H%M%S-%3f").to_string())
    }

    /// The text, as it stands in keys.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    /// Refuses text that could not stand in a key: empty, longer than 64 bytes, or with anything but
    /// ASCII letters, digits, `-` and `_`.
    fn from_str(text: &str) -> Result<Timestamp> {
        let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        if text.is_empty() || text.len() > TIMESTAMP_BYTES_MAX || !text.bytes().all(plain) {
            return Err(Error::invalid("parse timestamp", format!("{text:?} is not a timestamp"))
                .with_remedy("use YYYYMMDD-HHMMSS-mmm, the same on every rank"));
        }
        Ok(Timestamp(text.to_owned()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A moment as RFC 3339 in UTC, as manifests carry it. Nine fractional digits and `+00:00`, always:
/// the ancestor compares these texts to find the newest of two manifests of one step.
pub fn rfc3339(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%S.%9f+00:00").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_have_the_documented_shape() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_007);
        let ts = Timestamp::from_system_time(time);
        assert_eq!(ts.as_str(), "20231114-221320-007");
        assert_eq!(rfc3339(time), "2023-11-14T22:13:20.007000000+00:00");
        assert_eq!(ts.as_str().parse::<Timestamp>().unwrap(), ts);
    }

    #[test]
    fn timestamps_that_escape_are_refused() {
        for bad in ["", "a/b", "..", "a b", "x\n", &"1".repeat(65)] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn work_ends_before_its_waiter() {
        for seconds in [1, 10, 1000] {
            let waiter = Deadline::after(Duration::from_secs(seconds));
            let (at, sooner) = (waiter.instant().unwrap(), waiter.for_work().instant().unwrap());
            let margin = at - sooner;
            assert!(margin > Duration::ZERO && margin <= Duration::from_secs(1), "{margin:?}");
        }
        assert!(Deadline::after(Duration::MAX).for_work().instant().is_none());
    }

    #[test]
    fn a_deadline_far_away_never_comes() {
        assert!(!Deadline::after(Duration::MAX).expired());
        assert!(Deadline::after(Duration::ZERO).expired());
    }
}
