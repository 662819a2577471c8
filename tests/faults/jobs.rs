//! What is done to a base while it is disturbed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use syncline::checkpoint::{CheckpointStore, KeyLayout};
use syncline::{Compression, ConfigBuilder, Result, Timestamp};

use crate::data::noise;
use crate::in_time::in_time;

/// Ranks of every checkpoint here.
pub const RANKS: u32 = 3;

/// The step that a job saves.
pub const NEW: u64 = 3;

/// The step whose save was interrupted long ago.
const INTERRUPTED: u64 = 7;

/// An object of the base that is no checkpoint's.
pub const NOTES: &str = "notes/log";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Saves a second checkpoint beside a complete one, of a shard in several parts and small ones that are
    /// written together.
    Save,
    /// The same, compressed.
    Compressed,
    /// Writes an object of several parts over another one.
    Overwrite,
    /// Removes all checkpoints but the newest.
    Prune,
    /// Removes what an interrupted save left.
    Gc,
}

/// What a job that did not fail says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    All,
    /// It kept what it could not be sure of.
    Some,
}

/// A place for a base, seen from behind the client.
pub trait Medium {
    fn base(&self) -> String;

    /// Settings that reach it.
    fn reaching(&self, config: ConfigBuilder) -> ConfigBuilder;

    /// Bytes of a part.
    fn part_bytes(&self) -> usize;

    /// The keys of all objects of the base, temporary ones among them.
    fn keys(&self) -> BTreeSet<String>;

    /// How many writes were begun and made no object, under no key.
    fn unfinished(&self) -> usize;

    /// Whether what was begun can be removed: what cannot expires.
    fn removes_unfinished(&self) -> bool;

    /// Begins to write an object, and never goes on.
    fn begin(&self, key: &str);

    /// Makes all that is there older.
    fn age(&self, by: Duration);

    /// Who opens a store here has what it logs searched for secrets.
    fn settings(&self) -> ConfigBuilder {
        crate::watch::watch();
        let config = syncline::Config::builder().part_bytes(self.part_bytes()).io_threads(2);
        let config = config.queue_depth_parts(2).open_writers_max(2).compression_threads(1);
        self.reaching(config.timeout(Duration::from_secs(60)))
    }

    fn open(&self) -> CheckpointStore {
        self.open_with(self.settings())
    }

    fn open_with(&self, settings: ConfigBuilder) -> CheckpointStore {
        CheckpointStore::open_with(&self.base(), &settings.build().unwrap()).unwrap()
    }
}

/// Makes the base on which every job is done: checkpoints 1 and 2, an object, and what an interrupted save
/// left between them. Returns when all of it is older than what is written next, by any clock.
pub fn prepare(medium: &dyn Medium) {
    let checkpoints = medium.open();
    save(&checkpoints, 1).unwrap();
    write_notes(&checkpoints, 1).unwrap();
    let layout = layout(&checkpoints, INTERRUPTED);
    let small = shards(INTERRUPTED, medium.part_bytes());
    let small: Vec<(u32, &[u8])> = (0..).zip(small.iter().map(Vec::as_slice)).skip(1).collect();
    let sent = checkpoints.put_shards(&layout, RANKS, &small);
    let sent: Vec<_> = sent.into_iter().map(Result::unwrap).collect();
    checkpoints.write_receipts(&layout, RANKS, &sent).into_iter().for_each(Result::unwrap);
    medium.begin(&layout.shard_key(0));
    medium.age(AGE);
    save(&checkpoints, 2).unwrap();
    medium.age(AGE);
}

/// More than media need to tell times apart.
pub const AGE: Duration = Duration::from_secs(10);

impl Job {
    /// The checkpoints that are there when it is done.
    pub fn steps_after(self) -> BTreeSet<u64> {
        match self {
            Job::Save | Job::Compressed => BTreeSet::from([1, 2, NEW]),
            Job::Prune => BTreeSet::from([2]),
            Job::Overwrite | Job::Gc => steps_before(),
        }
    }

    /// The steps of which nothing is left when it is done.
    pub fn removes(self) -> &'static [u64] {
        match self {
            Job::Save | Job::Compressed | Job::Overwrite => &[],
            Job::Prune => &[1],
            Job::Gc => &[INTERRUPTED],
        }
    }

    pub fn run(self, checkpoints: &CheckpointStore) -> Result<Done> {
        let all_if = |all| if all { Done::All } else { Done::Some };
        match self {
            Job::Save => save(checkpoints, NEW).map(|()| Done::All),
            Job::Compressed => {
                let compression = Compression::zstd(1)?;
                save(&checkpoints.clone().with_compression(compression), NEW).map(|()| Done::All)
            }
            Job::Overwrite => write_notes(checkpoints, 2).map(|()| Done::All),
            Job::Prune => checkpoints.prune(1).map(|report| all_if(report.kept.len() <= 1)),
            Job::Gc => {
                let report = checkpoints.gc(Duration::ZERO, true)?;
                Ok(all_if(!report.garbage.iter().any(|garbage| garbage.recent)))
            }
        }
    }
}

/// The checkpoints that are there before.
pub fn steps_before() -> BTreeSet<u64> {
    BTreeSet::from([1, 2])
}

/// Saves without a communicator: each rank's shard and receipt, then the manifest.
pub fn save(checkpoints: &CheckpointStore, step: u64) -> Result<()> {
    let shards = shards(step, checkpoints.store().config().part_bytes());
    let layout = layout(checkpoints, step);
    checkpoints.writer(RANKS, 0)?.save_distributed_shard(&layout, &shards[0])?;
    let others: Vec<(u32, &[u8])> = (0..).zip(shards.iter().map(Vec::as_slice)).skip(1).collect();
    let sent = checkpoints.put_shards(&layout, RANKS, &others);
    let sent = sent.into_iter().collect::<Result<Vec<_>>>()?;
    checkpoints.write_receipts(&layout, RANKS, &sent).into_iter().collect::<Result<Vec<()>>>()?;
    let finalizer = checkpoints.writer(RANKS, 0)?;
    finalizer.finalize_distributed_checkpoint(&layout, "x", 0, None, Duration::ZERO).map(drop)
}

pub fn layout(checkpoints: &CheckpointStore, step: u64) -> KeyLayout {
    let ts: Timestamp = "20261122-120000-000".parse().unwrap();
    checkpoints.layout(step, ts)
}

/// The shards of a step: the first of the steps that jobs save has several parts.
pub fn shards(step: u64, part_bytes: usize) -> Vec<Vec<u8>> {
    let first = if (NEW..9).contains(&step) { part_bytes + 1000 } else { 3000 };
    [first, 1000, 1].iter().zip(10 * step..).map(|(bytes, seed)| noise(*bytes, seed)).collect()
}

fn write_notes(checkpoints: &CheckpointStore, version: u64) -> Result<()> {
    let data = notes(version, checkpoints.store().config().part_bytes());
    checkpoints.store().put(&checkpoints.uri(NOTES), &data).map(drop)
}

/// What the object that is no checkpoint's holds.
pub fn notes(version: u64, part_bytes: usize) -> Vec<u8> {
    if version == 1 { noise(2000, 1) } else { noise(part_bytes + 2000, 2) }
}

/// Drops the store, all threads and buffers with it, which must not take for ever.
#[track_caller]
pub fn close(checkpoints: CheckpointStore, what: &str) {
    assert_eq!(Arc::strong_count(checkpoints.store()), 1, "{what}: somebody still holds the store");
    in_time(move || drop(checkpoints));
}
