//! The stage above the one writer that compresses: from the caller's bytes to frames, compressed side by
//! side, to the stored bytes in their order, and the seek table behind them.

use std::collections::VecDeque;

use bytes::Bytes;

use super::StreamWriter;
use crate::backend::{ObjectMeta, WriteReport};
use crate::buffer::{Payload, PoolBuffer, lend};
use crate::encode::{
    Algorithm, BlockChecksums, Compression, Encoded, SeekTableBuilder, StreamHasher, Zstd,
    stored_frame,
};
use crate::engine::{Batch, Engine, FrameAllowance, Pending, withdrawn};
use crate::error::{Error, Result};
use crate::limits::{ABORT_TIMEOUT, HASH_STEP_BYTES};
use crate::store::ObjectWriter;
use crate::sync::Arc;
use crate::time::Deadline;

/// Writes one compressed object.
///
/// Every frame but the last holds [`frame_bytes`](crate::Config::frame_bytes) raw bytes, however the caller
/// cuts them, so that equal data gives equal objects. A frame is copied into a frame buffer as it comes, or
/// read where it is by a compressing thread; frames under way are finished in their order by the caller's
/// thread, which hands what they became to the writer below. The errors of both latch in that writer.
pub(crate) struct CompressingWriter {
    inner: StreamWriter,
    zstd: Zstd,
    /// Of the raw bytes; the writer below has one of the stored bytes.
    hasher: StreamHasher,
    filling: Option<PoolBuffer>,
    /// Bytes of `filling` that count.
    filled_bytes: usize,
    /// Bytes of `filling` that the caller may fill in place.
    reserved: usize,
    under_way: VecDeque<Arc<Batch<Frame>>>,
    allowance: FrameAllowance,
    table: SeekTableBuilder,
    next_frame: u64,
    /// Raw bytes of finished frames.
    finished_bytes: u64,
    finished_frames: u64,
    unshrunk_frames: u64,
    copied_bytes: u64,
}

/// A frame that was compressed, and the memory it came from and went to.
#[derive(Debug)]
struct Frame {
    raw_bytes: usize,
    input: Payload,
    output: PoolBuffer,
    encoded: Encoded,
}

impl Frame {
    fn finish(&self, write: impl FnMut(&[u8]) -> Result<()>) -> Result<usize> {
        let mut write = write;
        match self.encoded {
            Encoded::Compressed { bytes } => write(&self.output[..bytes]).map(|()| bytes),
            Encoded::Stored { content_checksum, filtered: true } => {
                stored_frame(&self.output[..self.raw_bytes], content_checksum, write)
            }
            Encoded::Stored { content_checksum, filtered: false } => self
                .input
                .with_bytes(|raw, _, _| stored_frame(raw, content_checksum, write))
                .unwrap_or_else(|| Err(withdrawn("compress"))),
        }
    }
}

/// Frame buffers of a frame under way.
fn buffers_of(input: &Payload) -> usize {
    1 + usize::from(matches!(input, Payload::Pooled { .. }))
}

impl CompressingWriter {
    /// `algorithm` is that of the writer below.
    pub fn new(inner: StreamWriter, zstd: Zstd, algorithm: Option<Algorithm>) -> CompressingWriter {
        let engine = &inner.engine;
        CompressingWriter {
            zstd,
            hasher: StreamHasher::new(algorithm, None, engine.config().part_bytes() as u64),
            filling: None,
            filled_bytes: 0,
            reserved: 0,
            under_way: VecDeque::new(),
            allowance: FrameAllowance::new(engine.compute()),
            table: SeekTableBuilder::new(),
            next_frame: 0,
            finished_bytes: 0,
            finished_frames: 0,
            unshrunk_frames: 0,
            copied_bytes: 0,
            inner,
        }
    }

    fn engine(&self) -> &Arc<Engine> {
        &self.inner.engine
    }

    fn frames_done(&self) -> u64 {
        self.engine().compute().frames_done()
    }

    fn frame_bytes(&self) -> usize {
        self.engine().compute().frame_bytes()
    }

    /// What every call begins with.
    fn begin(&mut self) -> Result<()> {
        self.reserved = 0;
        self.inner.check()
    }

    /// The free rest of the frame being filled, at least a byte.
    fn room(&mut self) -> Result<&mut [u8]> {
        let frame_bytes = self.frame_bytes();
        let filling = match self.filling.take() {
            Some(filling) => filling,
            None => self.take_buffer()?,
        };
        Ok(&mut self.filling.insert(filling)[self.filled_bytes..frame_bytes])
    }

    /// Counts the next bytes of [`room`](CompressingWriter::room).
    fn advance(&mut self, bytes: usize) -> Result<()> {
        let from = self.filled_bytes;
        self.filled_bytes += bytes;
        if let Some(filling) = &self.filling {
            self.hasher.update(&filling[from..self.filled_bytes]);
        }
        if self.filled_bytes == self.frame_bytes() { self.submit_filling() } else { Ok(()) }
    }

    fn append_copy(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let room = self.room()?;
            let step = data.len().min(room.len()).min(HASH_STEP_BYTES);
            let (now, later) = data.split_at(step);
            room[..step].copy_from_slice(now);
            self.copied_bytes += step as u64;
            self.advance(step)?;
            data = later;
        }
        Ok(())
    }

    /// Splits so many bytes into those that complete the frame being filled, which are copied, and whole
    /// frames, which are compressed where they are; the rest is copied after.
    fn split(&self, bytes: usize) -> (usize, usize) {
        let frame_bytes = self.frame_bytes();
        let head = if self.filled_bytes == 0 { 0 } else { frame_bytes - self.filled_bytes };
        match bytes.checked_sub(head) {
            Some(rest) if rest >= frame_bytes => (head, rest - rest % frame_bytes),
            _ => (bytes, 0),
        }
    }

    /// Compresses `bytes` bytes of memory that is handed over frame by frame.
    fn submit_frames(
        &mut self,
        data: &[u8],
        mut payload: impl FnMut(usize, usize) -> Payload,
    ) -> Result<()> {
        let frame_bytes = self.frame_bytes();
        for from in (0..data.len()).step_by(frame_bytes) {
            self.hasher.update(&data[from..from + frame_bytes]);
            self.submit(payload(from, from + frame_bytes), frame_bytes)?;
        }
        Ok(())
    }

    fn submit_filling(&mut self) -> Result<()> {
        let Some(buffer) = self.filling.take() else { return Ok(()) };
        let bytes = std::mem::take(&mut self.filled_bytes);
        self.submit(Payload::Pooled { buffer, bytes, padded_bytes: bytes }, bytes)
    }

    /// Lets a thread compress a frame. What is finished by then goes its way.
    fn submit(&mut self, input: Payload, raw_bytes: usize) -> Result<()> {
        self.inner.check_process()?;
        while self.under_way.front().is_some_and(|oldest| oldest.is_idle())
            || self.under_way.len() >= self.engine().compute().frames_ahead()
        {
            self.finish_oldest()?;
        }
        let mut output = self.take_buffer()?;
        let (zstd, index) = (self.zstd, self.next_frame);
        self.next_frame += 1;
        let compute = Arc::clone(self.engine().compute());
        let compress = move || {
            let encoded =
                input.with_bytes(|raw, _, _| compute.encode(zstd, index, raw, &mut output));
            let encoded = encoded.unwrap_or_else(|| Err(withdrawn("compress")))?;
            Ok(Frame { raw_bytes, input, output, encoded })
        };
        let batch = Batch::new(1);
        let pending = Pending::new(&batch);
        let uri = Arc::clone(&self.inner.uri);
        self.engine()
            .compute_frame(pending, "compress", &uri, index, compress)
            .map_err(|e| self.inner.fail(e))?;
        self.under_way.push_back(batch);
        Ok(())
    }

    /// A frame buffer, for which frames are finished as long as there is none.
    fn take_buffer(&mut self) -> Result<PoolBuffer> {
        self.inner.check_process()?;
        loop {
            let deadline = self.engine().deadline();
            let taken = self.allowance.take(&deadline).map_err(|e| self.inner.fail(e))?;
            match taken {
                Some(buffer) => return Ok(buffer),
                // A writer with nothing under way holds one buffer at most, and is given another.
                None => self.finish_oldest()?,
            }
        }
    }

    /// Waits for the oldest frame under way and writes it.
    fn finish_oldest(&mut self) -> Result<()> {
        self.inner.check_process()?;
        let Some(batch) = self.under_way.pop_front() else { return Ok(()) };
        let (mut deadline, mut done) = (self.engine().deadline(), self.frames_done());
        while !batch.wait_idle_until(&deadline) {
            if self.frames_done() == done {
                batch.withdraw();
                return Err(self.inner.fail(self.engine().stalled("compress", &deadline)));
            }
            // The threads get on with frames that stand before this one.
            (deadline, done) = (self.engine().deadline(), self.frames_done());
        }
        let frame = batch.take_single().map_err(|e| self.inner.fail(e))?;
        let stored_bytes = frame.finish(|piece| self.inner.write_chunk(piece));
        let stored_bytes = stored_bytes.map_err(|e| self.inner.fail(e))?;
        self.table.push(stored_bytes, frame.raw_bytes).map_err(|e| self.inner.fail(e))?;
        self.finished_bytes += frame.raw_bytes as u64;
        self.finished_frames += 1;
        self.unshrunk_frames += u64::from(matches!(frame.encoded, Encoded::Stored { .. }));
        let buffers = buffers_of(&frame.input);
        drop(frame);
        self.allowance.give_back(buffers);
        Ok(())
    }

    fn finish_all(&mut self) -> Result<()> {
        while !self.under_way.is_empty() {
            self.finish_oldest()?;
        }
        Ok(())
    }

    fn complete(&mut self) -> Result<ObjectMeta> {
        self.inner.check_process()?;
        self.begin()?;
        if self.next_frame == 0 {
            // An empty object has one empty frame, for tools that expect any.
            self.room()?;
        }
        // Room that was asked for and not used is no frame: equal data gives equal objects.
        if self.next_frame == 0 || self.filled_bytes > 0 {
            self.submit_filling()?;
        }
        self.finish_all()?;
        let table = std::mem::take(&mut self.table).into_bytes();
        self.inner.write_chunk(&table)?;
        let mut meta = self.inner.complete()?;
        meta.write = Some(self.report());
        Ok(meta)
    }
}

impl ObjectWriter for CompressingWriter {
    fn write_chunk(&mut self, data: &[u8]) -> Result<()> {
        self.begin()?;
        self.append_copy(data)
    }

    fn write_owned(&mut self, data: Bytes) -> Result<()> {
        self.begin()?;
        let (head, body) = self.split(data.len());
        self.append_copy(&data[..head])?;
        let frames = data.slice(head..head + body);
        self.submit_frames(&frames, |from, to| Payload::Owned(frames.slice(from..to)))?;
        self.append_copy(&data[head + body..])
    }

    fn write_borrowed(&mut self, data: &[u8]) -> Result<()> {
        self.begin()?;
        let (head, body) = self.split(data.len());
        self.append_copy(&data[..head])?;
        if body > 0 {
            let frames = &data[head..head + body];
            lend(frames, |lender| {
                self.submit_frames(frames, |from, to| Payload::Borrowed(lender.loan(from, to)))?;
                self.finish_all()
            })?;
        }
        self.append_copy(&data[head + body..])
    }

    fn reserve(&mut self) -> Result<&mut [u8]> {
        self.begin()?;
        self.reserved = self.room()?.len();
        self.room()
    }

    fn commit(&mut self, bytes: usize) -> Result<()> {
        self.inner.check()?;
        let reserved = std::mem::take(&mut self.reserved);
        if bytes > reserved {
            self.reserved = reserved;
            let what = format!("{bytes} bytes committed of {reserved} reserved");
            return Err(Error::invalid("commit reservation", what).with_uri(&*self.inner.uri));
        }
        self.advance(bytes)
    }

    fn checksum(&self) -> Option<String> {
        self.hasher.checksum().map(|checksum| checksum.to_string())
    }

    fn block_checksums(&self) -> Option<BlockChecksums> {
        self.hasher.block_checksums()
    }

    fn bytes_written(&self) -> u64 {
        self.hasher.bytes()
    }

    fn compressed_bytes(&self) -> u64 {
        self.inner.bytes_written()
    }

    fn compression(&self) -> Compression {
        Compression::Zstd(self.zstd)
    }

    fn compression_ratio(&self) -> f64 {
        match self.finished_bytes {
            0 => 1.0,
            raw => self.compressed_bytes() as f64 / raw as f64,
        }
    }

    fn report(&self) -> WriteReport {
        let mut report = self.inner.report();
        report.bytes = self.hasher.bytes();
        report.copied_bytes += self.copied_bytes;
        report.frames = self.finished_frames;
        report.unshrunk_frames = self.unshrunk_frames;
        report
    }

    fn finalize(mut self: Box<Self>) -> Result<ObjectMeta> {
        // On an error the drop of the writer below aborts.
        self.complete()
    }

    fn cancel(mut self: Box<Self>) -> Result<()> {
        self.withdraw();
        self.inner.abort()
    }
}

impl CompressingWriter {
    /// Gives frames under way up: those that no thread has begun are skipped, and the others waited for, so
    /// that their memory is back.
    fn withdraw(&mut self) {
        for batch in &self.under_way {
            batch.withdraw();
        }
        // In a process that was forked nobody works on them.
        if !self.engine().is_of_another_process() {
            let timeout = self.engine().config().timeout().min(ABORT_TIMEOUT);
            let deadline = Deadline::after(timeout);
            for batch in self.under_way.drain(..) {
                batch.wait_idle_until(&deadline);
                // Its thread may hold on to the batch a moment longer than it works.
                drop(batch.take_outcomes());
            }
        }
    }
}

impl Drop for CompressingWriter {
    fn drop(&mut self) {
        self.withdraw();
    }
}
