//! A host that forks, as Python's multiprocessing does: threads do not follow into the child, and locks that
//! they held stay held there. The child is told so by name, waits for nothing, takes nothing from its parent,
//! and works with a store of its own; its parent goes on.

#[path = "support/fork.rs"]
mod fork;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fork::{Steps, in_child};
use support::{Place, figures, long, noise, servers, small};
use syncline::checkpoint::{CheckpointStore, Verdict};
use syncline::{
    Bytes, Compression, ConfigBuilder, ErrorKind, ObjectStore, ObjectWriter, Result, Timestamp,
    WriteOptions, open_store,
};

/// Expands over the media that differ in what a writer holds.
macro_rules! over_media {
    ($($test:ident),* $(,)?) => {
        over_media! { @ mem, $($test),* }
        over_media! { @ file, $($test),* }
        over_media! { @ direct, $($test),* }
        over_media! { @ s3, $($test),* }
        over_media! { @ az, $($test),* }
    };
    (@ $scheme:ident, $($test:ident),*) => {
        mod $scheme {
            $(
                #[test]
                fn $test() {
                    super::$test(stringify!($scheme));
                }
            )*
        }
    };
}

over_media! {
    a_child_is_refused_by_name_and_works_with_a_store_of_its_own,
    a_fork_at_any_moment_is_survived,
    a_store_that_nobody_has_used_is_the_childs_too,
}

fn zstd() -> WriteOptions {
    WriteOptions::default().compression(Compression::zstd(1).unwrap())
}

fn settings() -> ConfigBuilder {
    small().compression_threads(2)
}

/// Settings that reach the server of a base, where it has one.
fn reaching(config: ConfigBuilder, base: &str) -> ConfigBuilder {
    match base.split(':').next().unwrap() {
        "s3" => config.s3(servers::s3()),
        "az" => config.azure(servers::az()),
        _ => config,
    }
}

/// A store of the child's own, over the same medium.
fn anew(place: &Place) -> Arc<dyn ObjectStore> {
    open_store(&place.base, &reaching(settings(), &place.base).build().unwrap()).unwrap()
}

fn refused<T>(what: &str, outcome: Result<T>) {
    let Err(error) = outcome else { panic!("{what} was not refused") };
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{what}: {error}");
    assert!(error.to_string().contains("forked"), "{what}: {error}");
}

/// A writer in the midst of its work: parts in flight and part of a buffer, or of a frame.
struct Begun {
    writer: Box<dyn ObjectWriter>,
    data: Vec<u8>,
    written: usize,
    uri: String,
}

impl Begun {
    fn new(place: &Place, name: &str, options: WriteOptions) -> Begun {
        let uri = place.uri(name);
        let data = noise(11 * 1024 * 1024, 5);
        Begun { writer: place.store.get_writer_with(&uri, options).unwrap(), data, written: 0, uri }
    }

    fn write(&mut self, bytes: usize) {
        let to = (self.written + bytes).min(self.data.len());
        self.writer.write_chunk(&self.data[self.written..to]).unwrap();
        self.written = to;
    }

    fn finish(mut self, place: &Place) {
        self.write(usize::MAX / 2);
        self.writer.finalize().unwrap();
        let reader = CheckRead { place, uri: &self.uri };
        assert!(reader.raw_bytes(self.data.len()) == self.data, "{} differs", self.uri);
    }
}

/// Reads back what may be compressed.
struct CheckRead<'a> {
    place: &'a Place,
    uri: &'a str,
}

impl CheckRead<'_> {
    fn raw_bytes(&self, size: usize) -> Vec<u8> {
        let store = &self.place.store;
        if !self.uri.ends_with("zst") {
            return store.get(self.uri).unwrap().into();
        }
        let form = store.compressed_form(self.uri, syncline::Filter::None).unwrap();
        let mut raw = vec![0; size];
        store.decompress_into(self.uri, form, 0, &mut raw).unwrap();
        raw
    }
}

/// Every call of a store.
fn try_all(store: &dyn ObjectStore, place: &Place) {
    let (uri, none) = (&place.uri("there"), None::<u64>);
    refused("get", store.get(uri));
    refused("get_range", store.get_range(uri, 0, none));
    refused("read_into", store.read_into(uri, 0, &mut [0; 3]));
    refused("get_with_validation", store.get_with_validation(uri, "crc32c:00000000"));
    refused("block_checksums", store.block_checksums(uri, 4096));
    refused("compressed_form", store.compressed_form(uri, syncline::Filter::None));
    refused("stat", store.stat(uri));
    refused("exists", store.exists(uri));
    refused("put", store.put(uri, b"x"));
    refused("put_with", store.put_with(uri, b"x", zstd()));
    refused("get_writer", store.get_writer(uri));
    refused("delete", store.delete(uri));
    refused("delete_many", store.delete_many(std::slice::from_ref(uri)));
    refused("delete_prefix", store.delete_prefix(uri));
    refused("orphans", store.orphans(uri, Duration::ZERO));
    refused("list", store.list(uri).and_then(|list| list.collect::<Result<Vec<_>>>()));
    let two: [(&str, &[u8]); 2] = [(uri, b"x"), (&place.uri("other"), b"y")];
    store.put_many(&two, WriteOptions::default()).into_iter().for_each(|o| refused("put_many", o));
    store.get_many(&[(uri, None), (uri, None)]).into_iter().for_each(|o| refused("get_many", o));
}

/// Every call of a writer; what fits into the buffer at hand is not looked at.
fn try_writer(mut writer: Box<dyn ObjectWriter>, way: usize) {
    let data = vec![1; 32 * 1024 * 1024];
    match way {
        0 => refused("write_chunk", writer.write_chunk(&data)),
        1 => refused("write_owned", writer.write_owned(Bytes::from(data))),
        2 => refused("write_borrowed", writer.write_borrowed(&data)),
        _ => {}
    }
    let _ = (writer.report(), writer.checksum(), writer.bytes_written());
    match way {
        // It has nothing to do in a child, where nothing is the child's.
        3 => writer.cancel().unwrap(),
        4 => drop(writer),
        _ => refused("finalize", writer.finalize()),
    }
}

fn a_child_is_refused_by_name_and_works_with_a_store_of_its_own(scheme: &str) {
    let place = Place::new(scheme, settings());
    place.store.put(&place.uri("there"), b"there").unwrap();
    for way in 0..5 {
        let mut plain = Begun::new(&place, &format!("plain-{way}"), WriteOptions::default());
        let mut frames = Begun::new(&place, &format!("frames-{way}.zst"), zstd());
        plain.write(2 * place.part() + 100);
        frames.write(9 * 1024 * 1024);
        let mut both = Some((plain, frames));
        let child = in_child(|steps| {
            let (plain, frames) = both.take().unwrap();
            steps.at("calls of the store");
            try_all(&*place.store, &place);
            steps.at("calls of writers");
            try_writer(plain.writer, way);
            try_writer(frames.writer, way);
            steps.at("a store of its own");
            with_own_store(&place, &format!("child-{way}"));
        });
        child.ends_well();
        let (plain, frames) = both.unwrap();
        plain.finish(&place);
        frames.finish(&place);
        assert_eq!(place.store.get(&place.uri("there")).unwrap(), b"there".as_slice());
        figures::add("forks survived", 1);
    }
}

fn with_own_store(place: &Place, name: &str) {
    let (store, uri) = (anew(place), place.uri(name));
    let data = noise(2 * place.part() + 1, 9);
    store.put(&uri, &data).unwrap();
    if place.base.starts_with("mem:") {
        // In memory a store of its own has objects of its own.
        store.put(&place.uri("there"), b"there").unwrap();
    }
    assert_eq!(store.get(&uri).unwrap(), data);
    assert_eq!(store.get(&place.uri("there")).unwrap(), b"there".as_slice());
    store.delete(&uri).unwrap();
}

/// Does something while two threads are busy.
fn beside_two_threads(busy: impl Fn(usize) + Sync, f: impl FnOnce()) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = SetOnDrop(&over);
        for n in 0..2 {
            let (busy, over) = (&busy, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    busy(n);
                }
            });
        }
        f();
    });
}

/// Others of the host's threads are in the midst of everything, with whatever locks they hold, when one forks.
fn a_fork_at_any_moment_is_survived(scheme: &str) {
    let forks = if long() { 400 } else { 12 };
    let place = Place::new(scheme, settings().io_threads(2));
    place.store.put(&place.uri("there"), b"there").unwrap();
    beside_two_threads(
        |n| keep_busy(&place, n),
        || {
            for n in 0..forks {
                let mut begun = Begun::new(&place, "mine", WriteOptions::default());
                let mut frames = Begun::new(&place, "mine.zst", zstd());
                begun.write(3 * place.part() + n);
                frames.write(5 * 1024 * 1024);
                // Some moment within what the others do.
                std::thread::sleep(Duration::from_micros((n as u64 * 7919) % 3000));
                let mut both = Some((begun, frames));
                let child = in_child(|steps| in_the_midst(&place, both.take().unwrap(), n, steps));
                child.ends_well();
                let (begun, frames) = both.unwrap();
                if n.is_multiple_of(8) {
                    begun.finish(&place);
                    frames.finish(&place);
                }
                figures::add("forks survived", 1);
            }
        },
    );
    let mut orphans = place.store.orphans(&place.base, Duration::ZERO).unwrap();
    if scheme == "az" {
        // Blocks that Azure alone removes.
        orphans.retain(|orphan| !orphan.uri.ends_with("?uncommitted"));
    }
    assert!(orphans.is_empty(), "left over: {orphans:?}");
}

/// Locks are held for a moment only: many forks, beside threads that do nothing but take them, meet some.
#[test]
fn a_child_waits_for_no_lock_of_its_parents_threads() {
    let forks = if long() { 20_000 } else { 300 };
    let place = Place::new("mem", settings());
    let data = [0, 1].map(|n| noise(8 * place.part(), n));
    let put = |n: usize| drop(place.store.put(&place.uri(&format!("busy-{n}")), &data[n]).unwrap());
    beside_two_threads(put, || {
        for n in 0..forks {
            let mut writer = place.store.get_writer(&place.uri("mine")).unwrap();
            writer.write_chunk(&noise(2 * place.part() + 10, n)).unwrap();
            let mut writer = Some(writer);
            in_child(|steps| {
                steps.at("drop of a writer");
                drop(writer.take());
            })
            .ends_well();
        }
    });
    figures::add("forks survived", forks);
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What threads of the host do meanwhile: all that takes locks.
fn keep_busy(place: &Place, n: usize) {
    let uri = place.uri(&format!("busy-{n}"));
    let data = noise(3 * place.part() + 5, n as u64);
    place.store.put(&uri, &data).unwrap();
    assert_eq!(place.store.get(&uri).unwrap(), data);
    let shared = syncline::store_for_uri("mem://shared-by-all").unwrap();
    shared.put("mem://shared-by-all/object", &data[..100]).unwrap();
    let mut writer = place.store.get_writer_with(&uri, zstd()).unwrap();
    writer.write_chunk(&noise(5 * 1024 * 1024, 3)).unwrap();
    if n == 0 {
        drop(writer);
    } else {
        writer.finalize().unwrap();
    }
}

/// The child of a fork that comes while everything is under way.
fn in_the_midst(place: &Place, (plain, frames): (Begun, Begun), n: usize, steps: &mut Steps) {
    steps.at("get of the parent's store");
    refused("get", place.store.get(&place.uri("there")));
    if n.is_multiple_of(2) {
        steps.at("calls of writers");
        try_writer(plain.writer, n / 2 % 5);
        try_writer(frames.writer, n / 2 % 5);
    } else {
        steps.at("drop of a writer");
        drop(plain.writer);
        steps.at("drop of a writer that compresses");
        drop(frames.writer);
    }
    steps.at("the shared store");
    let shared = syncline::store_for_uri("mem://shared-by-all").unwrap();
    shared.put("mem://shared-by-all/object", b"own").unwrap();
    assert_eq!(shared.get("mem://shared-by-all/object").unwrap(), b"own".as_slice());
    drop(shared);
    steps.at("a store of its own");
    with_own_store(place, "child");
    steps.at("drop of the parent's store");
    // As a host does that ends its child in an orderly way: the count of the others' references stands still.
    drop(Arc::clone(&place.store));
}

/// Threads start with the first call: before that there is nothing that a fork could lose.
fn a_store_that_nobody_has_used_is_the_childs_too(scheme: &str) {
    let place = Place::new(scheme, settings());
    let uri = place.uri("object");
    in_child(|steps| {
        steps.at("a store that was only opened");
        place.store.put(&uri, b"child").unwrap();
        assert_eq!(place.store.get(&uri).unwrap(), b"child".as_slice());
    })
    .ends_well();
    place.store.put(&uri, b"parent").unwrap();
    assert_eq!(place.store.get(&uri).unwrap(), b"parent".as_slice());
}

/// The last reference to a store goes in the child, with its queue, its pools and its connections.
#[test]
fn the_end_of_a_store_in_a_child_is_nothing_to_its_parent() {
    for scheme in ["mem", "file", "s3", "az"] {
        for _ in 0..if long() { 50 } else { 3 } {
            let place = Place::new(scheme, settings());
            let mut store = Some(anew(&place));
            let uri = place.uri("object");
            store.as_ref().unwrap().put_with(&uri, &noise(5 << 20, 1), zstd()).unwrap();
            in_child(|steps| {
                steps.at("drop of the last reference");
                drop(store.take());
            })
            .ends_well();
            let store = store.unwrap();
            store.put(&uri, b"parent").unwrap();
            assert_eq!(store.get(&uri).unwrap(), b"parent".as_slice());
            figures::add("forks survived", 1);
        }
    }
}

/// A checkpoint store has threads of its own, which the child has not.
#[test]
fn a_checkpoint_store_of_the_parents_is_refused() {
    let place = Place::new("file", small());
    let checkpoints = CheckpointStore::new(Arc::clone(&place.store), &place.base);
    let layout = checkpoints.layout(1, Timestamp::now());
    let shards = [0, 1]
        .map(|rank| checkpoints.writer(2, rank).unwrap().put_shard(&layout, b"state").unwrap());
    let info = checkpoints.writer(2, 0).unwrap();
    let info = info.finalize_checkpoint(&layout, "test", 0, shards.into(), None).unwrap();
    assert!(checkpoints.verify(&info, &|_| {}).unwrap().is_good());
    let mut checkpoints = Some(checkpoints);
    in_child(|steps| {
        let checkpoints = checkpoints.take().unwrap();
        steps.at("load_latest");
        refused("load_latest", checkpoints.load_latest());
        steps.at("verify");
        // Its manifest is of a kind that is not understood here: no word of damage.
        let report = checkpoints.verify(&info, &|_| {}).unwrap();
        assert_eq!(report.verdict, Verdict::Unknown);
        assert!(report.manifest_error.unwrap().contains("forked"));
        steps.at("drop");
        drop(checkpoints);
    })
    .ends_well();
    assert!(checkpoints.unwrap().verify(&info, &|_| {}).unwrap().is_good());
}

/// So does the store that a part of the program shares with others by its URI.
#[test]
fn a_child_shares_no_store_with_its_parent() {
    let shared = syncline::store_for_uri("mem://of-the-parent").unwrap();
    shared.put("mem://of-the-parent/object", b"parent").unwrap();
    in_child(|steps| {
        steps.at("the shared store");
        let own = syncline::store_for_uri("mem://of-the-parent").unwrap();
        assert!(!own.exists("mem://of-the-parent/object").unwrap());
        let again = syncline::store_for_uri("mem://of-the-parent").unwrap();
        assert!(Arc::ptr_eq(&own, &again), "the child's own is shared in it");
    })
    .ends_well();
    assert_eq!(shared.get("mem://of-the-parent/object").unwrap(), b"parent".as_slice());
}
