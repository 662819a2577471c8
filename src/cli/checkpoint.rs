//! `syncline save`: files become the shards of one checkpoint.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};
use syncline::checkpoint::{CheckpointStore, KeyLayout, ShardMeta};
use syncline::{Compression, Timestamp};

use crate::args::Save;
use crate::crew::{group_files_max, groups, in_parallel};
use crate::failure::Failure;
use crate::output::{Column, Table, human_bytes};
use crate::progress::Bar;
use crate::session::Session;
use crate::transfer::{Check, Input, abandon, fill};

/// Where the manifest's `user_meta` keeps the names of the files, by rank.
pub const FILES_KEY: &str = "files";

/// A file to be saved.
struct SourceFile<'a> {
    path: &'a Path,
    name: String,
    size_bytes: u64,
}

/// `syncline save`
pub fn save(session: &Session, args: &Save) -> Result<(), Failure> {
    let (base, files) = match args.files_and_base.split_last() {
        Some((base, files)) if !files.is_empty() => (base, source_files(files)?),
        _ => return Err(Failure::Usage("save: name the files, then the base".to_owned())),
    };
    let user_meta = user_meta(&files, &args.meta)?;
    let compression = args.compress.unwrap_or_default();
    let compression = compression.with_filter(args.shuffle.unwrap_or_default())?;
    let store = CheckpointStore::open_with(base, &session.config)?
        .with_strategy(args.strategy)
        .with_compression(compression);
    let layout = store.layout(args.step, args.ts.clone().unwrap_or_else(Timestamp::now));
    if store.store().exists(&store.uri(&layout.manifest_key()))? {
        return Err(Failure::Other(format!(
            "save {base}: {layout} exists already; leave --ts out, or give a later one"
        )));
    }
    session.caution(&**store.store(), base);

    let total_bytes = files.iter().map(|file| file.size_bytes).sum();
    let bar = session.progress.bar("save", Some(total_bytes));
    let unfinished = session.stop.protect()?;
    let shards = save_shards(session, &store, &layout, &files, &bar)?;
    let world_size = world_size(&files)?;
    let writer = store.writer(world_size, 0)?;
    let (framework, epoch) = (&args.framework, args.epoch);
    let info = writer
        .finalize_checkpoint(&layout, framework, epoch, shards.clone(), Some(user_meta))
        .inspect_err(|_| {
            // Shards may go only if surely no manifest names them.
            if let Ok(false) = store.store().exists(&store.uri(&layout.manifest_key())) {
                remove_shards(&store, &shards, &bar);
            }
        })?;
    drop(unfinished);
    drop(bar);

    let value = json!({
        "step": info.step,
        "timestamp": info.timestamp.as_str(),
        "manifest_key": info.manifest_key,
        "base": base,
        "world_size": world_size,
        "compression": compression.to_string(),
        "size_bytes": raw_total_of(&shards),
        "stored_bytes": total_of(&shards),
        "shards": shards.iter().zip(&files).map(|(shard, file)| json!({
            "rank": shard.rank,
            "name": file.name,
            "key": shard.key,
            "size_bytes": shard.raw_bytes(),
            "stored_bytes": shard.size,
            "checksum": shard.checksum,
        })).collect::<Vec<_>>(),
    });
    session.out.print(value, || saved_table(&layout, &shards, &files))
}

fn saved_table(layout: &KeyLayout, shards: &[ShardMeta], files: &[SourceFile<'_>]) -> String {
    let is_compressed = layout.compression() != Compression::None;
    let mut columns = vec![Column::Right("RANK"), Column::Right("SIZE")];
    columns.extend(is_compressed.then_some(Column::Right("STORED")));
    columns.extend([Column::Left("CHECKSUM"), Column::Left("FILE")]);
    let mut table = Table::new(columns);
    for (shard, file) in shards.iter().zip(files) {
        let checksum = shard.checksum.clone().unwrap_or_else(|| "-".to_owned());
        let mut cells = vec![shard.rank.to_string(), human_bytes(shard.raw_bytes())];
        cells.extend(is_compressed.then(|| human_bytes(shard.size)));
        cells.extend([checksum, file.name.clone()]);
        table.row(cells);
    }
    let (total, stored) = (raw_total_of(shards), total_of(shards));
    let compressed = match layout.compression() {
        Compression::None => String::new(),
        compression => format!(
            ", stored in {} ({:.1} %, {compression})",
            human_bytes(stored),
            if total == 0 { 100.0 } else { stored as f64 / total as f64 * 100.0 }
        ),
    };
    let (count, total) = (shards.len(), human_bytes(total));
    format!("{}saved {layout}: {count} shards, {total}{compressed}\n", table.render())
}

fn raw_total_of(shards: &[ShardMeta]) -> u64 {
    shards.iter().map(ShardMeta::raw_bytes).sum()
}

fn total_of(shards: &[ShardMeta]) -> u64 {
    shards.iter().map(|shard| shard.size).sum()
}

fn world_size(files: &[SourceFile<'_>]) -> Result<u32, Failure> {
    u32::try_from(files.len()).map_err(|_| Failure::Usage("save: too many files".to_owned()))
}

/// Looks at every file before anything is written: regular, and of a name that restores.
fn source_files(paths: &[String]) -> Result<Vec<SourceFile<'_>>, Failure> {
    let mut names = BTreeSet::new();
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let shown = path;
        let path = Path::new(path);
        let meta = fs::metadata(path).map_err(|e| Failure::io("open", path, &e))?;
        if !meta.is_file() {
            let what = if meta.is_dir() {
                "a directory; name the files in it"
            } else {
                "not a regular file"
            };
            return Err(Failure::Usage(format!("save {shown}: is {what}")));
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if !is_plain_name(&name) {
            return Err(Failure::Usage(format!(
                "save {shown}: the file's name could not be restored; rename it without control characters"
            )));
        }
        if !names.insert(name.clone()) {
            return Err(Failure::Usage(format!(
                "save {shown}: two files are called {name}, which could not be restored beside each other; \
                 rename one"
            )));
        }
        files.push(SourceFile { path, name, size_bytes: meta.len() });
    }
    Ok(files)
}

/// Whether a name from a manifest may be used for a file: it stays in its directory and can be shown.
pub fn is_plain_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= NAME_BYTES_MAX
        && !name.chars().any(|c| c == '/' || c == '\\' || c.is_control())
}

/// Longest name of a file. Source: NAME_MAX in linux/limits.h.
const NAME_BYTES_MAX: usize = 255;

fn user_meta(files: &[SourceFile<'_>], pairs: &[(String, String)]) -> Result<Value, Failure> {
    let mut meta = Map::new();
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    meta.insert(FILES_KEY.to_owned(), json!(names));
    for (key, value) in pairs {
        if meta.insert(key.clone(), Value::String(value.clone())).is_some() {
            let why = if key == FILES_KEY { "is set by save itself" } else { "is given twice" };
            return Err(Failure::Usage(format!("save --meta {key}: {why}")));
        }
    }
    Ok(Value::Object(meta))
}

/// Writes all shards; if one fails, those that stood already are removed again.
fn save_shards(
    session: &Session,
    store: &CheckpointStore,
    layout: &KeyLayout,
    files: &[SourceFile<'_>],
    bar: &Bar,
) -> Result<Vec<ShardMeta>, Failure> {
    let world_size = world_size(files)?;
    let done: Mutex<Vec<ShardMeta>> = Mutex::new(Vec::with_capacity(files.len()));
    let lock = || done.lock().unwrap_or_else(PoisonError::into_inner);
    // The store's own settings: parts of a server may leave room for fewer writers.
    let config = store.store().config();
    let threads = config.io_threads().min(config.open_writers_max());
    let together = layout.compression() == Compression::None;
    let sizes = files.iter().map(|file| together.then_some(file.size_bytes));
    let groups = groups(sizes, group_files_max(threads), config.part_bytes());
    let saved = in_parallel(groups.len(), threads, &session.stop, |index, check| {
        let group = groups[index].clone();
        let rank = u32::try_from(group.start).unwrap_or(u32::MAX);
        if group.len() == 1 {
            let file = &files[group.start];
            lock().push(save_shard(store, layout, world_size, rank, file, check, bar)?);
            return Ok(());
        }
        let written = save_group(store, layout, world_size, rank, &files[group], check, bar)?;
        let mut first = None;
        for outcome in written {
            match outcome {
                Ok(shard) => lock().push(shard),
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        first.map_or(Ok(()), |error| Err(error.into()))
    });
    let saved = saved.and_then(|()| session.stop.check());
    let mut shards = std::mem::take(&mut *lock());
    shards.sort_by_key(|shard| shard.rank);
    let Err(failure) = saved else { return Ok(shards) };
    remove_shards(store, &shards, bar);
    Err(failure)
}

/// Reads files and writes them as the shards of the ranks from `rank` on.
fn save_group(
    store: &CheckpointStore,
    layout: &KeyLayout,
    world_size: u32,
    rank: u32,
    files: &[SourceFile<'_>],
    check: Check<'_>,
    bar: &Bar,
) -> Result<Vec<syncline::Result<ShardMeta>>, Failure> {
    let mut data = Vec::with_capacity(files.len());
    for file in files {
        data.push(Input::open(file.path)?.read_whole(file.size_bytes, check)?);
    }
    check()?;
    let shards: Vec<(u32, &[u8])> = (rank..).zip(data.iter().map(Vec::as_slice)).collect();
    let written = store.put_shards(layout, world_size, &shards);
    bar.add(data.iter().map(Vec::len).sum());
    Ok(written)
}

/// Removes shards of a save that failed. They are ours: shards are create-only.
fn remove_shards(store: &CheckpointStore, shards: &[ShardMeta], bar: &Bar) {
    let uris: Vec<String> = shards.iter().map(|shard| store.uri(&shard.key)).collect();
    if let Err(error) = store.store().delete_many(&uris) {
        bar.note(&format!("{error}; a shard without a manifest remains, `syncline gc` finds it"));
    }
}

fn save_shard(
    store: &CheckpointStore,
    layout: &KeyLayout,
    world_size: u32,
    rank: u32,
    file: &SourceFile<'_>,
    check: Check<'_>,
    bar: &Bar,
) -> Result<ShardMeta, Failure> {
    let mut input = Input::open(file.path)?;
    let rank_writer = store.writer(world_size, rank)?;
    let (mut writer, key) = rank_writer.get_shard_writer_sized(layout, file.size_bytes)?;
    let filled = fill(&mut input, &mut *writer, check, bar).and_then(|()| check());
    if let Err(failure) = filled.and_then(|()| input.check_unchanged(writer.bytes_written())) {
        return Err(abandon(writer, failure, bar));
    }
    Ok(rank_writer.finalize_writer_to_shard_meta(layout, key, writer)?)
}
