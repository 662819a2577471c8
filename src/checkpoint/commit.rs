//! Saving, the finalizer's part: all receipts, all shards, then the manifest, then the hint.
//!
//! The manifest is written create-only, so of two finalizers of one save exactly one wins. Nothing
//! before it changes what readers see, and nothing after it may fail the save.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::backend::ObjectMeta;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{MANIFEST_BYTES_MAX, RECEIPT_BYTES_MAX, RECEIPT_POLL_MS_MAX};
use crate::sync;
use crate::time::{Deadline, rfc3339};

use super::base::Base;
use super::catalog::CheckpointInfo;
use super::latest;
use super::layout::{KeyLayout, Named, join_some, name_ranks};
use super::manifest::{FORMAT_VERSION, Manifest, STATUS_COMPLETE, absent_ranks};
use super::quick::{differs, objects_of};
use super::receipt::{Receipt, is_shard_of};
use super::shard::ShardMeta;
use super::verify::ShardState;

/// What a manifest says beside its shards.
pub(super) struct Heading<'a> {
    pub layout: &'a KeyLayout,
    pub framework: &'a str,
    pub epoch: u64,
    pub world_size: u32,
    pub user_meta: Option<Value>,
}

impl Heading<'_> {
    /// Refuses what no reader would accept, before anybody waits.
    pub fn check(&self) -> Result<()> {
        if self.framework.is_empty() {
            return Err(Error::invalid("finalize checkpoint", "the framework is empty")
                .with_remedy("name what wrote the data, for example \"generic\""));
        }
        Ok(())
    }
}

/// Waits for the receipts of all ranks and returns their shards in the order of the ranks. Looks
/// once even if the deadline has passed.
pub(super) fn collect_receipts(
    base: &Base,
    layout: &KeyLayout,
    world_size: u32,
    deadline: &Deadline,
) -> Result<Vec<ShardMeta>> {
    let mut shards: Vec<Option<ShardMeta>> = vec![None; world_size as usize];
    let mut pause = Duration::from_millis(5);
    loop {
        refuse_finalized(base, layout)?;
        let listed = base.list(&layout.receipts_folder())?;
        let news = new_receipts(base, &listed, &shards)?;
        for (rank, shard) in read_receipts(base, layout, world_size, &news)? {
            shards[rank as usize] = Some(shard);
        }
        if shards.iter().all(Option::is_some) {
            return Ok(shards.into_iter().flatten().collect());
        }
        if deadline.expired() {
            let present =
                (0..).zip(&shards).filter(|(_, shard)| shard.is_some()).map(|(rank, _)| rank);
            let missing = name_ranks(absent_ranks(present, world_size));
            let detail = format!("no receipt of {layout} from {world_size} ranks: {missing}");
            return Err(Error::new(ErrorKind::Incomplete, "finalize checkpoint", detail)
                .with_uri(base.uri(&layout.receipts_folder()))
                .with_elapsed(deadline.elapsed())
                .with_remedy("see why these ranks did not save, or wait longer"));
        }
        sync::sleep(pause.min(deadline.remaining()));
        pause = (pause * 2).min(Duration::from_millis(RECEIPT_POLL_MS_MAX));
    }
}

/// A receipt found by its name: rank, key, size in bytes.
type Found = (u32, String, u64);

/// The receipts in a listing that were not read yet. One of a rank that the save does not have
/// fails the save: ranks disagree on how many they are. Other names are not ours.
fn new_receipts(
    base: &Base,
    listed: &[(String, ObjectMeta)],
    shards: &[Option<ShardMeta>],
) -> Result<Vec<Found>> {
    let mut news = Vec::new();
    let mut beyond = Vec::new();
    for (key, object) in listed {
        let Some(Named::Receipt { rank, .. }) = Named::parse(key) else {
            log::warn!("{} is not a receipt; it is left alone", base.uri(key));
            continue;
        };
        match shards.get(rank as usize) {
            None => beyond.push(rank),
            Some(None) => news.push((rank, key.clone(), object.size_bytes)),
            Some(Some(_)) => {}
        }
    }
    if beyond.is_empty() {
        return Ok(news);
    }
    beyond.sort_unstable();
    let detail = format!(
        "foreign receipts: this save has {} ranks, but {}",
        shards.len(),
        name_ranks(beyond)
    );
    Err(Error::new(ErrorKind::Corrupt, "finalize checkpoint", format!("{detail} sent receipts"))
        .with_remedy("give all ranks the same world size, and save under a new timestamp"))
}

/// Reads receipts in parallel. All that cannot be accepted are named in one error.
fn read_receipts(
    base: &Base,
    layout: &KeyLayout,
    world_size: u32,
    news: &[Found],
) -> Result<Vec<(u32, ShardMeta)>> {
    let outcomes = base.in_parallel(news, |(rank, key, size_bytes)| -> Result<_> {
        let text = base.read_document_of(key, *size_bytes, RECEIPT_BYTES_MAX)?;
        let receipt = Receipt::from_json(&text, layout, world_size, *rank)?;
        Ok((*rank, receipt.shard))
    })?;
    let mut shards = Vec::with_capacity(news.len());
    let mut refused: Vec<(&str, Error)> = Vec::new();
    for ((_, key, _), outcome) in news.iter().zip(outcomes) {
        match outcome {
            Ok(shard) => shards.push(shard),
            // Another finalizer removes receipts when its manifest stands; the next look tells.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => refused.push((key, error)),
        }
    }
    let Some((_, first)) = refused.first() else { return Ok(shards) };
    let kind = first.kind();
    let words = refused.iter().map(|(key, error)| format!("{key}: {error}"));
    let detail =
        format!("{} of {world_size} receipts are refused: {}", refused.len(), join_some(words));
    Err(Error::new(kind, "finalize checkpoint", detail)
        .with_uri(base.base_uri())
        .with_remedy("save the step again under a new timestamp on all ranks"))
}

/// Checks shards that the caller gathered and puts them in the order of the ranks.
pub(super) fn check_gathered(
    layout: &KeyLayout,
    world_size: u32,
    mut shards: Vec<ShardMeta>,
) -> Result<Vec<ShardMeta>> {
    const OPERATION: &str = "finalize checkpoint";
    shards.sort_by_key(|shard| shard.rank);
    let foreign: Vec<&ShardMeta> = shards
        .iter()
        .filter(|s| s.rank >= world_size || !is_shard_of(s, layout.step(), layout.timestamp()))
        .collect();
    if !foreign.is_empty() {
        let words = foreign.iter().map(|shard| format!("rank {} {:?}", shard.rank, shard.key));
        let detail = format!("not of {layout} with {world_size} ranks: {}", join_some(words));
        return Err(Error::invalid(OPERATION, detail));
    }
    let twice =
        shards.windows(2).filter(|pair| pair[0].rank == pair[1].rank).map(|pair| pair[0].rank);
    let twice = name_ranks(twice);
    if !twice.is_empty() {
        return Err(Error::invalid(OPERATION, format!("more than one shard of ranks {twice}")));
    }
    let missing = name_ranks(absent_ranks(shards.iter().map(|shard| shard.rank), world_size));
    if !missing.is_empty() {
        let detail = format!("no shard of {layout} from {world_size} ranks: {missing}");
        return Err(Error::new(ErrorKind::Incomplete, OPERATION, detail));
    }
    shards.iter().try_for_each(ShardMeta::check)?;
    Ok(shards)
}

/// Checks that all shards are there and writes the manifest.
pub(super) fn commit(
    base: &Base,
    heading: Heading<'_>,
    shards: Vec<ShardMeta>,
) -> Result<CheckpointInfo> {
    let layout = heading.layout;
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        framework: heading.framework.to_owned(),
        global_step: layout.step(),
        epoch: heading.epoch,
        wall_time: rfc3339(SystemTime::now()),
        world_size: heading.world_size,
        shards,
        status: STATUS_COMPLETE.to_owned(),
        user_meta: heading.user_meta,
        ts: Some(layout.timestamp().clone()),
    };
    let text = manifest.to_json();
    let refuse = |why: String| {
        Error::invalid("finalize checkpoint", format!("no reader would accept it: {why}"))
    };
    if text.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(refuse(format!(
            "{} bytes of manifest; at most {MANIFEST_BYTES_MAX}",
            text.len()
        )));
    }
    // What is written is read back once here, so that no save succeeds that no restore accepts.
    Manifest::from_json(&text).map_err(|error| refuse(error.to_string()))?;

    let wrong = wrong_shards(base, &manifest.shards)?;
    if !wrong.is_empty() {
        let words = wrong.iter().map(ToString::to_string);
        let detail = format!("shards of {layout} are missing or changed: {}", join_some(words));
        return Err(Error::new(ErrorKind::Incomplete, "finalize checkpoint", detail)
            .with_uri(base.base_uri())
            .with_remedy("save the step again under a new timestamp on all ranks"));
    }
    base.create_document(&layout.manifest_key(), &text).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => finalized_already(base, layout),
        _ => error,
    })?;
    let info = CheckpointInfo::new(layout.step(), layout.timestamp().clone());
    latest::publish_or_warn(base, &info);
    Ok(info)
}

/// Removes the receipts of a save that stands. What remains is collected by `gc`.
pub(super) fn remove_receipts(base: &Base, layout: &KeyLayout) {
    if let Err(error) = base.store.delete_prefix(&base.uri(&layout.receipts_folder())) {
        log::warn!("receipts of {layout} remain until gc: {error}");
    }
}

fn refuse_finalized(base: &Base, layout: &KeyLayout) -> Result<()> {
    match base.store.exists(&base.uri(&layout.manifest_key()))? {
        true => Err(finalized_already(base, layout)),
        false => Ok(()),
    }
}

fn finalized_already(base: &Base, layout: &KeyLayout) -> Error {
    let detail = format!("another finalizer has already finalized {layout}; its manifest stands");
    Error::new(ErrorKind::AlreadyExists, "finalize checkpoint", detail)
        .with_uri(base.uri(&layout.manifest_key()))
        .with_remedy("let one rank finalize; the same step again needs a new timestamp")
}

/// A shard that is not as the manifest says.
pub(super) struct WrongShard {
    pub rank: u32,
    pub why: String,
}

impl std::fmt::Display for WrongShard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} ({})", self.rank, self.why)
    }
}

/// Looks at all shards by listing their folders, which costs a request per thousand shards rather
/// than one each, and returns those that are gone, of another size, or of another entity tag.
pub(super) fn wrong_shards(base: &Base, shards: &[ShardMeta]) -> Result<Vec<WrongShard>> {
    let found = objects_of(base, &shards.iter().collect::<Vec<_>>())?;
    let wrong = shards.iter().filter_map(|shard| {
        let why = match found.get(&shard.key).map(|object| differs(shard, object)) {
            None => "missing".to_owned(),
            Some(None) => return None,
            Some(Some(ShardState::WrongSize { found_bytes })) => {
                format!("{found_bytes} bytes instead of {}", shard.size)
            }
            Some(Some(ShardState::Changed { why })) => why,
            Some(Some(other)) => format!("{other:?}"),
        };
        Some(WrongShard { rank: shard.rank, why })
    });
    Ok(wrong.collect())
}
