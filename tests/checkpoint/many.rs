//! The shards of many ranks from one process, and back.

use std::time::Duration;

use syncline::checkpoint::{KeyLayout, ShardMeta, Strategy};
use syncline::{ErrorKind, Result};

use crate::support::{Fixture, on_all_media, state, ts};

on_all_media! {
    shards_put_together_are_shards_put_alone
    receipts_written_together_finalize
    a_resent_shard_fails_alone
    damage_is_told_of_the_shard_that_it_is_of
}

const RANKS: u32 = 12;

/// Of every size that makes a difference: none, small, a block, more than one.
fn states(f: &Fixture) -> Vec<Vec<u8>> {
    let block = f.block();
    let bytes = |rank: u32| match rank % 6 {
        0 => 0,
        5 => block + 1,
        4 => block,
        n => 700 * n as usize,
    };
    (0..RANKS).map(|rank| state(u64::from(rank), bytes(rank))).collect()
}

fn ranked(states: &[Vec<u8>]) -> Vec<(u32, &[u8])> {
    (0..).zip(states.iter().map(Vec::as_slice)).collect()
}

fn all<T>(outcomes: Vec<Result<T>>) -> Vec<T> {
    outcomes.into_iter().map(Result::unwrap).collect()
}

fn without_tag(shard: ShardMeta) -> ShardMeta {
    let mut shard = shard;
    shard.etag = None;
    shard
}

fn shards_put_together_are_shards_put_alone(f: Fixture) {
    let states = states(&f);
    for strategy in [Strategy::Flat, Strategy::RoundRobin] {
        let step = if strategy == Strategy::Flat { 1 } else { 2 };
        let layout = KeyLayout::new(step, ts("x"), strategy);
        let together = all(f.checkpoints.put_shards(&layout, RANKS, &ranked(&states)));
        let finalizer = f.checkpoints.writer(RANKS, 0).unwrap();
        finalizer.finalize_checkpoint(&layout, "generic", 0, together.clone(), None).unwrap();
        let reader = f.checkpoints.reader();
        let manifest = reader.latest().unwrap().unwrap();
        let ranks: Vec<u32> = (0..RANKS).rev().collect();
        for (rank, read) in ranks.iter().zip(all(reader.read_shards(&manifest, &ranks))) {
            assert_eq!(read, states[*rank as usize]);
        }
        let info = reader.list_checkpoints().unwrap().pop().unwrap();
        assert!(f.checkpoints.verify(&info, &|_| {}).unwrap().is_good());
        f.checkpoints.delete_checkpoint(step, None).unwrap();
        for (rank, data) in ranked(&states) {
            let alone = f.checkpoints.writer(RANKS, rank).unwrap().put_shard(&layout, data);
            assert_eq!(without_tag(alone.unwrap()), without_tag(together[rank as usize].clone()));
        }
    }
}

fn receipts_written_together_finalize(f: Fixture) {
    let states = states(&f);
    let layout = f.checkpoints.layout(3, ts("x"));
    let shards = all(f.checkpoints.put_shards(&layout, RANKS, &ranked(&states)));
    let other = f.checkpoints.layout(4, ts("x"));
    let foreign = f.checkpoints.write_receipts(&other, RANKS, &shards);
    assert!(foreign.iter().all(|o| o.as_ref().unwrap_err().kind() == ErrorKind::InvalidInput));
    all(f.checkpoints.write_receipts(&layout, RANKS, &shards));
    for again in f.checkpoints.write_receipts(&layout, RANKS, &shards[..2]) {
        assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
    let finalizer = f.checkpoints.writer(RANKS, 0).unwrap();
    finalizer.finalize_distributed_checkpoint(&layout, "generic", 0, None, Duration::ZERO).unwrap();
    assert_eq!(f.checkpoints.reader().latest().unwrap().unwrap().shards, shards);
}

fn a_resent_shard_fails_alone(f: Fixture) {
    let layout = f.checkpoints.layout(5, ts("x"));
    f.checkpoints.writer(4, 2).unwrap().put_shard(&layout, b"first").unwrap();
    let shards: Vec<(u32, &[u8])> = vec![(0, b"a"), (2, b"second"), (9, b"none"), (3, b"d")];
    let outcomes = f.checkpoints.put_shards(&layout, 4, &shards);
    let kinds: Vec<_> = outcomes.iter().map(|o| o.as_ref().err().map(|e| e.kind())).collect();
    use ErrorKind::{AlreadyExists, InvalidInput};
    assert_eq!(kinds, [None, Some(AlreadyExists), Some(InvalidInput), None]);
    assert!(outcomes[1].as_ref().unwrap_err().remedy().unwrap().contains("sent once"));
    assert_eq!(f.get(&layout.shard_key(2)), b"first");
}

fn damage_is_told_of_the_shard_that_it_is_of(f: Fixture) {
    let states = states(&f);
    let layout = f.checkpoints.layout(6, ts("x"));
    let shards = all(f.checkpoints.put_shards(&layout, RANKS, &ranked(&states)));
    let keys: Vec<String> = shards.iter().map(|shard| shard.key.clone()).collect();
    let finalizer = f.checkpoints.writer(RANKS, 0).unwrap();
    finalizer.finalize_checkpoint(&layout, "generic", 0, shards, None).unwrap();
    let store = f.checkpoints.store();
    let uri = |rank: usize| f.checkpoints.uri(&keys[rank]);
    let mut flipped = states[1].clone();
    flipped[13] ^= 4;
    store.put(&uri(1), &flipped).unwrap();
    store.put(&uri(2), b"short").unwrap();
    store.delete(&uri(3)).unwrap();
    let reader = f.checkpoints.reader();
    let manifest = reader.latest().unwrap().unwrap();
    let ranks: Vec<u32> = (0..=RANKS).collect();
    let read = reader.read_shards(&manifest, &ranks);
    for (rank, read) in read.into_iter().enumerate() {
        let alone = reader.read_shard_by_rank(&manifest, rank as u32);
        match (read, alone) {
            (Ok(read), Ok(alone)) => assert_eq!(read, alone),
            (Err(read), Err(alone)) => assert_eq!(read.to_string(), alone.to_string()),
            (read, alone) => panic!("{rank}: {read:?}, alone {alone:?}"),
        }
        assert_eq!(
            [1, 2, 3, RANKS as usize].contains(&rank),
            rank_is_wrong(&reader, &manifest, rank)
        );
    }
    let unverified = reader.without_verification().read_shards(&manifest, &[1]);
    assert_eq!(unverified.into_iter().next().unwrap().unwrap(), flipped);
}

fn rank_is_wrong(
    reader: &syncline::checkpoint::Reader,
    manifest: &syncline::checkpoint::Manifest,
    rank: usize,
) -> bool {
    reader.read_shard_by_rank(manifest, rank as u32).is_err()
}
