//! The engine of one store: named I/O threads behind a bounded queue, the pool of part buffers, and
//! the tickets by which callers wait.
//!
//! Threads start at the first job. Shutdown is drop order: [`Running`] drops its sender first, the
//! workers drain the queue and end, and are joined; one that is stuck in a system call beyond the
//! shutdown timeout is detached, and owns all that it touches.

mod compute;
mod fetch;
mod frame;
mod line;
mod queue;
mod sweep;
mod ticket;
mod worker;

use std::time::Duration;

use crate::buffer::{Places, Pool};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{
    Arc, Condvar, JoinHandle, Mutex, OnceLock, Owner, Sender, bounded, lock, spawn, wait,
};
use crate::time::Deadline;

pub(crate) use compute::{Compute, FrameAllowance};
pub(crate) use fetch::{Fetch, Fetched, Target, read_whole};
pub(crate) use frame::{FrameFetch, FrameJob, FrameSums, Framed};
use line::{Line, Patience};
pub(crate) use queue::{FetchJob, Job, PutJob, caught, with_view, withdrawn};
pub(crate) use sweep::answered;
pub(crate) use ticket::{Batch, Pending};
use worker::Slot;

/// The I/O threads and buffers of one store.
#[derive(Debug)]
pub(crate) struct Engine {
    config: Config,
    /// Names the threads: `syncline-<label>-<n>`.
    label: String,
    /// Where the server is, for reports of stalls.
    host: Option<String>,
    pool: Arc<Pool>,
    compute: Arc<Compute>,
    slots: Arc<[Slot]>,
    line: Arc<Line>,
    open_writers: Places,
    /// Who starts the threads.
    owner: Owner,
    running: OnceLock<Result<Running>>,
}

impl Engine {
    pub fn new(label: &str, host: Option<String>, config: &Config) -> Arc<Engine> {
        Arc::new(Engine {
            label: label.to_owned(),
            host,
            pool: Pool::new(config.part_bytes(), config.buffers_max()),
            compute: Compute::new(config),
            slots: (0..config.io_threads()).map(|_| Slot::default()).collect(),
            line: Arc::new(Line::new()),
            open_writers: Places::new(config.open_writers_max()),
            owner: Owner::default(),
            running: OnceLock::new(),
            config: config.clone(),
        })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The threads that compress and decompress.
    pub fn compute(&self) -> &Arc<Compute> {
        &self.compute
    }

    /// Whether the threads were started before a fork, in the parent of this process. Then no lock of this
    /// engine, its pools and its batches may be waited for: its holder may not exist.
    pub fn is_of_another_process(&self) -> bool {
        self.owner.is_another_process()
    }

    /// Refuses to go on in the child of a fork.
    ///
    /// # Errors
    /// `Unsupported` there.
    pub fn check_process(&self) -> Result<()> {
        if self.is_of_another_process() { Err(forked()) } else { Ok(()) }
    }

    /// A deadline one timeout from now.
    pub fn deadline(&self) -> Deadline {
        Deadline::after(self.config.timeout())
    }

    /// Admits one more writer.
    ///
    /// # Errors
    /// If `open_writers_max` are open: `LimitExceeded` at once, or `TimedOut` where writers wait for each other
    /// and none was closed for one timeout.
    pub fn admit_writer(self: &Arc<Engine>) -> Result<WriterPermit> {
        // Places of another process are not asked: a lock of theirs may be held for ever.
        self.owner.claim();
        self.check_process()?;
        let deadline = self.deadline();
        let waits = self.config.writers_wait();
        let admitted = match waits {
            true => self.open_writers.take_in_turn(1, &deadline),
            false => self.open_writers.take_now(),
        };
        if admitted {
            return Ok(WriterPermit(Arc::clone(self)));
        }
        let what = format!("{} writers are open already", self.open_writers.max());
        let error = match waits {
            true => Error::new(ErrorKind::TimedOut, "open writer", what)
                .with_elapsed(deadline.elapsed()),
            false => Error::new(ErrorKind::LimitExceeded, "open writer", what),
        };
        Err(error.with_remedy("finalize or drop one, or raise open_writers_max"))
    }

    /// Queues a job, behind those that wait for room already, as long as the queue gets on. A job that finds no
    /// room is dropped, which completes its ticket and returns its buffer.
    pub fn submit(&self, job: Job, deadline: &Deadline) -> Result<()> {
        self.queue(job, deadline, Patience::WhileItMoves)
    }

    fn queue(&self, job: Job, deadline: &Deadline, patience: Patience) -> Result<()> {
        // Before the threads start: the child of a fork in between must not wait for that to end.
        self.owner.claim();
        self.check_process()?;
        let running = match self.running.get_or_init(|| self.start()) {
            Ok(running) => running,
            Err(error) => return Err(error.clone()),
        };
        match self.line.send(running.sender(), job, deadline, patience) {
            true => Ok(()),
            false => Err(self.stalled("wait for room in the queue", deadline)),
        }
    }

    /// Waits for the jobs of a batch as long as they get on, or the queue does that they are in. `Err` is the
    /// deadline that passed.
    pub fn settle<T>(&self, batch: &Batch<T>) -> Result<(), Deadline> {
        batch.wait_idle(self.deadline(), || self.line.moved())
    }

    /// Runs `f` for a frame on a compressing thread; see [`Compute::run`].
    pub fn compute_frame<T: Send + 'static>(
        &self,
        pending: Pending<T>,
        operation: &'static str,
        uri: &Arc<str>,
        frame: u64,
        f: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<()> {
        self.check_process()?;
        self.compute.run(pending, operation, uri, frame, f)
    }

    /// Runs `f` on an I/O thread and waits for its result until one timeout has passed since it began.
    pub fn call<R: Send + 'static>(
        &self,
        operation: &'static str,
        uri: &Arc<str>,
        f: impl FnOnce(&Deadline) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.call_patiently(operation, uri, move |deadline, _| f(deadline))
    }

    /// As [`call`](Engine::call); `f` gets a function by which it says that it gets on, and each such
    /// word renews the wait.
    pub fn call_patiently<R: Send + 'static>(
        &self,
        operation: &'static str,
        uri: &Arc<str>,
        f: impl FnOnce(&Deadline, &dyn Fn()) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let batch = Batch::new(1);
        let (job_batch, deadline) = (Arc::clone(&batch), self.deadline());
        // What it waited for its turn was the progress of others.
        let run = move || f(&deadline.renewed().for_work(), &|| job_batch.progress());
        self.submit_call(&batch, operation, uri, deadline, run)?;
        match self.settle(&batch) {
            Ok(()) => batch.take_single().map_err(|e| e.with_uri(&**uri)),
            Err(deadline) => {
                // Nobody waits any more: what has not begun must not begin when the caller has moved on.
                batch.withdraw();
                Err(self.stalled(operation, &deadline).with_uri(&**uri))
            }
        }
    }

    /// As [`call`](Engine::call), until a deadline of the caller's, however the queue gets on. `f` may still begin
    /// after it, and has as much time as the caller had.
    pub fn call_until<R: Send + 'static>(
        &self,
        operation: &'static str,
        uri: &Arc<str>,
        deadline: Deadline,
        f: impl FnOnce(&Deadline) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let batch = Batch::new(1);
        let run = move || f(&deadline.renewed().for_work());
        let job = queue::CallJob::new(operation, uri, Pending::new(&batch), run);
        self.queue(Job::Call(Box::new(job)), &deadline, Patience::UntilDeadline)
            .map_err(|e| e.with_uri(&**uri))?;
        match batch.wait_idle_until(&deadline) {
            true => batch.take_single().map_err(|e| e.with_uri(&**uri)),
            false => Err(self.stalled(operation, &deadline).with_uri(&**uri)),
        }
    }

    fn submit_call<R: Send + 'static>(
        &self,
        batch: &Arc<Batch<R>>,
        operation: &'static str,
        uri: &Arc<str>,
        deadline: Deadline,
        f: impl FnOnce() -> Result<R> + Send + 'static,
    ) -> Result<()> {
        let job = queue::CallJob::new(operation, uri, Pending::new(batch), f);
        self.submit(Job::Call(Box::new(job)), &deadline).map_err(|e| e.with_uri(&**uri))
    }

    /// The error of a wait that ended without progress: it says where the threads are.
    pub fn stalled(&self, operation: &'static str, deadline: &Deadline) -> Error {
        let busy: Vec<String> = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(n, slot)| {
                Some(format!("syncline-{}-{n} {}", self.label, slot.describe()?))
            })
            .collect();
        let place = self.place();
        let detail = if busy.is_empty() {
            format!("no progress{place}, and no I/O thread is at work")
        } else {
            format!("no progress{place}; {}", busy.join(", "))
        };
        Error::new(ErrorKind::TimedOut, operation, detail)
            .with_elapsed(deadline.elapsed())
            .with_remedy("check the medium, or raise the timeout")
    }

    /// The error of not beginning what would wait for a medium that has done nothing of what it was asked for
    /// so long; `None` while that is below half the timeout.
    pub fn unanswered(&self, operation: &'static str, silence: Duration) -> Option<Error> {
        let what = format!("nothing else was answered{}, so this was not begun", self.place());
        (silence > self.config.timeout() / 2).then(|| {
            Error::new(ErrorKind::TimedOut, operation, what)
                .with_elapsed(silence)
                .with_remedy("check the medium, or raise the timeout")
        })
    }

    fn place(&self) -> String {
        self.host.as_ref().map(|host| format!(" at {host}")).unwrap_or_default()
    }

    fn start(&self) -> Result<Running> {
        let (sender, receiver) = bounded(self.config.queue_depth_parts());
        let alive = Arc::new(Alive::default());
        let mut running = Running {
            sender: Some(sender),
            threads: Vec::with_capacity(self.config.io_threads()),
            alive: Arc::clone(&alive),
            owner: Owner::of_this_process(),
            shutdown_timeout: self.config.shutdown_timeout(),
        };
        for n in 0..self.config.io_threads() {
            let (receiver, slots) = (receiver.clone(), Arc::clone(&self.slots));
            let line = Arc::clone(&self.line);
            let life = Life::begin(&alive);
            let body = move || {
                let _life = life;
                worker::work(&receiver, &line, &slots[n]);
            };
            running.threads.push(spawn(format!("syncline-{}-{n}", self.label), body)?);
        }
        Ok(running)
    }
}

/// The error of using a store that was opened before a fork.
fn forked() -> Error {
    let detail = "the process has forked since, and threads do not follow into the child";
    Error::new(ErrorKind::Unsupported, "use a store", detail)
        .with_remedy("open the store anew in the child")
}

/// A writer's right to hold one part buffer; given back when dropped.
#[derive(Debug)]
pub(crate) struct WriterPermit(Arc<Engine>);

impl Drop for WriterPermit {
    fn drop(&mut self) {
        if !self.0.owner.is_another_process() {
            self.0.open_writers.give_back(1);
        }
    }
}

/// The started threads.
#[derive(Debug)]
struct Running {
    /// Above `threads`: dropped first, so that the workers find the queue closed. Workers own no sender.
    sender: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    alive: Arc<Alive>,
    owner: Owner,
    shutdown_timeout: Duration,
}

impl Running {
    fn sender(&self) -> &Sender<Job> {
        self.sender.as_ref().expect("the sender lives until drop")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.owner.is_another_process() {
            // The threads, and those who may hold the queue's lock, are the parent's.
            std::mem::forget((self.sender.take(), std::mem::take(&mut self.threads)));
            return;
        }
        self.sender = None;
        let deadline = Deadline::after(self.shutdown_timeout);
        if self.alive.wait_for_end(&deadline) {
            for thread in self.threads.drain(..) {
                // A worker catches its jobs' panics; one that died anyway has nothing left to say.
                let _ = thread.join();
            }
            return;
        }
        let stuck = lock(&self.alive.threads);
        log::error!(
            "{} I/O threads are stuck in system calls at shutdown and are detached",
            *stuck
        );
    }
}

/// Counts threads that have not ended.
#[derive(Debug, Default)]
struct Alive {
    threads: Mutex<usize>,
    ended: Condvar,
}

impl Alive {
    fn wait_for_end(&self, deadline: &Deadline) -> bool {
        let mut threads = lock(&self.threads);
        while *threads > 0 {
            let (guard, time_left) = wait(&self.ended, threads, deadline);
            threads = guard;
            if !time_left && *threads > 0 {
                return false;
            }
        }
        true
    }
}

/// Counts one thread as alive until dropped, whether it returns, unwinds or never starts.
struct Life(Arc<Alive>);

impl Life {
    fn begin(alive: &Arc<Alive>) -> Life {
        *lock(&alive.threads) += 1;
        Life(Arc::clone(alive))
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        *lock(&self.0.threads) -= 1;
        self.0.ended.notify_all();
    }
}
