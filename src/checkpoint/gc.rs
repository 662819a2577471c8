//! Collecting what interrupted saves left behind: temporary files, and shards and receipts that
//! belong to no checkpoint.
//!
//! A save in progress looks like an interrupted one. Two things tell them apart. Age: a save is left
//! alone as long as anything of it, temporary files included, was written less than `older_than` ago;
//! choose it above the longest save. And the newest checkpoint that is complete: what was written since
//! its manifest may be of the save that follows it, and is shown but never removed. (In a base without
//! any checkpoint age alone decides. Where there are some and none is complete, nothing is removed.)
//!
//! What a readable manifest names is never garbage, whatever its age; where a manifest cannot be read,
//! see `references.rs`. Symbolic links to directories are not walked through. On a disk, a save that was killed
//! before its first file leaves an empty folder, which is no object and stays.

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
    /// A shard that no manifest names.
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
    /// Whether it may be of a running save: not older than the newest complete checkpoint. It stays.
    pub recent: bool,
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
    /// it if `delete`, but what was written since the newest complete checkpoint, or at a time that
    /// the medium does not tell. In a base without any checkpoint `older_than` alone decides.
    ///
    /// # Errors
    /// `Corrupt` if something to be removed lies behind a symbolic link out of the base; what the
    /// medium reports. What was removed before is gone.
    pub fn gc(&self, older_than: Duration, delete: bool) -> Result<GcReport> {
        let base = &*self.base;
        // Shards before manifests: a save that is finalized in between is then seen as finalized.
        let mut found = find(base)?;
        let checkpoints = latest::list_names(base)?;
        let references = References::gather(base, &checkpoints)?;

        let now = SystemTime::now();
        let old = |modified: Option<SystemTime>| {
            // An object without a time counts as young, and one of a whole second as young as it may be.
            let latest = modified.map(latest_moment);
            let age = latest.map_or(Ok(Duration::ZERO), |latest| now.duration_since(latest));
            age.map_or(older_than.is_zero(), |age| age >= older_than)
        };
        for item in &mut found {
            item.finalized = item.save.as_ref().is_some_and(|(step, ts)| {
                let name = |info: &CheckpointInfo| (info.step, &info.timestamp).cmp(&(*step, ts));
                checkpoints.binary_search_by(name).is_ok()
            });
        }
        let youngest = last_writes(&found);
        let written = |item: &Found| match &item.save {
            Some(save) => youngest[save],
            None => item.garbage.modified,
        };
        found.retain(|item| old(written(item)) && item.is_garbage(&references));
        found.sort_by(|a, b| a.garbage.uri.cmp(&b.garbage.uri));
        let mut notes = references.notes;
        if !checkpoints.is_empty() && found.iter().any(|item| !item.finalized) {
            let newest = self.newest_complete(&checkpoints)?;
            for item in &mut found {
                item.garbage.recent = !item.finalized && !newest.is_after(written(item));
            }
            notes.extend(newest.note(found.iter().filter(|item| item.garbage.recent).count()));
        }
        if delete {
            notes.extend(remove(base, &mut found)?);
        }
        let garbage = found.into_iter().map(|item| item.garbage).collect();
        Ok(GcReport { garbage, notes })
    }

    /// The newest checkpoint whose shards are all there in the stated sizes.
    fn newest_complete(&self, checkpoints: &[CheckpointInfo]) -> Result<Newest> {
        for info in checkpoints.iter().rev() {
            if self.why_incomplete(info)?.is_none() {
                // From a listing, as the times that are compared with it.
                let listed = self.base.list(&info.manifest_key)?;
                let object = listed.into_iter().find(|(key, _)| *key == info.manifest_key);
                let written = object.and_then(|(_, object)| object.modified);
                return Ok(Newest { info: Some(info.clone()), written: written.map(whole_second) });
            }
        }
        Ok(Newest { info: None, written: None })
    }
}

/// The newest complete checkpoint, and when its manifest was written, where the medium tells.
struct Newest {
    info: Option<CheckpointInfo>,
    written: Option<SystemTime>,
}

impl Newest {
    /// Whether it is surely younger than what was written at this time.
    fn is_after(&self, written: Option<SystemTime>) -> bool {
        matches!((written, self.written), (Some(item), Some(newest)) if item < newest)
    }

    /// What there is to say of so many objects that stay for its sake.
    fn note(&self, recent: usize) -> Option<String> {
        let why = match &self.info {
            Some(info) => format!("not older than the newest complete checkpoint, {info}"),
            None => "no checkpoint is complete".to_owned(),
        };
        (recent > 0).then(|| format!("{recent} objects may be of a running save and stay: {why}"))
    }
}

/// Media tell times in different precisions, the same medium in listings and elsewhere. Cut to the
/// coarsest, a time is never later than another that came before it.
fn whole_second(time: SystemTime) -> SystemTime {
    let nanos = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    time - Duration::from_nanos(nanos.into())
}

/// When it was that a medium may have cut to this time: S3 and Azure tell whole seconds.
fn latest_moment(told: SystemTime) -> SystemTime {
    if told == whole_second(told) {
        told.checked_add(Duration::from_secs(1)).unwrap_or(told)
    } else {
        told
    }
}

/// When anything of a save was last written to; `None` where that of one object is not known.
fn last_writes(found: &[Found]) -> HashMap<(u64, Timestamp), Option<SystemTime>> {
    let mut youngest = HashMap::new();
    for item in found {
        if let Some(save) = &item.save {
            let modified = item.garbage.modified;
            let entry = youngest.entry(save.clone()).or_insert(modified);
            *entry = modified.zip(*entry).map(|(modified, entry)| modified.max(entry));
        }
    }
    youngest
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
    /// Whether the save had a manifest when manifests were read.
    finalized: bool,
}

impl Found {
    fn is_garbage(&self, references: &References) -> bool {
        match (&self.key, &self.save, self.garbage.kind) {
            (Some(key), Some(save), GarbageKind::Shard) => {
                !references.need(key, save.0) && !references.lost(save)
            }
            _ => true,
        }
    }
}

/// Removes garbage, but what is recent, the shards of saves that were finalized since they were found,
/// and what only the medium itself removes in time. Returns what there is to say of the latter.
fn remove(base: &Base, found: &mut [Found]) -> Result<Option<String>> {
    let old = || found.iter().filter(|item| !item.garbage.recent);
    base.check_within(old().filter_map(|item| item.key.as_deref()))?;
    let orphans: Vec<&Orphan> = old().filter_map(|item| item.orphan.as_ref()).collect();
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
            (finalized && !item.finalized && item.garbage.kind == GarbageKind::Shard)
                || item.garbage.recent
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
                recent: false,
            },
            key: None,
            save: save_of_path(&orphan.uri),
            orphan: Some(orphan),
            finalized: false,
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
                    recent: false,
                },
                key: Some(key),
                save: Some((step, ts)),
                orphan: None,
                finalized: false,
            });
        }
    }
    Ok(found)
}

fn as_rfc3339<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(rfc3339).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_a_whole_second_may_be_up_to_one_later() {
        let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        assert_eq!(latest_moment(whole), whole + Duration::from_secs(1));
        let exact = whole + Duration::from_nanos(1);
        assert_eq!(latest_moment(exact), exact);
        // Some filesystems keep it.
        let last = SystemTime::UNIX_EPOCH + Duration::from_secs(i64::MAX.unsigned_abs());
        assert_eq!(latest_moment(last), last);
    }
}
