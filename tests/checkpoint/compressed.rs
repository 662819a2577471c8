//! Compressed shards: what is stored, what comes back, and what tools of others make of it.

use std::fs;
use std::process::Command;

use proptest::prelude::*;
use syncline::checkpoint::{Manifest, ShardMeta, ShardState, Verdict};
use syncline::{AlignedVec, Bytes, Compression, ErrorKind, Filter, ObjectWriter, Result};

use crate::support::{BLOCK, Fixture, Medium, fixture, on_all_media, state, ts};

on_all_media! {
    compressed_shards_come_back_whole_and_in_part
    checkpoints_of_all_kinds_live_side_by_side
    damage_in_a_compressed_shard_is_located
    a_seek_table_that_is_damaged_is_damage
    the_report_and_the_ratio_are_true
}

/// Raw bytes of a frame in these tests, where the medium takes parts as small as theirs.
const FRAME: usize = 4 << 20;

const FILTERS: [Filter; 3] = [Filter::None, Filter::Shuffle4, Filter::Shuffle8];

fn zstd(level: i32, filter: Filter) -> Compression {
    Compression::zstd(level).unwrap().with_filter(filter).unwrap()
}

/// The same place, compressing what is saved from now on.
fn compressing(mut f: Fixture, compression: Compression) -> Fixture {
    f.checkpoints = compressing_ref(&f, compression);
    f
}

/// Data that shrinks, but nowhere to nothing, and differs everywhere.
fn field(seed: u64, bytes: usize) -> Vec<u8> {
    let mut data = state(seed, bytes);
    for (index, element) in data.chunks_mut(4).enumerate() {
        let high = (index as u32).to_le_bytes();
        let count = element.len();
        element[1..].copy_from_slice(&high[1..count]);
    }
    data
}

fn compressed_shards_come_back_whole_and_in_part(f: Fixture) {
    for (step, filter) in (0..).zip(FILTERS) {
        let f = compressing_ref(&f, zstd(3, filter));
        let data = [field(step + 1, 2 * FRAME + 12_345), Vec::new(), vec![7; 100]];
        let shards: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        save(&f, step, &shards);
        let reader = f.reader();
        let manifest = reader.latest().unwrap().unwrap();
        for (rank, data) in (0..).zip(&data) {
            let shard = manifest.shard(rank).unwrap();
            assert!(shard.key.ends_with(&format!("rank-{rank}.bin{}", zstd(3, filter).suffix())));
            assert_eq!(shard.raw_bytes(), data.len() as u64);
            assert_eq!(reader.read_shard_by_rank(&manifest, rank).unwrap(), data[..]);
            let unverified = reader.clone().without_verification();
            assert_eq!(unverified.read_shard_by_rank(&manifest, rank).unwrap(), data[..]);
        }
        assert!(manifest.shard(0).unwrap().size < data[0].len() as u64);
        for (from, to) in
            [(0, 1), (FRAME - 1, FRAME + 1), (5, 2 * FRAME + 5), (2 * FRAME, 2 * FRAME)]
        {
            let mut memory = vec![0; to - from];
            reader.read_shard_range_into(&manifest, 0, from as u64, &mut memory).unwrap();
            assert!(memory == data[0][from..to], "{from}..{to}");
        }
    }
}

fn compressing_ref(f: &Fixture, compression: Compression) -> syncline::checkpoint::CheckpointStore {
    f.checkpoints.clone().with_compression(compression)
}

fn save(checkpoints: &syncline::checkpoint::CheckpointStore, step: u64, shards: &[&[u8]]) {
    let layout = checkpoints.layout(step, ts("x"));
    let world_size = shards.len() as u32;
    for (rank, data) in (0..).zip(shards) {
        checkpoints
            .writer(world_size, rank)
            .unwrap()
            .save_distributed_shard(&layout, data)
            .unwrap();
    }
    let finalizer = checkpoints.writer(world_size, 0).unwrap();
    let timeout = std::time::Duration::from_secs(60);
    finalizer.finalize_distributed_checkpoint(&layout, "generic", 0, None, timeout).unwrap();
}

fn checkpoints_of_all_kinds_live_side_by_side(f: Fixture) {
    let data = field(1, 300_000);
    save(&f.checkpoints, 1, &[&data]);
    save(&compressing_ref(&f, zstd(1, Filter::None)), 2, &[&data]);
    save(&compressing_ref(&f, zstd(9, Filter::Shuffle4)), 3, &[&data]);
    // Readers go by the manifest, whatever they would write themselves.
    let reader = f.checkpoints.reader();
    for step in 1..=3 {
        let manifest = reader.find_manifest_by_step(step).unwrap().unwrap();
        assert_eq!(reader.read_shard_by_rank(&manifest, 0).unwrap(), data[..]);
    }
    for info in reader.list_checkpoints().unwrap() {
        let report = f.checkpoints.verify(&info, &|_| {}).unwrap();
        assert_eq!(report.verdict, Verdict::Good, "{report:?}");
    }
}

fn damage_in_a_compressed_shard_is_located(f: Fixture) {
    let f = compressing(f, zstd(3, Filter::None));
    let frame = f.checkpoints.store().config().frame_bytes();
    let data = field(5, 3 * frame);
    let info = f.save_at(1, "x", &[&data]);
    let shard = f.latest().shard(0).unwrap().clone();
    // The second of three frames of equal sizes is in the middle.
    f.flip(&shard.key, shard.size as usize / 2);
    let reader = f.checkpoints.reader();
    let error = reader.read_shard_by_rank(&f.latest(), 0).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::ChecksumMismatch), "{error}");
    assert!(error.uri().is_some_and(|uri| uri.ends_with(&shard.key)), "{error}");
    let report = f.checkpoints.verify(&info, &|_| {}).unwrap();
    let ShardState::Damaged { ranges, stored_ranges, .. } = &report.shards[0].state else {
        panic!("{report:?}");
    };
    let (first, last) = (&ranges[0], ranges.last().unwrap());
    assert!(first.offset_bytes >= frame as u64, "{ranges:?}");
    assert!(last.offset_bytes + last.length_bytes <= 2 * frame as u64, "{ranges:?}");
    assert!(
        stored_ranges.iter().any(|r| r.offset_bytes <= shard.size / 2
            && r.offset_bytes + r.length_bytes > shard.size / 2),
        "{stored_ranges:?}"
    );
    // The other frames are as good as ever.
    let mut memory = vec![0; frame];
    for from in [0, 2 * frame] {
        reader.read_shard_range_into(&f.latest(), 0, from as u64, &mut memory).unwrap();
        assert!(memory == data[from..from + frame]);
    }
}

fn a_seek_table_that_is_damaged_is_damage(f: Fixture) {
    let f = compressing(f, zstd(3, Filter::None));
    let info = f.save_at(1, "x", &[&field(5, 100_000)]);
    let shard = f.latest().shard(0).unwrap().clone();
    for back in [1, 5, 9, 10, 17, 25] {
        f.flip(&shard.key, shard.size as usize - back);
        let report = f.checkpoints.verify(&info, &|_| {}).unwrap();
        assert_eq!(report.verdict, Verdict::Damaged, "{back}: {report:?}");
        f.flip(&shard.key, shard.size as usize - back);
    }
    assert!(f.checkpoints.verify(&info, &|_| {}).unwrap().is_good());
}

fn the_report_and_the_ratio_are_true(f: Fixture) {
    let layout = compressing_ref(&f, zstd(3, Filter::None)).layout(1, ts("x"));
    let rank = f.checkpoints.writer(1, 0).unwrap();
    let (mut writer, key) = rank.get_shard_writer(&layout).unwrap();
    assert_eq!(writer.compression(), zstd(3, Filter::None));
    assert_eq!((writer.compressed_bytes(), writer.compression_ratio()), (0, 1.0));
    let frame = f.checkpoints.store().config().frame_bytes();
    let zeros = vec![0; frame];
    // The compressible frames stand between others, so that each is told for itself.
    for seed in 0..4 {
        writer.write_chunk(&zeros).unwrap();
        writer.write_owned(Bytes::from(state(seed, frame))).unwrap();
        let ratio = writer.compression_ratio();
        assert!(ratio > 0.0 && ratio <= 1.01, "{ratio}");
    }
    assert_eq!(writer.bytes_written(), 8 * frame as u64);
    let meta = rank.finalize_writer_to_shard_meta(&layout, key, writer).unwrap();
    assert_eq!(meta.raw_size, Some(8 * frame as u64));
    let half = 4 * frame as u64;
    assert!((half..half + half / 500).contains(&meta.size), "{meta:?}");

    let uri = format!("{}/plain.zst", f.base);
    let options = syncline::WriteOptions::default().compression(zstd(3, Filter::None));
    let noise = state(9, 3 * frame + 1);
    let report = f.checkpoints.store().put_with(&uri, &noise, options).unwrap();
    let (stored, report) = (report.size_bytes, report.write.unwrap());
    assert_eq!((report.bytes, report.stored_bytes), (noise.len() as u64, stored));
    assert_eq!((report.frames, report.unshrunk_frames), (4, 4));
    assert!(report.compression_ratio() > 1.0 && report.compression_ratio() < 1.001);
}

/// How a test hands bytes to a writer.
#[derive(Debug, Clone, Copy)]
enum Way {
    Chunk,
    Owned,
    Borrowed,
    Reserve,
}

fn write(writer: &mut dyn ObjectWriter, way: Way, mut data: &[u8]) -> Result<()> {
    match way {
        Way::Chunk => writer.write_chunk(data),
        Way::Owned => writer.write_owned(Bytes::copy_from_slice(data)),
        Way::Borrowed => writer.write_borrowed(data),
        Way::Reserve => {
            while !data.is_empty() {
                let room = writer.reserve()?;
                let step = room.len().min(data.len());
                room[..step].copy_from_slice(&data[..step]);
                writer.commit(step)?;
                data = &data[step..];
            }
            Ok(())
        }
    }
}

fn pieces() -> impl Strategy<Value = Vec<(Way, usize)>> {
    let way =
        prop_oneof![Just(Way::Chunk), Just(Way::Owned), Just(Way::Borrowed), Just(Way::Reserve)];
    let size = prop_oneof![0..200_000usize, FRAME - 10..FRAME + 10, Just(2 * FRAME)];
    proptest::collection::vec((way, size), 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// However the bytes are handed over: one object, whose every range reads back.
    #[test]
    fn any_way_in_any_setting_any_range(
        pieces in pieces(),
        level in 1i32..=5,
        filter in prop_oneof![Just(Filter::None), Just(Filter::Shuffle4), Just(Filter::Shuffle8)],
        seed in 1u64..1000,
        shrinks in any::<bool>(),
        cuts in proptest::collection::vec((0.0..1.0f64, 0.0..1.0f64), 1..4),
    ) {
        let f = compressing(fixture(Medium::Mem), zstd(level, filter));
        let bytes = pieces.iter().map(|(_, bytes)| bytes).sum();
        let data = if shrinks { field(seed, bytes) } else { state(seed, bytes) };
        let layout = f.checkpoints.layout(1, ts("x"));
        let rank = f.checkpoints.writer(1, 0).unwrap();
        let (mut writer, key) = rank.get_shard_writer(&layout).unwrap();
        let mut from = 0;
        for (way, bytes) in pieces {
            write(&mut *writer, way, &data[from..from + bytes]).unwrap();
            from += bytes;
        }
        let shard = rank.finalize_writer_to_shard_meta(&layout, key.clone(), writer).unwrap();
        rank.finalize_checkpoint(&layout, "generic", 0, vec![shard], None).unwrap();
        let other = compressing(fixture(Medium::Mem), zstd(level, filter));
        other.save_at(1, "x", &[&data]);
        prop_assert!(other.get(&key) == f.get(&key), "equal data gives equal objects");

        let (reader, manifest) = (f.checkpoints.reader(), f.latest());
        let mut memory = AlignedVec::zeroed(bytes).unwrap();
        reader.read_shard_into(&manifest, 0, &mut memory).unwrap();
        prop_assert!(memory[..] == data[..]);
        for (a, b) in cuts {
            let (a, b) = ((a * bytes as f64) as usize, (b * bytes as f64) as usize);
            let (from, to) = (a.min(b), a.max(b));
            let mut memory = vec![0; to - from];
            reader.read_shard_range_into(&manifest, 0, from as u64, &mut memory).unwrap();
            prop_assert!(memory == data[from..to]);
        }
    }
}

/// The Debian package `zstd` opens what we write, and sees the shuffled bytes where the suffix says so.
#[test]
fn the_tool_zstd_opens_our_shards() {
    let data = [field(1, FRAME + FRAME / 2), state(2, FRAME + 1), Vec::new()];
    let shards: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    for filter in FILTERS {
        let f = compressing(fixture(Medium::File), zstd(3, filter));
        f.save_at(1, "x", &shards);
        for (rank, data) in (0..).zip(&data) {
            let path = f.directory().unwrap().join(&f.latest().shard(rank).unwrap().key);
            let output = Command::new("zstd").arg("-dqc").arg(&path).output().expect("zstd runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(output.stdout.len(), data.len());
            assert_eq!(output.stdout == *data, filter == Filter::None || data.is_empty());
            let tested = Command::new("zstd").args(["-tq"]).arg(&path).status().unwrap();
            assert!(tested.success());
        }
        fs::remove_dir_all(f.directory().unwrap()).unwrap();
    }
}

/// A manifest that says other than it did, with a seal that is right.
fn resealed(f: &Fixture, edit: impl FnOnce(&mut ShardMeta)) -> Result<Manifest> {
    let mut manifest = f.latest();
    edit(&mut manifest.shards[0]);
    Manifest::from_json(&manifest.to_json())
}

#[test]
fn a_manifest_bounds_what_is_decompressed() {
    let f = compressing(fixture(Medium::Mem), zstd(3, Filter::None));
    let data = vec![0; 3 * FRAME];
    f.save_at(1, "x", &[&data]);
    let reader = f.checkpoints.reader();
    for raw_size in [0, 1, BLOCK as u64, data.len() as u64 - 1, data.len() as u64 + 1, 1 << 50] {
        let forged = resealed(&f, |shard| {
            shard.raw_size = Some(raw_size);
            (shard.part_bytes, shard.part_checksums) = (None, None);
        });
        let error = forged.and_then(|m| reader.read_shard_by_rank(&m, 0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{raw_size}: {error}");
    }
}

#[test]
fn unknown_forms_are_refused_by_name() {
    let f = compressing(fixture(Medium::Mem), zstd(3, Filter::Shuffle4));
    f.save_at(1, "x", &[&[7; 1000]]);
    let reader = f.checkpoints.reader();
    type Edit = fn(&mut ShardMeta);
    let cases: [(&str, Edit); 2] = [
        ("shuf16", |shard| shard.filter = Some("shuf16".to_owned())),
        ("lz4", |shard| shard.compression = Some("lz4".to_owned())),
    ];
    for (name, edit) in cases {
        let refused = resealed(&f, edit).and_then(|m| reader.read_shard_by_rank(&m, 0));
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    // The filter contradicts the suffix of the key.
    let refused = resealed(&f, |shard| shard.filter = Some("shuf8".to_owned()));
    let refused = refused.and_then(|m| reader.read_shard_by_rank(&m, 0));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corrupt);
}
