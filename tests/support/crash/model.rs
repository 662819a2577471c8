//! A disk that keeps apart what is live and what is durable, and what a power cut at any moment may leave of it.
//!
//! Operations are recorded in their order. Of a prefix of them, `states` makes what may be found after a crash
//! at its end. It assumes less than common filesystems promise, so that what survives here survives there:
//!
//! * A file's sync makes durable the bytes and the length it had when the sync began, and no name. (ext4 and
//!   XFS often bring a new file's name along; POSIX does not promise it.)
//! * A directory's sync makes durable the names given and taken in it before the sync began: neither bytes of
//!   files, nor what is in a directory below, nor its own name in the one above.
//! * Of the names that were not synced any subset survives, in whatever directory: ext4 keeps them in order,
//!   others do not. A rename is one change: its file has the old name or the new one, and a name that it
//!   replaces leads to the one file or the other. A name that is taken away is the one of that very file: a
//!   removal cannot reach the disk before the rename that it removes.
//! * Of the writes that were not synced any subset survives, in any order, and the last one cut at a sector. One
//!   that is lost may still have made the file longer: then zeros stand there. A new name may so be durable
//!   before any byte, which is the empty file, or the one of zeros, that is found after power cuts.
//! * What reached the disk stays as it is: bits that decay are other tests' business.
//!
//! A sync counts from its beginning to its end: what others do meanwhile is not known to be covered.
//!
//! Stands alone, so that unit tests can include it by `#[path]`.
#![allow(dead_code, reason = "each driver uses its own part of this")]

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// What a disk keeps or loses of a write as a whole.
const SECTOR_BYTES: usize = 512;

pub type Inode = usize;

/// The directory that all paths start from.
pub const ROOT: Inode = 0;

/// What may be seen of a thing: its versions, and `None` where it may be absent.
pub type AnyOf = Vec<Option<u64>>;

#[derive(Debug, Clone)]
pub enum Operation {
    /// A directory gets a name, of a new file or directory, or one more of a file.
    Name {
        folder: Inode,
        name: String,
        inode: Inode,
    },
    /// A name is taken away.
    Unname {
        folder: Inode,
        name: String,
        inode: Inode,
    },
    Rename {
        folder: Inode,
        from: String,
        to: String,
        inode: Inode,
    },
    Write {
        inode: Inode,
        offset: u64,
        bytes: Arc<[u8]>,
    },
    /// A file is cut or made longer.
    Resize {
        inode: Inode,
        size_bytes: u64,
    },
    SyncBegins {
        inode: Inode,
        by: u64,
    },
    SyncEnds {
        inode: Inode,
        by: u64,
    },
    /// No operation: from here on this may be seen of the thing, in whatever state.
    Expect {
        what: String,
        any_of: AnyOf,
    },
}

impl Operation {
    /// Whose sync makes it durable.
    fn touches(&self) -> Option<Inode> {
        match self {
            Operation::Name { folder, .. }
            | Operation::Unname { folder, .. }
            | Operation::Rename { folder, .. } => Some(*folder),
            Operation::Write { inode, .. } | Operation::Resize { inode, .. } => Some(*inode),
            _ => None,
        }
    }

    fn is_of_names(&self) -> bool {
        matches!(self, Operation::Name { .. } | Operation::Unname { .. } | Operation::Rename { .. })
    }
}

/// Bytes of a file; beyond them zeros up to its size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Content {
    pub bytes: Vec<u8>,
    pub size_bytes: u64,
}

impl Content {
    pub fn of(bytes: Vec<u8>) -> Content {
        Content { size_bytes: bytes.len() as u64, bytes }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let start = usize::try_from(offset).unwrap();
        let end = start + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
        self.size_bytes = self.size_bytes.max(end as u64);
    }

    fn resize(&mut self, size_bytes: u64) {
        self.bytes.truncate(usize::try_from(size_bytes).unwrap());
        self.size_bytes = size_bytes;
    }

    /// What a read from `offset` gives.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let room = self.size_bytes.saturating_sub(offset);
        let count = usize::try_from(room).unwrap().min(buffer.len());
        let start = usize::try_from(offset).unwrap().min(self.bytes.len());
        let known = &self.bytes[start..self.bytes.len().min(start + count)];
        buffer[..known.len()].copy_from_slice(known);
        buffer[known.len()..count].fill(0);
        count
    }
}

/// Files and directories at one moment.
#[derive(Debug, Clone)]
pub struct Image {
    folders: BTreeMap<Inode, BTreeMap<String, Inode>>,
    files: BTreeMap<Inode, Content>,
}

impl Image {
    fn empty() -> Image {
        Image { folders: BTreeMap::from([(ROOT, BTreeMap::new())]), files: BTreeMap::new() }
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Name { folder, name, inode } => {
                self.names(*folder).insert(name.clone(), *inode);
            }
            Operation::Unname { folder, name, inode } => {
                let names = self.names(*folder);
                if names.get(name) == Some(inode) {
                    names.remove(name);
                }
            }
            Operation::Rename { folder, from, to, inode } => {
                let names = self.names(*folder);
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Operation::Write { inode, offset, bytes } => self.file(*inode).write(*offset, bytes),
            Operation::Resize { inode, size_bytes } => self.file(*inode).resize(*size_bytes),
            Operation::SyncBegins { .. }
            | Operation::SyncEnds { .. }
            | Operation::Expect { .. } => {}
        }
    }

    fn names(&mut self, folder: Inode) -> &mut BTreeMap<String, Inode> {
        self.folders.get_mut(&folder).expect("a directory")
    }

    fn file(&mut self, inode: Inode) -> &mut Content {
        self.files.get_mut(&inode).expect("a file")
    }

    pub fn is_folder(&self, inode: Inode) -> bool {
        self.folders.contains_key(&inode)
    }

    pub fn content(&self, inode: Inode) -> Option<&Content> {
        self.files.get(&inode)
    }

    /// The names in a directory.
    pub fn list(&self, folder: Inode) -> impl Iterator<Item = (&str, Inode)> {
        let names = self.folders.get(&folder).into_iter().flatten();
        names.map(|(name, inode)| (name.as_str(), *inode))
    }

    /// What has this path, of segments separated by `/`; the root for the empty path.
    pub fn find(&self, path: &str) -> Option<Inode> {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        segments.try_fold(ROOT, |folder, name| self.folders.get(&folder)?.get(name).copied())
    }

    /// All that has a name, by path; `None` for a directory. Parents come before what is in them.
    pub fn tree(&self) -> Vec<(String, Inode, Option<&Content>)> {
        let mut found = Vec::new();
        let mut open = vec![(String::new(), ROOT)];
        while let Some((path, folder)) = open.pop() {
            for (name, inode) in self.list(folder) {
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
                found.push((path.clone(), inode, self.files.get(&inode)));
                if self.is_folder(inode) {
                    open.push((path, inode));
                }
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    /// Tells one tree from another.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, _, content) in self.tree() {
            (path, content).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// What of the operations that were not synced is found after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    Synced,
    /// Everything: the process was killed, and the machine lives on.
    All,
    /// All names, and no bytes.
    Names,
    /// All bytes, and no names.
    Bytes,
    /// What this number draws.
    Drawn(u64),
}

/// The disk, and what was done to it.
#[derive(Debug, Clone)]
pub struct Disk {
    start: Image,
    /// What may be seen of it.
    expected: BTreeMap<String, AnyOf>,
    live: Image,
    log: Vec<Operation>,
}

impl Disk {
    pub fn new() -> Disk {
        Disk::from_image(Image::empty())
    }

    /// A disk that holds this and all of it durable.
    pub fn from_image(image: Image) -> Disk {
        let expected = BTreeMap::new();
        Disk { start: image.clone(), expected, live: image, log: Vec::new() }
    }

    pub fn live(&self) -> &Image {
        &self.live
    }

    pub fn log(&self) -> &[Operation] {
        &self.log
    }

    /// Whether it was there before the first operation.
    pub fn is_from_start(&self, inode: Inode) -> bool {
        self.start.folders.contains_key(&inode) || self.start.files.contains_key(&inode)
    }

    /// The same with another log, to see what would be lost by it.
    pub fn with_log(&self, change: impl FnOnce(Vec<Operation>) -> Vec<Operation>) -> Disk {
        Disk { log: change(self.log.clone()), ..self.clone() }
    }

    /// All that is live is durable, and nothing was done yet.
    pub fn settled(&self) -> Disk {
        Disk { expected: self.expected(self.log.len()), ..Disk::from_image(self.live.clone()) }
    }

    fn done(&mut self, operation: Operation) {
        self.live.apply(&operation);
        self.log.push(operation);
    }

    /// # Panics
    /// If the directory is not there, or the name is.
    fn name(&mut self, folder: Inode, name: &str, inode: Inode) {
        let names = self.live.folders.get(&folder).expect("a directory");
        assert!(!names.contains_key(name), "{name} exists");
        self.done(Operation::Name { folder, name: name.to_owned(), inode });
    }

    fn next_inode(&self) -> Inode {
        self.live.folders.len() + self.live.files.len()
    }

    pub fn make_folder(&mut self, folder: Inode, name: &str) -> Inode {
        let inode = self.next_inode();
        self.live.folders.insert(inode, BTreeMap::new());
        self.name(folder, name, inode);
        inode
    }

    pub fn create(&mut self, folder: Inode, name: &str) -> Inode {
        let inode = self.next_inode();
        self.live.files.insert(inode, Content::default());
        self.name(folder, name, inode);
        inode
    }

    pub fn link(&mut self, folder: Inode, name: &str, inode: Inode) {
        assert!(self.live.files.contains_key(&inode), "only files have several names");
        self.name(folder, name, inode);
    }

    pub fn write(&mut self, inode: Inode, offset: u64, bytes: &[u8]) {
        self.done(Operation::Write { inode, offset, bytes: bytes.into() });
    }

    pub fn resize(&mut self, inode: Inode, size_bytes: u64) {
        self.done(Operation::Resize { inode, size_bytes });
    }

    /// # Panics
    /// If there is no such name, or it is of a directory.
    pub fn rename(&mut self, folder: Inode, from: &str, to: &str) {
        let inode = *self.live.names(folder).get(from).expect("a file to rename");
        assert!(!self.live.is_folder(inode), "a directory is renamed");
        self.done(Operation::Rename { folder, from: from.to_owned(), to: to.to_owned(), inode });
    }

    /// # Panics
    /// If there is no such name, or it is of a directory that is not empty.
    pub fn remove(&mut self, folder: Inode, name: &str) {
        let inode = *self.live.names(folder).get(name).expect("a name to remove");
        assert!(self.live.list(inode).next().is_none(), "{name} is not empty");
        self.done(Operation::Unname { folder, name: name.to_owned(), inode });
    }

    /// Begins a sync of a file or directory; `by` tells those apart that overlap.
    pub fn sync_begins(&mut self, inode: Inode, by: u64) {
        self.done(Operation::SyncBegins { inode, by });
    }

    pub fn sync_ends(&mut self, inode: Inode, by: u64) {
        self.done(Operation::SyncEnds { inode, by });
    }

    pub fn expect(&mut self, what: &str, any_of: AnyOf) {
        self.done(Operation::Expect { what: what.to_owned(), any_of });
    }

    /// What may be seen after a crash at `n`.
    pub fn expected(&self, n: usize) -> BTreeMap<String, AnyOf> {
        let mut expected = self.expected.clone();
        for operation in &self.log[..n] {
            if let Operation::Expect { what, any_of } = operation {
                expected.insert(what.clone(), any_of.clone());
            }
        }
        expected
    }

    /// What a crash after the first `n` operations may leave: the four clear cases and `drawn` others.
    pub fn states(&self, n: usize, drawn: u64) -> impl Iterator<Item = (Survival, Image)> {
        let clear = [Survival::Synced, Survival::All, Survival::Names, Survival::Bytes];
        let drawn = (0..drawn).map(move |k| Survival::Drawn(n as u64 * 1000 + k));
        clear.into_iter().chain(drawn).map(move |survival| (survival, self.state(n, survival)))
    }

    /// What is found after a crash after the first `n` operations.
    pub fn state(&self, n: usize, survival: Survival) -> Image {
        let mut image = self.start.clone();
        // What was made later is there, empty and under no name.
        for inode in self.live.folders.keys() {
            image.folders.entry(*inode).or_default();
        }
        for inode in self.live.files.keys() {
            image.files.entry(*inode).or_default();
        }
        let (durable, pending): (Vec<_>, Vec<_>) =
            self.log[..n].iter().zip(self.durable(n)).partition(|(_, durable)| *durable);
        durable.iter().for_each(|(operation, _)| image.apply(operation));
        let (names, bytes): (Vec<_>, Vec<_>) =
            pending.into_iter().map(|(op, _)| op).partition(|operation| operation.is_of_names());
        match survival {
            Survival::Synced => {}
            Survival::All => names.iter().chain(&bytes).for_each(|op| image.apply(op)),
            Survival::Names => names.iter().for_each(|operation| image.apply(operation)),
            Survival::Bytes => bytes.iter().for_each(|operation| image.apply(operation)),
            Survival::Drawn(seed) => draw(&mut image, &names, bytes, seed),
        }
        image
    }

    /// Which of the first `n` operations a sync made durable.
    fn durable(&self, n: usize) -> Vec<bool> {
        let mut running = HashMap::new();
        let mut synced: HashMap<Inode, usize> = HashMap::new();
        for (at, operation) in self.log[..n].iter().enumerate() {
            match operation {
                Operation::SyncBegins { inode, by } => drop(running.insert((*inode, *by), at)),
                Operation::SyncEnds { inode, by } => {
                    if let Some(begun) = running.remove(&(*inode, *by)) {
                        let until = synced.entry(*inode).or_default();
                        *until = begun.max(*until);
                    }
                }
                _ => {}
            }
        }
        let is_durable = |(at, operation): (usize, &Operation)| match operation.touches() {
            Some(inode) => synced.get(&inode).is_some_and(|until| at < *until),
            None => true,
        };
        self.log[..n].iter().enumerate().map(is_durable).collect()
    }
}

/// Applies a part of what was not synced.
fn draw(image: &mut Image, names: &[&Operation], mut bytes: Vec<&Operation>, seed: u64) {
    let mut dice = Dice::new(seed);
    // Much, half or little survives: each leaves other states.
    let of_four = 1 + dice.below(3);
    for operation in names {
        if dice.below(4) < of_four {
            image.apply(operation);
        }
    }
    for at in (1..bytes.len()).rev() {
        bytes.swap(at, dice.below(at + 1));
    }
    bytes.retain(|_| dice.below(4) < of_four);
    let last = bytes.len().saturating_sub(1);
    for (at, operation) in bytes.into_iter().enumerate() {
        match operation {
            Operation::Write { inode, offset, bytes } if dice.below(4) == 0 => {
                let file = image.file(*inode);
                file.size_bytes = file.size_bytes.max(offset + bytes.len() as u64);
            }
            Operation::Write { inode, offset, bytes } if at == last => {
                let sectors = dice.below(bytes.len() / SECTOR_BYTES + 1);
                image.file(*inode).write(*offset, &bytes[..sectors * SECTOR_BYTES]);
            }
            other => image.apply(other),
        }
    }
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 20) % n as u64).unwrap()
    }
}
