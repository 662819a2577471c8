//! Objects on media that limit the number and the sizes of parts: whatever the calls of the writer, the
//! parts are within the limits and are the object.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::open::Store;
use super::{ObjectStore, WriteOptions};
use crate::backend::{
    Alignment, Backend, IoMode, MemoryBackend, ObjectMeta, Orphan, PartLimits, PartView, Published,
    Receipt, Source, Upload, UploadSpec, Walk,
};
use crate::config::Config;
use crate::error::{ErrorKind, Result};
use crate::sync::{Arc, Mutex, lock};
use crate::time::Deadline;
use crate::uri::Location;

const PART: usize = 64 * 1024;

/// Takes uploads within limits and keeps their parts; the rest is memory's.
#[derive(Debug)]
struct Limited {
    memory: MemoryBackend,
    limits: PartLimits,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    parts: BTreeMap<u64, Vec<u8>>,
    whole: Option<Vec<u8>>,
    /// How long each part takes.
    part_time: Duration,
    /// When the deadline of each part began, and when the part was done.
    times: Vec<(Instant, Instant)>,
}

impl Backend for Limited {
    fn uri(&self, key: &str) -> String {
        self.memory.uri(key)
    }

    fn begin(&self, _: &str, _: UploadSpec, _: &Deadline) -> Result<Arc<dyn Upload>> {
        Ok(Arc::new(LimitedUpload { limits: self.limits, taken: Arc::clone(&self.taken) }))
    }

    fn open(&self, key: &str, deadline: &Deadline) -> Result<Arc<dyn Source>> {
        self.memory.open(key, deadline)
    }

    fn head(&self, key: &str, deadline: &Deadline) -> Result<ObjectMeta> {
        self.memory.head(key, deadline)
    }

    fn list(&self, prefix: &str) -> Box<dyn Walk> {
        self.memory.list(prefix)
    }

    fn delete(&self, keys: &[String], deadline: &Deadline) -> Result<u64> {
        self.memory.delete(keys, deadline)
    }

    fn clear_prefix(&self, prefix: &str, deadline: &Deadline) -> Result<()> {
        self.memory.clear_prefix(prefix, deadline)
    }

    fn orphans(&self, prefix: &str, deadline: &Deadline) -> Result<Vec<Orphan>> {
        self.memory.orphans(prefix, deadline)
    }

    fn delete_orphan(&self, name: &str, deadline: &Deadline) -> Result<()> {
        self.memory.delete_orphan(name, deadline)
    }
}

#[derive(Debug)]
struct LimitedUpload {
    limits: PartLimits,
    taken: Arc<Mutex<Taken>>,
}

fn bytes_of(part: &PartView<'_>) -> Vec<u8> {
    [&[part.bytes], part.more].concat().concat()
}

fn meta(size_bytes: u64) -> ObjectMeta {
    ObjectMeta {
        uri: String::new(),
        size_bytes,
        modified: None,
        etag: None,
        checksum: None,
        write: None,
    }
}

impl Upload for LimitedUpload {
    fn alignment(&self) -> Alignment {
        Alignment::NONE
    }

    fn limits(&self) -> PartLimits {
        self.limits
    }

    fn mode(&self) -> IoMode {
        IoMode::Memory
    }

    fn put_part(&self, part: &PartView<'_>, deadline: &Deadline) -> Result<Receipt> {
        let elapsed = deadline.elapsed();
        let begun = Instant::now() - elapsed;
        let part_time = lock(&self.taken).part_time;
        std::thread::sleep(part_time);
        lock(&self.taken).times.push((begun, Instant::now()));
        lock(&self.taken).parts.insert(part.index, bytes_of(part));
        Ok(part.receipt())
    }

    fn publish(
        &self,
        _: &[Receipt],
        size_bytes: u64,
        _: &Deadline,
        alive: &dyn Fn(),
    ) -> Result<Published> {
        alive();
        Ok(Published::durable(meta(size_bytes)))
    }

    fn put_whole(&self, part: &PartView<'_>, _: &Deadline) -> Result<ObjectMeta> {
        lock(&self.taken).whole = Some(bytes_of(part));
        Ok(meta(part.total_bytes()))
    }

    fn abort(&self, _: &Deadline) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Chunk(usize),
    Owned(usize),
    Borrowed(usize),
    Reserved(usize),
}

impl Step {
    fn bytes(self) -> usize {
        match self {
            Step::Chunk(n) | Step::Owned(n) | Step::Borrowed(n) | Step::Reserved(n) => n,
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sizes = || {
        let near = |at: usize| (at - 1..=at + 1).boxed();
        prop_oneof![0..200usize, near(PART), near(3 * PART), near(5 * PART), 0..20 * PART]
    };
    let step = prop_oneof![
        sizes().prop_map(Step::Chunk),
        sizes().prop_map(Step::Owned),
        sizes().prop_map(Step::Borrowed),
        sizes().prop_map(Step::Reserved),
    ];
    proptest::collection::vec(step, 0..8)
}

/// Writes the steps' bytes; what the medium took, and the bytes.
fn write(
    limits: PartLimits,
    hint: Option<u64>,
    steps: &[Step],
) -> (Result<ObjectMeta>, Arc<Mutex<Taken>>, Vec<u8>) {
    let taken = Arc::new(Mutex::new(Taken::default()));
    let backend =
        Limited { memory: MemoryBackend::new("limits"), limits, taken: Arc::clone(&taken) };
    let config = Config::builder().part_bytes(PART).io_threads(2).queue_depth_parts(30);
    let config = config.open_writers_max(2).build().unwrap();
    let location = Location::parse("mem://limits").unwrap();
    let store = Store::with_backend(&location, &config, Arc::new(backend));
    let total: usize = steps.iter().map(|step| step.bytes()).sum();
    let data: Vec<u8> =
        (0..total as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let options = WriteOptions { size_hint_bytes: hint, ..WriteOptions::default() };
    (run(&store, options, steps, &data), taken, data)
}

fn run(
    store: &dyn ObjectStore,
    options: WriteOptions,
    steps: &[Step],
    data: &[u8],
) -> Result<ObjectMeta> {
    let mut writer = store.get_writer_with("mem://limits/object", options)?;
    let mut rest = data;
    for step in steps {
        let n = step.bytes();
        let (now, later) = rest.split_at(n);
        rest = later;
        match step {
            Step::Chunk(_) => writer.write_chunk(now)?,
            Step::Owned(_) => writer.write_owned(Bytes::copy_from_slice(now))?,
            Step::Borrowed(_) => writer.write_borrowed(now)?,
            Step::Reserved(_) => {
                let mut now = now;
                while !now.is_empty() {
                    let room = writer.reserve()?;
                    let count = room.len().min(now.len());
                    room[..count].copy_from_slice(&now[..count]);
                    writer.commit(count)?;
                    now = &now[count..];
                }
            }
        }
    }
    writer.finalize()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn parts_keep_to_the_limits_and_are_the_object(
        steps in steps(),
        bytes_min in prop_oneof![Just(1), Just(PART / 2), Just(PART)],
        count_max in prop_oneof![Just(20u64), Just(40), Just(10_000)],
        whole in any::<bool>(),
        hint in prop_oneof![Just(None), (1u64..150 * PART as u64).prop_map(Some)],
    ) {
        let bytes_max = 30 * PART as u64;
        let limits = PartLimits { bytes_min, bytes_max, count_max, whole };
        let (outcome, taken, data) = write(limits, hint, &steps);
        let taken = lock(&taken);
        match outcome {
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{}", error),
            Ok(meta) => {
                prop_assert_eq!(meta.size_bytes, data.len() as u64);
                let parts: Vec<&[u8]> = taken.parts.values().map(|part| &part[..]).collect();
                let object = taken.whole.clone().unwrap_or_else(|| parts.concat());
                prop_assert!(object == data, "the parts are not the object");
                // The first part may be larger, by the hint.
                let small = whole && data.len() <= PART;
                prop_assert!(!small || taken.whole.is_some());
                prop_assert!(whole || taken.whole.is_none());
            }
        }
        prop_assert!(taken.parts.len() as u64 <= count_max);
        let last = taken.parts.len().saturating_sub(1);
        for (index, part) in taken.parts.values().enumerate() {
            prop_assert!(index == last || part.len() >= bytes_min, "part {} of {}", index, part.len());
            prop_assert!(part.len() as u64 <= bytes_max);
        }
    }
}

/// Pieces that are smaller than the parts an object of this size needs: the least that is handed over as
/// it is grows with the parts.
#[test]
fn small_pieces_do_not_use_the_parts_up() {
    let limits =
        PartLimits { bytes_min: PART / 2, bytes_max: u64::MAX, count_max: 20, whole: true };
    for hint in [None, Some(100 * PART as u64)] {
        for pieces in [PART / 2, PART, 3 * PART, 5 * PART + 7] {
            let steps = vec![Step::Borrowed(pieces); 100 * PART / pieces];
            let (outcome, taken, data) = write(limits, hint, &steps);
            outcome.unwrap_or_else(|error| panic!("{hint:?} {pieces}: {error}"));
            let parts: Vec<Vec<u8>> = lock(&taken).parts.values().cloned().collect();
            assert!(parts.concat() == data, "{hint:?} {pieces}");
        }
    }
}

/// Time in the queue is not taken off the time that a part has: while it waits, others get on.
#[test]
fn the_time_of_a_part_begins_with_its_turn() {
    let part_time = Duration::from_millis(20);
    let taken = Arc::new(Mutex::new(Taken { part_time, ..Taken::default() }));
    let limits = PartLimits::NONE;
    let memory = MemoryBackend::new("limits");
    let backend = Limited { memory, limits, taken: Arc::clone(&taken) };
    let config = Config::builder().part_bytes(PART).io_threads(1).queue_depth_parts(8);
    let location = Location::parse("mem://limits").unwrap();
    let store = Store::with_backend(&location, &config.build().unwrap(), Arc::new(backend));
    run(&store, WriteOptions::default(), &[Step::Chunk(6 * PART)], &vec![1; 6 * PART]).unwrap();
    let times = lock(&taken).times.clone();
    assert_eq!(times.len(), 6);
    for (before, after) in times.iter().zip(&times[1..]) {
        assert!(after.0 >= before.1, "a deadline began before the part's turn");
    }
}

/// 64 writers over a medium that takes one part after the other: each waits longer than one timeout for its
/// turn, and none fails.
#[test]
fn a_slow_medium_fails_no_writer() {
    const WRITERS: u64 = 64;
    const PARTS: u64 = 4;
    let (part_time, timeout) = (Duration::from_millis(20), Duration::from_secs(1));
    assert!(part_time * WRITERS as u32 > timeout);
    let taken = Arc::new(Mutex::new(Taken { part_time, ..Taken::default() }));
    let (memory, limits) = (MemoryBackend::new("limits"), PartLimits::NONE);
    let backend = Limited { memory, limits, taken: Arc::clone(&taken) };
    let config = Config::builder().part_bytes(PART).io_threads(1).queue_depth_parts(2);
    let config = config.open_writers_max(WRITERS as usize).timeout(timeout).build().unwrap();
    let location = Location::parse("mem://limits").unwrap();
    let store = Store::with_backend(&location, &config, Arc::new(backend));
    let together = std::sync::Barrier::new(WRITERS as usize);
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let mut writer = store.get_writer("mem://limits/object").unwrap();
                together.wait();
                for _ in 0..PARTS {
                    writer.write_chunk(&[1; PART]).unwrap();
                }
                writer.finalize().unwrap();
            });
        }
    });
    assert_eq!(lock(&taken).times.len() as u64, WRITERS * PARTS);
}
