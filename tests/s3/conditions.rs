//! Create-only writes: servers that keep the condition, and those that do not.

use std::sync::Barrier;
use std::thread;

use syncline::{CreateOnlyPolicy, ErrorKind};

use crate::rig::{KEY, PART, Rig, assert_says, is, noise, open};
use crate::s3_model::{Checksums, Fault, Operation, error, key_of};
use crate::scripted::Step;

use Operation::{Complete, Put};

/// A small object and a large one.
fn sizes() -> [(Operation, Vec<u8>); 2] {
    [(Put, noise(1000, 1)), (Complete, noise(PART + 1, 2))]
}

fn ignoring(rig: &Rig, kind: Operation) {
    rig.behave(|behavior| match kind {
        Put => behavior.condition_on_put = false,
        _ => behavior.condition_on_complete = false,
    });
}

#[test]
fn a_server_that_ignores_the_condition_is_refused_before_anything_is_replaced() {
    for (kind, data) in sizes() {
        let rig = Rig::new();
        ignoring(&rig, kind);
        rig.put(KEY, b"before");
        for _ in 0..2 {
            let refused = rig.write(&data, true).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
            assert_says(&refused, &["If-None-Match", "SYNCLINE_S3_CREATE_ONLY"]);
        }
        rig.assert_holds(b"before");
        assert_eq!(rig.keys(), [KEY]);
        rig.assert_no_uploads();
        assert!(!rig.server().requests().iter().any(|r| is(r, Put) || is(r, Complete)));
        // What needs no condition goes on.
        rig.write(&data, false).unwrap();
        rig.assert_holds(&data);
    }
}

#[test]
fn the_other_kind_of_write_is_not_condemned_with_it() {
    let [(_, small), (_, large)] = sizes();
    for (ignored, kept) in [(Put, &large), (Complete, &small)] {
        let rig = Rig::new();
        ignoring(&rig, ignored);
        let meta = rig.write(kept, true).unwrap();
        assert_eq!(meta.write.unwrap().create_only_held, Some(true));
        assert_eq!(rig.write(kept, true).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
}

#[test]
fn by_warning_it_is_written_and_the_report_says_so() {
    for (kind, data) in sizes() {
        let rig = Rig::with(|s3| s3.create_only(CreateOnlyPolicy::Warn), |s| s);
        ignoring(&rig, kind);
        let meta = rig.write(&data, true).unwrap();
        assert_eq!(meta.write.unwrap().create_only_held, Some(false));
        rig.assert_holds(&data);
        // The object is looked for first.
        let refused = rig.write(b"other", true).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{refused}");
        rig.assert_holds(&data);
        assert!(rig.orphans().is_empty());
    }
    let rig = Rig::new();
    let meta = rig.write(b"x", false).unwrap();
    assert_eq!(meta.write.unwrap().create_only_held, None);
}

#[test]
fn an_object_that_is_there_is_kept_and_a_large_one_not_sent() {
    for (kind, data) in sizes() {
        let rig = Rig::new();
        rig.write(&data, true).unwrap();
        let parts = rig.count(Operation::UploadPart);
        let refused = rig.write(&noise(PART + 2, 3)[..data.len()], true).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{refused}");
        assert_eq!(rig.count(Operation::UploadPart), parts, "{kind:?}");
        rig.assert_holds(&data);
        rig.assert_no_uploads();
    }
}

/// Another's request is in the way: a Put is tried again, a completion is not.
#[test]
fn a_conflict_is_retried_where_it_can_help() {
    let conflict = || Fault::Instead(error(409, "ConditionalRequestConflict").into());
    let [(_, small), (_, large)] = sizes();
    let rig = Rig::new();
    rig.write(b"first", true).unwrap();
    rig.remove(KEY);
    rig.fault(Put, 0, conflict());
    rig.write(&small, true).unwrap();
    rig.assert_holds(&small);
    rig.remove(KEY);
    rig.fault_always(Put, conflict());
    let refused = rig.write(&small, true).unwrap_err();
    assert_eq!((refused.kind(), refused.attempts()), (ErrorKind::Conflict, 3), "{refused}");
    rig.fault_always(Complete, conflict());
    let refused = rig.write(&large, true).unwrap_err();
    assert_eq!((refused.kind(), refused.attempts()), (ErrorKind::Conflict, 1), "{refused}");
    assert_says(&refused, &["write the object again"]);
    rig.assert_nothing();
}

/// Eight stores, as eight programs would be.
#[test]
fn of_eight_writers_one_wins() {
    for (_, data) in sizes() {
        let rig = Rig::new();
        let start = Barrier::new(8);
        let outcomes: Vec<_> = thread::scope(|scope| {
            let write = |n: usize| {
                let (store, mut own) = (open(&rig.endpoint()), data.clone());
                own[0] = n as u8;
                let options = syncline::WriteOptions::default().create_only();
                let mut writer = store.get_writer_with(crate::rig::URI, options).unwrap();
                writer.write_chunk(&own).unwrap();
                start.wait();
                writer.finalize()
            };
            let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || write(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winners: Vec<_> = (0..8).filter(|n| outcomes[*n].is_ok()).collect();
        assert_eq!(winners.len(), 1, "{outcomes:?}");
        assert_eq!(rig.object(KEY).unwrap().bytes[0], winners[0] as u8);
        for refused in outcomes.into_iter().filter_map(Result::err) {
            assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{refused}");
        }
        assert_eq!(rig.keys(), [KEY]);
        rig.assert_no_uploads();
    }
}

/// The trial of the condition copes with servers that know no checksums.
#[test]
fn the_trial_needs_no_checksums() {
    for checksums in [Checksums::Ignore, Checksums::Refuse(400), Checksums::Refuse(501)] {
        for (_, data) in sizes() {
            let rig = Rig::new();
            rig.behave(|behavior| behavior.checksums = checksums);
            rig.write(&data, true).unwrap();
            rig.assert_holds(&data);
            assert_eq!(rig.keys(), [KEY]);
        }
    }
}

/// The reply to the trial's own completion is lost, on a server that has replaced the object.
#[test]
fn a_lost_reply_to_the_trial_is_no_proof() {
    let rig = Rig::new();
    ignoring(&rig, Complete);
    rig.fault(Complete, 0, Fault::After(Step::Reset));
    let refused = rig.write(&noise(PART + 1, 4), true).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    rig.assert_nothing();
}

/// The trial's name is not longer than names may be, wherever the object is.
#[test]
fn the_trial_fits_beside_every_key() {
    let folders = [
        "f".repeat(1020),
        format!("{}/{}", "a".repeat(500), "b".repeat(500)),
        "\u{e9}".repeat(510),
    ];
    for folder in folders {
        let rig = Rig::new();
        rig.on_request(|_, request| {
            let long = key_of(request).is_some_and(|key| key.len() > 1024);
            long.then(|| Fault::Instead(error(400, "KeyTooLongError").into()))
        });
        let uri = format!("s3://bucket/{folder}/x");
        let options = syncline::WriteOptions::default().create_only();
        rig.store.put_with(&uri, b"x", options).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(rig.keys(), [format!("{folder}/x")]);
    }
}

/// A trial that fails is none: the next write makes it again.
#[test]
fn a_trial_that_failed_is_made_again() {
    for (_, data) in sizes() {
        let rig = Rig::new();
        rig.on_request(|_, request| {
            let probe = key_of(request).is_some_and(|key| key.ends_with(".syncline-tmp"));
            probe.then(|| Fault::Instead(error(403, "AccessDenied").into()))
        });
        let refused = rig.write(&data, true).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
        rig.unhook();
        rig.write(&data, true).unwrap();
        rig.assert_holds(&data);
        rig.assert_no_uploads();
    }
}
