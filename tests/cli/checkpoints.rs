//! save, restore, list, show, verify.

use std::fs;

use serde_json::json;

use crate::run::{Place, bytes};
use crate::test_servers::{az_base, s3_base};

/// Saves two files under `base` as `step`; their content depends on the step.
pub fn save_step(place: &Place, base: &str, step: u64) {
    place.write("in/a", &bytes(200_000, step));
    place.write("in/b", &bytes(70_001, step + 1000));
    let step = step.to_string();
    place.ok(&["save", "in/a", "in/b", base, "--step", &step, "--part-size", "64KiB"]);
}

/// That `dir` has exactly what [`save_step`] saved.
pub fn assert_restored(place: &Place, dir: &str, step: u64) {
    assert_eq!(place.files(dir), ["a", "b"], "{dir}");
    assert_eq!(place.read(&format!("{dir}/a")), bytes(200_000, step));
    assert_eq!(place.read(&format!("{dir}/b")), bytes(70_001, step + 1000));
}

#[test]
fn a_checkpoint_goes_round_by_every_strategy_and_medium() {
    let place = Place::new();
    for (index, strategy) in ["flat", "round-robin", "binary"].into_iter().enumerate() {
        for (scheme, step) in [("file", 10), ("direct", 20), ("s3", 30), ("az", 40)] {
            let base = match scheme {
                "s3" => s3_base(),
                "az" => az_base(),
                _ => format!("{scheme}://{}", place.text(&format!("base-{strategy}"))),
            };
            place.write("in/a", &bytes(200_000, step));
            place.write("in/b", &bytes(70_001, step + 1000));
            let step_text = step.to_string();
            let saved = place.json(&[
                "save",
                "in/a",
                "in/b",
                &base,
                "--step",
                &step_text,
                "--strategy",
                strategy,
                "--epoch",
                "3",
                "--framework",
                "mine",
                "--meta",
                "lr=0.1",
                "--meta",
                "note=a=b",
            ]);
            assert_eq!((&saved["step"], &saved["world_size"]), (&step.into(), &2.into()));
            let folder = ["shards/ckpt-", "shards/rr/", "shards/bin/"][index];
            assert!(saved["shards"][1]["key"].as_str().unwrap().starts_with(folder), "{saved}");
            let manifest = place.json(&["show", &base]);
            assert_eq!(
                manifest["user_meta"],
                json!({"files": ["a", "b"], "lr": "0.1", "note": "a=b"})
            );
            assert_eq!((&manifest["epoch"], &manifest["framework"]), (&3.into(), &"mine".into()));
            let out = format!("out-{strategy}-{scheme}");
            place.ok(&["restore", &base, &out]);
            assert_restored(&place, &out, step);
        }
    }
    place.assert_no_temporaries();
}

#[test]
fn list_show_and_verify_tell_about_all_steps() {
    let place = Place::new();
    assert!(place.ok(&["list", "base"]).err.contains("no checkpoint"));
    assert_eq!(place.json(&["list", "base"]), json!([]));
    save_step(&place, "base", 1);
    save_step(&place, "base", 2);
    let list = place.json(&["list", "base"]);
    assert_eq!((&list[0]["step"], &list[1]["step"]), (&1.into(), &2.into()));
    assert_eq!((&list[1]["world_size"], &list[1]["size_bytes"]), (&2.into(), &270_001.into()));
    assert_eq!(list[1]["readable"], true);
    let text = place.ok(&["list", "base"]);
    assert!(text.text().starts_with("STEP  TIMESTAMP"), "{}", text.text());
    assert!(text.text().contains("263.7 KiB") && text.text().contains("complete"));
    assert_eq!(place.json(&["show", "base"])["global_step"], 2);
    assert_eq!(place.json(&["show", "base", "--step", "1"])["global_step"], 1);
    assert!(place.ok(&["show", "base"]).text().contains("user meta   {\"files\":[\"a\",\"b\"]}"));
    let all = place.json(&["verify", "base", "--all"]);
    assert_eq!((&all["good"], all["checkpoints"].as_array().unwrap().len()), (&true.into(), 2));
    let one = place.ok(&["verify", "base", "--step", "1"]);
    assert!(one.text().starts_with("step 1 at ") && one.text().contains("ok"), "{}", one.text());
    place.ok(&["restore", "base", "one", "--step", "1"]);
    assert_restored(&place, "one", 1);
}

#[test]
fn what_is_not_there_is_status_1() {
    let place = Place::new();
    save_step(&place, "base", 1);
    for args in [
        ["restore", "absent", "out"].as_slice(),
        &["show", "absent"],
        &["verify", "absent"],
        &["verify", "absent", "--all"],
        &["restore", "base", "out", "--step", "9"],
        &["show", "base", "--step", "9"],
        &["verify", "base", "--step", "9"],
    ] {
        place.fails(args, 1, &["there is no checkpoint", "syncline list"]);
    }
    assert!(!place.path("out").exists());
}

#[test]
fn damage_is_found_named_and_stepped_over() {
    let place = Place::new();
    save_step(&place, "base", 1);
    save_step(&place, "base", 2);
    let shard = place
        .files("base")
        .into_iter()
        .find(|f| f.contains("ckpt-2-") && f.ends_with("rank-0.bin"));
    let shard = format!("base/{}", shard.unwrap());
    let mut damaged = place.read(&shard);
    damaged[70_000] ^= 1;
    place.write(&shard, &damaged);

    // The second block of 64 KiB.
    let done = place.fails(&["verify", "base"], 1, &["1 of 1 checkpoints damaged"]);
    assert!(done.text().contains("damaged in bytes 65536..131072 (block 1)"), "{}", done.text());
    let report = place.run(&["verify", "base", "--all", "--json"]);
    assert_eq!(report.status, Some(1));
    assert_eq!(report.json()["checkpoints"][1]["shards"][0]["state"], "damaged");
    let range = &report.json()["checkpoints"][1]["shards"][0]["ranges"][0];
    assert_eq!(
        *range,
        json!({"offset_bytes": 65_536, "length_bytes": 65_536, "blocks": {"first": 1, "last": 1}})
    );
    assert_eq!(report.json()["checkpoints"][0]["good"], true);

    let part = ["--part-size", "64KiB"];
    let named = [["restore", "base", "named", "--step", "2"].as_slice(), &part].concat();
    place.fails(&named, 1, &["rank-0.bin", "65536..131072"]);
    assert!(!place.path("named").exists(), "nothing half-done remains");
    let latest = place.ok(&["restore", "base", "latest", "--json"]);
    assert!(latest.err.contains("skipping step 2"), "{}", latest.err);
    assert_eq!(
        (&latest.json()["step"], &latest.json()["skipped"][0]["step"]),
        (&1.into(), &2.into())
    );
    assert_restored(&place, "latest", 1);

    // A shard of another size, and one that is gone.
    for change in [Some(&damaged[..70_000]), None] {
        match change {
            Some(bytes) => drop(place.write(&shard, bytes)),
            None => fs::remove_file(place.path(&shard)).unwrap(),
        }
        place.fails(&["verify", "base"], 1, &[]);
        place.fails(&["restore", "base", "named", "--step", "2"], 1, &["rank-0.bin"]);
        assert!(!place.path("named").exists());
        place.ok(&["restore", "base", "latest", "--force"]);
        assert_restored(&place, "latest", 1);
    }
    // The older one too: nothing is whole any more, and what was restored before stays.
    let older = place
        .files("base")
        .into_iter()
        .find(|f| f.contains("ckpt-1-") && f.ends_with("rank-1.bin"));
    fs::remove_file(place.path(&format!("base/{}", older.unwrap()))).unwrap();
    let all = ["none of 2 checkpoints is whole", "step 1 at", "step 2 at"];
    let done = place.run(&["restore", "base", "latest", "--force"]);
    assert_eq!(done.status, Some(1));
    all.iter().for_each(|needle| assert!(done.err.contains(needle), "{}", done.err));
    assert_restored(&place, "latest", 1);
    place.assert_no_temporaries();
}

/// Each way in which the newest is damaged: named where it is asked for, stepped over where it is not, and
/// never removed.
#[test]
fn whatever_is_damaged_is_named_and_kept() {
    type Damage = (&'static str, fn(&Place, &str), &'static str);
    let damages: [Damage; 5] = [
        ("rank-0.bin", |p, f| drop(p.write(f, &[&p.read(f)[1..], b"x"].concat())), "are damaged"),
        ("rank-1.bin", |p, f| drop(p.write(f, &p.read(f)[1..])), "70000 bytes"),
        ("rank-0.bin", |p, f| fs::remove_file(p.path(f)).unwrap(), "missing"),
        (".json", |p, f| drop(p.write(f, b"{}")), "not a manifest"),
        // The hint still names it.
        (".json", |p, f| fs::remove_file(p.path(f)).unwrap(), "No such file"),
    ];
    for (index, (name, damage, reason)) in damages.into_iter().enumerate() {
        let place = Place::new();
        save_step(&place, "base", 1);
        save_step(&place, "base", 2);
        let file = place.files("base").into_iter();
        let file = file.filter(|f| f.contains("ckpt-2-")).find(|f| f.ends_with(name)).unwrap();
        damage(&place, &format!("base/{file}"));
        let before = place.files("base");

        let done = place.ok(&["restore", "base", "out", "--json"]);
        for needle in ["skipping step 2 at", reason, name] {
            assert!(done.err.contains(needle), "{index}: {}", done.err);
        }
        let skipped = &done.json()["skipped"];
        assert_eq!((&skipped[0]["step"], skipped.as_array().unwrap().len()), (&2.into(), 1));
        assert!(skipped[0]["reason"].as_str().unwrap().contains(reason), "{skipped}");
        assert_restored(&place, "out", 1);

        let named = if index == 4 { "no checkpoint of step 2" } else { reason };
        place.fails(&["restore", "base", "named", "--step", "2"], 1, &[named]);
        assert!(!place.path("named").exists());
        assert_eq!(place.files("base"), before);
        place.assert_no_temporaries();
    }
}

#[test]
fn bytes_are_not_compared_where_nobody_wants_it() {
    let place = Place::new();
    save_step(&place, "base", 1);
    save_step(&place, "base", 2);
    let shard = place.files("base").into_iter();
    let shard = shard.filter(|f| f.contains("ckpt-2-")).find(|f| f.ends_with("rank-1.bin"));
    let shard = format!("base/{}", shard.unwrap());
    let mut damaged = place.read(&shard);
    damaged[7] ^= 1;
    place.write(&shard, &damaged);
    assert_eq!(place.json(&["restore", "base", "out"])["verified"], true);
    assert_restored(&place, "out", 1);
    let done = place.ok(&["restore", "base", "blind", "--no-verify", "--json"]);
    assert!(done.err.contains("without comparing checksums"), "{}", done.err);
    assert_eq!((&done.json()["step"], &done.json()["verified"]), (&2.into(), &false.into()));
    assert_eq!(place.read("blind/b"), damaged);
    // Sizes are compared all the same.
    place.write(&shard, &damaged[1..]);
    place.ok(&["restore", "base", "blind", "--no-verify", "--force"]);
    assert_restored(&place, "blind", 1);
}

/// Another program's checksums are compared in their own algorithm.
#[test]
fn checksums_of_every_known_algorithm_are_compared() {
    let place = Place::new();
    crate::bad_input::save_foreign(&place, "base", &json!(["a", "b"]));
    let manifest = "base/manifests/ckpt-5-20250101-000000.json";
    let text = String::from_utf8(place.read(manifest)).unwrap();
    let sum = |algorithm: syncline::Algorithm, data: &[u8]| algorithm.checksum(data).to_string();
    let ours = sum(syncline::Algorithm::Crc32c, b"shard 0");
    for algorithm in [syncline::Algorithm::Crc32, syncline::Algorithm::Crc64Nvme] {
        place.write(manifest, text.replace(&ours, &sum(algorithm, b"shard 0")).as_bytes());
        place.ok(&["restore", "base", "out", "--force"]);
        let other = sum(algorithm, b"another shard");
        place.write(manifest, text.replace(&ours, &other).as_bytes());
        place.fails(&["restore", "base", "other"], 1, &["rank-0.bin", &other]);
        assert!(!place.path("other").exists());
    }
}

#[test]
fn restore_overwrites_only_when_forced_and_looks_before_it_writes() {
    let place = Place::new();
    save_step(&place, "base", 1);
    place.write("out/b", b"mine");
    place.write("out/other", b"other");
    place.fails(&["restore", "base", "out"], 3, &["out/b", "--force"]);
    assert_eq!(place.files("out"), ["b", "other"]);
    assert_eq!(place.read("out/b"), b"mine");
    place.ok(&["restore", "base", "out", "--force"]);
    assert_eq!(place.files("out"), ["a", "b", "other"]);
    assert_eq!(place.read("out/b"), bytes(70_001, 1001));

    // A dangling link is an entry too, and a directory stays even by force.
    fs::create_dir_all(place.path("links/b")).unwrap();
    std::os::unix::fs::symlink("nowhere", place.path("links/a")).unwrap();
    place.fails(&["restore", "base", "links"], 3, &["links/a", "--force"]);
    place.fails(&["restore", "base", "links", "--force"], 3, &["links/b", "directory"]);
    assert!(fs::symlink_metadata(place.path("links/a")).unwrap().is_symlink());
    place.write("file", b"");
    place.fails(&["restore", "base", "file"], 2, &["not a directory"]);
    place.assert_no_temporaries();
}

#[test]
fn save_refuses_what_could_not_be_restored() {
    let place = Place::new();
    place.write("x/same", b"1");
    place.write("y/same", b"2");
    place.write("x/bad\nname", b"3");
    fs::create_dir(place.path("dir")).unwrap();
    place.fails(&["save", "x/same", "y/same", "base", "--step", "1"], 2, &["y/same", "same"]);
    place.fails(&["save", "x/same", "dir", "base", "--step", "1"], 2, &["dir", "directory"]);
    place.fails(&["save", "/dev/zero", "base", "--step", "1"], 2, &["/dev/zero", "regular"]);
    place.fails(&["save", "x/bad\nname", "base", "--step", "1"], 2, &["control characters"]);
    place.fails(&["save", "x/same", "absent", "base", "--step", "1"], 3, &["absent"]);
    place.fails(&["save", "x/same", "base", "--step", "1", "--meta", "files=x"], 2, &["files"]);
    place.fails(
        &["save", "x/same", "base", "--step", "1", "--meta", "k=1", "--meta", "k=2"],
        2,
        &["twice"],
    );
    place.fails(&["save", "x/same", "base", "--step", "1", "--framework", ""], 2, &["framework"]);
    assert!(!place.path("base").exists(), "refused before anything is written");
}

#[test]
fn one_step_and_timestamp_is_saved_once() {
    let place = Place::new();
    place.write("a", b"first");
    let save = ["save", "a", "base", "--step", "1", "--ts", "20260101-000000-000"];
    place.ok(&save);
    place.write("a", b"second");
    place.fails(&save, 3, &["step 1", "--ts"]);
    place.fails(&[&save[..], &["--strategy", "binary"]].concat(), 3, &["step 1", "--ts"]);
    place.ok(&["restore", "base", "out"]);
    assert_eq!(place.read("out/a"), b"first");
    assert_eq!(place.files("base").len(), 3, "{:?}", place.files("base"));
    // The same step under a later timestamp is the newer checkpoint.
    place.ok(&["save", "a", "base", "--step", "1", "--ts", "20260101-000000-001"]);
    place.ok(&["restore", "base", "out", "--step", "1", "--force"]);
    assert_eq!(place.read("out/a"), b"second");
}

#[test]
fn options_may_stand_anywhere() {
    let place = Place::new();
    place.write("a", b"1");
    place.write("b", b"2");
    let saved =
        place.json(&["--io-threads", "2", "save", "a", "--step", "1", "b", "--epoch", "4", "base"]);
    assert_eq!((&saved["base"], &saved["world_size"]), (&"base".into(), &2.into()));
    place.ok(&["restore", "--step", "1", "base", "--force", "out"]);
    assert_eq!(place.files("out"), ["a", "b"]);
}

#[test]
fn names_from_a_manifest_are_used_only_if_plain() {
    let place = Place::new();
    for names in [
        json!(["../escape", "b"]),
        json!(["/etc/escape", "b"]),
        json!([".", "b"]),
        json!(["..", "b"]),
        json!(["", "b"]),
        json!(["a\u{1b}[0m", "b"]),
        json!(["same", "same"]),
        json!(["rank-1.bin"]),
        json!(["a", 5]),
        json!("a"),
    ] {
        let base = tempfile::tempdir_in(place.path("")).unwrap();
        let base = base.path().to_str().unwrap();
        crate::bad_input::save_foreign(&place, base, &names);
        let out = format!("{base}/out");
        let restored = place.json(&["restore", base, &out]);
        let found: Vec<&str> = restored["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| f["name"].as_str().unwrap())
            .collect();
        assert_eq!(found, ["rank-0.bin", "rank-1.bin"], "{names}");
        assert_eq!(fs::read(format!("{out}/rank-1.bin")).unwrap(), b"shard 1");
        assert!(!place.path("escape").exists() && !place.path("../escape").exists());
    }
}

#[test]
fn an_ieee_value_under_the_label_crc32c_is_accepted_with_a_warning() {
    let place = Place::new();
    crate::bad_input::save_foreign(&place, "base", &json!(["a", "b"]));
    let manifest = "base/manifests/ckpt-5-20250101-000000.json";
    let text = String::from_utf8(place.read(manifest)).unwrap();
    let ieee =
        syncline::Algorithm::Crc32.checksum(b"shard 0").to_string().replace("crc32:", "crc32c:");
    let castagnoli = syncline::Algorithm::Crc32c.checksum(b"shard 0").to_string();
    place.write(manifest, text.replace(&castagnoli, &ieee).as_bytes());
    let done = place.ok(&["restore", "base", "out"]);
    assert!(done.err.contains("IEEE"), "{}", done.err);
    assert_eq!(place.read("out/a"), b"shard 0");
    // Any other value is damage.
    place.write(manifest, text.replace(&castagnoli, "crc32c:12345678").as_bytes());
    place.fails(&["restore", "base", "other"], 1, &["12345678"]);
    assert!(!place.path("other").exists());
    // And in a manifest of ours there is no other polynomial under that label: it does not read.
    let ours = text.replace(&castagnoli, &ieee).replace("\"size\"", "\"raw_size\": 7, \"size\"");
    place.write(manifest, ours.as_bytes());
    place.fails(&["restore", "base", "other"], 1, &["manifest_checksum"]);
    assert!(!place.path("other").exists());
}

/// In containers process ids repeat: what another process left, or is using, is not ours.
#[test]
fn a_restore_leaves_the_staging_directory_of_another_alone() {
    let place = Place::new();
    save_step(&place, "base", 1);
    let line =
        "mkdir -p out/.syncline-restore-$$; echo foreign > out/.syncline-restore-$$/rank-0.bin
                exec \"$SYNCLINE\" restore base out";
    let mut shell = std::process::Command::new("sh");
    shell.args(["-euc", line]).env("SYNCLINE", env!("CARGO_BIN_EXE_syncline"));
    let done = shell.current_dir(place.path("")).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let foreign: Vec<String> =
        place.files("out").into_iter().filter(|f| f.contains("restore-")).collect();
    assert_eq!(foreign.len(), 1, "{:?}", place.files("out"));
    // It may be of one that was killed, and nobody else tells of it.
    let err = String::from_utf8_lossy(&done.stderr);
    assert!(err.contains("out/.syncline-restore-") && err.contains("was killed"), "{err}");
    assert_eq!(place.read(&format!("out/{}", foreign[0])), b"foreign\n");
    assert_eq!(place.files("out").len(), 3);
}

/// Small files go in groups, and each file of a group has a descriptor: the groups are as large as the limit of
/// descriptors lets them be, however many threads there are.
#[test]
fn many_small_files_need_few_descriptors() {
    let place = Place::new();
    let names: Vec<String> = (0..300).map(|n| format!("in/{n}")).collect();
    names.iter().zip(0..).for_each(|(name, seed)| drop(place.write(name, &bytes(100, seed))));
    let mut shell = std::process::Command::new("sh");
    let line = "ulimit -n 128; \"$SYNCLINE\" save in/* base --step 1 --io-threads 16 >saved
                exec \"$SYNCLINE\" restore base out --io-threads 16";
    shell.args(["-euc", line]).env("SYNCLINE", env!("CARGO_BIN_EXE_syncline"));
    let done = shell.current_dir(place.path("")).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for n in 0..300 {
        assert_eq!(place.read(&format!("out/{n}")), bytes(100, n));
    }
}
