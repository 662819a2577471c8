//! The one way to say that bytes are not what was written.

use super::crc::Checksum;
use crate::error::{Error, ErrorKind};

/// The error of `bytes` bytes from `offset` whose checksum is not the expected one. Whoever knows the
/// object and the checksum block adds them.
pub(crate) fn mismatch(offset: u64, bytes: u64, expected: Checksum, found: Checksum) -> Error {
    let end = offset.saturating_add(bytes);
    Error::new(
        ErrorKind::ChecksumMismatch,
        "verify",
        format!("bytes {offset}..{end} are damaged: expected {expected}, found {found}"),
    )
    .with_remedy("restore an earlier checkpoint or another copy")
}
