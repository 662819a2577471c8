//! What tests choose at random, and how a run is repeated.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

/// As the drivers of the program that is killed have it: any text, drawn anew by each run that is not told one.
const SEED: &str = "SYNCLINE_TEST_SEED";

/// The seed of this run. A test that asks for it tells it if it fails.
pub fn seed() -> u64 {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let fresh = || (RandomState::new().build_hasher().finish() >> 32).to_string();
        std::env::var(SEED).unwrap_or_else(|_| fresh())
    });
    println!("{SEED}={}", *TEXT);
    // FNV-1a, which is the same in every run.
    TEXT.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
