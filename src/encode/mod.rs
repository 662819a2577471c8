//! Transformations of bytes in memory: checksums. Pure; nothing here does I/O.

mod blocks;
mod combine;
mod crc;
mod mismatch;

pub use blocks::BlockChecksums;
pub(crate) use blocks::{PartSum, StreamHasher};
pub use crc::{Algorithm, Checksum, Hasher};
pub(crate) use mismatch::mismatch;
