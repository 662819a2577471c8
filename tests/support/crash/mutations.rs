//! Recordings in which a step of a save is left out or comes too early: the matrix must find that.

use super::model::{Disk, Operation};

type Mutation = fn(&Disk) -> Disk;

/// Each mutation by its name.
pub const MUTATIONS: [(&str, Mutation); 4] = [
    ("no file is synced", |disk| without_syncs(disk, false)),
    ("no directory is synced", |disk| without_syncs(disk, true)),
    ("the manifest is named before the shards are", manifest_first),
    ("success is told when the manifest is named", told_early),
];

fn without_syncs(disk: &Disk, of_folders: bool) -> Disk {
    disk.with_log(|mut log| {
        log.retain(|operation| match operation {
            Operation::SyncEnds { inode, .. } => disk.live().is_folder(*inode) != of_folders,
            _ => true,
        });
        log
    })
}

fn is_manifest_named(operation: &Operation) -> bool {
    matches!(operation, Operation::Rename { to, .. } if to.starts_with("ckpt-"))
}

/// All that is done to the manifest and its directory comes before the first shard gets its name.
fn manifest_first(disk: &Disk) -> Disk {
    disk.with_log(|log| {
        let is_rename = |operation: &Operation| matches!(operation, Operation::Rename { .. });
        let first = log.iter().position(is_rename).unwrap();
        let named = log.iter().position(is_manifest_named).unwrap();
        let Operation::Rename { folder, inode: manifest, .. } = log[named] else { unreachable!() };
        let later = log[first..].iter().cloned();
        let (early, late): (Vec<_>, Vec<_>) = later.partition(|operation| match operation {
            Operation::Name { inode, .. }
            | Operation::Write { inode, .. }
            | Operation::Resize { inode, .. }
            | Operation::SyncBegins { inode, .. }
            | Operation::SyncEnds { inode, .. }
            | Operation::Rename { inode, .. } => *inode == manifest || *inode == folder,
            _ => false,
        });
        log[..first].iter().cloned().chain(early).chain(late).collect()
    })
}

/// Success is told right after the manifest gets its name.
fn told_early(disk: &Disk) -> Disk {
    disk.with_log(|mut log| {
        let is_told = |operation: &Operation| matches!(operation, Operation::Expect { .. });
        let told = log.iter().rposition(is_told).unwrap();
        let told = log.remove(told);
        let named = log.iter().position(is_manifest_named).unwrap();
        log.insert(named + 1, told);
        log
    })
}
