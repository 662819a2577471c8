//! Restoring: which checkpoint is the latest, ranges, damage.

use serde_json::json;
use syncline::{Config, ErrorKind};

use crate::support::{BLOCK, Fixture, Medium, config, fixture_with, on_all_media, state, ts};

on_all_media! {
    the_greatest_name_is_the_latest
    a_bad_hint_changes_nothing
    a_hint_at_a_removed_checkpoint_does_not_count
    every_range_is_read
    damage_is_found_where_it_is
    sizes_are_checked
    a_missing_shard_is_incomplete
    the_ancestors_compressed_shards_are_refused_by_name
    the_base_may_end_in_a_slash
}

fn the_greatest_name_is_the_latest(f: Fixture) {
    f.save_at(10, "20260101-000000-000", &[b"first"]);
    f.save_at(9, "20260102-000000-000", &[b"older step, saved later"]);
    assert_eq!(f.latest_step(), Some(10));
    assert_eq!(f.hint()["global_step"], 10);
    f.save_at(10, "20260103-000000-000", &[b"again"]);
    assert_eq!(f.checkpoints.load_latest().unwrap().unwrap(), "again");
    assert_eq!(f.hint()["ts"], "20260103-000000-000");
    let reader = f.checkpoints.reader();
    let found = reader.find_manifest_by_step(10).unwrap().unwrap();
    assert_eq!(found.timestamp(), Some(&ts("20260103-000000-000")));
    let names: Vec<(u64, String)> = reader
        .list_checkpoints()
        .unwrap()
        .into_iter()
        .map(|info| (info.step, info.timestamp.to_string()))
        .collect();
    let expected = [(9, "20260102"), (10, "20260101"), (10, "20260103")];
    assert_eq!(names, expected.map(|(step, day)| (step, format!("{day}-000000-000"))));
}

fn a_bad_hint_changes_nothing(f: Fixture) {
    f.save_at(1, "x", &[b"one"]);
    let stale = f.get("latest.json");
    f.save_at(2, "x", &[b"two"]);
    let pointer = |step: u64, name: &str| {
        let key = format!("manifests/{name}.json");
        json!({"manifest_key": key, "global_step": step, "ts": "x"}).to_string().into_bytes()
    };
    for hint in [
        stale,
        b"".to_vec(),
        b"{\"manifest_key\": \"manif".to_vec(),
        vec![b' '; 100_000],
        pointer(7, "ckpt-7-x"),
        pointer(9, "ckpt-1-x"),
        pointer(9, "../ckpt-9-x"),
    ] {
        f.put("latest.json", &hint);
        assert_eq!(f.checkpoints.load_latest().unwrap().unwrap(), "two");
    }
    f.delete("latest.json");
    assert_eq!(f.checkpoints.load_latest().unwrap().unwrap(), "two");
    // The next save mends it, even one that is not the newest.
    f.put("latest.json", &pointer(7, "ckpt-2-x"));
    f.save_at(1, "y", &[b"one"]);
    let expected = json!({"manifest_key": "manifests/ckpt-2-x.json", "global_step": 2, "ts": "x"});
    assert_eq!(f.hint(), expected);
    f.save_at(3, "x", &[b"three"]);
    assert_eq!(
        f.hint(),
        json!({"manifest_key": "manifests/ckpt-3-x.json", "global_step": 3, "ts": "x"})
    );
}

fn a_hint_at_a_removed_checkpoint_does_not_count(f: Fixture) {
    let newest = f.save_at(2, "x", &[b"two"]);
    f.save_at(1, "x", &[b"one"]);
    assert_eq!(f.hint()["global_step"], 2);
    f.delete(&newest.manifest_key);
    assert_eq!(f.latest_step(), Some(1));
}

fn every_range_is_read(f: Fixture) {
    let block = f.block();
    let data = state(3, 3 * block + 100);
    f.save_at(1, "x", &[&data]);
    let (reader, manifest) = (f.checkpoints.reader(), f.latest());
    assert_eq!(manifest.shards[0].part_bytes, Some(block as u64));
    let edges =
        [0, 1, 511, block - 1, block, block + 1, 2 * block, 3 * block, data.len() - 1, data.len()];
    for from in edges {
        for to in edges.into_iter().filter(|to| *to >= from) {
            let mut buffer = vec![0; to - from];
            let report =
                reader.read_shard_range_into(&manifest, 0, from as u64, &mut buffer).unwrap();
            assert_eq!(buffer, data[from..to], "{from}..{to}");
            assert_eq!(report.bytes, (to - from) as u64, "{from}..{to}");
            let whole_blocks = from % block == 0 && (to % block == 0 || to == data.len());
            if f.medium != Medium::Direct {
                assert_eq!(report.copied_bytes == 0, whole_blocks || from == to, "{from}..{to}");
            }
        }
    }
    for (offset, length) in [(data.len(), 1), (usize::MAX, 2), (0, data.len() + 1)] {
        let mut buffer = vec![0; length];
        let outcome = reader.read_shard_range_into(&manifest, 0, offset as u64, &mut buffer);
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let short = reader.read_shard_into(&manifest, 0, &mut vec![0; data.len() - 1]).unwrap_err();
    assert_eq!(short.kind(), ErrorKind::InvalidInput);
    assert_eq!(reader.read_shard_by_rank(&manifest, 1).unwrap_err().kind(), ErrorKind::NotFound);
}

fn damage_is_found_where_it_is(f: Fixture) {
    let block = f.block();
    let data = state(4, 5 * block + 7);
    let info = f.save_at(1, "x", &[b"sound", &data, b"sound"]);
    let (reader, manifest) = (f.checkpoints.reader(), f.latest());
    let key = &manifest.shards[1].key;
    f.flip(key, 2 * block + 5);

    let error = reader.read_shard_by_rank(&manifest, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
    assert!(error.uri().unwrap().ends_with(key), "{error}");
    assert!(error.to_string().contains(&(2 * block).to_string()), "{error}");
    let read = |from: usize, to: usize| {
        let mut buffer = vec![0; to - from];
        reader.read_shard_range_into(&manifest, 1, from as u64, &mut buffer).map(|_| buffer)
    };
    assert_eq!(read(100, 2 * block).unwrap(), data[100..2 * block]);
    assert_eq!(read(3 * block, data.len()).unwrap(), data[3 * block..]);
    for (from, to) in [(0, data.len()), (2 * block, 2 * block + 1), (2 * block - 1, 2 * block + 1)]
    {
        assert_eq!(read(from, to).unwrap_err().kind(), ErrorKind::ChecksumMismatch, "{from}..{to}");
    }
    let blind = reader.clone().without_verification();
    assert_ne!(blind.read_shard_by_rank(&manifest, 1).unwrap(), data);

    f.flip(key, 3 * block);
    f.flip(key, 5 * block + 6);
    let done = std::sync::atomic::AtomicU64::new(0);
    let progress = |bytes| {
        done.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
    };
    let report = f.checkpoints.verify(&info, &progress).unwrap();
    assert!(!report.is_good());
    assert_eq!(done.into_inner(), manifest.stored_bytes());
    assert_eq!(report.read_bytes, manifest.stored_bytes());
    let report = serde_json::to_value(&report).unwrap();
    assert_eq!(report["shards"][0]["state"], "ok");
    assert_eq!(
        report["shards"][1],
        json!({
            "rank": 1, "key": key, "size_bytes": data.len(), "state": "damaged",
            "ranges": [
                {
                    "offset_bytes": 2 * block,
                    "length_bytes": 2 * block,
                    "blocks": {"first": 2, "last": 3},
                },
                {"offset_bytes": 5 * block, "length_bytes": 7, "blocks": {"first": 5, "last": 5}},
            ],
        })
    );
}

fn sizes_are_checked(f: Fixture) {
    let info = f.save_at(1, "x", &[&state(1, 2 * BLOCK)]);
    let (reader, manifest) = (f.checkpoints.reader(), f.latest());
    for size in [0, BLOCK, 2 * BLOCK + 1] {
        f.put(&manifest.shards[0].key, &state(1, size));
        let mut buffer = vec![0; 2 * BLOCK];
        for reader in [reader.clone(), reader.clone().without_verification()] {
            let error = reader.read_shard_into(&manifest, 0, &mut buffer).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Incomplete);
            let error = reader.read_shard_by_rank(&manifest, 0).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Incomplete);
        }
        let report = serde_json::to_value(f.checkpoints.verify(&info, &|_| ()).unwrap()).unwrap();
        assert_eq!(report["shards"][0]["state"], "wrong-size");
        assert_eq!(report["shards"][0]["found_bytes"], size);
    }
}

fn a_missing_shard_is_incomplete(f: Fixture) {
    let info = f.save_at(1, "x", &[b"zero", b"one"]);
    let manifest = f.latest();
    f.delete(&manifest.shards[1].key);
    let error = f.checkpoints.reader().read_shard_by_rank(&manifest, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incomplete);
    assert!(error.to_string().contains("rank 1"), "{error}");
    let report = f.checkpoints.verify(&info, &|_| ()).unwrap();
    assert!(!report.is_good());
    let report = serde_json::to_value(&report).unwrap();
    assert_eq!(report["shards"][0]["state"], "ok");
    assert_eq!(report["shards"][1]["state"], "missing");
}

fn the_ancestors_compressed_shards_are_refused_by_name(f: Fixture) {
    let info = f.save_at(1, "x", &[b"data"]);
    let key = f.latest().shards[0].key.clone();
    let text = crate::support::as_ancestor(&f.get(&info.manifest_key), |manifest| {
        manifest["shards"][0]["key"] = json!(format!("{key}.zst"));
        manifest["shards"][0]["checksum"] = json!("crc32c:12345678");
    });
    f.put(&info.manifest_key, &text);
    f.put(&format!("{key}.zst"), b"\x28\xb5\x2f\xfd");
    let error = f.checkpoints.load_latest().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("compressed"), "{error}");
    let report = serde_json::to_value(f.checkpoints.verify(&info, &|_| ()).unwrap()).unwrap();
    assert_eq!(report["shards"][0]["state"], "unsupported");
}

fn the_base_may_end_in_a_slash(f: Fixture) {
    f.save_at(1, "x", &[b"data"]);
    let store = f.checkpoints.store();
    let again = syncline::checkpoint::CheckpointStore::new(store.clone(), &format!("{}//", f.base));
    assert_eq!(again.load_latest().unwrap().unwrap(), "data");
    assert_eq!(again.prune(1).unwrap().kept.len(), 1);
}

#[test]
fn a_bare_path_is_a_base() {
    let f = crate::support::fixture(Medium::File);
    let path = f.directory().unwrap();
    let bare = syncline::checkpoint::CheckpointStore::open(path.to_str().unwrap()).unwrap();
    bare.save(1, 0, "generic", b"data", None).unwrap();
    assert_eq!(bare.reader().list_checkpoints().unwrap().len(), 1);
    assert_eq!(f.checkpoints.load_latest().unwrap().unwrap(), "data");
}

#[test]
fn without_checksums_nothing_is_claimed() {
    let none = Config::builder().part_bytes(config().part_bytes()).checksum(None).build().unwrap();
    let f = fixture_with(Medium::Mem, &none);
    let info = f.save_at(1, "x", &[b"data"]);
    assert_eq!(f.latest().shards[0].checksum, None);
    assert_eq!(f.checkpoints.load_latest().unwrap().unwrap(), "data");
    let report = f.checkpoints.verify(&info, &|_| ()).unwrap();
    assert!(report.is_good());
    assert_eq!(serde_json::to_value(&report).unwrap()["shards"][0]["state"], "no-checksum");
}

#[test]
fn a_base_that_is_a_file_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("base");
    std::fs::write(&path, b"a file").unwrap();
    for scheme in ["file", "direct"] {
        let base = format!("{scheme}://{}", path.display());
        let checkpoints = syncline::checkpoint::CheckpointStore::open(&base).unwrap();
        for error in [
            checkpoints.save(1, 0, "generic", b"data", None).unwrap_err(),
            checkpoints.load_latest().unwrap_err(),
            checkpoints.list().unwrap_err(),
            checkpoints.gc(std::time::Duration::ZERO, true).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"a file");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}
