//! Syncline writes and reads checkpoints from programs that have no async runtime: MPI codes, simulation
//! loops, C and Fortran hosts, Python under the GIL. Calls block; dedicated I/O threads work behind them.
//! Every byte is checksummed once on its way, and a save is whole or absent.
//!
//! ```
//! # fn main() -> syncline::Result<()> {
//! # let checkpoint_data = b"the state of a rank".as_slice();
//! use syncline::checkpoint::CheckpointStore;
//! use syncline::Timestamp;
//!
//! let checkpoints = CheckpointStore::open("mem://example")?;
//! let layout = checkpoints.layout(100, Timestamp::now()); // one name for all ranks
//! let checkpoint_writer = checkpoints.writer(1, 0)?; // world size, rank
//!
//! let (mut shard_writer, key) = checkpoint_writer.get_shard_writer(&layout)?;
//! shard_writer.write_chunk(checkpoint_data)?;
//! let shard_meta = checkpoint_writer.finalize_writer_to_shard_meta(&layout, key, shard_writer)?;
//! // shard_meta.checksum now contains the computed checksum
//! assert!(shard_meta.checksum.as_deref().is_some_and(|sum| sum.starts_with("crc32c:")));
//!
//! checkpoint_writer.finalize_checkpoint(&layout, "example", 0, vec![shard_meta], None)?;
//! assert_eq!(checkpoints.load_latest()?.as_deref(), Some(checkpoint_data));
//! # Ok(())
//! # }
//! ```
//!
//! Where to begin: [`store_for_uri`] opens a store; [`ObjectStore`] and [`ObjectWriter`] are what it
//! offers; [`checkpoint`] puts many objects and one manifest together; [`Config`] has the settings.
//!
//! # The way of the bytes
//!
//! ```text
//! producer --> part buffer --> CRC32C --> bounded queue --> I/O thread --> backend: put part
//! (caller)     (pool, aligned)  (inline)   (backpressure)    (blocking)         |
//!    ^                                                                          v
//!    +---- finalize: receipts, combined CRC proven, atomic commit <---- receipt {part, crc}
//! ```
//!
//! One direction, one pass. A part is hashed on the producer's side, while its bytes are in the cache;
//! the object's checksum is the combination of its parts', compared once more before the commit.
//!
//! | way in | copies |
//! |---|---|
//! | [`write_chunk`](ObjectWriter::write_chunk) | one, fused with the checksum |
//! | [`write_owned`](ObjectWriter::write_owned) | none for large aligned pieces; a memory map is such a piece |
//! | [`reserve`](ObjectWriter::reserve), [`commit`](ObjectWriter::commit) | none: the caller fills the part buffer |
//! | [`write_borrowed`](ObjectWriter::write_borrowed) | none: I/O threads read the caller's memory while the call lasts |
//! | [`put_many`](ObjectStore::put_many) | none: I/O threads hash and write small objects from the caller's memory |
//!
//! On `direct://`, "none" holds where address and file offset meet the device's alignment together;
//! [`AlignedVec`] does from offset 0 on. [`WriteReport::copied_bytes`] counts the rest.
//!
//! # The code, in the order of the flow
//!
//! ```text
//! L0  error  limits  time  sync  config/      what everything stands on
//! L1  encode/      crc, blocks                checksums; pure
//!                  zstd, seek_table, shuffle  compressed frames; pure
//!     buffer/      aligned, pool, part, loan  memory for bytes on their way
//! L2  backend/     the contract; memory, file, direct (posix/ is what these two share), s3/, azure/
//!     backend/http/   what the last two share: requests and answers, the one HTTP agent, retries,
//!                     ranged reads, the cache of credentials
//! L3  engine/      threads, queue, tickets, reading of pieces, sweeps; compute: threads that compress
//!     writer/      the one writer, the stage above it that compresses; many: small objects in windows
//!     reader/      parallel, verified reads; frames: of compressed objects; many: small ones
//!     uri          names                      store/  what users see; opens a backend by scheme
//! L4  checkpoint/  layout, manifest, save, restore, good (which to restart from), copy, verify, quick,
//!                  catalog, prune, gc; content and frames: shards as they are, and compressed; many: small ones together
//! L5  cli/         the command `syncline` (feature `cli`), on the public API alone
//!     fuzzing      what must hold of any input (`fuzz/`); compiled for fuzzing and for tests
//! ```
//!
//! # Invariants
//!
//! Held by `tests/tidy.rs` and the dependency gate.
//!
//! Invariant: no async runtime is in the normal dependency tree.
//! Invariant: a file imports its own layer or a lower one; there is no circle.
//! Invariant: backends spawn no threads and own no channels.
//! Invariant: a backend neither compresses nor reports progress; what is tried again is decided in
//! `backend/http/retry.rs` alone.
//! Invariant: only `backend/http/agent.rs` and `wire.rs` beside it name the HTTP crate.
//! Invariant: `checkpoint/` knows no URI scheme and no concrete backend.
//! Invariant: only `config/env.rs` reads the environment; only `sync.rs` touches threads, locks and channels.
//! Invariant: `unsafe` stands in `buffer/loan.rs` and `backend/posix/writeback.rs` alone; Miri runs the first,
//! and the second is one foreign call.
//! Invariant: there is no process-wide state but the weak map behind [`store_for_uri`].
//!
//! # Guarantees
//!
#![doc = include_str!("guarantees.md")]
//!
//! Assumed of a local filesystem: `fdatasync` and `fsync` return after the data is on stable storage and report a
//! failed write (the object whose sync failed is given up, and its sync is not tried again); a directory whose sync
//! failed fails the next one too, as with a journal that was aborted; a rename is atomic, and durable after the `fsync`
//! of its directory; a read that starts after a write ended sees it. Of a server: that it keeps what it has
//! answered for, and lists it from then on.
//!
//! Not promised: NFS, Lustre, GPFS, Ceph, CIFS, FUSE (gcsfuse, s3fs) and whatever else is no local filesystem known to
//! hold these. The kernel tells which it is (statfs): [`ObjectStore::medium`] says so, a store warns when it is
//! first written to there, and the command line tells before it saves. In ordinary running all of the above
//! may well hold on them; after a power cut, or for a reader on another machine, it is theirs to keep. On memory
//! filesystems (tmpfs) a checkpoint survives the process and not the machine. Disks that lie about flushes are
//! found by nobody.
//!
//! # Memory, waiting, failing
//!
//! A store's part buffers take at most `(queue_depth_parts + io_threads + open_writers_max) * part_bytes`
//! ([`Config::memory_bytes_max`]): a bound, not a target; buffers are made when first needed. A writer
//! is admitted or refused when it opens, or waits for its turn ([`ConfigBuilder::writers_wait`]). It holds at
//! most one buffer that no thread is working on, so waiting for a buffer cannot deadlock. (A part grown beyond one buffer, on media that limit the number of
//! parts, takes all of its own at once. One thread that fills several such objects in turn may wait for
//! itself until the timeout: a size hint or more memory spares it that.) `get` returns memory of its own
//! beyond that.
//!
//! Every call gives up after [`Config::timeout`] without progress of its own, and its error says which
//! thread has been in what for how long. Who waits for room in the queue, in it, or for a buffer, waits in the
//! order of coming, and while those ahead get theirs that is progress too: so a slow medium fails no healthy
//! writer, however many there are, and nobody waits longer than one timeout for each one ahead. (The commit's
//! sync has one timeout.) Borrowed memory is the exception that safety demands: `write_borrowed`, `read_into` and `put_many` return only when no thread can touch the
//! memory any more; jobs still queued are withdrawn, and a system call in progress is waited out and logged.
//!
//! A writer's first error latches: later calls return it again, and `finalize` never succeeds after it.
//! A panic in an I/O thread is the outcome of that job, and the pool lives on. Shutdown is drop order.
//! Nothing is retried on a local disk: after a failed sync the kernel may have dropped the data.
//!
//! # A host that forks
//!
//! Threads do not follow into the child of a fork, and a lock that one of them held stays held there. So a store
//! whose threads have started belongs to the process that started them: in a child each of its calls is refused
//! with `Unsupported`, which names the fork, and a writer's at the latest when it needs its next buffer. None
//! waits for a lock of the parent's. What the child drops or cancels is the parent's as before: its upload goes
//! on, its temporary file stays, its connections are not shut. [`store_for_uri`] gives the child stores of its
//! own. A store that nobody has used yet may be used by either.
//!
//! # Many small objects
//!
//! One small object on a disk is a few system calls and three waits: for its data, for the journal, for its
//! directory. [`ObjectStore::put_many`] takes each step for a window of objects before the next: all are
//! created and written, and their writeback is begun; all are synced; all get their names; each directory is
//! synced once; then the call returns. So many share a commit of the journal. A window has at most 512 objects,
//! 128 MiB, and no two objects of one name, and the objects under way of all windows of a store are
//! at most a quarter of the process's descriptors, of which each takes two at most; a window takes half of what the
//! others have left, and one at the least. Of a medium that answers nothing no further window is asked. Each object is whole or
//! absent for itself, and the call tells of each what became of it. The policy stands in `writer/many.rs`,
//! once for all media: a backend gives the steps (`Upload::settle`, `Upload::publish`, `Names::sync`), and its
//! `commit` is these. Servers take a small object whole, so there the requests go out side by side.
//! [`ObjectStore::get_many`] reads alike: one thread opens, reads and compares an object in one go.
//! [`put_shards`](checkpoint::CheckpointStore::put_shards),
//! [`write_receipts`](checkpoint::CheckpointStore::write_receipts) and
//! [`read_shards`](checkpoint::Reader::read_shards) do so for the ranks of a checkpoint.
//!
//! Such work is a *sweep* of the engine: a job for each I/O thread, which takes one object after the other
//! until none is left. Handing over each object by itself would wake two threads for each.
//!
//! # Compression
//!
//! [`WriteOptions::compression`] puts a stage above the writer; a checkpoint's shards get it by
//! [`with_compression`](checkpoint::CheckpointStore::with_compression). The object is a row of zstd frames of
//! [`Config::frame_bytes`] raw bytes each, every one for itself, and a seek table behind them: `zstd -d` opens
//! it, and ranges are read without the rest. Frames are cut at fixed places of the raw bytes, so equal data
//! gives equal objects. Threads that compute, not those that wait for the medium, compress several at a time;
//! the caller's thread hands them on in order. Beside the part buffers this takes at most
//! [`Config::compression_bytes_max`]. `checksum()` is of the raw bytes and [`ObjectMeta::checksum`] of what is
//! stored; both are checked on the way back.
//!
//! Numbers of simulations often do not shrink. Pieces of each frame are tried first, and a frame that shows
//! nothing to gain is stored as raw zstd blocks, which takes copies and a hash alone; every sixteenth frame is tried as a
//! whole all the same, since pieces do not show what repeats at a distance. [`WriteReport::unshrunk_frames`]
//! counts them. A byte shuffle before the compressor ([`Filter`]) often helps arrays of numbers.
//!
//! # Keeping house
//!
//! A manifest is a stranger's word until checked: sizes, counts and keys are bounded before they are used,
//! and a key that leads out of the base by a symbolic link is neither read nor removed
//! ([`ObjectStore::link_leaving`]). A prune removes nothing before it has read one checkpoint and found it
//! good, and never the newest of these. A gc takes what was written since the newest complete checkpoint for
//! a running save. So both may run beside one.
//!
//! # Servers
//!
//! A request is tried again where that can help ([`HttpConfig::attempts_max`], pauses with full jitter,
//! `Retry-After`), and a server that asks for less slows the store as a whole. A connection that stands
//! still is given up after [`HttpConfig::response_timeout`], a request with all its attempts after
//! [`Config::timeout`]. Where the reply to a commit is lost, a random number in the object's metadata
//! tells our object from another's.
//!
//! A server is a stranger too: what it sends beside an object's content is bounded in bytes and in time,
//! sizes and ranges are compared, redirects to other hosts are not followed, and nothing that could authorize
//! a request gets into an error or a log. (At level trace the HTTP crate logs what it receives: among it are the
//! answers of services that hand out credentials.)
//!
//! Every part carries the writer's checksum in a header, computed before the request is sent; a server
//! that verifies it repeats it, and the object's own, combined from the parts', is compared after the
//! commit. Servers that repeat nothing get payloads signed with SHA-256 instead. [`WriteReport::proof`]
//! says which of it an object has ([`Proof`], [`S3Integrity`]). Create-only writes are conditional
//! (`If-None-Match: *`); whether a server keeps the condition is tried once per store, and
//! [`CreateOnlyPolicy`] says what follows if it does not.
//!
//! On Azure it is the CRC-64 of each block ([`AzureIntegrity`]), computed in the same pass as the writer's
//! checksum, which is kept in the blob's metadata. A checksum of a block list covers the list alone, so
//! the assembled blob is proven by its blocks and their order.
//!
//! On S3 a part has at least 5 MiB and an upload at most 10,000 of them: a smaller
//! [`part_bytes`](ConfigBuilder::part_bytes) is raised, and parts grow with the object, or from the start
//! where [`WriteOptions::size_hint_bytes`] tells the size, as far as the memory bound carries them.
//!
//! # What is better found than planned
//!
//! * A backend reads through an opened `backend::Source`, not by key and offset: pieces of one read must
//!   not mix two versions of an object that is replaced meanwhile, and a file is opened once.
//! * Page-aligned memory comes from anonymous maps (memmap2) with huge pages advised, not from an
//!   over-aligned allocation: no unsafe, and touching fresh memory costs a fraction.
//! * `file://` starts writeback part by part (`sync_file_range`). Plain writes leave all of it to the
//!   final fdatasync; overlapping it makes the save 1.1 to 1.5 times as fast where it was measured
//!   (`benches/record/`). Threads take turns at the page cache of one file, which the kernel would make
//!   them do anyhow, spinning.
//! * `list` and `delete_prefix` go by whole path segments: `runs/1` never takes `runs/10` with it.
//! * The default policy of `direct://` is to prefer O_DIRECT, and the report says what ran: a save that
//!   works beats one that refuses. Benchmarks and strict users say require.
//! * The pool that works on many shards at a time belongs to the `CheckpointStore` that uses it, not to an
//!   engine: `checkpoint/` sees any [`ObjectStore`], also one of other make, and no engine.
//! * The CRC of a concatenation is combined by tables made by the compiler, not by the crate that
//!   computes the CRC, whose general routine costs more per part than all the rest of the engine.
//! * A body goes from the part to the socket without a copy in between: a connection of ours inside ureq
//!   recognises its own output buffer when ureq hands it to the body's reader, and sends from the part
//!   instead (`backend/http/handover.rs`). The body of an answer goes from the socket into the caller's memory
//!   in the same spirit: ureq is shown a head whose body is one byte long (`backend/http/past.rs`). TLS, chunked
//!   bodies and anything else are copied as ever.
//! * io_uring is left out. A ring of depth 4, also with registered memory and files, writes and reads at 0.8 to
//!   1.0 of the plain loop past the page cache and through it (`benches/record/*-compare.md`): whole parts of
//!   8 MiB keep the device busy already, and it saves 3 to 5 ms of the processor for each GB.
//! * On servers the checksum stands before the part, in a header. Hashed piece by piece just before it is sent, and
//!   told behind it in a trailer, it would cost a twentieth less (the socket loop "CRC32C behind" in the same record), and
//!   servers that do not know trailers take the framing for data.
//! * rust-s3 gives the derivation of signing keys and the percent-encoding. Its canonical requests sort
//!   whole header lines and normalise paths, its credentials cannot be refreshed once for all threads,
//!   and its document types refuse answers that lack optional fields: those are ours.
//! * A small object is opened by one request that asks for its first bytes, not by two.
//! * The number of a multipart upload is drawn with the first part, not at `get_writer`: what turns out
//!   small is one PutObject.
//! * A frame of a compressed object has 8 MiB, not 4, where parts have: independent frames of 4 MiB cost 2 %
//!   of what zstd saves on text, those of 8 MiB 0.7 %.
//! * Of zeekstd only the seek table is used: its encoder compresses one frame after the other.
//! * A writer that compresses holds two frame buffers of its own and takes more from a stock that nobody
//!   waits for. One budget with turns, as parts have it, would let writers filled in turn wait for each other.
//! * `put_many` returns an outcome for each object rather than one for all: whoever saves ten thousand shards
//!   wants to know which to send again. Of objects of one name the last counts, as of single puts: a window
//!   ends where a name comes again.
//! * Small objects go past the page cache under `direct://` as large ones do, as the user asked: of 64 KiB it was
//!   one to three times as fast to write as `file://` in most runs, and never much slower.
//! * The syncs and the renames of a window are two steps and not one: a rename right after a sync dirties the
//!   journal that the next sync would find committed.
//! * Files are removed by several threads, 64 at a time each: a removal may wait for the journal. On one disk
//!   a finalizer of 10,000 ranks took 1.3 s while the disk was idle and 18 to 27 s beside other work; with
//!   threads that wait together it took 2 to 3.5 s beside other work.
//! * rustix has `statx`, which nix lacks; libc has `sync_file_range`, which both lack. All else is nix's.

#![deny(clippy::disallowed_macros)]

#[cfg(not(target_os = "linux"))]
compile_error!("syncline runs on Linux only: it is built on O_DIRECT, statx and renameat2");

mod backend;
mod buffer;
pub mod checkpoint;
mod config;
mod encode;
mod engine;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod limits;
mod reader;
mod store;
mod sync;
mod time;
mod uri;
#[cfg(test)]
#[path = "../tests/support/watch.rs"]
mod watch;
mod writer;

#[cfg(test)]
use watch::figures;

pub use backend::{Durability, IoMode, Medium, ObjectMeta, Orphan, Proof, WriteReport};
pub use buffer::AlignedVec;
pub use bytes::Bytes;
pub use config::{
    AzureConfig, AzureIntegrity, Config, ConfigBuilder, CreateOnlyPolicy, DirectPolicy, HttpConfig,
    S3Config, S3Integrity, parse_bytes,
};
pub use encode::{Algorithm, BlockChecksums, Checksum, Compression, Filter, Hasher, Zstd};
pub use error::{Error, ErrorKind, Result};
pub use store::{
    AzureBufferedWriter, BrokenFrame, BufferedObjectWriter, ChecksumChoice, CompressedForm,
    DirectIOWriter, FileSystemWriter, FrameScan, ObjectList, ObjectStore, ObjectWriter, ReadReport,
    S3BufferedWriter, ScanOptions, WriteOptions, open_store, store_for_uri,
};
pub use time::Timestamp;

/// The README's program is a doc test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
