//! The system calls of a command, done again on the model of a disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::model::{Content, Disk, Inode};
use crate::strace::{Call, trace};

/// All calls that may name a file or use a descriptor, and the one that needs neither.
const KINDS: &str = "%file,%desc,sync";

/// Calls that change nothing that a disk keeps. `sync_file_range` makes nothing durable.
const HARMLESS: [&str; 33] = [
    "access",
    "close",
    "dup",
    "epoll_ctl",
    "execve",
    "faccessat",
    "faccessat2",
    "fadvise64",
    "fcntl",
    "flock",
    "fstat",
    "fstatfs",
    "getcwd",
    "getdents64",
    "ioctl",
    "lseek",
    "lstat",
    "mmap",
    "newfstatat",
    "poll",
    "ppoll",
    "pread64",
    "preadv",
    "read",
    "readahead",
    "readlink",
    "readlinkat",
    "readv",
    "stat",
    "statfs",
    "statx",
    "sync_file_range",
    "write",
];

/// Runs a command and records what it does below `root`, the root of the disk. Fails at a call there that it
/// does not understand, and where the disk is not what the command really left.
pub fn record(arguments: &[&str], root: &Path, disk: &mut Disk) {
    let scratch = tempfile::tempdir().unwrap();
    // Where a sync begins matters, of all other calls where they end: what is done is done by then.
    let mut steps: BTreeMap<usize, (Call, bool)> = BTreeMap::new();
    for call in trace(arguments, KINDS, scratch.path()) {
        if call.failed() || !call.paths().iter().any(|path| path.starts_with(root)) {
            assert_ne!(call.name, "sync", "a sync of everything is not understood");
            continue;
        }
        if is_sync(&call) && call.begun < call.ended {
            steps.insert(call.begun, (call.clone(), false));
        }
        steps.insert(call.ended, (call, true));
    }
    for (call, is_end) in steps.into_values() {
        replay(&call, is_end, root, disk);
    }
    assert_eq!(tree(disk), found(root), "the record is not all that was done");
}

fn is_sync(call: &Call) -> bool {
    matches!(call.name.as_str(), "fsync" | "fdatasync")
}

fn replay(call: &Call, is_end: bool, root: &Path, disk: &mut Disk) {
    let below = |path: PathBuf| -> String {
        let path = path.strip_prefix(root).unwrap_or_else(|_| panic!("leads out: {call:?}"));
        path.to_str().unwrap().to_owned()
    };
    let place = |disk: &Disk, path: PathBuf| -> (Inode, String) {
        let (parent, name) = (path.parent().unwrap().to_owned(), path.file_name().unwrap());
        let parent = disk.live().find(&below(parent));
        (parent.unwrap_or_else(|| panic!("where? {call:?}")), name.to_str().unwrap().to_owned())
    };
    let find = |disk: &Disk, path: PathBuf| -> Inode {
        let found = disk.live().find(&below(path));
        found.unwrap_or_else(|| panic!("what? {call:?}"))
    };
    let opened = |disk: &Disk| find(disk, call.descriptor(0));
    match call.name.as_str() {
        "mkdir" | "mkdirat" => {
            let path = if call.name == "mkdir" { call.path(0) } else { call.path_at(1) };
            let (folder, name) = place(disk, path);
            disk.make_folder(folder, &name);
        }
        "open" | "openat" => {
            let at = usize::from(call.name == "openat");
            let path = if at == 1 { call.path_at(1) } else { call.path(0) };
            let flags: Vec<&str> = call.arguments[at + 1].split('|').collect();
            assert!(!flags.contains(&"O_TRUNC") && !flags.contains(&"O_TMPFILE"), "{call:?}");
            if flags.contains(&"O_CREAT") && disk.live().find(&below(path.clone())).is_none() {
                let (folder, name) = place(disk, path);
                disk.create(folder, &name);
            }
        }
        "pwrite64" => {
            let mut bytes = call.text(1);
            bytes.truncate(usize::try_from(call.returned()).unwrap());
            disk.write(opened(disk), call.number(3), &bytes);
        }
        "ftruncate" => disk.resize(opened(disk), call.number(1)),
        "fallocate" => {
            assert_eq!(call.arguments[1], "0", "{call:?}");
            let inode = opened(disk);
            let size_bytes = disk.live().content(inode).unwrap().size_bytes;
            let end = call.number(2) + call.number(3);
            if end > size_bytes {
                disk.resize(inode, end);
            }
        }
        "fsync" | "fdatasync" => {
            let inode = opened(disk);
            if !is_end || call.begun == call.ended {
                disk.sync_begins(inode, call.thread);
            }
            if is_end {
                disk.sync_ends(inode, call.thread);
            }
        }
        "rename" | "renameat" | "renameat2" => {
            let (from, to) = match call.name.as_str() {
                "rename" => (call.path(0), call.path(1)),
                _ => (call.path_at(1), call.path_at(3)),
            };
            let flags = call.arguments.get(4).map_or("0", String::as_str);
            assert!(["0", "RENAME_NOREPLACE"].contains(&flags), "{call:?}");
            let ((folder, from), (into, to)) = (place(disk, from), place(disk, to));
            assert_eq!(folder, into, "a rename into another directory: {call:?}");
            disk.rename(folder, &from, &to);
        }
        "linkat" => {
            let inode = find(disk, call.path_at(1));
            let (folder, name) = place(disk, call.path_at(3));
            disk.link(folder, &name, inode);
        }
        "unlink" | "rmdir" | "unlinkat" => {
            let path = if call.name == "unlinkat" { call.path_at(1) } else { call.path(0) };
            let (folder, name) = place(disk, path);
            disk.remove(folder, &name);
        }
        "mmap" => assert!(!call.arguments[3].contains("MAP_SHARED"), "{call:?}"),
        // To the terminal; a text may look like a path.
        "write" => assert!(!call.descriptor(0).starts_with(root), "{call:?}"),
        name => assert!(HARMLESS.contains(&name), "not understood: {call:?}"),
    }
}

/// All that has a name, by path; `None` for a directory.
type Tree = BTreeMap<String, Option<Vec<u8>>>;

fn tree(disk: &Disk) -> Tree {
    let whole = |content: &Content| {
        let mut bytes = vec![0; usize::try_from(content.size_bytes).unwrap()];
        content.read(0, &mut bytes);
        bytes
    };
    let tree = disk.live().tree().into_iter();
    tree.map(|(path, _, content)| (path, content.map(whole))).collect()
}

/// What there is below a directory; nothing where there is none.
pub fn found(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut open: Vec<PathBuf> = root.exists().then(|| root.to_owned()).into_iter().collect();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                found.insert(name, None);
                open.push(path);
            } else {
                found.insert(name, Some(std::fs::read(path).unwrap()));
            }
        }
    }
    found
}
