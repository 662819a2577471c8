//! A base on a medium, and what tests do to it behind the engine's back.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use syncline::checkpoint::{CheckpointInfo, CheckpointStore, Manifest};
use syncline::{Config, ConfigBuilder, ObjectMeta, Result, Timestamp};

use crate::servers;

/// Bytes of a part and of a checksum block in these tests.
pub const BLOCK: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    Mem,
    File,
    Direct,
    S3,
    Az,
}

pub struct Fixture {
    pub checkpoints: CheckpointStore,
    pub base: String,
    pub medium: Medium,
    _directory: tempfile::TempDir,
}

/// Makes a test of each function, for each medium.
macro_rules! on_all_media {
    ($($test:ident)*) => {
        mod mem { $(#[test] fn $test() { super::$test(crate::support::fixture(crate::support::Medium::Mem)); })* }
        mod file { $(#[test] fn $test() { super::$test(crate::support::fixture(crate::support::Medium::File)); })* }
        mod direct { $(#[test] fn $test() { super::$test(crate::support::fixture(crate::support::Medium::Direct)); })* }
        mod az { $(#[test] fn $test() { super::$test(crate::support::fixture(crate::support::Medium::Az)); })* }
        mod s3 { $(#[test] fn $test() { super::$test(crate::support::fixture(crate::support::Medium::S3)); })* }
    };
}
pub(crate) use on_all_media;

pub fn config() -> Config {
    builder().build().unwrap()
}

fn builder() -> ConfigBuilder {
    Config::builder().part_bytes(BLOCK)
}

pub fn fixture(medium: Medium) -> Fixture {
    match medium {
        Medium::S3 => fixture_with(medium, &builder().s3(servers::s3()).build().unwrap()),
        Medium::Az => fixture_with(medium, &builder().azure(servers::az()).build().unwrap()),
        _ => fixture_with(medium, &config()),
    }
}

pub fn fixture_with(medium: Medium, config: &Config) -> Fixture {
    static BASES: AtomicU64 = AtomicU64::new(0);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    let base = match medium {
        Medium::Mem => format!("mem://base-{}/deeper", BASES.fetch_add(1, Ordering::Relaxed)),
        Medium::File => format!("file://{path}/base"),
        Medium::Direct => format!("direct://{path}/base"),
        Medium::S3 => servers::s3_base(),
        Medium::Az => servers::az_base(),
    };
    crate::watch::watch();
    let checkpoints = CheckpointStore::open_with(&base, config).unwrap();
    Fixture { checkpoints, base, medium, _directory: directory }
}

pub fn ts(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Bytes that differ from rank to rank and from block to block.
pub fn state(seed: u64, bytes: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..bytes).map(next).collect()
}

/// What a test left on a server goes with its fixture.
impl Drop for Fixture {
    fn drop(&mut self) {
        if matches!(self.medium, Medium::S3 | Medium::Az) && !std::thread::panicking() {
            self.checkpoints.store().delete_prefix(&self.base).unwrap();
        }
    }
}

impl Fixture {
    /// Saves a checkpoint of these shards, gathered.
    pub fn save_at(&self, step: u64, timestamp: &str, shards: &[&[u8]]) -> CheckpointInfo {
        let layout = self.checkpoints.layout(step, ts(timestamp));
        let world_size = shards.len() as u32;
        let put = |(rank, data): (u32, &&[u8])| {
            self.checkpoints.writer(world_size, rank).unwrap().put_shard(&layout, data).unwrap()
        };
        let shards = (0..).zip(shards).map(put).collect();
        let finalizer = self.checkpoints.writer(world_size, 0).unwrap();
        finalizer.finalize_checkpoint(&layout, "generic", 0, shards, None).unwrap()
    }

    /// Bytes of a checksum block: [`BLOCK`], or the least that the medium takes as a part.
    pub fn block(&self) -> usize {
        self.checkpoints.store().config().part_bytes()
    }

    pub fn get(&self, key: &str) -> Vec<u8> {
        self.checkpoints.store().get(&self.checkpoints.uri(key)).unwrap().to_vec()
    }

    /// Writes an object as somebody else would, replacing it.
    pub fn put(&self, key: &str, data: &[u8]) {
        self.checkpoints.store().put(&self.checkpoints.uri(key), data).unwrap();
    }

    /// Waits until what is written next is the younger by the clock of any medium: some tell seconds.
    pub fn settle(&self) {
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }

    pub fn delete(&self, key: &str) {
        self.checkpoints.store().delete(&self.checkpoints.uri(key)).unwrap();
    }

    pub fn exists(&self, key: &str) -> bool {
        self.checkpoints.store().exists(&self.checkpoints.uri(key)).unwrap()
    }

    /// Flips a bit of an object.
    pub fn flip(&self, key: &str, at: usize) {
        let mut data = self.get(key);
        data[at] ^= 1;
        self.put(key, &data);
    }

    pub fn latest(&self) -> Manifest {
        self.checkpoints.reader().latest().unwrap().unwrap()
    }

    pub fn latest_step(&self) -> Option<u64> {
        self.checkpoints.reader().latest().unwrap().map(|manifest| manifest.global_step)
    }

    /// What `latest.json` says.
    pub fn hint(&self) -> Value {
        serde_json::from_slice(&self.get("latest.json")).unwrap()
    }

    /// The keys of all objects of the base, sorted: not every server keeps an order.
    pub fn keys(&self) -> Vec<String> {
        let prefix = format!("{}/", self.base);
        let objects = self.checkpoints.store().list(&self.base).unwrap();
        let key = |o: Result<ObjectMeta>| o.unwrap().uri.strip_prefix(&prefix).unwrap().to_owned();
        let mut keys: Vec<String> = objects.map(key).collect();
        keys.sort_unstable();
        keys
    }

    /// The directory, on media that have one.
    pub fn directory(&self) -> Option<std::path::PathBuf> {
        let path = self.base.split_once("://").unwrap().1;
        matches!(self.medium, Medium::File | Medium::Direct).then(|| path.into())
    }
}

/// The manifest as the ancestor would write it: without our fields, changed by `edit`.
pub fn as_ancestor(text: &[u8], edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(text).unwrap();
    value.as_object_mut().unwrap().remove("manifest_checksum");
    for shard in value["shards"].as_array_mut().unwrap() {
        let theirs = ["rank", "key", "size", "etag", "checksum"];
        shard.as_object_mut().unwrap().retain(|name, _| theirs.contains(&name.as_str()));
    }
    edit(&mut value);
    serde_json::to_vec_pretty(&value).unwrap()
}
