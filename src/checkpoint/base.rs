//! The base: where its keys are, how its small documents are read and written, and the threads that
//! wait on many objects at once.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use rayon::prelude::*;

use crate::backend::ObjectMeta;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::CHECKPOINT_THREADS_MIN;
use crate::store::{ObjectStore, WriteOptions};
use crate::sync::{Arc, OfProcess, ThreadPool};
use crate::uri::Location;

/// Shared by a [`CheckpointStore`](super::CheckpointStore) and all its writers and readers.
pub(super) struct Base {
    pub store: Arc<dyn ObjectStore>,
    /// Without a slash at its end, in the form in which listings name objects.
    uri: String,
    /// Made at the first use: most programs restore one shard and never need it.
    pool: OfProcess<Arc<ThreadPool>>,
}

impl Base {
    pub fn new(store: Arc<dyn ObjectStore>, uri: &str) -> Base {
        // A URI that does not parse is kept: the store refuses it, and says why, at the first call.
        let uri =
            Location::parse(uri).map_or_else(|_| uri.to_owned(), |location| location.to_string());
        Base { store, uri: trim_slashes(&uri).to_owned(), pool: OfProcess::new() }
    }

    /// The base itself.
    pub fn base_uri(&self) -> &str {
        &self.uri
    }

    /// The URI of an object of the base.
    pub fn uri(&self, key: &str) -> String {
        format!("{}/{key}", self.uri)
    }

    /// The key of an object found in a listing.
    pub fn key_of<'a>(&self, uri: &'a str) -> Option<&'a str> {
        uri.strip_prefix(&self.uri)?.strip_prefix('/')
    }

    /// The first symbolic link by which one of these keys leads out of the base.
    pub fn link_leaving<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a str>,
    ) -> Result<Option<String>> {
        let uris: Vec<String> = keys.into_iter().map(|key| self.uri(key)).collect();
        self.store.link_leaving(&self.uri, &uris)
    }

    /// Refuses keys that lead out of the base by a symbolic link: nothing there is read or removed.
    pub fn check_within<'a>(&self, keys: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let Some(link) = self.link_leaving(keys)? else { return Ok(()) };
        let detail = format!("{link} is a symbolic link out of the base, and is not followed");
        Err(Error::new(ErrorKind::Corrupt, "follow links", detail)
            .with_uri(self.base_uri())
            .with_remedy("put what it points to in its place, or remove the link"))
    }

    /// Refuses to write objects into folders that lie outside of the base by a symbolic link: no reader would
    /// look for them there. (What stands under an object's own name, the create-only write refuses.)
    pub fn check_folders_of<'a>(&self, keys: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let folder = |key: &'a str| Some(key.rsplit_once('/')?.0);
        let folders: BTreeSet<&str> = keys.into_iter().filter_map(folder).collect();
        self.check_within(folders)
    }

    /// All objects of a folder and the folders below it, with their keys.
    pub fn list(&self, folder: &str) -> Result<Vec<(String, ObjectMeta)>> {
        self.check_within([folder])?;
        let mut found = Vec::new();
        for object in self.store.list(&self.uri(folder))? {
            let object = object?;
            if let Some(key) = self.key_of(&object.uri) {
                found.push((key.to_owned(), object));
            }
        }
        Ok(found)
    }

    /// The same of a folder that a manifest names: what has its name may be no folder, and then nothing is in
    /// it.
    pub fn list_named(&self, folder: &str) -> Result<Vec<(String, ObjectMeta)>> {
        match self.list(folder) {
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(Vec::new()),
            outcome => outcome,
        }
    }

    /// A small document, refused as `Corrupt` if it is larger than `bytes_max`. `NotFound` if there
    /// is none.
    pub fn read_document(&self, key: &str, bytes_max: u64) -> Result<Bytes> {
        let size_bytes = self.store.stat(&self.uri(key))?.size_bytes;
        self.read_document_of(key, size_bytes, bytes_max)
    }

    /// A small document of known size.
    pub fn read_document_of(&self, key: &str, size_bytes: u64, bytes_max: u64) -> Result<Bytes> {
        self.check_within([key])?;
        let uri = self.uri(key);
        let refuse = |why: String| Err(Error::new(ErrorKind::Corrupt, "read document", why));
        match size_bytes {
            0 => refuse("it is empty".to_owned()).map_err(|e| e.with_uri(uri)),
            size if size > bytes_max => {
                refuse(format!("it has {size} bytes; at most {bytes_max} are read"))
                    .map_err(|e| e.with_uri(uri))
            }
            size => self.store.get_range(&uri, 0, Some(size)),
        }
    }

    /// Writes a small document. `AlreadyExists` if it is there; `Corrupt` if its folder is a link out of the base,
    /// where no reader would look for it.
    pub fn create_document(&self, key: &str, text: &[u8]) -> Result<()> {
        self.check_within([key])?;
        self.store.put_with(&self.uri(key), text, WriteOptions::default().create_only()).map(drop)
    }

    /// What the store knows of a rank's shard, which is within the base. `Incomplete` if it is missing, or if
    /// what has its name is no object: the name is the manifest's, not the caller's mistake.
    pub fn stat_shard(&self, rank: u32, key: &str) -> Result<ObjectMeta> {
        self.check_within([key])?;
        let uri = self.uri(key);
        self.store.stat(&uri).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                let detail = format!("the shard of rank {rank} is missing");
                Error::new(ErrorKind::Incomplete, "find shard", detail)
                    .with_uri(uri)
                    .with_source(error)
            }
            ErrorKind::InvalidInput => error.with_kind(ErrorKind::Incomplete),
            _ => error,
        })
    }

    /// Does `work` for each item, several at a time, and returns the outcomes in the order of the
    /// items.
    pub fn in_parallel<T: Sync, R: Send>(
        &self,
        items: &[T],
        work: impl Fn(&T) -> R + Send + Sync,
    ) -> Result<Vec<R>> {
        if items.len() <= 1 {
            return Ok(items.iter().map(work).collect());
        }
        let pool = self.pool()?;
        Ok(pool.threads().install(|| items.par_iter().with_max_len(1).map(work).collect()))
    }

    fn pool(&self) -> Result<Arc<ThreadPool>> {
        let mut pool = self.pool.lock();
        if let Some(pool) = &*pool {
            return Ok(Arc::clone(pool));
        }
        let threads = self.store.config().io_threads().max(CHECKPOINT_THREADS_MIN);
        let made = Arc::new(ThreadPool::new("syncline-checkpoint", threads)?);
        *pool = Some(Arc::clone(&made));
        Ok(made)
    }
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Base").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// Cuts slashes off the end, but none of those that open an authority.
fn trim_slashes(uri: &str) -> &str {
    let floor = uri.find("://").map_or(0, |at| at + "://".len());
    let (head, path) = uri.split_at(floor);
    &uri[..head.len() + path.trim_end_matches('/').len()]
}

#[cfg(test)]
mod tests {
    use super::trim_slashes;

    #[test]
    fn slashes_at_the_end_do_not_count() {
        for (uri, trimmed) in [
            ("mem://name", "mem://name"),
            ("mem://name//", "mem://name"),
            ("file:///a/b/", "file:///a/b"),
            ("file:///", "file://"),
            ("/a/", "/a"),
            ("a", "a"),
        ] {
            assert_eq!(trim_slashes(uri), trimmed);
        }
    }
}
