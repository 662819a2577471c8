//! A store over memory: objects written by several threads, given up at any point, and read back.

use shuttle::thread::spawn;

use super::{TIMEOUT, choose, explore, join, time_runs_out};
use crate::backend::MemoryBackend;
use crate::backend::fault::{Fault, FaultPlan, FaultyBackend};
use crate::config::Config;
use crate::error::ErrorKind;
use crate::store::{ObjectStore, ObjectWriter, Store, WriteOptions};
use crate::sync::Arc;
use crate::uri::Location;

pub(super) const PART: usize = 64 * 1024;
/// Two parts and a bit.
const SIZE: usize = 2 * PART + 10;
const URI: &str = "mem://model/object";

/// Everything is scarce. Operations of the medium go wrong as planned.
pub(super) fn store(plan: &Arc<FaultPlan>) -> Arc<Store> {
    let config = Config::builder()
        .part_bytes(PART)
        .io_threads(1)
        .queue_depth_parts(1)
        .open_writers_max(2)
        .timeout(TIMEOUT)
        .build()
        .unwrap();
    let (inner, plan) = (Arc::new(MemoryBackend::new("model")), Arc::clone(plan));
    let backend = Arc::new(FaultyBackend { inner, plan, whole: false });
    Arc::new(Store::with_backend(&Location::parse(URI).unwrap(), &config, backend))
}

pub(super) fn healthy() -> Arc<FaultPlan> {
    FaultPlan::healthy()
}

fn bytes(value: u8) -> Vec<u8> {
    vec![value; SIZE]
}

fn write(writer: &mut dyn ObjectWriter, value: u8) -> crate::Result<()> {
    bytes(value).chunks(PART / 2 + 7).try_for_each(|chunk| writer.write_chunk(chunk))
}

/// Nothing, or all bytes of one writer.
fn assert_whole_or_absent(store: &Store, uri: &str) -> bool {
    match store.get(uri) {
        Ok(data) => {
            assert!(data.len() == SIZE && data.iter().all(|byte| *byte == data[0]));
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            false
        }
    }
}

/// The writers share a queue for one part, one thread, and fewer buffers than they would like.
#[test]
fn writers_side_by_side_all_come_to_an_end() {
    explore(|| {
        let store = store(&healthy());
        let writers = [1u8, 2].map(|n| {
            let store = Arc::clone(&store);
            spawn(move || {
                let uri = format!("{URI}-{n}");
                let mut writer = store.get_writer(&uri).unwrap();
                write(&mut *writer, n).unwrap();
                assert_eq!(writer.finalize().unwrap().size_bytes, SIZE as u64);
                assert_eq!(store.get(&uri).unwrap(), bytes(n).as_slice());
            })
        });
        join(writers);
        assert_eq!(store.engine_for_test().pool().taken(), 0);
    });
}

/// Dropped or cancelled with parts in flight; the store may be gone by then.
#[test]
fn a_writer_given_up_at_any_point_leaves_nothing() {
    explore(|| {
        let store = store(&healthy());
        let pool = Arc::clone(store.engine_for_test().pool());
        let mut writer = store.get_writer(URI).unwrap();
        let chunks = choose(4) as usize;
        let given_up = spawn(move || {
            for _ in 0..chunks {
                writer.write_chunk(&vec![1; PART]).unwrap();
            }
            if choose(2) == 0 { writer.cancel().unwrap() } else { drop(writer) }
        });
        let stays = choose(2) == 0;
        let reader = spawn(move || {
            if stays {
                assert!(!assert_whole_or_absent(&store, URI));
            }
            stays.then_some(store)
        });
        join([given_up]);
        let store = join([reader]).pop().unwrap();
        assert_eq!(pool.taken(), 0);
        assert!(store.is_none_or(|store| !assert_whole_or_absent(&store, URI)));
    });
}

#[test]
fn the_first_failure_of_any_part_latches() {
    explore(|| {
        let fault = if choose(2) == 0 { Fault::EIO } else { Fault::Panic };
        // One of three parts, or the commit.
        let store = store(&FaultPlan::new(fault, 1 + choose(4)));
        let mut writer = store.get_writer(URI).unwrap();
        let first = write(&mut *writer, 1).err();
        let second = writer.write_chunk(b"").err();
        let last = writer.finalize().unwrap_err();
        let kind = if fault == Fault::EIO { ErrorKind::Io } else { ErrorKind::Panicked };
        assert_eq!(last.kind(), kind, "{last}");
        for earlier in [first, second].into_iter().flatten() {
            assert_eq!(earlier.to_string(), last.to_string());
        }
        assert!(!assert_whole_or_absent(&store, URI));
        assert_eq!(store.engine_for_test().pool().taken(), 0);
    });
}

/// Whatever becomes of a save whose time runs out somewhere: no half object, and an end.
#[test]
fn a_save_whose_time_runs_out_is_whole_or_absent() {
    explore(|| {
        let store = store(&healthy());
        let pool = Arc::clone(store.engine_for_test().pool());
        let clock = time_runs_out();
        let saved = store.get_writer(URI).and_then(|mut writer| {
            write(&mut *writer, 1)?;
            writer.finalize()
        });
        join([clock]);
        // No time passes any more.
        let there = assert_whole_or_absent(&store, URI);
        match saved {
            Ok(_) => assert!(there),
            Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}"),
        }
        drop(store);
        assert_eq!(pool.taken(), 0);
    });
}

/// Readers see one version or the other while an object is replaced.
#[test]
fn reads_are_of_one_version() {
    explore(|| {
        let store = store(&healthy());
        store.put(URI, &bytes(1)).unwrap();
        let (writing, reading) = (Arc::clone(&store), Arc::clone(&store));
        join([
            spawn(move || drop(writing.put(URI, &bytes(2)).unwrap())),
            spawn(move || assert!(assert_whole_or_absent(&reading, URI))),
        ]);
        assert_eq!(store.get(URI).unwrap(), bytes(2).as_slice());
        assert_eq!(store.engine_for_test().pool().taken(), 0);
    });
}

#[test]
fn many_small_objects_beside_a_writer() {
    explore(|| {
        let store = store(&healthy());
        let other = Arc::clone(&store);
        let writer = spawn(move || drop(other.put(URI, &bytes(1)).unwrap()));
        let uris = [0, 1, 2].map(|n| format!("mem://model/small-{n}"));
        let objects: Vec<(&str, &[u8])> = uris.iter().map(|uri| (&**uri, &b"small"[..])).collect();
        for put in store.put_many(&objects, WriteOptions::default()) {
            assert_eq!(put.unwrap().size_bytes, 5);
        }
        let wanted: Vec<_> = uris.iter().map(|uri| (&**uri, None)).collect();
        for got in store.get_many(&wanted) {
            assert_eq!(got.unwrap(), &b"small"[..]);
        }
        join([writer]);
        assert_eq!(store.engine_for_test().pool().taken(), 0);
    });
}
