//! Many objects in one call: what of them goes together.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::open::{Named, Store};
use super::{ObjectStore, WriteOptions};
use crate::backend::{ObjectMeta, UploadSpec};
use crate::encode::{Checksum, Compression};
use crate::engine::{answered, caught};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{BATCH_BYTES_MAX, BATCH_OBJECTS_MAX};
use crate::reader::{Wanted, get_each};
use crate::sync::{Arc, Mutex, lock};
use crate::time::now;
use crate::writer::{SmallObject, put_window};

/// Writes objects in the order given, as far as it matters: those of one key, one after the other.
pub(super) fn put(
    store: &Store,
    objects: &[(&str, &[u8])],
    options: &WriteOptions,
) -> Vec<Result<ObjectMeta>> {
    let spec = UploadSpec {
        size_hint_bytes: None,
        create_only: options.create_only,
        algorithm: options.checksum.algorithm(store.config()),
        eager: true,
    };
    let small_bytes_max = match options.compression {
        Compression::None => Some(store.config().part_bytes()),
        // Frames are compressed by a writer of their own.
        Compression::Zstd(_) => None,
    };
    let asking = Asking::new(store, PUT);
    let mut window = Window { asking, spec, places: Vec::new(), objects: Vec::new(), bytes: 0 };
    let mut outcomes: Vec<Option<Result<ObjectMeta>>> = objects.iter().map(|_| None).collect();
    let mut keys: HashSet<String> = HashSet::new();
    for (place, (uri, data)) in objects.iter().enumerate() {
        let Named { uri: name, key } = match store.object(uri) {
            Ok(named) => named,
            Err(error) => {
                outcomes[place] = Some(Err(error));
                continue;
            }
        };
        let full = window.objects.len() == BATCH_OBJECTS_MAX
            || window.bytes.saturating_add(data.len()) > BATCH_BYTES_MAX;
        if full || keys.contains(&key) {
            window.write(&mut outcomes);
            keys.clear();
        }
        if small_bytes_max.is_none_or(|bytes_max| data.len() > bytes_max) {
            let put = || store.put_with(uri, data, options.clone());
            outcomes[place] = Some(window.asking.ask(uri, put));
            continue;
        }
        keys.insert(key.clone());
        window.places.push(place);
        window.bytes += data.len();
        window.objects.push(SmallObject { uri: name, key, data });
    }
    window.write(&mut outcomes);
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(forgotten()))).collect()
}

/// Small objects of different keys.
struct Window<'a> {
    asking: Asking<'a>,
    spec: UploadSpec,
    /// Where in the call each of them stands.
    places: Vec<usize>,
    objects: Vec<SmallObject<'a>>,
    bytes: usize,
}

impl Window<'_> {
    /// In one go, or in as many as others leave room for.
    fn write(&mut self, outcomes: &mut [Option<Result<ObjectMeta>>]) {
        let mut objects = std::mem::take(&mut self.objects).into_iter();
        self.bytes = 0;
        while objects.len() > 0 {
            if let Some(error) = &self.asking.given_up {
                for (place, object) in self.places.drain(..).zip(objects) {
                    outcomes[place] = Some(Err(error.clone().with_uri(&*object.uri)));
                }
                return;
            }
            let store = self.asking.store;
            let (engine, backend) = (store.engine(), store.backend());
            let room = store.open_small().room_for(objects.len(), backend.uploads_max());
            let (started, some) = (now(), objects.by_ref().take(room.objects).collect());
            let written = put_window(engine, backend, self.spec, some);
            self.asking.note(started, &written);
            for (place, outcome) in self.places.drain(..room.objects).zip(written) {
                outcomes[place] = Some(outcome);
            }
        }
    }
}

/// Asks the medium for one thing after the other, until it answers nothing: whoever waited for all the rest would
/// wait one timeout for each.
struct Asking<'a> {
    store: &'a Store,
    operation: &'static str,
    /// For how long it has answered nothing.
    silence: Duration,
    given_up: Option<Error>,
}

impl<'a> Asking<'a> {
    fn new(store: &'a Store, operation: &'static str) -> Asking<'a> {
        Asking { store, operation, silence: Duration::ZERO, given_up: None }
    }

    /// Asks for one object, unless nothing is asked for any more.
    fn ask<T>(&mut self, uri: &str, ask: impl FnOnce() -> Result<T>) -> Result<T> {
        if let Some(error) = &self.given_up {
            return Err(error.clone().with_uri(uri));
        }
        let started = now();
        let outcome = ask();
        self.note(started, std::slice::from_ref(&outcome));
        outcome
    }

    /// Notes what came of what was asked for then.
    fn note<T>(&mut self, started: Instant, outcomes: &[Result<T>]) {
        if outcomes.iter().any(answered) {
            self.silence = Duration::ZERO;
        } else {
            self.silence += now().saturating_duration_since(started);
            self.given_up = self.store.engine().unanswered(self.operation, self.silence);
        }
    }
}

/// Small objects that are open at present, of all calls of a store.
#[derive(Debug, Default)]
pub(super) struct OpenSmall(Mutex<usize>);

impl OpenSmall {
    /// Room for up to `wanted` objects: half of what others have left of `max`, so that those who come next
    /// find some too, and for one at the least. So many calls take little more than `max` together.
    fn room_for(&self, wanted: usize, max: usize) -> Room<'_> {
        let mut open = lock(&self.0);
        let objects = (max.saturating_sub(*open) / 2).clamp(1, wanted.max(1));
        *open += objects;
        Room { open: self, objects }
    }
}

/// Given back when dropped.
struct Room<'a> {
    open: &'a OpenSmall,
    objects: usize,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        *lock(&self.open.0) -= self.objects;
    }
}

/// Reads whole objects, each compared with its checksum where one is given.
pub(super) fn get(store: &Store, objects: &[(&str, Option<&str>)]) -> Vec<Result<Bytes>> {
    let wanted = |(uri, expected): &(&str, Option<&str>)| -> Result<Wanted> {
        let parsed: Option<Checksum> =
            expected.map(|text| text.parse().map_err(|e: Error| e.with_uri(*uri))).transpose()?;
        let Named { uri, key } = store.object(uri)?;
        Ok(Wanted { uri, key, expected: parsed })
    };
    let outcomes = get_each(store.engine(), store.backend(), objects.iter().map(wanted).collect());
    let mut asking = Asking::new(store, GET);
    let read = |(outcome, (uri, expected)): (Result<Option<Bytes>>, &(&str, Option<&str>))| {
        match (outcome, expected) {
            (Ok(Some(bytes)), _) => Ok(bytes),
            (Err(error), _) => Err(error),
            // Larger than a part: its pieces are read in parallel.
            (Ok(None), Some(expected)) => {
                asking.ask(uri, || store.get_with_validation(uri, expected))
            }
            (Ok(None), None) => asking.ask(uri, || store.get(uri)),
        }
    };
    outcomes.into_iter().zip(objects).map(read).collect()
}

/// Removes objects, and tells how many there were. Several threads share what one would take long for.
pub(super) fn delete(store: &Store, uri: &Arc<str>, keys: Vec<String>) -> Result<u64> {
    let backend = Arc::clone(store.backend());
    let at_once = backend.deletes_at_once();
    if keys.len() <= at_once {
        let remove = move |deadline: &_| backend.delete(&keys, deadline);
        return store.engine().call(DELETE, uri, remove);
    }
    let share = |keys: &[String]| Share { keys: keys.to_vec(), removed: Mutex::new(None) };
    let shares: Arc<[Share]> = keys.chunks(at_once).map(share).collect();
    let swept = store.engine().sweep(DELETE, uri, &shares, move |share, deadline| {
        let removed = caught(DELETE, || backend.delete(&share.keys, deadline));
        let goes_on = answered(&removed);
        *lock(&share.removed) = Some(removed);
        goes_on
    });
    let removed = shares.iter().filter_map(|share| lock(&share.removed).take());
    let removed = removed.sum::<Result<u64>>().map_err(|e| e.with_uri(&**uri))?;
    swept.map(|()| removed)
}

const PUT: &str = "put";
const GET: &str = "get";
const DELETE: &str = "delete";

/// Objects that one thread removes.
struct Share {
    keys: Vec<String>,
    removed: Mutex<Option<Result<u64>>>,
}

fn forgotten() -> Error {
    Error::new(ErrorKind::Cancelled, "put", "the object was not written")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::MemoryBackend;
    use crate::config::Config;
    use crate::uri::Location;

    #[test]
    fn a_medium_that_answers_nothing_is_not_asked_again() {
        let timeout = Duration::from_millis(1000);
        let (uri, config) = ("mem://asking/x", Config::builder().timeout(timeout).build().unwrap());
        let backend = Arc::new(MemoryBackend::new("asking"));
        let store = Store::with_backend(&Location::parse(uri).unwrap(), &config, backend);
        let mut asking = Asking::new(&store, PUT);
        let mut ask = |kind, takes| {
            let mut asked = false;
            let outcome = asking.ask(uri, || {
                asked = true;
                std::thread::sleep(takes);
                Err::<(), _>(Error::new(kind, PUT, "on purpose"))
            });
            outcome.unwrap_err();
            asked
        };
        // A late answer is one, and a failure that comes at once says little; several of them say more.
        assert!(ask(ErrorKind::NotFound, timeout) && ask(ErrorKind::Unavailable, Duration::ZERO));
        assert!(ask(ErrorKind::Unavailable, timeout / 4) && ask(ErrorKind::NotFound, timeout));
        assert!(ask(ErrorKind::Unavailable, timeout / 4) && ask(ErrorKind::TimedOut, timeout / 2));
        assert!(!ask(ErrorKind::TimedOut, timeout), "the medium was asked once more");
    }

    #[test]
    fn calls_share_what_may_be_open() {
        let open = OpenSmall::default();
        assert_eq!(open.room_for(500, 256).objects, 128, "alone, as if nobody else came");
        let rooms: Vec<Room<'_>> = (0..16).map(|_| open.room_for(500, 256)).collect();
        let taken: usize = rooms.iter().map(|room| room.objects).sum();
        assert!(rooms.iter().all(|room| room.objects > 0) && taken <= 256 + 16, "{taken}");
        drop(rooms);
        assert_eq!(*lock(&open.0), 0);
        assert_eq!(open.room_for(7, usize::MAX).objects, 7);
    }
}
