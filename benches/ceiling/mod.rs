//! What the engine is compared with: plain loops without engine and checksum, and the machine they ran on.
//!
//! `SYNCLINE_BENCH_DIR` says where files go (default: the target folder), `SYNCLINE_BENCH_SIZE` how
//! many bytes an object has (default 1GiB on disk, 256MiB in memory).

#![allow(dead_code, reason = "each bench uses a part of this file")]

use std::env;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use syncline::{AlignedVec, parse_bytes};

/// Bytes of one system call, the engine's default part.
pub const BLOCK_BYTES: usize = 8 << 20;

/// Bytes of a piece given to `write_chunk`.
pub const CHUNK_BYTES: usize = 1 << 20;

/// The engine's default number of I/O threads.
pub const THREADS: usize = 4;

/// Bytes of an object, a multiple of [`BLOCK_BYTES`].
pub fn object_bytes(default: &str) -> usize {
    let text = env::var("SYNCLINE_BENCH_SIZE").unwrap_or_else(|_| default.to_owned());
    let bytes = parse_bytes(&text).expect("SYNCLINE_BENCH_SIZE is a size") as usize;
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// An empty folder for this process, removed when dropped.
pub fn scratch() -> tempfile::TempDir {
    let parent = env::var_os("SYNCLINE_BENCH_DIR");
    let parent = parent.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    fs::create_dir_all(&parent).expect("the folder for files can be made");
    tempfile::tempdir_in(parent).expect("the folder for files is writable")
}

/// Page-aligned bytes that are not all alike, in memory that was touched.
pub fn noise(bytes: usize) -> AlignedVec {
    let mut memory = AlignedVec::zeroed(bytes).expect("there is memory for the object");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for word in memory.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
    memory
}

/// Prints what the numbers depend on, one line each, marked so that a record can find them.
pub fn describe_machine(folder: Option<&Path>) {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let cores = thread::available_parallelism().map_or(0, usize::from);
    println!("# cpu: {}, {cores} cores", first("/proc/cpuinfo", "model name"));
    println!("# memory: {}", first("/proc/meminfo", "MemTotal"));
    println!("# kernel: {}", said_by("uname", &["-sr"]));
    println!("# compiler: {}", said_by("rustc", &["--version"]));
    if let Some(folder) = folder {
        let folder = folder.to_str().expect("the folder's name is text");
        let about = ["--noheadings", "--output", "FSTYPE,OPTIONS", "--target", folder];
        println!("# filesystem: {}", said_by("findmnt", &about));
    }
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output
        .map_or_else(|_| "unknown".to_owned(), |o| String::from_utf8_lossy(&o.stdout).into_owned());
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Sums the time of `timed` over `count` runs, each followed by `after`, which is not timed.
pub fn time_each(count: u64, mut timed: impl FnMut(), mut after: impl FnMut()) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..count {
        let start = Instant::now();
        timed();
        total += start.elapsed();
        after();
    }
    total
}

/// Opens `path` for plain I/O; `direct` adds O_DIRECT.
fn open(path: &Path, direct: bool, write: bool) -> File {
    let flags = if direct { OFlags::DIRECT } else { OFlags::empty() };
    let mut options = OpenOptions::new();
    options.read(!write).write(write).create(write).truncate(write);
    options.custom_flags(flags.bits() as i32).open(path).expect("the file can be opened")
}

/// Writes a file as fast as plain calls can: space set aside, `threads` loops of `pwrite`, one `fdatasync`.
pub fn raw_write(path: &Path, data: &[u8], direct: bool, threads: usize) {
    let file = open(path, direct, true);
    // Not every filesystem can set space aside; the loop works without.
    let _ = fallocate(&file, FallocateFlags::empty(), 0, data.len() as u64);
    each_block(data.chunks(BLOCK_BYTES), threads, |offset, block| {
        file.write_all_at(block, offset).expect("the block is written");
    });
    file.sync_data().expect("the file is synced");
}

/// Reads a file into `memory` by `threads` loops of `pread`.
pub fn raw_read(path: &Path, memory: &mut [u8], direct: bool, threads: usize) {
    let file = open(path, direct, false);
    each_block(memory.chunks_mut(BLOCK_BYTES), threads, |offset, block| {
        file.read_exact_at(block, offset).expect("the block is read");
    });
}

/// Runs `call` on every block with its offset; thread n takes every `threads`-th.
fn each_block<T: Send>(
    blocks: impl Iterator<Item = T>,
    threads: usize,
    call: impl Fn(u64, T) + Sync,
) {
    let mut shares: Vec<Vec<(u64, T)>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, block) in blocks.enumerate() {
        shares[index % threads].push((index as u64 * BLOCK_BYTES as u64, block));
    }
    let work =
        |share: Vec<(u64, T)>| share.into_iter().for_each(|(offset, block)| call(offset, block));
    thread::scope(|scope| {
        let mut shares = shares.into_iter();
        let own = shares.next();
        for share in shares {
            scope.spawn(|| work(share));
        }
        own.into_iter().for_each(work);
    });
}
