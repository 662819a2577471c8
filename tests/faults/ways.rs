//! The ways in which a request to a service fails, and what each of them means.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use syncline::{Error, ErrorKind, HttpConfig};

use crate::scripted::{Answer, Fault, Request, Step};
use crate::service::Service;

const LONG: Duration = Duration::from_secs(3600);

/// How long a connection may stand still here. An honest answer takes a thousandth of it.
pub const IMPATIENT: Duration = Duration::from_millis(1000);

/// Attempts of one request.
pub const ATTEMPTS: u32 = 3;

pub fn http() -> HttpConfig {
    HttpConfig::new().attempts_max(ATTEMPTS).response_timeout(IMPATIENT)
}

/// What is done to a request of this service.
pub type Way = fn(&Service) -> Fault;

fn instead(step: impl Into<Step>) -> Fault {
    Fault::Instead(step.into())
}

/// An answer that promises more than it has.
fn longer(answer: Answer) -> Answer {
    answer.header("content-length", "100000")
}

macro_rules! ways {
    ($($name:ident: $way:expr;)*) => {
        $(pub fn $name(service: &Service) -> Fault {
            let way: Way = $way;
            way(service)
        })*

        /// Makes a test of `f(scheme, way, number)` for each way; the numbers count the ways.
        macro_rules! in_every_way {
            ($scheme:literal, $f:path) => {
                $(#[test]
                fn $name() {
                    let number = $crate::ways::NAMES.iter().position(|n| *n == stringify!($name));
                    $f($scheme, $crate::ways::$name, number.unwrap());
                })*
            };
        }

        pub(crate) use in_every_way;

        pub const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

ways! {
    status_500: |s| instead(s.error(500, "InternalError"));
    status_502_of_a_gateway: |_| instead(Answer::new(502).body("<html>Bad Gateway</html>"));
    status_503: |s| instead(busy(s));
    status_503_with_a_time: |s| instead(busy(s).header("retry-after", "0"));
    status_503_with_a_date:
        |s| instead(busy(s).header("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"));
    status_504: |_| instead(Answer::new(504));
    status_429: |s| instead(s.error(429, "TooManyRequests"));
    status_408: |s| instead(s.error(408, "RequestTimeout"));
    its_own_timeout: |s| match s {
        Service::S3(_) => instead(s.error(400, "RequestTimeout")),
        Service::Azure(_) => instead(s.error(500, "OperationTimedOut")),
    };
    status_403: |s| instead(match s {
        Service::S3(_) => s.error(403, "AccessDenied"),
        Service::Azure(_) => s.error(403, "AuthorizationPermissionMismatch"),
    });
    early_503: |s| Fault::Early(busy(s).into());
    early_500_draining: |s| Fault::Early(s.error(500, "InternalError").draining().into());
    reset_before_the_body: |_| Fault::Early(Step::Reset);
    closed_before_the_body: |_| Fault::Early(Step::Close);
    reset_after_the_body: |_| instead(Step::Reset);
    closed_after_the_body: |_| instead(Step::Close);
    never_answered: |_| instead(Step::Hang(LONG));
    reply_lost_by_a_reset: |_| Fault::After(Step::Reset);
    reply_lost_by_a_close: |_| Fault::After(Step::Close);
    reply_truncated: |_| Fault::Changed(|answer| longer(answer).truncate(40));
    reply_reset: |_| Fault::Changed(|answer| longer(answer).reset_after(0));
    reply_hangs: |_| Fault::Changed(|answer| longer(answer).hang_after(10, LONG));
    not_http: |_| Fault::Changed(|answer| answer.header("content-length", "many"));
}

fn busy(service: &Service) -> Answer {
    match service {
        Service::S3(_) => service.error(503, "SlowDown"),
        Service::Azure(_) => service.error(503, "ServerBusy"),
    }
}

/// Whether the request has its effect all the same.
pub fn takes_effect(fault: &Fault) -> bool {
    matches!(fault, Fault::After(_) | Fault::Changed(_))
}

pub fn hangs(fault: &Fault) -> bool {
    match fault {
        Fault::Instead(step) => matches!(step, Step::Hang(_)),
        Fault::Changed(change) => {
            format!("{:?}", change(Answer::new(200).body([0; 100]))).contains("Hang")
        }
        _ => false,
    }
}

/// Whether another attempt cannot help.
pub fn is_terminal(fault: &Fault) -> bool {
    status_of(fault) == Some(403)
}

/// The status that stands instead of an effect.
pub fn status_of(fault: &Fault) -> Option<u16> {
    match fault {
        Fault::Instead(Step::Answer(answer)) | Fault::Early(Step::Answer(answer)) => {
            Some(answer.status)
        }
        _ => None,
    }
}

/// How often a request is tried that always fails so: a server that asks for less is waited for longer.
pub fn attempts_at(fault: &Fault) -> u32 {
    match status_of(fault) {
        Some(403) => 1,
        Some(429 | 503) => 2 * ATTEMPTS,
        _ => ATTEMPTS,
    }
}

/// What the error of a request says that failed so for good.
#[track_caller]
pub fn assert_told(error: &Error, fault: &Fault, what: &str) {
    let kind = match fault {
        fault if is_terminal(fault) => ErrorKind::PermissionDenied,
        fault if hangs(fault) => ErrorKind::TimedOut,
        _ => ErrorKind::Unavailable,
    };
    assert_eq!(error.kind(), kind, "{what}: {error}");
    if let Some(status) = status_of(fault) {
        assert!(error.to_string().contains(&status.to_string()), "{what}: {error}");
    }
}

/// Whether the answer may take its time: what stands still there is not given up before the timeout.
pub fn is_patient(operation: &str) -> bool {
    ["Complete", "PutBlockList"].contains(&operation)
}

/// What a service was asked for while it was disturbed.
#[derive(Debug, Default)]
pub struct Disturbed {
    requests: AtomicUsize,
    faults: AtomicUsize,
}

impl Disturbed {
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Requests that failed.
    pub fn faults(&self) -> usize {
        self.faults.load(Ordering::SeqCst)
    }
}

/// Does this to the requests, numbered from 0, of which `wanted` says so.
pub fn disturb_if(
    service: &Service,
    fault: Fault,
    wanted: impl Fn(usize, &Request) -> bool + Send + Sync + 'static,
) -> Arc<Disturbed> {
    let disturbed = Arc::new(Disturbed::default());
    let counts = Arc::clone(&disturbed);
    service.on_request(move |_, request| {
        let number = counts.requests.fetch_add(1, Ordering::SeqCst);
        wanted(number, request).then(|| {
            counts.faults.fetch_add(1, Ordering::SeqCst);
            fitting(&fault, request)
        })
    });
    disturbed
}

/// An answer without a body is not cut in its middle: what its head says of the length is of the object.
fn fitting(fault: &Fault, request: &Request) -> Fault {
    match fault {
        Fault::Changed(_) if request.method == "HEAD" => Fault::After(Step::Reset),
        _ => fault.clone(),
    }
}
