//! Walking a directory tree in the order of keys.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::links::leads_nowhere;
use super::{at, is_nowhere, object_meta};
use crate::backend::temporary::is_temporary_name;
use crate::backend::{ObjectMeta, Walk};
use crate::error::Result;
use crate::limits::LIST_PAGE_OBJECTS;
use crate::time::Deadline;

/// Which files a walk yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Select {
    Objects,
    Temporaries,
}

/// A walk below one path. Links to files are objects; links to directories are not followed, so that a
/// circle cannot trap the walk. Names that are not UTF-8 are no keys and are passed over.
#[derive(Debug)]
pub(super) struct DirectoryWalk {
    scheme: &'static str,
    select: Select,
    /// Where the walk begins; `None` once it has.
    root: Option<PathBuf>,
    /// Paths still to be visited, the next one last; directories are marked.
    stack: Vec<(PathBuf, bool)>,
}

impl DirectoryWalk {
    pub fn new(scheme: &'static str, root: PathBuf, select: Select) -> DirectoryWalk {
        DirectoryWalk { scheme, select, root: Some(root), stack: Vec::new() }
    }

    fn selects(&self, name: &str) -> bool {
        is_temporary_name(name) == (self.select == Select::Temporaries)
    }

    /// Pushes a directory's entries so that the first in the order of keys comes out first. A directory
    /// sorts as if its name ended in a slash, as its objects' keys do.
    fn descend(&mut self, directory: &Path) -> Result<()> {
        let failed = |e| at(directory, "list", e);
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            // Removed since it was seen.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(failed(e)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let Ok(mut name) = entry.file_name().into_string() else {
                log::warn!("{}: a name that is not UTF-8 is passed over", directory.display());
                continue;
            };
            let is_directory = match entry.file_type() {
                Ok(kind) => kind.is_dir(),
                // Removed since it was seen, where the directory does not tell what its entries are.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(failed(e)),
            };
            if is_directory {
                name.push('/');
            } else if !self.selects(&name) {
                continue;
            }
            found.push((name, entry.path(), is_directory));
        }
        found.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        self.stack.extend(found.into_iter().map(|(_, path, is_directory)| (path, is_directory)));
        Ok(())
    }

    fn object(&self, path: &Path) -> Result<Option<ObjectMeta>> {
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            // One link that leads back to itself must not keep all the others from being listed.
            Err(e) if leads_nowhere(&e) => return Ok(None),
            Err(e) => return Err(at(path, "list", e)),
        };
        let Some(text) = path.to_str().filter(|_| meta.is_file()) else { return Ok(None) };
        Ok(Some(object_meta(format!("{}://{text}", self.scheme), &meta)))
    }
}

impl Walk for DirectoryWalk {
    fn next_page(&mut self, _: &Deadline) -> Result<Vec<ObjectMeta>> {
        if let Some(root) = self.root.take() {
            // The root may be a link to a directory: the user named it.
            let is_directory = match fs::metadata(&root) {
                Ok(meta) => meta.is_dir(),
                Err(e) if is_nowhere(&e) && e.kind() != ErrorKind::NotADirectory => false,
                // What cannot be looked at is not empty, and what a file stands in the way of never can be.
                Err(e) => return Err(at(&root, "list", e)),
            };
            let name = root.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if is_directory || self.selects(name) {
                self.stack.push((root, is_directory));
            }
        }
        let mut page = Vec::new();
        while page.len() < LIST_PAGE_OBJECTS {
            let Some((path, is_directory)) = self.stack.pop() else { break };
            if is_directory {
                self.descend(&path)?;
            } else {
                page.extend(self.object(&path)?);
            }
        }
        Ok(page)
    }
}
