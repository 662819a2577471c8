//! Bad manifests: a clear error each, nothing touched, and the earlier checkpoint still restores.

use serde_json::{Value, json};
use syncline::ErrorKind;

use crate::support::{Fixture, Medium, as_ancestor, on_all_media};

on_all_media! {
    every_bad_manifest_is_refused_and_the_earlier_checkpoint_restores
    a_manifest_under_another_name_is_refused
    other_files_beside_manifests_do_not_matter
}

type Edit = fn(&mut Value);

fn every_bad_manifest_is_refused_and_the_earlier_checkpoint_restores(f: Fixture) {
    use ErrorKind::{Corrupt, Incomplete, Unsupported};
    let earlier = f.save_at(1, "x", &[b"earlier"]);
    let newer = f.save_at(2, "x", &[b"newer", b"second"]);
    let sound = f.get(&newer.manifest_key);
    let edited = |edit: Edit| as_ancestor(&sound, edit);
    let cases = [
        (Corrupt, Vec::new()),
        (Corrupt, sound[..sound.len() / 2].to_vec()),
        (Corrupt, sound[..sound.len() - 1].to_vec()),
        (Corrupt, b"not JSON at all".to_vec()),
        (Corrupt, vec![0; 4096]),
        (Corrupt, b"[]".to_vec()),
        (Corrupt, vec![b'['; 100_000]),
        (
            Corrupt,
            String::from_utf8(sound.clone()).unwrap().replace("generic", "Generic").into_bytes(),
        ),
        (Unsupported, edited(|m| m["format_version"] = json!(2))),
        (Incomplete, edited(|m| m["status"] = json!("incomplete"))),
        (Corrupt, edited(|m| m["global_step"] = json!(3))),
        (Corrupt, edited(|m| m["world_size"] = json!(3))),
        (Corrupt, edited(|m| m["world_size"] = json!(4_000_000_000u32))),
        (Corrupt, edited(|m| m["shards"][1]["rank"] = json!(0))),
        (Corrupt, edited(|m| m["shards"][1]["key"] = json!("../../outside.bin"))),
        (Corrupt, edited(|m| m["shards"][1]["key"] = json!("/absolute.bin"))),
        (Corrupt, edited(|m| m["shards"][1]["key"] = json!("shards//x.bin"))),
        (Corrupt, edited(|m| m["shards"][1]["key"] = json!("shards/\u{7}.bin"))),
        (Corrupt, edited(|m| m["shards"][1]["size"] = json!(-4))),
        (Corrupt, edited(|m| m["framework"] = Value::Null)),
    ];
    let reader = f.checkpoints.reader();
    for (index, (kind, text)) in cases.iter().enumerate() {
        f.put(&newer.manifest_key, text);
        let before = f.keys();
        for error in [
            reader.latest().unwrap_err(),
            reader.find_manifest_by_step(2).unwrap_err(),
            reader.load_manifest(&newer.manifest_key).unwrap_err(),
            f.checkpoints.load_latest().unwrap_err(),
        ] {
            assert_eq!(error.kind(), *kind, "case {index}: {error}");
            assert!(error.uri().unwrap().ends_with(&newer.manifest_key), "case {index}: {error}");
        }
        let manifest = reader.find_manifest_by_step(1).unwrap().unwrap();
        assert_eq!(reader.read_shard_by_rank(&manifest, 0).unwrap(), "earlier");
        let listed = f.checkpoints.list().unwrap();
        assert!(listed[0].summary.is_ok());
        assert_eq!(listed[1].summary.as_ref().unwrap_err().kind(), *kind, "case {index}");
        let report = f.checkpoints.verify(&newer, &|_| ()).unwrap();
        assert!(report.manifest_error.is_some() && !report.is_good());
        assert!(f.checkpoints.verify(&earlier, &|_| ()).unwrap().is_good());
        assert_eq!(f.keys(), before);
    }
    // A forged size asks for no memory: the object decides.
    f.put(&newer.manifest_key, &edited(|m| m["shards"][0]["size"] = json!(i64::MAX)));
    let manifest = reader.latest().unwrap().unwrap();
    let error = reader.read_shard_by_rank(&manifest, 0).unwrap_err();
    assert_eq!(error.kind(), Incomplete);

    f.put(&newer.manifest_key, &sound);
    let manifest = reader.latest().unwrap().unwrap();
    assert_eq!(reader.read_shard_by_rank(&manifest, 1).unwrap(), "second");
}

fn a_manifest_under_another_name_is_refused(f: Fixture) {
    let info = f.save_at(1, "x", &[b"data"]);
    f.put("manifests/ckpt-2-x.json", &f.get(&info.manifest_key));
    let error = f.checkpoints.reader().latest().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("it is of step 1, its name says 2"), "{error}");
    for key in
        ["", "latest.json", "/etc/passwd", "manifests/../latest.json", "manifests/other.json"]
    {
        let error = f.checkpoints.reader().load_manifest(key).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{key}");
    }
    let error = f.checkpoints.reader().load_manifest("manifests/ckpt-3-x.json").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

fn other_files_beside_manifests_do_not_matter(f: Fixture) {
    f.save_at(1, "x", &[b"data"]);
    for key in ["manifests/README", "manifests/ckpt-9-x.json.bak", "manifests/old/ckpt-9-x.json"] {
        f.put(key, b"whatever");
    }
    assert_eq!(f.latest_step(), Some(1));
    assert_eq!(f.checkpoints.list().unwrap().len(), 1);
    assert!(f.checkpoints.gc(std::time::Duration::ZERO, true).unwrap().garbage.is_empty());
}

/// Refused by its size, before a byte is read.
#[test]
fn an_oversized_manifest_is_refused() {
    let f = crate::support::fixture(Medium::File);
    f.save_at(1, "x", &[b"data"]);
    let path = f.directory().unwrap().join("manifests/ckpt-2-x.json");
    std::fs::File::create(path).unwrap().set_len(5 << 30).unwrap();
    let error = f.checkpoints.reader().latest().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("5368709120 bytes"), "{error}");
    assert!(f.checkpoints.reader().find_manifest_by_step(1).unwrap().is_some());
}
