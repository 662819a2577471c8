//! What a manifest or receipt says of one shard.

use serde::{Deserialize, Serialize};

use crate::encode::{BlockChecksums, Checksum, Filter};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{OBJECT_BYTES_MAX, ZSTD_RATIO_MAX};
use crate::store::CompressedForm;

use super::layout::check_shard_key;

/// Larger blocks are forged, as objects larger than [`OBJECT_BYTES_MAX`] are. With both bounds, sums of an offset
/// and a block cannot overflow.
const BLOCK_BYTES_MAX: u64 = i64::MAX as u64;

/// What a checksum of raw bytes begins with.
const CRC32C_LABEL: &str = "crc32c:";

/// What [`ShardMeta::compression`] says of zstd.
pub(super) const ZSTD: &str = "zstd";

/// What helps with an entry of a form that is not known.
const LATER_VERSION: &str = "read it with the version that wrote it, or a later one";

/// One shard of a checkpoint, as the manifest tells it.
///
/// Serialises to JSON, so that ranks with a communicator of their own can gather it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ShardMeta {
    /// The rank that wrote it.
    pub rank: u32,
    /// Its key, relative to the base.
    pub key: String,
    /// Bytes of the stored object.
    pub size: u64,
    /// The server's entity tag; `None` on local media.
    #[serde(default)]
    pub etag: Option<String>,
    /// `crc32c:xxxxxxxx` of the raw bytes.
    #[serde(default)]
    pub checksum: Option<String>,
    /// Bytes before compression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_size: Option<u64>,
    /// `crc32c:xxxxxxxx` of the stored object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_checksum: Option<String>,
    /// How the object is compressed; `None` where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// What was done to the raw bytes before they were compressed; `None` for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Raw bytes of a checksum block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_bytes: Option<u64>,
    /// CRC32C of each raw block, packed hexadecimal, eight digits a block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_checksums: Option<String>,
}

impl ShardMeta {
    /// Bytes that a restore of this shard yields.
    pub fn raw_bytes(&self) -> u64 {
        self.raw_size.unwrap_or(self.size)
    }

    /// The checksums of the shard's blocks, where the manifest has them.
    ///
    /// # Errors
    /// `Corrupt` if they contradict the shard's size or its checksum.
    pub fn block_checksums(&self) -> Result<Option<BlockChecksums>> {
        let (Some(block_bytes), Some(hex)) = (self.part_bytes, &self.part_checksums) else {
            return Ok(None);
        };
        let blocks = BlockChecksums::from_hex(block_bytes, self.raw_bytes(), hex)?;
        match &self.checksum {
            Some(stated) if *stated != blocks.combined().to_string() => {
                Err(self.contradiction(format!(
                    "checksum is {stated}, but part_checksums combine to {}",
                    blocks.combined()
                )))
            }
            _ => Ok(Some(blocks)),
        }
    }

    /// Whether this crate wrote the entry, rather than its ancestor.
    pub(super) fn has_our_fields(&self) -> bool {
        self.raw_size.is_some()
            || self.stored_checksum.is_some()
            || self.compression.is_some()
            || self.filter.is_some()
            || self.part_bytes.is_some()
            || self.part_checksums.is_some()
    }

    /// How the object holds the shard's bytes; `None` where it holds them as they are.
    ///
    /// # Errors
    /// `Unsupported` for forms of another version; `Corrupt` if the entry contradicts itself.
    pub(super) fn form(&self) -> Result<Option<CompressedForm>> {
        let suffixes =
            [Filter::Shuffle4.suffix(), Filter::Shuffle8.suffix(), Filter::None.suffix()];
        let suffix = suffixes.into_iter().find(|suffix| self.key.ends_with(suffix));
        let filter = match self.filter.as_deref() {
            None => Filter::None,
            Some(name) => name.parse().map_err(|_| {
                self.unreadable(&format!("the filter {name:?} is not known"), LATER_VERSION)
            })?,
        };
        match self.compression.as_deref() {
            None | Some("none") => match suffix {
                Some(_) if !self.has_our_fields() => {
                    let why = "the shard is compressed, and nothing says how large it becomes";
                    Err(self.unreadable(why, "decompress the object with zstd -d"))
                }
                None if filter == Filter::None => Ok(None),
                _ => Err(self.contradiction(format!(
                    "it is not compressed, by its fields, but has the filter {} and the key {:?}",
                    filter.name(),
                    self.key
                ))),
            },
            Some("zstd") => self.zstd_form(filter, suffix).map(Some),
            Some(name) => {
                let why = format!("the shard is compressed with {name:?}, which is not known");
                Err(self.unreadable(&why, LATER_VERSION))
            }
        }
    }

    fn zstd_form(&self, filter: Filter, suffix: Option<&str>) -> Result<CompressedForm> {
        if suffix != Some(filter.suffix()) {
            let (wanted, key) = (filter.suffix(), &self.key);
            return Err(self.contradiction(format!("{key:?} does not end with {wanted}")));
        }
        let Some(raw_bytes) = self.raw_size else {
            return Err(self.contradiction("it is compressed, but has no raw_size".to_owned()));
        };
        if raw_bytes > self.size.saturating_mul(ZSTD_RATIO_MAX) {
            let size = self.size;
            let why = format!("{size} bytes cannot be {raw_bytes} compressed with zstd");
            return Err(self.contradiction(why));
        }
        Ok(CompressedForm::new(raw_bytes, filter))
    }

    /// The checksum of the object as it is stored, where the manifest has one.
    ///
    /// # Errors
    /// `Unsupported` if it is of another version.
    pub(super) fn expected_of_stored(&self) -> Result<Option<Checksum>> {
        let parsed = self.stored_checksum.as_deref().map(str::parse).transpose();
        parsed.map_err(|error: Error| self.unreadable(&error.to_string(), LATER_VERSION))
    }

    fn unreadable(&self, why: &str, remedy: &str) -> Error {
        let detail = format!("{}: {why}", self.key);
        Error::new(ErrorKind::Unsupported, "read shard", detail).with_remedy(remedy)
    }

    /// Checks what can be checked without looking at the object, in constant time but for the key's
    /// length.
    pub(super) fn check(&self) -> Result<()> {
        check_shard_key(&self.key)?;
        for stated in [&self.checksum, &self.stored_checksum].into_iter().flatten() {
            if stated.starts_with(CRC32C_LABEL) && stated.parse::<Checksum>().is_err() {
                return Err(self.contradiction(format!("{stated:?} is no checksum")));
            }
        }
        if self.size > OBJECT_BYTES_MAX || self.raw_bytes() > OBJECT_BYTES_MAX {
            return Err(
                self.contradiction(format!("{} bytes is no size", self.size.max(self.raw_bytes())))
            );
        }
        match self.form() {
            Ok(None) if self.raw_bytes() != self.size => {
                let why = format!("size is {}, raw_size is {}", self.size, self.raw_bytes());
                return Err(self.contradiction(why));
            }
            // What another version wrote is refused when it is read.
            Err(error) if error.kind() != ErrorKind::Unsupported => return Err(error),
            _ => {}
        }
        match (self.part_bytes, &self.part_checksums) {
            (None, None) => Ok(()),
            (Some(block_bytes), Some(hex)) if (1..=BLOCK_BYTES_MAX).contains(&block_bytes) => {
                let blocks = self.raw_bytes().div_ceil(block_bytes);
                if blocks.checked_mul(8) == Some(hex.len() as u64) {
                    return Ok(());
                }
                let why = format!("{} hex digits for {blocks} blocks", hex.len());
                Err(self.contradiction(why))
            }
            (Some(block_bytes), Some(_)) => {
                Err(self.contradiction(format!("part_bytes is {block_bytes}")))
            }
            _ => {
                Err(self
                    .contradiction("part_bytes and part_checksums do not go together".to_owned()))
            }
        }
    }

    fn contradiction(&self, why: String) -> Error {
        let detail = format!("the entry of rank {} contradicts itself: {why}", self.rank);
        Error::new(ErrorKind::Corrupt, "check shard entry", detail)
    }
}
