//! What the manifests of a base still need. Whoever removes shards asks here first.

use std::collections::HashSet;

use crate::error::{ErrorKind, Result};
use crate::time::Timestamp;

use super::base::Base;
use super::catalog::CheckpointInfo;
use super::restore;

/// The shards that manifests name, and what cannot be known.
#[derive(Debug, Default)]
pub(super) struct References {
    keys: HashSet<String>,
    /// Steps with a manifest that is damaged. The ancestor's shards may lie under another timestamp
    /// than their manifest, so all of the step is left alone.
    unknown_steps: HashSet<u64>,
    /// Saves whose manifest was listed and is gone: somebody removes their shards at this moment, or a
    /// listing lags behind.
    vanished: HashSet<(u64, Timestamp)>,
    /// Whether a manifest of a later version is there: it may name anything.
    all: bool,
    /// What was left alone and why, for people.
    pub notes: Vec<String>,
}

impl References {
    /// Reads these manifests in parallel. One that is gone meanwhile needs nothing.
    ///
    /// # Errors
    /// What the medium reports: removing on the word of a failed read would be wrong.
    pub fn gather(base: &Base, checkpoints: &[CheckpointInfo]) -> Result<References> {
        let mut references = References::default();
        let loaded = base.in_parallel(checkpoints, |info| {
            let keys = |manifest: super::Manifest| {
                manifest.shards.into_iter().map(|shard| shard.key).collect::<Vec<_>>()
            };
            restore::load(base, info).map(keys)
        })?;
        for (info, outcome) in checkpoints.iter().zip(loaded) {
            match outcome {
                Ok(keys) => references.keys.extend(keys),
                Err(error) => match error.kind() {
                    ErrorKind::NotFound => {
                        references.vanished.insert((info.step, info.timestamp.clone()));
                    }
                    ErrorKind::Corrupt | ErrorKind::Incomplete => {
                        references.unknown_steps.insert(info.step);
                        let step = info.step;
                        references
                            .notes
                            .push(format!("no shard of step {step} is removed: {error}"));
                    }
                    ErrorKind::Unsupported => {
                        references.all = true;
                        references.notes.push(format!("no shard at all is removed: {error}"));
                    }
                    _ => return Err(error),
                },
            }
        }
        Ok(references)
    }

    /// Whether the manifest of this save vanished while it was to be read.
    pub fn lost(&self, save: &(u64, Timestamp)) -> bool {
        self.vanished.contains(save)
    }

    /// Whether a shard of this key, found in a folder of this step, may be needed.
    pub fn need(&self, key: &str, step: u64) -> bool {
        self.all || self.unknown_steps.contains(&step) || self.keys.contains(key)
    }
}
