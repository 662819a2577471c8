//! Every byte of a small checkpoint is flipped, one at a time: each is detected and located, none panics.

use std::time::Duration;

use syncline::checkpoint::{CheckpointInfo, ShardState, Verdict};
use syncline::{Compression, ErrorKind};

use crate::support::{BLOCK, Fixture, Medium, fixture, state, ts};

/// Two blocks, the second shorter: compressible, so that what is stored is small.
fn data() -> Vec<u8> {
    let mut data = vec![0; BLOCK + 5000];
    data[..1500].copy_from_slice(&state(1, 1500));
    data[BLOCK + 100..BLOCK + 600].copy_from_slice(&state(2, 500));
    data
}

fn save(compression: Compression, data: &[u8]) -> (Fixture, CheckpointInfo) {
    let mut f = fixture(Medium::Mem);
    f.checkpoints = f.checkpoints.clone().with_compression(compression);
    let info = f.save_at(1, "x", &[data]);
    (f, info)
}

/// Flips each byte of an object in turn and puts it back.
fn each_flip(f: &Fixture, key: &str, mut check: impl FnMut(usize)) {
    let mut bytes = f.get(key);
    for at in 0..bytes.len() {
        bytes[at] ^= 1 << (at % 8);
        f.put(key, &bytes);
        check(at);
        bytes[at] ^= 1 << (at % 8);
    }
    f.put(key, &bytes);
}

fn flipped_shards_are_found(compression: Compression, data: &[u8]) {
    let (f, info) = save(compression, data);
    let shard = f.latest().shard(0).unwrap().clone();
    let reader = f.checkpoints.reader();
    each_flip(&f, &shard.key, |at| {
        let report = f.checkpoints.verify(&info, &|_| {}).unwrap();
        assert_eq!(report.verdict, Verdict::Damaged, "byte {at}");
        let ShardState::Damaged { ranges, stored_ranges, .. } = &report.shards[0].state else {
            panic!("byte {at}: {report:?}");
        };
        let at = at as u64;
        let holds = |r: &&syncline::checkpoint::ByteRange| {
            (r.offset_bytes..r.offset_bytes + r.length_bytes).contains(&at)
        };
        let located = if compression == Compression::None { ranges } else { stored_ranges };
        assert!(located.iter().any(|r| holds(&r)), "byte {at}: {report:?}");
        // A restore gives the right data or none. (Some bits of a compressed frame mean nothing.)
        match reader.read_shard_by_rank(&f.latest(), 0) {
            Ok(read) => assert!(compression != Compression::None && read == data, "byte {at}"),
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::ChecksumMismatch | ErrorKind::Corrupt),
                "byte {at}: {error}"
            ),
        }
    });
    assert!(f.checkpoints.verify(&info, &|_| {}).unwrap().is_good());
}

#[test]
fn every_flipped_byte_of_a_raw_shard_is_located() {
    let short = &data()[..BLOCK + 100];
    flipped_shards_are_found(Compression::None, short);
}

#[test]
fn every_flipped_byte_of_a_compressed_shard_is_located() {
    flipped_shards_are_found(Compression::zstd(3).unwrap(), &data());
}

#[test]
fn every_flipped_byte_of_a_manifest_is_found() {
    for compression in [Compression::None, Compression::zstd(3).unwrap()] {
        let (f, info) = save(compression, &data());
        each_flip(&f, &info.manifest_key, |at| {
            let error = f.checkpoints.reader().load_manifest(&info.manifest_key).unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported),
                "byte {at}: {error}"
            );
            assert!(error.uri().is_some_and(|uri| uri.ends_with(&info.manifest_key)), "{error}");
            let report = f.checkpoints.verify(&info, &|_| {}).unwrap();
            assert!(report.manifest_error.is_some() && !report.is_good(), "byte {at}");
        });
        assert!(f.checkpoints.verify(&info, &|_| {}).unwrap().is_good());
    }
}

#[test]
fn every_flipped_byte_of_a_receipt_is_found() {
    for compression in [Compression::None, Compression::zstd(3).unwrap()] {
        let mut f = fixture(Medium::Mem);
        f.checkpoints = f.checkpoints.clone().with_compression(compression);
        let layout = f.checkpoints.layout(1, ts("x"));
        let rank = f.checkpoints.writer(1, 0).unwrap();
        rank.save_distributed_shard(&layout, &data()).unwrap();
        let key = layout.receipt_key(0);
        let finalize =
            || rank.finalize_distributed_checkpoint(&layout, "generic", 0, None, Duration::ZERO);
        each_flip(&f, &key, |at| {
            let error = finalize().unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported),
                "byte {at}: {error}"
            );
            assert!(error.to_string().contains(&key), "byte {at}: {error}");
            assert!(!f.exists(&layout.manifest_key()), "byte {at}");
        });
        finalize().unwrap();
    }
}

#[test]
fn a_flipped_hint_changes_nothing() {
    let (f, _) = save(Compression::None, &data());
    each_flip(&f, "latest.json", |at| {
        assert_eq!(f.latest_step(), Some(1), "byte {at}");
    });
}
