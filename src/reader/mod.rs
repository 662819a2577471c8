//! Reading: one object in pieces, in parallel, each hashed and compared as it arrives. `frames` does so for
//! objects that are compressed, `many` reads small ones whole.

mod frames;
mod many;

use crate::backend::Source;
use crate::buffer::{LenderMut, lend_mut};
use crate::encode::{Algorithm, BlockChecksums, Checksum, mismatch};
use crate::engine::{Batch, Engine, Fetch, FetchJob, Fetched, Job, Pending, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::RECEIPTS_EXPECTED;
use crate::store::ReadReport;
use crate::sync::Arc;
use crate::time::Deadline;

pub(crate) use frames::FrameReader;
pub(crate) use many::{Wanted, get_each};

/// One version of an object, and the engine that reads it.
pub(crate) struct ObjectReader<'a> {
    pub uri: Arc<str>,
    pub engine: &'a Engine,
    pub source: Arc<dyn Source>,
}

/// What to do with the bytes beside delivering them.
#[derive(Clone, Copy)]
enum Check<'a> {
    Nothing,
    /// Compute the checksum of the range.
    Sum(Algorithm),
    /// Compare each block.
    Blocks(&'a BlockChecksums),
}

impl Check<'_> {
    fn algorithm(&self) -> Option<Algorithm> {
        match self {
            Check::Nothing => None,
            Check::Sum(algorithm) => Some(*algorithm),
            Check::Blocks(_) => Some(Algorithm::Crc32c),
        }
    }
}

impl ObjectReader<'_> {
    /// Fills `buffer` from `offset`. A whole object is compared with the checksum that its medium keeps
    /// beside it, where it does.
    pub fn read_into(&self, offset: u64, buffer: &mut [u8]) -> Result<ReadReport> {
        self.check_range(self.source.size_bytes(), offset, buffer.len() as u64)?;
        let whole = buffer.len() as u64 == self.source.size_bytes();
        let expected = self.source.checksum().filter(|_| whole && !buffer.is_empty());
        let check = expected.map_or(Check::Nothing, |sum| Check::Sum(sum.algorithm()));
        let (pieces, found) = self.fill(offset, buffer, check)?;
        if let (Some(expected), Some(found)) = (expected, found) {
            self.compare(offset, buffer.len() as u64, expected, found)?;
        }
        Ok(self.report(&pieces))
    }

    /// Fills `buffer` from `offset` and compares it with the checksum of the range.
    pub fn read_into_expecting(
        &self,
        offset: u64,
        buffer: &mut [u8],
        expected: Checksum,
    ) -> Result<()> {
        self.check_range(self.source.size_bytes(), offset, buffer.len() as u64)?;
        let (_, found) = self.fill(offset, buffer, Check::Sum(expected.algorithm()))?;
        let found = found.unwrap_or_else(|| expected.algorithm().checksum(&[]));
        self.compare(offset, buffer.len() as u64, expected, found)
    }

    fn compare(&self, offset: u64, bytes: u64, expected: Checksum, found: Checksum) -> Result<()> {
        if found != expected {
            return Err(mismatch(offset, bytes, expected, found).with_uri(&*self.uri));
        }
        Ok(())
    }

    /// Fills `buffer` from `offset`, comparing block by block.
    pub fn read_into_verified(
        &self,
        offset: u64,
        buffer: &mut [u8],
        expected: &BlockChecksums,
    ) -> Result<ReadReport> {
        let size_bytes = self.source.size_bytes();
        self.check_blocks(size_bytes, offset, buffer.len() as u64, expected)?;
        let (pieces, _) = self.fill(offset, buffer, Check::Blocks(expected))?;
        Ok(self.report(&pieces))
    }

    /// Reads everything once, through part buffers, and returns the checksum of each block.
    pub fn block_checksums(
        &self,
        block_bytes: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<BlockChecksums> {
        let size_bytes = self.source.size_bytes();
        let batch = Batch::new(self.pieces_expected(size_bytes));
        let check = Check::Sum(Algorithm::Crc32c);
        let target = |bytes| {
            // Few pieces are under way at a time, so what is queued is about what is read.
            progress(bytes as u64);
            Target::Scan(bytes)
        };
        self.submit_pieces(&batch, 0, size_bytes, Some(block_bytes), check, target)?;
        let pieces = self.settle(&batch, |piece| piece.index)?;
        let mut blocks =
            vec![Checksum::new(Algorithm::Crc32c, 0); size_bytes.div_ceil(block_bytes) as usize];
        let mut offset = 0;
        for piece in &pieces {
            let block = &mut blocks[(offset / block_bytes) as usize];
            if let Some(sum) = piece.checksum {
                *block = block.combine(sum, piece.bytes);
            }
            offset += piece.bytes;
        }
        let crc32c = blocks.iter().map(|block| block.value() as u32).collect();
        BlockChecksums::new(block_bytes, size_bytes, crc32c)
    }

    /// Whether a range lies within an object of `size` bytes.
    fn check_range(&self, size: u64, offset: u64, bytes: u64) -> Result<()> {
        match offset.checked_add(bytes) {
            Some(end) if end <= size => Ok(()),
            _ => Err(Error::invalid(
                "read",
                format!("{bytes} bytes at {offset} do not lie within the object's {size} bytes"),
            )
            .with_uri(&*self.uri)),
        }
    }

    /// Whether a range of an object of `size` bytes can be compared with `expected`, block by block.
    fn check_blocks(
        &self,
        size: u64,
        offset: u64,
        bytes: u64,
        expected: &BlockChecksums,
    ) -> Result<()> {
        if size != expected.size_bytes() {
            let what =
                format!("the object has {size} bytes, not the expected {}", expected.size_bytes());
            return Err(Error::new(ErrorKind::Incomplete, "verify", what).with_uri(&*self.uri));
        }
        self.check_range(size, offset, bytes)?;
        let end = offset + bytes;
        let on_block = |at: u64| at.is_multiple_of(expected.block_bytes());
        if on_block(offset) && (on_block(end) || end == size) {
            return Ok(());
        }
        let what = format!("bytes {offset}..{end} do not start and end with blocks");
        Err(Error::invalid("read", what).with_uri(&*self.uri))
    }

    /// Returns the pieces in order, and the checksum of the range where one was computed.
    fn fill(
        &self,
        offset: u64,
        buffer: &mut [u8],
        check: Check<'_>,
    ) -> Result<(Vec<Fetched>, Option<Checksum>)> {
        let bytes = buffer.len() as u64;
        let batch = Batch::new(self.pieces_expected(bytes));
        let block_bytes = match check {
            Check::Blocks(blocks) => Some(blocks.block_bytes()),
            _ => None,
        };
        let pieces = lend_mut(buffer, |lender: &mut LenderMut<'_>| {
            let target = |bytes| Target::Into(lender.loan_next(bytes));
            self.submit_pieces(&batch, offset, offset + bytes, block_bytes, check, target)?;
            self.settle(&batch, |piece| piece.index)
        })?;
        if let Check::Blocks(blocks) = check {
            self.compare_blocks(offset, &pieces, blocks)?;
        }
        let mut sum: Option<Checksum> = None;
        for (next, piece) in pieces.iter().filter_map(|piece| Some((piece.checksum?, piece))) {
            sum = Some(sum.map_or(next, |sum| sum.combine(next, piece.bytes)));
        }
        Ok((pieces, sum))
    }

    /// Cuts `from..to` at part and block boundaries and queues a job for each piece.
    fn submit_pieces(
        &self,
        batch: &Arc<Batch<Fetched>>,
        from: u64,
        to: u64,
        block_bytes: Option<u64>,
        check: Check<'_>,
        mut target: impl FnMut(usize) -> Target,
    ) -> Result<()> {
        let part_bytes = self.engine.config().part_bytes() as u64;
        let mut offset = from;
        let mut index = 0;
        while offset < to && !batch.is_dead() {
            let mut end = to.min((offset / part_bytes + 1) * part_bytes);
            if let Some(block_bytes) = block_bytes {
                end = end.min((offset / block_bytes).saturating_add(1).saturating_mul(block_bytes));
            }
            let deadline = self.engine.deadline();
            let fetch = Fetch {
                uri: Arc::clone(&self.uri),
                source: Arc::clone(&self.source),
                index,
                offset,
                target: target((end - offset) as usize),
                algorithm: check.algorithm(),
                expected: whole_block(check, offset, end),
                pool: Arc::clone(self.engine.pool()),
                deadline,
            };
            let job = Job::Fetch(FetchJob { fetch, pending: Pending::new(batch) });
            self.submit(batch, job, &deadline)?;
            offset = end;
            index += 1;
        }
        Ok(())
    }

    fn submit<T>(&self, batch: &Arc<Batch<T>>, job: Job, deadline: &Deadline) -> Result<()> {
        self.engine.submit(job, deadline).map_err(|e| batch.fail(e.with_uri(&*self.uri)))
    }

    /// Waits for all jobs of a batch, and returns their outcomes in order.
    fn settle<T>(&self, batch: &Arc<Batch<T>>, index: impl Fn(&T) -> u64) -> Result<Vec<T>> {
        if let Err(deadline) = self.engine.settle(batch) {
            return Err(batch.fail(self.engine.stalled("read", &deadline).with_uri(&*self.uri)));
        }
        batch.check()?;
        let mut outcomes = batch.take_outcomes();
        outcomes.sort_unstable_by_key(index);
        Ok(outcomes)
    }

    /// Compares the blocks that were read in several pieces; the others were compared on arrival.
    fn compare_blocks(
        &self,
        from: u64,
        pieces: &[Fetched],
        expected: &BlockChecksums,
    ) -> Result<()> {
        let block_bytes = expected.block_bytes();
        let mut offset = from;
        let mut found = Checksum::new(Algorithm::Crc32c, 0);
        for piece in pieces {
            if let Some(sum) = piece.checksum {
                found = found.combine(sum, piece.bytes);
            }
            offset += piece.bytes;
            if !offset.is_multiple_of(block_bytes) && offset != expected.size_bytes() {
                continue;
            }
            let index = ((offset - 1) / block_bytes) as usize;
            let wanted = Checksum::new(Algorithm::Crc32c, expected.crc32c()[index].into());
            if wanted != found {
                let start = index as u64 * block_bytes;
                let damaged = mismatch(start, offset - start, wanted, found);
                return Err(damaged.with_part(index as u64).with_uri(&*self.uri));
            }
            found = Checksum::new(Algorithm::Crc32c, 0);
        }
        Ok(())
    }

    fn pieces_expected(&self, bytes: u64) -> usize {
        let pieces = bytes.div_ceil(self.engine.config().part_bytes() as u64) as usize + 1;
        // A sparse file may claim any size.
        pieces.min(RECEIPTS_EXPECTED)
    }

    /// What reading these pieces was.
    fn report(&self, pieces: &[Fetched]) -> ReadReport {
        ReadReport {
            mode: self.source.mode(),
            bytes: pieces.iter().map(|piece| piece.bytes).sum(),
            copied_bytes: pieces.iter().map(|piece| piece.copied_bytes).sum(),
        }
    }
}

/// The index and the expected checksum of a piece that is a whole block.
fn whole_block(check: Check<'_>, from: u64, to: u64) -> Option<(u64, Checksum)> {
    let Check::Blocks(blocks) = check else { return None };
    let index = usize::try_from(from / blocks.block_bytes()).ok()?;
    let whole = from.is_multiple_of(blocks.block_bytes()) && to - from == blocks.bytes_of(index);
    let crc = blocks.crc32c().get(index).filter(|_| whole)?;
    Some((index as u64, Checksum::new(Algorithm::Crc32c, u64::from(*crc))))
}
