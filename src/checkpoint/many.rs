//! Many small shards from one process, and back: what goes together takes one call of the store.

use bytes::Bytes;

use crate::backend::ObjectMeta;
use crate::encode::{Algorithm, BlockChecksums, Checksum, Compression};
use crate::error::{Error, ErrorKind, Result};
use crate::store::WriteOptions;

use super::CheckpointStore;
use super::layout::KeyLayout;
use super::manifest::Manifest;
use super::receipt::{Receipt, is_shard_of};
use super::restore::Reader;
use super::save::{Sums, Writer};
use super::shard::ShardMeta;

impl CheckpointStore {
    /// Writes the shards of several ranks, each as [`Writer::put_shard`] would, and tells in their order what
    /// became of each. Those of at most [`Config::part_bytes`](crate::Config::part_bytes) that are not compressed
    /// go by [`ObjectStore::put_many`](crate::ObjectStore::put_many), which is several times as fast on a disk.
    ///
    /// ```
    /// use syncline::{Result, Timestamp};
    /// use syncline::checkpoint::{CheckpointStore, ShardMeta};
    ///
    /// let checkpoints = CheckpointStore::open("mem://many-shards")?;
    /// let layout = checkpoints.layout(100, Timestamp::now());
    /// let shards = [(0, b"of rank 0".as_slice()), (1, b"of rank 1".as_slice())];
    /// let written = checkpoints.put_shards(&layout, 2, &shards);
    /// let written: Vec<ShardMeta> = written.into_iter().collect::<Result<_>>()?;
    /// checkpoints.writer(2, 0)?.finalize_checkpoint(&layout, "generic", 0, written, None)?;
    /// # Ok::<(), syncline::Error>(())
    /// ```
    ///
    /// # Errors
    /// For each shard as [`writer`](CheckpointStore::writer) and [`Writer::put_shard`].
    pub fn put_shards(
        &self,
        layout: &KeyLayout,
        world_size: u32,
        shards: &[(u32, &[u8])],
    ) -> Vec<Result<ShardMeta>> {
        let store = &self.base.store;
        let part_bytes = store.config().part_bytes();
        let small =
            |data: &[u8]| layout.compression() == Compression::None && data.len() <= part_bytes;
        let mut outcomes: Vec<Option<Result<ShardMeta>>> = Vec::with_capacity(shards.len());
        let mut together: Vec<(usize, Writer, String, String)> = Vec::new();
        for (place, (rank, data)) in shards.iter().enumerate() {
            outcomes.push(match self.writer(world_size, *rank) {
                Ok(writer) if small(data) => {
                    let key = layout.shard_key(*rank);
                    let uri = self.base.uri(&key);
                    together.push((place, writer, key, uri));
                    None
                }
                Ok(writer) => Some(writer.put_shard(layout, data)),
                Err(error) => Some(Err(error)),
            });
        }
        if let Err(error) = self.base.check_folders_of(together.iter().map(|(_, _, key, _)| &**key))
        {
            for (place, _, _, uri) in together.drain(..) {
                outcomes[place] = Some(Err(error.clone().with_uri(uri)));
            }
        }
        let objects: Vec<(&str, &[u8])> =
            together.iter().map(|(place, _, _, uri)| (uri.as_str(), shards[*place].1)).collect();
        let checksum = store.config().checksum().map(|_| Algorithm::Crc32c);
        let options = WriteOptions::default().create_only().checksum(checksum);
        let written = store.put_many(&objects, options);
        for ((place, writer, key, _), outcome) in together.into_iter().zip(written) {
            let shard = |object: ObjectMeta| {
                let sums = sums_of_one_block(&object, part_bytes)?;
                let raw_bytes = object.size_bytes;
                Ok(writer.shard_meta(layout, key, object, raw_bytes, sums))
            };
            outcomes[place] = Some(outcome.map_err(|error| writer.explain(error)).and_then(shard));
        }
        let known = |outcome: Option<_>| outcome.unwrap_or_else(|| Err(lost("put shards")));
        outcomes.into_iter().map(known).collect()
    }

    /// Writes the receipts of several ranks, each as [`Writer::write_receipt`] would.
    ///
    /// # Errors
    /// For each receipt as there.
    pub fn write_receipts(
        &self,
        layout: &KeyLayout,
        world_size: u32,
        shards: &[ShardMeta],
    ) -> Vec<Result<()>> {
        // All of them are in one folder.
        let key = shards.first().map(|shard| layout.receipt_key(shard.rank));
        let within = self.base.check_folders_of(key.as_deref());
        let document = |shard: &ShardMeta| -> Result<(String, Vec<u8>)> {
            self.writer(world_size, shard.rank)?;
            check_save(layout, shard)?;
            within.clone()?;
            let text = Receipt::new(layout, world_size, shard).to_json();
            Ok((self.base.uri(&layout.receipt_key(shard.rank)), text))
        };
        let mut outcomes: Vec<Result<()>> = Vec::with_capacity(shards.len());
        // The texts of so many at a time are in memory.
        for some in shards.chunks(RECEIPTS_AT_ONCE) {
            let last = outcomes.rchunks(RECEIPTS_AT_ONCE).next().unwrap_or_default();
            let silent = |outcome: &Result<()>| outcome.as_ref().is_err_and(is_silence);
            if let Some(Err(error)) = last.last()
                && last.iter().all(silent)
            {
                let error = error.clone();
                outcomes.extend(some.iter().map(|_| Err(error.clone())));
                continue;
            }
            let documents: Vec<Result<(String, Vec<u8>)>> = some.iter().map(document).collect();
            let known = documents.iter().flatten();
            let objects: Vec<(&str, &[u8])> =
                known.map(|(uri, text)| (uri.as_str(), text.as_slice())).collect();
            let options = WriteOptions::default().create_only();
            let mut written = self.base.store.put_many(&objects, options).into_iter();
            for (shard, document) in some.iter().zip(&documents) {
                outcomes.push(match document {
                    Ok(_) => written
                        .next()
                        .unwrap_or_else(|| Err(lost("write receipts")))
                        .map(drop)
                        .map_err(|error| match self.writer(world_size, shard.rank) {
                            Ok(writer) => writer.explain(error),
                            Err(error) => error,
                        }),
                    Err(error) => Err(error.clone()),
                });
            }
        }
        outcomes
    }
}

/// Receipts whose texts are made before they are written.
const RECEIPTS_AT_ONCE: usize = 512;

/// Whether the medium has not answered: it is not asked for the rest.
fn is_silence(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Unavailable)
}

fn lost(operation: &'static str) -> Error {
    Error::new(ErrorKind::Cancelled, operation, "it was not written")
}

/// Whether a shard is of this save.
pub(super) fn check_save(layout: &KeyLayout, shard: &ShardMeta) -> Result<()> {
    if is_shard_of(shard, layout.step(), layout.timestamp()) {
        return Ok(());
    }
    let detail = format!("the shard {:?} is not rank {}'s of {layout}", shard.key, shard.rank);
    Err(Error::invalid("write receipt", detail))
}

/// The checksums of an object that is one block, or none.
fn sums_of_one_block(object: &ObjectMeta, block_bytes: usize) -> Result<Sums> {
    let checksum = object.checksum.clone();
    let blocks = match &checksum {
        Some(text) => {
            let sum: Checksum = text.parse()?;
            let crc32c = if object.size_bytes == 0 { Vec::new() } else { vec![sum.value() as u32] };
            Some(BlockChecksums::new(block_bytes as u64, object.size_bytes, crc32c)?)
        }
        None => None,
    };
    Ok(Sums { stored_checksum: checksum.clone(), checksum, blocks })
}

impl Reader {
    /// The shards of these ranks, in their order, each as
    /// [`read_shard_by_rank`](Reader::read_shard_by_rank) reads it. Small ones are read side by side. All of them
    /// are in memory when the call returns: of many, ask for some at a time.
    ///
    /// # Errors
    /// For each shard as there.
    pub fn read_shards(&self, manifest: &Manifest, ranks: &[u32]) -> Vec<Result<Bytes>> {
        let small: Vec<Option<&ShardMeta>> = ranks
            .iter()
            .map(|rank| manifest.shard(*rank).ok().filter(|shard| self.is_small(shard)))
            .collect();
        let known = || small.iter().flatten();
        // A link that leads out is told of the shard that it is of, by the way of each alone.
        if self.base.check_within(known().map(|shard| shard.key.as_str())).is_err() {
            return ranks.iter().map(|rank| self.read_shard_by_rank(manifest, *rank)).collect();
        }
        let uris: Vec<String> = known().map(|shard| self.base.uri(&shard.key)).collect();
        let sums = known().map(|shard| shard.checksum.as_deref().filter(|_| self.verify));
        let wanted: Vec<(&str, Option<&str>)> = uris.iter().map(String::as_str).zip(sums).collect();
        let mut read = self.base.store.get_many(&wanted).into_iter();
        let take = |(rank, small): (&u32, Option<&ShardMeta>)| {
            match small.map(|shard| (shard, read.next())) {
                Some((shard, Some(Ok(bytes)))) if bytes.len() as u64 == shard.size => Ok(bytes),
                // To ask once more for each would take a timeout each.
                Some((_, Some(Err(error)))) if is_silence(&error) => Err(error),
                // What is wrong with it, and where, is found by reading it alone.
                _ => self.read_shard_by_rank(manifest, *rank),
            }
        };
        ranks.iter().zip(small.iter().copied()).map(take).collect()
    }

    /// Whether one piece is the shard, and one checksum is all there is to compare.
    fn is_small(&self, shard: &ShardMeta) -> bool {
        let stated = shard.checksum.is_some() && matches!(shard.block_checksums(), Ok(Some(_)));
        shard.size <= self.base.store.config().part_bytes() as u64
            && matches!(shard.form(), Ok(None))
            && (stated || !self.verify)
    }
}
