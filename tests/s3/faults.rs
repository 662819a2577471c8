//! Every request of an upload fails in every way: once, and always.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use syncline::ErrorKind;

use crate::rig::{ATTEMPTS, PART, Rig, assert_says, http, in_time, is, noise};
use crate::s3_model::{Fault, Operation, error, operation};
use crate::scripted::{Answer, Step};

const LONG: Duration = Duration::from_secs(3600);

/// How long a connection may stand still here. An honest answer takes a thousandth of it.
const IMPATIENT: Duration = Duration::from_millis(1000);

fn instead(step: impl Into<Step>) -> Fault {
    Fault::Instead(step.into())
}

macro_rules! in_every_way {
    ($($name:ident: $fault:expr;)*) => {
        mod once {
            use super::*;
            $(#[test] fn $name() { fails_once(&$fault); })*
        }
        mod always {
            use super::*;
            $(#[test] fn $name() { fails_always(&$fault); })*
        }
    };
}

in_every_way! {
    status_500: instead(error(500, "InternalError"));
    status_502_of_a_gateway: instead(Answer::new(502).body("<html>Bad Gateway</html>"));
    status_503: instead(error(503, "SlowDown"));
    status_503_with_a_time: instead(error(503, "SlowDown").header("retry-after", "0"));
    status_503_with_a_date:
        instead(error(503, "SlowDown").header("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"));
    status_504: instead(Answer::new(504));
    status_429: instead(error(429, "TooManyRequests"));
    status_408: instead(error(408, "RequestTimeout"));
    status_400_request_timeout: instead(error(400, "RequestTimeout"));
    early_503: Fault::Early(error(503, "SlowDown").into());
    early_500_draining: Fault::Early(error(500, "InternalError").draining().into());
    reset_before_the_body: Fault::Early(Step::Reset);
    closed_before_the_body: Fault::Early(Step::Close);
    reset_after_the_body: instead(Step::Reset);
    closed_after_the_body: instead(Step::Close);
    hangs: instead(Step::Hang(LONG));
    reply_lost_by_a_reset: Fault::After(Step::Reset);
    reply_lost_by_a_close: Fault::After(Step::Close);
    reply_truncated: Fault::Changed(|answer| longer(answer).truncate(40));
    reply_reset: Fault::Changed(|answer| longer(answer).reset_after(0));
    reply_hangs: Fault::Changed(|answer| longer(answer).hang_after(10, LONG));
    not_http: Fault::Changed(|answer| answer.header("content-length", "many"));
}

/// An answer that promises more than it has.
fn longer(answer: Answer) -> Answer {
    answer.header("content-length", "100000")
}

/// Whether the request has its effect all the same.
fn takes_effect(fault: &Fault) -> bool {
    matches!(fault, Fault::After(_) | Fault::Changed(_))
}

fn hangs(fault: &Fault) -> bool {
    match fault {
        Fault::Instead(step) => matches!(step, Step::Hang(_)),
        Fault::Changed(change) => {
            format!("{:?}", change(Answer::new(200).body([0; 100]))).contains("Hang")
        }
        _ => false,
    }
}

/// How often a request is tried that always fails so: a server that asks for less is waited for longer.
fn attempts_at(fault: &Fault) -> u32 {
    let told = match fault {
        Fault::Instead(step) | Fault::Early(step) => format!("{step:?}"),
        _ => String::new(),
    };
    let throttles = ["status: 503", "status: 429"].iter().any(|status| told.contains(status));
    if throttles { 2 * ATTEMPTS } else { ATTEMPTS }
}

/// Fails the k-th request of a create-only upload, for each k.
fn fails_once(fault: &Fault) {
    for data in [noise(1000, 1), noise(PART + 1000, 2)] {
        let rig = Rig::new();
        rig.write(&data, true).unwrap();
        let operations = rig.operations();
        for (nth, failing) in operations.iter().enumerate() {
            // The completion may take its time: what stands still is not given up before the timeout.
            if hangs(fault) && *failing == Operation::Complete && nth + 1 == operations.len() {
                continue;
            }
            let rig = Rig::impatient(IMPATIENT);
            let once = fault.clone();
            let happened = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&happened);
            rig.hook(move |_, number, request| {
                let hit = number == nth && operation(request) != Operation::Unknown;
                seen.fetch_or(hit, Ordering::Relaxed);
                hit.then(|| once.clone())
            });
            let written = rig.write(&data, true);
            let meta = written.unwrap_or_else(|e| panic!("request {nth}, {failing:?}: {e}"));
            assert!(happened.load(Ordering::Relaxed));
            assert_eq!(meta.write.unwrap().create_only_held, Some(true), "{nth} {failing:?}");
            rig.assert_holds(&data);
            assert_eq!(rig.keys().len(), 1, "request {nth}, {failing:?}: {:?}", rig.keys());
            // Of an upload whose id was lost nobody knows but gc.
            let lost = usize::from(*failing == Operation::Create && takes_effect(fault));
            assert_eq!(rig.uploads().len(), lost, "request {nth}, {failing:?}");
            in_time(move || drop(rig));
        }
    }
}

/// Fails every request of one kind.
fn fails_always(fault: &Fault) {
    use Operation::{Complete, Create, Put, UploadPart};
    for (failing, data) in [
        (Put, noise(1000, 3)),
        (Create, noise(PART + 1000, 4)),
        (UploadPart, noise(PART + 1000, 5)),
        (Complete, noise(PART + 1000, 6)),
    ] {
        let patient = failing == Complete && hangs(fault);
        let rig = Rig::with(
            |s3| s3,
            |settings| {
                let settings = settings.http(http().response_timeout(IMPATIENT));
                if patient { settings.timeout(Duration::from_secs(3)) } else { settings }
            },
        );
        let broken = fault.clone();
        rig.hook(move |_, _, request| is(request, failing).then(|| broken.clone()));
        let outcome = rig.write(&data, false);
        if takes_effect(fault) && [Put, Complete].contains(&failing) && !patient {
            outcome.unwrap_or_else(|e| panic!("{failing:?} had its effect: {e}"));
            rig.assert_holds(&data);
        } else {
            let error = outcome.unwrap_err();
            let timed_out = hangs(fault);
            let kind = if timed_out { ErrorKind::TimedOut } else { ErrorKind::Unavailable };
            assert_eq!(error.kind(), kind, "{failing:?}: {error}");
            assert_eq!(error.uri(), Some(crate::rig::URI));
            if patient {
                assert_says(&error, &["unknown"]);
            } else {
                let attempts = attempts_at(fault);
                assert_eq!(error.attempts(), attempts, "{failing:?}: {error}");
                assert_says(&error, &[&format!("tried {attempts} times")]);
                let sent = rig.requests(failing).len();
                assert!(sent >= attempts as usize, "{failing:?}: {sent} requests");
            }
            if !takes_effect(fault) {
                rig.assert_nothing();
            }
        }
        if failing == Create && takes_effect(fault) {
            for orphan in rig.orphans() {
                rig.store.delete_orphan(&orphan).unwrap();
            }
        }
        rig.assert_no_uploads();
        rig.assert_usable();
    }
}

/// The first error of a writer is told by every later call.
#[test]
fn the_first_error_latches() {
    let rig = Rig::new();
    rig.fault_always(Operation::UploadPart, instead(error(403, "AccessDenied")));
    let mut writer = rig.writer(false).unwrap();
    let data = noise(PART, 7);
    let failed = (0..10).find_map(|_| writer.write_chunk(&data).err()).unwrap();
    assert_eq!(failed.kind(), ErrorKind::PermissionDenied, "{failed}");
    rig.unhook();
    let again = writer.write_chunk(b"x").unwrap_err();
    assert_eq!(again.to_string(), failed.to_string());
    assert_eq!(writer.finalize().unwrap_err().to_string(), failed.to_string());
    rig.assert_nothing();
    rig.assert_usable();
}

/// What another attempt cannot help is not tried again.
#[test]
fn terminal_refusals_are_one_request() {
    for (status, code, kind) in [
        (403, "AccessDenied", ErrorKind::PermissionDenied),
        (403, "SignatureDoesNotMatch", ErrorKind::PermissionDenied),
        (403, "InvalidAccessKeyId", ErrorKind::PermissionDenied),
        (404, "NoSuchBucket", ErrorKind::BucketNotFound),
        (405, "MethodNotAllowed", ErrorKind::Unsupported),
        (413, "", ErrorKind::LimitExceeded),
        (400, "EntityTooLarge", ErrorKind::LimitExceeded),
        (507, "XMinioStorageFull", ErrorKind::NoSpace),
    ] {
        let rig = Rig::new();
        rig.fault_always(Operation::Put, instead(error(status, code)));
        let refused = rig.write(b"data", false).unwrap_err();
        assert_eq!((refused.kind(), refused.attempts()), (kind, 1), "{refused}");
        assert_says(&refused, &[&status.to_string(), code]);
        assert_eq!(rig.operations(), [Operation::Put], "{code}");
        rig.assert_nothing();
    }
}
