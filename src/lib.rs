//! Syncline writes and reads checkpoints from programs that have no async runtime.

#![deny(clippy::disallowed_macros)]

#[cfg(not(target_os = "linux"))]
compile_error!("syncline runs on Linux only: it is built on O_DIRECT, statx and renameat2");

mod buffer;
mod config;
mod encode;
mod error;
mod limits;
mod sync;
mod time;

pub use buffer::AlignedVec;
pub use bytes::Bytes;
pub use config::{Config, ConfigBuilder, DirectPolicy, parse_bytes};
pub use encode::{Algorithm, BlockChecksums, Checksum, Hasher};
pub use error::{Error, ErrorKind, Result};
pub use time::Timestamp;
