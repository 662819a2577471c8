//! The one system call that neither nix nor rustix wraps.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Asks the kernel to start writing `bytes` dirty bytes at `offset` to the disk, and does not wait.
///
/// Without it, pages stay dirty until the commit's fdatasync, which then writes everything while the
/// producer stands still. What it is worth stands in `benches/record/`.
/// It promises nothing by itself; durability comes from the fdatasync alone.
pub(super) fn start_writeback(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let offset = libc::off64_t::try_from(offset).map_err(too_large)?;
    let bytes = libc::off64_t::try_from(bytes).map_err(too_large)?;
    // SAFETY: the call takes a descriptor, which `file` keeps open, and plain numbers; it reads and
    // writes no memory of this process.
    let code = unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, bytes, libc::SYNC_FILE_RANGE_WRITE)
    };
    if code == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // A filesystem without the call writes when it likes; interrupted, it has done a part.
        Some(libc::ENOSYS | libc::EINVAL | libc::ESPIPE | libc::EOPNOTSUPP | libc::EINTR) => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn writeback_starts_and_changes_nothing() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 8192], 0).unwrap();
        start_writeback(&file, 0, 8192).unwrap();
        start_writeback(&file, 1 << 40, 1).unwrap();
        assert!(start_writeback(&file, u64::MAX, 1).is_err());
        let mut back = [0; 8192];
        file.read_exact_at(&mut back, 0).unwrap();
        assert_eq!(back, [7; 8192]);
    }
}
