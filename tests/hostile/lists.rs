//! Listings that go on for ever, go round in circles, or name what was not asked for; and removals that are not
//! told of.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use syncline::ErrorKind;

use crate::rig::{WAYS, Way, assert_tame};
use crate::scripted::{Answer, Request, Server, Step, decode};

/// A page of these keys, and where the next begins.
fn page(way: Way, keys: &[String], next: Option<&str>) -> Answer {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    let document = match way {
        Way::S3 => {
            let objects = keys.iter().map(|key| {
                format!("<Contents><Key>{}</Key><Size>4</Size></Contents>", escaped(key))
            });
            let token =
                next.map(|next| format!("<NextContinuationToken>{next}</NextContinuationToken>"));
            format!(
                "<ListBucketResult><IsTruncated>{}</IsTruncated>{}{}</ListBucketResult>",
                next.is_some(),
                token.unwrap_or_default(),
                objects.collect::<String>()
            )
        }
        _ => {
            let blobs = keys.iter().map(|key| {
                let properties = "<Properties><Content-Length>4</Content-Length></Properties>";
                format!("<Blob><Name>{}</Name>{properties}</Blob>", escaped(key))
            });
            format!(
                "<EnumerationResults><Blobs>{}</Blobs><NextMarker>{}</NextMarker></EnumerationResults>",
                blobs.collect::<String>(),
                next.unwrap_or_default()
            )
        }
    };
    Answer::new(200).body(document)
}

/// Whether a request lists what is below the prefix, and from where.
fn listing(request: &Request) -> Option<Option<String>> {
    let lists = request.method == "GET"
        && request.param("prefix").is_some_and(|prefix| prefix.ends_with('/'));
    lists.then(|| request.param("continuation-token").or(request.param("marker")))
}

/// A server whose pages are made so: by their number and where they were asked to begin.
fn server_of(
    way: Way,
    pages: impl Fn(usize, Option<&str>) -> Answer + Send + Sync + 'static,
) -> Server {
    let asked = AtomicUsize::new(0);
    Server::start(move |request: &Request| -> Step {
        match listing(request) {
            Some(from) => pages(asked.fetch_add(1, Relaxed), from.as_deref()).into(),
            None => page(way, &[], None).into(),
        }
    })
}

#[test]
fn circles_of_pages_are_noticed() {
    for way in WAYS {
        for length in [1, 2, 3, 10] {
            // By the names of the pages, by their content, and by both; with pages that are empty.
            for (names_return, keys_return) in [(true, true), (true, false), (false, true)] {
                let server = server_of(way, move |number, _| {
                    let place = number % length;
                    let key = format!("dir/{}", if keys_return { place } else { number });
                    let next = format!("next-{}", if names_return { place } else { number });
                    let keys = if keys_return { vec![key] } else { Vec::new() };
                    page(way, &keys, Some(&next))
                });
                let store = way.open(&server);
                let outcome: Result<Vec<_>, _> = store.list(way.base()).unwrap().collect();
                let error = outcome.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{way:?} {length}: {error}");
                assert!(error.to_string().contains("sent before"), "{way:?} {length}: {error}");
                assert!(server.requests().len() < 8 * length + 8, "{way:?} {length}");
                // What was listed before is not removed, or all of it; but it ends.
                assert!(store.delete_prefix(way.base()).is_err());
                assert!(
                    store.orphans(way.base(), std::time::Duration::ZERO).is_ok() || way == Way::S3
                );
            }
        }
    }
}

/// Empty pages with another name each: nothing ever comes back, but the time of the call is over.
#[test]
fn empty_pages_for_ever_end_with_the_time() {
    for way in WAYS {
        let server =
            server_of(way, move |number, _| page(way, &[], Some(&format!("next-{number}"))));
        let error = way.open(&server).list(way.base()).unwrap().next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{way:?}: {error}");
        assert_tame("empty pages", &error);
    }
}

/// Whoever removes what is listed must not remove anything else.
#[test]
fn names_that_were_not_asked_for_are_refused() {
    for way in WAYS {
        for key in [
            "other",
            "dirx",
            "/dir/object",
            "../dir/object",
            "bucket/dir/object",
            "dir",
            "DIR/object",
            "",
            " dir/x",
        ] {
            let server =
                server_of(way, move |_, _| page(way, &["dir/a".to_owned(), key.to_owned()], None));
            let store = way.open(&server);
            let listed: Result<Vec<_>, _> = store.list(way.base()).unwrap().collect();
            assert_eq!(listed.unwrap_err().kind(), ErrorKind::Unavailable, "{way:?} {key:?}");
            assert!(store.delete_prefix(way.base()).is_err(), "{way:?} {key:?}");
            let removals = server.requests().into_iter().filter(|request| request.method != "GET");
            assert_eq!(removals.count(), 0, "{way:?} {key:?}: something was removed");
        }
    }
}

/// Names below the prefix that no URI could have: what is sent for them is encoded, and is about them alone.
#[test]
fn odd_names_are_removed_as_they_are() {
    let odd = [
        "dir/../../other",
        "dir/./x",
        "dir/a&#10;x-evil: 1",
        "dir/a&#13;&#10;&#13;&#10;GET /evil HTTP/1.1",
        "dir/\u{9b}31m",
        "dir/a?x=y#z",
        "dir/%2e%2e/x",
        "dir/\u{202e}x",
    ];
    for way in WAYS {
        for name in odd {
            let key = name.replace("&#10;", "\n").replace("&#13;", "\r");
            // As documents have it.
            let document = key.replace('\n', "\u{1}").replace('\r', "\u{2}");
            let server = server_of(way, move |_, _| {
                let answer = page(way, std::slice::from_ref(&document), None);
                let body = String::from_utf8(answer.body.to_vec()).unwrap();
                answer.body(body.replace('\u{1}', "&#10;").replace('\u{2}', "&#13;"))
            });
            // Removals are refused here; what they were of is what counts.
            let store = way.open(&server);
            let _ = store.list(way.base()).unwrap().collect::<Vec<_>>();
            let _ = store.delete_prefix(way.base());
            for request in server.requests() {
                assert!(
                    request.headers.iter().all(|(name, _)| !name.contains("evil")),
                    "{request:?}"
                );
                assert!(
                    matches!(request.method.as_str(), "GET" | "HEAD" | "POST" | "DELETE"),
                    "{request:?}"
                );
                assert!(
                    !request.path.contains("evil") || request.path.contains("%0A"),
                    "{request:?}"
                );
                let of = decode(&request.path);
                let whole = format!(
                    "{}/{key}",
                    if way == Way::S3 { "/bucket" } else { "/account/container" }
                );
                let plain = ["/bucket", "/account/container", "/bucket/"].contains(&of.as_str());
                assert!(plain || of == whole, "{way:?}: {of:?}");
            }
        }
    }
}

#[test]
fn sizes_and_times_that_are_none_are_refused() {
    for way in WAYS {
        for size in ["-1", "18446744073709551616", "1e3", "0x10", "NaN", "", "9 9"] {
            let server = server_of(way, move |_, _| {
                let answer = page(way, &["dir/a".to_owned()], None);
                let body = String::from_utf8(answer.body.to_vec()).unwrap();
                answer.body(body.replace(">4<", &format!(">{size}<")))
            });
            let listed: Result<Vec<_>, _> = way.open(&server).list(way.base()).unwrap().collect();
            assert_eq!(listed.unwrap_err().kind(), ErrorKind::Unavailable, "{way:?} {size:?}");
        }
    }
}

/// A server that does not say what became of a key is asked for that key alone.
#[test]
fn removals_that_are_not_told_of_are_made_one_by_one() {
    for told in 0..=3 {
        let there = Mutex::new(BTreeSet::from(["dir/a", "dir/b", "dir/c"].map(str::to_owned)));
        let server = Server::start(move |request: &Request| -> Step {
            let mut there = there.lock().unwrap();
            let keys: Vec<String> = there.iter().cloned().collect();
            match (request.method.as_str(), listing(request)) {
                ("GET", Some(_)) => page(Way::S3, &keys, None).into(),
                ("GET", None) => page(Way::S3, &[], None).into(),
                ("DELETE", _) => {
                    there.remove(decode(&request.path).strip_prefix("/bucket/").unwrap());
                    Answer::new(204).into()
                }
                // Some of them only, and a success.
                _ => {
                    let mut gone = String::new();
                    for key in keys.iter().take(told) {
                        there.remove(key);
                        gone.push_str(&format!("<Deleted><Key>{key}</Key></Deleted>"));
                    }
                    gone.push_str("<Deleted><Key>dir/another</Key></Deleted>");
                    Answer::new(200).body(format!("<DeleteResult>{gone}</DeleteResult>")).into()
                }
            }
        });
        let store = Way::S3.open(&server);
        assert_eq!(store.delete_prefix(Way::S3.base()).unwrap(), 3);
        let singly = server.requests().iter().filter(|request| request.method == "DELETE").count();
        assert_eq!(singly, 3 - told);
        assert_eq!(store.list(Way::S3.base()).unwrap().count(), 0);
    }
}
