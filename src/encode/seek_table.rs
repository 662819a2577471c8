//! The seek table at the end of a compressed object: which stored bytes hold which raw bytes.
//!
//! Source: "Zstandard Seekable Format" 0.1.0, contrib/seekable_format of zstd. The table is a skippable frame
//! that any zstd tool passes over. zeekstd writes and parses it; what it says is checked here.

use std::ops::Range;

use zeekstd::{BytesWrapper, SeekTable as Table};

use crate::error::{Error, ErrorKind, Result};
use crate::limits::{FRAME_BYTES_MAX, FRAME_BYTES_PER_ENTRY_MIN};

use super::zstd::stored_bytes_max;

/// The last bytes of the table: number of frames, descriptor, magic number.
const FOOTER_BYTES: usize = 9;
/// Magic number and length of the skippable frame.
const HEADER_BYTES: usize = 8;
const MAGIC: u32 = 0x8F92_EAB1;
/// In the descriptor: each entry carries a checksum beside its two sizes.
const HAS_CHECKSUMS: u8 = 0x80;

/// Collects the frames of an object that is written.
#[derive(Default)]
pub(crate) struct SeekTableBuilder(Table);

impl SeekTableBuilder {
    pub fn new() -> SeekTableBuilder {
        SeekTableBuilder(Table::new())
    }

    /// # Errors
    /// `LimitExceeded` beyond the 2^27 frames of the format.
    pub fn push(&mut self, stored_bytes: usize, raw_bytes: usize) -> Result<()> {
        let sizes = u32::try_from(stored_bytes).ok().zip(u32::try_from(raw_bytes).ok());
        let logged = sizes.is_some_and(|(stored, raw)| self.0.log_frame(stored, raw).is_ok());
        let limit = || Error::new(ErrorKind::LimitExceeded, "compress", "too many frames");
        logged.then_some(()).ok_or_else(limit)
    }

    /// The table as it stands at the end of the object.
    pub fn into_bytes(self) -> Vec<u8> {
        serialize(self.0)
    }
}

fn serialize(table: Table) -> Vec<u8> {
    let mut serializer = table.into_serializer();
    let mut bytes = vec![0; serializer.encoded_len()];
    let written = serializer.write_into(&mut bytes);
    debug_assert_eq!(written, bytes.len());
    bytes
}

/// The seek table of an object that is read.
#[derive(Debug)]
pub(crate) struct SeekTable {
    table: Table,
    table_bytes: u64,
}

/// One frame of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FramePlace {
    pub index: u32,
    /// Where it is in the object.
    pub stored: Range<u64>,
    /// Which raw bytes it holds.
    pub raw: Range<u64>,
}

impl FramePlace {
    pub fn stored_bytes(&self) -> usize {
        (self.stored.end - self.stored.start) as usize
    }

    pub fn raw_bytes(&self) -> usize {
        (self.raw.end - self.raw.start) as usize
    }

    /// `frame 3 (bytes 10..20, raw bytes 100..200)`.
    pub fn describe(&self) -> String {
        let FramePlace { index, stored, raw } = self;
        let (from, to) = (stored.start, stored.end);
        format!("frame {index} (bytes {from}..{to}, raw bytes {}..{})", raw.start, raw.end)
    }
}

impl SeekTable {
    /// Bytes of the table that `tail`, the end of an object, closes.
    ///
    /// # Errors
    /// `Corrupt` if there is no table, or it cannot be one of `raw_bytes` raw bytes.
    pub fn table_bytes(tail: &[u8], raw_bytes: u64) -> Result<usize> {
        let Some((_, footer)) = tail.split_last_chunk::<FOOTER_BYTES>() else {
            return Err(corrupt("the object is too short for a seek table"));
        };
        let [n0, n1, n2, n3, descriptor, magic @ ..] = *footer;
        if u32::from_le_bytes(magic) != MAGIC {
            return Err(corrupt("the object does not end with a seek table")
                .with_remedy("whole files of other programs are decompressed by zstd -d"));
        }
        if descriptor & !HAS_CHECKSUMS != 0 {
            return Err(corrupt("reserved bits of the seek table are set"));
        }
        let frames = u64::from(u32::from_le_bytes([n0, n1, n2, n3]));
        if frames > raw_bytes.div_ceil(FRAME_BYTES_PER_ENTRY_MIN) + 1 {
            return Err(corrupt(format!("{frames} frames for {raw_bytes} raw bytes")));
        }
        let entry_bytes = if descriptor & HAS_CHECKSUMS == 0 { 8 } else { 12 };
        usize::try_from(frames * entry_bytes + (HEADER_BYTES + FOOTER_BYTES) as u64)
            .map_err(|_| corrupt(format!("{frames} frames")))
    }

    /// The raw bytes that a table says its frames hold, for objects of which nothing else is known.
    ///
    /// # Errors
    /// `Corrupt` if it is no table.
    pub fn stated_raw_bytes(bytes: &[u8]) -> Result<u64> {
        Ok(SeekTable::read(bytes)?.size_decomp())
    }

    fn read(bytes: &[u8]) -> Result<Table> {
        // First: the parser sets memory aside for as many frames as are stated.
        if SeekTable::table_bytes(bytes, u64::MAX)? != bytes.len() {
            return Err(corrupt("the length of the seek table is not its own"));
        }
        Table::from_seekable(&mut BytesWrapper::new(bytes))
            .map_err(|e| corrupt(format!("the seek table is damaged: {e}")))
    }

    /// Reads the table and checks it against the object: nothing overlaps, nothing is left over, and no frame
    /// is larger than memory is set aside for.
    ///
    /// # Errors
    /// `Corrupt` if it does not fit the object's `stored_bytes` and `raw_bytes`.
    pub fn parse(bytes: &[u8], stored_bytes: u64, raw_bytes: u64) -> Result<SeekTable> {
        SeekTable::table_bytes(bytes, raw_bytes)?;
        let table = SeekTable::read(bytes)?;
        let has_checksums = bytes[bytes.len() - 5] & HAS_CHECKSUMS != 0;
        if !has_checksums && serialize(table.clone()) != bytes {
            return Err(corrupt("the seek table is damaged"));
        }
        let found = SeekTable { table, table_bytes: bytes.len() as u64 };
        let (stored, raw) = found.frames().last().map_or((0, 0), |f| (f.stored.end, f.raw.end));
        if stored.checked_add(found.table_bytes) != Some(stored_bytes) || raw != raw_bytes {
            return Err(corrupt(format!(
                "the seek table is of {stored} stored and {raw} raw bytes, \
                 the object has {stored_bytes} and should give {raw_bytes}"
            )));
        }
        let wrong = found.frames().find(|frame| !frame.is_plausible());
        match wrong {
            None => Ok(found),
            Some(frame) => Err(corrupt(format!(
                "frame {} holds {} raw bytes in {} stored ones",
                frame.index,
                frame.raw_bytes(),
                frame.stored_bytes()
            ))),
        }
    }

    /// All frames, in order.
    pub fn frames(&self) -> impl Iterator<Item = FramePlace> {
        (0..self.table.num_frames()).filter_map(|index| self.frame(index))
    }

    /// The frames that hold any of these raw bytes, in order.
    pub fn frames_of(&self, raw: Range<u64>) -> impl Iterator<Item = FramePlace> {
        let first = match self.table.num_frames() {
            0 => 0,
            _ => self.table.frame_index_decomp(raw.start),
        };
        (first..self.table.num_frames())
            .filter_map(|index| self.frame(index))
            .skip_while(move |frame| frame.raw.end <= raw.start)
            .take_while(move |frame| frame.raw.start < raw.end)
    }

    fn frame(&self, index: u32) -> Option<FramePlace> {
        let table = &self.table;
        Some(FramePlace {
            index,
            stored: table.frame_start_comp(index).ok()?..table.frame_end_comp(index).ok()?,
            raw: table.frame_start_decomp(index).ok()?..table.frame_end_decomp(index).ok()?,
        })
    }

    /// Bytes of the table itself, which are the object's last.
    pub fn own_bytes(&self) -> u64 {
        self.table_bytes
    }

    /// The most bytes that a frame takes, stored and raw.
    pub fn frame_bytes_max(&self) -> (usize, usize) {
        let (stored, raw) = (self.table.max_frame_size_comp(), self.table.max_frame_size_decomp());
        (stored as usize, raw as usize)
    }
}

impl FramePlace {
    fn is_plausible(&self) -> bool {
        self.raw_bytes() <= FRAME_BYTES_MAX
            && self.stored_bytes() <= stored_bytes_max(self.raw_bytes())
    }
}

fn corrupt(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, "read seek table", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(sizes: &[(usize, usize)]) -> (Vec<u8>, u64, u64) {
        let mut builder = SeekTableBuilder::new();
        for (stored, raw) in sizes {
            builder.push(*stored, *raw).unwrap();
        }
        let bytes = builder.into_bytes();
        let stored: usize = sizes.iter().map(|s| s.0).sum();
        let raw: usize = sizes.iter().map(|s| s.1).sum();
        let stored_bytes = (stored + bytes.len()) as u64;
        (bytes, stored_bytes, raw as u64)
    }

    #[test]
    fn no_bit_of_a_table_changes_unseen() {
        let (bytes, stored, raw) = table(&[(100, 70_000), (70_000, 70_000), (20, 5)]);
        assert!(SeekTable::parse(&bytes, stored, raw).is_ok());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(SeekTable::parse(&flipped, stored, raw).is_err(), "byte {at} bit {bit}");
            }
            assert!(SeekTable::parse(&bytes[..at], stored, raw).is_err());
        }
        for wrong in [0, 1, raw - 1, raw + 1, u64::MAX] {
            assert!(SeekTable::parse(&bytes, stored, wrong).is_err());
        }
        for wrong in [0, 1, stored - 1, stored + 1, u64::MAX] {
            assert!(SeekTable::parse(&bytes, wrong, raw).is_err());
        }
    }

    #[test]
    fn bombs_are_refused() {
        let (bytes, stored, raw) = table(&[(100, FRAME_BYTES_MAX + 1)]);
        assert!(SeekTable::parse(&bytes, stored, raw).is_err());
        let (bytes, stored, raw) = table(&[(2 * FRAME_BYTES_MAX, 10)]);
        assert!(SeekTable::parse(&bytes, stored, raw).is_err());
        let (bytes, stored, raw) = table(&[(9, 0); 1000]);
        assert!(SeekTable::parse(&bytes, stored, raw).is_err());
    }

    proptest! {
        #[test]
        fn ranges_find_their_frames(
            raws in proptest::collection::vec(FRAME_BYTES_PER_ENTRY_MIN as usize..200_000, 0..20),
            from in 0.0..1.0f64, to in 0.0..1.0f64,
        ) {
            let sizes: Vec<_> = raws.iter().map(|raw| (raw / 3 + 20, *raw)).collect();
            let (bytes, stored, raw) = table(&sizes);
            let table = SeekTable::parse(&bytes, stored, raw).unwrap();
            let (a, b) = ((from * raw as f64) as u64, (to * raw as f64) as u64);
            let wanted = a.min(b)..a.max(b);
            let expected: Vec<_> = table
                .frames()
                .filter(|f| f.raw.start < wanted.end && f.raw.end > wanted.start)
                .collect();
            let found: Vec<_> = table.frames_of(wanted).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
