//! Ranges that are not those asked for, and objects that change between two of them.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use syncline::ErrorKind;

use crate::data::noise;
use crate::rig::{PART, WAYS, assert_tame};
use crate::scripted::{Answer, Request, Server, Step};

const BYTES: usize = 2 * PART + 7;

/// What a server that keeps to the protocol answers to a GET of a range.
fn right(request: &Request, data: &[u8]) -> Answer {
    let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")).unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let end = data.len().min(last.parse::<usize>().unwrap() + 1);
    Answer::new(206)
        .header("etag", "\"e\"")
        .header("content-range", format!("bytes {first}-{}/{}", end - 1, data.len()))
        .body(&data[first..end])
}

type Change = fn(Answer) -> Answer;

fn with_status(mut answer: Answer, status: u16) -> Answer {
    answer.status = status;
    answer
}

fn changed_body(answer: Answer, change: impl FnOnce(&mut Vec<u8>)) -> Answer {
    let mut body = answer.body.to_vec();
    change(&mut body);
    answer.body(body)
}

fn shifted(answer: Answer, by: i64) -> Answer {
    let text = answer.headers.iter().find(|(name, _)| name == "content-range").unwrap().1.clone();
    let (range, size) = text.trim_start_matches("bytes ").split_once('/').unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let [first, last] = [first, last].map(|n| n.parse::<i64>().unwrap() + by);
    answer.header("content-range", format!("bytes {first}-{last}/{size}"))
}

/// What is wrong with an answer, and whether it is another version rather than nonsense.
const WRONG: [(&str, bool, Change); 16] = [
    ("no range", false, |a| a.without_header("content-range")),
    ("garbage", false, |a| a.header("content-range", "bytes what?")),
    ("another unit", false, |a| a.header("content-range", "lines 0-65535/10485767")),
    ("a size that is not told", false, |a| a.header("content-range", "bytes 0-65535/*")),
    ("numbers beyond numbers", false, |a| {
        a.header("content-range", "bytes 0-65535/99999999999999999999")
    }),
    ("a range backwards", false, |a| a.header("content-range", "bytes 65535-0/10485767")),
    ("a byte later", false, |a| shifted(a, 1)),
    ("a part later", false, |a| shifted(a, PART as i64)),
    ("short", false, |a| changed_body(a, |body| body.truncate(body.len() - 1))),
    ("long", false, |a| changed_body(a, |body| body.push(0))),
    ("very long", false, |a| changed_body(a, |body| body.resize(32 << 20, 0))),
    ("empty", false, |a| changed_body(a, Vec::clear)),
    ("the whole", false, |a| with_status(a, 200)),
    ("no content", false, |a| with_status(a, 204)),
    ("not modified", false, |a| with_status(a, 304)),
    ("another version", true, |a| a.header("etag", "\"other\"")),
];

#[test]
fn answers_that_are_not_the_range_are_refused() {
    let data = noise(BYTES, 1);
    for way in WAYS {
        for (what, is_version, change) in WRONG {
            // At the opening, and with each piece after it.
            for nth in 0..3 {
                if nth == 0 && (is_version || what == "the whole") {
                    continue;
                }
                let (gets, content) = (AtomicUsize::new(0), data.clone());
                let server = Server::start(move |request: &Request| -> Step {
                    if request.method != "GET" {
                        return Answer::new(404).into();
                    }
                    let answer = right(request, &content);
                    if gets.fetch_add(1, Relaxed) == nth {
                        change(answer).into()
                    } else {
                        answer.into()
                    }
                });
                let store = way.open(&server);
                let what = format!("{way:?} {what} {nth}");
                let error = store.get(&way.uri()).map(|bytes| bytes.len()).expect_err(&what);
                let kind = if is_version { ErrorKind::Conflict } else { ErrorKind::Unavailable };
                assert_eq!(error.kind(), kind, "{what}: {error}");
                assert_tame(&what, &error);
                crate::figures::add("hostile answers", 1);
                assert!(store.get(&way.uri()).unwrap() == data, "{what}: it does not recover");
            }
        }
    }
}

/// The total of a later answer is another one: the object is of two sizes.
#[test]
fn a_size_that_changes_between_ranges_is_no_object() {
    let data = noise(BYTES, 2);
    for way in WAYS {
        let (gets, content) = (AtomicUsize::new(0), data.clone());
        let server = Server::start(move |request: &Request| -> Step {
            let answer = right(request, &content);
            let total = format!("/{}", content.len());
            let range =
                answer.headers.iter().find(|(name, _)| name == "content-range").unwrap().1.clone();
            match gets.fetch_add(1, Relaxed) {
                0 => answer.into(),
                n => answer
                    .header(
                        "content-range",
                        range.replace(&total, &format!("/{}", content.len() + n)),
                    )
                    .into(),
            }
        });
        let error =
            way.open(&server).get(&way.uri()).map(|bytes| bytes.len()).expect_err("two sizes");
        assert!(matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Unavailable), "{error}");
    }
}

/// Sizes that nothing could hold: the memory is not asked for before it is needed, or refused.
#[test]
fn sizes_that_nothing_holds_are_refused() {
    for way in WAYS {
        for size in [1 << 62, i64::MAX as u64, u64::MAX - 1, u64::MAX] {
            let server = Server::start(move |request: &Request| -> Step {
                let length = if request.method == "HEAD" { size } else { 65536 };
                let answer = Answer::new(if request.method == "HEAD" { 200 } else { 206 });
                let answer = answer
                    .header("etag", "\"e\"")
                    .header("content-length", length.to_string())
                    .header("content-range", format!("bytes 0-65535/{size}"));
                answer.body(vec![7; 65536]).into()
            });
            let store = way.open(&server);
            let error = store.get(&way.uri()).map(|bytes| bytes.len()).expect_err("it has no end");
            assert_tame(&format!("{way:?} {size}"), &error);
            let mut buffer = [0; 16];
            // What such an object begins with can be read, if there can be one.
            assert_eq!(
                store.read_into(&way.uri(), 0, &mut buffer).is_ok(),
                size <= i64::MAX as u64
            );
            assert!(store.read_into(&way.uri(), size - 16, &mut buffer).is_err());
            assert!(store.read_into(&way.uri(), u64::MAX, &mut buffer).is_err());
        }
    }
}
