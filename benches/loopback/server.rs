//! The endpoint: it reads requests, forgets their bodies, and answers as S3 does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the object so far: what HEAD is told. One object is written at a time.
static OBJECT_BYTES: AtomicU64 = AtomicU64::new(0);

/// Listens on a free port and serves each connection on a thread of its own.
pub fn start() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(&stream));
        }
    });
    port
}

/// As [`start`]; ends when standard input does.
pub fn serve_forever() {
    println!("{}", start());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Serves one connection until it ends or says something odd.
fn serve(stream: &TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    let mut memory = vec![0; 1 << 20];
    loop {
        let head = Head::read(&mut reader)?;
        discard(&mut reader, head.body_bytes, &mut memory)?;
        let mut stream = stream;
        stream.write_all(head.answer().as_bytes()).ok()?;
    }
}

struct Head {
    method: String,
    target: String,
    body_bytes: usize,
    /// `x-amz-checksum-crc32c`, to be confirmed.
    checksum: Option<String>,
    /// `x-ms-content-crc64`, the same of Azure.
    crc64: Option<String>,
}

impl Head {
    fn read(reader: &mut impl BufRead) -> Option<Head> {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let mut words = line.split(' ').map(str::to_owned);
        let (method, target) = (words.next()?, words.next()?);
        let mut head = Head { method, target, body_bytes: 0, checksum: None, crc64: None };
        loop {
            line.clear();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { return Some(head) };
            let value = value.trim().to_owned();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.body_bytes = value.parse().ok()?,
                "x-amz-checksum-crc32c" => head.checksum = Some(value),
                "x-ms-content-crc64" => head.crc64 = Some(value),
                _ => {}
            }
        }
    }

    fn answer(&self) -> String {
        let confirmed = |name: &str, value: &Option<String>| {
            value.as_ref().map(|v| format!("{name}: {v}\r\n")).unwrap_or_default()
        };
        if self.method == "PUT" && !self.target.contains("comp=blocklist") {
            OBJECT_BYTES.fetch_add(self.body_bytes as u64, Ordering::Relaxed);
        }
        if self.method == "HEAD" {
            // The end of an upload without a checksum of the whole, and the beginning of the next.
            let bytes = OBJECT_BYTES.swap(0, Ordering::Relaxed);
            return format!("HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: {bytes}\r\n\r\n");
        }
        let body = if self.method == "POST" && self.target.contains("uploads") {
            OBJECT_BYTES.store(0, Ordering::Relaxed);
            "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>u</UploadId>\
             </InitiateMultipartUploadResult>"
                .to_owned()
        } else if self.method == "POST" {
            let sum = self.checksum.as_deref().unwrap_or_default();
            let sum = format!("<ChecksumCRC32C>{sum}</ChecksumCRC32C>");
            let sum = if self.checksum.is_some() { sum } else { String::new() };
            format!(
                "<CompleteMultipartUploadResult><Location>l</Location><Bucket>b</Bucket><Key>k</Key>\
                 <ETag>\"e\"</ETag>{sum}</CompleteMultipartUploadResult>"
            )
        } else {
            String::new()
        };
        let azure = self.crc64.is_some() || self.target.contains("comp=block");
        let status = if azure { "201 Created" } else { "200 OK" };
        format!(
            "HTTP/1.1 {status}\r\nETag: \"e\"\r\n{}{}Content-Length: {}\r\n\r\n{body}",
            confirmed("x-amz-checksum-crc32c", &self.checksum),
            confirmed("x-ms-content-crc64", &self.crc64),
            body.len()
        )
    }
}

/// Reads `bytes` bytes and forgets them.
fn discard(reader: &mut BufReader<&TcpStream>, mut bytes: usize, memory: &mut [u8]) -> Option<()> {
    while bytes > 0 {
        let most = bytes.min(memory.len());
        let count = reader.read(&mut memory[..most]).ok()?;
        if count == 0 {
            return None;
        }
        bytes -= count;
    }
    Some(())
}
