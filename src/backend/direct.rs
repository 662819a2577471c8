//! `direct://`: O_DIRECT, past the page cache.
//!
//! Alignment is asked of the kernel: direct I/O is proven only where `statx` has `STATX_DIOALIGN` in its
//! mask with values other than zero (statx(2), since Linux 6.1). That O_DIRECT was accepted proves
//! nothing: tmpfs accepts it and buffers. Where the mask lacks the bit (tmpfs, NFS, Lustre, old kernels),
//! memory filesystems are told by their magic, and elsewhere 4096 is used and reported as unproven.

use std::fs::File;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::statfs::fstatfs;
use rustix::fs::{AtFlags, StatxFlags, statx};

use super::posix::{Access, PosixBackend, is_memory_filesystem};
use super::{Alignment, Backend, IoMode};
use crate::config::DirectPolicy;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{DIRECT_ALIGN_UNPROVEN_BYTES, PART_BYTES_MULTIPLE};
use crate::sync::Arc;

/// Opens the mounted filesystems for direct I/O.
pub(crate) fn open_direct(policy: DirectPolicy) -> Arc<dyn Backend> {
    Arc::new(PosixBackend::new("direct", Direct { policy }))
}

#[derive(Debug)]
struct Direct {
    policy: DirectPolicy,
}

impl Access for Direct {
    fn prepare(&self, file: &File) -> Result<(Alignment, IoMode)> {
        let refusal = match probe(file)? {
            Probe::Proven(alignment) => match set_direct(file) {
                Ok(()) => return Ok((alignment, IoMode::DirectProven)),
                Err(e) => format!("O_DIRECT is refused: {e}"),
            },
            Probe::Unknown => match set_direct(file) {
                Ok(()) => return Ok((UNPROVEN, IoMode::DirectUnproven)),
                Err(e) => format!("O_DIRECT is refused: {e}"),
            },
            Probe::Impossible(why) => why,
        };
        match self.policy {
            DirectPolicy::Prefer => Ok((Alignment::NONE, IoMode::Buffered)),
            DirectPolicy::Require => {
                Err(Error::new(ErrorKind::Unsupported, "open direct", refusal).with_remedy(
                    "use file://, or DirectPolicy::Prefer to fall back to buffered I/O",
                ))
            }
        }
    }

    fn is_cached(&self) -> bool {
        false
    }
}

const UNPROVEN: Alignment = Alignment {
    memory_bytes: DIRECT_ALIGN_UNPROVEN_BYTES,
    offset_bytes: DIRECT_ALIGN_UNPROVEN_BYTES,
};

enum Probe {
    Proven(Alignment),
    Unknown,
    Impossible(String),
}

fn probe(file: &File) -> Result<Probe> {
    let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    if let Ok(stat) = stat
        && stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0
    {
        let (memory, offset) =
            (stat.stx_dio_mem_align as usize, stat.stx_dio_offset_align as usize);
        if memory == 0 || offset == 0 {
            return Ok(Probe::Impossible(
                "the filesystem has no direct I/O for this file".to_owned(),
            ));
        }
        let usable = |bytes: usize| bytes.is_power_of_two() && bytes <= PART_BYTES_MULTIPLE;
        if !usable(memory) || !usable(offset) {
            let why = format!(
                "it asks for an alignment of {memory}/{offset} bytes, above {PART_BYTES_MULTIPLE}"
            );
            return Ok(Probe::Impossible(why));
        }
        return Ok(Probe::Proven(proven(memory, offset)));
    }
    let filesystem = fstatfs(file).map_err(|e| Error::from_io("open direct", e.into()))?;
    if is_memory_filesystem(filesystem.filesystem_type()) {
        return Ok(Probe::Impossible("a memory filesystem has no direct I/O".to_owned()));
    }
    Ok(Probe::Unknown)
}

/// Pieces of memory follow each other as they do in the file: where the device asks more of addresses than
/// of offsets, offsets keep to the same, so that no piece starts at an address that it would refuse.
fn proven(memory_bytes: usize, offset_bytes: usize) -> Alignment {
    Alignment { memory_bytes, offset_bytes: offset_bytes.max(memory_bytes) }
}

/// Sets O_DIRECT on an open file, so that a filesystem that refuses it is told apart from other failures
/// of the open.
fn set_direct(file: &File) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags | OFlag::O_DIRECT)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_in_the_file_keeps_an_address_aligned() {
        for (memory, offset) in [(4, 512), (512, 512), (4096, 512)] {
            let alignment = proven(memory, offset);
            assert!(alignment.admits(4096 + alignment.offset_bytes, alignment.offset_bytes as u64));
            assert!(alignment.offset_bytes >= offset);
        }
    }
}
