//! What a checkpoint costs grows with its ranks, and not faster: allocations for each, and bytes at the peak.
//!
//! One test in a process of its own: it counts every allocation.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use support::Place;
use syncline::Config;
use syncline::checkpoint::CheckpointStore;

/// Counts allocations and bytes, of all threads.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        let bytes = layout.size() as u64;
        let now = BYTES.fetch_add(bytes, Ordering::Relaxed) + bytes;
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Most bytes at the peak for each rank, beside what a call takes whatever their number: a manifest's entry as
/// text and as values, its key, and what the listing says of it.
const RANK_BYTES_MAX: u64 = 4096;

/// What a call may take whatever the number of ranks: threads, buffers of formats, tables.
const CALL_BYTES_MAX: u64 = 512 * 1024;

/// How much more a rank may cost among a thousand than among a hundred, in percent.
const GROWTH_PERCENT_MAX: u64 = 115;

const FEW: u32 = 100;
const MANY: u32 = 1000;

/// What one call cost.
#[derive(Debug, Clone, Copy)]
struct Cost {
    allocations: u64,
    peak_bytes: u64,
}

fn cost_of<R>(f: impl FnOnce() -> R) -> (R, Cost) {
    let (allocations, bytes) = (ALLOCATIONS.load(Ordering::SeqCst), BYTES.load(Ordering::SeqCst));
    PEAK.store(bytes, Ordering::SeqCst);
    let result = f();
    let peak_bytes = PEAK.load(Ordering::SeqCst).saturating_sub(bytes);
    let allocations = ALLOCATIONS.load(Ordering::SeqCst) - allocations;
    (result, Cost { allocations, peak_bytes })
}

/// Saves a checkpoint of so many ranks, and returns what each call cost by its name.
fn costs(scheme: &str, ranks: u32) -> Vec<(&'static str, Cost)> {
    let place = Place::new(scheme, Config::builder());
    let checkpoints = CheckpointStore::new(place.store.clone(), &place.base);
    let layout = checkpoints.layout(1, "x".parse().unwrap());
    let data = [7; 100];
    let shards: Vec<(u32, &[u8])> = (0..ranks).map(|rank| (rank, data.as_slice())).collect();
    let mut costs = Vec::new();
    let (written, cost) = cost_of(|| checkpoints.put_shards(&layout, ranks, &shards));
    costs.push(("put_shards", cost));
    let written: Vec<_> = written.into_iter().map(Result::unwrap).collect();
    let (receipts, cost) = cost_of(|| checkpoints.write_receipts(&layout, ranks, &written));
    costs.push(("write_receipts", cost));
    receipts.into_iter().for_each(Result::unwrap);
    let writer = checkpoints.writer(ranks, 0).unwrap();
    let timeout = Duration::from_secs(60);
    let finalize = || writer.finalize_distributed_checkpoint(&layout, "x", 0, None, timeout);
    let (info, cost) = cost_of(finalize);
    costs.push(("finalize from receipts", cost));
    let info = info.unwrap();
    place.store.delete(&checkpoints.uri(&info.manifest_key)).unwrap();
    let finalize = || writer.finalize_checkpoint(&layout, "x", 0, written, None);
    let (finalized, cost) = cost_of(finalize);
    finalized.unwrap();
    costs.push(("finalize gathered", cost));
    let reader = checkpoints.reader();
    let (manifest, cost) = cost_of(|| reader.latest().unwrap().unwrap());
    costs.push(("latest", cost));
    costs.push(("list", cost_of(|| checkpoints.list().unwrap()).1));
    let (report, cost) = cost_of(|| checkpoints.verify(&info, &|_| {}).unwrap());
    assert!(report.is_good());
    costs.push(("verify", cost));
    costs.push(("verify_quick", cost_of(|| checkpoints.verify_quick(&info).unwrap()).1));
    let all: Vec<u32> = (0..ranks).collect();
    let (read, cost) = cost_of(|| reader.read_shards(&manifest, &all));
    assert!(read.into_iter().all(|read| read.unwrap() == data[..]));
    costs.push(("read_shards", cost));
    let delete = || checkpoints.delete_checkpoint(1, None).unwrap();
    costs.push(("delete_checkpoint", cost_of(delete).1));
    costs
}

#[test]
fn a_rank_costs_the_same_among_many() {
    for scheme in ["mem", "file"] {
        // What the process and its threads make once is made here.
        costs(scheme, FEW);
        for ((call, few), (_, many)) in costs(scheme, FEW).into_iter().zip(costs(scheme, MANY)) {
            eprintln!(
                "{scheme} {call}: {} and {} allocations, {} and {} bytes a rank",
                few.allocations / u64::from(FEW),
                many.allocations / u64::from(MANY),
                few.peak_bytes / u64::from(FEW),
                many.peak_bytes / u64::from(MANY),
            );
            let grown = many.allocations * 100 * u64::from(FEW);
            let allowed = few.allocations * GROWTH_PERCENT_MAX * u64::from(MANY);
            assert!(grown <= allowed, "{scheme} {call}: {few:?}, {many:?}");
            let most = CALL_BYTES_MAX + RANK_BYTES_MAX * u64::from(MANY);
            assert!(many.peak_bytes <= most, "{scheme} {call}: {many:?}");
        }
    }
}
