//! The threads that compress and decompress, and the memory this takes.
//!
//! They are not the I/O threads: those wait, these compute, and there are as many as there are processors.
//!
//! A writer that compresses may always hold two frame buffers, the one it fills and the one that the frame is
//! compressed into. More, so that several frames are under way, come from a common stock that nobody waits
//! for: a writer that finds it empty finishes its own oldest frame first. So no writer waits for another,
//! also where one thread fills several in turn.

use crate::buffer::{Pool, PoolBuffer};
use crate::config::Config;
use crate::encode::{Encoded, FrameDecoder, FrameEncoder, Zstd, stored_bytes_max};
use crate::engine::queue::guarded;
use crate::engine::ticket::Pending;
use crate::error::Result;
use crate::limits::PART_BYTES_MULTIPLE;
use crate::sync::{Arc, AtomicU64, Mutex, OnceLock, Ordering, ThreadPool, lock};
use crate::time::Deadline;

/// What compressing and decompressing needs, of one engine.
pub(crate) struct Compute {
    threads: usize,
    frame_bytes: usize,
    /// Started with the first frame.
    pool: OnceLock<Result<ThreadPool>>,
    frames_done: Arc<AtomicU64>,
    writing: Arc<Pool>,
    /// Buffers of the common stock that are not taken.
    stock: AtomicU64,
    #[cfg(test)]
    stock_frames: u64,
    /// Its buffers are as large as the largest frame read so far.
    reading: Mutex<Arc<Pool>>,
    encoders: Mutex<Vec<FrameEncoder>>,
    decoders: Mutex<Vec<FrameDecoder>>,
    /// The frame at which the next encoder fails, or panics: for tests of what follows from it.
    #[cfg(test)]
    broken: Mutex<Option<(u64, bool)>>,
}

impl Compute {
    pub fn new(config: &Config) -> Arc<Compute> {
        let frame_bytes = config.frame_bytes();
        let buffer_bytes = frame_buffer_bytes(stored_bytes_max(frame_bytes));
        Arc::new(Compute {
            threads: config.compression_threads(),
            frame_bytes,
            pool: OnceLock::new(),
            frames_done: Arc::default(),
            writing: Pool::new(buffer_bytes, config.writing_frames_max()),
            stock: AtomicU64::new(config.stock_frames() as u64),
            #[cfg(test)]
            stock_frames: config.stock_frames() as u64,
            reading: Mutex::new(Pool::new(buffer_bytes, config.reading_frames_max())),
            encoders: Mutex::new(Vec::new()),
            decoders: Mutex::new(Vec::new()),
            #[cfg(test)]
            broken: Mutex::new(None),
        })
    }

    /// Raw bytes of the frames that are written.
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// Frames that may be under way for one writer or reader, so that no thread waits for the next.
    pub fn frames_ahead(&self) -> usize {
        self.threads + 1
    }

    /// Runs `f` on one of the threads, and completes the ticket with what came of it.
    ///
    /// # Errors
    /// If the threads cannot be started; the ticket then has that outcome.
    pub fn run<T: Send + 'static>(
        &self,
        pending: Pending<T>,
        operation: &'static str,
        uri: &Arc<str>,
        frame: u64,
        f: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<()> {
        let start = || ThreadPool::new("syncline-compress", self.threads);
        let pool = match self.pool.get_or_init(start) {
            Ok(pool) => pool,
            Err(error) => {
                pending.complete(Err(error.clone().with_uri(&**uri)));
                return Err(error.clone());
            }
        };
        let uri = Arc::clone(uri);
        let done = Arc::clone(&self.frames_done);
        pool.threads().spawn(move || {
            guarded(pending, operation, &uri, Some(frame), f);
            done.fetch_add(1, Ordering::AcqRel);
        });
        Ok(())
    }

    /// Frames so far, of all writers and readers: who waits behind others sees that they get on.
    pub fn frames_done(&self) -> u64 {
        self.frames_done.load(Ordering::Acquire)
    }

    /// Compresses one frame, as [`FrameEncoder::encode`] does. An encoder that fails is not used again.
    pub fn encode(&self, zstd: Zstd, frame: u64, raw: &[u8], output: &mut [u8]) -> Result<Encoded> {
        #[cfg(test)]
        self.break_down(frame)?;
        let known = {
            let mut encoders = lock(&self.encoders);
            let at = encoders.iter().position(|encoder| encoder.zstd() == zstd);
            at.map(|at| encoders.swap_remove(at))
        };
        let mut encoder = known.map_or_else(|| FrameEncoder::new(zstd), Ok)?;
        let outcome = encoder.encode(frame, raw, output)?;
        let mut encoders = lock(&self.encoders);
        if encoders.len() == self.threads {
            // Of other settings, which nobody uses at present.
            encoders.remove(0);
        }
        encoders.push(encoder);
        Ok(outcome)
    }

    /// Lends a decoder. One that fails is not used again.
    pub fn with_decoder<T>(&self, f: impl FnOnce(&mut FrameDecoder) -> Result<T>) -> Result<T> {
        let known = lock(&self.decoders).pop();
        let mut decoder = known.map_or_else(FrameDecoder::new, Ok)?;
        let outcome = f(&mut decoder)?;
        let mut decoders = lock(&self.decoders);
        if decoders.len() < self.threads {
            decoders.push(decoder);
        }
        Ok(outcome)
    }

    /// The pool of buffers for frames of up to so many stored bytes that are read, at any offset.
    pub fn reading_pool(&self, stored_bytes: usize) -> Arc<Pool> {
        let mut pool = lock(&self.reading);
        let needed = frame_buffer_bytes(stored_bytes);
        if pool.buffer_bytes() < needed {
            *pool = Pool::new(needed, pool.buffers_max());
        }
        Arc::clone(&pool)
    }
}

#[cfg(test)]
impl Compute {
    /// Lets the encoder of this frame fail once, or panic.
    pub fn break_encoder(&self, frame: u64, panics: bool) {
        *lock(&self.broken) = Some((frame, panics));
    }

    fn break_down(&self, frame: u64) -> Result<()> {
        use crate::error::{Error, ErrorKind};
        let hit = lock(&self.broken).take_if(|(at, _)| *at == frame);
        match hit {
            Some((_, true)) => panic!("the encoder panics on purpose"),
            Some((_, false)) => Err(Error::new(ErrorKind::Io, "compress", "broken on purpose")),
            None => Ok(()),
        }
    }

    /// Whether every buffer is back where it came from.
    pub fn is_at_rest(&self) -> bool {
        let stock = self.stock.load(Ordering::Acquire);
        let taken = self.writing.taken() + lock(&self.reading).taken();
        taken == 0 && stock == self.stock_frames
    }
}

impl std::fmt::Debug for Compute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compute").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// Bytes of a buffer for so many stored bytes. Under O_DIRECT a frame is read from the aligned offset before
/// it to the one behind it.
fn frame_buffer_bytes(stored_bytes: usize) -> usize {
    stored_bytes.next_multiple_of(PART_BYTES_MULTIPLE) + 2 * PART_BYTES_MULTIPLE
}

/// The frame buffers of one writer.
#[derive(Debug)]
pub(crate) struct FrameAllowance {
    compute: Arc<Compute>,
    held: usize,
}

/// What a writer may hold whatever the others do.
const HELD_ALWAYS: usize = 2;

impl FrameAllowance {
    pub fn new(compute: &Arc<Compute>) -> FrameAllowance {
        FrameAllowance { compute: Arc::clone(compute), held: 0 }
    }

    /// One more buffer; `None` if the writer has to give one back first.
    ///
    /// # Errors
    /// `LimitExceeded` if the kernel refuses the memory.
    pub fn take(&mut self, deadline: &Deadline) -> Result<Option<PoolBuffer>> {
        if self.held >= HELD_ALWAYS && !self.take_from_stock() {
            return Ok(None);
        }
        self.held += 1;
        // The pool has as many as all writers may hold, so this does not wait.
        match self.compute.writing.take(deadline) {
            Ok(buffer) => Ok(Some(buffer)),
            Err(error) => {
                self.give_back(1);
                Err(error)
            }
        }
    }

    /// Counts so many buffers as given back: they have been dropped.
    pub fn give_back(&mut self, buffers: usize) {
        let before = self.held.saturating_sub(HELD_ALWAYS);
        self.held -= buffers;
        let after = self.held.saturating_sub(HELD_ALWAYS);
        self.compute.stock.fetch_add((before - after) as u64, Ordering::AcqRel);
    }

    fn take_from_stock(&self) -> bool {
        let one_less = |stock: u64| stock.checked_sub(1);
        self.compute.stock.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less).is_ok()
    }
}

impl Drop for FrameAllowance {
    fn drop(&mut self) {
        self.give_back(self.held);
    }
}
