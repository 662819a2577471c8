//! The numbers: a table for people, all samples for machines.

use serde_json::{Value, json};
use syncline::{Algorithm, IoMode};

use super::engine::{WayIn, WayOut};
use super::machine::Facts;
use super::measure::{Figures, median};
use super::{Contestant, Outcome, Plan};
use crate::failure::Failure;
use crate::output::{Column, Table, human_bytes, printable};
use crate::session::Session;

/// What the rounds of one contestant come to.
struct Summary {
    figures: Figures,
    /// Median over the rounds of this one's rate divided by the ceiling's, where there is a ceiling.
    ratio: Option<f64>,
}

/// Prints everything.
pub fn print(
    session: &Session,
    uri: &str,
    plan: &Plan<'_>,
    facts: &Facts,
    writes: &[Outcome],
    reads: &[Outcome],
) -> Result<(), Failure> {
    let size_bytes = plan.size_bytes;
    let rounds = writes.first().map_or(0, |outcome| outcome.samples.len());
    let results = |outcomes: &[Outcome]| -> Vec<Value> {
        let summaries = summarise(outcomes, size_bytes);
        outcomes.iter().zip(&summaries).map(|(o, s)| result_json(o, s, size_bytes)).collect()
    };
    let mut value = facts.json();
    for (name, field) in [
        ("uri", json!(uri)),
        ("size_bytes", json!(size_bytes)),
        ("part_bytes", json!(plan.part_bytes)),
        ("source_bytes", json!(plan.source.len())),
        ("io_threads", json!(plan.config.io_threads())),
        ("rounds", json!(rounds)),
        ("write", json!(results(writes))),
        ("read", json!(results(reads))),
    ] {
        value[name] = field;
    }
    session.out.print(value, || {
        let head = header(uri, plan, facts, rounds);
        let writes = table("WRITE", writes, size_bytes);
        let reads = table("READ", reads, size_bytes);
        format!("{head}\n{writes}\n{reads}\n{}", notes(plan, facts))
    })
}

fn header(uri: &str, plan: &Plan<'_>, facts: &Facts, rounds: usize) -> String {
    format!(
        "{}\n{}, {}: {} a pass in parts of {}, {} I/O threads, {rounds} rounds in turns\n",
        facts.line(),
        printable(uri),
        facts.mode,
        human_bytes(plan.size_bytes),
        human_bytes(plan.part_bytes as u64),
        plan.config.io_threads(),
    )
}

fn table(title: &'static str, outcomes: &[Outcome], size_bytes: u64) -> String {
    let summaries = summarise(outcomes, size_bytes);
    let mut columns = vec![
        Column::Left(title),
        Column::Left("CHECKSUM"),
        Column::Right("MiB/s"),
        Column::Right("SPREAD"),
        Column::Right("CPU s/GB"),
        Column::Right("PEAK MEMORY"),
    ];
    if summaries.iter().any(|summary| summary.ratio.is_some()) {
        columns.push(Column::Right("RATIO"));
    }
    let mut table = Table::new(columns);
    for (outcome, summary) in outcomes.iter().zip(summaries) {
        let (way, checksum) = name(outcome.contestant);
        let figures = summary.figures;
        let mut row = vec![
            way,
            checksum.to_owned(),
            format!("{:.0}", figures.mib_per_s),
            figures.spread(),
            format!("{:.3}", figures.cpu_s_per_gb),
            figures.peak_bytes.map_or_else(|| "-".to_owned(), human_bytes),
        ];
        row.extend(summary.ratio.map(|ratio| format!("{ratio:.2}")));
        table.row(row);
    }
    table.render()
}

fn notes(plan: &Plan<'_>, facts: &Facts) -> String {
    let ceiling = if facts.mode == IoMode::Network {
        "There is no ceiling: what a server gives without the engine is not measured."
    } else if facts.mode == IoMode::Memory {
        "RATIO is to the faster memcpy, round by round; the copies of WRITE go to fresh memory."
    } else if plan.direct {
        "RATIO is to the faster raw loop, round by round: O_DIRECT, space set aside, fdatasync at the end."
    } else {
        "RATIO is to the faster raw loop, round by round: through the page cache, space set aside, fdatasync \
         at the end. The cache is dropped before each READ."
    };
    format!(
        "{ceiling}\nMiB/s and CPU s/GB (10^9 bytes, user and system) are medians, SPREAD is lowest to highest.\n\
         PEAK MEMORY is what was resident above the start of the run, without the {} source or the warm \
         target of READ; `-` where /proc/self/clear_refs cannot be written.\n",
        human_bytes(plan.source.len() as u64)
    )
}

/// A contestant's name and its checksum.
fn name(contestant: Contestant) -> (String, &'static str) {
    let threads =
        |count: usize| if count == 1 { "1 thread".to_owned() } else { format!("{count} threads") };
    match contestant {
        Contestant::RawWrite(count) => (format!("ceiling, {}", threads(count)), "-"),
        Contestant::RawRead(count) => (format!("ceiling, {}", threads(count)), "-"),
        Contestant::Write(way, checksum) => {
            let way = match way {
                WayIn::Chunk => "write_chunk",
                WayIn::Owned => "write_owned",
                WayIn::Reserved => "reserve/commit",
                WayIn::Borrowed => "write_borrowed",
            };
            (way.to_owned(), checksum.map_or("none", Algorithm::name))
        }
        Contestant::Read(way) => {
            let (way, checksum) = match way {
                WayOut::IntoVerified => ("read_into_verified, warm memory", "crc32c"),
                WayOut::Into => ("read_into, warm memory", "none"),
                WayOut::FreshVerified => ("get, fresh memory", "crc32c"),
                WayOut::Fresh => ("get, fresh memory", "none"),
            };
            (way.to_owned(), checksum)
        }
    }
}

fn summarise(outcomes: &[Outcome], size_bytes: u64) -> Vec<Summary> {
    let rates = |outcome: &Outcome| -> Vec<f64> {
        outcome.samples.iter().map(|sample| sample.mib_per_s(size_bytes)).collect()
    };
    let is_ceiling =
        |o: &&Outcome| matches!(o.contestant, Contestant::RawWrite(_) | Contestant::RawRead(_));
    let ceilings = outcomes.iter().filter(is_ceiling).map(rates);
    let ceiling = ceilings.max_by(|a, b| median(a.clone()).total_cmp(&median(b.clone())));
    let ratio = |outcome, ceiling: &Vec<f64>| {
        median(rates(outcome).iter().zip(ceiling).map(|(rate, ceiling)| rate / ceiling).collect())
    };
    outcomes
        .iter()
        .map(|outcome| Summary {
            figures: Figures::of(&outcome.samples, size_bytes),
            ratio: ceiling.as_ref().map(|ceiling| ratio(outcome, ceiling)),
        })
        .collect()
}

fn result_json(outcome: &Outcome, summary: &Summary, size_bytes: u64) -> Value {
    let (way, checksum) = name(outcome.contestant);
    let threads = match outcome.contestant {
        Contestant::RawWrite(threads) | Contestant::RawRead(threads) => Some(threads),
        _ => None,
    };
    let mut value = summary.figures.json(&outcome.samples, size_bytes);
    for (name, field) in [
        ("way", json!(way)),
        ("ceiling", json!(threads.is_some())),
        ("threads", json!(threads)),
        ("checksum", if checksum == "-" { Value::Null } else { json!(checksum) }),
        ("ratio", json!(summary.ratio)),
    ] {
        value[name] = field;
    }
    value
}
