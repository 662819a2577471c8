//! put, get, cat, ls, stat, rm, sum, bench, and what all commands share.

use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};

use crate::run::{Place, bytes};

#[test]
fn put_and_get_bring_back_the_bytes_through_every_medium_and_pipe() {
    let place = Place::new();
    // Not a whole number of parts, pages or sectors.
    let data = bytes(3 * 65_536 + 777, 1);
    place.write("data", &data);
    for scheme in ["file", "direct"] {
        let uri = format!("{scheme}://{}", place.text("objects/data"));
        let put = place.json(&["put", "data", &uri, "--part-size", "64KiB"]);
        assert_eq!(put["uri"], uri.as_str());
        assert_eq!(put["size_bytes"], data.len());
        assert_eq!(put["write"]["parts"], 4);
        place.ok(&["get", &uri, "back"]);
        assert_eq!(place.read("back"), data, "{scheme}");
        assert_eq!(place.ok(&["cat", &uri]).out, data, "{scheme}");
        assert_eq!(place.ok(&["get", &uri, "-", "--part-size", "64KiB"]).out, data, "{scheme}");
    }
    let done = place.run_with_input(&["put", "-", "objects/piped"], &data);
    assert_eq!(done.status, Some(0), "{}", done.err);
    assert_eq!(place.read("objects/piped"), data);
    place.assert_no_temporaries();
}

#[test]
fn empty_objects_are_objects() {
    let place = Place::new();
    place.write("empty", b"");
    place.ok(&["put", "empty", "objects/empty"]);
    place.ok(&["get", "objects/empty", "back"]);
    assert_eq!(place.read("back"), b"");
    assert_eq!(place.ok(&["cat", "objects/empty", "objects/empty"]).out, b"");
    assert!(place.ok(&["sum", "objects/empty"]).text().starts_with("crc32c:00000000  "));
}

#[test]
fn put_names_objects_after_files_and_get_names_files_after_objects() {
    let place = Place::new();
    place.write("data", b"first");
    place.ok(&["put", "data", "objects/"]);
    assert_eq!(place.read("objects/data"), b"first");
    fs::create_dir(place.path("out")).unwrap();
    place.ok(&["get", "objects/data", "out"]);
    assert_eq!(place.read("out/data"), b"first");
    // An object that exists is replaced, unless the user says otherwise.
    place.write("data", b"second");
    place.fails(&["put", "data", "objects/data", "--create-only"], 3, &["objects/data"]);
    assert_eq!(place.read("objects/data"), b"first");
    place.ok(&["put", "data", "objects/data"]);
    assert_eq!(place.read("objects/data"), b"second");
    place.assert_no_temporaries();
}

#[test]
fn get_writes_through_links_and_into_devices_without_replacing_them() {
    let place = Place::new();
    place.write("objects/data", b"content");
    place.write("target", b"old");
    std::os::unix::fs::symlink("target", place.path("link")).unwrap();
    place.ok(&["get", "objects/data", "link"]);
    assert_eq!(place.read("target"), b"content");
    assert!(fs::symlink_metadata(place.path("link")).unwrap().is_symlink());

    place.ok(&["get", "objects/data", "/dev/null"]);
    use std::os::unix::fs::FileTypeExt as _;
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    place.fails(&["get", "objects/data", "/dev/full"], 3, &["/dev/full", "No space left"]);
}

#[test]
fn cat_joins_objects_and_a_closed_pipe_is_quiet() {
    let place = Place::new();
    place.write("a", b"one ");
    place.write("b", b"two");
    assert_eq!(place.ok(&["cat", "a", "b"]).out, b"one two");

    // More than any pipe holds, so that the command surely meets the closed end.
    place.sparse("large", 64 << 20);
    for args in [["cat", "large"].as_slice(), &["get", "large", "-"]] {
        let mut child = place.spawn(args);
        let mut first = [1];
        let mut out = child.get().stdout.take().unwrap();
        out.read_exact(&mut first).unwrap();
        drop(out);
        let done = child.finish();
        assert_eq!(first, [0]);
        assert_eq!((done.status, done.err.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn tables_and_help_into_a_closed_pipe_are_quiet() {
    let place = Place::new();
    place.write("a", b"one");
    for args in [["ls", "."].as_slice(), &["ls", ".", "--json"], &["--help"], &["sum", "a"]] {
        let mut child = place.spawn(args);
        drop(child.get().stdout.take());
        let done = child.finish();
        assert_eq!((done.status, done.err.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn a_full_standard_output_is_a_failure() {
    let place = Place::new();
    place.write("a", b"one");
    for args in [["cat", "a"].as_slice(), &["stat", "a"], &["ls", ".", "--json"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let done = place.command(args).stdout(full).output().unwrap();
        assert_eq!(done.status.code(), Some(3), "{args:?}");
        let err = String::from_utf8(done.stderr).unwrap();
        assert!(err.contains("standard output") && err.contains("No space left"), "{err}");
    }
}

#[test]
fn ls_shows_one_level_or_all_of_them() {
    let place = Place::new();
    place.write("top/a", b"1");
    place.write("top/sub/b", b"22");
    place.write("top/sub/deep/c", b"333");
    place.write("topmost", b"no object of top/");
    let names = |value: &serde_json::Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap().to_owned()).collect()
    };
    for uri in ["top", "./top/", &place.text("top"), &format!("direct://{}", place.text("top"))] {
        let one_level = place.json(&["ls", uri]);
        assert_eq!(names(&one_level), ["a", "sub/"], "{uri}");
        assert_eq!(one_level[0]["size_bytes"], 1);
        assert_eq!((&one_level[1]["objects"], &one_level[1]["size_bytes"]), (&2.into(), &5.into()));
        let all = place.json(&["ls", "-r", uri]);
        assert_eq!(names(&all), ["a", "sub/b", "sub/deep/c"], "{uri}");
    }
    let text = place.ok(&["ls", "-r", "top"]);
    let lines: Vec<&str> = text.text().lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("1 B  20") && lines[0].ends_with("Z  a"), "{lines:?}");
    // One object is its own listing; nothing is an empty one.
    assert_eq!(names(&place.json(&["ls", "top/a"])), ["a"]);
    assert_eq!(place.json(&["ls", "absent"]), serde_json::json!([]));
    assert!(place.ok(&["ls", "absent"]).err.contains("nothing below absent"));
}

#[test]
fn names_cannot_drive_the_terminal() {
    let place = Place::new();
    place.write("top/a\u{1b}[31mred", b"1");
    let done = place.run(&["ls", "top"]);
    assert!(!done.text().contains('\u{1b}') && !done.err.contains('\u{1b}'));
}

#[test]
fn stat_tells_and_a_missing_object_is_status_3() {
    let place = Place::new();
    place.write("a", &bytes(1536, 2));
    let stat = place.json(&["stat", "a"]);
    assert_eq!(stat["size_bytes"], 1536);
    assert!(stat["modified"].as_str().unwrap().starts_with("20"));
    assert!(place.ok(&["stat", "a"]).text().contains("1.5 KiB (1536 bytes)"));
    for args in [
        ["stat", "absent"].as_slice(),
        &["cat", "absent"],
        &["get", "absent", "out"],
        &["rm", "absent"],
    ] {
        place.fails(args, 3, &["absent"]);
    }
    assert!(!place.path("out").exists());
}

#[test]
fn rm_takes_prefixes_only_when_told() {
    let place = Place::new();
    for name in ["top/a", "top/sub/b", "topmost"] {
        place.write(name, b"x");
    }
    place.fails(&["rm", "top"], 2, &["--recursive"]);
    assert_eq!(place.files("top"), ["a", "sub/b"]);
    place.ok(&["rm", "top/a"]);
    assert_eq!(place.files("top"), ["sub/b"]);
    let removed = place.json(&["rm", "-r", "top"]);
    assert_eq!(removed[0]["objects"], 1);
    assert!(!place.path("top").exists() && place.path("topmost").exists());
    place.fails(&["rm", "-r", "top"], 3, &["top"]);
}

#[test]
fn sum_prints_lines_as_sha256sum_does() {
    let place = Place::new();
    place.write("check", b"123456789");
    let direct = format!("direct://{}", place.text("check"));
    let done = place.ok(&["sum", "check", &direct]);
    assert_eq!(done.text(), format!("crc32c:e3069283  check\ncrc32c:e3069283  {direct}\n"));
    let piped = place.run_with_input(&["sum", "-"], b"123456789");
    assert_eq!((piped.status, piped.text()), (Some(0), "crc32c:e3069283  -\n"));
    assert_eq!(place.json(&["sum", "check"])[0]["size_bytes"], 9);
    // Larger than a part, so that parts are combined.
    place.write("large", &bytes(300_001, 3));
    let small_parts = place.ok(&["sum", "large", "--part-size", "64KiB"]);
    assert_eq!(small_parts.text(), place.ok(&["sum", "large"]).text());
    // One that fails does not hide the others.
    let done = place.fails(&["sum", "absent", "check"], 3, &["absent"]);
    assert_eq!(done.text(), "crc32c:e3069283  check\n");
}

#[test]
fn o_direct_is_required_only_where_it_is_to_be_had() {
    let place = Place::new();
    place.write("a", &bytes(10_000, 4));
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let uri = format!("direct://{}/a", memory.path().display());
    place.fails(&["put", "a", &uri, "--direct", "require"], 3, &[&uri, "file://"]);
    assert_eq!(fs::read_dir(memory.path()).unwrap().count(), 0);
    let put = place.json(&["put", "a", &uri, "--direct", "prefer"]);
    assert_eq!(put["write"]["mode"], "buffered");
}

#[test]
fn bench_compares_with_a_ceiling_and_leaves_nothing() {
    let place = Place::new();
    let settings = ["--size", "1MiB", "--part-size", "64KiB", "--io-threads", "2", "--rounds", "2"];
    let direct = format!("direct://{}", place.text("disk"));
    for uri in ["disk", &direct, "mem://bench"] {
        let result = place.json(&[&["bench", uri], &settings[..]].concat());
        assert_eq!(
            (&result["size_bytes"], &result["rounds"]),
            (&(1 << 20).into(), &2.into()),
            "{uri}"
        );
        for (side, ways) in [("write", 10), ("read", 6)] {
            let results = result[side].as_array().unwrap();
            assert_eq!(results.len(), ways, "{uri} {side}");
            for way in results {
                assert_eq!(way["samples"].as_array().unwrap().len(), 2);
                for number in ["mib_per_s", "cpu_s_per_gb", "ratio"] {
                    assert!(way[number].as_f64().unwrap() >= 0.0, "{uri} {way}");
                }
            }
            // Ratios are to the best ceiling, round by round, so that one has exactly 1.
            let mut ceilings = results.iter().filter(|way| way["ceiling"] == true);
            assert!(ceilings.any(|way| way["ratio"] == 1.0), "{uri} {side}");
        }
    }
    let text = place.ok(&[&["bench", "disk"], &settings[..]].concat());
    for needle in
        ["WRITE", "READ", "MiB/s", "CPU s/GB", "PEAK MEMORY", "RATIO", "write_borrowed", "Linux"]
    {
        assert!(text.text().contains(needle), "no {needle} in {}", text.text());
    }
    assert!(!place.path("disk").exists(), "{:?}", place.files("disk"));
    place.assert_no_temporaries();
}

#[test]
fn memory_stays_within_the_bound_the_user_gives() {
    let place = Place::new();
    place.sparse("large", 96 << 20);
    place.ok(&["put", "large", "objects/large", "--memory", "4MiB"]);
    assert_eq!(fs::metadata(place.path("objects/large")).unwrap().len(), 96 << 20);
    place.fails(&["put", "large", "objects/x", "--memory", "1KiB"], 2, &["memory_bytes_max"]);
    place.fails(&["put", "large", "objects/x", "--part-size", "5000"], 2, &["part_bytes 5000"]);
    assert!(!place.path("objects/x").exists());
}

#[test]
fn usage_errors_are_status_2_and_help_is_status_0() {
    let place = Place::new();
    for args in [
        [].as_slice(),
        &["no-such-command"],
        &["put", "only-one"],
        &["save", "f", "base"],
        &["save", "f", "--step", "1"],
        &["ls", ".", "--part-size", "12 apples"],
        &["verify", "base", "--all", "--step", "1"],
        &["gc", "base", "--older-than", "yesterday"],
        &["save", "f", "base", "--step", "1", "--ts", "a/b"],
        &["save", "f", "base", "--step", "1", "--meta", "novalue"],
        &["save", "f", "base", "--step", "1", "--strategy", "sideways"],
    ] {
        let done = place.run(args);
        assert_eq!(done.status, Some(2), "{args:?}: {}", done.err);
        assert!(done.out.is_empty() && !done.err.is_empty(), "{args:?}");
    }
    let help = place.ok(&["--help"]);
    for command in [
        "save", "restore", "list", "show", "verify", "put", "get", "cat", "ls", "stat", "rm",
        "sum", "gc", "bench",
    ] {
        assert!(help.text().contains(command), "{command} is not in the help");
        assert!(
            place.ok(&[command, "--help"]).text().contains("Example"),
            "{command} has no example"
        );
    }
    assert!(help.text().contains("Exit status"));
    assert_eq!(
        place.ok(&["--version"]).text(),
        format!("syncline {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_terminal_gets_a_progress_bar_unless_it_is_unwanted() {
    let place = Place::new();
    place.sparse("large", 64 << 20);
    let on_terminal_line = |command: &str| {
        let program = env!("CARGO_BIN_EXE_syncline");
        // script(1) runs its command on a terminal of its own.
        let line = format!("'{program}' {command}");
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null());
        let done = script.current_dir(place.path("")).output().unwrap();
        assert!(done.status.success());
        String::from_utf8(done.stdout).unwrap()
    };
    let on_terminal = |extra: &str| on_terminal_line(&format!("put large objects/large {extra}"));
    let with_bar = on_terminal("");
    assert!(with_bar.contains("iB/s") && with_bar.contains("64.00 MiB"), "{with_bar:?}");
    // What is written to the terminal itself must not be drawn over.
    place.write("text", b"one line\nand no end");
    let shown = on_terminal_line("cat text");
    assert!(shown.contains("and no end") && !shown.contains('\x1b'), "{shown:?}");
    let without = on_terminal("--no-progress");
    assert!(!without.contains("iB/s") && !without.contains('\x1b'), "{without:?}");
}

/// Advice to remove more must not be the answer to a removal that the system refuses.
#[test]
fn a_removal_that_is_refused_is_told_as_such() {
    let place = Place::new();
    // sysfs lets nobody remove anything, not even root.
    let done = place.fails(&["rm", "/sys/kernel/notes"], 3, &["/sys/kernel/notes", "ermi"]);
    assert!(!done.err.contains("--recursive"), "{}", done.err);
    assert!(fs::exists("/sys/kernel/notes").unwrap());
}
