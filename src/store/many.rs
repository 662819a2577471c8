//! Many objects in one call: what of them goes together.

use std::collections::HashSet;

use bytes::Bytes;

use super::open::{Named, Store};
use super::{ObjectStore, WriteOptions};
use crate::backend::{ObjectMeta, UploadSpec};
use crate::encode::{Checksum, Compression};
use crate::engine::caught;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{BATCH_BYTES_MAX, BATCH_OBJECTS_MAX};
use crate::reader::{Wanted, get_each};
use crate::sync::{Arc, Mutex, lock};
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
    let objects_max = store.backend().uploads_max().min(BATCH_OBJECTS_MAX);
    let mut window = Window { store, spec, places: Vec::new(), objects: Vec::new(), bytes: 0 };
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
        let full = window.objects.len() == objects_max
            || window.bytes.saturating_add(data.len()) > BATCH_BYTES_MAX;
        if full || keys.contains(&key) {
            window.write(&mut outcomes);
            keys.clear();
        }
        if small_bytes_max.is_none_or(|bytes_max| data.len() > bytes_max) {
            outcomes[place] = Some(store.put_with(uri, data, options.clone()));
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
    store: &'a Store,
    spec: UploadSpec,
    /// Where in the call each of them stands.
    places: Vec<usize>,
    objects: Vec<SmallObject<'a>>,
    bytes: usize,
}

impl Window<'_> {
    fn write(&mut self, outcomes: &mut [Option<Result<ObjectMeta>>]) {
        let objects = std::mem::take(&mut self.objects);
        self.bytes = 0;
        let written = put_window(self.store.engine(), self.store.backend(), self.spec, objects);
        for (place, outcome) in self.places.drain(..).zip(written) {
            outcomes[place] = Some(outcome);
        }
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
    let read = |(outcome, (uri, expected)): (Result<Option<Bytes>>, &(&str, Option<&str>))| {
        match (outcome, expected) {
            (Ok(Some(bytes)), _) => Ok(bytes),
            (Err(error), _) => Err(error),
            // Larger than a part: its pieces are read in parallel.
            (Ok(None), Some(expected)) => store.get_with_validation(uri, expected),
            (Ok(None), None) => store.get(uri),
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
    store.engine().sweep(DELETE, uri, &shares, move |share, deadline| {
        let removed = caught(DELETE, || backend.delete(&share.keys, deadline));
        *lock(&share.removed) = Some(removed);
    })?;
    let removed = shares.iter().filter_map(|share| lock(&share.removed).take());
    removed.sum::<Result<u64>>().map_err(|e| e.with_uri(&**uri))
}

const DELETE: &str = "delete";

/// Objects that one thread removes.
struct Share {
    keys: Vec<String>,
    removed: Mutex<Option<Result<u64>>>,
}

fn forgotten() -> Error {
    Error::new(ErrorKind::Cancelled, "put", "the object was not written")
}
