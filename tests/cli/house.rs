//! prune, gc, verify --quick.

use std::fs;
use std::time::{Duration, SystemTime};

use crate::checkpoints::save_step;
use crate::run::Place;
use crate::test_servers::{az_base, s3_base};

const TEMPORARY: &str =
    "base/shards/ckpt-9-20250101-000000-000/.rank-1.bin.0011223344556677.syncline-tmp";

/// A file of a save that was killed an hour ago.
fn leave(place: &Place, name: &str) {
    let path = place.write(name, b"left");
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
}

fn flip_shard(place: &Place, step: u64) {
    let wanted = |f: &String| f.contains(&format!("ckpt-{step}-")) && f.ends_with("rank-0.bin");
    let shard = format!("base/{}", place.files("base").into_iter().find(wanted).unwrap());
    let mut data = place.read(&shard);
    data[70_000] ^= 1;
    place.write(&shard, &data);
}

#[test]
fn prune_keeps_what_is_asked_and_what_is_good() {
    let place = Place::new();
    (1..=6).for_each(|step| save_step(&place, "base", step));
    let all = place.files("base");
    let prune = ["prune", "base", "--keep", "2", "--keep-every", "4"];
    let dry = place.ok(&[&prune[..], &["--dry-run"]].concat());
    assert!(dry.text().contains("3 would go") && dry.text().contains("kept, read and good"));
    assert_eq!(place.files("base"), all);
    let done = place.json(&prune);
    assert_eq!((&done["removed_bytes"], &done["dry_run"]), (&810_003.into(), &false.into()));
    let left: Vec<_> = place.json(&["list", "base"]).as_array().unwrap().clone();
    assert_eq!(left.iter().map(|c| c["step"].as_u64().unwrap()).collect::<Vec<_>>(), [4, 5, 6]);
    assert!(place.ok(&prune).text().contains("nothing to prune, 3 kept"));

    flip_shard(&place, 5);
    flip_shard(&place, 6);
    let done = place.ok(&["prune", "base", "--keep", "1"]);
    assert!(
        done.text().contains("note: step 4 at ") && done.text().contains("newest that is good")
    );
    assert!(done.text().contains("1 removed"), "{}", done.text());
    place.ok(&["restore", "base", "out"]);
    flip_shard(&place, 4);
    let before = place.files("base");
    place.fails(&["prune", "base", "--keep", "1"], 1, &["no checkpoint is good", "step 6"]);
    assert_eq!(place.files("base"), before);
    place.ok(&["prune", "base", "--keep", "1", "--trust-sizes"]);
    assert_eq!(place.json(&["list", "base"]).as_array().unwrap().len(), 1);
    place.assert_no_temporaries();
}

#[test]
fn prune_refuses_nonsense() {
    let place = Place::new();
    save_step(&place, "base", 1);
    place.fails(&["prune", "base"], 2, &["--keep"]);
    place.fails(&["prune", "base", "--keep", "0"], 2, &["keeping no checkpoint"]);
    place.fails(&["prune", "base", "--keep", "-1"], 2, &["--keep"]);
    place.fails(&["prune", "base", "--keep", "1", "--keep-every", "0"], 2, &["multiple of zero"]);
    assert!(place.ok(&["prune", "absent", "--keep", "1"]).text().contains("nothing to prune"));
}

#[test]
fn prune_and_quick_verify_work_on_servers() {
    let place = Place::new();
    for base in [s3_base(), az_base()] {
        (1..=3).for_each(|step| save_step(&place, &base, step));
        let quick = place.json(&["verify", &base, "--all", "--quick"]);
        assert_eq!(quick["good"], true, "{quick}");
        let done = place.json(&["prune", &base, "--keep", "1"]);
        assert_eq!(done["removed"].as_array().unwrap().len(), 2, "{done}");
        assert_eq!(place.json(&["list", &base]).as_array().unwrap().len(), 1);
        place.ok(&["rm", "-r", &base]);
    }
}

#[test]
fn a_quick_verify_does_not_call_good_what_it_has_not_seen() {
    let place = Place::new();
    save_step(&place, "base", 1);
    let done = place.ok(&["verify", "base", "--quick"]);
    for words in ["there in the right sizes, not verified", "0 B read", "size only"] {
        assert!(done.text().contains(words), "{}", done.text());
    }
    let report = place.json(&["verify", "base", "--quick"]);
    let one = &report["checkpoints"][0];
    assert_eq!((&report["good"], &one["verdict"]), (&false.into(), &"unverified".into()));
    assert_eq!(one["shards"][0]["state"], "size-only");
    // What it cannot see, and what it can.
    flip_shard(&place, 1);
    place.ok(&["verify", "base", "--quick"]);
    place.fails(&["verify", "base"], 1, &["1 of 1 checkpoints damaged", "syncline restore"]);
    place.fails(&["verify", "base", "--all"], 1, &["look for another copy"]);
    let shard = place.files("base").into_iter().find(|f| f.ends_with("rank-1.bin")).unwrap();
    place.write(&format!("base/{shard}"), b"cut");
    let done = place.fails(&["verify", "base", "--quick"], 1, &["1 of 1 checkpoints damaged"]);
    assert!(done.text().contains("wrong size: 3 bytes found"), "{}", done.text());
    fs::remove_file(place.path(&format!("base/{shard}"))).unwrap();
    let done = place.fails(&["verify", "base", "--quick"], 1, &[]);
    assert!(done.text().contains("missing"), "{}", done.text());
}

#[test]
fn a_link_out_of_the_base_is_named_by_every_command() {
    let place = Place::new();
    save_step(&place, "base", 1);
    save_step(&place, "base", 2);
    let shard = |f: &String| f.contains("ckpt-1-") && f.ends_with("rank-1.bin");
    let shard = place.files("base").into_iter().find(shard).unwrap();
    let link = place.path(&format!("base/{shard}"));
    fs::rename(&link, place.path("outside")).unwrap();
    std::os::unix::fs::symlink(place.path("outside"), &link).unwrap();
    let done = place.fails(&["verify", "base", "--step", "1"], 1, &["damaged"]);
    assert!(done.text().contains("foreign: ") && done.text().contains("out of the base"));
    let named = ["symbolic link out of the base", shard.as_str()];
    place.fails(&["restore", "base", "out", "--step", "1"], 1, &named);
    place.fails(&["prune", "base", "--keep", "1"], 1, &named);
    assert!(place.path("outside").exists() && link.exists() && !place.path("out").exists());
}

#[test]
fn gc_lists_and_removes_only_when_told() {
    let place = Place::new();
    save_step(&place, "base", 1);
    let before = place.files("base");
    assert!(place.ok(&["gc", "base", "--older-than", "0s"]).text().contains("nothing to collect"));
    leave(&place, "base/shards/ckpt-9-20250101-000000-000/rank-0.bin");
    leave(&place, TEMPORARY);
    let verified = place.ok(&["verify", "base"]);
    assert!(
        verified.text().contains("note: ") && verified.text().contains("good"),
        "{}",
        verified.text()
    );

    // Younger than a day.
    assert!(place.ok(&["gc", "base", "--delete"]).text().contains("nothing to collect"));
    let found = place.ok(&["gc", "base", "--older-than", "0s"]);
    assert!(
        found.text().contains("2 found") && found.text().contains("--delete"),
        "{}",
        found.text()
    );
    assert_eq!(place.files("base").len(), before.len() + 2);
    let removed = place.json(&["gc", "base", "--older-than", "0", "--delete"]);
    let kinds: Vec<&str> = removed["garbage"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| g["kind"].as_str().unwrap())
        .collect();
    assert!(kinds.contains(&"shard") && kinds.contains(&"temporary"), "{removed}");
    assert_eq!(place.files("base"), before);
    place.ok(&["verify", "base", "--all"]);

    // A save that was killed in its first shard leaves a directory as well.
    leave(&place, TEMPORARY);
    place.ok(&["gc", "base", "--older-than", "0", "--delete"]);
    assert!(!place.path("base/shards/ckpt-9-20250101-000000-000").exists());
    assert_eq!(place.files("base"), before);

    // What is younger than the newest checkpoint may be a save that runs, and a save that runs is.
    place.sparse("large", 1 << 30);
    let child = place.spawn(&["save", "large", "base", "--step", "2"]);
    crate::run::until("an upload", || crate::signals::has_temporary(&place, "base"));
    place.ok(&["gc", "base", "--older-than", "0", "--delete"]);
    assert_eq!(child.finish().status, Some(0));
    place.write(TEMPORARY, b"half");
    let shown = place.ok(&["gc", "base", "--older-than", "0"]);
    assert!(shown.text().contains("none of it would be removed"), "{}", shown.text());
    let kept = place.ok(&["gc", "base", "--older-than", "0", "--delete"]);
    assert!(kept.text().contains("1 found, 4 B; 0 removed"), "{}", kept.text());
    assert!(kept.text().contains("may be of a running save"), "{}", kept.text());
    assert!(place.path(TEMPORARY).exists());
}
