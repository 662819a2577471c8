//! Allocations, and bytes copied in user space, of each part by each way in and out.
//!
//! Counted in a child, of all its threads; the server of `s3` and `az` is another child. What an object
//! costs once falls out of the difference between one of `PARTS` parts and one of twice as many.

use crate::child;
use crate::endpoint::Endpoint;
use crate::taps::Tally;
use crate::work::{WAYS_IN, WAYS_OUT, Work, part_bytes};

const PARTS: usize = 8;

/// A thread that waits for the first time makes itself a place in the line, whenever that is; and a part
/// that comes early or late may find a list that must grow. What a part costs it costs in every pass, so
/// the least of them counts.
const PASSES: usize = 4;

/// The most that one part may cost.
#[derive(Debug)]
struct Bound {
    allocations: f64,
    /// Bytes copied in user space for each byte of the object.
    copies: u64,
    /// The same as the engine's own report has it.
    reported: u64,
    /// Bytes copied for each part beside its own: its job on the way through the queue, and on servers the
    /// text of request and answer.
    beside: u64,
}

/// Measured: 2,652 for parts that are written, 2,480 for those that are read.
const COPIED_BESIDE_BYTES_MAX: u64 = 3 * 1024;

/// Measured: 28,070 for parts that are written; 33,880 for those that are read, of whose body up to 4 KiB come
/// with the head. Nearly all is ureq's: it keeps a request's headers several times.
const COPIED_BESIDE_BYTES_MAX_HTTP: u64 = 36 * 1024;

/// Measured: 126.25 (S3) and 136.1 (Azure), of which ureq and the signature make nearly all, and the veil over
/// what ureq logs (`http/veil.rs`) eleven.
const UPLOAD_ALLOCATIONS_MAX_S3: f64 = 128.0;
const UPLOAD_ALLOCATIONS_MAX_AZ: f64 = 138.0;

/// Measured: 119.75 (S3) and 114.75 (Azure), with the same veil.
const RANGE_ALLOCATIONS_MAX_S3: f64 = 122.0;
const RANGE_ALLOCATIONS_MAX_AZ: f64 = 117.0;

/// Measured: one of the list of parts, and a node of a tree for each four.
const MEMORY_ALLOCATIONS_MAX: f64 = 1.25;

/// `write_borrowed` makes one loan for each call, and a part here is a call.
const LOAN_ALLOCATIONS: f64 = 1.0;

/// `write_owned` finds room for the first part alone where an object of one part is put whole: from then on
/// its parts are others' memory, and one more allocation here or there is not for each.
const SLACK_ALLOCATIONS_HTTP: f64 = 1.0;

fn bound(medium: &str, way: &str) -> Bound {
    let reads = way.starts_with("read");
    let http = matches!(medium, "s3" | "az");
    let allocations = match (medium, reads) {
        ("s3", false) => UPLOAD_ALLOCATIONS_MAX_S3,
        ("az", false) => UPLOAD_ALLOCATIONS_MAX_AZ,
        ("s3", true) => RANGE_ALLOCATIONS_MAX_S3,
        ("az", true) => RANGE_ALLOCATIONS_MAX_AZ,
        ("mem", false) => MEMORY_ALLOCATIONS_MAX,
        // The steady state allocates nothing.
        _ => 0.0,
    };
    let loans = if way == "write_borrowed" { LOAN_ALLOCATIONS } else { 0.0 };
    let slack = if http { SLACK_ALLOCATIONS_HTTP } else { 0.0 };
    let reported = u64::from(way == "write_chunk");
    // Memory as a medium is written and read by copies.
    let by_medium = u64::from(medium == "mem");
    Bound {
        allocations: allocations + loans + slack,
        copies: reported + by_medium,
        reported,
        beside: if http { COPIED_BESIDE_BYTES_MAX_HTTP } else { COPIED_BESIDE_BYTES_MAX },
    }
}

/// In a child: tells what objects of `PARTS` and of twice as many parts cost, by each way.
pub fn child(medium: &str, endpoint: &str) {
    let mut work = Work::on(medium, endpoint);
    work.prepare(2 * PARTS);
    for way in WAYS_IN.into_iter().chain(WAYS_OUT) {
        for parts in [PARTS, 2 * PARTS] {
            let passes = (0..PASSES).map(|_| {
                let before = Tally::now();
                let reported = match way.starts_with("read") {
                    true => work.read(way, parts).copied_bytes,
                    false => work.write(way, parts).copied_bytes,
                };
                let Tally { allocations, copied_bytes } = Tally::now() - before;
                [allocations, copied_bytes, reported]
            });
            let least = passes.reduce(|a, b| [0, 1, 2].map(|n| a[n].min(b[n]))).unwrap();
            let [allocations, copied, reported] = least;
            child::tell(format_args!("{way} {parts} {allocations} {copied} {reported}"));
        }
    }
}

/// What one part costs: allocations, bytes copied, and bytes copied as the engine reports them.
fn costs(told: &[String], way: &str) -> [f64; 3] {
    let of = |parts: usize| -> Vec<f64> {
        let start = format!("{way} {parts} ");
        let line = told.iter().find_map(|line| line.strip_prefix(&start)).expect("it was told");
        line.split(' ').map(|number| number.parse().unwrap()).collect()
    };
    let (few, many) = (of(PARTS), of(2 * PARTS));
    [0, 1, 2].map(|n| (many[n] - few[n]) / PARTS as f64)
}

fn parts_cost_no_more_than_they_must(medium: &str) {
    let endpoint = Endpoint::start(medium);
    let told = child::run(&[], &format!("parts {medium} {}", endpoint.url));
    let part = part_bytes(medium) as u64;
    for way in WAYS_IN.into_iter().chain(WAYS_OUT) {
        let bound = bound(medium, way);
        let [allocations, copied, reported] = costs(&told, way);
        println!("{medium} {way}: {allocations} allocations, {copied} copied, {reported} reported");
        assert!(
            allocations <= bound.allocations,
            "{medium} {way}: {allocations} allocations for a part, bound: {bound:?}"
        );
        assert!(
            copied <= (bound.copies * part + bound.beside) as f64,
            "{medium} {way}: {copied} bytes copied for a part of {part}, bound: {bound:?}"
        );
        assert_eq!(reported, (bound.reported * part) as f64, "{medium} {way}");
        // That the library's copies are seen, and not those of this file alone.
        assert!(medium != "mem" || copied >= part as f64, "{way}: {copied}");
    }
}

#[test]
fn parts_cost_no_more_than_they_must_mem() {
    parts_cost_no_more_than_they_must("mem");
}

#[test]
fn parts_cost_no_more_than_they_must_file() {
    parts_cost_no_more_than_they_must("file");
}

#[test]
fn parts_cost_no_more_than_they_must_direct() {
    parts_cost_no_more_than_they_must("direct");
}

#[test]
fn parts_cost_no_more_than_they_must_s3() {
    parts_cost_no_more_than_they_must("s3");
}

#[test]
fn parts_cost_no_more_than_they_must_az() {
    parts_cost_no_more_than_they_must("az");
}
