//! Compressed objects made in memory, for tests and fuzzing of reading them. Not part of the library.

use std::ops::Range;

use super::{
    Compression, Encoded, Filter, FrameEncoder, SeekTableBuilder, stored_bytes_max, stored_frame,
};

/// A compressed object, and where its frames are.
pub(crate) struct Sample {
    pub bytes: Vec<u8>,
    pub frames: Vec<Range<usize>>,
}

/// `data` in frames of `frame_bytes` raw bytes.
pub(crate) fn compressed(data: &[u8], frame_bytes: usize, level: i32, filter: Filter) -> Sample {
    let frames: Vec<_> = data.chunks(frame_bytes).map(|raw| (raw, raw.len())).collect();
    with_table(&frames, level, filter)
}

/// A frame of each of `frames`, with a table that says of each that it has so many raw bytes.
pub(crate) fn with_table(frames: &[(&[u8], usize)], level: i32, filter: Filter) -> Sample {
    let compression = Compression::zstd(level).unwrap().with_filter(filter).unwrap();
    let Compression::Zstd(zstd) = compression else { unreachable!("zstd was asked for") };
    let mut encoder = FrameEncoder::new(zstd).unwrap();
    let mut table = SeekTableBuilder::new();
    let mut sample = Sample { bytes: Vec::new(), frames: Vec::new() };
    for (index, (raw, stated_bytes)) in (0..).zip(frames) {
        let from = sample.bytes.len();
        let mut output = vec![0; stored_bytes_max(raw.len())];
        match encoder.encode(index, raw, &mut output).unwrap() {
            Encoded::Compressed { bytes } => sample.bytes.extend_from_slice(&output[..bytes]),
            Encoded::Stored { content_checksum, filtered } => {
                let data = if filtered { &output[..raw.len()] } else { raw };
                let append = |piece: &[u8]| {
                    sample.bytes.extend_from_slice(piece);
                    Ok(())
                };
                stored_frame(data, content_checksum, append).unwrap();
            }
        }
        let frame = from..sample.bytes.len();
        table.push(frame.len(), *stated_bytes).unwrap();
        sample.frames.push(frame);
    }
    sample.bytes.extend(table.into_bytes());
    sample
}

/// Bytes of which some stretches shrink and some do not.
#[cfg(test)]
pub(crate) fn mixed(bytes: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |at: usize| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        match at / 100_000 % 2 {
            0 => (at / 4 % 200) as u8,
            _ => x as u8,
        }
    };
    (0..bytes).map(next).collect()
}
