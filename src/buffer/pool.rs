//! The bounded pool of part buffers of one engine.
//!
//! Waiting for a buffer cannot deadlock, as long as parts have one each: of grown parts see the crate's
//! documentation. The pool has `queue_depth_parts + io_threads +
//! open_writers_max` buffers. A buffer is in one of three places: a writer holds at most one (being
//! filled, or full and waiting for room in the queue) and there are at most `open_writers_max`
//! writers; the queue holds at most `queue_depth_parts`; an I/O thread holds at most one, that of the
//! part it writes or the one it reads through. A writer that waits for a buffer holds none, and an I/O
//! thread that waits for one runs a job without one, so whoever waits finds a buffer free or one that
//! an I/O thread or the queue will free without needing another.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::buffer::AlignedVec;
use crate::buffer::places::Places;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, Mutex, Owner, lock};
use crate::time::Deadline;

/// A bounded set of equal, page-aligned buffers, made when first needed and used again.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Who takes buffers.
    owner: Owner,
    /// Buffers in use.
    places: Places,
    /// The last one back is the first one out: it is the warmest.
    free: Mutex<Vec<AlignedVec>>,
    buffer_bytes: usize,
}

impl Pool {
    pub fn new(buffer_bytes: usize, buffers_max: usize) -> Arc<Pool> {
        Arc::new(Pool {
            owner: Owner::default(),
            places: Places::new(buffers_max),
            free: Mutex::new(Vec::with_capacity(buffers_max)),
            buffer_bytes,
        })
    }

    /// A buffer of `buffer_bytes`, with arbitrary contents, for an I/O thread. Waits until one is free, but
    /// not behind writers: they may wait for what this thread will free.
    ///
    /// # Errors
    /// `TimedOut` at the deadline; `LimitExceeded` if the kernel refuses the memory.
    pub fn take(self: &Arc<Pool>, deadline: &Deadline) -> Result<PoolBuffer> {
        self.check(self.places.take(1, deadline), 1, deadline)?;
        self.reserved()
    }

    /// The same for a writer: behind the writers that wait already, as long as they get theirs.
    ///
    /// # Errors
    /// As [`take`](Pool::take).
    pub fn take_in_turn(self: &Arc<Pool>, deadline: &Deadline) -> Result<PoolBuffer> {
        self.check(self.places.take_in_turn(1, deadline), 1, deadline)?;
        self.reserved()
    }

    /// `count` buffers at once, for a writer's part that has grown beyond one: all or none, so that two
    /// writers do not each wait for what the other holds. In turn, since beside many writers so many
    /// buffers are hardly ever free by chance.
    ///
    /// # Errors
    /// As [`take`](Pool::take).
    pub fn take_many(
        self: &Arc<Pool>,
        count: usize,
        deadline: &Deadline,
    ) -> Result<Vec<PoolBuffer>> {
        self.check(self.places.take_in_turn(count, deadline), count, deadline)?;
        let mut buffers = Vec::with_capacity(count);
        for at in 0..count {
            match self.reserved() {
                Ok(buffer) => buffers.push(buffer),
                Err(error) => {
                    // The one refused has given its place back by itself.
                    self.places.give_back(count - at - 1);
                    return Err(error);
                }
            }
        }
        Ok(buffers)
    }

    fn check(&self, taken: bool, count: usize, deadline: &Deadline) -> Result<()> {
        if taken {
            return Ok(());
        }
        let (taken, max) = (self.places.taken(), self.places.max());
        let what = format!("{taken} of {max} buffers stayed in use, and {count} are needed");
        Err(Error::new(ErrorKind::TimedOut, "wait for a part buffer", what)
            .with_elapsed(deadline.elapsed()))
    }

    /// The buffer of a place that is counted as taken.
    fn reserved(self: &Arc<Pool>) -> Result<PoolBuffer> {
        self.owner.claim();
        let free = lock(&self.free).pop();
        match free.map_or_else(|| AlignedVec::zeroed(self.buffer_bytes), Ok) {
            Ok(memory) => Ok(PoolBuffer { memory: Some(memory), pool: Arc::clone(self) }),
            Err(error) => {
                self.places.give_back(1);
                Err(error)
            }
        }
    }

    /// Bytes of each buffer.
    pub fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    /// The most buffers that are in use at a time.
    pub fn buffers_max(&self) -> usize {
        self.places.max()
    }

    /// Buffers in use at this moment.
    #[cfg(test)]
    pub fn taken(&self) -> usize {
        self.places.taken()
    }

    fn give_back(&self, memory: Option<AlignedVec>) {
        // Before its place: who takes the place finds the buffer.
        lock(&self.free).extend(memory);
        self.places.give_back(1);
    }
}

/// A buffer on loan from its pool; it goes back when dropped.
pub(crate) struct PoolBuffer {
    memory: Option<AlignedVec>,
    pool: Arc<Pool>,
}

impl Deref for PoolBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.as_deref().unwrap_or_default()
    }
}

impl DerefMut for PoolBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.memory.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for PoolBuffer {
    fn drop(&mut self) {
        // In the child of a fork nobody waits for it, and the lock may be held by nobody who exists.
        if !self.pool.owner.is_another_process() {
            self.pool.give_back(self.memory.take());
        }
    }
}

impl fmt::Debug for PoolBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolBuffer({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_pool_is_bounded_and_uses_buffers_again() {
        let pool = Pool::new(4096, 2);
        let soon = Deadline::after(Duration::from_millis(10));
        let a = pool.take(&soon).unwrap();
        let b = pool.take(&soon).unwrap();
        assert_eq!(pool.take(&soon).unwrap_err().kind(), ErrorKind::TimedOut);
        let address = a.as_ptr();
        drop(a);
        let again = pool.take(&Deadline::after(Duration::from_secs(5))).unwrap();
        assert_eq!(again.as_ptr(), address);
        drop((b, again));
        assert_eq!(pool.taken(), 0);
    }

    #[test]
    fn who_wants_many_is_not_passed_by_who_wants_one() {
        let pool = Pool::new(4096, 2);
        let (soon, late) = (Duration::from_millis(10), Duration::from_secs(60));
        let held = pool.take_many(2, &Deadline::after(soon)).unwrap();
        std::thread::scope(|scope| {
            let many = scope.spawn(|| pool.take_many(2, &Deadline::after(late)).map(|b| b.len()));
            while pool.places.waiting() == 0 {
                std::thread::yield_now();
            }
            let [first, second] = <[PoolBuffer; 2]>::try_from(held).unwrap();
            drop(first);
            let passing = pool.take_in_turn(&Deadline::after(soon)).unwrap_err();
            assert_eq!(passing.kind(), ErrorKind::TimedOut);
            pool.take(&Deadline::after(soon)).expect("an I/O thread waits behind no writer");
            drop(second);
            assert_eq!(many.join().unwrap().unwrap(), 2);
        });
        drop(pool.take_in_turn(&Deadline::after(late)).unwrap());
        assert!(pool.places.waiting() == 0 && pool.taken() == 0);
    }

    /// As in the child of a fork that came while another thread held the lock.
    #[test]
    fn a_buffer_of_another_process_waits_for_no_lock() {
        let pool = Pool::new(4096, 1);
        let buffer = pool.take(&Deadline::after(Duration::from_secs(5))).unwrap();
        pool.owner.was_another_process();
        let (dropped, is_dropped) = std::sync::mpsc::channel();
        let held = lock(&pool.free);
        std::thread::spawn(move || {
            drop(buffer);
            dropped.send(()).unwrap();
        });
        is_dropped.recv_timeout(Duration::from_secs(60)).expect("it waits for the lock");
        drop(held);
    }

    #[test]
    fn a_waiter_gets_the_buffer_that_comes_back() {
        let pool = Pool::new(4096, 1);
        let held = pool.take(&Deadline::after(Duration::from_secs(5))).unwrap();
        std::thread::scope(|scope| {
            let waiter =
                scope.spawn(|| pool.take(&Deadline::after(Duration::from_secs(60))).is_ok());
            drop(held);
            assert!(waiter.join().unwrap());
        });
    }
}
