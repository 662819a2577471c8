//! `latest.json`: a hint at the newest checkpoint, never the truth.
//!
//! Checkpoints are ordered by (step, timestamp); the newest is the greatest. The truth is the
//! listing of `manifests/`. The hint is kept for readers that trust it, such as the ancestor, and
//! for media whose listings lag behind: it counts only where it names a checkpoint newer than all
//! that are listed, and whose manifest exists. So a hint that is missing, broken, stale or points
//! at a removed checkpoint changes nothing.
//!
//! Whoever saves points the hint at the newest checkpoint afterwards, and whoever prunes or deletes
//! points it at what will remain before anything goes. Saving an older step therefore never moves it
//! backwards; to go back, delete the later checkpoints. Two savers may write it in either order: the loser
//! leaves a stale hint until the next save.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::limits::LATEST_BYTES_MAX;

use super::base::Base;
use super::catalog::CheckpointInfo;
use super::layout::{LATEST_KEY, MANIFESTS, Named};
use super::remove::delete_if_there;

/// The hint's text, with the ancestor's fields.
#[derive(Debug, Serialize, Deserialize)]
struct Latest {
    manifest_key: String,
    global_step: u64,
    ts: String,
}

/// All checkpoints by the names of their manifests, oldest first.
pub(super) fn list_names(base: &Base) -> Result<Vec<CheckpointInfo>> {
    let mut found: Vec<CheckpointInfo> = base
        .list(MANIFESTS)?
        .iter()
        .filter_map(|(key, _)| match Named::parse(key) {
            Some(Named::Manifest { step, ts }) => Some(CheckpointInfo::new(step, ts)),
            _ => None,
        })
        .collect();
    found.sort();
    Ok(found)
}

/// All checkpoints by name, oldest first, and the one that the hint names where that is newer than all of
/// them: it is not in the listing yet, or its manifest is gone.
pub(super) fn list_names_and_hint(
    base: &Base,
) -> Result<(Vec<CheckpointInfo>, Option<CheckpointInfo>)> {
    let listed = list_names(base)?;
    let hint = read(base).unwrap_or_else(|error| {
        log::warn!("{error}; going by the listing of manifests");
        None
    });
    let hint = hint.filter(|hint| Some(hint) > listed.last());
    Ok((listed, hint))
}

/// The newest checkpoint by its name.
pub(super) fn newest(base: &Base) -> Result<Option<CheckpointInfo>> {
    let (mut listed, hint) = list_names_and_hint(base)?;
    match hint {
        Some(hint) if base.store.exists(&base.uri(&hint.manifest_key))? => {
            log::warn!("{hint} is not in the listing yet; going by {LATEST_KEY}");
            Ok(Some(hint))
        }
        _ => Ok(listed.pop()),
    }
}

/// Points the hint at the newest checkpoint. `known` was just saved and counts although a listing may
/// lag behind. A failure is only logged: the checkpoints stand without the hint.
pub(super) fn publish_or_warn(base: &Base, known: &CheckpointInfo) {
    let point = || {
        let newest = list_names(base)?.pop().max(Some(known.clone()));
        point_at(base, newest)
    };
    if let Err(error) = point() {
        log::warn!("{LATEST_KEY} was not updated, which readers survive: {error}");
    }
}

/// Points the hint at the newest checkpoint beside those that are about to go, or removes it where
/// there is none. Where there is no room for it, it is removed as well: on a full disk what goes makes the room, and
/// the next save writes the hint again.
pub(super) fn publish_without(base: &Base, going: &[CheckpointInfo]) -> Result<()> {
    let stays = |info: &CheckpointInfo| !going.contains(info);
    let listed = list_names(base)?.into_iter().rfind(stays);
    match read(base) {
        // Ahead of a listing that lags behind: somebody just saved it.
        Ok(Some(hint))
            if Some(&hint) > listed.as_ref()
                && stays(&hint)
                && base.store.exists(&base.uri(&hint.manifest_key))? =>
        {
            Ok(())
        }
        _ => match point_at(base, listed) {
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                log::warn!("{LATEST_KEY} is removed until the next save: {error}");
                delete_if_there(base, LATEST_KEY)
            }
            done => done,
        },
    }
}

fn point_at(base: &Base, newest: Option<CheckpointInfo>) -> Result<()> {
    let Some(newest) = newest else { return delete_if_there(base, LATEST_KEY) };
    if matches!(read(base), Ok(Some(hint)) if hint == newest) {
        return Ok(());
    }
    base.store.put(&base.uri(LATEST_KEY), &to_json(&newest)).map(drop)
}

/// What the hint says; `None` where there is none.
fn read(base: &Base) -> Result<Option<CheckpointInfo>> {
    let text = match base.read_document(LATEST_KEY, LATEST_BYTES_MAX) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    from_json(&text).map(Some).map_err(|error| error.with_uri(base.uri(LATEST_KEY)))
}

/// The text of the hint.
pub(super) fn to_json(newest: &CheckpointInfo) -> Vec<u8> {
    let latest = Latest {
        manifest_key: newest.manifest_key.clone(),
        global_step: newest.step,
        ts: newest.timestamp.to_string(),
    };
    serde_json::to_vec_pretty(&latest).expect("a struct of texts and numbers always serialises")
}

/// Reads the hint's text.
///
/// # Errors
/// `Corrupt` if it is none, or contradicts itself.
pub(super) fn from_json(text: &[u8]) -> Result<CheckpointInfo> {
    let corrupt = |why: String| Error::new(ErrorKind::Corrupt, "read latest", why);
    let latest: Latest = serde_json::from_slice(text).map_err(|e| corrupt(e.to_string()))?;
    match Named::parse(&latest.manifest_key) {
        Some(Named::Manifest { step, ts })
            if step == latest.global_step && ts.as_str() == latest.ts =>
        {
            Ok(CheckpointInfo::new(step, ts))
        }
        _ => Err(corrupt("it contradicts itself".to_owned())),
    }
}
