//! How an object is written.

use crate::config::Config;
use crate::encode::{Algorithm, Compression};

/// How one object is written. The default: the store's checksum, replace what is there, size unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WriteOptions {
    /// The caller's estimate of the object's size in bytes: space is set aside for it, and it decides
    /// the part size on media that limit the number of parts. A wrong hint costs speed, never data; one of
    /// more than the store's memory can carry there is refused with `LimitExceeded`.
    pub size_hint_bytes: Option<u64>,
    /// Fail with `AlreadyExists` instead of replacing an object.
    pub create_only: bool,
    /// The checksum to compute.
    pub checksum: ChecksumChoice,
    /// How the bytes are compressed on their way. The object's name is not changed: give it the
    /// [suffix](Compression::suffix).
    pub compression: Compression,
}

impl WriteOptions {
    /// With an estimate of the object's size in bytes.
    #[must_use]
    pub fn size_hint_bytes(mut self, bytes: u64) -> Self {
        self.size_hint_bytes = Some(bytes);
        self
    }

    /// Failing with `AlreadyExists` instead of replacing an object.
    #[must_use]
    pub fn create_only(mut self) -> Self {
        self.create_only = true;
        self
    }

    /// With this checksum, or `None` for none, instead of the store's.
    #[must_use]
    pub fn checksum(mut self, checksum: Option<Algorithm>) -> Self {
        self.checksum = checksum.map_or(ChecksumChoice::None, ChecksumChoice::Use);
        self
    }

    /// Compressing so.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }
}

/// Which checksum a writer computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ChecksumChoice {
    /// The store's ([`Config::checksum`]).
    #[default]
    Store,
    /// This one.
    Use(Algorithm),
    /// None: `checksum()` answers `None` and nothing is hashed.
    None,
}

impl ChecksumChoice {
    /// The algorithm, of a store with these settings.
    pub(super) fn algorithm(self, config: &Config) -> Option<Algorithm> {
        match self {
            ChecksumChoice::Store => config.checksum(),
            ChecksumChoice::Use(algorithm) => Some(algorithm),
            ChecksumChoice::None => None,
        }
    }
}
