//! Verifying a compressed shard: its raw bytes, and the object as it is stored.

use crate::encode::{Algorithm, BlockChecksums, Checksum};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{CompressedForm, FrameScan, ScanOptions};

use super::base::Base;
use super::proof::Proof;
use super::shard::ShardMeta;
use super::verify::{ByteRange, ShardState, joined};

/// Reads and decompresses everything, and compares it with what the manifest has.
pub(super) fn verify(
    base: &Base,
    shard: &ShardMeta,
    form: CompressedForm,
    progress: &mut dyn FnMut(u64),
) -> Result<ShardState> {
    let (proof, stored) = (Proof::of(shard)?, shard.expected_of_stored()?);
    let mut options = ScanOptions::new(base.store.config().part_bytes() as u64);
    match &proof {
        Proof::Blocks(blocks) => options.block_bytes = blocks.block_bytes(),
        Proof::Whole(whole) => options.algorithm = whole.algorithm(),
        Proof::Absent => {}
    }
    options.stored_algorithm = stored.map_or(options.stored_algorithm, Checksum::algorithm);
    let scan = base.store.scan_compressed(&base.uri(&shard.key), form, options, progress)?;
    if scan.table_damage.is_some() {
        // Without the table nothing of the shard is found.
        let all = joined([ByteRange::of(0..form.raw_bytes)].into_iter());
        return Ok(ShardState::of_damage(all, vec![ByteRange::of(scan.table)]));
    }
    let mut ranges: Vec<_> = scan.broken.iter().map(|f| ByteRange::of(f.raw.clone())).collect();
    match &proof {
        Proof::Blocks(blocks) => ranges.extend(differing(blocks, &scan)),
        Proof::Whole(whole) if scan.whole.is_some_and(|found| !whole.is(found)) => {
            ranges.push(ByteRange::of(0..form.raw_bytes));
        }
        Proof::Whole(_) | Proof::Absent => {}
    }
    ranges.sort_unstable_by_key(|range| range.offset_bytes);
    let ranges = joined(ranges.into_iter()).into_iter().map(|range| match &proof {
        Proof::Blocks(blocks) => range.in_blocks(blocks),
        Proof::Whole(_) | Proof::Absent => range,
    });
    let ranges = ranges.collect();
    let mut stored_ranges = joined(scan.broken.iter().map(|f| ByteRange::of(f.stored.clone())));
    if stored_ranges.is_empty() && stored.is_some_and(|expected| scan.stored != Some(expected)) {
        // Nothing tells where: a frame may decompress to the same bytes.
        stored_ranges.push(ByteRange::of(0..shard.size));
    }
    match ShardState::of_damage(ranges, stored_ranges) {
        ShardState::Ok if stored.is_none() && matches!(proof, Proof::Absent) => {
            Ok(ShardState::NoChecksum)
        }
        state => Ok(state),
    }
}

/// The blocks that differ. Those that no checksum was found for are in broken frames.
fn differing(expected: &BlockChecksums, scan: &FrameScan) -> impl Iterator<Item = ByteRange> {
    let pairs = expected.crc32c().iter().zip(&scan.blocks).enumerate();
    let differs = |(index, (expected, found)): (usize, (&u32, &Option<Checksum>))| {
        let differs = found.is_some_and(|found| found.value() != u64::from(*expected));
        differs.then_some(index)
    };
    let indices: Vec<usize> = pairs.filter_map(differs).collect();
    indices.into_iter().map(|index| ByteRange::of_block(expected, index))
}

/// The checksum of all raw bytes.
///
/// # Errors
/// `Corrupt` if a frame or the table is damaged.
pub(super) fn whole_checksum(
    base: &Base,
    uri: &str,
    form: CompressedForm,
    algorithm: Algorithm,
) -> Result<Checksum> {
    let options = ScanOptions::new(base.store.config().part_bytes() as u64).algorithm(algorithm);
    let scan = base.store.scan_compressed(uri, form, options, &mut |_| {})?;
    scan.whole.ok_or_else(|| {
        let frame = scan.broken.into_iter().next().map(|frame| frame.why);
        let why = frame.or(scan.table_damage).unwrap_or_default();
        Error::new(ErrorKind::Corrupt, "verify shard", why)
    })
}
