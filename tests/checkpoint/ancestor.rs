//! What the ancestor wrote is read: no block checksums, no seal, shards under another timestamp.

use serde_json::{Value, json};
use syncline::{Algorithm, ErrorKind};

use crate::support::{BLOCK, Fixture, on_all_media, state};

on_all_media! {
    its_checkpoints_restore
    its_old_checksums_are_another_polynomial
    a_checksum_of_unknown_kind_is_refused_by_name
}

/// A checkpoint as the ancestor lays it out; the shard lies under a timestamp of its own.
fn save(f: &Fixture, data: &[u8], checksum: Value) -> &'static str {
    f.put("shards/ckpt-5-20261122-090127/rank-0.bin", data);
    let manifest = json!({
        "format_version": 1, "framework": "torch", "global_step": 5, "epoch": 1,
        "wall_time": "2026-11-22T09:01:28.964050853+00:00", "world_size": 1,
        "shards": [{
            "rank": 0, "key": "shards/ckpt-5-20261122-090127/rank-0.bin", "size": data.len(),
            "etag": "file-9-1795338088", "checksum": checksum,
        }],
        "status": "complete", "user_meta": null,
    });
    let key = "manifests/ckpt-5-20261122-090128.json";
    f.put(key, &serde_json::to_vec_pretty(&manifest).unwrap());
    let latest = json!({"manifest_key": key, "global_step": 5, "ts": "20261122-090128"});
    f.put("latest.json", latest.to_string().as_bytes());
    key
}

/// Reads whole and in part, and verifies.
fn read(f: &Fixture, data: &[u8]) -> Result<(), ErrorKind> {
    let info = f.checkpoints.reader().list_checkpoints().unwrap().pop().unwrap();
    let report = f.checkpoints.verify(&info, &|_| ()).unwrap();
    let (reader, manifest) = (f.checkpoints.reader(), f.latest());
    let whole = reader.read_shard_by_rank(&manifest, 0).map_err(|e| e.kind());
    let mut part = vec![0; data.len() - 2];
    let range = reader.read_shard_range_into(&manifest, 0, 1, &mut part).map_err(|e| e.kind());
    assert_eq!(report.is_good(), whole.is_ok(), "{report:?}");
    assert_eq!(range.as_ref().err(), whole.as_ref().err());
    // Where it is the only one, damage is that none is whole.
    let of_all = whole.as_ref().err().map(|kind| match kind {
        ErrorKind::ChecksumMismatch => ErrorKind::Corrupt,
        kind => *kind,
    });
    let loaded = reader.load_latest_good().map(|good| good.unwrap().loaded);
    assert_eq!(loaded.as_ref().err().map(|e| e.kind()), of_all);
    assert_eq!(reader.choose_good_step().err().map(|e| e.kind()), of_all);
    assert_eq!(whole?, data);
    assert_eq!(loaded.unwrap(), [data]);
    assert_eq!(part, data[1..data.len() - 1]);
    Ok(())
}

fn its_checkpoints_restore(f: Fixture) {
    let data = state(8, 2 * BLOCK + 3);
    for checksum in [json!(Algorithm::Crc32c.checksum(&data).to_string()), Value::Null] {
        save(&f, &data, checksum);
        read(&f, &data).unwrap();
    }
    save(&f, &data, json!("crc32c:00000001"));
    assert_eq!(read(&f, &data), Err(ErrorKind::ChecksumMismatch));
    // Its own saves go on beside ours, and ours are newer by their step.
    f.save_at(6, "20261122-090129-001", &[b"ours"]);
    assert_eq!(f.checkpoints.load_latest().unwrap().unwrap(), "ours");
    assert!(f.checkpoints.gc(std::time::Duration::ZERO, true).unwrap().garbage.is_empty());
}

fn its_old_checksums_are_another_polynomial(f: Fixture) {
    // Other bytes for each medium, so that its warnings are its own.
    let data = state(9 + f.medium as u64, BLOCK + 1);
    let mislabelled = format!("crc32c:{:08x}", Algorithm::Crc32.checksum(&data).value());
    let told = || {
        let accepts =
            |text: &&String| text.contains("the bytes match") && text.contains(&mislabelled);
        crate::watch::warnings().iter().filter(accepts).count()
    };
    let key = save(&f, &data, json!(mislabelled));
    assert_eq!(told(), 0);
    read(&f, &data).unwrap();
    // Verifying, the whole, a range, all that is good, and choosing: each tells.
    assert_eq!(told(), 5);
    f.flip("shards/ckpt-5-20261122-090127/rank-0.bin", BLOCK);
    assert_eq!(read(&f, &data), Err(ErrorKind::ChecksumMismatch));
    f.delete(key);

    // Not in our own manifests.
    let info = f.save_at(7, "x", &[&data]);
    let mut manifest: Value = serde_json::from_slice(&f.get(&info.manifest_key)).unwrap();
    let fields = manifest.as_object_mut().unwrap();
    fields.remove("manifest_checksum");
    let shard = &mut fields["shards"][0];
    shard["checksum"] = json!(mislabelled);
    shard.as_object_mut().unwrap().remove("part_bytes");
    shard.as_object_mut().unwrap().remove("part_checksums");
    let text = String::from_utf8(serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
    let covered = format!("{},\n  ", text.strip_suffix("\n}").unwrap());
    let sum = Algorithm::Crc32c.checksum(covered.as_bytes());
    f.put(&info.manifest_key, format!("{covered}\"manifest_checksum\": \"{sum}\"\n}}").as_bytes());
    assert_eq!(read(&f, &data), Err(ErrorKind::ChecksumMismatch));
    assert_eq!(told(), 5);
}

fn a_checksum_of_unknown_kind_is_refused_by_name(f: Fixture) {
    save(&f, b"some data", json!("sha256:0123"));
    assert_eq!(read(&f, b"some data"), Err(ErrorKind::Unsupported));
    let blind = f.checkpoints.reader().without_verification();
    assert_eq!(blind.read_shard_by_rank(&f.latest(), 0).unwrap(), "some data");
    let other = Algorithm::Crc64Nvme.checksum(b"some data").to_string();
    save(&f, b"some data", json!(other));
    read(&f, b"some data").unwrap();
}
