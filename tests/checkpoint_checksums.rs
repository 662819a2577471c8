//! Checksums from the writer to the manifest to the reader.

use std::path::Path;

use syncline::checkpoint::{CheckpointStore, Manifest};
use syncline::{Algorithm, Compression, ErrorKind, Filter, Timestamp};

fn in_a_directory(test: impl Fn(CheckpointStore, &Path)) {
    let directory = tempfile::tempdir().unwrap();
    let base = format!("file://{}", directory.path().display());
    test(CheckpointStore::open(&base).unwrap(), directory.path());
}

#[test]
fn test_checkpoint_writer_with_checksums() {
    in_a_directory(|checkpoints, directory| {
        let layout = checkpoints.layout(100, Timestamp::now());
        let checkpoint_writer = checkpoints.writer(1, 0).unwrap();
        let data = b"the state of a simulation";

        let (mut shard_writer, key) = checkpoint_writer.get_shard_writer(&layout).unwrap();
        shard_writer.write_chunk(&data[..10]).unwrap();
        shard_writer.write_chunk(&data[10..]).unwrap();
        let shard_meta = checkpoint_writer
            .finalize_writer_to_shard_meta(&layout, key.clone(), shard_writer)
            .unwrap();

        let expected = Algorithm::Crc32c.checksum(data).to_string();
        assert_eq!(shard_meta.checksum, Some(expected.clone()));
        assert_eq!(shard_meta.stored_checksum, Some(expected.clone()));
        assert_eq!((shard_meta.rank, &shard_meta.key, shard_meta.size), (0, &key, 25));
        assert_eq!(std::fs::read(directory.join(&key)).unwrap(), data);

        let told = checkpoint_writer
            .finalize_shard_meta_with_checksum(&layout, key.clone(), Some(expected.clone()))
            .unwrap();
        assert_eq!((told.checksum, told.size), (Some(expected), 25));
        for other in ["crc32:cbf43926", "crc32c:", "nothing"] {
            let error = checkpoint_writer
                .finalize_shard_meta_with_checksum(&layout, key.clone(), Some(other.to_owned()))
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    });
}

/// A caller who finalizes the writer of a compressed shard knows the checksum of what was written.
#[test]
fn compressed_shards_are_told_with_a_checksum() {
    in_a_directory(|checkpoints, directory| {
        let data = b"the state of a simulation ".repeat(500);
        let expected = Algorithm::Crc32c.checksum(&data).to_string();
        for (step, filter) in [(1, Filter::None), (2, Filter::Shuffle8)] {
            let zstd = Compression::zstd(3).unwrap().with_filter(filter).unwrap();
            let checkpoints = checkpoints.clone().with_compression(zstd);
            let layout = checkpoints.layout(step, Timestamp::now());
            let checkpoint_writer = checkpoints.writer(1, 0).unwrap();
            let tell = |key: &str, checksum: &str| {
                let checksum = Some(checksum.to_owned());
                checkpoint_writer.finalize_shard_meta_with_checksum(
                    &layout,
                    key.to_owned(),
                    checksum,
                )
            };
            let (mut shard_writer, key) = checkpoint_writer.get_shard_writer(&layout).unwrap();
            assert_eq!(tell(&key, &expected).unwrap_err().kind(), ErrorKind::Incomplete);
            shard_writer.write_chunk(&data).unwrap();
            let object = shard_writer.finalize().unwrap();

            let told = tell(&key, &expected).unwrap();
            assert!(object.size_bytes < data.len() as u64);
            assert_eq!((told.size, told.raw_size), (object.size_bytes, Some(data.len() as u64)));
            assert_eq!((&told.checksum, &told.stored_checksum), (&Some(expected.clone()), &None));
            assert_eq!(told.compression.as_deref(), Some("zstd"));
            checkpoint_writer.finalize_checkpoint(&layout, "generic", 0, vec![told], None).unwrap();
            assert_eq!(checkpoints.load_latest().unwrap().unwrap(), data);
            let info = checkpoints.reader().list_checkpoints().unwrap().pop().unwrap();
            assert!(checkpoints.verify(&info, &|_| ()).unwrap().is_good());

            // A checksum of other bytes is found out, and so is an object that is not compressed.
            let text = std::fs::read(directory.join(&info.manifest_key)).unwrap();
            let mut manifest = Manifest::from_json(&text).unwrap();
            manifest.shards[0].checksum = Some("crc32c:12345678".to_owned());
            let read = checkpoints.reader().read_shard_by_rank(&manifest, 0);
            assert_eq!(read.unwrap_err().kind(), ErrorKind::ChecksumMismatch);
            std::fs::write(directory.join(&key), &data).unwrap();
            assert_eq!(tell(&key, &expected).unwrap_err().kind(), ErrorKind::Corrupt);
            std::fs::remove_file(directory.join(&info.manifest_key)).unwrap();
        }
    });
}

#[test]
fn test_checkpoint_manifest_with_checksums() {
    in_a_directory(|checkpoints, directory| {
        let layout = checkpoints.layout(7, Timestamp::now());
        let data: Vec<Vec<u8>> =
            (0..4u8).map(|rank| vec![rank; 1000 + usize::from(rank)]).collect();
        let put = |rank: u32| {
            let writer = checkpoints.writer(4, rank).unwrap();
            writer.put_shard(&layout, &data[rank as usize]).unwrap()
        };
        let shards = (0..4).map(put).collect();
        let finalizer = checkpoints.writer(4, 0).unwrap();
        let info = finalizer.finalize_checkpoint(&layout, "generic", 3, shards, None).unwrap();

        let text = std::fs::read(directory.join(&info.manifest_key)).unwrap();
        let manifest = Manifest::from_json(&text).unwrap();
        assert_eq!((manifest.global_step, manifest.epoch, manifest.world_size), (7, 3, 4));
        for (shard, data) in manifest.shards.iter().zip(&data) {
            let expected = Algorithm::Crc32c.checksum(data);
            assert_eq!(shard.checksum, Some(expected.to_string()));
            assert_eq!(shard.block_checksums().unwrap().unwrap().combined(), expected);
        }
    });
}

#[test]
fn test_checkpoint_integrity_validation() {
    in_a_directory(|checkpoints, directory| {
        checkpoints.save(1, 0, "generic", b"undamaged", None).unwrap();
        assert_eq!(checkpoints.load_latest().unwrap().unwrap(), "undamaged");

        let reader = checkpoints.reader();
        let manifest = reader.latest().unwrap().unwrap();
        let shard = directory.join(&manifest.shards[0].key);
        std::fs::write(&shard, b"UNdamaged").unwrap();
        let error = checkpoints.load_latest().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
        assert!(error.uri().unwrap().ends_with("rank-0.bin"), "{error}");
        let unverified = reader.without_verification().read_shard_by_rank(&manifest, 0);
        assert_eq!(unverified.unwrap(), "UNdamaged");

        std::fs::write(&shard, b"undamaged").unwrap();
        assert_eq!(checkpoints.load_latest().unwrap().unwrap(), "undamaged");
    });
}
