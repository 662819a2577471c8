//! One part of an object on its way to the backend, with its checksum.

use bytes::Bytes;

use crate::buffer::{Loan, PoolBuffer};
use crate::encode::PartSum;

/// A part: where it belongs, whose memory it is, and its checksum.
#[derive(Debug)]
pub(crate) struct Part {
    /// 0-based.
    pub index: u64,
    /// Offset in the object, in bytes.
    pub offset: u64,
    pub sum: PartSum,
    pub payload: Payload,
}

/// Whose memory a part is in.
#[derive(Debug)]
pub(crate) enum Payload {
    /// A part buffer: `bytes` of it count, `padded_bytes` may be written (the surplus is zeros).
    Pooled { buffer: PoolBuffer, bytes: usize, padded_bytes: usize },
    /// Part buffers, all full but the last, of which `last_bytes` count: a part grown beyond one.
    Joined { buffers: Vec<PoolBuffer>, last_bytes: usize },
    /// Memory handed over by the caller.
    Owned(Bytes),
    /// Memory lent by the caller.
    Borrowed(Loan),
}

impl Part {
    /// Runs `f` on the part's bytes (its first piece), the same with padding, and its further pieces.
    /// `None` if lent memory was revoked.
    pub fn with_bytes<R>(&self, f: impl FnOnce(&[u8], &[u8], &[&[u8]]) -> R) -> Option<R> {
        self.payload.with_bytes(f)
    }
}

impl Payload {
    /// As [`Part::with_bytes`].
    pub fn with_bytes<R>(&self, f: impl FnOnce(&[u8], &[u8], &[&[u8]]) -> R) -> Option<R> {
        match self {
            Payload::Pooled { buffer, bytes, padded_bytes } => {
                Some(f(&buffer[..*bytes], &buffer[..*padded_bytes], &[]))
            }
            Payload::Joined { buffers, last_bytes } => {
                let mut pieces: Vec<&[u8]> = buffers.iter().map(|buffer| &buffer[..]).collect();
                if let Some(last) = pieces.last_mut() {
                    *last = &last[..*last_bytes];
                }
                let (first, more) = pieces.split_first()?;
                Some(f(first, first, more))
            }
            Payload::Owned(bytes) => Some(f(bytes, bytes, &[])),
            Payload::Borrowed(loan) => loan.with(|bytes| f(bytes, bytes, &[])),
        }
    }
}
