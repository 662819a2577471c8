//! What is measured: the engine, and a bare socket loop that does the same.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::resource::{Usage, UsageWho, getrusage};
use syncline::{Algorithm, AzureConfig, Config, HttpConfig, S3Config, WriteOptions, open_store};

use crate::{PART_BYTES, THREADS};

/// Warm memory, not all alike.
fn source(size_bytes: u64) -> Vec<u8> {
    (0..size_bytes).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn usage() -> Usage {
    getrusage(UsageWho::RUSAGE_SELF).expect("the system tells")
}

fn cpu(usage: &Usage) -> f64 {
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// Runs `pass` once unmeasured and then `passes` times, each of which prints its line.
fn measure(name: &str, size_bytes: u64, passes: u64, mut pass: impl FnMut()) {
    pass();
    for _ in 0..passes {
        let (before, started) = (usage(), Instant::now());
        pass();
        let (seconds, after) = (started.elapsed().as_secs_f64(), usage());
        println!(
            "{{\"client\":\"{name}\",\"mib_per_s\":{:.1},\"cpu_s_per_gb\":{:.4},\"peak_mib\":{}}}",
            size_bytes as f64 / f64::from(1 << 20) / seconds,
            (cpu(&after) - cpu(&before)) / (size_bytes as f64 / 1e9),
            after.max_rss() / 1024,
        );
    }
}

/// Threads that send parts over a connection each, hashed just before.
pub fn socket(port: u16, size_bytes: u64, passes: u64) {
    let data = source(size_bytes);
    let mut streams: Vec<TcpStream> = (0..THREADS)
        .map(|_| {
            let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
            stream.set_nodelay(true).expect("a socket option");
            stream
        })
        .collect();
    measure("bare socket, CRC32C", size_bytes, passes, || {
        std::thread::scope(|scope| {
            for (n, stream) in streams.iter_mut().enumerate() {
                let parts = data.chunks(PART_BYTES).enumerate().skip(n).step_by(THREADS);
                scope.spawn(move || parts.for_each(|(number, part)| send(stream, number, part)));
            }
        });
    });
}

fn send(stream: &mut TcpStream, number: usize, part: &[u8]) {
    let sum = Algorithm::Crc32c.checksum(part);
    let head = format!(
        "PUT /bucket/key?partNumber={}&uploadId=u HTTP/1.1\r\nHost: 127.0.0.1\r\n\
         X-Checksum: {sum}\r\nContent-Length: {}\r\n\r\n",
        number + 1,
        part.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(part).expect("sent");
    let mut answer = BufReader::with_capacity(4096, stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert!(answer.read_line(&mut line).expect("an answer") > 0, "the server hung up");
    }
}

/// The engine over a server's scheme.
pub fn engine(scheme: &str, port: u16, size_bytes: u64, passes: u64) {
    let data = source(size_bytes);
    let s3 = S3Config::new()
        .endpoint(&format!("http://127.0.0.1:{port}"))
        .region("us-east-1")
        .credentials("key", "secret", None);
    let azure = AzureConfig::new()
        .endpoint(&format!("http://127.0.0.1:{port}/account"))
        .account_key("c2VjcmV0");
    let config = Config::builder()
        .part_bytes(PART_BYTES)
        .io_threads(THREADS)
        .s3(s3)
        .azure(azure)
        .http(HttpConfig::new().response_timeout(Duration::from_secs(30)))
        .build()
        .expect("settings that can be used");
    let uri = match scheme {
        "s3" => "s3://bucket/key",
        _ => "az://account/container/key",
    };
    let store = open_store(uri, &config).expect("a store");
    let checksum = config.checksum();
    let ways = [
        ("write_borrowed", false, checksum),
        ("write_chunk", true, checksum),
        ("write_borrowed without checksum", false, None),
    ];
    for (way, copies, checksum) in ways {
        measure(&format!("syncline {scheme}, {way}"), size_bytes, passes, || {
            let options = WriteOptions::default().size_hint_bytes(size_bytes).checksum(checksum);
            let mut writer = store.get_writer_with(uri, options).expect("a writer");
            match copies {
                true => data.chunks(1 << 20).try_for_each(|chunk| writer.write_chunk(chunk)),
                false => writer.write_borrowed(&data),
            }
            .expect("written");
            writer.finalize().expect("an object");
        });
    }
}
