//! `syncline restore`: a checkpoint's shards become files, all of them or none.
//!
//! Shards are copied into a staging directory inside the target, each through a writer whose
//! checksum is compared with the manifest before its file exists. When every file stands they are
//! renamed into place. Where the newest checkpoint is not whole, the library's walk goes to the next older
//! one ([`Reader::newest_good`]).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde_json::{Value, json};
use syncline::checkpoint::{CheckpointInfo, CheckpointStore, Manifest, Reader, ShardMeta, Skipped};
use syncline::{Algorithm, AlignedVec, Checksum, ObjectWriter, WriteOptions};

use crate::args::Restore;
use crate::checkpoint::{FILES_KEY, is_plain_name};
use crate::crew::{group_files_max, groups, in_parallel};
use crate::failure::Failure;
use crate::inspect::no_checkpoint;
use crate::object::local_uri;
use crate::output::{Column, Table, human_bytes, note, printable};
use crate::progress::Bar;
use crate::scratch::Scratch;
use crate::session::Session;
use crate::transfer::{Check, abandon, copy, up_to};

/// What the staging directory's name begins with.
const STAGING: &str = "syncline-restore";

/// What to restore, and how to read it.
struct Source {
    store: CheckpointStore,
    reader: Reader,
    verify: bool,
}

/// A checkpoint whose files are in place.
struct Restored {
    info: CheckpointInfo,
    manifest: Manifest,
    names: Vec<String>,
    skipped: Vec<Skipped>,
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
    let reader = match args.no_verify {
        true => store.reader().without_verification(),
        false => store.reader(),
    };
    let source = Source { store, reader, verify: !args.no_verify };
    let restored = match args.step {
        Some(step) => restore_step(session, &source, args, step)?,
        None => restore_newest_good(session, &source, args)?,
    };
    if args.no_verify {
        note("restored without comparing checksums, as --no-verify asks");
    }
    report(session, args, &restored)
}

/// The user named a step: its damage is an error, not a reason to look elsewhere.
fn restore_step(
    session: &Session,
    source: &Source,
    args: &Restore,
    step: u64,
) -> Result<Restored, Failure> {
    let named = source.reader.list_checkpoints()?;
    let info = named.into_iter().rfind(|info| info.step == step);
    let info = info.ok_or_else(|| no_checkpoint("restore", &args.base, args.step))?;
    let manifest = source.reader.load_manifest(&info.manifest_key)?;
    let names = restore_one(session, source, &manifest, args)?;
    Ok(Restored { info, manifest, names, skipped: Vec::new() })
}

fn restore_newest_good(
    session: &Session,
    source: &Source,
    args: &Restore,
) -> Result<Restored, Failure> {
    let good = source.reader.newest_good(|manifest| {
        match restore_one(session, source, manifest, args) {
            // Of the checkpoint: whether an older one cures it is the library's to say.
            Err(Failure::Store(error)) => Err(error),
            outcome => Ok(outcome),
        }
    })?;
    let good = good.ok_or_else(|| no_checkpoint("restore", &args.base, None))?;
    for skipped in &good.skipped {
        note(&format!("skipping {skipped}"));
    }
    let names = good.loaded?;
    Ok(Restored { info: good.info, manifest: good.manifest, names, skipped: good.skipped })
}

fn restore_one(
    session: &Session,
    source: &Source,
    manifest: &Manifest,
    args: &Restore,
) -> Result<Vec<String>, Failure> {
    let names = file_names(manifest);
    refuse_existing(&args.dir, &names, args.force)?;
    let unfinished = session.stop.protect()?;
    let staging = Staging::create(&args.dir)?;
    let label = format!("restore step {}", manifest.global_step);
    let bar = session.progress.bar(&label, Some(manifest.raw_bytes()));
    let threads = session.config.io_threads().min(session.config.open_writers_max());
    let shards = &manifest.shards;
    // What has checksums of our own is compared in memory; the ancestor's goes by its ways.
    let size = |shard: &ShardMeta| {
        let plain = shard.compression.is_none() && shard.part_checksums.is_some();
        plain.then_some(shard.size)
    };
    let groups =
        groups(shards.iter().map(size), group_files_max(threads), session.config.part_bytes());
    in_parallel(groups.len(), threads, &session.stop, |index, check| {
        let group = &shards[groups[index].clone()];
        if let [shard] = group {
            let target = local_uri(&staging.file(shard.rank))?;
            let copying = Copying { session, source, manifest, target: &target, check, bar: &bar };
            return copying.restore_shard(shard).map_err(|f| of_target(f, &target));
        }
        check()?;
        restore_group(session, source, manifest, group, &staging)?;
        bar.add(group.iter().map(|shard| shard.size as usize).sum());
        Ok(())
    })?;
    session.stop.check()?;
    staging.publish(&names, args.force)?;
    drop(unfinished);
    Ok(names)
}

/// A file of ours that cannot be written is no damage of the checkpoint.
fn of_target(failure: Failure, target: &str) -> Failure {
    match failure {
        Failure::Store(error) if error.uri().is_some_and(|uri| uri.ends_with(target)) => {
            Failure::Other(error.to_string())
        }
        failure => failure,
    }
}

/// Small shards together: read and compared side by side, then written in one call.
fn restore_group(
    session: &Session,
    source: &Source,
    manifest: &Manifest,
    group: &[ShardMeta],
    staging: &Staging,
) -> Result<(), Failure> {
    let ranks: Vec<u32> = group.iter().map(|shard| shard.rank).collect();
    let read = source.reader.read_shards(manifest, &ranks);
    let data = read.into_iter().collect::<syncline::Result<Vec<_>>>()?;
    let targets = ranks
        .iter()
        .map(|rank| local_uri(&staging.file(*rank)))
        .collect::<Result<Vec<String>, Failure>>()?;
    let files: Vec<(&str, &[u8])> =
        targets.iter().map(String::as_str).zip(data.iter().map(|data| &data[..])).collect();
    let Some(first) = targets.first() else { return Ok(()) };
    let options = WriteOptions::default().create_only().checksum(None);
    for (target, written) in targets.iter().zip(session.store(first)?.put_many(&files, options)) {
        written.map_err(|error| of_target(error.into(), target))?;
    }
    Ok(())
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

/// One shard on its way into a file.
struct Copying<'a> {
    session: &'a Session,
    source: &'a Source,
    manifest: &'a Manifest,
    /// URI of the file, which exists only if every byte is as the manifest says.
    target: &'a str,
    check: Check<'a>,
    bar: &'a Bar,
}

impl Copying<'_> {
    fn restore_shard(&self, shard: &ShardMeta) -> Result<(), Failure> {
        let Source { store, reader, verify } = self.source;
        reader.check_shard(self.manifest, shard.rank)?;
        let verified = |writer: &dyn ObjectWriter| {
            reader.verify_copy(self.manifest, shard.rank, writer).map_err(Failure::from)
        };
        let stated = match &shard.checksum {
            Some(text) if *verify => Some(text.parse::<Checksum>()?.algorithm()),
            _ => None,
        };
        if *verify && stated.is_none() {
            let uri = store.uri(&shard.key);
            let why = "the manifest has no checksum; only the size was compared";
            self.bar.note(&format!("{uri}: {why}"));
        }
        let writer = self.copy_shard(shard, stated)?;
        let Err(damaged) = verified(&*writer) else { return finish(writer) };
        let damaged = abandon(writer, damaged, self.bar);
        if stated != Some(Algorithm::Crc32c) || shard.part_checksums.is_some() {
            return Err(damaged);
        }
        // A manifest without block checksums may be the ancestor's: its `crc32c:` may label an IEEE value.
        let writer = self.copy_shard(shard, Some(Algorithm::Crc32))?;
        if verified(&*writer).is_err() {
            return Err(abandon(writer, damaged, self.bar));
        }
        let uri = store.uri(&shard.key);
        let what = "verified; its checksum is CRC-32/IEEE under the label crc32c:";
        self.bar.note(&format!("{uri}: {what}"));
        finish(writer)
    }

    /// A writer that has all bytes of the shard and is not finalized yet.
    fn copy_shard(
        &self,
        shard: &ShardMeta,
        algorithm: Option<Algorithm>,
    ) -> Result<Box<dyn ObjectWriter>, Failure> {
        let mut options = WriteOptions::default().create_only().checksum(algorithm);
        // Nobody but the manifest says how much a compressed shard gives before it is read.
        if shard.compression.is_none() {
            options = options.size_hint_bytes(shard.size);
        }
        let mut writer = self.session.store(self.target)?.get_writer_with(self.target, options)?;
        let (store, uri) = (self.source.store.store(), self.source.store.shard_uri(shard)?);
        let copied = match shard.compression {
            None => copy(&**store, &uri, shard.size, &mut *writer, self.check, self.bar),
            Some(_) => self.decompress(shard, &mut *writer),
        };
        match copied.and_then(|()| (self.check)()) {
            Ok(()) => Ok(writer),
            Err(failure) => Err(abandon(writer, failure, self.bar)),
        }
    }

    /// Decompresses several frames at a time, which all shards on their way share between them. They are
    /// verified as the copy is.
    fn decompress(&self, shard: &ShardMeta, writer: &mut dyn ObjectWriter) -> Result<(), Failure> {
        let config = self.source.store.store().config();
        let shards = self.manifest.shards.len().clamp(1, config.io_threads());
        let frames = (config.compression_threads() + 1).div_ceil(shards);
        let step = up_to(frames.saturating_mul(config.frame_bytes()), shard.raw_bytes());
        let mut memory = AlignedVec::zeroed(step)?;
        let reader = self.source.reader.clone().without_verification();
        let mut offset = 0;
        while offset < shard.raw_bytes() {
            (self.check)()?;
            let memory = &mut memory[..up_to(step, shard.raw_bytes() - offset)];
            reader.read_shard_range_into(self.manifest, shard.rank, offset, memory)?;
            writer.write_borrowed(memory)?;
            self.bar.add(memory.len());
            offset += memory.len() as u64;
        }
        Ok(())
    }
}

fn finish(writer: Box<dyn ObjectWriter>) -> Result<(), Failure> {
    writer.finalize()?;
    Ok(())
}

/// The directory inside the target in which files wait until all of them stand.
struct Staging {
    scratch: Scratch,
    target: PathBuf,
}

impl Staging {
    fn create(target: &Path) -> Result<Staging, Failure> {
        let scratch = Scratch::create(target, STAGING)?;
        for other in scratch.others(STAGING) {
            let other = printable(&other.display().to_string());
            eprintln!(
                "syncline: {other}: of a restore that runs, or was killed; remove it if none runs"
            );
        }
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

fn report(session: &Session, args: &Restore, restored: &Restored) -> Result<(), Failure> {
    let Restored { info, manifest, names, skipped } = restored;
    let files = manifest.shards.iter().zip(names).map(|(shard, name)| {
        json!({
            "rank": shard.rank,
            "name": name,
            "size_bytes": shard.raw_bytes(),
            "checksum": shard.checksum,
        })
    });
    let passed_over = skipped.iter().map(|skipped| {
        json!({
            "step": skipped.info.step,
            "timestamp": skipped.info.timestamp.as_str(),
            "reason": printable(&skipped.why.to_string()),
        })
    });
    let value = json!({
        "step": info.step,
        "timestamp": info.timestamp.as_str(),
        "dir": args.dir.display().to_string(),
        "size_bytes": manifest.raw_bytes(),
        "verified": !args.no_verify,
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
            table.row([
                shard.rank.to_string(),
                human_bytes(shard.raw_bytes()),
                checksum,
                name.clone(),
            ]);
        }
        let (step, ts, dir) = (info.step, &info.timestamp, args.dir.display());
        let total = human_bytes(manifest.raw_bytes());
        format!(
            "{}restored step {step} at {ts}: {} files, {total}, into {dir}\n",
            table.render(),
            names.len()
        )
    })
}
