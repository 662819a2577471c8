//! What `put_many` and `get_many` promise over every backend: the same as single calls, object by object.

mod support;

use support::{PART, Place, noise, small};
use syncline::{Algorithm, Bytes, ErrorKind, ObjectMeta, Result, WriteOptions};

over_every_backend! {
    many_objects_are_what_single_ones_are,
    an_empty_batch_is_nothing,
    the_last_of_a_name_counts,
    create_only_holds_for_each_object,
    one_that_fails_takes_no_other_with_it,
    windows_follow_each_other,
    what_is_compressed_goes_one_by_one,
    many_are_read_and_compared,
}

type Object<'a> = (&'a str, &'a [u8]);

fn objects<'a>(uris: &'a [String], data: &'a [Vec<u8>]) -> Vec<Object<'a>> {
    uris.iter().map(String::as_str).zip(data.iter().map(Vec::as_slice)).collect()
}

/// What does not depend on when and where an object was written, and in which pieces.
fn lasting(meta: &ObjectMeta) -> impl PartialEq + std::fmt::Debug + use<> {
    let write = meta.write.unwrap();
    let told = (write.mode, write.bytes, write.stored_bytes, write.parts, write.proof);
    (meta.size_bytes, meta.checksum.clone(), told, write.create_only_held)
}

/// Sizes at every boundary: empty, one byte, around the alignment, a part, and beyond a part.
fn sizes(place: &Place) -> Vec<usize> {
    let part = place.part();
    vec![0, 1, 511, 512, 4096, 5000, part - 1, part, part + 1, 2 * part + 77]
}

fn many_objects_are_what_single_ones_are(scheme: &str) {
    let place = Place::new(scheme, small());
    let data: Vec<Vec<u8>> =
        sizes(&place).into_iter().zip(1..).map(|(bytes, seed)| noise(bytes, seed)).collect();
    let names = |folder: &str| -> Vec<String> {
        (0..data.len()).map(|n| place.uri(&format!("{folder}/{}/object-{n}", n % 3))).collect()
    };
    for options in [
        WriteOptions::default(),
        WriteOptions::default().create_only(),
        WriteOptions::default().checksum(Some(Algorithm::Crc32)),
        WriteOptions::default().checksum(None),
    ] {
        let (many, single) = (names("many"), names("single"));
        let written = place.store.put_many(&objects(&many, &data), options.clone());
        for (n, written) in written.into_iter().enumerate() {
            let written = written.unwrap();
            let alone = place.store.put_with(&single[n], &data[n], options.clone()).unwrap();
            assert_eq!(written.uri, many[n]);
            assert_eq!(lasting(&written), lasting(&alone), "{n}");
            assert_eq!(place.store.get(&many[n]).unwrap(), data[n]);
        }
        assert_eq!(place.names().len(), 2 * data.len());
        place.store.delete_prefix(&place.base).unwrap();
        place.assert_holds(&[]);
    }
}

fn an_empty_batch_is_nothing(scheme: &str) {
    let place = Place::new(scheme, small());
    assert!(place.store.put_many(&[], WriteOptions::default()).is_empty());
    assert!(place.store.get_many(&[]).is_empty());
    place.assert_holds(&[]);
}

fn the_last_of_a_name_counts(scheme: &str) {
    let place = Place::new(scheme, small());
    let uris: Vec<String> = (0..12).map(|n| place.uri(&format!("{}", n % 3))).collect();
    // A large one in between keeps its turn.
    let data: Vec<Vec<u8>> =
        (0..12).map(|n| noise(if n == 7 { 2 * place.part() } else { 100 + n }, 5)).collect();
    let written = place.store.put_many(&objects(&uris, &data), WriteOptions::default());
    for (written, data) in written.into_iter().zip(&data) {
        assert_eq!(written.unwrap().size_bytes, data.len() as u64);
    }
    for n in 9..12 {
        assert_eq!(place.store.get(&uris[n]).unwrap(), data[n]);
    }
    place.assert_holds(&["0", "1", "2"]);
    let written = place.store.put_many(
        &[(&place.uri("x"), b"first"), (&place.uri("x"), b"second")],
        WriteOptions::default().create_only(),
    );
    written[0].as_ref().unwrap();
    assert_eq!(written[1].as_ref().unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(place.store.get(&place.uri("x")).unwrap(), "first");
}

fn create_only_holds_for_each_object(scheme: &str) {
    let place = Place::new(scheme, small());
    for n in [2, 5] {
        place.store.put(&place.uri(&format!("{n}")), b"before").unwrap();
    }
    let uris: Vec<String> = (0..8).map(|n| place.uri(&format!("{n}"))).collect();
    let data: Vec<Vec<u8>> = (0..8).map(|n| noise(1000 * n, 3)).collect();
    let options = WriteOptions::default().create_only();
    let written = place.store.put_many(&objects(&uris, &data), options);
    for (n, written) in written.into_iter().enumerate() {
        let found = place.store.get(&uris[n]).unwrap();
        if [2, 5].contains(&n) {
            let error = written.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
            assert!(error.uri().unwrap().ends_with(&format!("{n}")), "{error}");
            assert_eq!(found, "before");
        } else {
            written.unwrap();
            assert_eq!(found, data[n]);
        }
    }
    place.assert_holds(&["0", "1", "2", "3", "4", "5", "6", "7"]);
}

fn one_that_fails_takes_no_other_with_it(scheme: &str) {
    let place = Place::new(scheme, small());
    let escaping = place.uri("../escape");
    let elsewhere = "mem://another/object".to_owned();
    let uris = [place.uri("a"), escaping, place.uri("b"), elsewhere, place.uri("c")];
    let data: Vec<Vec<u8>> = (0..5).map(|n| noise(100, n)).collect();
    let written = place.store.put_many(&objects(&uris, &data), WriteOptions::default());
    let kinds: Vec<Option<ErrorKind>> =
        written.iter().map(|outcome| outcome.as_ref().err().map(|e| e.kind())).collect();
    let wrong = Some(ErrorKind::InvalidInput);
    assert_eq!(kinds, [None, wrong, None, wrong, None]);
    place.assert_holds(&["a", "b", "c"]);
}

fn windows_follow_each_other(scheme: &str) {
    let place = Place::new(scheme, small());
    // More than the descriptors of one window, where the medium has such.
    let count = if matches!(scheme, "s3" | "az") { 60 } else { 1100 };
    let uris: Vec<String> = (0..count).map(|n| place.uri(&format!("{}/{n}", n % 4))).collect();
    let data: Vec<Vec<u8>> = (0..count).map(|n| noise(n % 700, n as u64)).collect();
    for written in place.store.put_many(&objects(&uris, &data), WriteOptions::default()) {
        written.unwrap();
    }
    let wanted: Vec<(&str, Option<&str>)> = uris.iter().map(|uri| (uri.as_str(), None)).collect();
    for (read, data) in place.store.get_many(&wanted).into_iter().zip(&data) {
        assert_eq!(read.unwrap(), data[..]);
    }
    assert_eq!(place.names().len(), count);
}

fn what_is_compressed_goes_one_by_one(scheme: &str) {
    let place = Place::new(scheme, small());
    let uris = [place.uri("a"), place.uri("b")];
    let data = [vec![7; 100], vec![8; 3 * PART]];
    let options = WriteOptions::default().compression("zstd".parse().unwrap());
    for written in place.store.put_many(&objects(&uris, &data), options) {
        assert!(written.unwrap().write.unwrap().frames > 0);
    }
    place.assert_holds(&["a", "b"]);
}

fn many_are_read_and_compared(scheme: &str) {
    let place = Place::new(scheme, small());
    let data: Vec<Vec<u8>> =
        sizes(&place).into_iter().zip(1..).map(|(bytes, seed)| noise(bytes, seed)).collect();
    let uris: Vec<String> = (0..data.len()).map(|n| place.uri(&format!("{n}"))).collect();
    for written in place.store.put_many(&objects(&uris, &data), WriteOptions::default()) {
        written.unwrap();
    }
    let sums: Vec<String> =
        data.iter().map(|data| Algorithm::Crc32c.checksum(data).to_string()).collect();
    let wrong = "crc32c:00000001";
    let absent = place.uri("absent");
    let mut wanted: Vec<(&str, Option<&str>)> =
        uris.iter().zip(&sums).map(|(uri, sum)| (uri.as_str(), Some(sum.as_str()))).collect();
    wanted.extend(uris.iter().map(|uri| (uri.as_str(), Some(wrong))));
    wanted.extend([(absent.as_str(), None), (uris[1].as_str(), Some("not a sum"))]);
    wanted.push((uris[1].as_str(), None));
    let mut read = place.store.get_many(&wanted).into_iter();
    let mut next = || -> Result<Bytes> { read.next().unwrap() };
    for data in &data {
        assert_eq!(next().unwrap(), data[..]);
    }
    for data in &data {
        let error = next().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ChecksumMismatch, "{} bytes: {error}", data.len());
    }
    let error = next().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("absent"), "{error}");
    assert_eq!(next().unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(next().unwrap(), data[1][..]);
}
