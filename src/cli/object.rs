//! The commands on single objects: put, get, cat, ls, stat, rm, sum.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use syncline::{Algorithm, Checksum, ErrorKind, ObjectMeta, WriteOptions};

use crate::args::{Cat, Get, Ls, Put, Rm, Stat, Sum};
use crate::failure::Failure;
use crate::output::{Column, Table, human_bytes, human_time, json_time, note, printable};
use crate::progress::Bar;
use crate::session::{Session, base_name};
use crate::transfer::{Input, Sink, abandon, copy, fill, stream};

/// Stands for standard input or standard output.
const DASH: &str = "-";

/// `syncline put`
pub fn put(session: &Session, args: &Put) -> Result<(), Failure> {
    let (mut input, uri) = if args.file == Path::new(DASH) {
        if args.uri.ends_with('/') {
            let uri = &args.uri;
            return Err(Failure::Usage(format!(
                "put - {uri}: standard input has no name; end the URI with one"
            )));
        }
        (Input::stdin()?, args.uri.clone())
    } else {
        (Input::open(&args.file)?, put_uri(&args.file, &args.uri)?)
    };
    let store = session.store(&uri)?;
    session.caution(&*store, &uri);
    let mut options = WriteOptions::default();
    if let Some(bytes) = input.size_bytes() {
        options = options.size_hint_bytes(bytes);
    }
    if args.create_only {
        options = options.create_only();
    }
    let bar = session.progress.bar(base_name(&uri), input.size_bytes());
    let unfinished = session.stop.protect()?;
    let mut writer = store.get_writer_with(&uri, options)?;
    let filled = fill(&mut input, &mut *writer, &|| session.stop.check(), &bar);
    if let Err(failure) = filled.and_then(|()| session.stop.check()) {
        return Err(abandon(writer, failure, &bar));
    }
    let meta = writer.finalize()?;
    drop(unfinished);
    drop(bar);
    report_object(session, &meta)
}

/// The object's URI: one that ends in `/` takes the file's name.
fn put_uri(file: &Path, uri: &str) -> Result<String, Failure> {
    if !uri.ends_with('/') {
        return Ok(uri.to_owned());
    }
    match file.file_name().and_then(|name| name.to_str()) {
        Some(name) => Ok(format!("{uri}{name}")),
        None => {
            let file = file.display();
            Err(Failure::Usage(format!(
                "put {file}: the file's name cannot stand in a URI; end the URI with one"
            )))
        }
    }
}

/// `syncline get`
pub fn get(session: &Session, args: &Get) -> Result<(), Failure> {
    if args.file == Path::new(DASH) {
        return cat(session, &Cat { uris: vec![args.uri.clone()] });
    }
    let file = get_path(&args.uri, &args.file)?;
    if fs::metadata(&file).is_ok_and(|meta| !meta.is_file()) {
        // A device or a pipe must be written to, not replaced.
        let bar = session.progress.bar(base_name(&args.uri), None);
        stream(session, &args.uri, &mut Sink::open(&file)?, &bar)?;
        return Ok(());
    }
    let source = session.store(&args.uri)?;
    let size_bytes = source.stat(&args.uri)?.size_bytes;
    let target = local_uri(&file)?;
    let store = session.store(&target)?;
    let bar = session.progress.bar(base_name(&args.uri), Some(size_bytes));
    let unfinished = session.stop.protect()?;
    let options = WriteOptions::default().size_hint_bytes(size_bytes);
    let mut writer = store.get_writer_with(&target, options)?;
    let copied =
        copy(&*source, &args.uri, size_bytes, &mut *writer, &|| session.stop.check(), &bar);
    if let Err(failure) = copied.and_then(|()| session.stop.check()) {
        return Err(abandon(writer, failure, &bar));
    }
    let meta = writer.finalize()?;
    drop(unfinished);
    drop(bar);
    report_object(session, &meta)
}

/// The file `get` writes: inside FILE where that is a directory, behind it where it is a link.
fn get_path(uri: &str, file: &Path) -> Result<PathBuf, Failure> {
    let inside = if file.is_dir() { file.join(base_name(uri)) } else { file.to_owned() };
    if inside.is_dir() {
        let inside = inside.display();
        return Err(Failure::Usage(format!("get {inside}: is a directory; name the file")));
    }
    match fs::symlink_metadata(&inside) {
        Ok(meta) if meta.is_symlink() => {
            fs::canonicalize(&inside).map_err(|e| Failure::io("open", &inside, &e))
        }
        _ => Ok(inside),
    }
}

/// The path of a local file as a URI of its directory's real path, without `.` and `..`.
pub fn local_uri(file: &Path) -> Result<String, Failure> {
    let name = file.file_name().ok_or_else(|| {
        Failure::Usage(format!("write {}: is not the name of a file", file.display()))
    })?;
    let parent = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let parent = fs::canonicalize(parent).map_err(|e| Failure::io("open", parent, &e))?;
    parent
        .join(name)
        .into_os_string()
        .into_string()
        .map_err(|path| Failure::Usage(format!("write {}: the path is not UTF-8", path.display())))
}

fn report_object(session: &Session, meta: &ObjectMeta) -> Result<(), Failure> {
    session.out.print(object_json(meta), || {
        let sum = meta.checksum.as_deref().unwrap_or("-");
        format!("{sum}  {}  {}\n", human_bytes(meta.size_bytes), printable(&meta.uri))
    })
}

/// An object for machines.
pub fn object_json(meta: &ObjectMeta) -> Value {
    let write = meta.write.map(|report| {
        json!({
            "mode": report.mode.to_string(),
            "bytes": report.bytes,
            "copied_bytes": report.copied_bytes,
            "parts": report.parts,
            "proof": report.proof.map(|proof| proof.to_string()),
            "create_only_held": report.create_only_held,
        })
    });
    json!({
        "uri": meta.uri,
        "size_bytes": meta.size_bytes,
        "modified": json_time(meta.modified),
        "etag": meta.etag,
        "checksum": meta.checksum,
        "write": write,
    })
}

/// `syncline cat`
pub fn cat(session: &Session, args: &Cat) -> Result<(), Failure> {
    let mut sink = Sink::stdout()?;
    for uri in &args.uris {
        // A bar would draw over what is written to the same terminal.
        let bar = match sink.is_terminal() {
            true => Bar::hidden(),
            false => session.progress.bar(base_name(uri), None),
        };
        stream(session, uri, &mut sink, &bar)?;
    }
    Ok(())
}

/// `syncline stat`
pub fn stat(session: &Session, args: &Stat) -> Result<(), Failure> {
    let meta = session.store(&args.uri)?.stat(&args.uri)?;
    session.out.print(object_json(&meta), || {
        let mut table = Table::new([Column::Left("FIELD"), Column::Left("VALUE")]).headless();
        let size = format!("{} ({} bytes)", human_bytes(meta.size_bytes), meta.size_bytes);
        table.row(["uri".to_owned(), meta.uri.clone()]);
        table.row(["size".to_owned(), size]);
        table.row(["modified".to_owned(), human_time(meta.modified)]);
        for (field, value) in [("etag", &meta.etag), ("checksum", &meta.checksum)] {
            if let Some(value) = value {
                table.row([field.to_owned(), value.clone()]);
            }
        }
        table.render()
    })
}

/// One line of a listing.
enum Entry {
    Object(ObjectMeta),
    /// A level below: how many objects it holds and their bytes.
    Level {
        objects: u64,
        bytes: u64,
    },
}

/// `syncline ls`
pub fn ls(session: &Session, args: &Ls) -> Result<(), Failure> {
    let store = session.store(&args.uri)?;
    let root = listing_root(&args.uri)?;
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    for meta in store.list(&args.uri)? {
        session.stop.check()?;
        let meta = meta?;
        let below = meta.uri.strip_prefix(&root).and_then(|rest| rest.strip_prefix('/'));
        let name = below.unwrap_or(base_name(&meta.uri));
        match name.split_once('/') {
            Some((level, _)) if !args.recursive => {
                let entry = entries
                    .entry(format!("{level}/"))
                    .or_insert(Entry::Level { objects: 0, bytes: 0 });
                if let Entry::Level { objects, bytes } = entry {
                    *objects += 1;
                    *bytes = bytes.saturating_add(meta.size_bytes);
                }
            }
            _ => {
                entries.insert(name.to_owned(), Entry::Object(meta));
            }
        }
    }
    if entries.is_empty() && !session.out.is_json() {
        note(&format!("nothing below {}", args.uri));
    }
    let value = entries.iter().map(|(name, entry)| entry_json(&root, name, entry)).collect();
    session.out.print(Value::Array(value), || listing(&entries))
}

/// The URI as listings give it back: with a scheme, absolute, without superfluous slashes.
fn listing_root(uri: &str) -> Result<String, Failure> {
    let normal = |path: &str| {
        path.split('/').filter(|segment| !segment.is_empty()).collect::<Vec<_>>().join("/")
    };
    if let Some((scheme, rest)) = uri.split_once("://") {
        let slash = if rest.starts_with('/') { "/" } else { "" };
        return Ok(format!("{scheme}://{slash}{}", normal(rest)));
    }
    // What `..` means depends on links; a path that does not exist has nothing to list.
    let path = match Path::new(uri).canonicalize() {
        Ok(real) if uri.contains("..") => real,
        _ => std::path::absolute(uri).map_err(|e| Failure::io("list", Path::new(uri), &e))?,
    };
    Ok(format!("file:///{}", normal(&path.to_string_lossy())))
}

fn entry_json(root: &str, name: &str, entry: &Entry) -> Value {
    match entry {
        Entry::Object(meta) => json!({
            "name": name,
            "uri": meta.uri,
            "size_bytes": meta.size_bytes,
            "modified": json_time(meta.modified),
        }),
        Entry::Level { objects, bytes } => json!({
            "name": name,
            "uri": format!("{root}/{name}"),
            "size_bytes": bytes,
            "objects": objects,
        }),
    }
}

fn listing(entries: &BTreeMap<String, Entry>) -> String {
    let columns = [Column::Right("SIZE"), Column::Left("MODIFIED"), Column::Left("NAME")];
    let mut table = Table::new(columns).headless();
    for (name, entry) in entries {
        match entry {
            Entry::Object(meta) => {
                table.row([human_bytes(meta.size_bytes), human_time(meta.modified), name.clone()]);
            }
            Entry::Level { objects, bytes } => {
                table.row([
                    human_bytes(*bytes),
                    format!("{objects} object{}", if *objects == 1 { "" } else { "s" }),
                    name.clone(),
                ]);
            }
        }
    }
    table.render()
}

/// `syncline rm`
pub fn rm(session: &Session, args: &Rm) -> Result<(), Failure> {
    let mut removed = Vec::new();
    for uri in &args.uris {
        session.stop.check()?;
        let store = session.store(uri)?;
        let objects =
            if args.recursive { store.delete_prefix(uri)? } else { remove_one(&*store, uri)? };
        if objects == 0 {
            return Err(Failure::Other(format!(
                "remove {uri}: there is no such object and none below it"
            )));
        }
        removed.push(json!({ "uri": uri, "objects": objects }));
    }
    session.out.print(Value::Array(removed), String::new)
}

/// Removes one object. A name that only has objects below it asks for `--recursive`.
fn remove_one(store: &dyn syncline::ObjectStore, uri: &str) -> Result<u64, Failure> {
    let error = match store.delete(uri) {
        Ok(()) => return Ok(1),
        // Only where the name itself is no object can the user have meant what is below it.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
            error
        }
        Err(error) => return Err(error.into()),
    };
    let has_objects_below =
        store.list(uri).is_ok_and(|mut list| matches!(list.next(), Some(Ok(_))));
    if has_objects_below {
        return Err(Failure::Usage(format!(
            "remove {uri}: is a prefix of objects; use --recursive to remove all of them"
        )));
    }
    Err(error.into())
}

/// `syncline sum`. One name that fails does not keep the others from being read.
pub fn sum(session: &Session, args: &Sum) -> Result<(), Failure> {
    let mut sums = Vec::new();
    let mut failures = Vec::new();
    for name in &args.names {
        match checksum_of(session, name) {
            Ok((checksum, bytes)) => sums.push((checksum, bytes, name)),
            Err(failure @ (Failure::Stopped(_) | Failure::ClosedPipe)) => return Err(failure),
            Err(failure) => failures.push(failure),
        }
    }
    let value = sums.iter().map(|(checksum, bytes, name)| {
        json!({ "name": name, "checksum": checksum.to_string(), "size_bytes": bytes })
    });
    session.out.print(value.collect(), || {
        let line = |(checksum, _, name): &(Checksum, u64, &String)| {
            format!("{checksum}  {}\n", printable(name))
        };
        sums.iter().map(line).collect()
    })?;
    let Some(last) = failures.pop() else { return Ok(()) };
    for failure in &failures {
        note(&failure.to_string());
    }
    Err(last)
}

/// The CRC32C of a file or object, read once through the engine, and its bytes.
fn checksum_of(session: &Session, name: &str) -> Result<(Checksum, u64), Failure> {
    session.stop.check()?;
    if name == DASH {
        return checksum_of_stdin(session);
    }
    let store = session.store(name)?;
    let size_bytes = store.stat(name)?.size_bytes;
    let bar = session.progress.bar(base_name(name), Some(size_bytes));
    let mut progress = |bytes| bar.add_bytes(bytes);
    let part_bytes = session.config.part_bytes() as u64;
    let blocks = store.block_checksums_with(name, part_bytes, &mut progress)?;
    Ok((blocks.combined(), blocks.size_bytes()))
}

fn checksum_of_stdin(session: &Session) -> Result<(Checksum, u64), Failure> {
    let mut input = Input::stdin()?;
    let mut buffer = vec![0; session.config.part_bytes()];
    let mut sum = Checksum::new(Algorithm::Crc32c, 0);
    let mut total = 0;
    loop {
        let bytes = input.read(&mut buffer, &|| session.stop.check())?;
        if bytes == 0 {
            return Ok((sum, total));
        }
        sum = sum.combine(Algorithm::Crc32c.checksum(&buffer[..bytes]), bytes as u64);
        total += bytes as u64;
    }
}
