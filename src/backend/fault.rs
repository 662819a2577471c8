//! A backend made to fail: it counts the operations of its inner backend and lets chosen ones go wrong.
//! The main tool of the tests; not part of the library.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::backend::{
    Alignment, Backend, IoMode, Medium, Names, ObjectMeta, Orphan, PartLimits, PartView, Published,
    Receipt, ServerReport, Source, Upload, UploadSpec, Walk,
};
use crate::encode::{Algorithm, Checksum};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, AtomicBool, AtomicU64, Condvar, Mutex, Ordering, lock, wait};
use crate::time::Deadline;

/// What happens to the chosen operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// This error of the operating system instead of the operation.
    Os(i32),
    /// An error of this kind instead of the operation, as servers give them.
    Refuse(ErrorKind),
    /// An error after the operation: it took effect, and its reply was lost.
    LoseReply,
    /// Half of a part, or of what was to be read; EIO instead of any other operation.
    Short,
    /// A panic instead of the operation.
    Panic,
    /// The operation waits until [`FaultPlan::release`], then goes on.
    Stall,
}

impl Fault {
    pub const EIO: Fault = Fault::Os(libc::EIO);

    /// All ways in which an operation ends that should not have.
    pub const CLASSES: [Fault; 12] = [
        Fault::EIO,
        Fault::Os(libc::ENOSPC),
        Fault::Os(libc::EDQUOT),
        Fault::Os(libc::EINTR),
        Fault::Os(libc::ETIMEDOUT),
        Fault::Os(libc::ECONNRESET),
        Fault::Refuse(ErrorKind::Unavailable),
        Fault::Refuse(ErrorKind::TimedOut),
        Fault::Refuse(ErrorKind::PermissionDenied),
        Fault::LoseReply,
        Fault::Short,
        Fault::Panic,
    ];

    fn error(self, operation: &'static str) -> Error {
        match self {
            Fault::Os(errno) => Error::from_io(operation, std::io::Error::from_raw_os_error(errno)),
            Fault::Refuse(kind) => Error::new(kind, operation, "refused on purpose"),
            Fault::LoseReply => {
                Error::new(ErrorKind::Unavailable, operation, "the reply is lost on purpose")
            }
            Fault::Short | Fault::Panic | Fault::Stall => Fault::EIO.error(operation),
        }
    }
}

/// Which operations go wrong, and what was seen.
#[derive(Debug)]
pub(crate) struct FaultPlan {
    fault: Fault,
    /// 0-based number of the first operation that goes wrong; all later ones of its kind do for `Stall`.
    at: u64,
    seen: AtomicU64,
    /// The operation that went wrong.
    hit: Mutex<Option<&'static str>>,
    stalled: Mutex<Sender<()>>,
    pub stalls: Mutex<Receiver<()>>,
    released: Mutex<bool>,
    may_go_on: Condvar,
    /// Set when an operation saw memory full of [`POISON`]: it looked after the caller had it back.
    pub saw_poison: AtomicBool,
}

/// What the tests fill memory with that is theirs again.
pub(crate) const POISON: u8 = 0xee;

const WRITE: &str = "write part";
const READ: &str = "read";
const OPEN_AHEAD: &str = "open ahead";

impl FaultPlan {
    pub fn new(fault: Fault, at: u64) -> Arc<FaultPlan> {
        let (stalled, stalls) = channel();
        Arc::new(FaultPlan {
            fault,
            at,
            seen: AtomicU64::new(0),
            hit: Mutex::new(None),
            stalled: Mutex::new(stalled),
            stalls: Mutex::new(stalls),
            released: Mutex::new(false),
            may_go_on: Condvar::new(),
            saw_poison: AtomicBool::new(false),
        })
    }

    /// Nothing goes wrong; operations are counted.
    pub fn healthy() -> Arc<FaultPlan> {
        FaultPlan::new(Fault::EIO, u64::MAX)
    }

    /// Operations so far.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::SeqCst)
    }

    /// The operation that went wrong, if one did.
    pub fn hit(&self) -> Option<&'static str> {
        *lock(&self.hit)
    }

    /// The kind of the error that the caller must be told; `None` where what went wrong is made good.
    pub fn expected(&self) -> Option<ErrorKind> {
        match (self.fault, self.hit()) {
            // What could not be opened ahead is opened in its turn.
            (_, None | Some(OPEN_AHEAD)) => None,
            // The rest is read by another call.
            (Fault::Short, Some(READ)) => None,
            (Fault::Short, Some(WRITE)) => Some(ErrorKind::ChecksumMismatch),
            (Fault::Panic, _) => Some(ErrorKind::Panicked),
            (fault, Some(operation)) => Some(fault.error(operation).kind()),
        }
    }

    /// Whether the operation that went wrong may have made the object visible.
    pub fn may_be_visible(&self) -> bool {
        let commits = ["commit", "put whole", "publish", "sync directory"];
        self.fault == Fault::LoseReply && self.hit().is_some_and(|hit| commits.contains(&hit))
    }

    /// Lets stalled operations go on, and all later ones pass.
    pub fn release(&self) {
        *lock(&self.released) = true;
        self.may_go_on.notify_all();
    }

    /// Counts an operation. If it is its turn, it goes wrong here, or the caller is told how.
    fn step(&self, operation: &'static str) -> Result<Option<Fault>> {
        let n = self.seen.fetch_add(1, Ordering::SeqCst);
        if self.fault == Fault::Stall {
            if n >= self.at {
                let _ = lock(&self.stalled).send(());
                let (mut released, never) = (lock(&self.released), Deadline::after(Duration::MAX));
                while !*released {
                    released = wait(&self.may_go_on, released, &never).0;
                }
            }
            return Ok(None);
        }
        if n != self.at {
            return Ok(None);
        }
        *lock(&self.hit) = Some(operation);
        match self.fault {
            Fault::Panic => panic!("operation {n} panics on purpose"),
            Fault::LoseReply => Ok(Some(self.fault)),
            Fault::Short if [WRITE, READ].contains(&operation) => Ok(Some(self.fault)),
            fault => Err(fault.error(operation)),
        }
    }

    /// Counts an operation and does it, unless it goes wrong.
    fn run<T>(&self, operation: &'static str, f: impl FnOnce() -> Result<T>) -> Result<T> {
        let fault = self.step(operation)?;
        let done = f()?;
        fault.map_or(Ok(done), |fault| Err(fault.error(operation)))
    }

    fn look(&self, memory: &[u8]) {
        if !memory.is_empty() && memory.iter().all(|byte| *byte == POISON) {
            self.saw_poison.store(true, Ordering::SeqCst);
        }
    }
}

/// `inner`, with faults.
#[derive(Debug)]
pub(crate) struct FaultyBackend {
    pub inner: Arc<dyn Backend>,
    pub plan: Arc<FaultPlan>,
    /// Whether objects of one part go in one step, as to servers, also if `inner` has no such step.
    pub whole: bool,
}

impl Backend for FaultyBackend {
    fn uri(&self, key: &str) -> String {
        self.inner.uri(key)
    }

    fn medium(&self, key: &str) -> Result<Medium> {
        self.inner.medium(key)
    }

    fn begin(&self, key: &str, spec: UploadSpec, deadline: &Deadline) -> Result<Arc<dyn Upload>> {
        let inner = self.plan.run("open writer", || self.inner.begin(key, spec, deadline))?;
        let plan = Arc::clone(&self.plan);
        Ok(Arc::new(FaultyUpload { inner, plan, whole: self.whole }))
    }

    fn uploads_max(&self) -> usize {
        self.inner.uploads_max()
    }

    fn open(&self, key: &str, deadline: &Deadline) -> Result<Arc<dyn Source>> {
        let inner = self.plan.run("open", || self.inner.open(key, deadline))?;
        Ok(Arc::new(FaultySource { inner, plan: Arc::clone(&self.plan) }))
    }

    fn open_ahead(&self, key: &str, deadline: &Deadline) -> Option<Arc<dyn Source>> {
        let inner = self.inner.open_ahead(key, deadline)?;
        self.plan.run(OPEN_AHEAD, || Ok(())).ok()?;
        Some(Arc::new(FaultySource { inner, plan: Arc::clone(&self.plan) }))
    }

    fn head(&self, key: &str, deadline: &Deadline) -> Result<ObjectMeta> {
        self.plan.run("stat", || self.inner.head(key, deadline))
    }

    fn list(&self, prefix: &str) -> Box<dyn Walk> {
        self.inner.list(prefix)
    }

    fn delete(&self, keys: &[String], deadline: &Deadline) -> Result<u64> {
        self.plan.run("delete", || self.inner.delete(keys, deadline))
    }

    fn deletes_at_once(&self) -> usize {
        self.inner.deletes_at_once()
    }

    fn clear_prefix(&self, prefix: &str, deadline: &Deadline) -> Result<()> {
        self.plan.run("delete", || self.inner.clear_prefix(prefix, deadline))
    }

    fn orphans(&self, prefix: &str, deadline: &Deadline) -> Result<Vec<Orphan>> {
        self.inner.orphans(prefix, deadline)
    }

    fn delete_orphan(&self, key: &str, deadline: &Deadline) -> Result<()> {
        self.inner.delete_orphan(key, deadline)
    }

    fn link_leaving(
        &self,
        root: &str,
        keys: &[String],
        deadline: &Deadline,
    ) -> Result<Option<String>> {
        self.inner.link_leaving(root, keys, deadline)
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Arc<dyn Upload>,
    plan: Arc<FaultPlan>,
    whole: bool,
}

impl Upload for FaultyUpload {
    fn alignment(&self) -> Alignment {
        self.inner.alignment()
    }

    fn limits(&self) -> PartLimits {
        let limits = self.inner.limits();
        PartLimits { whole: limits.whole || self.whole, ..limits }
    }

    fn transport_checksum(&self) -> Option<Algorithm> {
        self.inner.transport_checksum()
    }

    fn mode(&self) -> IoMode {
        self.inner.mode()
    }

    fn server(&self) -> ServerReport {
        self.inner.server()
    }

    fn put_part(&self, part: &PartView<'_>, deadline: &Deadline) -> Result<Receipt> {
        self.plan.look(part.bytes);
        let fault = self.plan.step(WRITE)?;
        self.plan.look(part.bytes);
        if fault == Some(Fault::Short) {
            let half = &part.bytes[..part.bytes.len() / 2];
            return self
                .inner
                .put_part(&PartView { bytes: half, bytes_padded: half, ..*part }, deadline);
        }
        let receipt = self.inner.put_part(part, deadline)?;
        fault.map_or(Ok(receipt), |fault| Err(fault.error(WRITE)))
    }

    fn settle(&self, size_bytes: u64) -> Result<()> {
        self.plan.run("sync", || self.inner.settle(size_bytes))
    }

    fn publish(
        &self,
        receipts: &[Receipt],
        size: u64,
        deadline: &Deadline,
        alive: &dyn Fn(),
    ) -> Result<Published> {
        let publish = || self.inner.publish(receipts, size, deadline, alive);
        let Published { meta, names } = self.plan.run("publish", publish)?;
        let plan = &self.plan;
        let faulty =
            |inner| -> Arc<dyn Names> { Arc::new(FaultyNames { inner, plan: Arc::clone(plan) }) };
        Ok(Published { meta, names: names.map(faulty) })
    }

    /// One operation, where nobody takes its steps one by one.
    fn commit(
        &self,
        receipts: &[Receipt],
        size: u64,
        deadline: &Deadline,
        alive: &dyn Fn(),
    ) -> Result<ObjectMeta> {
        self.plan.run("commit", || self.inner.commit(receipts, size, deadline, alive))
    }

    fn put_whole(&self, part: &PartView<'_>, deadline: &Deadline) -> Result<ObjectMeta> {
        self.plan.look(part.bytes);
        self.plan.run("put whole", || {
            self.plan.look(part.bytes);
            if self.inner.limits().whole {
                return self.inner.put_whole(part, deadline);
            }
            let receipt = self.inner.put_part(part, deadline)?;
            self.inner.commit(&[receipt], part.total_bytes(), deadline, &|| ())
        })
    }

    /// Cleaning up is let through: what is tested is that it happens.
    fn abort(&self, deadline: &Deadline) -> Result<()> {
        self.inner.abort(deadline)
    }
}

#[derive(Debug)]
struct FaultyNames {
    inner: Arc<dyn Names>,
    plan: Arc<FaultPlan>,
}

impl Names for FaultyNames {
    fn id(&self) -> (u64, u64) {
        self.inner.id()
    }

    fn sync(&self) -> Result<()> {
        self.plan.run("sync directory", || self.inner.sync())
    }
}

#[derive(Debug)]
struct FaultySource {
    inner: Arc<dyn Source>,
    plan: Arc<FaultPlan>,
}

impl Source for FaultySource {
    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn alignment(&self) -> Alignment {
        self.inner.alignment()
    }

    fn mode(&self) -> IoMode {
        self.inner.mode()
    }

    fn checksum(&self) -> Option<Checksum> {
        self.inner.checksum()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8], deadline: &Deadline) -> Result<usize> {
        self.plan.look(buffer);
        let fault = self.plan.step(READ)?;
        self.plan.look(buffer);
        if fault == Some(Fault::Short) {
            let half = buffer.len() / 2;
            return self.inner.read_at(offset, &mut buffer[..half], deadline);
        }
        let read = self.inner.read_at(offset, buffer, deadline)?;
        fault.map_or(Ok(read), |fault| Err(fault.error(READ)))
    }
}
