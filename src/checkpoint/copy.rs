//! Copies of shards: what must hold before one is begun, and before it counts.

use crate::encode::{BlockChecksums, Checksum, mismatch};
use crate::error::{Error, ErrorKind, Result};
use crate::store::ObjectWriter;

use super::manifest::Manifest;
use super::proof::Proof;
use super::restore::Reader;
use super::shard::ShardMeta;

impl Reader {
    /// Whether a rank's shard is there, of the stated size, and in a form that this version reads. No
    /// byte of it is read.
    ///
    /// # Errors
    /// `Incomplete` if the shard is missing or of another size; `Corrupt` if its entry contradicts
    /// itself; `Unsupported` for forms and checksums that this version does not know; `NotFound` if there is no such
    /// rank; what the medium reports.
    pub fn check_shard(&self, manifest: &Manifest, rank: u32) -> Result<()> {
        let shard = manifest.shard(rank)?;
        let known = || if self.verify { Proof::of(shard).map(drop) } else { Ok(()) };
        let outcome = self.check_object(shard).and_then(|_| known());
        outcome.map_err(|error| error.with_uri(self.base.uri(&shard.key)))
    }

    /// Compares a copy of a rank's shard with what the manifest says, before the copy is finalized: its
    /// size, and its checksum, which must be of the algorithm of [`ShardMeta::checksum`]. A copy whose
    /// writer computes CRC-32/IEEE is compared too where the manifest may have such a value under the
    /// label `crc32c:`, as the ancestor's first versions wrote it.
    ///
    /// # Errors
    /// `ChecksumMismatch` naming the byte range that differs: a block
    /// ([`Error::part`]) where manifest and writer have blocks of the same size; `Incomplete` if the copy
    /// is of another size; `InvalidInput` if its writer computes no checksum or one of another algorithm;
    /// as [`check_shard`](Reader::check_shard).
    pub fn verify_copy(
        &self,
        manifest: &Manifest,
        rank: u32,
        copy: &dyn ObjectWriter,
    ) -> Result<()> {
        let shard = manifest.shard(rank)?;
        let outcome = self.compare_copy(shard, copy);
        outcome.map_err(|error| error.with_uri(self.base.uri(&shard.key)))
    }

    fn compare_copy(&self, shard: &ShardMeta, copy: &dyn ObjectWriter) -> Result<()> {
        let (found, stated) = (copy.bytes_written(), shard.raw_bytes());
        if found != stated {
            let rank = shard.rank;
            let detail =
                format!("the copy of rank {rank} has {found} bytes, the manifest says {stated}");
            return Err(Error::new(ErrorKind::Incomplete, "verify copy", detail));
        }
        let proof = if self.verify { Proof::of(shard)? } else { Proof::Absent };
        let found = || -> Result<Checksum> {
            let detail = "the copy's writer computes no checksum";
            copy.checksum().ok_or_else(|| Error::invalid("verify copy", detail))?.parse()
        };
        match proof {
            Proof::Absent => Ok(()),
            Proof::Whole(whole) => whole.check_copy(shard, found()?),
            Proof::Blocks(blocks) => compare_blocks(&blocks, found()?, copy.block_checksums()),
        }
    }
}

/// Compares the whole, then says which block differs first.
fn compare_blocks(
    expected: &BlockChecksums,
    found: Checksum,
    blocks: Option<BlockChecksums>,
) -> Result<()> {
    let whole = expected.combined();
    if whole == found {
        return Ok(());
    }
    if whole.algorithm() != found.algorithm() {
        let detail = format!("{found} cannot be compared with {whole}");
        return Err(Error::invalid("verify copy", detail));
    }
    let comparable = blocks.filter(|blocks| blocks.block_bytes() == expected.block_bytes());
    let pairs = comparable.iter().flat_map(|b| expected.crc32c().iter().zip(b.crc32c()));
    let Some((index, (wanted, found))) = pairs.enumerate().find(|(_, (a, b))| a != b) else {
        return Err(mismatch(0, expected.size_bytes(), whole, found));
    };
    let sum = |crc: &u32| Checksum::new(whole.algorithm(), u64::from(*crc));
    let start = index as u64 * expected.block_bytes();
    let damaged = mismatch(start, expected.bytes_of(index), sum(wanted), sum(found));
    Err(damaged.with_part(index as u64))
}
