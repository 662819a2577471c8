//! A base in a folder of this machine.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use syncline::ConfigBuilder;
use tempfile::TempDir;

use crate::jobs::Medium;

/// Removed with its temporary directory, if it has one.
pub struct Folder {
    scheme: String,
    path: PathBuf,
    _directory: Option<TempDir>,
}

impl Folder {
    /// A new one, on the disk of the build. `scheme` is `file` or `direct`.
    pub fn new(scheme: &str) -> Folder {
        let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = directory.path().join("base");
        Folder { scheme: scheme.to_owned(), path, _directory: Some(directory) }
    }

    /// One that somebody else removes.
    pub fn at(scheme: &str, path: &str) -> Folder {
        Folder { scheme: scheme.to_owned(), path: path.into(), _directory: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Another one with the same files, of the same ages.
    pub fn copy(&self) -> Folder {
        let copy = Folder::new(&self.scheme);
        let status = Command::new("cp").arg("-a").arg(&self.path).arg(&copy.path).status();
        assert!(status.unwrap().success());
        copy
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in folder.read_dir().unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

impl Medium for Folder {
    fn base(&self) -> String {
        format!("{}://{}", self.scheme, self.path.display())
    }

    fn reaching(&self, config: ConfigBuilder) -> ConfigBuilder {
        // One thread makes all calls, so that they have numbers.
        config.io_threads(1)
    }

    fn part_bytes(&self) -> usize {
        64 << 10
    }

    fn keys(&self) -> BTreeSet<String> {
        let key = |path: &PathBuf| path.strip_prefix(&self.path).unwrap().display().to_string();
        files(&self.path).iter().map(key).collect()
    }

    /// What is begun is a file of its own.
    fn unfinished(&self) -> usize {
        0
    }

    fn removes_unfinished(&self) -> bool {
        true
    }

    fn begin(&self, key: &str) {
        let target = self.path.join(key);
        let name = target.file_name().unwrap().display();
        let temporary = target.with_file_name(format!(".{name}.0123456789abcdef.syncline-tmp"));
        std::fs::write(temporary, [7; 1234]).unwrap();
    }

    fn age(&self, by: Duration) {
        for path in files(&self.path) {
            let file = File::options().write(true).open(&path).unwrap();
            let modified: SystemTime = file.metadata().unwrap().modified().unwrap();
            file.set_modified(modified - by).unwrap();
        }
    }
}
