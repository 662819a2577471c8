//! Compressed shards: read whole and in ranges, verified to the last byte, refused by name.

use crate::backend::MemoryBackend;
use crate::config::Config;
use crate::encode::sample::{Sample, compressed, mixed};
use crate::encode::{Algorithm, BlockChecksums, Filter};
use crate::error::ErrorKind;
use crate::store::{ObjectStore, Store};
use crate::sync::Arc;
use crate::time::Timestamp;
use crate::uri::Location;

use super::manifest::Manifest;
use super::shard::ShardMeta;
use super::verify::{ByteRange, ShardState};
use super::{CheckpointInfo, CheckpointStore};

const BLOCK: usize = 64 * 1024;
const FRAME: usize = 2 * BLOCK;
const BASE: &str = "mem://frames/base";

/// A checkpoint of one compressed shard.
struct Saved {
    store: Arc<dyn ObjectStore>,
    checkpoints: CheckpointStore,
    info: CheckpointInfo,
    manifest: Manifest,
    data: Vec<u8>,
    sample: Sample,
}

impl Saved {
    fn new(data: Vec<u8>, filter: Filter, edit: impl Fn(&mut ShardMeta, &[u8])) -> Saved {
        let config = Config::builder().part_bytes(BLOCK).build().unwrap();
        let backend = Arc::new(MemoryBackend::new("frames"));
        let location = Location::parse(BASE).unwrap();
        let store: Arc<dyn ObjectStore> =
            Arc::new(Store::with_backend(&location, &config, backend));
        let checkpoints = CheckpointStore::new(Arc::clone(&store), BASE);
        let sample = compressed(&data, FRAME, 3, filter);
        let crc32c = data.chunks(BLOCK).map(|b| Algorithm::Crc32c.checksum(b).value() as u32);
        let size = data.len() as u64;
        let blocks = BlockChecksums::new(BLOCK as u64, size, crc32c.collect()).unwrap();
        let layout = checkpoints.layout(1, Timestamp::now());
        let mut shard = ShardMeta {
            rank: 0,
            key: format!("{}{}", layout.shard_key(0), filter.suffix()),
            size: sample.bytes.len() as u64,
            etag: None,
            checksum: Some(blocks.combined().to_string()),
            raw_size: Some(size),
            stored_checksum: Some(Algorithm::Crc32c.checksum(&sample.bytes).to_string()),
            compression: Some("zstd".to_owned()),
            filter: (filter != Filter::None).then(|| filter.name().to_owned()),
            part_bytes: Some(BLOCK as u64),
            part_checksums: Some(blocks.to_hex()),
        };
        edit(&mut shard, &data);
        store.put(&format!("{BASE}/{}", shard.key), &sample.bytes).unwrap();
        let writer = checkpoints.writer(1, 0).unwrap();
        writer.finalize_checkpoint(&layout, "generic", 0, vec![shard], None).unwrap();
        let manifest = checkpoints.reader().latest().unwrap().unwrap();
        let info = checkpoints.reader().list_checkpoints().unwrap().pop().unwrap();
        Saved { store, checkpoints, info, manifest, data, sample }
    }

    fn put(&self, bytes: &[u8]) {
        self.store.put(&format!("{BASE}/{}", self.manifest.shards[0].key), bytes).unwrap();
    }

    fn state(&self) -> ShardState {
        let report = self.checkpoints.verify(&self.info, &|_| {}).unwrap();
        assert_eq!(report.read_bytes, self.sample.bytes.len() as u64);
        report.shards.into_iter().next().unwrap().state
    }
}

/// What a manifest may have to compare the bytes with.
fn proofs() -> [fn(&mut ShardMeta, &[u8]); 4] {
    [
        |_, _| {},
        |shard, _| (shard.part_bytes, shard.part_checksums) = (None, None),
        |shard, data| {
            (shard.part_bytes, shard.part_checksums) = (None, None);
            shard.checksum = Some(Algorithm::Crc64Nvme.checksum(data).to_string());
        },
        |shard, _| {
            (shard.part_bytes, shard.part_checksums) = (None, None);
            (shard.checksum, shard.stored_checksum) = (None, None);
        },
    ]
}

#[test]
fn compressed_shards_are_read_whole_and_in_ranges() {
    let data = mixed(3 * FRAME + BLOCK + 77, 1);
    for filter in [Filter::None, Filter::Shuffle4, Filter::Shuffle8] {
        for (index, proof) in proofs().into_iter().enumerate() {
            let saved = Saved::new(data.clone(), filter, proof);
            let reader = saved.checkpoints.reader();
            let whole = reader.read_shard_by_rank(&saved.manifest, 0).unwrap();
            assert!(whole == data, "{filter:?}, proof {index}");
            for (from, to) in
                [(0, 10), (5, FRAME + 5), (FRAME, 2 * FRAME), (BLOCK, data.len()), (9, 9)]
            {
                for reader in [reader.clone(), reader.clone().without_verification()] {
                    let mut part = vec![0; to - from];
                    let report = reader
                        .read_shard_range_into(&saved.manifest, 0, from as u64, &mut part)
                        .unwrap();
                    assert_eq!(report.bytes as usize, part.len());
                    assert!(part == data[from..to], "{filter:?}, proof {index}, {from}..{to}");
                }
            }
            let good = if index == 3 { ShardState::NoChecksum } else { ShardState::Ok };
            assert_eq!(saved.state(), good, "{filter:?}, proof {index}");
        }
    }
}

/// Whatever byte is flipped, verify shows it, within the frame that it is in.
#[test]
fn any_flipped_byte_is_damage_in_its_place() {
    let data: Vec<u8> = (0..2 * FRAME + 500).map(|at| (at / 64 % 90) as u8).collect();
    let blocks = Saved::new(data.clone(), Filter::Shuffle4, proofs()[0]);
    let whole = Saved::new(data, Filter::Shuffle4, proofs()[1]);
    for saved in [&blocks, &whole] {
        let bytes = &saved.sample.bytes;
        let table_at = saved.sample.frames.last().unwrap().end;
        for at in (0..table_at).step_by(7).chain(table_at..bytes.len()) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            saved.put(&flipped);
            let ShardState::Damaged { ranges, stored_ranges } = saved.state() else {
                panic!("byte {at} of {} is not seen", bytes.len());
            };
            let holds = |range: &ByteRange, at: usize| span(range).contains(&(at as u64));
            let stored = stored_ranges.first().unwrap();
            let Some(hit) = saved.sample.frames.iter().position(|frame| frame.contains(&at)) else {
                let all = saved.data.len() as u64;
                assert_eq!(only(&ranges), 0..all);
                assert_eq!(stored.offset_bytes + stored.length_bytes, bytes.len() as u64);
                assert!(stored.offset_bytes >= table_at as u64, "byte {at}: {stored:?}");
                continue;
            };
            assert!(holds(stored, at), "byte {at}: {stored_ranges:?}");
            if let Some(range) = ranges.first() {
                let frame = &saved.sample.frames[hit];
                assert_eq!(stored_ranges, [ByteRange::of(frame.start as u64..frame.end as u64)]);
                let end = saved.data.len().min((hit + 1) * FRAME) as u64;
                assert_eq!(span(range), (hit * FRAME) as u64..end, "byte {at}");
                let error =
                    saved.checkpoints.reader().read_shard_by_rank(&saved.manifest, 0).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error}");
            }
        }
    }
}

/// The bytes of a range, whatever blocks they lie in.
fn span(range: &ByteRange) -> std::ops::Range<u64> {
    range.offset_bytes..range.offset_bytes + range.length_bytes
}

/// The one range there is.
fn only(ranges: &[ByteRange]) -> std::ops::Range<u64> {
    match ranges {
        [range] => span(range),
        _ => panic!("{ranges:?}"),
    }
}

/// Frames that decompress rightly, but to other bytes than the manifest says.
#[test]
fn blocks_that_differ_are_damage() {
    let saved = Saved::new(mixed(4 * FRAME, 1), Filter::None, proofs()[0]);
    let mut other = saved.data.clone();
    other[FRAME + BLOCK + 5] ^= 1;
    let bytes = compressed(&other, FRAME, 3, Filter::None).bytes;
    assert_eq!(bytes.len(), saved.sample.bytes.len(), "stored as they are");
    saved.put(&bytes);
    let ShardState::Damaged { ranges, stored_ranges } = saved.state() else { panic!() };
    let start = (FRAME + BLOCK) as u64;
    assert_eq!(only(&ranges), start..start + BLOCK as u64);
    assert_eq!(stored_ranges, [ByteRange::of(0..bytes.len() as u64)]);
    let error = saved.checkpoints.reader().read_shard_by_rank(&saved.manifest, 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
    assert!(error.to_string().contains(&format!("bytes {start}..")), "{error}");
}

#[test]
fn forms_are_refused_by_name() {
    use ErrorKind::{Corrupt, Unsupported};
    type Edit = fn(&mut ShardMeta);
    let cases: [(&str, ErrorKind, Edit); 10] = [
        ("lz4", Unsupported, |s| s.compression = Some("lz4".to_owned())),
        ("bitshuf", Unsupported, |s| s.filter = Some("bitshuf".to_owned())),
        ("raw_size", Corrupt, |s| s.raw_size = None),
        (".zst", Corrupt, |s| s.filter = None),
        (".shuf8.zst", Corrupt, |s| s.filter = Some("shuf8".to_owned())),
        ("shuf4", Corrupt, |s| s.compression = None),
        ("not compressed", Corrupt, |s| (s.compression, s.filter) = (None, None)),
        ("does not end", Corrupt, |s| s.key.truncate(s.key.len() - 4)),
        ("cannot be", Corrupt, |s| s.raw_size = Some(s.size * 40_000)),
        ("zstd -d", Unsupported, |s| {
            (s.compression, s.filter, s.raw_size) = (None, None, None);
            (s.stored_checksum, s.part_bytes, s.part_checksums) = (None, None, None);
        }),
    ];
    let shard =
        Saved::new(mixed(4 * FRAME, 1), Filter::Shuffle4, proofs()[0]).manifest.shards.remove(0);
    assert!(shard.form().unwrap().is_some());
    for (needle, kind, edit) in cases {
        let mut changed = shard.clone();
        edit(&mut changed);
        let error = changed.form().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(needle), "{needle} is not in: {error}");
        assert_eq!(changed.check().is_ok(), kind == Unsupported, "{needle}");
    }
}

/// Where a shard has no bytes, no range of them is damaged, and yet it cannot be read.
#[test]
fn an_empty_shard_whose_table_is_damaged_is_not_chosen() {
    let saved = Saved::new(Vec::new(), Filter::None, proofs()[0]);
    assert!(saved.checkpoints.reader().choose_good_step().unwrap().is_some());
    let mut flipped = saved.sample.bytes.clone();
    flipped[0] ^= 1;
    saved.put(&flipped);
    assert!(matches!(saved.state(), ShardState::Damaged { .. }));
    let reader = saved.checkpoints.reader();
    let error = reader.read_shard_into(&saved.manifest, 0, &mut []).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let error = reader.choose_good_step().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

/// Another object of the same sizes decompresses as well: only the checksum of the stored bytes tells.
#[test]
fn a_checksum_of_the_stored_bytes_alone_is_proof_enough() {
    let saved = Saved::new(mixed(4 * FRAME, 1), Filter::None, |shard, _| {
        (shard.checksum, shard.part_bytes, shard.part_checksums) = (None, None, None);
    });
    let reader = saved.checkpoints.reader();
    assert!(reader.choose_good_step().unwrap().is_some());
    let mut other = saved.data.clone();
    other[FRAME + BLOCK + 5] ^= 1;
    let bytes = compressed(&other, FRAME, 3, Filter::None).bytes;
    assert_eq!(bytes.len(), saved.sample.bytes.len(), "stored as they are");
    saved.put(&bytes);
    assert!(matches!(saved.state(), ShardState::Damaged { .. }));
    let error = reader.choose_good_step().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let error = reader.read_shard_by_rank(&saved.manifest, 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChecksumMismatch, "{error}");
}

/// What this version cannot read is not good by its size or its tag.
#[test]
fn a_quick_look_does_not_vouch_for_what_cannot_be_read() {
    let saved = Saved::new(mixed(FRAME, 1), Filter::None, |shard, _| {
        shard.compression = Some("lz4".to_owned());
    });
    let verdict = |report: super::VerifyReport| report.verdict;
    let full = saved.checkpoints.verify(&saved.info, &|_| {}).unwrap();
    let quick = saved.checkpoints.verify_quick(&saved.info).unwrap();
    assert_eq!(verdict(quick), verdict(full));
}

/// A key that no file of this machine can have is a shard that is not there.
#[test]
fn keys_that_no_file_can_have_do_not_end_the_walk() {
    let scratch = tempfile::tempdir().unwrap();
    let base = format!("file://{}/base", scratch.path().to_str().unwrap());
    let checkpoints = CheckpointStore::open(&base).unwrap();
    checkpoints.save(1, 0, "generic", b"state", None).unwrap();
    let mut forged = checkpoints.reader().latest().unwrap().unwrap();
    let (long, file) = ("x".repeat(300), forged.shards[0].key.clone());
    let keys = ["shards/LONG", "shards/LONG/x", "FILE/x", "FILE/x/y"];
    for key in keys.map(|key| key.replace("LONG", &long).replace("FILE", &file)) {
        forged.global_step = 2;
        forged.shards[0].key = key;
        let name = CheckpointInfo::new(2, Timestamp::now()).manifest_key;
        checkpoints.store().put(&checkpoints.uri(&name), &forged.to_json()).unwrap();
        let good = checkpoints.reader().choose_good_step().unwrap().unwrap();
        assert_eq!(good.info.step, 1);
        let report = checkpoints.verify(&good.skipped[0].info, &|_| {}).unwrap();
        assert_eq!(report.shards[0].state, ShardState::Missing);
        assert_eq!(checkpoints.prune(1).unwrap().kept.last().unwrap().step, 2);
        checkpoints.gc(std::time::Duration::ZERO, true).unwrap();
    }
}
