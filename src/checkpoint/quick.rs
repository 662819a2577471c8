//! Verifying without reading: sizes, entity tags, and the checksums that servers keep.
//!
//! It costs a request for each thousand shards, to list them, and on servers one for each shard, since
//! no listing tells checksums. It finds what was replaced, cut or removed, and not what decayed where
//! it lies.

use std::collections::{BTreeSet, HashMap};

use crate::backend::ObjectMeta;
use crate::encode::{Algorithm, Checksum};
use crate::error::{ErrorKind, Result};

use super::CheckpointStore;
use super::base::Base;
use super::catalog::CheckpointInfo;
use super::layout::folder_of;
use super::proof::Proof;
use super::shard::ShardMeta;
use super::verify::{ShardState, VerifyReport};

impl CheckpointStore {
    /// As [`verify`](CheckpointStore::verify), but compares what the medium keeps beside the shards and
    /// reads none of them: sizes, entity tags, and the checksums of servers that keep some. Where there
    /// is nothing but the size, as on a local disk, the state is [`ShardState::SizeOnly`] and the
    /// verdict at best [`Verdict::Unverified`](super::Verdict::Unverified).
    ///
    /// # Errors
    /// As [`verify`](CheckpointStore::verify).
    pub fn verify_quick(&self, checkpoint: &CheckpointInfo) -> Result<VerifyReport> {
        let base = &*self.base;
        self.report_of(checkpoint, |manifest, foreign| {
            let own: Vec<&ShardMeta> = manifest
                .shards
                .iter()
                .filter(|shard| !foreign.contains_key(shard.key.as_str()))
                .collect();
            let found = objects_of(base, &own)?;
            base.in_parallel(&manifest.shards, |shard| {
                let state = match foreign.get(shard.key.as_str()) {
                    Some(link) => ShardState::Foreign { link: link.clone() },
                    None => look(base, shard, found.get(&shard.key)),
                };
                (state, 0)
            })
        })
    }
}

/// What is in the folders of these shards, by key.
pub(super) fn objects_of(
    base: &Base,
    shards: &[&ShardMeta],
) -> Result<HashMap<String, ObjectMeta>> {
    let folders: BTreeSet<&str> = shards.iter().map(|shard| folder_of(&shard.key)).collect();
    let folders: Vec<&str> = folders.into_iter().collect();
    let listings = base.in_parallel(&folders, |folder| base.list_named(folder))?;
    let mut found = HashMap::with_capacity(shards.len());
    for listing in listings {
        found.extend(listing?);
    }
    Ok(found)
}

fn look(base: &Base, shard: &ShardMeta, listed: Option<&ObjectMeta>) -> ShardState {
    let Some(listed) = listed else { return ShardState::Missing };
    if let Some(state) = differs(shard, listed) {
        return state;
    }
    // What a restore would refuse is not vouched for.
    if let Err(error) = Proof::of(shard) {
        let why = error.to_string();
        return match error.kind() {
            ErrorKind::Unsupported => ShardState::Unsupported { why },
            _ => ShardState::Unreadable { why },
        };
    }
    // A server names every version of an object, and may keep a checksum; other media do neither.
    if listed.etag.is_none() {
        return ShardState::SizeOnly;
    }
    match base.stat_shard(shard.rank, &shard.key) {
        Ok(object) => differs(shard, &object).unwrap_or_else(|| compare(shard, &object)),
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::Incomplete => ShardState::Missing,
            _ => ShardState::Unreadable { why: error.to_string() },
        },
    }
}

/// Whether an object is surely not the one that was saved.
pub(super) fn differs(shard: &ShardMeta, object: &ObjectMeta) -> Option<ShardState> {
    if object.size_bytes != shard.size {
        return Some(ShardState::WrongSize { found_bytes: object.size_bytes });
    }
    match (&object.etag, &shard.etag) {
        (Some(now), Some(then)) if now != then => {
            Some(ShardState::Changed { why: format!("etag {now} instead of {then}") })
        }
        _ => None,
    }
}

/// Compares what the server keeps of an object of the right size and not of another tag.
fn compare(shard: &ShardMeta, object: &ObjectMeta) -> ShardState {
    let kept: Option<Checksum> = object.checksum.as_ref().and_then(|text| text.parse().ok());
    let stated = stated_checksum(shard);
    if let (Some(kept), Some(stated)) = (kept, stated)
        && kept.algorithm() == stated.algorithm()
    {
        if kept == stated {
            return ShardState::SameChecksum;
        }
        // Old ancestors computed another polynomial than the label says: only reading tells.
        if shard.has_our_fields() || stated.algorithm() != Algorithm::Crc32c {
            let why = format!("the server keeps checksum {kept} instead of {stated}");
            return ShardState::Changed { why };
        }
    }
    match (&object.etag, &shard.etag) {
        (Some(now), Some(then)) if now == then => ShardState::SameTag,
        _ => ShardState::SizeOnly,
    }
}

/// What the manifest says of the bytes as they are stored.
fn stated_checksum(shard: &ShardMeta) -> Option<Checksum> {
    let stored = shard.stored_checksum.as_ref();
    let raw = shard.checksum.as_ref().filter(|_| matches!(shard.form(), Ok(None)));
    stored.or(raw)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(size_bytes: u64, etag: Option<&str>, checksum: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            uri: "s3://b/k".to_owned(),
            size_bytes,
            modified: None,
            etag: etag.map(str::to_owned),
            checksum: checksum.map(str::to_owned),
            write: None,
        }
    }

    fn shard(etag: Option<&str>, checksum: Option<&str>, ours: bool) -> ShardMeta {
        let mut text =
            json!({"rank": 0, "key": "k", "size": 9, "etag": etag, "checksum": checksum});
        if ours {
            text["raw_size"] = json!(9);
        }
        serde_json::from_value(text).unwrap()
    }

    fn state(shard: &ShardMeta, object: &ObjectMeta) -> ShardState {
        differs(shard, object).unwrap_or_else(|| compare(shard, object))
    }

    const SUM: &str = "crc32c:e3069283";
    const OTHER: &str = "crc32c:e3069284";

    #[test]
    fn what_is_kept_decides_and_its_absence_is_told() {
        let ours = shard(Some("t"), Some(SUM), true);
        for (etag, checksum, expected) in [
            (Some("t"), Some(SUM), ShardState::SameChecksum),
            (None, Some(SUM), ShardState::SameChecksum),
            (Some("t"), None, ShardState::SameTag),
            (Some("t"), Some("crc64nvme:ae8b14860a799888"), ShardState::SameTag),
            (Some("t"), Some("not a checksum"), ShardState::SameTag),
            (None, None, ShardState::SizeOnly),
        ] {
            assert_eq!(state(&ours, &object(9, etag, checksum)), expected);
        }
        for changed in [object(9, Some("u"), Some(SUM)), object(9, Some("t"), Some(OTHER))] {
            assert!(matches!(state(&ours, &changed), ShardState::Changed { .. }), "{changed:?}");
        }
        let wrong = ShardState::WrongSize { found_bytes: 8 };
        assert_eq!(state(&ours, &object(8, Some("t"), Some(SUM))), wrong);
        let nothing = shard(None, None, true);
        assert_eq!(state(&nothing, &object(9, Some("t"), Some(SUM))), ShardState::SizeOnly);
    }

    /// The ancestor may have written IEEE CRC-32 under the label `crc32c:`.
    #[test]
    fn an_ancestors_checksum_accuses_nobody() {
        let theirs = shard(Some("t"), Some(SUM), false);
        assert_eq!(state(&theirs, &object(9, Some("t"), Some(SUM))), ShardState::SameChecksum);
        assert_eq!(state(&theirs, &object(9, Some("t"), Some(OTHER))), ShardState::SameTag);
    }

    #[test]
    fn a_compressed_shard_is_compared_as_it_is_stored() {
        let mut compressed = shard(None, Some(OTHER), true);
        compressed.compression = Some("zstd".to_owned());
        assert_eq!(state(&compressed, &object(9, None, Some(SUM))), ShardState::SizeOnly);
        compressed.stored_checksum = Some(SUM.to_owned());
        assert_eq!(state(&compressed, &object(9, None, Some(SUM))), ShardState::SameChecksum);
    }
}
