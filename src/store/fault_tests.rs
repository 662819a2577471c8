//! Failures injected below the engine: each is reported once and latched, leaves nothing behind, and
//! never lets a thread touch memory that is the caller's again.

mod compressed;
mod many;

use std::time::Duration;

use super::ObjectStore;
use super::open::Store;
use crate::backend::fault::{Fault, FaultPlan, FaultyBackend, POISON};
use crate::backend::{Backend, MemoryBackend, open_file};
use crate::buffer::AlignedVec;
use crate::config::{Config, ConfigBuilder};
use crate::encode::Algorithm;
use crate::error::{Error, ErrorKind, Result};
use crate::figures;
use crate::sync::{Arc, Ordering, lock};
use crate::uri::Location;

const PART: usize = 64 * 1024;

/// A timeout long enough for a healthy call on a busy machine (or under Miri), and a stall beyond it.
const TIMEOUT: Duration = Duration::from_millis(if cfg!(miri) { 20_000 } else { 1_000 });
const STALL: Duration = Duration::from_millis(if cfg!(miri) { 25_000 } else { 2_000 });

fn small() -> ConfigBuilder {
    // Under Miri, hashing would take most of the time and prove nothing about memory.
    let checksum = (!cfg!(miri)).then_some(Algorithm::Crc32c);
    Config::builder()
        .checksum(checksum)
        .part_bytes(PART)
        .io_threads(2)
        .queue_depth_parts(2)
        .open_writers_max(3)
}

/// A store over `inner` whose operations go wrong as planned.
fn faulty(
    base: &str,
    inner: Arc<dyn Backend>,
    config: ConfigBuilder,
    plan: &Arc<FaultPlan>,
) -> Store {
    disturbed(base, FaultyBackend { inner, plan: Arc::clone(plan), whole: false }, config)
}

fn disturbed(base: &str, backend: FaultyBackend, config: ConfigBuilder) -> Store {
    let location = Location::parse(base).unwrap();
    Store::with_backend(&location, &config.build().unwrap(), Arc::new(backend))
}

/// Calls `f` with a plan for each class of fault at each of the first `operations` operations, as many as `f` does
/// when nothing goes wrong. Each must be met.
fn each_fault(operations: u64, f: impl Fn(&Arc<FaultPlan>)) {
    // Miri is slow, and sees the same memory in each of them.
    let classes = if cfg!(miri) { &[Fault::EIO, Fault::Panic][..] } else { &Fault::CLASSES };
    for fault in classes {
        for at in 0..operations {
            let plan = FaultPlan::new(*fault, at);
            f(&plan);
            assert!(plan.hit().is_some(), "there is no such operation: {plan:?}");
        }
    }
    figures::add("faults injected", operations * classes.len() as u64);
}

/// That the one error tells what went wrong, and where.
#[track_caller]
fn assert_told(error: &Error, plan: &FaultPlan) {
    assert_eq!(Some(error.kind()), plan.expected(), "{plan:?}: {error}");
    assert!(error.uri().is_some_and(|name| name.contains("object")), "{error}");
}

/// Runs `test` over memory and over files, each with a base of its own.
fn over_media(mut test: impl FnMut(&str, Arc<dyn Backend>)) {
    test("mem://faults/base", Arc::new(MemoryBackend::new("faults")));
    if cfg!(miri) {
        // Miri has no openat; the memory of the caller takes the same way to every backend.
        return;
    }
    // In memory, where a sync costs nothing: on a busy disk a healthy one may outlast the timeouts here.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    test(&format!("file://{}/base", directory.path().to_str().unwrap()), open_file());
}

/// Writes five parts in every way there is.
fn save(store: &Store, uri: &str) -> Result<()> {
    let data = AlignedVec::zeroed(PART).unwrap();
    let mut writer = store.get_writer(uri)?;
    let mut steps = || -> Result<()> {
        writer.write_chunk(&data)?;
        writer.write_borrowed(&data)?;
        writer.write_owned(bytes::Bytes::from(vec![1; PART]))?;
        writer.reserve()?;
        writer.commit(PART)?;
        writer.write_chunk(&data[..10])
    };
    if let Err(error) = steps() {
        // The first error latches: every later call returns the same one.
        for later in [writer.write_chunk(b"x"), writer.commit(0), writer.write_borrowed(&data)] {
            assert_eq!(later.unwrap_err().to_string(), error.to_string());
        }
        assert_eq!(writer.reserve().err().unwrap().kind(), error.kind());
        assert_eq!(writer.finalize().unwrap_err().to_string(), error.to_string());
        return Err(error);
    }
    writer.finalize().map(drop)
}

fn assert_clean(store: &Store, base: &str) {
    assert_eq!(store.list(base).unwrap().count(), 0, "something became visible");
    assert!(store.orphans(base, Duration::ZERO).unwrap().is_empty(), "something was left behind");
    assert_eq!(store.engine_for_test().pool().taken(), 0, "buffers are missing");
}

/// As [`assert_clean`]; where the reply to a commit was lost, the object may be there, as a whole.
#[track_caller]
fn assert_clean_or_visible(store: &Store, base: &str, plan: &FaultPlan, size_bytes: usize) {
    if plan.may_be_visible() {
        let uri = format!("{base}/object");
        assert_eq!(store.stat(&uri).unwrap().size_bytes, size_bytes as u64);
        store.delete(&uri).unwrap();
    }
    assert_clean(store, base);
}

#[test]
fn every_operation_of_a_save_may_fail_or_panic() {
    over_media(|base, inner| {
        let uri = format!("{base}/object");
        let counting = FaultPlan::healthy();
        let store = faulty(base, Arc::clone(&inner), small(), &counting);
        save(&store, &uri).unwrap();
        store.delete(&uri).unwrap();
        let operations = counting.seen() - 1;
        assert_eq!(operations, 7, "begin, five parts, commit");
        each_fault(operations, |plan| {
            let store = faulty(base, Arc::clone(&inner), small(), plan);
            let error = save(&store, &uri).unwrap_err();
            assert_told(&error, plan);
            assert_clean_or_visible(&store, base, plan, 4 * PART + 10);
            // The pool lives: the same store saves next time.
            save(&store, &uri).unwrap();
            store.delete(&uri).unwrap();
        });
    });
}

/// What went in one step is there or not, and never half.
#[test]
fn every_operation_of_an_object_put_whole_may_fail_or_panic() {
    over_media(|base, inner| {
        let uri = format!("{base}/object");
        let open = |plan: &Arc<FaultPlan>| {
            let (inner, plan) = (Arc::clone(&inner), Arc::clone(plan));
            disturbed(base, FaultyBackend { inner, plan, whole: true }, small())
        };
        let counting = FaultPlan::healthy();
        open(&counting).put(&uri, &[7; 1000]).unwrap();
        assert_eq!(counting.seen(), 2, "begin, put");
        open(&counting).delete(&uri).unwrap();
        each_fault(2, |plan| {
            let store = open(plan);
            assert_told(&store.put(&uri, &[7; 1000]).unwrap_err(), plan);
            assert_clean_or_visible(&store, base, plan, 1000);
            store.put(&uri, &[7; 1000]).unwrap();
            store.delete(&uri).unwrap();
        });
    });
}

#[test]
fn every_operation_of_a_read_may_fail_or_panic() {
    over_media(|base, inner| {
        let uri = format!("{base}/object");
        let counting = FaultPlan::healthy();
        let store = faulty(base, Arc::clone(&inner), small(), &counting);
        save(&store, &uri).unwrap();
        let before = counting.seen();
        let data = store.get(&uri).unwrap();
        let operations = counting.seen() - before;
        assert_eq!(operations, 6, "open, five pieces");
        each_fault(operations, |plan| {
            let store = faulty(base, Arc::clone(&inner), small(), plan);
            match store.get(&uri) {
                Ok(read) => assert!(plan.expected().is_none() && read == data, "{plan:?}"),
                Err(error) => assert_told(&error, plan),
            }
            assert_eq!(store.engine_for_test().pool().taken(), 0);
            assert!(store.get(&uri).unwrap() == data);
        });
        store.delete(&uri).unwrap();
    });
}

/// The error of a stall names the thread, the object and what is done to it, and how long it took.
#[track_caller]
fn assert_stalled(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let text = error.to_string();
    for needle in ["syncline-", "object", "has been in"] {
        assert!(text.contains(needle), "{needle} missing in {text}");
    }
    assert!(error.elapsed().is_some());
}

/// Where parts stall, it names these too: some of the first `parts`.
#[track_caller]
fn assert_stalled_in(error: &Error, operation: &str, parts: u64) {
    assert_stalled(error);
    let text = error.to_string();
    let at_work = format!("has been in \"{operation}\" ");
    let named = text.split(&at_work).skip(1).map(|rest| {
        let (part, rest) = rest.split_once(" of ").unwrap_or_default();
        let object = rest.split(' ').next().unwrap_or_default();
        part.parse().is_ok_and(|part: u64| part < parts) && object.ends_with("/object")
    });
    let named: Vec<bool> = named.collect();
    assert!(!named.is_empty() && named.iter().all(|named| *named), "which part? {text}");
}

/// Releases the stall some time after the caller's deadline has passed, as a slow disk would.
fn release_late(plan: &Arc<FaultPlan>) -> std::thread::JoinHandle<()> {
    let plan = Arc::clone(plan);
    std::thread::spawn(move || {
        lock(&plan.stalls).recv().unwrap();
        std::thread::sleep(STALL);
        plan.release();
    })
}

#[test]
fn a_stalled_write_returns_borrowed_memory_only_when_nobody_looks_at_it() {
    over_media(|base, inner| {
        let plan = FaultPlan::new(Fault::Stall, 1);
        let config = small().timeout(TIMEOUT);
        let store = faulty(base, inner, config, &plan);
        let mut data = AlignedVec::zeroed(8 * PART).unwrap();
        let mut writer = store.get_writer(&format!("{base}/object")).unwrap();
        let late = release_late(&plan);
        let error = writer.write_borrowed(&data).unwrap_err();
        // Ours again: a thread that still looked would see the poison.
        data.fill(POISON);
        assert_stalled_in(&error, "write part", 2);
        late.join().unwrap();
        assert_stalled_in(&writer.finalize().unwrap_err(), "write part", 2);
        assert_clean(&store, base);
        drop(store);
        assert!(!plan.saw_poison.load(Ordering::SeqCst), "a thread looked at returned memory");
    });
}

#[test]
fn a_stalled_read_returns_memory_only_when_nobody_writes_to_it() {
    over_media(|base, inner| {
        let uri = format!("{base}/object");
        let size = 8 * PART;
        let healthy = FaultPlan::healthy();
        faulty(base, Arc::clone(&inner), small(), &healthy).put(&uri, &vec![3; size]).unwrap();
        let plan = FaultPlan::new(Fault::Stall, 1);
        let store = faulty(base, inner, small().timeout(TIMEOUT), &plan);
        let mut memory = vec![0; size];
        let late = release_late(&plan);
        assert_stalled_in(&store.read_into(&uri, 0, &mut memory).unwrap_err(), "read", 2);
        memory.fill(POISON);
        late.join().unwrap();
        drop(store);
        assert!(memory.iter().all(|byte| *byte == POISON), "a thread wrote to returned memory");
        assert!(!plan.saw_poison.load(Ordering::SeqCst), "a thread looked at returned memory");
    });
}

/// A panic of the caller between handing over and waiting is the same to the threads: the loan ends.
#[test]
fn errors_and_panics_below_return_borrowed_memory() {
    over_media(|base, inner| {
        let counting = FaultPlan::healthy();
        let store = faulty(base, Arc::clone(&inner), small(), &counting);
        let mut writer = store.get_writer(&format!("{base}/object")).unwrap();
        writer.write_borrowed(&AlignedVec::zeroed(8 * PART).unwrap()).unwrap();
        drop(writer);
        let operations = counting.seen();
        assert_eq!(operations, 9, "begin, eight parts");
        each_fault(operations, |plan| {
            let store = faulty(base, Arc::clone(&inner), small(), plan);
            let mut data = AlignedVec::zeroed(8 * PART).unwrap();
            if let Ok(mut writer) = store.get_writer(&format!("{base}/object")) {
                // A part that was cut short shows at the end.
                let written = writer.write_borrowed(&data);
                assert!(written.is_err() || plan.expected() == Some(ErrorKind::ChecksumMismatch));
            }
            data.fill(POISON);
            assert_clean(&store, base);
            drop(store);
            assert!(!plan.saw_poison.load(Ordering::SeqCst));
        });
    });
}

#[test]
fn every_call_returns_in_time_while_the_medium_stalls() {
    over_media(|base, inner| {
        let plan = FaultPlan::new(Fault::Stall, 1);
        let config = small().timeout(TIMEOUT);
        let store = faulty(base, inner, config, &plan);
        let uri = format!("{base}/object");
        let data = vec![0; PART];
        let mut writer = store.get_writer(&uri).unwrap();
        // Two parts stall in the threads, two wait in the queue, one has no room.
        let error = (0..9).find_map(|_| writer.write_chunk(&data).err()).unwrap();
        assert_stalled_in(&error, "write part", 2);
        // Which waits for the same threads.
        assert_stalled_in(&store.stat(&uri).unwrap_err(), "write part", 2);
        assert!(store.get_writer(&uri).is_err());
        plan.release();
        drop(writer);
        assert_clean(&store, base);
    });
}

#[test]
fn a_commit_that_stalls_past_its_deadline_never_shows_its_object() {
    over_media(|base, inner| {
        let plan = FaultPlan::new(Fault::Stall, 2);
        let config = small().timeout(TIMEOUT);
        let store = faulty(base, inner, config, &plan);
        let mut writer = store.get_writer(&format!("{base}/object")).unwrap();
        writer.write_chunk(b"one part, then the commit stalls").unwrap();
        let error = writer.finalize().unwrap_err();
        assert_stalled(&error);
        plan.release();
        // The commit goes on now, finds the upload aborted, and leaves nothing.
        assert_clean(&store, base);
    });
}

#[test]
fn a_store_dropped_while_busy_lets_its_writers_finish() {
    over_media(|base, inner| {
        let plan = FaultPlan::new(Fault::Stall, 1);
        let store = faulty(base, inner, small(), &plan);
        let engine = Arc::downgrade(store.engine_for_test());
        let mut writer = store.get_writer(&format!("{base}/object")).unwrap();
        writer.write_chunk(&vec![5; 3 * PART]).unwrap();
        drop(store);
        plan.release();
        assert_eq!(writer.finalize().unwrap().size_bytes, 3 * PART as u64);
        assert!(engine.upgrade().is_none(), "the engine is gone, its threads joined");
    });
}

#[test]
fn an_engine_with_a_stuck_thread_is_left_behind_in_time() {
    let plan = FaultPlan::new(Fault::Stall, 0);
    let config =
        small().timeout(Duration::from_millis(20)).shutdown_timeout(Duration::from_millis(20));
    let inner = Arc::new(MemoryBackend::new("faults"));
    let store = faulty("mem://faults", inner, config, &plan);
    assert_stalled(&store.stat("mem://faults/object").unwrap_err());
    drop(store);
    plan.release();
}

/// A call that its caller gave up on must not run later, when the caller has moved on.
#[test]
fn a_delete_that_timed_out_in_the_queue_never_happens() {
    over_media(|base, inner| {
        let uri = format!("{base}/object");
        let healthy = FaultPlan::healthy();
        faulty(base, Arc::clone(&inner), small(), &healthy).put(&uri, b"x").unwrap();
        let plan = FaultPlan::new(Fault::Stall, 0);
        let config = small().io_threads(1).timeout(TIMEOUT);
        let store = faulty(base, Arc::clone(&inner), config, &plan);
        assert_stalled(&store.stat(&uri).unwrap_err());
        // The only thread is still in `stat`.
        assert_stalled(&store.delete(&uri).unwrap_err());
        plan.release();
        assert!(store.exists(&uri).unwrap(), "deleted after the caller was told that it was not");
        store.delete(&uri).unwrap();
    });
}

/// Memory of the caller's whose release goes wrong.
struct PanicsWhenDropped(Vec<u8>);

impl AsRef<[u8]> for PanicsWhenDropped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("dropped on purpose");
    }
}

#[test]
fn threads_outlive_owned_memory_that_panics_when_dropped() {
    let plan = FaultPlan::new(Fault::Stall, 1);
    let inner = Arc::new(MemoryBackend::new("faults"));
    let store = faulty("mem://faults", inner, small().io_threads(1).timeout(TIMEOUT), &plan);
    let mut writer = store.get_writer("mem://faults/object").unwrap();
    for _ in 0..2 {
        let owner = PanicsWhenDropped(vec![1; PART]);
        writer.write_owned(bytes::Bytes::from_owner(owner)).unwrap();
    }
    lock(&plan.stalls).recv().unwrap();
    // One part is under way, the other is queued and will be skipped.
    drop(writer);
    plan.release();
    store.put("mem://faults/object", b"the only thread lives").unwrap();
}

/// `delete_prefix` of everything there is, on a filesystem, is a slip of the pen.
#[test]
fn a_filesystem_is_not_emptied_from_its_root() {
    // The names are those of files; what stands behind them is memory.
    let inner = Arc::new(MemoryBackend::new("faults"));
    for root in ["file:///", "direct:///"] {
        let plan = FaultPlan::healthy();
        let store = faulty(root, Arc::<MemoryBackend>::clone(&inner), small(), &plan);
        assert_eq!(store.delete_prefix(root).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(plan.seen(), 0);
    }
}
