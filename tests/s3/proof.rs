//! What servers prove about the bytes they took, and what becomes of an object that is not ours.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use syncline::{Bytes, ErrorKind, Proof, S3Integrity, WriteOptions};

use crate::rig::{ATTEMPTS, KEY, PART, Rig, assert_says, is, noise};
use crate::s3_model::{Checksums, CompleteChecksum, Fault, Operation, error};
use crate::scripted::{Answer, Request};

use Operation::{Complete, Create, Head, Put, UploadPart};

const CRC32C: &str = "x-amz-checksum-crc32c";

/// The hash of a request's payload, where it is signed.
fn sha256(request: &Request) -> Option<&str> {
    request.header("x-amz-content-sha256").filter(|text| *text != "UNSIGNED-PAYLOAD")
}

fn with_integrity(integrity: S3Integrity) -> Rig {
    Rig::with(|s3| s3.integrity(integrity), |settings| settings)
}

fn proof(rig: &Rig, data: &[u8], create_only: bool) -> Option<Proof> {
    let meta = rig.write(data, create_only).unwrap();
    rig.assert_holds(data);
    rig.assert_no_uploads();
    meta.write.unwrap().proof
}

#[test]
fn the_report_tells_the_proof() {
    use S3Integrity::*;
    let confirms = Checksums::VerifyAndEcho;
    for (integrity, checksums, expected) in [
        (Auto, confirms, Proof::ChecksumVerified),
        (Auto, Checksums::Ignore, Proof::Sha256Sent),
        (Auto, Checksums::Refuse(400), Proof::Sha256Sent),
        (Auto, Checksums::Refuse(501), Proof::Sha256Sent),
        (Checksum, confirms, Proof::ChecksumVerified),
        (Sha256, confirms, Proof::Sha256Sent),
        (Sha256, Checksums::Refuse(400), Proof::Sha256Sent),
        (None, confirms, Proof::None),
        (None, Checksums::Refuse(501), Proof::None),
    ] {
        for create_only in [false, true] {
            for size in [0, 1000, 2 * PART + 5] {
                let rig = with_integrity(integrity);
                rig.behave(|behavior| behavior.checksums = checksums);
                let found = proof(&rig, &noise(size, 1), create_only);
                let case = format!("{integrity:?} {checksums:?} {create_only} {size}");
                assert_eq!(found, Some(expected), "{case}");
            }
        }
    }
}

#[test]
fn parts_taken_without_a_word_are_sent_again_with_their_hash() {
    let rig = Rig::new();
    rig.behave(|behavior| behavior.checksums = Checksums::Ignore);
    let upload = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = upload.clone();
    rig.hook(move |s3, _, request| {
        if is(request, Complete) {
            seen.lock().unwrap().extend(s3.uploads().into_values().next());
        }
        None
    });
    let data = noise(3 * PART + 5, 2);
    assert_eq!(proof(&rig, &data, false), Some(Proof::Sha256Sent));
    // Each part that counts was sent at last with its hash, and before at most once without.
    let sent = rig.requests(UploadPart);
    let number = |request: &Request| request.param("partNumber").unwrap();
    for part in 1..=4 {
        let of_part: Vec<_> = sent.iter().filter(|r| number(r) == part.to_string()).collect();
        assert!(sha256(of_part.last().unwrap()).is_some(), "part {part} has no hash");
        assert!(of_part.len() <= 2 && of_part.iter().filter(|r| sha256(r).is_none()).count() <= 1);
    }
    assert!(sent.len() > 4, "the first part was not sent again");
    assert_eq!(upload.lock().unwrap()[0].parts.len(), 4);
    // What the server never confirmed does not stand in the completion.
    let complete = &rig.requests(Complete)[0];
    assert_eq!(complete.header(CRC32C), None);
    assert!(!String::from_utf8_lossy(&complete.body).contains("Checksum"));
    // The store has learned it.
    let before = rig.count(UploadPart);
    rig.write(&data, false).unwrap();
    assert_eq!(rig.count(UploadPart) - before, 4);
    let small = rig.count(Put);
    rig.write(b"small", false).unwrap();
    assert_eq!(rig.count(Put) - small, 1);
    assert!(sha256(rig.requests(Put).last().unwrap()).is_some());
}

#[test]
fn a_server_that_begins_to_ignore_is_noticed() {
    let rig = Rig::new();
    assert_eq!(proof(&rig, b"data", false), Some(Proof::ChecksumVerified));
    rig.behave(|behavior| behavior.checksums = Checksums::Ignore);
    assert_eq!(proof(&rig, b"data", false), Some(Proof::Sha256Sent));
}

/// A refusal of one request for whatever reason is no reason to do without proof for ever.
#[test]
fn a_refusal_of_something_else_leaves_the_proof() {
    for (status, code) in [
        (400, "InvalidArgument"),
        (400, "InvalidRequest"),
        (400, "MalformedXML"),
        (400, "InvalidToken"),
        (400, ""),
        (501, "NotImplemented"),
    ] {
        for size in [1000, PART + 1] {
            let rig = Rig::new();
            let kind = if size > PART { Create } else { Put };
            rig.fault_always(kind, Fault::Instead(error(status, code).into()));
            rig.write(&noise(size, 3), false).unwrap_err();
            rig.unhook();
            let found = proof(&rig, &noise(size, 3), false);
            assert_eq!(found, Some(Proof::ChecksumVerified), "{status} {code} {size}");
        }
    }
}

#[test]
fn checksums_insisted_on_are_not_given_up() {
    for checksums in [Checksums::Ignore, Checksums::Refuse(501)] {
        for size in [1000, PART + 1] {
            let rig = with_integrity(S3Integrity::Checksum);
            rig.behave(|behavior| behavior.checksums = checksums);
            let refused = rig.write(&noise(size, 4), false).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
            let sent = [rig.requests(Put), rig.requests(UploadPart)].concat();
            assert!(sent.iter().all(|request| sha256(request).is_none()));
            rig.assert_nothing();
        }
    }
}

#[test]
fn bits_flipped_on_the_way_are_sent_again() {
    for size in [1000, PART + 1] {
        let kind = if size > PART { UploadPart } else { Put };
        let codes = ["BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"];
        for code in codes {
            let rig = Rig::new();
            rig.fault(kind, 0, Fault::Instead(error(400, code).into()));
            assert_eq!(proof(&rig, &noise(size, 5), false), Some(Proof::ChecksumVerified));
            rig.fault_always(kind, Fault::Instead(error(400, code).into()));
            let failed = rig.write(&noise(size, 6), false).unwrap_err();
            assert_eq!(failed.kind(), ErrorKind::ChecksumMismatch, "{failed}");
            assert_eq!(failed.attempts(), ATTEMPTS);
            rig.assert_holds(&noise(size, 5));
            rig.assert_usable();
        }
    }
}

/// The caller's memory is no more what was hashed: to send it again would not help.
#[test]
fn memory_that_changed_is_not_sent_again() {
    let file = tempfile::tempfile().unwrap();
    let data = noise(2 * PART, 7);
    file.write_all_at(&data, 0).unwrap();
    // SAFETY: the file is this test's and stays of its size. That its bytes change is what is tested.
    let map = unsafe { memmap2::Mmap::map(&file).unwrap() };
    let rig = Rig::new();
    rig.hook(move |_, _, request| {
        if is(request, Create) {
            file.write_all_at(&[!data[100]], 100).unwrap();
        }
        None
    });
    let mut writer = rig.writer(false).unwrap();
    let _ = writer.write_owned(Bytes::from_owner(map));
    let failed = writer.finalize().unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::ChecksumMismatch, "{failed}");
    let first = |r: &Request| r.param("partNumber").as_deref() == Some("1");
    assert_eq!(rig.requests(UploadPart).iter().filter(|r| first(r)).count(), 1);
    rig.assert_nothing();
}

#[test]
fn a_part_confirmed_with_another_checksum_is_an_error() {
    for (size, kind) in [(1000, Put), (PART + 1, UploadPart)] {
        for echo in
            [|a: Answer| a.header(CRC32C, "AAAAAA=="), |a: Answer| a.header(CRC32C, "what?")]
        {
            let rig = Rig::new();
            rig.fault(kind, 0, Fault::Changed(echo));
            let failed = rig.write(&noise(size, 8), false).unwrap_err();
            assert_eq!(failed.kind(), ErrorKind::ChecksumMismatch, "{failed}");
            rig.assert_nothing();
            rig.assert_usable();
        }
    }
}

#[test]
fn a_part_without_an_etag_is_an_error() {
    for change in [|a: Answer| a.without_header("etag"), |a: Answer| a.header("etag", "")] {
        let rig = Rig::new();
        rig.fault(UploadPart, 0, Fault::Changed(change));
        let failed = rig.write(&noise(PART + 1, 9), false).unwrap_err();
        assert_says(&failed, &["ETag"]);
        rig.assert_nothing();
    }
    let rig = Rig::new();
    rig.fault(Put, 0, Fault::Changed(|answer| answer.without_header("etag")));
    // It is looked for, and found by our mark.
    assert!(rig.write(b"x", false).unwrap().etag.is_some());
}

/// An ETag that the server itself does not know again.
#[test]
fn a_wrong_etag_fails_the_completion() {
    let rig = Rig::new();
    rig.fault(UploadPart, 0, Fault::Changed(|answer| answer.header("etag", "\"<other>&\"")));
    let failed = rig.write(&noise(PART + 1, 10), false).unwrap_err();
    assert_says(&failed, &["InvalidPart"]);
    assert!(
        String::from_utf8_lossy(&rig.requests(Complete)[0].body).contains("&lt;other&gt;&amp;")
    );
    rig.assert_nothing();
}

#[test]
fn an_object_of_another_checksum_is_removed() {
    let rig = Rig::new();
    rig.behave(|behavior| behavior.complete_checksum = CompleteChecksum::Wrong);
    let failed = rig.write(&noise(PART + 1, 11), false).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::ChecksumMismatch, "{failed}");
    rig.assert_nothing();
    let delete = &rig.requests(Operation::Delete)[0];
    assert!(delete.header("if-match").is_some(), "another's object could be removed");
}

/// Who has replaced the damaged object meanwhile keeps his.
#[test]
fn anothers_object_is_kept() {
    for (size, kind) in [(1000, Put), (PART + 1, Complete)] {
        for comes_before in [Head, Operation::Delete] {
            let rig = Rig::new();
            rig.behave(|behavior| behavior.complete_checksum = CompleteChecksum::Wrong);
            rig.hook(move |s3, _, request| {
                if is(request, comes_before) {
                    s3.put(KEY, b"another's");
                }
                is(request, Put)
                    .then_some(Fault::Changed(|answer| answer.header(CRC32C, "AAAAAA==")))
            });
            let failed = rig.write(&noise(size, 12), false).unwrap_err();
            assert_eq!(failed.kind(), ErrorKind::ChecksumMismatch, "{kind:?} {failed}");
            rig.assert_holds(b"another's");
        }
    }
}

/// The server does not keep metadata: the ETag tells whose object it is.
#[test]
fn a_wrong_size_is_found_by_looking() {
    for keeps_metadata in [true, false] {
        let rig = Rig::new();
        rig.behave(|behavior| behavior.complete_checksum = CompleteChecksum::Absent);
        rig.hook(move |_, _, request| {
            let strip = is(request, Head) && !keeps_metadata;
            if strip {
                return Some(Fault::Changed(|answer| {
                    answer.header("content-length", "7").without_header("x-amz-meta-syncline-nonce")
                }));
            }
            is(request, Head)
                .then_some(Fault::Changed(|answer| answer.header("content-length", "7")))
        });
        let failed = rig.write(&noise(PART + 1, 13), false).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::ChecksumMismatch, "{failed}");
        assert_says(&failed, &["7 bytes"]);
        rig.assert_nothing();
    }
    let rig = Rig::new();
    rig.behave(|behavior| behavior.complete_checksum = CompleteChecksum::Absent);
    rig.write(&noise(PART + 1, 14), false).unwrap();
    assert_eq!(rig.count(Head), 1);
}

#[test]
fn an_error_inside_a_success_is_an_error() {
    for code in ["InternalError", "SlowDown", "ServiceUnavailable"] {
        let rig = Rig::new();
        rig.fault(Complete, 0, Fault::Instead(error(200, code).into()));
        let data = noise(PART + 1, 15);
        assert_eq!(proof(&rig, &data, false), Some(Proof::ChecksumVerified), "{code}");
        assert_eq!(rig.count(Complete), 2);
    }
    for (code, kind) in [
        ("AccessDenied", ErrorKind::PermissionDenied),
        ("InvalidPart", ErrorKind::InvalidInput),
        ("SomethingNew", ErrorKind::InvalidInput),
    ] {
        let rig = Rig::new();
        rig.fault_always(Complete, Fault::Instead(error(200, code).into()));
        let failed = rig.write(&noise(PART + 1, 16), false).unwrap_err();
        assert_eq!((failed.kind(), rig.count(Complete)), (kind, 1), "{failed}");
        assert_says(&failed, &[code]);
        rig.assert_nothing();
    }
}

/// Spaces keep the connection alive until the work is done; and what is no document is no success.
#[test]
fn a_completion_may_trickle_and_must_be_read() {
    let rig = Rig::new();
    rig.fault(
        Complete,
        0,
        Fault::Changed(|answer| {
            let body = [b"\n   \n ".as_slice(), &answer.body].concat();
            answer.body(body).trickle(50, std::time::Duration::from_millis(2)).chunked()
        }),
    );
    let data = noise(PART + 1, 17);
    assert_eq!(proof(&rig, &data, false), Some(Proof::ChecksumVerified));
    for garbage in [
        |a: Answer| a.body(""),
        |a: Answer| a.body("<html>"),
        |a: Answer| a.body("<Error></Error>"),
        |a: Answer| a.body([0xff, 0xfe]),
    ] {
        // It has had its effect, and that is found out.
        rig.remove(KEY);
        rig.fault(Complete, 0, Fault::Changed(garbage));
        rig.write(&data, false).unwrap();
        rig.assert_holds(&data);
    }
    for garbage in ["", "<html>", "<Error></Error>"] {
        rig.remove(KEY);
        rig.fault_always(Complete, Fault::Instead(Answer::new(200).body(garbage).into()));
        let failed = rig.write(&data, false).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed}");
        rig.assert_nothing();
    }
}

/// Without a checksum of the writer's the hash is all that there is.
#[test]
fn without_checksums_nothing_is_claimed() {
    for (integrity, expected) in
        [(S3Integrity::Auto, Proof::None), (S3Integrity::Sha256, Proof::Sha256Sent)]
    {
        let rig = with_integrity(integrity);
        for size in [1000, PART + 1] {
            let options = WriteOptions::default().checksum(None);
            let data = noise(size, 18);
            let meta = rig.store.put_with(crate::rig::URI, &data, options).unwrap();
            assert_eq!(meta.write.unwrap().proof, Some(expected));
            rig.assert_holds(&data);
        }
    }
}

/// A hash that is refused although the memory is as it was: the bytes changed on the way.
#[test]
fn a_refused_hash_is_looked_at_again() {
    let rig = with_integrity(S3Integrity::Sha256);
    let once = AtomicBool::new(true);
    rig.hook(move |_, _, request| {
        let hit = is(request, Put) && once.swap(false, Ordering::Relaxed);
        hit.then(|| Fault::Instead(error(400, "XAmzContentSHA256Mismatch").into()))
    });
    let options = WriteOptions::default().checksum(None);
    rig.store.put_with(crate::rig::URI, b"data", options).unwrap();
    rig.assert_holds(b"data");
}
