//! The scripted server, seen from a bare socket.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::scripted::{Answer, Queue, Request, Server, Step, decode};

const SECOND: Duration = Duration::from_secs(1);

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    stream.set_read_timeout(Some(60 * SECOND)).unwrap();
    stream
}

fn send(mut stream: &TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
}

/// Reads until `end` has come.
fn read_until(mut stream: &TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{:?}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// Everything up to the end, and how the connection ended.
fn read_to_end(mut stream: &TcpStream) -> (String, Option<ErrorKind>) {
    let mut text = Vec::new();
    let end = stream.read_to_end(&mut text).err().map(|e| e.kind());
    (String::from_utf8(text).unwrap(), end)
}

const GET: &str = "GET /b/a%20k?x=%2F1&flag HTTP/1.1\r\nHost: h\r\nX-A:  b \r\n\r\n";
const PUT: &str = "PUT /b/k HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello";

#[test]
fn a_connection_is_kept_and_everything_is_recorded() {
    let server = Server::start(|request: &Request| {
        Answer::new(200).header("x-method", &request.method).body(request.body.clone()).into()
    });
    let stream = connect(&server);
    send(&stream, GET);
    read_until(&stream, "x-method: GET\r\ncontent-length: 0\r\n\r\n");
    send(&stream, PUT);
    read_until(&stream, "content-length: 5\r\n\r\nhello");
    send(
        &stream,
        "PUT /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x\r\nlo\r\n0\r\n\r\n",
    );
    read_until(&stream, "\r\n\r\nhello");
    send(&stream, "HEAD /b HTTP/1.1\r\nconnection: close\r\n\r\n");
    assert_eq!(read_to_end(&stream).1, None);

    let requests = server.requests();
    assert_eq!((server.connections(), requests.len()), (1, 4));
    let get = &requests[0];
    assert_eq!((&*get.method, &*get.path, &*get.query), ("GET", "/b/a%20k", "x=%2F1&flag"));
    assert_eq!((get.header("x-a"), get.param("x")), (Some("b"), Some("/1".to_owned())));
    assert_eq!((get.param("flag"), get.param("y")), (Some(String::new()), None));
    assert_eq!(decode("%41%zz%"), "A%zz%");
    for put in &requests[1..3] {
        assert_eq!((&*put.body, put.body_bytes, put.body_crc32c), (&b"hello"[..], 5, 0x9a71_bb4c));
    }
}

#[test]
fn large_bodies_are_recorded_by_their_checksum() {
    let server = Server::start(|_: &Request| Answer::new(200).into());
    let stream = connect(&server);
    send(
        &stream,
        &format!("PUT / HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n{}", "a".repeat(1_000_000)),
    );
    read_until(&stream, "\r\n\r\n");
    let request = &server.requests()[0];
    assert_eq!((request.body.len(), request.body_bytes), (0, 1_000_000));
    assert_ne!(request.body_crc32c, 0);
}

#[test]
fn answers_end_as_they_are_told_to() {
    let answer = || Answer::new(200).body("0123456789");
    let server = Server::start(
        Queue::new([])
            .then(answer().truncate(4))
            .then(answer().reset_after(4))
            .then(answer().chunked().trickle(4, Duration::from_millis(1)).closing())
            .then(answer().chunked().truncate(8))
            .then(Step::Close)
            .then(Step::Reset)
            .then(answer().header("content-length", "99").closing()),
    );
    let get = || {
        let stream = connect(&server);
        send(&stream, GET);
        let (text, end) = read_to_end(&stream);
        (text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()), end)
    };
    let some = |text: &str| Some(text.to_owned());
    let reset = Some(ErrorKind::ConnectionReset);
    assert_eq!(get(), (some("0123"), None));
    let (body, end) = get();
    assert_eq!(end, reset);
    assert!(body.is_none_or(|body| "0123".starts_with(&body)), "a reset may overtake the body");
    assert_eq!(get(), (some("4\r\n0123\r\n4\r\n4567\r\n2\r\n89\r\n0\r\n\r\n"), None));
    assert_eq!(get(), (some("8\r\n01234567\r\n"), None));
    assert_eq!(get(), (None, None));
    assert_eq!(get(), (None, reset));
    assert_eq!(get(), (some("0123456789"), None));
    let exhausted = connect(&server);
    send(&exhausted, GET);
    assert!(read_until(&exhausted, "no further step").starts_with("HTTP/1.1 500 "));
}

#[test]
fn early_answers_do_not_wait_for_the_body() {
    let early = Answer::new(503).body("early");
    let server = Server::start(
        Queue::new([])
            .then_at_head(early.clone().draining())
            .then(Answer::new(200).body("late"))
            .then_at_head(early)
            .then_at_head(Step::Reset),
    );
    let head = "PUT /b HTTP/1.1\r\ncontent-length: 5\r\n\r\n";
    let stream = connect(&server);
    send(&stream, head);
    read_until(&stream, "early");
    send(&stream, "hello");
    send(&stream, GET);
    read_until(&stream, "late");
    send(&stream, head);
    read_until(&stream, "early");
    assert!(read_to_end(&stream).0.is_empty(), "the connection ends");
    let stream = connect(&server);
    send(&stream, head);
    assert_eq!(read_to_end(&stream).1, Some(ErrorKind::ConnectionReset));
    let bytes: Vec<u64> = server.requests().iter().map(|request| request.body_bytes).collect();
    assert_eq!(bytes, [5, 0, 0, 0]);
}

#[test]
fn a_client_that_asks_before_it_sends_is_told() {
    let server = Server::start(Queue::new([Answer::new(200).body("got it").into()]));
    let stream = connect(&server);
    send(&stream, "PUT /b HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    read_until(&stream, "HTTP/1.1 100 Continue\r\n\r\n");
    send(&stream, "hello");
    read_until(&stream, "got it");
}

#[test]
fn pauses_are_kept_but_not_beyond_the_servers_end() {
    let pause = Duration::from_millis(50);
    let server = Server::start(
        Queue::new([])
            .then(Answer::new(200).after(pause).body("a").body_after(pause))
            .then(Step::Hang(pause))
            .then(Step::Hang(10_000 * SECOND)),
    );
    let stream = connect(&server);
    let started = Instant::now();
    send(&stream, GET);
    read_until(&stream, "\r\n\r\na");
    assert!(started.elapsed() >= 2 * pause);
    send(&stream, GET);
    assert_eq!(read_to_end(&stream), (String::new(), None));
    assert!(started.elapsed() >= 3 * pause);
    let hanging = connect(&server);
    send(&hanging, GET);
    server.wait_until(|requests| requests.len() == 3);
    assert!(server.open_connections() >= 1);
    drop(server);
    assert_eq!(read_to_end(&hanging).0, "");
}
