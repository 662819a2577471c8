//! Saving, a rank's part: send the shard, tell its checksums, leave a receipt.

use std::time::Duration;

use serde_json::Value;

use crate::backend::ObjectMeta;
use crate::encode::{Algorithm, BlockChecksums, Checksum, Compression, Filter};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{ObjectWriter, WriteOptions};
use crate::sync::Arc;
use crate::time::Deadline;

use super::base::Base;
use super::catalog::CheckpointInfo;
use super::commit::{self, Heading};
use super::layout::KeyLayout;
use super::receipt::{Receipt, is_shard_of};
use super::shard::{ShardMeta, ZSTD};

/// What to do about a shard or receipt that is there already.
const SENT_ALREADY: &str = "a save is sent once: if this rank died and came back, save the step again \
                            under a new timestamp on all ranks; gc removes the leftovers";

/// Saves as one rank of a checkpoint. Owns what it needs: clone it and use it in any thread.
///
/// Without a communicator, every rank calls
/// [`save_distributed_shard`](Writer::save_distributed_shard) and one of them
/// [`finalize_distributed_checkpoint`](Writer::finalize_distributed_checkpoint). With one (MPI),
/// every rank calls [`put_shard`](Writer::put_shard), the [`ShardMeta`]s travel by gather, and one
/// rank calls [`finalize_checkpoint`](Writer::finalize_checkpoint). A process that has the shards of many ranks
/// writes them together by [`CheckpointStore::put_shards`](super::CheckpointStore::put_shards).
///
/// ```
/// use syncline::Timestamp;
/// use syncline::checkpoint::CheckpointStore;
///
/// let checkpoints = CheckpointStore::open("mem://writer-doc")?;
/// let layout = checkpoints.layout(100, Timestamp::now()); // one clock: hand the timestamp to all ranks
/// let checkpoint_writer = checkpoints.writer(1, 0)?;
///
/// let (mut shard_writer, key) = checkpoint_writer.get_shard_writer(&layout)?;
/// shard_writer.write_chunk(b"123456789")?;
/// let shard_meta = checkpoint_writer.finalize_writer_to_shard_meta(&layout, key, shard_writer)?;
/// assert_eq!(shard_meta.checksum.as_deref(), Some("crc32c:e3069283"));
///
/// checkpoint_writer.finalize_checkpoint(&layout, "generic", 0, vec![shard_meta], None)?;
/// assert_eq!(checkpoints.load_latest()?.unwrap(), "123456789");
/// # Ok::<(), syncline::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Writer {
    base: Arc<Base>,
    world_size: u32,
    rank: u32,
}

impl Writer {
    pub(super) fn new(base: Arc<Base>, world_size: u32, rank: u32) -> Writer {
        Writer { base, world_size, rank }
    }

    /// Number of ranks.
    pub fn world_size(&self) -> u32 {
        self.world_size
    }

    /// This rank.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// A writer for this rank's shard, and the shard's key. Where the size is known, say it:
    /// [`get_shard_writer_sized`](Writer::get_shard_writer_sized).
    ///
    /// # Errors
    /// `AlreadyExists` if this rank's shard of this save was sent already (asked now, and decided
    /// when the writer is finalized); `Corrupt` if its folder is a symbolic link out of the base; as
    /// [`ObjectStore::get_writer`](crate::ObjectStore::get_writer).
    pub fn get_shard_writer(&self, layout: &KeyLayout) -> Result<(Box<dyn ObjectWriter>, String)> {
        self.open_shard(layout, None)
    }

    /// As [`get_shard_writer`](Writer::get_shard_writer), with an estimate of the shard's size in
    /// bytes.
    ///
    /// # Errors
    /// As `get_shard_writer`.
    pub fn get_shard_writer_sized(
        &self,
        layout: &KeyLayout,
        size_hint_bytes: u64,
    ) -> Result<(Box<dyn ObjectWriter>, String)> {
        self.open_shard(layout, Some(size_hint_bytes))
    }

    fn open_shard(
        &self,
        layout: &KeyLayout,
        size_hint_bytes: Option<u64>,
    ) -> Result<(Box<dyn ObjectWriter>, String)> {
        let key = layout.shard_key(self.rank);
        let uri = self.base.uri(&key);
        self.base.check_folders_of([key.as_str()])?;
        // Create-only holds at the end; asking now spares a resent shard its whole way.
        if self.base.store.exists(&uri)? {
            return Err(self.sent_already("open shard").with_uri(uri));
        }
        // Manifests carry CRC32C. A store without checksums is taken at its word.
        let checksum = self.base.store.config().checksum().map(|_| Algorithm::Crc32c);
        let options = WriteOptions::default().create_only().checksum(checksum);
        let mut options = options.compression(layout.compression());
        options.size_hint_bytes = size_hint_bytes;
        Ok((self.base.store.get_writer_with(&uri, options)?, key))
    }

    /// Finalizes the writer and tells the shard with its checksums.
    ///
    /// # Errors
    /// `AlreadyExists` if the shard was sent meanwhile; `InvalidInput` if `key` is not this rank's
    /// in `layout`, or the writer's checksum is not `crc32c:` (nothing is visible then); as
    /// [`ObjectWriter::finalize`].
    pub fn finalize_writer_to_shard_meta(
        &self,
        layout: &KeyLayout,
        key: String,
        writer: Box<dyn ObjectWriter>,
    ) -> Result<ShardMeta> {
        self.check_own(layout, &key)?;
        check_compression(layout.compression(), writer.compression())?;
        let checksum = writer.checksum();
        check_label(checksum.as_deref())?;
        let (blocks, raw_bytes) = (writer.block_checksums(), writer.bytes_written());
        let object = writer.finalize().map_err(|error| self.explain(error))?;
        let sums = Sums { checksum, stored_checksum: object.checksum.clone(), blocks };
        Ok(self.shard_meta(layout, key, object, raw_bytes, sums))
    }

    /// Tells a shard whose writer the caller finalized itself, with the checksum the writer had, which is of
    /// the bytes written to it; sizes come from the store. The manifest then has no block checksums: damage
    /// shows, but not where. Of a compressed shard it has no checksum of the object either.
    ///
    /// # Errors
    /// `Incomplete` if the shard is not there; `InvalidInput` if `key` is not this rank's in
    /// `layout`, or the checksum is not `crc32c:xxxxxxxx`; `Corrupt` if the shard is not compressed as
    /// `layout` says.
    pub fn finalize_shard_meta_with_checksum(
        &self,
        layout: &KeyLayout,
        key: String,
        checksum: Option<String>,
    ) -> Result<ShardMeta> {
        self.check_own(layout, &key)?;
        check_label(checksum.as_deref())?;
        let object = self.base.stat_shard(self.rank, &key)?;
        let (raw_bytes, stored_checksum) = match layout.compression() {
            Compression::None => (object.size_bytes, checksum.clone()),
            compression => {
                let uri = self.base.uri(&key);
                let form = self.base.store.compressed_form(&uri, compression.filter())?;
                (form.raw_bytes, None)
            }
        };
        let sums = Sums { checksum, stored_checksum, blocks: None };
        Ok(self.shard_meta(layout, key, object, raw_bytes, sums))
    }

    pub(super) fn shard_meta(
        &self,
        layout: &KeyLayout,
        key: String,
        object: ObjectMeta,
        raw_bytes: u64,
        sums: Sums,
    ) -> ShardMeta {
        let (compression, filter) = names_of(layout.compression());
        ShardMeta {
            rank: self.rank,
            key,
            size: object.size_bytes,
            etag: object.etag,
            checksum: sums.checksum,
            raw_size: Some(raw_bytes),
            stored_checksum: sums.stored_checksum,
            compression,
            filter,
            part_bytes: sums.blocks.as_ref().map(BlockChecksums::block_bytes),
            part_checksums: sums.blocks.map(|blocks| blocks.to_hex()),
        }
    }

    /// Writes this rank's shard from memory, without copying it where the medium admits it (see
    /// [`AlignedVec`](crate::AlignedVec)).
    ///
    /// # Errors
    /// As [`get_shard_writer`](Writer::get_shard_writer) and
    /// [`finalize_writer_to_shard_meta`](Writer::finalize_writer_to_shard_meta).
    pub fn put_shard(&self, layout: &KeyLayout, data: &[u8]) -> Result<ShardMeta> {
        let (mut writer, key) = self.get_shard_writer_sized(layout, data.len() as u64)?;
        writer.write_borrowed(data)?;
        self.finalize_writer_to_shard_meta(layout, key, writer)
    }

    /// [`put_shard`](Writer::put_shard), then [`write_receipt`](Writer::write_receipt).
    ///
    /// # Errors
    /// As both.
    pub fn save_distributed_shard(&self, layout: &KeyLayout, data: &[u8]) -> Result<ShardMeta> {
        let shard = self.put_shard(layout, data)?;
        self.write_receipt(layout, &shard)?;
        Ok(shard)
    }

    /// Tells the finalizer, durably, that this rank's shard stands.
    ///
    /// # Errors
    /// `AlreadyExists` if this rank's receipt is there already; `InvalidInput` if the shard is of
    /// another rank or save.
    pub fn write_receipt(&self, layout: &KeyLayout, shard: &ShardMeta) -> Result<()> {
        if shard.rank != self.rank || !is_shard_of(shard, layout.step(), layout.timestamp()) {
            let detail =
                format!("the shard {:?} is not rank {}'s of {layout}", shard.key, self.rank);
            return Err(Error::invalid("write receipt", detail));
        }
        let text = Receipt::new(layout, self.world_size, shard).to_json();
        let key = layout.receipt_key(self.rank);
        self.base.create_document(&key, &text).map_err(|error| self.explain(error))
    }

    /// Collects the receipts of all ranks, waits for missing ones up to `timeout`, checks that
    /// every shard is there, and writes the manifest: from then on the checkpoint exists. One rank
    /// calls it.
    ///
    /// # Errors
    /// `Incomplete` naming the ranks without a receipt, or the shards that are gone or differ from
    /// their receipts; `Corrupt` naming the receipts that are damaged, duplicate or of another
    /// save; `AlreadyExists` if another process finalized this save; `InvalidInput` if `framework`
    /// is empty.
    pub fn finalize_distributed_checkpoint(
        &self,
        layout: &KeyLayout,
        framework: &str,
        epoch: u64,
        user_meta: Option<Value>,
        timeout: Duration,
    ) -> Result<CheckpointInfo> {
        let deadline = Deadline::after(timeout);
        let heading = Heading { layout, framework, epoch, world_size: self.world_size, user_meta };
        heading.check()?;
        let shards = commit::collect_receipts(&self.base, layout, self.world_size, &deadline)?;
        let info = commit::commit(&self.base, heading, shards)?;
        commit::remove_receipts(&self.base, layout);
        Ok(info)
    }

    /// Checks that every shard is there and writes the manifest, from shards the caller gathered.
    /// One rank calls it.
    ///
    /// # Errors
    /// `InvalidInput` if shards are of another save or twice of one rank; `Incomplete` naming the
    /// ranks without a shard, or the shards that are gone or differ; `AlreadyExists` if another
    /// process finalized this save; `InvalidInput` if `framework` is empty.
    pub fn finalize_checkpoint(
        &self,
        layout: &KeyLayout,
        framework: &str,
        epoch: u64,
        shards: Vec<ShardMeta>,
        user_meta: Option<Value>,
    ) -> Result<CheckpointInfo> {
        let heading = Heading { layout, framework, epoch, world_size: self.world_size, user_meta };
        heading.check()?;
        let shards = commit::check_gathered(layout, self.world_size, shards)?;
        commit::commit(&self.base, heading, shards)
    }

    fn check_own(&self, layout: &KeyLayout, key: &str) -> Result<()> {
        if key == layout.shard_key(self.rank) {
            return Ok(());
        }
        let detail = format!("{key:?} is not the key of rank {} in {layout}", self.rank);
        Err(Error::invalid("finalize shard", detail)
            .with_remedy("pass the key that get_shard_writer returned for the same layout"))
    }

    fn sent_already(&self, operation: &'static str) -> Error {
        let detail = format!("rank {} has already sent it", self.rank);
        Error::new(ErrorKind::AlreadyExists, operation, detail).with_remedy(SENT_ALREADY)
    }

    pub(super) fn explain(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::AlreadyExists => error.with_remedy(SENT_ALREADY),
            _ => error,
        }
    }
}

/// The checksums of a shard that are known.
pub(super) struct Sums {
    pub checksum: Option<String>,
    pub stored_checksum: Option<String>,
    pub blocks: Option<BlockChecksums>,
}

/// What the key promises is what the writer does.
fn check_compression(of_layout: Compression, of_writer: Compression) -> Result<()> {
    if of_layout == of_writer {
        return Ok(());
    }
    let detail = format!("its compression is {of_writer}, that of the layout {of_layout}");
    Err(Error::invalid("finalize shard", detail)
        .with_remedy("take the writer from get_shard_writer, and finalize it here"))
}

/// As a manifest has them.
fn names_of(compression: Compression) -> (Option<String>, Option<String>) {
    match compression {
        Compression::None => (None, None),
        Compression::Zstd(zstd) => {
            let filter = Some(zstd.filter()).filter(|filter| *filter != Filter::None);
            (Some(ZSTD.to_owned()), filter.map(|filter| filter.name().to_owned()))
        }
    }
}

/// Manifests carry CRC32C, or nothing.
fn check_label(checksum: Option<&str>) -> Result<()> {
    let Some(text) = checksum else { return Ok(()) };
    if text.parse::<Checksum>()?.algorithm() == Algorithm::Crc32c {
        return Ok(());
    }
    Err(Error::invalid("finalize shard", format!("{text} is not a crc32c: checksum"))
        .with_remedy("write shards with Algorithm::Crc32c, or with no checksum"))
}
