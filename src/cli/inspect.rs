//! The commands that look at a base: list, show, verify.

use serde_json::{Value, json};
use syncline::checkpoint::{
    ByteRange, CheckpointInfo, CheckpointStore, Manifest, ShardReport, ShardState, Verdict,
    VerifyReport,
};

use crate::args::{List, Show, Verify};
use crate::failure::Failure;
use crate::output::{Column, Table, human_bytes, note, printable};
use crate::session::Session;

/// Damaged ranges of a shard that are printed; the rest is counted. JSON has them all.
const RANGES_SHOWN: usize = 3;

/// `syncline list`
pub fn list(session: &Session, args: &List) -> Result<(), Failure> {
    let checkpoints = CheckpointStore::open_with(&args.base, &session.config)?.list()?;
    if checkpoints.is_empty() && !session.out.is_json() {
        note(&format!("no checkpoint in {}", args.base));
    }
    let mut rows = Vec::new();
    let columns = [
        Column::Right("STEP"),
        Column::Left("TIMESTAMP"),
        Column::Right("RANKS"),
        Column::Right("SHARDS"),
        Column::Right("SIZE"),
        Column::Right("STORED"),
        Column::Left("FRAMEWORK"),
        Column::Left("STATE"),
    ];
    let mut table = Table::new(columns);
    for listed in &checkpoints {
        let (step, ts) = (listed.info.step, listed.info.timestamp.as_str());
        let mut row = json!({
            "step": step,
            "timestamp": ts,
            "manifest_key": listed.info.manifest_key,
            "readable": listed.summary.is_ok(),
        });
        let unknown = || "-".to_owned();
        let cells = match &listed.summary {
            Ok(summary) => {
                row["epoch"] = json!(summary.epoch);
                row["framework"] = json!(summary.framework);
                row["wall_time"] = json!(summary.wall_time);
                row["world_size"] = json!(summary.world_size);
                row["shards"] = json!(summary.world_size);
                row["size_bytes"] = json!(summary.raw_bytes);
                row["stored_bytes"] = json!(summary.stored_bytes);
                let ranks = summary.world_size.to_string();
                let size = human_bytes(summary.raw_bytes);
                let stored = human_bytes(summary.stored_bytes);
                let framework = summary.framework.clone();
                [ranks.clone(), ranks, size, stored, framework, "complete".to_owned()]
            }
            Err(error) => {
                row["error"] = json!(error.to_string());
                let why = format!("unreadable: {error}");
                [unknown(), unknown(), unknown(), unknown(), unknown(), why]
            }
        };
        rows.push(row);
        table.row([vec![step.to_string(), ts.to_owned()], cells.to_vec()].concat());
    }
    session.out.print(Value::Array(rows), || {
        if checkpoints.is_empty() { String::new() } else { table.render() }
    })
}

/// `syncline show`
pub fn show(session: &Session, args: &Show) -> Result<(), Failure> {
    let reader = CheckpointStore::open_with(&args.base, &session.config)?.reader();
    let manifest = match args.step {
        Some(step) => reader.find_manifest_by_step(step)?,
        None => reader.latest()?,
    };
    let manifest = manifest.ok_or_else(|| no_checkpoint("show", &args.base, args.step))?;
    let value = serde_json::to_value(&manifest)
        .map_err(|e| Failure::Other(format!("show {}: {e}", args.base)))?;
    session.out.print(value, || manifest_text(&manifest))
}

/// That a base has no checkpoint, or none of a step.
pub fn no_checkpoint(operation: &str, base: &str, step: Option<u64>) -> Failure {
    let which = step.map_or_else(String::new, |step| format!(" of step {step}"));
    Failure::Damaged(format!(
        "{operation} {base}: there is no checkpoint{which}; `syncline list` shows what there is"
    ))
}

fn manifest_text(manifest: &Manifest) -> String {
    let mut fields = Table::new([Column::Left("FIELD"), Column::Left("VALUE")]).headless();
    let ts = manifest.timestamp().map_or("-", |ts| ts.as_str());
    fields.row(["step".to_owned(), manifest.global_step.to_string()]);
    fields.row(["timestamp".to_owned(), ts.to_owned()]);
    fields.row(["epoch".to_owned(), manifest.epoch.to_string()]);
    fields.row(["framework".to_owned(), manifest.framework.clone()]);
    fields.row(["wall time".to_owned(), manifest.wall_time.clone()]);
    fields.row(["world size".to_owned(), manifest.world_size.to_string()]);
    fields.row(["size".to_owned(), human_bytes(manifest.raw_bytes())]);
    fields.row(["stored".to_owned(), human_bytes(manifest.stored_bytes())]);
    fields.row(["status".to_owned(), manifest.status.clone()]);
    if let Some(meta) = &manifest.user_meta {
        fields.row(["user meta".to_owned(), meta.to_string()]);
    }
    let columns = [
        Column::Right("RANK"),
        Column::Right("SIZE"),
        Column::Right("STORED"),
        Column::Left("CHECKSUM"),
        Column::Left("KEY"),
    ];
    let mut shards = Table::new(columns);
    for shard in &manifest.shards {
        let checksum = shard.checksum.clone().unwrap_or_else(|| "-".to_owned());
        let (size, stored) = (human_bytes(shard.raw_bytes()), human_bytes(shard.size));
        shards.row([shard.rank.to_string(), size, stored, checksum, shard.key.clone()]);
    }
    format!("{}\n{}", fields.render(), shards.render())
}

/// `syncline verify`
pub fn verify(session: &Session, args: &Verify) -> Result<(), Failure> {
    let store = CheckpointStore::open_with(&args.base, &session.config)?;
    let mut chosen = store.reader().list_checkpoints()?;
    if let Some(step) = args.step {
        chosen.retain(|info| info.step == step);
    }
    if !args.all {
        // In order, so the last is the newest.
        chosen = chosen.pop().into_iter().collect();
    }
    if chosen.is_empty() {
        return Err(no_checkpoint("verify", &args.base, args.step));
    }
    let reports = verify_each(session, &store, &chosen, args.quick)?;
    let leftovers = store.leftovers()?;
    let count = |verdict| reports.iter().filter(|report| report.verdict == verdict).count();
    let (bad, unknown) = (count(Verdict::Damaged), count(Verdict::Unknown));
    let value = json!({
        "good": reports.iter().all(VerifyReport::is_good),
        "checkpoints": reports.iter().map(report_json).collect::<Vec<_>>(),
        "notes": leftovers,
    });
    let printed = session.out.print(value, || {
        let reports: Vec<String> = reports.iter().map(report_text).collect();
        let notes: String = leftovers.iter().map(|n| format!("note: {}\n", printable(n))).collect();
        format!("{}{notes}", reports.join("\n"))
    });
    if bad > 0 {
        let all = reports.len();
        // Of one checkpoint nothing follows for the others.
        let next = match args.all && bad == all {
            true => "none is left to restore; look for another copy",
            false => "`syncline restore` takes the newest good one, if there is one",
        };
        let base = &args.base;
        return Err(Failure::Damaged(format!(
            "verify {base}: {bad} of {all} checkpoints damaged; {next}"
        )));
    }
    if unknown > 0 {
        let all = reports.len();
        return Err(Failure::Other(format!(
            "verify {}: {unknown} of {all} checkpoints could not be read; nothing is known to be damaged",
            args.base
        )));
    }
    printed
}

fn verify_each(
    session: &Session,
    store: &CheckpointStore,
    chosen: &[CheckpointInfo],
    quick: bool,
) -> Result<Vec<VerifyReport>, Failure> {
    let mut reports = Vec::new();
    for info in chosen {
        if quick {
            reports.push(store.verify_quick(info)?);
            continue;
        }
        let total = store.reader().load_manifest(&info.manifest_key).ok().map(|m| m.stored_bytes());
        let bar = session.progress.bar(&format!("step {}", info.step), total);
        let progress = |bytes: u64| bar.add(usize::try_from(bytes).unwrap_or(usize::MAX));
        reports.push(store.verify(info, &progress)?);
    }
    Ok(reports)
}

fn report_json(report: &VerifyReport) -> Value {
    // Serialisation of plain data into memory cannot fail.
    let mut value = serde_json::to_value(report).unwrap_or_default();
    value["good"] = json!(report.is_good());
    value
}

fn report_text(report: &VerifyReport) -> String {
    let verdict = match report.verdict {
        Verdict::Good => "good",
        Verdict::Unverified => "there in the right sizes, not verified",
        Verdict::Unknown => "COULD NOT BE READ",
        Verdict::Damaged => "DAMAGED",
    };
    let read = human_bytes(report.read_bytes);
    let mut text =
        format!("step {} at {}: {verdict}, {read} read\n", report.step, report.timestamp);
    if let Some(error) = &report.manifest_error {
        text.push_str(&format!("manifest {}: {}\n", report.manifest_key, printable(error)));
    }
    if !report.shards.is_empty() {
        let columns = [
            Column::Right("RANK"),
            Column::Right("SIZE"),
            Column::Left("STATE"),
            Column::Left("KEY"),
        ];
        let mut table = Table::new(columns);
        for shard in &report.shards {
            let size = human_bytes(shard.size_bytes);
            table.row([shard.rank.to_string(), size, state_text(shard), shard.key.clone()]);
        }
        text.push_str(&table.render());
    }
    for note in &report.notes {
        text.push_str(&format!("note: {}\n", printable(note)));
    }
    text
}

fn state_text(shard: &ShardReport) -> String {
    match &shard.state {
        ShardState::Ok => "ok".to_owned(),
        ShardState::NoChecksum => "no checksum".to_owned(),
        ShardState::Missing => "missing".to_owned(),
        ShardState::WrongSize { found_bytes } => format!("wrong size: {found_bytes} bytes found"),
        ShardState::Unreadable { why } => format!("unreadable: {why}"),
        ShardState::Unsupported { why } => format!("unsupported: {why}"),
        ShardState::Foreign { link } => format!("foreign: {link} leads out of the base"),
        ShardState::Changed { why } => format!("changed: {why}"),
        ShardState::SameChecksum => "same checksum on the server".to_owned(),
        ShardState::SameTag => "same entity tag on the server".to_owned(),
        ShardState::SizeOnly => "size only".to_owned(),
        ShardState::Damaged { ranges, stored_ranges, .. } => {
            let mut text = "damaged".to_owned();
            if !ranges.is_empty() {
                text.push_str(&format!(" in bytes {}", ranges_text(ranges)));
            }
            if !stored_ranges.is_empty() {
                text.push_str(&format!(", of the object bytes {}", ranges_text(stored_ranges)));
            }
            text
        }
        other => format!("{other:?}"),
    }
}

fn ranges_text(ranges: &[ByteRange]) -> String {
    let shown = ranges.iter().take(RANGES_SHOWN).map(range_text).collect::<Vec<_>>().join(", ");
    match ranges.len().saturating_sub(RANGES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more ranges"),
    }
}

/// `65536..131072 (block 1)`: the end is not of the range, the last block is.
fn range_text(range: &ByteRange) -> String {
    let end = range.offset_bytes.saturating_add(range.length_bytes);
    let blocks = match range.blocks {
        Some(blocks) if blocks.first == blocks.last => format!(" (block {})", blocks.first),
        Some(blocks) => format!(" (blocks {}-{})", blocks.first, blocks.last),
        None => String::new(),
    };
    format!("{}..{end}{blocks}", range.offset_bytes)
}
