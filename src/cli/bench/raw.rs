//! The ceilings: what the medium gives without the engine and without checksums.
//!
//! For a filesystem: plain `pwrite` and `pread` of one part each, with the engine's part size, flags and
//! preallocation, and a final `fdatasync`. For memory: `memcpy`. Each with one thread and with as many
//! as the engine has.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, PosixFadviseAdvice, fallocate, posix_fadvise};

use syncline::AlignedVec;

use super::Plan;
use crate::failure::Failure;

/// Writes the whole file with `pwrite`, part by part, and syncs it.
pub fn write_file(plan: &Plan<'_>, path: &Path, threads: usize) -> Result<(), Failure> {
    let failed = |e| Failure::io("write", path, &e);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).custom_flags(open_flags(plan));
    let file = options.open(path).map_err(failed)?;
    let bytes = i64::try_from(plan.size_bytes).unwrap_or(i64::MAX);
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        // As for the engine, the writes then extend the file.
        Ok(()) | Err(Errno::EOPNOTSUPP) => {}
        Err(e) => return Err(failed(e.into())),
    }
    let next_part = AtomicU64::new(0);
    on_threads(threads, || {
        loop {
            let index = next_part.fetch_add(1, Ordering::Relaxed);
            if index >= plan.parts() {
                return Ok(());
            }
            plan.stop.check()?;
            file.write_all_at(plan.part(index), plan.offset(index)).map_err(failed)?;
        }
    })?;
    file.sync_data().map_err(failed)
}

/// Reads the whole file with `pread`, part by part, window by window into `memory`.
pub fn read_file(
    plan: &Plan<'_>,
    path: &Path,
    threads: usize,
    memory: &mut [u8],
) -> Result<(), Failure> {
    let failed = |e| Failure::io("read", path, &e);
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(open_flags(plan)).open(path).map_err(failed)?;
    for window in plan.windows(memory.len()) {
        let length = usize::try_from(window.end - window.start).unwrap_or(memory.len());
        fill_window(plan, threads, &mut memory[..length], |offset, part| {
            file.read_exact_at(part, window.start + offset).map_err(failed)
        })?;
    }
    Ok(())
}

/// Copies the source into fresh memory, part by part; returns the copies so that the caller may free
/// them outside the measurement.
pub fn write_memory(plan: &Plan<'_>, threads: usize) -> Result<Vec<AlignedVec>, Failure> {
    let next_part = AtomicU64::new(0);
    let copies = Mutex::new(Vec::new());
    on_threads(threads, || {
        loop {
            let index = next_part.fetch_add(1, Ordering::Relaxed);
            if index >= plan.parts() {
                return Ok(());
            }
            plan.stop.check()?;
            let copy = AlignedVec::copy_of(plan.part(index))?;
            copies.lock().unwrap_or_else(PoisonError::into_inner).push(copy);
        }
    })?;
    Ok(copies.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Copies from one memory to the other, as many bytes as the object has.
pub fn read_memory(plan: &Plan<'_>, threads: usize, memory: &mut [u8]) -> Result<(), Failure> {
    for window in plan.windows(memory.len()) {
        let length = usize::try_from(window.end - window.start).unwrap_or(memory.len());
        fill_window(plan, threads, &mut memory[..length], |offset, part| {
            let index = (window.start + offset) / plan.part_bytes as u64;
            part.copy_from_slice(&plan.part(index)[..part.len()]);
            Ok(())
        })?;
    }
    Ok(())
}

/// Lets the kernel forget what it cached of a file, so that reading it reads the disk.
pub fn drop_cache(path: &Path) -> Result<(), Failure> {
    let failed = |e| Failure::io("drop the cache of", path, &e);
    let file = File::open(path).map_err(failed)?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
        .map_err(|e| failed(e.into()))
}

fn open_flags(plan: &Plan<'_>) -> i32 {
    if plan.direct { OFlag::O_DIRECT.bits() } else { 0 }
}

/// Has `threads` threads fill the parts of `memory`: `read(offset in memory, part)`.
fn fill_window(
    plan: &Plan<'_>,
    threads: usize,
    memory: &mut [u8],
    read: impl Fn(u64, &mut [u8]) -> Result<(), Failure> + Sync,
) -> Result<(), Failure> {
    let parts = Mutex::new((0u64..).zip(memory.chunks_mut(plan.part_bytes)));
    on_threads(threads, || {
        loop {
            let next = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((index, part)) = next else { return Ok(()) };
            plan.stop.check()?;
            read(plan.offset(index), part)?;
        }
    })
}

/// Runs `work` on `threads` threads, the caller being one of them, and returns the first failure.
fn on_threads(
    threads: usize,
    work: impl Fn() -> Result<(), Failure> + Sync,
) -> Result<(), Failure> {
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(&work)).collect();
        let mine = work();
        others.into_iter().fold(mine, |result, other| {
            let theirs = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result.and(theirs)
        })
    })
}
