//! How many requests a checkpoint of many ranks takes.

use std::time::Duration;

use syncline::checkpoint::CheckpointStore;

use crate::rig::Rig;
use crate::s3_model::Operation;

const RANKS: u32 = 50;

/// One request for each shard and each receipt, and a few for all of them together.
#[test]
fn a_rank_takes_one_request_for_each_of_its_objects() {
    let rig = Rig::new();
    let checkpoints = CheckpointStore::new(rig.store.clone(), "s3://bucket/base");
    let layout = checkpoints.layout(1, "x".parse().unwrap());
    let data = [7; 1000];
    let shards: Vec<(u32, &[u8])> = (0..RANKS).map(|rank| (rank, data.as_slice())).collect();
    let count = || rig.operations().len();
    let written: Vec<_> =
        checkpoints.put_shards(&layout, RANKS, &shards).into_iter().map(Result::unwrap).collect();
    assert!(rig.count(Operation::Put) >= RANKS as usize);
    let after_shards = count();
    // Beside the shards: the probe whether the server keeps conditions.
    assert!(after_shards <= RANKS as usize + FEW, "{after_shards} requests");
    let receipts = checkpoints.write_receipts(&layout, RANKS, &written);
    receipts.into_iter().for_each(Result::unwrap);
    let after_receipts = count();
    assert!(after_receipts - after_shards <= RANKS as usize + FEW);
    let writer = checkpoints.writer(RANKS, 0).unwrap();
    let timeout = Duration::from_secs(60);
    writer.finalize_distributed_checkpoint(&layout, "x", 0, None, timeout).unwrap();
    let finalized = count() - after_receipts;
    assert!(finalized <= RANKS as usize + 2 * FEW, "one for each receipt: {finalized}");
    let manifest = checkpoints.reader().latest().unwrap().unwrap();
    let before = count();
    let ranks: Vec<u32> = (0..RANKS).collect();
    let read = checkpoints.reader().read_shards(&manifest, &ranks);
    assert!(read.into_iter().all(|read| read.unwrap() == data[..]));
    assert!(count() - before <= RANKS as usize, "{}", count() - before);
}

/// Requests that do not depend on the number of ranks.
const FEW: usize = 8;
