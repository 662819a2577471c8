//! A directory that objects are written to: one descriptor for all uploads that are under way in it.
//!
//! The kernel tells a failed writeback to each open file once. Of several syncs by one descriptor one hears of
//! it, although the names of all may be lost: so a failure is kept, and every later sync of the descriptor
//! fails too. Uploads that begin afterwards open the directory anew.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, StatxFlags, statx};

use crate::backend::Names;
use crate::error::{Error, Result};
use crate::sync::{Arc, Mutex, lock};

/// An open directory.
#[derive(Debug)]
pub(super) struct Directory {
    pub file: File,
    identity: Option<Identity>,
    /// The first error of a sync.
    failed: Mutex<Option<Error>>,
}

impl Directory {
    pub fn open(path: &Path) -> io::Result<Arc<Directory>> {
        let flags = (OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).bits();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let identity = Identity::of(&file, Path::new(""));
        Ok(Arc::new(Directory { file, identity, failed: Mutex::default() }))
    }

    /// Which directory it is; `None` where the filesystem does not tell.
    pub fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Whether a sync of it failed.
    pub fn has_failed(&self) -> bool {
        lock(&self.failed).is_some()
    }

    /// The outcome of a sync, which is the first failed one's once there was one.
    pub fn latched(&self, synced: io::Result<()>) -> Result<()> {
        let mut failed = lock(&self.failed);
        if let Err(e) = synced {
            failed.get_or_insert(Error::from_io("sync directory", e));
        }
        failed.clone().map_or(Ok(()), Err)
    }
}

impl Names for Directory {
    fn id(&self) -> (u64, u64) {
        match self.identity {
            Some(Identity { device: (major, minor), inode, .. }) => {
                (u64::from(major) << 32 | u64::from(minor), inode)
            }
            // Told by itself alone: no two descriptors are taken for one directory.
            None => (u64::MAX, std::ptr::from_ref(self).addr() as u64),
        }
    }

    fn sync(&self) -> Result<()> {
        self.latched(self.file.sync_all())
    }
}

/// Which directory this is. Inode numbers are used again, births are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: (u32, u32),
    inode: u64,
    born: Option<(i64, u32)>,
}

impl Identity {
    /// Of `path` below `directory`, or of `directory` itself for an empty path.
    pub fn of(directory: impl AsFd, path: &Path) -> Option<Identity> {
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        let stat = statx(directory, path, AtFlags::EMPTY_PATH, wanted).ok()?;
        let has_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        Some(Identity {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            born: has_birth.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    #[test]
    fn a_failed_sync_is_told_to_all_who_share_the_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = Directory::open(scratch.path()).unwrap();
        directory.sync().unwrap();
        let error = directory.latched(Err(Errno::EIO.into())).unwrap_err();
        assert!(directory.has_failed());
        // The kernel has told it and tells it no more.
        assert_eq!(directory.sync().unwrap_err().to_string(), error.to_string());
        let other = directory.latched(Err(Errno::ENOSPC.into())).unwrap_err();
        assert_eq!(other.to_string(), error.to_string(), "the first is kept");
        Directory::open(scratch.path()).unwrap().sync().unwrap();
    }
}
