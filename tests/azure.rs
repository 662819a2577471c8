//! What is Azure's own, against a real server.

mod support;

use support::servers::{az, az_base};
use support::{Place, noise, small};
use syncline::{AzureIntegrity, ErrorKind, Proof, WriteOptions, open_store};

#[test]
fn the_report_says_what_the_server_has_proven() {
    for (integrity, small_object, large_object) in [
        // Azurite repeats the CRC-64 of blocks, and the MD5 of small blobs, and no other.
        (AzureIntegrity::Auto, Proof::ChecksumSent, Proof::ChecksumVerified),
        (AzureIntegrity::Crc64, Proof::ChecksumSent, Proof::ChecksumVerified),
        (AzureIntegrity::Md5, Proof::ChecksumVerified, Proof::ChecksumSent),
        (AzureIntegrity::None, Proof::None, Proof::None),
    ] {
        let config = small().azure(az().integrity(integrity)).build().unwrap();
        let base = az_base();
        let store = open_store(&base, &config).unwrap();
        for (bytes, proof) in [(1000, small_object), (200_000, large_object)] {
            let data = noise(bytes, 1);
            let uri = format!("{base}/object");
            let report = store.put(&uri, &data).unwrap().write.unwrap();
            assert_eq!(report.proof, Some(proof), "{integrity:?} {bytes}");
            assert_eq!(store.get(&uri).unwrap(), data);
        }
        store.delete_prefix(&base).unwrap();
    }
}

#[test]
fn the_object_keeps_the_writers_checksum() {
    let place = Place::new("az", small());
    for bytes in [0, 10, 300_000] {
        let uri = place.uri("object");
        let put = place.store.put(&uri, &noise(bytes, 2)).unwrap();
        assert_eq!(place.store.stat(&uri).unwrap().checksum, put.checksum, "{bytes}");
        assert!(put.checksum.is_some() && put.etag == place.store.stat(&uri).unwrap().etag);
    }
}

#[test]
fn names_are_kept_as_they_are() {
    let place = Place::new("az", small());
    let names = ["plain", "with space", "a+b%20c&d=e?f#g", "\u{e9}\u{4e2d}", "a//b", "<x>\"'"];
    for name in names {
        place.store.put(&place.uri(name), name.as_bytes()).unwrap();
        assert_eq!(place.store.get(&place.uri(name)).unwrap(), name.as_bytes(), "{name}");
    }
    let mut expected = names.to_vec();
    expected.sort_unstable();
    assert_eq!(place.names(), expected);
    for name in ["ends.", "back\\slash"] {
        let error = place.store.put(&place.uri(name), b"").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

#[test]
fn a_listing_goes_on_from_page_to_page() {
    let place = Place::new("az", small());
    let names: Vec<String> = (0..1010).map(|n| format!("many/{n:04}")).collect();
    std::thread::scope(|scope| {
        for names in names.chunks(256) {
            let place = &place;
            scope.spawn(move || {
                names.iter().for_each(|name| drop(place.store.put(&place.uri(name), b"").unwrap()));
            });
        }
    });
    assert_eq!(place.names_below(&place.uri("many")), names);
    assert_eq!(place.store.delete_prefix(&place.uri("many")).unwrap(), 1010);
}

#[test]
fn a_container_that_is_not_there_is_named() {
    let place = Place::new("az", small());
    let missing = place.base.replace("/syncline/", "/no-such-container/");
    let store = open_store(&missing, place.store.config()).unwrap();
    let uri = format!("{missing}/object");
    let large = noise(300_000, 3);
    let errors = [
        store.put(&uri, b"x").unwrap_err(),
        store.put(&uri, &large).unwrap_err(),
        store.put_with(&uri, &large, WriteOptions::default().create_only()).unwrap_err(),
        store.get(&uri).unwrap_err(),
        store.stat(&uri).unwrap_err(),
        store.delete(&uri).unwrap_err(),
        store.list(&missing).unwrap().next().unwrap().unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::BucketNotFound, "{error}");
        assert!(error.to_string().contains("create the container"), "{error}");
    }
}

/// Writers that replace each other: the last commit wins, and whose blocks it discarded is told.
#[test]
fn a_race_without_a_condition_leaves_one_object_whole() {
    let place = Place::new("az", small());
    let uri = place.uri("object");
    let data: Vec<Vec<u8>> = (0..6).map(|n| noise(200_000, 20 + n)).collect();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let put = |data: &Vec<u8>| {
            let (place, uri, data) = (&place, &uri, data.clone());
            scope.spawn(move || place.store.put(uri, &data))
        };
        let threads: Vec<_> = data.iter().map(put).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(outcomes.iter().any(Result::is_ok), "{outcomes:?}");
    for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.to_string().contains("write the object again"), "{error}");
    }
    let found = place.store.get(&uri).unwrap();
    let winner = data.iter().position(|data| found == *data).expect("one of them, whole");
    assert!(outcomes[winner].is_ok());
}
