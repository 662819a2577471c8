//! Reading a compressed object: its seek table first, then the frames that hold what is wanted, in parallel.
//! How a frame comes through, and why no thread waits for itself, is told in `engine/frame.rs`.

use std::ops::Range;

use crate::buffer::{AlignedVec, LenderMut, LoanMut, Pool, PoolBuffer, lend_mut};
use crate::encode::{Algorithm, BlockChecksums, Checksum, Filter, FramePlace, SeekTable};
use crate::engine::{Batch, Fetched, FrameFetch, FrameJob, FrameSums, Framed, Job, Pending};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{READ_AHEAD_BYTES, RECEIPTS_EXPECTED};
use crate::store::{BrokenFrame, CompressedForm, FrameScan, ReadReport, ScanOptions};
use crate::sync::Arc;

use super::ObjectReader;

/// What closes a table, and is looked for first.
const FOOTER_BYTES: u64 = 9;

/// One version of a compressed object.
pub(crate) struct FrameReader<'a> {
    object: ObjectReader<'a>,
    form: CompressedForm,
    table: SeekTable,
    /// The table as it is stored.
    table_text: AlignedVec,
}

impl<'a> FrameReader<'a> {
    /// Reads the table, with one request, or two if it is long.
    ///
    /// # Errors
    /// `Corrupt` if there is none, or one of another object.
    pub fn open(object: ObjectReader<'a>, form: CompressedForm) -> Result<FrameReader<'a>> {
        let tail = object.tail()?;
        let table_text = object.table(tail, form.raw_bytes)?;
        FrameReader::with_table(object, form, table_text)
    }

    fn with_table(
        object: ObjectReader<'a>,
        form: CompressedForm,
        table_text: AlignedVec,
    ) -> Result<FrameReader<'a>> {
        let stored_bytes = object.source.size_bytes();
        let table = SeekTable::parse(&table_text, stored_bytes, form.raw_bytes)
            .map_err(|e| e.with_uri(&*object.uri))?;
        Ok(FrameReader { object, form, table, table_text })
    }

    /// Fills `buffer` with the raw bytes from `offset`.
    pub fn read_into(&self, offset: u64, buffer: &mut [u8]) -> Result<ReadReport> {
        self.object.check_range(self.form.raw_bytes, offset, buffer.len() as u64)?;
        let pieces = self.fill(offset, buffer, FrameSums::default())?;
        Ok(self.object.report(&pieces))
    }

    /// Fills `buffer` with the raw bytes from `offset`, comparing block by block.
    pub fn read_into_verified(
        &self,
        offset: u64,
        buffer: &mut [u8],
        expected: &BlockChecksums,
    ) -> Result<ReadReport> {
        let size_bytes = self.form.raw_bytes;
        self.object.check_blocks(size_bytes, offset, buffer.len() as u64, expected)?;
        let raw = Some((Algorithm::Crc32c, expected.block_bytes()));
        let pieces = self.fill(offset, buffer, FrameSums { raw, stored: None })?;
        self.object.compare_blocks(offset, &pieces, expected)?;
        Ok(self.object.report(&pieces))
    }

    fn fill(&self, offset: u64, buffer: &mut [u8], sums: FrameSums) -> Result<Vec<Fetched>> {
        let wanted = offset..offset + buffer.len() as u64;
        let frames = lend_mut(buffer, |lender: &mut LenderMut<'_>| {
            let target = |bytes| Some(lender.loan_next(bytes));
            self.decompress(self.table.frames_of(wanted.clone()), &wanted, sums, target)
        })?;
        Ok(frames.into_iter().flat_map(|frame| frame.pieces).collect())
    }

    /// Decompresses everything, keeps nothing, and tells what it came to. A broken frame hides no other.
    fn scan(&self, options: ScanOptions, progress: &mut dyn FnMut(u64)) -> Result<FrameScan> {
        let raw = Some((options.algorithm, options.block_bytes));
        let sums = FrameSums { raw, stored: Some(options.stored_algorithm) };
        let stored_bytes = self.object.source.size_bytes();
        let table = stored_bytes - self.table.own_bytes()..stored_bytes;
        progress(self.table.own_bytes());
        let frames = self.table.frames().inspect(|frame| progress(frame.stored_bytes() as u64));
        let frames = self.decompress(frames, &(0..self.form.raw_bytes), sums, |_| None)?;
        let mut found = FrameScan::of_table(table);
        let mut stored = Checksum::new(options.stored_algorithm, 0);
        for frame in &frames {
            if let Some(sum) = frame.stored {
                stored = stored.combine(sum, frame.place.stored_bytes() as u64);
            }
        }
        let table_sum = options.stored_algorithm.checksum(&self.table_text);
        found.stored = Some(stored.combine(table_sum, self.table.own_bytes()));
        found.blocks = blocks_of(&frames, self.form.raw_bytes, options);
        found.whole = combined(&found.blocks, self.form.raw_bytes, options);
        found.broken = frames.into_iter().filter_map(broken_frame).collect();
        Ok(found)
    }

    /// Queues a job for each frame, and waits for all. What is `wanted` of each goes to its `target`, which is
    /// asked for in the order of the frames.
    fn decompress(
        &self,
        frames: impl Iterator<Item = FramePlace>,
        wanted: &Range<u64>,
        sums: FrameSums,
        mut target: impl FnMut(usize) -> Option<LoanMut>,
    ) -> Result<Vec<Framed>> {
        let ObjectReader { uri, engine, source } = &self.object;
        let (stored_bytes_max, raw_bytes_max) = self.table.frame_bytes_max();
        let pool = engine.compute().reading_pool(stored_bytes_max);
        let expected = (wanted.end - wanted.start) / (raw_bytes_max as u64).max(1) + 1;
        let batch = Batch::new((expected as usize).min(RECEIPTS_EXPECTED));
        for place in frames {
            let buffer = self.buffer(&pool).map_err(|e| batch.fail(e))?;
            if batch.is_dead() {
                break;
            }
            let wanted = place.raw.start.max(wanted.start)..place.raw.end.min(wanted.end);
            let deadline = engine.deadline();
            let fetch = FrameFetch {
                uri: Arc::clone(uri),
                source: Arc::clone(source),
                target: target((wanted.end - wanted.start) as usize),
                place,
                wanted,
                filter: self.form.filter,
                sums,
                compute: Arc::clone(engine.compute()),
                deadline,
            };
            let job = Job::Frame(FrameJob { fetch, buffer, pending: Pending::new(&batch) });
            self.object.submit(&batch, job, &deadline)?;
        }
        self.object.settle(&batch, |frame| frame.place.index.into())
    }

    /// A buffer for the stored bytes of a frame.
    fn buffer(&self, pool: &Arc<Pool>) -> Result<PoolBuffer> {
        let (engine, deadline) = (self.object.engine, self.object.engine.deadline());
        let error = match pool.take_in_turn(&deadline) {
            Ok(buffer) => return Ok(buffer),
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                engine.stalled("wait for a frame buffer", &deadline)
            }
            Err(error) => error,
        };
        Err(error.with_uri(&*self.object.uri))
    }
}

impl ObjectReader<'_> {
    /// The form of a compressed object, as its own table tells it.
    pub fn compressed_form(self, filter: Filter) -> Result<CompressedForm> {
        let tail = self.tail()?;
        let table = self.table(tail, u64::MAX)?;
        let raw_bytes = SeekTable::stated_raw_bytes(&table).map_err(|e| e.with_uri(&*self.uri))?;
        let form = CompressedForm::new(raw_bytes, filter);
        FrameReader::with_table(self, form, table).map(|reader| reader.form)
    }

    /// Decompresses all of a compressed object; a table that is damaged is found, not an error.
    pub fn scan_frames(
        self,
        form: CompressedForm,
        options: ScanOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<FrameScan> {
        let (stored_bytes, tail) = (self.source.size_bytes(), self.tail()?);
        let table_bytes = SeekTable::table_bytes(&tail, form.raw_bytes).ok();
        let table_bytes = table_bytes.map_or(FOOTER_BYTES, |bytes| bytes as u64).min(stored_bytes);
        let table = stored_bytes - table_bytes..stored_bytes;
        let reader = match self.table(tail, form.raw_bytes) {
            Ok(text) => FrameReader::with_table(self, form, text),
            Err(error) => Err(error),
        };
        match reader {
            Ok(reader) => reader.scan(options, progress),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let table_damage = Some(error.to_string());
                Ok(FrameScan { table_damage, ..FrameScan::of_table(table) })
            }
            Err(error) => Err(error),
        }
    }

    /// The last bytes of the object, by one request: most tables are within.
    fn tail(&self) -> Result<AlignedVec> {
        let bytes = self.source.size_bytes().min(READ_AHEAD_BYTES as u64);
        let offset = self.source.size_bytes() - bytes;
        self.engine.read_owned(&self.uri, &self.source, offset, bytes as usize)
    }

    /// The seek table that `tail` ends with; what of it lies before is read.
    fn table(&self, tail: AlignedVec, raw_bytes: u64) -> Result<AlignedVec> {
        let size = self.source.size_bytes();
        let table_bytes = SeekTable::table_bytes(&tail, raw_bytes)
            .and_then(|bytes| match bytes as u64 > size {
                true => {
                    let what = format!("a seek table of {bytes} bytes in an object of {size}");
                    Err(Error::new(ErrorKind::Corrupt, "read seek table", what))
                }
                false => Ok(bytes),
            })
            .map_err(|e| e.with_uri(&*self.uri))?;
        let known = tail.len().min(table_bytes);
        let before = table_bytes - known;
        let mut table = AlignedVec::zeroed(table_bytes)?;
        if before > 0 {
            let offset = size - table_bytes as u64;
            let read = self.engine.read_owned(&self.uri, &self.source, offset, before)?;
            table[..before].copy_from_slice(&read);
        }
        table[before..].copy_from_slice(&tail[tail.len() - known..]);
        Ok(table)
    }
}

/// The checksum of each block of raw bytes; `None` where a broken frame holds a byte of it.
fn blocks_of(frames: &[Framed], raw_bytes: u64, options: ScanOptions) -> Vec<Option<Checksum>> {
    let (algorithm, block_bytes) = (options.algorithm, options.block_bytes);
    let count = raw_bytes.div_ceil(block_bytes) as usize;
    let mut blocks = vec![Some(Checksum::new(algorithm, 0)); count];
    for frame in frames {
        let raw = &frame.place.raw;
        if frame.broken.is_some() && !raw.is_empty() {
            let hidden =
                (raw.start / block_bytes) as usize..=((raw.end - 1) / block_bytes) as usize;
            blocks[hidden].fill(None);
        }
        let mut offset = raw.start;
        for piece in &frame.pieces {
            let block = &mut blocks[(offset / block_bytes) as usize];
            if let (Some(so_far), Some(sum)) = (*block, piece.checksum) {
                *block = Some(so_far.combine(sum, piece.bytes));
            }
            offset += piece.bytes;
        }
    }
    blocks
}

/// The checksum of all blocks, if each has one.
fn combined(blocks: &[Option<Checksum>], raw_bytes: u64, options: ScanOptions) -> Option<Checksum> {
    let mut whole = Checksum::new(options.algorithm, 0);
    let mut left = raw_bytes;
    for block in blocks {
        let bytes = left.min(options.block_bytes);
        whole = whole.combine((*block)?, bytes);
        left -= bytes;
    }
    Some(whole)
}

fn broken_frame(frame: Framed) -> Option<BrokenFrame> {
    let why = frame.broken?.to_string();
    let FramePlace { index, stored, raw } = frame.place;
    Some(BrokenFrame { index: index.into(), stored, raw, why })
}
