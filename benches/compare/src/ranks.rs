//! A checkpoint of many ranks on one base: how long each step of it takes, and the memory.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use syncline::Timestamp;
use syncline::checkpoint::{CheckpointStore, ShardMeta};

use crate::contest::{Contestant, status_bytes};
use crate::job::Job;
use crate::local::set_aside;

/// Bytes of a rank's shard: what is measured is the number of ranks.
const SHARD_BYTES: usize = 64;

const TIMEOUT: Duration = Duration::from_secs(120);

/// Each pass saves the shards and receipts of all ranks, finalizes them as one rank does, and reads all
/// of it again; it tells the seconds of each step.
pub fn ranks(job: Job) -> Contestant {
    let folder = PathBuf::from(&job.folder);
    let before = folder.clone();
    let uri = match job.storage.as_str() {
        "mem" => "mem://ranks".to_owned(),
        scheme => format!("{scheme}://{}", folder.display()),
    };
    let world_size = job.count as u32;
    let mut step = 0;
    let pass = move || {
        step += 1;
        let store = CheckpointStore::open(&uri).expect("a store");
        let layout = store.layout(step, Timestamp::now());
        let mut laps = Laps { last: Instant::now(), told: Vec::new() };
        let data = vec![1; SHARD_BYTES];
        let shards: Vec<(u32, &[u8])> = (0..world_size).map(|rank| (rank, &data[..])).collect();
        let shards = store.put_shards(&layout, world_size, &shards);
        let shards: Vec<ShardMeta> = shards.into_iter().map(|shard| shard.expect("a shard")).collect();
        for receipt in store.write_receipts(&layout, world_size, &shards) {
            receipt.expect("a receipt");
        }
        drop(shards);
        laps.lap("save_seconds");
        let before_bytes = status_bytes("VmRSS:");
        std::fs::write("/proc/self/clear_refs", "5").expect("the kernel resets the peak");
        let writer = store.writer(world_size, 0).expect("a writer");
        writer.finalize_distributed_checkpoint(&layout, "compare", 0, None, TIMEOUT).expect("a checkpoint");
        laps.lap("finalize_seconds");
        laps.told.push(("finalize_bytes", (status_bytes("VmHWM:") - before_bytes) as f64));
        let reader = CheckpointStore::open(&uri).expect("a store").reader();
        let found = reader.list_checkpoints().expect("a list");
        laps.lap("list_seconds");
        let manifest = reader.latest().expect("it reads").expect("a checkpoint");
        laps.lap("open_seconds");
        assert_eq!(manifest.world_size, world_size);
        let newest = found.first().expect("a checkpoint");
        let report = store.verify(newest, &|_| ()).expect("it can be verified");
        assert!(report.is_good(), "every shard is good");
        laps.lap("verify_seconds");
        laps.told
    };
    Contestant { before: Box::new(move || set_aside(&before)), pass: Box::new(pass) }
}

struct Laps {
    last: Instant,
    told: Vec<(&'static str, f64)>,
}

impl Laps {
    fn lap(&mut self, name: &'static str) {
        self.told.push((name, self.last.elapsed().as_secs_f64()));
        self.last = Instant::now();
    }
}
