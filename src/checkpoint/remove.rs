//! Removing many objects: by whole folders where nothing else is in them, since a medium makes one
//! removal durable at the price of many.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::error::{ErrorKind, Result};

use super::base::Base;
use super::layout::{folder_of, is_save_folder};

/// Removes objects by their keys, and the folders of saves that are empty then. Returns the bytes
/// that went; objects that are gone already are no error.
pub(super) fn remove_objects<'a>(base: &Base, keys: impl Iterator<Item = &'a str>) -> Result<u64> {
    let mut by_folder: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
    for key in keys {
        by_folder.entry(folder_of(key)).or_default().insert(key);
    }
    let folders: Vec<_> = by_folder.into_iter().collect();
    let outcomes = base.in_parallel(&folders, |(folder, keys)| remove_from(base, folder, keys))?;
    // Sizes are the medium's word.
    outcomes.into_iter().try_fold(0, |sum: u64, bytes| Ok(sum.saturating_add(bytes?)))
}

fn remove_from(base: &Base, folder: &str, keys: &HashSet<&str>) -> Result<u64> {
    let listed = base.list_named(folder)?;
    let condemned = || listed.iter().filter(|(key, _)| keys.contains(key.as_str()));
    if is_save_folder(folder) && condemned().count() == listed.len() {
        base.store.delete_prefix(&base.uri(folder))?;
    } else {
        let uris: Vec<String> = condemned().map(|(key, _)| base.uri(key)).collect();
        base.store.delete_many(&uris)?;
    }
    Ok(condemned().fold(0, |sum: u64, (_, object)| sum.saturating_add(object.size_bytes)))
}

/// Removes those of these folders that are of saves and in which no object is left.
pub(super) fn clear_save_folders(base: &Base, folders: BTreeSet<&str>) -> Result<()> {
    let folders: Vec<&str> = folders.into_iter().filter(|folder| is_save_folder(folder)).collect();
    let nothing = HashSet::new();
    // As when all objects of a folder are removed, and here that is none.
    let outcomes = base.in_parallel(&folders, |folder| remove_from(base, folder, &nothing))?;
    outcomes.into_iter().try_for_each(|outcome| outcome.map(drop))
}

/// Deletes an object that may be gone already.
pub(super) fn delete_if_there(base: &Base, key: &str) -> Result<()> {
    match base.store.delete(&base.uri(key)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
