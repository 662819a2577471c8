//! Where bytes come to rest: one small contract, one file per medium.
//!
//! A [`Backend`] names objects by key: UTF-8, segments separated by `/`, no empty, `.` or `..`
//! segment, no leading slash. All methods take `&self`, because the I/O threads share it, and all of
//! them block; the engine calls them from its threads and owns waiting, queueing and the first error.
//!
//! The contract, held by the shared functions of `tests/contract.rs`:
//!
//! * [`Upload::put_part`] with the same index and bytes is idempotent: that makes a retry legal.
//! * Parts come in any order and concurrently. Nothing is visible before [`Upload::commit`].
//! * `commit` is atomic and durable: the object is whole or absent, before and after a crash. After a
//!   failed commit the state is unknown until [`Backend::head`].
//! * `commit` is `settle`, `publish` and the sync of the [`Names`] that `publish` returns, in this order. Who
//!   commits many objects takes each of these steps for all of them before the next.
//! * [`Upload::abort`] is idempotent, and a commit that has not made its object visible when `abort`
//!   is called never does.
//! * A [`Source`] shows one version of its object, whatever happens to the name after `open`.
//! * Compression, checksums, retries, metrics and progress are not a backend's business.
//!
//! Reading goes through [`Backend::open`] rather than a keyed `read_at`: a read in several pieces must
//! not mix two versions of an object that is replaced meanwhile, and a file is opened once, not per piece.

use std::fmt;
use std::time::SystemTime;

use crate::encode::{Algorithm, Checksum};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;
use crate::time::Deadline;

mod azure;
#[cfg(test)]
mod contract_tests;
#[cfg(test)]
pub(crate) mod crash;
mod direct;
#[cfg(test)]
pub(crate) mod fault;
mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod http;
mod medium;
mod memory;
mod posix;
mod published;
mod s3;
mod spare;
mod temporary;

pub(crate) use azure::open_azure;
pub(crate) use direct::open_direct;
pub(crate) use file::open_file;
pub use medium::{Durability, Medium};
pub(crate) use memory::MemoryBackend;
pub(crate) use published::{Names, Published, told_visible};
pub(crate) use s3::open_s3;
pub(crate) use temporary::is_temporary_name;

/// What a backend tells about an object.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ObjectMeta {
    /// The object's URI.
    pub uri: String,
    /// Bytes of the object as stored.
    pub size_bytes: u64,
    /// When the object was committed, where the medium tells.
    pub modified: Option<SystemTime>,
    /// The server's entity tag; `None` on local media.
    pub etag: Option<String>,
    /// `algorithm:hex` of the object: after `finalize` what the writer computed; from `stat` what the
    /// medium stored beside the object, `None` where it stores none.
    pub checksum: Option<String>,
    /// How the object was written; only in what `finalize` returns.
    pub write: Option<WriteReport>,
}

/// How an object's bytes met the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IoMode {
    /// Kept in this process's memory.
    Memory,
    /// Through the page cache.
    Buffered,
    /// O_DIRECT, with the alignment the kernel stated (`STATX_DIOALIGN`): the page cache was bypassed.
    DirectProven,
    /// Over HTTP, to and from a server.
    Network,
    /// O_DIRECT accepted, but the kernel stated no alignment: whether the page cache was bypassed is unknown.
    DirectUnproven,
}

impl fmt::Display for IoMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IoMode::Memory => "memory",
            IoMode::Buffered => "buffered",
            IoMode::Network => "network",
            IoMode::DirectProven => "direct (proven)",
            IoMode::DirectUnproven => "direct (unproven)",
        })
    }
}

/// What the server of an object store has proven about the bytes it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Proof {
    /// Nothing: no checksum was sent.
    None,
    /// A checksum or MD5 of each payload was sent, and the server took it without confirming it: one that
    /// knows the header has verified it.
    ChecksumSent,
    /// Signed SHA-256 of each payload was sent; a server that verifies signatures has verified it.
    Sha256Sent,
    /// The server confirmed the writer's checksum of every part.
    ChecksumVerified,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Proof::None => "none",
            Proof::ChecksumSent => "checksum sent",
            Proof::Sha256Sent => "sha256 sent",
            Proof::ChecksumVerified => "checksum verified",
        })
    }
}

/// What the server of an upload has shown.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ServerReport {
    pub proof: Option<Proof>,
    pub create_only_held: Option<bool>,
}

/// What one writer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteReport {
    /// How the bytes met the medium.
    pub mode: IoMode,
    /// Bytes handed to the writer.
    pub bytes: u64,
    /// Bytes of the object as far as they are known: those handed to the writer, or what they were compressed to.
    pub stored_bytes: u64,
    /// Frames of a compressed object so far.
    pub frames: u64,
    /// Those of them that compression does not shrink and that are stored as they are.
    pub unshrunk_frames: u64,
    /// Bytes copied inside the engine on their way: all of `write_chunk`'s; of the copy-free ways
    /// in only what alignment or size forced through a part buffer.
    pub copied_bytes: u64,
    /// Parts handed to the backend so far.
    pub parts: u64,
    /// What the server proved about the bytes it took; `None` on media of this machine.
    pub proof: Option<Proof>,
    /// Whether the server keeps the condition of a create-only write, as it was seen to or is known to;
    /// `None` where none was asked for, and on media of this machine, which keep it always.
    pub create_only_held: Option<bool>,
}

impl WriteReport {
    /// `stored_bytes / bytes`; 1.0 where nothing was written.
    pub fn compression_ratio(&self) -> f64 {
        if self.bytes == 0 { 1.0 } else { self.stored_bytes as f64 / self.bytes as f64 }
    }
}

/// An unfinished upload found on the medium.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Orphan {
    /// Where it is. Not an object's URI: `get` and `list` never see it.
    pub uri: String,
    /// Bytes it takes.
    pub size_bytes: u64,
    /// When it was last written to, where the medium tells.
    pub modified: Option<SystemTime>,
}

/// What the medium asks of addresses, offsets and lengths. Powers of two; 1 where it asks nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alignment {
    pub memory_bytes: usize,
    pub offset_bytes: usize,
}

impl Alignment {
    pub const NONE: Alignment = Alignment { memory_bytes: 1, offset_bytes: 1 };

    /// Whether memory at `address` may be transferred to or from file offset `offset` as it is.
    pub fn admits(&self, address: usize, offset: u64) -> bool {
        address.is_multiple_of(self.memory_bytes) && offset.is_multiple_of(self.offset_bytes as u64)
    }
}

/// What an upload asks of the number and the sizes of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartLimits {
    /// Smallest part but the last, in bytes.
    pub bytes_min: usize,
    /// Largest part, in bytes.
    pub bytes_max: u64,
    /// Most parts.
    pub count_max: u64,
    /// Whether an object of at most one part goes by [`Upload::put_whole`].
    pub whole: bool,
}

impl PartLimits {
    pub const NONE: PartLimits =
        PartLimits { bytes_min: 1, bytes_max: u64::MAX, count_max: u64::MAX, whole: false };
}

/// How an upload is to be made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct UploadSpec {
    /// The caller's estimate of the object's size: space is set aside for it.
    pub size_hint_bytes: Option<u64>,
    /// Fail with `AlreadyExists` at commit if the object exists then.
    pub create_only: bool,
    /// The checksum every part will carry, where one is computed.
    pub algorithm: Option<Algorithm>,
    /// Others are written before this one is settled: however little is written begins its way to the disk.
    pub eager: bool,
}

/// One part as a backend sees it, while an I/O thread holds its memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartView<'a> {
    /// 0-based.
    pub index: u64,
    /// Offset of the part in the object, in bytes.
    pub offset: u64,
    /// The part, or its first piece.
    pub bytes: &'a [u8],
    /// The part's further pieces. Empty unless the upload's [`PartLimits`] made the part grow beyond a
    /// part buffer, so media without such limits need not look here.
    pub more: &'a [&'a [u8]],
    /// The part, followed by zeros up to the upload's offset alignment where the part is the last and
    /// unaligned. Backends without alignment find the same bytes here.
    pub bytes_padded: &'a [u8],
    /// The part's checksum, where one is computed.
    pub checksum: Option<Checksum>,
    /// The one that [`Upload::transport_checksum`] asked for, unless the other is of that algorithm.
    pub transport: Option<Checksum>,
}

impl PartView<'_> {
    /// Bytes of all pieces.
    pub fn total_bytes(&self) -> u64 {
        self.bytes.len() as u64 + self.more.iter().map(|piece| piece.len() as u64).sum::<u64>()
    }

    /// The receipt of a backend that took the part as it is.
    pub fn receipt(&self) -> Receipt {
        let PartView { index, offset, checksum, .. } = *self;
        Receipt { index, offset, bytes: self.total_bytes(), checksum }
    }
}

/// Proof that the backend took a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub index: u64,
    pub offset: u64,
    pub bytes: u64,
    pub checksum: Option<Checksum>,
}

/// A medium.
pub(crate) trait Backend: Send + Sync + fmt::Debug {
    /// The URI of the object with this key; for messages and listings.
    fn uri(&self, key: &str) -> String;

    /// What the object with this key is kept on, or would be. The default is that of servers: named as their
    /// scheme, durable once they have answered.
    fn medium(&self, key: &str) -> Result<Medium> {
        let uri = self.uri(key);
        let scheme = uri.split("://").next().unwrap_or_default();
        Ok(Medium::new(scheme, Durability::Promised))
    }

    /// The host of the server behind it, for reports of stalls; `None` where there is none, or it is not known.
    fn host(&self) -> Option<String> {
        None
    }

    /// Opens an upload. Nothing becomes visible.
    fn begin(&self, key: &str, spec: UploadSpec, deadline: &Deadline) -> Result<Arc<dyn Upload>>;

    /// Uploads that may be open at a time without taking what the rest of the process needs.
    fn uploads_max(&self) -> usize {
        usize::MAX
    }

    /// Opens an object for reading. `NotFound` if there is none.
    fn open(&self, key: &str, deadline: &Deadline) -> Result<Arc<dyn Source>>;

    /// Opens an object whose turn is to come, and lets the medium begin to read it. `None` where that gains
    /// nothing, which is the default, or where it fails: it is opened in its turn then.
    fn open_ahead(&self, key: &str, deadline: &Deadline) -> Option<Arc<dyn Source>> {
        let _ = (key, deadline);
        None
    }

    /// What is known of an object. `NotFound` if there is none.
    fn head(&self, key: &str, deadline: &Deadline) -> Result<ObjectMeta>;

    /// Walks the object `prefix` and all objects below `prefix/`, in the order of their keys or the server's;
    /// everything for the empty prefix. Nothing there is an empty walk.
    fn list(&self, prefix: &str) -> Box<dyn Walk>;

    /// Removes objects, durably, and tells how many there were. One that is not there is no error.
    fn delete(&self, keys: &[String], deadline: &Deadline) -> Result<u64>;

    /// Objects that one `delete` removes at a time: more are removed sooner by several side by side.
    fn deletes_at_once(&self) -> usize {
        usize::MAX
    }

    /// Removes what a prefix without objects leaves behind: empty directories. Nothing on object stores.
    fn clear_prefix(&self, prefix: &str, deadline: &Deadline) -> Result<()>;

    /// Unfinished uploads below `prefix`, of any process.
    fn orphans(&self, prefix: &str, deadline: &Deadline) -> Result<Vec<Orphan>>;

    /// Removes an unfinished upload found by `orphans`. One that is gone meanwhile is no error.
    fn delete_orphan(&self, key: &str, deadline: &Deadline) -> Result<()>;

    /// The first symbolic link by which one of these keys, all below `root`, lies outside of it. None on
    /// media without links.
    fn link_leaving(&self, root: &str, keys: &[String], _: &Deadline) -> Result<Option<String>> {
        let _ = (root, keys);
        Ok(None)
    }
}

/// A listing in progress.
pub(crate) trait Walk: Send {
    /// The next objects, at most about `LIST_PAGE_OBJECTS`; empty at the end.
    fn next_page(&mut self, deadline: &Deadline) -> Result<Vec<ObjectMeta>>;
}

/// An upload in progress.
pub(crate) trait Upload: Send + Sync + fmt::Debug {
    /// What parts must look like: all but the last have an offset and a length that are multiples of
    /// `offset_bytes`, and memory at a multiple of `memory_bytes`.
    fn alignment(&self) -> Alignment;

    /// How many parts of which sizes it takes.
    fn limits(&self) -> PartLimits {
        PartLimits::NONE
    }

    /// The algorithm of a checksum that parts must carry on their way to the server. It is computed in the
    /// same pass as the writer's.
    fn transport_checksum(&self) -> Option<Algorithm> {
        None
    }

    /// How bytes meet the medium.
    fn mode(&self) -> IoMode;

    /// What the server has shown so far; nothing on media of this machine.
    fn server(&self) -> ServerReport {
        ServerReport::default()
    }

    /// Takes a part. Idempotent.
    fn put_part(&self, part: &PartView<'_>, deadline: &Deadline) -> Result<Receipt>;

    /// Makes the bytes of all parts durable, `size_bytes` of them, under no name yet. Nothing where
    /// [`publish`](Upload::publish) does all.
    fn settle(&self, size_bytes: u64) -> Result<()> {
        let _ = size_bytes;
        Ok(())
    }

    /// Makes the object of these parts visible, once they are settled. Its name is durable when what is
    /// returned says so, or is made so. Calls `alive` whenever there is progress: the caller's patience is
    /// renewed.
    fn publish(
        &self,
        receipts: &[Receipt],
        size_bytes: u64,
        deadline: &Deadline,
        alive: &dyn Fn(),
    ) -> Result<Published>;

    /// Makes the object of these parts, `size_bytes` in all, visible and durable.
    fn commit(
        &self,
        receipts: &[Receipt],
        size_bytes: u64,
        deadline: &Deadline,
        alive: &dyn Fn(),
    ) -> Result<ObjectMeta> {
        self.settle(size_bytes)?;
        self.publish(receipts, size_bytes, deadline, alive)?.durably()
    }

    /// Makes an object of this one part visible and durable, in one step: instead of `put_part` and
    /// `commit`, where [`PartLimits::whole`] says so.
    fn put_whole(&self, part: &PartView<'_>, _: &Deadline) -> Result<ObjectMeta> {
        let what = format!("part {} cannot be an object by itself", part.index);
        Err(Error::new(ErrorKind::Unsupported, "commit", what))
    }

    /// Gives the upload up and removes what it left. Idempotent.
    fn abort(&self, deadline: &Deadline) -> Result<()>;
}

/// One version of an object, open for reading.
pub(crate) trait Source: Send + Sync + fmt::Debug {
    /// Bytes of the object.
    fn size_bytes(&self) -> u64;

    /// The checksum of the whole object, where the medium keeps one beside it.
    fn checksum(&self) -> Option<Checksum> {
        None
    }

    /// What addresses, offsets and lengths must look like in `read_at`.
    fn alignment(&self) -> Alignment;

    /// How bytes come from the medium.
    fn mode(&self) -> IoMode;

    /// Fills `buffer` from `offset`. Returns fewer bytes only at the object's end.
    fn read_at(&self, offset: u64, buffer: &mut [u8], deadline: &Deadline) -> Result<usize>;
}
