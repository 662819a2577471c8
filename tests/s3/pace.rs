//! How fast a store goes on when its server asks for less, and how long it waits when nothing comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use syncline::ErrorKind;

use crate::rig::{PART, Rig, STUCK, URI, http, in_time, is, noise, open_with, s3, settings};
use crate::s3_model::{Fault, Operation, error};
use crate::scripted::{Answer, Request, Server, Step};

use Operation::{Get, Put};

const LONG: Duration = Duration::from_secs(3600);

fn slow_down(seconds: Option<&str>) -> Fault {
    let answer = error(503, "SlowDown");
    Fault::Instead(seconds.map_or(answer.clone(), |s| answer.header("retry-after", s)).into())
}

#[test]
fn the_time_that_the_server_names_is_waited() {
    for fault in [
        slow_down(Some("1")),
        Fault::Instead(error(429, "TooManyRequests").header("retry-after", "1").into()),
    ] {
        let rig = Rig::new();
        rig.fault(Put, 0, fault);
        rig.store.put(URI, b"data").unwrap();
        let puts = rig.requests(Put);
        assert_eq!(puts.len(), 2);
        assert!(puts[1].at - puts[0].at >= Duration::from_secs(1));
    }
}

/// One thread is told to wait: the others wait as well.
#[test]
fn the_store_slows_down_as_a_whole() {
    let rig = Rig::new();
    rig.put("dir/object", b"data");
    let throttled = Arc::new(AtomicBool::new(false));
    let once = Arc::clone(&throttled);
    rig.on_request(move |_, request| {
        (is(request, Put) && !once.swap(true, Ordering::SeqCst)).then(|| slow_down(Some("2")))
    });
    thread::scope(|scope| {
        scope.spawn(|| rig.store.put(URI, b"data").unwrap());
        rig.server().wait_until(|record| record.iter().any(|request| is(request, Put)));
        // Once the refusal has come; until then a read may still go out.
        thread::sleep(Duration::from_millis(300));
        (0..3).for_each(|_| drop(rig.store.get(URI).unwrap()));
    });
    let first = rig.requests(Put)[0].at;
    for get in rig.requests(Get) {
        assert!(get.at - first >= Duration::from_secs(2), "{:?}", get.at - first);
    }
}

/// Also without a second attempt the store has learned that it is too fast.
#[test]
fn the_last_attempt_slows_the_store_too() {
    let rig = Rig::with(|s3| s3, |s| s.http(http().attempts_max(1)));
    rig.fault(Put, 0, slow_down(Some("1")));
    rig.store.put(URI, b"data").unwrap_err();
    rig.store.put(URI, b"data").unwrap();
    let puts = rig.requests(Put);
    assert!(puts[1].at - puts[0].at >= Duration::from_secs(1));
}

#[test]
fn requests_of_a_throttled_store_start_apart() {
    let rig = Rig::new();
    rig.fault(Put, 0, slow_down(None));
    rig.store.put(URI, b"data").unwrap();
    rig.unhook();
    for _ in 0..5 {
        rig.store.put(URI, b"data").unwrap();
    }
    // The interval is 20 ms after one such answer, and shrinks by a tenth with each success.
    let puts = rig.requests(Put);
    for pair in puts[1..].windows(2) {
        assert!(pair[1].at - pair[0].at >= Duration::from_millis(5));
    }
}

/// A time beyond the deadline is not waited: the caller is told now.
#[test]
fn a_time_beyond_the_deadline_is_an_error_at_once() {
    for seconds in
        ["3600", "18446744073709551615", "99999999999999999999999", "Thu, 01 Jan 2099 00:00:00 GMT"]
    {
        let rig = Rig::new();
        rig.fault_always(Put, slow_down(Some(seconds)));
        let store = Arc::clone(&rig.store);
        let failed = in_time(move || store.put(URI, b"data").unwrap_err());
        assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed}");
        if seconds != "99999999999999999999999" {
            assert_eq!(failed.attempts(), 1);
            assert_eq!(rig.operations(), [Put]);
        }
    }
}

/// Every call returns within a multiple of the timeout when the server says nothing.
#[test]
fn every_call_ends_when_the_server_hangs() {
    let quiet: [fn(&Request) -> Step; 3] = [
        |_| Step::Hang(LONG),
        |_| Answer::new(200).header("content-length", "10").hang_after(0, LONG).into(),
        // Now and then a byte: no connection stands still, and nothing comes of it.
        |_| {
            Answer::new(200).body(vec![b' '; 1 << 20]).trickle(1, Duration::from_millis(100)).into()
        },
    ];
    type Call = fn(&dyn syncline::ObjectStore) -> syncline::Result<()>;
    let calls: [(&str, Call); 10] = [
        ("get", |store| store.get(URI).map(drop)),
        ("stat", |store| store.stat(URI).map(drop)),
        ("put", |store| store.put(URI, b"x").map(drop)),
        ("create", |store| {
            store.put_with(URI, b"x", syncline::WriteOptions::default().create_only()).map(drop)
        }),
        ("put large", |store| store.put(URI, &noise(PART + 1, 1)).map(drop)),
        ("list", |store| store.list(URI)?.collect::<syncline::Result<Vec<_>>>().map(drop)),
        ("delete", |store| store.delete(URI)),
        ("delete prefix", |store| store.delete_prefix(URI).map(drop)),
        ("orphans", |store| store.orphans(URI, Duration::ZERO).map(drop)),
        ("block checksums", |store| store.block_checksums(URI, 1000).map(drop)),
    ];
    for (how, quiet) in quiet.into_iter().enumerate() {
        thread::scope(|scope| {
            for (name, call) in calls {
                scope.spawn(move || {
                    let server = Server::start(quiet);
                    let timeout = Duration::from_secs(1);
                    let store = open_with(
                        settings()
                            .s3(s3(&server.endpoint()))
                            .timeout(timeout)
                            .shutdown_timeout(STUCK)
                            .http(http().response_timeout(Duration::from_millis(700))),
                    );
                    let began = Instant::now();
                    let outcome = call(&*store);
                    let took = began.elapsed();
                    // HEAD has no body that could fail to come.
                    let by_head = how > 0 && ["stat", "delete"].contains(&name);
                    assert!(outcome.is_err() || by_head, "{name} {how}");
                    if let Err(failed) = outcome.as_ref().map_err(|e| e.kind()) {
                        let kinds = [ErrorKind::TimedOut, ErrorKind::Unavailable];
                        assert!(kinds.contains(&failed), "{name} {how}: {outcome:?}");
                    }
                    assert!(took < 30 * timeout, "{name} {how} took {took:?}");
                    in_time(move || drop(store));
                });
            }
        });
    }
}

/// A server that nobody has ever reached is given up soon, and the address is named.
#[test]
fn a_closed_port_is_told_soon() {
    let port = Server::start(|_: &Request| Step::Close).port();
    let store = open_with(
        settings().s3(s3(&format!("http://127.0.0.1:{port}"))).http(syncline::HttpConfig::new()),
    );
    for failed in [store.put(URI, b"x").unwrap_err(), store.get(URI).unwrap_err()] {
        assert_eq!((failed.kind(), failed.attempts()), (ErrorKind::Unavailable, 3), "{failed}");
        crate::rig::assert_says(&failed, &[&format!("127.0.0.1:{port}"), "check the endpoint"]);
    }
}
