//! The settings that are tried: every number of threads with every part size.

use serde_json::{Value, json};
use syncline::Config;

use super::choose::Cost;
use super::runs::RUN_BYTES_MAX;
use crate::bench::{Bench, on_server};
use crate::failure::Failure;
use crate::output::human_bytes;
use crate::session::Session;

const THREADS: [usize; 5] = [1, 2, 4, 8, 16];
const LOCAL_PARTS_MIB: [u64; 6] = [1, 2, 4, 8, 16, 32];
/// Small requests cost more than they bring, and S3 takes none below 5 MiB.
const SERVER_PARTS_MIB: [u64; 4] = [5, 8, 16, 32];
const DEPTHS: [usize; 5] = [1, 2, 4, 8, 16];

const MIB: u64 = 1 << 20;

/// Smallest part of a multipart upload; the engine raises smaller ones, so that they are not what was
/// measured. Source: Amazon S3 user guide, "Amazon S3 multipart upload limits".
const S3_PART_BYTES_MIN: u64 = 5 * MIB;

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    pub io_threads: usize,
    pub part_bytes: usize,
    pub queue_depth_parts: usize,
}

impl Setting {
    /// What it costs. The memory is what the buffers of one writer, the queue and the threads take.
    pub fn cost(&self) -> Cost {
        let buffers = self.io_threads + self.queue_depth_parts + 1;
        Cost { threads: self.io_threads, memory_bytes: buffers as u64 * self.part_bytes as u64 }
    }

    /// Whether threads and part size are the same.
    pub fn is_pair_of(&self, other: &Setting) -> bool {
        (self.io_threads, self.part_bytes) == (other.io_threads, other.part_bytes)
    }

    /// For machines.
    pub fn json(&self) -> Value {
        json!({
            "io_threads": self.io_threads,
            "part_bytes": self.part_bytes,
            "queue_depth_parts": self.queue_depth_parts,
            "memory_bytes": self.cost().memory_bytes,
        })
    }

    /// A line for a shell.
    pub fn environment(&self) -> String {
        let part = exact_bytes(self.part_bytes).replace(' ', "");
        format!("export SYNCLINE_IO_THREADS={} SYNCLINE_PART_SIZE={part}", self.io_threads)
    }

    /// The calls of a program.
    pub fn builder(&self) -> String {
        let (number, shift) = match self.part_bytes.is_multiple_of(1 << 20) {
            true => (self.part_bytes >> 20, 20),
            false => (self.part_bytes >> 10, 10),
        };
        format!(
            "Config::builder().io_threads({}).part_bytes({number} << {shift}).queue_depth_parts({})",
            self.io_threads, self.queue_depth_parts
        )
    }
}

/// A part's size without rounding: parts are whole KiB.
pub fn exact_bytes(bytes: usize) -> String {
    match bytes.is_multiple_of(1 << 20) {
        true => format!("{} MiB", bytes >> 20),
        false => format!("{} KiB", bytes >> 10),
    }
}

/// A setting and what else the user set.
pub struct Candidate {
    pub setting: Setting,
    pub config: Config,
}

/// All settings of the first pass.
pub struct Grid {
    /// In order.
    pub threads: Vec<usize>,
    /// In order.
    pub parts: Vec<usize>,
    /// Those that the bound on memory admits, by threads, then parts.
    pub candidates: Vec<Candidate>,
    /// The others: threads and part size.
    pub left_out: Vec<(usize, usize)>,
}

impl Grid {
    /// What the user named, or the defaults for passes of this size.
    pub fn new(session: &Session, args: &Bench, size_bytes: u64) -> Result<Grid, Failure> {
        let mut grid = Grid {
            threads: if args.threads.is_empty() { THREADS.to_vec() } else { sorted(&args.threads) },
            parts: parts(args, size_bytes)?,
            candidates: Vec::new(),
            left_out: Vec::new(),
        };
        let mut last_refusal = None;
        for &threads in &grid.threads {
            for &part_bytes in &grid.parts {
                // Out of range is an error; beyond the bound on memory is not.
                Config::builder().io_threads(threads).part_bytes(part_bytes).build()?;
                match candidate(session, threads, part_bytes, None) {
                    Ok(candidate) => grid.candidates.push(candidate),
                    Err(refusal) => {
                        last_refusal = Some(refusal);
                        grid.left_out.push((threads, part_bytes));
                    }
                }
            }
        }
        match last_refusal {
            Some(refusal) if grid.candidates.is_empty() => Err(refusal),
            _ => Ok(grid),
        }
    }
}

/// The same threads and part with every queue depth that the bound on memory admits; the setting's own
/// is among them.
pub fn with_depths(session: &Session, setting: Setting) -> Vec<Candidate> {
    let mut depths = DEPTHS.to_vec();
    depths.push(setting.queue_depth_parts);
    let of = |depth| candidate(session, setting.io_threads, setting.part_bytes, Some(depth)).ok();
    sorted(&depths).into_iter().filter_map(of).collect()
}

/// Most runs of [`with_depths`] for each round.
pub const DEPTHS_MAX: usize = DEPTHS.len() + 1;

fn candidate(
    session: &Session,
    threads: usize,
    part_bytes: usize,
    depth: Option<usize>,
) -> Result<Candidate, Failure> {
    let mut builder = session.common.builder(false)?.io_threads(threads).part_bytes(part_bytes);
    if let Some(depth) = depth {
        builder = builder.queue_depth_parts(depth);
    }
    let config = builder.build()?;
    let queue_depth_parts = config.queue_depth_parts();
    let setting = Setting { io_threads: threads, part_bytes, queue_depth_parts };
    Ok(Candidate { setting, config })
}

fn parts(args: &Bench, size_bytes: u64) -> Result<Vec<usize>, Failure> {
    let default = match on_server(&args.uri) {
        true => &SERVER_PARTS_MIB[..],
        false => &LOCAL_PARTS_MIB,
    };
    let fits = |part: &u64| *part <= size_bytes;
    let parts = match args.parts.is_empty() {
        true => default.iter().map(|mib| mib * MIB).filter(fits).collect(),
        false => sorted(&args.parts),
    };
    let refuse = |why: &str| Err(Failure::Usage(format!("bench --sweep: {why}")));
    if size_bytes > RUN_BYTES_MAX {
        let (size, max) = (human_bytes(size_bytes), human_bytes(RUN_BYTES_MAX));
        return refuse(&format!("{size} a run is more than {max}; choose a smaller --size"));
    }
    if parts.is_empty() || !parts.iter().all(fits) {
        let size = human_bytes(size_bytes);
        return refuse(&format!(
            "a part has more than the {size} of --size; choose smaller --parts"
        ));
    }
    if args.uri.starts_with("s3://") && parts[0] < S3_PART_BYTES_MIN {
        return refuse("s3:// takes no parts below 5 MiB; choose larger --parts");
    }
    Ok(parts.into_iter().map(|part| usize::try_from(part).unwrap_or(usize::MAX)).collect())
}

/// In order, each once.
fn sorted<T: Ord + Copy>(list: &[T]) -> Vec<T> {
    let mut list = list.to_vec();
    list.sort_unstable();
    list.dedup();
    list
}
