//! How a command ends when it does not succeed: the message on standard error and the exit status.
//!
//! | status | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | a checkpoint's data is damaged, incomplete or missing |
//! | 2 | usage: arguments, URIs, keys or settings that cannot be used as given |
//! | 3 | anything else: a missing object, no permission, a full disk |
//! | 129, 130, 143 | stopped by SIGHUP, SIGINT (Ctrl-C), SIGTERM |
//!
//! A closed pipe (`syncline cat URI | head -c1`) is not a failure: the reader had enough.

use std::fmt;
use std::io;
use std::path::Path;

use nix::sys::signal::Signal;
use syncline::{Error, ErrorKind};

/// Exit status: a checkpoint's data is damaged, incomplete or missing.
const DAMAGED: u8 = 1;
/// Exit status: usage.
const USAGE: u8 = 2;
/// Exit status: anything else.
const OTHER: u8 = 3;

/// Why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// The library's error.
    Store(Error),
    /// An argument that cannot be used.
    Usage(String),
    /// A checkpoint's data is damaged, incomplete or missing.
    Damaged(String),
    /// Any other failure.
    Other(String),
    /// A signal asked the command to stop.
    Stopped(Signal),
    /// The reader of standard output went away.
    ClosedPipe,
}

impl Failure {
    /// A failed system call on a local file: operation, object and cause.
    pub fn io(operation: &str, path: &Path, error: &io::Error) -> Failure {
        Failure::Other(format!("{operation} {}: {error}", path.display()))
    }

    /// The exit status. In the checkpoint commands, data that is not there or not whole is status 1;
    /// an object command that misses its object has failed like any other.
    pub fn status(&self, of_checkpoint: bool) -> u8 {
        match self {
            Failure::Store(error) => match error.kind() {
                ErrorKind::InvalidInput => USAGE,
                ErrorKind::NotFound
                | ErrorKind::ChecksumMismatch
                | ErrorKind::Corrupt
                | ErrorKind::Incomplete
                    if of_checkpoint =>
                {
                    DAMAGED
                }
                _ => OTHER,
            },
            Failure::Usage(_) => USAGE,
            Failure::Damaged(_) => DAMAGED,
            Failure::Other(_) => OTHER,
            Failure::Stopped(signal) => status_of(*signal),
            Failure::ClosedPipe => 0,
        }
    }
}

/// The exit status of a command that a signal stopped, as a shell would give it.
pub fn status_of(signal: Signal) -> u8 {
    // Signal numbers are below 64.
    128 + signal as i32 as u8
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Store(error) => error.fmt(f),
            Failure::Usage(text) | Failure::Damaged(text) | Failure::Other(text) => {
                f.write_str(text)
            }
            Failure::Stopped(signal) => write!(f, "stopped by {signal}"),
            Failure::ClosedPipe => f.write_str("the reader of standard output went away"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Store(error)
    }
}
