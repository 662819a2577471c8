//! The numbers: a table for people, all samples for machines.

use serde_json::{Value, json};
use syncline::Algorithm;

use super::engine::{WayIn, WayOut};
use super::machine::Facts;
use super::measure::{Sample, median};
use super::{Contestant, Outcome, Plan};
use crate::failure::Failure;
use crate::output::{Column, Table, human_bytes, printable};
use crate::session::Session;

const MIB: f64 = 1_048_576.0;
const GB: f64 = 1e9;

/// What the rounds of one contestant come to.
struct Summary {
    mib_per_s: f64,
    mib_per_s_min: f64,
    mib_per_s_max: f64,
    cpu_s_per_gb: f64,
    /// The highest of all rounds; `None` where it could not be measured.
    peak_bytes: Option<u64>,
    /// Median over the rounds of this one's rate divided by the ceiling's.
    ratio: f64,
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
    let value = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "kernel": facts.kernel,
        "filesystem": facts.filesystem,
        "cpus": facts.cpus,
        "cpu_model": facts.cpu_model,
        "uri": uri,
        "mode": facts.mode.to_string(),
        "size_bytes": size_bytes,
        "part_bytes": plan.part_bytes,
        "source_bytes": plan.source.len(),
        "io_threads": plan.config.io_threads(),
        "rounds": rounds,
        "write": results(writes),
        "read": results(reads),
    });
    session.out.print(value, || {
        let head = header(uri, plan, facts, rounds);
        let writes = table("WRITE", writes, size_bytes);
        let reads = table("READ", reads, size_bytes);
        format!("{head}\n{writes}\n{reads}\n{}", notes(plan, facts))
    })
}

fn header(uri: &str, plan: &Plan<'_>, facts: &Facts, rounds: usize) -> String {
    let cpu = facts.cpu_model.as_deref().unwrap_or("unknown model");
    format!(
        "syncline {}, {}, {} CPUs ({cpu}), {}\n{}, {}: {} a pass in parts of {}, {} I/O threads, \
         {rounds} rounds in turns\n",
        env!("CARGO_PKG_VERSION"),
        facts.kernel,
        facts.cpus,
        facts.filesystem,
        printable(uri),
        facts.mode,
        human_bytes(plan.size_bytes),
        human_bytes(plan.part_bytes as u64),
        plan.config.io_threads(),
    )
}

fn table(title: &'static str, outcomes: &[Outcome], size_bytes: u64) -> String {
    let columns = [
        Column::Left(title),
        Column::Left("CHECKSUM"),
        Column::Right("MiB/s"),
        Column::Right("SPREAD"),
        Column::Right("CPU s/GB"),
        Column::Right("PEAK MEMORY"),
        Column::Right("RATIO"),
    ];
    let mut table = Table::new(columns);
    for (outcome, summary) in outcomes.iter().zip(summarise(outcomes, size_bytes)) {
        let (way, checksum) = name(outcome.contestant);
        table.row([
            way,
            checksum.to_owned(),
            format!("{:.0}", summary.mib_per_s),
            format!("{:.0}..{:.0}", summary.mib_per_s_min, summary.mib_per_s_max),
            format!("{:.3}", summary.cpu_s_per_gb),
            summary.peak_bytes.map_or_else(|| "-".to_owned(), human_bytes),
            format!("{:.2}", summary.ratio),
        ]);
    }
    table.render()
}

fn notes(plan: &Plan<'_>, facts: &Facts) -> String {
    let ceiling = if facts.filesystem == "memory" {
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
        outcome.samples.iter().map(|sample| rate(sample, size_bytes)).collect()
    };
    let is_ceiling =
        |o: &&Outcome| matches!(o.contestant, Contestant::RawWrite(_) | Contestant::RawRead(_));
    let ceilings = outcomes.iter().filter(is_ceiling).map(rates);
    let ceiling = ceilings.max_by(|a, b| median(a.clone()).total_cmp(&median(b.clone())));
    outcomes
        .iter()
        .map(|outcome| {
            let rates = rates(outcome);
            let ceiling = ceiling.as_ref().unwrap_or(&rates);
            let ratios = rates.iter().zip(ceiling).map(|(rate, ceiling)| rate / ceiling).collect();
            let cpu = |sample: &Sample| sample.cpu.as_secs_f64() / (size_bytes as f64 / GB);
            Summary {
                mib_per_s: median(rates.clone()),
                mib_per_s_min: rates.iter().copied().fold(f64::INFINITY, f64::min),
                mib_per_s_max: rates.iter().copied().fold(0.0, f64::max),
                cpu_s_per_gb: median(outcome.samples.iter().map(cpu).collect()),
                peak_bytes: outcome.samples.iter().filter_map(|sample| sample.peak_bytes).max(),
                ratio: median(ratios),
            }
        })
        .collect()
}

/// MiB per second. A pass too short for the clock counts as one nanosecond.
fn rate(sample: &Sample, size_bytes: u64) -> f64 {
    size_bytes as f64 / MIB / sample.wall.as_secs_f64().max(1e-9)
}

fn result_json(outcome: &Outcome, summary: &Summary, size_bytes: u64) -> Value {
    let (way, checksum) = name(outcome.contestant);
    let threads = match outcome.contestant {
        Contestant::RawWrite(threads) | Contestant::RawRead(threads) => Some(threads),
        _ => None,
    };
    let samples = outcome.samples.iter().map(|sample| {
        json!({
            "seconds": sample.wall.as_secs_f64(),
            "mib_per_s": rate(sample, size_bytes),
            "cpu_seconds": sample.cpu.as_secs_f64(),
            "peak_bytes": sample.peak_bytes,
        })
    });
    json!({
        "way": way,
        "ceiling": threads.is_some(),
        "threads": threads,
        "checksum": if checksum == "-" { Value::Null } else { json!(checksum) },
        "mib_per_s": summary.mib_per_s,
        "mib_per_s_min": summary.mib_per_s_min,
        "mib_per_s_max": summary.mib_per_s_max,
        "cpu_s_per_gb": summary.cpu_s_per_gb,
        "peak_bytes": summary.peak_bytes,
        "ratio": summary.ratio,
        "samples": samples.collect::<Vec<_>>(),
    })
}
