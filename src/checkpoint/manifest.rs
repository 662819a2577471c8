//! The manifest: the commit point of a checkpoint.
//!
//! Version 1 has the ancestor's fields in the ancestor's order, so that either reads what the other
//! wrote; what is ours beyond them (`raw_size` and its neighbours in a shard) the ancestor skips.
//! Ours is sealed by `manifest_checksum` (see `seal.rs`); a manifest without the seal is the
//! ancestor's, and then has none of our fields. Whatever a manifest says is checked before it is
//! believed: see [`Manifest::from_json`].

use std::collections::HashSet;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::WORLD_SIZE_MAX;
use crate::time::Timestamp;

use super::layout::name_ranks;
use super::seal;
use super::shard::ShardMeta;

/// The version this crate writes, and the latest it reads.
pub(super) const FORMAT_VERSION: u32 = 1;

/// What `status` says of a checkpoint that may be restored.
pub(super) const STATUS_COMPLETE: &str = "complete";

/// The field that seals a manifest.
const SEAL: &str = "manifest_checksum";

/// What a checkpoint consists of. A checkpoint exists when its manifest does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Manifest {
    /// 1.
    pub format_version: u32,
    /// Who wrote the data: `torch`, `flax`, `generic`... Never empty.
    pub framework: String,
    /// The step.
    pub global_step: u64,
    /// The epoch.
    pub epoch: u64,
    /// When the manifest was made, RFC 3339.
    pub wall_time: String,
    /// Number of ranks.
    pub world_size: u32,
    /// One shard for each rank, in the order of the ranks.
    pub shards: Vec<ShardMeta>,
    /// `"complete"`.
    pub status: String,
    /// What the caller wanted kept beside the data.
    #[serde(default)]
    pub user_meta: Option<Value>,
    /// Of the manifest's key; not in its text.
    #[serde(skip)]
    pub(super) ts: Option<Timestamp>,
}

impl Manifest {
    /// Reads and checks a manifest. Takes time and memory linear in its text, whatever it says.
    ///
    /// # Errors
    /// `Corrupt` if it is truncated, not JSON, altered, contradicts itself, or names objects
    /// outside its base; `Unsupported` if a later version wrote it; `Incomplete` if its status is
    /// not `complete`.
    pub fn from_json(text: &[u8]) -> Result<Manifest> {
        let sealed = seal::check(text, SEAL)?;
        let head: Head = parse(text)?;
        if head.format_version > u64::from(FORMAT_VERSION) {
            let found = head.format_version;
            let detail = format!("format_version is {found}; this version reads {FORMAT_VERSION}");
            return Err(Error::new(ErrorKind::Unsupported, READ, detail)
                .with_remedy("read it with the version that wrote it, or a later one"));
        }
        let mut manifest: Manifest = parse(text)?;
        let ours = head.manifest_checksum.is_some()
            || manifest.shards.iter().any(ShardMeta::has_our_fields);
        if ours && !sealed {
            return Err(corrupt(format!(
                "{SEAL} is missing or not the end: the text was altered or cut"
            )));
        }
        manifest.check()?;
        Ok(manifest)
    }

    /// The text as it is stored, closed by the checksum of what is before it.
    pub fn to_json(&self) -> Vec<u8> {
        seal::seal(self, SEAL)
    }

    /// The timestamp of the manifest's key; `None` for one made from text alone.
    pub fn timestamp(&self) -> Option<&Timestamp> {
        self.ts.as_ref()
    }

    /// The shard of a rank.
    ///
    /// # Errors
    /// `NotFound` if there is no such rank.
    pub fn shard(&self, rank: u32) -> Result<&ShardMeta> {
        self.shards.get(rank as usize).filter(|shard| shard.rank == rank).ok_or_else(|| {
            let (step, size) = (self.global_step, self.world_size);
            let detail = format!("step {step} has no rank {rank}; its ranks are 0 to {}", size - 1);
            Error::new(ErrorKind::NotFound, "find shard", detail)
        })
    }

    /// Bytes that a restore of all shards yields.
    pub fn raw_bytes(&self) -> u64 {
        self.shards.iter().fold(0, |sum, shard| sum.saturating_add(shard.raw_bytes()))
    }

    /// Bytes of all shards as stored.
    pub fn stored_bytes(&self) -> u64 {
        self.shards.iter().fold(0, |sum, shard| sum.saturating_add(shard.size))
    }

    /// Checks everything but the seal, and puts the shards in the order of their ranks.
    fn check(&mut self) -> Result<()> {
        if self.format_version == 0 {
            return Err(corrupt("format_version is 0".to_owned()));
        }
        if self.status != STATUS_COMPLETE {
            let shown: String = self.status.chars().take(40).collect();
            let detail = format!("its status is {shown:?}, not {STATUS_COMPLETE:?}");
            return Err(Error::new(ErrorKind::Incomplete, READ, detail));
        }
        if self.framework.is_empty() {
            return Err(corrupt("framework is empty".to_owned()));
        }
        if self.world_size == 0 || self.world_size > WORLD_SIZE_MAX {
            let found = self.world_size;
            return Err(corrupt(format!(
                "world_size {found} is not between 1 and {WORLD_SIZE_MAX}"
            )));
        }
        self.check_ranks()?;
        let mut keys = HashSet::with_capacity(self.shards.len());
        for shard in &self.shards {
            shard.check()?;
            if !keys.insert(shard.key.as_str()) {
                return Err(corrupt(format!("{:?} is the shard of two ranks", shard.key)));
            }
        }
        Ok(())
    }

    /// Ranks are exactly 0 to `world_size - 1`, in this order.
    fn check_ranks(&mut self) -> Result<()> {
        self.shards.sort_by_key(|shard| shard.rank);
        if self.shards.len() == self.world_size as usize
            && self.shards.iter().zip(0..).all(|(shard, rank)| shard.rank == rank)
        {
            return Ok(());
        }
        let ranks = || self.shards.iter().map(|shard| shard.rank);
        let twice = ranks().zip(ranks().skip(1)).filter(|(a, b)| a == b).map(|(rank, _)| rank);
        let mut wrong = Vec::new();
        for (word, named) in [
            ("missing", name_ranks(absent_ranks(ranks(), self.world_size))),
            ("twice", name_ranks(twice)),
            ("too large", name_ranks(ranks().filter(|rank| *rank >= self.world_size))),
        ] {
            if !named.is_empty() {
                wrong.push(format!("{word}: {named}"));
            }
        }
        Err(corrupt(format!(
            "its ranks are not 0 to {} ({})",
            self.world_size - 1,
            wrong.join("; ")
        )))
    }
}

/// The ranks below `world_size` that are not among `present`, which is in ascending order.
pub(super) fn absent_ranks(
    present: impl Iterator<Item = u32>,
    world_size: u32,
) -> impl Iterator<Item = u32> {
    let mut present = present.peekable();
    (0..world_size).filter(move |rank| {
        while present.next_if(|other| other < rank).is_some() {}
        present.peek() != Some(rank)
    })
}

const READ: &str = "read manifest";

/// What is looked at before all else, because it decides how the rest is read.
#[derive(Deserialize)]
struct Head {
    format_version: u64,
    #[serde(default)]
    manifest_checksum: Option<IgnoredAny>,
}

fn parse<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|e| corrupt(format!("not a manifest: {e}")).with_source(e))
}

fn corrupt(detail: String) -> Error {
    Error::new(ErrorKind::Corrupt, READ, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{Algorithm, BlockChecksums};
    use proptest::prelude::*;
    use serde_json::json;

    fn shard(rank: u32, data: &[u8], block_bytes: u64) -> ShardMeta {
        let crc32c =
            data.chunks(block_bytes as usize).map(|c| Algorithm::Crc32c.checksum(c).value() as u32);
        let size = data.len() as u64;
        let blocks = BlockChecksums::new(block_bytes, size, crc32c.collect()).unwrap();
        ShardMeta {
            rank,
            key: format!("shards/ckpt-5-x/rank-{rank}.bin"),
            size,
            etag: None,
            checksum: Some(blocks.combined().to_string()),
            raw_size: Some(size),
            stored_checksum: Some(blocks.combined().to_string()),
            compression: None,
            filter: None,
            part_bytes: Some(block_bytes),
            part_checksums: Some(blocks.to_hex()),
        }
    }

    fn manifest(shards: Vec<ShardMeta>) -> Manifest {
        Manifest {
            format_version: 1,
            framework: "generic".to_owned(),
            global_step: 5,
            epoch: 2,
            wall_time: "2026-11-22T09:01:28.964050853+00:00".to_owned(),
            world_size: shards.len() as u32,
            shards,
            status: STATUS_COMPLETE.to_owned(),
            user_meta: Some(json!({"files": ["a", "b"]})),
            ts: None,
        }
    }

    fn sample() -> Manifest {
        manifest(vec![shard(0, b"abcdefg", 4), shard(1, b"", 4), shard(2, &[7; 12], 4)])
    }

    /// The sample as the ancestor would write it, changed by `edit`.
    fn foreign(edit: impl FnOnce(&mut Value)) -> Result<Manifest> {
        let mut value: Value = serde_json::from_slice(&sample().to_json()).unwrap();
        value.as_object_mut().unwrap().remove(SEAL);
        for shard in value["shards"].as_array_mut().unwrap() {
            let fields = shard.as_object_mut().unwrap();
            fields.retain(|name, _| {
                ["rank", "key", "size", "etag", "checksum"].contains(&name.as_str())
            });
        }
        edit(&mut value);
        Manifest::from_json(&serde_json::to_vec_pretty(&value).unwrap())
    }

    #[test]
    fn the_text_has_the_ancestors_fields_in_order_and_ends_with_the_seal() {
        let text = String::from_utf8(sample().to_json()).unwrap();
        let names = [
            "format_version",
            "framework",
            "global_step",
            "epoch",
            "wall_time",
            "world_size",
            "shards",
            "status",
            "user_meta",
            SEAL,
        ];
        let places: Vec<usize> =
            names.iter().map(|name| text.find(&format!("\n  \"{name}\": ")).unwrap()).collect();
        assert!(places.is_sorted(), "{text}");
        assert!(text.ends_with("\"\n}"));
    }

    #[test]
    fn the_ancestors_manifest_is_read() {
        let read = foreign(|_| {}).unwrap();
        assert_eq!(read.shards[2].checksum, sample().shards[2].checksum);
        assert!(!read.shards[2].has_our_fields());
        foreign(|v| v["shards"][0]["checksum"] = Value::Null).unwrap();
        foreign(|v| v["shards"][0]["etag"] = json!("file-9-1795338088")).unwrap();
        foreign(|v| v["user_meta"] = Value::Null).unwrap();
        foreign(|v| v["unknown"] = json!({"deep": []})).unwrap();
        let shuffled = foreign(|v| v["shards"].as_array_mut().unwrap().reverse()).unwrap();
        assert_eq!(shuffled.shard(0).unwrap().rank, 0);
    }

    #[test]
    fn contradictions_are_refused() {
        use ErrorKind::{Corrupt, Incomplete, Unsupported};
        type Edit = fn(&mut Value);
        let cases: [(&str, ErrorKind, Edit); 20] = [
            ("format_version", Corrupt, |v| v["format_version"] = json!(0)),
            ("format_version", Unsupported, |v| v["format_version"] = json!(2)),
            ("not a manifest", Corrupt, |v| v["format_version"] = json!(-1)),
            ("not a manifest", Corrupt, |v| v["format_version"] = json!("1")),
            ("not a manifest", Corrupt, |v| v["shards"] = json!({})),
            ("framework", Corrupt, |v| v["framework"] = json!("")),
            ("\"saving\"", Incomplete, |v| v["status"] = json!("saving")),
            ("world_size", Corrupt, |v| v["world_size"] = json!(0)),
            ("world_size", Corrupt, |v| v["world_size"] = json!(u32::MAX)),
            ("missing: 3-4", Corrupt, |v| v["world_size"] = json!(5)),
            ("too large: 2", Corrupt, |v| v["world_size"] = json!(2)),
            ("missing: 0; twice: 1", Corrupt, |v| v["shards"][0]["rank"] = json!(1)),
            ("two ranks", Corrupt, |v| v["shards"][1]["key"] = v["shards"][0]["key"].clone()),
            ("..", Corrupt, |v| v["shards"][1]["key"] = json!("../outside")),
            ("relative", Corrupt, |v| v["shards"][1]["key"] = json!("/etc/passwd")),
            ("not the name of a shard", Corrupt, |v| v["shards"][1]["key"] = json!("latest.json")),
            ("no checksum", Corrupt, |v| v["shards"][1]["checksum"] = json!("crc32c:xyz")),
            ("no size", Corrupt, |v| v["shards"][1]["size"] = json!(u64::MAX)),
            ("manifest_checksum", Corrupt, |v| v["shards"][1]["raw_size"] = json!(0)),
            ("manifest_checksum", Corrupt, |v| v[SEAL] = json!("crc32c:00000000")),
        ];
        for (needle, kind, edit) in cases {
            let error = foreign(edit).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(needle), "{needle} is not in: {error}");
        }
    }

    #[test]
    fn our_own_fields_must_agree() {
        type Edit = fn(&mut ShardMeta);
        let cases: [Edit; 7] = [
            |s| s.raw_size = Some(1),
            |s| s.part_bytes = None,
            |s| s.part_bytes = Some(0),
            |s| s.part_bytes = Some(u64::MAX),
            |s| s.part_checksums = None,
            |s| s.part_checksums = Some("0".repeat(8)),
            |s| s.stored_checksum = Some("crc32c:".to_owned()),
        ];
        for edit in cases {
            let mut changed = sample();
            edit(&mut changed.shards[0]);
            let error = Manifest::from_json(&changed.to_json()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
        let mut other = sample().shards[0].clone();
        other.checksum = Some("crc32c:00000000".to_owned());
        assert_eq!(other.block_checksums().unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_forged_world_size_takes_no_memory() {
        let error = foreign(|v| v["world_size"] = json!(WORLD_SIZE_MAX)).unwrap_err();
        assert!(
            error.to_string().contains(&format!("missing: 3-{}", WORLD_SIZE_MAX - 1)),
            "{error}"
        );
    }

    #[test]
    fn depth_costs_no_stack_and_sums_do_not_overflow() {
        let nested = |depth: usize| {
            let text = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
            let text = String::from_utf8(sample().to_json())
                .unwrap()
                .replace("\"user_meta\": {", &format!("\"user_meta\": {{\"deep\": {text},"));
            // Sealed anew, so that nothing but the depth is wrong.
            let end = text.rfind('"').unwrap() + 1;
            let start = text.find(&format!("\"{SEAL}\"")).unwrap();
            let sum = Algorithm::Crc32c.checksum(&text.as_bytes()[..start]);
            format!("{}\"{SEAL}\": \"{sum}\"{}", &text[..start], &text[end..])
        };
        Manifest::from_json(nested(50).as_bytes()).unwrap();
        for depth in [1_000, 1_000_000] {
            let error = Manifest::from_json(nested(depth).as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
        let vast = foreign(|v| {
            for shard in v["shards"].as_array_mut().unwrap() {
                shard["size"] = json!(i64::MAX);
            }
        });
        assert_eq!(vast.unwrap().stored_bytes(), u64::MAX);
        for size in [json!(1u64 << 63), json!(u64::MAX - 1), json!(1.8e19), json!("9")] {
            let error = foreign(|v| v["shards"][0]["size"] = size.clone()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{size}: {error}");
        }
    }

    /// Nanoseconds that this thread ran, whatever else the machine does.
    fn ran_ns() -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }

    #[test]
    fn a_million_shards_take_a_million_times_as_long_as_one() {
        const MANY: u32 = 1_000_000;
        const TIMES: u32 = 16;
        let ns_for = |ranks: u32| {
            let shard =
                |rank| format!("{{\"rank\":{rank},\"key\":\"shards/{rank}.bin\",\"size\":1}}");
            // In the worst order.
            let shards: Vec<String> = (0..ranks).rev().map(shard).collect();
            let text = format!(
                "{{\"format_version\":1,\"framework\":\"f\",\"global_step\":5,\"epoch\":0,\"wall_time\":\"\",\
                 \"world_size\":{ranks},\"shards\":[{}],\"status\":\"complete\"}}",
                shards.join(",")
            );
            let before = ran_ns();
            let read = Manifest::from_json(text.as_bytes()).unwrap();
            assert_eq!(read.shard(ranks - 1).unwrap().rank, ranks - 1);
            // Twice over, each missing its fellow: what the error says is short.
            let forged = text.replacen("\"rank\":1,", "\"rank\":0,", 1);
            let error = Manifest::from_json(forged.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("twice: 0") && error.len() < 1000, "{error}");
            (ran_ns() - before).max(1)
        };
        let few = (0..3).map(|_| ns_for(MANY / TIMES)).min().unwrap();
        let many = ns_for(MANY);
        // Quadratic would be 256 times as long; caches may cost some.
        assert!(
            many / few < 5 * u64::from(TIMES),
            "{many} ns for {MANY}, {few} ns for a {TIMES}th"
        );
    }

    prop_compose! {
        fn any_manifest()(
            data in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6),
            block_bytes in 1u64..20,
            framework in ".{1,8}",
            epoch in any::<u64>(),
            meta in prop::option::of((".{0,6}", any::<f64>().prop_filter("JSON", |f| f.is_finite()))),
        ) -> Manifest {
            let shards = (0..).zip(&data).map(|(rank, data)| shard(rank, data, block_bytes)).collect();
            let user_meta = meta.map(|(name, value)| json!({"name": name, "value": value}));
            Manifest { framework, epoch, user_meta, ..manifest(shards) }
        }
    }

    proptest! {
        #[test]
        fn every_manifest_is_read_back(manifest in any_manifest()) {
            let text = manifest.to_json();
            let read = Manifest::from_json(&text).unwrap();
            prop_assert_eq!(&read, &manifest);
            prop_assert_eq!(read.to_json(), text);
        }

        #[test]
        fn every_change_of_a_manifest_is_seen(
            manifest in any_manifest(),
            at in any::<prop::sample::Index>(),
            with in 1u8..=255,
        ) {
            let text = manifest.to_json();
            let at = at.index(text.len());
            let mut flipped = text.clone();
            flipped[at] ^= with;
            prop_assert!(Manifest::from_json(&flipped).is_err());
            prop_assert!(Manifest::from_json(&text[..at]).is_err());
            let cut = [&text[..at], &text[at + 1..]].concat();
            prop_assert!(Manifest::from_json(&cut).is_err());
        }

        #[test]
        fn no_text_panics(text in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Manifest::from_json(&text).is_err());
        }
    }
}
