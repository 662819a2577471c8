//! Verifying: read everything, tell what is damaged and where.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

use crate::encode::BlockChecksums;
use crate::error::{ErrorKind, Result};
use crate::time::Timestamp;

use super::base::Base;
use super::catalog::CheckpointInfo;
use super::frames;
use super::layout::{KeyLayout, folder_of, join_some};
use super::manifest::Manifest;
use super::proof::Proof;
use super::shard::ShardMeta;
use super::{CheckpointStore, Strategy, restore};

/// A range of bytes of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct ByteRange {
    /// First byte.
    pub offset_bytes: u64,
    /// Number of bytes.
    pub length_bytes: u64,
    /// The checksum blocks these bytes are; `None` where the manifest has none.
    pub blocks: Option<BlockRange>,
}

/// Neighbouring blocks of a shard, counted from 0: those of the manifest's `part_checksums`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct BlockRange {
    /// The first.
    pub first: u64,
    /// The last, which may be the first.
    pub last: u64,
}

impl ByteRange {
    pub(super) fn of(range: Range<u64>) -> ByteRange {
        let length_bytes = range.end - range.start;
        ByteRange { offset_bytes: range.start, length_bytes, blocks: None }
    }

    pub(super) fn of_block(blocks: &BlockChecksums, index: usize) -> ByteRange {
        let from = index as u64 * blocks.block_bytes();
        ByteRange::of(from..from + blocks.bytes_of(index))
    }

    /// The same, with the blocks it lies in.
    pub(super) fn in_blocks(mut self, blocks: &BlockChecksums) -> ByteRange {
        let last_byte = self.offset_bytes + self.length_bytes.max(1) - 1;
        let (first, last) =
            (self.offset_bytes / blocks.block_bytes(), last_byte / blocks.block_bytes());
        self.blocks = Some(BlockRange { first, last });
        self
    }
}

/// What became of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ShardState {
    /// Every byte is as written.
    Ok,
    /// There and of the right size, but the manifest has no checksum for it.
    NoChecksum,
    /// Bytes differ.
    Damaged {
        /// Whole blocks, neighbours joined; all of the shard where the manifest has no block
        /// checksums. Of a compressed shard these are raw bytes: those of frames that do not
        /// decompress, and blocks that differ although they do.
        ranges: Vec<ByteRange>,
        /// Of a compressed shard: where the object itself is damaged, as closely as can be told.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        stored_ranges: Vec<ByteRange>,
    },
    /// Not there.
    Missing,
    /// Its key leads out of the base by a symbolic link, and was not followed.
    Foreign {
        /// The link.
        link: String,
    },
    /// Another object than the one that was saved, by what the server keeps of it.
    Changed {
        /// What differs.
        why: String,
    },
    /// The server keeps the checksum that the manifest states. Nothing was read
    /// ([`verify_quick`](CheckpointStore::verify_quick)).
    SameChecksum,
    /// The server keeps no checksum to compare, but the entity tag of the save: nobody replaced the
    /// object. Nothing was read.
    SameTag,
    /// Of the right size, and the medium keeps nothing else to compare. Not verified.
    SizeOnly,
    /// Of another size than the manifest says.
    WrongSize {
        /// Bytes found.
        found_bytes: u64,
    },
    /// In a form that this version cannot read, which says nothing about its bytes.
    Unsupported {
        /// Which form.
        why: String,
    },
    /// The medium failed to read it, or the manifest's entry contradicts itself.
    Unreadable {
        /// The error.
        why: String,
    },
}

impl ShardState {
    /// Damaged in these ranges; good if there are none.
    pub(super) fn of_damage(ranges: Vec<ByteRange>, stored_ranges: Vec<ByteRange>) -> ShardState {
        match ranges.is_empty() && stored_ranges.is_empty() {
            true => ShardState::Ok,
            false => ShardState::Damaged { ranges, stored_ranges },
        }
    }

    /// Whether a restore of the shard succeeds: by its bytes, or by the word of the server that keeps
    /// them.
    pub fn is_good(&self) -> bool {
        use ShardState::{NoChecksum, Ok, SameChecksum, SameTag};
        matches!(self, Ok | NoChecksum | SameChecksum | SameTag)
    }

    /// Whether nothing can be said: the shard could not be read, or not by this version.
    pub fn is_unknown(&self) -> bool {
        matches!(self, ShardState::Unreadable { .. } | ShardState::Unsupported { .. })
    }

    fn verdict(&self) -> Verdict {
        match self {
            state if state.is_good() => Verdict::Good,
            ShardState::SizeOnly => Verdict::Unverified,
            state if state.is_unknown() => Verdict::Unknown,
            _ => Verdict::Damaged,
        }
    }
}

/// One shard of a [`VerifyReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ShardReport {
    /// The rank.
    pub rank: u32,
    /// The shard's key, relative to the base.
    pub key: String,
    /// Bytes of the stored object, by the manifest.
    pub size_bytes: u64,
    /// What became of it.
    #[serde(flatten)]
    pub state: ShardState,
}

/// What a [`VerifyReport`] comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The checkpoint restores: its manifest reads, and so does every shard.
    Good,
    /// All is there in the right size, and that is all that was looked at.
    Unverified,
    /// Nothing was found damaged, but not all could be read: no permission, a failing disk, a format of
    /// a later version. Neither a reason to trust the checkpoint nor one to remove it.
    Unknown,
    /// Data is damaged, missing or of the wrong size.
    Damaged,
}

/// What verifying one checkpoint found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The step.
    pub step: u64,
    /// The timestamp.
    pub timestamp: Timestamp,
    /// The manifest's key, relative to the base.
    pub manifest_key: String,
    /// Why the manifest cannot be used; no shard was looked at then.
    pub manifest_error: Option<String>,
    /// What it comes to.
    pub verdict: Verdict,
    /// Every shard, in the order of the ranks.
    pub shards: Vec<ShardReport>,
    /// Bytes read and compared.
    pub read_bytes: u64,
    /// What was found beside the checkpoint, for people. No damage.
    pub notes: Vec<String>,
}

impl VerifyReport {
    /// Whether the verdict is that the checkpoint restores.
    pub fn is_good(&self) -> bool {
        self.verdict == Verdict::Good
    }
}

impl CheckpointStore {
    /// Reads all shards of one checkpoint, in parallel, and compares every byte with the manifest.
    /// Memory stays within the store's part buffers. `progress` is called from several threads with
    /// the bytes done since its last call; in the end they are those of all shards, readable or not.
    ///
    /// # Errors
    /// `NotFound` if the checkpoint has no manifest. Damage is a report, not an error; the errors
    /// are what the medium reports of anything but a shard.
    pub fn verify(
        &self,
        checkpoint: &CheckpointInfo,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<VerifyReport> {
        self.report_of(checkpoint, |manifest, foreign| {
            self.base.in_parallel(&manifest.shards, |shard| {
                let mut told = 0;
                let outcome = match foreign.get(shard.key.as_str()) {
                    Some(link) => (ShardState::Foreign { link: link.clone() }, 0),
                    None => verify_shard(&self.base, shard, &mut |bytes| {
                        told += bytes;
                        progress(bytes);
                    }),
                };
                progress(shard.size.saturating_sub(told));
                outcome
            })
        })
    }

    /// Reads the manifest, has `look` find the state of each shard and the bytes read for it, and adds
    /// it all up. `look` is also told which keys lead out of the base, and by which link.
    pub(super) fn report_of(
        &self,
        checkpoint: &CheckpointInfo,
        look: impl FnOnce(&Manifest, &HashMap<&str, String>) -> Result<Vec<(ShardState, u64)>>,
    ) -> Result<VerifyReport> {
        let mut report = VerifyReport {
            step: checkpoint.step,
            timestamp: checkpoint.timestamp.clone(),
            manifest_key: checkpoint.manifest_key.clone(),
            manifest_error: None,
            verdict: Verdict::Good,
            shards: Vec::new(),
            read_bytes: 0,
            notes: Vec::new(),
        };
        let manifest = match restore::load(&self.base, checkpoint) {
            Ok(manifest) => manifest,
            Err(error) => {
                use ErrorKind::{Corrupt, Incomplete, Unsupported};
                if !matches!(error.kind(), Corrupt | Incomplete | Unsupported) {
                    return Err(error);
                }
                report.manifest_error = Some(error.to_string());
                let later = error.kind() == Unsupported;
                report.verdict = if later { Verdict::Unknown } else { Verdict::Damaged };
                return Ok(report);
            }
        };
        let foreign = foreign_keys(&self.base, &manifest)?;
        let states = look(&manifest, &foreign)?;
        for (shard, (state, read_bytes)) in manifest.shards.iter().zip(states) {
            let (rank, key, size_bytes) = (shard.rank, shard.key.clone(), shard.size);
            report.verdict = report.verdict.max(state.verdict());
            report.shards.push(ShardReport { rank, key, size_bytes, state });
            report.read_bytes += read_bytes;
        }
        report.notes = strangers(&self.base, checkpoint, &manifest, &foreign)?;
        Ok(report)
    }

    /// What interrupted saves left in the base, for people. No damage; [`gc`](CheckpointStore::gc)
    /// collects it.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        let report = self.gc(Duration::ZERO, false)?;
        let garbage = report.garbage.iter().map(|item| {
            let kind = match item.kind {
                super::GarbageKind::Temporary => "temporary file",
                super::GarbageKind::Shard => "shard without a manifest",
                super::GarbageKind::Receipt => "receipt of no further use",
            };
            format!("{kind}: {} ({} bytes)", item.uri, item.size_bytes)
        });
        Ok(garbage.chain(report.notes.iter().cloned()).collect())
    }
}

/// The keys that lead out of the base, each with its link. One question where there is none.
fn foreign_keys<'a>(base: &Base, manifest: &'a Manifest) -> Result<HashMap<&'a str, String>> {
    let mut foreign = HashMap::new();
    let keys = || manifest.shards.iter().map(|shard| shard.key.as_str());
    if base.link_leaving(keys())?.is_some() {
        for key in keys() {
            foreign.extend(base.link_leaving([key])?.map(|link| (key, link)));
        }
    }
    Ok(foreign)
}

/// What became of one shard, and the bytes read to know it.
fn verify_shard(
    base: &Base,
    shard: &ShardMeta,
    progress: &mut dyn FnMut(u64),
) -> (ShardState, u64) {
    verify_bytes(base, shard, progress).unwrap_or_else(|error| {
        let why = error.to_string();
        let state = match error.kind() {
            // What stands under the name may be a pipe or a folder: then there is no shard.
            ErrorKind::NotFound | ErrorKind::Incomplete | ErrorKind::InvalidInput => {
                ShardState::Missing
            }
            ErrorKind::Unsupported => ShardState::Unsupported { why },
            _ => ShardState::Unreadable { why },
        };
        (state, 0)
    })
}

pub(super) fn verify_bytes(
    base: &Base,
    shard: &ShardMeta,
    progress: &mut dyn FnMut(u64),
) -> Result<(ShardState, u64)> {
    let found_bytes = base.stat_shard(shard.rank, &shard.key)?.size_bytes;
    if found_bytes != shard.size {
        return Ok((ShardState::WrongSize { found_bytes }, 0));
    }
    if let Some(form) = shard.form()? {
        return Ok((frames::verify(base, shard, form, progress)?, shard.size));
    }
    match Proof::of(shard)? {
        Proof::Absent => Ok((ShardState::NoChecksum, 0)),
        Proof::Blocks(expected) => {
            let (uri, block_bytes) = (base.uri(&shard.key), expected.block_bytes());
            let actual = base.store.block_checksums_with(&uri, block_bytes, progress)?;
            if actual.size_bytes() != expected.size_bytes() {
                return Ok((ShardState::WrongSize { found_bytes: actual.size_bytes() }, 0));
            }
            let ranges = differing_ranges(&expected, &actual);
            Ok((ShardState::of_damage(ranges, Vec::new()), shard.size))
        }
        Proof::Whole(whole) => match whole.check_object(base, shard) {
            Ok(()) => Ok((ShardState::Ok, shard.size)),
            Err(error) if error.kind() == ErrorKind::ChecksumMismatch => {
                let all = ByteRange::of(0..shard.size);
                Ok((ShardState::of_damage(vec![all], Vec::new()), shard.size))
            }
            Err(error) => Err(error),
        },
    }
}

/// The blocks that differ, neighbours joined.
fn differing_ranges(expected: &BlockChecksums, actual: &BlockChecksums) -> Vec<ByteRange> {
    let pairs = expected.crc32c().iter().zip(actual.crc32c());
    let differing = pairs.enumerate().filter(|(_, (expected, actual))| expected != actual);
    let ranges = joined(differing.map(|(index, _)| ByteRange::of_block(expected, index)));
    ranges.into_iter().map(|range| range.in_blocks(expected)).collect()
}

/// Neighbours and what overlaps joined; `ranges` is in the order of offsets.
pub(super) fn joined(ranges: impl Iterator<Item = ByteRange>) -> Vec<ByteRange> {
    let mut found: Vec<ByteRange> = Vec::new();
    for next in ranges.filter(|range| range.length_bytes > 0) {
        match found.last_mut() {
            Some(last) if last.offset_bytes + last.length_bytes >= next.offset_bytes => {
                let end = next.offset_bytes + next.length_bytes;
                last.length_bytes = last.length_bytes.max(end - last.offset_bytes);
            }
            _ => found.push(next),
        }
    }
    found
}

/// Objects in the checkpoint's folders that are not of it.
fn strangers(
    base: &Base,
    checkpoint: &CheckpointInfo,
    manifest: &Manifest,
    foreign: &HashMap<&str, String>,
) -> Result<Vec<String>> {
    let own: HashSet<&str> = manifest.shards.iter().map(|shard| shard.key.as_str()).collect();
    let folders: BTreeSet<&str> = manifest
        .shards
        .iter()
        .map(|shard| shard.key.as_str())
        .filter(|key| !foreign.contains_key(key))
        .map(folder_of)
        .filter(|folder| !folder.is_empty())
        .collect();
    let folders: Vec<&str> = folders.into_iter().collect();
    let mut others = Vec::new();
    for listing in base.in_parallel(&folders, |folder| base.list_named(folder))? {
        others.extend(
            listing?.into_iter().map(|(key, _)| key).filter(|key| !own.contains(key.as_str())),
        );
    }
    let layout = KeyLayout::new(checkpoint.step, checkpoint.timestamp.clone(), Strategy::Flat);
    let receipts = base.list(&layout.receipts_folder())?;
    let mut notes = Vec::new();
    if !others.is_empty() {
        let count = others.len();
        notes.push(format!(
            "{count} objects not of this checkpoint: {}",
            join_some(others.into_iter())
        ));
    }
    if !receipts.is_empty() {
        notes.push(format!("{} receipts of no further use; gc removes them", receipts.len()));
    }
    Ok(notes)
}
