//! A backend over the model of a disk: all that is done to it is recorded, so that a crash can be tried after
//! every operation. It takes the steps of `file://`: directories made and synced, a temporary file, a sync of
//! its bytes, a rename, a sync of the directory. Not part of the library.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use crate::backend::temporary::{check_temporary, is_temporary_name, temporary_name};
use crate::backend::{
    Alignment, Backend, IoMode, Names, ObjectMeta, Orphan, PartView, Published, Receipt, Source,
    Upload, UploadSpec, Walk,
};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};
use crate::time::Deadline;

#[path = "../../tests/support/crash/model.rs"]
pub(crate) mod model;

use model::{Content, Disk, Image, Inode, ROOT};

/// A disk that several backends may have open, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct SharedDisk(Arc<Mutex<Disk>>);

impl SharedDisk {
    pub fn new(disk: Disk) -> SharedDisk {
        SharedDisk(Arc::new(Mutex::new(disk)))
    }

    /// Looks at the disk, or does something to it.
    pub fn with<T>(&self, look: impl FnOnce(&mut Disk) -> T) -> T {
        look(&mut lock(&self.0))
    }

    /// Syncs a file or a directory. Others may do something meanwhile.
    fn sync(&self, inode: Inode) {
        static SYNCS: AtomicU64 = AtomicU64::new(0);
        let by = SYNCS.fetch_add(1, Ordering::Relaxed);
        self.with(|disk| disk.sync_begins(inode, by));
        std::thread::yield_now();
        self.with(|disk| disk.sync_ends(inode, by));
    }
}

/// The backend. Its URIs begin with `mem://disk/`.
#[derive(Debug)]
pub(crate) struct CrashBackend {
    disk: SharedDisk,
    /// Directories whose names are known to be durable.
    durable: Mutex<HashSet<Inode>>,
}

impl CrashBackend {
    pub fn new(disk: SharedDisk) -> CrashBackend {
        CrashBackend { disk, durable: Mutex::default() }
    }

    fn find(&self, operation: &'static str, key: &str) -> Result<(ObjectMeta, Content)> {
        let found = self.disk.with(|disk| {
            let inode = disk.live().find(key)?;
            let content = disk.live().content(inode)?.clone();
            Some((self.meta(disk, key, inode, &content), content))
        });
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, operation, "no such object"))
    }

    /// What was there at the start is old.
    fn meta(&self, disk: &Disk, key: &str, inode: Inode, content: &Content) -> ObjectMeta {
        let modified = match disk.is_from_start(inode) {
            true => SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000),
            false => SystemTime::now(),
        };
        ObjectMeta {
            uri: self.uri(key),
            size_bytes: content.size_bytes,
            modified: Some(modified),
            etag: None,
            checksum: None,
            write: None,
        }
    }

    /// Makes a directory and those above it, and makes the name of each durable.
    fn make_durable(&self, path: &str) -> Inode {
        let mut folder = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let inode = self.disk.with(|disk| match find_in(disk.live(), folder, name) {
                Some(inode) => inode,
                None => disk.make_folder(folder, name),
            });
            if !lock(&self.durable).contains(&inode) {
                self.disk.sync(folder);
                lock(&self.durable).insert(inode);
            }
            folder = inode;
        }
        folder
    }

    fn below(&self, prefix: &str, temporary: bool) -> Vec<ObjectMeta> {
        let is_below = |path: &str| match path.strip_prefix(prefix) {
            Some(rest) => prefix.is_empty() || rest.is_empty() || rest.starts_with('/'),
            None => false,
        };
        self.disk.with(|disk| {
            let tree = disk.live().tree();
            let selected = tree.iter().filter(|(path, _, _)| {
                is_below(path) && is_temporary_name(split(path).1) == temporary
            });
            selected
                .filter_map(|(path, inode, content)| {
                    content.map(|content| self.meta(disk, path, *inode, content))
                })
                .collect()
        })
    }
}

fn find_in(image: &Image, folder: Inode, name: &str) -> Option<Inode> {
    image.list(folder).find(|(other, _)| *other == name).map(|(_, inode)| inode)
}

/// The path above, and the name.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Backend for CrashBackend {
    fn uri(&self, key: &str) -> String {
        format!("mem://disk/{key}")
    }

    fn begin(&self, key: &str, spec: UploadSpec, _: &Deadline) -> Result<Arc<dyn Upload>> {
        let (parent, name) = split(key);
        if spec.create_only && self.disk.with(|disk| disk.live().find(key)).is_some() {
            return Err(exists());
        }
        let folder = self.make_durable(parent);
        let temporary = temporary_name(name)?;
        let inode = self.disk.with(|disk| disk.create(folder, &temporary));
        Ok(Arc::new(CrashUpload {
            uri: self.uri(key),
            disk: self.disk.clone(),
            folder,
            name: name.to_owned(),
            inode,
            create_only: spec.create_only,
            temporary: Mutex::new(Some(temporary)),
        }))
    }

    fn open(&self, key: &str, _: &Deadline) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(CrashSource(self.find("open", key)?.1)))
    }

    fn head(&self, key: &str, _: &Deadline) -> Result<ObjectMeta> {
        Ok(self.find("stat", key)?.0)
    }

    fn list(&self, prefix: &str) -> Box<dyn Walk> {
        Box::new(OnePage(self.below(prefix, false)))
    }

    fn delete(&self, keys: &[String], _: &Deadline) -> Result<u64> {
        let mut removed = 0;
        let mut touched = HashSet::new();
        for key in keys {
            let (parent, name) = split(key);
            self.disk.with(|disk| {
                if let Some(folder) = disk.live().find(parent)
                    && find_in(disk.live(), folder, name).is_some()
                {
                    disk.remove(folder, name);
                    touched.insert(folder);
                    removed += 1;
                }
            });
        }
        touched.into_iter().for_each(|folder| self.disk.sync(folder));
        Ok(removed)
    }

    fn clear_prefix(&self, prefix: &str, _: &Deadline) -> Result<()> {
        self.disk.with(|disk| {
            // Deepest first.
            for (path, inode, _) in disk.live().clone().tree().iter().rev() {
                let is_below = path == prefix || path.starts_with(&format!("{prefix}/"));
                let is_empty = disk.live().list(*inode).next().is_none();
                if is_below && disk.live().is_folder(*inode) && is_empty {
                    let (parent, name) = split(path);
                    let folder = disk.live().find(parent).expect("a parent");
                    disk.remove(folder, name);
                    lock(&self.durable).remove(inode);
                }
            }
        });
        Ok(())
    }

    fn orphans(&self, prefix: &str, _: &Deadline) -> Result<Vec<Orphan>> {
        let orphan = |meta: ObjectMeta| {
            let ObjectMeta { uri, size_bytes, modified, .. } = meta;
            Orphan { uri, size_bytes, modified }
        };
        Ok(self.below(prefix, true).into_iter().map(orphan).collect())
    }

    fn delete_orphan(&self, key: &str, deadline: &Deadline) -> Result<()> {
        check_temporary(key)?;
        self.delete(&[key.to_owned()], deadline).map(drop)
    }
}

#[derive(Debug)]
struct CrashUpload {
    uri: String,
    disk: SharedDisk,
    folder: Inode,
    name: String,
    inode: Inode,
    create_only: bool,
    /// Its name until it is published or given up.
    temporary: Mutex<Option<String>>,
}

impl Upload for CrashUpload {
    fn alignment(&self) -> Alignment {
        Alignment::NONE
    }

    fn mode(&self) -> IoMode {
        IoMode::Memory
    }

    fn put_part(&self, part: &PartView<'_>, _: &Deadline) -> Result<Receipt> {
        self.disk.with(|disk| disk.write(self.inode, part.offset, part.bytes));
        Ok(part.receipt())
    }

    fn settle(&self, size_bytes: u64) -> Result<()> {
        self.disk.with(|disk| {
            if disk.live().content(self.inode).is_some_and(|file| file.size_bytes != size_bytes) {
                disk.resize(self.inode, size_bytes);
            }
        });
        self.disk.sync(self.inode);
        Ok(())
    }

    fn publish(&self, _: &[Receipt], size: u64, _: &Deadline, _: &dyn Fn()) -> Result<Published> {
        let mut temporary = lock(&self.temporary);
        let ended = || Error::new(ErrorKind::Cancelled, "commit", "the upload has ended");
        let from = temporary.as_ref().ok_or_else(ended)?;
        self.disk.with(|disk| {
            if self.create_only && find_in(disk.live(), self.folder, &self.name).is_some() {
                return Err(exists());
            }
            disk.rename(self.folder, from, &self.name);
            Ok(())
        })?;
        *temporary = None;
        let meta = ObjectMeta {
            uri: self.uri.clone(),
            size_bytes: size,
            modified: Some(SystemTime::now()),
            etag: None,
            checksum: None,
            write: None,
        };
        let names = CrashNames { disk: self.disk.clone(), folder: self.folder };
        Ok(Published { meta, names: Some(Arc::new(names)) })
    }

    fn abort(&self, _: &Deadline) -> Result<()> {
        if let Some(name) = lock(&self.temporary).take() {
            self.disk.with(|disk| {
                // A gc may have been there before.
                if find_in(disk.live(), self.folder, &name).is_some() {
                    disk.remove(self.folder, &name);
                }
            });
        }
        Ok(())
    }
}

#[derive(Debug)]
struct CrashNames {
    disk: SharedDisk,
    folder: Inode,
}

impl Names for CrashNames {
    fn id(&self) -> (u64, u64) {
        (0, self.folder as u64)
    }

    fn sync(&self) -> Result<()> {
        self.disk.sync(self.folder);
        Ok(())
    }
}

#[derive(Debug)]
struct CrashSource(Content);

impl Source for CrashSource {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes
    }

    fn alignment(&self) -> Alignment {
        Alignment::NONE
    }

    fn mode(&self) -> IoMode {
        IoMode::Memory
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8], _: &Deadline) -> Result<usize> {
        Ok(self.0.read(offset, buffer))
    }
}

/// All there is, at once.
#[derive(Debug)]
struct OnePage(Vec<ObjectMeta>);

impl Walk for OnePage {
    fn next_page(&mut self, _: &Deadline) -> Result<Vec<ObjectMeta>> {
        Ok(std::mem::take(&mut self.0))
    }
}

fn exists() -> Error {
    Error::new(ErrorKind::AlreadyExists, "create", "the object exists")
}
