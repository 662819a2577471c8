//! What cannot work: a clear error, the right status, nothing overwritten, no temporary file, and the
//! earlier checkpoint still restores.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use syncline::Algorithm;

use crate::checkpoints::{assert_restored, save_step};
use crate::run::{Place, bytes};

/// A checkpoint of step 5 as another program might have written it: two shards, none of our fields.
pub fn save_foreign(place: &Place, base: &str, files: &Value) {
    let folder = "shards/ckpt-5-20250101-000000";
    let shards = [0, 1].map(|rank| {
        let data = format!("shard {rank}");
        let key = format!("{folder}/rank-{rank}.bin");
        place.write(&format!("{base}/{key}"), data.as_bytes());
        let checksum = Algorithm::Crc32c.checksum(data.as_bytes()).to_string();
        json!({"rank": rank, "key": key, "size": data.len(), "etag": null, "checksum": checksum})
    });
    write_manifest(place, base, &json!(shards), files);
}

fn write_manifest(place: &Place, base: &str, shards: &Value, files: &Value) {
    let manifest = json!({
        "format_version": 1,
        "framework": "foreign",
        "global_step": 5,
        "epoch": 0,
        "wall_time": "2025-01-01T00:00:00Z",
        "world_size": 2,
        "shards": shards,
        "status": "complete",
        "user_meta": {"files": files},
    });
    let text = serde_json::to_vec_pretty(&manifest).unwrap();
    place.write(&format!("{base}/manifests/ckpt-5-20250101-000000.json"), &text);
}

#[test]
fn uris_that_name_nothing_of_ours_are_usage_errors() {
    let place = Place::new();
    place.write("a", b"x");
    for (uri, needle) in [
        ("ftp://host/x", "unknown scheme"),
        ("s3:/x\n", "control character"),
        ("file://relative/x", "relative"),
        ("direct://x", "relative"),
        ("file:///tmp/../etc/x", "\"..\""),
        ("mem://m/./x", "\".\""),
        ("mem://", "name"),
    ] {
        place.fails(&["put", "a", uri], 2, &[needle]);
        place.fails(&["cat", uri], 2, &[needle]);
        place.fails(&["save", "a", uri, "--step", "1"], 2, &[needle]);
        place.fails(&["restore", uri, "out"], 2, &[needle]);
        place.fails(&["list", uri], 2, &[needle]);
        place.fails(&["bench", uri, "--size", "64KiB"], 2, &[needle]);
    }
    // Not a directory called `file:` below the present one.
    place.ok(&["save", "a", "base", "--step", "1"]);
    for dir in ["file:///tmp/syncline-out", "direct:///tmp/syncline-out"] {
        place.fails(&["restore", "base", dir], 2, &["local directory"]);
    }
    for uri in ["file:/scratch/x", "direct:/scratch/x", "direct:x", "s3:/bucket/x"] {
        place.fails(&["save", "a", uri, "--step", "1"], 2, &["://"]);
        place.fails(&["put", "a", uri], 2, &["://", "./"]);
    }
    place.ok(&["put", "a", "./file:x"]);
    place.ok(&["put", "a", "b:c"]);
    assert_eq!(place.files("").iter().filter(|f| f.contains(':')).count(), 2);
}

#[test]
fn a_base_that_is_a_file_stays_one() {
    let place = Place::new();
    place.write("a", b"data");
    place.write("base", b"a file");
    for args in [
        ["save", "a", "base", "--step", "1"].as_slice(),
        &["restore", "base", "out"],
        &["list", "base"],
        &["verify", "base"],
        &["put", "a", "base/object"],
    ] {
        place.fails(args, 2, &["base", "not a directory"]);
    }
    assert_eq!(place.read("base"), b"a file");
    assert_eq!(place.files(""), ["a", "base"]);
}

#[test]
fn directories_are_no_files() {
    let place = Place::new();
    place.write("dir/a", b"x");
    place.fails(&["put", "dir", "object"], 2, &["dir", "directory"]);
    place.fails(&["put", "dir/a", "dir"], 2, &["dir"]);
    place.fails(&["cat", "dir"], 3, &["dir", "directory"]);
    assert_eq!(place.files(""), ["dir/a"]);
}

/// sysfs lets nobody create anything, not even root, whom the mode of a directory does not stop.
#[test]
fn without_permission_nothing_is_written() {
    let place = Place::new();
    place.write("a", b"x");
    save_step(&place, "base", 1);
    for args in [
        ["put", "a", "/sys/syncline/object"].as_slice(),
        &["put", "a", "direct:///sys/syncline/object"],
        &["save", "a", "/sys/syncline", "--step", "1"],
    ] {
        place.fails(args, 3, &["/sys/syncline", "ermi"]);
    }
    place.fails(&["get", "a", "/sys/object"], 3, &["/sys"]);
    place.fails(&["restore", "base", "/sys/syncline"], 3, &["/sys/syncline"]);
    place.fails(&["bench", "/sys/syncline", "--size", "64KiB"], 3, &["/sys/syncline"]);
    assert!(!fs::exists("/sys/syncline").unwrap() && !fs::exists("/sys/object").unwrap());
}

/// A limit on the size of files stands in for a full disk: it needs no privilege, and the writes fail
/// in the middle, as they do on a full one.
#[test]
fn a_medium_without_room_keeps_the_earlier_checkpoint() {
    let place = Place::new();
    place.write("small", b"small");
    place.write("large", &bytes(32 << 20, 2));
    for scheme in ["file", "direct"] {
        let base = format!("{scheme}://{}", place.text("base"));
        let step = if scheme == "file" { "1" } else { "2" };
        place.ok(&["save", "small", &base, "--step", step]);
        let before = place.files("base");
        for command in [
            format!("save small large {base} --step 9"),
            format!("put large {base}/object"),
            format!("get large {}", place.text("copy")),
        ] {
            // SIGXFSZ is ignored, so that the write fails instead.
            let line = format!("trap '' XFSZ; ulimit -f 4096; exec \"$SYNCLINE\" {command}");
            let mut shell = Command::new("sh");
            shell.args(["-euc", &line]).env("SYNCLINE", env!("CARGO_BIN_EXE_syncline"));
            let done = shell.current_dir(place.path("")).output().unwrap();
            let err = String::from_utf8(done.stderr).unwrap();
            assert_eq!(done.status.code(), Some(3), "{command}: {err}");
            assert!(err.contains("File too large") && err.contains("a limit"), "{command}: {err}");
            assert_eq!(place.files("base"), before, "{command}");
        }
        assert!(!place.path("copy").exists());
        place.ok(&["restore", &base, "out", "--force"]);
        assert_eq!(place.read("out/small"), b"small");
    }
    place.assert_no_temporaries();
}

/// Where there is no room for a hint at what remains, pruning still makes room.
#[test]
fn a_medium_without_room_can_be_pruned() {
    let place = Place::new();
    for scheme in ["file", "direct"] {
        let base = format!("{scheme}://{}", place.text(scheme));
        save_step(&place, &base, 1);
        let stale = place.read(&format!("{scheme}/latest.json"));
        save_step(&place, &base, 2);
        // As the save leaves it for which the room was enough but for its hint.
        place.write(&format!("{scheme}/latest.json"), &stale);
        let line = format!(
            "trap '' XFSZ; ulimit -f 0; exec \"$SYNCLINE\" prune {base} --keep 1 >/dev/null"
        );
        let mut shell = Command::new("sh");
        shell.args(["-euc", &line]).env("SYNCLINE", env!("CARGO_BIN_EXE_syncline"));
        let done = shell.current_dir(place.path("")).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(place.json(&["list", &base]).as_array().unwrap().len(), 1);
        assert!(!place.path(scheme).join("latest.json").exists());
        place.ok(&["restore", &base, "out", "--force"]);
        assert_restored(&place, "out", 2);
        save_step(&place, &base, 3);
        assert!(place.path(scheme).join("latest.json").exists());
    }
    place.assert_no_temporaries();
}

/// A disk that fills up in the middle of a save: a tmpfs of 8 MiB, which needs a mount namespace of our
/// own. Where the machine refuses one to this user, the test above is the one that holds.
#[test]
fn a_disk_that_fills_up_keeps_the_earlier_checkpoint() {
    let place = Place::new();
    let in_namespace = |namespace: &str, line: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args([namespace, "sh", "-euc", line]).current_dir(place.path(""));
        unshare.env("SYNCLINE", env!("CARGO_BIN_EXE_syncline")).output().unwrap()
    };
    fs::create_dir(place.path("disk")).unwrap();
    let mount = "mount -t tmpfs -o size=8m tmpfs disk";
    // As root, else as root of a user namespace.
    let works = |namespace: &&str| in_namespace(namespace, mount).status.success();
    let Some(namespace) = ["-m", "-rm"].into_iter().find(works) else {
        eprintln!("no mount namespace here: the disk that fills up was not tested");
        return;
    };
    place.write("small", &bytes(1 << 20, 1));
    place.write("large", &bytes(32 << 20, 2));
    for scheme in ["file", "direct"] {
        let done = in_namespace(
            namespace,
            &format!(
            "{mount}; base={scheme}://$PWD/disk/base; \"$SYNCLINE\" save small $base --step 1 >&2
             \"$SYNCLINE\" save small large $base --step 2 >&2 && exit 90 || echo status $?
             \"$SYNCLINE\" put large $base/large >&2 && exit 91 || echo status $?
             \"$SYNCLINE\" verify $base --all >&2; rm -rf out
             \"$SYNCLINE\" restore $base out >&2; cmp small out/small; find disk -type f | wc -l"
        ),
        );
        let (out, err) =
            (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
        // A shard, a manifest and the hint.
        assert_eq!(out, "status 3\nstatus 3\n3\n", "{scheme}: {err}");
        assert!(err.contains("No space left") && err.contains("free space"), "{scheme}: {err}");
    }
}

#[test]
fn broken_manifests_are_named_and_the_earlier_checkpoint_restores() {
    let place = Place::new();
    save_step(&place, "base", 1);
    save_step(&place, "base", 2);
    let manifest =
        place.files("base/manifests").into_iter().find(|f| f.starts_with("ckpt-2-")).unwrap();
    let manifest = format!("base/manifests/{manifest}");
    let good = place.read(&manifest);
    let altered = String::from_utf8(good.clone()).unwrap().replace("\"epoch\": 0", "\"epoch\": 1");
    for (what, text) in [
        ("truncated", &good[..good.len() / 2]),
        ("empty", b""),
        ("not JSON", b"this is no manifest"),
        ("not UTF-8", b"\xff\xfe{}"),
        ("altered", altered.as_bytes()),
        ("of another shape", b"[1, 2, 3]"),
    ] {
        place.write(&manifest, text);
        assert_refused_and_stepped_over(&place, 2, 1, what);
    }
    // Larger than any manifest, and read by nobody.
    place.sparse(&manifest, 5 << 30);
    assert_refused_and_stepped_over(&place, 2, 1, "oversized");
    // The hint is only a hint.
    place.write(&manifest, &good);
    place.write("base/latest.json", b"{\"manifest_key\": \"../../etc/passwd\"");
    place.ok(&["restore", "base", "hint"]);
    assert_restored(&place, "hint", 2);
}

#[test]
fn manifests_that_point_outside_their_base_are_refused() {
    let place = Place::new();
    save_step(&place, "base", 1);
    place.write("secret", b"secret");
    for key in [
        "../secret",
        "/etc/passwd",
        "shards/../../secret",
        "",
        "file:///etc/passwd",
        "a//b",
        "a/\u{0}",
    ] {
        let shards = json!([
            {"rank": 0, "key": key, "size": 6, "etag": null, "checksum": null},
            {"rank": 1, "key": "shards/x/rank-1.bin", "size": 6, "etag": null, "checksum": null},
        ]);
        write_manifest(&place, "base", &shards, &json!(["a", "b"]));
        assert_refused_and_stepped_over(&place, 5, 1, key);
    }
}

/// A step whose manifest is damaged: status 1 where it is asked for, and plain `restore` goes back.
fn assert_refused_and_stepped_over(place: &Place, step: u64, earlier: u64, what: &str) {
    let step_text = step.to_string();
    let asked = ["--step", step_text.as_str()];
    for args in [["restore", "base", "bad"].as_slice(), &["show", "base"], &["verify", "base"]] {
        let done = place.run(&[args, &asked].concat());
        assert_eq!(done.status, Some(1), "{what} {args:?}: {}", done.err);
        let said = format!("{}{}", done.text(), done.err);
        assert!(said.contains(&format!("ckpt-{step}-")) || said.contains("base"), "{what}: {said}");
    }
    assert!(!place.path("bad").exists(), "{what}");
    let list = place.json(&["list", "base"]);
    assert_eq!(
        (&list[0]["readable"], &list[1]["readable"]),
        (&true.into(), &false.into()),
        "{what}"
    );
    let done = place.ok(&["restore", "base", "out", "--force"]);
    assert!(done.err.contains(&format!("skipping step {step}")), "{what}: {}", done.err);
    assert_restored(place, "out", earlier);
    place.ok(&["restore", "base", "out", "--force", "--step", &earlier.to_string()]);
    place.assert_no_temporaries();
}

/// A later version's checkpoint is whole: silently going back to an older one would lose work.
#[test]
fn a_manifest_of_a_future_version_is_an_error_and_the_earlier_step_restores() {
    let place = Place::new();
    save_step(&place, "base", 1);
    save_foreign(&place, "base", &json!(["a", "b"]));
    let manifest = "base/manifests/ckpt-5-20250101-000000.json";
    let text = String::from_utf8(place.read(manifest)).unwrap();
    place
        .write(manifest, text.replace("\"format_version\": 1", "\"format_version\": 2").as_bytes());
    for args in [
        ["restore", "base", "out"].as_slice(),
        &["show", "base"],
        &["restore", "base", "out", "--step", "5"],
    ] {
        place.fails(args, 3, &["format_version is 2", "later"]);
    }
    assert!(!place.path("out").exists());
    place.fails(&["verify", "base"], 3, &["could not be read", "nothing is known to be damaged"]);
    place.ok(&["restore", "base", "out", "--step", "1"]);
    assert_restored(&place, "out", 1);
}

/// A name where something else than a file came to be is damage like a file that is gone.
#[test]
fn a_shard_that_is_no_file_is_stepped_over() {
    let place = Place::new();
    save_step(&place, "base", 1);
    save_step(&place, "base", 2);
    let shard =
        place.files("base").into_iter().find(|f| f.contains("ckpt-2-") && f.ends_with("0.bin"));
    let shard = place.path("base").join(shard.unwrap());
    fs::remove_file(&shard).unwrap();
    std::os::unix::fs::symlink("/dev/null", &shard).unwrap();
    place.fails(&["verify", "base"], 1, &["damaged"]);
    place.fails(&["restore", "base", "bad", "--step", "2"], 1, &["rank-0.bin"]);
    assert!(!place.path("bad").exists());
    let done = place.ok(&["restore", "base", "out"]);
    assert!(done.err.contains("skipping step 2"), "{}", done.err);
    assert_restored(&place, "out", 1);
}

/// Status 1 is about checkpoints that exist; a save that finds no place for one has failed like any other.
#[test]
fn a_save_that_fails_is_no_damage() {
    let place = Place::new();
    place.write("a", b"x");
    std::os::unix::fs::symlink("/syncline-absent/base", place.path("base")).unwrap();
    place.fails(&["save", "a", "base", "--step", "1"], 3, &["base"]);
}

/// Somebody cleans up too eagerly, where no checkpoint protects what follows it: the save says what
/// happened, and nothing of it stays.
#[test]
fn a_save_whose_files_are_removed_says_so() {
    let place = Place::new();
    fs::create_dir(place.path("base")).unwrap();
    place.sparse("large", 1 << 30);
    let child = place.spawn(&["save", "large", "base", "--step", "2"]);
    crate::run::until("an upload", || crate::signals::has_temporary(&place, "base"));
    place.ok(&["gc", "base", "--older-than", "0s", "--delete"]);
    let done = child.finish();
    assert_eq!(done.status, Some(3), "{}", done.err);
    assert!(done.err.contains("removed while it was written"), "{}", done.err);
    assert!(place.files("base").is_empty());
}

/// A shard of bytes from before and after a change is torn, and its checksum would vouch for it.
#[test]
fn a_file_that_changes_while_it_is_saved_is_not_saved() {
    let place = Place::new();
    save_step(&place, "base", 1);
    let before = place.files("base");
    for length in [1 << 20, (1 << 30) + 1] {
        let large = place.sparse("large", 1 << 30);
        let child = place.spawn(&["save", "large", "base", "--step", "2"]);
        crate::run::until("an upload", || crate::signals::has_temporary(&place, "base"));
        fs::OpenOptions::new().write(true).open(large).unwrap().set_len(length).unwrap();
        let done = child.finish();
        assert_eq!(done.status, Some(3), "{}", done.err);
        assert!(done.err.contains("large: changed while it was read"), "{}", done.err);
        assert_eq!(place.files("base"), before);
    }
}
