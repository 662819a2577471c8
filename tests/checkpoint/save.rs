//! Saving: commit order, receipts, races, resends.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use syncline::checkpoint::{
    CheckpointInfo, CheckpointStore, KeyLayout, Reader, ShardMeta, Strategy, Writer,
};
use syncline::{ErrorKind, Result};

use crate::support::{BLOCK, Fixture, on_all_media, state, ts};

on_all_media! {
    an_empty_base_has_nothing
    one_rank_saves_and_loads
    every_strategy_restores
    shards_travel_as_json
    a_writer_is_finalized_for_its_own_key_only
    of_finalizers_of_gathered_shards_one_wins
    of_finalizers_of_receipts_one_wins
    missing_receipts_are_named
    a_late_receipt_is_waited_for
    strange_receipts_are_named
    a_receipt_beyond_the_world_size_is_foreign
    a_resent_shard_is_refused
    gathered_shards_must_be_the_saves
    a_shard_that_is_gone_fails_the_save
    bad_arguments_are_refused
    a_dropped_writer_leaves_nothing
    many_ranks
    an_empty_shard
}

const SECOND: Duration = Duration::from_secs(1);

fn an_empty_base_has_nothing(f: Fixture) {
    assert!(f.checkpoints.reader().latest().unwrap().is_none());
    assert!(f.checkpoints.reader().find_manifest_by_step(1).unwrap().is_none());
    assert!(f.checkpoints.load_latest().unwrap().is_none());
    assert!(f.checkpoints.list().unwrap().is_empty());
    assert!(f.checkpoints.gc(Duration::ZERO, true).unwrap().garbage.is_empty());
    assert!(f.checkpoints.prune(1).unwrap().removed.is_empty());
}

fn one_rank_saves_and_loads(f: Fixture) {
    let data = state(1, 3 * BLOCK + 17);
    let meta = json!({"dt": 0.1, "files": ["grid"], "seed": u64::MAX});
    let info = f.checkpoints.save(42, 3, "torch", &data, Some(meta.clone())).unwrap();
    assert_eq!(f.checkpoints.load_latest().unwrap().unwrap(), data);
    let manifest = f.latest();
    assert_eq!(manifest.timestamp(), Some(&info.timestamp));
    assert_eq!((manifest.framework.as_str(), manifest.epoch), ("torch", 3));
    assert_eq!(manifest.user_meta, Some(meta));
    assert_eq!(f.checkpoints.reader().load_manifest(&info.manifest_key).unwrap(), manifest);
    assert_eq!(
        f.hint(),
        json!({"manifest_key": info.manifest_key, "global_step": 42, "ts": info.timestamp.as_str()})
    );
    let save = format!("ckpt-42-{}", info.timestamp);
    let mut keys = f.keys();
    keys.sort();
    assert_eq!(
        keys,
        [
            "latest.json".to_owned(),
            format!("manifests/{save}.json"),
            format!("shards/{save}/rank-0.bin")
        ]
    );
}

fn every_strategy_restores(f: Fixture) {
    let ranks = 20;
    for (step, strategy) in [(1, Strategy::Flat), (2, Strategy::RoundRobin), (3, Strategy::Binary)]
    {
        let checkpoints = f.checkpoints.clone().with_strategy(strategy);
        let layout = checkpoints.layout(step, ts("20260101-000000-000"));
        thread::scope(|scope| {
            for rank in 0..ranks {
                let writer = checkpoints.writer(ranks, rank).unwrap();
                let layout = &layout;
                scope.spawn(move || {
                    let data = state(step * 100 + u64::from(rank), 1000 + rank as usize);
                    writer.save_distributed_shard(layout, &data).unwrap();
                });
            }
            let finalizer = checkpoints.writer(ranks, 5).unwrap();
            let timeout = 60 * SECOND;
            finalizer
                .finalize_distributed_checkpoint(&layout, "generic", 1, None, timeout)
                .unwrap();
        });
    }
    assert!(!f.keys().iter().any(|key| key.starts_with("receipts/")), "{:?}", f.keys());
    let reader = f.checkpoints.reader();
    for step in 1..=3 {
        let manifest = reader.find_manifest_by_step(step).unwrap().unwrap();
        for rank in 0..ranks {
            let data = state(step * 100 + u64::from(rank), 1000 + rank as usize);
            assert_eq!(reader.read_shard_by_rank(&manifest, rank).unwrap(), data);
        }
    }
}

fn shards_travel_as_json(f: Fixture) {
    let layout = f.checkpoints.layout(1, ts("x"));
    let shard =
        f.checkpoints.writer(1, 0).unwrap().put_shard(&layout, &state(0, BLOCK + 1)).unwrap();
    let text = serde_json::to_string(&shard).unwrap();
    assert_eq!(serde_json::from_str::<ShardMeta>(&text).unwrap(), shard);
}

fn a_writer_is_finalized_for_its_own_key_only(f: Fixture) {
    let writer = f.checkpoints.writer(2, 1).unwrap();
    let layout = f.checkpoints.layout(1, ts("x"));
    let other = f.checkpoints.layout(1, ts("y"));
    let (mut shard, key) = writer.get_shard_writer(&layout).unwrap();
    shard.write_chunk(b"data").unwrap();
    let error = writer.finalize_writer_to_shard_meta(&other, key, shard).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(f.keys().is_empty());
}

/// Runs the same finalizer in several threads at once; exactly one wins, the others are told.
fn race(
    f: &Fixture,
    layout: &KeyLayout,
    finalize: impl Fn(&Writer) -> Result<CheckpointInfo> + Sync,
) {
    let barrier = std::sync::Barrier::new(4);
    let outcomes: Vec<Result<CheckpointInfo>> = thread::scope(|scope| {
        let racers: Vec<_> = (0..4)
            .map(|rank| {
                let writer = f.checkpoints.writer(4, rank).unwrap();
                let (barrier, finalize) = (&barrier, &finalize);
                scope.spawn(move || {
                    barrier.wait();
                    finalize(&writer)
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        assert!(error.to_string().contains("another finalizer"), "{error}");
        assert!(error.remedy().is_some());
    }
    assert_eq!(f.latest().global_step, layout.step());
    let report =
        f.checkpoints.verify(&f.checkpoints.reader().list_checkpoints().unwrap()[0], &|_| ());
    assert!(report.unwrap().is_good());
}

fn of_finalizers_of_gathered_shards_one_wins(f: Fixture) {
    let layout = f.checkpoints.layout(9, ts("x"));
    let put =
        |rank| f.checkpoints.writer(4, rank).unwrap().put_shard(&layout, &state(rank.into(), 100));
    let shards: Vec<ShardMeta> = (0..4).map(|rank| put(rank).unwrap()).collect();
    race(&f, &layout, |writer| {
        writer.finalize_checkpoint(&layout, "generic", 0, shards.clone(), None)
    });
}

fn of_finalizers_of_receipts_one_wins(f: Fixture) {
    let layout = f.checkpoints.layout(9, ts("x"));
    for rank in 0..4 {
        let writer = f.checkpoints.writer(4, rank).unwrap();
        writer.save_distributed_shard(&layout, &state(rank.into(), 100)).unwrap();
    }
    race(&f, &layout, |writer| {
        writer.finalize_distributed_checkpoint(&layout, "generic", 0, None, 60 * SECOND)
    });
}

fn missing_receipts_are_named(f: Fixture) {
    let layout = f.checkpoints.layout(1, ts("x"));
    for rank in [0, 2, 6] {
        let writer = f.checkpoints.writer(7, rank).unwrap();
        writer.save_distributed_shard(&layout, b"data").unwrap();
    }
    // A shard without a receipt does not count.
    f.checkpoints.writer(7, 1).unwrap().put_shard(&layout, b"data").unwrap();
    let finalizer = f.checkpoints.writer(7, 0).unwrap();
    let finalize = |timeout| {
        finalizer.finalize_distributed_checkpoint(&layout, "generic", 0, None, timeout).unwrap_err()
    };
    for timeout in [Duration::ZERO, Duration::from_millis(30)] {
        let error = finalize(timeout);
        assert_eq!(error.kind(), ErrorKind::Incomplete);
        assert!(error.to_string().contains("7 ranks: 1, 3-5"), "{error}");
    }
    assert!(f.checkpoints.reader().latest().unwrap().is_none());
}

fn a_late_receipt_is_waited_for(f: Fixture) {
    let layout = f.checkpoints.layout(1, ts("x"));
    let send = |rank| {
        let writer = f.checkpoints.writer(2, rank).unwrap();
        writer.save_distributed_shard(&layout, b"data").unwrap();
    };
    send(0);
    let finalizer = f.checkpoints.writer(2, 0).unwrap();
    thread::scope(|scope| {
        let finalized = scope.spawn(|| {
            finalizer.finalize_distributed_checkpoint(&layout, "generic", 0, None, 120 * SECOND)
        });
        thread::sleep(Duration::from_millis(50));
        assert!(!finalized.is_finished(), "nothing to wait for");
        send(1);
        finalized.join().unwrap().unwrap();
    });
    assert_eq!(f.latest_step(), Some(1));
}

fn strange_receipts_are_named(f: Fixture) {
    let finalize = |layout: &KeyLayout| {
        let finalizer = f.checkpoints.writer(3, 0).unwrap();
        finalizer
            .finalize_distributed_checkpoint(layout, "generic", 0, None, Duration::ZERO)
            .unwrap_err()
    };
    let send = |layout: &KeyLayout, world_size, rank| {
        let writer = f.checkpoints.writer(world_size, rank).unwrap();
        writer.save_distributed_shard(layout, b"data").unwrap();
    };
    // Rank 1 believes in another world size; rank 2's receipt is a copy of rank 0's.
    let layout = f.checkpoints.layout(1, ts("x"));
    send(&layout, 3, 0);
    send(&layout, 4, 1);
    f.put(&layout.receipt_key(2), &f.get(&layout.receipt_key(0)));
    let error = finalize(&layout);
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    for needle in
        ["2 of 3 receipts", "rank-1.json", "foreign", "rank-2.json", "duplicate: of rank 0"]
    {
        assert!(error.to_string().contains(needle), "{needle} is not in: {error}");
    }
    // A receipt of another save, and a damaged one.
    let later = f.checkpoints.layout(1, ts("y"));
    send(&later, 3, 0);
    send(&later, 3, 1);
    f.put(&later.receipt_key(2), &f.get(&layout.receipt_key(0)));
    f.flip(&later.receipt_key(1), 40);
    let error = finalize(&later);
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    for needle in ["rank-1.json", "altered", "rank-2.json", "foreign: of step 1 at x"] {
        assert!(error.to_string().contains(needle), "{needle} is not in: {error}");
    }
    assert!(f.checkpoints.reader().latest().unwrap().is_none());
}

fn a_receipt_beyond_the_world_size_is_foreign(f: Fixture) {
    let layout = f.checkpoints.layout(1, ts("x"));
    f.checkpoints.writer(8, 7).unwrap().save_distributed_shard(&layout, b"data").unwrap();
    let finalizer = f.checkpoints.writer(2, 0).unwrap();
    let error = finalizer
        .finalize_distributed_checkpoint(&layout, "generic", 0, None, 60 * SECOND)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("2 ranks, but 7"), "{error}");
}

fn a_resent_shard_is_refused(f: Fixture) {
    let layout = f.checkpoints.layout(1, ts("x"));
    let writer = f.checkpoints.writer(2, 1).unwrap();
    let (mut slow, key) = writer.get_shard_writer_sized(&layout, 4).unwrap();
    slow.write_chunk(b"slow").unwrap();
    let shard = writer.save_distributed_shard(&layout, b"fast").unwrap();
    let late = writer.finalize_writer_to_shard_meta(&layout, key, slow).unwrap_err();
    let again = writer.put_shard(&layout, b"more").unwrap_err();
    let receipt = writer.write_receipt(&layout, &shard).unwrap_err();
    for error in [late, again, receipt] {
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        assert!(error.remedy().unwrap().contains("new timestamp"), "{error}");
    }
    assert_eq!(f.get(&shard.key), b"fast");
    // Another timestamp is another save.
    writer.put_shard(&f.checkpoints.layout(1, ts("y")), b"more").unwrap();
}

fn gathered_shards_must_be_the_saves(f: Fixture) {
    let layout = f.checkpoints.layout(1, ts("x"));
    let other = f.checkpoints.layout(2, ts("x"));
    let put =
        |layout, rank| f.checkpoints.writer(4, rank).unwrap().put_shard(layout, b"data").unwrap();
    let shards: Vec<ShardMeta> = (0..4).map(|rank| put(&layout, rank)).collect();
    let foreign = put(&other, 3);
    let finalizer = f.checkpoints.writer(4, 0).unwrap();
    let finalize = |ranks: Vec<&ShardMeta>| {
        let shards = ranks.into_iter().cloned().collect();
        finalizer.finalize_checkpoint(&layout, "generic", 0, shards, None).unwrap_err()
    };
    let [a, b, c, d] = &shards[..] else { unreachable!() };
    let missing = finalize(vec![d, a]);
    assert_eq!(missing.kind(), ErrorKind::Incomplete);
    assert!(missing.to_string().contains("4 ranks: 1-2"), "{missing}");
    let twice = finalize(vec![a, b, b, c, d]);
    assert_eq!(twice.kind(), ErrorKind::InvalidInput);
    assert!(twice.to_string().contains("more than one shard of ranks 1"), "{twice}");
    let strange = finalize(vec![a, b, c, &foreign]);
    assert_eq!(strange.kind(), ErrorKind::InvalidInput);
    assert!(strange.to_string().contains("rank 3"), "{strange}");
    let few = f.checkpoints.writer(3, 0).unwrap();
    let error = few.finalize_checkpoint(&layout, "generic", 0, shards.clone(), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    // In any order, all four are a checkpoint.
    let shards = vec![d.clone(), b.clone(), a.clone(), c.clone()];
    finalizer.finalize_checkpoint(&layout, "generic", 0, shards, None).unwrap();
}

fn a_shard_that_is_gone_fails_the_save(f: Fixture) {
    f.save_at(1, "x", &[b"earlier"]);
    let layout = f.checkpoints.layout(2, ts("x"));
    let shards: Vec<ShardMeta> = (0..4)
        .map(|rank| f.checkpoints.writer(4, rank).unwrap().put_shard(&layout, b"data").unwrap())
        .collect();
    f.delete(&shards[1].key);
    f.put(&shards[3].key, b"other size");
    let finalizer = f.checkpoints.writer(4, 0).unwrap();
    let error = finalizer.finalize_checkpoint(&layout, "generic", 0, shards, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incomplete);
    for needle in ["rank 1 (missing)", "rank 3 (10 bytes instead of 4)"] {
        assert!(error.to_string().contains(needle), "{needle} is not in: {error}");
    }
    assert_eq!(f.latest_step(), Some(1));
    assert!(!f.exists(&layout.manifest_key()));
}

fn bad_arguments_are_refused(f: Fixture) {
    for (world_size, rank) in [(0, 0), (4, 4), (u32::MAX, 0)] {
        let error = f.checkpoints.writer(world_size, rank).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    let error = f.checkpoints.save(1, 0, "", b"data", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    // Deeper than a reader follows: refused rather than written.
    let deep = (0..200).fold(Value::Null, |inner, _| json!([inner]));
    let error = f.checkpoints.save(1, 0, "generic", b"data", Some(deep)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(f.checkpoints.reader().latest().unwrap().is_none());
}

fn a_dropped_writer_leaves_nothing(f: Fixture) {
    let layout = f.checkpoints.layout(1, ts("x"));
    let writer = f.checkpoints.writer(1, 0).unwrap();
    let (mut shard, _) = writer.get_shard_writer(&layout).unwrap();
    shard.write_chunk(&state(0, 5 * BLOCK)).unwrap();
    drop(shard);
    assert!(f.keys().is_empty());
    let mut garbage = f.checkpoints.gc(Duration::ZERO, false).unwrap().garbage;
    // Azure keeps blocks that were put, and removes them itself.
    garbage.retain(|item| !item.uri.ends_with("?uncommitted"));
    assert!(garbage.is_empty(), "{garbage:?}");
}

fn many_ranks(f: Fixture) {
    let ranks = 500;
    let layout = f.checkpoints.layout(1, ts("x"));
    for rank in 0..ranks {
        let writer = f.checkpoints.writer(ranks, rank).unwrap();
        writer.save_distributed_shard(&layout, &rank.to_le_bytes()).unwrap();
    }
    let finalizer = f.checkpoints.writer(ranks, 0).unwrap();
    finalizer.finalize_distributed_checkpoint(&layout, "generic", 0, None, SECOND).unwrap();
    let (reader, manifest) = (f.checkpoints.reader(), f.latest());
    for rank in [0, 1, 99, 499] {
        assert_eq!(reader.read_shard_by_rank(&manifest, rank).unwrap(), rank.to_le_bytes()[..]);
    }
}

fn an_empty_shard(f: Fixture) {
    let info = f.save_at(1, "x", &[b"", b"one"]);
    let (reader, manifest) = (f.checkpoints.reader(), f.latest());
    assert_eq!(manifest.shards[0].checksum.as_deref(), Some("crc32c:00000000"));
    assert!(reader.read_shard_by_rank(&manifest, 0).unwrap().is_empty());
    reader.read_shard_into(&manifest, 0, &mut []).unwrap();
    assert!(f.checkpoints.verify(&info, &|_| ()).unwrap().is_good());
}

/// Handles are owned and shared between threads.
#[test]
fn handles_cross_threads() {
    fn owned<T: Send + Sync + Clone + 'static>() {}
    owned::<CheckpointStore>();
    owned::<Writer>();
    owned::<Reader>();
}
