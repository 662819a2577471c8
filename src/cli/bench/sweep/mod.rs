//! `syncline bench --sweep`: which settings to use on this medium.
//!
//! Every number of threads is tried with every part size, then the queue depth for the pairs that are
//! chosen. A run writes an object as a program saves its shard (`write_borrowed` with checksum, committed)
//! and reads it back as one restores it (`read_into_verified` into resident memory).

mod choose;
mod grid;
mod plot;
mod report;
mod runs;

use self::choose::cheapest;
use self::grid::{Candidate, DEPTHS_MAX, Grid, with_depths};
use self::report::Report;
use self::runs::{Measured, Runs, call_bytes, pass_bytes, refuse_too_large};
use super::machine;
use super::place::Place;
use super::{Bench, on_server};
use crate::failure::Failure;
use crate::output::{human_bytes, note};
use crate::session::Session;

/// Bytes of a run, unless given: what sixteen threads with parts of 32 MiB have under way at a time.
const RUN_BYTES: u64 = 512 << 20;

/// What settings are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// One setting serves both.
    Both,
    /// Saving.
    Write,
    /// Restoring.
    Read,
}

/// What to use: places in the lists of what was measured.
#[derive(Debug, Clone, Copy)]
pub struct Advice {
    pub purpose: Purpose,
    /// The one that was chosen of the grid.
    pub pair: usize,
    /// The same with the queue depth that was chosen.
    pub depth: usize,
}

/// `syncline bench --sweep`
pub fn sweep(session: &Session, args: &Bench) -> Result<(), Failure> {
    if session.common.io_threads.is_some() || session.common.part_size.is_some() {
        return Err(Failure::Usage(
            "bench --sweep: tries several of them; give --threads and --parts instead of --io-threads \
             and --part-size"
                .to_owned(),
        ));
    }
    if let Some(path) = &args.plot {
        plot::check(path)?;
    }
    let size_bytes = args.size.unwrap_or(RUN_BYTES);
    let grid = Grid::new(session, args, size_bytes)?;
    let object_bytes = largest_pass(&grid, size_bytes);
    refuse_too_large(&args.uri, call_bytes(&grid.candidates, size_bytes), object_bytes)?;
    let unfinished = session.stop.protect()?;
    let place = Place::open(session, &args.uri, object_bytes)?;
    tell_effort(args, &grid, size_bytes);
    let mut runs = Runs::new(session, &place, &grid.candidates, size_bytes)?;
    let measured = race_grid(session, args, &mut runs, &grid, size_bytes)?;
    let pairs = choose_pairs(&measured);
    let (depths, advices) = race_depths(session, args, &mut runs, &measured, &pairs)?;
    let facts = machine::facts(place.medium(), place.mode);
    drop(runs);
    drop(place);
    drop(unfinished);
    let report = Report { args, size_bytes, facts, grid, measured, depths, advices };
    if let Some(path) = &args.plot {
        plot::write(path, &report)?;
    }
    report.print(session)
}

fn largest_pass(grid: &Grid, size_bytes: u64) -> u64 {
    grid.candidates.iter().map(|c| pass_bytes(&c.setting, size_bytes)).max().unwrap_or(0)
}

/// Says before anything is measured how much will be.
fn tell_effort(args: &Bench, grid: &Grid, size_bytes: u64) {
    let rounds = u64::from(args.rounds);
    let depth_runs = 2 * DEPTHS_MAX as u64 * rounds;
    let grid_runs = grid.candidates.len() as u64 * rounds + 1;
    let pass_bytes_max = largest_pass(grid, size_bytes);
    let pass = |candidate: &Candidate| pass_bytes(&candidate.setting, size_bytes);
    let round_bytes = grid.candidates.iter().map(pass).fold(0, u64::saturating_add);
    let bytes = round_bytes
        .saturating_mul(rounds)
        .saturating_add(pass_bytes_max.saturating_mul(depth_runs + 1));
    let cost = if on_server(&args.uri) { "; requests and traffic may cost money" } else { "" };
    note(&format!(
        "{grid_runs} runs for threads and part size, then at most {depth_runs} for the queue \
         depth; at most {} written and as much read{cost}",
        human_bytes(bytes)
    ));
    if !grid.left_out.is_empty() {
        let count = grid.left_out.len();
        note(&format!("{count} settings exceed the bound on memory and are left out"));
    }
}

/// Measures all threads with all part sizes.
fn race_grid(
    session: &Session,
    args: &Bench,
    runs: &mut Runs<'_>,
    grid: &Grid,
    size_bytes: u64,
) -> Result<Vec<Measured>, Failure> {
    let pass = |candidate: &Candidate| pass_bytes(&candidate.setting, size_bytes);
    let round_bytes = grid.candidates.iter().map(pass).fold(0, u64::saturating_add);
    // Not measured: lets the medium see its blocks, and the processor its top speed.
    let first = grid.candidates.last();
    let one_way =
        round_bytes.saturating_mul(u64::from(args.rounds)).saturating_add(first.map_or(0, pass));
    let bar = session.progress.bar("threads x part size", Some(one_way.saturating_mul(2)));
    if let Some(first) = first {
        runs.run(first, &bar)?;
    }
    runs.race(&grid.candidates, args.rounds, &bar)
}

/// The cheapest near the best: one for both purposes where there is one, else one for each.
fn choose_pairs(measured: &[Measured]) -> Vec<(Purpose, usize)> {
    choose(measured, &(0..measured.len()).collect::<Vec<_>>(), Purpose::Both)
}

/// Of these places in the list.
fn choose(measured: &[Measured], places: &[usize], purpose: Purpose) -> Vec<(Purpose, usize)> {
    let costs: Vec<_> = places.iter().map(|place| measured[*place].setting.cost()).collect();
    let rates = |of: fn(&Measured) -> f64| -> Vec<f64> {
        places.iter().map(|place| of(&measured[*place])).collect()
    };
    let (writes, reads) = (rates(|m| m.write.mib_per_s), rates(|m| m.read.mib_per_s));
    let chosen =
        |purpose, lists: &[&[f64]]| cheapest(&costs, lists).map(|index| (purpose, places[index]));
    let both = chosen(Purpose::Both, &[&writes, &reads]);
    let write = chosen(Purpose::Write, &[&writes]);
    let read = chosen(Purpose::Read, &[&reads]);
    let found = match (purpose, both) {
        (Purpose::Both, Some(both)) => [Some(both), None],
        (Purpose::Both, None) => [write, read],
        (Purpose::Write, _) => [write, None],
        (Purpose::Read, _) => [read, None],
    };
    found.into_iter().flatten().collect()
}

/// Measures the queue depths of the chosen pairs, and chooses of them in the same way.
fn race_depths(
    session: &Session,
    args: &Bench,
    runs: &mut Runs<'_>,
    measured: &[Measured],
    pairs: &[(Purpose, usize)],
) -> Result<(Vec<Measured>, Vec<Advice>), Failure> {
    let mut distinct: Vec<usize> = pairs.iter().map(|(_, pair)| *pair).collect();
    distinct.dedup();
    let candidates: Vec<Candidate> =
        distinct.iter().flat_map(|pair| with_depths(session, measured[*pair].setting)).collect();
    let is_pair =
        |candidate: &Candidate, pair: usize| candidate.setting.is_pair_of(&measured[pair].setting);
    let bytes_of = |candidate: &Candidate| {
        distinct
            .iter()
            .find(|pair| is_pair(candidate, **pair))
            .map_or(0, |pair| measured[*pair].pass_bytes)
    };
    let round_bytes: u64 = candidates.iter().map(bytes_of).fold(0, u64::saturating_add);
    let bar = session
        .progress
        .bar("queue depth", Some(round_bytes.saturating_mul(2 * u64::from(args.rounds))));
    let depths = runs.race(&candidates, args.rounds, &bar)?;
    let mut advices = Vec::new();
    for (purpose, pair) in pairs.iter().copied() {
        let of_pair = |place: &usize| is_pair(&candidates[*place], pair);
        let places: Vec<usize> = (0..depths.len()).filter(of_pair).collect();
        let chosen = choose(&depths, &places, purpose);
        advices.extend(chosen.into_iter().map(|(purpose, depth)| Advice { purpose, pair, depth }));
    }
    Ok((depths, advices))
}
