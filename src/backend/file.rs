//! `file://`: through the page cache.

use std::fs::File;

use super::posix::{Access, PosixBackend};
use super::{Alignment, Backend, IoMode};
use crate::error::Result;
use crate::sync::Arc;

/// Opens the mounted filesystems for buffered I/O.
pub(crate) fn open_file() -> Arc<dyn Backend> {
    Arc::new(PosixBackend::new("file", Buffered))
}

#[derive(Debug)]
struct Buffered;

impl Access for Buffered {
    fn prepare(&self, _: &File) -> Result<(Alignment, IoMode)> {
        Ok((Alignment::NONE, IoMode::Buffered))
    }

    fn is_cached(&self) -> bool {
        true
    }
}
