//! Doing one thing to many objects: a job for each I/O thread, which takes one object after the other. So an
//! object costs no wait for room in the queue, and no thread of the caller's wakes up for it.

use crate::engine::Engine;
use crate::engine::ticket::Batch;
use crate::error::Result;
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::time::Deadline;

impl Engine {
    /// Calls `step` for each of `items`, several at a time, and returns when all are done. What became of an
    /// item, `step` keeps in it; its deadline begins with the item. `step` must not panic.
    ///
    /// # Errors
    /// `TimedOut` if for one timeout no item was done. No further item is begun then, and those that
    /// were begun may still be under way.
    pub fn sweep<T: Send + Sync + 'static>(
        &self,
        operation: &'static str,
        uri: &Arc<str>,
        items: &Arc<[T]>,
        step: impl Fn(&T, &Deadline) + Send + Sync + 'static,
    ) -> Result<()> {
        let (batch, step) = (Batch::new(1), Arc::new(step));
        let next = Arc::new(AtomicU64::new(0));
        let deadline = self.deadline();
        let mut queued = Ok(());
        for _ in 0..self.config().io_threads().min(items.len()) {
            let (own, items) = (Arc::clone(&batch), Arc::clone(items));
            let (step, next) = (Arc::clone(&step), Arc::clone(&next));
            let run = move || {
                while !own.is_dead()
                    && let Some(item) = items.get(next.fetch_add(1, Ordering::AcqRel) as usize)
                {
                    step(item, &deadline.renewed().for_work());
                    own.progress();
                }
                Ok(())
            };
            queued = self.submit_call(&batch, operation, uri, deadline, run);
            if queued.is_err() {
                break;
            }
        }
        let done = queued.and_then(|()| match batch.wait_idle(self.deadline()) {
            Ok(()) => batch.check(),
            Err(deadline) => Err(self.stalled(operation, &deadline).with_uri(&**uri)),
        });
        batch.withdraw();
        done
    }
}
