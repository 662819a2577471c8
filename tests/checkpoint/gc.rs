//! Garbage: what goes, and above all what stays.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::json;
use syncline::ErrorKind;
use syncline::checkpoint::{GarbageKind, Strategy};

use crate::support::{Fixture, Medium, as_ancestor, fixture, on_all_media, state, ts};

on_all_media! {
    an_interrupted_save_is_collected
    what_is_young_stays
    what_a_manifest_names_stays
    what_follows_the_newest_checkpoint_stays
    nothing_goes_where_no_checkpoint_is_complete
    other_shards_of_a_finished_save_are_collected
    a_save_that_lost_a_shard_to_gc_is_never_finalized
    saves_run_beside_prune_and_gc
    a_damaged_manifest_protects_its_step
    a_manifest_of_a_later_version_protects_everything
}

const HOUR: Duration = Duration::from_secs(3600);

/// Two of three ranks sent, nobody finalized.
fn interrupt_save(f: &Fixture, step: u64) {
    let layout = f.checkpoints.layout(step, ts("x"));
    for rank in 0..2 {
        f.checkpoints.writer(3, rank).unwrap().save_distributed_shard(&layout, b"data").unwrap();
    }
}

fn an_interrupted_save_is_collected(f: Fixture) {
    interrupt_save(&f, 2);
    f.settle();
    f.save_at(1, "x", &[b"zero", b"one"]);
    let mut before = f.keys();
    before.retain(|key| !key.contains("ckpt-2-"));
    // A receipt that outlived its save.
    f.put("receipts/ckpt-1-x/rank-0.json", b"late");
    // Not ours.
    f.put("shards/notes.txt", b"keep");

    let found = f.checkpoints.gc(Duration::ZERO, false).unwrap();
    let told: Vec<(GarbageKind, &str)> = found
        .garbage
        .iter()
        .map(|item| (item.kind, item.uri.strip_prefix(&f.base).unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            (GarbageKind::Receipt, "/receipts/ckpt-1-x/rank-0.json"),
            (GarbageKind::Receipt, "/receipts/ckpt-2-x/rank-0.json"),
            (GarbageKind::Receipt, "/receipts/ckpt-2-x/rank-1.json"),
            (GarbageKind::Shard, "/shards/ckpt-2-x/rank-0.bin"),
            (GarbageKind::Shard, "/shards/ckpt-2-x/rank-1.bin"),
        ]
    );
    assert!(found.garbage.iter().all(|item| !item.removed));
    assert!(f.exists("shards/ckpt-2-x/rank-0.bin"));

    let removed = f.checkpoints.gc(Duration::ZERO, true).unwrap();
    assert!(removed.garbage.iter().all(|item| item.removed));
    assert_eq!(removed.garbage.len(), 5);
    f.delete("shards/notes.txt");
    assert_eq!(f.keys(), before);
    if let Some(directory) = f.directory() {
        assert!(!directory.join("shards/ckpt-2-x").exists());
        assert!(!directory.join("receipts/ckpt-2-x").exists());
    }
    assert!(f.checkpoints.gc(Duration::ZERO, true).unwrap().garbage.is_empty());
}

fn what_is_young_stays(f: Fixture) {
    interrupt_save(&f, 2);
    let before = f.keys();
    assert!(f.checkpoints.gc(HOUR, true).unwrap().garbage.is_empty());
    assert_eq!(f.keys(), before);
}

fn what_a_manifest_names_stays(f: Fixture) {
    // The ancestor's shards lie under another timestamp than their manifest.
    f.put("shards/ckpt-5-early/rank-0.bin", b"data");
    let info = f.save_at(5, "late", &[b"data"]);
    let text = as_ancestor(&f.get(&info.manifest_key), |manifest| {
        manifest["shards"][0]["key"] = json!("shards/ckpt-5-early/rank-0.bin");
    });
    f.put(&info.manifest_key, &text);
    f.delete("shards/ckpt-5-late/rank-0.bin");
    let before = f.keys();
    assert!(f.checkpoints.gc(Duration::ZERO, true).unwrap().garbage.is_empty());
    assert_eq!(f.keys(), before);
    assert_eq!(f.checkpoints.load_latest().unwrap().unwrap(), "data");
}

fn what_follows_the_newest_checkpoint_stays(f: Fixture) {
    interrupt_save(&f, 9);
    f.settle();
    f.save_at(1, "x", &[b"zero"]);
    interrupt_save(&f, 2);
    let report = f.checkpoints.gc(Duration::ZERO, true).unwrap();
    assert_eq!(report.garbage.len(), 8, "{report:?}");
    for item in &report.garbage {
        assert_eq!(item.removed, item.uri.contains("ckpt-9-"), "{report:?}");
    }
    assert!(report.notes.iter().any(|note| note.contains("4 objects may be")), "{report:?}");
    // What stayed can still become a checkpoint.
    let layout = f.checkpoints.layout(2, ts("x"));
    let last = f.checkpoints.writer(3, 2).unwrap();
    last.save_distributed_shard(&layout, b"data").unwrap();
    last.finalize_distributed_checkpoint(&layout, "generic", 0, None, Duration::ZERO).unwrap();
    assert_eq!(f.latest_step(), Some(2));
    assert!(f.checkpoints.gc(Duration::ZERO, true).unwrap().garbage.is_empty());
}

fn nothing_goes_where_no_checkpoint_is_complete(f: Fixture) {
    interrupt_save(&f, 9);
    f.settle();
    f.save_at(1, "x", &[b"zero"]);
    f.delete("shards/ckpt-1-x/rank-0.bin");
    let before = f.keys();
    let report = f.checkpoints.gc(Duration::ZERO, true).unwrap();
    assert_eq!(report.garbage.len(), 4);
    assert!(report.garbage.iter().all(|item| !item.removed), "{report:?}");
    assert!(report.notes.iter().any(|note| note.contains("no checkpoint is complete")));
    assert_eq!(f.keys(), before);
    // Without any checkpoint age alone decides.
    f.delete("manifests/ckpt-1-x.json");
    assert!(f.checkpoints.gc(HOUR, true).unwrap().garbage.is_empty());
    f.checkpoints.gc(Duration::ZERO, true).unwrap();
    assert_eq!(f.keys(), ["latest.json"]);
}

/// A rank that was started twice with two strategies leaves a shard that no manifest names.
fn other_shards_of_a_finished_save_are_collected(f: Fixture) {
    let other = f.checkpoints.clone().with_strategy(Strategy::RoundRobin);
    let layout = other.layout(1, ts("x"));
    other.writer(2, 1).unwrap().put_shard(&layout, b"other").unwrap();
    f.save_at(1, "x", &[b"zero", b"one"]);
    let mut before = f.keys();
    before.retain(|key| !key.starts_with("shards/rr/"));
    let report = f.checkpoints.gc(Duration::ZERO, true).unwrap();
    assert_eq!(report.garbage.len(), 1, "{report:?}");
    assert!(report.garbage[0].removed && report.garbage[0].uri.contains("rr/01/ckpt-1-x"));
    assert_eq!(f.keys(), before);
    assert!(f.directory().is_none_or(|path| !path.join("shards/rr/01/ckpt-1-x").exists()));
    assert_eq!(f.checkpoints.reader().read_shard_by_rank(&f.latest(), 1).unwrap(), "one");
}

fn a_save_that_lost_a_shard_to_gc_is_never_finalized(f: Fixture) {
    let layout = f.checkpoints.layout(2, ts("x"));
    let put = |rank| f.checkpoints.writer(2, rank).unwrap().put_shard(&layout, b"data").unwrap();
    let shards: Vec<_> = (0..2).map(put).collect();
    // There is no checkpoint yet, and nobody asked how old it is.
    let report = f.checkpoints.gc(Duration::ZERO, true).unwrap();
    assert_eq!(report.garbage.iter().filter(|item| item.removed).count(), 2);
    let finalizer = f.checkpoints.writer(2, 0).unwrap();
    let error = finalizer.finalize_checkpoint(&layout, "generic", 0, shards, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incomplete);
    assert!(error.to_string().contains("missing"), "{error}");
    assert!(f.keys().is_empty(), "{:?}", f.keys());
}

/// With an age of zero only the newest checkpoint stands between gc and a running save.
fn saves_run_beside_prune_and_gc(f: Fixture) {
    const RANKS: u32 = 3;
    let saves = if matches!(f.medium, Medium::S3 | Medium::Az) { 8 } else { 60 };
    f.save_at(0, "x", &[b"the first"]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Told also where a save panics, or the others would go on for ever.
        struct Tell<'a>(&'a AtomicBool);
        impl Drop for Tell<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Release);
            }
        }
        let (f, done) = (&f, &done);
        let beside = |keep_house: &dyn Fn()| {
            while !done.load(Ordering::Acquire) {
                keep_house();
            }
        };
        scope.spawn(move || beside(&|| drop(f.checkpoints.gc(Duration::ZERO, true).unwrap())));
        scope.spawn(move || beside(&|| drop(f.checkpoints.prune(2).unwrap())));
        scope.spawn(move || {
            let _tell = Tell(done);
            for step in 1..=saves {
                let layout = f.checkpoints.layout(step, ts("x"));
                std::thread::scope(|ranks| {
                    for rank in 0..RANKS {
                        let writer = f.checkpoints.writer(RANKS, rank).unwrap();
                        let (layout, data) = (layout.clone(), state(step + u64::from(rank), 5000));
                        ranks.spawn(move || writer.save_distributed_shard(&layout, &data).unwrap());
                    }
                });
                let finalizer = f.checkpoints.writer(RANKS, 0).unwrap();
                let wait = Duration::from_secs(60);
                let saved =
                    finalizer.finalize_distributed_checkpoint(&layout, "generic", 0, None, wait);
                let report = f.checkpoints.verify(&saved.unwrap(), &|_| ()).unwrap();
                assert!(report.is_good(), "{report:?}");
            }
        });
    });
    assert_eq!(f.latest_step(), Some(saves));
    f.settle();
    f.save_at(saves + 1, "x", &[b"the last"]);
    f.checkpoints.gc(Duration::ZERO, true).unwrap();
    assert_eq!(f.checkpoints.prune(1).unwrap().kept.len(), 1);
    assert_eq!(f.keys().len(), 3, "{:?}", f.keys());
}

fn a_damaged_manifest_protects_its_step(f: Fixture) {
    let info = f.save_at(5, "late", &[b"data"]);
    f.put("shards/ckpt-5-early/rank-0.bin", b"may be named by the damaged manifest");
    f.put("shards/ckpt-6-early/rank-0.bin", b"may not");
    f.settle();
    f.save_at(4, "good", &[b"data"]);
    f.flip(&info.manifest_key, 30);
    let report = f.checkpoints.gc(Duration::ZERO, true).unwrap();
    assert_eq!(report.garbage.len(), 1);
    assert!(report.notes[0].contains("step 5"), "{:?}", report.notes);
    assert!(
        f.exists("shards/ckpt-5-early/rank-0.bin") && f.exists("shards/ckpt-5-late/rank-0.bin")
    );
    assert!(!f.exists("shards/ckpt-6-early/rank-0.bin"));
}

fn a_manifest_of_a_later_version_protects_everything(f: Fixture) {
    let info = f.save_at(5, "x", &[b"data"]);
    interrupt_save(&f, 6);
    let text =
        as_ancestor(&f.get(&info.manifest_key), |manifest| manifest["format_version"] = json!(2));
    f.put(&info.manifest_key, &text);
    let report = f.checkpoints.gc(Duration::ZERO, true).unwrap();
    assert!(report.garbage.iter().all(|item| item.kind == GarbageKind::Receipt), "{report:?}");
    assert!(report.notes[0].contains("no shard at all"), "{:?}", report.notes);
    assert!(f.exists("shards/ckpt-6-x/rank-0.bin"));
}

/// A save is as young as its youngest file, temporary files included.
#[test]
fn a_save_in_progress_stays_whole() {
    let f = fixture(Medium::File);
    interrupt_save(&f, 2);
    let directory = f.directory().unwrap();
    let age = |path: &str| {
        let file = std::fs::File::options().write(true).open(directory.join(path)).unwrap();
        file.set_modified(SystemTime::now() - 10 * HOUR).unwrap();
    };
    let temporary = "shards/ckpt-2-x/.rank-2.bin.0123456789abcdef.syncline-tmp";
    std::fs::write(directory.join(temporary), b"half").unwrap();
    for rank in 0..2 {
        age(&format!("shards/ckpt-2-x/rank-{rank}.bin"));
        age(&format!("receipts/ckpt-2-x/rank-{rank}.json"));
    }
    let before = f.keys();
    assert!(f.checkpoints.gc(HOUR, true).unwrap().garbage.is_empty());
    assert_eq!(f.keys(), before);
    assert!(directory.join(temporary).exists());

    age(temporary);
    let report = f.checkpoints.gc(HOUR, true).unwrap();
    assert_eq!(report.garbage.len(), 5, "{report:?}");
    assert_eq!(report.garbage.iter().filter(|item| item.kind == GarbageKind::Temporary).count(), 1);
    assert!(f.keys().is_empty());
    assert!(!directory.join(temporary).exists());
}

/// Azure alone removes blocks that were never committed: they are told and stay.
#[test]
fn blocks_that_expire_by_themselves_are_told() {
    let f = fixture(Medium::Az);
    let layout = f.checkpoints.layout(2, ts("x"));
    let (mut writer, _) = f.checkpoints.writer(1, 0).unwrap().get_shard_writer(&layout).unwrap();
    // Returns when the blocks are there.
    writer.write_borrowed(&state(1, 3 * f.block())).unwrap();
    drop(writer);
    f.put("shards/ckpt-2-x/rank-1.bin", b"of the same save");
    for delete in [false, true] {
        let report = f.checkpoints.gc(Duration::ZERO, delete).unwrap();
        let [shard, blocks] = &report.garbage[..] else { panic!("{report:?}") };
        let (shard, blocks) =
            if shard.kind == GarbageKind::Shard { (shard, blocks) } else { (blocks, shard) };
        assert_eq!((shard.removed, blocks.removed), (delete, false), "{report:?}");
        assert_eq!(blocks.kind, GarbageKind::Temporary);
        assert!(blocks.size_bytes > 0 && blocks.uri.contains("ckpt-2-x/rank-0.bin"), "{blocks:?}");
        assert_eq!(report.notes.len(), usize::from(delete), "{report:?}");
        assert!(report.notes.iter().all(|note| note.contains("expire")), "{report:?}");
    }
    assert_eq!(f.checkpoints.gc(Duration::ZERO, true).unwrap().garbage.len(), 1);
}
