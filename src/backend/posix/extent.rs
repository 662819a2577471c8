//! Setting space aside ahead of the writes.

use std::fs::File;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statfs::fstatfs;

use super::is_memory_filesystem;
use crate::error::{Error, Result};
use crate::limits::{
    PREALLOCATE_BYTES_MIN, PREALLOCATE_STEP_BYTES_MAX, PREALLOCATE_STEP_BYTES_MIN,
};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// How far the file is extended. Writes that extend a file serialise on its inode, O_DIRECT ones above
/// all; so space is set aside ahead of them, and the commit cuts what was too much.
#[derive(Debug)]
pub(super) struct Extent {
    end: AtomicU64,
    /// Bytes to extend by next.
    step: Mutex<u64>,
}

impl Extent {
    pub fn new() -> Extent {
        Extent { end: AtomicU64::new(0), step: Mutex::new(PREALLOCATE_STEP_BYTES_MIN) }
    }

    /// Sets aside what the caller expects to write. A hint that the disk cannot hold may be wrong: then
    /// the writes decide.
    pub fn expect(&self, file: &File, bytes: u64) -> Result<()> {
        if bytes < PREALLOCATE_BYTES_MIN {
            return Ok(());
        }
        match room(file)? {
            Room::Memory => return self.settle(Err(Errno::EOPNOTSUPP), bytes),
            Room::Disk { free_bytes } if free_bytes < bytes => return Ok(()),
            Room::Disk { .. } => {}
        }
        match allocate(file, 0, bytes) {
            // What was allocated before the disk was full is given back; nothing is written yet.
            Err(e) if is_full(e) => {
                file.set_len(0).map_err(|e| Error::from_io("set space aside", e))
            }
            other => self.settle(other, bytes),
        }
    }

    /// Makes the file reach `end` at least, and some way beyond.
    pub fn reach(&self, file: &File, end: u64) -> Result<()> {
        if end <= self.end.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut step = lock(&self.step);
        let start = self.end.load(Ordering::Acquire);
        if end <= start {
            return Ok(());
        }
        // A stride that the disk has no room for would take the last of it from others.
        let stride = match room(file)? {
            Room::Memory => return self.settle(Err(Errno::EOPNOTSUPP), end),
            Room::Disk { free_bytes } => free_bytes.min(*step),
        };
        let far = end.max(start.saturating_add(stride));
        match allocate(file, start, far) {
            // Too little for the stride may still be enough for the part.
            Err(e) if is_full(e) && far > end => self.settle(allocate(file, start, end), end),
            other => {
                *step = (*step * 2).min(PREALLOCATE_STEP_BYTES_MAX);
                self.settle(other, far)
            }
        }
    }

    fn settle(&self, allocated: nix::Result<()>, end: u64) -> Result<()> {
        match allocated {
            Ok(()) => self.end.store(end, Ordering::Release),
            // No fallocate here: the writes themselves extend the file, more slowly.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => self.end.store(u64::MAX, Ordering::Release),
            Err(e) => return Err(Error::from_io("set space aside", e.into())),
        }
        Ok(())
    }
}

/// What the filesystem has room for.
enum Room {
    /// Its files are memory: setting space aside would take memory that may never be written.
    Memory,
    /// Bytes free to this user.
    Disk { free_bytes: u64 },
}

fn room(file: &File) -> Result<Room> {
    let stat = fstatfs(file).map_err(|e| Error::from_io("set space aside", e.into()))?;
    if is_memory_filesystem(stat.filesystem_type()) {
        return Ok(Room::Memory);
    }
    let block_bytes = u64::try_from(stat.block_size()).unwrap_or(0);
    Ok(Room::Disk { free_bytes: stat.blocks_available().saturating_mul(block_bytes) })
}

fn is_full(e: Errno) -> bool {
    matches!(e, Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG)
}

fn allocate(file: &File, start: u64, end: u64) -> nix::Result<()> {
    if end == start {
        return Ok(());
    }
    let too_large = |_| Errno::EFBIG;
    let offset = i64::try_from(start).map_err(too_large)?;
    let length = i64::try_from(end - start).map_err(too_large)?;
    loop {
        match fallocate(file, FallocateFlags::empty(), offset, length) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file without a name in the folder of the build, which is on a disk.
    fn disk_file() -> File {
        tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap()
    }

    #[test]
    fn a_file_is_extended_in_growing_strides() {
        let file = disk_file();
        let length = || file.metadata().unwrap().len();
        let extent = Extent::new();
        extent.reach(&file, 8192).unwrap();
        assert_eq!(length(), PREALLOCATE_STEP_BYTES_MIN);
        extent.reach(&file, 12_288).unwrap();
        assert_eq!(length(), PREALLOCATE_STEP_BYTES_MIN, "no call where space is left");
        extent.reach(&file, PREALLOCATE_STEP_BYTES_MIN + 1).unwrap();
        assert_eq!(length(), 3 * PREALLOCATE_STEP_BYTES_MIN);
    }

    #[test]
    fn a_hint_beyond_the_disk_is_no_error() {
        let file = disk_file();
        let extent = Extent::new();
        extent.expect(&file, u64::MAX).unwrap();
        extent.expect(&file, 1 << 44).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 0);
        extent.expect(&file, PREALLOCATE_BYTES_MIN).unwrap();
        assert_eq!(file.metadata().unwrap().len(), PREALLOCATE_BYTES_MIN);
    }

    #[test]
    fn memory_filesystems_are_not_asked_for_space() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        let extent = Extent::new();
        extent.expect(&file, 64 << 20).unwrap();
        extent.reach(&file, 128 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}
