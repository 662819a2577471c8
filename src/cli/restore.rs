//! `syncline restore`: a checkpoint's shards become files, all of them or none.
//!
//! Shards are copied into a staging directory inside the target, each through a writer whose
//! checksum is compared with the manifest before its file exists. When every file stands they are
//! renamed into place. Where the newest checkpoint is not whole, the next older one is tried.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde_json::{Value, json};
use syncline::checkpoint::{CheckpointInfo, CheckpointStore, Manifest, ShardMeta};
use syncline::{Algorithm, ErrorKind, ObjectWriter, WriteOptions};

use crate::args::Restore;
use crate::checkpoint::{FILES_KEY, is_plain_name};
use crate::crew::in_parallel;
use crate::failure::Failure;
use crate::inspect::no_checkpoint;
use crate::object::local_uri;
use crate::output::{Column, Table, human_bytes, printable};
use crate::progress::Bar;
use crate::scratch::Scratch;
use crate::session::Session;
use crate::transfer::{Check, abandon, copy};

/// A checkpoint that was passed over, and why.
struct Skipped {
    info: CheckpointInfo,
    reason: String,
}

/// `syncline restore`
pub fn restore(session: &Session, args: &Restore) -> Result<(), Failure> {
    if args.dir.to_str().is_some_and(|dir| dir.contains("://")) {
        let dir = args.dir.display();
        return Err(Failure::Usage(format!(
            "restore {dir}: DIR is a local directory; write its path without a scheme"
        )));
    }
    let store = CheckpointStore::open_with(&args.base, &session.config)?;
    let mut candidates = store.reader().list_checkpoints()?;
    if let Some(step) = args.step {
        // The user named one: its damage is an error, not a reason to look elsewhere.
        candidates.retain(|info| info.step == step);
        candidates = candidates.pop().into_iter().collect();
    }
    if candidates.is_empty() {
        return Err(no_checkpoint("restore", &args.base, args.step));
    }
    let mut skipped: Vec<Skipped> = Vec::new();
    for info in candidates.into_iter().rev() {
        match restore_one(session, &store, &info, args) {
            Ok((manifest, names)) => {
                return report(session, args, &info, &manifest, &names, &skipped);
            }
            Err(failure) if args.step.is_none() && is_damage(&failure) => {
                let reason = printable(&failure.to_string());
                eprintln!("syncline: skipping step {} at {}: {reason}", info.step, info.timestamp);
                skipped.push(Skipped { info, reason });
            }
            Err(failure) => return Err(failure),
        }
    }
    let base = &args.base;
    let tried = skipped.len();
    Err(Failure::Damaged(format!(
        "restore {base}: none of {tried} checkpoints is whole; `syncline verify --all` tells more"
    )))
}

/// Whether a checkpoint is not whole, as opposed to anything that an older one would not cure.
fn is_damage(failure: &Failure) -> bool {
    match failure {
        Failure::Damaged(_) => true,
        Failure::Store(error) => matches!(
            error.kind(),
            ErrorKind::NotFound
                | ErrorKind::ChecksumMismatch
                | ErrorKind::Corrupt
                | ErrorKind::Incomplete
        ),
        _ => false,
    }
}

fn restore_one(
    session: &Session,
    store: &CheckpointStore,
    info: &CheckpointInfo,
    args: &Restore,
) -> Result<(Manifest, Vec<String>), Failure> {
    let manifest = store.reader().load_manifest(&info.manifest_key)?;
    let names = file_names(&manifest);
    refuse_existing(&args.dir, &names, args.force)?;
    let unfinished = session.stop.protect()?;
    let staging = Staging::create(&args.dir)?;
    let bar =
        session.progress.bar(&format!("restore step {}", info.step), Some(manifest.stored_bytes()));
    let threads = session.config.io_threads().min(session.config.open_writers_max());
    in_parallel(manifest.shards.len(), threads, &session.stop, |index, check| {
        let shard = &manifest.shards[index];
        restore_shard(session, store, shard, &staging.file(shard.rank), check, &bar)
    })?;
    session.stop.check()?;
    staging.publish(&names, args.force)?;
    drop(unfinished);
    Ok((manifest, names))
}

/// The names of the files, by rank: those they were saved under if every one of them is plain and
/// none occurs twice, else `rank-<r>.bin` for all, so that two ranks can never meet in one name.
fn file_names(manifest: &Manifest) -> Vec<String> {
    let ranks = manifest.shards.iter().map(|shard| shard.rank);
    let listed = manifest.user_meta.as_ref().and_then(|meta| meta.get(FILES_KEY)?.as_array());
    let names: Option<Vec<String>> = listed.and_then(|names| {
        let plain =
            |name: &Value| name.as_str().filter(|name| is_plain_name(name)).map(str::to_owned);
        names.iter().map(plain).collect()
    });
    match names {
        Some(names) if names.len() == manifest.shards.len() && all_differ(&names) => names,
        _ => ranks.map(|rank| format!("rank-{rank}.bin")).collect(),
    }
}

fn all_differ(names: &[String]) -> bool {
    names.iter().collect::<BTreeSet<_>>().len() == names.len()
}

/// Looks at every name before anything is written.
fn refuse_existing(dir: &Path, names: &[String], force: bool) -> Result<(), Failure> {
    for name in names {
        let path = dir.join(name);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => {
                let path = path.display();
                return Err(Failure::Other(format!(
                    "restore {path}: a directory is in the way; choose another DIR"
                )));
            }
            Ok(_) if !force => {
                let path = path.display();
                return Err(Failure::Other(format!("restore {path}: exists; --force replaces it")));
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                let dir = dir.display();
                return Err(Failure::Usage(format!("restore {dir}: is not a directory")));
            }
            Err(e) => return Err(Failure::io("restore", &path, &e)),
        }
    }
    Ok(())
}

/// Copies one shard into `target`, which exists only if every byte is as the manifest says.
fn restore_shard(
    session: &Session,
    store: &CheckpointStore,
    shard: &ShardMeta,
    target: &Path,
    check: Check<'_>,
    bar: &Bar,
) -> Result<(), Failure> {
    let uri = store.uri(&shard.key);
    if let Some(compression) = &shard.compression {
        return Err(Failure::Other(format!(
            "restore {uri}: is compressed ({compression}), which this version cannot read"
        )));
    }
    let found = store.store().stat(&uri).map_err(|error| match error.kind() {
        // The name is the manifest's, or something else than a file has it: not the user's mistake.
        ErrorKind::InvalidInput => Failure::Damaged(format!("restore: {error}")),
        _ => error.into(),
    });
    let found_bytes = found?.size_bytes;
    if found_bytes != shard.size {
        let size = shard.size;
        return Err(Failure::Damaged(format!(
            "restore {uri}: has {found_bytes} bytes, the manifest says {size}"
        )));
    }
    let copy_with = |algorithm| copy_shard(session, store, shard, target, algorithm, check, bar);
    let writer = copy_with(Algorithm::Crc32c)?;
    let Some(expected) = &shard.checksum else {
        bar.note(&format!("{uri}: the manifest has no checksum; only the size was compared"));
        return finish(writer);
    };
    if digits(expected) == digits(&writer.checksum().unwrap_or_default()) {
        return finish(writer);
    }
    let damaged = damage(&uri, shard, expected, &*writer);
    let damaged = abandon(writer, damaged, bar);
    if shard.part_checksums.is_some() {
        return Err(damaged);
    }
    // A manifest without block checksums is not ours: its `crc32c:` may label an IEEE value.
    let writer = copy_with(Algorithm::Crc32)?;
    if digits(expected) == digits(&writer.checksum().unwrap_or_default()) {
        bar.note(&format!("{uri}: verified; its checksum is CRC-32/IEEE under the label crc32c:"));
        return finish(writer);
    }
    Err(abandon(writer, damaged, bar))
}

/// A writer that has all bytes of the shard and is not finalized yet.
fn copy_shard(
    session: &Session,
    store: &CheckpointStore,
    shard: &ShardMeta,
    target: &Path,
    algorithm: Algorithm,
    check: Check<'_>,
    bar: &Bar,
) -> Result<Box<dyn ObjectWriter>, Failure> {
    let target = local_uri(target)?;
    let options =
        WriteOptions::default().size_hint_bytes(shard.size).create_only().checksum(Some(algorithm));
    let mut writer = session.store(&target)?.get_writer_with(&target, options)?;
    let uri = store.uri(&shard.key);
    let copied = copy(&**store.store(), &uri, shard.size, &mut *writer, check, bar);
    match copied.and_then(|()| check()) {
        Ok(()) => Ok(writer),
        Err(failure) => Err(abandon(writer, failure, bar)),
    }
}

fn finish(writer: Box<dyn ObjectWriter>) -> Result<(), Failure> {
    writer.finalize()?;
    Ok(())
}

/// The hexadecimal digits of `algorithm:digits`, in lower case.
fn digits(checksum: &str) -> String {
    checksum.rsplit(':').next().unwrap_or_default().to_ascii_lowercase()
}

/// What differs, and where.
fn damage(uri: &str, shard: &ShardMeta, expected: &str, writer: &dyn ObjectWriter) -> Failure {
    let found = writer.checksum().unwrap_or_default();
    let place = match differing_bytes(shard, writer) {
        Some((from, to)) => format!(" in bytes {from}..{to}"),
        None => String::new(),
    };
    Failure::Damaged(format!(
        "restore {uri}: damaged{place}: the checksum is {found}, the manifest says {expected}"
    ))
}

/// From the first to behind the last byte of the blocks that differ, where the blocks can be compared.
fn differing_bytes(shard: &ShardMeta, writer: &dyn ObjectWriter) -> Option<(u64, u64)> {
    let expected = shard.block_checksums().ok()??;
    let found = writer.block_checksums()?;
    if expected.block_bytes() != found.block_bytes() {
        return None;
    }
    let differs = |index: &usize| expected.crc32c().get(*index) != found.crc32c().get(*index);
    let first = (0..expected.crc32c().len()).find(differs)?;
    let last = (0..expected.crc32c().len()).rfind(differs)?;
    let start = |index: usize| index as u64 * expected.block_bytes();
    Some((start(first), start(last) + expected.bytes_of(last)))
}

/// The directory inside the target in which files wait until all of them stand.
struct Staging {
    scratch: Scratch,
    target: PathBuf,
}

impl Staging {
    fn create(target: &Path) -> Result<Staging, Failure> {
        let scratch = Scratch::create(target, "syncline-restore")?;
        Ok(Staging { scratch, target: target.to_owned() })
    }

    /// Where a rank's file waits. Not under its own name, which comes from the manifest.
    fn file(&self, rank: u32) -> PathBuf {
        self.scratch.path().join(format!("rank-{rank}.bin"))
    }

    /// Moves all files into place, durably. If one cannot be moved, those that were are taken back.
    fn publish(mut self, names: &[String], force: bool) -> Result<(), Failure> {
        let mut placed: Vec<PathBuf> = Vec::new();
        for (rank, name) in (0..).zip(names) {
            let path = self.target.join(name);
            if let Err(error) = move_into_place(&self.file(rank), &path, force) {
                // A replaced file cannot be brought back, but then the new one is whole and stays.
                if !force {
                    placed.iter().for_each(|path| drop(fs::remove_file(path)));
                }
                return Err(Failure::io("restore", &path, &error));
            }
            placed.push(path);
        }
        self.scratch.keep_parent();
        let synced = File::open(&self.target).and_then(|dir| dir.sync_all());
        synced.map_err(|e| Failure::io("sync", &self.target, &e))
    }
}

/// Renames; without `force` never over something, even if it came in between.
fn move_into_place(from: &Path, to: &Path, force: bool) -> io::Result<()> {
    if force {
        return fs::rename(from, to);
    }
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Filesystems without this flag (NFS, some FUSE) still refuse a link over something.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        done => Ok(done?),
    }
}

fn report(
    session: &Session,
    args: &Restore,
    info: &CheckpointInfo,
    manifest: &Manifest,
    names: &[String],
    skipped: &[Skipped],
) -> Result<(), Failure> {
    let files = manifest.shards.iter().zip(names).map(|(shard, name)| {
        json!({
            "rank": shard.rank,
            "name": name,
            "size_bytes": shard.size,
            "checksum": shard.checksum,
        })
    });
    let passed_over = skipped.iter().map(|skipped| {
        json!({
            "step": skipped.info.step,
            "timestamp": skipped.info.timestamp.as_str(),
            "reason": skipped.reason,
        })
    });
    let value = json!({
        "step": info.step,
        "timestamp": info.timestamp.as_str(),
        "dir": args.dir.display().to_string(),
        "size_bytes": manifest.stored_bytes(),
        "files": files.collect::<Vec<_>>(),
        "skipped": passed_over.collect::<Vec<_>>(),
    });
    session.out.print(value, || {
        let columns = [
            Column::Right("RANK"),
            Column::Right("SIZE"),
            Column::Left("CHECKSUM"),
            Column::Left("FILE"),
        ];
        let mut table = Table::new(columns);
        for (shard, name) in manifest.shards.iter().zip(names) {
            let checksum = shard.checksum.clone().unwrap_or_else(|| "-".to_owned());
            table.row([shard.rank.to_string(), human_bytes(shard.size), checksum, name.clone()]);
        }
        let (step, ts, dir) = (info.step, &info.timestamp, args.dir.display());
        let total = human_bytes(manifest.stored_bytes());
        format!(
            "{}restored step {step} at {ts}: {} files, {total}, into {dir}\n",
            table.render(),
            names.len()
        )
    })
}
