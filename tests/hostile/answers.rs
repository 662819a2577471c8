//! Answers that are no HTTP, or HTTP that harms.

use crate::rig::{WAYS, Way, ask_a_server_that, assert_refused};
use crate::scripted::{Answer, Request, Server, Step};

const OK: &str = "HTTP/1.1 200 OK\r\nETag: \"e\"\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Sends the same to each, some at a time: most of it is waiting.
fn each(attacks: Vec<(String, Step)>, check: impl Fn(&str, Way, &[crate::rig::Outcome]) + Sync) {
    for (what, step) in &attacks {
        std::thread::scope(|scope| {
            for way in WAYS {
                let (step, check) = (step.clone(), &check);
                scope.spawn(move || {
                    let outcomes = ask_a_server_that(way, what, move |_| step.clone());
                    check(&format!("{way:?} {what}"), way, &outcomes);
                });
            }
        });
    }
}

fn named(attacks: &[(&str, Step)]) -> Vec<(String, Step)> {
    attacks.iter().map(|(what, step)| ((*what).to_owned(), step.clone())).collect()
}

#[test]
fn floods_end() {
    let start = |more: &str| format!("{CHUNKED}{more}");
    let attacks = named(&[
        ("headers without end", Step::raw(OK, "X-A: b\r\n")),
        ("a header without end", Step::raw(format!("{OK}X: "), "y")),
        ("a status line without end", Step::raw("HTTP/1.1 200 ", "OK")),
        ("100 for ever", Step::raw("", "HTTP/1.1 100 Continue\r\n\r\n")),
        ("103 for ever", Step::raw("", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")),
        ("a chunk's size without end", Step::raw(CHUNKED, "0")),
        ("a chunk's extension without end", Step::raw(start("1;"), "x")),
        ("a trailer without end", Step::raw(start("1\r\nx\r\n0\r\nT: "), "x")),
        ("trailers without end", Step::raw(start("1\r\nx\r\n0\r\n"), "T: x\r\n")),
    ]);
    each(attacks, |what, _, outcomes| assert_refused(what, outcomes));
}

/// A body has an end where ours has: what is more is not kept.
#[test]
fn bodies_without_end_are_not_collected() {
    let attacks = named(&[
        ("chunks for ever", Step::raw(CHUNKED, format!("3e8\r\n{}\r\n", "x".repeat(1000)))),
        ("a body until the end", Step::raw(format!("{OK}\r\n"), "hello")),
        (
            "a body of all bytes there are",
            Step::raw(format!("{OK}Content-Length: 18446744073709551615\r\n\r\n"), "x"),
        ),
    ]);
    each(attacks, |what, _, outcomes| assert_refused(what, outcomes));
}

#[test]
fn answers_that_contradict_themselves_are_no_answers() {
    let with = |headers: &str, body: &str| Step::raw(format!("{OK}{headers}\r\n{body}"), "");
    let chunked = |body: &str| Step::raw(format!("{CHUNKED}{body}"), "");
    let attacks = named(&[
        ("nothing", Step::raw("", "")),
        ("garbage", Step::raw("\0\x01\x02\r\n\r\n", "")),
        ("HTTP/0.9", Step::raw("<html>hello</html>", "")),
        ("HTTP/2", Step::raw("HTTP/2 200\r\n\r\n", "")),
        ("TLS", Step::raw("\x16\x03\x01\x02\x00\x01\x00", "")),
        ("no status", Step::raw("HTTP/1.1 OK\r\n\r\n", "")),
        ("status 0", Step::raw("HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n", "")),
        ("status -1", Step::raw("HTTP/1.1 -01 OK\r\nContent-Length: 0\r\n\r\n", "")),
        ("shorter than declared", with("Content-Length: 100\r\n", "abc")),
        ("a negative length", with("Content-Length: -1\r\n", "abc")),
        ("a length beyond numbers", with("Content-Length: 99999999999999999999\r\n", "abc")),
        ("a hexadecimal length", with("Content-Length: 0x3\r\n", "abc")),
        ("two lengths", with("Content-Length: 3\r\nContent-Length: 5\r\n", "abcde")),
        ("a list of lengths", with("Content-Length: 3, 5\r\n", "abcde")),
        ("a folded header", with("X: a\r\n b\r\nContent-Length: 300\r\n", "abc")),
        ("a NUL in a header", with("X: a\0b\r\nContent-Length: 3\r\n", "abc")),
        ("a chunk beyond numbers", chunked("10000000000000000\r\nabc")),
        ("a chunk of all bytes there are", chunked("ffffffffffffffff\r\nabc")),
        ("a negative chunk", chunked("-1\r\nabc\r\n0\r\n\r\n")),
        ("a chunk without its end", chunked("3\r\nabcdef\r\n0\r\n\r\n")),
        ("chunks without their end", chunked("3\r\nabc\r\n")),
    ]);
    each(attacks, |what, _, outcomes| assert_refused(what, outcomes));
}

/// What is HTTP and of no use: reads get nothing of it, and it takes nothing.
#[test]
fn odd_answers_end_soon() {
    let answer = |status, headers: &[(&str, &str)], body: &[u8]| -> Step {
        let answer = Answer::new(status).header("etag", "\"e\"").body(body);
        headers
            .iter()
            .fold(answer, |answer, (name, value)| answer.header(name, *value))
            .closing()
            .into()
    };
    let mut attacks = named(&[
        (
            "length and chunks",
            Step::raw(
                format!(
                    "{OK}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
                ),
                "",
            ),
        ),
        (
            "longer than declared",
            Step::raw(format!("{OK}Content-Length: 3\r\n\r\nabcdefHTTP/1.1 200 OK\r\n\r\n"), ""),
        ),
        (
            "gzip",
            answer(200, &[("content-encoding", "gzip")], &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]),
        ),
        ("deflate of nothing", answer(200, &[("content-encoding", "deflate, gzip, br")], b"")),
        ("a wait of years", answer(503, &[("retry-after", "99999999999999999")], b"")),
        ("a date of long ago", answer(403, &[("date", "Thu, 01 Jan 1970 00:00:00 GMT")], b"")),
        (
            "many of one header",
            Step::raw(format!("{OK}{}Content-Length: 0\r\n\r\n", "A: b\r\n".repeat(90)), ""),
        ),
    ]);
    for status in [
        101, 102, 199, 201, 202, 203, 204, 205, 206, 226, 299, 300, 304, 305, 306, 399, 402, 418,
        451, 499, 505, 599, 600, 999,
    ] {
        attacks.push((format!("status {status}"), answer(status, &[], b"not asked for")));
    }
    each(attacks, |what, _, outcomes| {
        for (call, outcome) in outcomes {
            // It is no document, whatever it is.
            assert!(!matches!(*call, "list" | "orphans") || outcome.is_err(), "{what}, {call}");
            let read = outcome.as_ref().ok().and_then(Option::as_ref);
            let said: [&[u8]; 5] =
                [b"abc", b"not asked for", b"", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], b"abcdef"];
            assert!(
                read.is_none_or(|bytes| said.contains(&&bytes[..])),
                "{what}, {call}: {read:?}"
            );
        }
    });
}

#[test]
fn documents_that_are_bombs_do_not_go_off() {
    let many = if crate::figures::long() { 1_000_000 } else { 50_000 };
    let laughs: String = (1..=9)
        .map(|n| format!("<!ENTITY l{n} \"{}\">", format!("&l{};", n - 1).repeat(10)))
        .collect();
    let doctype = |root: &str, entities: &str, body: &str| {
        format!("<!DOCTYPE {root} [{entities}]><{root}>{body}</{root}>")
    };
    let documents = |root: &str| {
        [
            ("laughs", doctype(root, &format!("<!ENTITY l0 \"ha\">{laughs}"), "<Key>&l9;</Key>")),
            (
                "one long entity",
                doctype(
                    root,
                    &format!("<!ENTITY a \"{}\">", "a".repeat(many)),
                    &"&a;".repeat(many),
                ),
            ),
            (
                "a file",
                doctype(root, "<!ENTITY f SYSTEM \"file:///etc/passwd\">", "<Key>&f;</Key>"),
            ),
            ("an entity that is not there", format!("<{root}><Key>&nowhere;</Key></{root}>")),
            ("no character", format!("<{root}><Key>&#0;&#xFFFFFFFF;</Key></{root}>")),
            ("depth", format!("<{root}>{}", "<a>".repeat(many))),
            (
                "depth that is closed",
                format!("<{root}>{}{}</{root}>", "<a>".repeat(many), "</a>".repeat(many)),
            ),
            ("elements", format!("<{root}>{}</{root}>", "<a/>".repeat(many))),
            (
                "attributes",
                format!(
                    "<{root} {}/>",
                    (0..many / 4).map(|n| format!("a{n}=\"\" ")).collect::<String>()
                ),
            ),
            (
                "the same again",
                format!("<{root}>{}</{root}>", "<IsTruncated>true</IsTruncated>".repeat(many / 10)),
            ),
            ("comments", format!("<{root}>{}</{root}>", "<!---->".repeat(many))),
            ("half of it", format!("<{root}><Contents><Key>a</Key>")),
            ("UTF-16", format!("\u{feff}<?xml version=\"1.0\" encoding=\"UTF-16\"?><{root}/>")),
            ("empty", format!("<{root}/>")),
        ]
    };
    for way in [Way::S3, Way::AzureKey] {
        let roots = match way {
            Way::S3 => ["ListBucketResult", "InitiateMultipartUploadResult", "Error"],
            _ => ["EnumerationResults", "Error", "html"],
        };
        for root in roots {
            for (what, document) in documents(root) {
                let status = if root == "Error" { 400 } else { 200 };
                let answer = Answer::new(status).header("etag", "\"e\"").body(document);
                let what = format!("{root} {what}");
                let outcomes = ask_a_server_that(way, &what, move |request: &Request| {
                    match request.method.as_str() {
                        // Only what reads documents.
                        "GET" | "POST" => answer.clone().into(),
                        _ => Answer::new(404).into(),
                    }
                });
                for (call, outcome) in outcomes {
                    let reads = matches!(call, "list" | "orphans" | "put large");
                    assert!(!reads || outcome.is_err(), "{way:?} {what}, {call}");
                }
            }
        }
    }
}

/// Wherever an answer points, nothing goes there: neither a request nor a connection.
#[test]
fn nobody_is_sent_elsewhere() {
    let elsewhere =
        Server::start(|_: &Request| Step::from(Answer::new(200).header("etag", "\"e\"")));
    let port = elsewhere.port();
    for way in WAYS {
        for place in [
            format!("http://127.0.0.1:{port}/bucket/dir/object"),
            format!("http://localhost:{port}/account/container/dir/object"),
            format!("//127.0.0.1:{port}/"),
            format!("http://user:password@127.0.0.1:{port}/"),
            "https://127.0.0.1:1/".to_owned(),
            "file:///etc/passwd".to_owned(),
            "/bucket/dir/object".to_owned(),
            "\\\\127.0.0.1\\".to_owned(),
        ] {
            for status in [300, 301, 302, 303, 305, 307, 308] {
                let answer = Answer::new(status)
                    .header("location", place.as_str())
                    .header("refresh", format!("0; url={place}"))
                    .body(format!("<Error><Code>TemporaryRedirect</Code><Endpoint>127.0.0.1:{port}</Endpoint></Error>"));
                let outcomes = ask_a_server_that(way, &place, move |_| answer.clone().into());
                for (call, outcome) in outcomes {
                    assert!(outcome.is_err(), "{way:?} {status} {place}, {call}: {outcome:?}");
                }
            }
        }
    }
    assert_eq!((elsewhere.connections(), elsewhere.requests().len()), (0, 0));
}
