//! Syncline writes and reads checkpoints from programs that have no async runtime.

#![deny(clippy::disallowed_macros)]

#[cfg(not(target_os = "linux"))]
compile_error!("syncline runs on Linux only: it is built on O_DIRECT, statx and renameat2");

mod backend;
mod buffer;
mod config;
mod encode;
mod engine;
mod error;
mod limits;
mod reader;
mod store;
mod sync;
mod time;
mod uri;
mod writer;

pub use backend::{IoMode, ObjectMeta, Orphan, WriteReport};
pub use buffer::AlignedVec;
pub use bytes::Bytes;
pub use config::{Config, ConfigBuilder, DirectPolicy, parse_bytes};
pub use encode::{Algorithm, BlockChecksums, Checksum, Hasher};
pub use error::{Error, ErrorKind, Result};
pub use store::{
    BufferedObjectWriter, ChecksumChoice, Compression, DirectIOWriter, FileSystemWriter,
    ObjectList, ObjectStore, ObjectWriter, ReadReport, WriteOptions, open_store, store_for_uri,
};
pub use time::Timestamp;
