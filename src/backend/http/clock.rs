//! The server's time, where this machine's clock is too far off for signatures.

use std::time::{Duration, SystemTime};

use crate::sync::{AtomicU64, Ordering};

/// A clock further off than this is set right by the server's. Servers tolerate 15 minutes.
const TOLERANCE: Duration = Duration::from_secs(300);

/// This machine's clock, corrected once a server has said that it is wrong.
#[derive(Debug, Default)]
pub(crate) struct ServerClock {
    /// Seconds by which the server's clock is ahead, as the bits of an `i64`.
    ahead_secs: AtomicU64,
}

impl ServerClock {
    pub fn now(&self) -> SystemTime {
        let ahead = self.ahead_secs.load(Ordering::Relaxed) as i64;
        let by = Duration::from_secs(ahead.unsigned_abs());
        let now = SystemTime::now();
        let corrected = if ahead < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        corrected.unwrap_or(now)
    }

    /// Takes the server's time. Whether that changed ours by more than servers tolerate.
    pub fn follow(&self, server: SystemTime) -> bool {
        let off = |time: SystemTime| match server.duration_since(time) {
            Ok(ahead) => (ahead, ahead.as_secs() as i64),
            Err(behind) => (behind.duration(), -(behind.duration().as_secs() as i64)),
        };
        if off(self.now()).0 < TOLERANCE {
            return false;
        }
        let (_, seconds) = off(SystemTime::now());
        log::warn!("this machine's clock is {} s off the server's, which is used", -seconds);
        self.ahead_secs.store(seconds as u64, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_far_off_follows_and_one_near_stays() {
        let clock = ServerClock::default();
        assert!(!clock.follow(SystemTime::now() + TOLERANCE / 2));
        for server in [
            SystemTime::now() + Duration::from_secs(9000),
            SystemTime::now() - Duration::from_secs(9000),
        ] {
            assert!(clock.follow(server));
            let off = |a: SystemTime, b: SystemTime| a.duration_since(b).unwrap_or_default();
            let now = clock.now();
            assert!(off(now, server).max(off(server, now)) < TOLERANCE);
            assert!(!clock.follow(server), "the second time nothing changes");
        }
    }
}
