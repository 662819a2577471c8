//! Keeping house: list, delete.
//!
//! A checkpoint is removed in the order opposite to its making: first the hint is pointed at what will
//! remain, then the manifest goes, which makes it cease to exist, then its shards. Interrupted
//! anywhere, what remains is whole checkpoints, and shards without a manifest for `gc`. No shard that
//! another manifest names is removed, and none behind a symbolic link out of the base.

use std::fmt;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::time::Timestamp;

use super::base::Base;
use super::commit::wrong_shards;
use super::latest;
use super::layout::{KeyLayout, Named, SHARDS, manifest_key};
use super::manifest::Manifest;
use super::references::References;
use super::remove::{delete_if_there, remove_objects};
use super::restore;
use super::shard::ShardMeta;
use super::{CheckpointStore, Strategy};

/// A checkpoint by its name. Ordered by step, then timestamp: the greatest is the newest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub struct CheckpointInfo {
    /// The step.
    pub step: u64,
    /// The timestamp.
    pub timestamp: Timestamp,
    /// The manifest's key, relative to the base.
    pub manifest_key: String,
}

/// What the manifest of a listed checkpoint says in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckpointSummary {
    /// As in the manifest.
    pub epoch: u64,
    /// As in the manifest.
    pub framework: String,
    /// As in the manifest.
    pub wall_time: String,
    /// Number of ranks, that is, of shards.
    pub world_size: u32,
    /// Bytes that a restore of all shards yields.
    pub raw_bytes: u64,
    /// Bytes of all shards as stored.
    pub stored_bytes: u64,
}

/// One line of [`CheckpointStore::list`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ListedCheckpoint {
    /// The checkpoint's name.
    pub info: CheckpointInfo,
    /// What its manifest says, or why it cannot be read.
    pub summary: Result<CheckpointSummary>,
}

impl CheckpointInfo {
    pub(super) fn new(step: u64, timestamp: Timestamp) -> CheckpointInfo {
        let manifest_key = manifest_key(step, &timestamp);
        CheckpointInfo { step, timestamp, manifest_key }
    }
}

impl fmt::Display for CheckpointInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} at {}", self.step, self.timestamp)
    }
}

impl CheckpointStore {
    /// All checkpoints, oldest first, with what their manifests say. A manifest that cannot be read
    /// is an entry, not a failure of the list.
    ///
    /// # Errors
    /// What the medium reports of the listing.
    pub fn list(&self) -> Result<Vec<ListedCheckpoint>> {
        let named = latest::list_names(&self.base)?;
        let summaries = self.base.in_parallel(&named, |info| {
            restore::load(&self.base, info).map(|manifest| CheckpointSummary {
                raw_bytes: manifest.raw_bytes(),
                stored_bytes: manifest.stored_bytes(),
                epoch: manifest.epoch,
                framework: manifest.framework,
                wall_time: manifest.wall_time,
                world_size: manifest.world_size,
            })
        })?;
        let listed = named.into_iter().zip(summaries);
        Ok(listed.map(|(info, summary)| ListedCheckpoint { info, summary }).collect())
    }

    /// Removes one checkpoint: the one of that timestamp, or the newest of its step. Of one whose
    /// manifest does not read only the manifest is removed; `gc` then collects its shards.
    ///
    /// # Errors
    /// `NotFound` if there is none; `Corrupt` if a shard is behind a symbolic link out of the base, and
    /// then nothing was removed; what the medium reports.
    pub fn delete_checkpoint(
        &self,
        step: u64,
        timestamp: Option<&Timestamp>,
    ) -> Result<CheckpointInfo> {
        let mut named = latest::list_names(&self.base)?;
        let wanted = |info: &CheckpointInfo| {
            info.step == step && timestamp.is_none_or(|timestamp| info.timestamp == *timestamp)
        };
        let Some(at) = named.iter().rposition(wanted) else {
            let detail = match timestamp {
                Some(timestamp) => format!("there is no checkpoint of step {step} at {timestamp}"),
                None => format!("there is no checkpoint of step {step}"),
            };
            return Err(Error::new(ErrorKind::NotFound, "delete checkpoint", detail)
                .with_uri(self.base.base_uri()));
        };
        let info = named.remove(at);
        let manifest = match restore::load(&self.base, &info) {
            Ok(manifest) => Some(manifest),
            Err(error) if says_nothing(error.kind()) => None,
            Err(error) => return Err(error),
        };
        if let Some(manifest) = &manifest {
            self.base.check_within(manifest.shards.iter().map(|shard| shard.key.as_str()))?;
        }
        let references = References::gather(&self.base, &named)?;
        latest::publish_without(&self.base, std::slice::from_ref(&info))?;
        remove(&self.base, &info, manifest.as_ref(), &references)?;
        Ok(info)
    }

    /// Why a checkpoint would not restore, by its manifest and the sizes of its shards.
    pub(super) fn why_incomplete(&self, info: &CheckpointInfo) -> Result<Option<String>> {
        match restore::load(&self.base, info) {
            Ok(manifest) => {
                let wrong = wrong_shards(&self.base, &manifest.shards)?;
                Ok(wrong.first().map(|first| format!("{} shards are wrong: {first}", wrong.len())))
            }
            Err(error) if says_nothing(error.kind()) => Ok(Some(error.to_string())),
            Err(error) => Err(error),
        }
    }
}

/// Whether an error says that a manifest cannot be used, rather than that the medium failed.
pub(super) fn says_nothing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Incomplete | ErrorKind::Unsupported
    )
}

/// The shards that go with a checkpoint: its own, but those that other manifests need. Those of other
/// steps do not go on its word: they may be of a save that runs, and `gc` knows.
pub(super) fn own_shards<'a>(
    manifest: &'a Manifest,
    step: u64,
    references: &References,
) -> impl Iterator<Item = &'a ShardMeta> {
    manifest.shards.iter().filter(move |shard| {
        let own = match Named::parse(&shard.key) {
            Some(Named::Shard { step: named, .. }) => named == step,
            _ => shard.key.split('/').next() == Some(SHARDS),
        };
        own && !references.need(&shard.key, step)
    })
}

/// Removes one checkpoint and returns the bytes of the shards that went. `latest.json` no longer names
/// it.
pub(super) fn remove(
    base: &Base,
    info: &CheckpointInfo,
    manifest: Option<&Manifest>,
    references: &References,
) -> Result<u64> {
    delete_if_there(base, &info.manifest_key)?;
    // The receipts' keys do not depend on the strategy.
    let receipts =
        KeyLayout::new(info.step, info.timestamp.clone(), Strategy::Flat).receipts_folder();
    base.check_within([receipts.as_str()])?;
    base.store.delete_prefix(&base.uri(&receipts))?;
    let own = manifest.into_iter().flat_map(|m| own_shards(m, info.step, references));
    remove_objects(base, own.map(|shard| shard.key.as_str()))
}
