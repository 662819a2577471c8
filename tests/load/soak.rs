//! Saves, restores, verifications, prunes and collections side by side for a long time, while faults come at
//! random. What was finalized and not pruned restores, nothing hangs, and nothing grows.
//!
//! `SYNCLINE_TEST_SOAK_SECONDS` says for how long, in all. The seed is printed; `SYNCLINE_TEST_SOAK_SEED` sets it.

mod faults;
mod jobs;
mod resources;

use std::collections::BTreeMap;
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
    let told = program::run_for(Duration::from_secs(seconds), &[], &task);
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for line in &told {
        let (name, number) = line.rsplit_once(' ').unwrap();
        counts.insert(name, number.parse().unwrap());
    }
    // Those of servers; the child tells those of files.
    if place.server().is_some() {
        counts.insert("faults injected", injected.load(Ordering::Relaxed));
    }
    println!("{medium}: {counts:?}");
    for must in jobs::MUST.into_iter().chain(["faults injected"]) {
        assert!(counts.get(must).is_some_and(|count| *count > 0), "{medium} without {must}");
    }
    for (name, count) in counts {
        figures::add(&format!("soak: {name}"), count);
    }
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
