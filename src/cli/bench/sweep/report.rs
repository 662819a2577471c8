//! What the sweep found: tables and the settings to use for people, everything for machines.

use serde_json::{Value, json};

use super::choose::{NEAR_BEST, best_of, cheapest, share_of};
use super::grid::{Grid, exact_bytes};
use super::runs::Measured;
use super::{Advice, Purpose};
use crate::bench::Bench;
use crate::bench::machine::Facts;
use crate::bench::measure::{Figures, median};
use crate::failure::Failure;
use crate::output::{Column, Table, human_bytes, printable};
use crate::session::Session;

/// Most lines of what is near the best; the best is among them.
const NEAR_LINES_MAX: usize = 6;

/// Noise from which on the choice is called uncertain: twice of what counts as near the best.
const NOISE_MAX: f64 = 0.1;

/// Everything that was measured, and what follows.
pub struct Report<'a> {
    pub args: &'a Bench,
    pub size_bytes: u64,
    pub facts: Facts,
    pub grid: Grid,
    pub measured: Vec<Measured>,
    pub depths: Vec<Measured>,
    pub advices: Vec<Advice>,
}

/// Writing or reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Write,
    Read,
}

impl Side {
    /// Its figures of a setting.
    pub fn of(self, measured: &Measured) -> &Figures {
        match self {
            Side::Write => &measured.write,
            Side::Read => &measured.read,
        }
    }

    fn rates(self, measured: &[Measured]) -> Vec<f64> {
        measured.iter().map(|m| self.of(m).mib_per_s).collect()
    }

    /// How far the runs of one setting are apart, as a share of their median: the median over all settings.
    fn noise(self, measured: &[Measured]) -> f64 {
        let share = |figures: &Figures| {
            share_of(figures.mib_per_s_max - figures.mib_per_s_min, figures.mib_per_s)
        };
        median(measured.iter().map(|m| share(self.of(m))).collect())
    }

    fn name(self) -> &'static str {
        match self {
            Side::Write => "write",
            Side::Read => "read",
        }
    }
}

impl Purpose {
    fn sides(self) -> &'static [Side] {
        match self {
            Purpose::Both => &[Side::Write, Side::Read],
            Purpose::Write => &[Side::Write],
            Purpose::Read => &[Side::Read],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Purpose::Both => "writing and reading",
            Purpose::Write => "writing",
            Purpose::Read => "reading",
        }
    }
}

impl Report<'_> {
    /// Prints everything.
    pub fn print(&self, session: &Session) -> Result<(), Failure> {
        session.out.print(self.json(), || self.text())
    }

    fn text(&self) -> String {
        let sides = [(Side::Write, "WRITE"), (Side::Read, "READ")];
        let tables = sides
            .map(|(side, title)| format!("{}\n{}", self.table(side, title), self.near_best(side)));
        format!(
            "{}\n{}, {}: {} a run, {} rounds, each in another order\n\n{}\n{}\n{}\n{}{}",
            self.facts.line(),
            printable(&self.args.uri),
            self.facts.mode,
            human_bytes(self.size_bytes),
            self.args.rounds,
            tables.join("\n"),
            self.depth_table(),
            self.advice_text(),
            NOTES,
            self.noise_text(),
        )
    }

    /// Says where chance had a hand in the choice.
    fn noise_text(&self) -> String {
        let noise = [Side::Write, Side::Read].map(|side| side.noise(&self.measured));
        if noise.iter().all(|share| *share <= NOISE_MAX) {
            return String::new();
        }
        let [write, read] = noise.map(|share| 100.0 * share);
        format!(
            "Runs of one setting are typically {write:.0} % (write) and {read:.0} % (read) apart, so that chance \
             had a hand in the\nchoice: more --rounds, a larger --size or a quieter machine settle it.\n"
        )
    }

    /// Part sizes down, threads across.
    fn table(&self, side: Side, title: &str) -> String {
        let rates = side.rates(&self.measured);
        let best = best_of(&rates);
        let costs: Vec<_> = self.measured.iter().map(|m| m.setting.cost()).collect();
        let chosen = cheapest(&costs, &[&rates]);
        let mut columns = vec![Column::Left("")];
        columns.extend(self.grid.threads.iter().map(|_| Column::Right("")));
        let mut table = Table::new(columns).headless();
        let threads = self.grid.threads.iter().map(|threads| match threads {
            1 => "1 thread  ".to_owned(),
            _ => format!("{threads} threads  "),
        });
        table.row([format!("{title} MiB/s")].into_iter().chain(threads).collect::<Vec<_>>());
        for &part in &self.grid.parts {
            let cell = |threads: &usize| {
                let is_it =
                    |m: &Measured| (m.setting.io_threads, m.setting.part_bytes) == (*threads, part);
                let Some(index) = self.measured.iter().position(is_it) else {
                    return "-  ".to_owned();
                };
                let star = if rates[index] == best { "*" } else { " " };
                let plus = if chosen == Some(index) { "+" } else { " " };
                format!("{:.0}{star}{plus}", rates[index])
            };
            let cells = self.grid.threads.iter().map(cell);
            table.row([exact_bytes(part)].into_iter().chain(cells).collect::<Vec<_>>());
        }
        table.render()
    }

    /// What is near the best, the cheapest first.
    fn near_best(&self, side: Side) -> String {
        let best = best_of(&side.rates(&self.measured));
        let share = |m: &Measured| share_of(side.of(m).mib_per_s, best);
        let mut near: Vec<&Measured> =
            self.measured.iter().filter(|m| share(m) >= NEAR_BEST).collect();
        near.sort_by_key(|m| m.setting.cost());
        let is_best = |m: &&Measured| side.of(m).mib_per_s == best;
        if let Some(at) = near.iter().position(is_best).filter(|at| *at >= NEAR_LINES_MAX) {
            near.swap(NEAR_LINES_MAX - 1, at);
        }
        let columns = [
            Column::Right("THREADS"),
            Column::Right("PART"),
            Column::Right("MiB/s"),
            Column::Right("SPREAD"),
            Column::Right("OF BEST"),
            Column::Right("CPU s/GB"),
            Column::Right("MEMORY"),
        ];
        let mut table = Table::new(columns);
        for m in near.into_iter().take(NEAR_LINES_MAX) {
            let figures = side.of(m);
            table.row([
                m.setting.io_threads.to_string(),
                exact_bytes(m.setting.part_bytes),
                format!("{:.0}", figures.mib_per_s),
                figures.spread(),
                format!("{:.0} %", 100.0 * share(m)),
                format!("{:.3}", figures.cpu_s_per_gb),
                human_bytes(m.setting.cost().memory_bytes),
            ]);
        }
        table.render()
    }

    fn depth_table(&self) -> String {
        let columns = [
            Column::Right("THREADS"),
            Column::Right("PART"),
            Column::Right("QUEUE DEPTH"),
            Column::Right("WRITE MiB/s"),
            Column::Right("READ MiB/s"),
            Column::Right("MEMORY"),
        ];
        let mut table = Table::new(columns);
        for m in &self.depths {
            table.row([
                m.setting.io_threads.to_string(),
                exact_bytes(m.setting.part_bytes),
                m.setting.queue_depth_parts.to_string(),
                format!("{:.0}", m.write.mib_per_s),
                format!("{:.0}", m.read.mib_per_s),
                human_bytes(m.setting.cost().memory_bytes),
            ]);
        }
        table.render()
    }

    fn advice_text(&self) -> String {
        let mut text = match self.advices.len() {
            0 | 1 => String::new(),
            _ => "No setting comes within 5 % of the best of both:\n".to_owned(),
        };
        for advice in &self.advices {
            let setting = self.depths[advice.depth].setting;
            text.push_str(&format!(
                "For {}:\n  {}\n  {}\n",
                advice.purpose.name(),
                setting.environment(),
                setting.builder()
            ));
        }
        text
    }

    fn json(&self) -> Value {
        let list = |measured: &[Measured]| measured.iter().map(measured_json).collect::<Vec<_>>();
        let left_out = self
            .grid
            .left_out
            .iter()
            .map(|(threads, part)| json!({ "io_threads": threads, "part_bytes": part }));
        let settings = self.advices.iter().map(|advice| self.advice_json(advice));
        let mut value = self.facts.json();
        for (name, field) in [
            ("uri", json!(self.args.uri)),
            ("size_bytes", json!(self.size_bytes)),
            ("rounds", json!(self.args.rounds)),
            ("threads", json!(self.grid.threads)),
            ("part_bytes", json!(self.grid.parts)),
            ("left_out", json!(left_out.collect::<Vec<_>>())),
            ("near_best", json!(NEAR_BEST)),
            (
                "noise",
                json!({
                    "write": Side::Write.noise(&self.measured),
                    "read": Side::Read.noise(&self.measured),
                }),
            ),
            ("grid", json!(list(&self.measured))),
            ("queue_depths", json!(list(&self.depths))),
            ("settings", json!(settings.collect::<Vec<_>>())),
        ] {
            value[name] = field;
        }
        value
    }

    fn advice_json(&self, advice: &Advice) -> Value {
        let setting = self.depths[advice.depth].setting;
        let sides = advice.purpose.sides();
        let mut value = setting.json();
        value["for"] = json!(sides.iter().map(|side| side.name()).collect::<Vec<_>>());
        value["environment"] = json!(setting.environment());
        value["builder"] = json!(setting.builder());
        for side in sides {
            let best = best_of(&side.rates(&self.measured));
            let rate = side.of(&self.measured[advice.pair]).mib_per_s;
            value["share_of_best"][side.name()] = json!(share_of(rate, best));
        }
        value
    }
}

const NOTES: &str = "\
* is the best, + the cheapest within 5 % of it: fewest threads, then least memory. MiB/s and CPU s/GB (10^9
bytes) are medians. MEMORY is what one writer, the queue and the threads take. The queue depth has no
variable: it is the builder's queue_depth_parts.
";

fn measured_json(measured: &Measured) -> Value {
    let mut value = measured.setting.json();
    value["pass_bytes"] = json!(measured.pass_bytes);
    value["write"] = measured.write.json(&measured.write_samples, measured.pass_bytes);
    value["read"] = measured.read.json(&measured.read_samples, measured.pass_bytes);
    value
}
