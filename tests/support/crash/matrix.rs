//! What must hold of a base after a crash, and the walk over all crash points of a recording.
//!
//! Checkpoints are named by their manifests' keys and objects by theirs. A recording says what may be seen of
//! each from when on ([`Disk::expect`](super::model::Disk::expect)): while a checkpoint is saved it may be there
//! or not, and after its save said so it must be. Whatever is there is whole.
//!
//! Who includes this has the crate as `library` beside it, and `model`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::library::checkpoint::{CheckpointInfo, CheckpointStore, Manifest};
use super::library::{ErrorKind, Timestamp};
use super::model::{AnyOf, Disk, Image};

/// Bytes that differ from seed to seed and are half text, so that they compress.
pub fn state(seed: u64, bytes: usize) -> Vec<u8> {
    let mut x = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let next = |n: usize| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        if n % 8192 < 4096 { x as u8 } else { b'a' + (seed % 20) as u8 }
    };
    (0..bytes).map(next).collect()
}

/// What is wrong after a crash.
pub type Finding = String;

/// What was saved, by name and version: the shards of a checkpoint, or the one piece of an object.
#[derive(Debug, Clone, Default)]
pub struct Known(BTreeMap<(String, u64), Vec<Vec<u8>>>);

impl Known {
    pub fn add(&mut self, name: &str, version: u64, pieces: Vec<Vec<u8>>) {
        self.0.insert((name.to_owned(), version), pieces);
    }

    fn pieces(&self, name: &str, version: u64) -> Result<&Vec<Vec<u8>>, Finding> {
        let pieces = self.0.get(&(name.to_owned(), version));
        pieces.ok_or_else(|| format!("{name} was never saved in version {version}"))
    }
}

/// A place that holds what a crash left, opened anew.
pub trait Place {
    fn checkpoints(&self) -> CheckpointStore;

    /// All below the base as it is: files, and directories with a slash behind them.
    fn tree(&self) -> BTreeSet<String>;
}

/// How much was tried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Crash points: prefixes of what was recorded.
    pub points: u64,
    /// States that these may leave, each one checked. What looks like an earlier one, of which the same may be
    /// seen, is not looked at again and does not count.
    pub checked: u64,
}

/// Crashes after every prefix of what was recorded, and checks all that may be left.
pub fn crash_everywhere<P: Place>(
    disk: &Disk,
    known: &Known,
    drawn: u64,
    place: impl Fn(&Image) -> P,
) -> Result<Tally, Finding> {
    let mut tally = Tally::default();
    let mut seen = HashSet::new();
    for n in 0..=disk.log().len() {
        tally.points += 1;
        let expected = disk.expected(n);
        let mut hasher = DefaultHasher::new();
        expected.hash(&mut hasher);
        let expectation = hasher.finish();
        for (survival, image) in disk.states(n, drawn) {
            if !seen.insert((image.digest(), expectation)) {
                continue;
            }
            tally.checked += 1;
            check(&place(&image), known, &expected).map_err(|why| {
                let last = disk.log()[..n].iter().rev().take(6).map(brief);
                let last: Vec<String> = last.collect();
                format!("crash after {n} operations ({survival:?}): {why}; last: {last:#?}")
            })?;
        }
    }
    Ok(tally)
}

fn brief(operation: &super::model::Operation) -> String {
    format!("{operation:?}").chars().take(150).collect()
}

fn told(doing: &str, error: impl Display) -> Finding {
    format!("{doing}: {error}")
}

/// All that must hold after a crash: what is there is whole, leftovers are found and go, and saving goes on.
fn check(
    place: &impl Place,
    known: &Known,
    expected: &BTreeMap<String, AnyOf>,
) -> Result<(), Finding> {
    let store = place.checkpoints();
    let versions = check_checkpoints(&store, known, expected)?;
    let (checkpoints, objects): (Vec<_>, Vec<_>) =
        expected.iter().partition(|(name, _)| name.starts_with("manifests/"));
    for (name, any_of) in checkpoints {
        let found = versions.iter().find(|info| info.manifest_key == **name).map(|_| 0);
        if !any_of.contains(&found) {
            return Err(format!("{name} is {found:?} instead of any of {any_of:?}"));
        }
    }
    let mut stays = BTreeSet::new();
    for (name, any_of) in objects {
        check_object(&store, known, name, any_of)?;
        stays.insert(name.clone());
    }
    check_newest(&store, known, versions.last())?;
    check_garbage(place, &store, &stays)?;
    check_life_goes_on(place, &store, &stays)
}

/// Every checkpoint that is listed is whole, and one that was saved.
fn check_checkpoints(
    store: &CheckpointStore,
    known: &Known,
    expected: &BTreeMap<String, AnyOf>,
) -> Result<Vec<CheckpointInfo>, Finding> {
    let listed = store.reader().list_checkpoints().map_err(|e| told("list", e))?;
    for info in &listed {
        if !expected.contains_key(info.manifest_key.as_str()) {
            return Err(format!("{info} appears from nowhere"));
        }
        let reader = store.reader();
        let manifest = reader
            .load_manifest(&info.manifest_key)
            .map_err(|e| told(&format!("load the manifest of {info}"), e))?;
        check_shards(store, known, info, &manifest)?;
        let report = store.verify(info, &|_| {}).map_err(|e| told("verify", e))?;
        if !report.is_good() {
            return Err(format!("verify of {info}: {report:?}"));
        }
    }
    Ok(listed)
}

fn check_shards(
    store: &CheckpointStore,
    known: &Known,
    info: &CheckpointInfo,
    manifest: &Manifest,
) -> Result<(), Finding> {
    let saved = known.pieces(&info.manifest_key, 0)?;
    if manifest.shards.len() != saved.len() {
        return Err(format!("{info} has {} shards of {}", manifest.shards.len(), saved.len()));
    }
    for (rank, saved) in (0..).zip(saved) {
        let read = store.reader().read_shard_by_rank(manifest, rank);
        let read = read.map_err(|e| told(&format!("read rank {rank} of {info}"), e))?;
        if read != saved[..] {
            return Err(format!("rank {rank} of {info} has other bytes"));
        }
    }
    Ok(())
}

/// A restart finds the newest checkpoint, by whichever way, and passes none over.
fn check_newest(
    store: &CheckpointStore,
    known: &Known,
    newest: Option<&CheckpointInfo>,
) -> Result<(), Finding> {
    let reader = store.reader();
    let latest = reader.latest().map_err(|e| told("latest", e))?;
    let name = |manifest: &Manifest| (manifest.global_step, manifest.timestamp().cloned());
    let wanted = newest.map(|info| (info.step, Some(info.timestamp.clone())));
    if latest.as_ref().map(name) != wanted {
        return Err(format!("latest is {:?} and not {newest:?}", latest.as_ref().map(name)));
    }
    let good = reader.load_latest_good().map_err(|e| told("load_latest_good", e))?;
    match (good, newest) {
        (None, None) => Ok(()),
        (Some(good), Some(newest)) if good.info == *newest && good.skipped.is_empty() => {
            let saved = known.pieces(&newest.manifest_key, 0)?;
            match good.loaded.iter().eq(saved.iter()) {
                true => Ok(()),
                false => Err(format!("load_latest_good of {newest} gives other bytes")),
            }
        }
        (good, _) => {
            let found = good.map(|good| (good.info, good.skipped));
            Err(format!("load_latest_good gives {found:?} and not {newest:?}"))
        }
    }
}

/// An object is whole in one of the versions that it may have.
fn check_object(
    store: &CheckpointStore,
    known: &Known,
    name: &str,
    any_of: &AnyOf,
) -> Result<(), Finding> {
    let found = match store.store().get(&store.uri(name)) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(told(name, error)),
    };
    for version in any_of {
        let same = match (version, &found) {
            (None, None) => true,
            (Some(version), Some(found)) => known.pieces(name, *version)?[0] == *found,
            _ => false,
        };
        if same {
            return Ok(());
        }
    }
    let bytes = found.map(|found| found.len());
    Err(format!("{name} has {bytes:?} bytes, and is none of the versions {any_of:?}"))
}

/// What the checkpoints of a base need, and the objects beside them.
fn needed(store: &CheckpointStore, stays: &BTreeSet<String>) -> Result<BTreeSet<String>, Finding> {
    let mut needed = stays.clone();
    needed.insert("latest.json".to_owned());
    let reader = store.reader();
    for info in reader.list_checkpoints().map_err(|e| told("list", e))? {
        let manifest = reader.load_manifest(&info.manifest_key).map_err(|e| told("load", e))?;
        needed.extend(manifest.shards.into_iter().map(|shard| shard.key));
        needed.insert(info.manifest_key);
    }
    Ok(needed)
}

fn leftovers(
    place: &impl Place,
    store: &CheckpointStore,
    stays: &BTreeSet<String>,
) -> Result<BTreeSet<String>, Finding> {
    let needed = needed(store, stays)?;
    Ok(place
        .tree()
        .into_iter()
        .filter(|path| !path.ends_with('/') && !needed.contains(path))
        .collect())
}

/// A gc finds what nobody needs, and nothing else.
fn check_garbage(
    place: &impl Place,
    store: &CheckpointStore,
    stays: &BTreeSet<String>,
) -> Result<(), Finding> {
    let left = leftovers(place, store, stays)?;
    let report = store.gc(Duration::ZERO, false).map_err(|e| told("gc", e))?;
    let root = store.uri("");
    let found = report.garbage.iter().map(|item| item.uri.trim_start_matches(&root).to_owned());
    let found: BTreeSet<String> = found.collect();
    match found == left {
        true => Ok(()),
        false => Err(format!("gc finds {found:?}, and left over is {left:?}")),
    }
}

/// The next save works, and the gc after it leaves nothing that nobody needs.
fn check_life_goes_on(
    place: &impl Place,
    store: &CheckpointStore,
    stays: &BTreeSet<String>,
) -> Result<(), Finding> {
    const STEP: u64 = 1_000_000;
    let layout = store.layout(STEP, Timestamp::now());
    let save = || {
        let shards = (0..2u8).map(|rank| {
            let writer = store.writer(2, u32::from(rank))?;
            writer.put_shard(&layout, &[rank; 600])
        });
        let shards = shards.collect::<super::library::Result<Vec<_>>>()?;
        store.writer(2, 0)?.finalize_checkpoint(&layout, "generic", 0, shards, None)
    };
    save().map_err(|e| told("save after the crash", e))?;
    let good = store.reader().load_latest_good().map_err(|e| told("load after the crash", e))?;
    let good = good.ok_or("nothing to load after a save")?;
    if good.manifest.global_step != STEP || good.loaded[1] != [1; 600][..] {
        return Err(format!("the save after the crash is not the newest: {}", good.info));
    }
    let before = place.tree();
    store.gc(Duration::ZERO, true).map_err(|e| told("gc --delete", e))?;
    let left = leftovers(place, store, stays)?;
    if !left.is_empty() {
        return Err(format!("gc --delete leaves {left:?}"));
    }
    // A folder that never held anything is not seen by a gc.
    let holds = |tree: &BTreeSet<String>, folder: &str| {
        tree.iter().any(|path| path.starts_with(folder) && path.len() > folder.len())
    };
    let after = place.tree();
    let mut folders = after.iter().filter(|path| path.contains("/ckpt-") && path.ends_with('/'));
    match folders.find(|folder| holds(&before, folder) && !holds(&after, folder)) {
        Some(folder) => Err(format!("gc --delete leaves the folder {folder}, and nothing in it")),
        None => Ok(()),
    }
}
