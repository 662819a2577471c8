//! The loop of one I/O thread, and the note it keeps of what it is at.

use std::time::Instant;

use crate::engine::line::Line;
use crate::engine::queue::Job;
use crate::sync::{Arc, Mutex, Receiver, lock};
use crate::time::now;

/// What a thread is at, for stall reports.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Option<Activity>>);

#[derive(Debug)]
struct Activity {
    operation: &'static str,
    uri: Arc<str>,
    part: Option<u64>,
    since: Instant,
}

impl Slot {
    /// `has been in write part 3 of file:///a for 2.0 s`; `None` for an idle thread.
    pub fn describe(&self) -> Option<String> {
        let activity = lock(&self.0);
        let Activity { operation, uri, part, since } = activity.as_ref()?;
        let part = part.map(|part| format!(" {part}")).unwrap_or_default();
        let seconds = now().saturating_duration_since(*since).as_secs_f64();
        Some(format!("has been in \"{operation}\"{part} of {uri} for {seconds:.1} s"))
    }

    fn set(&self, job: &Job) {
        let (operation, uri, part) = job.subject();
        let activity = Activity { operation, uri: Arc::clone(uri), part, since: now() };
        *lock(&self.0) = Some(activity);
    }

    fn clear(&self) {
        *lock(&self.0) = None;
    }
}

/// Runs jobs until the queue is closed and empty.
pub(super) fn work(jobs: &Receiver<Job>, line: &Line, slot: &Slot) {
    for job in jobs {
        line.advance();
        slot.set(&job);
        job.run();
        slot.clear();
    }
}
