//! Listings and removals, and the names of objects.

use std::collections::BTreeSet;

use syncline::{ErrorKind, ObjectMeta, Result};

use crate::rig::{KEY, Rig, URI, assert_says, in_time, open};
use crate::s3_model::{Fault, Operation, error, key_of};
use crate::scripted::Answer;

use Operation::{Delete, DeleteMany, List};

const BUCKET: &str = "s3://bucket";

fn names(rig: &Rig, uri: &str) -> Vec<String> {
    let listed = rig.store.list(uri).unwrap();
    listed.map(|meta| meta.unwrap().uri["s3://bucket/".len()..].to_owned()).collect()
}

/// Keys that are easily mistaken; in the order of their bytes.
fn odd_keys() -> Vec<String> {
    let mut keys: Vec<String> = [
        "a b",
        "a+b",
        "a%20b",
        "a%b",
        "a%2Fb",
        "a&b=c?d#e",
        "a;b:c@d,e",
        "a'b\"c",
        "a\\b",
        "a*b",
        "a~b",
        "a_b-c.d",
        "a<b>",
        "//",
        "/leading",
        "a//b",
        "a///b",
        ".hidden",
        "..x/y",
        "x/.y",
        "x/...",
        "%",
        "%%41",
        "+",
        " ",
        " lead",
        "trail ",
        "caf\u{e9}",
        "cafe\u{301}",
        "\u{65e5}\u{672c}\u{8a9e}/\u{1f980}",
        "\u{200b}",
        "a=b",
        "a|b",
        "{a}[b]^`",
        "uploads",
        "a?uploadId=1",
        "a?uploads",
        "UPPER/lower",
    ]
    .map(str::to_owned)
    .into();
    keys.push(format!("{}/{}", "long".repeat(200), "x".repeat(223)));
    keys.push("\u{e9}".repeat(512));
    keys.retain(|key| !key.ends_with('/'));
    keys.sort();
    keys
}

#[test]
fn odd_names_are_kept_as_they_are() {
    let rig = Rig::new();
    for key in odd_keys() {
        let uri = format!("{BUCKET}/{key}");
        let data = key.as_bytes();
        rig.store.put(&uri, data).unwrap_or_else(|e| panic!("{key:?}: {e}"));
        let object = rig.object(&key).unwrap_or_else(|| panic!("{key:?} is {:?}", rig.keys()));
        assert!(**object.bytes == *data);
        assert_eq!(rig.store.get(&uri).unwrap(), data);
        assert_eq!(rig.store.stat(&uri).unwrap().uri, uri);
    }
    assert_eq!(names(&rig, BUCKET), odd_keys());
    for (index, key) in odd_keys().into_iter().enumerate() {
        let uri = format!("{BUCKET}/{key}");
        let within = |k: &&String| **k == key || k.starts_with(&format!("{key}/"));
        let expected: Vec<String> = rig.keys().iter().filter(within).cloned().collect();
        let found: BTreeSet<String> = names(&rig, &uri).into_iter().collect();
        assert_eq!(found, expected.into_iter().collect(), "{key:?}");
        if index % 2 == 0 {
            rig.store.delete(&uri).unwrap();
            assert!(!rig.store.exists(&uri).unwrap());
        }
    }
    assert!(rig.store.delete_prefix(BUCKET).unwrap() > 0);
    rig.assert_nothing();
}

#[test]
fn names_that_cannot_be_are_refused() {
    let rig = Rig::new();
    let long = "x".repeat(1025);
    for key in
        [&*long, "a/../b", "./a", "a/.", "a\r\nb", "a\nb", "a\0b", "a\u{7f}b", "a\u{85}b", "", "a/"]
    {
        let uri = format!("{BUCKET}/{key}");
        let refused = rig.store.put(&uri, b"").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{key:?}: {refused}");
        if key != long {
            for refused in [
                rig.store.get(&uri).err(),
                rig.store.stat(&uri).err(),
                rig.store.delete(&uri).err(),
            ] {
                assert_eq!(refused.unwrap().kind(), ErrorKind::InvalidInput, "{key:?}");
            }
        }
    }
    assert_eq!(rig.server().requests().len(), 0);
}

#[test]
fn pages_of_any_size_make_one_listing() {
    let rig = Rig::new();
    let mut keys: Vec<String> = (0..15).map(|n| format!("{KEY}/{n:02} +%")).collect();
    keys.push(KEY.to_owned());
    // Between the two in the order of names, and neither of them.
    ["dir/object-1", "dir/object.x", "dir/objectx", "dir/other", "other"]
        .into_iter()
        .for_each(|key| rig.put(key, b""));
    keys.iter().for_each(|key| rig.put(key, b"1"));
    keys.sort();
    for entries in [1, 2, 7, 1000] {
        rig.behave(|behavior| behavior.page_entries = entries);
        assert_eq!(names(&rig, URI), keys, "{entries} a page");
        assert_eq!(names(&rig, BUCKET), rig.keys());
    }
    rig.behave(|behavior| behavior.page_entries = 2);
    assert_eq!(rig.store.delete_prefix(URI).unwrap(), keys.len() as u64);
    assert_eq!(rig.keys().len(), 5);
}

/// Markers of folders are no objects; and what lies below them is.
#[test]
fn folders_are_passed_over() {
    let rig = Rig::new();
    ["dir/object/", "dir/object/sub/", "dir/object/sub/x", "dir/"]
        .into_iter()
        .for_each(|key| rig.put(key, b""));
    assert_eq!(names(&rig, URI), ["dir/object/sub/x"]);
    assert_eq!(names(&rig, BUCKET), ["dir/object/sub/x"]);
    assert!(!rig.store.exists(URI).unwrap());
    rig.behave(|behavior| behavior.page_entries = 1);
    assert_eq!(names(&rig, URI), ["dir/object/sub/x"]);
}

/// An answer that is no listing, or a listing of something else, is never an empty one.
#[test]
fn a_broken_listing_is_an_error() {
    const HEAD: &str = "<ListBucketResult><IsTruncated>false</IsTruncated>";
    let object = |key: &str| format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>");
    let documents = [
        String::new(),
        "<html>".to_owned(),
        "<html></html>".to_owned(),
        "<ListBucketResult/>".to_owned(),
        "<ListBucketResult></ListBucketResult>".to_owned(),
        HEAD.to_owned(),
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>".to_owned(),
        format!("{HEAD}<Contents><Key>dir/object/a</Key></Contents></ListBucketResult>"),
        format!("{HEAD}<Contents><Size>1</Size></Contents></ListBucketResult>"),
        format!(
            "{HEAD}<EncodingType>url</EncodingType>{}</ListBucketResult>",
            object("dir/object/%zz")
        ),
        format!(
            "<!DOCTYPE x [<!ENTITY e 'x'>]>{HEAD}{}</ListBucketResult>",
            object("dir/object/&e;")
        ),
        // The server does not look at the prefix.
        format!("{HEAD}{}</ListBucketResult>", object("elsewhere")),
        format!("{HEAD}{}</ListBucketResult>", object("dir/objects")),
    ];
    for document in documents {
        let rig = Rig::new();
        rig.put("elsewhere", b"");
        let body = document.clone();
        rig.on_request(move |_, request| {
            // The first one looks for the object of the prefix's own name.
            let own = request.param("max-keys").as_deref() == Some("1");
            let listing = crate::s3_model::operation(request) == List && !own;
            listing.then(|| Fault::Instead(Answer::new(200).body(body.clone()).into()))
        });
        let listed: Result<Vec<ObjectMeta>> = rig.store.list(URI).unwrap().collect();
        let failed = listed.expect_err(&document);
        assert_eq!(failed.kind(), ErrorKind::Unavailable, "{document}: {failed}");
        let failed = rig.store.delete_prefix(URI).expect_err(&document);
        assert_eq!(failed.kind(), ErrorKind::Unavailable, "{document}: {failed}");
        assert_eq!(rig.keys(), ["elsewhere"]);
    }
}

#[test]
fn a_page_that_leads_to_itself_ends_the_listing() {
    let rig = Rig::new();
    rig.on_request(|_, request| {
        let body = "<ListBucketResult><IsTruncated>true</IsTruncated>\
                    <NextContinuationToken>same</NextContinuationToken></ListBucketResult>";
        (crate::s3_model::operation(request) == List)
            .then(|| Fault::Instead(Answer::new(200).body(body).into()))
    });
    let listed = in_time(move || {
        let listed: Result<Vec<ObjectMeta>> = rig.store.list(URI).unwrap().collect();
        listed
    });
    assert_eq!(listed.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn a_listing_that_fails_on_its_way_ends_with_the_error() {
    let rig = Rig::new();
    rig.behave(|behavior| behavior.page_entries = 2);
    (0..6).for_each(|n| rig.put(&format!("{KEY}/{n}"), b""));
    let mut listing = rig.store.list(URI).unwrap();
    assert!(listing.next().unwrap().is_ok() && listing.next().unwrap().is_ok());
    rig.fault(List, 0, Fault::Instead(error(500, "InternalError").into()));
    assert!(listing.next().unwrap().is_ok() && listing.next().unwrap().is_ok());
    rig.on_request(|_, _| Some(Fault::Instead(error(403, "AccessDenied").into())));
    assert_eq!(listing.next().unwrap().unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert!(listing.next().is_none());
}

#[test]
fn a_missing_bucket_is_told_by_every_call() {
    let rig = Rig::new();
    let (store, uri) = (open(&rig.endpoint()), "s3://bucket/x");
    assert_eq!(store.stat(uri).unwrap_err().kind(), ErrorKind::NotFound);
    // Each with a store that has seen nothing of the bucket yet.
    let settings = crate::rig::settings().s3(crate::rig::s3(&rig.endpoint())).build().unwrap();
    let uri = "s3://absent/dir/x";
    type Try = fn(&dyn syncline::ObjectStore, &str) -> Result<()>;
    let calls: [(&str, Try); 10] = [
        ("get", |store, uri| store.get(uri).map(drop)),
        ("stat", |store, uri| store.stat(uri).map(drop)),
        ("exists", |store, uri| store.exists(uri).map(drop)),
        ("list", |store, uri| store.list(uri)?.collect::<Result<Vec<_>>>().map(drop)),
        ("put", |store, uri| store.put(uri, b"x").map(drop)),
        ("create", |store, uri| {
            let options = syncline::WriteOptions::default().create_only();
            store.put_with(uri, b"x", options).map(drop)
        }),
        ("put large", |store, uri| store.put(uri, &vec![0; crate::rig::PART + 1]).map(drop)),
        ("delete", |store, uri| store.delete(uri)),
        ("delete prefix", |store, uri| store.delete_prefix(uri).map(drop)),
        ("orphans", |store, uri| store.orphans(uri, std::time::Duration::ZERO).map(drop)),
    ];
    for (name, call) in calls {
        let store = syncline::open_store(uri, &settings).unwrap();
        let failed = call(&*store, uri).expect_err(name);
        assert_eq!(failed.kind(), ErrorKind::BucketNotFound, "{name}: {failed}");
        assert_says(&failed, &["s3://absent"]);
    }
}

#[test]
fn many_are_removed_by_one_request_with_a_checksum() {
    let rig = Rig::new();
    let keys: Vec<String> = odd_keys().into_iter().map(|key| format!("{KEY}/{key}")).collect();
    let keys: Vec<_> = keys.iter().filter(|key| key.len() <= 1024).collect();
    keys.iter().for_each(|key| rig.put(key, b""));
    rig.put("dir/object-", b"");
    assert_eq!(rig.store.delete_prefix(URI).unwrap(), keys.len() as u64);
    assert_eq!(rig.keys(), ["dir/object-"]);
    let sent = rig.requests(DeleteMany);
    assert_eq!(sent.len(), 1);
    assert!(sent[0].header("x-amz-checksum-crc32c").is_some());
    assert_ne!(sent[0].header("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"));
    assert_eq!(rig.count(Delete), 0);
}

#[test]
fn what_was_not_removed_is_named() {
    let rig = Rig::new();
    (0..9).for_each(|n| rig.put(&format!("{KEY}/{n}"), b""));
    rig.behave(|b| b.undeletable = vec![format!("{KEY}/3"), format!("{KEY}/5")]);
    let failed = rig.store.delete_prefix(URI).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::PermissionDenied, "{failed}");
    assert_says(&failed, &["2 objects", "AccessDenied", "s3://bucket/dir/object/3"]);
    assert_eq!(rig.keys(), [format!("{KEY}/3"), format!("{KEY}/5")]);
    let failed = rig.store.delete(&format!("{URI}/3")).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::PermissionDenied, "{failed}");
    // An answer that tells nothing is none.
    rig.on_request(|_, request| {
        let many = crate::s3_model::operation(request) == DeleteMany;
        many.then(|| Fault::Instead(Answer::new(200).body("<html/>").into()))
    });
    assert_eq!(rig.store.delete_prefix(URI).unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn a_server_without_batches_removes_one_by_one() {
    for (status, code) in [(501, "NotImplemented"), (405, "MethodNotAllowed")] {
        let rig = Rig::new();
        (0..5).for_each(|n| rig.put(&format!("{KEY}/{n}"), b""));
        rig.on_request(move |_, request| {
            let many = crate::s3_model::operation(request) == DeleteMany;
            many.then(|| Fault::Instead(error(status, code).into()))
        });
        assert_eq!(rig.store.delete_prefix(URI).unwrap(), 5);
        assert_eq!(rig.count(Delete), 5);
        rig.assert_nothing();
    }
}

#[test]
fn what_is_absent_is_not_removed() {
    let rig = Rig::new();
    assert_eq!(rig.store.delete(URI).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(rig.store.delete_prefix(URI).unwrap(), 0);
    assert!(!rig.store.exists(URI).unwrap());
    rig.put(KEY, b"");
    rig.on_request(|_, request| {
        // It goes between the look and the removal.
        let gone = key_of(request).is_some() && request.method == "DELETE";
        gone.then(|| Fault::Instead(error(404, "NoSuchKey").into()))
    });
    rig.store.delete(URI).unwrap();
}

/// A refusal is no absence.
#[test]
fn a_refusal_is_not_taken_for_absence() {
    for (status, kind) in [(403, ErrorKind::PermissionDenied), (500, ErrorKind::Unavailable)] {
        let rig = Rig::new();
        rig.put(KEY, b"x");
        rig.on_request(move |_, _| Some(Fault::Instead(Answer::new(status).into())));
        for failed in [
            rig.store.exists(URI).unwrap_err(),
            rig.store.delete(URI).unwrap_err(),
            rig.store.list(URI).unwrap().next().unwrap().unwrap_err(),
            rig.store.delete_prefix(URI).unwrap_err(),
            rig.store.get(URI).unwrap_err(),
        ] {
            assert_eq!(failed.kind(), kind, "{failed}");
        }
    }
}
