//! The project's first promises about checksums, under the names they were first given.

mod support;

use support::{PART, Place, noise, small};
use syncline::{
    Algorithm, BufferedObjectWriter, Config, DirectIOWriter, FileSystemWriter, WriteOptions,
};

const PLACES: [&str; 5] = ["mem", "file", "direct", "direct_tmpfs", "s3"];

fn checksum_through_writer(place: &Place, pieces: &[&[u8]]) -> String {
    let uri = place.uri("object");
    let mut writer = place.store.get_writer(&uri).unwrap();
    for piece in pieces {
        writer.write_chunk(piece).unwrap();
    }
    let checksum = writer.checksum().unwrap();
    assert_eq!(writer.finalize().unwrap().checksum.as_ref(), Some(&checksum));
    // The stored bytes have it too, not only the writer's memory of them.
    let stored = place.store.block_checksums(&uri, 4096).unwrap().combined();
    assert_eq!(stored.to_string(), checksum);
    checksum
}

#[test]
fn test_checksum_computation_across_backends() {
    for scheme in PLACES {
        let place = Place::new(scheme, small());
        assert_eq!(checksum_through_writer(&place, &[b"123456789"]), "crc32c:e3069283", "{scheme}");
    }
    let directory = tempfile::tempdir().unwrap();
    let (config, options) = (Config::default(), WriteOptions::default());
    let path = directory.path().join("file");
    let mut file = FileSystemWriter::create(&path, &config, options.clone()).unwrap();
    let mut direct =
        DirectIOWriter::create(directory.path().join("direct"), &config, options.clone()).unwrap();
    let place = Place::new("mem", small());
    let mut buffered =
        BufferedObjectWriter::new(place.store.clone(), &place.uri("buffered"), options).unwrap();
    file.write_chunk(b"123456789").unwrap();
    direct.write_chunk(b"123456789").unwrap();
    buffered.write_chunk(b"123456789").unwrap();
    let sums = [file.checksum(), direct.checksum(), buffered.checksum()];
    assert!(sums.iter().all(|sum| sum.as_deref() == Some("crc32c:e3069283")), "{sums:?}");
    file.finalize().unwrap();
    direct.cancel().unwrap();
    buffered.finalize().unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"123456789");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "cancelled leaves nothing");
}

#[test]
fn test_checksum_consistency() {
    let data = noise(3 * PART + 17, 1);
    let sums: Vec<String> = PLACES
        .iter()
        .flat_map(|scheme| {
            let place = Place::new(scheme, small());
            [checksum_through_writer(&place, &[&data]), checksum_through_writer(&place, &[&data])]
        })
        .collect();
    assert!(sums.windows(2).all(|pair| pair[0] == pair[1]), "{sums:?}");
}

#[test]
fn test_incremental_checksum_updates() {
    let data = noise(2 * PART + 100, 2);
    let place = Place::new("mem", small());
    let mut writer = place.store.get_writer(&place.uri("object")).unwrap();
    assert_eq!(writer.checksum().as_deref(), Some("crc32c:00000000"));
    let mut written = 0;
    for piece in data.chunks(7_001) {
        writer.write_chunk(piece).unwrap();
        written += piece.len();
        let expected = Algorithm::Crc32c.checksum(&data[..written]).to_string();
        assert_eq!(writer.checksum(), Some(expected), "after {written} bytes");
    }
    let whole = writer.checksum().unwrap();
    drop(writer);
    assert_eq!(checksum_through_writer(&place, &[&data]), whole);
}

#[test]
fn test_checksum_format() {
    for (n, scheme) in PLACES.iter().enumerate() {
        let place = Place::new(scheme, small());
        let sum = checksum_through_writer(&place, &[&noise(1000, n as u64 + 3)]);
        let hex = sum.strip_prefix("crc32c:").unwrap();
        assert_eq!(hex.len(), 8, "{sum}");
        assert!(hex.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)), "{sum}");
    }
}

#[test]
fn test_checksum_different_data() {
    let place = Place::new("file", small());
    let data = noise(PART, 4);
    let mut other = data.clone();
    other[PART / 2] ^= 1;
    let longer = [&data[..], &[0]].concat();
    let sums = [&data, &other, &longer].map(|data| checksum_through_writer(&place, &[data]));
    assert!(sums[0] != sums[1] && sums[0] != sums[2] && sums[1] != sums[2], "{sums:?}");
}
