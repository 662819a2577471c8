//! Reading: one version of an object, whole, or an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use syncline::{Algorithm, BlockChecksums, ErrorKind};

use crate::rig::{KEY, PART, Rig, URI, assert_says, in_time, is, noise};
use crate::s3_model::{Fault, Operation, error};
use crate::scripted::{Answer, Step};

use Operation::{Get, Head};

/// More than what comes when an object is opened.
const LARGE: usize = 3 * PART + 1000;

/// Does this to all answers but the first, which opens the object.
fn after_opening(rig: &Rig, fault: impl Fn() -> Fault + Send + Sync + 'static) {
    let seen = AtomicUsize::new(0);
    rig.hook(move |_, _, request| {
        let later = is(request, Get) && seen.fetch_add(1, Ordering::Relaxed) > 0;
        later.then(&fault)
    });
}

#[test]
fn ranges_are_read_in_parallel() {
    let rig = Rig::new();
    let data = noise(LARGE, 1);
    rig.put(KEY, &data);
    // No range is answered before three have been asked for.
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    rig.on_request(move |_, request| {
        if request.header("if-match").is_some() {
            counter.fetch_add(1, Ordering::SeqCst);
            let met = || counter.load(Ordering::SeqCst) >= 3;
            (0..60_000).find(|_| {
                met() || {
                    std::thread::sleep(Duration::from_millis(1));
                    false
                }
            });
        }
        None
    });
    assert_eq!(rig.store.get(URI).unwrap(), data);
    assert!(asked.load(Ordering::SeqCst) >= 3);
    rig.unhook();
    for (from, length) in
        [(0, LARGE), (1, 1), (PART - 1, 2), (PART, PART), (LARGE - 1, 1), (LARGE, 0)]
    {
        let range = rig.store.get_range(URI, from as u64, Some(length as u64)).unwrap();
        assert_eq!(range, data[from..from + length], "{length} at {from}");
    }
    let outside = rig.store.get_range(URI, LARGE as u64, Some(1)).unwrap_err();
    assert_eq!(outside.kind(), ErrorKind::InvalidInput);
}

#[test]
fn an_object_replaced_while_it_is_read_is_a_conflict() {
    // Whether the server keeps If-Match, and what it then does with the range of a shorter object.
    for ignores_condition in [false, true] {
        for size in [LARGE, LARGE + 1, 100] {
            let rig = Rig::new();
            rig.put(KEY, &noise(LARGE, 2));
            let seen = AtomicUsize::new(0);
            rig.hook(move |s3, _, request| {
                if is(request, Get) && seen.fetch_add(1, Ordering::Relaxed) == 1 {
                    s3.put(KEY, &noise(size, 3));
                }
                let conditional = request.header("if-match").is_some();
                if !conditional || !ignores_condition {
                    return None;
                }
                Some(match size {
                    100 => Fault::Instead(
                        error(416, "InvalidRange").header("content-range", "bytes */100").into(),
                    ),
                    _ => Fault::Instead(
                        Answer::new(206)
                            .header(
                                "content-range",
                                request.header("range").unwrap().replace('=', " ")
                                    + &format!("/{size}"),
                            )
                            .header("etag", "\"other\"")
                            .body(vec![0; range_bytes(request.header("range").unwrap())])
                            .into(),
                    ),
                })
            });
            let failed = rig.store.get(URI).unwrap_err();
            assert_eq!(failed.kind(), ErrorKind::Conflict, "{ignores_condition} {size}: {failed}");
            assert_says(&failed, &["replaced", "again"]);
        }
    }
}

fn with_status(mut answer: Answer, status: u16) -> Answer {
    answer.status = status;
    answer
}

fn range_bytes(range: &str) -> usize {
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    last.parse::<usize>().unwrap() + 1 - first.parse::<usize>().unwrap()
}

#[test]
fn an_object_removed_while_it_is_read_is_not_found() {
    let rig = Rig::new();
    rig.put(KEY, &noise(LARGE, 4));
    after_opening(&rig, || Fault::Instead(error(404, "NoSuchKey").into()));
    assert_eq!(rig.store.get(URI).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn answers_that_are_not_the_range_are_refused() {
    type Change = fn(Answer) -> Answer;
    let wrong: [(&str, Change); 8] = [
        ("no range", |a| a.without_header("content-range")),
        ("garbage", |a| a.header("content-range", "bytes what?")),
        ("size unknown", |a| a.header("content-range", "bytes 0-1/*")),
        ("another range", |a| a.header("content-range", "bytes 1-65536/99999999")),
        ("beyond the size", |a| a.header("content-range", "bytes 0-65535/10")),
        ("short", |a| {
            let body = a.body[1..].to_vec();
            a.body(body)
        }),
        ("long", |a| {
            let body = [&a.body[..], b"x"].concat();
            a.body(body)
        }),
        ("nothing", |a| a.body("")),
    ];
    for (what, change) in wrong {
        for at_opening in [true, false] {
            let rig = Rig::new();
            rig.put(KEY, &noise(LARGE, 5));
            match at_opening {
                true => rig.fault_always(Get, Fault::Changed(change)),
                false => after_opening(&rig, move || Fault::Changed(change)),
            }
            let failed = rig.store.get(URI).unwrap_err();
            assert_eq!(failed.kind(), ErrorKind::Unavailable, "{what} {at_opening}: {failed}");
            rig.unhook();
            assert_eq!(rig.store.get(URI).unwrap(), noise(LARGE, 5), "{what}");
        }
    }
}

/// A server that knows no ranges serves small objects, and says so of others.
#[test]
fn a_server_without_ranges() {
    let rig = Rig::new();
    let whole = |request: &crate::scripted::Request, bytes: &[u8]| {
        is(request, Get)
            .then(|| Fault::Instead(Answer::new(200).header("etag", "\"e\"").body(bytes).into()))
    };
    rig.on_request(move |_, request| whole(request, b"small"));
    assert_eq!(rig.store.get(URI).unwrap(), b"small"[..]);
    assert_eq!(rig.store.get_range(URI, 1, Some(2)).unwrap(), b"ma"[..]);
    assert_eq!(rig.count(Get), 2);
    // Beyond what is collected of an answer.
    let large = vec![7; 17 << 20];
    rig.on_request(move |_, request| whole(request, &large));
    let failed = rig.store.get(URI).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed}");
    // Only later it sends the whole.
    let rig = Rig::new();
    rig.put(KEY, &noise(LARGE, 6));
    after_opening(&rig, || Fault::Changed(|answer| with_status(answer, 200)));
    let failed = rig.store.get(URI).unwrap_err();
    assert_says(&failed, &["whole object"]);
}

#[test]
fn the_empty_object_is_an_object() {
    let rig = Rig::new();
    rig.put(KEY, b"");
    assert!(rig.store.get(URI).unwrap().is_empty());
    assert_eq!(rig.operations(), [Get, Head]);
    // A range is refused, and the object is not empty: something is wrong.
    rig.put(KEY, b"data");
    rig.fault_always(Get, Fault::Instead(error(416, "InvalidRange").into()));
    let failed = rig.store.get(URI).unwrap_err();
    assert_ne!(failed.kind(), ErrorKind::InvalidInput, "{failed}");
    assert_ne!(failed.kind(), ErrorKind::NotFound, "{failed}");
}

#[test]
fn every_read_survives_one_fault() {
    let faults = [
        Fault::Instead(error(500, "InternalError").into()),
        Fault::Instead(error(503, "SlowDown").into()),
        Fault::Early(Step::Reset),
        Fault::After(Step::Close),
        Fault::Changed(|answer| answer.truncate(1000)),
        Fault::Changed(|answer| answer.reset_after(1000)),
        Fault::Changed(|answer| answer.hang_after(1000, Duration::from_secs(3600))),
    ];
    let data = noise(LARGE, 7);
    for fault in faults {
        for nth in 0..4 {
            let rig = Rig::impatient(Duration::from_millis(500));
            rig.put(KEY, &data);
            rig.fault(Get, nth, fault.clone());
            assert_eq!(rig.store.get(URI).unwrap(), data, "{fault:?} {nth}");
            rig.fault(Head, 0, fault.clone());
            assert_eq!(rig.store.stat(URI).unwrap().size_bytes, data.len() as u64, "{fault:?}");
        }
    }
}

#[test]
fn chunks_are_as_good_as_a_length() {
    let rig = Rig::new();
    rig.put(KEY, &noise(LARGE, 7));
    rig.fault_always(Get, Fault::Changed(|answer| answer.chunked()));
    assert_eq!(rig.store.get(URI).unwrap(), noise(LARGE, 7));
}

#[test]
fn every_read_fails_once_with_the_attempts() {
    let data = noise(LARGE, 8);
    let hang = Fault::Changed(|answer| answer.hang_after(1000, Duration::from_secs(3600)));
    for (fault, kind) in [
        (Fault::Instead(error(500, "InternalError").into()), ErrorKind::Unavailable),
        (Fault::Early(Step::Reset), ErrorKind::Unavailable),
        (Fault::Changed(|answer| answer.truncate(1000)), ErrorKind::Unavailable),
        (hang, ErrorKind::TimedOut),
    ] {
        for late in [false, true] {
            let rig = Rig::impatient(Duration::from_millis(500));
            rig.put(KEY, &data);
            let always = fault.clone();
            match late {
                false => rig.fault_always(Get, fault.clone()),
                true => after_opening(&rig, move || always.clone()),
            }
            let mut memory = vec![0; data.len()];
            let failed = rig.store.read_into(URI, 0, &mut memory).unwrap_err();
            assert_eq!((failed.kind(), failed.attempts()), (kind, 3), "{fault:?}: {failed}");
            rig.unhook();
            assert_eq!(rig.store.get(URI).unwrap(), data);
            in_time(move || drop(rig));
        }
    }
}

#[test]
fn damage_is_found_and_located() {
    let rig = Rig::new();
    let data = noise(LARGE, 9);
    let crcs = data.chunks(PART).map(|block| Algorithm::Crc32c.checksum(block).value() as u32);
    let blocks = BlockChecksums::new(PART as u64, data.len() as u64, crcs.collect()).unwrap();
    let sum = Algorithm::Crc32c.checksum(&data).to_string();
    let mut memory = vec![0; data.len()];
    rig.put(KEY, &data);
    rig.store.read_into_verified(URI, 0, &mut memory, &blocks).unwrap();
    assert_eq!(rig.store.get_with_validation(URI, &sum).unwrap(), data);
    assert_eq!(rig.store.block_checksums(URI, PART as u64).unwrap(), blocks);
    let mut damaged = data.clone();
    damaged[PART + 17] ^= 1;
    rig.put(KEY, &damaged);
    let failed = rig.store.read_into_verified(URI, 0, &mut memory, &blocks).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::ChecksumMismatch);
    assert_says(&failed, &[&PART.to_string(), &(2 * PART).to_string()]);
    let failed = rig.store.get_with_validation(URI, &sum).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::ChecksumMismatch);
    rig.put(KEY, &data[1..]);
    let failed = rig.store.read_into_verified(URI, 0, &mut memory, &blocks).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Incomplete);
}

/// HEAD tells the checksum of the whole, and none that is of the parts' checksums.
#[test]
fn stat_tells_the_checksum() {
    let rig = Rig::new();
    for size in [10, PART + 1] {
        let meta = rig.write(&noise(size, 10), false).unwrap();
        let stat = rig.store.stat(URI).unwrap();
        assert_eq!((stat.checksum, stat.etag), (meta.checksum, meta.etag));
        assert!(stat.modified.is_some());
    }
    rig.fault_always(Head, Fault::Changed(|a| a.header("x-amz-checksum-type", "COMPOSITE")));
    assert_eq!(rig.store.stat(URI).unwrap().checksum, None);
    rig.fault_always(Head, Fault::Changed(|a| a.header("content-length", "")));
    assert!(rig.store.stat(URI).is_err());
}
