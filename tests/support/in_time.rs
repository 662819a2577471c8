//! What must not take for ever.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Nothing in these tests takes so long.
pub const STUCK: Duration = Duration::from_secs(120);

/// Runs `f`, which must not take for ever.
#[track_caller]
pub fn in_time<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || sender.send(f()));
    let outcome = receiver.recv_timeout(STUCK);
    assert!(!matches!(outcome, Err(RecvTimeoutError::Timeout)), "it is stuck");
    let _ = thread.join().unwrap();
    outcome.unwrap()
}
