//! `syncline bench`: the engine beside what the medium can do without it.
//!
//! Every way in and out and every ceiling runs once per round, each round starting with another one,
//! so that a medium that changes its speed changes it for all. Ratios are formed within a round. All of
//! them move the same bytes in parts of the same size; the bytes are random, and the source is larger
//! than a processor's cache. One pass runs unmeasured first: the first writes into blocks that the
//! medium never saw are far slower than all later ones.
//!
//! `sweep` looks for the settings to use instead.

mod args;
mod engine;
mod machine;
mod measure;
mod place;
mod plan;
mod raw;
mod report;
mod sweep;

use syncline::{Algorithm, AlignedVec, BlockChecksums, IoMode, ObjectStore};

pub use self::args::Bench;
use self::engine::{WayIn, WayOut};
use self::measure::{Sample, measure};
use self::place::{Place, remove_file};
use self::plan::{Plan, random_source, whole_parts};
use crate::failure::Failure;
use crate::output::{human_bytes, note};
use crate::progress::Bar;
use crate::session::Session;

/// Bytes of a pass, unless given: more than the caches of disks hold.
const LOCAL_BYTES: u64 = 4 << 30;

/// Bytes of a pass to and from a server, unless given: what is moved there may cost money.
const SERVER_BYTES: u64 = 512 << 20;

/// Bytes of the source, which is written again and again: larger than a processor's cache.
const SOURCE_BYTES: usize = 256 << 20;

/// Bytes of the memory that is read into, window by window.
const WINDOW_BYTES: u64 = 1 << 30;

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

/// `syncline bench`
pub fn bench(session: &Session, args: &Bench) -> Result<(), Failure> {
    if args.sweep { sweep::sweep(session, args) } else { compare(session, args) }
}

/// Every way in and out beside the ceilings.
fn compare(session: &Session, args: &Bench) -> Result<(), Failure> {
    let config = &session.config;
    let part_bytes = config.part_bytes();
    let default_bytes = if on_server(&args.uri) { SERVER_BYTES } else { LOCAL_BYTES };
    let size_bytes = whole_parts(args.size.unwrap_or(default_bytes), part_bytes);
    let unfinished = session.stop.protect()?;
    let place = Place::open(session, &args.uri, size_bytes)?;
    let source_bytes = usize::try_from(size_bytes).unwrap_or(usize::MAX).min(SOURCE_BYTES);
    let plan = Plan {
        config,
        stop: &session.stop,
        size_bytes,
        part_bytes,
        source: random_source((source_bytes / part_bytes).max(1) * part_bytes)?,
        object_uri: place.object_uri(),
        warm_up_uri: place.warm_up_uri(),
        direct: matches!(place.mode, IoMode::DirectProven | IoMode::DirectUnproven),
    };
    let raw_threads = raw_threads(&place, config.io_threads());
    let writes = write_contestants(&raw_threads);
    let reads = read_contestants(&raw_threads);
    let passes = u64::from(args.rounds) * (writes.len() + reads.len()) as u64 + 1;
    if !place.has_ceiling() {
        let written = u64::from(args.rounds) * writes.len() as u64 + 2;
        let read = u64::from(args.rounds) * reads.len() as u64;
        let warm_up_bytes = engine::warm_up_parts(&plan) * part_bytes as u64;
        let write_bytes = size_bytes.saturating_add(warm_up_bytes);
        tell_traffic(write_bytes.saturating_mul(written), size_bytes.saturating_mul(read));
    }
    let bar = session.progress.bar("bench", Some(size_bytes.saturating_mul(passes)));

    warm_blocks(&plan, &place, &bar)?;
    let writes = race(&writes, args.rounds, |contestant| {
        let sample = write_once(&plan, &place, contestant)?;
        bar.add_bytes(size_bytes);
        Ok(sample)
    })?;
    let reads = race_reads(&plan, &place, &reads, args.rounds, &bar)?;
    drop(bar);
    let facts = machine::facts(place.medium(), place.mode);
    drop(place);
    drop(unfinished);
    report::print(session, &args.uri, &plan, &facts, &writes, &reads)
}

/// Whether a URI is of a server, as far as its scheme tells.
fn on_server(uri: &str) -> bool {
    uri.starts_with("s3://") || uri.starts_with("az://")
}

/// Says before anything is measured what will go over the network.
fn tell_traffic(written_bytes: u64, read_bytes: u64) {
    note(&format!(
        "about {} will be written to the server and {} read; requests and traffic may cost money",
        human_bytes(written_bytes),
        human_bytes(read_bytes)
    ));
}

fn write_contestants(raw_threads: &[usize]) -> Vec<Contestant> {
    let ways = [WayIn::Chunk, WayIn::Owned, WayIn::Reserved, WayIn::Borrowed];
    let both = |way| [Some(Algorithm::Crc32c), None].map(|sum| Contestant::Write(way, sum));
    let raw = raw_threads.iter().copied().map(Contestant::RawWrite);
    raw.chain(ways.into_iter().flat_map(both)).collect()
}

fn read_contestants(raw_threads: &[usize]) -> Vec<Contestant> {
    let ways = [WayOut::IntoVerified, WayOut::Into, WayOut::FreshVerified, WayOut::Fresh];
    let raw = raw_threads.iter().copied().map(Contestant::RawRead);
    raw.chain(ways.map(Contestant::Read)).collect()
}

/// Threads of the ceilings: one, and as many as the engine has.
fn raw_threads(place: &Place, threads: usize) -> Vec<usize> {
    match (place.has_ceiling(), threads) {
        (false, _) => Vec::new(),
        (true, 1) => vec![1],
        (true, _) => vec![1, threads],
    }
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
    let contestant = match place.has_ceiling() {
        true => Contestant::RawWrite(plan.config.io_threads()),
        false => Contestant::Write(WayIn::Borrowed, Some(Algorithm::Crc32c)),
    };
    write_once(plan, place, contestant)?;
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
            place.remove_object()?;
            Ok(sample)
        }
        Contestant::RawRead(_) | Contestant::Read(_) => unreachable!("reads are run by read_once"),
    }
}

/// Writes one object and reads it back in every way.
fn race_reads(
    plan: &Plan<'_>,
    place: &Place,
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
    race(contestants, rounds, |contestant| {
        forget_cached(place)?;
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

/// Lets reading read the medium, where the object went through the page cache.
fn forget_cached(place: &Place) -> Result<(), Failure> {
    match (place.mode, place.object_file()) {
        (IoMode::Buffered, Some(path)) => raw::drop_cache(&path),
        _ => Ok(()),
    }
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
        let contestants = write_contestants(&[1, 4]);
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
}
