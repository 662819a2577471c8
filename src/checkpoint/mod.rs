//! Checkpoints: one shard for each rank, one manifest, whole or absent.
//!
//! ```text
//! <base>/manifests/ckpt-<step>-<ts>.json            the commit point
//! <base>/shards/ckpt-<step>-<ts>/rank-<r>.bin       or spread over folders, see Strategy
//! <base>/receipts/ckpt-<step>-<ts>/rank-<r>.json    while a save without a communicator is under way
//! <base>/latest.json                                a hint at the newest, never the truth
//! ```
//!
//! The order of a save is the order of the files below: names ([`KeyLayout`]), shards and receipts
//! ([`Writer`]), then the finalizer's checks, the manifest and the hint. A checkpoint exists when
//! its manifest does; shards, receipts and manifests are create-only, so nothing that exists is
//! ever written again. Readers ([`Reader`]) follow the keys in the manifest and believe none of its
//! words unchecked. A restart takes the newest checkpoint that is whole: one process by
//! [`Reader::newest_good`] or [`Reader::load_latest_good`], the ranks of a job by
//! [`Reader::choose_good_step`].
//!
//! A save is named (step, timestamp), and the newest checkpoint is the one of the greatest name.
//! All ranks of a save use the same timestamp, handed to them; the same step under a later
//! timestamp is a newer checkpoint.
//!
//! ```
//! use std::time::Duration;
//! use syncline::Timestamp;
//! use syncline::checkpoint::CheckpointStore;
//!
//! let checkpoints = CheckpointStore::open("mem://checkpoint-doc")?;
//! let layout = checkpoints.layout(100, Timestamp::now());
//! std::thread::scope(|ranks| {
//!     for rank in 0..4 {
//!         let (writer, layout) = (checkpoints.writer(4, rank), layout.clone());
//!         ranks.spawn(move || writer?.save_distributed_shard(&layout, &[rank as u8; 1000]));
//!     }
//! });
//! let finalizer = checkpoints.writer(4, 0)?;
//! finalizer.finalize_distributed_checkpoint(&layout, "generic", 0, None, Duration::from_secs(60))?;
//!
//! let reader = checkpoints.reader();
//! let manifest = reader.latest()?.expect("it was just saved");
//! assert_eq!(reader.read_shard_by_rank(&manifest, 3)?, [3; 1000][..]);
//! # Ok::<(), syncline::Error>(())
//! ```

mod base;
mod catalog;
mod commit;
mod content;
mod copy;
#[cfg(test)]
mod crash_tests;
mod frames;
#[cfg(test)]
mod frames_tests;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gc;
mod good;
mod latest;
mod layout;
mod manifest;
mod many;
mod proof;
mod prune;
mod quick;
mod receipt;
mod references;
mod remove;
mod restore;
mod save;
mod seal;
mod shard;
mod verify;

pub use catalog::{CheckpointInfo, CheckpointSummary, ListedCheckpoint};
pub use gc::{Garbage, GarbageKind, GcReport};
pub use good::{Choice, Good, Skipped};
pub use layout::{KeyLayout, Strategy};
pub use manifest::Manifest;
pub use prune::{PruneOptions, PruneReport};
pub use restore::Reader;
pub use save::Writer;
pub use shard::ShardMeta;
pub use verify::{BlockRange, ByteRange, ShardReport, ShardState, Verdict, VerifyReport};

use bytes::Bytes;
use serde_json::Value;

use crate::config::Config;
use crate::encode::Compression;
use crate::error::{Error, Result};
use crate::limits::WORLD_SIZE_MAX;
use crate::store::{ObjectStore, open_store, store_for_uri};
use crate::sync::Arc;
use crate::time::Timestamp;

use base::Base;

/// A place that holds checkpoints. Cheap to clone; share it between threads.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    base: Arc<Base>,
    strategy: Strategy,
    compression: Compression,
}

impl CheckpointStore {
    /// Opens the base with the settings of the environment. Nothing is read or created yet.
    ///
    /// # Errors
    /// As [`store_for_uri`].
    pub fn open(base_uri: &str) -> Result<CheckpointStore> {
        Ok(CheckpointStore::new(store_for_uri(base_uri)?, base_uri))
    }

    /// Opens the base with these settings and an engine of its own.
    ///
    /// # Errors
    /// As [`open_store`].
    pub fn open_with(base_uri: &str, config: &Config) -> Result<CheckpointStore> {
        Ok(CheckpointStore::new(open_store(base_uri, config)?, base_uri))
    }

    /// Checkpoints below `base_uri` in a store the caller opened.
    pub fn new(store: Arc<dyn ObjectStore>, base_uri: &str) -> CheckpointStore {
        let base = Arc::new(Base::new(store, base_uri));
        let (strategy, compression) = (Strategy::default(), Compression::default());
        CheckpointStore { base, strategy, compression }
    }

    /// With this way of spreading shards over folders. Default: flat.
    #[must_use]
    pub fn with_strategy(mut self, strategy: Strategy) -> CheckpointStore {
        self.strategy = strategy;
        self
    }

    /// With shards compressed so. Default: not at all. Checkpoints of all kinds live side by side; readers
    /// go by the manifest.
    #[must_use]
    pub fn with_compression(mut self, compression: Compression) -> CheckpointStore {
        self.compression = compression;
        self
    }

    /// The store below.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.base.store
    }

    /// The URI of an object of the base, such as [`ShardMeta::key`].
    pub fn uri(&self, key: &str) -> String {
        self.base.uri(key)
    }

    /// The URI of a shard that a manifest names, once it is known that its key does not lead out of the
    /// base by a symbolic link. [`Reader`] asks by itself; this is for those who read without it.
    ///
    /// # Errors
    /// `Corrupt`, naming the link; what the medium reports.
    pub fn shard_uri(&self, shard: &ShardMeta) -> Result<String> {
        self.base.check_within([shard.key.as_str()])?;
        Ok(self.base.uri(&shard.key))
    }

    /// The keys of the save (`step`, `ts`), with this store's strategy and compression.
    pub fn layout(&self, step: u64, ts: Timestamp) -> KeyLayout {
        KeyLayout::new(step, ts, self.strategy).with_compression(self.compression)
    }

    /// Saves as rank `rank` of `world_size`.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such rank.
    pub fn writer(&self, world_size: u32, rank: u32) -> Result<Writer> {
        if rank < world_size && world_size <= WORLD_SIZE_MAX {
            return Ok(Writer::new(Arc::clone(&self.base), world_size, rank));
        }
        let detail = format!("there is no rank {rank} of {world_size}");
        Err(Error::invalid("open checkpoint writer", detail)
            .with_remedy(format!("ranks are 0 to world_size - 1, of at most {WORLD_SIZE_MAX}")))
    }

    /// Finds and reads checkpoints.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.base))
    }

    /// Saves a checkpoint of one shard, named by the present time of this machine.
    ///
    /// # Errors
    /// As [`Writer::put_shard`] and [`Writer::finalize_checkpoint`].
    pub fn save(
        &self,
        step: u64,
        epoch: u64,
        framework: &str,
        data: &[u8],
        user_meta: Option<Value>,
    ) -> Result<CheckpointInfo> {
        let layout = self.layout(step, Timestamp::now());
        let writer = self.writer(1, 0)?;
        let shard = writer.put_shard(&layout, data)?;
        writer.finalize_checkpoint(&layout, framework, epoch, vec![shard], user_meta)
    }

    /// The bytes of the newest checkpoint, which must have one shard; `None` where there is none.
    ///
    /// # Errors
    /// `InvalidInput` if it has several shards; as [`Reader::latest`] and
    /// [`Reader::read_shard_by_rank`].
    pub fn load_latest(&self) -> Result<Option<Bytes>> {
        let reader = self.reader();
        let Some(manifest) = reader.latest()? else { return Ok(None) };
        if manifest.world_size != 1 {
            let detail = format!("the newest checkpoint has {} shards", manifest.world_size);
            return Err(Error::invalid("load latest", detail)
                .with_uri(self.base.base_uri())
                .with_remedy("read them by rank with CheckpointStore::reader"));
        }
        reader.read_shard_by_rank(&manifest, 0).map(Some)
    }
}
