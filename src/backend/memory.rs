//! `mem://`: objects in this process's memory, for tests and for programs that hand on a checkpoint
//! without a disk. Durable as long as the store is. Memory of objects that are gone is used again (`spare.rs`).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::SystemTime;

use bytes::Bytes;

use crate::backend::spare::Spare;
use crate::backend::temporary::check_temporary;
use crate::backend::{
    Alignment, Backend, Durability, IoMode, Medium, ObjectMeta, Orphan, PartView, Published,
    Receipt, Source, Upload, UploadSpec, Walk,
};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::LIST_PAGE_OBJECTS;
use crate::sync::{Arc, Mutex, lock};
use crate::time::Deadline;

/// Objects by key.
#[derive(Debug)]
pub(crate) struct MemoryBackend {
    name: String,
    spare: Arc<Spare>,
    objects: Arc<Mutex<BTreeMap<String, Arc<Object>>>>,
}

/// An object: its parts as they came, by offset.
#[derive(Debug)]
struct Object {
    parts: BTreeMap<u64, Bytes>,
    size_bytes: u64,
    modified: SystemTime,
}

impl MemoryBackend {
    pub fn new(name: &str) -> MemoryBackend {
        MemoryBackend { name: name.to_owned(), spare: Arc::default(), objects: Arc::default() }
    }

    fn find(&self, operation: &'static str, key: &str) -> Result<Arc<Object>> {
        lock(&self.objects).get(key).cloned().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, operation, "no such object").with_uri(self.uri(key))
        })
    }
}

impl Backend for MemoryBackend {
    fn uri(&self, key: &str) -> String {
        format!("mem://{}/{key}", self.name)
    }

    fn medium(&self, _: &str) -> Result<Medium> {
        Ok(Medium::new("memory", Durability::Memory))
    }

    fn begin(&self, key: &str, spec: UploadSpec, _: &Deadline) -> Result<Arc<dyn Upload>> {
        if spec.create_only && lock(&self.objects).contains_key(key) {
            return Err(exists());
        }
        Ok(Arc::new(MemoryUpload {
            uri: self.uri(key),
            key: key.to_owned(),
            create_only: spec.create_only,
            spare: Arc::clone(&self.spare),
            parts: Mutex::new(Some(BTreeMap::new())),
            objects: Arc::clone(&self.objects),
        }))
    }

    fn open(&self, key: &str, _: &Deadline) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(MemorySource(self.find("open", key)?)))
    }

    fn head(&self, key: &str, _: &Deadline) -> Result<ObjectMeta> {
        Ok(meta_of(self.uri(key), &*self.find("stat", key)?))
    }

    fn list(&self, prefix: &str) -> Box<dyn Walk> {
        Box::new(MemoryWalk {
            root: self.uri(""),
            prefix: prefix.to_owned(),
            after: None,
            objects: Arc::clone(&self.objects),
        })
    }

    fn delete(&self, keys: &[String], _: &Deadline) -> Result<u64> {
        let mut objects = lock(&self.objects);
        Ok(keys.iter().filter(|key| objects.remove(*key).is_some()).count() as u64)
    }

    fn clear_prefix(&self, _: &str, _: &Deadline) -> Result<()> {
        Ok(())
    }

    /// None: an upload lives in its writer and goes with it.
    fn orphans(&self, _: &str, _: &Deadline) -> Result<Vec<Orphan>> {
        Ok(Vec::new())
    }

    fn delete_orphan(&self, key: &str, _: &Deadline) -> Result<()> {
        check_temporary(key)
    }
}

#[derive(Debug)]
struct MemoryUpload {
    uri: String,
    key: String,
    create_only: bool,
    spare: Arc<Spare>,
    /// `None` after commit or abort.
    parts: Mutex<Option<BTreeMap<u64, Bytes>>>,
    objects: Arc<Mutex<BTreeMap<String, Arc<Object>>>>,
}

impl Upload for MemoryUpload {
    fn alignment(&self) -> Alignment {
        Alignment::NONE
    }

    fn mode(&self) -> IoMode {
        IoMode::Memory
    }

    fn put_part(&self, part: &PartView<'_>, _: &Deadline) -> Result<Receipt> {
        // Copied outside the lock, so that threads copy side by side.
        let bytes = self.spare.copy_of(part.bytes)?;
        match &mut *lock(&self.parts) {
            Some(parts) => drop(parts.insert(part.offset, bytes)),
            None => return Err(ended()),
        }
        Ok(part.receipt())
    }

    fn publish(
        &self,
        _: &[Receipt],
        size_bytes: u64,
        _: &Deadline,
        _: &dyn Fn(),
    ) -> Result<Published> {
        let mut objects = lock(&self.objects);
        if self.create_only && objects.contains_key(&self.key) {
            return Err(exists());
        }
        let parts = lock(&self.parts).take().ok_or_else(ended)?;
        let object = Arc::new(Object { parts, size_bytes, modified: SystemTime::now() });
        let meta = meta_of(self.uri.clone(), &object);
        objects.insert(self.key.clone(), object);
        Ok(Published::durable(meta))
    }

    fn abort(&self, _: &Deadline) -> Result<()> {
        lock(&self.parts).take();
        Ok(())
    }
}

#[derive(Debug)]
struct MemorySource(Arc<Object>);

impl Source for MemorySource {
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
        let Some((start, part)) = self.0.parts.range(..=offset).next_back() else { return Ok(0) };
        let within = usize::try_from(offset - start).unwrap_or(usize::MAX).min(part.len());
        let bytes = &part[within..];
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }
}

#[derive(Debug)]
struct MemoryWalk {
    root: String,
    prefix: String,
    /// The last key seen.
    after: Option<String>,
    objects: Arc<Mutex<BTreeMap<String, Arc<Object>>>>,
}

impl Walk for MemoryWalk {
    fn next_page(&mut self, _: &Deadline) -> Result<Vec<ObjectMeta>> {
        let objects = lock(&self.objects);
        let from = match &self.after {
            Some(after) => Bound::Excluded(after.as_str()),
            None => Bound::Included(self.prefix.as_str()),
        };
        let below = |key: &str| match key.strip_prefix(self.prefix.as_str()) {
            Some(rest) => self.prefix.is_empty() || rest.is_empty() || rest.starts_with('/'),
            None => false,
        };
        let mut page = Vec::new();
        let mut last = None;
        let keys = objects.range::<str, _>((from, Bound::Unbounded));
        // Between `a` and `a/b` stand keys such as `a-b`: they share the prefix and are not below it.
        for (key, object) in keys.take_while(|(key, _)| key.starts_with(&self.prefix)) {
            if page.len() == LIST_PAGE_OBJECTS {
                break;
            }
            if below(key) {
                page.push(meta_of(format!("{}{key}", self.root), object));
                last = Some(key.clone());
            }
        }
        self.after = last.or(self.after.take());
        Ok(page)
    }
}

fn meta_of(uri: String, object: &Object) -> ObjectMeta {
    ObjectMeta {
        uri,
        size_bytes: object.size_bytes,
        modified: Some(object.modified),
        etag: None,
        checksum: None,
        write: None,
    }
}

fn exists() -> Error {
    Error::new(ErrorKind::AlreadyExists, "create", "the object exists")
}

fn ended() -> Error {
    Error::new(ErrorKind::Cancelled, "write part", "the upload has ended")
}
