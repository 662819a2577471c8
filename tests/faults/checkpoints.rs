//! Every request of a save of a checkpoint fails in every way: once, and from there on.

use std::sync::atomic::{AtomicUsize, Ordering};

use syncline::HttpConfig;
use syncline::checkpoint::CheckpointStore;

use crate::cut::prepared;
use crate::figures;
use crate::jobs::{Job, Medium, close, save};
use crate::judge::judge;
use crate::seed::seed;
use crate::service::{Service, Snapshot};
use crate::side_by_side::side_by_side;
use crate::ways::{
    self, Way, assert_told, disturb_if, hangs, http, in_every_way, is_patient, is_terminal,
    status_500,
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

fn each_request(scheme: &str, way: Way, nth: usize, for_good: bool) {
    let snapshot = prepared(scheme);
    let requests = Saving::begin(scheme, &snapshot, for_good).undisturbed();
    let stride = if figures::long() { 1 } else { STRIDE };
    // From another place in each run, and of each way.
    let first = (nth + seed() as usize % stride) % stride;
    let faults = AtomicUsize::new(0);
    side_by_side((first..requests).step_by(stride), |at| {
        let saving = Saving::begin(scheme, &snapshot, for_good);
        faults.fetch_add(saving.fails_at(way, at), Ordering::SeqCst);
    });
    figures::add("faults injected", faults.into_inner() as u64);
}

/// A save to a service that holds a base.
struct Saving<'a> {
    scheme: &'a str,
    service: Service,
    checkpoints: CheckpointStore,
    for_good: bool,
}

impl<'a> Saving<'a> {
    fn begin(scheme: &'a str, snapshot: &Snapshot, for_good: bool) -> Saving<'a> {
        let service = Service::start(scheme);
        service.restore(snapshot);
        let http = if for_good { HttpConfig::new().attempts_max(1) } else { http() };
        let checkpoints = service.open_with(service.settings().http(http));
        Saving { scheme, service, checkpoints, for_good }
    }

    /// How many requests it makes when none fails.
    fn undisturbed(self) -> usize {
        let fault = status_500(&self.service);
        let disturbed = disturb_if(&self.service, fault, |_, _| false);
        Job::Save.run(&self.checkpoints).unwrap();
        assert!(disturbed.requests() > 2, "{} requests", disturbed.requests());
        disturbed.requests()
    }

    /// Returns how many requests failed.
    fn fails_at(self, way: Way, at: usize) -> usize {
        let Saving { scheme, service, checkpoints, for_good } = self;
        let fault = way(&service);
        let (waits, namer) = (hangs(&fault), Service::start(scheme));
        let disturbed = disturb_if(&service, fault.clone(), move |number, request| {
            let hit = if for_good { number >= at } else { number == at };
            // The commit itself may take its time.
            hit && !(waits && is_patient(&namer.operation(request)))
        });
        let outcome = Job::Save.run(&checkpoints);
        service.unhook();
        let what = format!("{scheme} {fault:?} at {at}: {outcome:?}");
        assert!(disturbed.requests() > at, "{what}: there was no such request");
        let faults = disturbed.faults();
        assert!(faults > 0 || waits, "{what}: nothing failed");
        match &outcome {
            Err(error) if faults > 0 && (for_good || is_terminal(&fault)) => {
                assert_told(error, &fault, &what);
            }
            outcome => assert!(outcome.is_ok(), "{what}"),
        }
        judge(&service, Job::Save, outcome.is_ok(), &what);
        save(&checkpoints, AGAIN).unwrap_or_else(|e| panic!("{what}: again: {e}"));
        close(checkpoints, &what);
        faults
    }
}
