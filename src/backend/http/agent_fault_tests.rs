//! What goes wrong, and what is said about it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ::http::Method;

use crate::HttpConfig;
use crate::backend::http::agent_tests::{agent, get, put, request};
use crate::backend::http::test_server::*;
use crate::backend::http::{Body, HttpAgent, Sink, Stage, Transport, TransportError};
use crate::time::Deadline;

const MIB: usize = 1024 * 1024;
const DENIED: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\ndenied";
/// More than all buffers between client and server hold.
const LARGE_BYTES: usize = 48 * MIB;

/// Takes some of a request, as a server does that does not want the rest.
fn take_some(stream: &mut impl Read) {
    stream.read_exact(&mut [0; 100 * 1024]).unwrap();
}

/// Closes with a reset instead of a polite end: so does the kernel where bytes are left unread.
fn reset(stream: TcpStream) {
    stream.peek(&mut [0]).unwrap();
}

fn said(error: &TransportError, stage: Stage, timed_out: bool, words: &str) {
    assert_eq!((error.stage, error.timed_out), (stage, timed_out), "{error:?}");
    assert!(error.detail.contains(words), "{error:?} does not say {words:?}");
}

#[test]
fn an_answer_before_the_end_of_the_body_is_read_and_the_connection_closed() {
    let agent = agent();
    let address = serve(|mut stream, _| {
        take_some(&mut stream);
        stream.write_all(DENIED.as_bytes()).unwrap();
        reset(stream);
    });
    let body = pattern(LARGE_BYTES, 1);
    for round in 1..=10 {
        let answer = put(&agent, &format!("http://{address}/k"), &body).unwrap();
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (403, &b"denied"[..]));
        assert_eq!(agent.connections_opened(), round, "a connection in an unknown state is reused");
    }
}

#[test]
fn an_answer_of_a_server_that_stops_reading_is_read_at_once() {
    let agent = agent();
    let (done, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let address = serve(move |mut stream, _| {
        take_some(&mut stream);
        stream.write_all(DENIED.as_bytes()).unwrap();
        // Neither reads nor closes until the test is over.
        let _ = wait.lock().unwrap().recv();
    });
    let body = pattern(LARGE_BYTES, 1);
    let started = Instant::now();
    let answer = put(&agent, &format!("http://{address}/k"), &body).unwrap();
    assert_eq!(answer.status.as_u16(), 403);
    assert!(started.elapsed() < Duration::from_secs(30), "waited for the server to read on");
    drop(done);
}

#[test]
fn a_success_told_early_does_not_end_the_body() {
    let agent = agent();
    let address = serve(|mut stream, _| {
        while let Some(head) = read_head(&mut stream) {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n").unwrap();
            std::thread::sleep(Duration::from_millis(20));
            let arrived = read_request(&mut head.as_bytes().chain(&mut stream)).unwrap();
            stream.write_all(format!("{:8}", arrived.body.len()).as_bytes()).unwrap();
        }
    });
    let body = pattern(LARGE_BYTES, 1);
    for _ in 0..2 {
        let answer = put(&agent, &format!("http://{address}/k"), &body).unwrap();
        assert_eq!(answer.body, LARGE_BYTES.to_string().as_bytes());
    }
    assert_eq!(agent.connections_opened(), 1);
}

#[test]
fn early_answers_are_read_under_tls() {
    let authority = Authority::new("127.0.0.1");
    let http = HttpConfig::new().ca_file(&authority.ca_file);
    let agent = HttpAgent::new(&http.response_timeout(Duration::from_millis(500)), 2).unwrap();
    let (done, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = authority.server();
    let address = serve(move |stream, number| {
        let mut stream = server.accept(stream);
        take_some(&mut stream);
        stream.write_all(DENIED.as_bytes()).unwrap();
        stream.flush().unwrap();
        match number {
            0 => reset(stream.sock),
            _ => drop(wait.lock().unwrap().recv()),
        }
    });
    let body = pattern(LARGE_BYTES, 1);
    for _ in 0..2 {
        let answer = put(&agent, &format!("https://{address}/k"), &body).unwrap();
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (403, &b"denied"[..]));
    }
    assert_eq!(agent.connections_opened(), 2);
    drop(done);
}

#[test]
fn a_reset_without_an_answer_is_told_as_of_sending() {
    let address = serve(|mut stream, _| {
        take_some(&mut stream);
        reset(stream);
    });
    let body = pattern(LARGE_BYTES, 1);
    let error = put(&agent(), &format!("http://{address}/k?secret"), &body).unwrap_err();
    said(&error, Stage::Send, false, &format!("{address}: connection reset"));
    assert!(!error.detail.contains("secret"));

    let address = serve(|mut stream, _| drop(read_request(&mut stream)));
    let error = get(&agent(), address).unwrap_err();
    said(&error, Stage::Send, false, "closed without an answer");
}

#[test]
fn a_server_that_does_not_read_times_out() {
    let (done, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let address = serve(move |_stream, _| {
        let _ = wait.lock().unwrap().recv();
    });
    let body = pattern(LARGE_BYTES, 1);
    let uri = format!("http://{address}/k");
    let mut idle = request(Method::PUT, &uri, Body::of(&body));
    idle.idle_timeout = Some(Duration::from_millis(200));
    let error = agent().send(&idle, Sink::Collect { bytes_max: 0 }).unwrap_err();
    said(&error, Stage::Send, true, "nothing could be sent for 200ms");
    drop(done);
}

#[test]
fn what_comes_of_a_cut_answer_is_never_taken_for_all_of_it() {
    let full = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\nabc";
    let cuts = [full.to_owned() + &"x".repeat(99), full.to_owned(), full[..20].to_owned()];
    for cut in cuts.into_iter().chain([chunks.to_owned()]) {
        let error = get(&agent(), answering(cut.clone())).unwrap_err();
        said(&error, Stage::Receive, false, "closed before the answer was complete");
        let address = answering(cut);
        let uri = format!("http://{address}/k");
        let request = request(Method::GET, &uri, Body::default());
        let error = agent().send(&request, Sink::Into(&mut [0; 4096])).unwrap_err();
        said(&error, Stage::Receive, false, "closed before the answer was complete");
    }
}

#[test]
fn a_reset_within_an_answer_is_an_error_also_where_no_length_is_told() {
    for head in ["HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", "HTTP/1.1 200 OK\r\n\r\nabc"]
    {
        let address = serve(move |mut stream, _| {
            read_head(&mut stream);
            stream.write_all(head.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(50));
            reset(stream);
        });
        // The body is not read by the server, so that closing resets.
        let error = put(&agent(), &format!("http://{address}/k"), b"body").unwrap_err();
        said(&error, Stage::Receive, false, "reset");
    }
}

#[test]
fn an_error_with_half_a_body_is_still_an_answer() {
    let head = "HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\n<Code>NoSuchKey</Code>";
    let answer = get(&agent(), answering(head)).unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body[..22]), (404, &b"<Code>NoSuchKey</Code>"[..]));
    let long =
        "HTTP/1.1 500 Broken\r\nContent-Length: 100000\r\n\r\n".to_owned() + &"x".repeat(100_000);
    let answer = get(&agent(), answering(long)).unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.len()), (500, 64 * 1024));
}

#[test]
fn the_deadline_ends_an_answer_that_dribbles() {
    let address = serve(|mut stream, _| {
        read_request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let uri = format!("http://{address}/k");
    let mut request = request(Method::GET, &uri, Body::default());
    let started = Instant::now();
    request.deadline = Deadline::after(Duration::from_millis(300));
    let error = agent().send(&request, Sink::Collect { bytes_max: MIB }).unwrap_err();
    assert!(error.timed_out && error.stage == Stage::Receive, "{error:?}");
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert!(started.elapsed() < Duration::from_secs(30));
    let error = agent().send(&request, Sink::Collect { bytes_max: MIB }).unwrap_err();
    said(&error, Stage::Connect, true, "no time is left");
}

#[test]
fn an_answer_that_stands_still_ends_after_the_idle_time() {
    for tls in [false, true] {
        let authority = Authority::new("127.0.0.1");
        let (done, wait) = mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let server = authority.server();
        let address = serve(move |stream, _| {
            let mut stream: Box<dyn Stream> =
                if tls { Box::new(server.accept(stream)) } else { Box::new(stream) };
            read_request(&mut stream);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx");
            let _ = wait.lock().unwrap().recv();
        });
        let http = HttpConfig::new().ca_file(&authority.ca_file);
        let agent = HttpAgent::new(&http.response_timeout(Duration::from_millis(200)), 1).unwrap();
        let uri = format!("http{}://{address}/k", if tls { "s" } else { "" });
        let mut request = request(Method::GET, &uri, Body::default());
        request.deadline = Deadline::after(Duration::MAX);
        let error = agent.send(&request, Sink::Collect { bytes_max: MIB }).unwrap_err();
        said(&error, Stage::Receive, true, "nothing could be received for 200ms");
        drop(done);
    }
}

#[test]
fn what_is_not_http_is_not_an_answer() {
    for nonsense in ["SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "\0\0\0\0\r\n\r\n"] {
        let error = get(&agent(), answering(nonsense)).unwrap_err();
        said(&error, Stage::Receive, false, "not an answer in HTTP");
    }
}

#[test]
fn heads_without_end_are_refused() {
    for line in ["X: y\r\n".to_owned(), format!("X: {}\r\n", "y".repeat(4000)), "y".repeat(4000)] {
        let address = serve(move |mut stream, _| {
            read_request(&mut stream);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: y");
            while stream.write_all(line.as_bytes()).is_ok() {}
        });
        let error = get(&agent(), address).unwrap_err();
        assert_eq!((error.stage, error.timed_out), (Stage::Receive, false), "{error:?}");
    }
}

/// A server that sends `start`, and then `more` until nobody listens.
fn flooding(start: &'static str, more: &'static str) -> std::net::SocketAddr {
    serve(move |mut stream, _| {
        take_head(&mut stream);
        let more = more.repeat(2000);
        let _ = stream.write_all(start.as_bytes());
        while stream.write_all(more.as_bytes()).is_ok() {}
    })
}

/// Takes the head of a request and leaves its body.
fn take_head(stream: &mut impl Read) {
    read_head(stream);
}

/// Neither time nor memory without end, however fast it comes.
#[test]
fn floods_that_are_no_body_end() {
    let authority = Authority::new("127.0.0.1");
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    const CHUNK: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n";
    let body = pattern(LARGE_BYTES, 1);
    for (start, more) in [
        ("", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
        ("", "HTTP/1.1 102 Processing\r\n"),
        ("HTTP/1.1 200 ", "OK"),
        (CHUNKED, "0"),
        (CHUNKED, "1;x=y"),
        (CHUNKED, "\r"),
        (CHUNK, "trailer: x\r\n"),
        (CHUNK, "trailer"),
    ] {
        for body in [&[][..], &body] {
            for tls in [false, true] {
                let server = authority.server();
                let address = match tls {
                    false => flooding(start, more),
                    true => serve(move |stream, _| {
                        let mut stream = server.accept(stream);
                        take_head(&mut stream);
                        let more = more.repeat(2000);
                        let _ = stream.write_all(start.as_bytes());
                        while stream.write_all(more.as_bytes()).is_ok() {}
                    }),
                };
                let http = HttpConfig::new().ca_file(&authority.ca_file);
                let http = http.response_timeout(Duration::from_secs(1));
                let agent = HttpAgent::new(&http, 1).unwrap();
                let scheme = if tls { "https" } else { "http" };
                let uri = format!("{scheme}://{address}/k");
                let mut request = request(Method::PUT, &uri, Body::of(body));
                request.deadline = Deadline::after(Duration::from_secs(2));
                let sink = Sink::Collect { bytes_max: MIB };
                let what = format!("{start:?} {more:?} {} {tls}", body.len());
                let error = agent.send(&request, sink).expect_err(&what);
                assert!(matches!(error.stage, Stage::Receive | Stage::Send), "{what}: {error:?}");
            }
        }
    }
}

#[test]
fn an_answer_longer_than_its_place_is_refused_and_its_connection_closed() {
    let agent = agent();
    let address = serve(|mut stream, number| {
        while read_request(&mut stream).is_some() {
            let head: &[u8] = match number % 3 {
                0 => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
                1 => {
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"
                }
                _ => b"HTTP/1.1 200 OK\r\n\r\nabcde",
            };
            stream.write_all(head).unwrap();
            if number % 3 == 2 {
                return;
            }
        }
    });
    let uri = format!("http://{address}/k");
    let request = request(Method::GET, &uri, Body::default());
    for opened in 1..=6 {
        let sink = match opened > 3 {
            true => Sink::Into(&mut [0; 4]),
            false => Sink::Collect { bytes_max: 4 },
        };
        let error = agent.send(&request, sink).unwrap_err();
        said(&error, Stage::Receive, false, "longer than 4 bytes");
        assert_eq!(agent.connections_opened(), opened);
    }
    let mut exact = [0; 5];
    assert_eq!(agent.send(&request, Sink::Into(&mut exact)).unwrap().filled_bytes, 5);
    assert_eq!(&exact, b"abcde");
}

#[test]
fn bytes_that_nobody_asked_for_end_a_connection() {
    let agent = agent();
    let address = serve(|mut stream, _| {
        read_request(&mut stream);
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(format!("{answer}{DENIED}").as_bytes()).unwrap();
        let _ = stream.read(&mut [0]);
    });
    for opened in 1..=3 {
        assert_eq!(get(&agent, address).unwrap().body, b"ok");
        assert_eq!(agent.connections_opened(), opened);
    }
}

#[test]
fn a_connection_that_the_server_closed_while_idle_is_not_used() {
    let agent = agent();
    let (closed, is_closed) = mpsc::channel();
    let address = serve(move |mut stream, _| {
        read_request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        drop(stream);
        closed.send(()).unwrap();
    });
    for opened in 1..=5 {
        get(&agent, address).unwrap();
        is_closed.recv().unwrap();
        assert_eq!(agent.connections_opened(), opened);
    }
}

#[test]
fn certificates_are_verified() {
    let (ours, other) = (Authority::new("127.0.0.1"), Authority::new("other.example"));
    let serve_tls = |server: TlsServer| serve(move |stream, _| echo(server.accept(stream)));
    let to = |address| format!("https://{address}/k");
    let http = HttpConfig::new();
    let trusting = HttpAgent::new(&http.clone().ca_file(&ours.ca_file), 1).unwrap();
    put(&trusting, &to(serve_tls(ours.server())), b"x").unwrap();

    let address = serve_tls(other.server());
    let error = put(&trusting, &to(address), b"x").unwrap_err();
    said(&error, Stage::Tls, false, &format!("{address}: invalid peer certificate"));
    let error = put(&agent(), &to(serve_tls(ours.server())), b"x").unwrap_err();
    said(&error, Stage::Tls, false, "UnknownIssuer");
    let misnamed = HttpAgent::new(&http.ca_file(&other.ca_file), 1).unwrap();
    let error = put(&misnamed, &to(serve_tls(other.server())), b"x").unwrap_err();
    said(&error, Stage::Tls, false, "not valid for name");
}

#[test]
fn handshakes_that_fail_by_the_connection_may_be_tried_again() {
    let address = serve(|mut stream, _| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        let _ = stream.read(&mut [0; 4096]);
    });
    let error = put(&agent(), &format!("https://{address}/k"), b"x").unwrap_err();
    assert_eq!(error.stage, Stage::Tls, "{error:?}: speaks no TLS");
    let address = serve(|stream, _| drop(stream));
    let error = put(&agent(), &format!("https://{address}/k"), b"x").unwrap_err();
    assert_eq!((error.stage, error.timed_out), (Stage::Connect, false), "{error:?}");
    let address = serve(|_stream, _| std::thread::sleep(Duration::from_secs(60)));
    let http = HttpConfig::new().connect_timeout(Duration::from_millis(200));
    let agent = HttpAgent::new(&http, 1).unwrap();
    let error = put(&agent, &format!("https://{address}/k"), b"x").unwrap_err();
    assert_eq!((error.stage, error.timed_out), (Stage::Connect, true), "{error:?}");
}

#[test]
fn names_and_ports_that_lead_nowhere_are_named() {
    let error = put(&agent(), "http://no-such-name.invalid:9000/k", b"").unwrap_err();
    said(&error, Stage::Resolve, false, "no-such-name.invalid:9000: ");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = get(&agent(), address).unwrap_err();
    said(&error, Stage::Connect, false, &format!("{address}: connection refused"));
    assert_eq!(error.detail, format!("{address}: connection refused"));
}

#[test]
fn a_proxy_that_refuses_is_named_without_its_password() {
    let refusal = "HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n";
    for answer in [refusal, "", "nonsense\r\n\r\n"] {
        let proxy = answering(answer);
        let http = HttpConfig::new().proxy(&format!("http://user:secret@{proxy}"));
        let agent = HttpAgent::new(&http, 1).unwrap();
        let error = put(&agent, "http://target.example/k", b"x").unwrap_err();
        assert_eq!((error.stage, error.timed_out), (Stage::Connect, false), "{error:?}");
        assert!(!format!("{error:?} {agent:?}").contains("secret"));
    }
}
