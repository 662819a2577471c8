//! An upload to a filesystem: a temporary file beside its target, and the commit.
//!
//! The temporary name is `.NAME.NONCE.syncline-tmp`. Commit: cut to size, fdatasync, rename, fsync of the
//! directory. Create-only: `renameat2(RENAME_NOREPLACE)`, and where a filesystem has no such rename
//! (EINVAL, ENOSYS, EOPNOTSUPP: NFS, 9p, some FUSE) link and unlink; never a plain rename. An error of a
//! sync is final: the kernel may have dropped the dirty pages, so that a second try proves nothing.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::directory::Directory;
use super::extent::Extent;
use super::writeback::start_writeback;
use super::{Access, object_meta};
use crate::backend::temporary::temporary_name;
use crate::backend::{Alignment, IoMode, Names, PartView, Published, Receipt, Upload, UploadSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::WRITEBACK_BYTES_MIN;
use crate::sync::{Arc, Mutex, lock, process_id};
use crate::time::Deadline;

/// How often a new temporary name is tried: a clash needs two equal 64-bit random numbers.
const NAME_ATTEMPTS: u32 = 4;

/// An object being written.
#[derive(Debug)]
pub(super) struct PosixUpload {
    uri: String,
    /// The target's name in the directory.
    name: String,
    temporary: Temporary,
    file: File,
    alignment: Alignment,
    mode: IoMode,
    create_only: bool,
    /// Whether writeback begins however little is written.
    eager: bool,
    extent: Extent,
    /// Held while a part is copied into the page cache. The kernel admits one such copy to a file at a
    /// time anyhow, and lets the others spin for their turn, which takes the processor from the producer.
    turn: Mutex<()>,
}

impl PosixUpload {
    pub fn create(
        uri: String,
        directory: Arc<Directory>,
        name: &str,
        spec: UploadSpec,
        access: &impl Access,
    ) -> Result<PosixUpload> {
        let (temporary, file) = Temporary::create(directory, name)?;
        let (alignment, mode) = access.prepare(&file)?;
        let extent = Extent::new();
        if let Some(bytes) = spec.size_hint_bytes {
            extent.expect(&file, bytes)?;
        }
        let UploadSpec { create_only, eager, .. } = spec;
        let (name, turn) = (name.to_owned(), Mutex::new(()));
        Ok(PosixUpload {
            uri,
            name,
            temporary,
            file,
            alignment,
            mode,
            create_only,
            eager,
            extent,
            turn,
        })
    }
}

impl Upload for PosixUpload {
    fn alignment(&self) -> Alignment {
        self.alignment
    }

    fn mode(&self) -> IoMode {
        self.mode
    }

    fn put_part(&self, part: &PartView<'_>, _: &Deadline) -> Result<Receipt> {
        let bytes = if self.alignment == Alignment::NONE { part.bytes } else { part.bytes_padded };
        if part.offset > 0 {
            // The first part may be all there is: a small file is not worth the call.
            self.extent.reach(&self.file, part.offset + bytes.len() as u64)?;
        }
        let failed = |e| Error::from_io("write part", e);
        let turn = (self.mode == IoMode::Buffered).then(|| lock(&self.turn));
        self.file.write_all_at(bytes, part.offset).map_err(failed)?;
        drop(turn);
        if self.mode == IoMode::Buffered && (self.eager || bytes.len() >= WRITEBACK_BYTES_MIN) {
            start_writeback(&self.file, part.offset, bytes.len() as u64).map_err(failed)?;
        }
        Ok(part.receipt())
    }

    fn settle(&self, size_bytes: u64) -> Result<()> {
        let failed = |e| Error::from_io("commit", e);
        if self.file.metadata().map_err(failed)?.len() != size_bytes {
            self.file.set_len(size_bytes).map_err(failed)?;
        }
        self.file.sync_data().map_err(|e| Error::from_io("sync", e))
    }

    fn publish(&self, _: &[Receipt], _: u64, _: &Deadline, _: &dyn Fn()) -> Result<Published> {
        self.temporary.publish(&self.name, self.create_only)?;
        let meta = self.file.metadata().map_err(|e| Error::from_io("commit", e))?;
        let names: Arc<dyn Names> = Arc::clone(&self.temporary.directory) as _;
        Ok(Published { meta: object_meta(self.uri.clone(), &meta), names: Some(names) })
    }

    fn abort(&self, _: &Deadline) -> Result<()> {
        self.temporary.discard()
    }
}

/// The temporary name of an upload; removed when dropped, unless it was published.
#[derive(Debug)]
struct Temporary {
    directory: Arc<Directory>,
    name: String,
    process_id: u32,
    /// Held across the rename, so that a commit and an abort exclude each other.
    fate: Mutex<Fate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Published,
    Discarded,
}

impl Temporary {
    fn create(directory: Arc<Directory>, target: &str) -> Result<(Temporary, File)> {
        let failed = |e: Errno| Error::from_io("create temporary file", e.into());
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mut attempt = 1;
        let (name, fd): (String, OwnedFd) = loop {
            let name = temporary_name(target)?;
            match openat(&directory.file, name.as_str(), flags, Mode::from_bits_truncate(0o666)) {
                Ok(fd) => break (name, fd),
                Err(Errno::EEXIST) if attempt < NAME_ATTEMPTS => attempt += 1,
                Err(e) => return Err(failed(e)),
            }
        };
        let (fate, process_id) = (Mutex::new(Fate::Open), process_id());
        Ok((Temporary { directory, name, process_id, fate }, File::from(fd)))
    }

    /// Gives the file its final name.
    fn publish(&self, target: &str, create_only: bool) -> Result<()> {
        let mut fate = lock(&self.fate);
        if *fate != Fate::Open {
            return Err(Error::new(ErrorKind::Cancelled, "commit", "the upload was aborted"));
        }
        let directory = &self.directory.file;
        let renamed = if create_only {
            let flags = RenameFlags::RENAME_NOREPLACE;
            match renameat2(directory, self.name.as_str(), directory, target, flags) {
                Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => self.link_to(target),
                other => other,
            }
        } else {
            renameat(directory, self.name.as_str(), directory, target)
        };
        renamed.map_err(|e| {
            let error = Error::from_io("commit", e.into());
            match e {
                Errno::ENOENT => error.with_remedy(
                    "the temporary file was removed while it was written: clean up only what is \
                     older than the longest write",
                ),
                _ => error,
            }
        })?;
        *fate = Fate::Published;
        Ok(())
    }

    /// Create-only without `renameat2`: a link fails if the name exists.
    fn link_to(&self, target: &str) -> nix::Result<()> {
        let (directory, name) = (&self.directory.file, self.name.as_str());
        match linkat(directory, name, directory, target, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                // On a network filesystem the first try may have succeeded and its reply been lost:
                // then both names are one file.
                let ours = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                let theirs = fstatat(directory, target, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino) {
                    return Err(Errno::EEXIST);
                }
            }
            Err(e) => return Err(e),
        }
        // The object stands; a temporary name that stays is found by `orphans`.
        if let Err(e) = unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
            log::warn!("temporary file {name} stays: {e}");
        }
        Ok(())
    }

    fn discard(&self) -> Result<()> {
        let mut fate = lock(&self.fate);
        if *fate != Fate::Open {
            return Ok(());
        }
        match unlinkat(&self.directory.file, self.name.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {
                *fate = Fate::Discarded;
                Ok(())
            }
            Err(e) => Err(Error::from_io("remove temporary file", e.into())),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.process_id != process_id() {
            // A copy that came with a fork: the parent writes on.
            return;
        }
        if let Err(error) = self.discard() {
            log::warn!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary_in(directory: &std::path::Path, bytes: &[u8]) -> Temporary {
        let (temporary, file) =
            Temporary::create(Directory::open(directory).unwrap(), "t").unwrap();
        file.write_all_at(bytes, 0).unwrap();
        temporary
    }

    /// The way taken where a filesystem has no RENAME_NOREPLACE.
    #[test]
    fn link_creates_once_and_knows_its_own_file() {
        let directory = tempfile::tempdir().unwrap();
        let first = temporary_in(directory.path(), b"first");
        first.link_to("t").unwrap();
        let second = temporary_in(directory.path(), b"second");
        assert_eq!(second.link_to("t"), Err(Errno::EEXIST));
        assert_eq!(std::fs::read(directory.path().join("t")).unwrap(), b"first");
        // A lost reply: the link exists already and is ours.
        let third = temporary_in(directory.path(), b"third");
        std::fs::hard_link(directory.path().join(&third.name), directory.path().join("u")).unwrap();
        third.link_to("u").unwrap();
    }

    #[test]
    fn an_abort_before_the_rename_wins() {
        let directory = tempfile::tempdir().unwrap();
        let temporary = temporary_in(directory.path(), b"x");
        temporary.discard().unwrap();
        temporary.discard().unwrap();
        assert_eq!(temporary.publish("t", false).unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
