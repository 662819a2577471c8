//! A program that ends, or loses its server for good, at each request of what it does to a base: before the
//! request took effect, while it was sent, and after.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use syncline::HttpConfig;

use crate::figures;
use crate::jobs::{Done, Job, Medium, close, prepare};
use crate::judge::judge;
use crate::scripted::{Fault, Step};
use crate::service::{Service, Snapshot};

/// Where the last request that is heard stops.
#[derive(Debug, Clone, Copy)]
enum Point {
    /// Its body is not read.
    Before,
    /// All of it came, and nothing was done.
    Unheard,
    /// It took effect, and nobody learns of it.
    After,
}

/// Cuts the client off at its `at`-th request, from 0, for good. Returns how many it has made.
fn cut_at(service: &Service, at: usize, point: Point) -> Arc<AtomicUsize> {
    let made = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&made);
    service.on_request(move |_, _| {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        match point {
            _ if number < at => None,
            Point::Unheard if number == at => Some(Fault::Instead(Step::Reset)),
            Point::After if number == at => Some(Fault::After(Step::Reset)),
            _ => Some(Fault::Early(Step::Reset)),
        }
    });
    made
}

/// A service with the base that every job finds.
pub fn prepared(scheme: &str) -> Snapshot {
    let service = Service::start(scheme);
    prepare(&service);
    service.snapshot()
}

fn each_request(scheme: &str, job: Job) {
    let snapshot = prepared(scheme);
    let mut points = 0;
    for point in [Point::Before, Point::Unheard, Point::After] {
        for at in 0.. {
            let service = Service::start(scheme);
            service.restore(&snapshot);
            let made = cut_at(&service, at, point);
            let settings = service.settings().http(HttpConfig::new().attempts_max(1));
            let checkpoints = service.open_with(settings);
            let outcome = job.run(&checkpoints);
            let what = format!("{scheme} {job:?} cut {point:?} {at}: {outcome:?}");
            close(checkpoints, &what);
            service.unhook();
            assert!(!matches!(outcome, Ok(Done::Some)), "{what}");
            judge(&service, job, outcome.is_ok(), &what);
            if made.load(Ordering::SeqCst) <= at {
                outcome.unwrap_or_else(|e| panic!("nothing was cut: {e}"));
                assert!(at > 2, "{scheme} {job:?} makes {at} requests");
                break;
            }
            points += 1;
        }
    }
    println!("{scheme} {job:?}: cut off at {points} points");
    figures::add("requests cut off", points);
}

macro_rules! each_request {
    ($($name:ident: $job:expr;)*) => {
        mod s3 {
            use super::*;
            $(#[test] fn $name() { each_request("s3", $job); })*
        }
        mod az {
            use super::*;
            $(#[test] fn $name() { each_request("az", $job); })*
        }
    };
}

each_request! {
    of_a_save: Job::Save;
    of_a_compressed_save: Job::Compressed;
    of_an_overwrite: Job::Overwrite;
    of_a_prune: Job::Prune;
    of_a_gc: Job::Gc;
}
