//! `syncline bench`: the engine beside what the medium can do without it.
//!
//! Every way in and out and every ceiling runs once per round, each round starting with another one,
//! so that a medium that changes its speed changes it for all. Ratios are formed within a round. All of
//! them move the same bytes in parts of the same size; the bytes are random, and the source is larger
//! than a processor's cache. One pass runs unmeasured first: the first writes into blocks that the
//! medium never saw are far slower than all later ones.

mod engine;
mod machine;
mod measure;
mod raw;
mod report;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use syncline::{
    Algorithm, AlignedVec, BlockChecksums, Bytes, Config, IoMode, ObjectStore, open_store,
};

use self::engine::{WayIn, WayOut};
use self::measure::{Sample, measure};
use crate::args::Bench;
use crate::failure::Failure;
use crate::object::local_uri;
use crate::output::human_bytes;
use crate::progress::Bar;
use crate::scratch::Scratch;
use crate::session::Session;
use crate::signals::Stop;

/// Bytes of the source, which is written again and again: larger than a processor's cache.
const SOURCE_BYTES: usize = 256 << 20;

/// Bytes of the memory that is read into, window by window.
const WINDOW_BYTES: u64 = 1 << 30;

/// What is measured, and with what.
pub struct Plan<'a> {
    config: &'a Config,
    stop: &'a Stop,
    /// Bytes of one pass: whole parts.
    size_bytes: u64,
    part_bytes: usize,
    /// Random bytes at a page boundary: whole parts.
    source: Bytes,
    /// The object that the engine writes and reads.
    object_uri: String,
    /// The object that warms a store up.
    warm_up_uri: String,
    /// Whether the ceiling sets O_DIRECT, because the engine does.
    direct: bool,
}

impl Plan<'_> {
    /// Number of parts of one pass.
    fn parts(&self) -> u64 {
        self.size_bytes / self.part_bytes as u64
    }

    /// Where a part lies in the object.
    fn offset(&self, index: u64) -> u64 {
        index * self.part_bytes as u64
    }

    /// A part's bytes.
    fn part(&self, index: u64) -> &[u8] {
        &self.source[self.source_range(index)]
    }

    /// A part's bytes, shared and not copied.
    fn owned_part(&self, index: u64) -> Bytes {
        self.source.slice(self.source_range(index))
    }

    fn source_range(&self, index: u64) -> Range<usize> {
        let parts_in_source = (self.source.len() / self.part_bytes) as u64;
        // Below the source's length, which is a usize.
        let start = (index % parts_in_source) as usize * self.part_bytes;
        start..start + self.part_bytes
    }

    /// The object in ranges of at most `window_bytes`.
    fn windows(&self, window_bytes: usize) -> impl Iterator<Item = Range<u64>> {
        let size_bytes = self.size_bytes;
        let starts = (0..size_bytes).step_by(window_bytes);
        starts.map(move |start| start..size_bytes.min(start + window_bytes as u64))
    }
}

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contestant {
    /// The ceiling for writing, with this many threads.
    RawWrite(usize),
    /// A way in, with or without the checksum.
    Write(WayIn, Option<Algorithm>),
    /// The ceiling for reading, with this many threads.
    RawRead(usize),
    /// A way out.
    Read(WayOut),
}

/// A contestant with one sample per round.
pub struct Outcome {
    /// What was measured.
    pub contestant: Contestant,
    /// One per round.
    pub samples: Vec<Sample>,
}

/// Where the bytes go.
enum Place {
    /// A directory of a filesystem, removed at the end.
    Directory(Scratch),
    /// The memory of this process.
    Memory,
}

/// `syncline bench`
pub fn bench(session: &Session, args: &Bench) -> Result<(), Failure> {
    let config = &session.config;
    // Refuses what is no URI of ours, before anything is made.
    let probe = open_store(&args.uri, config)?;
    let size_bytes = whole_parts(args.size, config.part_bytes());
    let unfinished = session.stop.protect()?;
    let (place, base) = place(&args.uri, size_bytes)?;
    let object_uri = format!("{base}/object.bin");
    let mode = probe_mode(&*probe, &object_uri)?;
    drop(probe);
    let plan = Plan {
        config,
        stop: &session.stop,
        size_bytes,
        part_bytes: config.part_bytes(),
        source: random_source(size_bytes, config.part_bytes())?,
        object_uri,
        warm_up_uri: format!("{base}/warm-up.bin"),
        direct: matches!(mode, IoMode::DirectProven | IoMode::DirectUnproven),
    };
    let writes = write_contestants(config.io_threads());
    let reads = read_contestants(config.io_threads());
    let passes = u64::from(args.rounds) * (writes.len() + reads.len()) as u64 + 1;
    let bar = session.progress.bar("bench", Some(passes * size_bytes));

    warm_blocks(&plan, &place, &bar)?;
    let writes = race(&writes, args.rounds, |contestant| {
        let sample = write_once(&plan, &place, contestant)?;
        bar.add_bytes(size_bytes);
        Ok(sample)
    })?;
    let reads = race_reads(&plan, &place, mode, &reads, args.rounds, &bar)?;
    drop(bar);
    let facts = machine::facts(place.directory(), mode);
    drop(place);
    drop(unfinished);
    report::print(session, &args.uri, &plan, &facts, &writes, &reads)
}

impl Place {
    /// The directory, where there is one.
    fn directory(&self) -> Option<&Path> {
        match self {
            Place::Directory(scratch) => Some(scratch.path()),
            Place::Memory => None,
        }
    }

    /// Where the ceiling keeps its file.
    fn raw_file(&self) -> Option<PathBuf> {
        self.directory().map(|dir| dir.join("raw.bin"))
    }

    /// Where the engine's object lies.
    fn object_file(&self) -> Option<PathBuf> {
        self.directory().map(|dir| dir.join("object.bin"))
    }
}

/// Makes a directory of our own below the URI. Returns it with its URI.
fn place(uri: &str, size_bytes: u64) -> Result<(Place, String), Failure> {
    let (scheme, path) = uri.split_once("://").unwrap_or(("file", uri));
    if scheme == "mem" {
        let free_bytes = machine::available_memory_bytes();
        if free_bytes.is_some_and(|free| size_bytes > free / 3) {
            let free = human_bytes(free_bytes.unwrap_or(0));
            return Err(Failure::Usage(format!(
                "bench {uri}: {} does not fit into memory, of which {free} is free; choose a smaller --size",
                human_bytes(size_bytes)
            )));
        }
        return Ok((Place::Memory, format!("{}/bench", uri.trim_end_matches('/'))));
    }
    if !matches!(scheme, "file" | "direct") {
        return Err(Failure::Usage(format!(
            "bench {uri}: only media of this machine have a ceiling to be measured against; give a \
             directory, direct:// or mem://"
        )));
    }
    let scratch = Scratch::create(Path::new(path), "syncline-bench")?;
    let base = format!("{scheme}://{}", local_uri(scratch.path())?);
    Ok((Place::Directory(scratch), base))
}

/// `bytes` as a whole number of parts, at least one.
fn whole_parts(bytes: u64, part_bytes: usize) -> u64 {
    let part_bytes = part_bytes as u64;
    bytes.div_ceil(part_bytes).max(1).saturating_mul(part_bytes)
}

/// Bytes without a pattern, so that no layer below can compress them or leave them out.
fn random_source(size_bytes: u64, part_bytes: usize) -> Result<Bytes, Failure> {
    let limit = usize::try_from(size_bytes).unwrap_or(usize::MAX).min(SOURCE_BYTES);
    let mut source = AlignedVec::zeroed((limit / part_bytes).max(1) * part_bytes)?;
    // xorshift64: Marsaglia, "Xorshift RNGs", 2003.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for word in source.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_ne_bytes());
    }
    Ok(source.into())
}

/// How the engine's bytes meet this medium: the ceiling must use the same flags.
fn probe_mode(store: &dyn ObjectStore, uri: &str) -> Result<IoMode, Failure> {
    let meta = store.put(uri, b"probe")?;
    store.delete(uri)?;
    Ok(meta.write.map_or(IoMode::Buffered, |report| report.mode))
}

fn write_contestants(threads: usize) -> Vec<Contestant> {
    let ways = [WayIn::Chunk, WayIn::Owned, WayIn::Reserved, WayIn::Borrowed];
    let both = |way| [Some(Algorithm::Crc32c), None].map(|sum| Contestant::Write(way, sum));
    let raw = raw_threads(threads).map(Contestant::RawWrite);
    raw.chain(ways.into_iter().flat_map(both)).collect()
}

fn read_contestants(threads: usize) -> Vec<Contestant> {
    let ways = [WayOut::IntoVerified, WayOut::Into, WayOut::FreshVerified, WayOut::Fresh];
    let raw = raw_threads(threads).map(Contestant::RawRead);
    raw.chain(ways.map(Contestant::Read)).collect()
}

/// One thread, and as many as the engine has.
fn raw_threads(threads: usize) -> impl Iterator<Item = usize> {
    [1, threads].into_iter().take(if threads > 1 { 2 } else { 1 })
}

/// Runs every contestant once per round, each round beginning with another one.
fn race(
    contestants: &[Contestant],
    rounds: u32,
    mut run: impl FnMut(Contestant) -> Result<Sample, Failure>,
) -> Result<Vec<Outcome>, Failure> {
    let outcome =
        |contestant: &Contestant| Outcome { contestant: *contestant, samples: Vec::new() };
    let mut outcomes: Vec<Outcome> = contestants.iter().map(outcome).collect();
    for round in 0..rounds as usize {
        for turn in 0..outcomes.len() {
            let index = (round + turn) % outcomes.len();
            let sample = run(outcomes[index].contestant)?;
            outcomes[index].samples.push(sample);
        }
    }
    Ok(outcomes)
}

/// Lets the medium see its blocks, and the processor its top speed, before anything counts.
fn warm_blocks(plan: &Plan<'_>, place: &Place, bar: &Bar) -> Result<(), Failure> {
    write_once(plan, place, Contestant::RawWrite(plan.config.io_threads()))?;
    bar.add_bytes(plan.size_bytes);
    Ok(())
}

/// One measured pass of writing. What it wrote is removed outside the measurement.
fn write_once(plan: &Plan<'_>, place: &Place, contestant: Contestant) -> Result<Sample, Failure> {
    match contestant {
        Contestant::RawWrite(threads) => match place.raw_file() {
            None => measure(
                || Ok(Vec::new()),
                |copies| {
                    *copies = raw::write_memory(plan, threads)?;
                    Ok(())
                },
            ),
            Some(path) => {
                let sample = measure(|| Ok(()), |()| raw::write_file(plan, &path, threads))?;
                remove_file(&path)?;
                Ok(sample)
            }
        },
        Contestant::Write(way, checksum) => {
            let sample = measure(
                || engine::warm_store(plan, way),
                |store| engine::write(plan, &**store, way, checksum).map(drop),
            )?;
            place.object_file().map_or(Ok(()), |path| remove_file(&path))?;
            Ok(sample)
        }
        Contestant::RawRead(_) | Contestant::Read(_) => unreachable!("reads are run by read_once"),
    }
}

/// Removes a file and waits until that is settled, so that it costs the next run nothing.
fn remove_file(path: &Path) -> Result<(), Failure> {
    let failed = |e| Failure::io("remove", path, &e);
    fs::remove_file(path).map_err(failed)?;
    let parent = path.parent().unwrap_or(path);
    fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed)
}

/// Writes one object and reads it back in every way.
fn race_reads(
    plan: &Plan<'_>,
    place: &Place,
    mode: IoMode,
    contestants: &[Contestant],
    rounds: u32,
    bar: &Bar,
) -> Result<Vec<Outcome>, Failure> {
    let store = engine::warm_store(plan, WayIn::Borrowed)?;
    let blocks = engine::write(plan, &*store, WayIn::Borrowed, Some(Algorithm::Crc32c))?;
    let blocks = blocks
        .ok_or_else(|| Failure::Other("bench: the writer has no block checksums".to_owned()))?;
    let window_bytes = WINDOW_BYTES.next_multiple_of(blocks.block_bytes()).min(plan.size_bytes);
    let mut memory = AlignedVec::zeroed(usize::try_from(window_bytes).unwrap_or(usize::MAX))?;
    // Touched here, so that no run pays for the pages.
    memory.fill(1);
    let through_cache = mode == IoMode::Buffered;
    race(contestants, rounds, |contestant| {
        if let (true, Some(path)) = (through_cache, place.object_file()) {
            raw::drop_cache(&path)?;
        }
        let window = memory.len();
        let memory = &mut memory[..];
        let sample = measure(
            || warm_machine_memory(contestant, window),
            |()| read_once(plan, place, &*store, &blocks, contestant, memory),
        )?;
        bar.add_bytes(plan.size_bytes);
        Ok(sample)
    })
}

/// Fresh memory is to cost what the kernel asks for it: new mappings of pages that were in use before.
/// A virtual machine that gets pages from its host for the first time pays several times as much, and
/// would charge whichever way comes first.
fn warm_machine_memory(contestant: Contestant, bytes: usize) -> Result<(), Failure> {
    if let Contestant::Read(WayOut::Fresh | WayOut::FreshVerified) = contestant {
        AlignedVec::zeroed(bytes)?.fill(1);
    }
    Ok(())
}

fn read_once(
    plan: &Plan<'_>,
    place: &Place,
    store: &dyn ObjectStore,
    blocks: &BlockChecksums,
    contestant: Contestant,
    memory: &mut [u8],
) -> Result<(), Failure> {
    match contestant {
        Contestant::RawRead(threads) => match place.object_file() {
            None => raw::read_memory(plan, threads, memory),
            Some(path) => raw::read_file(plan, &path, threads, memory),
        },
        Contestant::Read(way) => engine::read(plan, store, way, blocks, memory),
        Contestant::RawWrite(_) | Contestant::Write(..) => {
            unreachable!("writes are run by write_once")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_begins_with_another_one_and_runs_all() {
        let contestants = write_contestants(4);
        let mut order = Vec::new();
        let sample = Sample {
            wall: std::time::Duration::ZERO,
            cpu: std::time::Duration::ZERO,
            peak_bytes: None,
        };
        let outcomes = race(&contestants, 2, |contestant| {
            order.push(contestant);
            Ok(sample)
        });
        let outcomes = outcomes.unwrap_or_default();
        assert!(outcomes.iter().all(|outcome| outcome.samples.len() == 2));
        assert_eq!(order.len(), 2 * contestants.len());
        assert_eq!((order[0], order[contestants.len()]), (contestants[0], contestants[1]));
    }

    #[test]
    fn a_pass_is_whole_parts() {
        for (bytes, whole) in [(0, 10), (1, 10), (10, 10), (11, 20)] {
            assert_eq!(whole_parts(bytes, 10), whole);
        }
    }
}
