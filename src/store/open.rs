//! Opening a backend by its scheme, and the one implementation of [`ObjectStore`].

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{
    CompressedForm, FrameScan, ObjectList, ObjectStore, ObjectWriter, ReadReport, ScanOptions,
    WriteOptions, many,
};
use crate::backend::{
    Backend, Medium, MemoryBackend, ObjectMeta, Orphan, UploadSpec, Walk, open_azure, open_direct,
    open_file, open_s3,
};
use crate::buffer::AlignedVec;
use crate::config::{Config, Server};
use crate::encode::{BlockChecksums, Checksum, Compression, Filter};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{LIST_PAGE_OBJECTS, S3_PART_BYTES_MIN};
use crate::reader::{FrameReader, ObjectReader};
use crate::sync::{Arc, OfProcess, Weak};
use crate::uri::{Location, Scheme};
use crate::writer::{CompressingWriter, StreamWriter};

/// Stores that [`store_for_uri`] opened and somebody still holds. The one process-wide state of the
/// crate, so that independent parts of a program share threads, buffers and `mem://` objects. The child of a
/// fork has none of the threads, and begins with none of the stores.
static SHARED: OfProcess<SharedStores> = OfProcess::new();

/// By scheme and authority.
type SharedStores = HashMap<(Scheme, String), Weak<Store>>;

/// The store that holds `uri`: one per scheme and authority, shared by all who ask while any holds it,
/// with the settings of [`Config::from_env`]. Threads start at the first I/O.
///
/// ```
/// # fn main() -> syncline::Result<()> {
/// # let (data1, data2) = (b"ab".as_slice(), b"c".as_slice());
/// let uri = "mem://example/object";
/// let store = syncline::store_for_uri(uri)?;
/// let mut writer = store.get_writer(&uri)?;
/// writer.write_chunk(data1)?;
/// writer.write_chunk(data2)?;
/// let checksum = writer.checksum(); // Some("crc32c:364b3fb7")
/// writer.finalize()?;
/// # assert_eq!(checksum.as_deref(), Some("crc32c:364b3fb7"));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `InvalidInput` if the URI or an environment variable is not usable.
pub fn store_for_uri(uri: &str) -> Result<Arc<dyn ObjectStore>> {
    let location = Location::parse(uri)?;
    let config = Config::from_env()?;
    let mut guard = SHARED.lock();
    let shared = guard.get_or_insert_with(HashMap::new);
    let key = (location.scheme, location.authority.clone());
    if let Some(store) = shared.get(&key).and_then(Weak::upgrade) {
        return Ok(store);
    }
    shared.retain(|_, store| store.strong_count() > 0);
    let store = Arc::new(Store::open(&location, &config).map_err(|e| e.with_uri(uri))?);
    shared.insert(key, Arc::downgrade(&store));
    Ok(store)
}

/// A store of its own for `uri`, with its own threads, buffers and settings. A `mem://` store opened so
/// holds its own objects.
///
/// # Errors
/// `InvalidInput` if the URI is not usable, or the settings are not for its scheme.
pub fn open_store(uri: &str, config: &Config) -> Result<Arc<dyn ObjectStore>> {
    Ok(Arc::new(Store::open(&Location::parse(uri)?, config).map_err(|e| e.with_uri(uri))?))
}

/// One backend and its engine.
#[derive(Debug)]
pub(crate) struct Store {
    scheme: Scheme,
    authority: String,
    backend: Arc<dyn Backend>,
    engine: Arc<Engine>,
    /// What `put_many` has open, in all calls.
    open_small: many::OpenSmall,
}

impl Store {
    pub fn open(location: &Location, config: &Config) -> Result<Store> {
        let (config, backend): (Config, Arc<dyn Backend>) = match location.scheme {
            Scheme::File => (config.clone(), open_file()),
            Scheme::Direct => (config.clone(), open_direct(config.direct())),
            Scheme::Memory => (config.clone(), Arc::new(MemoryBackend::new(&location.authority))),
            Scheme::S3 => {
                config.check_servers(Server::S3)?;
                let config = config.with_parts_of_at_least(S3_PART_BYTES_MIN)?;
                let config = config.with_threads_of_servers();
                let backend = open_s3(&location.authority, &config)?;
                (config, backend)
            }
            Scheme::Azure => {
                config.check_servers(Server::Azure)?;
                let config = config.with_threads_of_servers();
                let backend = open_azure(&location.authority, &config)?;
                (config, backend)
            }
        };
        Ok(Store::with_backend(location, &config, backend))
    }

    pub fn with_backend(location: &Location, config: &Config, backend: Arc<dyn Backend>) -> Store {
        Store {
            scheme: location.scheme,
            authority: location.authority.clone(),
            engine: Engine::new(location.scheme.name(), backend.host(), config),
            backend,
            open_small: many::OpenSmall::default(),
        }
    }

    #[cfg(test)]
    pub fn engine_for_test(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(super) fn open_small(&self) -> &many::OpenSmall {
        &self.open_small
    }

    pub(super) fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// The key of an object of this store.
    pub(super) fn object(&self, uri: &str) -> Result<Named> {
        self.named(uri, Location::parse_object(uri)?)
    }

    /// The key of an object or prefix of this store.
    fn prefix(&self, uri: &str) -> Result<Named> {
        self.named(uri, Location::parse(uri)?)
    }

    fn named(&self, uri: &str, location: Location) -> Result<Named> {
        if location.scheme != self.scheme || location.authority != self.authority {
            let what = format!("not of this store, {}://{}", self.scheme.name(), self.authority);
            return Err(Error::invalid("name object", what).with_uri(uri));
        }
        Ok(Named { uri: Arc::from(self.backend.uri(&location.key)), key: location.key })
    }

    fn reader(&self, uri: &str) -> Result<ObjectReader<'_>> {
        let Named { uri, key } = self.object(uri)?;
        let backend = Arc::clone(&self.backend);
        let source =
            self.engine.call("open", &uri, move |deadline| backend.open(&key, deadline))?;
        Ok(ObjectReader { uri, engine: &self.engine, source })
    }
}

/// An object's name in both forms.
pub(super) struct Named {
    pub uri: Arc<str>,
    pub key: String,
}

impl ObjectStore for Store {
    fn get_writer_with(&self, uri: &str, options: WriteOptions) -> Result<Box<dyn ObjectWriter>> {
        let Named { uri, key } = self.object(uri)?;
        if options.compression != Compression::None {
            self.config().check_compression().map_err(|e| e.with_uri(&*uri))?;
        }
        let permit = self.engine.admit_writer().map_err(|e| e.with_uri(&*uri))?;
        let WriteOptions { size_hint_bytes, create_only, checksum, compression } = options;
        let algorithm = checksum.algorithm(self.config());
        let spec = UploadSpec { size_hint_bytes, create_only, algorithm, eager: false };
        // The medium sets no space aside for bytes that will not come; parts are planned for the worst.
        let size_stored_bytes = size_hint_bytes.filter(|_| compression == Compression::None);
        let medium_spec = UploadSpec { size_hint_bytes: size_stored_bytes, ..spec };
        let backend = Arc::clone(&self.backend);
        let begin = move |deadline: &_| backend.begin(&key, medium_spec, deadline);
        let upload = self.engine.call("open writer", &uri, begin)?;
        let writer = StreamWriter::new(&uri, &self.engine, permit, upload, spec)?;
        match compression {
            Compression::None => Ok(Box::new(writer)),
            Compression::Zstd(zstd) => {
                Ok(Box::new(CompressingWriter::new(writer, zstd, algorithm)))
            }
        }
    }

    fn put_many(
        &self,
        objects: &[(&str, &[u8])],
        options: WriteOptions,
    ) -> Vec<Result<ObjectMeta>> {
        many::put(self, objects, &options)
    }

    fn get_many(&self, objects: &[(&str, Option<&str>)]) -> Vec<Result<Bytes>> {
        many::get(self, objects)
    }

    fn get(&self, uri: &str) -> Result<Bytes> {
        self.get_range(uri, 0, None)
    }

    fn get_range(&self, uri: &str, offset: u64, length: Option<u64>) -> Result<Bytes> {
        let reader = self.reader(uri)?;
        let mut memory = reader.memory_for(offset, length)?;
        reader.read_into(offset, &mut memory)?;
        Ok(memory.into())
    }

    fn read_into(&self, uri: &str, offset: u64, buffer: &mut [u8]) -> Result<ReadReport> {
        self.reader(uri)?.read_into(offset, buffer)
    }

    fn read_into_verified(
        &self,
        uri: &str,
        offset: u64,
        buffer: &mut [u8],
        expected: &BlockChecksums,
    ) -> Result<ReadReport> {
        self.reader(uri)?.read_into_verified(offset, buffer, expected)
    }

    fn get_with_validation(&self, uri: &str, expected: &str) -> Result<Bytes> {
        self.get_range_with_validation(uri, 0, None, expected)
    }

    fn get_range_with_validation(
        &self,
        uri: &str,
        offset: u64,
        length: Option<u64>,
        expected: &str,
    ) -> Result<Bytes> {
        let expected: Checksum = expected.parse().map_err(|e: Error| e.with_uri(uri))?;
        let reader = self.reader(uri)?;
        let mut memory = reader.memory_for(offset, length)?;
        reader.read_into_expecting(offset, &mut memory, expected)?;
        Ok(memory.into())
    }

    fn block_checksums_with(
        &self,
        uri: &str,
        block_bytes: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<BlockChecksums> {
        if block_bytes == 0 {
            return Err(Error::invalid("checksum", "block_bytes is zero").with_uri(uri));
        }
        self.reader(uri)?.block_checksums(block_bytes, progress)
    }

    fn decompress_into(
        &self,
        uri: &str,
        form: CompressedForm,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<ReadReport> {
        FrameReader::open(self.reader(uri)?, form)?.read_into(offset, buffer)
    }

    fn decompress_into_verified(
        &self,
        uri: &str,
        form: CompressedForm,
        offset: u64,
        buffer: &mut [u8],
        expected: &BlockChecksums,
    ) -> Result<ReadReport> {
        let reader = FrameReader::open(self.reader(uri)?, form)?;
        reader.read_into_verified(offset, buffer, expected)
    }

    fn compressed_form(&self, uri: &str, filter: Filter) -> Result<CompressedForm> {
        self.reader(uri)?.compressed_form(filter)
    }

    fn scan_compressed(
        &self,
        uri: &str,
        form: CompressedForm,
        options: ScanOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<FrameScan> {
        if options.block_bytes == 0 {
            return Err(Error::invalid("checksum", "block_bytes is zero").with_uri(uri));
        }
        self.reader(uri)?.scan_frames(form, options, progress)
    }

    fn list(&self, uri: &str) -> Result<ObjectList> {
        let Named { uri, key } = self.prefix(uri)?;
        let walk = Some(self.backend.list(&key));
        Ok(Box::new(Listing {
            uri,
            engine: Arc::clone(&self.engine),
            walk,
            page: Vec::new().into_iter(),
        }))
    }

    fn stat(&self, uri: &str) -> Result<ObjectMeta> {
        let Named { uri, key } = self.object(uri)?;
        let backend = Arc::clone(&self.backend);
        self.engine.call("stat", &uri, move |deadline| backend.head(&key, deadline))
    }

    fn delete(&self, uri: &str) -> Result<()> {
        let Named { uri, key } = self.object(uri)?;
        match many::delete(self, &uri, vec![key])? {
            0 => Err(Error::new(ErrorKind::NotFound, "delete", "no such object").with_uri(&*uri)),
            _ => Ok(()),
        }
    }

    fn delete_many(&self, uris: &[String]) -> Result<u64> {
        let mut removed = 0;
        for page in uris.chunks(LIST_PAGE_OBJECTS) {
            let named = page.iter().map(|uri| self.object(uri)).collect::<Result<Vec<_>>>()?;
            let Some(first) = named.first().map(|named| Arc::clone(&named.uri)) else { break };
            removed += many::delete(self, &first, named.into_iter().map(|n| n.key).collect())?;
        }
        Ok(removed)
    }

    fn delete_prefix(&self, uri: &str) -> Result<u64> {
        let Named { uri: name, key } = self.prefix(uri)?;
        if key.is_empty() && self.authority.is_empty() {
            let what = "this is the root of the machine's files";
            return Err(Error::invalid("delete", what).with_uri(&*name));
        }
        let mut removed = 0;
        let mut keys = Vec::new();
        for meta in self.list(uri)? {
            keys.push(self.prefix(&meta?.uri)?.key);
            if keys.len() == LIST_PAGE_OBJECTS {
                removed += many::delete(self, &name, std::mem::take(&mut keys))?;
            }
        }
        removed += many::delete(self, &name, keys)?;
        let backend = Arc::clone(&self.backend);
        self.engine.call("delete", &name, move |deadline| backend.clear_prefix(&key, deadline))?;
        Ok(removed)
    }

    fn exists(&self, uri: &str) -> Result<bool> {
        match self.stat(uri) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn orphans(&self, uri: &str, older_than: Duration) -> Result<Vec<Orphan>> {
        let Named { uri, key } = self.prefix(uri)?;
        let backend = Arc::clone(&self.backend);
        let find = move |deadline: &_| backend.orphans(&key, deadline);
        let mut orphans = self.engine.call("find orphans", &uri, find)?;
        let now = SystemTime::now();
        // One without a time, or from a clock ahead of ours, is young.
        let age = |orphan: &Orphan| now.duration_since(orphan.modified?).ok();
        orphans.retain(|orphan| {
            older_than.is_zero() || age(orphan).is_some_and(|age| age >= older_than)
        });
        Ok(orphans)
    }

    fn delete_orphan(&self, orphan: &Orphan) -> Result<()> {
        let Named { uri, key } = self.prefix(&orphan.uri)?;
        let backend = Arc::clone(&self.backend);
        self.engine
            .call("delete orphan", &uri, move |deadline| backend.delete_orphan(&key, deadline))
    }

    fn link_leaving(&self, base: &str, uris: &[String]) -> Result<Option<String>> {
        let Named { uri, key: root } = self.prefix(base)?;
        let keys = uris.iter().map(|uri| Ok(self.prefix(uri)?.key)).collect::<Result<Vec<_>>>()?;
        let backend = Arc::clone(&self.backend);
        self.engine.call("follow links", &uri, move |deadline| {
            backend.link_leaving(&root, &keys, deadline)
        })
    }

    fn medium(&self, uri: &str) -> Result<Medium> {
        let Named { uri, key } = self.prefix(uri)?;
        let backend = Arc::clone(&self.backend);
        self.engine.call("look at filesystem", &uri, move |_| backend.medium(&key))
    }

    fn config(&self) -> &Config {
        self.engine.config()
    }
}

impl ObjectReader<'_> {
    /// Fresh memory for a range; the rest of the object where no length is given.
    fn memory_for(&self, offset: u64, length: Option<u64>) -> Result<AlignedVec> {
        let size = self.source.size_bytes();
        let length = length.unwrap_or_else(|| size.saturating_sub(offset));
        if offset.checked_add(length).is_none_or(|end| end > size) {
            let what =
                format!("{length} bytes at {offset} do not lie within the object's {size} bytes");
            return Err(Error::invalid("read", what).with_uri(&*self.uri));
        }
        AlignedVec::zeroed(usize::try_from(length).unwrap_or(usize::MAX))
            .map_err(|e| e.with_uri(&*self.uri))
    }
}

/// A listing, page by page.
struct Listing {
    uri: Arc<str>,
    engine: Arc<Engine>,
    /// `None` at the end or after an error.
    walk: Option<Box<dyn Walk>>,
    page: std::vec::IntoIter<ObjectMeta>,
}

impl Iterator for Listing {
    type Item = Result<ObjectMeta>;

    fn next(&mut self) -> Option<Result<ObjectMeta>> {
        if let Some(meta) = self.page.next() {
            return Some(Ok(meta));
        }
        let mut walk = self.walk.take()?;
        let next = self.engine.call("list", &self.uri, move |deadline| {
            let page = walk.next_page(deadline)?;
            Ok((walk, page))
        });
        match next {
            Ok((_, page)) if page.is_empty() => None,
            Ok((walk, page)) => {
                self.walk = Some(walk);
                self.page = page.into_iter();
                self.next()
            }
            Err(error) => Some(Err(error)),
        }
    }
}
