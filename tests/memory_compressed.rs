//! The bound on memory carries compressed checkpoints, written and read.
//!
//! One test in a process of its own, whose peak memory it reads.

#[path = "support/peak.rs"]
mod peak;
mod support;

use support::Place;
use syncline::checkpoint::CheckpointStore;
use syncline::{AlignedVec, Compression, Config, Filter, Timestamp};

const MIB: usize = 1 << 20;
/// Ranks of this process: writers that are open at a time.
const RANKS: u32 = 4;

/// Memory of zstd for each thread that compresses, as `Config::compression_bytes_max` tells it.
fn zstd_bytes(level: i32) -> u64 {
    match level {
        3 => 2 << 20,
        _ => 82 << 20,
    }
}

/// Beside buffers and zstd: the threads' stacks, pages of code and heap touched for the first time, and what
/// the allocator keeps for each thread.
const BESIDE_BYTES: u64 = 16 << 20;

/// A quarter does not shrink, the rest does to a fraction.
fn data(bytes: usize) -> AlignedVec {
    let mut data = support::aligned_noise(bytes, 1);
    for (index, piece) in data.chunks_mut(MIB / 16).enumerate() {
        if index % 64 >= 16 {
            piece.fill(index as u8);
        }
    }
    data
}

/// Writes a checkpoint with all ranks' writers open and takes it back; returns the growth of the peak in
/// writing and in reading, and the bytes that were stored.
fn round(
    checkpoints: &CheckpointStore,
    chunk: &[u8],
    chunks: usize,
    back: &mut [u8],
) -> (u64, u64, u64) {
    let layout = checkpoints.layout(1, Timestamp::now());
    let before = peak::reset();
    let ranks: Vec<_> = (0..RANKS).map(|rank| checkpoints.writer(RANKS, rank).unwrap()).collect();
    let mut writers: Vec<_> =
        ranks.iter().map(|rank| rank.get_shard_writer(&layout).unwrap()).collect();
    for index in 0..chunks {
        for (at, (writer, _)) in writers.iter_mut().enumerate() {
            // By copying, and from the caller's memory.
            match (index + at) % 2 {
                0 => writer.write_chunk(chunk).unwrap(),
                _ => writer.write_borrowed(chunk).unwrap(),
            }
        }
    }
    let finalized = ranks.iter().zip(writers).map(|(rank, (writer, key))| {
        rank.finalize_writer_to_shard_meta(&layout, key, writer).unwrap()
    });
    let shards: Vec<_> = finalized.collect();
    let stored = shards.iter().map(|shard| shard.size).sum();
    ranks[0].finalize_checkpoint(&layout, "generic", 0, shards, None).unwrap();
    let written = peak::bytes().saturating_sub(before);

    let before = peak::reset();
    let reader = checkpoints.reader();
    let manifest = reader.latest().unwrap().unwrap();
    for rank in 0..RANKS {
        back.fill(1);
        reader.read_shard_into(&manifest, rank, back).unwrap();
        assert!(back.chunks(chunk.len()).all(|piece| piece == chunk), "rank {rank}");
    }
    // In ranges that cut frames.
    let (head, tail) = (100..chunk.len() + 300, back.len() - 5..back.len());
    for range in [head, tail] {
        reader.read_shard_range_into(&manifest, 0, range.start as u64, &mut back[range]).unwrap();
    }
    let info = reader.list_checkpoints().unwrap().pop().unwrap();
    assert!(checkpoints.verify(&info, &|_| ()).unwrap().is_good());
    (written, peak::bytes().saturating_sub(before), stored)
}

#[test]
fn compressed_checkpoints_keep_to_the_bound() {
    // Frames of 4 and of 8 MiB; the last costs a second for each MiB, so it gets few.
    for (level, filter, bound_mib, part_mib, chunks) in [
        (3, Filter::None, 160, 1, 32),
        (3, Filter::Shuffle4, 320, 8, 32),
        (19, Filter::None, 160, 1, 2),
    ] {
        for scheme in ["file", "mem"] {
            let config = || {
                Config::builder()
                    .part_bytes(part_mib * MIB)
                    .compression_threads(2)
                    .open_writers_max(RANKS as usize)
                    .memory_bytes_max((bound_mib * MIB) as u64)
                    .compressing(true)
            };
            let bound = config().build().unwrap().memory_bytes_max();
            assert!(bound <= (bound_mib * MIB) as u64);
            let chunk = data(3 * MIB);
            let mut back = vec![1; chunks * chunk.len()];
            let place = Place::new(scheme, config());
            let zstd = Compression::zstd(level).unwrap().with_filter(filter).unwrap();
            let checkpoints =
                CheckpointStore::open_with(&place.uri("base"), &config().build().unwrap()).unwrap();
            let checkpoints = checkpoints.with_compression(zstd);
            let (written, read, stored) = round(&checkpoints, &chunk, chunks, &mut back);
            // The medium is memory itself.
            let medium = if scheme == "mem" { stored } else { 0 };
            let allowed = bound + 2 * zstd_bytes(level) + BESIDE_BYTES + medium;
            assert!(
                written <= allowed,
                "{scheme} {level} {filter:?}: writing took {written} of {allowed}"
            );
            assert!(
                read <= allowed,
                "{scheme} {level} {filter:?}: reading took {read} of {allowed}"
            );
        }
    }
}
