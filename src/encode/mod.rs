//! Transformations of bytes in memory: checksums and compression. Pure; nothing here does I/O.

mod blocks;
mod combine;
mod compression;
mod crc;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod mismatch;
#[cfg(any(test, fuzzing))]
pub(crate) mod sample;
mod seek_table;
mod shuffle;
mod zstd;

pub use blocks::BlockChecksums;
pub(crate) use blocks::{PartSum, StreamHasher};
pub use compression::{Compression, Filter, Zstd};
pub use crc::{Algorithm, Checksum, Hasher};
pub(crate) use mismatch::mismatch;
pub(crate) use seek_table::{FramePlace, SeekTable, SeekTableBuilder};
pub(crate) use zstd::{Encoded, FrameDecoder, FrameEncoder, stored_bytes_max, stored_frame};
