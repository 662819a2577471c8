//! An HTTP/1.1 server that misbehaves on demand: on 127.0.0.1, in threads of the test's own process.
//!
//! What a request is answered with is a [`Step`], decided by a [`Handler`]: a closure, a [`Queue`] of
//! steps, or a model of a service (`s3_model.rs`). Every request is recorded.
//!
//! ```
//! let server = Server::start(Queue::new([
//!     Answer::new(503).header("retry-after", "1").into(),
//!     Step::Reset,
//!     Answer::new(200).body("hello").trickle(1, Duration::from_millis(5)).into(),
//! ]));
//! client.get(&format!("{}/bucket/key", server.endpoint()));
//! assert_eq!(server.requests().len(), 3);
//! assert_eq!(server.requests()[0].path, "/bucket/key");
//! ```
//!
//! Stands alone (std, rustix, crc-fast, jiff), so that unit tests can include it by `#[path]`.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part of this")]

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[path = "scripted/hooks.rs"]
mod hooks;
#[path = "scripted/steps.rs"]
mod steps;

pub use hooks::{Fault, Hooks};
use steps::Cut;
pub use steps::{Answer, Queue, Step, http_time};

/// Bodies up to this size stay in the record.
const RECORDED_BODY_BYTES_MAX: usize = 256 * 1024;

/// Longest line of a request's head.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// From 0, over all connections, in the order in which the heads came.
    pub number: usize,
    /// From 0.
    pub connection: usize,
    pub at: Instant,
    pub method: String,
    /// As sent, not decoded.
    pub path: String,
    /// As sent, without `?`; empty if there is none.
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Complete for a handler's `answer`, empty at its `at_head`; in the record only if it is small.
    pub body: Vec<u8>,
    /// What came of the body, whatever is kept of it.
    pub body_bytes: u64,
    pub body_crc32c: u32,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The decoded value of a query parameter; empty for one without a value.
    pub fn param(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.filter(|(n, _)| decode(n) == name).map(|(_, value)| decode(value)).next()
    }

    fn length(&self) -> u64 {
        self.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|value| value.contains("chunked"))
    }

    fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Percent-decoding; `+` stays.
pub fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Decides what requests are answered with. Called from a thread for each connection.
pub trait Handler: Send + Sync + 'static {
    /// Called when the head has come. A step given here happens at once, with the body unread.
    fn at_head(&self, head: &Request) -> Option<Step> {
        let _ = head;
        None
    }

    /// Called with the whole request.
    fn answer(&self, request: &Request) -> Step;
}

impl<F: Fn(&Request) -> Step + Send + Sync + 'static> Handler for F {
    fn answer(&self, request: &Request) -> Step {
        self(request)
    }
}

/// The server. It ends, with all its threads, when it is dropped.
pub struct Server {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    handler: Box<dyn Handler>,
    record: Mutex<Vec<Request>>,
    /// Requests ever begun, where no record is kept.
    unrecorded: Option<AtomicUsize>,
    /// Signalled with `record` and at the end.
    changed: Condvar,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    accepted: usize,
    open: HashMap<usize, Arc<TcpStream>>,
    ending: bool,
}

impl Server {
    pub fn start(handler: impl Handler) -> Server {
        Server::start_with(handler, None)
    }

    /// Without a record: for runs that are long.
    pub fn start_unrecorded(handler: impl Handler) -> Server {
        Server::start_with(handler, Some(AtomicUsize::new(0)))
    }

    fn start_with(handler: impl Handler, unrecorded: Option<AtomicUsize>) -> Server {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            record: Mutex::default(),
            unrecorded,
            changed: Condvar::new(),
            connections: Mutex::default(),
        });
        let acceptor = std::thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Server { port, shared, acceptor: Some(acceptor) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:port`
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All requests whose head has come so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.record).clone()
    }

    /// Connections ever accepted.
    pub fn connections(&self) -> usize {
        lock(&self.shared.connections).accepted
    }

    pub fn open_connections(&self) -> usize {
        lock(&self.shared.connections).open.len()
    }

    /// Waits until the record is as wanted. Fails the test after a minute.
    #[track_caller]
    pub fn wait_until(&self, wanted: impl Fn(&[Request]) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut record = lock(&self.shared.record);
        while !wanted(&record) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "after a minute the record is {record:#?}");
            record = self.shared.changed.wait_timeout(record, left).unwrap().0;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        lock(&self.shared.connections).ending = true;
        {
            // Whoever waits has the lock or is asleep: it cannot miss this.
            let _record = lock(&self.shared.record);
            self.shared.changed.notify_all();
        }
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let ended = acceptor.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a thread of the server panicked");
        }
    }
}

/// A panicking handler must not hide behind poisoned locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let mut panicked = 0;
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let _ = stream.set_nodelay(true);
        let stream = Arc::new(stream);
        let mut connections = lock(&shared.connections);
        if connections.ending {
            break;
        }
        let connection = connections.accepted;
        connections.accepted += 1;
        connections.open.insert(connection, stream.clone());
        drop(connections);
        let shared = shared.clone();
        // A thread that nobody joins keeps its stack.
        for ended in threads.extract_if(.., |thread| thread.is_finished()) {
            panicked += usize::from(ended.join().is_err());
        }
        threads.push(std::thread::spawn(move || {
            // The registry's handle goes first, so that the end of `stream` closes the connection.
            let registered = Registered { shared: &shared, connection };
            // A client that goes away is the client's business.
            let _ = serve(&shared, connection, &stream);
            drop(registered);
        }));
    }
    for stream in lock(&shared.connections).open.values() {
        let _ = stream.shutdown(Shutdown::Both);
    }
    panicked += threads.into_iter().filter_map(|thread| thread.join().err()).count();
    assert_eq!(panicked, 0, "handlers panicked");
}

/// A connection's entry among the open ones, removed also when the handler panics.
struct Registered<'a> {
    shared: &'a Shared,
    connection: usize,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        lock(&self.shared.connections).open.remove(&self.connection);
    }
}

/// Whether the connection lives on.
#[derive(PartialEq, Eq)]
enum Next {
    Request,
    End,
}

fn serve(shared: &Shared, connection: usize, stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    while let Some(head) = read_head(&mut reader, connection)? {
        let mut request = shared.record_head(head);
        if let Some(step) = shared.handler.at_head(&request) {
            let drains = matches!(&step, Step::Answer(answer) if answer.draining);
            let next = shared.perform(step, &request, stream)?;
            if !drains || next == Next::End {
                return Ok(());
            }
            shared.read_body(&mut reader, &mut request)?;
            continue;
        }
        if request.header("expect").is_some() {
            (&mut &*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        shared.read_body(&mut reader, &mut request)?;
        let step = shared.handler.answer(&request);
        if shared.perform(step, &request, stream)? == Next::End || request.closes() {
            return Ok(());
        }
    }
    Ok(())
}

/// The head of the next request, with what is not known yet left empty; `None` at the connection's end.
fn read_head(reader: &mut impl BufRead, connection: usize) -> io::Result<Option<Request>> {
    let mut line = || -> io::Result<String> {
        let mut line = String::new();
        reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)?;
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    };
    let start = line()?;
    let mut words = start.split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1")) = (words.next(), words.next(), words.next())
    else {
        return Ok(None);
    };
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some(Request {
        number: 0,
        connection,
        at: Instant::now(),
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: Vec::new(),
        body_bytes: 0,
        body_crc32c: 0,
    }))
}

impl Shared {
    fn record_head(&self, mut request: Request) -> Request {
        if let Some(begun) = &self.unrecorded {
            request.number = begun.fetch_add(1, Ordering::Relaxed);
            return request;
        }
        let mut record = lock(&self.record);
        request.number = record.len();
        record.push(request.clone());
        self.changed.notify_all();
        request
    }

    /// Reads the body, and records what came of it also if that is not all.
    fn read_body(&self, reader: &mut impl BufRead, request: &mut Request) -> io::Result<()> {
        let mut body = Vec::new();
        let result = if request.chunked() {
            read_chunks(reader, &mut body)
        } else {
            let length = request.length();
            match reader.by_ref().take(length).read_to_end(&mut body) {
                Ok(got) if (got as u64) < length => Err(io::ErrorKind::UnexpectedEof.into()),
                other => other.map(|_| ()),
            }
        };
        request.body_bytes = body.len() as u64;
        request.body_crc32c = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &body) as u32;
        request.body = body;
        if let Some(recorded) = lock(&self.record).get_mut(request.number) {
            recorded.body_bytes = request.body_bytes;
            recorded.body_crc32c = request.body_crc32c;
            if request.body.len() <= RECORDED_BODY_BYTES_MAX {
                recorded.body = request.body.clone();
            }
        }
        self.changed.notify_all();
        result
    }

    fn perform(&self, step: Step, request: &Request, stream: &TcpStream) -> io::Result<Next> {
        match step {
            Step::Answer(answer) => self.send(&answer, request, stream),
            Step::Close => Ok(Next::End),
            Step::Reset => reset(stream),
            Step::Hang(duration) => {
                self.pause(duration);
                Ok(Next::End)
            }
            Step::Raw(first, more) => flood(stream, &first, &more),
        }
    }

    fn send(&self, answer: &Answer, request: &Request, mut stream: &TcpStream) -> io::Result<Next> {
        self.pause(answer.head_pause);
        stream.write_all(answer.head().as_bytes())?;
        self.pause(answer.body_pause);
        let bodiless = request.method == "HEAD" || matches!(answer.status, 204 | 304);
        let body: &[u8] = if bodiless { &[] } else { &answer.body };
        let end = answer.cut.map_or(body.len(), |(bytes, _)| bytes.min(body.len()));
        let (step, pause) = answer.trickle.unwrap_or((256 * 1024, Duration::ZERO));
        for piece in body[..end].chunks(step.max(1)) {
            if answer.chunked {
                write!(stream, "{:x}\r\n", piece.len())?;
                stream.write_all(piece)?;
                stream.write_all(b"\r\n")?;
            } else {
                stream.write_all(piece)?;
            }
            self.pause(pause);
        }
        match answer.cut {
            Some((_, Cut::Close)) => return Ok(Next::End),
            Some((_, Cut::Reset)) => return reset(stream),
            Some((_, Cut::Hang(duration))) => {
                self.pause(duration);
                return Ok(Next::End);
            }
            None => {}
        }
        if answer.chunked && !bodiless {
            stream.write_all(b"0\r\n\r\n")?;
        }
        Ok(if answer.closing { Next::End } else { Next::Request })
    }

    /// Sleeps, but not beyond the server's end.
    fn pause(&self, duration: Duration) {
        if duration.is_zero() {
            return;
        }
        let deadline = Instant::now() + duration.min(Duration::from_secs(3600));
        let mut record = lock(&self.record);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || lock(&self.connections).ending {
                return;
            }
            record = self.changed.wait_timeout(record, left).unwrap().0;
        }
    }
}

fn flood(mut stream: &TcpStream, first: &[u8], more: &[u8]) -> io::Result<Next> {
    stream.write_all(first)?;
    if more.is_empty() {
        return Ok(Next::End);
    }
    let many = more.repeat((64 * 1024 / more.len()).max(1));
    loop {
        stream.write_all(&many)?;
    }
}

/// Closing resets from here on.
fn reset(stream: &TcpStream) -> io::Result<Next> {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
    Ok(Next::End)
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut line = String::new();
        reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        if (reader.by_ref().take(size).read_to_end(body)? as u64) < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut end = String::new();
        reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut end)?;
        if size == 0 {
            return Ok(());
        }
    }
}
