//! The engine's ways in and out, as a program would call them.

use std::sync::Arc;

use syncline::{
    Algorithm, BlockChecksums, Checksum, ObjectStore, ObjectWriter, WriteOptions, open_store,
};

use super::Plan;
use crate::failure::Failure;
use crate::progress::Bar;
use crate::transfer::abandon;

/// A way of handing bytes to a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayIn {
    /// `write_chunk`, one part a call: copied.
    Chunk,
    /// `write_owned` of aligned memory, one part a call.
    Owned,
    /// `reserve` and `commit`. The producer stamps each page, so that the engine's cost shows and not
    /// the producer's; the buffers were filled before.
    Reserved,
    /// `write_borrowed` of aligned memory, all of the source a call.
    Borrowed,
}

/// A way of getting bytes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayOut {
    /// `read_into_verified`, into memory that was touched before.
    IntoVerified,
    /// `read_into`, into memory that was touched before.
    Into,
    /// `get_range_with_validation`, which returns fresh memory.
    FreshVerified,
    /// `get_range`, which returns fresh memory.
    Fresh,
}

/// Bytes between two stamps of the [`WayIn::Reserved`] producer: one page.
const STAMP_BYTES: usize = 4096;

/// A store of its own, whose threads run and whose buffers are resident: a program that saves every
/// few minutes pays for them once.
pub fn warm_store(plan: &Plan<'_>, way: WayIn) -> Result<Arc<dyn ObjectStore>, Failure> {
    let store = open_store(&plan.warm_up_uri, plan.config)?;
    let mut writer = store.get_writer(&plan.warm_up_uri)?;
    if let Err(failure) = write_parts(plan, &mut *writer, way, warm_up_parts(plan)) {
        return Err(abandon(writer, failure, &Bar::hidden()));
    }
    writer.finalize()?;
    store.delete(&plan.warm_up_uri)?;
    Ok(store)
}

/// As many parts as one writer has buffers.
pub fn warm_up_parts(plan: &Plan<'_>) -> u64 {
    let buffers = plan.config.io_threads() + plan.config.queue_depth_parts() + 1;
    plan.parts().min(buffers as u64)
}

/// Writes the whole object one way. Returns its block checksums, where they were computed.
pub fn write(
    plan: &Plan<'_>,
    store: &dyn ObjectStore,
    way: WayIn,
    checksum: Option<Algorithm>,
) -> Result<Option<BlockChecksums>, Failure> {
    let options = WriteOptions::default().size_hint_bytes(plan.size_bytes).checksum(checksum);
    let mut writer = store.get_writer_with(&plan.object_uri, options)?;
    if let Err(failure) = write_parts(plan, &mut *writer, way, plan.parts()) {
        return Err(abandon(writer, failure, &Bar::hidden()));
    }
    let blocks = writer.block_checksums();
    writer.finalize()?;
    Ok(blocks)
}

fn write_parts(
    plan: &Plan<'_>,
    writer: &mut dyn ObjectWriter,
    way: WayIn,
    parts: u64,
) -> Result<(), Failure> {
    if way == WayIn::Borrowed {
        return borrow_parts(plan, writer, parts);
    }
    for index in 0..parts {
        plan.stop.check()?;
        match way {
            WayIn::Chunk => writer.write_chunk(plan.part(index))?,
            WayIn::Owned => writer.write_owned(plan.owned_part(index))?,
            WayIn::Reserved | WayIn::Borrowed => reserve_part(plan, writer, index)?,
        }
    }
    Ok(())
}

fn borrow_parts(plan: &Plan<'_>, writer: &mut dyn ObjectWriter, parts: u64) -> Result<(), Failure> {
    let mut left_bytes = parts * plan.part_bytes as u64;
    while left_bytes > 0 {
        plan.stop.check()?;
        let bytes = usize::try_from(left_bytes)
            .map_or(plan.source.len(), |left| left.min(plan.source.len()));
        writer.write_borrowed(&plan.source[..bytes])?;
        left_bytes -= bytes as u64;
    }
    Ok(())
}

/// Fills one part in place. A buffer that was never filled gets all of its bytes, so that no page of
/// zeros is ever written; one that was gets a stamp per page.
fn reserve_part(plan: &Plan<'_>, writer: &mut dyn ObjectWriter, index: u64) -> Result<(), Failure> {
    let part = plan.part(index);
    let mut at = 0;
    while at < part.len() {
        let buffer = writer.reserve()?;
        let bytes = buffer.len().min(part.len() - at);
        let buffer = &mut buffer[..bytes];
        for (page, source) in buffer.chunks_mut(STAMP_BYTES).zip(part[at..].chunks(STAMP_BYTES)) {
            let is_fresh = page.first() == Some(&0) && page.last() == Some(&0);
            let stamp = if is_fresh { page.len() } else { page.len().min(8) };
            page[..stamp].copy_from_slice(&source[..stamp]);
        }
        writer.commit(bytes)?;
        at += bytes;
    }
    Ok(())
}

/// Reads the whole object one way, window by window.
pub fn read(
    plan: &Plan<'_>,
    store: &dyn ObjectStore,
    way: WayOut,
    expected: &BlockChecksums,
    memory: &mut [u8],
) -> Result<(), Failure> {
    let uri = &plan.object_uri;
    for window in plan.windows(memory.len()) {
        plan.stop.check()?;
        let length = window.end - window.start;
        let buffer = &mut memory[..usize::try_from(length).unwrap_or(usize::MAX)];
        match way {
            WayOut::Into => {
                store.read_into(uri, window.start, buffer)?;
            }
            WayOut::IntoVerified => {
                store.read_into_verified(uri, window.start, buffer, expected)?;
            }
            WayOut::Fresh => drop(store.get_range(uri, window.start, Some(length))?),
            WayOut::FreshVerified => {
                let sum = checksum_of(expected, window.start, window.end).to_string();
                drop(store.get_range_with_validation(uri, window.start, Some(length), &sum)?);
            }
        }
    }
    Ok(())
}

/// The checksum of the blocks from `start` to `end`, which lie on the borders of blocks.
fn checksum_of(blocks: &BlockChecksums, start: u64, end: u64) -> Checksum {
    let index_of =
        |at: u64| usize::try_from(at.div_ceil(blocks.block_bytes())).unwrap_or(usize::MAX);
    let range = index_of(start)..index_of(end);
    range.fold(Checksum::new(Algorithm::Crc32c, 0), |sum, index| {
        let block = Checksum::new(Algorithm::Crc32c, blocks.crc32c()[index].into());
        sum.combine(block, blocks.bytes_of(index))
    })
}
