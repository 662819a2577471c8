//! One pass over a stream, cut into checksummed blocks and parts.

use std::fmt::Write as _;

use super::crc::{Algorithm, Checksum, Hasher};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{CHECKSUM_BLOCKS_MAX, HASH_STEP_BYTES};

/// CRC32C of each block of an object, so that a range can be verified and damage located.
///
/// Every block has `block_bytes` bytes but the last, which has the rest. An empty object has no block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockChecksums {
    block_bytes: u64,
    size_bytes: u64,
    crc32c: Vec<u32>,
}

impl BlockChecksums {
    /// Checks that the number of blocks fits the sizes.
    ///
    /// # Errors
    /// `Corrupt` if it does not.
    pub fn new(block_bytes: u64, size_bytes: u64, crc32c: Vec<u32>) -> Result<BlockChecksums> {
        if block_bytes == 0 || size_bytes.div_ceil(block_bytes) != crc32c.len() as u64 {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "read block checksums",
                format!(
                    "{} checksums for {size_bytes} bytes in blocks of {block_bytes}",
                    crc32c.len()
                ),
            ));
        }
        Ok(BlockChecksums { block_bytes, size_bytes, crc32c })
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    /// Bytes of the object.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The CRC32C of each block, in order.
    pub fn crc32c(&self) -> &[u32] {
        &self.crc32c
    }

    /// Bytes of block `index`: the last may be short.
    pub fn bytes_of(&self, index: usize) -> u64 {
        let start = index as u64 * self.block_bytes;
        self.block_bytes.min(self.size_bytes.saturating_sub(start))
    }

    /// The checksum of the whole object.
    pub fn combined(&self) -> Checksum {
        let mut sum = Checksum::new(Algorithm::Crc32c, 0);
        for (index, crc) in self.crc32c.iter().enumerate() {
            let block = Checksum::new(Algorithm::Crc32c, u64::from(*crc));
            sum = sum.combine(block, self.bytes_of(index));
        }
        sum
    }

    /// The values as lower-case hexadecimal, eight digits each, without separators.
    pub fn to_hex(&self) -> String {
        let mut text = String::with_capacity(self.crc32c.len() * 8);
        for crc in &self.crc32c {
            // Writing into a String cannot fail.
            let _ = write!(text, "{crc:08x}");
        }
        text
    }

    /// Reads what [`to_hex`](BlockChecksums::to_hex) wrote.
    ///
    /// # Errors
    /// `Corrupt` if the text is not hexadecimal or its length does not fit the sizes.
    pub fn from_hex(block_bytes: u64, size_bytes: u64, hex: &str) -> Result<BlockChecksums> {
        let corrupt = |why: &str| Error::new(ErrorKind::Corrupt, "read block checksums", why);
        if !hex.bytes().all(|c| c.is_ascii_hexdigit()) || !hex.len().is_multiple_of(8) {
            return Err(corrupt("not packed hexadecimal"));
        }
        let words = (0..hex.len()).step_by(8).map(|at| u32::from_str_radix(&hex[at..at + 8], 16));
        let crc32c = words.collect::<Result<_, _>>().map_err(|_| corrupt("not hexadecimal"))?;
        BlockChecksums::new(block_bytes, size_bytes, crc32c)
    }
}

/// The checksums of one part, handed out when the part is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartSum {
    pub checksum: Option<Checksum>,
    /// Of another algorithm, for the part's way to its server.
    pub transport: Option<Checksum>,
    pub bytes: u64,
}

/// Hashes a stream once and yields three views of it: the object, its blocks, and its parts.
///
/// The stream is cut into segments at every block end and part end; each byte is hashed in exactly
/// one segment, and segments are combined. Where parts are blocks, the usual case, a segment is both.
/// Where parts carry a checksum of a second algorithm, that one goes from part to part and sees each
/// byte while it is in the cache of the first.
#[derive(Debug)]
pub(crate) struct StreamHasher {
    algorithm: Option<Algorithm>,
    transport: Option<Hasher>,
    segment: Hasher,
    segment_bytes: u64,
    part: Running,
    block: Running,
    object: Running,
    block_bytes: u64,
    blocks: Vec<u32>,
}

/// A checksum of the bytes so far, and how many they are.
#[derive(Debug, Clone, Copy)]
struct Running {
    checksum: Checksum,
    bytes: u64,
}

impl Running {
    fn new(algorithm: Algorithm) -> Running {
        Running { checksum: Checksum::new(algorithm, 0), bytes: 0 }
    }

    fn add(&mut self, checksum: Checksum, bytes: u64) {
        self.checksum =
            if self.bytes == 0 { checksum } else { self.checksum.combine(checksum, bytes) };
        self.bytes += bytes;
    }
}

impl StreamHasher {
    /// Without an algorithm, bytes are counted and nothing is computed. `transport` is the second algorithm
    /// of the parts.
    pub fn new(
        algorithm: Option<Algorithm>,
        transport: Option<Algorithm>,
        block_bytes: u64,
    ) -> StreamHasher {
        assert!(block_bytes > 0, "a block has bytes");
        let kind = algorithm.unwrap_or(Algorithm::Crc32c);
        let blocks_at_most = if algorithm.is_some() { CHECKSUM_BLOCKS_MAX } else { 0 };
        StreamHasher {
            algorithm,
            transport: transport.map(Hasher::new),
            segment: Hasher::new(kind),
            segment_bytes: 0,
            part: Running::new(kind),
            block: Running::new(kind),
            object: Running::new(kind),
            block_bytes,
            // Reserved once: pushing a block must not allocate while data streams.
            blocks: Vec::with_capacity(blocks_at_most),
        }
    }

    /// Takes the next bytes of the stream.
    pub fn update(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let left = self.block_bytes - self.block.bytes - self.segment_bytes;
            let take = usize::try_from(left).map_or(data.len(), |left| left.min(data.len()));
            let (now, later) = data.split_at(take);
            self.hash(now);
            self.segment_bytes += take as u64;
            if self.block.bytes + self.segment_bytes == self.block_bytes {
                self.close_segment();
                self.close_block();
            }
            data = later;
        }
    }

    fn hash(&mut self, data: &[u8]) {
        let Some(transport) = &mut self.transport else {
            if self.algorithm.is_some() {
                self.segment.update(data);
            }
            return;
        };
        for step in data.chunks(HASH_STEP_BYTES) {
            if self.algorithm.is_some() {
                self.segment.update(step);
            }
            transport.update(step);
        }
    }

    /// Ends a part and returns its checksums.
    pub fn cut_part(&mut self) -> PartSum {
        self.close_segment();
        let part =
            std::mem::replace(&mut self.part, Running::new(self.object.checksum.algorithm()));
        let transport = self.transport.as_mut().map(|hasher| {
            let sum = hasher.checksum();
            *hasher = Hasher::new(sum.algorithm());
            sum
        });
        PartSum { checksum: self.algorithm.map(|_| part.checksum), transport, bytes: part.bytes }
    }

    /// The checksum of all bytes so far.
    pub fn checksum(&self) -> Option<Checksum> {
        self.algorithm?;
        let mut object = self.object;
        object.add(self.segment.checksum(), self.segment_bytes);
        Some(object.checksum)
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.object.bytes + self.segment_bytes
    }

    /// The checksums of all blocks so far, the unfinished one included; `None` unless CRC32C is computed.
    pub fn block_checksums(&self) -> Option<BlockChecksums> {
        if self.algorithm != Some(Algorithm::Crc32c) {
            return None;
        }
        let mut crc32c = self.blocks.clone();
        let mut open = self.block;
        open.add(self.segment.checksum(), self.segment_bytes);
        if open.bytes > 0 {
            crc32c.push(open.checksum.value() as u32);
        }
        BlockChecksums::new(self.block_bytes, self.bytes(), crc32c).ok()
    }

    fn close_segment(&mut self) {
        if self.segment_bytes == 0 {
            return;
        }
        if let Some(algorithm) = self.algorithm {
            let sum = self.segment.checksum();
            self.part.add(sum, self.segment_bytes);
            self.block.add(sum, self.segment_bytes);
            self.object.add(sum, self.segment_bytes);
            self.segment = Hasher::new(algorithm);
        } else {
            for running in [&mut self.part, &mut self.block, &mut self.object] {
                running.bytes += self.segment_bytes;
            }
        }
        self.segment_bytes = 0;
    }

    /// Ends a full block. At the limit neighbours merge and the block doubles, so that the number of
    /// blocks, and the memory for them, stays bounded for any size.
    fn close_block(&mut self) {
        let block =
            std::mem::replace(&mut self.block, Running::new(self.object.checksum.algorithm()));
        if self.algorithm != Some(Algorithm::Crc32c) {
            return;
        }
        self.blocks.push(block.checksum.value() as u32);
        if self.blocks.len() == CHECKSUM_BLOCKS_MAX {
            for index in 0..CHECKSUM_BLOCKS_MAX / 2 {
                let first = Checksum::new(Algorithm::Crc32c, self.blocks[2 * index].into());
                let second = Checksum::new(Algorithm::Crc32c, self.blocks[2 * index + 1].into());
                self.blocks[index] = first.combine(second, self.block_bytes).value() as u32;
            }
            self.blocks.truncate(CHECKSUM_BLOCKS_MAX / 2);
            self.block_bytes *= 2;
        }
    }
}

const _: () = assert!(CHECKSUM_BLOCKS_MAX.is_multiple_of(2));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_yields_object_blocks_and_parts() {
        let data: Vec<u8> = (0..10_000u32).map(|i| (i * 7 % 251) as u8).collect();
        let mut hasher =
            StreamHasher::new(Some(Algorithm::Crc32c), Some(Algorithm::Crc64Nvme), 256);
        let mut from = 0;
        for (index, piece) in data.chunks(300).enumerate() {
            hasher.update(piece);
            assert_eq!(
                hasher.checksum(),
                Some(Algorithm::Crc32c.checksum(&data[..hasher.bytes() as usize]))
            );
            if index % 3 == 2 {
                let to = hasher.bytes() as usize;
                let part = hasher.cut_part();
                assert_eq!(part.checksum, Some(Algorithm::Crc32c.checksum(&data[from..to])));
                assert_eq!(part.transport, Some(Algorithm::Crc64Nvme.checksum(&data[from..to])));
                assert_eq!(part.bytes as usize, to - from);
                from = to;
            }
        }
        let blocks = hasher.block_checksums().unwrap();
        for (index, chunk) in data.chunks(256).enumerate() {
            assert_eq!(
                u64::from(blocks.crc32c()[index]),
                Algorithm::Crc32c.checksum(chunk).value()
            );
        }
        assert_eq!(Some(blocks.combined()), hasher.checksum());
        let again = BlockChecksums::from_hex(256, 10_000, &blocks.to_hex()).unwrap();
        assert_eq!(again, blocks);
    }

    #[test]
    fn blocks_stay_bounded() {
        let data = vec![9u8; 4 * CHECKSUM_BLOCKS_MAX * 4 + 3];
        let mut hasher = StreamHasher::new(Some(Algorithm::Crc32c), None, 4);
        hasher.update(&data);
        let blocks = hasher.block_checksums().unwrap();
        assert!(blocks.crc32c().len() <= CHECKSUM_BLOCKS_MAX, "{}", blocks.crc32c().len());
        assert_eq!(blocks.combined(), Algorithm::Crc32c.checksum(&data));
        let capacity = hasher.blocks.capacity();
        assert_eq!(capacity, CHECKSUM_BLOCKS_MAX);
    }

    #[test]
    fn without_an_algorithm_bytes_are_only_counted() {
        let mut hasher = StreamHasher::new(None, None, 4);
        hasher.update(b"123456789");
        assert_eq!((hasher.checksum(), hasher.bytes()), (None, 9));
        assert_eq!(hasher.cut_part(), PartSum { checksum: None, transport: None, bytes: 9 });
    }
}
