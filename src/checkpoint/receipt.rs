//! Receipts: how a rank tells the finalizer, through the storage alone, that its shard stands.
//!
//! A receipt is a sealed JSON document at `receipts/ckpt-<step>-<ts>/rank-<rank>.json`, written
//! create-only after the shard is durable. It repeats the save it belongs to, so that a receipt of
//! another save, of another world size or under another rank's name is recognised. The finalizer
//! removes the receipts when the manifest stands; those of an interrupted save are collected by
//! `gc`. The ancestor never looks there.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::time::Timestamp;

use super::layout::{KeyLayout, Named};
use super::manifest::FORMAT_VERSION;
use super::seal;
use super::shard::ShardMeta;

/// The field that seals a receipt.
const SEAL: &str = "receipt_checksum";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Receipt {
    format_version: u32,
    step: u64,
    ts: String,
    rank: u32,
    world_size: u32,
    pub shard: ShardMeta,
}

impl Receipt {
    pub fn new(layout: &KeyLayout, world_size: u32, shard: &ShardMeta) -> Receipt {
        Receipt {
            format_version: FORMAT_VERSION,
            step: layout.step(),
            ts: layout.timestamp().as_str().to_owned(),
            rank: shard.rank,
            world_size,
            shard: shard.clone(),
        }
    }

    pub fn to_json(&self) -> Vec<u8> {
        seal::seal(self, SEAL)
    }

    /// Reads the receipt found under the name of `rank` and checks that it is of this save.
    ///
    /// # Errors
    /// `Corrupt` if it was altered, or speaks for another save, world size or rank; `Unsupported`
    /// if a later version wrote it.
    pub fn from_json(
        text: &[u8],
        layout: &KeyLayout,
        world_size: u32,
        rank: u32,
    ) -> Result<Receipt> {
        let corrupt = |detail: String| Error::new(ErrorKind::Corrupt, "read receipt", detail);
        if !seal::check(text, SEAL)? {
            return Err(corrupt(format!(
                "{SEAL} is missing or not the end: the text was altered or cut"
            )));
        }
        let receipt: Receipt = serde_json::from_slice(text)
            .map_err(|e| corrupt(format!("not a receipt: {e}")).with_source(e))?;
        if receipt.format_version != FORMAT_VERSION {
            let detail = format!("format_version is {}", receipt.format_version);
            return Err(Error::new(ErrorKind::Unsupported, "read receipt", detail)
                .with_remedy("run the same version on all ranks"));
        }
        if (receipt.step, receipt.ts.as_str()) != (layout.step(), layout.timestamp().as_str()) {
            let found = format!("step {} at {}", receipt.step, receipt.ts);
            return Err(corrupt(format!("it is foreign: of {found}, not of {layout}")));
        }
        if receipt.world_size != world_size {
            let found = receipt.world_size;
            return Err(corrupt(format!("it is foreign: of {found} ranks, not of {world_size}")));
        }
        if receipt.rank != rank || receipt.shard.rank != rank {
            let found = if receipt.rank == rank { receipt.shard.rank } else { receipt.rank };
            return Err(corrupt(format!(
                "it is a duplicate: of rank {found}, under the name of {rank}"
            )));
        }
        receipt.shard.check()?;
        if !is_shard_of(&receipt.shard, layout.step(), layout.timestamp()) {
            return Err(corrupt(format!("its shard {:?} is of another save", receipt.shard.key)));
        }
        Ok(receipt)
    }
}

/// Whether the shard's key names this save and the shard's rank, under any strategy.
pub(super) fn is_shard_of(shard: &ShardMeta, step: u64, ts: &Timestamp) -> bool {
    matches!(
        Named::parse(&shard.key),
        Some(Named::Shard { step: s, ts: t, rank }) if s == step && t == *ts && rank == shard.rank
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Strategy;

    fn layout(step: u64, ts: &str) -> KeyLayout {
        KeyLayout::new(step, ts.parse().unwrap(), Strategy::RoundRobin)
    }

    fn receipt(layout: &KeyLayout, rank: u32) -> Receipt {
        let shard = serde_json::json!({"rank": rank, "key": layout.shard_key(rank), "size": 9});
        Receipt::new(layout, 4, &serde_json::from_value(shard).unwrap())
    }

    #[test]
    fn a_receipt_is_read_back_by_its_own_save_only() {
        let own = layout(5, "x");
        let receipt = receipt(&own, 2);
        let text = receipt.to_json();
        assert_eq!(Receipt::from_json(&text, &own, 4, 2).unwrap(), receipt);
        for (layout, world_size, rank, word) in [
            (layout(6, "x"), 4, 2, "foreign"),
            (layout(5, "y"), 4, 2, "foreign"),
            (layout(5, "x"), 5, 2, "foreign"),
            (layout(5, "x"), 4, 1, "duplicate"),
        ] {
            let error = Receipt::from_json(&text, &layout, world_size, rank).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn a_shard_of_another_save_is_refused() {
        let own = layout(5, "x");
        let mut wrong = receipt(&own, 2);
        wrong.shard.key = layout(5, "y").shard_key(2);
        assert!(Receipt::from_json(&wrong.to_json(), &own, 4, 2).is_err());
        wrong.shard.key = own.shard_key(1);
        assert!(Receipt::from_json(&wrong.to_json(), &own, 4, 2).is_err());
    }

    #[test]
    fn no_change_goes_unseen() {
        let own = layout(5, "x");
        let text = receipt(&own, 2).to_json();
        for at in 0..text.len() {
            let mut flipped = text.clone();
            flipped[at] ^= 0x20;
            assert!(Receipt::from_json(&flipped, &own, 4, 2).is_err(), "byte {at}");
            assert!(Receipt::from_json(&text[..at], &own, 4, 2).is_err(), "cut at {at}");
        }
    }
}
