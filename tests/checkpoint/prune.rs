//! Pruning: what stays whatever happens.

use syncline::ErrorKind;
use syncline::checkpoint::{CheckpointInfo, PruneOptions, PruneReport};

use crate::support::{Fixture, on_all_media};

on_all_media! {
    the_newest_good_checkpoint_stays
    nothing_goes_where_nothing_is_good
    every_so_many_steps_stay
    a_dry_run_tells_what_a_run_does
    sizes_are_trusted_only_on_demand
    nonsense_is_refused
    a_manifest_does_not_condemn_what_is_of_another_step
}

fn save_five(f: &Fixture) {
    for step in 1..=5 {
        f.save_at(step, "x", &[b"zero", b"one"]);
    }
}

/// Changes a byte, and no size.
fn damage(f: &Fixture, step: u64) {
    let key = format!("shards/ckpt-{step}-x/rank-1.bin");
    f.flip(&key, 1);
    // An object that somebody replaced is known by its tag, without reading: the manifest forgets it.
    let manifest = format!("manifests/ckpt-{step}-x.json");
    let text = crate::support::as_ancestor(&f.get(&manifest), |manifest| {
        manifest["shards"][1]["etag"] = serde_json::Value::Null;
    });
    f.put(&manifest, &text);
}

fn prune(f: &Fixture, options: &PruneOptions) -> PruneReport {
    f.checkpoints.prune_with(options, &|_| ()).unwrap()
}

fn steps(infos: &[CheckpointInfo]) -> Vec<u64> {
    infos.iter().map(|info| info.step).collect()
}

fn the_newest_good_checkpoint_stays(f: Fixture) {
    save_five(&f);
    for step in [3, 4, 5] {
        damage(&f, step);
    }
    let report = prune(&f, &PruneOptions::new(2));
    assert_eq!((steps(&report.removed), steps(&report.kept)), (vec![1, 3], vec![2, 4, 5]));
    assert_eq!(report.proven.unwrap().step, 2);
    let notes = report.notes.join("; ");
    for words in ["step 5 at x is not good", "step 3 at x is not good", "step 2 at x is kept"] {
        assert!(notes.contains(words), "{words} is not in: {notes}");
    }
    let manifest = f.checkpoints.reader().find_manifest_by_step(2).unwrap().unwrap();
    assert_eq!(f.checkpoints.reader().read_shard_by_rank(&manifest, 1).unwrap(), "one");
    // Again: the good one is older than those that are asked for, and stays.
    assert_eq!(steps(&prune(&f, &PruneOptions::new(1)).kept), [2, 5]);
    assert_eq!(f.hint()["global_step"], 5);
}

fn nothing_goes_where_nothing_is_good(f: Fixture) {
    save_five(&f);
    (1..=5).for_each(|step| damage(&f, step));
    let before = f.keys();
    for options in [PruneOptions::new(1), PruneOptions::new(1).dry_run()] {
        let error = f.checkpoints.prune_with(&options, &|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("no checkpoint is good"), "{error}");
    }
    assert_eq!(f.keys(), before);
}

fn every_so_many_steps_stay(f: Fixture) {
    save_five(&f);
    let report = prune(&f, &PruneOptions::new(1).keep_every(2));
    assert_eq!((steps(&report.removed), steps(&report.kept)), (vec![1, 3], vec![2, 4, 5]));
    // The newest good one stays also where an older one stays anyway.
    damage(&f, 5);
    let report = prune(&f, &PruneOptions::new(1).keep_every(5));
    assert_eq!((steps(&report.removed), steps(&report.kept)), (vec![2], vec![4, 5]));
}

fn a_dry_run_tells_what_a_run_does(f: Fixture) {
    save_five(&f);
    damage(&f, 5);
    let before = f.keys();
    let options = PruneOptions::new(1).keep_every(3);
    let told = prune(&f, &options.clone().dry_run());
    assert_eq!(f.keys(), before);
    assert_eq!(steps(&told.removed), [1, 2]);
    assert_eq!(prune(&f, &options), told);
}

fn sizes_are_trusted_only_on_demand(f: Fixture) {
    save_five(&f);
    damage(&f, 5);
    let report = prune(&f, &PruneOptions::new(1).trust_sizes());
    assert_eq!((steps(&report.removed), steps(&report.kept)), (vec![1, 2, 3, 4], vec![5]));
    assert!(report.proven.is_none());
}

fn nonsense_is_refused(f: Fixture) {
    save_five(&f);
    for options in [PruneOptions::new(0), PruneOptions::new(1).keep_every(0)] {
        let error = f.checkpoints.prune_with(&options, &|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(f.keys().len(), 16);
}

/// Somebody's manifest names the shard of a save that is not finished.
fn a_manifest_does_not_condemn_what_is_of_another_step(f: Fixture) {
    let old = f.save_at(1, "x", &[b"zero", b"one"]);
    f.save_at(2, "x", &[b"zero", b"one"]);
    let layout = f.checkpoints.layout(3, "x".parse().unwrap());
    let writer = f.checkpoints.writer(1, 0).unwrap();
    let running = writer.put_shard(&layout, b"data").unwrap();
    let text = crate::support::as_ancestor(&f.get(&old.manifest_key), |manifest| {
        manifest["shards"][1]["key"] = running.key.clone().into();
    });
    f.put(&old.manifest_key, &text);
    assert_eq!(steps(&prune(&f, &PruneOptions::new(1)).removed), [1]);
    assert!(f.exists(&running.key) && !f.exists("shards/ckpt-1-x/rank-0.bin"));
    writer.finalize_checkpoint(&layout, "generic", 0, vec![running], None).unwrap();
    assert_eq!(f.checkpoints.load_latest().unwrap().unwrap(), "data");
}
