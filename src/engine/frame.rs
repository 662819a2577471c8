//! Reading one frame of a compressed object: an I/O thread reads its stored bytes into a frame buffer, and a
//! compressing thread decompresses them, hashes what comes out, and gives the buffer back.
//!
//! No thread waits for what only it can free. The caller takes the buffer of a frame before it queues the job,
//! and waits for one in its turn; buffers of its own are then with jobs, which get on without it. A job that is
//! queued is found by an I/O thread, which waits for its medium alone; the hand-over to the compressing threads
//! never waits: their queue has no bound, since what stands in it is bounded by the buffers. A compressing
//! thread waits for nothing: neither for a buffer, nor for an I/O thread, nor for room in a queue. So each
//! buffer comes back as soon as the medium answers and a processor is free, and if a medium stalls, the caller
//! gives up after one timeout and says where the threads are.

use std::ops::Range;

use crate::backend::Source;
use crate::buffer::{LoanMut, PoolBuffer};
use crate::encode::{Algorithm, Checksum, Filter, FrameDecoder, FramePlace};
use crate::engine::compute::Compute;
use crate::engine::fetch::{Fetched, SourceReader};
use crate::engine::queue::{attempted, withdrawn};
use crate::engine::ticket::Pending;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;
use crate::time::Deadline;

const READ: &str = "read frame";
const DECOMPRESS: &str = "decompress";

/// One frame to read and decompress.
#[derive(Debug)]
pub(crate) struct FrameFetch {
    pub uri: Arc<str>,
    pub source: Arc<dyn Source>,
    pub place: FramePlace,
    /// The raw bytes of the object that are wanted of it.
    pub wanted: Range<u64>,
    /// Where they go. `None`: they are looked at and not kept, and a damaged frame is no error but an outcome.
    pub target: Option<LoanMut>,
    pub filter: Filter,
    pub sums: FrameSums,
    pub compute: Arc<Compute>,
    pub deadline: Deadline,
}

/// What is hashed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FrameSums {
    /// Of the wanted raw bytes: the algorithm, and the bytes of the blocks at whose ends they are cut.
    pub raw: Option<(Algorithm, u64)>,
    /// Of the stored bytes.
    pub stored: Option<Algorithm>,
}

/// What became of a frame.
#[derive(Debug)]
pub(crate) struct Framed {
    pub place: FramePlace,
    /// The wanted raw bytes in order, cut where blocks end; none of a broken frame.
    pub pieces: Vec<Fetched>,
    pub stored: Option<Checksum>,
    /// Why it does not decompress.
    pub broken: Option<Error>,
}

/// Reads one frame, and has it decompressed.
#[derive(Debug)]
pub(crate) struct FrameJob {
    pub fetch: FrameFetch,
    /// For the stored bytes.
    pub buffer: PoolBuffer,
    /// Last: when the job is dropped unrun, the buffer is back before the ticket completes.
    pub pending: Pending<Framed>,
}

impl FrameJob {
    pub(super) fn subject(&self) -> (&'static str, &Arc<str>, Option<u64>) {
        (READ, &self.fetch.uri, Some(self.fetch.place.index.into()))
    }

    pub(super) fn run(self) {
        let FrameJob { mut fetch, mut buffer, pending } = self;
        // What it waited for its turn was the progress of others.
        fetch.deadline = fetch.deadline.renewed();
        let (uri, index) = (Arc::clone(&fetch.uri), u64::from(fetch.place.index));
        let compute = Arc::clone(&fetch.compute);
        let read = attempted(pending, READ, &uri, Some(index), move || {
            let place = fetch.read(&mut buffer)?;
            Ok((fetch, buffer, place))
        });
        let Some((pending, (fetch, buffer, place))) = read else { return };
        pending.progress();
        // If the threads do not start, the ticket says so.
        let _ = compute.run(pending, DECOMPRESS, &uri, index, move || fetch.decode(&buffer[place]));
    }
}

impl FrameFetch {
    fn read(&self, buffer: &mut [u8]) -> Result<Range<usize>> {
        let reader = SourceReader { source: &*self.source, deadline: &self.deadline };
        reader.read_around(self.place.stored.start, self.place.stored_bytes(), buffer)
    }

    fn decode(mut self, stored: &[u8]) -> Result<Framed> {
        let stored_sum = self.sums.stored.map(|algorithm| algorithm.checksum(stored));
        let compute = Arc::clone(&self.compute);
        let (pieces, broken) = match compute
            .with_decoder(|decoder| self.decompress(decoder, stored))
        {
            Ok(pieces) => (pieces, None),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let error = error.with_place(&self.place.describe());
                if self.target.is_some() {
                    return Err(error.with_remedy("restore an earlier checkpoint or another copy"));
                }
                (Vec::new(), Some(error))
            }
            Err(error) => return Err(error),
        };
        Ok(Framed { place: self.place, pieces, stored: stored_sum, broken })
    }

    fn decompress(&mut self, decoder: &mut FrameDecoder, stored: &[u8]) -> Result<Vec<Fetched>> {
        let FrameFetch { place, wanted, target, filter, sums, .. } = self;
        let (raw_bytes, filter) = (place.raw_bytes(), *filter);
        let from = (wanted.start - place.raw.start) as usize;
        let within = from..from + (wanted.end - wanted.start) as usize;
        let Some(loan) = target else {
            let hash = |raw: &[u8]| sums.cut(wanted.start, &raw[within], false);
            return decoder.decode_through(stored, raw_bytes, filter, hash);
        };
        let decoded = loan.with(|memory| {
            let whole = memory.len() == raw_bytes;
            if whole {
                decoder.decode(stored, memory, filter)?;
            } else {
                let copy = |raw: &[u8]| memory.copy_from_slice(&raw[within]);
                decoder.decode_through(stored, raw_bytes, filter, copy)?;
            }
            Ok(sums.cut(wanted.start, memory, !whole))
        });
        decoded.unwrap_or_else(|| Err(withdrawn(READ)))
    }
}

impl FrameSums {
    /// Cuts raw bytes, which begin at `offset` of the object, where blocks end, and hashes the pieces.
    fn cut(&self, mut offset: u64, mut raw: &[u8], copied: bool) -> Vec<Fetched> {
        let piece = |piece: &[u8], checksum| {
            let bytes = piece.len() as u64;
            Fetched { index: 0, bytes, copied_bytes: if copied { bytes } else { 0 }, checksum }
        };
        let Some((algorithm, block_bytes)) = self.raw else { return vec![piece(raw, None)] };
        let mut pieces = Vec::new();
        while !raw.is_empty() {
            let left = block_bytes - offset % block_bytes;
            let bytes = usize::try_from(left).map_or(raw.len(), |left| left.min(raw.len()));
            let (now, later) = raw.split_at(bytes);
            pieces.push(piece(now, Some(algorithm.checksum(now))));
            offset += bytes as u64;
            raw = later;
        }
        pieces
    }
}
