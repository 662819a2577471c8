//! What a contestant is told to do, and the bytes it does it with.

use std::fs::File;
use std::io::Read;

use serde::Deserialize;
use syncline::AlignedVec;

/// One contestant's work.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Which contestant.
    pub client: String,
    pub work: Work,
    /// `file`, `direct`, `mem`, `s3` or `az`.
    #[serde(default)]
    pub storage: String,
    /// The folder of local media.
    #[serde(default)]
    pub folder: String,
    /// Where the endpoint is.
    #[serde(default = "this_machine")]
    pub host: String,
    #[serde(default)]
    pub port: u16,
    /// Bytes of all objects together.
    #[serde(default)]
    pub size_bytes: u64,
    /// Objects, each written or read by a thread of its own.
    #[serde(default = "one")]
    pub streams: usize,
    #[serde(default)]
    pub part_bytes: usize,
    /// I/O threads of ours, threads of a raw loop, depth of a ring.
    #[serde(default = "one")]
    pub threads: usize,
    /// How, where a contestant knows several ways.
    #[serde(default)]
    pub way: String,
    /// Number of small objects, or of ranks.
    #[serde(default)]
    pub count: usize,
    /// A file whose bytes are taken instead of the pattern.
    #[serde(default)]
    pub source: String,
}

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    Write,
    Read,
}

fn one() -> usize {
    1
}

fn this_machine() -> String {
    "127.0.0.1".to_owned()
}

pub fn parse(text: &str) -> Job {
    serde_json::from_str(text).expect("the job is JSON as job.rs says")
}

impl Job {
    /// Bytes of one stream.
    pub fn stream_bytes(&self) -> usize {
        usize::try_from(self.size_bytes).expect("a size in memory") / self.streams
    }

    /// The source, or the memory that is read into: touched, and filled with the pattern.
    pub fn memory(&self) -> AlignedVec {
        let mut memory = AlignedVec::zeroed(self.stream_bytes() * self.streams).expect("there is memory");
        if self.source.is_empty() {
            fill(&mut memory);
        } else {
            let mut file = File::open(&self.source).expect("the source opens");
            file.read_exact(&mut memory).expect("the source is as long as the job says");
        }
        memory
    }
}

/// The period of the bytes that all contestants write and the endpoint generates.
pub const PATTERN_BYTES: usize = 1 << 20;

/// Bytes that do not compress, the same in every period.
pub fn pattern() -> Vec<u8> {
    // xorshift64: Marsaglia, "Xorshift RNGs", 2003.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = vec![0; PATTERN_BYTES];
    for word in bytes.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    bytes
}

pub fn fill(memory: &mut [u8]) {
    let pattern = pattern();
    memory.chunks_mut(PATTERN_BYTES).for_each(|chunk| chunk.copy_from_slice(&pattern[..chunk.len()]));
}
