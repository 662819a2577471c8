//! What users see: the traits [`ObjectStore`] and [`ObjectWriter`], and the one place that opens a
//! backend by its scheme.

mod compressed;
#[cfg(test)]
mod compressed_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod limit_tests;
mod many;
mod named;
mod open;
mod options;
#[cfg(all(test, shuttle))]
mod schedules;

use std::io;
use std::time::Duration;

use bytes::Bytes;

use crate::backend::{Medium, ObjectMeta, Orphan, WriteReport};
use crate::config::Config;
use crate::encode::{BlockChecksums, Compression, Filter};
use crate::error::{ErrorKind, Result};

pub use compressed::{BrokenFrame, CompressedForm, FrameScan, ScanOptions};
pub use named::{
    AzureBufferedWriter, BufferedObjectWriter, DirectIOWriter, FileSystemWriter, S3BufferedWriter,
};
#[cfg(test)]
pub(crate) use open::Store;
pub use open::{open_store, store_for_uri};
pub use options::{ChecksumChoice, WriteOptions};

/// What one read did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadReport {
    /// How bytes came from the medium.
    pub mode: crate::IoMode,
    /// Bytes read into the caller's memory.
    pub bytes: u64,
    /// Bytes that alignment forced through a part buffer.
    pub copied_bytes: u64,
}

/// A place that holds objects. Objects are named by full URIs below the store's scheme and authority.
///
/// Object safe, shared by reference between threads. All calls block; each gives up after
/// [`Config::timeout`] without progress. Opened by [`store_for_uri`](crate::store_for_uri).
pub trait ObjectStore: Send + Sync {
    /// A writer for the object, replacing it at `finalize` if it exists.
    ///
    /// # Errors
    /// `LimitExceeded` if [`Config::open_writers_max`] writers are open, or a bound on memory does not carry
    /// the compression asked for; `TimedOut` if writers [wait](Config::writers_wait) for each other and none was
    /// closed for one timeout; `InvalidInput` for a URI that is not an object of this store; what the medium
    /// reports.
    fn get_writer(&self, uri: &str) -> Result<Box<dyn ObjectWriter>> {
        self.get_writer_with(uri, WriteOptions::default())
    }

    /// A writer with options.
    ///
    /// # Errors
    /// As [`get_writer`](ObjectStore::get_writer).
    fn get_writer_with(&self, uri: &str, options: WriteOptions) -> Result<Box<dyn ObjectWriter>>;

    /// Writes a whole object, without copying `data` where the medium admits it.
    ///
    /// # Errors
    /// As [`put_with`](ObjectStore::put_with).
    fn put(&self, uri: &str, data: &[u8]) -> Result<ObjectMeta> {
        self.put_with(uri, data, WriteOptions::default())
    }

    /// Writes a whole object with options.
    ///
    /// # Errors
    /// As a writer's methods. On an error nothing of the object is visible and an earlier one is intact,
    /// unless the error says that the state is unknown.
    fn put_with(&self, uri: &str, data: &[u8], options: WriteOptions) -> Result<ObjectMeta> {
        let hint = options.size_hint_bytes.unwrap_or(data.len() as u64);
        let mut writer = self.get_writer_with(uri, options.size_hint_bytes(hint))?;
        writer.write_borrowed(data)?;
        writer.finalize()
    }

    /// Writes many whole objects, each as [`put_with`](ObjectStore::put_with) would, and tells in their order what
    /// became of each: one that fails takes no other with it, unless the medium has answered nothing for half a
    /// timeout; then what was not begun fails with `TimedOut`. When the call returns, those that are told to be
    /// there are durable. Objects of one name are written one after the other.
    ///
    /// Objects of at most [`Config::part_bytes`] that are not compressed are written in windows: the bytes of
    /// all of a window are synced side by side, then all get their names, then each directory is synced once. On
    /// a disk that is several times as fast as one after the other. On servers the requests go out side by side.
    ///
    /// ```
    /// # fn main() -> syncline::Result<()> {
    /// use syncline::{ObjectStore, WriteOptions};
    ///
    /// let store = syncline::store_for_uri("mem://batch")?;
    /// let objects = [("mem://batch/a", b"1".as_slice()), ("mem://batch/b", b"2".as_slice())];
    /// for written in store.put_many(&objects, WriteOptions::default()) {
    ///     written?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// For each object as [`put_with`](ObjectStore::put_with).
    fn put_many(
        &self,
        objects: &[(&str, &[u8])],
        options: WriteOptions,
    ) -> Vec<Result<ObjectMeta>> {
        let put = |(uri, data): &(&str, &[u8])| self.put_with(uri, data, options.clone());
        objects.iter().map(put).collect()
    }

    /// Many whole objects, each compared with its checksum (such as `"crc32c:e3069283"`) where one is given,
    /// side by side. In their order; one that fails takes no other with it, unless the medium has answered nothing
    /// for half a timeout; then what was not begun fails with `TimedOut`. All of them are in memory when the call
    /// returns: of many, ask for some at a time.
    ///
    /// # Errors
    /// For each object as [`get`](ObjectStore::get) and
    /// [`get_with_validation`](ObjectStore::get_with_validation).
    fn get_many(&self, objects: &[(&str, Option<&str>)]) -> Vec<Result<Bytes>> {
        let get = |(uri, expected): &(&str, Option<&str>)| match expected {
            Some(expected) => self.get_with_validation(uri, expected),
            None => self.get(uri),
        };
        objects.iter().map(get).collect()
    }

    /// The whole object, in memory of its own. `read_into` avoids the cost of fresh memory. Where the
    /// medium keeps the checksum that its writer computed (Azure), a read of the whole is compared with it.
    ///
    /// # Errors
    /// `NotFound` if there is none; `ChecksumMismatch` where it is known; what the medium reports.
    fn get(&self, uri: &str) -> Result<Bytes>;

    /// The bytes of the object from `offset`: `length` of them, or up to the end.
    ///
    /// # Errors
    /// As [`get`](ObjectStore::get); `InvalidInput` if the range does not lie within the object.
    fn get_range(&self, uri: &str, offset: u64, length: Option<u64>) -> Result<Bytes>;

    /// Fills `buffer` with the object's bytes from `offset`, in parallel, without copying where the
    /// medium admits it (see [`AlignedVec`](crate::AlignedVec)).
    ///
    /// # Errors
    /// As [`get_range`](ObjectStore::get_range). The contents of `buffer` are then unspecified.
    fn read_into(&self, uri: &str, offset: u64, buffer: &mut [u8]) -> Result<ReadReport>;

    /// As [`read_into`](ObjectStore::read_into), verifying every block against `expected` as it
    /// arrives. `offset` must be the start of a block, and `buffer` must end where a block or the
    /// object ends.
    ///
    /// # Errors
    /// `ChecksumMismatch` naming the block ([`Error::part`](crate::Error::part)) and the byte range that
    /// differ; `Incomplete` if the object is not of the expected size; as `read_into`.
    fn read_into_verified(
        &self,
        uri: &str,
        offset: u64,
        buffer: &mut [u8],
        expected: &BlockChecksums,
    ) -> Result<ReadReport>;

    /// As [`get`](ObjectStore::get), comparing the bytes with a checksum such as `"crc32c:e3069283"`.
    ///
    /// # Errors
    /// `ChecksumMismatch` with the byte range and both values; `InvalidInput` if `expected` is no known checksum.
    fn get_with_validation(&self, uri: &str, expected: &str) -> Result<Bytes>;

    /// As [`get_range`](ObjectStore::get_range), comparing the range's bytes with a checksum.
    ///
    /// # Errors
    /// As [`get_with_validation`](ObjectStore::get_with_validation) and `get_range`.
    fn get_range_with_validation(
        &self,
        uri: &str,
        offset: u64,
        length: Option<u64>,
        expected: &str,
    ) -> Result<Bytes>;

    /// Reads the whole object once, in parallel, through part buffers, and returns the CRC32C of each
    /// block of `block_bytes` bytes. The object's checksum is their
    /// [`combined`](BlockChecksums::combined).
    ///
    /// # Errors
    /// As [`get`](ObjectStore::get); `InvalidInput` if `block_bytes` is zero.
    fn block_checksums(&self, uri: &str, block_bytes: u64) -> Result<BlockChecksums> {
        self.block_checksums_with(uri, block_bytes, &mut |_| {})
    }

    /// As [`block_checksums`](ObjectStore::block_checksums), telling `progress` on the calling thread
    /// how many bytes were queued for reading since its last call.
    ///
    /// # Errors
    /// As there.
    fn block_checksums_with(
        &self,
        uri: &str,
        block_bytes: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<BlockChecksums>;

    /// Fills `buffer` with the raw bytes of a compressed object from `offset`: reads the object's seek table
    /// and the frames that hold them, and decompresses these in parallel, straight into `buffer` where a whole
    /// frame is wanted. Each frame carries a checksum of its content, which is compared.
    ///
    /// # Errors
    /// `Corrupt` if the object's seek table does not fit the object and `form`, or a frame does not
    /// decompress (the error names the frame, its stored and its raw byte range); as
    /// [`read_into`](ObjectStore::read_into), by the raw bytes.
    fn decompress_into(
        &self,
        uri: &str,
        form: CompressedForm,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<ReadReport>;

    /// As [`decompress_into`](ObjectStore::decompress_into), verifying every block of raw bytes against
    /// `expected`. `offset` must be the start of a block, and `buffer` must end where a block or the raw bytes
    /// end.
    ///
    /// # Errors
    /// As there; `ChecksumMismatch` naming the range of raw bytes that differs; `Incomplete` if `expected` is
    /// of another size than `form`.
    fn decompress_into_verified(
        &self,
        uri: &str,
        form: CompressedForm,
        offset: u64,
        buffer: &mut [u8],
        expected: &BlockChecksums,
    ) -> Result<ReadReport>;

    /// The form of a compressed object by its own seek table, for objects of which nothing else is known. A
    /// table that lies about the raw bytes is found when they are read.
    ///
    /// # Errors
    /// `Corrupt` if the object does not end with a seek table that fits it; as [`get`](ObjectStore::get).
    fn compressed_form(&self, uri: &str, filter: Filter) -> Result<CompressedForm>;

    /// Reads and decompresses all of a compressed object once, in parallel and in bounded memory, and returns
    /// checksums of it and the frames that are broken: one does not hide the state of the others. `progress`
    /// hears on the calling thread how many stored bytes were queued for reading since its last call.
    ///
    /// # Errors
    /// As [`get`](ObjectStore::get); `InvalidInput` if a block has no bytes. Damage is no error.
    fn scan_compressed(
        &self,
        uri: &str,
        form: CompressedForm,
        options: ScanOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<FrameScan>;

    /// The object of this name and all objects below it (`uri/...`), in the order of their names
    /// on media of this machine and in the order the server keeps elsewhere (Amazon S3 and Azure: that of
    /// the names; SeaweedFS: folder by folder; directory buckets: none). Nothing there is an empty listing.
    ///
    /// # Errors
    /// `InvalidInput` for a URI that is not of this store; the iterator yields what the medium reports
    /// and ends after an error.
    fn list(&self, uri: &str) -> Result<ObjectList>;

    /// What is known of the object; on Azure also the checksum that its writer computed.
    ///
    /// # Errors
    /// `NotFound` if there is none; what the medium reports.
    fn stat(&self, uri: &str) -> Result<ObjectMeta>;

    /// Removes the object, durably.
    ///
    /// # Errors
    /// `NotFound` if there is none; what the medium reports.
    fn delete(&self, uri: &str) -> Result<()>;

    /// Removes objects, durably, and returns how many there were: one that is not there is no error.
    ///
    /// # Errors
    /// What the medium reports; some of the objects may be gone then.
    fn delete_many(&self, uris: &[String]) -> Result<u64> {
        let mut removed = 0;
        for uri in uris {
            match self.delete(uri) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// Removes the object of this name and all objects below it; returns how many. For a bucket's or a
    /// container's own URI that is all it holds; only the root of the machine's files is refused.
    ///
    /// # Errors
    /// What the medium reports; objects before the failure are gone.
    fn delete_prefix(&self, uri: &str) -> Result<u64>;

    /// Whether the object exists.
    ///
    /// # Errors
    /// What the medium reports, other than that there is none.
    fn exists(&self, uri: &str) -> Result<bool>;

    /// Unfinished uploads below `uri`, last written to at least `older_than` ago. One may belong to a
    /// writer that is alive: choose an age above the longest save.
    ///
    /// # Errors
    /// What the medium reports.
    fn orphans(&self, uri: &str, older_than: Duration) -> Result<Vec<Orphan>>;

    /// Removes an unfinished upload found by [`orphans`](ObjectStore::orphans).
    ///
    /// # Errors
    /// `Unsupported` where the medium alone removes it, in time (Azure: blocks that no blob lists expire
    /// after a week); what the medium reports; that it is gone meanwhile is no error.
    fn delete_orphan(&self, orphan: &Orphan) -> Result<()>;

    /// The first symbolic link by which one of these objects, all below `base`, lies outside of it; `base`
    /// itself may be one. `None` where there is no such link, and on media without links. Another process
    /// may change links at any moment: this guards against what lies there, not against who watches.
    ///
    /// # Errors
    /// `InvalidInput` if one is not below `base`; what the medium reports.
    fn link_leaving(&self, base: &str, uris: &[String]) -> Result<Option<String>> {
        let _ = (base, uris);
        Ok(None)
    }

    /// What an object is kept on, or would be: a filesystem, memory, a server; and whether what `finalize` promises
    /// withstands a power cut there. A `file://` or `direct://` store warns (crate `log`) when it is first
    /// written to where that is not promised: NFS, Lustre, gcsfuse.
    ///
    /// ```
    /// # fn main() -> syncline::Result<()> {
    /// let store = syncline::store_for_uri("file:///dev/shm")?;
    /// let medium = store.medium("file:///dev/shm/run7")?;
    /// assert_eq!(medium.durability, syncline::Durability::Memory);
    /// println!("{}", medium.caution().unwrap()); // tmpfs is memory: ...
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the filesystem reports.
    fn medium(&self, uri: &str) -> Result<Medium>;

    /// The store's settings.
    fn config(&self) -> &Config;
}

/// A listing in progress; see [`ObjectStore::list`].
pub type ObjectList = Box<dyn Iterator<Item = Result<ObjectMeta>> + Send>;

/// Writes one object, front to back. Nothing is visible before [`finalize`](ObjectWriter::finalize);
/// a writer that is dropped or cancelled leaves nothing behind, as far as the medium is reached and removes
/// what it is told to: Azure keeps blocks that no blob lists for a week.
///
/// The first error latches: later calls return it again, and `finalize` does not succeed after it.
pub trait ObjectWriter: Send {
    /// Appends a copy of `data`. One copy, fused with the checksum.
    ///
    /// # Errors
    /// The first error of any part so far.
    fn write_chunk(&mut self, data: &[u8]) -> Result<()>;

    /// Appends `data` without copying it, in parts; small or unaligned pieces are copied.
    ///
    /// Memory maps go in here too: `write_owned(Bytes::from_owner(map))`. The file behind a map
    /// must not shrink meanwhile.
    ///
    /// # Errors
    /// The first error of any part so far.
    fn write_owned(&mut self, data: Bytes) -> Result<()>;

    /// Appends `data` without copying it, and returns when its bytes are with the backend (or
    /// copied): the memory may be changed from then on. Parts are written in parallel.
    ///
    /// # Errors
    /// The first error of any part so far. No I/O thread touches `data` after the return or unwind,
    /// whatever the reason; a system call in progress is waited out.
    fn write_borrowed(&mut self, data: &[u8]) -> Result<()>;

    /// The free rest of the current part buffer, at least one byte, to be filled in place. What of
    /// it counts is said by [`commit`](ObjectWriter::commit); a reservation not committed is void.
    ///
    /// # Errors
    /// The first error of any part so far.
    fn reserve(&mut self) -> Result<&mut [u8]>;

    /// Appends the first `bytes` bytes of the reservation.
    ///
    /// # Errors
    /// `InvalidInput` if more than was reserved; the first error of any part so far.
    fn commit(&mut self, bytes: usize) -> Result<()>;

    /// `"crc32c:xxxxxxxx"` of the bytes so far; `None` if the caller chose no checksum.
    fn checksum(&self) -> Option<String>;

    /// The checksum of each block so far; `None` unless the checksum is CRC32C. The block is
    /// [`Config::part_bytes`], or a multiple, so that there are at most 1,024.
    fn block_checksums(&self) -> Option<BlockChecksums>;

    /// Bytes appended so far.
    fn bytes_written(&self) -> u64;

    /// Bytes after compression so far, without those of frames that are being filled or compressed; those
    /// appended where nothing is compressed.
    fn compressed_bytes(&self) -> u64;

    /// How this writer compresses.
    fn compression(&self) -> Compression;

    /// `compressed_bytes` by the bytes that went into them; 1.0 while there are none. Of the whole object:
    /// [`WriteReport::compression_ratio`] in what `finalize` returns.
    fn compression_ratio(&self) -> f64;

    /// What was done so far.
    fn report(&self) -> WriteReport;

    /// Waits for all parts, checks them against the checksum, and makes the object visible and durable.
    ///
    /// # Errors
    /// The first error of any part; what the commit reports. Nothing is visible then and no temporary
    /// is left, unless the error says that the state is unknown.
    fn finalize(self: Box<Self>) -> Result<ObjectMeta>;

    /// Gives the object up and removes what was written, where the medium can.
    ///
    /// # Errors
    /// What the medium reports; leftovers are then found by `orphans`.
    fn cancel(self: Box<Self>) -> Result<()>;
}

/// `flush` does nothing: bytes are durable when `finalize` returns, and not before.
impl io::Write for Box<dyn ObjectWriter> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.write_chunk(data)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
