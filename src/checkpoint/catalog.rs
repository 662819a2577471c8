//! Keeping house: list, prune, delete.
//!
//! A checkpoint is removed in the order opposite to its making: first the manifest, which makes it
//! cease to exist, then its shards, then the hint is pointed at what remains. Interrupted anywhere,
//! what remains is whole checkpoints, and shards without a manifest for `gc`. No shard that another
//! manifest names is removed.

use std::fmt;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::time::Timestamp;

use super::base::Base;
use super::commit::wrong_shards;
use super::latest;
use super::layout::{KeyLayout, SHARDS, manifest_key};
use super::manifest::Manifest;
use super::references::References;
use super::remove::{delete_if_there, remove_objects};
use super::restore;
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

/// What [`CheckpointStore::prune`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PruneReport {
    /// Checkpoints removed, oldest first.
    pub removed: Vec<CheckpointInfo>,
    /// Checkpoints that remain, oldest first.
    pub kept: Vec<CheckpointInfo>,
    /// Bytes of the shards removed.
    pub removed_bytes: u64,
    /// What was left alone and why, for people.
    pub notes: Vec<String>,
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

    /// Removes all but the newest `keep` checkpoints that are complete: their manifest reads, and
    /// their shards are there in the stated sizes. Incomplete ones among the newest, and those
    /// whose manifest does not read, are kept beyond the number and noted. A reader of a checkpoint
    /// that is pruned meanwhile gets an error, never other bytes.
    ///
    /// # Errors
    /// `InvalidInput` if `keep` is zero; what the medium reports.
    pub fn prune(&self, keep: usize) -> Result<PruneReport> {
        if keep == 0 {
            return Err(Error::invalid("prune", "keeping no checkpoint would remove them all")
                .with_remedy("keep at least one; delete_checkpoint removes a given one"));
        }
        let mut report = PruneReport::default();
        let mut removals = Vec::new();
        let mut complete = 0;
        for info in latest::list_names(&self.base)?.into_iter().rev() {
            if complete == keep {
                removals.push(info);
                continue;
            }
            match self.why_incomplete(&info)? {
                None => complete += 1,
                Some(why) => report.notes.push(format!("{info} does not count: {why}")),
            }
            report.kept.push(info);
        }
        removals.reverse();
        self.remove_all(removals, &mut report)?;
        report.kept.sort();
        Ok(report)
    }

    /// Removes one checkpoint: the one of that timestamp, or the newest of its step. Of one whose
    /// manifest does not read only the manifest is removed; `gc` then collects its shards.
    ///
    /// # Errors
    /// `NotFound` if there is none; what the medium reports.
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
        let references = References::gather(&self.base, &named)?;
        remove(&self.base, &info, manifest.as_ref(), &references)?;
        latest::publish_or_warn(&self.base, None);
        Ok(info)
    }

    /// Why a checkpoint would not restore, by its manifest and the sizes of its shards.
    fn why_incomplete(&self, info: &CheckpointInfo) -> Result<Option<String>> {
        match restore::load(&self.base, info) {
            Ok(manifest) => {
                let wrong = wrong_shards(&self.base, &manifest.shards)?;
                Ok(wrong.first().map(|first| format!("{} shards are wrong: {first}", wrong.len())))
            }
            Err(error) if says_nothing(error.kind()) => Ok(Some(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Removes these checkpoints, oldest first, but those whose manifest does not read.
    fn remove_all(&self, removals: Vec<CheckpointInfo>, report: &mut PruneReport) -> Result<()> {
        // All are read before one is removed: a manifest that does not read protects its step.
        let outcomes =
            self.base.in_parallel(&removals, |info| restore::load(&self.base, info).map(drop))?;
        let mut readable = Vec::with_capacity(removals.len());
        for (info, outcome) in removals.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => readable.push(info),
                Err(error) if says_nothing(error.kind()) => {
                    report.notes.push(format!("{info} is kept: {error}"));
                    report.kept.push(info);
                }
                Err(error) => return Err(error),
            }
        }
        let references = References::gather(&self.base, &report.kept)?;
        for info in readable {
            let manifest = match restore::load(&self.base, &info) {
                Ok(manifest) => manifest,
                // Somebody else removes it at this moment.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            report.removed_bytes += remove(&self.base, &info, Some(&manifest), &references)?;
            report.removed.push(info);
        }
        if !report.removed.is_empty() {
            report.notes.extend(references.notes);
            latest::publish_or_warn(&self.base, None);
        }
        Ok(())
    }
}

/// Whether an error says that a manifest cannot be used, rather than that the medium failed.
fn says_nothing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Incomplete | ErrorKind::Unsupported
    )
}

/// Removes one checkpoint and returns the bytes of the shards that went.
fn remove(
    base: &Base,
    info: &CheckpointInfo,
    manifest: Option<&Manifest>,
    references: &References,
) -> Result<u64> {
    delete_if_there(base, &info.manifest_key)?;
    // The receipts' keys do not depend on the strategy.
    let layout = KeyLayout::new(info.step, info.timestamp.clone(), Strategy::Flat);
    base.store.delete_prefix(&base.uri(&layout.receipts_folder()))?;
    let shards = manifest.map_or(&[][..], |manifest| &manifest.shards);
    let own = shards
        .iter()
        .map(|shard| shard.key.as_str())
        .filter(|key| key.split('/').next() == Some(SHARDS) && !references.need(key, info.step));
    remove_objects(base, own)
}
