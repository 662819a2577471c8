//! What proves that a shard's bytes are those that were written.

use crate::encode::{Algorithm, BlockChecksums, Checksum, Hasher, mismatch};
use crate::error::{Error, ErrorKind, Result};

use super::base::Base;
use super::frames;
use super::shard::ShardMeta;

/// What a manifest has to compare a shard's bytes with.
#[derive(Debug)]
pub(super) enum Proof {
    /// A checksum for each block: ranges verify alone, damage is located.
    Blocks(BlockChecksums),
    /// One checksum for all bytes, as the ancestor's manifests have it.
    Whole(Whole),
    /// Nothing.
    Absent,
}

impl Proof {
    /// # Errors
    /// `Corrupt` if the entry contradicts itself; `Unsupported` if this version knows neither the
    /// shard's form nor its checksum.
    pub fn of(shard: &ShardMeta) -> Result<Proof> {
        let form = shard.form()?;
        if let Some(blocks) = shard.block_checksums()? {
            return Ok(Proof::Blocks(blocks));
        }
        // What is not compressed is stored as it is.
        let stored = shard.stored_checksum.as_ref().filter(|_| form.is_none());
        let Some(text) = shard.checksum.as_ref().or(stored) else { return Ok(Proof::Absent) };
        let expected: Checksum = text.parse().map_err(|error: Error| {
            Error::new(ErrorKind::Unsupported, "verify shard", error.to_string())
                .with_remedy("read it with Reader::without_verification")
        })?;
        // Old ancestors computed another polynomial than the label says.
        let mislabelled = expected.algorithm() == Algorithm::Crc32c && !shard.has_our_fields();
        Ok(Proof::Whole(Whole { expected, mislabelled }))
    }
}

/// Compares the object as it is stored, where the manifest has nothing of the raw bytes.
pub(super) fn check_stored(base: &Base, shard: &ShardMeta) -> Result<()> {
    let Some(expected) = shard.expected_of_stored()? else { return Ok(()) };
    let found = hash_object(base, &base.uri(&shard.key), shard.size, expected.algorithm())?;
    if found == expected { Ok(()) } else { Err(mismatch(0, shard.size, expected, found)) }
}

/// The checksum of a whole shard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole {
    expected: Checksum,
    /// Whether the value may be IEEE CRC-32 under the label `crc32c:`.
    mislabelled: bool,
}

impl Whole {
    pub fn algorithm(&self) -> Algorithm {
        self.expected.algorithm()
    }

    /// Whether all raw bytes of a compressed shard, which this crate wrote, come to this.
    pub fn is(&self, actual: Checksum) -> bool {
        self.expected == actual
    }

    /// Compares a shard in memory.
    pub fn check_bytes(&self, shard: &ShardMeta, bytes: &[u8]) -> Result<()> {
        self.compare(shard, self.expected.algorithm().checksum(bytes), || {
            Ok(Algorithm::Crc32.checksum(bytes))
        })
    }

    /// Compares a copy of a shard by its checksum, of the label's algorithm or [`Algorithm::Crc32`].
    pub fn check_copy(&self, shard: &ShardMeta, found: Checksum) -> Result<()> {
        if self.holds(shard, found) {
            return Ok(());
        }
        if found.algorithm() != self.expected.algorithm() {
            let detail = format!("{found} cannot be compared with {}", self.expected);
            return Err(Error::invalid("verify copy", detail)
                .with_remedy("write the copy with the algorithm of the shard's checksum"));
        }
        Err(mismatch(0, shard.raw_bytes(), self.expected, found))
    }

    /// Compares a shard where it is, in bounded memory, reading it once; a mislabelled one twice.
    pub fn check_object(&self, base: &Base, shard: &ShardMeta) -> Result<()> {
        let uri = base.uri(&shard.key);
        if let Some(form) = shard.form()? {
            let actual = frames::whole_checksum(base, &uri, form, self.expected.algorithm())?;
            return self.compare(shard, actual, || Ok(actual));
        }
        let actual = match self.expected.algorithm() {
            Algorithm::Crc32c => {
                let block_bytes = base.store.config().part_bytes() as u64;
                base.store.block_checksums(&uri, block_bytes)?.combined()
            }
            other => hash_object(base, &uri, shard.size, other)?,
        };
        self.compare(shard, actual, || hash_object(base, &uri, shard.size, Algorithm::Crc32))
    }

    fn compare(
        &self,
        shard: &ShardMeta,
        actual: Checksum,
        ieee: impl FnOnce() -> Result<Checksum>,
    ) -> Result<()> {
        if self.holds(shard, actual) || (self.mislabelled && self.holds(shard, ieee()?)) {
            return Ok(());
        }
        Err(mismatch(0, shard.raw_bytes(), self.expected, actual))
    }

    /// Whether the shard's bytes are those whose checksum is `found`: in the algorithm of the label, or
    /// IEEE under the label of the other.
    fn holds(&self, shard: &ShardMeta, found: Checksum) -> bool {
        if found == self.expected {
            return true;
        }
        let ieee = self.mislabelled
            && found.algorithm() == Algorithm::Crc32
            && found.value() == self.expected.value();
        if ieee {
            let (rank, label) = (shard.rank, self.expected);
            log::warn!(
                "rank {rank}: {label} is an IEEE CRC-32 under the label crc32c; the bytes match it"
            );
        }
        ieee
    }
}

fn hash_object(base: &Base, uri: &str, size_bytes: u64, algorithm: Algorithm) -> Result<Checksum> {
    let step_bytes = base.store.config().part_bytes() as u64;
    let mut hasher = Hasher::new(algorithm);
    let mut offset = 0;
    while offset < size_bytes {
        let length = step_bytes.min(size_bytes - offset);
        hasher.update(&base.store.get_range(uri, offset, Some(length))?);
        offset += length;
    }
    Ok(hasher.checksum())
}
