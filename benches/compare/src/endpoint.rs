//! The endpoint: it reads requests as S3 and Azure do, forgets their bodies in the kernel, and makes up
//! what is read from the pattern that all contestants write (job.rs).

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv};

use crate::job::{PATTERN_BYTES, pattern};

/// A day that every client can parse.
const DATE: &str = "Sun, 01 Nov 2026 00:00:00 GMT";

/// What the endpoint remembers.
struct Shared {
    /// Bytes of each object, by path; those of parts are added until the upload is complete.
    sizes: Mutex<HashMap<String, Size>>,
    /// The pattern twice, so that any range of a period is one piece.
    source: Vec<u8>,
    /// Bytes of an object that nobody wrote.
    read_bytes: u64,
    distance: Distance,
}

/// How far away the endpoint pretends to be.
#[derive(Clone, Copy)]
pub struct Distance {
    /// How long it takes until an answer begins.
    pub delay: Duration,
    /// Bytes per second that one connection carries; all it can if zero.
    pub bytes_per_second: u64,
}

impl Distance {
    /// Waits until so many bytes may have come by a connection since `started`.
    fn pace(&self, started: Instant, bytes: u64) {
        if self.bytes_per_second > 0 {
            let due = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Size {
    stored: u64,
    parts: u64,
}

/// Listens on a free port and serves each connection on a thread of its own.
fn start(host: &str, read_bytes: u64, distance: Distance) -> u16 {
    let listener = TcpListener::bind((host, 0)).expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let shared = Arc::new(Shared { sizes: Mutex::default(), source: pattern().repeat(2), read_bytes, distance });
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || serve(&stream, &shared));
        }
    });
    port
}

/// Serves until standard input ends. The first line of it is the size of objects that nobody wrote.
pub fn serve_forever(host: &str, distance: Distance) {
    let mut input = BufReader::new(std::io::stdin());
    let mut line = String::new();
    input.read_line(&mut line).expect("a line");
    println!("{}", start(host, line.trim().parse().expect("bytes of an object"), distance));
    let _ = input.read_to_end(&mut Vec::new());
}

/// Serves one connection until it ends or says something odd.
fn serve(mut stream: &TcpStream, shared: &Shared) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    let mut memory = vec![0; 1 << 20];
    loop {
        let request = Request::read(&mut reader)?;
        if request.expects_continue {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
        }
        if request.chunked {
            discard_chunks(&mut reader)?;
        } else {
            discard(&mut reader, request.body_bytes, &mut memory, shared.distance)?;
        }
        std::thread::sleep(shared.distance.delay);
        let answer = request.answer(shared);
        stream.write_all(answer.head.as_bytes()).ok()?;
        send(stream, shared, answer.body)?;
    }
}

/// Reads `bytes` bytes and forgets them: what the kernel has of them is never copied here.
/// Source: tcp(7), MSG_TRUNC.
fn discard(
    reader: &mut BufReader<&TcpStream>,
    mut bytes: usize,
    memory: &mut [u8],
    distance: Distance,
) -> Option<()> {
    let (all, started) = (bytes, Instant::now());
    let buffered = reader.buffer().len().min(bytes);
    reader.consume(buffered);
    bytes -= buffered;
    let socket = reader.get_ref().as_raw_fd();
    while bytes > 0 {
        let most = bytes.min(memory.len());
        let count = recv(socket, &mut memory[..most], MsgFlags::MSG_TRUNC).ok()?;
        if count == 0 {
            return None;
        }
        bytes -= count;
        distance.pace(started, (all - bytes) as u64);
    }
    Some(())
}

/// The same of a body in chunks. Source: RFC 9112, section 7.1.
fn discard_chunks(reader: &mut impl BufRead) -> Option<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let bytes = u64::from_str_radix(line.trim().split(';').next()?, 16).ok()?;
        std::io::copy(&mut reader.by_ref().take(bytes), &mut std::io::sink()).ok()?;
        line.clear();
        reader.read_line(&mut line).ok()?;
        if bytes == 0 {
            return Some(());
        }
    }
}

/// Sends a range of the endless pattern.
fn send(mut stream: &TcpStream, shared: &Shared, range: Range<u64>) -> Option<()> {
    let started = Instant::now();
    let mut at = range.start;
    while at < range.end {
        let start = (at % PATTERN_BYTES as u64) as usize;
        let bytes = (range.end - at).min(PATTERN_BYTES as u64) as usize;
        stream.write_all(&shared.source[start..start + bytes]).ok()?;
        at += bytes as u64;
        shared.distance.pace(started, at - range.start);
    }
    Some(())
}

struct Answer {
    head: String,
    /// Of the pattern.
    body: Range<u64>,
}

#[derive(Default)]
struct Request {
    method: String,
    path: String,
    query: String,
    body_bytes: usize,
    chunked: bool,
    expects_continue: bool,
    /// First and last byte, if the latter is told.
    range: Option<(u64, Option<u64>)>,
    /// `x-amz-checksum-crc32c`, to be confirmed.
    crc32c: Option<String>,
    /// `x-ms-content-crc64`, the same of Azure.
    crc64: Option<String>,
    azure: bool,
}

impl Request {
    fn read(reader: &mut impl BufRead) -> Option<Request> {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let mut words = line.split(' ').map(str::to_owned);
        let (method, target) = (words.next()?, words.next()?);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let mut request = Request { method, path, query, ..Request::default() };
        loop {
            line.clear();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { return Some(request) };
            let value = value.trim().to_owned();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => request.body_bytes = value.parse().ok()?,
                "transfer-encoding" => request.chunked = value == "chunked",
                "expect" => request.expects_continue = true,
                "range" | "x-ms-range" => request.range = parse_range(&value),
                "x-amz-checksum-crc32c" => request.crc32c = Some(value),
                "x-ms-content-crc64" => request.crc64 = Some(value),
                "x-ms-version" => request.azure = true,
                _ => {}
            }
        }
    }

    fn asks(&self, name: &str) -> bool {
        self.query.split('&').any(|pair| pair.split('=').next() == Some(name))
    }

    fn answer(&self, shared: &Shared) -> Answer {
        let mut sizes = shared.sizes.lock().expect("no thread panics");
        let size = sizes.entry(self.path.clone()).or_default();
        let part = self.asks("uploadId") || self.query.contains("comp=block&") || self.query.ends_with("comp=block");
        match self.method.as_str() {
            "PUT" if self.query.contains("comp=blocklist") => size.stored = std::mem::take(&mut size.parts),
            "PUT" if part => size.parts += self.body_bytes as u64,
            "PUT" => size.stored = self.body_bytes as u64,
            "POST" if part => size.stored = std::mem::take(&mut size.parts),
            "POST" => size.parts = 0,
            "GET" | "HEAD" => {
                let bytes = if size.stored > 0 { size.stored } else { shared.read_bytes };
                drop(sizes);
                return self.object(bytes);
            }
            _ => {}
        }
        drop(sizes);
        let status = if self.azure { "201 Created" } else { "200 OK" };
        self.document(status, &self.told())
    }

    /// The body of an answer to POST.
    fn told(&self) -> String {
        if self.method != "POST" {
            return String::new();
        }
        let key = self.path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
        let names = format!("<Bucket>bucket</Bucket><Key>{key}</Key>");
        if self.asks("uploads") {
            return format!(
                "<?xml version=\"1.0\"?><InitiateMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                 {names}<UploadId>u</UploadId></InitiateMultipartUploadResult>"
            );
        }
        let sum = self.crc32c.as_ref().map(|sum| format!("<ChecksumCRC32C>{sum}</ChecksumCRC32C>"));
        format!(
            "<?xml version=\"1.0\"?><CompleteMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <Location>l</Location>{names}<ETag>\"e\"</ETag>{}</CompleteMultipartUploadResult>",
            sum.unwrap_or_default()
        )
    }

    fn document(&self, status: &str, body: &str) -> Answer {
        let confirmed = |name: &str, value: &Option<String>| {
            value.as_ref().map(|v| format!("{name}: {v}\r\n")).unwrap_or_default()
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nETag: \"e\"\r\nDate: {DATE}\r\nLast-Modified: {DATE}\r\nx-ms-request-server-encrypted: true\r\n\
             {}{}Content-Length: {}\r\n\r\n{body}",
            confirmed("x-amz-checksum-crc32c", &self.crc32c),
            confirmed("x-ms-content-crc64", &self.crc64),
            body.len()
        );
        Answer { head, body: 0..0 }
    }

    /// GET and HEAD of an object.
    fn object(&self, size_bytes: u64) -> Answer {
        let (status, range, told) = match self.range {
            Some((first, last)) => {
                let end = last.map_or(size_bytes, |last| (last + 1).min(size_bytes));
                let told = format!("Content-Range: bytes {first}-{}/{size_bytes}\r\n", end - 1);
                ("206 Partial Content", first..end, told)
            }
            None => ("200 OK", 0..size_bytes, String::new()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nETag: \"e\"\r\nDate: {DATE}\r\nLast-Modified: {DATE}\r\nAccept-Ranges: bytes\r\n\
             Content-Type: application/octet-stream\r\nx-ms-blob-type: BlockBlob\r\n{told}Content-Length: {}\r\n\r\n",
            range.end - range.start
        );
        Answer { head, body: if self.method == "HEAD" { 0..0 } else { range } }
    }
}

fn parse_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()))
}
