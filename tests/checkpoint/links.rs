//! Symbolic links inside a local base: those that lead out of it are neither read nor removed through.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use syncline::checkpoint::{CheckpointStore, PruneOptions, ShardState, Verdict};
use syncline::{ErrorKind, Result};

use crate::support::{Fixture, Medium, config, fixture};

/// What is moved out of the base, so that a link leads to it: relative to the base.
const PLACES: [&str; 3] = ["shards", "shards/ckpt-1-x", "shards/ckpt-1-x/rank-1.bin"];

/// A base with the checkpoints 1 to 3, and the place outside where one place of it was moved to.
fn linked(medium: Medium, place: &str) -> (Fixture, PathBuf, tempfile::TempDir) {
    let f = fixture(medium);
    for step in 1..=3 {
        f.save_at(step, "x", &[b"zero", b"one"]);
    }
    let (inside, scratch) = (f.directory().unwrap().join(place), tempfile::tempdir().unwrap());
    let outside = scratch.path().join("moved");
    move_all(&inside, &outside);
    symlink(&outside, &inside).unwrap();
    (f, outside, scratch)
}

/// As `rename`, also from one filesystem to another.
fn move_all(from: &std::path::Path, to: &std::path::Path) {
    if from.is_dir() {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            move_all(&entry.path(), &to.join(entry.file_name()));
        }
        fs::remove_dir(from).unwrap();
    } else {
        fs::copy(from, to).unwrap();
        fs::remove_file(from).unwrap();
    }
}

fn files_below(path: &std::path::Path) -> usize {
    match fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| files_below(&entry.unwrap().path())).sum(),
        Err(_) => usize::from(path.is_file()),
    }
}

fn refused<T: std::fmt::Debug>(outcome: Result<T>, place: &str) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{place}: {error}");
    let named = format!("{place} is a symbolic link out of the base");
    assert!(error.to_string().contains(&named), "{named} is not in: {error}");
}

#[test]
fn nothing_is_read_through_a_link_that_leads_out() {
    for medium in [Medium::File, Medium::Direct] {
        for place in PLACES {
            let (f, _, _scratch) = linked(medium, place);
            let reader = f.checkpoints.reader();
            let manifest = reader.find_manifest_by_step(1).unwrap().unwrap();
            let mut buffer = [0; 3];
            refused(reader.read_shard_by_rank(&manifest, 1), place);
            refused(reader.read_shard_into(&manifest, 1, &mut buffer), place);
            refused(reader.read_shard_range_into(&manifest, 1, 1, &mut buffer[..1]), place);
            let unverified = reader.without_verification();
            refused(unverified.read_shard_into(&manifest, 1, &mut buffer), place);
            refused(f.checkpoints.shard_uri(manifest.shard(1).unwrap()), place);

            let info = &unverified.list_checkpoints().unwrap()[0];
            for report in [
                f.checkpoints.verify(info, &|_| ()).unwrap(),
                f.checkpoints.verify_quick(info).unwrap(),
            ] {
                assert_eq!(report.verdict, Verdict::Damaged);
                let link = f.directory().unwrap().join(place).to_str().unwrap().to_owned();
                assert_eq!(report.shards[1].state, ShardState::Foreign { link });
                // The shard beside a file that is a link is looked at as ever.
                let beside = matches!(report.shards[0].state, ShardState::Foreign { .. });
                assert_eq!(beside, !place.ends_with(".bin"), "{report:?}");
            }
        }
    }
}

#[test]
fn nothing_is_removed_through_a_link_that_leads_out() {
    for place in PLACES {
        let (f, outside, _scratch) = linked(Medium::File, place);
        let (there, keys) = (files_below(&outside), f.keys());
        refused(f.checkpoints.prune(1), place);
        refused(f.checkpoints.prune_with(&PruneOptions::new(1).trust_sizes(), &|_| ()), place);
        refused(f.checkpoints.delete_checkpoint(1, None), place);
        assert_eq!((files_below(&outside), f.keys()), (there, keys), "{place}");
        assert_eq!(f.hint()["global_step"], 3);
    }
}

#[test]
fn gc_does_not_walk_out_of_the_base() {
    for place in PLACES {
        let (f, outside, _scratch) = linked(Medium::File, place);
        let there = files_below(&outside);
        // Nobody names it any more, so what lies there would be garbage, of any age.
        for step in 1..=3 {
            f.delete(&format!("manifests/ckpt-{step}-x.json"));
        }
        match f.checkpoints.gc(Duration::ZERO, true) {
            // A folder behind a link is not seen at all.
            Ok(report) => {
                assert_eq!(place, "shards/ckpt-1-x");
                assert_eq!(report.garbage.len(), 4, "{report:?}");
            }
            refusal => refused(refusal, place),
        }
        assert_eq!(files_below(&outside), there, "{place}");
    }
}

#[test]
fn nothing_is_written_through_a_link_that_leads_out() {
    let f = fixture(Medium::File);
    let layout = f.checkpoints.layout(4, "x".parse().unwrap());
    let writer = f.checkpoints.writer(2, 0).unwrap();
    let other = f.checkpoints.writer(2, 1).unwrap();
    let shard = writer.put_shard(&layout, b"data").unwrap();
    let shards = vec![shard.clone(), other.put_shard(&layout, b"more").unwrap()];
    let scratch = tempfile::tempdir().unwrap();
    let (inside, outside) = (f.directory().unwrap().join("shards"), scratch.path().join("moved"));
    move_all(&inside, &outside);
    symlink(&outside, &inside).unwrap();

    refused(other.put_shard(&layout, b"more"), "shards");
    for outcome in f.checkpoints.put_shards(&layout, 2, &[(0, b"zero"), (1, b"one")]) {
        refused(outcome, "shards");
    }
    // What was written before the link was there is no checkpoint.
    refused(writer.finalize_checkpoint(&layout, "generic", 0, shards, None), "shards");
    assert_eq!(files_below(&outside), 2);
    assert!(!f.exists(&layout.manifest_key()));

    let receipts = layout.receipt_key(0);
    let (folder, _) = receipts.split_once('/').unwrap();
    let (inside, outside) = (f.directory().unwrap().join(folder), scratch.path().join("receipts"));
    fs::create_dir(&outside).unwrap();
    let _ = fs::remove_dir_all(&inside);
    symlink(&outside, &inside).unwrap();
    refused(writer.write_receipt(&layout, &shard), folder);
    for outcome in f.checkpoints.write_receipts(&layout, 2, &[shard]) {
        refused(outcome, folder);
    }
    assert_eq!(files_below(&outside), 0);
}

#[test]
fn links_that_stay_within_the_base_are_followed() {
    let f = fixture(Medium::File);
    let info = f.save_at(1, "x", &[b"zero", b"one"]);
    let directory = f.directory().unwrap();
    fs::create_dir(directory.join("disk")).unwrap();
    move_all(&directory.join("shards/ckpt-1-x"), &directory.join("disk/moved"));
    symlink("../disk/moved", directory.join("shards/ckpt-1-x")).unwrap();
    assert!(f.checkpoints.verify(&info, &|_| ()).unwrap().is_good());
    assert_eq!(f.checkpoints.reader().read_shard_by_rank(&f.latest(), 1).unwrap(), "one");

    // The base itself may be one.
    let scratch = tempfile::tempdir().unwrap();
    let link = scratch.path().join("base");
    symlink(&directory, &link).unwrap();
    let uri = format!("file://{}", link.display());
    let checkpoints = CheckpointStore::open_with(&uri, &config()).unwrap();
    assert!(checkpoints.verify(&info, &|_| ()).unwrap().is_good());
    checkpoints.save(2, 0, "generic", b"two", None).unwrap();
    assert_eq!(checkpoints.prune(1).unwrap().removed, [info]);
    assert_eq!(f.checkpoints.load_latest().unwrap().unwrap(), "two");
}
