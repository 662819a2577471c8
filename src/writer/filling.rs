//! The part being filled: one part buffer, or several where the object's parts have grown.

use crate::buffer::{Payload, PoolBuffer};

/// Part buffers on their way to be a part.
#[derive(Debug)]
pub(super) struct Filling {
    full: Vec<PoolBuffer>,
    current: PoolBuffer,
    /// Bytes of `current` that count.
    current_bytes: usize,
    spare: Vec<PoolBuffer>,
}

impl Filling {
    /// Of one buffer, and of `spare` beside it.
    pub fn new(current: PoolBuffer, spare: Vec<PoolBuffer>) -> Filling {
        Filling { full: Vec::new(), current, current_bytes: 0, spare }
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.full.len() * self.current.len() + self.current_bytes
    }

    /// Whether nothing more fits.
    pub fn is_full(&self) -> bool {
        self.current_bytes == self.current.len() && self.spare.is_empty()
    }

    /// The free rest of the current buffer, at least one byte; empty only when full.
    pub fn room(&mut self) -> &mut [u8] {
        if self.current_bytes == self.current.len()
            && let Some(next) = self.spare.pop()
        {
            self.full.push(std::mem::replace(&mut self.current, next));
            self.current_bytes = 0;
        }
        &mut self.current[self.current_bytes..]
    }

    /// Counts the next `bytes` bytes of [`room`](Filling::room), and returns them.
    pub fn advance(&mut self, bytes: usize) -> &[u8] {
        let from = self.current_bytes;
        self.current_bytes += bytes;
        &self.current[from..self.current_bytes]
    }

    /// The part's memory; padded with zeros to a multiple of `unit_bytes` where it is one buffer.
    pub fn into_payload(mut self, unit_bytes: usize) -> Payload {
        let bytes = self.current_bytes;
        if self.full.is_empty() {
            let padded_bytes = bytes.next_multiple_of(unit_bytes);
            self.current[bytes..padded_bytes].fill(0);
            return Payload::Pooled { buffer: self.current, bytes, padded_bytes };
        }
        self.full.push(self.current);
        Payload::Joined { buffers: self.full, last_bytes: bytes }
    }
}
