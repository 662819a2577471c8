//! A directory of our own that is gone when the command ends, however it ends.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::output::note;

/// A directory inside a parent. Removed with all it holds when dropped, together with the directories
/// that were made for it, unless the parent is to be kept.
#[derive(Debug)]
pub struct Scratch {
    dir: PathBuf,
    // After `dir`: dropped when it is gone.
    above: Above,
}

/// Directories that were made to hold a scratch directory, the deepest first.
#[derive(Debug)]
struct Above(Vec<PathBuf>);

impl Scratch {
    /// Makes `parent/.NAME-PID-N`, and `parent` where it does not exist. N is the first that is free:
    /// in containers, and on the machines that share a filesystem, process ids repeat.
    pub fn create(parent: &Path, name: &str) -> Result<Scratch, Failure> {
        let missing = parent.ancestors().filter(|dir| !dir.as_os_str().is_empty() && !dir.exists());
        // Exists before anything is made, so that a failure half-way leaves nothing either.
        let above = Above(missing.map(Path::to_owned).collect());
        let stem = parent.join(format!(".{name}-{}", std::process::id())).into_os_string();
        let made = fs::create_dir_all(parent).and_then(|()| make_first_free(&stem));
        let dir = made.map_err(|e| Failure::io("create", Path::new(&stem), &e))?;
        Ok(Scratch { dir, above })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Directories of this name in the same parent that are not this one: of commands that run, or were killed.
    pub fn others(&self, name: &str) -> Vec<PathBuf> {
        let stem = format!(".{name}-");
        let entries = self.dir.parent().and_then(|parent| fs::read_dir(parent).ok());
        let paths = entries.into_iter().flatten().flatten().map(|entry| entry.path());
        let alike = |path: &PathBuf| {
            let name = path.file_name().and_then(OsStr::to_str);
            name.is_some_and(|name| name.starts_with(&stem)) && *path != self.dir
        };
        paths.filter(alike).collect()
    }

    /// Lets the directories above live on.
    pub fn keep_parent(&mut self) {
        self.above.0.clear();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if !is_absence(&error) => {
                note(&format!("remove {}: {error}; remove it by hand", self.dir.display()));
            }
            _ => {}
        }
    }
}

impl Drop for Above {
    fn drop(&mut self) {
        for dir in &self.0 {
            // Fails where something else came to live there, as it should.
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Makes the first of `STEM-0`, `STEM-1` and so on that does not exist.
fn make_first_free(stem: &OsStr) -> io::Result<PathBuf> {
    let mut n = 0;
    loop {
        let mut dir = stem.to_owned();
        dir.push(format!("-{n}"));
        match fs::create_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => n += 1,
            done => return done.map(|()| dir.into()),
        }
    }
}

/// Whether an error says that there is nothing to remove.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
