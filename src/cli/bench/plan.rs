//! What one pass moves: an object of whole parts, cut from one source of random bytes.

use std::ops::Range;

use syncline::{AlignedVec, Bytes, Config};

use crate::failure::Failure;
use crate::signals::Stop;

/// What is measured, and with what.
pub struct Plan<'a> {
    pub config: &'a Config,
    pub stop: &'a Stop,
    /// Bytes of one pass: whole parts.
    pub size_bytes: u64,
    pub part_bytes: usize,
    /// Random bytes at a page boundary: whole parts.
    pub source: Bytes,
    /// The object that the engine writes and reads.
    pub object_uri: String,
    /// The object that warms a store up.
    pub warm_up_uri: String,
    /// Whether the ceiling sets O_DIRECT, because the engine does.
    pub direct: bool,
}

impl Plan<'_> {
    /// Number of parts of one pass.
    pub fn parts(&self) -> u64 {
        self.size_bytes / self.part_bytes as u64
    }

    /// Where a part lies in the object.
    pub fn offset(&self, index: u64) -> u64 {
        index * self.part_bytes as u64
    }

    /// A part's bytes.
    pub fn part(&self, index: u64) -> &[u8] {
        &self.source[self.source_range(index)]
    }

    /// A part's bytes, shared and not copied.
    pub fn owned_part(&self, index: u64) -> Bytes {
        self.source.slice(self.source_range(index))
    }

    fn source_range(&self, index: u64) -> Range<usize> {
        let parts_in_source = (self.source.len() / self.part_bytes) as u64;
        // Below the source's length, which is a usize.
        let start = (index % parts_in_source) as usize * self.part_bytes;
        start..start + self.part_bytes
    }

    /// The object in ranges of at most `window_bytes`.
    pub fn windows(&self, window_bytes: usize) -> impl Iterator<Item = Range<u64>> {
        let size_bytes = self.size_bytes;
        let starts = (0..size_bytes).step_by(window_bytes);
        starts.map(move |start| start..size_bytes.min(start + window_bytes as u64))
    }
}

/// `bytes` as a whole number of parts, at least one.
pub fn whole_parts(bytes: u64, part_bytes: usize) -> u64 {
    let part_bytes = part_bytes as u64;
    bytes.div_ceil(part_bytes).max(1).saturating_mul(part_bytes)
}

/// Bytes without a pattern, so that no layer below can compress them or leave them out.
pub fn random_source(bytes: usize) -> Result<Bytes, Failure> {
    let mut source = AlignedVec::zeroed(bytes)?;
    // xorshift64: Marsaglia, "Xorshift RNGs", 2003.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for word in source.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_ne_bytes());
    }
    Ok(source.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_whole_parts() {
        for (bytes, whole) in [(0, 10), (1, 10), (10, 10), (11, 20)] {
            assert_eq!(whole_parts(bytes, 10), whole);
        }
    }
}
