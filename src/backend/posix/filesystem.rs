//! Which filesystem a file or directory lies on, by its magic number, and what a commit there withstands.
//! Numbers: statfs(2), linux/magic.h, and the headers of those that are not in the kernel's tree.

use std::fs;
use std::path::Path;

use nix::sys::statfs::{FsType, statfs};

use crate::backend::{Durability, Medium};
use crate::error::Result;

use super::{at, is_absence};

/// Those that are trusted: on a device of this machine, with atomic renames that an fsync of the directory
/// makes durable. Tests run on ext4 and XFS; of the others their documentation says so.
const LOCAL: [(i64, &str); 7] = [
    // ext2, ext3 and ext4 share it.
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0xf2f5_2010, "f2fs"),
    (0x2fc1_2fc1, "zfs"),
    (0xca45_1a4e, "bcachefs"),
    // In containers: files go to the upper of its two filesystems, and so do their syncs.
    (0x794c_7630, "overlay"),
];

const MEMORY: [(i64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];

/// Those that are known not to be trusted so far: over a network, in user space, or without renames that hold.
const OTHERS: [(i64, &str); 18] = [
    (0x6969, "nfs"),
    (0x0bd0_0bd0, "lustre"),
    // gcsfuse, s3fs, JuiceFS, Mountpoint, sshfs and whatever else lives in a process.
    (0x6573_5546, "fuse"),
    (0x4750_4653, "gpfs"),
    (0x00c3_6400, "ceph"),
    (0x1983_0326, "beegfs"),
    (0xaad7_aaea, "panfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x517b, "smb"),
    (0x0102_1997, "9p"),
    (0x5346_414f, "afs"),
    (0x7461_636f, "ocfs2"),
    (0x0116_1970, "gfs2"),
    (0x786f_4256, "vboxsf"),
    (0x4d44, "vfat"),
    (0x2011_bab0, "exfat"),
    (0x7366_746e, "ntfs3"),
];

/// Whether files of this filesystem are page cache and nothing else.
pub(crate) fn is_memory_filesystem(kind: FsType) -> bool {
    MEMORY.iter().any(|(magic, _)| *magic == magic_of(kind))
}

/// What a path lies on or, as long as it does not exist, what it would be made on.
pub(super) fn medium(path: &Path) -> Result<Medium> {
    let is_there = |path: &&Path| !fs::metadata(path).is_err_and(|e| is_absence(&e));
    let nearest = path.ancestors().find(is_there).unwrap_or(Path::new("/"));
    let stat = statfs(nearest).map_err(|e| at(nearest, "look at filesystem", e.into()))?;
    Ok(named(magic_of(stat.filesystem_type())))
}

/// Of 32 bits on all machines: some give the number with its sign, and of another type than others.
#[allow(clippy::unnecessary_cast)]
fn magic_of(kind: FsType) -> i64 {
    (kind.0 as i64) & 0xffff_ffff
}

fn named(magic: i64) -> Medium {
    let tables: [(&[(i64, &str)], Durability); 3] = [
        (&LOCAL, Durability::Promised),
        (&MEMORY, Durability::Memory),
        (&OTHERS, Durability::NotPromised),
    ];
    for (table, durability) in tables {
        if let Some((_, name)) = table.iter().find(|(known, _)| *known == magic) {
            return Medium::new(*name, durability);
        }
    }
    Medium::new(format!("{magic:#x}"), Durability::NotPromised)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_filesystem_is_told_by_its_magic() {
        assert_eq!(named(0x6969), Medium::new("nfs", Durability::NotPromised));
        assert_eq!(named(0xef53), Medium::new("ext4", Durability::Promised));
        assert_eq!(named(0x1234), Medium::new("0x1234", Durability::NotPromised));
        // As a machine with 32-bit words gives it.
        let signed = FsType(i64::from(0xff53_4d42_u32 as i32) as _);
        assert_eq!(named(magic_of(signed)).name, "cifs");
    }

    #[test]
    fn no_magic_stands_twice() {
        let all: Vec<i64> =
            LOCAL.iter().chain(&MEMORY).chain(&OTHERS).map(|(magic, _)| *magic).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }

    #[test]
    fn what_does_not_exist_lies_where_it_would_be_made() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let deep = medium(&directory.path().join("not/yet/there")).unwrap();
        assert_eq!(deep, Medium::new("tmpfs", Durability::Memory));
        // Below a file nothing can be made, and the file tells where it lies.
        let file = directory.path().join("file");
        fs::write(&file, b"x").unwrap();
        assert_eq!(medium(&file.join("below")).unwrap().name, "tmpfs");
    }
}
