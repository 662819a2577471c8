//! What `file://` and `direct://` share: paths, durable directories, reading, removing.

mod directory;
mod extent;
mod filesystem;
mod links;
mod upload;
mod walk;
mod writeback;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};
use nix::sys::resource::{Resource, getrlimit};
use rustix::fs::CWD;

use crate::backend::{
    Alignment, Backend, IoMode, Medium, ObjectMeta, Orphan, Source, Upload, UploadSpec, Walk,
};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{DELETES_AT_ONCE, DESCRIPTORS_ASSUMED, DURABLE_DIRECTORIES_MAX};
use crate::sync::{Arc, Mutex, Weak, lock};
use crate::time::Deadline;

use crate::backend::temporary::check_temporary;
use directory::{Directory, Identity};
pub(super) use filesystem::is_memory_filesystem;
use links::link_leaving;
use upload::PosixUpload;
use walk::{DirectoryWalk, Select};

/// How files are opened: the difference between `file://` and `direct://`.
pub(super) trait Access: Send + Sync + std::fmt::Debug {
    /// Prepares an open file for transfers, and tells what they must look like.
    fn prepare(&self, file: &File) -> Result<(Alignment, IoMode)>;

    /// Whether what is read comes from the page cache, so that it can be there before it is asked for.
    fn is_cached(&self) -> bool;
}

/// A backend over the mounted filesystems: a key is an absolute path without its first slash.
#[derive(Debug)]
pub(super) struct PosixBackend<A> {
    scheme: &'static str,
    access: A,
    /// Directories whose entry in their parent is known to be durable, and which directory that was:
    /// another process may have put a new one in its place.
    durable: Mutex<HashMap<PathBuf, Identity>>,
    /// Directories that uploads have open at present.
    open: Mutex<HashMap<PathBuf, Weak<Directory>>>,
    /// Filesystems that were warned of.
    cautioned: Mutex<HashSet<String>>,
}

impl<A: Access> PosixBackend<A> {
    pub fn new(scheme: &'static str, access: A) -> PosixBackend<A> {
        PosixBackend {
            scheme,
            access,
            durable: Mutex::default(),
            open: Mutex::default(),
            cautioned: Mutex::default(),
        }
    }

    /// Makes `directory` and all above it, and makes each entry durable in its parent: those made here,
    /// and, when first seen, those that another process may be making at this moment.
    fn make_durable(&self, directory: &Path) -> Result<()> {
        let missing = missing_above(directory)?;
        for path in missing.iter().rev() {
            match fs::create_dir(path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(at(path, "make directory", e));
                }
                _ => {}
            }
        }
        let mut synced = Vec::new();
        for path in directory.ancestors() {
            let Some(parent) = path.parent() else { break };
            // Asked before the sync: an entry that changes in between is not taken for durable.
            let identity = Identity::of(CWD, path);
            if self.is_durable(path, identity) {
                break;
            }
            match File::open(parent).and_then(|parent| parent.sync_all()) {
                Ok(()) => {}
                // An entry that was there before, in a directory that we may not read or that cannot
                // be written to: nobody is making it now.
                Err(e) if !missing.contains(&path) && is_refusal(&e) => {}
                Err(e) => return Err(at(parent, "sync directory", e)),
            }
            synced.extend(identity.map(|identity| (path.to_path_buf(), identity)));
        }
        let mut durable = lock(&self.durable);
        if durable.len() >= DURABLE_DIRECTORIES_MAX {
            durable.clear();
        }
        durable.extend(synced);
        Ok(())
    }

    fn open_source(&self, key: &str) -> Result<PosixSource> {
        // Without O_NONBLOCK the open of a named pipe would wait for its writer.
        let flags = (OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY).bits();
        let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path_of(key));
        let file = file.map_err(|e| Error::from_io("open", e))?;
        let meta = file.metadata().map_err(|e| Error::from_io("open", e))?;
        check_regular("open", &meta)?;
        let (alignment, mode) = self.access.prepare(&file)?;
        Ok(PosixSource { file, size_bytes: meta.len(), alignment, mode })
    }

    fn is_durable(&self, directory: &Path, identity: Option<Identity>) -> bool {
        identity.is_some() && lock(&self.durable).get(directory).copied() == identity
    }

    /// Opens the directory of a new object, making it where needed. Uploads that are under way at a time
    /// share it.
    fn open_parent(&self, parent: &Path) -> Result<Arc<Directory>> {
        let shared = lock(&self.open).get(parent).and_then(Weak::upgrade);
        if let Some(directory) = shared
            && !directory.has_failed()
            && directory.identity().is_some_and(|known| Identity::of(CWD, parent) == Some(known))
            && self.is_durable(parent, directory.identity())
        {
            return Ok(directory);
        }
        let directory = match Directory::open(parent) {
            Ok(directory) if self.is_durable(parent, directory.identity()) => directory,
            _ => {
                self.make_durable(parent)?;
                self.caution(parent);
                Directory::open(parent).map_err(|e| at(parent, "open directory", e))?
            }
        };
        let mut open = lock(&self.open);
        open.retain(|_, directory| directory.strong_count() > 0);
        open.insert(parent.to_path_buf(), Arc::downgrade(&directory));
        Ok(directory)
    }

    /// Says once of each kind of filesystem what is not promised on it. Asked for when a directory is first
    /// written to, so that it costs no object a system call.
    fn caution(&self, directory: &Path) {
        let Ok(medium) = filesystem::medium(directory) else { return };
        if let Some(caution) = medium.caution()
            && lock(&self.cautioned).insert(medium.name)
        {
            log::warn!("{}: {caution}", directory.display());
        }
    }

    fn walk(&self, prefix: &str, select: Select) -> DirectoryWalk {
        DirectoryWalk::new(self.scheme, path_of(prefix), select)
    }
}

impl<A: Access + 'static> Backend for PosixBackend<A> {
    fn uri(&self, key: &str) -> String {
        format!("{}:///{key}", self.scheme)
    }

    fn medium(&self, key: &str) -> Result<Medium> {
        filesystem::medium(&path_of(key))
    }

    fn begin(&self, key: &str, spec: UploadSpec, _: &Deadline) -> Result<Arc<dyn Upload>> {
        let path = path_of(key);
        check_target(&path, spec.create_only)?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let directory = self.open_parent(path.parent().unwrap_or(Path::new("/")))?;
        let upload = PosixUpload::create(self.uri(key), directory, name, spec, &self.access)?;
        Ok(Arc::new(upload))
    }

    /// A quarter of the descriptors that the process may have. An upload has up to two: where each object has a
    /// directory of its own.
    fn uploads_max(&self) -> usize {
        let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(DESCRIPTORS_ASSUMED, |(soft, _)| soft);
        usize::try_from(soft / 4).unwrap_or(usize::MAX).max(1)
    }

    fn open(&self, key: &str, _: &Deadline) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(self.open_source(key)?))
    }

    fn open_ahead(&self, key: &str, _: &Deadline) -> Option<Arc<dyn Source>> {
        if !self.access.is_cached() {
            return None;
        }
        let source = self.open_source(key).ok()?;
        // A hint, of which the kernel heeds as much as it reads at once.
        let bytes = i64::try_from(source.size_bytes).ok()?;
        posix_fadvise(&source.file, 0, bytes, PosixFadviseAdvice::POSIX_FADV_WILLNEED).ok()?;
        Some(Arc::new(source))
    }

    fn head(&self, key: &str, _: &Deadline) -> Result<ObjectMeta> {
        let meta = fs::metadata(path_of(key)).map_err(|e| Error::from_io("stat", e))?;
        if meta.is_dir() {
            return Err(Error::new(ErrorKind::NotFound, "stat", "a directory, not an object"));
        }
        check_regular("stat", &meta)?;
        Ok(object_meta(self.uri(key), &meta))
    }

    fn list(&self, prefix: &str) -> Box<dyn Walk> {
        Box::new(self.walk(prefix, Select::Objects))
    }

    fn delete(&self, keys: &[String], _: &Deadline) -> Result<u64> {
        let mut removed = 0;
        let mut touched = HashSet::new();
        for key in keys {
            let path = path_of(key);
            match fs::remove_file(&path) {
                Ok(()) => removed += 1,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(at(&path, "delete", e)),
            }
            touched.extend(path.parent().map(Path::to_path_buf));
        }
        // One sync for each directory, not for each object.
        for directory in touched {
            match File::open(&directory).and_then(|directory| directory.sync_all()) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(at(&directory, "sync directory", e));
                }
                _ => {}
            }
        }
        Ok(removed)
    }

    fn deletes_at_once(&self) -> usize {
        DELETES_AT_ONCE
    }

    fn clear_prefix(&self, prefix: &str, _: &Deadline) -> Result<()> {
        let path = path_of(prefix);
        if remove_empty(&path).map_err(|e| at(&path, "remove directory", e))? {
            lock(&self.durable).retain(|known, _| !known.starts_with(&path));
        }
        Ok(())
    }

    fn orphans(&self, prefix: &str, deadline: &Deadline) -> Result<Vec<Orphan>> {
        let mut walk = self.walk(prefix, Select::Temporaries);
        let mut orphans = Vec::new();
        loop {
            let page = walk.next_page(deadline)?;
            if page.is_empty() {
                return Ok(orphans);
            }
            orphans.extend(page.into_iter().map(|meta| Orphan {
                uri: meta.uri,
                size_bytes: meta.size_bytes,
                modified: meta.modified,
            }));
        }
    }

    fn delete_orphan(&self, key: &str, deadline: &Deadline) -> Result<()> {
        check_temporary(key)?;
        self.delete(&[key.to_owned()], deadline).map(drop)
    }

    fn link_leaving(&self, root: &str, keys: &[String], _: &Deadline) -> Result<Option<String>> {
        let link = link_leaving(&path_of(root), keys.iter().map(|key| path_of(key)))?;
        Ok(link.map(|path| path.to_string_lossy().into_owned()))
    }
}

/// A file open for reading. It goes on showing what it showed at `open`, since a commit replaces the
/// name and never the bytes.
#[derive(Debug)]
struct PosixSource {
    file: File,
    size_bytes: u64,
    alignment: Alignment,
    mode: IoMode,
}

impl Source for PosixSource {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn alignment(&self) -> Alignment {
        self.alignment
    }

    fn mode(&self) -> IoMode {
        self.mode
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8], _: &Deadline) -> Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map_err(|e| Error::from_io("read", e)),
            }
        }
    }
}

fn path_of(key: &str) -> PathBuf {
    Path::new("/").join(key)
}

fn at(path: &Path, operation: &'static str, e: io::Error) -> Error {
    Error::from_io(operation, e).with_uri(path.to_string_lossy())
}

fn check_regular(operation: &'static str, meta: &Metadata) -> Result<()> {
    if meta.is_file() {
        return Ok(());
    }
    let what = if meta.is_dir() { "a directory" } else { "not a regular file" };
    Err(Error::invalid(operation, format!("the path is {what}, not an object")))
}

/// Refuses early what the commit would refuse, to spare the caller the writing, and what it would
/// replace although it is no object: a directory behind a link, a pipe, a device.
fn check_target(path: &Path, create_only: bool) -> Result<()> {
    const OPERATION: &str = "open writer";
    // A link that leads nowhere is replaced, as a file is.
    let behind = match fs::metadata(path) {
        Err(e) if is_absence(&e) => None,
        other => Some(other.map_err(|e| at(path, OPERATION, e))?),
    };
    if behind.as_ref().is_some_and(Metadata::is_dir) {
        return Err(at(path, OPERATION, io::ErrorKind::IsADirectory.into()));
    }
    if create_only && fs::symlink_metadata(path).is_ok() {
        return Err(at(path, OPERATION, io::ErrorKind::AlreadyExists.into()));
    }
    behind.map_or(Ok(()), |meta| check_regular(OPERATION, &meta))
}

/// Whether an error says that nothing has this name.
fn is_absence(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The same, also where nothing ever can: the name is too long for a file.
fn is_nowhere(e: &io::Error) -> bool {
    is_absence(e) || e.kind() == io::ErrorKind::InvalidFilename
}

fn object_meta(uri: String, meta: &Metadata) -> ObjectMeta {
    ObjectMeta {
        uri,
        size_bytes: meta.len(),
        modified: meta.modified().ok(),
        etag: None,
        checksum: None,
        write: None,
    }
}

/// The directories that have to be made, deepest first.
fn missing_above(directory: &Path) -> Result<Vec<&Path>> {
    let mut missing = Vec::new();
    for ancestor in directory.ancestors() {
        match fs::metadata(ancestor) {
            Ok(meta) if meta.is_dir() => break,
            Ok(_) => {
                return Err(at(ancestor, "make directory", io::ErrorKind::NotADirectory.into()));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => missing.push(ancestor),
            Err(e) => return Err(at(ancestor, "make directory", e)),
        }
    }
    Ok(missing)
}

/// Whether a directory could not be synced because we may not, rather than because the disk failed.
fn is_refusal(e: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(e.kind(), PermissionDenied | ReadOnlyFilesystem | InvalidInput | Unsupported)
}

/// Removes the empty directories at and below `path`, deepest first. Tells whether `path` itself went.
/// Links are not followed.
fn remove_empty(path: &Path) -> io::Result<bool> {
    use io::ErrorKind::{DirectoryNotEmpty, PermissionDenied, ResourceBusy};
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if is_absence(&e) => return Ok(false),
        Err(e) => return Err(e),
    };
    let mut empty = true;
    for entry in entries {
        let entry = entry?;
        empty &= entry.file_type()?.is_dir() && remove_empty(&entry.path())?;
    }
    if !empty {
        return Ok(false);
    }
    match fs::remove_dir(path) {
        Ok(()) => Ok(true),
        // Somebody writes here again; or it is a link or a mount, or its parent is not ours to change.
        // No object is left in it all the same.
        Err(e) if matches!(e.kind(), DirectoryNotEmpty | ResourceBusy | PermissionDenied) => {
            Ok(false)
        }
        Err(e) if is_absence(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[derive(Debug)]
    struct Plain;

    impl Access for Plain {
        fn prepare(&self, _: &File) -> Result<(Alignment, IoMode)> {
            Ok((Alignment::NONE, IoMode::Buffered))
        }

        fn is_cached(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_directory_whose_sync_failed_is_opened_anew() {
        let scratch = tempfile::tempdir().unwrap();
        let backend = PosixBackend::new("file", Plain);
        let open = || backend.open_parent(scratch.path()).unwrap();
        let first = open();
        assert!(Arc::ptr_eq(&first, &open()), "uploads share it");
        first.latched(Err(io::Error::from_raw_os_error(libc::EIO))).unwrap_err();
        let second = open();
        assert!(!Arc::ptr_eq(&first, &second) && !second.has_failed());
    }

    #[test]
    fn a_directory_that_was_replaced_is_made_durable_again() {
        let scratch = tempfile::tempdir().unwrap();
        let (outer, inner) = (scratch.path().join("a"), scratch.path().join("a/b"));
        let backend = PosixBackend::new("file", Plain);
        let is_durable = |path: &Path| backend.is_durable(path, Identity::of(CWD, path));
        backend.open_parent(&inner).unwrap();
        assert!(is_durable(&inner) && is_durable(&outer));
        // Another process does this, later than one tick of the clock that stamps births.
        std::thread::sleep(Duration::from_millis(30));
        fs::remove_dir_all(&outer).unwrap();
        fs::create_dir_all(&inner).unwrap();
        assert!(!is_durable(&inner) && !is_durable(&outer), "taken for the ones that were removed");
        backend.open_parent(&inner).unwrap();
        assert!(is_durable(&inner) && is_durable(&outer));
        fs::remove_dir_all(&outer).unwrap();
        backend.open_parent(&inner).unwrap();
        assert!(is_durable(&inner) && is_durable(&outer));
    }
}
