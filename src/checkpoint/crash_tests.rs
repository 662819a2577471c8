//! A power cut after every operation of all that changes a base, over a disk that keeps apart what is live and
//! what is durable (`backend/crash.rs`).

use std::collections::BTreeSet;
use std::time::Duration;

use super::{CheckpointStore, KeyLayout, PruneOptions, ShardMeta};
use crate::backend::crash::model::{Disk, Image, Operation, Survival};
use crate::backend::crash::{CrashBackend, SharedDisk};
use crate::config::Config;
use crate::encode::Compression;
use crate::error::Result;
use crate::figures;
use crate::store::{Store, WriteOptions};
use crate::sync::Arc;
use crate::uri::Location;

use crate as library;
use crate::backend::crash::model;

#[path = "../../tests/support/crash/matrix.rs"]
mod matrix;
#[path = "../../tests/support/crash/mutations.rs"]
mod mutations;

use matrix::{Known, Place, crash_everywhere, state};
use mutations::MUTATIONS;

const BASE: &str = "mem://disk/base";
const TS: &str = "20260101-000000-000";

/// States drawn at random for each crash point, beside the clear ones.
fn drawn() -> u64 {
    if figures::long() { 64 } else { 4 }
}

fn open(disk: &SharedDisk) -> CheckpointStore {
    let config = Config::builder().part_bytes(64 * 1024).io_threads(3).queue_depth_parts(2);
    let location = Location::parse(BASE).unwrap();
    let backend = Arc::new(CrashBackend::new(disk.clone()));
    let store = Store::with_backend(&location, &config.build().unwrap(), backend);
    CheckpointStore::new(Arc::new(store), BASE)
}

/// A base after a crash.
struct AfterCrash(SharedDisk);

impl AfterCrash {
    fn new(image: &Image) -> AfterCrash {
        AfterCrash(SharedDisk::new(Disk::from_image(image.clone())))
    }
}

impl Place for AfterCrash {
    fn checkpoints(&self) -> CheckpointStore {
        open(&self.0)
    }

    fn tree(&self) -> BTreeSet<String> {
        self.0.with(|disk| {
            let tree = disk.live().tree();
            let below = tree.iter().filter_map(|(path, inode, _)| {
                let path = path.strip_prefix("base/")?;
                let slash = if disk.live().is_folder(*inode) { "/" } else { "" };
                Some(format!("{path}{slash}"))
            });
            below.collect()
        })
    }
}

/// How a checkpoint is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Gathered,
    Distributed,
    /// Small shards and their receipts in windows.
    Together,
    Compressed,
}

const WAYS: [Way; 4] = [Way::Gathered, Way::Distributed, Way::Together, Way::Compressed];

/// A disk on which things are done, and what was saved.
struct Recording {
    disk: SharedDisk,
    known: Known,
    checkpoints: CheckpointStore,
}

impl Recording {
    fn new() -> Recording {
        Recording::on(Disk::new(), Known::default())
    }

    fn on(disk: Disk, known: Known) -> Recording {
        let disk = SharedDisk::new(disk);
        let checkpoints = open(&disk);
        Recording { disk, known, checkpoints }
    }

    /// The same, with nothing recorded yet: all of it is durable and old.
    fn settled(self) -> Recording {
        Recording::on(self.disk.with(|disk| disk.settled()), self.known)
    }

    fn expect(&self, what: &str, any_of: &[Option<u64>]) {
        self.disk.with(|disk| disk.expect(what, any_of.to_vec()));
    }

    fn layout(&self, step: u64) -> KeyLayout {
        self.checkpoints.layout(step, TS.parse().unwrap())
    }

    /// Saves a checkpoint of three shards, of several parts, of one, and of a few bytes.
    fn save(&mut self, step: u64, way: Way) -> Result<()> {
        let sizes = if way == Way::Together { [9_000, 2_000, 10] } else { [150_000, 40_000, 10] };
        let shards = (0..).zip(sizes).map(|(rank, bytes)| state(step * 10 + rank, bytes));
        let shards: Vec<Vec<u8>> = shards.collect();
        let key = self.layout(step).manifest_key();
        self.known.add(&key, 0, shards.clone());
        self.expect(&key, &[None, Some(0)]);
        let store = match way {
            Way::Compressed => self.checkpoints.clone().with_compression(Compression::zstd(1)?),
            _ => self.checkpoints.clone(),
        };
        send(&store, &store.layout(step, TS.parse()?), way, &shards)?;
        self.expect(&key, &[Some(0)]);
        Ok(())
    }

    /// Crashes everywhere, and tells of it.
    fn survives(&self) {
        let disk = self.disk.with(|disk| disk.clone());
        let outcome = crash_everywhere(&disk, &self.known, drawn(), AfterCrash::new);
        let tally = outcome.unwrap_or_else(|finding| panic!("{finding}"));
        assert!(tally.checked > tally.points / 4, "{tally:?}");
        figures::add("crash points", tally.points);
        figures::add("states after a crash", tally.checked);
    }
}

fn send(store: &CheckpointStore, layout: &KeyLayout, way: Way, data: &[Vec<u8>]) -> Result<()> {
    let world_size = u32::try_from(data.len()).unwrap();
    let finalizer = store.writer(world_size, 0)?;
    let each = |send: &(dyn Fn(super::Writer, &[u8]) -> Result<ShardMeta> + Sync)| {
        std::thread::scope(|ranks| -> Result<Vec<ShardMeta>> {
            let ranks: Vec<_> = (0..world_size)
                .zip(data)
                .map(|(rank, data)| {
                    ranks.spawn(move || send(store.writer(world_size, rank)?, data))
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    };
    match way {
        Way::Gathered | Way::Compressed => {
            let shards = each(&|writer, data| writer.put_shard(layout, data))?;
            finalizer.finalize_checkpoint(layout, "generic", 0, shards, None)?;
        }
        Way::Distributed => {
            each(&|writer, data| writer.save_distributed_shard(layout, data))?;
            let patience = Duration::from_secs(60);
            finalizer.finalize_distributed_checkpoint(layout, "generic", 0, None, patience)?;
        }
        Way::Together => {
            let of_ranks: Vec<(u32, &[u8])> = (0..).zip(data.iter().map(Vec::as_slice)).collect();
            let shards = store.put_shards(layout, world_size, &of_ranks);
            let shards = shards.into_iter().collect::<Result<Vec<_>>>()?;
            let receipts = store.write_receipts(layout, world_size, &shards);
            receipts.into_iter().collect::<Result<Vec<_>>>()?;
            let patience = Duration::from_secs(60);
            finalizer.finalize_distributed_checkpoint(layout, "generic", 0, None, patience)?;
        }
    }
    Ok(())
}

#[test]
fn a_first_save_is_whole_or_absent_after_a_crash_anywhere() {
    for way in WAYS {
        let mut recording = Recording::new();
        recording.save(1, way).unwrap();
        recording.survives();
    }
}

#[test]
fn a_second_save_leaves_the_first_after_a_crash_anywhere() {
    for way in WAYS {
        let mut recording = Recording::new();
        recording.save(1, Way::Gathered).unwrap();
        let mut recording = recording.settled();
        recording.save(2, way).unwrap();
        recording.survives();
    }
}

/// Two saves in a row by one process: what the first made durable serves the second.
#[test]
fn saves_in_a_row_survive_a_crash_anywhere() {
    let mut recording = Recording::new();
    for (step, way) in (1..).zip([Way::Together, Way::Distributed]) {
        recording.save(step, way).unwrap();
    }
    recording.survives();
}

#[test]
fn an_object_is_the_old_or_the_new_one_after_a_crash_anywhere() {
    let mut recording = Recording::new();
    let names = ["objects/one", "objects/other", "objects/large"];
    for version in 0..3 {
        let contents: Vec<Vec<u8>> = (0..)
            .zip([3_000, 500, 140_000])
            .map(|(n, bytes)| state(version * 10 + n, bytes))
            .collect();
        let before = version.checked_sub(1);
        for (name, content) in names.iter().zip(&contents) {
            recording.known.add(name, version, vec![content.clone()]);
            recording.expect(name, &[before, Some(version)]);
        }
        let uris = names.map(|name| recording.checkpoints.uri(name));
        let store = recording.checkpoints.store();
        match version {
            // Together, as small ones go.
            1 => {
                let objects: Vec<(&str, &[u8])> = uris
                    .iter()
                    .map(String::as_str)
                    .zip(contents.iter().map(Vec::as_slice))
                    .collect();
                for put in store.put_many(&objects, WriteOptions::default()) {
                    put.unwrap();
                }
            }
            _ => {
                for (uri, content) in uris.iter().zip(&contents) {
                    store.put(uri, content).unwrap();
                }
            }
        }
        for name in names {
            recording.expect(name, &[Some(version)]);
        }
    }
    recording.survives();
}

#[test]
fn a_prune_loses_nothing_that_stays_after_a_crash_anywhere() {
    let mut recording = Recording::new();
    for (step, way) in (1..).zip([Way::Gathered, Way::Together, Way::Compressed, Way::Gathered]) {
        recording.save(step, way).unwrap();
    }
    let recording = recording.settled();
    let pruned = |any_of: &[Option<u64>]| {
        for step in [1, 3] {
            recording.expect(&recording.layout(step).manifest_key(), any_of);
        }
    };
    pruned(&[None, Some(0)]);
    let options = PruneOptions::new(1).keep_every(2);
    let report = recording.checkpoints.prune_with(&options, &|_| {}).unwrap();
    assert_eq!(report.removed.len(), 2);
    pruned(&[None]);
    recording.survives();
}

/// Going back: the newest checkpoint is deleted, and the hint must not lead to it.
#[test]
fn a_deletion_of_the_newest_survives_a_crash_anywhere() {
    let mut recording = Recording::new();
    recording.save(1, Way::Gathered).unwrap();
    recording.save(2, Way::Gathered).unwrap();
    let recording = recording.settled();
    let newest = recording.layout(2).manifest_key();
    recording.expect(&newest, &[None, Some(0)]);
    recording.checkpoints.delete_checkpoint(2, None).unwrap();
    recording.expect(&newest, &[None]);
    recording.survives();
}

/// What a crash in the middle of a save left is collected, beside a checkpoint that came after it.
#[test]
fn a_gc_takes_leftovers_alone_after_a_crash_anywhere() {
    let mut recording = Recording::new();
    recording.save(1, Way::Distributed).unwrap();
    let log = recording.disk.with(|disk| disk.log().to_vec());
    let manifest_named = |operation: &Operation| matches!(operation, Operation::Rename { to, .. } if to.starts_with("ckpt-"));
    let commit = log.iter().position(manifest_named).unwrap();
    let image = recording.disk.with(|disk| disk.state(commit, Survival::All));
    let mut recording = Recording::on(Disk::from_image(image), Known::default());
    recording.save(2, Way::Gathered).unwrap();
    let report = recording.checkpoints.gc(Duration::ZERO, true).unwrap();
    assert!(report.garbage.iter().filter(|item| item.removed).count() >= 6, "{report:?}");
    recording.survives();
}

#[test]
fn steps_that_are_left_out_or_come_too_early_are_found() {
    for way in WAYS {
        let mut recording = Recording::new();
        recording.save(1, way).unwrap();
        for (what, mutate) in MUTATIONS {
            let disk = recording.disk.with(|disk| mutate(disk));
            let outcome = crash_everywhere(&disk, &recording.known, drawn(), AfterCrash::new);
            outcome.expect_err(what);
        }
    }
}
