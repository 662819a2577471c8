//! Saves, restores, verifications, prunes and collections side by side for a long time, while faults come at
//! random. What was finalized and not pruned restores, nothing hangs, and nothing grows.
//!
//! `SYNCLINE_TEST_SOAK_SECONDS` says for how long, in all. The seed is printed; `SYNCLINE_TEST_SOAK_SEED` sets it.

mod faults;
mod jobs;
mod resources;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::place::Place;
use crate::{child as program, figures};

pub use jobs::child;

/// Seconds of all three, unless the environment says otherwise.
const SECONDS: u64 = 6;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn soak(place: Place) {
    let seconds = number("SYNCLINE_TEST_SOAK_SECONDS").unwrap_or(SECONDS);
    let millis = Duration::from_secs(seconds).as_millis() / 3;
    let seed = number("SYNCLINE_TEST_SOAK_SEED").unwrap_or_else(faults::fresh_seed);
    let medium = place.medium;
    println!("SYNCLINE_TEST_SOAK_SEED={seed} ({medium})");
    let injected = Arc::new(AtomicU64::new(0));
    let (counted, dice) = (Arc::clone(&injected), faults::Dice::new(seed));
    place.on_request(move |request| {
        let fault = faults::of_server(medium, request, &dice)?;
        counted.fetch_add(1, Ordering::Relaxed);
        Some(fault)
    });
    let task = format!("soak {medium} {} {} {millis} {seed}", place.base, place.url);
    let told = program::run(&[], &task);
    for line in &told {
        let (name, number) = line.rsplit_once(' ').unwrap();
        figures::add(&format!("soak: {name}"), number.parse().unwrap());
    }
    // Those of servers; the child tells those of files.
    if place.server().is_some() {
        figures::add("soak: faults injected", injected.load(Ordering::Relaxed));
    }
    println!("{medium}: {told:?}, {} faults of the server", injected.load(Ordering::Relaxed));
}

#[test]
fn files() {
    soak(Place::tmpfs());
}

#[test]
fn s3() {
    soak(Place::new("s3"));
}

#[test]
fn azure() {
    soak(Place::new("az"));
}
