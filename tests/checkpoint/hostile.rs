//! Manifests and hints that somebody made to do harm: sealed, so that nothing but what they say is wrong. Whatever
//! that is, the earlier checkpoint restores, and nothing is read or removed that is not the base's.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::{Value, json};
use syncline::checkpoint::PruneOptions;
use syncline::{Algorithm, ErrorKind};

use crate::figures;
use crate::support::{Fixture, Medium, fixture, on_all_media};

on_all_media! {
    numbers_that_are_none_or_too_large_are_no_checkpoint
    texts_that_are_no_document_are_no_checkpoint
    keys_that_lead_elsewhere_are_neither_read_nor_removed
    hints_that_lead_astray_change_nothing
}

const EARLIER: [&[u8]; 2] = [b"the earlier state", b"of rank one"];
const NEWER: [&[u8]; 2] = [b"the newer state", b"of the other rank"];
const MANIFEST: &str = "manifests/ckpt-2-x.json";

/// Steps 1 and 2.
fn two(medium: &Fixture) -> String {
    medium.save_at(1, "x", &EARLIER);
    medium.save_at(2, "x", &NEWER);
    String::from_utf8(medium.get(MANIFEST)).unwrap()
}

/// A document with the seal of what it says now.
fn sealed(text: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b"\"manifest_checksum\": ";
    let at = text.windows(NAME.len()).rposition(|bytes| bytes == NAME);
    let mut text = text[..at.expect("it was sealed")].to_vec();
    let sum = Algorithm::Crc32c.checksum(&text);
    text.extend_from_slice(NAME);
    text.extend_from_slice(format!("\"{sum}\"\n}}").as_bytes());
    text
}

/// A manifest whose field has another value.
fn with(text: &str, field: &str, value: &str) -> Vec<u8> {
    let label = format!("\"{field}\": ");
    let start = text.find(&label).unwrap_or_else(|| panic!("no {field} in {text}")) + label.len();
    let end = start + text[start..].find([',', '\n']).unwrap();
    sealed(
        [&text.as_bytes()[..start], value.as_bytes(), &text.as_bytes()[end..]].concat().as_slice(),
    )
}

/// Puts it in the place of step 2, and looks at it in every way.
fn assert_harmless(f: &Fixture, what: &str, manifest: &[u8]) {
    f.put(MANIFEST, manifest);
    let before = f.keys();
    let reader = f.checkpoints.reader();
    match reader.latest() {
        Ok(manifest) => {
            let manifest = manifest.unwrap();
            assert_eq!(manifest.global_step, 2, "{what}");
            for rank in 0..manifest.world_size.min(3) {
                if let Ok(data) = reader.read_shard_by_rank(&manifest, rank) {
                    assert!(data == NEWER[rank as usize], "{what}: wrong data of rank {rank}");
                }
            }
            let _ = (manifest.raw_bytes(), manifest.stored_bytes());
        }
        Err(error) => {
            let kinds = [ErrorKind::Corrupt, ErrorKind::Incomplete, ErrorKind::Unsupported];
            assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
            assert!(error.to_string().len() < 4096, "{what}");
        }
    }
    let load = |manifest: &_| Ok([0, 1].map(|rank| reader.read_shard_by_rank(manifest, rank)));
    let both = reader.newest_good(|manifest| {
        let [zero, one] = load(manifest)?;
        Ok([zero?, one?])
    });
    match both {
        Ok(good) => {
            let good = good.unwrap();
            let expected = if good.manifest.global_step == 1 { EARLIER } else { NEWER };
            assert!(good.loaded == expected, "{what}: wrong data of {}", good.info);
        }
        // A later version's is never passed over.
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{what}: {error}"),
    }
    let listed = f.checkpoints.list().unwrap();
    assert_eq!(listed.len(), 2, "{what}");
    for info in listed.iter().map(|listed| &listed.info) {
        f.checkpoints.verify(info, &|_| ()).unwrap();
        f.checkpoints.verify_quick(info).unwrap();
    }
    f.checkpoints.gc(Duration::ZERO, false).map(drop).unwrap_or_default();
    let _ = f.checkpoints.prune_with(&PruneOptions::new(1).dry_run(), &|_| ());
    assert_eq!(f.keys(), before, "{what}");
    figures::add("hostile inputs", 1);
}

/// All of the attacks in memory and on a disk; a part of them where each takes requests.
fn some<T>(f: &Fixture, all: Vec<T>) -> Vec<T> {
    let every =
        if matches!(f.medium, Medium::Mem | Medium::File) || figures::long() { 1 } else { 9 };
    all.into_iter().step_by(every).collect()
}

fn numbers_that_are_none_or_too_large_are_no_checkpoint(f: Fixture) {
    let text = two(&f);
    let vast = "9".repeat(100_000);
    let values = [
        "-1",
        "-0",
        "0",
        "00",
        "1e0",
        "0.5",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551614",
        "18446744073709551615",
        "18446744073709551616",
        "4294967295",
        "4294967296",
        "16777216",
        "16777217",
        "1e308",
        "-1e308",
        "1e999",
        "NaN",
        "Infinity",
        "-Infinity",
        "\"1\"",
        "null",
        "true",
        "[]",
        "{}",
        "[[1]]",
        &vast,
    ];
    let fields = [
        "format_version",
        "global_step",
        "epoch",
        "world_size",
        "rank",
        "size",
        "raw_size",
        "part_bytes",
    ];
    let cases = fields.iter().flat_map(|field| values.iter().map(move |value| (*field, *value)));
    for (field, value) in some(&f, cases.collect()) {
        let shown: String = value.chars().take(30).collect();
        assert_harmless(&f, &format!("{field} {shown}"), &with(&text, field, value));
    }
    // All sizes at once, whose sum is beyond numbers.
    let mut vast: Value = serde_json::from_str(&text).unwrap();
    for shard in vast["shards"].as_array_mut().unwrap() {
        let blocks = format!("\"{}\"", "0".repeat(8));
        shard["size"] = json!(i64::MAX);
        shard["raw_size"] = json!(i64::MAX);
        shard["part_bytes"] = json!(i64::MAX);
        shard["part_checksums"] = serde_json::from_str(&blocks).unwrap();
    }
    let vast = format!("{:#}", vast).replace("\n}", ",\n  \"manifest_checksum\": \"\"\n}");
    assert_harmless(&f, "sums beyond numbers", &sealed(vast.as_bytes()));
}

fn texts_that_are_no_document_are_no_checkpoint(f: Fixture) {
    let text = two(&f);
    let instead = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        sealed(text.replacen(from, to, 1).as_bytes())
    };
    let nested = |open: &str, close: &str, depth: usize| {
        instead(
            "\"user_meta\": null",
            &format!("\"user_meta\": {}1{}", open.repeat(depth), close.repeat(depth)),
        )
    };
    let unsealed_tail = |tail: &[u8]| [sealed(text.as_bytes()).as_slice(), tail].concat();
    let cases = vec![
        ("depth", nested("[", "]", 100_000)),
        ("depth of objects", nested("{\"\":", "}", 100_000)),
        ("depth without an end", nested("[", "", 100_000)),
        ("depth at the limit", nested("[", "]", 120)),
        ("a field twice", instead("\"epoch\": 0", "\"epoch\": 0, \"epoch\": 1")),
        ("a step twice", instead("\"global_step\": 2", "\"global_step\": 1, \"global_step\": 2")),
        ("shards twice", instead("\"status\"", "\"shards\": [], \"status\"")),
        ("a status twice", instead("\"status\"", "\"status\": \"saving\", \"status\"")),
        ("a long text", instead("\"generic\"", &format!("\"{}\"", "x".repeat(10_000_000)))),
        (
            "a text of control characters",
            instead("\"generic\"", "\"\\u001b[31m\\u0000\\r\\n\\u009b\""),
        ),
        ("half a pair", instead("\"generic\"", "\"\\ud800\"")),
        ("a text that is not closed", instead("\"generic\"", "\"generic")),
        (
            "no UTF-8",
            sealed(
                &text
                    .clone()
                    .into_bytes()
                    .iter()
                    .map(|b| if *b == b'g' { 0xff } else { *b })
                    .collect::<Vec<_>>(),
            ),
        ),
        ("UTF-16", text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        (
            "a mark of the byte order",
            [b"\xef\xbb\xbf", sealed(text.as_bytes()).as_slice()].concat(),
        ),
        ("NUL behind it", unsealed_tail(b"\0")),
        ("another document behind it", unsealed_tail(text.as_bytes())),
        ("spaces without end", vec![b' '; 10_000_000]),
        ("zeros", vec![0; 1_000_000]),
        ("a comment", instead("\"epoch\"", "/* x */ \"epoch\"")),
        ("a comma too many", instead("\"epoch\": 0,", "\"epoch\": 0,,")),
        (
            "a seal within",
            instead(
                "\"user_meta\": null",
                "\"user_meta\": {\"manifest_checksum\": \"crc32c:00000000\"}",
            ),
        ),
        ("one rank more", instead("\"world_size\": 2", "\"world_size\": 3")),
        ("one rank less", instead("\"world_size\": 2", "\"world_size\": 1")),
        ("a rank of another", instead("\"rank\": 1", "\"rank\": 0")),
        ("shards of none", with(&text, "world_size", "0")),
        (
            "a compression of another",
            instead("\"raw_size\"", "\"compression\": \"zstd\", \"raw_size\""),
        ),
        ("a filter of another", instead("\"raw_size\"", "\"filter\": \"shuffle4\", \"raw_size\"")),
    ];
    for (what, manifest) in cases {
        assert_harmless(&f, what, &manifest);
    }
}

fn keys_that_lead_elsewhere_are_neither_read_nor_removed(f: Fixture) {
    let text = two(&f);
    // Beside the base, and in it what is no shard.
    let beside = format!("{}-beside/object", f.base);
    f.checkpoints.store().put(&beside, b"not of the base").unwrap();
    f.put("receipts/ckpt-7-x/rank-0.json", b"not a shard");
    let outside = f.directory().map(|directory| directory.parent().unwrap().join("outside.bin"));
    outside.iter().for_each(|path| fs::write(path, b"not of the base").unwrap());
    let long = format!("shards/{}", "x".repeat(2000));
    let keys = [
        "",
        ".",
        "..",
        "/",
        "//",
        "../outside.bin",
        "shards/../../outside.bin",
        "/etc/passwd",
        "shards/..",
        "shards/./x",
        "./shards/ckpt-2-x/rank-1.bin",
        "shards//ckpt-2-x/rank-1.bin",
        "shards/ckpt-2-x/rank-1.bin/",
        "shards/ckpt-2-x",
        "shards",
        "manifests",
        "latest.json",
        "manifests/ckpt-1-x.json",
        "manifests/ckpt-2-x.json",
        "receipts/ckpt-7-x/rank-0.json",
        "s3://other/x",
        "file:///etc/passwd",
        "az://account/container/x",
        "%2e%2e/outside.bin",
        "..%2foutside.bin",
        "shards%2f..%2f..%2foutside.bin",
        "..\\\\outside.bin",
        "shards\\\\..\\\\x",
        "shards/\\u0000",
        "shards/ckpt-2-x/rank-1.bin\\u0000",
        "shards/a\\r\\nx-evil: 1",
        "shards/\\u001b[31m",
        "shards/\\u009b",
        "shards/x.",
        "shards/x ",
        " shards/x",
        "SHARDS/ckpt-2-x/rank-1.bin",
        "Manifests/ckpt-1-x.json",
        "LATEST.JSON",
        "shards/caf\\u00e9",
        "shards/cafe\\u0301",
        "shards/\\u2025/x",
        "shards/\\uff0e\\uff0e/x",
        "shards/x?uploadId=1",
        "shards/x?uncommitted",
        "shards/.x.0011223344556677.syncline-tmp",
        "../base-beside/object",
        "shards/ckpt-1-x/rank-0.bin",
        &long,
    ];
    let wanted = "shards/ckpt-2-x/rank-1.bin";
    assert!(text.contains(wanted), "{text}");
    for key in some(&f, keys.to_vec()) {
        let manifest = sealed(text.replacen(wanted, key, 1).as_bytes());
        let shown: String = key.chars().take(60).collect();
        assert_harmless(&f, &shown, &manifest);
        // It goes, and with it nothing but what is its own: neither the first checkpoint nor what is beside.
        let _ = f.checkpoints.delete_checkpoint(2, None);
        let _ = f.checkpoints.gc(Duration::ZERO, true);
        assert_eq!(f.checkpoints.store().get(&beside).unwrap(), "not of the base", "{shown}");
        let manifest = f.checkpoints.reader().find_manifest_by_step(1).unwrap().unwrap();
        for (rank, data) in (0..).zip(EARLIER) {
            assert_eq!(
                f.checkpoints.reader().read_shard_by_rank(&manifest, rank).unwrap(),
                data,
                "{shown}"
            );
        }
        if let Some(path) = &outside {
            assert_eq!(fs::read(path).unwrap(), b"not of the base", "{shown}");
        }
        // As it was.
        let keys = f.keys();
        for key in keys.iter().filter(|key| key.contains("ckpt-2-")) {
            f.delete(key);
        }
        f.save_at(2, "x", &NEWER);
    }
    f.checkpoints.store().delete(&beside).unwrap();
}

fn hints_that_lead_astray_change_nothing(f: Fixture) {
    two(&f);
    let hint = |key: &str, step: &str, ts: &str| {
        format!("{{\"manifest_key\": \"{key}\", \"global_step\": {step}, \"ts\": \"{ts}\"}}")
            .into_bytes()
    };
    let hints = vec![
        hint("latest.json", "2", "x"),
        hint("latest.json/../manifests/ckpt-2-x.json", "2", "x"),
        hint("manifests/../latest.json", "2", "x"),
        hint("manifests/ckpt-1-x.json", "2", "x"),
        hint("manifests/ckpt-3-x.json", "3", "x"),
        hint("manifests/ckpt-18446744073709551615-x.json", "18446744073709551615", "x"),
        hint("manifests/ckpt-18446744073709551616-x.json", "18446744073709551616", "x"),
        hint("manifests/ckpt-9-../../x.json", "9", "../../x"),
        hint("manifests/ckpt--1-x.json", "-1", "x"),
        hint("/etc/passwd", "2", "x"),
        hint("shards/ckpt-2-x/rank-0.bin", "2", "x"),
        hint(&"x".repeat(60_000), "2", "x"),
        hint("manifests/ckpt-9-\\u0000.json", "9", "\\u0000"),
        b"".to_vec(),
        b"{".to_vec(),
        vec![b'['; 60_000],
        vec![0; 60_000],
        vec![b'x'; 200_000],
        b"\xff\xfe".to_vec(),
        b"null".to_vec(),
    ];
    for text in hints {
        let what = String::from_utf8_lossy(&text[..text.len().min(80)]).into_owned();
        f.put("latest.json", &text);
        assert_eq!(f.latest_step(), Some(2), "{what}");
        let reader = f.checkpoints.reader();
        let good =
            reader.newest_good(|manifest| reader.read_shard_by_rank(manifest, 0)).unwrap().unwrap();
        assert_eq!(good.loaded, NEWER[0], "{what}");
        assert_eq!(f.checkpoints.list().unwrap().len(), 2, "{what}");
        figures::add("hostile inputs", 1);
    }
    // A save sets it right.
    f.save_at(3, "x", &NEWER);
    assert_eq!(f.hint()["global_step"], 3);
}

/// Every place of a base as a link that leads out, to itself, to another place, or to what is no file.
#[test]
fn links_in_every_place_are_harmless() {
    let places = [
        "latest.json",
        "manifests",
        MANIFEST,
        "shards",
        "shards/ckpt-2-x",
        "shards/ckpt-2-x/rank-1.bin",
        "receipts",
        "receipts/ckpt-2-x",
    ];
    for place in places {
        for to in ["itself", "outside", "/dev/zero", "/dev/full", "..", "pipe", "socket"] {
            let f = fixture(Medium::File);
            two(&f);
            let base = f.directory().unwrap();
            let scratch = base.parent().unwrap().to_owned();
            fs::create_dir(scratch.join("outside")).unwrap();
            fs::write(scratch.join("outside/rank-1.bin"), b"of the outside").unwrap();
            let path = base.join(place);
            if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path).or(Ok(()))
            }
            .unwrap();
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match to {
                "itself" => symlink(path.file_name().unwrap(), &path).unwrap(),
                "outside" => symlink(scratch.join("outside"), &path).unwrap(),
                "pipe" => assert!(
                    std::process::Command::new("mkfifo").arg(&path).status().unwrap().success()
                ),
                "socket" => drop(std::os::unix::net::UnixListener::bind(&path)),
                _ => symlink(to, &path).unwrap(),
            }
            let what = format!("{place} -> {to}");
            let reader = f.checkpoints.reader();
            let good = reader.newest_good(|manifest| {
                Ok([
                    reader.read_shard_by_rank(manifest, 0)?,
                    reader.read_shard_by_rank(manifest, 1)?,
                ])
            });
            match good {
                Ok(Some(good)) => {
                    let expected = if good.manifest.global_step == 1 { EARLIER } else { NEWER };
                    assert!(good.loaded == expected, "{what}");
                }
                // Where all manifests or all shards are gone with the place, there is nothing to restore.
                Ok(None) => assert!(place == "manifests", "{what}"),
                Err(_) => assert!(["manifests", "shards"].contains(&place), "{what}"),
            }
            let _ = (f.checkpoints.list(), f.checkpoints.leftovers());
            let _ = f.checkpoints.delete_checkpoint(2, None);
            let _ = f.checkpoints.prune(1);
            let _ = f.checkpoints.gc(Duration::ZERO, true);
            let outside = || fs::read_dir(scratch.join("outside")).unwrap().count();
            assert_eq!(outside(), 1, "{what}");
            let saved = f.checkpoints.save(9, 0, "generic", b"data", None);
            let leads_out = to == "outside" && ["shards", "manifests"].contains(&place);
            assert!(!leads_out || saved.is_err(), "{what}: {saved:?}");
            assert_eq!(outside(), 1, "{what}");
            let kept = fs::read(scratch.join("outside/rank-1.bin")).unwrap();
            assert_eq!(kept, b"of the outside", "{what}");
            figures::add("hostile inputs", 1);
        }
    }
}
