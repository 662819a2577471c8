//! What must hold of compressed objects, whoever wrote them; see `crate::fuzzing`.

use super::sample::compressed;
use super::{Filter, FrameDecoder, FramePlace, SeekTable, SeekTableBuilder, stored_bytes_max};

/// Magic number and length before the entries of a table, and its footer behind them.
const HEADER_BYTES: usize = 8;
const FOOTER_BYTES: usize = 9;

/// Frames of a table whose neighbourhood is looked at.
const FRAMES_ASKED: usize = 64;

/// The most bytes that a frame is made of or decompressed to.
const RAW_BYTES_MAX: usize = 512 * 1024;

/// Seek tables, with and without checksums.
pub fn seek_table(data: &[u8]) {
    let _ = SeekTable::stated_raw_bytes(data);
    let stated = SeekTable::table_bytes(data, u64::MAX).is_ok_and(|bytes| bytes == data.len());
    if !stated {
        assert!(SeekTable::parse(data, data.len() as u64, 0).is_err());
        return;
    }
    let has_checksums = data[data.len() - 5] & 0x80 != 0;
    let entries = &data[HEADER_BYTES..data.len() - FOOTER_BYTES];
    let number =
        |bytes: &[u8]| u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    let entries = entries.chunks(if has_checksums { 12 } else { 8 });
    let sizes: Vec<(u64, u64)> = entries.map(|e| (number(e), number(&e[4..]))).collect();
    let raw: u64 = sizes.iter().map(|size| size.1).sum();
    let stored = sizes.iter().map(|size| size.0).sum::<u64>() + data.len() as u64;
    for (stored, raw) in [(stored + 1, raw), (stored - 1, raw), (stored, raw + 1)] {
        assert!(SeekTable::parse(data, stored, raw).is_err());
    }
    let Ok(table) = SeekTable::parse(data, stored, raw) else { return };
    assert_eq!(table.own_bytes(), data.len() as u64);
    assert_eq!(SeekTable::stated_raw_bytes(data).ok(), Some(raw));
    let frames: Vec<FramePlace> = table.frames().collect();
    check_frames(&frames, &sizes);
    let largest = (
        frames.iter().map(FramePlace::stored_bytes).max(),
        frames.iter().map(FramePlace::raw_bytes).max(),
    );
    assert_eq!(table.frame_bytes_max(), (largest.0.unwrap_or(0), largest.1.unwrap_or(0)));
    let mut again = SeekTableBuilder::new();
    for frame in &frames {
        again.push(frame.stored_bytes(), frame.raw_bytes()).expect("as many as were there");
    }
    let again = again.into_bytes();
    match has_checksums {
        false => assert_eq!(again, data),
        true => assert_eq!(again.len() + 4 * frames.len(), data.len()),
    }
    for frame in frames.iter().take(FRAMES_ASKED) {
        let wanted = frame.raw.start.saturating_sub(1)..frame.raw.end;
        let holds = |f: &&FramePlace| f.raw.start < wanted.end && f.raw.end > wanted.start;
        let expected: Vec<_> = frames.iter().filter(holds).cloned().collect();
        assert_eq!(table.frames_of(wanted.clone()).collect::<Vec<_>>(), expected, "{wanted:?}");
    }
}

/// The frames follow each other from the object's first byte, and each is of its entry's sizes.
fn check_frames(frames: &[FramePlace], sizes: &[(u64, u64)]) {
    assert_eq!(frames.len(), sizes.len());
    let (mut stored, mut raw) = (0, 0);
    for ((index, frame), size) in (0..).zip(frames).zip(sizes) {
        assert_eq!(frame.index, index);
        assert_eq!(frame.stored, stored..stored + size.0);
        assert_eq!(frame.raw, raw..raw + size.1);
        assert!(frame.stored_bytes() <= stored_bytes_max(frame.raw_bytes()));
        (stored, raw) = (frame.stored.end, frame.raw.end);
    }
}

/// Frames of zstd. Four bytes say how they are read: filter, level, and units of the size; the rest is a
/// frame, and is what a frame is made of.
pub fn zstd_frame(data: &[u8]) {
    let Some((&[how, level, size_0, size_1], rest)) = data.split_first_chunk::<4>() else { return };
    let filter = [Filter::None, Filter::Shuffle4, Filter::Shuffle8][usize::from(how % 3)];
    let size = usize::from(u16::from_le_bytes([size_0, size_1]));
    // Larger than a block of zstd and than what is tried by samples, where the input asks for it.
    let (unit_bytes, times) = if how >= 0xF0 { (8, 70) } else { (1, 1) };
    decoded(rest, size * unit_bytes, filter);
    let mut raw = rest.repeat(times);
    raw.truncate(RAW_BYTES_MAX);
    if !raw.is_empty() {
        encoded(&raw, 1 + i32::from(level % 22), filter);
    }
}

/// Whatever is decompressed, it is that once and again, in each way.
fn decoded(stored: &[u8], raw_bytes: usize, filter: Filter) {
    let mut decoder = FrameDecoder::new().expect("memory for zstd");
    let mut raw = vec![0; raw_bytes];
    let outcome = decoder.decode(stored, &mut raw, filter);
    let shown = decoder.decode_through(stored, raw_bytes, filter, <[u8]>::to_vec);
    assert_eq!(shown.ok(), outcome.is_ok().then(|| raw.clone()));
    if outcome.is_err() {
        return;
    }
    for other_bytes in [raw_bytes + 1, raw_bytes.wrapping_sub(1)] {
        if other_bytes <= RAW_BYTES_MAX + 1 {
            assert!(decoder.decode(stored, &mut vec![0; other_bytes], filter).is_err());
        }
    }
    let longer = [stored, &[0]].concat();
    assert!(decoder.decode(&longer, &mut raw, filter).is_err());
    let shorter = &stored[..stored.len() - 1];
    assert!(decoder.decode(shorter, &mut raw, filter).is_err());
}

/// What is compressed comes back, and takes no more memory than is set aside for it.
fn encoded(raw: &[u8], level: i32, filter: Filter) {
    let sample = compressed(raw, raw.len(), level, filter);
    let frame = sample.frames[0].clone();
    assert!(frame.len() <= stored_bytes_max(raw.len()));
    let mut back = vec![0; raw.len()];
    let mut decoder = FrameDecoder::new().expect("memory for zstd");
    decoder.decode(&sample.bytes[frame.clone()], &mut back, filter).expect("our own frame");
    assert!(back == raw);
    let table = &sample.bytes[frame.end..];
    // What is smaller than the least frame of an object has a table nevertheless.
    SeekTable::parse(table, sample.bytes.len() as u64, raw.len() as u64).expect("our own table");
}
