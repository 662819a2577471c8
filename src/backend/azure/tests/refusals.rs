//! What is tried again, what is told, and what is sent as proof.

use std::time::{Duration, SystemTime};

use ::http::Method;

use super::{
    DATA, OURS, Seen, container, part, put, refused, soon, taken, there, with_integrity, write,
};
use crate::backend::http::{format_http_date, parse_http_date};
use crate::backend::{Proof, Upload};
use crate::config::AzureIntegrity;
use crate::encode::Algorithm;
use crate::error::ErrorKind;
use crate::limits::THROTTLED_ATTEMPTS_FACTOR;

#[test]
fn what_passes_is_tried_again_and_nothing_else() {
    let passing = [
        (503, "ServerBusy"),
        (500, "OperationTimedOut"),
        (500, "InternalError"),
        (503, ""),
        (500, ""),
        (502, ""),
        (504, ""),
        (408, ""),
        (429, ""),
        (400, "Crc64Mismatch"),
    ];
    for (status, code) in passing {
        let once = container(move |number, seen| match number {
            0 => refused(status, code),
            _ => taken(seen),
        });
        put(&once.upload(false)).unwrap_or_else(|error| panic!("{status} {code}: {error}"));
        assert_eq!(once.seen().len(), 2, "{status} {code}");
        let always = container(move |_, _| refused(status, code));
        let error = put(&always.upload(false)).unwrap_err();
        // A server that asks for less is waited for longer.
        let attempts = if [429, 503].contains(&status) { 3 * THROTTLED_ATTEMPTS_FACTOR } else { 3 };
        assert_eq!(error.attempts(), attempts, "{error}");
    }
    for (status, code) in
        [(400, "InvalidUri"), (403, "AuthorizationFailure"), (409, "BlobArchived")]
    {
        let always = container(move |_, _| refused(status, code));
        assert_eq!(put(&always.upload(false)).unwrap_err().attempts(), 1, "{status} {code}");
        assert_eq!(always.seen().len(), 1, "{status} {code}");
    }
}

#[test]
fn refusals_have_a_kind_a_remedy_and_the_requests_id() {
    for (status, code, kind, remedy) in [
        (404, "ContainerNotFound", ErrorKind::BucketNotFound, "create the container"),
        (412, "LeaseIdMissing", ErrorKind::Conflict, "lease"),
        (409, "BlobArchived", ErrorKind::Unsupported, "rehydrate"),
        (409, "BlobImmutableDueToPolicy", ErrorKind::PermissionDenied, "retention"),
        (400, "InvalidBlobOrBlock", ErrorKind::Conflict, "ids of another length"),
        (409, "InvalidBlobType", ErrorKind::InvalidInput, "page or append"),
        (400, "InvalidUri", ErrorKind::InvalidInput, "name"),
        (400, "InvalidResourceName", ErrorKind::InvalidInput, "name"),
        (403, "AuthorizationPermissionMismatch", ErrorKind::PermissionDenied, "credentials"),
        (403, "AuthenticationFailed", ErrorKind::PermissionDenied, "credentials"),
        (413, "RequestBodyTooLarge", ErrorKind::LimitExceeded, "part size"),
        (307, "", ErrorKind::InvalidInput, "endpoint"),
    ] {
        for create_only in [false, true] {
            let service = container(move |_, seen| match seen.method {
                Method::HEAD => refused(404, "BlobNotFound"),
                _ => refused(status, code),
            });
            for outcome in [put(&service.upload(create_only)), write(&service.upload(create_only))]
            {
                let error = outcome.unwrap_err();
                let text = error.to_string();
                assert_eq!(error.kind(), kind, "{text}");
                for needle in [remedy, code, "request-7", "In words"] {
                    assert!(text.contains(needle), "{needle} missing in {text}");
                }
                for secret in ["SIGNATURE", "c2VjcmV0", "RequestId", "Time:"] {
                    assert!(!text.contains(secret), "{text}");
                }
            }
        }
    }
}

#[test]
fn what_the_server_repeats_is_compared() {
    let service = container(|_, seen| match seen.is(Method::PUT, "comp=block") {
        true => Ok((201, vec![("x-ms-content-crc64", "AAAAAAAAAAA=".to_owned())], String::new())),
        false => taken(seen),
    });
    let error = write(&service.upload(false)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChecksumMismatch, "{error}");
    assert_eq!(service.count(Method::PUT, "comp=blocklist"), 0);
    // What was sent is not what is in memory: no second attempt can help.
    let service = container(|_, _| refused(400, "Crc64Mismatch"));
    let mut damaged = part(0, DATA);
    damaged.transport = Some(Algorithm::Crc64Nvme.checksum(b"other"));
    let error = service.upload(false).put_part(&damaged, &soon()).unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::ChecksumMismatch, 1));
}

#[test]
fn a_server_without_crc64_gets_md5_if_it_may() {
    for (status, code) in
        [(501, ""), (500, "FeatureNotSupported"), (400, "UnsupportedHeader"), (201, "")]
    {
        let answer = move |_: usize, seen: &Seen| match seen.header("x-ms-content-crc64") {
            Some(_) if status == 201 && !seen.query.is_empty() => Ok((201, vec![], String::new())),
            Some(_) if status != 201 => refused(status, code),
            _ => match seen.method {
                Method::HEAD => there(OURS, 18),
                _ => taken(seen),
            },
        };
        let service = container(answer);
        let upload = service.upload(false);
        write(&upload).unwrap_or_else(|error| panic!("{status} {code}: {error}"));
        assert_eq!(upload.server().proof, Some(Proof::ChecksumSent));
        assert_eq!(service.count(Method::PUT, "comp=block"), 3, "learned by the first");
        let md5 = service.seen().iter().filter(|seen| seen.header("content-md5").is_some()).count();
        assert_eq!(md5, 2);
        let strict = with_integrity(AzureIntegrity::Crc64, answer);
        assert!(write(&strict.upload(false)).is_err(), "{status} {code}");
    }
}

#[test]
fn a_clock_that_is_wrong_follows_the_servers() {
    let server = SystemTime::now() + Duration::from_secs(86_400);
    let service = container(move |number, seen| match number {
        0 => {
            let (status, mut headers, body) = refused(403, "AuthenticationFailed")?;
            headers.push(("date", format_http_date(server).unwrap()));
            Ok((status, headers, body))
        }
        _ => taken(seen),
    });
    put(&service.upload(false)).unwrap();
    let date = service.seen()[1].header("x-ms-date").and_then(parse_http_date).unwrap();
    let off = date.duration_since(server).or_else(|e| Ok::<_, ()>(e.duration())).unwrap();
    assert!(off < Duration::from_secs(300), "{off:?}");
}

/// A portal or a gateway that answers everything with a page must not pass for the service.
#[test]
fn success_of_another_kind_is_believed_of_nothing_that_changes() {
    let page = || Ok((200, vec![("content-type", "text/html".to_owned())], "<html/>".to_owned()));
    for stays_with in [Method::PUT, Method::HEAD] {
        let service = container(move |_, seen| match seen.method {
            Method::HEAD if stays_with == Method::PUT => refused(404, "BlobNotFound"),
            _ => page(),
        });
        for outcome in [put(&service.upload(false)), write(&service.upload(false))] {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.to_string().contains("check the endpoint"), "{error}");
        }
        assert!(service.shared.remove("a key", &soon()).is_err());
    }
}
