//! Listing, pruning, deleting.

use serde_json::json;
use syncline::ErrorKind;

use crate::support::{Fixture, as_ancestor, on_all_media, ts};

on_all_media! {
    a_list_tells_what_manifests_say
    pruning_keeps_the_newest
    pruning_counts_complete_checkpoints_only
    pruning_leaves_what_other_manifests_name
    pruning_everything_is_refused
    deleting_one_checkpoint
    deleting_the_last_one_removes_the_hint
    deleting_a_damaged_manifest_leaves_the_shards_to_gc
    strangers_are_notes
}

fn steps(f: &Fixture) -> Vec<u64> {
    f.checkpoints.reader().list_checkpoints().unwrap().iter().map(|info| info.step).collect()
}

fn a_list_tells_what_manifests_say(f: Fixture) {
    f.save_at(1, "x", &[b"one", b"more"]);
    f.save_at(2, "x", &[b"two"]);
    let listed = f.checkpoints.list().unwrap();
    let told: Vec<_> = listed
        .iter()
        .map(|entry| (entry.info.step, entry.summary.as_ref().unwrap()))
        .map(|(step, summary)| (step, summary.world_size, summary.stored_bytes))
        .collect();
    assert_eq!(told, [(1, 2, 7), (2, 1, 3)]);
}

fn pruning_keeps_the_newest(f: Fixture) {
    for step in 1..=5 {
        f.save_at(step, "x", &[b"zero", b"one"]);
    }
    let report = f.checkpoints.prune(2).unwrap();
    assert_eq!(report.removed.iter().map(|info| info.step).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(report.kept.iter().map(|info| info.step).collect::<Vec<_>>(), [4, 5]);
    assert_eq!((report.removed_bytes, report.notes.len()), (21, 0));
    assert_eq!(steps(&f), [4, 5]);
    assert!(
        f.keys()
            .iter()
            .all(|key| key == "latest.json" || key.contains("-4-") || key.contains("-5-"))
    );
    if let Some(directory) = f.directory() {
        assert_eq!(std::fs::read_dir(directory.join("shards")).unwrap().count(), 2);
    }
    let (reader, kept) = (f.checkpoints.reader(), f.latest());
    assert_eq!(reader.read_shard_by_rank(&kept, 1).unwrap(), "one");
    assert!(f.checkpoints.prune(2).unwrap().removed.is_empty());
}

fn pruning_counts_complete_checkpoints_only(f: Fixture) {
    for step in 1..=5 {
        f.save_at(step, "x", &[b"data"]);
    }
    f.put("manifests/ckpt-2-x.json", b"{ damaged");
    f.delete("shards/ckpt-5-x/rank-0.bin");
    let report = f.checkpoints.prune(1).unwrap();
    // 5 lacks its shard, 4 is the newest that restores, 2 cannot be judged.
    assert_eq!(report.removed.iter().map(|info| info.step).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(report.kept.iter().map(|info| info.step).collect::<Vec<_>>(), [2, 4, 5]);
    assert!(report.notes.iter().any(|note| note.contains("step 5")), "{:?}", report.notes);
    assert!(report.notes.iter().any(|note| note.contains("step 2")), "{:?}", report.notes);
    assert!(f.exists("shards/ckpt-2-x/rank-0.bin") && f.exists("shards/ckpt-4-x/rank-0.bin"));
    assert_eq!(f.hint()["global_step"], 5);
}

fn pruning_leaves_what_other_manifests_name(f: Fixture) {
    f.save_at(1, "x", &[b"shared", b"own"]);
    let newest = f.save_at(2, "x", &[b"SHARED", b"own"]);
    let text = as_ancestor(&f.get(&newest.manifest_key), |manifest| {
        manifest["shards"][0]["key"] = json!("shards/ckpt-1-x/rank-0.bin");
        manifest["shards"][0]["checksum"] = json!(null);
        manifest["shards"][0]["etag"] = json!(null);
    });
    f.put(&newest.manifest_key, &text);
    let report = f.checkpoints.prune(1).unwrap();
    assert_eq!((report.removed.len(), report.removed_bytes), (1, 3));
    let (reader, manifest) = (f.checkpoints.reader(), f.latest());
    assert_eq!(reader.read_shard_by_rank(&manifest, 0).unwrap(), "shared");
    assert!(!f.exists("shards/ckpt-1-x/rank-1.bin"));
}

fn pruning_everything_is_refused(f: Fixture) {
    f.save_at(1, "x", &[b"data"]);
    assert_eq!(f.checkpoints.prune(0).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(f.latest_step(), Some(1));
}

fn deleting_one_checkpoint(f: Fixture) {
    f.save_at(1, "a", &[b"one"]);
    f.save_at(2, "a", &[b"two a"]);
    f.save_at(2, "b", &[b"two b"]);
    for (step, timestamp) in [(3, None), (2, Some(ts("c")))] {
        let error = f.checkpoints.delete_checkpoint(step, timestamp.as_ref()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    let deleted = f.checkpoints.delete_checkpoint(2, None).unwrap();
    assert_eq!(deleted.timestamp, ts("b"));
    assert_eq!(f.checkpoints.load_latest().unwrap().unwrap(), "two a");
    assert_eq!(f.hint()["ts"], "a");
    f.checkpoints.delete_checkpoint(1, Some(&ts("a"))).unwrap();
    assert_eq!(steps(&f), [2]);
    assert_eq!(f.keys().len(), 3, "{:?}", f.keys());
}

fn deleting_the_last_one_removes_the_hint(f: Fixture) {
    f.save_at(1, "a", &[b"one"]);
    f.checkpoints.delete_checkpoint(1, None).unwrap();
    assert!(f.keys().is_empty(), "{:?}", f.keys());
    assert!(f.checkpoints.load_latest().unwrap().is_none());
}

fn deleting_a_damaged_manifest_leaves_the_shards_to_gc(f: Fixture) {
    f.save_at(2, "a", &[b"two"]);
    f.settle();
    f.save_at(1, "a", &[b"one"]);
    f.put("manifests/ckpt-2-a.json", b"damaged");
    f.checkpoints.delete_checkpoint(2, None).unwrap();
    assert!(f.exists("shards/ckpt-2-a/rank-0.bin"));
    assert_eq!(f.checkpoints.load_latest().unwrap().unwrap(), "one");
    let report = f.checkpoints.gc(std::time::Duration::ZERO, true).unwrap();
    assert_eq!(report.garbage.len(), 1);
    assert!(!f.exists("shards/ckpt-2-a/rank-0.bin"));
}

fn strangers_are_notes(f: Fixture) {
    let info = f.save_at(1, "a", &[b"one"]);
    f.put("shards/ckpt-1-a/rank-7.bin", b"not of this checkpoint");
    f.put("shards/ckpt-2-a/rank-0.bin", b"of a save that was interrupted");
    let report = f.checkpoints.verify(&info, &|_| ()).unwrap();
    assert!(report.is_good());
    assert_eq!(report.notes.len(), 1);
    assert!(report.notes[0].contains("rank-7.bin"), "{:?}", report.notes);
    let leftovers = f.checkpoints.leftovers().unwrap();
    assert_eq!(leftovers.len(), 3);
    assert!(leftovers[0].contains("shards/ckpt-1-a/rank-7.bin"), "{leftovers:?}");
    assert!(leftovers[1].contains("shards/ckpt-2-a/rank-0.bin"), "{leftovers:?}");
    assert!(leftovers[2].contains("may be of a running save"), "{leftovers:?}");
}
