//! Verifying without reading: what each medium can tell.

use syncline::checkpoint::{ShardState, Verdict};

use crate::support::{Fixture, Medium, on_all_media};

on_all_media! {
    a_sound_checkpoint_is_called_what_is_known_of_it
    what_was_replaced_cut_or_removed_is_found
    a_bad_manifest_is_damage_without_a_shard
}

fn a_sound_checkpoint_is_called_what_is_known_of_it(f: Fixture) {
    let info = f.save_at(1, "x", &[b"zero", b"", b"two"]);
    f.put("shards/ckpt-1-x/rank-9.bin", b"not of this checkpoint");
    let report = f.checkpoints.verify_quick(&info).unwrap();
    assert_eq!((report.shards.len(), report.read_bytes, report.notes.len()), (3, 0, 1));
    for shard in &report.shards {
        let (verdict, fits) = match f.medium {
            Medium::Az => (Verdict::Good, shard.state == ShardState::SameChecksum),
            // Whether it keeps checksums is the server's affair.
            Medium::S3 => (
                Verdict::Good,
                matches!(shard.state, ShardState::SameChecksum | ShardState::SameTag),
            ),
            _ => (Verdict::Unverified, shard.state == ShardState::SizeOnly),
        };
        assert!(fits, "{report:?}");
        assert_eq!(report.verdict, verdict);
    }
    assert!(f.checkpoints.verify(&info, &|_| ()).unwrap().is_good());
}

fn what_was_replaced_cut_or_removed_is_found(f: Fixture) {
    let info = f.save_at(1, "x", &[b"zero", b"one", b"two", b"three"]);
    f.flip("shards/ckpt-1-x/rank-0.bin", 0);
    f.put("shards/ckpt-1-x/rank-1.bin", b"longer");
    f.delete("shards/ckpt-1-x/rank-2.bin");
    let report = f.checkpoints.verify_quick(&info).unwrap();
    assert_eq!(report.verdict, Verdict::Damaged);
    let states: Vec<_> = report.shards.into_iter().map(|shard| shard.state).collect();
    // Only a server tells one object of a size from another.
    match f.medium {
        Medium::S3 | Medium::Az => {
            assert!(matches!(states[0], ShardState::Changed { .. }), "{states:?}");
            assert!(states[3].is_good(), "{states:?}");
        }
        _ => assert!(states[0] == ShardState::SizeOnly && states[3] == states[0], "{states:?}"),
    }
    assert_eq!(states[1], ShardState::WrongSize { found_bytes: 6 });
    assert_eq!(states[2], ShardState::Missing);
}

fn a_bad_manifest_is_damage_without_a_shard(f: Fixture) {
    let info = f.save_at(1, "x", &[b"zero"]);
    f.flip(&info.manifest_key, 30);
    let report = f.checkpoints.verify_quick(&info).unwrap();
    assert_eq!((report.verdict, report.shards.len()), (Verdict::Damaged, 0));
    assert!(report.manifest_error.is_some());
}
