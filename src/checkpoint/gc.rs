//! Collecting what interrupted saves left behind: temporary files, and shards and receipts that
//! belong to no checkpoint.
//!
//! A save in progress looks like an interrupted one. What tells them apart is age: a save is left
//! alone as long as anything of it, temporary files included, was written less than `older_than`
//! ago. Choose it above the longest save. What a readable manifest names is never garbage, whatever
//! its age; where a manifest cannot be read, see `references.rs`.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::backend::Orphan;
use crate::error::{ErrorKind, Result};
use crate::time::{Timestamp, rfc3339};

use super::base::Base;
use super::latest;
use super::layout::{Named, RECEIPTS, SHARDS, folder_of, manifest_key, save_of_path};
use super::references::References;
use super::remove::{clear_save_folders, remove_objects};
use super::{CheckpointInfo, CheckpointStore};

/// What an interrupted save left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GarbageKind {
    /// A temporary file or unfinished upload.
    Temporary,
    /// A shard that no manifest names, of a save that has no manifest.
    Shard,
    /// A receipt: of a save that has no manifest, or of one that has and needs it no more.
    Receipt,
}

/// One object that [`CheckpointStore::gc`] found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Garbage {
    /// What it is.
    pub kind: GarbageKind,
    /// Where it is.
    pub uri: String,
    /// Bytes it takes.
    pub size_bytes: u64,
    /// When it was last written to, where the medium tells.
    #[serde(serialize_with = "as_rfc3339")]
    pub modified: Option<SystemTime>,
    /// Whether it was removed.
    pub removed: bool,
}

/// What [`CheckpointStore::gc`] found and did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GcReport {
    /// What is garbage, in the order of the URIs.
    pub garbage: Vec<Garbage>,
    /// What was left alone and why, for people.
    pub notes: Vec<String>,
}

impl CheckpointStore {
    /// Finds what interrupted saves left behind and wrote last at least `older_than` ago; removes
    /// it if `delete`.
    ///
    /// # Errors
    /// What the medium reports. What was removed before is gone.
    pub fn gc(&self, older_than: Duration, delete: bool) -> Result<GcReport> {
        let base = &*self.base;
        // Shards before manifests: a save that is finalized in between is then seen as finalized.
        let mut found = find(base)?;
        let checkpoints = latest::list_names(base)?;
        let references = References::gather(base, &checkpoints)?;

        let now = SystemTime::now();
        let old = |modified: SystemTime| match now.duration_since(modified) {
            Ok(age) => age >= older_than,
            Err(_) => older_than.is_zero(),
        };
        let mut youngest: HashMap<(u64, Timestamp), SystemTime> = HashMap::new();
        for item in &found {
            // An object without a time counts as young.
            let modified = item.garbage.modified.unwrap_or(now);
            if let Some(save) = &item.save {
                let entry = youngest.entry(save.clone()).or_insert(modified);
                *entry = modified.max(*entry);
            }
        }
        found.retain(|item| {
            let modified = match &item.save {
                Some(save) => youngest[save],
                None => item.garbage.modified.unwrap_or(now),
            };
            old(modified) && item.is_garbage(&checkpoints, &references)
        });
        found.sort_by(|a, b| a.garbage.uri.cmp(&b.garbage.uri));
        let mut notes = references.notes;
        if delete {
            notes.extend(remove(base, &mut found)?);
        }
        let garbage = found.into_iter().map(|item| item.garbage).collect();
        Ok(GcReport { garbage, notes })
    }
}

/// An object that may be garbage.
struct Found {
    garbage: Garbage,
    /// The key; none for temporary files.
    key: Option<String>,
    /// The save it belongs to, if its place tells.
    save: Option<(u64, Timestamp)>,
    /// As the store names it, for temporary files.
    orphan: Option<Orphan>,
}

impl Found {
    fn is_garbage(&self, checkpoints: &[CheckpointInfo], references: &References) -> bool {
        let (Some(key), Some((step, ts))) = (&self.key, &self.save) else { return true };
        match self.garbage.kind {
            GarbageKind::Temporary | GarbageKind::Receipt => true,
            GarbageKind::Shard => {
                let finalized = checkpoints
                    .binary_search_by(|info| (info.step, &info.timestamp).cmp(&(*step, ts)))
                    .is_ok();
                !finalized && !references.need(key, *step)
            }
        }
    }
}

/// Removes garbage, but the shards of saves that were finalized since they were found, and what only the
/// medium itself removes in time. Returns what there is to say of the latter.
fn remove(base: &Base, found: &mut [Found]) -> Result<Option<String>> {
    let orphans: Vec<&Orphan> = found.iter().filter_map(|item| item.orphan.as_ref()).collect();
    let orphan_keys: Vec<String> =
        orphans.iter().filter_map(|orphan| base.key_of(&orphan.uri)).map(str::to_owned).collect();
    let outcomes = base.in_parallel(&orphans, |orphan| base.store.delete_orphan(orphan))?;
    let mut lasting = HashSet::new();
    let mut note = None;
    for (orphan, outcome) in orphans.iter().zip(outcomes) {
        match outcome {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                lasting.insert(orphan.uri.clone());
                note.get_or_insert(error);
            }
            outcome => outcome?,
        }
    }
    let note = note.map(|error| format!("{} unfinished uploads stay: {error}", lasting.len()));

    let mut finalized: HashMap<&(u64, Timestamp), bool> = HashMap::new();
    for save in found.iter().filter_map(|item| item.save.as_ref()) {
        if !finalized.contains_key(save) {
            finalized.insert(save, base.store.exists(&base.uri(&manifest_key(save.0, &save.1)))?);
        }
    }
    let spared: Vec<bool> = found
        .iter()
        .map(|item| {
            let finalized = item.save.as_ref().is_some_and(|save| finalized[save]);
            (finalized && item.garbage.kind == GarbageKind::Shard)
                || lasting.contains(&item.garbage.uri)
        })
        .collect();
    for (item, spared) in found.iter_mut().zip(spared) {
        item.garbage.removed = !spared;
    }
    let condemned = found.iter().filter(|item| item.garbage.removed);
    remove_objects(base, condemned.filter_map(|item| item.key.as_deref()))?;
    // A save that was killed in its first shard leaves a folder with nothing but temporary files.
    let emptied = orphan_keys.iter().map(|key| folder_of(key));
    clear_save_folders(base, emptied.collect())?;
    Ok(note)
}

/// All temporary files, shards and receipts of the base. Objects of other names are not ours.
fn find(base: &Base) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for orphan in base.store.orphans(base.base_uri(), Duration::ZERO)? {
        found.push(Found {
            garbage: Garbage {
                kind: GarbageKind::Temporary,
                uri: orphan.uri.clone(),
                size_bytes: orphan.size_bytes,
                modified: orphan.modified,
                removed: false,
            },
            key: None,
            save: save_of_path(&orphan.uri),
            orphan: Some(orphan),
        });
    }
    for folder in [SHARDS, RECEIPTS] {
        for (key, object) in base.list(folder)? {
            let (kind, step, ts) = match Named::parse(&key) {
                Some(Named::Shard { step, ts, .. }) => (GarbageKind::Shard, step, ts),
                Some(Named::Receipt { step, ts, .. }) => (GarbageKind::Receipt, step, ts),
                _ => continue,
            };
            found.push(Found {
                garbage: Garbage {
                    kind,
                    uri: object.uri,
                    size_bytes: object.size_bytes,
                    modified: object.modified,
                    removed: false,
                },
                key: Some(key),
                save: Some((step, ts)),
                orphan: None,
            });
        }
    }
    Ok(found)
}

fn as_rfc3339<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(rfc3339).serialize(serializer)
}
