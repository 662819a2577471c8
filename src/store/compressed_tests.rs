//! Reading compressed objects: every range comes back, and nothing that is damaged or forged does.

use proptest::prelude::*;

use super::{CompressedForm, FrameScan, ObjectStore, ScanOptions, open_store};
use crate::buffer::AlignedVec;
use crate::config::Config;
use crate::encode::sample::{Sample, compressed, mixed, with_table};
use crate::encode::{Algorithm, BlockChecksums, Checksum, Filter};
use crate::error::{ErrorKind, Result};
use crate::sync::Arc;

const FRAME: usize = 64 * 1024;

/// An object in a store of small parts and few threads.
struct Place {
    store: Arc<dyn ObjectStore>,
    uri: String,
    _directory: tempfile::TempDir,
}

impl Place {
    fn new(scheme: &str) -> Place {
        let directory = tempfile::tempdir().unwrap();
        let base = match scheme {
            "mem" => "mem://compressed".to_owned(),
            _ => format!("{scheme}://{}", directory.path().to_str().unwrap()),
        };
        let config = Config::builder().part_bytes(FRAME).io_threads(3).queue_depth_parts(2);
        let config = config.compression_threads(2).build().unwrap();
        let store = open_store(&base, &config).unwrap();
        Place { store, uri: format!("{base}/object.zst"), _directory: directory }
    }

    fn read(&self, form: CompressedForm, from: usize, to: usize) -> Result<Vec<u8>> {
        let mut memory = vec![0; to - from];
        let report = self.store.decompress_into(&self.uri, form, from as u64, &mut memory)?;
        assert_eq!(report.bytes as usize, to - from);
        Ok(memory)
    }

    fn read_verified(&self, form: CompressedForm, blocks: &BlockChecksums) -> Result<AlignedVec> {
        let mut memory = AlignedVec::zeroed(form.raw_bytes as usize).unwrap();
        self.store.decompress_into_verified(&self.uri, form, 0, &mut memory, blocks)?;
        Ok(memory)
    }

    fn scan(&self, form: CompressedForm, options: ScanOptions) -> FrameScan {
        self.store.scan_compressed(&self.uri, form, options, &mut |_| {}).unwrap()
    }
}

fn form(data: &[u8], filter: Filter) -> CompressedForm {
    CompressedForm::new(data.len() as u64, filter)
}

fn blocks_of(data: &[u8], block_bytes: usize) -> BlockChecksums {
    let crc32c = data.chunks(block_bytes).map(|b| Algorithm::Crc32c.checksum(b).value() as u32);
    BlockChecksums::new(block_bytes as u64, data.len() as u64, crc32c.collect()).unwrap()
}

fn any_filter() -> impl Strategy<Value = Filter> {
    prop_oneof![Just(Filter::None), Just(Filter::Shuffle4), Just(Filter::Shuffle8)]
}

prop_compose! {
    fn any_case()(
        bytes in prop_oneof![Just(0usize), 1usize..500_000],
        frame_bytes in FRAME..3 * FRAME,
        block_bytes in 1000usize..300_000,
        level in 1..5i32,
        filter in any_filter(),
        seed in any::<u64>(),
        ends in (0.0..1.0f64, 0.0..1.0f64),
    ) -> (Vec<u8>, usize, usize, i32, Filter, (usize, usize)) {
        let at = |part: f64| (part * (bytes + 1) as f64) as usize;
        let (a, b) = (at(ends.0), at(ends.1));
        (mixed(bytes, seed), frame_bytes, block_bytes, level, filter, (a.min(b), a.max(b)))
    }
}

fn every_range_comes_back(scheme: &str) {
    let place = Place::new(scheme);
    proptest!(ProptestConfig::with_cases(100), |(case in any_case())| {
        let (data, frame_bytes, block_bytes, level, filter, (from, to)) = case;
        let Sample { bytes, .. } = compressed(&data, frame_bytes, level, filter);
        place.store.put(&place.uri, &bytes).unwrap();
        let form = form(&data, filter);
        prop_assert_eq!(place.store.compressed_form(&place.uri, filter).unwrap(), form);
        prop_assert!(place.read(form, from, to).unwrap() == data[from..to], "{}..{}", from, to);

        let blocks = blocks_of(&data, block_bytes);
        prop_assert!(place.read_verified(form, &blocks).unwrap()[..] == data[..]);
        let (start, end) = (from / block_bytes * block_bytes, to.next_multiple_of(block_bytes));
        let mut memory = vec![0; end.min(data.len()) - start];
        place.store.decompress_into_verified(&place.uri, form, start as u64, &mut memory, &blocks).unwrap();
        prop_assert!(memory[..] == data[start..end.min(data.len())]);

        let algorithm = Algorithm::Crc64Nvme;
        let options = ScanOptions::new(block_bytes as u64).stored_algorithm(algorithm);
        let mut told = 0;
        let progress = &mut |bytes| told += bytes;
        let scan = place.store.scan_compressed(&place.uri, form, options, progress).unwrap();
        prop_assert_eq!(told, bytes.len() as u64);
        let found: Vec<u32> = scan.blocks.iter().map(|sum| sum.unwrap().value() as u32).collect();
        prop_assert_eq!(&found[..], blocks.crc32c());
        prop_assert_eq!(scan.whole, Some(Algorithm::Crc32c.checksum(&data)));
        prop_assert_eq!(scan.stored, Some(algorithm.checksum(&bytes)));
        prop_assert!(scan.broken.is_empty() && scan.table_damage.is_none());
    });
}

#[test]
fn every_range_comes_back_mem() {
    every_range_comes_back("mem");
}

#[test]
fn every_range_comes_back_file() {
    every_range_comes_back("file");
}

#[test]
fn every_range_comes_back_direct() {
    every_range_comes_back("direct");
}

/// Whatever byte of the object is flipped: no wrong byte is read, and the scan tells it, in the right frame.
#[test]
fn any_flipped_byte_shows_where_it_is() {
    let place = Place::new("mem");
    let data: Vec<u8> = (0..3 * FRAME - 100).map(|at| (at / 8 % 50) as u8).collect();
    for filter in [Filter::None, Filter::Shuffle4] {
        let Sample { bytes, frames } = compressed(&data, FRAME, 3, filter);
        let (form, blocks) = (form(&data, filter), blocks_of(&data, FRAME));
        let stored = Algorithm::Crc32c.checksum(&bytes);
        let table_at = frames.last().unwrap().end;
        for at in (0..table_at).step_by(5).chain(table_at..bytes.len()) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            place.store.put(&place.uri, &flipped).unwrap();
            if let Ok(read) = place.read_verified(form, &blocks) {
                assert!(read[..] == data[..], "byte {at}");
            }
            let scan = place.scan(form, ScanOptions::new(FRAME as u64));
            assert_ne!(scan.stored, Some(stored), "byte {at}");
            let Some(hit) = frames.iter().position(|frame| frame.contains(&at)) else {
                assert!(scan.table_damage.is_some(), "byte {at} of the table");
                assert!(scan.table.contains(&(at as u64)) || at < bytes.len() - 9);
                continue;
            };
            assert!(scan.table_damage.is_none());
            for (index, found) in scan.blocks.iter().enumerate() {
                let expected = Checksum::new(Algorithm::Crc32c, blocks.crc32c()[index].into());
                assert!(*found == Some(expected) || index == hit, "byte {at}, block {index}");
            }
            for frame in &scan.broken {
                assert_eq!(frame.index, hit as u64);
                assert!(frame.stored.contains(&(at as u64)) && frame.why.contains("frame"));
                assert_eq!(frame.raw.start, (hit * FRAME) as u64);
            }
        }
    }
}

/// The error of a broken frame says which, and the others are still read.
#[test]
fn a_broken_frame_is_named_and_hides_no_other() {
    let place = Place::new("file");
    let data = mixed(5 * FRAME, 7);
    let Sample { mut bytes, frames } = compressed(&data, FRAME, 1, Filter::None);
    for broken in [1, 3] {
        let middle = frames[broken].start + frames[broken].len() / 2;
        bytes[middle..middle + 20].fill(0xff);
    }
    place.store.put(&place.uri, &bytes).unwrap();
    let form = form(&data, Filter::None);
    let error = place.read(form, FRAME, 2 * FRAME).unwrap_err();
    let (stored, text) = (&frames[1], error.to_string());
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{text}");
    for needle in [
        "frame 1".to_owned(),
        format!("bytes {}..{}", stored.start, stored.end),
        format!("raw bytes {FRAME}..{}", 2 * FRAME),
        place.uri.clone(),
    ] {
        assert!(text.contains(&needle), "{needle} is not in: {text}");
    }
    assert_eq!(place.read(form, 2 * FRAME, 3 * FRAME).unwrap(), data[2 * FRAME..3 * FRAME]);
    let scan = place.scan(form, ScanOptions::new(FRAME as u64));
    let broken: Vec<u64> = scan.broken.iter().map(|frame| frame.index).collect();
    assert_eq!(broken, [1, 3]);
    let known: Vec<bool> = scan.blocks.iter().map(Option::is_some).collect();
    assert_eq!(known, [true, false, true, false, true]);
    assert_eq!(scan.whole, None);
    assert_eq!(scan.stored, Some(Algorithm::Crc32c.checksum(&bytes)));
}

#[test]
fn blocks_that_differ_are_named() {
    let place = Place::new("mem");
    let mut data = mixed(5 * FRAME, 9);
    let bytes = compressed(&data, 2 * FRAME, 1, Filter::Shuffle8).bytes;
    place.store.put(&place.uri, &bytes).unwrap();
    let form = form(&data, Filter::Shuffle8);
    data[3 * FRAME] ^= 1;
    let error = place.read_verified(form, &blocks_of(&data, FRAME)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
    let text = error.to_string();
    assert!(text.contains("part 3") && text.contains("bytes 196608..262144"), "{text}");
    let error = place.read_verified(form, &blocks_of(&data[1..], FRAME)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incomplete);
}

#[test]
fn what_is_no_such_object_is_corrupt() {
    let place = Place::new("mem");
    let data = mixed(3 * FRAME, 3);
    let good = compressed(&data, FRAME, 1, Filter::None);
    let (table, large) = (good.bytes[good.frames[2].end..].to_vec(), form(&data, Filter::None));
    let refused = |bytes: &[u8], form: CompressedForm, why: &str| {
        place.store.put(&place.uri, bytes).unwrap();
        // Beside a forged size no memory is set aside: a range at the front is asked for.
        let error = place.read(form, 0, 1000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{why}: {error}");
        assert!(error.uri().is_some(), "{why}");
        if let Ok(found) = place.store.compressed_form(&place.uri, Filter::None) {
            assert!(found.raw_bytes <= 3 * FRAME as u64, "{why}");
        }
        let scan = place.scan(form, ScanOptions::new(FRAME as u64));
        assert!(scan.table_damage.is_some() || !scan.broken.is_empty(), "{why}");
    };
    refused(&[], large, "empty");
    refused(&data, large, "not compressed");
    refused(&good.bytes[..good.frames[2].end], large, "without a table");
    refused(&table, large, "a table alone");
    refused(&good.bytes[1..], large, "cut in front");
    for cut in [1, 9, 20, 100, FRAME] {
        refused(&good.bytes[..good.bytes.len() - cut], large, "cut at the end");
    }
    for raw_bytes in [1000, large.raw_bytes - 1, large.raw_bytes + 1, u64::MAX] {
        let forged = CompressedForm::new(raw_bytes, Filter::None);
        refused(&good.bytes, forged, "of another size than is said");
    }
    let mut forged = good.bytes.clone();
    let frames_at = forged.len() - 9;
    forged[frames_at..frames_at + 4].copy_from_slice(&0x07ff_ffff_u32.to_le_bytes());
    refused(&forged, CompressedForm::new(u64::MAX, Filter::None), "a table beyond the object");
    for stated in [1000, FRAME - 1, FRAME + 1] {
        let bomb = with_table(&[(&data[..FRAME], stated)], 1, Filter::None);
        let form = CompressedForm::new(stated as u64, Filter::None);
        refused(&bomb.bytes, form, "a frame of another size than its table says");
    }
}

/// A table beyond what one request reads.
#[test]
fn long_tables_are_read() {
    let place = Place::new("mem");
    let data = vec![7; FRAME];
    let frames = vec![(&data[..], FRAME); 10_000];
    let bytes = with_table(&frames, 1, Filter::None).bytes;
    place.store.put(&place.uri, &bytes).unwrap();
    let form = place.store.compressed_form(&place.uri, Filter::None).unwrap();
    assert_eq!(form.raw_bytes, 10_000 * FRAME as u64);
    let from = 9_998 * FRAME + 5;
    assert_eq!(place.read(form, from, from + FRAME).unwrap(), data);
}

/// More readers than buffers, more I/O threads than compressing ones: all get on.
#[test]
fn many_readers_share_the_buffers() {
    let config = Config::builder().part_bytes(FRAME).io_threads(8).queue_depth_parts(2);
    let config = config.compression_threads(1).build().unwrap();
    let store = open_store("mem://many", &config).unwrap();
    let data = mixed(20 * FRAME, 5);
    let bytes = compressed(&data, FRAME, 1, Filter::Shuffle4).bytes;
    store.put("mem://many/object", &bytes).unwrap();
    let form = form(&data, Filter::Shuffle4);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut memory = vec![0; data.len()];
                store.decompress_into("mem://many/object", form, 0, &mut memory).unwrap();
                assert!(memory == data);
            });
        }
    });
}

proptest! {
    /// A footer that is right, behind anything.
    #[test]
    fn no_object_panics(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        frames in 0u32..8,
        raw_bytes in prop_oneof![0u64..500_000, any::<u64>()],
    ) {
        bytes.extend(frames.to_le_bytes());
        bytes.extend([0, 0xb1, 0xea, 0x92, 0x8f]);
        let place = Place::new("mem");
        place.store.put(&place.uri, &bytes).unwrap();
        let form = CompressedForm::new(raw_bytes, Filter::None);
        let read = place.read(form, 0, raw_bytes.min(1000) as usize);
        prop_assert!(read.is_err() || raw_bytes == 0);
        let _ = place.store.compressed_form(&place.uri, Filter::None);
        place.scan(form, ScanOptions::new(1 << 20));
    }
}

/// Equal data gives equal objects, also where room was asked for that nothing came into.
#[test]
#[cfg_attr(miri, ignore = "zstd is C")]
fn unused_room_leaves_no_trace() {
    use super::WriteOptions;
    use crate::encode::Compression;
    let place = Place::new("mem");
    let data = mixed(2 * place.store.config().frame_bytes(), 1);
    let object = |asks: bool| {
        let options = WriteOptions::default().compression(Compression::zstd(1).unwrap());
        let mut writer = place.store.get_writer_with(&place.uri, options).unwrap();
        writer.write_chunk(&data).unwrap();
        if asks {
            assert!(!writer.reserve().unwrap().is_empty());
        }
        let frames = writer.finalize().unwrap().write.unwrap().frames;
        (frames, place.store.get(&place.uri).unwrap())
    };
    assert!(object(false) == object(true));
}
