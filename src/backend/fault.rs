//! A backend made to fail: it counts the operations of its inner backend and lets chosen ones go wrong.
//! The main tool of the tests; not part of the library.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::backend::{
    Alignment, Backend, IoMode, Medium, Names, ObjectMeta, Orphan, PartView, Published, Receipt, Source,
    Upload, UploadSpec, Walk,
};
use crate::error::{Error, Result};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, lock};
use crate::time::Deadline;

/// What happens to the chosen operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// EIO instead of the operation.
    Fail,
    /// A panic instead of the operation.
    Panic,
    /// The operation waits until [`FaultPlan::release`], then goes on.
    Stall,
}

/// Which operations go wrong, and what was seen.
#[derive(Debug)]
pub(crate) struct FaultPlan {
    fault: Fault,
    /// 0-based number of the first operation that goes wrong; all later ones of its kind do for `Stall`.
    at: u64,
    seen: AtomicU64,
    stalled: Mutex<Sender<()>>,
    pub stalls: Mutex<Receiver<()>>,
    released: AtomicBool,
    /// Set when an operation saw memory full of [`POISON`]: it looked after the caller had it back.
    pub saw_poison: AtomicBool,
}

/// What the tests fill memory with that is theirs again.
pub(crate) const POISON: u8 = 0xee;

impl FaultPlan {
    pub fn new(fault: Fault, at: u64) -> Arc<FaultPlan> {
        let (stalled, stalls) = channel();
        Arc::new(FaultPlan {
            fault,
            at,
            seen: AtomicU64::new(0),
            stalled: Mutex::new(stalled),
            stalls: Mutex::new(stalls),
            released: AtomicBool::new(false),
            saw_poison: AtomicBool::new(false),
        })
    }

    /// Operations so far.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::SeqCst)
    }

    /// Lets stalled operations go on, and all later ones pass.
    pub fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
    }

    /// Counts an operation and lets it go wrong if it is its turn.
    fn step(&self, operation: &'static str) -> Result<()> {
        let n = self.seen.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::Fail if n == self.at => {
                return Err(Error::from_io(
                    operation,
                    std::io::Error::from_raw_os_error(libc::EIO),
                ));
            }
            Fault::Panic if n == self.at => panic!("operation {n} panics on purpose"),
            Fault::Stall if n >= self.at => {
                let _ = lock(&self.stalled).send(());
                while !self.released.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            _ => {}
        }
        Ok(())
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
}

impl Backend for FaultyBackend {
    fn uri(&self, key: &str) -> String {
        self.inner.uri(key)
    }

    fn medium(&self, key: &str) -> Result<Medium> {
        self.inner.medium(key)
    }

    fn begin(&self, key: &str, spec: UploadSpec, deadline: &Deadline) -> Result<Arc<dyn Upload>> {
        self.plan.step("open writer")?;
        let inner = self.inner.begin(key, spec, deadline)?;
        Ok(Arc::new(FaultyUpload { inner, plan: Arc::clone(&self.plan) }))
    }

    fn uploads_max(&self) -> usize {
        self.inner.uploads_max()
    }

    fn open(&self, key: &str, deadline: &Deadline) -> Result<Arc<dyn Source>> {
        self.plan.step("open")?;
        let inner = self.inner.open(key, deadline)?;
        Ok(Arc::new(FaultySource { inner, plan: Arc::clone(&self.plan) }))
    }

    fn head(&self, key: &str, deadline: &Deadline) -> Result<ObjectMeta> {
        self.plan.step("stat")?;
        self.inner.head(key, deadline)
    }

    fn list(&self, prefix: &str) -> Box<dyn Walk> {
        self.inner.list(prefix)
    }

    fn delete(&self, keys: &[String], deadline: &Deadline) -> Result<u64> {
        self.plan.step("delete")?;
        self.inner.delete(keys, deadline)
    }

    fn deletes_at_once(&self) -> usize {
        self.inner.deletes_at_once()
    }

    fn clear_prefix(&self, prefix: &str, deadline: &Deadline) -> Result<()> {
        self.plan.step("delete")?;
        self.inner.clear_prefix(prefix, deadline)
    }

    fn orphans(&self, prefix: &str, deadline: &Deadline) -> Result<Vec<Orphan>> {
        self.inner.orphans(prefix, deadline)
    }

    fn delete_orphan(&self, key: &str, deadline: &Deadline) -> Result<()> {
        self.inner.delete_orphan(key, deadline)
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Arc<dyn Upload>,
    plan: Arc<FaultPlan>,
}

impl Upload for FaultyUpload {
    fn alignment(&self) -> Alignment {
        self.inner.alignment()
    }

    fn mode(&self) -> IoMode {
        self.inner.mode()
    }

    fn put_part(&self, part: &PartView<'_>, deadline: &Deadline) -> Result<Receipt> {
        self.plan.look(part.bytes);
        self.plan.step("write part")?;
        self.plan.look(part.bytes);
        self.inner.put_part(part, deadline)
    }

    fn settle(&self, size_bytes: u64) -> Result<()> {
        self.plan.step("sync")?;
        self.inner.settle(size_bytes)
    }

    fn publish(
        &self,
        receipts: &[Receipt],
        size: u64,
        deadline: &Deadline,
        alive: &dyn Fn(),
    ) -> Result<Published> {
        self.plan.step("publish")?;
        let Published { meta, names } = self.inner.publish(receipts, size, deadline, alive)?;
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
        self.plan.step("commit")?;
        self.inner.commit(receipts, size, deadline, alive)
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
        self.plan.step("sync directory")?;
        self.inner.sync()
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

    fn read_at(&self, offset: u64, buffer: &mut [u8], deadline: &Deadline) -> Result<usize> {
        self.plan.look(buffer);
        self.plan.step("read")?;
        self.plan.look(buffer);
        self.inner.read_at(offset, buffer, deadline)
    }
}
