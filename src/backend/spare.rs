//! Memory of objects that are gone, kept for the next ones: touching memory that is fresh from the kernel
//! costs more than all else that is done to a part in memory.

use bytes::Bytes;

use crate::buffer::AlignedVec;
use crate::error::Result;
use crate::limits::{MEMORY_SPARE_BYTES_MAX, MEMORY_SPARE_BYTES_MIN};
use crate::sync::{Arc, Mutex, Owner, lock};

/// Pieces that no object holds any more, at most [`MEMORY_SPARE_BYTES_MAX`] in all.
#[derive(Debug, Default)]
pub(super) struct Spare {
    free: Mutex<Vec<AlignedVec>>,
    owner: Owner,
}

impl Spare {
    /// A copy of `data`, in memory that was used before where there is a piece of its size.
    ///
    /// # Errors
    /// `LimitExceeded` if the kernel refuses the memory.
    pub fn copy_of(self: &Arc<Spare>, data: &[u8]) -> Result<Bytes> {
        self.owner.claim();
        let known = {
            let mut free = lock(&self.free);
            let at = free.iter().rposition(|memory| memory.len() == data.len());
            at.map(|at| free.swap_remove(at))
        };
        let mut memory = known.map_or_else(|| AlignedVec::zeroed(data.len()), Ok)?;
        memory.copy_from_slice(data);
        Ok(Bytes::from_owner(Kept { memory: Some(memory), spare: Arc::clone(self) }))
    }

    fn give(&self, memory: AlignedVec) {
        if self.owner.is_another_process() {
            return;
        }
        let mut free = lock(&self.free);
        let kept: usize = free.iter().map(|memory| memory.len()).sum();
        // Small pieces, and those at the ends of objects, are hardly asked for again.
        if memory.len() >= MEMORY_SPARE_BYTES_MIN
            && kept.saturating_add(memory.len()) <= MEMORY_SPARE_BYTES_MAX
        {
            free.push(memory);
        }
    }
}

/// A piece of an object; its memory goes back when the last reader drops it.
struct Kept {
    memory: Option<AlignedVec>,
    spare: Arc<Spare>,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        self.memory.as_deref().unwrap_or_default()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.spare.give(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_when_nobody_reads_it() {
        let spare = Arc::new(Spare::default());
        let data = vec![1; MEMORY_SPARE_BYTES_MIN];
        let first = spare.copy_of(&data).unwrap();
        let (address, reader) = (first.as_ptr(), first.slice(1..));
        drop(first);
        let second = spare.copy_of(&data).unwrap();
        assert_ne!(second.as_ptr(), address, "it is still read");
        drop(reader);
        let third = spare.copy_of(&vec![3; data.len()]).unwrap();
        assert_eq!(third.as_ptr(), address);
        assert!(third.iter().all(|byte| *byte == 3));
    }

    /// As in the child of a fork that came while another thread held the lock.
    #[test]
    fn memory_of_another_process_waits_for_no_lock() {
        let spare = Arc::new(Spare::default());
        let piece = spare.copy_of(&[1; 4096]).unwrap();
        spare.owner.was_another_process();
        let (dropped, is_dropped) = std::sync::mpsc::channel();
        let held = lock(&spare.free);
        std::thread::spawn(move || {
            drop(piece);
            dropped.send(()).unwrap();
        });
        let timeout = std::time::Duration::from_secs(60);
        is_dropped.recv_timeout(timeout).expect("it waits for the lock");
        drop(held);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let spare = Arc::new(Spare::default());
        let size = MEMORY_SPARE_BYTES_MAX / 4;
        let pieces: Vec<AlignedVec> = (0..6).map(|_| AlignedVec::zeroed(size).unwrap()).collect();
        pieces.into_iter().for_each(|piece| spare.give(piece));
        spare.give(AlignedVec::zeroed(MEMORY_SPARE_BYTES_MIN - 1).unwrap());
        assert_eq!(lock(&spare.free).len(), 4);
    }
}
