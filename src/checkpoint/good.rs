//! Restarting: the newest checkpoint that is whole, and why newer ones were passed over.
//!
//! One walk, from the newest checkpoint down, decides for everybody. What an error of a checkpoint
//! means for it:
//!
//! | the error says | the walk |
//! |---|---|
//! | data is damaged, cut, missing, or contradicts itself | goes to the next older one, and tells |
//! | the medium failed: permission, timeout, I/O, server | returns the error |
//! | the caller erred, was cancelled, or has no memory | returns the error |
//! | a later version wrote it (`Unsupported`) | returns the error |
//!
//! An older checkpoint cures only damage. Where a medium fails for a moment, going back would throw
//! work away; and what a later version wrote is whole, so that a job started with an old program must
//! be told rather than silently set back.

use std::fmt;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::sync::{AtomicBool, Ordering};

use super::base::Base;
use super::catalog::CheckpointInfo;
use super::content::Content;
use super::latest;
use super::layout::join_some;
use super::manifest::Manifest;
use super::proof::Proof;
use super::restore::{self, Reader};
use super::shard::ShardMeta;
use super::verify::{ByteRange, ShardState, verify_bytes};

/// A checkpoint that was passed over.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Skipped {
    /// Its name.
    pub info: CheckpointInfo,
    /// What is wrong with it.
    pub why: Error,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.info, self.why)
    }
}

/// The newest checkpoint that is whole, loaded.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Good<T> {
    /// Its name.
    pub info: CheckpointInfo,
    /// Its manifest.
    pub manifest: Manifest,
    /// What the loading gave.
    pub loaded: T,
    /// Newer ones that are not whole, newest first.
    pub skipped: Vec<Skipped>,
}

/// The checkpoint that all ranks are to load.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Choice {
    /// Its name. Ranks need its [`manifest_key`](CheckpointInfo::manifest_key).
    pub info: CheckpointInfo,
    /// Newer ones that are not whole, newest first.
    pub skipped: Vec<Skipped>,
}

impl Reader {
    /// Loads the newest checkpoint that `load` can load: it is called with one manifest after the
    /// other, from the newest down, until it succeeds. `None` where there is no checkpoint.
    ///
    /// Only damage makes it go on: a manifest that does not read, and an error of `load` that says that
    /// data is damaged, incomplete or missing (`ChecksumMismatch`, `Corrupt`, `Incomplete`, `NotFound` of
    /// an object). A checkpoint that `latest.json` names and whose manifest is gone is passed over too.
    /// What was loaded of a checkpoint that turned out damaged stays in the caller's memory until the
    /// next one is loaded over it. Each rank that calls this decides for itself: several ranks of one
    /// job agree by [`choose_good_step`](Reader::choose_good_step).
    ///
    /// ```
    /// use syncline::AlignedVec;
    /// use syncline::checkpoint::CheckpointStore;
    ///
    /// let checkpoints = CheckpointStore::open("mem://newest-good-doc")?;
    /// checkpoints.save(1, 0, "generic", &[1; 1000], None)?;
    /// let newest = checkpoints.save(2, 0, "generic", &[2; 1000], None)?;
    /// // Its shard is damaged.
    /// let key = &checkpoints.reader().load_manifest(&newest.manifest_key)?.shards[0].key;
    /// checkpoints.store().put(&checkpoints.uri(key), &[0; 1000])?;
    ///
    /// let reader = checkpoints.reader();
    /// let mut state = AlignedVec::zeroed(1000)?; // memory that the program has anyway
    /// let good = reader
    ///     .newest_good(|manifest| reader.read_shard_into(manifest, 0, &mut state))?
    ///     .expect("there are checkpoints");
    /// assert_eq!((good.manifest.global_step, state[0]), (1, 1));
    /// assert_eq!(good.skipped[0].info.step, 2);
    /// # Ok::<(), syncline::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Corrupt` or `Incomplete`, naming all, if there are checkpoints and none is whole. Any other error
    /// of `load` or of the medium, as it is: an older checkpoint would not cure it. `Unsupported` for a
    /// checkpoint of a later version.
    pub fn newest_good<T>(
        &self,
        mut load: impl FnMut(&Manifest) -> Result<T>,
    ) -> Result<Option<Good<T>>> {
        let (mut candidates, hint) = latest::list_names_and_hint(&self.base)?;
        let listed = candidates.len();
        candidates.extend(hint);
        let mut skipped: Vec<Skipped> = Vec::new();
        while let Some(info) = candidates.pop() {
            let why = match load_listed(&self.base, &info) {
                Ok(manifest) => match load(&manifest) {
                    Ok(loaded) => return Ok(Some(Good { info, manifest, loaded, skipped })),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if !is_damage(&why) {
                return Err(why);
            }
            log::warn!("{info} is passed over: {why}");
            skipped.push(Skipped { info, why });
        }
        // A hint alone is no checkpoint.
        if listed == 0 && skipped.iter().all(|skipped| skipped.why.kind() == ErrorKind::NotFound) {
            return Ok(None);
        }
        Err(none_is_good(&self.base, &skipped))
    }

    /// The newest checkpoint that is whole, with all its shards in memory of their own, in the order of
    /// the ranks. `None` where there is no checkpoint. For one process that needs all of it; a rank that
    /// needs its own shard uses [`choose_good_step`](Reader::choose_good_step), and one that has the
    /// memory already [`newest_good`](Reader::newest_good).
    ///
    /// All shards are looked at before one is read, and each takes the memory of its object, not of what
    /// the manifest claims: together the bytes of one checkpoint.
    ///
    /// ```
    /// use syncline::checkpoint::CheckpointStore;
    ///
    /// let checkpoints = CheckpointStore::open("mem://load-latest-good-doc")?;
    /// checkpoints.save(1, 0, "generic", b"state", None)?;
    /// let good = checkpoints.reader().load_latest_good()?.expect("one was just saved");
    /// assert_eq!(good.loaded[0], "state");
    /// assert!(good.skipped.is_empty());
    /// # Ok::<(), syncline::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`newest_good`](Reader::newest_good); `LimitExceeded` if the memory is not to be had.
    pub fn load_latest_good(&self) -> Result<Option<Good<Vec<Bytes>>>> {
        self.newest_good(|manifest| {
            self.check_all(manifest)?;
            self.each_shard(manifest, |shard| self.read_shard_by_rank(manifest, shard.rank))
        })
    }

    /// Chooses the newest checkpoint that is whole, for all ranks of a job: every byte of every shard is
    /// read and compared, within the store's part buffers, and none is kept. `None` where there is no
    /// checkpoint.
    ///
    /// One process chooses, and every rank loads what was chosen: ranks that each looked for themselves
    /// could load different steps. Damage that a rank finds after the choice is an error of that rank,
    /// upon which the job chooses again; a rank never goes to another checkpoint by itself.
    ///
    /// ```
    /// use syncline::Timestamp;
    /// use syncline::checkpoint::CheckpointStore;
    ///
    /// # let checkpoints = CheckpointStore::open("mem://choose-doc")?;
    /// # let layout = checkpoints.layout(100, Timestamp::now());
    /// # let shards = (0..4u32).map(|rank| checkpoints.writer(4, rank)?.put_shard(&layout, &[rank as u8; 1000]));
    /// # let shards = shards.collect::<syncline::Result<Vec<_>>>()?;
    /// # checkpoints.writer(4, 0)?.finalize_checkpoint(&layout, "generic", 0, shards, None)?;
    /// // On rank 0:
    /// let choice = checkpoints.reader().choose_good_step()?.expect("there is a checkpoint");
    /// for skipped in &choice.skipped {
    ///     eprintln!("{skipped}");
    /// }
    /// // Rank 0 broadcasts this text, with MPI_Bcast or what the job has:
    /// let manifest_key: String = choice.info.manifest_key;
    ///
    /// // On every rank, rank 0 included:
    /// for rank in 0..4 {
    ///     let reader = checkpoints.reader();
    ///     let manifest = reader.load_manifest(&manifest_key)?;
    ///     let mut state = vec![0; 1000];
    ///     reader.read_shard_into(&manifest, rank, &mut state)?; // verified once more
    ///     assert_eq!(state, [rank as u8; 1000]);
    /// }
    /// # Ok::<(), syncline::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`newest_good`](Reader::newest_good).
    pub fn choose_good_step(&self) -> Result<Option<Choice>> {
        let good = self.newest_good(|manifest| {
            self.check_all(manifest)?;
            if self.verify {
                self.each_shard(manifest, |shard| compare(&self.base, shard))?;
            }
            Ok(())
        })?;
        Ok(good.map(|good| Choice { info: good.info, skipped: good.skipped }))
    }

    /// Looks at all shards without reading one: what is missing is found before much is read.
    fn check_all(&self, manifest: &Manifest) -> Result<()> {
        self.each_shard(manifest, |shard| self.check_shard(manifest, shard.rank)).map(drop)
    }

    /// Does `work` for each shard, several at a time, and begins no more once one has failed.
    fn each_shard<R: Send>(
        &self,
        manifest: &Manifest,
        work: impl Fn(&ShardMeta) -> Result<R> + Send + Sync,
    ) -> Result<Vec<R>> {
        let failed = AtomicBool::new(false);
        let outcomes = self.base.in_parallel(&manifest.shards, |shard| {
            if failed.load(Ordering::Relaxed) {
                return Ok(None);
            }
            work(shard).map(Some).inspect_err(|_| failed.store(true, Ordering::Relaxed))
        })?;
        outcomes.into_iter().filter_map(Result::transpose).collect()
    }
}

/// The manifest of a name that was listed: what stands there and is no object is not the caller's fault.
fn load_listed(base: &Base, info: &CheckpointInfo) -> Result<Manifest> {
    restore::load(base, info).map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => error.with_kind(ErrorKind::Corrupt),
        _ => error,
    })
}

/// Whether an error says that a checkpoint is not whole, which an older one may be.
fn is_damage(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::ChecksumMismatch | ErrorKind::Corrupt | ErrorKind::Incomplete => true,
        // What names no object is a rank that the caller asked for and no manifest promised.
        ErrorKind::NotFound => error.uri().is_some(),
        _ => false,
    }
}

fn none_is_good(base: &Base, skipped: &[Skipped]) -> Error {
    let altered =
        |s: &Skipped| !matches!(s.why.kind(), ErrorKind::Incomplete | ErrorKind::NotFound);
    let kind = if skipped.iter().any(altered) { ErrorKind::Corrupt } else { ErrorKind::Incomplete };
    let all: Vec<String> = skipped
        .iter()
        .map(|Skipped { info, why }| {
            format!("{info}: {} {}", why.uri().unwrap_or_default(), why.detail())
        })
        .collect();
    let detail = format!("none of {} checkpoints is whole: {}", all.len(), all.join("; "));
    Error::new(kind, "find checkpoint", detail)
        .with_uri(base.base_uri())
        .with_remedy("look for another copy; verifying each tells all that is damaged")
}

/// Reads a shard once and compares it with its manifest.
fn compare(base: &Base, shard: &ShardMeta) -> Result<()> {
    let refuse = |kind: ErrorKind, detail: String| {
        Err(Error::new(kind, "verify", detail).with_uri(base.uri(&shard.key)))
    };
    match verify_bytes(base, shard, &mut |_| {}) {
        Ok((state, _)) if state.is_good() => Ok(()),
        Ok((ShardState::Damaged { ranges, .. }, _)) if ranges.is_empty() => {
            if matches!(Proof::of(shard)?, Proof::Absent) {
                let detail = "the stored bytes are not those that were saved".to_owned();
                return refuse(ErrorKind::ChecksumMismatch, detail);
            }
            // Where there is no data, the table may be what is damaged.
            Content::of(base, shard)?.read_into(0, &mut [])?;
            // Some bits of a compressed object mean nothing: its data is what was written, as a restore finds.
            log::warn!("{}: stored bytes differ, the data does not", base.uri(&shard.key));
            Ok(())
        }
        Ok((ShardState::Damaged { ranges, .. }, _)) => {
            let name = |range: &ByteRange| {
                format!("{}..{}", range.offset_bytes, range.offset_bytes + range.length_bytes)
            };
            let named = join_some(ranges.iter().map(name));
            refuse(ErrorKind::ChecksumMismatch, format!("bytes {named} are damaged"))
        }
        Ok(_) => {
            let rank = shard.rank;
            let detail = format!("the shard of rank {rank} changed while it was verified");
            refuse(ErrorKind::Incomplete, detail)
        }
        Err(error) => Err(error.with_uri(base.uri(&shard.key))),
    }
}
