//! Reading many small objects: each is opened, read, and compared by one thread in one go.

use bytes::Bytes;

use crate::backend::{Alignment, Backend};
use crate::buffer::{AlignedVec, Pool};
use crate::encode::{Checksum, mismatch};
use crate::engine::{Engine, answered, caught, read_whole};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, Mutex, lock};
use crate::time::Deadline;

const READ: &str = "read objects";

/// An object to be read.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub uri: Arc<str>,
    pub key: String,
    /// What to compare it with.
    pub expected: Option<Checksum>,
}

#[derive(Debug)]
struct Entry {
    wanted: Result<Wanted>,
    outcome: Mutex<Option<Result<Option<Bytes>>>>,
}

/// The bytes of each object, in memory of its own; `None` for one that is larger than a part.
pub(crate) fn get_each(
    engine: &Arc<Engine>,
    backend: &Arc<dyn Backend>,
    wanted: Vec<Result<Wanted>>,
) -> Vec<Result<Option<Bytes>>> {
    let first = wanted.iter().flatten().next().map(|first| Arc::clone(&first.uri));
    let entry = |wanted| Entry { wanted, outcome: Mutex::new(None) };
    let entries: Arc<[Entry]> = wanted.into_iter().map(entry).collect();
    let swept = first.map_or(Ok(()), |first| {
        let uri: Arc<str> = match entries.len() {
            1 => first,
            many => Arc::from(format!("{first} and {} more", many - 1)),
        };
        let (backend, pool) = (Arc::clone(backend), Arc::clone(engine.pool()));
        engine.sweep(READ, &uri, &entries, move |entry, deadline| {
            let Ok(wanted) = &entry.wanted else { return true };
            let read = caught("read", || wanted.read(&*backend, &pool, deadline));
            let goes_on = answered(&read);
            *lock(&entry.outcome) = Some(read.map_err(|e| e.with_uri(&*wanted.uri)));
            goes_on
        })
    });
    let outcome = |entry: &Entry| match (&entry.wanted, lock(&entry.outcome).take()) {
        (Err(error), _) => Err(error.clone()),
        (Ok(_), Some(outcome)) => outcome,
        (Ok(wanted), None) => {
            let lost = || Error::new(ErrorKind::Cancelled, "read", "the object was not read");
            Err(swept.clone().err().unwrap_or_else(lost).with_uri(&*wanted.uri))
        }
    };
    entries.iter().map(outcome).collect()
}

impl Wanted {
    fn read(
        &self,
        backend: &dyn Backend,
        pool: &Arc<Pool>,
        deadline: &Deadline,
    ) -> Result<Option<Bytes>> {
        let source = backend.open(&self.key, deadline)?;
        let bytes = match usize::try_from(source.size_bytes()) {
            Ok(bytes) if bytes <= pool.buffer_bytes() => bytes,
            _ => return Ok(None),
        };
        let read: Bytes = if source.alignment() == Alignment::NONE {
            // A small piece of the heap is used again, where a map costs a system call and its page faults.
            let mut memory = vec![0; bytes];
            read_whole(&*source, pool, &mut memory, deadline)?;
            memory.into()
        } else {
            let mut memory = AlignedVec::zeroed(bytes)?;
            read_whole(&*source, pool, &mut memory, deadline)?;
            memory.into()
        };
        // Of an empty object nothing is kept that could differ.
        let kept =
            source.checksum().filter(|kept| !read.is_empty() && Some(*kept) != self.expected);
        for expected in [self.expected, kept].into_iter().flatten() {
            let found = expected.algorithm().checksum(&read);
            if found != expected {
                return Err(mismatch(0, read.len() as u64, expected, found));
            }
        }
        Ok(Some(read))
    }
}
