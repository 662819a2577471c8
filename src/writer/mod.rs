//! The one writer: from the caller's bytes to parts, checksummed on the way, to a checked commit.

mod compressing;
mod filling;
mod many;
mod plan;

use bytes::Bytes;

use crate::backend::{
    ObjectMeta, PartLimits, Receipt, ServerReport, Upload, UploadSpec, WriteReport,
};
use crate::buffer::{Part, Payload, lend};
use crate::encode::{BlockChecksums, Checksum, Compression, StreamHasher};
use crate::engine::{Batch, Engine, Job, Pending, PutJob, WriterPermit, with_view};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{ABORT_TIMEOUT, HANDOVER_BYTES_MIN, HASH_STEP_BYTES, RECEIPTS_EXPECTED};
use crate::store::ObjectWriter;
use crate::sync::Arc;
use crate::time::Deadline;
pub(crate) use compressing::CompressingWriter;
use filling::Filling;
pub(crate) use many::{SmallObject, put_window};
use plan::PartPlan;

/// Writes one object through one upload of any backend.
///
/// Every part but the last starts and ends at a multiple of the upload's alignment. Bytes that cannot
/// be handed over as they are go through `filling`, and `filling` is handed over when it is full, when
/// memory of the caller's follows it, and at the end. Where the medium wants a smallest part, memory of
/// the caller's is handed over in pieces of at least that size, and what is left is copied; where it
/// takes small objects whole, the first part waits for what follows it.
pub(crate) struct StreamWriter {
    uri: Arc<str>,
    engine: Arc<Engine>,
    upload: Arc<dyn Upload>,
    batch: Arc<Batch<Receipt>>,
    limits: PartLimits,
    plan: PartPlan,
    hasher: StreamHasher,
    filling: Option<Filling>,
    /// Bytes of `filling` that the caller may fill in place.
    reserved: usize,
    next_part: u64,
    /// Where the next part starts in the object.
    next_offset: u64,
    copied_bytes: u64,
    /// Set when nothing is left to abort.
    finished: bool,
    _permit: WriterPermit,
}

impl StreamWriter {
    pub fn new(
        uri: &Arc<str>,
        engine: &Arc<Engine>,
        permit: WriterPermit,
        upload: Arc<dyn Upload>,
        spec: UploadSpec,
    ) -> Result<StreamWriter> {
        let UploadSpec { size_hint_bytes, algorithm, .. } = spec;
        let config = engine.config();
        let part_bytes = config.part_bytes() as u64;
        let parts =
            size_hint_bytes.map_or(RECEIPTS_EXPECTED, |bytes| bytes.div_ceil(part_bytes) as usize);
        let limits = upload.limits();
        let transport = upload.transport_checksum().filter(|second| Some(*second) != algorithm);
        // Beside the buffers that the other writers may be filling.
        let units_max = config.buffers_max() - (config.open_writers_max() - 1);
        let plan = PartPlan::new(config.part_bytes(), limits, size_hint_bytes, units_max)
            .map_err(|e| e.with_uri(&**uri))?;
        Ok(StreamWriter {
            uri: Arc::clone(uri),
            engine: Arc::clone(engine),
            upload,
            batch: Batch::new(parts.min(RECEIPTS_EXPECTED)),
            limits,
            plan,
            hasher: StreamHasher::new(algorithm, transport, part_bytes),
            filling: None,
            reserved: 0,
            next_part: 0,
            next_offset: 0,
            copied_bytes: 0,
            finished: false,
            _permit: permit,
        })
    }

    fn checksum_value(&self) -> Option<Checksum> {
        self.hasher.checksum()
    }

    /// The buffer being filled, which has room for a byte at least.
    fn filling(&mut self) -> Result<&mut Filling> {
        if self.filling.as_ref().is_some_and(Filling::is_full) {
            self.hand_over_filling()?;
        }
        let filling = match self.filling.take() {
            Some(filling) => filling,
            None => self.begin_filling().map_err(|e| self.fail(e))?,
        };
        Ok(self.filling.insert(filling))
    }

    fn begin_filling(&mut self) -> Result<Filling> {
        self.check_process()?;
        let units = self.plan.units(self.next_part, self.next_offset)?;
        let deadline = self.engine.deadline();
        let pool = self.engine.pool();
        if units == 1 {
            // The steady state, which allocates nothing.
            return Ok(Filling::new(pool.take_in_turn(&deadline)?, Vec::new()));
        }
        let mut buffers = pool.take_many(units, &deadline)?;
        let first = buffers.pop().ok_or_else(|| Error::invalid("write part", "an empty part"))?;
        Ok(Filling::new(first, buffers))
    }

    /// Bytes copied for the next part so far.
    fn filled_bytes(&self) -> usize {
        self.filling.as_ref().map_or(0, Filling::bytes)
    }

    /// Hands the filling over if it is full. The first part of an object that may be put whole waits
    /// until there is a second.
    fn hand_over_if_full(&mut self) -> Result<()> {
        let waits = self.limits.whole && self.next_part == 0;
        match &self.filling {
            Some(filling) if filling.is_full() && !waits => self.hand_over_filling(),
            _ => Ok(()),
        }
    }

    /// Appends a copy, in steps that stay in the cache between the copy and the hash.
    fn append_copy(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let filling = self.filling()?;
            let room = filling.room();
            let step = data.len().min(room.len()).min(HASH_STEP_BYTES);
            let (now, later) = data.split_at(step);
            room[..step].copy_from_slice(now);
            filling.advance(step);
            self.hasher.update(now);
            self.copied_bytes += step as u64;
            self.hand_over_if_full()?;
            data = later;
        }
        Ok(())
    }

    /// Splits `bytes` bytes at `address` into those to copy first and those to hand over as they are;
    /// the rest is copied after.
    fn split(&self, address: usize, bytes: usize) -> (usize, usize) {
        let alignment = self.upload.alignment();
        let offset = self.hasher.bytes();
        let filled = self.filled_bytes();
        let mut head = (offset.next_multiple_of(alignment.offset_bytes as u64) - offset) as usize;
        if filled > 0 {
            // The filling becomes a part of its own, and not the last.
            head = head.max(self.plan.bytes_min().saturating_sub(filled));
        }
        let whole = self.limits.whole
            && self.next_part == 0
            && filled + bytes <= self.engine.config().part_bytes();
        let least = HANDOVER_BYTES_MIN.max(self.plan.bytes_min());
        if whole
            || bytes < head + least
            || !alignment.admits(address.wrapping_add(head), offset + head as u64)
        {
            return (bytes, 0);
        }
        (head, (bytes - head) / alignment.offset_bytes * alignment.offset_bytes)
    }

    /// Copies what must be copied before memory of the caller's can follow. Returns how many bytes that
    /// were, and how many can be handed over as they are.
    fn lead_in(&mut self, data: &[u8]) -> Result<(usize, usize)> {
        self.check()?;
        self.reserved = 0;
        let (head, body) = self.split(data.as_ptr().addr(), data.len());
        self.append_copy(&data[..head])?;
        if body > 0 {
            self.hand_over_filling()?;
        }
        Ok((head, body))
    }

    /// The next piece of memory handed over, of `left` bytes: it ends where a full part would. `None`
    /// if what is left is too small for a part.
    fn piece_bytes(&mut self, left: usize) -> Result<Option<usize>> {
        if left == 0 || left < self.limits.bytes_min {
            return Ok(None);
        }
        let part_bytes = self.engine.config().part_bytes();
        let units = self.plan.units(self.next_part, self.next_offset).map_err(|e| self.fail(e))?;
        let from_boundary = (self.hasher.bytes() % part_bytes as u64) as usize;
        let full = units * part_bytes;
        let least = self.plan.bytes_min();
        if left < least {
            return Ok(None);
        }
        let piece = match full - from_boundary {
            short if short < least => short + part_bytes,
            piece => piece,
        };
        // A rest too small for a part goes with this one.
        let together = left < piece + least && left as u64 <= self.limits.bytes_max;
        Ok(Some(if together { left } else { piece.min(left) }))
    }

    fn hand_over_filling(&mut self) -> Result<()> {
        self.reserved = 0;
        let Some(filling) = self.filling.take() else { return Ok(()) };
        if filling.bytes() == 0 {
            return Ok(());
        }
        let unit_bytes = self.upload.alignment().offset_bytes;
        self.hand_over(filling.into_payload(unit_bytes))
    }

    /// A part made of what was hashed since the last one.
    fn cut_part(&mut self, payload: Payload) -> Part {
        let sum = self.hasher.cut_part();
        let part = Part { index: self.next_part, offset: self.next_offset, sum, payload };
        self.next_part += 1;
        self.next_offset += sum.bytes;
        part
    }

    fn hand_over(&mut self, payload: Payload) -> Result<()> {
        self.check_process()?;
        let part = self.cut_part(payload);
        let deadline = self.engine.deadline();
        let job = PutJob {
            uri: Arc::clone(&self.uri),
            upload: Arc::clone(&self.upload),
            part,
            deadline,
            pending: Pending::new(&self.batch),
        };
        self.engine.submit(Job::Put(job), &deadline).map_err(|e| self.fail(e))
    }

    /// Waits for all parts handed over so far.
    fn settle(&self) -> Result<()> {
        if let Err(deadline) = self.engine.settle(&self.batch) {
            return Err(self.fail(self.engine.stalled("wait for parts", &deadline)));
        }
        self.batch.check()
    }

    /// What every call begins with: the first error, if any.
    fn check(&self) -> Result<()> {
        if !self.batch.is_dead() {
            return Ok(());
        }
        self.check_process()?;
        self.batch.check()
    }

    /// Refuses to go on in the child of a fork, where none of the locks below may be waited for.
    fn check_process(&self) -> Result<()> {
        self.engine.check_process().map_err(|e| e.with_uri(&*self.uri))
    }

    /// Latches an error; returns the first one.
    fn fail(&self, error: Error) -> Error {
        let error = error.with_uri(&*self.uri);
        // In the child of a fork the next call is refused as this one was.
        if self.engine.is_of_another_process() { error } else { self.batch.fail(error) }
    }

    /// Compares what the backend took with what was hashed: count, places, sizes and checksums.
    fn prove(&self, receipts: &[Receipt]) -> Result<()> {
        let wrong = |what: String| Error::new(ErrorKind::ChecksumMismatch, "commit", what);
        let mut bytes = 0;
        let mut combined: Option<Checksum> = None;
        for (index, receipt) in receipts.iter().enumerate() {
            if receipt.index != index as u64 || receipt.offset != bytes {
                return Err(wrong(format!("part {index} is not where it belongs")));
            }
            bytes += receipt.bytes;
            if let Some(sum) = receipt.checksum {
                combined = Some(combined.map_or(sum, |c| c.combine(sum, receipt.bytes)));
            }
        }
        if receipts.len() as u64 != self.next_part || bytes != self.hasher.bytes() {
            let (parts, expected) = (receipts.len(), self.hasher.bytes());
            return Err(wrong(format!("{parts} parts of {bytes} bytes arrived, not {expected}")));
        }
        match (combined, self.checksum_value()) {
            (Some(parts), Some(object)) if parts != object => {
                Err(wrong(format!("the parts' checksum is {parts}, the object's {object}")))
            }
            _ => Ok(()),
        }
    }

    fn complete(&mut self) -> Result<ObjectMeta> {
        self.check_process()?;
        self.batch.check()?;
        if self.limits.whole && self.next_part == 0 {
            return self.complete_whole();
        }
        self.hand_over_filling()?;
        self.settle()?;
        let mut receipts = self.batch.take_outcomes();
        receipts.sort_unstable_by_key(|receipt| receipt.index);
        self.prove(&receipts).map_err(|e| self.fail(e))?;
        let (upload, size_bytes) = (Arc::clone(&self.upload), self.hasher.bytes());
        let commit = move |deadline: &Deadline, alive: &dyn Fn()| {
            upload.commit(&receipts, size_bytes, deadline, alive)
        };
        let committed = self.engine.call_patiently("commit", &self.uri, commit);
        self.committed(committed)
    }

    /// Puts an object of one part, or of none, in one step.
    fn complete_whole(&mut self) -> Result<ObjectMeta> {
        let payload = match self.filling.take() {
            Some(filling) => filling.into_payload(1),
            None => Payload::Owned(Bytes::new()),
        };
        let part = self.cut_part(payload);
        let upload = Arc::clone(&self.upload);
        let put = move |deadline: &Deadline| with_view(&part, |v| upload.put_whole(v, deadline));
        let committed = self.engine.call("commit", &self.uri, put);
        self.committed(committed)
    }

    fn committed(&mut self, committed: Result<ObjectMeta>) -> Result<ObjectMeta> {
        let mut meta = committed.map_err(|e| self.fail(told_unknown(e)))?;
        self.finished = true;
        meta.checksum = self.checksum();
        meta.write = Some(self.report());
        Ok(meta)
    }

    /// Ends the upload: parts still queued are skipped, those under way are waited for a while.
    fn abort(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.finished, true) {
            return Ok(());
        }
        self.batch.withdraw();
        self.filling = None;
        if self.engine.is_of_another_process() {
            // A copy that came with a fork: the upload is the parent's.
            return Ok(());
        }
        let timeout = self.engine.config().timeout().min(ABORT_TIMEOUT);
        let deadline = Deadline::after(timeout);
        self.batch.wait_idle_until(&deadline);
        let upload = Arc::clone(&self.upload);
        self.engine
            .call_until("cancel", &self.uri, Deadline::after(timeout), move |d| upload.abort(d))
    }
}

/// A commit that nobody waited for to the end, or that was never answered, may have made its object visible.
fn told_unknown(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Unavailable if error.remedy().is_some() => error,
        ErrorKind::TimedOut | ErrorKind::Unavailable => error.with_remedy(
            "whether the object became visible is unknown: check the medium, then look for it",
        ),
        _ => error,
    }
}

impl ObjectWriter for StreamWriter {
    fn write_chunk(&mut self, data: &[u8]) -> Result<()> {
        self.check()?;
        self.reserved = 0;
        self.append_copy(data)
    }

    fn write_owned(&mut self, data: Bytes) -> Result<()> {
        let (head, body) = self.lead_in(&data)?;
        let mut at = head;
        while let Some(bytes) = self.piece_bytes(head + body - at)? {
            let piece = data.slice(at..at + bytes);
            at += bytes;
            self.hasher.update(&piece);
            self.hand_over(Payload::Owned(piece))?;
        }
        self.append_copy(&data[at..])
    }

    fn write_borrowed(&mut self, data: &[u8]) -> Result<()> {
        let (head, body) = self.lead_in(data)?;
        let mut at = head;
        if body > 0 {
            lend(data, |lender| {
                while let Some(bytes) = self.piece_bytes(head + body - at)? {
                    let to = at + bytes;
                    self.hasher.update(&data[at..to]);
                    self.hand_over(Payload::Borrowed(lender.loan(at, to)))?;
                    at = to;
                }
                self.settle()
            })?;
        }
        self.append_copy(&data[at..])
    }

    fn reserve(&mut self) -> Result<&mut [u8]> {
        self.check()?;
        self.reserved = self.filling()?.room().len();
        Ok(self.filling()?.room())
    }

    fn commit(&mut self, bytes: usize) -> Result<()> {
        self.check()?;
        if bytes > self.reserved {
            let reserved = self.reserved;
            let what = format!("{bytes} bytes committed of {reserved} reserved");
            return Err(Error::invalid("commit reservation", what).with_uri(&*self.uri));
        }
        self.reserved = 0;
        let Some(filling) = &mut self.filling else { return Ok(()) };
        self.hasher.update(filling.advance(bytes));
        self.hand_over_if_full()
    }

    fn checksum(&self) -> Option<String> {
        self.checksum_value().map(|checksum| checksum.to_string())
    }

    fn block_checksums(&self) -> Option<BlockChecksums> {
        self.hasher.block_checksums()
    }

    fn bytes_written(&self) -> u64 {
        self.hasher.bytes()
    }

    fn compressed_bytes(&self) -> u64 {
        self.hasher.bytes()
    }

    fn compression(&self) -> Compression {
        Compression::None
    }

    fn compression_ratio(&self) -> f64 {
        1.0
    }

    fn report(&self) -> WriteReport {
        let server = match self.engine.is_of_another_process() {
            true => ServerReport::default(),
            false => self.upload.server(),
        };
        WriteReport {
            mode: self.upload.mode(),
            bytes: self.hasher.bytes(),
            stored_bytes: self.hasher.bytes(),
            frames: 0,
            unshrunk_frames: 0,
            copied_bytes: self.copied_bytes,
            parts: self.next_part,
            proof: server.proof,
            create_only_held: server.create_only_held,
        }
    }

    fn finalize(mut self: Box<Self>) -> Result<ObjectMeta> {
        // On an error the drop of `self` aborts.
        self.complete()
    }

    fn cancel(mut self: Box<Self>) -> Result<()> {
        self.abort()
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        if let Err(error) = self.abort() {
            log::warn!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_without_an_answer_says_that_its_outcome_is_unknown() {
        let of = |kind| told_unknown(Error::new(kind, "commit", "closed without an answer"));
        for kind in [ErrorKind::TimedOut, ErrorKind::Unavailable] {
            assert!(of(kind).to_string().contains("unknown"), "{kind:?}");
        }
        assert_eq!(of(ErrorKind::NoSpace).remedy(), None);
        let told = Error::new(ErrorKind::Unavailable, "commit", "x").with_remedy("do this");
        assert_eq!(told_unknown(told).remedy(), Some("do this"));
    }
}
