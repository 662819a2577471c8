//! How many requests and connections an object costs. These counts are guards: more is slower.

use std::time::Duration;

use syncline::{Proof, S3Integrity};

use crate::rig::{KEY, PART, Rig, URI, noise};
use crate::s3_model::{Fault, Operation};
use crate::scripted::Step;

use Operation::*;

#[test]
fn a_small_object_is_one_request() {
    let rig = Rig::new();
    let data = noise(PART, 1);
    let meta = rig.write(&data, false).unwrap();
    assert_eq!(rig.operations(), [Put]);
    assert_eq!(meta.size_bytes, PART as u64);
    assert_eq!(meta.etag.as_deref(), Some(rig.object(KEY).unwrap().etag.as_str()));
    assert_eq!(meta.write.unwrap().proof, Some(Proof::ChecksumVerified));
    rig.assert_holds(&data);
}

#[test]
fn three_parts_are_five_requests() {
    let rig = Rig::new();
    let data = noise(2 * PART + 17, 2);
    rig.write(&data, false).unwrap();
    let operations = rig.operations();
    assert_eq!((operations[0], operations[4], operations.len()), (Create, Complete, 5));
    assert_eq!(rig.count(UploadPart), 3);
    rig.assert_holds(&data);
    let create = &rig.requests(Create)[0];
    assert_eq!(create.header("x-amz-checksum-algorithm"), Some("CRC32C"));
    assert_eq!(create.header("x-amz-checksum-type"), Some("FULL_OBJECT"));
    for part in rig.requests(UploadPart) {
        assert_eq!(part.header("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"));
        assert!(part.header("x-amz-checksum-crc32c").is_some());
    }
    let complete = &rig.requests(Complete)[0];
    assert_eq!(complete.header("x-amz-mp-object-size"), Some(&*data.len().to_string()));
    assert_eq!(complete.header("x-amz-checksum-type"), Some("FULL_OBJECT"));
    assert!(complete.header("x-amz-checksum-crc32c").is_some());
    assert_eq!(complete.header("if-none-match"), None);
}

#[test]
fn the_empty_object_is_one_request() {
    let rig = Rig::new();
    rig.write(b"", false).unwrap();
    assert_eq!(rig.operations(), [Put]);
    rig.assert_holds(b"");
    assert!(rig.store.get(URI).unwrap().is_empty());
}

/// A size that is proven neither by the parts nor by the whole costs a look.
#[test]
fn without_checksums_the_size_is_looked_at() {
    let rig = Rig::with(|s3| s3.integrity(S3Integrity::None), |settings| settings);
    rig.write(&noise(PART + 1, 3), false).unwrap();
    assert_eq!(rig.operations().last(), Some(&Head));
    assert_eq!(rig.operations().len(), 5);
}

#[test]
fn a_small_object_is_read_by_one_request() {
    let rig = Rig::new();
    for (size, requests) in [(1, 1), (64 * 1024, 1), (64 * 1024 + 1, 2)] {
        rig.put(KEY, &noise(size, 4));
        let before = rig.count(Get);
        assert_eq!(rig.store.get(URI).unwrap(), noise(size, 4));
        assert_eq!(rig.count(Get) - before, requests, "{size} bytes");
    }
    assert!(rig.operations().iter().all(|operation| *operation == Get));
}

#[test]
fn a_page_of_a_listing_is_one_request() {
    let rig = Rig::new();
    rig.behave(|behavior| behavior.page_entries = 2);
    (0..5).for_each(|n| rig.put(&format!("{KEY}/{n}"), b""));
    assert_eq!(rig.store.list(URI).unwrap().count(), 5);
    // One for the object of the prefix's own name.
    assert_eq!(rig.operations(), [List; 4]);
}

#[test]
fn create_only_is_tried_once_per_store_and_kind() {
    let rig = Rig::new();
    let large = noise(PART + 1, 5);
    let trial_of_put = vec![Put, Put, Delete];
    let trial_of_complete = vec![Put, Create, UploadPart, Complete, Abort, Delete];
    let multipart = vec![Head, Create, UploadPart, UploadPart, Complete];
    for (data, expected) in [
        (&large[..10], [trial_of_put, vec![Put]].concat()),
        (&large, [trial_of_complete, multipart.clone()].concat()),
        (&large[..10], vec![Put]),
        (&large, multipart),
    ] {
        let before = rig.operations().len();
        let meta = rig.write(data, true).unwrap();
        assert_eq!(meta.write.unwrap().create_only_held, Some(true));
        assert_eq!(rig.operations()[before..], expected);
        rig.remove(KEY);
    }
    rig.assert_nothing();
    assert!(rig.orphans().is_empty());
}

#[test]
fn connections_are_bounded_by_the_threads_and_kept() {
    let rig = Rig::new();
    for n in 0..4 {
        let data = noise(4 * PART + 1, n);
        rig.write(&data, false).unwrap();
        assert_eq!(rig.store.get(URI).unwrap(), data);
        assert_eq!(rig.store.stat(URI).unwrap().size_bytes, data.len() as u64);
    }
    let threads = rig.store.config().io_threads();
    let (connections, requests) = (rig.server().connections(), rig.server().requests().len());
    assert!(connections <= threads, "{connections} connections by {threads} threads");
    assert!(requests > 10 * threads);
}

/// A connection that the server closed meanwhile costs no attempt that a caller would see.
#[test]
fn a_connection_closed_while_idle_is_replaced() {
    let rig = Rig::new();
    rig.write(b"1", false).unwrap();
    rig.on_request(|_, _| Some(Fault::Changed(|answer| answer.closing())));
    rig.write(b"2", false).unwrap();
    rig.write(b"3", false).unwrap();
    rig.unhook();
    rig.write(b"4", false).unwrap();
    assert_eq!(rig.count(Put), 4);
    rig.assert_holds(b"4");
}

/// Nothing is asked of a server before there is something to do.
#[test]
fn opening_asks_nobody() {
    let rig = Rig::new();
    drop(rig.writer(false).unwrap());
    drop(rig.writer(true).unwrap());
    assert_eq!(rig.server().connections(), 0);
    rig.fault(Put, 0, Fault::Instead(Step::Hang(Duration::ZERO)));
    rig.write(b"x", false).unwrap();
}
