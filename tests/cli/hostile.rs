//! What strangers wrote must not drive the terminal, nor lead out of the directory that was named.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::bad_input::save_foreign;
use crate::figures;
use crate::run::{Done, Place};

/// What a terminal takes for a command, each beside what shows that it was printed.
const DRIVING: [&str; 9] = [
    "N\u{1b}[31m",
    "N\u{1b}]0;title\u{7}",
    "N\u{9b}2J",
    "N\u{9d}0;title\u{9c}",
    "N\u{7f}\u{8}",
    "N\r\nsyncline: done",
    "N\u{202e}nib",
    "N\u{2066}x",
    "N\u{85}\u{2028}x",
];

/// That no output drives a terminal: its own line ends are all it has.
#[track_caller]
fn assert_tame(what: &str, done: &Done) {
    for text in [str::from_utf8(&done.out).unwrap(), done.err.as_str()] {
        let driving = |c: char| {
            (c.is_control() && c != '\n')
                || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        assert!(!text.contains(driving), "{what}: {text:?}");
        assert!(!text.lines().any(|line| line.starts_with("syncline: done")), "{what}: {text:?}");
    }
    // Neither a panic nor a signal.
    assert!(
        done.status.is_some_and(|status| status < 100),
        "{what}: {:?} {}",
        done.status,
        done.err
    );
    figures::add("hostile inputs", 1);
}

#[test]
fn what_manifests_say_does_not_drive_the_terminal() {
    for (number, text) in DRIVING.into_iter().enumerate() {
        let place = Place::new();
        save_foreign(&place, "base", &json!([text, "b"]));
        let name = "base/manifests/ckpt-5-20250101-000000.json";
        let mut manifest: serde_json::Value = serde_json::from_slice(&place.read(name)).unwrap();
        manifest["framework"] = json!(text);
        manifest["wall_time"] = json!(text);
        manifest["user_meta"][text] = json!(text);
        manifest["shards"][1]["etag"] = json!(text);
        // Unknown, and so not compared but shown.
        manifest["shards"][1]["checksum"] = json!(format!("sum {text}"));
        place.write(name, &serde_json::to_vec(&manifest).unwrap());
        let mut damaged = manifest.clone();
        damaged["global_step"] = json!(6);
        damaged["status"] = json!(text);
        place.write(
            "base/manifests/ckpt-6-20250101-000000.json",
            &serde_json::to_vec(&damaged).unwrap(),
        );
        place.write(&format!("base/shards/{}", text.replace('/', "")), b"stray");
        for args in [
            &["list", "base"][..],
            &["show", "base", "--step", "5"],
            &["show", "base"],
            &["verify", "base", "--all"],
            &["verify", "base", "--all", "--quick"],
            &["restore", "base", "out", "--force"],
            &["restore", "base", "out", "--force", "--no-verify", "--step", "5"],
            &["prune", "base", "--keep", "1", "--dry-run"],
            &["gc", "base", "--older-than", "0s"],
            &["ls", "-r", "base"],
        ] {
            for json in [false, true] {
                let args = if json { [args, &["--json"]].concat() } else { args.to_vec() };
                let done = place.run(&args);
                assert_tame(&format!("{number} {args:?}"), &done);
                if json && !done.out.is_empty() {
                    done.json();
                }
            }
        }
        let shown = place.json(&["show", "base", "--step", "5"]);
        assert_eq!(shown["framework"], text, "JSON says it as it is");
    }
}

/// Names of files come into arguments by a shell's `*`.
#[test]
fn arguments_do_not_drive_the_terminal() {
    for text in DRIVING {
        let place = Place::new();
        place.write("a", b"x");
        for args in [
            &["put", text, "object"][..],
            &["put", "a", text],
            &["put", "a", &format!("mem://{text}")],
            &["cat", text],
            &["ls", text],
            &["stat", text],
            &["sum", "a", text],
            &["rm", text],
            &["get", text, text],
            &["save", text, "base", "--step", "1"],
            &["save", "a", "base", "--step", text],
            &[
                "save",
                "a",
                "base",
                "--step",
                "1",
                "--framework",
                text,
                "--meta",
                &format!("{text}={text}"),
            ],
            &["list", text],
            &["restore", text, text],
            &["restore", "base", text],
            &["verify", text],
            &["bench", text, "--size", text],
            &[text],
            &["put", &format!("--{text}")],
            &["gc", "base", "--older-than", text],
        ] {
            for json in [false, true] {
                let args = if json { [args, &["--json"]].concat() } else { args.to_vec() };
                assert_tame(&format!("{args:?}"), &place.run(&args));
            }
        }
    }
}

/// Whatever the files are called, they come to lie directly in the directory that was named, or not at all.
#[test]
fn a_restore_stays_in_its_directory() {
    let names = [
        "../escaped",
        "/tmp/syncline-escaped",
        "..",
        ".",
        "",
        "a/b",
        "a\\..\\b",
        "-rf",
        "a\u{0}b",
        "~",
        "$HOME",
        ".syncline-restore-1-0",
        "..%2fescaped",
        "caf\u{e9}",
        "\u{202e}",
        "con",
        "a.",
        " ",
        "link",
        "dir",
    ];
    for name in names {
        for force in [false, true] {
            let place = Place::new();
            place.write("outside/kept", b"kept");
            save_foreign(&place, "base", &json!([name, "second"]));
            // What lies there already: a link out of it, and a directory.
            fs::create_dir_all(place.path("out/dir")).unwrap();
            symlink("../outside/kept", place.path("out/link")).unwrap();
            let before: Vec<String> =
                place.files("").into_iter().filter(|f| !f.starts_with("out/")).collect();
            let args = ["restore", "base", "out"];
            let done =
                place.run(if force { &["restore", "base", "out", "--force"] } else { &args });
            assert_tame(&format!("{name:?}"), &done);
            let after: Vec<String> =
                place.files("").into_iter().filter(|f| !f.starts_with("out/")).collect();
            assert_eq!(before, after, "{name:?}");
            assert_eq!(place.read("outside/kept"), b"kept", "{name:?}");
            assert!(!fs::exists("/tmp/syncline-escaped").unwrap());
            let inside =
                fs::read_dir(place.path("out")).unwrap().map(|entry| entry.unwrap().file_name());
            let inside: Vec<_> = inside
                .filter(|found| found.as_bytes() != b"link" && found.as_bytes() != b"dir")
                .collect();
            if done.status == Some(0) {
                let linked = name == "link";
                assert_eq!(inside.len(), if linked { 1 } else { 2 }, "{name:?}: {inside:?}");
                assert!(!linked || force);
            } else {
                assert_eq!(inside.len(), 0, "{name:?}: {inside:?} {}", done.err);
            }
            if !name.starts_with(".syncline-") {
                place.assert_no_temporaries();
            }
        }
    }
}

/// A manifest of many shards is read in memory that its text bounds: the command has that much and no more.
#[test]
fn the_command_reads_a_large_manifest_in_little_memory() {
    let place = Place::new();
    let ranks = if figures::long() { 2_000_000 } else { 100_000 };
    let shards: Vec<String> = (0..ranks)
        .map(|rank| format!("{{\"rank\":{rank},\"key\":\"shards/{rank}\",\"size\":0}}"))
        .collect();
    let text = format!(
        "{{\"format_version\":1,\"framework\":\"f\",\"global_step\":5,\"epoch\":0,\"wall_time\":\"\",\
         \"world_size\":{ranks},\"shards\":[{}],\"status\":\"complete\"}}",
        shards.join(",")
    );
    place.write("base/manifests/ckpt-5-x.json", text.as_bytes());
    // Beside what the command takes for itself, with its threads: 2 GiB of addresses.
    let kib = (2 << 20) + 32 * text.len() / 1024;
    let mut shell = std::process::Command::new("sh");
    shell.args(["-euc", &format!("ulimit -v {kib}; exec \"$SYNCLINE\" list base --json")]);
    shell.env("SYNCLINE", env!("CARGO_BIN_EXE_syncline")).current_dir(place.path(""));
    let done = shell.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let listed: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(listed[0]["world_size"], ranks);
    assert_eq!(listed[0]["readable"], true);
}
