//! One thread and one io_uring, `threads` blocks deep: what a ring in an I/O thread could reach at best.
//!
//! Way `registered` registers the memory and the file with the kernel beforehand, as an engine that owns
//! its buffers could.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use io_uring::types::{Fd, Fixed};
use io_uring::{IoUring, opcode, squeue};
use syncline::AlignedVec;

use crate::contest::Contestant;
use crate::job::{Job, Work};
use crate::limits::{BLOCK_BYTES, open, reserve};
use crate::local::{clear, drop_cache, path};

pub fn ring(job: Job) -> Contestant {
    let file = path(&job, 0);
    let mut memory = job.memory();
    let mut ring = IoUring::new(64).expect("the kernel has io_uring");
    if job.way == "registered" {
        let whole = libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: memory.len() };
        // SAFETY: the memory lives as long as the ring: both move into the pass together.
        unsafe { ring.submitter().register_buffers(&[whole]) }.expect("the kernel registers memory");
    }
    let (before, folder, cached) = (job.work, PathBuf::from(&job.folder), file.clone());
    if job.work == Work::Read {
        transfer(&mut ring, &job, Work::Write, &file, &mut memory);
    }
    Contestant::new(
        move || match before {
            Work::Write => clear(&folder),
            Work::Read => drop_cache(&cached),
        },
        move || transfer(&mut ring, &job, job.work, &file, &mut memory),
    )
}

/// Moves all blocks, `threads` of them under way at any time.
fn transfer(ring: &mut IoUring, job: &Job, work: Work, file: &PathBuf, memory: &mut AlignedVec) {
    let file = open(job, file, work == Work::Write);
    if work == Work::Write {
        reserve(&file, memory.len());
    }
    let registered = job.way == "registered";
    if registered {
        ring.submitter().register_files(&[file.as_raw_fd()]).expect("the kernel registers a file");
    }
    let (mut next, mut done) = (0, 0);
    while done < memory.len() {
        let mut queue = ring.submission();
        while next < memory.len() && next - done < job.threads * BLOCK_BYTES {
            let bytes = BLOCK_BYTES.min(memory.len() - next);
            let block = &mut memory[next..next + bytes];
            let entry = entry(&file, work, block, next as u64, registered);
            // SAFETY: the block is not touched until its completion was seen, below.
            unsafe { queue.push(&entry) }.expect("the queue has room");
            next += bytes;
        }
        drop(queue);
        ring.submit_and_wait(1).expect("the kernel takes them");
        for completion in ring.completion() {
            // A short transfer would have to be continued; for a measurement it must not happen.
            let expected = BLOCK_BYTES.min(memory.len() - completion.user_data() as usize);
            assert_eq!(completion.result(), expected as i32, "a block is moved as a whole");
            done += expected;
        }
    }
    if registered {
        ring.submitter().unregister_files().expect("the kernel lets the file go");
    }
    if work == Work::Write {
        file.sync_data().expect("the file is synced");
    }
}

fn entry(file: &File, work: Work, block: &mut [u8], offset: u64, registered: bool) -> squeue::Entry {
    let (start, bytes) = (block.as_mut_ptr(), block.len() as u32);
    let entry = match (work, registered) {
        (Work::Write, true) => opcode::WriteFixed::new(Fixed(0), start, bytes, 0).offset(offset).build(),
        (Work::Write, false) => opcode::Write::new(Fd(file.as_raw_fd()), start, bytes).offset(offset).build(),
        (Work::Read, true) => opcode::ReadFixed::new(Fixed(0), start, bytes, 0).offset(offset).build(),
        (Work::Read, false) => opcode::Read::new(Fd(file.as_raw_fd()), start, bytes).offset(offset).build(),
    };
    entry.user_data(offset)
}
