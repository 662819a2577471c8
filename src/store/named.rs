//! The writers' names from the project's first document. Each is the one writer over its backend.

use std::ops::{Deref, DerefMut};
use std::path::Path;

use super::{ObjectStore, ObjectWriter, WriteOptions, open_store};
use crate::backend::ObjectMeta;
use crate::config::Config;
use crate::encode::Compression;
use crate::error::{Error, Result};
use crate::sync::Arc;

/// What every writer of a name has beside its opening.
macro_rules! writer_face {
    ($name:ident) => {
        impl $name {
            /// See [`ObjectWriter::finalize`].
            ///
            /// # Errors
            /// As there.
            pub fn finalize(self) -> Result<ObjectMeta> {
                self.0.finalize()
            }

            /// See [`ObjectWriter::cancel`].
            ///
            /// # Errors
            /// As there.
            pub fn cancel(self) -> Result<()> {
                self.0.cancel()
            }
        }

        impl Deref for $name {
            type Target = dyn ObjectWriter;

            fn deref(&self) -> &Self::Target {
                &*self.0
            }
        }

        impl DerefMut for $name {
            fn deref_mut(&mut self) -> &mut Self::Target {
                &mut *self.0
            }
        }
    };
}

macro_rules! path_writer {
    ($(#[$doc:meta])* $name:ident, $scheme:literal) => {
        $(#[$doc])*
        pub struct $name(Box<dyn ObjectWriter>);

        impl $name {
            /// Opens a writer for the file at an absolute `path`, with an engine of its own.
            ///
            /// # Errors
            /// As [`ObjectStore::get_writer_with`].
            pub fn create(
                path: impl AsRef<Path>,
                config: &Config,
                options: WriteOptions,
            ) -> Result<$name> {
                open_path($scheme, path.as_ref(), config, options).map($name)
            }
        }

        writer_face!($name);
    };
}

path_writer! {
    /// Writes one file through the page cache: the writer of `file://`.
    ///
    /// ```
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("shard");
    /// use syncline::{Config, FileSystemWriter, WriteOptions};
    /// let mut writer = FileSystemWriter::create(&path, &Config::default(), WriteOptions::default())?;
    /// writer.write_chunk(b"123456789")?;
    /// assert_eq!(writer.checksum().as_deref(), Some("crc32c:e3069283"));
    /// writer.finalize()?;
    /// # Ok::<(), syncline::Error>(())
    /// ```
    FileSystemWriter, "file"
}

path_writer! {
    /// Writes one file with O_DIRECT where the medium has it: the writer of `direct://`.
    DirectIOWriter, "direct"
}

macro_rules! server_writer {
    ($(#[$doc:meta])* $name:ident, $scheme:literal) => {
        $(#[$doc])*
        pub struct $name(Box<dyn ObjectWriter>);

        impl $name {
            /// Opens a writer for the object of this URI, with an engine and connections of its own.
            ///
            /// # Errors
            /// `InvalidInput` if the URI is of another scheme; as [`ObjectStore::get_writer_with`].
            pub fn create(uri: &str, config: &Config, options: WriteOptions) -> Result<$name> {
                open_server($scheme, uri, config, options).map($name)
            }
        }

        writer_face!($name);
    };
}

server_writer! {
    /// Writes one object to a bucket: the writer of `s3://bucket/key`. What fits one part is one
    /// PutObject, what does not is a multipart upload; neither is visible before
    /// [`finalize`](S3BufferedWriter::finalize).
    ///
    /// ```no_run
    /// use syncline::{Config, S3BufferedWriter, WriteOptions};
    /// let config = Config::from_env()?;
    /// let uri = "s3://bucket/run/rank-0.bin";
    /// let mut writer = S3BufferedWriter::create(uri, &config, WriteOptions::default())?;
    /// writer.write_chunk(b"123456789")?;
    /// assert_eq!(writer.checksum().as_deref(), Some("crc32c:e3069283"));
    /// let meta = writer.finalize()?;
    /// println!("{:?}", meta.write.and_then(|report| report.proof));
    /// # Ok::<(), syncline::Error>(())
    /// ```
    S3BufferedWriter, "s3"
}

server_writer! {
    /// Writes one block blob: the writer of `az://account/container/key`. What fits one part is one Put
    /// Blob, what does not is blocks and a Put Block List; neither is visible before
    /// [`finalize`](AzureBufferedWriter::finalize).
    AzureBufferedWriter, "az"
}

fn open_server(
    scheme: &str,
    uri: &str,
    config: &Config,
    options: WriteOptions,
) -> Result<Box<dyn ObjectWriter>> {
    if uri.split_once("://").is_none_or(|(name, _)| name != scheme) {
        let what = format!("not a URI of {scheme}://");
        return Err(Error::invalid("open writer", what).with_uri(uri));
    }
    open_store(uri, config)?.get_writer_with(uri, options)
}

fn open_path(
    scheme: &str,
    path: &Path,
    config: &Config,
    options: WriteOptions,
) -> Result<Box<dyn ObjectWriter>> {
    let text = path.to_str().filter(|_| path.is_absolute()).ok_or_else(|| {
        Error::invalid("open writer", "the path is not absolute, or not UTF-8")
            .with_uri(path.to_string_lossy())
    })?;
    let uri = format!("{scheme}://{text}");
    open_store(&uri, config)?.get_writer_with(&uri, options)
}

/// Collects an object in memory and puts it as a whole at `finalize`: for stores of other make that
/// have no streaming upload of their own. The collecting is that of the one writer over `mem://`.
pub struct BufferedObjectWriter {
    collected: Box<dyn ObjectWriter>,
    memory: Arc<dyn ObjectStore>,
    target: Arc<dyn ObjectStore>,
    uri: String,
    options: WriteOptions,
}

/// Where the bytes are collected.
const COLLECTED: &str = "mem://collected/object";

impl BufferedObjectWriter {
    /// A writer that will put `uri` into `target`.
    ///
    /// # Errors
    /// As [`ObjectStore::get_writer_with`].
    pub fn new(
        target: Arc<dyn ObjectStore>,
        uri: &str,
        options: WriteOptions,
    ) -> Result<BufferedObjectWriter> {
        let memory = open_store(COLLECTED, target.config())?;
        let collected = memory.get_writer_with(COLLECTED, options.clone())?;
        Ok(BufferedObjectWriter { collected, memory, target, uri: uri.to_owned(), options })
    }

    /// Puts the object.
    ///
    /// # Errors
    /// As [`ObjectStore::put_with`].
    pub fn finalize(self) -> Result<ObjectMeta> {
        // Of the collected bytes, which may be compressed.
        let expected = self.collected.finalize()?.checksum;
        // Memory is a medium like any other: what comes back is compared with what went in.
        let data = match &expected {
            Some(checksum) => self.memory.get_with_validation(COLLECTED, checksum)?,
            None => self.memory.get(COLLECTED)?,
        };
        let collected = self.options.compression(Compression::None);
        self.target.put_with(&self.uri, &data, collected)
    }

    /// Gives the object up; the target has not been touched.
    ///
    /// # Errors
    /// None in practice.
    pub fn cancel(self) -> Result<()> {
        self.collected.cancel()
    }
}

impl Deref for BufferedObjectWriter {
    type Target = dyn ObjectWriter;

    fn deref(&self) -> &Self::Target {
        &*self.collected
    }
}

impl DerefMut for BufferedObjectWriter {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.collected
    }
}
