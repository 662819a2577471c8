//! What users tell and are told of compressed objects.

use std::ops::Range;

use crate::encode::{Algorithm, Checksum, Filter};

/// What must be known of a compressed object to read it: independent zstd frames and a seek table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompressedForm {
    /// Bytes of the object when it is decompressed. The object's own table must agree.
    pub raw_bytes: u64,
    /// What was done to the bytes before they were compressed.
    pub filter: Filter,
}

impl CompressedForm {
    /// An object of `raw_bytes` decompressed bytes.
    pub fn new(raw_bytes: u64, filter: Filter) -> CompressedForm {
        CompressedForm { raw_bytes, filter }
    }
}

/// What a scan computes. Everything by CRC32C unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanOptions {
    /// Raw bytes of a block.
    pub block_bytes: u64,
    /// For the raw bytes.
    pub algorithm: Algorithm,
    /// For the stored bytes.
    pub stored_algorithm: Algorithm,
}

impl ScanOptions {
    /// CRC32C, of blocks of `block_bytes` raw bytes.
    pub fn new(block_bytes: u64) -> ScanOptions {
        let crc32c = Algorithm::Crc32c;
        ScanOptions { block_bytes, algorithm: crc32c, stored_algorithm: crc32c }
    }

    /// With this algorithm for the raw bytes.
    #[must_use]
    pub fn algorithm(mut self, algorithm: Algorithm) -> ScanOptions {
        self.algorithm = algorithm;
        self
    }

    /// With this algorithm for the stored bytes.
    #[must_use]
    pub fn stored_algorithm(mut self, algorithm: Algorithm) -> ScanOptions {
        self.stored_algorithm = algorithm;
        self
    }
}

/// What a scan of a compressed object found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FrameScan {
    /// The checksum of each block of raw bytes, in order; `None` where a broken frame holds a byte of it.
    /// Empty if the table is damaged.
    pub blocks: Vec<Option<Checksum>>,
    /// The checksum of all raw bytes; `None` if any frame or the table is damaged.
    pub whole: Option<Checksum>,
    /// The checksum of the object as it is stored, frames and table; `None` if the table is damaged.
    pub stored: Option<Checksum>,
    /// The frames that do not decompress, in order.
    pub broken: Vec<BrokenFrame>,
    /// Where the seek table is in the object; only its end, if that is damaged.
    pub table: Range<u64>,
    /// Why the seek table cannot be used. No frame was looked at then.
    pub table_damage: Option<String>,
}

impl FrameScan {
    pub(crate) fn of_table(table: Range<u64>) -> FrameScan {
        FrameScan {
            blocks: Vec::new(),
            whole: None,
            stored: None,
            broken: Vec::new(),
            table,
            table_damage: None,
        }
    }
}

/// A frame that does not decompress.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokenFrame {
    /// 0-based.
    pub index: u64,
    /// Where it is in the object, in bytes.
    pub stored: Range<u64>,
    /// Which raw bytes it holds.
    pub raw: Range<u64>,
    /// What is wrong with it.
    pub why: String,
}
