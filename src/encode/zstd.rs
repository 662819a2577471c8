//! One zstd frame at a time: compressed, or stored as raw blocks where that would not shrink it.
//!
//! Source of the format: RFC 8878. Every frame is a single segment with its content's size and checksum.

use twox_hash::XxHash64;
use zstd_safe::{CCtx, CParameter, DCtx};

use super::compression::{Filter, Zstd};
use super::shuffle::{shuffle, unshuffle};
use crate::error::{Error, ErrorKind, Result};

const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// Four bytes of content size, single segment, content checksum.
const STORED_DESCRIPTOR: u8 = 0b1010_0100;
/// In a frame's descriptor: bits that no version sets, and those that name a dictionary.
const DESCRIPTOR_NEVER: u8 = 0b0001_1011;
/// Largest block. Source: RFC 8878, "Block_Maximum_Size".
const BLOCK_BYTES_MAX: usize = 128 * 1024;
const BLOCK_HEADER_BYTES: usize = 3;
const FRAME_HEADER_BYTES: usize = 9;
const CONTENT_CHECKSUM_BYTES: usize = 4;

/// Pieces of a frame tried before all of it, and bytes of each: a sixty-fourth of a frame of 8 MiB.
const SAMPLES: usize = 8;
const SAMPLE_BYTES: usize = 16 * 1024;
/// The level of samples. Lower ones do not code literals as the others do.
const SAMPLE_LEVEL: i32 = 1;
/// Every so many frames one is tried as a whole whatever its samples say: they do not see what repeats at a
/// distance.
const TRIED_EVERY: u64 = 16;

/// The most bytes that a frame of so many raw bytes takes.
pub(crate) fn stored_bytes_max(raw_bytes: usize) -> usize {
    let blocks = raw_bytes.div_ceil(BLOCK_BYTES_MAX).max(1);
    let raw = FRAME_HEADER_BYTES + blocks * BLOCK_HEADER_BYTES + raw_bytes + CONTENT_CHECKSUM_BYTES;
    // Source: zstd.h, `ZSTD_COMPRESSBOUND`. Here in Rust, so that Miri runs what only asks for sizes.
    let margin = BLOCK_BYTES_MAX.saturating_sub(raw_bytes) >> 11;
    raw.max(raw_bytes + (raw_bytes >> 8) + margin)
}

/// A frame as it is to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoded {
    /// So many bytes of the output are the frame.
    Compressed { bytes: usize },
    /// The frame is raw blocks ([`stored_frame`]) of the input, or of the output where it was `filtered`.
    Stored { content_checksum: u32, filtered: bool },
}

/// Compresses frames, one after the other, with memory of its own that it keeps.
pub(crate) struct FrameEncoder {
    zstd: Zstd,
    context: CCtx<'static>,
    /// The shuffled frame, and the output of samples.
    scratch: Vec<u8>,
}

impl FrameEncoder {
    /// # Errors
    /// `LimitExceeded` if zstd gets no memory.
    pub fn new(zstd: Zstd) -> Result<FrameEncoder> {
        let context = CCtx::try_create().ok_or_else(no_memory)?;
        let mut encoder = FrameEncoder { zstd, context, scratch: Vec::new() };
        encoder.set(CParameter::ChecksumFlag(true))?;
        encoder.set(CParameter::ContentSizeFlag(true))?;
        Ok(encoder)
    }

    pub fn zstd(&self) -> Zstd {
        self.zstd
    }

    /// Compresses frame `index` of an object into `output`, of [`stored_bytes_max`] bytes.
    ///
    /// # Errors
    /// `Io` if zstd fails, which is a defect or a lack of memory.
    pub fn encode(&mut self, index: u64, raw: &[u8], output: &mut [u8]) -> Result<Encoded> {
        let Some(element_bytes) = self.zstd.filter().element_bytes() else {
            let bytes = self.compress(index, raw, output)?;
            return Ok(encoded(bytes, raw, false));
        };
        let mut filtered = std::mem::take(&mut self.scratch);
        filtered.resize(raw.len(), 0);
        shuffle(element_bytes, raw, &mut filtered);
        let outcome = self.compress(index, &filtered, output).map(|bytes| {
            if bytes.is_none() {
                output[..filtered.len()].copy_from_slice(&filtered);
            }
            encoded(bytes, &filtered, true)
        });
        self.scratch = filtered;
        outcome
    }

    /// Returns the frame's bytes; `None` if it does not shrink.
    fn compress(&mut self, index: u64, data: &[u8], output: &mut [u8]) -> Result<Option<usize>> {
        let level = self.zstd.level();
        if !self.samples_shrink(data, output)? {
            // At high levels a try costs seconds; what a low one finds nothing in is not worth them.
            let quick = level.min(3);
            if !index.is_multiple_of(TRIED_EVERY)
                || self.compress_at(quick, data, output)? >= data.len()
            {
                return Ok(None);
            }
        }
        let bytes = self.compress_at(level, data, output)?;
        Ok((bytes < data.len()).then_some(bytes))
    }

    /// Whether pieces from all over the data shrink by more than a sixty-fourth.
    fn samples_shrink(&mut self, data: &[u8], output: &mut [u8]) -> Result<bool> {
        if data.len() < 2 * SAMPLES * SAMPLE_BYTES {
            return Ok(true);
        }
        let mut bytes = 0;
        for sample in 0..SAMPLES {
            let from = (data.len() - SAMPLE_BYTES) / (SAMPLES - 1) * sample;
            let piece = &data[from..from + SAMPLE_BYTES];
            bytes += self.compress_at(SAMPLE_LEVEL, piece, output)?;
        }
        let all = SAMPLES * SAMPLE_BYTES;
        Ok(bytes < all - all / 64)
    }

    fn compress_at(&mut self, level: i32, data: &[u8], output: &mut [u8]) -> Result<usize> {
        self.set(CParameter::CompressionLevel(level))?;
        self.context.compress2(output, data).map_err(|code| failed("compress", code))
    }

    fn set(&mut self, parameter: CParameter) -> Result<()> {
        self.context.set_parameter(parameter).map(drop).map_err(|code| failed("compress", code))
    }
}

fn encoded(bytes: Option<usize>, data: &[u8], filtered: bool) -> Encoded {
    match bytes {
        Some(bytes) => Encoded::Compressed { bytes },
        None => Encoded::Stored { content_checksum: XxHash64::oneshot(0, data) as u32, filtered },
    }
}

/// Hands the pieces of a frame of raw blocks to `write`, in order, and returns their bytes.
pub(crate) fn stored_frame(
    data: &[u8],
    content_checksum: u32,
    mut write: impl FnMut(&[u8]) -> Result<()>,
) -> Result<usize> {
    let mut bytes = 0;
    let mut write = |piece: &[u8]| {
        bytes += piece.len();
        write(piece)
    };
    let content_bytes = u32::try_from(data.len())
        .map_err(|_| Error::invalid("compress", "a frame of 4 GiB or more"))?;
    write(&MAGIC)?;
    write(&[STORED_DESCRIPTOR])?;
    write(&content_bytes.to_le_bytes())?;
    let mut rest = data;
    loop {
        let (block, later) = rest.split_at(rest.len().min(BLOCK_BYTES_MAX));
        let last = u32::from(later.is_empty());
        // Last_Block, Block_Type 0 (raw), Block_Size.
        let [b0, b1, b2, _] = (last | (block.len() as u32) << 3).to_le_bytes();
        write(&[b0, b1, b2])?;
        write(block)?;
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    write(&content_checksum.to_le_bytes())?;
    Ok(bytes)
}

/// Decompresses frames, one after the other, with memory of its own that it keeps.
pub(crate) struct FrameDecoder {
    context: DCtx<'static>,
    scratch: Vec<u8>,
}

impl FrameDecoder {
    /// # Errors
    /// `LimitExceeded` if zstd gets no memory.
    pub fn new() -> Result<FrameDecoder> {
        let context = DCtx::try_create().ok_or_else(no_memory)?;
        Ok(FrameDecoder { context, scratch: Vec::new() })
    }

    /// Decompresses the one frame of `stored` into `raw`, which has exactly its size.
    ///
    /// # Errors
    /// `Corrupt` if it is not such a frame, or its content checksum differs.
    pub fn decode(&mut self, stored: &[u8], raw: &mut [u8], filter: Filter) -> Result<()> {
        let Some(element_bytes) = filter.element_bytes() else {
            return decompress(&mut self.context, stored, raw);
        };
        self.scratch.resize(raw.len(), 0);
        decompress(&mut self.context, stored, &mut self.scratch)?;
        unshuffle(element_bytes, &self.scratch, raw);
        Ok(())
    }

    /// Decompresses the one frame of `stored`, of `raw_bytes` raw bytes, and shows them.
    ///
    /// # Errors
    /// As [`decode`](FrameDecoder::decode).
    pub fn decode_through<R>(
        &mut self,
        stored: &[u8],
        raw_bytes: usize,
        filter: Filter,
        show: impl FnOnce(&[u8]) -> R,
    ) -> Result<R> {
        let filtered_bytes = if filter == Filter::None { 0 } else { raw_bytes };
        self.scratch.resize(filtered_bytes + raw_bytes, 0);
        let (filtered, raw) = self.scratch.split_at_mut(filtered_bytes);
        match filter.element_bytes() {
            None => decompress(&mut self.context, stored, raw)?,
            Some(element_bytes) => {
                decompress(&mut self.context, stored, filtered)?;
                unshuffle(element_bytes, filtered, raw);
            }
        }
        Ok(show(raw))
    }
}

fn decompress(context: &mut DCtx<'_>, stored: &[u8], raw: &mut [u8]) -> Result<()> {
    check_header(stored)?;
    // Without this, a second frame in the same bytes would be taken for a part of the first.
    match zstd_safe::find_frame_compressed_size(stored) {
        Ok(bytes) if bytes == stored.len() => {}
        Ok(bytes) => {
            return Err(corrupt(format!("it ends after {bytes} of {} bytes", stored.len())));
        }
        Err(code) => return Err(corrupt(zstd_safe::get_error_name(code))),
    }
    match context.decompress(raw, stored) {
        Ok(bytes) if bytes == raw.len() => Ok(()),
        Ok(bytes) => Err(corrupt(format!("it holds {bytes} bytes, not {}", raw.len()))),
        Err(code) => Err(corrupt(zstd_safe::get_error_name(code))),
    }
}

/// Only frames of the present format, none of which needs a dictionary: zstd reads older formats too.
fn check_header(stored: &[u8]) -> Result<()> {
    match stored.split_first_chunk::<4>() {
        Some((magic, [descriptor, ..])) if *magic == MAGIC => match descriptor & DESCRIPTOR_NEVER {
            0 => Ok(()),
            _ => Err(corrupt("its header has reserved bits, or names a dictionary")),
        },
        _ => Err(corrupt("it does not begin as a zstd frame")),
    }
}

fn corrupt(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, "decompress", why)
}

fn failed(operation: &'static str, code: usize) -> Error {
    Error::new(ErrorKind::Io, operation, format!("zstd: {}", zstd_safe::get_error_name(code)))
}

fn no_memory() -> Error {
    Error::new(ErrorKind::LimitExceeded, "compress", "zstd got no memory")
        .with_remedy("lower compression_threads or the level")
}

#[cfg(test)]
mod tests {
    use super::super::Compression;
    use super::*;
    use proptest::prelude::*;

    fn encoder(level: i32, filter: Filter) -> FrameEncoder {
        match Compression::zstd(level).unwrap().with_filter(filter).unwrap() {
            Compression::Zstd(zstd) => FrameEncoder::new(zstd).unwrap(),
            Compression::None => unreachable!("zstd was asked for"),
        }
    }

    /// The frame as it would be stored, and whether as raw blocks.
    fn frame(encoder: &mut FrameEncoder, index: u64, raw: &[u8]) -> (Vec<u8>, bool) {
        let mut output = vec![0; stored_bytes_max(raw.len())];
        match encoder.encode(index, raw, &mut output).unwrap() {
            Encoded::Compressed { bytes } => {
                output.truncate(bytes);
                (output, false)
            }
            Encoded::Stored { content_checksum, filtered } => {
                let data = if filtered { &output[..raw.len()] } else { raw };
                let mut stored = Vec::new();
                let bytes = stored_frame(data, content_checksum, |piece| {
                    stored.extend_from_slice(piece);
                    Ok(())
                });
                assert_eq!(bytes.unwrap(), stored.len());
                (stored, true)
            }
        }
    }

    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..bytes).map(|_| next()).collect()
    }

    #[test]
    fn what_does_not_shrink_is_stored_and_opens_all_the_same() {
        for filter in [Filter::None, Filter::Shuffle4, Filter::Shuffle8] {
            for bytes in [1, 7, BLOCK_BYTES_MAX, BLOCK_BYTES_MAX + 1, 1 << 20] {
                let raw = noise(bytes);
                let (stored, as_raw) = frame(&mut encoder(3, filter), 1, &raw);
                assert!(as_raw && stored.len() <= stored_bytes_max(bytes));
                let mut back = vec![0; bytes];
                FrameDecoder::new().unwrap().decode(&stored, &mut back, filter).unwrap();
                assert_eq!(back, raw);
            }
        }
    }

    #[test]
    fn the_bound_is_that_of_zstd() {
        for bytes in [0, 1, 1000, BLOCK_BYTES_MAX - 1, BLOCK_BYTES_MAX, 1 << 20, (16 << 20) + 7] {
            assert!(stored_bytes_max(bytes) >= zstd_safe::compress_bound(bytes));
            assert!(stored_bytes_max(bytes) <= zstd_safe::compress_bound(bytes) + 20);
        }
    }

    #[test]
    fn a_sixteenth_is_tried_as_a_whole() {
        // Repeats at a distance, which no sample of 16 KiB shows.
        let raw = noise(1 << 19).repeat(4);
        let mut encoder = encoder(3, Filter::None);
        assert!(!frame(&mut encoder, 0, &raw).1);
        assert!(frame(&mut encoder, 1, &raw).1);
        assert!(!frame(&mut encoder, TRIED_EVERY, &raw).1);
    }

    /// As `Config::compression_bytes_max` tells it.
    #[test]
    fn a_level_takes_no_more_memory_than_is_told() {
        const MIB: usize = 1 << 20;
        for frame_bytes in [4 * MIB, 8 * MIB, 16 * MIB] {
            let raw = vec![7; frame_bytes];
            for (level, bytes_max) in [
                (1, 2 * MIB),
                (3, 2 * MIB),
                (9, 11 * MIB),
                (15, 82 * MIB),
                (19, 82 * MIB),
                (20, 17 * frame_bytes),
                (22, 17 * frame_bytes),
            ] {
                let mut encoder = encoder(level, Filter::None);
                let (stored, _) = frame(&mut encoder, 0, &raw);
                let bytes = encoder.context.sizeof();
                assert!(bytes <= bytes_max, "level {level}: {bytes} for {frame_bytes}");
                let mut decoder = FrameDecoder::new().unwrap();
                decoder.decode(&stored, &mut vec![0; frame_bytes], Filter::None).unwrap();
                assert!(decoder.context.sizeof() <= MIB / 4);
            }
        }
    }

    #[test]
    fn no_flipped_bit_yields_other_data() {
        let mut raw = noise(500);
        raw.extend([7; 1500]);
        for level in [1, 19] {
            let (stored, _) = frame(&mut encoder(level, Filter::None), 0, &raw);
            let mut decoder = FrameDecoder::new().unwrap();
            for at in 0..stored.len() {
                for bit in 0..8 {
                    let mut flipped = stored.clone();
                    flipped[at] ^= 1 << bit;
                    let mut back = vec![0; raw.len()];
                    if decoder.decode(&flipped, &mut back, Filter::None).is_ok() {
                        assert_eq!(back, raw, "byte {at} bit {bit}");
                    }
                }
                assert!(decoder.decode(&stored[..at], &mut vec![0; 2000], Filter::None).is_err());
            }
            let twice = stored.repeat(2);
            assert!(decoder.decode(&twice, &mut vec![0; 4000], Filter::None).is_err());
            assert!(decoder.decode(&stored, &mut vec![0; 1999], Filter::None).is_err());
            assert!(decoder.decode(&stored, &mut vec![0; 2001], Filter::None).is_err());
        }
    }

    proptest! {
        #[test]
        fn every_frame_comes_back(
            data in proptest::collection::vec(any::<u8>(), 0..3000),
            times in 1usize..200,
            level in 1i32..=22,
            filter in prop_oneof![
                Just(Filter::None), Just(Filter::Shuffle4), Just(Filter::Shuffle8)
            ],
            index in 0u64..40,
        ) {
            let raw = data.repeat(times);
            let (stored, _) = frame(&mut encoder(level, filter), index, &raw);
            let mut decoder = FrameDecoder::new().unwrap();
            let mut back = vec![0; raw.len()];
            decoder.decode(&stored, &mut back, filter).unwrap();
            prop_assert_eq!(&back, &raw);
            let shown = decoder.decode_through(&stored, raw.len(), filter, <[u8]>::to_vec);
            prop_assert_eq!(shown.unwrap(), raw);
        }
    }
}
