//! Writing many small objects: each step of the commit is taken for a window of them before the next.
//!
//! Created and written, and their writeback begun; then settled, all of them; then published; then each
//! directory synced, once. So a journal commits once for many, and a directory is synced once and not for
//! each name. An object is done, for better or worse, on its own: one that fails takes no other with it.

use std::collections::HashMap;

use crate::backend::{
    Backend, Names, ObjectMeta, PartView, Published, Receipt, ServerReport, Upload, UploadSpec,
    WriteReport, told_visible,
};
use crate::buffer::{Loan, Pool, lend_many};
use crate::encode::Checksum;
use crate::engine::{Engine, answered, caught, withdrawn};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::ABORT_TIMEOUT;
use crate::sync::{Arc, Mutex, lock};
use crate::time::Deadline;
use crate::writer::told_unknown;

const WRITE: &str = "write objects";
const SYNC: &str = "sync objects";
const PUBLISH: &str = "publish objects";
const SYNC_NAMES: &str = "sync directories";

/// A small object to be written.
pub(crate) struct SmallObject<'a> {
    pub uri: Arc<str>,
    pub key: String,
    /// At most a part buffer.
    pub data: &'a [u8],
}

/// Writes objects of different keys, as many as may be open at a time, and returns what became of each.
pub(crate) fn put_window(
    engine: &Arc<Engine>,
    backend: &Arc<dyn Backend>,
    spec: UploadSpec,
    objects: Vec<SmallObject<'_>>,
) -> Vec<Result<ObjectMeta>> {
    let memories: Vec<&[u8]> = objects.iter().map(|object| object.data).collect();
    lend_many(&memories, |loans| {
        let entry = |(object, data): (SmallObject<'_>, Loan)| {
            let SmallObject { uri, key, data: memory } = object;
            let spec = UploadSpec { size_hint_bytes: Some(memory.len() as u64), ..spec };
            let size_bytes = memory.len() as u64;
            Entry { uri, key, size_bytes, spec, state: Mutex::new(State::New(data)) }
        };
        let entries: Arc<[Entry]> = objects.into_iter().zip(loans).map(entry).collect();
        let Some(first) = entries.first() else { return Vec::new() };
        let uri: Arc<str> = match entries.len() {
            1 => Arc::clone(&first.uri),
            many => Arc::from(format!("{} and {} more", first.uri, many - 1)),
        };
        let window = Window { engine, uri, entries };
        if let Err(error) = window.run(backend) {
            window.give_up(&error);
        }
        window.entries.iter().map(Entry::take_outcome).collect()
    })
}

/// Objects that take each step together.
struct Window<'a> {
    engine: &'a Arc<Engine>,
    /// For reports of stalls.
    uri: Arc<str>,
    entries: Arc<[Entry]>,
}

/// One object.
#[derive(Debug)]
struct Entry {
    uri: Arc<str>,
    key: String,
    size_bytes: u64,
    spec: UploadSpec,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    New(Loan),
    /// A thread is at it. The upload is there for those who give it up meanwhile.
    Busy {
        upload: Option<Arc<dyn Upload>>,
        /// Whether the object may become visible at any moment.
        publishing: bool,
    },
    Written(Arc<dyn Upload>, Sent),
    Settled(Arc<dyn Upload>, Sent),
    Visible(Published),
    Done(Result<ObjectMeta>),
    /// Done, and told.
    Told,
}

impl State {
    /// Before there is an upload.
    const BUSY: State = State::Busy { upload: None, publishing: false };
}

/// What was sent of an object.
#[derive(Debug)]
struct Sent {
    receipt: Option<Receipt>,
    checksum: Option<Checksum>,
    copied_bytes: u64,
}

impl Window<'_> {
    /// # Errors
    /// If the threads stand still. Objects that are not done then are given up.
    fn run(&self, backend: &Arc<dyn Backend>) -> Result<()> {
        let (backend, pool) = (Arc::clone(backend), Arc::clone(self.engine.pool()));
        self.step(WRITE, move |entry, deadline| entry.write(&*backend, &pool, deadline))?;
        self.step(SYNC, |entry, deadline| entry.settle(deadline))?;
        self.step(PUBLISH, |entry, deadline| entry.publish(deadline))?;
        self.sync_names()
    }

    fn step(
        &self,
        operation: &'static str,
        step: impl Fn(&Entry, &Deadline) + Send + Sync + 'static,
    ) -> Result<()> {
        if self.entries.iter().all(|entry| matches!(*lock(&entry.state), State::Done(_))) {
            return Ok(());
        }
        self.engine.sweep(operation, &self.uri, &self.entries, move |entry, deadline| {
            step(entry, deadline);
            !matches!(&*lock(&entry.state), State::Done(outcome) if !answered(outcome))
        })
    }

    /// Syncs each directory once, and completes the objects in it.
    fn sync_names(&self) -> Result<()> {
        let mut of_entry = Vec::new();
        let mut places: HashMap<(u64, u64), usize> = HashMap::new();
        let mut distinct: Vec<Place> = Vec::new();
        for entry in self.entries.iter() {
            let mut state = lock(&entry.state);
            let State::Visible(Published { meta, names }) = &mut *state else { continue };
            let Some(names) = names.take() else {
                let meta = meta.clone();
                *state = State::Done(Ok(meta));
                continue;
            };
            let place = *places.entry(names.id()).or_insert_with(|| {
                distinct.push(Place { names, synced: Mutex::new(None) });
                distinct.len() - 1
            });
            of_entry.push((entry, place));
        }
        if distinct.is_empty() {
            return Ok(());
        }
        let distinct: Arc<[Place]> = distinct.into();
        let swept = self.engine.sweep(SYNC_NAMES, &self.uri, &distinct, |place, _| {
            let synced = caught(SYNC_NAMES, || place.names.sync());
            *lock(&place.synced) = Some(synced);
            true
        });
        for (entry, place) in of_entry {
            if let Some(synced) = lock(&distinct[place].synced).clone() {
                entry.complete(synced);
            }
        }
        swept
    }

    /// Ends what is not done. What a thread is at ends later, without its object becoming visible unless the
    /// error says that this is unknown.
    fn give_up(&self, error: &Error) {
        let mut unfinished = Vec::new();
        for entry in self.entries.iter() {
            let mut state = lock(&entry.state);
            let own = error.clone().with_uri(&*entry.uri);
            let error = match &*state {
                State::Done(_) => continue,
                State::Busy { publishing: true, .. } => told_unknown(own),
                State::Visible(_) => told_visible(own),
                _ => own,
            };
            match std::mem::replace(&mut *state, State::Done(Err(error))) {
                State::Busy { upload: Some(upload), .. }
                | State::Written(upload, _)
                | State::Settled(upload, _) => unfinished.push(upload),
                _ => {}
            }
        }
        if unfinished.is_empty() || self.engine.is_of_another_process() {
            return;
        }
        let deadline = Deadline::after(self.engine.config().timeout().min(ABORT_TIMEOUT));
        let abort = move |deadline: &Deadline| {
            // One that cannot be cleared away leaves the others to be.
            let aborted: Vec<_> = unfinished.iter().map(|upload| upload.abort(deadline)).collect();
            aborted.into_iter().collect::<Result<()>>()
        };
        if let Err(error) = self.engine.call_until("cancel", &self.uri, deadline, abort) {
            log::warn!("{error}");
        }
    }
}

/// A directory to be synced.
#[derive(Debug)]
struct Place {
    names: Arc<dyn Names>,
    synced: Mutex<Option<Result<()>>>,
}

impl Entry {
    /// Sends the bytes; where the medium takes small objects whole, that is all.
    fn write(&self, backend: &dyn Backend, pool: &Arc<Pool>, deadline: &Deadline) {
        let mut state = lock(&self.state);
        let data = match std::mem::replace(&mut *state, State::BUSY) {
            State::New(data) => data,
            other => return *state = other,
        };
        drop(state);
        let begun = caught("open writer", || backend.begin(&self.key, self.spec, deadline));
        let upload = match begun {
            Ok(upload) => upload,
            Err(error) => return self.fail(None, error, deadline),
        };
        let whole = upload.limits().whole;
        if !self.goes_on(State::Busy { upload: Some(Arc::clone(&upload)), publishing: whole }) {
            let given_up = Error::new(ErrorKind::Cancelled, WRITE, "the object was given up");
            return self.fail(Some(&upload), given_up, deadline);
        }
        if whole {
            let put = caught("commit", || self.put_whole(&*upload, &data, deadline));
            return match put {
                Ok(meta) => self.set(State::Done(Ok(meta))),
                Err(error) => self.fail(Some(&upload), told_unknown(error), deadline),
            };
        }
        match caught("write part", || self.put_part(&*upload, &data, pool, deadline)) {
            Ok(sent) => self.set(State::Written(upload, sent)),
            Err(error) => self.fail(Some(&upload), error, deadline),
        }
    }

    fn put_whole(
        &self,
        upload: &dyn Upload,
        data: &Loan,
        deadline: &Deadline,
    ) -> Result<ObjectMeta> {
        let put = data.with(|bytes| {
            let view = self.view(upload, bytes);
            let meta = upload.put_whole(&view, deadline)?;
            Ok(self.complete_meta(meta, upload, view.checksum, 0, 1))
        });
        put.unwrap_or_else(|| Err(withdrawn("commit")))
    }

    fn put_part(
        &self,
        upload: &dyn Upload,
        data: &Loan,
        pool: &Arc<Pool>,
        deadline: &Deadline,
    ) -> Result<Sent> {
        let put = data.with(|bytes| {
            let view = self.view(upload, bytes);
            let checksum = view.checksum;
            if bytes.is_empty() {
                return Ok(Sent { receipt: None, checksum, copied_bytes: 0 });
            }
            let alignment = upload.alignment();
            let padded_bytes = bytes.len().next_multiple_of(alignment.offset_bytes);
            if padded_bytes == bytes.len() && alignment.admits(bytes.as_ptr().addr(), 0) {
                let receipt = upload.put_part(&view, deadline)?;
                self.prove(&receipt, checksum)?;
                return Ok(Sent { receipt: Some(receipt), checksum, copied_bytes: 0 });
            }
            let mut buffer = pool.take(deadline)?;
            buffer[..bytes.len()].copy_from_slice(bytes);
            buffer[bytes.len()..padded_bytes].fill(0);
            let (copy, bytes_padded) = (&buffer[..bytes.len()], &buffer[..padded_bytes]);
            let receipt =
                upload.put_part(&PartView { bytes: copy, bytes_padded, ..view }, deadline)?;
            self.prove(&receipt, checksum)?;
            Ok(Sent { receipt: Some(receipt), checksum, copied_bytes: self.size_bytes })
        });
        put.unwrap_or_else(|| Err(withdrawn("write part")))
    }

    /// The object as its one part.
    fn view<'a>(&self, upload: &dyn Upload, bytes: &'a [u8]) -> PartView<'a> {
        let algorithm = self.spec.algorithm;
        let second = upload.transport_checksum().filter(|second| Some(*second) != algorithm);
        let checksum = algorithm.map(|algorithm| algorithm.checksum(bytes));
        let transport = second.map(|algorithm| algorithm.checksum(bytes));
        PartView { index: 0, offset: 0, bytes, more: &[], bytes_padded: bytes, checksum, transport }
    }

    /// Compares what the backend took with what was hashed.
    fn prove(&self, receipt: &Receipt, checksum: Option<Checksum>) -> Result<()> {
        let expected = Receipt { index: 0, offset: 0, bytes: self.size_bytes, checksum };
        if *receipt == expected {
            return Ok(());
        }
        let what = format!("{receipt:?} arrived, not {expected:?}");
        Err(Error::new(ErrorKind::ChecksumMismatch, "commit", what))
    }

    fn settle(&self, deadline: &Deadline) {
        let mut state = lock(&self.state);
        let (upload, sent) = match std::mem::replace(&mut *state, State::BUSY) {
            State::Written(upload, sent) => (upload, sent),
            other => return *state = other,
        };
        *state = State::Busy { upload: Some(Arc::clone(&upload)), publishing: false };
        drop(state);
        match caught("sync", || upload.settle(self.size_bytes)) {
            Ok(()) => self.set(State::Settled(upload, sent)),
            Err(error) => self.fail(Some(&upload), error, deadline),
        }
    }

    fn publish(&self, deadline: &Deadline) {
        let mut state = lock(&self.state);
        let (upload, sent) = match std::mem::replace(&mut *state, State::BUSY) {
            State::Settled(upload, sent) => (upload, sent),
            other => return *state = other,
        };
        *state = State::Busy { upload: Some(Arc::clone(&upload)), publishing: true };
        drop(state);
        let Sent { receipt, checksum, copied_bytes } = sent;
        let parts = receipt.iter().count() as u64;
        let published = caught("commit", || {
            let receipts = receipt.as_slice();
            let Published { meta, names } =
                upload.publish(receipts, self.size_bytes, deadline, &|| ())?;
            let meta = self.complete_meta(meta, &*upload, checksum, copied_bytes, parts);
            Ok(Published { meta, names })
        });
        match published {
            Ok(published) => self.set(State::Visible(published)),
            Err(error) => self.fail(Some(&upload), told_unknown(error), deadline),
        }
    }

    fn complete_meta(
        &self,
        meta: ObjectMeta,
        upload: &dyn Upload,
        checksum: Option<Checksum>,
        copied_bytes: u64,
        parts: u64,
    ) -> ObjectMeta {
        let ServerReport { proof, create_only_held } = upload.server();
        let bytes = self.size_bytes;
        let mode = upload.mode();
        let (frames, unshrunk_frames, stored_bytes) = (0, 0, bytes);
        let report = WriteReport {
            mode,
            bytes,
            stored_bytes,
            frames,
            unshrunk_frames,
            copied_bytes,
            parts,
            proof,
            create_only_held,
        };
        let checksum = checksum.map(|checksum| checksum.to_string());
        ObjectMeta { checksum, write: Some(report), ..meta }
    }

    /// The outcome of a visible object whose directory was synced, or not.
    fn complete(&self, synced: Result<()>) {
        let mut state = lock(&self.state);
        if let State::Visible(Published { meta, .. }) = &*state {
            let outcome = match synced {
                Ok(()) => Ok(meta.clone()),
                Err(error) => Err(told_visible(error).with_uri(&*self.uri)),
            };
            *state = State::Done(outcome);
        }
    }

    fn fail(&self, upload: Option<&Arc<dyn Upload>>, error: Error, deadline: &Deadline) {
        if let Some(Err(error)) = upload.map(|upload| upload.abort(deadline)) {
            log::warn!("{error}");
        }
        self.set(State::Done(Err(error.with_uri(&*self.uri))));
    }

    fn set(&self, next: State) {
        let _ = self.goes_on(next);
    }

    /// Goes on to the next state, unless the object was given up meanwhile: `false` then.
    fn goes_on(&self, next: State) -> bool {
        let mut state = lock(&self.state);
        let goes_on = !matches!(*state, State::Done(_) | State::Told);
        if goes_on {
            *state = next;
        }
        goes_on
    }

    fn take_outcome(&self) -> Result<ObjectMeta> {
        let lost = || Error::new(ErrorKind::Cancelled, WRITE, "the object was not written");
        match std::mem::replace(&mut *lock(&self.state), State::Told) {
            State::Done(outcome) => outcome,
            _ => Err(lost().with_uri(&*self.uri)),
        }
    }
}
