//! Restoring: find a manifest, read its shards, verify every byte on the way.

use bytes::Bytes;

use crate::buffer::AlignedVec;
use crate::encode::{BlockChecksums, Checksum, mismatch};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::MANIFEST_BYTES_MAX;
use crate::store::ReadReport;
use crate::sync::Arc;

use super::base::Base;
use super::catalog::CheckpointInfo;
use super::content::Content;
use super::latest;
use super::layout::Named;
use super::manifest::Manifest;
use super::proof::{Proof, check_stored};
use super::shard::ShardMeta;

/// Finds and reads checkpoints. Verifies unless told otherwise. Clone it and use it in any thread.
///
/// ```
/// use syncline::AlignedVec;
/// use syncline::checkpoint::CheckpointStore;
///
/// let checkpoints = CheckpointStore::open("mem://reader-doc")?;
/// checkpoints.save(7, 0, "generic", &[1, 2, 3], None)?;
///
/// let reader = checkpoints.reader();
/// let manifest = reader.latest()?.expect("one was just saved");
/// let mut state = AlignedVec::zeroed(manifest.shard(0)?.raw_bytes() as usize)?;
/// reader.read_shard_into(&manifest, 0, &mut state)?;
/// assert_eq!(&state[..], [1, 2, 3]);
/// # Ok::<(), syncline::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Reader {
    pub(super) base: Arc<Base>,
    pub(super) verify: bool,
}

impl Reader {
    pub(super) fn new(base: Arc<Base>) -> Reader {
        Reader { base, verify: true }
    }

    /// Without comparing checksums. Sizes are still checked.
    #[must_use]
    pub fn without_verification(mut self) -> Reader {
        self.verify = false;
        self
    }

    /// All checkpoints by their names, oldest first, in the order of (step, timestamp). No manifest
    /// is read: [`CheckpointStore::list`](super::CheckpointStore::list) does that.
    ///
    /// # Errors
    /// What the medium reports.
    pub fn list_checkpoints(&self) -> Result<Vec<CheckpointInfo>> {
        latest::list_names(&self.base)
    }

    /// The newest checkpoint: of the highest step, and of its timestamps the latest. `None` where
    /// there is none.
    ///
    /// The listing of manifests decides. `latest.json` is only a hint, and counts where it names a
    /// newer one that exists.
    ///
    /// # Errors
    /// As [`load_manifest`](Reader::load_manifest): a newest manifest that is damaged is an error,
    /// and never silently an older checkpoint. For a restart that goes past damage and tells, see
    /// [`newest_good`](Reader::newest_good).
    pub fn latest(&self) -> Result<Option<Manifest>> {
        match latest::newest(&self.base)? {
            Some(info) => load(&self.base, &info).map(Some),
            None => Ok(None),
        }
    }

    /// The manifest of a key such as [`CheckpointInfo::manifest_key`].
    ///
    /// # Errors
    /// `NotFound` if there is none; `InvalidInput` if the key is not
    /// `manifests/ckpt-<step>-<ts>.json`; `Corrupt` if it is damaged, larger than 4 GiB, or of
    /// another step than its key says; as [`Manifest::from_json`].
    pub fn load_manifest(&self, manifest_key: &str) -> Result<Manifest> {
        let Some(Named::Manifest { step, ts }) = Named::parse(manifest_key) else {
            let detail = format!("{manifest_key:?} is not the key of a manifest");
            return Err(Error::invalid("read manifest", detail)
                .with_remedy("use manifests/ckpt-<step>-<ts>.json, relative to the base"));
        };
        load(&self.base, &CheckpointInfo::new(step, ts))
    }

    /// The newest checkpoint of a step; `None` where there is none.
    ///
    /// # Errors
    /// As [`load_manifest`](Reader::load_manifest).
    pub fn find_manifest_by_step(&self, step: u64) -> Result<Option<Manifest>> {
        let named = self.list_checkpoints()?;
        match named.iter().rfind(|info| info.step == step) {
            Some(info) => load(&self.base, info).map(Some),
            None => Ok(None),
        }
    }

    /// Fills `buffer` with a rank's shard, which must have exactly its size
    /// ([`ShardMeta::raw_bytes`]), in parallel, verifying every block as it arrives. For
    /// `direct://` use memory of [`AlignedVec`]'s alignment.
    ///
    /// # Errors
    /// `ChecksumMismatch` naming the byte range that differs; `Incomplete` if the shard is missing
    /// or of another size; `InvalidInput` if `buffer` is not of the shard's size; `NotFound` if
    /// there is no such rank; `Unsupported` for forms and checksums of another version; `Corrupt` if a
    /// compressed shard does not decompress, naming the frame and its bytes. The buffer's contents
    /// are then unspecified.
    pub fn read_shard_into(
        &self,
        manifest: &Manifest,
        rank: u32,
        buffer: &mut [u8],
    ) -> Result<ReadReport> {
        let shard = manifest.shard(rank)?;
        if buffer.len() as u64 != shard.raw_bytes() {
            let (have, need) = (buffer.len(), shard.raw_bytes());
            let detail =
                format!("the buffer has {have} bytes, the shard of rank {rank} has {need}");
            return Err(Error::invalid("read shard", detail));
        }
        self.read_range(shard, 0, buffer)
    }

    /// Fills `buffer` with the shard's bytes from `offset`, verifying every block they lie in.
    /// Blocks that the range cuts are read whole. Where the manifest has one checksum for the whole
    /// shard (the ancestor's), the whole shard is read to verify, each time.
    ///
    /// # Errors
    /// As [`read_shard_into`](Reader::read_shard_into); `InvalidInput` if the range ends beyond the
    /// shard.
    pub fn read_shard_range_into(
        &self,
        manifest: &Manifest,
        rank: u32,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<ReadReport> {
        let shard = manifest.shard(rank)?;
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > shard.raw_bytes()) {
            let (length, size) = (buffer.len(), shard.raw_bytes());
            let detail =
                format!("{length} bytes from {offset} are not within the {size} of rank {rank}");
            return Err(Error::invalid("read shard", detail));
        }
        self.read_range(shard, offset, buffer)
    }

    /// A rank's shard in memory of its own, page-aligned. Touching fresh memory can cost more than
    /// the disk: [`read_shard_into`](Reader::read_shard_into) fills memory you have.
    ///
    /// # Errors
    /// As [`read_shard_into`](Reader::read_shard_into); `LimitExceeded` if the memory is not to be
    /// had.
    pub fn read_shard_by_rank(&self, manifest: &Manifest, rank: u32) -> Result<Bytes> {
        let shard = manifest.shard(rank)?;
        // The object bounds the allocation, not the manifest's word.
        let content = self.check_object(shard)?;
        let bytes = usize::try_from(shard.raw_bytes()).unwrap_or(usize::MAX);
        let mut buffer = AlignedVec::zeroed(bytes)?;
        self.read_checked(shard, &content, 0, &mut buffer)?;
        Ok(buffer.into())
    }

    /// A rank's shard in memory of its own, verified against the manifest and then compared with a
    /// checksum that the caller has from elsewhere, such as `"crc32c:e3069283"` or one of another known
    /// [`Algorithm`](crate::Algorithm).
    ///
    /// # Errors
    /// `InvalidInput` if `expected` is no known checksum; `ChecksumMismatch` with both values if the
    /// bytes are others; as [`read_shard_by_rank`](Reader::read_shard_by_rank).
    pub fn load_checkpoint_with_validation(
        &self,
        manifest: &Manifest,
        rank: u32,
        expected: &str,
    ) -> Result<Bytes> {
        let uri = self.base.uri(&manifest.shard(rank)?.key);
        let expected: Checksum = expected.parse().map_err(|e: Error| e.with_uri(&*uri))?;
        let bytes = self.read_shard_by_rank(manifest, rank)?;
        let found = expected.algorithm().checksum(&bytes);
        if found != expected {
            return Err(mismatch(0, bytes.len() as u64, expected, found).with_uri(uri));
        }
        Ok(bytes)
    }

    fn read_range(&self, shard: &ShardMeta, offset: u64, buffer: &mut [u8]) -> Result<ReadReport> {
        let content = self.check_object(shard);
        let content = content.map_err(|error| error.with_uri(self.base.uri(&shard.key)))?;
        self.read_checked(shard, &content, offset, buffer)
    }

    /// Reads a range of a shard whose object has been checked.
    fn read_checked(
        &self,
        shard: &ShardMeta,
        content: &Content<'_>,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<ReadReport> {
        let mut read = || {
            let proof = if self.verify { Proof::of(shard)? } else { Proof::Absent };
            match proof {
                Proof::Blocks(blocks) => read_blocks(content, &blocks, offset, buffer),
                Proof::Whole(whole) if buffer.len() as u64 == shard.raw_bytes() => {
                    let report = content.read_into(offset, buffer)?;
                    whole.check_bytes(shard, buffer)?;
                    Ok(report)
                }
                Proof::Whole(whole) => {
                    whole.check_object(&self.base, shard)?;
                    content.read_into(offset, buffer)
                }
                Proof::Absent => {
                    if self.verify {
                        check_stored(&self.base, shard)?;
                    }
                    content.read_into(offset, buffer)
                }
            }
        };
        read().map_err(|error| error.with_uri(self.base.uri(&shard.key)))
    }

    /// Whether the shard is there, of the stated size, and in a form that can be read.
    pub(super) fn check_object(&self, shard: &ShardMeta) -> Result<Content<'_>> {
        let content = Content::of(&self.base, shard)?;
        let found = self.base.stat_shard(shard.rank, &shard.key)?.size_bytes;
        if found == shard.size {
            return Ok(content);
        }
        let (rank, stated) = (shard.rank, shard.size);
        let detail =
            format!("the shard of rank {rank} has {found} bytes, the manifest says {stated}");
        Err(Error::new(ErrorKind::Incomplete, "read shard", detail)
            .with_uri(self.base.uri(&shard.key)))
    }
}

/// Reads a range in up to three pieces: the whole blocks that lie in it straight into `buffer`,
/// the blocks that its ends cut through memory of their own.
fn read_blocks(
    content: &Content<'_>,
    blocks: &BlockChecksums,
    offset: u64,
    buffer: &mut [u8],
) -> Result<ReadReport> {
    if buffer.is_empty() {
        return content.read_into(offset, buffer);
    }
    let end = offset + buffer.len() as u64;
    let block_bytes = blocks.block_bytes();
    let whole_end = if end == blocks.size_bytes() { end } else { end - end % block_bytes };
    let mut report: Option<ReadReport> = None;
    let (mut at, mut rest) = (offset, buffer);
    while !rest.is_empty() {
        let whole = at.is_multiple_of(block_bytes) && at < whole_end;
        let block_end = at - at % block_bytes + block_bytes;
        let stop = if whole { whole_end } else { block_end.min(end) };
        let (piece, later) = rest.split_at_mut((stop - at) as usize);
        let read = if whole {
            content.read_into_verified(at, piece, blocks)?
        } else {
            read_cut(content, blocks, at, piece)?
        };
        match &mut report {
            Some(report) => {
                report.bytes += read.bytes;
                report.copied_bytes += read.copied_bytes;
            }
            None => report = Some(read),
        }
        (at, rest) = (stop, later);
    }
    Ok(report.expect("a range with bytes has a piece"))
}

/// Reads a piece of one block by reading and verifying the block.
fn read_cut(
    content: &Content<'_>,
    blocks: &BlockChecksums,
    at: u64,
    piece: &mut [u8],
) -> Result<ReadReport> {
    let index = at / blocks.block_bytes();
    let start = index * blocks.block_bytes();
    let mut block = AlignedVec::zeroed(blocks.bytes_of(index as usize) as usize)?;
    let mut report = content.read_into_verified(start, &mut block, blocks)?;
    let from = (at - start) as usize;
    piece.copy_from_slice(&block[from..from + piece.len()]);
    report.bytes = piece.len() as u64;
    report.copied_bytes = piece.len() as u64;
    Ok(report)
}

/// Reads and checks one manifest.
pub(super) fn load(base: &Base, info: &CheckpointInfo) -> Result<Manifest> {
    let text = base.read_document(&info.manifest_key, MANIFEST_BYTES_MAX)?;
    let uri = || base.uri(&info.manifest_key);
    let mut manifest = Manifest::from_json(&text).map_err(|error| error.with_uri(uri()))?;
    if manifest.global_step != info.step {
        let detail = format!("it is of step {}, its name says {}", manifest.global_step, info.step);
        return Err(Error::new(ErrorKind::Corrupt, "read manifest", detail).with_uri(uri()));
    }
    manifest.ts = Some(info.timestamp.clone());
    Ok(manifest)
}
