//! Replies that were lost: what a repeated request is refused for may be what the first one did.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use syncline::{ErrorKind, ObjectMeta, Proof, Result};

use crate::rig::{KEY, PART, Rig, URI, is, noise};
use crate::s3_model::{Fault, Operation, S3Model, error};
use crate::scripted::{Request, Step};

use Operation::{Abort, Complete, Create, Put};

impl Rig {
    /// Does something else to each of the requests of one kind about the object, in their order.
    pub fn script(
        &self,
        kind: Operation,
        script: impl Fn(&S3Model, usize, &Request) -> Option<Fault> + Send + Sync + 'static,
    ) {
        let seen = AtomicUsize::new(0);
        self.hook(move |s3, _, request| {
            let nth = is(request, kind).then(|| seen.fetch_add(1, Ordering::Relaxed));
            nth.and_then(|nth| script(s3, nth, request))
        });
    }
}

fn lost() -> Option<Fault> {
    Some(Fault::After(Step::Reset))
}

fn refused(status: u16, code: &str) -> Option<Fault> {
    Some(Fault::Instead(error(status, code).into()))
}

#[track_caller]
fn assert_ours(rig: &Rig, written: Result<ObjectMeta>, data: &[u8]) {
    let meta = written.unwrap();
    let object = rig.object(KEY).unwrap();
    rig.assert_holds(data);
    assert_eq!(meta.etag.as_ref(), Some(&object.etag));
    assert_eq!(meta.size_bytes, data.len() as u64);
    assert_eq!(meta.write.unwrap().proof, Some(Proof::ChecksumVerified));
    rig.assert_no_uploads();
}

#[test]
fn a_put_refused_for_its_own_object_has_succeeded() {
    let rig = Rig::new();
    rig.script(Put, |_, nth, _| if nth == 0 { lost() } else { None });
    let data = noise(1000, 1);
    let written = rig.write(&data, true);
    assert_ours(&rig, written, &data);
    let puts = rig.requests(Put);
    assert_eq!(puts.iter().filter(|request| is(request, Put)).count(), 2);
}

#[test]
fn a_put_refused_for_anothers_object_has_not() {
    let rig = Rig::new();
    rig.script(Put, |s3, nth, _| {
        (nth == 0).then(|| {
            s3.put(KEY, b"another's");
            Fault::Instead(Step::Reset)
        })
    });
    let error = rig.write(b"mine", true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    rig.assert_holds(b"another's");
}

/// Every reply is lost, and the last look finds the object.
#[test]
fn a_put_whose_replies_are_all_lost_has_succeeded() {
    let rig = Rig::new();
    rig.script(Put, |_, _, _| lost());
    let data = noise(1000, 2);
    let written = rig.write(&data, true);
    assert_ours(&rig, written, &data);
}

#[test]
fn a_completion_is_ours_by_its_nonce_alone() {
    // What the repeated request is answered, and what becomes of a writer who did not win.
    for (status, code, create_only, kind) in [
        (404, "NoSuchUpload", false, ErrorKind::Conflict),
        (404, "NoSuchUpload", true, ErrorKind::Conflict),
        (412, "PreconditionFailed", true, ErrorKind::AlreadyExists),
    ] {
        let data = noise(PART + 10, 3);
        let rig = Rig::new();
        rig.script(Complete, move |_, nth, _| match nth {
            0 => lost(),
            _ => refused(status, code),
        });
        let written = rig.write(&data, create_only);
        assert_ours(&rig, written, &data);

        let rig = Rig::new();
        rig.script(Complete, move |s3, nth, _| {
            if nth > 0 {
                return refused(status, code);
            }
            s3.put(KEY, b"another's");
            Some(Fault::Instead(Step::Reset))
        });
        let error = rig.write(&data, create_only).unwrap_err();
        assert_eq!(error.kind(), kind, "{status} {code}: {error}");
        rig.assert_holds(b"another's");
        rig.assert_no_uploads();
        rig.assert_usable();
    }
}

/// A refusal of the first request is none of our own doing: nobody looks at whose object it is.
#[test]
fn a_first_refusal_is_believed() {
    for (create_only, status, code, kind) in [
        (true, 412, "PreconditionFailed", ErrorKind::AlreadyExists),
        (false, 404, "NoSuchUpload", ErrorKind::Conflict),
    ] {
        let rig = Rig::new();
        rig.script(Complete, move |_, _, _| refused(status, code));
        let error = rig.write(&noise(PART + 10, 4), create_only).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(
            rig.operations().iter().filter(|o| **o == Complete).count(),
            1 + usize::from(create_only)
        );
        rig.assert_nothing();
    }
}

/// The server loses the upload while parts are sent.
#[test]
fn an_upload_that_vanishes_is_a_conflict() {
    let rig = Rig::new();
    rig.script(Operation::UploadPart, |s3, _, request| {
        s3.drop_upload(&request.param("uploadId").unwrap());
        None
    });
    let error = rig.write(&noise(PART + 10, 5), false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    rig.assert_nothing();
    rig.assert_usable();
}

/// The object that the first request made is looked at as its answer would have been.
#[test]
fn an_object_found_after_a_lost_reply_is_proven() {
    for size in [1000, PART + 1000] {
        let data = noise(size, 6);
        let kind = if size > PART { Complete } else { Put };
        for replies_lost in [1, usize::MAX] {
            let rig = Rig::new();
            let own = data.clone();
            rig.script(kind, move |s3, nth, request| {
                if nth == 0 {
                    // What is stored is not what was sent; but it is of this writer.
                    s3.damage(request, &own[1..]);
                }
                let code = ["PreconditionFailed", "NoSuchUpload"][usize::from(kind == Complete)];
                let status = if kind == Complete { 404 } else { 412 };
                if nth < replies_lost {
                    Some(Fault::Instead(Step::Reset))
                } else {
                    refused(status, code)
                }
            });
            let error = rig.write(&data, true).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ChecksumMismatch, "{error}");
            rig.assert_nothing();
        }
    }
}

#[test]
fn an_upload_whose_id_was_lost_is_found_by_gc() {
    let rig = Rig::new();
    rig.script(Create, |_, nth, _| if nth == 0 { lost() } else { None });
    let data = noise(PART + 10, 7);
    rig.write(&data, false).unwrap();
    rig.assert_holds(&data);
    assert_eq!(rig.uploads().len(), 1);
    let orphans = rig.orphans();
    assert_eq!(orphans.len(), 1);
    assert!(orphans[0].uri.starts_with(URI) && orphans[0].size_bytes == 0, "{orphans:?}");
    assert!(rig.store.orphans(URI, Duration::from_secs(3600)).unwrap().is_empty());
    rig.store.delete_orphan(&orphans[0]).unwrap();
    rig.assert_no_uploads();
    rig.assert_holds(&data);
    // One that is gone is no error.
    rig.store.delete_orphan(&orphans[0]).unwrap();
}

#[test]
fn a_lost_reply_to_an_abort_is_no_error() {
    for fault in [lost(), Some(Fault::Instead(Step::Reset)), refused(503, "SlowDown")] {
        let rig = Rig::new();
        rig.script(Abort, move |_, nth, _| fault.clone().filter(|_| nth == 0));
        let mut writer = rig.writer(false).unwrap();
        writer.write_chunk(&noise(2 * PART, 8)).unwrap();
        rig.server().wait_until(|record| record.iter().any(|r| is(r, Operation::UploadPart)));
        writer.cancel().unwrap();
        rig.assert_nothing();
        rig.assert_usable();
    }
}

/// The server says that it removed the upload, and did not.
#[test]
fn an_abort_in_vain_is_repeated() {
    let rig = Rig::new();
    rig.behave(|behavior| behavior.aborts_in_vain = 2);
    let mut writer = rig.writer(false).unwrap();
    writer.write_chunk(&noise(2 * PART, 9)).unwrap();
    rig.server().wait_until(|record| record.iter().any(|r| is(r, Operation::UploadPart)));
    writer.cancel().unwrap();
    rig.assert_nothing();
    assert!(rig.count(Abort) >= 3);
}
