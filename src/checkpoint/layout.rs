//! Names: which key holds what, and what a key says.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::encode::Compression;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::KEY_BYTES_MAX;
use crate::time::Timestamp;

/// Folder of the manifests, below the base.
pub(super) const MANIFESTS: &str = "manifests";
/// Folder of the shards, below the base.
pub(super) const SHARDS: &str = "shards";
/// Folder of the receipts, below the base.
pub(super) const RECEIPTS: &str = "receipts";
/// The hint, below the base.
pub(super) const LATEST_KEY: &str = "latest.json";

/// Folders over which the round-robin strategy spreads ranks.
const ROUND_ROBIN_FOLDERS: u32 = 16;

/// How the shards of a checkpoint are spread over folders. Readers follow the keys in the manifest,
/// so checkpoints of different strategies live side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Strategy {
    /// All shards in one folder: `shards/ckpt-<step>-<ts>/`. The default.
    #[default]
    Flat,
    /// By rank modulo 16: `shards/rr/<2 hex digits>/ckpt-<step>-<ts>/`. For object stores that
    /// limit requests per prefix and directories that slow down with many entries.
    RoundRobin,
    /// By the first four digits of the rank in binary, padded to eight:
    /// `shards/bin/<4 binary digits>/ckpt-<step>-<ts>/`.
    Binary,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Strategy::Flat => "flat",
            Strategy::RoundRobin => "round-robin",
            Strategy::Binary => "binary",
        })
    }
}

impl FromStr for Strategy {
    type Err = Error;

    /// Reads `flat`, `round-robin` (also `round_robin`, `roundrobin`) and `binary`, in any case.
    fn from_str(text: &str) -> Result<Strategy> {
        match text.to_ascii_lowercase().as_str() {
            "flat" => Ok(Strategy::Flat),
            "round-robin" | "round_robin" | "roundrobin" => Ok(Strategy::RoundRobin),
            "binary" => Ok(Strategy::Binary),
            _ => Err(Error::invalid("parse strategy", format!("{text:?} is not a strategy"))
                .with_remedy("use flat, round-robin or binary")),
        }
    }
}

/// The keys of one save, named by its step and timestamp.
///
/// Every rank of a save makes the same layout: the timestamp comes from the caller or is broadcast,
/// never from each rank's own clock.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyLayout {
    step: u64,
    ts: Timestamp,
    strategy: Strategy,
    compression: Compression,
}

impl KeyLayout {
    /// The keys of the save (`step`, `ts`), of shards that are not compressed.
    pub fn new(step: u64, ts: Timestamp, strategy: Strategy) -> KeyLayout {
        KeyLayout { step, ts, strategy, compression: Compression::None }
    }

    /// With shards compressed so. Their keys end with its [suffix](Compression::suffix).
    #[must_use]
    pub fn with_compression(mut self, compression: Compression) -> KeyLayout {
        self.compression = compression;
        self
    }

    /// How shards are compressed.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The step.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The timestamp.
    pub fn timestamp(&self) -> &Timestamp {
        &self.ts
    }

    /// How shards are spread over folders.
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// `manifests/ckpt-<step>-<ts>.json`.
    pub fn manifest_key(&self) -> String {
        manifest_key(self.step, &self.ts)
    }

    /// The key of a rank's shard.
    pub fn shard_key(&self, rank: u32) -> String {
        let save = save_name(self.step, &self.ts);
        let folder = match self.strategy {
            Strategy::Flat => String::new(),
            Strategy::RoundRobin => format!("rr/{:02x}/", rank % ROUND_ROBIN_FOLDERS),
            Strategy::Binary => format!("bin/{}/", &format!("{rank:08b}")[..4]),
        };
        let suffix = self.compression.suffix();
        format!("{SHARDS}/{folder}{save}/rank-{rank}.bin{suffix}")
    }

    /// The key of a rank's receipt: `receipts/ckpt-<step>-<ts>/rank-<rank>.json`.
    pub fn receipt_key(&self, rank: u32) -> String {
        format!("{}/rank-{rank}.json", self.receipts_folder())
    }

    /// The folder of all receipts of the save.
    pub(super) fn receipts_folder(&self) -> String {
        format!("{RECEIPTS}/{}", save_name(self.step, &self.ts))
    }
}

impl fmt::Display for KeyLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} at {}", self.step, self.ts)
    }
}

/// `ckpt-<step>-<ts>`, which names a save in all its keys.
fn save_name(step: u64, ts: &Timestamp) -> String {
    format!("ckpt-{step}-{ts}")
}

/// The key of the manifest of a save.
pub(super) fn manifest_key(step: u64, ts: &Timestamp) -> String {
    format!("{MANIFESTS}/{}.json", save_name(step, ts))
}

/// What a key says of the object it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    Manifest { step: u64, ts: Timestamp },
    Shard { step: u64, ts: Timestamp, rank: u32 },
    Receipt { step: u64, ts: Timestamp, rank: u32 },
}

impl Named {
    /// Reads a key; `None` for a name that no save makes. What follows `.bin` (the suffixes of
    /// compressed shards) is not looked at.
    pub fn parse(key: &str) -> Option<Named> {
        let segments: Vec<&str> = key.split('/').collect();
        match segments[..] {
            [MANIFESTS, file] => {
                let (step, ts) = parse_save_name(file.strip_suffix(".json")?)?;
                Some(Named::Manifest { step, ts })
            }
            [RECEIPTS, save, file] => {
                let (step, ts) = parse_save_name(save)?;
                let rank = parse_number(file.strip_prefix("rank-")?.strip_suffix(".json")?)?;
                Some(Named::Receipt { step, ts, rank })
            }
            [SHARDS, save, file] | [SHARDS, "rr" | "bin", _, save, file] => {
                let (step, ts) = parse_save_name(save)?;
                let (rank, suffix) = file.strip_prefix("rank-")?.split_once(".bin")?;
                let rank = parse_number(rank)?;
                (suffix.is_empty() || suffix.starts_with('.')).then_some(())?;
                Some(Named::Shard { step, ts, rank })
            }
            _ => None,
        }
    }
}

/// The save that a folder on the way to `path` is named after, if one is: for names below the
/// folder that are no keys, such as those of temporary files.
pub(super) fn save_of_path(path: &str) -> Option<(u64, Timestamp)> {
    path.rsplit('/').skip(1).find_map(parse_save_name)
}

/// The step and timestamp in a folder name `ckpt-<step>-<ts>`.
fn parse_save_name(name: &str) -> Option<(u64, Timestamp)> {
    let (step, ts) = name.strip_prefix("ckpt-")?.split_once('-')?;
    Some((parse_number(step)?, ts.parse().ok()?))
}

/// A decimal number as we write it: no sign, no leading zero. One number has one name.
fn parse_number<T: FromStr>(text: &str) -> Option<T> {
    let plain = text.bytes().all(|c| c.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

/// Refuses a shard's key from a manifest or receipt that is not relative, could leave its base,
/// could not be printed, or is the name of another kind of object: what a manifest names, `prune`
/// removes.
pub(super) fn check_shard_key(key: &str) -> Result<()> {
    let wrong = if key.is_empty() {
        "is empty"
    } else if key.len() > KEY_BYTES_MAX {
        "is longer than 1,024 bytes"
    } else if key.chars().any(char::is_control) {
        "has control characters"
    } else if key.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        "is not relative, or has an empty, `.` or `..` segment"
    } else if key == LATEST_KEY || matches!(key.split('/').next(), Some(MANIFESTS | RECEIPTS)) {
        "is not the name of a shard"
    } else {
        return Ok(());
    };
    let shown: String = key.chars().take(KEY_CHARS_SHOWN).collect();
    Err(Error::new(ErrorKind::Corrupt, "check shard key", format!("the key {shown:?} {wrong}")))
}

/// Characters of a bad key that an error repeats.
const KEY_CHARS_SHOWN: usize = 100;

/// The folder of a key.
pub(super) fn folder_of(key: &str) -> &str {
    key.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Whether a folder belongs to one save alone.
pub(super) fn is_save_folder(folder: &str) -> bool {
    folder.rsplit('/').next().is_some_and(|name| parse_save_name(name).is_some())
}

/// Ranks in words, ranges joined: `3, 7-9, 12`. Takes them in ascending order; a long list is cut.
pub(super) fn name_ranks(ranks: impl IntoIterator<Item = u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for rank in ranks {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(rank) => *last = rank,
            _ => ranges.push((rank, rank)),
        }
    }
    let words = ranges.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        _ => format!("{first}-{last}"),
    });
    join_some(words)
}

/// Joins texts with commas; a long list is cut and its rest counted.
pub(super) fn join_some(mut words: impl ExactSizeIterator<Item = String>) -> String {
    let total = words.len();
    let shown: Vec<String> = words.by_ref().take(WORDS_SHOWN).collect();
    let mut text = shown.join(", ");
    if total > WORDS_SHOWN {
        text.push_str(&format!(" and {} more", total - WORDS_SHOWN));
    }
    text
}

/// Items of a list that an error repeats.
const WORDS_SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(strategy: Strategy) -> KeyLayout {
        KeyLayout::new(50, "20240101-120000-001".parse().unwrap(), strategy)
    }

    #[test]
    fn keys_are_the_ancestors() {
        let save = "ckpt-50-20240101-120000-001";
        assert_eq!(layout(Strategy::Flat).manifest_key(), format!("manifests/{save}.json"));
        for (strategy, rank, folder) in [
            (Strategy::Flat, 7, "shards".to_owned()),
            (Strategy::RoundRobin, 0, "shards/rr/00".to_owned()),
            (Strategy::RoundRobin, 16, "shards/rr/00".to_owned()),
            (Strategy::RoundRobin, 31, "shards/rr/0f".to_owned()),
            (Strategy::Binary, 8, "shards/bin/0000".to_owned()),
            (Strategy::Binary, 255, "shards/bin/1111".to_owned()),
            (Strategy::Binary, 256, "shards/bin/1000".to_owned()),
        ] {
            let key = layout(strategy).shard_key(rank);
            assert_eq!(key, format!("{folder}/{save}/rank-{rank}.bin"));
        }
    }

    #[test]
    fn keys_are_read_back() {
        for strategy in [Strategy::Flat, Strategy::RoundRobin, Strategy::Binary] {
            let layout = layout(strategy);
            let (step, ts) = (50, layout.timestamp().clone());
            for rank in [0, 9, 300, u32::MAX] {
                let shard = Named::Shard { step, ts: ts.clone(), rank };
                assert_eq!(Named::parse(&layout.shard_key(rank)), Some(shard.clone()));
                assert_eq!(Named::parse(&format!("{}.zst", layout.shard_key(rank))), Some(shard));
                let receipt = Named::Receipt { step, ts: ts.clone(), rank };
                assert_eq!(Named::parse(&layout.receipt_key(rank)), Some(receipt));
            }
            let manifest = Named::Manifest { step, ts };
            assert_eq!(Named::parse(&layout.manifest_key()), Some(manifest));
        }
    }

    #[test]
    fn other_names_are_not_read() {
        for key in [
            "",
            "latest.json",
            "manifests/ckpt-5.json",
            "manifests/ckpt--5-x.json",
            "manifests/ckpt-05-x.json",
            "manifests/ckpt-5-x.json.tmp",
            "manifests/sub/ckpt-5-x.json",
            "shards/ckpt-5-x/rank-01.bin",
            "shards/ckpt-5-x/rank-1.binary",
            "shards/ckpt-5-x/rank-4294967296.bin",
            "shards/other/00/ckpt-5-x/rank-1.bin",
            "deeper/shards/ckpt-5-x/rank-1.bin",
            "receipts/ckpt-5-x/rank-1.bin",
        ] {
            assert_eq!(Named::parse(key), None, "{key}");
        }
    }

    #[test]
    fn a_path_below_a_save_names_it() {
        let (step, ts) = save_of_path("file:///b/shards/rr/00/ckpt-5-x/.tmp-1-rank-0.bin").unwrap();
        assert_eq!((step, ts.as_str()), (5, "x"));
        assert_eq!(save_of_path("file:///b/manifests/.tmp-ckpt-5-x.json"), None);
    }

    #[test]
    fn keys_that_escape_are_refused() {
        check_shard_key("shards/ckpt-1-x/rank-0.bin").unwrap();
        check_shard_key("anything/else").unwrap();
        let long = "k".repeat(KEY_BYTES_MAX + 1);
        for key in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../b",
            "a//b",
            "a/./b",
            "a/",
            "a\nb",
            "a\0b",
            "latest.json",
            "manifests/ckpt-1-x.json",
            "receipts/ckpt-1-x/rank-0.json",
            &long,
        ] {
            assert_eq!(check_shard_key(key).unwrap_err().kind(), ErrorKind::Corrupt, "{key:?}");
        }
    }

    #[test]
    fn ranks_in_words() {
        assert_eq!(name_ranks([3, 7, 8, 9, 12]), "3, 7-9, 12");
        assert_eq!(name_ranks([u32::MAX - 1, u32::MAX]), "4294967294-4294967295");
        let even = name_ranks((0..100).map(|i| 2 * i));
        assert!(even.ends_with("38 and 80 more"), "{even}");
    }

    #[test]
    fn strategies_by_name() {
        for strategy in [Strategy::Flat, Strategy::RoundRobin, Strategy::Binary] {
            assert_eq!(strategy.to_string().parse::<Strategy>().unwrap(), strategy);
        }
        assert_eq!("round_robin".parse::<Strategy>().unwrap(), Strategy::RoundRobin);
        assert_eq!("tree".parse::<Strategy>().unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
