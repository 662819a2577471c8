//! Reading one piece of an object on an I/O thread: straight into its target where the medium's
//! alignment admits it, through a part buffer where it does not, and hashed once.

use std::ops::Range;

use crate::backend::{Alignment, Source};
use crate::buffer::{AlignedVec, LoanMut, Pool};
use crate::encode::{Algorithm, Checksum, mismatch};
use crate::engine::Engine;
use crate::engine::queue::withdrawn;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;
use crate::time::Deadline;

/// One piece to read: at most a part.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub uri: Arc<str>,
    pub source: Arc<dyn Source>,
    /// 0-based, in the order of offsets.
    pub index: u64,
    /// Offset in the object, in bytes.
    pub offset: u64,
    pub target: Target,
    pub algorithm: Option<Algorithm>,
    /// The checksum block that the piece is, and its checksum, where it is known beforehand.
    pub expected: Option<(u64, Checksum)>,
    pub pool: Arc<Pool>,
    pub deadline: Deadline,
}

/// Where a piece goes.
#[derive(Debug)]
pub(crate) enum Target {
    /// Into lent memory.
    Into(LoanMut),
    /// Through a part buffer, for its checksum alone: this many bytes.
    Scan(usize),
}

/// What became of a piece.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fetched {
    pub index: u64,
    pub bytes: u64,
    pub copied_bytes: u64,
    pub checksum: Option<Checksum>,
}

impl Fetch {
    pub fn run(&mut self) -> Result<Fetched> {
        let reader =
            PieceReader { source: &*self.source, pool: &self.pool, deadline: &self.deadline };
        let (offset, algorithm) = (self.offset, self.algorithm);
        let (bytes, copied_bytes, checksum) = match &mut self.target {
            Target::Into(loan) => loan
                .with(|memory| {
                    let copied = reader.read(offset, memory)?;
                    let checksum = algorithm.map(|a| a.checksum(memory));
                    Ok((memory.len(), copied, checksum))
                })
                .unwrap_or_else(|| Err(withdrawn("read")))?,
            Target::Scan(bytes) => {
                let hash = |piece: &[u8]| algorithm.map(|a| a.checksum(piece));
                (*bytes, 0, reader.read_through_buffer(offset, *bytes, hash)?)
            }
        };
        if let (Some((block, expected)), Some(found)) = (self.expected, checksum)
            && expected != found
        {
            return Err(mismatch(self.offset, bytes as u64, expected, found).with_part(block));
        }
        Ok(Fetched {
            index: self.index,
            bytes: bytes as u64,
            copied_bytes: copied_bytes as u64,
            checksum,
        })
    }
}

impl Engine {
    /// Reads a piece of an object into memory of its own, so that nobody waits for a medium that stalls.
    pub fn read_owned(
        &self,
        uri: &Arc<str>,
        source: &Arc<dyn Source>,
        offset: u64,
        bytes: usize,
    ) -> Result<AlignedVec> {
        let (source, pool) = (Arc::clone(source), Arc::clone(self.pool()));
        self.call_patiently("read", uri, move |deadline, alive| {
            let mut memory = AlignedVec::zeroed(bytes)?;
            let mut offset = offset;
            for piece in memory.chunks_mut(pool.buffer_bytes()) {
                let deadline = deadline.renewed();
                let reader = PieceReader { source: &*source, pool: &pool, deadline: &deadline };
                reader.read(offset, piece)?;
                offset += piece.len() as u64;
                alive();
            }
            Ok(memory)
        })
    }
}

/// Fills `memory` with the whole of a small object, on the calling thread, which is an I/O thread.
pub(crate) fn read_whole(
    source: &dyn Source,
    pool: &Arc<Pool>,
    memory: &mut [u8],
    deadline: &Deadline,
) -> Result<()> {
    PieceReader { source, pool, deadline }.read(0, memory).map(drop)
}

/// Reads from one source, through buffers of one pool where it must.
struct PieceReader<'a> {
    source: &'a dyn Source,
    pool: &'a Arc<Pool>,
    deadline: &'a Deadline,
}

impl PieceReader<'_> {
    /// Fills `memory` from `offset`. Returns how many bytes went through a part buffer.
    fn read(&self, offset: u64, memory: &mut [u8]) -> Result<usize> {
        let alignment = self.source.alignment();
        let (head, body) = aligned_span(alignment, memory.as_ptr().addr(), offset, memory.len());
        let (head_bytes, rest) = memory.split_at_mut(head);
        let (body_bytes, tail_bytes) = rest.split_at_mut(body);
        let body_offset = offset + head as u64;
        self.copy(offset, head_bytes)?;
        if body > 0 {
            self.from().fill(body_offset, body_bytes)?;
        }
        self.copy(body_offset + body as u64, tail_bytes)?;
        Ok(head_bytes.len() + tail_bytes.len())
    }

    /// Fills `memory` through a part buffer, whatever its alignment.
    fn copy(&self, mut offset: u64, mut memory: &mut [u8]) -> Result<()> {
        while !memory.is_empty() {
            // A piece that starts between two aligned offsets needs more buffer than it has bytes.
            let slack = (offset % self.source.alignment().offset_bytes as u64) as usize;
            let step = memory.len().min(self.pool.buffer_bytes() - slack);
            let (now, later) = memory.split_at_mut(step);
            self.read_through_buffer(offset, step, |bytes| now.copy_from_slice(bytes))?;
            offset += step as u64;
            memory = later;
        }
        Ok(())
    }

    /// Reads `bytes` bytes at `offset` into a part buffer and shows them to `f`.
    fn read_through_buffer<R>(
        &self,
        offset: u64,
        bytes: usize,
        f: impl FnOnce(&[u8]) -> R,
    ) -> Result<R> {
        let mut buffer = self.pool.take(self.deadline)?;
        let place = self.from().read_around(offset, bytes, &mut buffer)?;
        Ok(f(&buffer[place]))
    }

    fn from(&self) -> SourceReader<'_> {
        SourceReader { source: self.source, deadline: self.deadline }
    }
}

/// Reads from one source into memory that is aligned.
pub(super) struct SourceReader<'a> {
    pub source: &'a dyn Source,
    pub deadline: &'a Deadline,
}

impl SourceReader<'_> {
    /// Reads `bytes` bytes at `offset` into `buffer`, and says where in it they are: the span around them is
    /// aligned.
    pub fn read_around(
        &self,
        offset: u64,
        bytes: usize,
        buffer: &mut [u8],
    ) -> Result<Range<usize>> {
        let unit = self.source.alignment().offset_bytes;
        let slack = (offset % unit as u64) as usize;
        let span = (slack + bytes).next_multiple_of(unit);
        let read = self.read_up_to(offset - slack as u64, &mut buffer[..span])?;
        if read < slack + bytes {
            return Err(self.shorter_than_expected());
        }
        Ok(slack..slack + bytes)
    }

    /// Fills `memory`, which is aligned.
    fn fill(&self, offset: u64, memory: &mut [u8]) -> Result<()> {
        if self.read_up_to(offset, memory)? < memory.len() {
            return Err(self.shorter_than_expected());
        }
        Ok(())
    }

    /// Reads until `memory` is full or the object ends.
    fn read_up_to(&self, offset: u64, memory: &mut [u8]) -> Result<usize> {
        let unit = self.source.alignment().offset_bytes;
        let mut done = 0;
        while done < memory.len() {
            let read =
                self.source.read_at(offset + done as u64, &mut memory[done..], self.deadline)?;
            done += read;
            // After a short read only an aligned position may be read from again; elsewhere it is the end.
            if read == 0 || !done.is_multiple_of(unit) {
                break;
            }
        }
        Ok(done)
    }

    fn shorter_than_expected(&self) -> Error {
        let size = self.source.size_bytes();
        Error::new(
            ErrorKind::Incomplete,
            "read",
            format!("the object ends before its {size} bytes: it was cut short meanwhile"),
        )
    }
}

/// The part of a piece that can be transferred as it is: how many bytes come before it, and how many
/// it has. Nothing where address and offset do not meet the alignment together.
fn aligned_span(alignment: Alignment, address: usize, offset: u64, bytes: usize) -> (usize, usize) {
    let unit = alignment.offset_bytes;
    let head = offset.next_multiple_of(unit as u64) - offset;
    let head = usize::try_from(head).unwrap_or(usize::MAX).min(bytes);
    if !alignment.admits(address.wrapping_add(head), offset + head as u64) {
        return (bytes, 0);
    }
    (head, (bytes - head) / unit * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_aligned_and_cover_what_they_can() {
        let disk = Alignment { memory_bytes: 512, offset_bytes: 512 };
        assert_eq!(aligned_span(disk, 4096, 0, 1024), (0, 1024));
        assert_eq!(aligned_span(disk, 4096, 0, 1000), (0, 512));
        assert_eq!(aligned_span(disk, 4096 + 100, 100, 2000), (412, 1536));
        assert_eq!(aligned_span(disk, 4096 + 16, 0, 2000), (2000, 0));
        assert_eq!(aligned_span(disk, 4096 + 500, 500, 5), (5, 0));
        assert_eq!(aligned_span(Alignment::NONE, 17, 3, 2000), (0, 2000));
        let loose = Alignment { memory_bytes: 4, offset_bytes: 512 };
        assert_eq!(aligned_span(loose, 4096 + 16, 0, 2000), (0, 1536));
    }
}
