//! Where a benchmark's bytes go: a folder of our own, gone when the command ends, however it ends.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use syncline::{IoMode, ObjectStore};

use super::machine;
use crate::failure::Failure;
use crate::object::local_uri;
use crate::output::{note, printable};
use crate::scratch::Scratch;
use crate::session::Session;

/// A folder of our own below the user's URI.
pub struct Place {
    kind: Kind,
    /// The folder's URI.
    base: String,
    /// How the engine's bytes meet this medium: a ceiling must use the same flags.
    pub mode: IoMode,
}

enum Kind {
    /// A directory of a filesystem.
    Directory(Scratch),
    /// The memory of this process.
    Memory,
    /// Keys of a server.
    Server(Folder),
}

/// Objects with one prefix on a server; removed when dropped.
struct Folder {
    store: Arc<dyn ObjectStore>,
    uri: String,
}

impl Place {
    /// Makes the folder. `memory_bytes`: what would be in memory at a time where that is the medium.
    pub fn open(session: &Session, uri: &str, memory_bytes: u64) -> Result<Place, Failure> {
        // Refuses what is no URI of ours, before anything is made.
        let store = session.store(uri)?;
        let (scheme, path) = uri.split_once("://").unwrap_or(("file", uri));
        let (kind, base, mode) = match scheme {
            "mem" => {
                machine::refuse_too_large(uri, memory_bytes, 3)?;
                let base = format!("{}/bench", uri.trim_end_matches('/'));
                (Kind::Memory, base, IoMode::Memory)
            }
            "file" | "direct" => {
                let scratch = Scratch::create(Path::new(path), "syncline-bench")?;
                let base = format!("{scheme}://{}", local_uri(scratch.path())?);
                let mode = probe(&*store, &base)?;
                (Kind::Directory(scratch), base, mode)
            }
            _ => {
                let number = RandomState::new().hash_one(std::process::id());
                let uri = format!("{}/syncline-bench-{number:016x}", uri.trim_end_matches('/'));
                // Says whether the server can be used; before that there is nothing to remove.
                let mode = probe(&*store, &uri)?;
                (Kind::Server(Folder { store, uri: uri.clone() }), uri, mode)
            }
        };
        let place = Place { kind, base, mode };
        session.stop.tell_remains(place.remains());
        Ok(place)
    }

    /// The object that is measured.
    pub fn object_uri(&self) -> String {
        format!("{}/object.bin", self.base)
    }

    /// The object that warms a store up.
    pub fn warm_up_uri(&self) -> String {
        format!("{}/warm-up.bin", self.base)
    }

    /// What the bytes are kept on: the type of the filesystem, `memory`, or `server`.
    pub fn medium(&self) -> String {
        match &self.kind {
            Kind::Directory(scratch) => machine::filesystem(scratch.path()),
            Kind::Memory => "memory".to_owned(),
            Kind::Server(_) => "server".to_owned(),
        }
    }

    /// Whether something can be measured here without the engine.
    pub fn has_ceiling(&self) -> bool {
        !matches!(self.kind, Kind::Server(_))
    }

    /// Where the ceiling keeps its file.
    pub fn raw_file(&self) -> Option<PathBuf> {
        self.directory().map(|dir| dir.join("raw.bin"))
    }

    /// Where the engine's object lies.
    pub fn object_file(&self) -> Option<PathBuf> {
        self.directory().map(|dir| dir.join("object.bin"))
    }

    /// Removes the measured object, so that the next run begins as the first did. In memory it ends
    /// with its store.
    pub fn remove_object(&self) -> Result<(), Failure> {
        match &self.kind {
            Kind::Directory(scratch) => remove_file(&scratch.path().join("object.bin")),
            Kind::Memory => Ok(()),
            Kind::Server(folder) => Ok(folder.store.delete(&self.object_uri())?),
        }
    }

    fn directory(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Directory(scratch) => Some(scratch.path()),
            Kind::Memory | Kind::Server(_) => None,
        }
    }

    /// What to say where there is no time to remove the folder.
    fn remains(&self) -> Option<String> {
        let base = &self.base;
        match &self.kind {
            Kind::Memory => None,
            Kind::Directory(_) | Kind::Server(_) => {
                Some(format!("{} may remain; {}", printable(base), by_hand(base)))
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = self.store.delete_prefix(&self.uri) {
            note(&format!("{error}; {}", by_hand(&self.uri)));
        }
    }
}

/// How the user removes what could not be removed.
fn by_hand(uri: &str) -> String {
    format!("remove it by `syncline rm -r {}`", printable(uri))
}

/// Writes and removes a few bytes.
fn probe(store: &dyn ObjectStore, base: &str) -> Result<IoMode, Failure> {
    let uri = format!("{base}/probe.bin");
    let meta = store.put(&uri, b"probe")?;
    store.delete(&uri)?;
    Ok(meta.write.map_or(IoMode::Buffered, |report| report.mode))
}

/// Removes a file and waits until that is settled, so that it costs the next run nothing.
pub fn remove_file(path: &Path) -> Result<(), Failure> {
    let failed = |e| Failure::io("remove", path, &e);
    fs::remove_file(path).map_err(failed)?;
    let parent = path.parent().unwrap_or(path);
    fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed)
}
