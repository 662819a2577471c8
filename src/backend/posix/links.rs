//! Symbolic links that lead out of a directory.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::{at, is_nowhere};
use crate::error::{Error, Result};

/// The first symbolic link by which one of `paths`, all below `root`, lies outside of it. `root` itself
/// may be a link. What is not there, or only a link to nothing, lies nowhere.
///
/// Each directory is looked at once, however many of the paths it holds.
pub(super) fn link_leaving(
    root: &Path,
    paths: impl IntoIterator<Item = PathBuf>,
) -> Result<Option<PathBuf>> {
    let mut within: HashSet<PathBuf> = HashSet::new();
    let mut real_root: Option<PathBuf> = None;
    for path in paths {
        let below = path.strip_prefix(root).map_err(|_| {
            let what = format!("{} is not below {}", path.display(), root.display());
            Error::invalid("follow links", what)
        })?;
        let mut place = root.to_path_buf();
        let mut segments = below.components().peekable();
        while let Some(segment) = segments.next() {
            place.push(segment);
            if within.contains(&place) {
                continue;
            }
            let is_link = match fs::symlink_metadata(&place) {
                Err(e) if is_nowhere(&e) => break,
                other => other.map_err(|e| at(&place, "follow links", e))?.is_symlink(),
            };
            if is_link {
                let real = match fs::canonicalize(&place) {
                    Err(e) if leads_nowhere(&e) => break,
                    other => other.map_err(|e| at(&place, "follow links", e))?,
                };
                let real_root = match &real_root {
                    Some(real_root) => real_root,
                    None => real_root
                        .insert(fs::canonicalize(root).map_err(|e| at(root, "follow links", e))?),
                };
                if !real.starts_with(real_root) {
                    return Ok(Some(place));
                }
            }
            if segments.peek().is_some() {
                within.insert(place.clone());
            }
        }
    }
    Ok(None)
}

/// Whether a link has no end: its target is missing, or it leads back to itself.
pub(super) fn leads_nowhere(e: &io::Error) -> bool {
    is_nowhere(e) || e.raw_os_error() == Some(Errno::ELOOP as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_judged_by_where_they_end() {
        let scratch = tempfile::tempdir().unwrap();
        let place = |name: &str| scratch.path().join(name);
        for directory in ["real/shards/a", "outside/deeper"] {
            fs::create_dir_all(place(directory)).unwrap();
        }
        for file in ["real/shards/a/x", "outside/x", "outside/deeper/x"] {
            fs::write(place(file), b"data").unwrap();
        }
        symlink("real", place("base")).unwrap();
        symlink("a", place("real/shards/inner")).unwrap();
        symlink("../../outside", place("real/shards/outer")).unwrap();
        symlink(place("outside/x"), place("real/shards/a/absolute")).unwrap();
        symlink("../shards/../../outside/x", place("real/shards/winding")).unwrap();
        symlink("outer/deeper", place("real/shards/twice")).unwrap();
        symlink("nowhere", place("real/shards/dangling")).unwrap();
        symlink("circle", place("real/shards/circle")).unwrap();
        for root in ["real", "base"] {
            let root = place(root);
            let leaving = |key: &str| link_leaving(&root, [root.join(key)]).unwrap();
            for key in [
                "shards/a/x",
                "shards/inner/x",
                "shards/missing/x",
                "shards/a/x/y",
                "shards/dangling",
                "shards/dangling/x",
                "shards/circle/x",
                "",
            ] {
                assert_eq!(leaving(key), None, "{key}");
            }
            for (key, link) in [
                ("shards/outer/x", "shards/outer"),
                ("shards/outer/missing", "shards/outer"),
                ("shards/outer/deeper/x", "shards/outer"),
                ("shards/inner/absolute", "shards/inner/absolute"),
                ("shards/winding", "shards/winding"),
                ("shards/twice/x", "shards/twice"),
            ] {
                assert_eq!(leaving(key), Some(root.join(link)), "{key}");
            }
            // One among many, in a folder that is known already.
            let many = ["shards/a/x", "shards/a/y", "shards/a/absolute", "shards/outer/x"];
            let first = link_leaving(&root, many.map(|key| root.join(key))).unwrap();
            assert_eq!(first, Some(root.join("shards/a/absolute")));
            link_leaving(&root, [place("outside/x")]).unwrap_err();
        }
    }
}
