//! What the tests count beside passed and failed: `tests/run` prints the sums at its end.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::io::Write;

/// Adds to a figure of the run: one line `name<TAB>number` in the file that the environment names. The
/// name is a plural, as it is printed: `crash points`.
pub fn add(name: &str, number: u64) {
    let Some(path) = std::env::var_os("SYNCLINE_TEST_FIGURES") else { return };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    // One write: other processes append to the same file.
    file.write_all(format!("{name}\t{number}\n").as_bytes()).unwrap();
}

/// Whether this is the longer run (`tests/run --long`).
pub fn long() -> bool {
    std::env::var_os("SYNCLINE_TEST_LONG").is_some_and(|value| !value.is_empty())
}
