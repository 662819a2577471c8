//! What arrives, over every way a request can take.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Method, Uri};

use crate::HttpConfig;
use crate::backend::http::test_server::*;
use crate::backend::http::{Answer, Body, HttpAgent, Request, Sink, Transport, TransportError};
use crate::error::ErrorKind;
use crate::time::Deadline;

const MIB: usize = 1024 * 1024;

pub fn agent() -> HttpAgent {
    HttpAgent::new(&HttpConfig::new(), 8).unwrap()
}

pub fn request<'a>(method: Method, uri: &str, body: Body<'a>) -> Request<'a> {
    Request {
        method,
        uri: uri.parse().unwrap(),
        headers: HeaderMap::new(),
        body,
        deadline: Deadline::after(Duration::from_secs(60)),
        idle_timeout: None,
        progress: None,
    }
}

pub fn get(agent: &HttpAgent, address: SocketAddr) -> Result<Answer, TransportError> {
    let uri = format!("http://{address}/key");
    agent.send(&request(Method::GET, &uri, Body::default()), Sink::Collect { bytes_max: MIB })
}

pub fn put(agent: &HttpAgent, uri: &str, body: &[u8]) -> Result<Answer, TransportError> {
    agent.send(&request(Method::PUT, uri, Body::of(body)), Sink::Collect { bytes_max: MIB })
}

/// Puts the pieces to an echoing server and compares what comes back.
fn echoes(agent: &HttpAgent, uri: &str, headers: &HeaderMap, pieces: &[&[u8]]) {
    let body = Body { first: pieces[0], more: &pieces[1..] };
    let mut echoed = vec![0; pieces.concat().len()];
    let mut request = request(Method::PUT, uri, body);
    request.headers = headers.clone();
    let answer = agent.send(&request, Sink::Into(&mut echoed)).unwrap();
    assert_eq!((answer.status.as_u16(), answer.filled_bytes), (200, echoed.len()));
    assert!(echoed == pieces.concat(), "{} bytes over {uri} differ", echoed.len());
}

/// Bodies of all sizes, in one piece and in several. Returns the bytes sent.
fn all_bodies(agent: &HttpAgent, uri: &str, headers: &HeaderMap) -> u64 {
    let mut sent = 0;
    for bytes in [0, 1, MIB - 1, MIB, MIB + 1, 16 * MIB + 3] {
        let data = pattern(bytes, bytes as u64 + 1);
        echoes(agent, uri, headers, &[&data]);
        let (a, b) = data.split_at(bytes / 3);
        let (b, c) = b.split_at(b.len() / 2);
        echoes(agent, uri, headers, &[a, &[], b, c, &[]]);
        sent += 2 * bytes as u64;
    }
    sent
}

#[test]
fn bodies_over_plain_tcp_arrive_without_a_copy() {
    let agent = agent();
    let uri = format!("http://{}/key", serve(|stream, _| echo(stream)));
    all_bodies(&agent, &uri, &HeaderMap::new());
    assert_eq!(agent.copied_bytes(), 0);
    assert_eq!(agent.connections_opened(), 1);
}

#[test]
fn bodies_in_chunks_arrive_as_they_are() {
    let agent = agent();
    let uri = format!("http://{}/key", serve(|stream, _| echo(stream)));
    let chunked = [("transfer-encoding".parse().unwrap(), HeaderValue::from_static("chunked"))];
    let sent = all_bodies(&agent, &uri, &chunked.into_iter().collect());
    assert_eq!(agent.copied_bytes(), sent);
}

#[test]
fn bodies_over_tls_arrive_as_they_are() {
    let authority = Authority::new("127.0.0.1");
    let server = authority.server();
    let address = serve(move |stream, _| echo(server.accept(stream)));
    let agent = HttpAgent::new(&HttpConfig::new().ca_file(&authority.ca_file), 8).unwrap();
    let sent = all_bodies(&agent, &format!("https://{address}/key"), &HeaderMap::new());
    assert_eq!((agent.copied_bytes(), agent.connections_opened()), (sent, 1));
}

#[test]
fn bodies_arrive_through_every_kind_of_proxy() {
    let authority = Authority::new("127.0.0.1");
    for (proxy_tls, target_tls) in [(false, false), (false, true), (true, false), (true, true)] {
        let server = authority.server();
        let proxy = serve(move |stream, _| {
            let target = |stream: Box<dyn Stream>| {
                let (stream, head) = accept_tunnel(stream);
                assert!(head.starts_with("CONNECT target.example:8443 "), "{head}");
                assert!(head.contains("Proxy-Authorization: Basic dXNlcjpwQHNz\r\n"), "{head}");
                if target_tls { echo(server.accept(stream)) } else { echo(stream) }
            };
            match proxy_tls {
                true => target(Box::new(server.accept(stream))),
                false => target(Box::new(stream)),
            }
        });
        let scheme = |tls| if tls { "https" } else { "http" };
        let http = HttpConfig::new()
            .ca_file(&authority.ca_file)
            .proxy(&format!("{}://user:p%40ss@{proxy}", scheme(proxy_tls)));
        let agent = HttpAgent::new(&http, 8).unwrap();
        if target_tls {
            // The certificate is the proxy's, not the target's.
            let uri = "https://target.example:8443/key";
            let error = put(&agent, uri, b"x").unwrap_err();
            assert!(error.detail.starts_with("target.example:8443: invalid peer certificate"));
            continue;
        }
        let sent = all_bodies(&agent, "http://target.example:8443/key", &HeaderMap::new());
        assert_eq!(agent.copied_bytes(), if proxy_tls { sent } else { 0 });
        assert_eq!(agent.connections_opened(), 1);
    }
}

#[test]
fn bodies_arrive_over_tls_in_a_tunnel() {
    let authority = Authority::new("target.example");
    let server = authority.server();
    let proxy = serve(move |stream, _| echo(server.accept(accept_tunnel(stream).0)));
    let http = HttpConfig::new().ca_file(&authority.ca_file).proxy(&format!("http://{proxy}"));
    let agent = HttpAgent::new(&http, 8).unwrap();
    all_bodies(&agent, "https://target.example/key", &HeaderMap::new());
    assert_eq!(agent.connections_opened(), 1);
}

#[test]
fn requests_one_after_the_other_share_a_connection() {
    let agent = agent();
    let uri = format!("http://{}/key", serve(|stream, _| echo(stream)));
    for round in 0..200 {
        let body = pattern(round * 37, round as u64);
        assert_eq!(put(&agent, &uri, &body).unwrap().body, body);
    }
    assert_eq!(agent.connections_opened(), 1);
}

#[test]
fn requests_at_the_same_time_do_not_mix() {
    let agent = agent();
    let uri = format!("http://{}/key", serve(|stream, _| echo(stream)));
    thread::scope(|scope| {
        for worker in 0..8_u64 {
            let (agent, uri) = (&agent, &uri);
            scope.spawn(move || {
                for round in 0..8 {
                    let data = pattern(2 * MIB + round, worker * 100 + round as u64 + 1);
                    echoes(agent, uri, &HeaderMap::new(), &[&data]);
                }
            });
        }
    });
    assert!(agent.connections_opened() <= 8, "{agent:?}");
    assert_eq!(agent.copied_bytes(), 0);
}

/// What the server saw of one request.
fn seen(method: Method, path: &str, body: &[u8]) -> Arrived {
    let (sender, receiver) = std::sync::mpsc::channel();
    let address = serve(move |mut stream, _| {
        sender.send(read_request(&mut stream).unwrap()).unwrap();
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    });
    let request = request(method, &format!("http://{address}{path}"), Body::of(body));
    let answer = agent().send(&request, Sink::Collect { bytes_max: 0 }).unwrap();
    assert_eq!(answer.status.as_u16(), 204);
    receiver.recv().unwrap()
}

#[test]
fn paths_and_queries_arrive_as_given() {
    for path in [
        "/",
        "/a%2Fb/%20c+d~e",
        "//a//b/",
        "/%2e%2e/../.hidden/./x",
        "/a?x=%2F&y=a+b&z&=&&w=~%7e",
        "/k?uploads",
        "/k?",
        "/%C3%A9%e2%82%ac!$'()*,;:@",
    ] {
        assert_eq!(seen(Method::GET, path, b"").target(), path);
    }
}

#[test]
fn the_head_holds_what_is_meant_and_no_more() {
    for (method, body, length) in [
        (Method::GET, "", None),
        (Method::HEAD, "", None),
        (Method::DELETE, "", None),
        (Method::PUT, "", Some("0")),
        (Method::POST, "", Some("0")),
        (Method::PUT, "four", Some("4")),
    ] {
        let arrived = seen(method.clone(), "/k", body.as_bytes());
        assert_eq!(arrived.header("content-length"), length, "{method}");
        assert_eq!(arrived.header("transfer-encoding"), None, "{method}");
        assert_eq!(arrived.header("accept-encoding"), Some("identity"));
        assert_eq!(
            arrived.header("user-agent"),
            Some(concat!("syncline/", env!("CARGO_PKG_VERSION")))
        );
        assert!(arrived.header("host").unwrap().starts_with("127.0.0.1:"));
        assert_eq!(arrived.head.lines().filter(|line| line.contains(": ")).count(), {
            3 + usize::from(length.is_some())
        });
    }
}

#[test]
fn answers_without_a_body_have_none() {
    let agent = agent();
    let address = serve(|mut stream, _| {
        while read_request(&mut stream).is_some() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").unwrap();
        }
    });
    for _ in 0..2 {
        let head = request(Method::HEAD, &format!("http://{address}/k"), Body::default());
        let answer = agent.send(&head, Sink::Collect { bytes_max: 0 }).unwrap();
        assert_eq!((answer.body.len(), answer.header("content-length")), (0, Some("1000")));
    }
    assert_eq!(agent.connections_opened(), 1);
}

#[test]
fn redirects_are_answers() {
    let elsewhere = "HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.1:1/\r\n\
                     Content-Length: 4\r\n\r\nbody";
    let address = answering(elsewhere);
    let answer = put(&agent(), &format!("http://{address}/k"), b"data").unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (307, &b"body"[..]));
    assert_eq!(answer.header("location"), Some("http://127.0.0.1:1/"));
}

#[test]
fn interim_answers_are_passed_over() {
    let interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";
    let (agent, body) = (agent(), pattern(32 * MIB, 5));
    let address = serve(move |mut stream: TcpStream, _| {
        // Some in the middle of the body, some behind it.
        while let Some(head) = read_head(&mut stream) {
            stream.write_all(interim).unwrap();
            thread::sleep(Duration::from_millis(20));
            let arrived = read_request(&mut head.as_bytes().chain(&mut stream)).unwrap();
            stream.write_all(interim).unwrap();
            let answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{:8}", { arrived.body.len() });
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    for _ in 0..2 {
        let answer = put(&agent, &format!("http://{address}/k"), &body).unwrap();
        assert_eq!(answer.body, format!("{:8}", body.len()).as_bytes());
    }
    assert_eq!((agent.connections_opened(), agent.copied_bytes()), (1, 0));
}

#[test]
fn progress_is_told_as_the_answer_comes() {
    let told = Cell::new(0);
    let count = || told.set(told.get() + 1);
    let body = pattern(4 * MIB, 3);
    let uri = format!("http://{}/key", serve(|stream, _| echo(stream)));
    let mut request = request(Method::PUT, &uri, Body::of(&body));
    request.progress = Some(&count);
    agent().send(&request, Sink::Into(&mut vec![0; body.len()])).unwrap();
    assert!(told.get() > 4, "told {} times", told.get());
}

#[test]
fn hosts_on_the_list_are_reached_without_the_proxy() {
    let address = serve(|stream, _| echo(stream));
    let http = HttpConfig::new().proxy("http://127.0.0.1:1").no_proxy("x.example, 127.0.0.1");
    get(&HttpAgent::new(&http, 1).unwrap(), address).unwrap();
    get(&HttpAgent::direct(&HttpConfig::new().proxy("http://127.0.0.1:1")).unwrap(), address)
        .unwrap();
    let http = HttpConfig::new().proxy("http://127.0.0.1:1").no_proxy("x.example");
    let error = get(&HttpAgent::new(&http, 1).unwrap(), address).unwrap_err();
    assert_eq!(error.detail, "127.0.0.1:1: connection refused");
}

#[test]
fn the_environment_names_no_proxy() {
    let this = std::env::current_exe().unwrap();
    let path = module_path!().split_once("::").unwrap().1;
    let output = std::process::Command::new(this)
        .args(["--exact", &format!("{path}::requests_one_after_the_other_share_a_connection")])
        .env("ALL_PROXY", "http://127.0.0.1:1")
        .env("http_proxy", "http://127.0.0.1:1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn settings_that_cannot_work_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (absent, empty) = (dir.path().join("absent.pem"), dir.path().join("empty.pem"));
    std::fs::write(&empty, "no certificate").unwrap();
    for path in [&absent, &empty] {
        let error = HttpAgent::new(&HttpConfig::new().ca_file(path), 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    for proxy in ["", "socks5://u:secret@h:1", "http://u:se cret@h", "ftp://u:secret@h"] {
        let error = HttpAgent::new(&HttpConfig::new().proxy(proxy), 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{proxy}");
        assert!(!format!("{error} {error:?}").contains("cret"), "{error}");
    }
    let http = HttpConfig::new().proxy("http://u:secret@h:1");
    assert!(!format!("{:?}", HttpAgent::new(&http, 1).unwrap()).contains("secret"));
}

#[test]
fn uris_are_taken_as_given() {
    // The text of a URI that cannot be sent has secrets in its query.
    let mut request = request(Method::GET, "http://h/", Body::default());
    request.uri = Uri::from_static("/k?secret");
    let error = agent().send(&request, Sink::Collect { bytes_max: 0 }).unwrap_err();
    assert!(!error.detail.contains("secret"), "{error}");
}
