//! Answers that tell what was wrong: another region, another host, another time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use syncline::{ErrorKind, ObjectStore};

use crate::rig::{Rig, SESSION_TOKEN, URI, assert_says, noise, s3};
use crate::s3_model::{Fault, error};
use crate::scripted::{Answer, Request, Server, Step};

/// The scope that a request was signed for: `20260101/us-east-1/s3/aws4_request`.
fn scope(request: &Request) -> Vec<String> {
    let authorization = request.header("authorization").unwrap();
    let credential = authorization.split_once("Credential=").unwrap().1;
    let credential = credential.split(',').next().unwrap();
    credential.split('/').skip(1).map(str::to_owned).collect()
}

fn region(request: &Request) -> String {
    scope(request)[1].clone()
}

/// Refuses what is signed for another region, in this way.
fn insist_on(rig: &Rig, right: &'static str, refusal: fn() -> Answer) {
    rig.on_request(move |_, request| {
        (region(request) != right).then(|| Fault::Instead(refusal().into()))
    });
}

fn with_region(status: u16, code: &str, region: &str) -> Answer {
    let answer = error(status, code);
    let body = String::from_utf8(answer.body.to_vec()).unwrap();
    let body = body.replace("</Error>", &format!("<Region>{region}</Region></Error>"));
    answer.body(body)
}

#[test]
fn the_region_is_learned_from_the_refusal() {
    let refusals: [fn() -> Answer; 5] = [
        || with_region(400, "AuthorizationHeaderMalformed", "eu-north-7"),
        || with_region(301, "PermanentRedirect", "eu-north-7"),
        || error(301, "PermanentRedirect").header("x-amz-bucket-region", "eu-north-7"),
        || Answer::new(301).header("x-amz-bucket-region", "eu-north-7"),
        || Answer::new(400).header("x-amz-bucket-region", "eu-north-7"),
    ];
    for refusal in refusals {
        let rig = Rig::new();
        insist_on(&rig, "eu-north-7", refusal);
        rig.store.put(URI, b"data").unwrap();
        assert_eq!(rig.server().requests().len(), 2);
        // The store knows it now; and another one by HEAD.
        assert_eq!(rig.store.get(URI).unwrap(), b"data"[..]);
        assert_eq!(rig.server().requests().len(), 3);
        let other = crate::rig::open(&rig.endpoint());
        assert_eq!(other.stat(URI).unwrap().size_bytes, 4);
    }
}

#[test]
fn regions_that_lead_nowhere_end() {
    let turn = AtomicUsize::new(0);
    let rig = Rig::new();
    rig.on_request(move |_, _| {
        let region = format!("region-{}", turn.fetch_add(1, Ordering::Relaxed));
        Some(Fault::Instead(with_region(301, "PermanentRedirect", &region).into()))
    });
    let failed = rig.store.put(URI, b"data").unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::BucketNotFound, "{failed}");
    assert_says(&failed, &["301", "region"]);
    assert!(rig.server().requests().len() <= 4);
}

/// A region stands in hosts' names and in what is signed: not every text is one.
#[test]
fn a_region_that_is_none_is_not_believed() {
    for bad in ["evil.example/", "a b", "us-east-1@evil.example", "", "x\u{e9}", &"r".repeat(300)] {
        for in_header in [true, false] {
            let rig = Rig::new();
            let bad = bad.to_owned();
            rig.on_request(move |number, _| {
                (number == 0).then(|| {
                    let answer = match in_header {
                        true => {
                            error(301, "PermanentRedirect").header("x-amz-bucket-region", &*bad)
                        }
                        false => with_region(301, "PermanentRedirect", &bad),
                    };
                    Fault::Instead(answer.into())
                })
            });
            let failed = rig.store.put(URI, b"data").unwrap_err();
            assert_says(&failed, &["301"]);
            rig.store.put(URI, b"data").unwrap();
            assert!(rig.server().requests().iter().all(|request| region(request) == "us-east-1"));
        }
    }
}

#[test]
fn a_redirect_to_the_same_host_is_followed() {
    for status in [307, 308] {
        let rig = Rig::new();
        let location = format!("{}/bucket/dir/object", rig.endpoint());
        rig.on_request(move |number, _| {
            let answer = error(status, "TemporaryRedirect").header("location", &*location);
            (number == 0).then(|| Fault::Instead(answer.into()))
        });
        rig.store.put(URI, b"data").unwrap();
        rig.assert_holds(b"data");
        let requests = rig.server().requests();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[0].path, requests[1].path);
    }
}

#[test]
fn a_redirect_to_another_host_is_not() {
    let elsewhere = Server::start(|_: &Request| Step::from(Answer::new(200)));
    let places = [
        format!("http://127.0.0.1:{}/bucket/dir/object", elsewhere.port()),
        format!("http://localhost:{}/bucket/dir/object", elsewhere.port()),
        format!("//127.0.0.1:{}/", elsewhere.port()),
        format!("http://user@127.0.0.1:{}/", elsewhere.port()),
        format!("HTTP://127.0.0.1:{}/", elsewhere.port()),
    ];
    for place in places {
        for status in [301, 302, 303, 307, 308] {
            let rig = Rig::new();
            let own = format!("{}@127.0.0.1:{}/", rig.endpoint(), elsewhere.port());
            for location in [place.clone(), own] {
                let before = rig.server().requests().len();
                let body = format!("127.0.0.1:{}", elsewhere.port());
                rig.on_request(move |_, _| {
                    let document = format!(
                        "<Error><Code>PermanentRedirect</Code><Message>go</Message><Endpoint>{body}</Endpoint></Error>"
                    );
                    let answer = Answer::new(status).header("location", &*location).body(document);
                    Some(Fault::Instead(answer.into()))
                });
                for failed in [
                    rig.store.put(URI, b"data").unwrap_err(),
                    rig.store.get(URI).unwrap_err(),
                    rig.store.stat(URI).unwrap_err(),
                ] {
                    assert_eq!(failed.kind(), ErrorKind::BucketNotFound, "{failed}");
                    assert_says(&failed, &[&status.to_string(), "endpoint"]);
                }
                // HEAD has no body that could say more: it is asked for.
                assert!(rig.server().requests().len() - before <= 4);
            }
        }
    }
    assert_eq!((elsewhere.connections(), elsewhere.requests().len()), (0, 0));
}

#[test]
fn a_clock_that_is_off_is_set_right_once() {
    for ahead in [true, false] {
        for refusal in [
            (|| error(403, "RequestTimeTooSkewed")) as fn() -> Answer,
            // As HEAD is answered.
            || Answer::new(403),
        ] {
            let rig = Rig::new();
            let off = Duration::from_secs(2 * 86_400);
            let there = SystemTime::now();
            let there = if ahead { there + off } else { there - off };
            let stamp = jiff::Timestamp::try_from(there).unwrap();
            let date = stamp.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            let day = stamp.strftime("%Y%m%d").to_string();
            rig.on_request(move |_, request| {
                let right = scope(request)[0] == day;
                (!right).then(|| Fault::Instead(refusal().header("date", &*date).into()))
            });
            rig.store.put(URI, b"data").unwrap();
            assert_eq!(rig.server().requests().len(), 2);
            rig.store.put(URI, b"data").unwrap();
            assert_eq!(rig.server().requests().len(), 3);
        }
    }
}

#[test]
fn a_clock_that_is_right_is_left_alone() {
    let rig = Rig::new();
    rig.on_request(|_, _| {
        let now = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        Some(Fault::Instead(error(403, "RequestTimeTooSkewed").header("date", now).into()))
    });
    let failed = rig.store.put(URI, b"data").unwrap_err();
    assert_says(&failed, &["RequestTimeTooSkewed", "clock"]);
    assert_eq!(rig.server().requests().len(), 1);
    // A server without a date, and one with a senseless one.
    for date in ["", "yesterday", "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"]
    {
        let rig = Rig::new();
        rig.on_request(move |_, _| {
            let answer = error(403, "RequestTimeTooSkewed").header("date", date);
            Some(Fault::Instead(answer.into()))
        });
        let failed = rig.store.put(URI, b"data").unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::PermissionDenied, "{date}: {failed}");
    }
}

/// Two things are wrong, and both are set right.
#[test]
fn corrections_do_not_get_in_each_others_way() {
    let rig = Rig::with(|_| s3("http://unused"), |s| s);
    let keys = ["AKID", "secret"];
    let settings = s3(&rig.endpoint()).credentials(keys[0], keys[1], Some(SESSION_TOKEN));
    let store: std::sync::Arc<dyn ObjectStore> =
        crate::rig::open_with(crate::rig::settings().s3(settings));
    rig.on_request(|number, _| {
        let refusal = match number {
            0 => with_region(301, "PermanentRedirect", "eu-north-7"),
            1 => error(400, "ExpiredToken"),
            _ => return None,
        };
        Some(Fault::Instead(refusal.into()))
    });
    store.put(URI, b"data").unwrap();
    rig.assert_holds(b"data");
}

/// Keys that stay expired are told after one more look.
#[test]
fn an_expired_token_is_refused_in_the_end() {
    let rig = Rig::new();
    rig.on_request(|_, _| Some(Fault::Instead(error(400, "ExpiredToken").into())));
    let data = noise(crate::rig::PART + 1, 1);
    for data in [&data[..10], &data] {
        let before = rig.server().requests().len();
        let failed = rig.store.put(URI, data).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::PermissionDenied, "{failed}");
        assert_says(&failed, &["ExpiredToken", "new temporary credentials"]);
        assert_eq!(rig.server().requests().len() - before, 2);
    }
}
