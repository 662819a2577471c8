//! Every request of a save of a checkpoint fails in every way: once, and from there on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use syncline::HttpConfig;

use crate::cut::prepared;
use crate::figures;
use crate::jobs::{Job, Medium, close, save};
use crate::judge::judge;
use crate::service::{Service, Snapshot};
use crate::side_by_side::side_by_side;
use crate::ways::{
    self, Way, assert_told, disturb_if, hangs, http, in_every_way, is_patient, is_terminal,
};

/// What the same store saves when nothing fails any more: all its buffers are there, and its threads.
const AGAIN: u64 = 5;

/// Each way is tried at every so-many-th request, from a place of its own; in the longer run at each.
const STRIDE: usize = 5;

mod once {
    mod s3 {
        super::super::in_every_way!("s3", super::super::fails_once);
    }
    mod az {
        super::super::in_every_way!("az", super::super::fails_once);
    }
}

fn fails_once(scheme: &str, way: Way, number: usize) {
    each_request(scheme, way, number, false);
}

macro_rules! from_there_on {
    ($($way:ident)*) => {
        mod from_there_on {
            use super::*;
            mod s3 { use super::*; $(#[test] fn $way() { fails_for_good("s3", ways::$way); })* }
            mod az { use super::*; $(#[test] fn $way() { fails_for_good("az", ways::$way); })* }
        }
    };
}

from_there_on! { status_500 status_503 status_403 reply_lost_by_a_reset }

fn fails_for_good(scheme: &str, way: Way) {
    each_request(scheme, way, 0, true);
}

fn each_request(scheme: &str, way: Way, first: usize, for_good: bool) {
    let snapshot = prepared(scheme);
    let stride = if figures::long() { 1 } else { STRIDE };
    let (faults, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    let places = (first % stride..).step_by(stride);
    side_by_side(places.take_while(|_| !ended.load(Ordering::SeqCst)), |at| {
        match fails_at(scheme, &snapshot, way, at, for_good) {
            true => drop(faults.fetch_add(1, Ordering::SeqCst)),
            false => ended.store(true, Ordering::SeqCst),
        }
    });
    let faults = faults.into_inner();
    assert!(faults > 2, "{scheme}: {faults} faults");
    figures::add("faults injected", faults);
}

/// Whether there was such a request.
fn fails_at(scheme: &str, snapshot: &Snapshot, way: Way, at: usize, for_good: bool) -> bool {
    let service = Service::start(scheme);
    service.restore(snapshot);
    let fault = way(&service);
    let (waits, namer) = (hangs(&fault), Service::start(scheme));
    let made = disturb_if(&service, fault.clone(), move |number, request| {
        let hit = if for_good { number >= at } else { number == at };
        hit && !(waits && is_patient(&namer.operation(request)))
    });
    let http = if for_good { HttpConfig::new().attempts_max(1) } else { http() };
    let checkpoints = service.open_with(service.settings().http(http));
    let outcome = Job::Save.run(&checkpoints);
    service.unhook();
    let what = format!("{scheme} {fault:?} at {at}: {outcome:?}");
    let happened = made.load(Ordering::SeqCst) > at;
    match &outcome {
        Err(error) if happened && (for_good || is_terminal(&fault)) => {
            assert_told(error, &fault, &what);
        }
        outcome => assert!(outcome.is_ok(), "{what}"),
    }
    judge(&service, Job::Save, outcome.is_ok(), &what);
    save(&checkpoints, AGAIN).unwrap_or_else(|e| panic!("{what}: again: {e}"));
    close(checkpoints, &what);
    happened
}
