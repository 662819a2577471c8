//! Bounds and defaults: one name, one unit, one source each.

use std::time::Duration;

/// Bytes of a part buffer and of a checksum block, unless configured: large enough that a disk or a
/// server is busy with one, small enough that four in flight fit a node's spare memory.
pub const PART_BYTES_DEFAULT: usize = 8 * MIB;

/// Smallest part a user may configure: below, per-part costs outweigh the transfer.
pub const PART_BYTES_MIN: usize = 64 * 1024;

/// Largest part a user may configure.
pub const PART_BYTES_MAX: usize = 1024 * MIB;

/// Part sizes are multiples of this, so that every part of an O_DIRECT file starts aligned.
/// Source: the page size of x86-64, and the largest logical block size of disks in use.
pub const PART_BYTES_MULTIPLE: usize = 4096;

/// I/O threads per store on local media, unless configured.
pub const IO_THREADS_DEFAULT: usize = 4;

/// I/O threads per store on a server, unless configured. A connection carries so much and no more (Amazon
/// says 85 to 90 MB/s, "Performance design patterns for Amazon S3"), and waits a while for each answer.
pub const IO_THREADS_DEFAULT_SERVER: usize = 16;

/// Most I/O threads per store.
pub const IO_THREADS_MAX: usize = 1024;

/// Parts that may wait for an I/O thread, unless configured.
pub const QUEUE_DEPTH_PARTS_DEFAULT: usize = 4;

/// Most parts that may wait for an I/O thread.
pub const QUEUE_DEPTH_PARTS_MAX: usize = 65_536;

/// Writers open at a time, unless configured. Each holds one part buffer.
pub const OPEN_WRITERS_DEFAULT: usize = 32;

/// Most writers open at a time.
pub const OPEN_WRITERS_MAX: usize = 1_000_000;

/// Seconds without progress after which a call gives up, unless configured.
pub const TIMEOUT_SECS_DEFAULT: u64 = 300;

/// Seconds a closing engine waits for its threads before it detaches them, unless configured.
pub const SHUTDOWN_TIMEOUT_SECS_DEFAULT: u64 = 30;

/// Longest wait for a connection, unless configured.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Longest time a connection may stand still before the request is tried again, unless configured.
pub const RESPONSE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// How often a request is tried, unless configured: with full jitter and the pauses below some twenty
/// seconds, by chance also half of that or twice as much.
pub const ATTEMPTS_DEFAULT: u32 = 10;

/// How often a server is tried that this store has never reached: a wrong address is told soon.
pub const ATTEMPTS_FIRST_CONTACT: u32 = 3;

/// How many times as often a request is tried that the server answers by asking for less: of ten thousand
/// ranks that save at one moment some would use up ten attempts, and one lost rank is a lost save
/// (`benches/SCALING.md`).
pub const THROTTLED_ATTEMPTS_FACTOR: u32 = 2;

/// Upper bound of the pause before the second attempt; doubles with each.
pub const RETRY_PAUSE_FIRST: Duration = Duration::from_millis(100);

/// Upper bound of every pause between attempts.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(20);

/// Upper bound of every pause before a server that was reached before is connected to again.
pub const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(5);

/// First interval between the starts of a throttled store's requests; doubles with each such answer.
pub const PACE_FIRST: Duration = Duration::from_millis(20);

/// Largest interval between the starts of a throttled store's requests.
pub const PACE_MAX: Duration = Duration::from_secs(2);

/// Smallest part of a multipart upload but the last.
/// Source: Amazon S3 user guide, "Amazon S3 multipart upload limits".
pub const S3_PART_BYTES_MIN: usize = 5 * MIB;

/// Largest part of a multipart upload. Source: as above.
pub const S3_PART_BYTES_MAX: u64 = 5 * 1024 * MIB as u64;

/// Most parts of a multipart upload. Source: as above.
pub const S3_PARTS_MAX: u64 = 10_000;

/// Most keys of one DeleteObjects request, and of one page of a listing.
/// Source: Amazon S3 API reference, DeleteObjects and ListObjectsV2.
pub const S3_KEYS_PER_REQUEST_MAX: usize = 1000;

/// Largest block of a blob. Source: Blob service REST API, "Put Block": 4,000 MiB since version 2019-12-12.
pub const AZURE_BLOCK_BYTES_MAX: u64 = 4000 * MIB as u64;

/// Most blocks of a blob. Source: Blob service REST API, "Put Block List".
pub const AZURE_BLOCKS_MAX: u64 = 50_000;

/// Smallest block that is made but the last, where a part buffer holds as much. The service takes any, but
/// counts them: less is copied into larger ones. Source: "Scalability and performance targets for Blob
/// storage": blocks of 4 MiB and more are of high throughput.
pub const AZURE_BLOCK_BYTES_PREFERRED_MIN: usize = 4 * MIB;

/// Most names of one page of a listing. Source: Blob service REST API, "List Blobs".
pub const AZURE_KEYS_PER_REQUEST_MAX: usize = 5000;

/// Longest name of a blob, in characters, and most segments of it. Source: Blob service REST API, "Naming
/// and referencing containers, blobs, and metadata".
pub const AZURE_KEY_CHARS_MAX: usize = 1024;
pub const AZURE_KEY_SEGMENTS_MAX: usize = 254;

/// Bytes asked for when an object is opened: what fits is read by that one request.
pub const READ_AHEAD_BYTES: usize = 64 * 1024;

/// Largest answer that is not an object's data: a page of 1,000 keys of 1,024 escaped bytes fits.
pub const ANSWER_BYTES_MAX: usize = 16 * MIB;

/// Bytes of an error's answer that are kept: its code and message are at the start.
pub const ERROR_ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Bytes that the head of an answer usually keeps below.
pub const ANSWER_HEAD_BYTES_USUAL: usize = 4 * 1024;

/// Largest head of an answer. Source: S3 and Azure bound metadata to 8 KiB; the rest is the server's.
pub const ANSWER_HEAD_BYTES_MAX: usize = 64 * 1024;

/// Age at which an idle connection is used no more: servers and the devices between close them after
/// 30 s and more.
pub const IDLE_CONNECTION_AGE_MAX: Duration = Duration::from_secs(20);

/// Bytes offered to a connection at a time: more than a socket takes at once, so that the kernel says how
/// much is sent. Smaller steps cost up to a fifth more time of the processor.
pub const SEND_STEP_BYTES: usize = 16 * MIB;

/// Bytes taken from a connection at a time: fits the second-level cache beside the target.
pub const RECEIVE_STEP_BYTES: usize = 128 * 1024;

/// Bytes copied and hashed at a time: fits the second-level cache beside its source.
pub const HASH_STEP_BYTES: usize = 64 * 1024;

/// Most checksum blocks of one object; above, neighbours are merged and the block doubles.
pub const CHECKSUM_BLOCKS_MAX: usize = 1024;

/// Raw bytes of a frame of a compressed object: a part's, within these bounds. Smaller ones lose more than a
/// hundredth of what zstd saves, larger ones take memory and leave threads without work.
pub const FRAME_BYTES_MIN: usize = 4 * MIB;

/// Largest frame that is written or read: it bounds the memory of reading what a manifest names.
pub const FRAME_BYTES_MAX: usize = 16 * MIB;

/// Least raw bytes for each entry of a seek table, so that a table is small beside its object.
pub const FRAME_BYTES_PER_ENTRY_MIN: u64 = 64 * 1024;

/// Most raw bytes for each stored byte of zstd: what a manifest claims beyond that is forged.
/// Source: RFC 8878: a block yields at most 128 KiB, and an RLE block takes four bytes.
pub const ZSTD_RATIO_MAX: u64 = 32 * 1024;

/// Memory of removed objects that a `mem://` store keeps for the next ones.
pub const MEMORY_SPARE_BYTES_MAX: usize = 256 * MIB;

/// Smallest piece of it: less costs little to ask the kernel for.
pub const MEMORY_SPARE_BYTES_MIN: usize = 64 * 1024;

/// O_DIRECT alignment tried where the kernel does not tell one (no `STATX_DIOALIGN` in the mask).
/// Source: the largest logical block size of disks in use.
pub const DIRECT_ALIGN_UNPROVEN_BYTES: usize = 4096;

/// Smallest size hint for which space is set aside: less is one write, which allocates as well.
pub const PREALLOCATE_BYTES_MIN: u64 = MIB as u64;

/// Smallest part whose writeback is started at once: less is left to the commit's sync.
pub const WRITEBACK_BYTES_MIN: usize = MIB;

/// First step by which a file of unknown size is extended ahead of its writes; doubles up to the maximum.
pub const PREALLOCATE_STEP_BYTES_MIN: u64 = 64 * MIB as u64;

/// Largest step by which a file of unknown size is extended ahead of its writes.
pub const PREALLOCATE_STEP_BYTES_MAX: u64 = 1024 * MIB as u64;

/// Smallest piece of the caller's memory handed to an I/O thread as it is; less is cheaper to copy.
pub const HANDOVER_BYTES_MIN: usize = 64 * 1024;

/// Receipts and read outcomes room is set aside for; more are made room for as they come.
pub const RECEIPTS_EXPECTED: usize = 1024;

/// Longest that cancelling an upload waits for its parts under way, and then for its removal.
pub const ABORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest name of a file or directory. Source: NAME_MAX in linux/limits.h.
pub const NAME_BYTES_MAX: usize = 255;

/// Objects asked of a backend at a time when listing.
pub const LIST_PAGE_OBJECTS: usize = 1000;

/// Largest manifest read: 10 million shards at about 200 bytes each fit.
pub const MANIFEST_BYTES_MAX: u64 = 4096 * MIB as u64;

/// Largest object that is believed: a file's offsets end here. With it, sums of an offset and a part do not
/// overflow.
pub const OBJECT_BYTES_MAX: u64 = i64::MAX as u64;

/// Largest receipt read. A receipt carries one shard: about 10 KiB with 1,024 block checksums.
pub const RECEIPT_BYTES_MAX: u64 = MIB as u64;

/// Largest `latest.json` read.
pub const LATEST_BYTES_MAX: u64 = 64 * 1024;

/// Most ranks of one checkpoint, so that a forged world size cannot ask for unbounded memory.
pub const WORLD_SIZE_MAX: u32 = 16_777_216;

/// Longest key of a shard that a manifest may name. Source: S3, "object key names", 1,024 bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 1024;

/// Least number of threads that wait on the many objects of a checkpoint; more where the store has more
/// I/O threads. They wait rather than compute. What they ask of one object after the other goes through the
/// I/O threads all the same, whose number bounds it.
pub const CHECKPOINT_THREADS_MIN: usize = 16;

/// Longest pause, in milliseconds, between two looks for missing receipts.
pub const RECEIPT_POLL_MS_MAX: u64 = 500;

/// Most small objects of one window of a batch: enough that a journal's commits and a directory's syncs are
/// shared by many, and few beside the descriptors of a process.
pub const BATCH_OBJECTS_MAX: usize = 512;

/// Most bytes of one window of a batch: what is not yet on the disk when the window's syncs begin.
pub const BATCH_BYTES_MAX: usize = 128 * MIB;

/// Files that one thread removes before it syncs their directories: so few that the threads share the work of a
/// listing's page. A removal waits for the journal and for discarded blocks, and many can wait together.
pub const DELETES_AT_ONCE: usize = 64;

/// Descriptors that a process may have, where the kernel does not say. Source: the default soft limit.
pub const DESCRIPTORS_ASSUMED: u64 = 1024;

/// Directories a backend remembers as durable before it forgets them all and asks the disk again.
pub const DURABLE_DIRECTORIES_MAX: usize = 65_536;

const MIB: usize = 1024 * 1024;

const _: () = assert!(PART_BYTES_MIN.is_multiple_of(PART_BYTES_MULTIPLE));
const _: () = assert!(PART_BYTES_MAX.is_multiple_of(PART_BYTES_MULTIPLE));
const _: () = assert!(PART_BYTES_DEFAULT.is_multiple_of(PART_BYTES_MULTIPLE));
const _: () = assert!(PART_BYTES_MULTIPLE.is_multiple_of(DIRECT_ALIGN_UNPROVEN_BYTES));
const _: () = assert!(PART_BYTES_MIN <= PART_BYTES_DEFAULT && PART_BYTES_DEFAULT <= PART_BYTES_MAX);
const _: () = assert!(HASH_STEP_BYTES <= PART_BYTES_MIN);
