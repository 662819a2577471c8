//! The limits: what the machine does without any engine.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use nix::sys::socket::{setsockopt, sockopt};
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use syncline::{Algorithm, AlignedVec, Hasher};

use crate::contest::Contestant;
use crate::job::{Job, Work, fill};
use crate::local::{clear, drop_cache, path, set_aside};

/// Bytes of one system call where a job does not say.
pub const BLOCK_BYTES: usize = 8 << 20;

/// A copy of all bytes, by as many threads as there are streams.
pub fn memory(job: Job) -> Contestant {
    let source = job.memory();
    let mut target = job.memory();
    let size = job.stream_bytes();
    Contestant::new(
        || (),
        move || {
            thread::scope(|scope| {
                for (from, to) in source.chunks(size).zip(target.chunks_mut(size)) {
                    scope.spawn(move || to.copy_from_slice(from));
                }
            });
        },
    )
}

/// The checksum of all bytes, by as many threads as there are streams.
pub fn crc32c(job: Job) -> Contestant {
    let source = job.memory();
    let size = job.stream_bytes();
    Contestant::new(
        || (),
        move || {
            thread::scope(|scope| {
                for bytes in source.chunks(size) {
                    scope.spawn(move || std::hint::black_box(Algorithm::Crc32c.checksum(bytes)));
                }
            });
        },
    )
}

/// Bytes that are hashed and sent in one go, where a checksum follows its part.
const FUSED_BYTES: usize = 256 << 10;

/// Bytes of a checksum that follows its part.
const TRAILER_BYTES: usize = 20;

/// Opens a file for plain calls, past the page cache where the job is for `direct`.
pub fn open(job: &Job, path: &Path, write: bool) -> File {
    let flags = if job.storage == "direct" { OFlags::DIRECT } else { OFlags::empty() };
    let mut options = OpenOptions::new();
    options.read(!write).write(write).create(write).truncate(write);
    options.custom_flags(flags.bits() as i32).open(path).expect("the file opens")
}

/// Sets space aside, where the filesystem can: without, each write extends the file.
pub fn reserve(file: &File, bytes: usize) {
    let _ = fallocate(file, FallocateFlags::empty(), 0, bytes as u64);
}

/// Plain `pwrite` and `pread` of whole blocks by a number of threads, and one fdatasync.
pub fn raw(job: Job) -> Contestant {
    let folder = PathBuf::from(&job.folder);
    let mut memory = job.memory();
    let (size, threads) = (job.stream_bytes(), job.threads);
    let files: Vec<PathBuf> = (0..job.streams).map(|n| path(&job, n)).collect();
    match job.work {
        Work::Write => Contestant::new(
            move || clear(&folder),
            move || {
                thread::scope(|scope| {
                    for (path, data) in files.iter().zip(memory.chunks(size)) {
                        let job = &job;
                        scope.spawn(move || write_file(job, path, data, threads));
                    }
                });
            },
        ),
        Work::Read => {
            files.iter().zip(memory.chunks(size)).for_each(|(path, data)| write_file(&job, path, data, threads));
            let cached = files.clone();
            Contestant::new(
                move || cached.iter().for_each(|path| drop_cache(path)),
                move || {
                    thread::scope(|scope| {
                        for (path, memory) in files.iter().zip(memory.chunks_mut(size)) {
                            let job = &job;
                            scope.spawn(move || {
                                let file = open(job, path, false);
                                each_block(memory.chunks_mut(BLOCK_BYTES), threads, |offset, block| {
                                    file.read_exact_at(block, offset).expect("the block is read");
                                });
                            });
                        }
                    });
                },
            )
        }
    }
}

fn write_file(job: &Job, path: &Path, data: &[u8], threads: usize) {
    let file = open(job, path, true);
    reserve(&file, data.len());
    each_block(data.chunks(BLOCK_BYTES), threads, |offset, block| {
        file.write_all_at(block, offset).expect("the block is written");
    });
    file.sync_data().expect("the file is synced");
}

/// Runs `call` on every block with its offset; thread n takes every `threads`-th.
fn each_block<T: Send>(blocks: impl Iterator<Item = T>, threads: usize, call: impl Fn(u64, T) + Sync) {
    let mut shares: Vec<Vec<(u64, T)>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, block) in blocks.enumerate() {
        shares[index % threads].push((index as u64 * BLOCK_BYTES as u64, block));
    }
    let call = &call;
    thread::scope(|scope| {
        for share in shares {
            scope.spawn(move || share.into_iter().for_each(|(offset, block)| call(offset, block)));
        }
    });
}

/// Small objects one after the other, each as durable as a careful program makes it: a temporary file,
/// fdatasync, rename, fsync of the folder. Way `loose`: without both syncs.
pub fn shards(job: Job) -> Contestant {
    let folder = PathBuf::from(&job.folder);
    let mut memory = job.memory();
    let size = job.size_bytes as usize / job.count;
    let files: Vec<PathBuf> = (0..job.count).map(|n| path(&job, n)).collect();
    let write = move |files: &[PathBuf], memory: &AlignedVec, way: &str| {
        for (path, data) in files.iter().zip(memory.chunks(size)) {
            write_small(path, data, way == "loose");
        }
    };
    match job.work {
        Work::Write => Contestant::new(move || set_aside(&folder), move || write(&files, &memory, &job.way)),
        Work::Read => {
            write(&files, &memory, "loose");
            let cached = files.clone();
            Contestant::new(
                move || cached.iter().for_each(|path| drop_cache(path)),
                move || {
                    for (path, memory) in files.iter().zip(memory.chunks_mut(size)) {
                        let file = File::open(path).expect("the file opens");
                        file.read_exact_at(memory, 0).expect("the file is read");
                    }
                },
            )
        }
    }
}

fn write_small(path: &Path, data: &[u8], loose: bool) {
    let temporary = path.with_extension("tmp");
    let file = OpenOptions::new().write(true).create_new(true).open(&temporary).expect("a file");
    file.write_all_at(data, 0).expect("written");
    if !loose {
        file.sync_data().expect("synced");
    }
    fs::rename(&temporary, path).expect("renamed");
    if !loose {
        let folder = path.parent().expect("a folder");
        File::open(folder).and_then(|folder| folder.sync_all()).expect("synced");
    }
}

/// A connection for each thread, parts sent with their CRC32C or fetched and checked: what any client of
/// the endpoint has to do at least. Ways: `unchecked`, without the checksum; `fused`, with it behind the part.
pub fn socket(job: Job) -> Contestant {
    let mut memory = job.memory();
    let mut streams: Vec<TcpStream> = (0..job.threads)
        .map(|_| {
            let stream = TcpStream::connect((job.host.as_str(), job.port)).expect("the endpoint listens");
            setsockopt(&stream, sockopt::TcpNoDelay, &true).expect("a socket option");
            stream
        })
        .collect();
    let (part_bytes, object_bytes) = (job.part_bytes, job.stream_bytes());
    let expected = {
        let mut part = AlignedVec::zeroed(part_bytes).expect("there is memory");
        fill(&mut part);
        Algorithm::Crc32c.checksum(&part)
    };
    let checked = job.way != "unchecked";
    let fused = job.way == "fused";
    Contestant::new(
        || (),
        move || {
            let mut shares: Vec<Vec<(usize, &mut [u8])>> = (0..job.threads).map(|_| Vec::new()).collect();
            for (number, part) in memory.chunks_mut(part_bytes).enumerate() {
                shares[number % job.threads].push((number, part));
            }
            thread::scope(|scope| {
                for (stream, share) in streams.iter_mut().zip(shares) {
                    scope.spawn(move || {
                        for (number, part) in share {
                            match job.work {
                                Work::Write if fused => send_fused(stream, number, part),
                                Work::Write => send(stream, number, part, checked),
                                Work::Read => {
                                    fetch(stream, number * part_bytes % object_bytes, part);
                                    let sum = checked.then(|| Algorithm::Crc32c.checksum(part));
                                    assert!(sum.is_none_or(|sum| sum == expected), "the bytes are right");
                                }
                            }
                        }
                    });
                }
            });
        },
    )
}

fn send(stream: &mut TcpStream, number: usize, part: &[u8], checked: bool) {
    let sum = if checked { Algorithm::Crc32c.checksum(part).to_string() } else { String::new() };
    let head = format!(
        "PUT /bucket/raw?partNumber={}&uploadId=u HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Checksum: {sum}\r\n\
         Content-Length: {}\r\n\r\n",
        number + 1,
        part.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(part).expect("sent");
    answer_head(&mut BufReader::with_capacity(4096, stream));
}

/// With the checksum behind the part, as a trailer: each piece is hashed just before it is sent.
fn send_fused(stream: &mut TcpStream, number: usize, part: &[u8]) {
    let head = format!(
        "PUT /bucket/raw?partNumber={}&uploadId=u HTTP/1.1\r\nHost: 127.0.0.1\r\n\
         Content-Length: {}\r\n\r\n",
        number + 1,
        part.len() + TRAILER_BYTES
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut hasher = Hasher::new(Algorithm::Crc32c);
    for piece in part.chunks(FUSED_BYTES) {
        hasher.update(piece);
        stream.write_all(piece).expect("sent");
    }
    let sum = format!("{:>TRAILER_BYTES$}", hasher.checksum().to_string());
    stream.write_all(sum.as_bytes()).expect("sent");
    answer_head(&mut BufReader::with_capacity(4096, stream));
}

fn fetch(stream: &mut TcpStream, start: usize, part: &mut [u8]) {
    let head = format!(
        "GET /bucket/raw HTTP/1.1\r\nHost: 127.0.0.1\r\nRange: bytes={start}-{}\r\n\r\n",
        start + part.len() - 1
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = BufReader::with_capacity(4096, stream);
    answer_head(&mut answer);
    answer.read_exact(part).expect("the part");
}

fn answer_head(answer: &mut impl BufRead) {
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert!(answer.read_line(&mut line).expect("an answer") > 0, "the endpoint hung up");
    }
}
