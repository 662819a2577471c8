//! What writers leave behind, and who finds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use syncline::ErrorKind;

use crate::rig::{KEY, PART, Rig, URI, in_time, is, noise};
use crate::s3_model::{Fault, Operation, error};
use crate::scripted::{Answer, Step};

use Operation::{ListParts, ListUploads, UploadPart};

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn stale_uploads_are_listed_by_age_with_their_size_and_removed() {
    let rig = Rig::new();
    rig.behave(|behavior| behavior.page_entries = 1);
    let (old, young) = (SystemTime::now() - 3 * DAY, SystemTime::now() - DAY);
    let stale = [
        rig.open_upload(KEY, old),
        rig.open_upload(&format!("{KEY}/a b+%"), old),
        rig.open_upload(KEY, old),
    ];
    let kept = [
        rig.open_upload(KEY, young),
        rig.open_upload("dir/object-1", old),
        rig.open_upload("dir/objects", old),
        rig.open_upload("other", old),
    ];
    // Parts on several pages.
    for number in 1..=3 {
        rig.send_part(&stale[0], number, &noise(1000 * number, 1));
    }
    rig.put(KEY, b"the object itself");
    let found = rig.store.orphans(URI, 2 * DAY).unwrap();
    let mut sizes: Vec<u64> = found.iter().map(|orphan| orphan.size_bytes).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [0, 0, 6000]);
    assert!(found.iter().all(|orphan| orphan.modified.is_some()));
    assert_eq!(rig.store.orphans(URI, DAY / 2).unwrap().len(), 4);
    for orphan in &found {
        rig.store.delete_orphan(orphan).unwrap();
    }
    let left: Vec<String> = rig.uploads().into_keys().collect();
    let mut kept = kept.to_vec();
    kept.sort();
    assert_eq!(left, kept);
    rig.assert_holds(b"the object itself");
    assert!(rig.store.orphans(URI, 2 * DAY).unwrap().is_empty());
}

/// An id may hold any characters, also those that mean something in a path.
#[test]
fn ids_are_kept_as_they_are() {
    for id in ["ends-in/", "a/../b", "./", "//", "a+b=c&d?e#f%20", "..", "x?uploadId=y", "~a.b_c-d"]
    {
        let rig = Rig::new();
        let body = format!(
            "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><Upload><Key>dir/object</Key>\
             <UploadId>{}</UploadId></Upload></ListMultipartUploadsResult>",
            id.replace('&', "&amp;")
        );
        rig.on_request(move |_, request| match crate::s3_model::operation(request) {
            ListUploads => Some(Fault::Instead(Answer::new(200).body(body.clone()).into())),
            _ => None,
        });
        let found = rig.orphans();
        assert_eq!(found.len(), 1, "{id}");
        rig.store.delete_orphan(&found[0]).unwrap();
        let aborts = rig.requests(Operation::Abort);
        assert_eq!(aborts[0].param("uploadId").as_deref(), Some(id));
        assert!(is(&aborts[0], Operation::Abort));
    }
}

#[test]
fn only_what_is_unfinished_is_removed() {
    let rig = Rig::new();
    rig.write(b"data", false).unwrap();
    rig.open_upload(KEY, SystemTime::now());
    let mut orphan = rig.orphans().remove(0);
    orphan.uri = URI.to_owned();
    let refused = rig.store.delete_orphan(&orphan).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
    rig.assert_holds(b"data");
}

/// Between two looks an upload may end.
#[test]
fn an_upload_that_ends_meanwhile_is_no_error() {
    let rig = Rig::new();
    rig.open_upload(KEY, SystemTime::now() - 3 * DAY);
    rig.fault_always(ListParts, Fault::Instead(error(404, "NoSuchUpload").into()));
    assert!(rig.store.orphans(URI, Duration::ZERO).unwrap().len() <= 1);
    rig.fault_always(ListParts, Fault::Instead(error(403, "AccessDenied").into()));
    assert_eq!(
        rig.store.orphans(URI, Duration::ZERO).unwrap_err().kind(),
        ErrorKind::PermissionDenied
    );
}

#[test]
fn a_trial_that_was_left_is_found() {
    let rig = Rig::new();
    rig.on_request(|_, request| {
        let delete = crate::s3_model::operation(request) == Operation::Delete;
        delete.then(|| Fault::Instead(error(403, "AccessDenied").into()))
    });
    rig.write(b"data", true).unwrap();
    rig.unhook();
    assert_eq!(rig.store.list("s3://bucket").unwrap().count(), 1);
    let found = rig.orphans();
    assert_eq!(found.len(), 1);
    rig.store.delete_orphan(&found[0]).unwrap();
    assert_eq!(rig.keys(), [KEY]);
}

/// How a writer ends early.
#[derive(Debug, Clone, Copy)]
enum End {
    Cancel,
    Drop,
    Unwind,
}

fn end(writer: Box<dyn syncline::ObjectWriter>, how: End) {
    match how {
        End::Cancel => writer.cancel().unwrap(),
        End::Drop => drop(writer),
        End::Unwind => {
            let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let _writer = writer;
                std::panic::resume_unwind(Box::new(()));
            }));
            assert!(unwound.is_err());
        }
    }
}

#[test]
fn a_writer_that_ends_early_leaves_nothing() {
    for how in [End::Cancel, End::Drop, End::Unwind] {
        for parts in [0, 1, 2, 4] {
            let rig = Rig::new();
            let mut writer = rig.writer(false).unwrap();
            writer.write_chunk(&noise(parts * PART + 10, 2)).unwrap();
            end(writer, how);
            rig.assert_nothing();
            rig.assert_usable();
        }
    }
}

/// Parts are under way when the writer ends: their answers come late, or never.
#[test]
fn parts_under_way_leave_nothing() {
    for how in [End::Cancel, End::Drop] {
        for hangs in [false, true] {
            let rig = Rig::impatient(Duration::from_secs(1));
            let released = Arc::new(AtomicBool::new(false));
            let gate = Arc::clone(&released);
            rig.on_request(move |_, request| {
                if !is(request, UploadPart) || gate.load(Ordering::Relaxed) {
                    return None;
                }
                Some(match hangs {
                    true => Fault::Instead(Step::Hang(DAY)),
                    false => Fault::Changed(|answer| answer.after(Duration::from_millis(400))),
                })
            });
            let mut writer = rig.writer(false).unwrap();
            writer.write_chunk(&noise(3 * PART + 10, 3)).unwrap();
            rig.server().wait_until(|record| record.iter().any(|r| is(r, UploadPart)));
            in_time(move || end(writer, how));
            // A thread may still be at the last part; the upload is removed when it has ended.
            released.store(true, Ordering::Relaxed);
            let Rig { s3, store } = rig;
            in_time(move || drop(store));
            assert!(s3.uploads().is_empty(), "{how:?} {hangs}: {:?}", s3.uploads().len());
            assert!(s3.keys().is_empty());
        }
    }
}

/// A part whose effect comes after the upload was removed once.
#[test]
fn a_part_that_comes_late_brings_no_upload_back() {
    let rig = Rig::new();
    rig.behave(|behavior| behavior.aborts_in_vain = 1);
    rig.on_request(|_, request| {
        is(request, UploadPart)
            .then_some(Fault::Changed(|answer| answer.after(Duration::from_millis(200))))
    });
    let mut writer = rig.writer(false).unwrap();
    writer.write_chunk(&noise(2 * PART, 4)).unwrap();
    rig.server().wait_until(|record| record.iter().any(|r| is(r, UploadPart)));
    drop(writer);
    rig.assert_nothing();
    rig.assert_usable();
}

/// One part fails while others are sent and wait: all ends, and at once.
#[test]
fn a_failed_part_ends_the_others() {
    let rig = Rig::new();
    rig.on_request(|_, request| {
        let second = request.param("partNumber").as_deref() == Some("2");
        (is(request, UploadPart) && second)
            .then(|| Fault::Instead(error(403, "AccessDenied").into()))
    });
    let mut writer = rig.writer(false).unwrap();
    let data = noise(PART, 5);
    let failed = (0..20).find_map(|_| writer.write_chunk(&data).err());
    let failed = failed.unwrap_or_else(|| writer.finalize().unwrap_err());
    assert_eq!((failed.kind(), failed.part()), (ErrorKind::PermissionDenied, Some(1)), "{failed}");
    assert_eq!(rig.keys(), [""; 0]);
}
