//! The commands that keep house: prune, gc.

use serde_json::json;
use syncline::checkpoint::{CheckpointInfo, CheckpointStore, GcReport, PruneOptions, PruneReport};

use crate::args::{Gc, Prune};
use crate::failure::Failure;
use crate::output::{Column, Table, human_bytes, human_time, printable};
use crate::session::Session;

/// `syncline prune`
pub fn prune(session: &Session, args: &Prune) -> Result<(), Failure> {
    let store = CheckpointStore::open_with(&args.base, &session.config)?;
    let mut options = PruneOptions::new(args.keep);
    (options.keep_every, options.trust_sizes) = (args.keep_every, args.trust_sizes);
    options.dry_run = args.dry_run;
    let bar = session.progress.bar("read before pruning", None);
    let progress = |bytes: u64| bar.add(usize::try_from(bytes).unwrap_or(usize::MAX));
    let report = store.prune_with(&options, &progress)?;
    drop(bar);
    // Serialisation of plain data into memory cannot fail.
    let mut value = serde_json::to_value(&report).unwrap_or_default();
    value["dry_run"] = json!(args.dry_run);
    session.out.print(value, || prune_text(&report, args))
}

fn prune_text(report: &PruneReport, args: &Prune) -> String {
    let columns = [Column::Right("STEP"), Column::Left("TIMESTAMP"), Column::Left("STATE")];
    let mut table = Table::new(columns);
    let went = if args.dry_run { "would go" } else { "removed" };
    let states = report.removed.iter().map(|info| (info, went));
    let mut all: Vec<(&CheckpointInfo, &str)> =
        states.chain(report.kept.iter().map(|info| (info, "kept"))).collect();
    all.sort();
    for (info, state) in all {
        let proven = report.proven.as_ref() == Some(info);
        let state = if proven { format!("{state}, read and good") } else { state.to_owned() };
        table.row([info.step.to_string(), info.timestamp.to_string(), state]);
    }
    let (kept, removed) = (report.kept.len(), report.removed.len());
    let bytes = human_bytes(report.removed_bytes);
    let mut text = match (removed, kept) {
        (0, 0) => String::new(),
        _ => table.render(),
    };
    text.push_str(&match (removed, args.dry_run) {
        (0, _) => format!("nothing to prune, {kept} kept\n"),
        (_, true) => format!("{removed} would go, {bytes}; {kept} would stay\n"),
        (_, false) => format!("{removed} removed, {bytes}; {kept} kept\n"),
    });
    for note in &report.notes {
        text.push_str(&format!("note: {}\n", printable(note)));
    }
    text
}

/// `syncline gc`
pub fn gc(session: &Session, args: &Gc) -> Result<(), Failure> {
    let store = CheckpointStore::open_with(&args.base, &session.config)?;
    let report = store.gc(args.older_than, args.delete)?;
    // Serialisation of plain data into memory cannot fail.
    let value = serde_json::to_value(&report).unwrap_or_default();
    session.out.print(value, || gc_text(&report, args.delete))
}

fn gc_text(report: &GcReport, delete: bool) -> String {
    let columns = [
        Column::Left("KIND"),
        Column::Right("SIZE"),
        Column::Left("MODIFIED"),
        Column::Left("REMOVED"),
        Column::Left("URI"),
    ];
    let mut table = Table::new(columns);
    for garbage in &report.garbage {
        let kind = format!("{:?}", garbage.kind).to_lowercase();
        let removed = if garbage.removed { "yes" } else { "no" };
        let size = human_bytes(garbage.size_bytes);
        let modified = human_time(garbage.modified);
        table.row([kind, size, modified, removed.to_owned(), garbage.uri.clone()]);
    }
    let found = report.garbage.len();
    let bytes = human_bytes(
        report.garbage.iter().fold(0, |sum, garbage| garbage.size_bytes.saturating_add(sum)),
    );
    let removed = report.garbage.iter().filter(|garbage| garbage.removed).count();
    let mut text = if found > 0 { table.render() } else { String::new() };
    text.push_str(&match (found, delete) {
        (0, _) => "nothing to collect\n".to_owned(),
        (_, true) => format!("{found} found, {bytes}; {removed} removed\n"),
        (_, false) => format!("{found} found, {bytes}; {}\n", what_delete_does(report)),
    });
    for note in &report.notes {
        text.push_str(&format!("note: {}\n", printable(note)));
    }
    text
}

/// What `--delete` would do with what was found.
fn what_delete_does(report: &GcReport) -> String {
    let recent = report.garbage.iter().filter(|garbage| garbage.recent).count();
    match report.garbage.len() - recent {
        0 => "none of it would be removed".to_owned(),
        _ if recent == 0 => "--delete removes them".to_owned(),
        removable => format!("--delete removes {removable} of them"),
    }
}
