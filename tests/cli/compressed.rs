//! save --compress, and what the other commands make of it.

use std::process::Command;

use serde_json::{Value, json};

use crate::run::{Place, bytes};

/// Raw bytes of a frame where parts are small.
const FRAME: u64 = 4 << 20;

/// Numbers that change slowly: their bytes shrink, and more so when they are shuffled.
fn numbers(count: usize) -> Vec<u8> {
    (0..count).flat_map(|index| (index as f32).sqrt().to_le_bytes()).collect()
}

/// Saves three files, of which one shrinks, one does not, and one is empty.
fn save(place: &Place, step: &str, options: &[&str]) -> Value {
    place.write("in/a", &numbers(100_001));
    place.write("in/b", &bytes(70_001, 1));
    place.write("in/c", b"");
    let save = ["save", "in/a", "in/b", "in/c", "base", "--step", step, "--part-size", "64KiB"];
    place.json(&[&save, options].concat())
}

/// The file of a rank's shard of a step.
fn shard(place: &Place, step: u64, rank: u32) -> String {
    let of = format!("ckpt-{step}-");
    let name = format!("rank-{rank}.bin");
    let found = place.files("base").into_iter().find(|f| f.contains(&of) && f.contains(&name));
    format!("base/{}", found.unwrap())
}

/// What `zstd -d` makes of a file.
fn unzstd(place: &Place, file: &str) -> Vec<u8> {
    let done = Command::new("zstd").args(["-dcq"]).arg(place.path(file)).output();
    let done = done.expect("the program zstd");
    assert!(done.status.success(), "{file}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// The first bytes of all elements, then the second ones, and so on; what is no element stays at the end.
fn shuffled(raw: &[u8], element_bytes: usize) -> Vec<u8> {
    let elements = raw.chunks_exact(element_bytes);
    let rest = elements.remainder();
    let place = |at| elements.clone().map(move |element| element[at]);
    let mut bytes: Vec<u8> = (0..element_bytes).flat_map(place).collect();
    bytes.extend(rest);
    bytes
}

#[test]
fn compressed_checkpoints_go_round_and_zstd_opens_them() {
    let cases: [(&[&str], &str, &str, Option<&str>); 4] = [
        (&["--compress", "zstd"], "zstd:3", "bin.zst", None),
        (&["--compress", "zstd:19"], "zstd:19", "bin.zst", None),
        (
            &["--compress", "zstd:1", "--shuffle", "4"],
            "zstd:1 after shuf4",
            ".shuf4.zst",
            Some("shuf4"),
        ),
        (
            &["--compress", "zstd", "--shuffle", "8"],
            "zstd:3 after shuf8",
            ".shuf8.zst",
            Some("shuf8"),
        ),
    ];
    for (step, (options, told, suffix, filter)) in (1..).zip(cases) {
        let place = Place::new();
        let saved = save(&place, &step.to_string(), options);
        assert_eq!(saved["compression"], told);
        let manifest = place.json(&["show", "base"]);
        let inputs = ["in/a", "in/b", "in/c"].map(|name| place.read(name));
        for (rank, raw) in (0..).zip(&inputs) {
            let entry = &manifest["shards"][rank as usize];
            assert!(entry["key"].as_str().unwrap().ends_with(suffix), "{entry}");
            assert_eq!((&entry["compression"], &entry["filter"]), (&json!("zstd"), &json!(filter)));
            assert_eq!(entry["raw_size"], raw.len());
            let file = shard(&place, step, rank);
            assert_eq!(entry["size"], place.read(&file).len());
            let element_bytes = match filter {
                None => 1,
                Some("shuf4") => 4,
                _ => 8,
            };
            assert!(unzstd(&place, &file) == shuffled(raw, element_bytes), "{file}");
        }
        let stored: usize = (0..3).map(|rank| place.read(&shard(&place, step, rank)).len()).sum();
        let raw: usize = inputs.iter().map(Vec::len).sum();
        assert!(stored < raw * 9 / 10, "{stored} of {raw} bytes");
        let list = place.json(&["list", "base"]);
        assert_eq!(
            (&list[0]["size_bytes"], &list[0]["stored_bytes"]),
            (&raw.into(), &stored.into())
        );
        assert_eq!(place.json(&["verify", "base"])["good"], true);
        place.ok(&["restore", "base", "out"]);
        for (name, raw) in ["a", "b", "c"].into_iter().zip(&inputs) {
            assert!(&place.read(&format!("out/{name}")) == raw, "{name}");
        }
        place.assert_no_temporaries();
    }
}

#[test]
fn what_is_stored_is_told_beside_what_it_was() {
    let place = Place::new();
    save(&place, "1", &[]);
    save(&place, "2", &["--compress", "zstd", "--shuffle", "4"]);
    let manifest = place.ok(&["show", "base"]);
    let rows: Vec<&str> = manifest.text().lines().collect();
    let head = rows.iter().position(|row| row.starts_with("RANK")).unwrap();
    let columns: Vec<&str> = rows[head].split_whitespace().collect();
    assert_eq!(columns, ["RANK", "SIZE", "STORED", "CHECKSUM", "KEY"]);
    assert!(rows[head + 1].contains("390.6 KiB"), "{}", rows[head + 1]);
    let list = place.ok(&["list", "base"]);
    let rows: Vec<Vec<&str>> =
        list.text().lines().map(|r| r.split_whitespace().collect()).collect();
    assert_eq!(rows[0][4..6], ["SIZE", "STORED"]);
    // As numbers and units.
    assert_eq!(rows[1][4..6], rows[1][6..8], "not compressed: {}", list.text());
    assert_eq!(rows[2][4..6], rows[1][4..6]);
    assert_ne!(rows[2][4..6], rows[2][6..8], "compressed: {}", list.text());
    let save = ["save", "in/a", "base", "--step", "3", "--compress", "zstd"];
    let told = place.ok(&save);
    assert!(told.text().contains("STORED") && told.text().contains("zstd:3"), "{}", told.text());
}

#[test]
fn damage_in_a_compressed_shard_is_located_and_stepped_over() {
    let place = Place::new();
    place.write("in/a", &numbers(2_400_000));
    for step in ["1", "2"] {
        let save = ["save", "in/a", "base", "--step", step, "--part-size", "64KiB"];
        place.ok(&[&save[..], &["--compress", "zstd:1"]].concat());
    }
    let file = shard(&place, 2, 0);
    let stored = place.read(&file);
    let flip = |at: usize| {
        let mut damaged = stored.clone();
        damaged[at] ^= 1;
        place.write(&file, &damaged);
    };
    // Within a frame.
    let at = stored.len() / 2;
    flip(at);
    let done = place.fails(&["verify", "base"], 1, &["1 of 1 checkpoints damaged"]);
    assert!(done.text().contains("of the object bytes"), "{}", done.text());
    let report = place.run(&["verify", "base", "--json"]);
    assert_eq!(report.status, Some(1));
    let damaged = &report.json()["checkpoints"][0]["shards"][0];
    assert_eq!(damaged["state"], "damaged");
    let range = |name: &str| {
        assert_eq!(damaged[name].as_array().map(Vec::len), Some(1), "{damaged}");
        let number = |field: &str| damaged[name][0][field].as_u64().unwrap();
        (number("offset_bytes"), number("length_bytes"))
    };
    let (from, length) = range("ranges");
    assert_eq!((from % FRAME, length), (0, FRAME), "{damaged}");
    let (from, length) = range("stored_ranges");
    assert!((from..from + length).contains(&(at as u64)), "{damaged}");
    assert!(length < stored.len() as u64, "{damaged}");
    place.fails(&["restore", "base", "named", "--step", "2"], 1, &["rank-0.bin.zst", "frame"]);
    assert!(!place.path("named").exists(), "nothing half-done remains");

    // The seek table, and a piece of the object.
    flip(stored.len() - 1);
    for damage in 0..2 {
        if damage == 1 {
            place.write(&file, &stored[1..]);
        }
        place.fails(&["verify", "base"], 1, &["1 of 1 checkpoints damaged"]);
        place.fails(&["restore", "base", "named", "--step", "2"], 1, &["rank-0.bin.zst"]);
        let done = place.ok(&["restore", "base", "out", "--force"]);
        assert!(done.err.contains("skipping step 2"), "{}", done.err);
        assert!(place.read("out/a") == numbers(2_400_000));
    }
    place.assert_no_temporaries();
}

#[test]
fn compression_that_is_none_is_refused() {
    let place = Place::new();
    place.write("a", b"1");
    let refusals: [(&[&str], &str); 7] = [
        (&["--shuffle", "4"], "--compress"),
        (&["--compress", "zstd:0"], "a level from 1 to 22"),
        (&["--compress", "zstd:23"], "a level from 1 to 22"),
        (&["--compress", "zstd:-1"], "a level from 1 to 22"),
        (&["--compress", "gzip"], "zstd:LEVEL"),
        (&["--compress", "zstd", "--shuffle", "3"], "4 or 8"),
        (&["--compress", "zstd", "--memory", "1MiB"], "memory_bytes_max"),
    ];
    for (options, needle) in refusals {
        let save = ["save", "a", "base", "--step", "1"];
        place.fails(&[&save, options].concat(), 2, &[needle]);
        assert!(!place.path("base").exists(), "refused before anything is written");
    }
}
