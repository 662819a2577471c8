//! Reading many small objects: each is read and compared by one thread in one go. Files are opened somewhat
//! earlier, so that the disk reads more of them at a time than there are threads.

use bytes::Bytes;

use crate::backend::{Alignment, Backend, Source};
use crate::buffer::{AlignedVec, Pool};
use crate::encode::{Checksum, mismatch};
use crate::engine::{Engine, answered, caught, read_whole};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};
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

/// Objects that are opened ahead of their turn, on media that gain from it. Small ones are there within fewer
/// turns; and each holds a descriptor.
const OPEN_AHEAD_OBJECTS: u64 = 16;

#[derive(Debug)]
struct Entry {
    wanted: Result<Wanted>,
    turn: Mutex<Turn>,
    outcome: Mutex<Option<Result<Option<Bytes>>>>,
}

/// Whether an object's turn has come.
#[derive(Debug)]
enum Turn {
    Waits { opened: Option<Arc<dyn Source>> },
    Has,
}

impl Entry {
    fn new(wanted: Result<Wanted>) -> Entry {
        let turn = Mutex::new(Turn::Waits { opened: None });
        Entry { wanted, turn, outcome: Mutex::new(None) }
    }

    /// Begins with the object unless its turn has come.
    fn open_ahead(&self, backend: &dyn Backend, deadline: &Deadline) {
        if let Ok(wanted) = &self.wanted
            && let Some(source) = backend.open_ahead(&wanted.key, deadline)
            && let Turn::Waits { opened } = &mut *lock(&self.turn)
        {
            *opened = Some(source);
        }
    }

    /// Its turn has come: what was opened.
    fn take_turn(&self) -> Option<Arc<dyn Source>> {
        match std::mem::replace(&mut *lock(&self.turn), Turn::Has) {
            Turn::Waits { opened } => opened,
            Turn::Has => None,
        }
    }
}

/// The bytes of each object, in memory of its own; `None` for one that is larger than a part.
pub(crate) fn get_each(
    engine: &Arc<Engine>,
    backend: &Arc<dyn Backend>,
    wanted: Vec<Result<Wanted>>,
) -> Vec<Result<Option<Bytes>>> {
    let first = wanted.iter().flatten().next().map(|first| Arc::clone(&first.uri));
    let entries: Arc<[Entry]> = wanted.into_iter().map(Entry::new).collect();
    let swept = first.map_or(Ok(()), |first| {
        let uri: Arc<str> = match entries.len() {
            1 => first,
            many => Arc::from(format!("{first} and {} more", many - 1)),
        };
        let (backend, pool) = (Arc::clone(backend), Arc::clone(engine.pool()));
        let (all, ahead) = (Arc::clone(&entries), AtomicU64::new(OPEN_AHEAD_OBJECTS));
        engine.sweep(READ, &uri, &entries, move |entry, deadline| {
            let opened = entry.take_turn();
            if let Some(next) = all.get(ahead.fetch_add(1, Ordering::AcqRel) as usize) {
                // What goes wrong with it comes again in its turn.
                let _ = caught("open", || {
                    next.open_ahead(&*backend, deadline);
                    Ok(())
                });
            }
            let Ok(wanted) = &entry.wanted else { return true };
            let read = caught("read", || {
                let source = opened.map_or_else(|| backend.open(&wanted.key, deadline), Ok)?;
                wanted.read(&*source, &pool, deadline)
            });
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
    /// `None` for an object that is larger than a part.
    fn read(
        &self,
        source: &dyn Source,
        pool: &Arc<Pool>,
        deadline: &Deadline,
    ) -> Result<Option<Bytes>> {
        let bytes = match usize::try_from(source.size_bytes()) {
            Ok(bytes) if bytes <= pool.buffer_bytes() => bytes,
            _ => return Ok(None),
        };
        let read: Bytes = if source.alignment() == Alignment::NONE {
            // A small piece of the heap is used again, where a map costs a system call and its page faults.
            let mut memory = vec![0; bytes];
            read_whole(source, pool, &mut memory, deadline)?;
            memory.into()
        } else {
            let mut memory = AlignedVec::zeroed(bytes)?;
            read_whole(source, pool, &mut memory, deadline)?;
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
