//! What can be queued. Putting and reading parts are variants rather than boxed closures, so that a
//! part costs no allocation on its way to a thread.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::backend::{PartView, Receipt, Upload};
use crate::buffer::Part;
use crate::encode::PartSum;
use crate::engine::fetch::{Fetch, Fetched};
use crate::engine::frame::FrameJob;
use crate::engine::ticket::Pending;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, this_thread};
use crate::time::Deadline;

/// Work for an I/O thread.
#[derive(Debug)]
pub(crate) enum Job {
    Put(PutJob),
    Fetch(FetchJob),
    Frame(FrameJob),
    Call(Box<dyn Call>),
}

impl Job {
    /// What is done, to what, and to which part of it, for stall reports.
    pub fn subject(&self) -> (&'static str, &Arc<str>, Option<u64>) {
        match self {
            Job::Put(job) => ("write part", &job.uri, Some(job.part.index)),
            Job::Fetch(job) => ("read", &job.fetch.uri, Some(job.fetch.index)),
            Job::Frame(job) => job.subject(),
            Job::Call(job) => (job.operation(), job.uri(), None),
        }
    }

    /// Runs the job. Its ticket completes whatever happens, and a panic is the job's outcome.
    pub fn run(self) {
        match self {
            Job::Put(job) => job.run(),
            Job::Fetch(job) => job.run(),
            Job::Frame(job) => job.run(),
            Job::Call(job) => job.run(),
        }
    }
}

/// Hands one part to the backend.
#[derive(Debug)]
pub(crate) struct PutJob {
    pub uri: Arc<str>,
    pub upload: Arc<dyn Upload>,
    pub part: Part,
    pub deadline: Deadline,
    /// Last: when the job is dropped unrun, the buffer is back before the ticket completes.
    pub pending: Pending<Receipt>,
}

impl PutJob {
    fn run(self) {
        let PutJob { uri, upload, part, deadline, pending } = self;
        let index = part.index;
        // What it waited for its turn was the progress of others.
        let deadline = deadline.renewed();
        guarded(pending, "write part", &uri, Some(index), move || {
            with_view(&part, |view| upload.put_part(view, &deadline))
        });
    }
}

/// Shows `part` to `f` as a backend sees it.
pub(crate) fn with_view<R>(part: &Part, f: impl FnOnce(&PartView<'_>) -> Result<R>) -> Result<R> {
    let shown = part.with_bytes(|bytes, bytes_padded, more| {
        let (index, offset) = (part.index, part.offset);
        let PartSum { checksum, transport, .. } = part.sum;
        f(&PartView { index, offset, bytes, more, bytes_padded, checksum, transport })
    });
    shown.unwrap_or_else(|| Err(withdrawn("write part")))
}

/// Reads one piece of an object.
#[derive(Debug)]
pub(crate) struct FetchJob {
    pub fetch: Fetch,
    pub pending: Pending<Fetched>,
}

impl FetchJob {
    fn run(self) {
        let FetchJob { mut fetch, pending } = self;
        fetch.deadline = fetch.deadline.renewed();
        let (uri, index) = (Arc::clone(&fetch.uri), fetch.index);
        guarded(pending, "read", &uri, Some(index), move || fetch.run());
    }
}

/// A call that is neither a put nor a read of a part.
pub(crate) trait Call: Send + fmt::Debug {
    fn operation(&self) -> &'static str;
    fn uri(&self) -> &Arc<str>;
    fn run(self: Box<Self>);
}

/// The one implementation of [`Call`]: a closure and the ticket for its result.
pub(crate) struct CallJob<T, F> {
    operation: &'static str,
    uri: Arc<str>,
    f: F,
    pending: Pending<T>,
}

impl<T, F> CallJob<T, F>
where
    F: FnOnce() -> Result<T> + Send,
    T: Send,
{
    pub fn new(
        operation: &'static str,
        uri: &Arc<str>,
        pending: Pending<T>,
        f: F,
    ) -> CallJob<T, F> {
        CallJob { operation, uri: Arc::clone(uri), f, pending }
    }
}

impl<T, F> fmt::Debug for CallJob<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallJob({} {})", self.operation, self.uri)
    }
}

impl<T, F> Call for CallJob<T, F>
where
    F: FnOnce() -> Result<T> + Send,
    T: Send,
{
    fn operation(&self) -> &'static str {
        self.operation
    }

    fn uri(&self) -> &Arc<str> {
        &self.uri
    }

    fn run(self: Box<Self>) {
        guarded(self.pending, self.operation, &self.uri, None, self.f);
    }
}

/// Runs `f` unless its batch is dead, and completes the ticket with what came of it. `f`, and with it
/// every buffer it owns, is gone before the ticket completes.
pub(super) fn guarded<T>(
    pending: Pending<T>,
    operation: &'static str,
    uri: &Arc<str>,
    part: Option<u64>,
    f: impl FnOnce() -> Result<T>,
) {
    if let Some((pending, outcome)) = attempted(pending, operation, uri, part, f) {
        pending.complete(Ok(outcome));
    }
}

/// The first of several steps of a job: as [`guarded`], but after a success the ticket is still to be
/// completed.
pub(super) fn attempted<T, R>(
    mut pending: Pending<T>,
    operation: &'static str,
    uri: &Arc<str>,
    part: Option<u64>,
    f: impl FnOnce() -> Result<R>,
) -> Option<(Pending<T>, R)> {
    if pending.is_dead() {
        // It may own memory of the caller's, whose release is code of the caller's.
        if catch_unwind(AssertUnwindSafe(|| drop(f))).is_err() {
            log::error!("{operation} {uri}: releasing the memory of a skipped job panicked");
        }
        return None;
    }
    pending.begin();
    let outcome = caught(operation, f).map_err(|error| match part {
        Some(part) => error.with_part(part),
        None => error,
    });
    match outcome {
        Ok(outcome) => Some((pending, outcome)),
        Err(error) => {
            pending.complete(Err(error.with_uri(&**uri)));
            None
        }
    }
}

/// Runs `f`, whose panic is its outcome. An error by which a medium stood still says which thread waited.
pub(crate) fn caught<R>(operation: &'static str, f: impl FnOnce() -> Result<R>) -> Result<R> {
    let outcome = catch_unwind(AssertUnwindSafe(f));
    let outcome = outcome.unwrap_or_else(|panic| Err(panicked(operation, &*panic)));
    outcome.map_err(|error| match (error.kind(), this_thread().name()) {
        (ErrorKind::TimedOut, Some(name)) => error.with_place(name),
        _ => error,
    })
}

/// The outcome of a job whose borrowed memory was taken back.
pub(crate) fn withdrawn(operation: &'static str) -> Error {
    Error::new(ErrorKind::Cancelled, operation, "the borrowed memory was withdrawn")
}

fn panicked(operation: &'static str, panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    Error::new(ErrorKind::Panicked, operation, format!("a job panicked: {text}"))
        .with_remedy("this is a defect: please report it")
}
