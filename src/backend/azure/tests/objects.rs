//! What becomes of the object, whatever is lost on the way.

use std::time::Instant;

use ::http::Method;

use super::{DATA, OURS, Seen, Told, container, part, put, refused, soon, taken, there, write};
use crate::backend::azure::walk::orphans;
use crate::backend::azure::{AzureBackend, check_key};
use crate::backend::http::Stage;
use crate::backend::{Backend, Proof, Upload};
use crate::config::Config;
use crate::encode::Algorithm;
use crate::error::{Error, ErrorKind};
use crate::store::{ObjectStore, Store};
use crate::sync::{Arc, Mutex, lock};
use crate::uri::Location;

#[test]
fn an_object_that_exists_is_told_by_either_status() {
    for (status, code) in [(409, "BlobAlreadyExists"), (412, "ConditionNotMet"), (412, "")] {
        let service = container(move |_, seen| match seen.method {
            Method::HEAD => refused(404, "BlobNotFound"),
            _ if seen.header("if-none-match") == Some("*") => refused(status, code),
            _ => taken(seen),
        });
        for outcome in [put(&service.upload(true)), write(&service.upload(true))] {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::AlreadyExists, "{status} {code}");
        }
    }
    // A large object is not sent in vain.
    let there = container(|_, seen| match seen.method {
        Method::HEAD => there("another", 3),
        _ => taken(seen),
    });
    assert_eq!(write(&there.upload(true)).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(there.count(Method::PUT, ""), 0);
}

/// The first attempt's reply is lost, the second is refused by what the first did: or by another's.
#[test]
fn a_lost_reply_is_made_up_for_by_looking() {
    for (nonce, ours) in [(OURS, true), ("another", false)] {
        let service = container(move |_, seen| match seen.method {
            Method::HEAD => there(nonce, 9),
            _ => refused(409, "BlobAlreadyExists"),
        });
        let lost_first = move |number: usize, seen: &Seen| match (number, &seen.method) {
            (0, _) => Err(Stage::Receive),
            _ => (service.fake.answer)(number, seen),
        };
        let outcome = put(&container(lost_first).upload(true));
        assert_eq!(outcome.is_ok(), ours, "{outcome:?}");
        let kind = outcome.err().map(|error| error.kind());
        assert_eq!(kind, (!ours).then_some(ErrorKind::AlreadyExists));
    }
    // Nobody ever answered the request itself.
    for (found, expected) in [(there(OURS, 18), None), (refused(404, "BlobNotFound"), Some(()))] {
        let found = Mutex::new(found);
        let service = container(move |_, seen| match seen.method {
            Method::HEAD => match &*lock(&found) {
                Ok(told) => Ok(told.clone()),
                Err(stage) => Err(*stage),
            },
            _ if seen.is(Method::PUT, "comp=blocklist") || seen.query.is_empty() => {
                Err(Stage::Receive)
            }
            _ => taken(seen),
        });
        for outcome in [put(&service.upload(false)), write(&service.upload(false))] {
            assert_eq!(outcome.is_err(), expected.is_some(), "{outcome:?}");
        }
    }
}

/// Another's commit discards our blocks.
#[test]
fn a_list_whose_blocks_are_gone_is_a_lost_race() {
    let service = |found: fn() -> Told| {
        container(move |number, seen| match seen.method {
            // Not there before the first block is put.
            Method::HEAD if number == 0 => refused(404, "BlobNotFound"),
            Method::HEAD => found(),
            _ if seen.is(Method::PUT, "comp=blocklist") => refused(400, "InvalidBlockList"),
            _ => taken(seen),
        })
    };
    let others = service(|| there("another", 5));
    assert_eq!(write(&others.upload(true)).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let error = write(&others.upload(false)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("write the object again"), "{error}");
    let gone = service(|| refused(404, "BlobNotFound"));
    assert_eq!(write(&gone.upload(true)).unwrap_err().kind(), ErrorKind::Conflict);
    // The reply to our own commit was lost.
    write(&service(|| there(OURS, 18)).upload(true)).unwrap();
}

#[test]
fn a_blob_of_another_size_is_removed_and_told() {
    let service = container(|_, seen| match seen.method {
        Method::HEAD => there(OURS, 17),
        _ => taken(seen),
    });
    let error = write(&service.upload(false)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
    let seen = service.seen();
    let removal = seen.iter().find(|seen| seen.method == Method::DELETE).unwrap();
    assert_eq!(removal.header("if-match"), Some("\"0x1\""));
    // Another's is left alone.
    let service = container(|_, seen| match seen.method {
        Method::HEAD => there("another", 17),
        _ => taken(seen),
    });
    write(&service.upload(false)).unwrap();
    assert_eq!(service.count(Method::DELETE, ""), 0);
}

/// A commit may take longer than the timeout, as long as it gets on.
#[test]
fn what_follows_a_commit_has_time_of_its_own() {
    for (size, fits) in [(18, true), (17, false)] {
        let service = container(move |_, seen| match seen.method {
            Method::HEAD => there(OURS, size),
            _ => taken(seen),
        });
        let upload = service.upload(false);
        let receipts = [0, 1].map(|n| upload.put_part(&part(n, DATA), &soon()).unwrap());
        let over = soon().restarted(Instant::now() - 2 * soon().remaining());
        assert!(over.expired());
        match upload.commit(&receipts, 18, &over, &|| ()) {
            Ok(_) => assert!(fits),
            Err(error) => {
                assert!(!fits, "{error}");
                assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
            }
        }
    }
}

#[test]
fn requests_carry_what_they_must() {
    let service = container(|_, seen| match seen.method {
        Method::HEAD
            if seen.header("x-ms-client-request-id").is_some_and(|id| id.ends_with("-0")) =>
        {
            refused(404, "BlobNotFound")
        }
        Method::HEAD => there(OURS, 18),
        _ => taken(seen),
    });
    let upload = service.upload(true);
    write(&upload).unwrap();
    assert_eq!(upload.server().proof, Some(Proof::ChecksumVerified));
    assert_eq!(upload.server().create_only_held, Some(true));
    let seen = service.seen();
    let ids: std::collections::HashSet<_> =
        seen.iter().map(|seen| seen.header("x-ms-client-request-id").unwrap()).collect();
    assert_eq!(ids.len(), seen.len());
    for request in &seen {
        assert_eq!(request.path, "/account/container/folder/a%20key");
        assert!(request.header("x-ms-version").is_some() && request.header("x-ms-date").is_some());
        assert!(request.header("authorization").is_some());
    }
    let [_, first, second, list, _] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(first.header("x-ms-content-crc64"), Some("iJh5CoYUi64="));
    let widths: Vec<usize> = [first, second].iter().map(|block| block.query.len()).collect();
    assert_eq!(widths[0], widths[1], "ids of one length");
    assert_ne!(first.query, second.query);
    assert_eq!(list.header("if-none-match"), Some("*"));
    let whole = Algorithm::Crc32c.checksum(b"123456789123456789").to_string();
    assert_eq!(list.header("x-ms-meta-synclinechecksum"), Some(whole.as_str()));
    assert_eq!(list.header("x-ms-meta-synclinenonce"), Some(OURS));
    let body = String::from_utf8(list.body.clone()).unwrap();
    assert_eq!(body.matches("<Uncommitted>").count(), 2);
    assert_eq!((first.body.as_slice(), second.body.as_slice()), (DATA, DATA));
}

#[test]
fn nothing_is_sent_after_an_abort_nor_to_clean_up() {
    let service = container(|_, seen| taken(seen));
    let upload = service.upload(false);
    upload.put_part(&part(0, DATA), &soon()).unwrap();
    upload.abort(&soon()).unwrap();
    upload.abort(&soon()).unwrap();
    let late: [Result<(), Error>; 3] = [
        upload.put_part(&part(1, DATA), &soon()).map(drop),
        upload.commit(&[], 0, &soon(), &|| ()).map(drop),
        put(&upload),
    ];
    for outcome in late {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
    }
    assert_eq!(service.seen().len(), 1);
    // No empty list, whatever the caller says.
    assert!(service.upload(false).commit(&[], 0, &soon(), &|| ()).is_err());
    assert_eq!(service.seen().len(), 1);
}

#[test]
fn only_what_was_never_committed_is_an_orphan() {
    let service = container(|_, seen| {
        let ok = |body: &str| Ok((200, vec![], body.to_owned()));
        match (&seen.method, seen.path.rsplit('/').next().unwrap()) {
            (&Method::GET, "container") => {
                assert!(seen.query.contains("include=uncommittedblobs"));
                let blob = |name: &str, size: u64| {
                    format!(
                        "<Blob><Name>a/{name}</Name><Properties><Content-Length>{size}\
                         </Content-Length></Properties></Blob>"
                    )
                };
                let blobs = [
                    blob("full", 9),
                    blob("empty", 0),
                    blob("empty-replaced", 0),
                    blob("begun", 0),
                    blob(".x.0123456789abcdef.syncline-tmp", 3),
                ];
                ok(&format!(
                    "<EnumerationResults><Blobs>{}</Blobs><NextMarker/></EnumerationResults>",
                    blobs.concat()
                ))
            }
            (&Method::GET, "empty") => ok("<BlockList/>"),
            (&Method::GET, _) => {
                ok("<BlockList><UncommittedBlocks><Block><Name>YQ==</Name><Size>7</Size></Block>\
                 </UncommittedBlocks></BlockList>")
            }
            (_, "begun") => refused(404, "BlobNotFound"),
            _ => there("another", 0),
        }
    });
    let found = orphans(&service.shared, "a", &soon()).unwrap();
    let found: Vec<(&str, u64)> =
        found.iter().map(|orphan| (orphan.uri.as_str(), orphan.size_bytes)).collect();
    let base = "az://account/container/a";
    assert_eq!(
        found,
        [
            (format!("{base}/begun?uncommitted").as_str(), 7),
            (format!("{base}/.x.0123456789abcdef.syncline-tmp").as_str(), 3)
        ]
    );
}

#[test]
fn names_that_the_service_would_change_are_refused() {
    for key in ["a/b", "a b%+~", "\u{e9}", ".hidden/x", "a//b", &"k".repeat(1024)] {
        check_key(key).unwrap();
    }
    let deep = vec!["d"; 255].join("/");
    for key in ["a.", "a./b", "a\\b", &"k".repeat(1025), &deep] {
        assert_eq!(check_key(key).unwrap_err().kind(), ErrorKind::InvalidInput, "{key}");
    }
}

#[test]
fn names_that_the_service_would_change_are_no_names_of_others() {
    let service = container(|_, seen| match seen.method {
        Method::HEAD => there(OURS, 9),
        _ => taken(seen),
    });
    let backend = AzureBackend(Arc::clone(&service.shared));
    for key in ["a.", "a/b.", "a\\b"] {
        let outcomes = [
            backend.delete(&[key.to_owned()], &soon()).map(drop),
            backend.head(key, &soon()).map(drop),
            backend.open(key, &soon()).map(drop),
        ];
        for outcome in outcomes {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::InvalidInput, "{key}");
        }
    }
    assert!(service.seen().is_empty());
}

/// What the writer kept beside the object is told, and compared when the whole object is read.
#[test]
fn a_whole_read_is_compared_with_the_checksum_that_was_kept() {
    for (body, intact) in [("123456789", true), ("123456780", false)] {
        let service = container(move |_, seen| {
            let headers = vec![
                ("content-length", "9".to_owned()),
                ("content-range", "bytes 0-8/9".to_owned()),
                ("etag", "\"0x1\"".to_owned()),
                ("x-ms-meta-synclinechecksum", "crc32c:e3069283".to_owned()),
            ];
            match seen.method {
                Method::HEAD => Ok((200, headers, String::new())),
                _ => Ok((206, headers, body.to_owned())),
            }
        });
        let backend = Arc::new(AzureBackend(Arc::clone(&service.shared)));
        let location = Location::parse("az://account/container").unwrap();
        let config = Config::builder().part_bytes(64 * 1024).build().unwrap();
        let store = Store::with_backend(&location, &config, backend);
        let uri = "az://account/container/object";
        assert_eq!(store.stat(uri).unwrap().checksum.as_deref(), Some("crc32c:e3069283"));
        match store.get(uri) {
            Ok(bytes) => assert!(intact && bytes == body),
            Err(error) => {
                assert!(!intact);
                assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
            }
        }
        // Of a part nothing is known.
        assert_eq!(store.get_range(uri, 1, Some(8)).unwrap(), body[1..]);
    }
}
