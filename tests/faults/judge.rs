//! What must stand on a medium after a job that was disturbed, as a program finds it that starts now.

use std::collections::BTreeSet;
use std::time::Duration;

use syncline::checkpoint::{CheckpointStore, GarbageKind, GcReport};

use crate::jobs::{AGE, Job, Medium, NOTES, layout, notes, save, shards, steps_before};

/// The step that is saved afterwards.
const LATER: u64 = 9;

/// Fails unless the base is as it was before the job or as the job makes it, whole; as it makes it if it was
/// `done`. What else is there must be found by gc, and removed where the medium can.
#[track_caller]
pub fn judge(medium: &dyn Medium, job: Job, done: bool, what: &str) {
    let checkpoints = medium.open();
    judge_checkpoints(&checkpoints, job, done, what);
    judge_notes(medium, &checkpoints, job, done, what);
    judge_garbage(medium, &checkpoints, &checkpoints.gc(Duration::ZERO, false).unwrap(), what);
    if done {
        judge_removed(medium, &checkpoints, job, what);
    }
    // Life goes on.
    medium.age(AGE);
    save(&checkpoints, LATER).unwrap_or_else(|e| panic!("{what}: the next save: {e}"));
    let report = checkpoints.gc(Duration::ZERO, true).unwrap();
    let lasting: Vec<_> = report.garbage.iter().filter(|garbage| !garbage.removed).collect();
    if medium.removes_unfinished() {
        assert!(lasting.is_empty(), "{what}: gc leaves {lasting:?}");
        assert_eq!(medium.unfinished(), 0, "{what}");
    } else {
        let begun = lasting.iter().all(|garbage| garbage.kind == GarbageKind::Temporary);
        assert!(begun && lasting.len() == medium.unfinished(), "{what}: gc leaves {lasting:?}");
    }
    let beyond: Vec<_> = medium.keys().difference(&needed(&checkpoints)).cloned().collect();
    assert!(beyond.is_empty(), "{what}: gc left {beyond:?}");
    judge_newest(&checkpoints, &BTreeSet::from([LATER]), what);
}

#[track_caller]
fn judge_checkpoints(checkpoints: &CheckpointStore, job: Job, done: bool, what: &str) {
    let (before, after) = (steps_before(), job.steps_after());
    let listed = checkpoints.reader().list_checkpoints().unwrap();
    let steps: BTreeSet<u64> = listed.iter().map(|info| info.step).collect();
    let either = before.union(&after).copied().collect();
    let both: BTreeSet<u64> = before.intersection(&after).copied().collect();
    assert!(steps.is_subset(&either) && steps.is_superset(&both), "{what}: {steps:?}");
    assert!(!done || steps == after, "{what}: it was done, and there are {steps:?}");
    for info in &listed {
        let report = checkpoints.verify(info, &|_| ()).unwrap();
        assert!(report.is_good(), "{what}: {info} is not whole: {report:?}");
    }
    let newest = [&before, &after].map(|steps| *steps.last().unwrap());
    let newest = if done { &newest[1..] } else { &newest[..] };
    judge_newest(checkpoints, &newest.iter().copied().collect(), what);
}

/// The newest checkpoint that loads is one of these, byte for byte, and no other was passed over.
#[track_caller]
fn judge_newest(checkpoints: &CheckpointStore, steps: &BTreeSet<u64>, what: &str) {
    let good = checkpoints.reader().load_latest_good();
    let good = good.unwrap_or_else(|e| panic!("{what}: nothing restores: {e}"));
    let good = good.unwrap_or_else(|| panic!("{what}: no checkpoint is left"));
    assert!(good.skipped.is_empty(), "{what}: passed over {:?}", good.skipped);
    let step = good.info.step;
    assert!(steps.contains(&step), "{what}: step {step} is the newest");
    let expected = shards(step, checkpoints.store().config().part_bytes());
    assert!(good.loaded == expected, "{what}: step {step} holds other bytes");
}

#[track_caller]
fn judge_notes(
    medium: &dyn Medium,
    checkpoints: &CheckpointStore,
    job: Job,
    done: bool,
    what: &str,
) {
    let [old, new] = [1, 2].map(|version| notes(version, medium.part_bytes()));
    let found = checkpoints.store().get(&checkpoints.uri(NOTES)).unwrap();
    let (is_old, is_new) = (found == old, found == new);
    let right = if job != Job::Overwrite { is_old } else { is_new || (is_old && !done) };
    assert!(right, "{what}: the object is old {is_old}, new {is_new}");
}

/// All that no checkpoint needs is found, and nothing that one needs.
#[track_caller]
fn judge_garbage(
    medium: &dyn Medium,
    checkpoints: &CheckpointStore,
    report: &GcReport,
    what: &str,
) {
    let found: BTreeSet<String> =
        report.garbage.iter().map(|garbage| garbage.uri.clone()).collect();
    let needed = needed(checkpoints);
    let keys = medium.keys();
    for key in &keys {
        let is_found = found.contains(&checkpoints.uri(key));
        assert_eq!(is_found, !needed.contains(key), "{what}: {key}, gc found {found:#?}");
    }
    let known: BTreeSet<String> = keys.iter().map(|key| checkpoints.uri(key)).collect();
    let begun = found.difference(&known).count();
    assert_eq!(begun, medium.unfinished(), "{what}: gc found {found:#?}");
}

/// What the job was to remove is gone.
#[track_caller]
fn judge_removed(medium: &dyn Medium, checkpoints: &CheckpointStore, job: Job, what: &str) {
    for step in job.removes() {
        let shard = layout(checkpoints, *step).shard_key(0);
        // Beside the shards it is in the names of the receipts, the manifest and what is temporary.
        let save = shard.split('/').nth(1).unwrap();
        let left: Vec<_> = medium.keys().into_iter().filter(|key| key.contains(save)).collect();
        assert!(left.is_empty(), "{what}: it was done, and there are {left:?}");
    }
    if job == Job::Gc && medium.removes_unfinished() {
        assert_eq!(medium.unfinished(), 0, "{what}: it was done");
    }
}

/// The keys of all that the checkpoints need, and of what is no checkpoint's.
fn needed(checkpoints: &CheckpointStore) -> BTreeSet<String> {
    let reader = checkpoints.reader();
    let mut needed = BTreeSet::from([NOTES.to_owned(), "latest.json".to_owned()]);
    for info in reader.list_checkpoints().unwrap() {
        let manifest = reader.load_manifest(&info.manifest_key).unwrap();
        needed.extend(manifest.shards.into_iter().map(|shard| shard.key));
        needed.insert(info.manifest_key);
    }
    needed
}
