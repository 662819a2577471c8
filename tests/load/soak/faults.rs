//! What goes wrong, by the dice.

use std::sync::Mutex;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::place::refusal;
use crate::s3_model::Fault;
use crate::scripted::{Request, Step};

/// One in so many requests goes wrong.
const RARITY: u64 = 25;

/// Numbers that a seed decides, as far as the order in which threads ask for them.
pub struct Dice(Mutex<u64>);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(Mutex::new(seed | 1))
    }

    /// Below `sides`.
    pub fn roll(&self, sides: u64) -> u64 {
        let mut x = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *x ^= *x << 13;
        *x ^= *x >> 7;
        *x ^= *x << 17;
        (*x >> 11) % sides
    }
}

pub fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() >> 16
}

/// What happens to a request.
pub fn of_server(medium: &str, _: &Request, dice: &Dice) -> Option<Fault> {
    if dice.roll(RARITY) != 0 {
        return None;
    }
    let stall = Duration::from_millis(100 + dice.roll(900));
    Some(match dice.roll(10) {
        0 => Fault::Instead(refusal(medium, 500, "InternalError").into()),
        1 => Fault::Instead(refusal(medium, 503, "SlowDown").header("retry-after", "0").into()),
        2 => Fault::Early(refusal(medium, 503, "ServerBusy").into()),
        3 => Fault::Early(Step::Reset),
        4 => Fault::Instead(Step::Close),
        5 => Fault::Instead(Step::Hang(stall)),
        // The reply is lost.
        6 => Fault::After(Step::Reset),
        7 => Fault::After(Step::Hang(stall)),
        8 => Fault::Changed(|answer| answer.truncate(20)),
        // Refused for good: the call fails.
        _ => Fault::Instead(refusal(medium, 403, "AccessDenied").into()),
    })
}

/// Lets files of this process go wrong for a moment: no descriptor is left, or files may not grow.
pub fn of_files(dice: &Dice) {
    let (resource, least) = match dice.roll(2) {
        0 => (Resource::RLIMIT_NOFILE, 3),
        _ => (Resource::RLIMIT_FSIZE, 1000 * dice.roll(100)),
    };
    let (soft, hard) = getrlimit(resource).unwrap();
    setrlimit(resource, least, hard).unwrap();
    std::thread::sleep(Duration::from_millis(1 + dice.roll(20)));
    setrlimit(resource, soft, hard).unwrap();
}
