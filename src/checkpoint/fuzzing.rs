//! What must hold of the documents and keys of a checkpoint, whatever they say; see `crate::fuzzing`.

use std::collections::HashSet;
use std::path::{Component, Path};

use super::latest::{from_json, to_json};
use super::layout::{KeyLayout, LATEST_KEY, Named, check_shard_key, manifest_key, save_of_path};
use super::manifest::Manifest;
use super::receipt::{Receipt, is_shard_of};
use super::seal;
use super::shard::ShardMeta;
use super::{CheckpointInfo, Strategy};

/// Manifests, as they are and with a seal that fits: a changed one would be refused for its seal alone.
pub fn manifest(data: &[u8]) {
    for text in [data.to_vec(), resealed(data, "manifest_checksum")] {
        let Ok(manifest) = Manifest::from_json(&text) else { continue };
        let mut keys = HashSet::new();
        for (shard, rank) in manifest.shards.iter().zip(0..) {
            assert_eq!(shard.rank, rank);
            assert_eq!(manifest.shard(rank).ok(), Some(shard));
            assert!(keys.insert(&shard.key), "{:?} is there twice", shard.key);
            check_entry(shard);
        }
        assert_eq!(manifest.world_size as usize, manifest.shards.len());
        assert!(manifest.shard(manifest.world_size).is_err());
        assert!(manifest.stored_bytes() >= manifest.shards[0].size);
        assert!(manifest.timestamp().is_none());
        let printed = manifest.to_json();
        let again = Manifest::from_json(&printed).expect("what was accepted can be stored");
        assert_eq!(again, manifest);
        assert_eq!(again.to_json(), printed);
    }
}

/// Receipts of one rank of one save, the same way.
pub fn receipt(data: &[u8]) {
    let of = |step, ts: &str| {
        KeyLayout::new(step, ts.parse().expect("a plain name"), Strategy::default())
    };
    let (layout, world_size, rank) = (of(5, "20261122-090127-001"), 4, 2);
    for text in [data.to_vec(), resealed(data, "receipt_checksum")] {
        let Ok(receipt) = Receipt::from_json(&text, &layout, world_size, rank) else { continue };
        check_entry(&receipt.shard);
        assert_eq!(receipt.shard.rank, rank);
        assert!(is_shard_of(&receipt.shard, layout.step(), layout.timestamp()));
        let printed = receipt.to_json();
        let again = Receipt::from_json(&printed, &layout, world_size, rank);
        assert_eq!(again.ok(), Some(receipt));
        for (layout, world_size, rank) in [
            (of(6, layout.timestamp().as_str()), world_size, rank),
            (of(5, "20261122-090127-002"), world_size, rank),
            (layout.clone(), world_size + 1, rank),
            (layout.clone(), world_size, rank - 1),
        ] {
            assert!(Receipt::from_json(&text, &layout, world_size, rank).is_err());
        }
    }
}

/// `latest.json`.
pub fn latest(data: &[u8]) {
    let Ok(info) = from_json(data) else { return };
    assert_eq!(info, CheckpointInfo::new(info.step, info.timestamp.clone()));
    assert_inside(&info.manifest_key);
    assert_eq!(from_json(&to_json(&info)).ok(), Some(info));
}

/// Keys, as listings and documents have them.
pub fn keys(data: &[u8]) {
    let Ok(key) = str::from_utf8(data) else { return };
    let usable = check_shard_key(key).is_ok();
    if usable {
        assert_inside(key);
    }
    save_of_path(key);
    match Named::parse(key) {
        Some(Named::Manifest { step, ts }) => {
            assert_eq!(manifest_key(step, &ts), key);
            assert!(!usable, "{key:?} is a manifest's");
        }
        Some(Named::Receipt { step, ts, rank }) => {
            let layout = KeyLayout::new(step, ts, Strategy::default());
            assert_eq!(layout.receipt_key(rank), key);
            assert!(!usable, "{key:?} is a receipt's");
        }
        Some(Named::Shard { step, ts, rank }) => {
            let name = format!("/ckpt-{step}-{ts}/rank-{rank}.bin");
            assert!(key.contains(&name), "{key:?} was read as {name}");
        }
        None => {}
    }
}

/// The text up to its seal, or all of it where it has none, with a seal that fits.
fn resealed(data: &[u8], name: &str) -> Vec<u8> {
    let label = format!("\"{name}\": ");
    let at = data.windows(label.len()).rposition(|window| window == label.as_bytes());
    let mut text = data[..at.unwrap_or(data.len())].to_vec();
    seal::close(&mut text, name);
    text
}

/// What must hold of the entry of a shard that was accepted.
fn check_entry(shard: &ShardMeta) {
    assert_inside(&shard.key);
    let Ok(Some(blocks)) = shard.block_checksums() else { return };
    assert_eq!(blocks.size_bytes(), shard.raw_bytes());
    let lengths = (0..blocks.crc32c().len()).map(|index| blocks.bytes_of(index));
    assert_eq!(lengths.sum::<u64>(), shard.raw_bytes());
    if let Some(stated) = &shard.checksum {
        assert_eq!(*stated, blocks.combined().to_string());
    }
}

/// Whether a key can name an object of the base alone, and can be shown.
fn assert_inside(key: &str) {
    let path = Path::new(key);
    assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{key:?}");
    assert_eq!(path.components().count(), key.split('/').count(), "{key:?}");
    assert!(!key.is_empty() && key != LATEST_KEY && !key.contains(char::is_control), "{key:?}");
}
