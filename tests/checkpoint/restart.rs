//! Restarting: the newest checkpoint that is whole is taken, what was passed over is told with its
//! reason, and only damage makes anybody go back.

use serde_json::json;
use syncline::checkpoint::{CheckpointInfo, Good, Skipped};
use syncline::{Algorithm, Bytes, Checksum, Error, ErrorKind, Result};

use crate::support::{Fixture, as_ancestor, on_all_media, state};

on_all_media! {
    every_damage_is_stepped_over_and_named
    where_none_is_whole_there_is_an_error
    a_base_without_checkpoints_has_none
    what_a_later_version_wrote_is_no_damage
    all_ranks_load_what_one_chose
    the_errors_of_the_caller_end_the_walk
    a_checksum_of_the_caller_is_compared
    a_copy_is_verified_before_it_counts
}

/// Steps 1 to 3, of two ranks; the shard of rank 1 has three blocks and a rest.
fn save_three(f: &Fixture) -> [CheckpointInfo; 3] {
    [1, 2, 3].map(|step| f.save_at(step, "x", &[&shard(f, step, 0), &shard(f, step, 1)]))
}

fn shard(f: &Fixture, step: u64, rank: usize) -> Vec<u8> {
    state(10 * step + rank as u64, [100, 3 * f.block() + 7][rank])
}

const SHARD: &str = "shards/ckpt-3-x/rank-1.bin";

/// Ways in which step 3 is damaged, and what the reason must say.
type Damage = (&'static str, fn(&Fixture, &CheckpointInfo), ErrorKind, &'static [&'static str]);

const DAMAGES: [Damage; 8] = [
    ("flipped", |f, _| f.flip(SHARD, f.block() + 5), ErrorKind::ChecksumMismatch, &["rank-1.bin"]),
    ("cut", |f, _| f.put(SHARD, &f.get(SHARD)[..9]), ErrorKind::Incomplete, &["9 bytes"]),
    (
        "longer",
        |f, _| f.put(SHARD, &[&f.get(SHARD)[..], b"x"].concat()),
        ErrorKind::Incomplete,
        &[],
    ),
    ("missing", |f, _| f.delete(SHARD), ErrorKind::Incomplete, &["rank-1.bin", "missing"]),
    (
        "manifest altered",
        |f, i| f.flip(&i.manifest_key, 50),
        ErrorKind::Corrupt,
        &["ckpt-3-x.json"],
    ),
    ("manifest empty", |f, i| f.put(&i.manifest_key, b""), ErrorKind::Corrupt, &["empty"]),
    (
        "manifest not complete",
        |f, i| {
            let text = as_ancestor(&f.get(&i.manifest_key), |v| v["status"] = json!("saving"));
            f.put(&i.manifest_key, &text);
        },
        ErrorKind::Incomplete,
        &["saving"],
    ),
    // `latest.json` still names it.
    ("manifest gone", |f, i| f.delete(&i.manifest_key), ErrorKind::NotFound, &["ckpt-3-x.json"]),
];

type Found = (u64, Vec<Skipped>);

/// What each way to find a checkpoint finds: its step, and what it passed over.
fn found(f: &Fixture) -> [Result<Option<Found>>; 3] {
    let reader = f.checkpoints.reader();
    let step = |good: Good<()>| (good.manifest.global_step, good.skipped);
    let into_own = reader.newest_good(|manifest| {
        for shard in &manifest.shards {
            let mut memory = vec![0; shard.raw_bytes() as usize];
            reader.read_shard_into(manifest, shard.rank, &mut memory)?;
        }
        Ok(())
    });
    let all = reader.load_latest_good().map(|good| {
        good.map(|good: Good<Vec<Bytes>>| {
            for (rank, loaded) in good.loaded.iter().enumerate() {
                assert!(*loaded == shard(f, good.info.step, rank), "{} rank {rank}", good.info);
            }
            (good.info.step, good.skipped)
        })
    });
    let chosen = reader.choose_good_step().map(|c| c.map(|c| (c.info.step, c.skipped)));
    [into_own.map(|good| good.map(step)), all, chosen]
}

fn every_damage_is_stepped_over_and_named(f: Fixture) {
    for (what, damage, kind, needles) in DAMAGES {
        let infos = save_three(&f);
        damage(&f, &infos[2]);
        let before = f.keys();
        for outcome in found(&f) {
            let (step, skipped) = outcome.unwrap().unwrap();
            assert_eq!((step, skipped.len()), (2, 1), "{what}: {skipped:?}");
            assert_eq!(skipped[0].info, infos[2], "{what}");
            assert_eq!(skipped[0].why.kind(), kind, "{what}: {}", skipped[0]);
            for needle in ["step 3 at x"].iter().chain(needles) {
                assert!(skipped[0].to_string().contains(needle), "{what}: {}", skipped[0]);
            }
        }
        assert_eq!(f.keys(), before, "{what}: a damaged checkpoint is never removed");
        f.checkpoints.store().delete_prefix(&f.base).unwrap();
    }
}

fn where_none_is_whole_there_is_an_error(f: Fixture) {
    save_three(&f);
    f.delete("shards/ckpt-1-x/rank-0.bin");
    f.put("shards/ckpt-2-x/rank-1.bin", b"cut");
    f.delete(SHARD);
    let assert_none = |kind: ErrorKind| {
        for outcome in found(&f) {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            let named = ["none of 3", "ckpt-1-x/rank-0.bin", "ckpt-2-x/rank-1.bin", "step 3 at x"];
            for needle in named {
                assert!(error.to_string().contains(needle), "{needle} is not in: {error}");
            }
        }
    };
    assert_none(ErrorKind::Incomplete);
    f.put("manifests/ckpt-3-x.json", b"{}");
    assert_none(ErrorKind::Corrupt);
}

fn a_base_without_checkpoints_has_none(f: Fixture) {
    let assert_none = || found(&f).into_iter().for_each(|o| assert!(o.unwrap().is_none()));
    assert_none();
    // A hint at what is gone makes none.
    let info = f.save_at(3, "x", &[b"data"]);
    f.delete(&info.manifest_key);
    assert!(f.exists("latest.json"));
    assert_none();
}

fn what_a_later_version_wrote_is_no_damage(f: Fixture) {
    let infos = save_three(&f);
    let good = f.get(&infos[2].manifest_key);
    for (field, value) in [("format_version", json!(2)), ("checksum", json!("sha256:00"))] {
        let text = as_ancestor(&good, |v| match field {
            "checksum" => v["shards"][1][field] = value.clone(),
            _ => v[field] = value.clone(),
        });
        f.put(&infos[2].manifest_key, &text);
        for outcome in found(&f) {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unsupported, "{field}");
        }
    }
    let blind = f.checkpoints.reader().without_verification();
    assert_eq!(blind.choose_good_step().unwrap().unwrap().info.step, 3);
    // Blind to bytes, not to sizes.
    f.put(SHARD, b"cut");
    assert_eq!(blind.choose_good_step().unwrap().unwrap().info.step, 2);
}

fn all_ranks_load_what_one_chose(f: Fixture) {
    save_three(&f);
    f.flip(SHARD, 3 * f.block());
    let choice = f.checkpoints.reader().choose_good_step().unwrap().unwrap();
    assert_eq!((choice.info.step, choice.skipped[0].info.step), (2, 3));
    // A newer one that appears meanwhile does not move a rank away from the choice.
    f.save_at(4, "x", &[b"0", b"1"]);
    let load = |rank: u32| {
        let reader = f.checkpoints.reader();
        let manifest = reader.load_manifest(&choice.info.manifest_key)?;
        let mut memory = vec![0; manifest.shard(rank)?.raw_bytes() as usize];
        reader.read_shard_into(&manifest, rank, &mut memory).map(|_| memory)
    };
    for rank in 0..2 {
        assert!(load(rank).unwrap() == shard(&f, 2, rank as usize), "rank {rank}");
    }
    // Damage after the choice is that rank's error, and nobody else's.
    let key = "shards/ckpt-2-x/rank-1.bin";
    f.flip(key, 0);
    assert!(load(0).unwrap() == shard(&f, 2, 0));
    assert_eq!(load(1).unwrap_err().kind(), ErrorKind::ChecksumMismatch);
    f.delete(key);
    assert_eq!(load(1).unwrap_err().kind(), ErrorKind::Incomplete);
    f.delete(&choice.info.manifest_key);
    assert_eq!(load(0).unwrap_err().kind(), ErrorKind::NotFound);
}

fn the_errors_of_the_caller_end_the_walk(f: Fixture) {
    save_three(&f);
    let reader = f.checkpoints.reader();
    let ends = |kind: ErrorKind, load: &dyn Fn(&syncline::checkpoint::Manifest) -> Result<()>| {
        let mut tried = Vec::new();
        let outcome = reader.newest_good(|manifest| {
            tried.push(manifest.global_step);
            load(manifest)
        });
        assert_eq!((outcome.unwrap_err().kind(), tried), (kind, vec![3]));
    };
    ends(ErrorKind::InvalidInput, &|m| reader.read_shard_into(m, 0, &mut [0; 3]).map(drop));
    ends(ErrorKind::NotFound, &|m| reader.read_shard_by_rank(m, 2).map(drop));
    // What is not the library's error at all goes out through the value.
    let good = reader.newest_good(|manifest| Ok(Err::<(), u64>(manifest.global_step)));
    assert_eq!(good.unwrap().unwrap().loaded, Err(3));
}

fn a_checksum_of_the_caller_is_compared(f: Fixture) {
    save_three(&f);
    let (reader, manifest) = (f.checkpoints.reader(), f.latest());
    let load = |expected: &str| reader.load_checkpoint_with_validation(&manifest, 1, expected);
    let data = shard(&f, 3, 1);
    for algorithm in [Algorithm::Crc32c, Algorithm::Crc32, Algorithm::Crc64Nvme] {
        assert!(load(&algorithm.checksum(&data).to_string()).unwrap() == data);
        let other = algorithm.checksum(b"other bytes");
        let error = load(&other.to_string()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
        let (found, range) = (algorithm.checksum(&data).to_string(), format!("0..{}", data.len()));
        for needle in [&found, &other.to_string(), &range, "rank-1.bin"] {
            assert!(error.to_string().contains(needle), "{needle} is not in: {error}");
        }
    }
    assert_eq!(load("md5:00").unwrap_err().kind(), ErrorKind::InvalidInput);
    // The manifest still has its say: these bytes are what the caller expects, and not what was saved.
    let mut others = data.clone();
    others[f.block()] ^= 1;
    f.put(SHARD, &others);
    let error = load(&Algorithm::Crc32c.checksum(&others).to_string()).unwrap_err();
    assert_eq!((error.kind(), error.part()), (ErrorKind::ChecksumMismatch, Some(1)), "{error}");
}

fn a_copy_is_verified_before_it_counts(f: Fixture) {
    save_three(&f);
    let (reader, manifest) = (f.checkpoints.reader(), f.latest());
    let data = shard(&f, 3, 1);
    let verify = |bytes: &[u8], algorithm: Option<Algorithm>| -> Result<(), Error> {
        let options = syncline::WriteOptions::default().checksum(algorithm);
        let mut copy =
            f.checkpoints.store().get_writer_with(&f.checkpoints.uri("copy"), options).unwrap();
        copy.write_chunk(bytes).unwrap();
        let outcome = reader.verify_copy(&manifest, 1, &*copy);
        copy.cancel().unwrap();
        outcome
    };
    let crc32c = Some(Algorithm::Crc32c);
    verify(&data, crc32c).unwrap();
    let mut others = data.clone();
    others[2 * f.block() + 1] ^= 1;
    let error = verify(&others, crc32c).unwrap_err();
    assert_eq!((error.kind(), error.part()), (ErrorKind::ChecksumMismatch, Some(2)));
    let range = format!("bytes {}..{} are damaged", 2 * f.block(), 3 * f.block());
    assert!(error.to_string().contains(&range), "{error}");
    assert!(error.uri().unwrap().ends_with(SHARD));
    assert_eq!(verify(&data[1..], crc32c).unwrap_err().kind(), ErrorKind::Incomplete);
    // Nothing is taken for verified that was not compared.
    for incomparable in [None, Some(Algorithm::Crc32), Some(Algorithm::Crc64Nvme)] {
        let error = verify(&data, incomparable).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    let sum: Checksum = manifest.shards[1].checksum.as_ref().unwrap().parse().unwrap();
    assert_eq!(sum, Algorithm::Crc32c.checksum(&data));
}
