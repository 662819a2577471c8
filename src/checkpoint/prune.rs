//! Pruning: old checkpoints go, and never the newest that is good.
//!
//! What goes is decided by names, manifests and sizes. Before anything goes, checkpoints are read from
//! the newest on until one is good: that one stays, wherever it stands. So a save that decayed unseen
//! does not outlive the good one before it.

use std::collections::HashSet;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};

use super::CheckpointStore;
use super::catalog::{CheckpointInfo, own_shards, remove, says_nothing};
use super::latest;
use super::references::References;
use super::restore;
use super::verify::{Verdict, VerifyReport};

/// What [`CheckpointStore::prune_with`] keeps, and how sure it makes itself.
///
/// ```
/// use syncline::checkpoint::PruneOptions;
///
/// // The newest three, and of the older ones every thousandth step.
/// let options = PruneOptions::new(3).keep_every(1000).dry_run();
/// assert_eq!(options.keep, 3);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PruneOptions {
    /// How many of the newest complete checkpoints stay; at least one.
    pub keep: usize,
    /// Beside them, those whose step is a multiple of this.
    pub keep_every: Option<u64>,
    /// Take a checkpoint whose shards are there in the right sizes for good, and read none.
    pub trust_sizes: bool,
    /// Remove nothing; tell what would go.
    pub dry_run: bool,
}

impl PruneOptions {
    /// Keeps this many of the newest complete checkpoints.
    pub fn new(keep: usize) -> PruneOptions {
        PruneOptions { keep, keep_every: None, trust_sizes: false, dry_run: false }
    }

    /// Keeping also those whose step is a multiple of `steps`, which is not zero.
    #[must_use]
    pub fn keep_every(mut self, steps: u64) -> Self {
        self.keep_every = Some(steps);
        self
    }

    /// Going by sizes, without reading a checkpoint.
    #[must_use]
    pub fn trust_sizes(mut self) -> Self {
        self.trust_sizes = true;
        self
    }

    /// Removing nothing.
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    fn check(&self) -> Result<()> {
        if self.keep == 0 {
            return Err(Error::invalid("prune", "keeping no checkpoint would remove them all")
                .with_remedy("keep at least one; delete_checkpoint removes a given one"));
        }
        if self.keep_every == Some(0) {
            return Err(Error::invalid("prune", "no step is a multiple of zero but zero")
                .with_remedy("keep every 1,000th step, for example, or leave it out"));
        }
        Ok(())
    }

    fn keeps_step(&self, step: u64) -> bool {
        self.keep_every.is_some_and(|steps| step.is_multiple_of(steps))
    }
}

/// What [`CheckpointStore::prune_with`] did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PruneReport {
    /// Checkpoints removed, oldest first.
    pub removed: Vec<CheckpointInfo>,
    /// Checkpoints that remain, oldest first.
    pub kept: Vec<CheckpointInfo>,
    /// The newest good checkpoint: every byte of it was read and compared before anything was removed.
    /// `None` where sizes were trusted, or nothing was to be removed.
    pub proven: Option<CheckpointInfo>,
    /// Bytes of the shards removed.
    pub removed_bytes: u64,
    /// What was left alone and why, for people.
    pub notes: Vec<String>,
}

/// What is to go, before it is proven that it may. Newest first.
#[derive(Default)]
struct Plan {
    kept: Vec<CheckpointInfo>,
    going: Vec<CheckpointInfo>,
    /// Of those that are kept: known not to restore.
    incomplete: HashSet<CheckpointInfo>,
    notes: Vec<String>,
}

impl CheckpointStore {
    /// As [`prune_with`](CheckpointStore::prune_with), keeping the newest `keep`.
    ///
    /// # Errors
    /// As there.
    pub fn prune(&self, keep: usize) -> Result<PruneReport> {
        self.prune_with(&PruneOptions::new(keep), &|_| ())
    }

    /// Removes all but the newest `keep` checkpoints that are complete (their manifest reads, and their
    /// shards are there in the stated sizes) and the steps of
    /// [`keep_every`](PruneOptions::keep_every). Incomplete ones among the newest, and those whose
    /// manifest does not read, are kept beyond the number and noted. Safe beside a running save.
    ///
    /// The newest good checkpoint always stays: before anything is removed, checkpoints are read from
    /// the newest on until one is good, unless [sizes are trusted](PruneOptions::trust_sizes). One that
    /// would have gone is kept and noted. `progress` is called from several threads with the bytes
    /// read since its last call.
    ///
    /// First `latest.json` is pointed at what remains, then of each checkpoint the manifest is removed,
    /// then its shards. A reader of a checkpoint that is pruned meanwhile gets an error, never other
    /// bytes.
    ///
    /// # Errors
    /// `InvalidInput` if `keep` or `keep_every` is zero; `Corrupt` if no checkpoint is good, or one that
    /// would go has a shard behind a symbolic link out of the base, and then nothing was removed; what
    /// the medium reports.
    pub fn prune_with(
        &self,
        options: &PruneOptions,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<PruneReport> {
        options.check()?;
        let mut plan = self.plan(options)?;
        let mut report = PruneReport::default();
        if !options.trust_sizes && !plan.going.is_empty() {
            let proven = self.newest_good(&mut plan, progress)?;
            if let Some(at) = plan.going.iter().position(|info| *info == proven) {
                plan.notes.push(format!(
                    "{proven} is kept beyond what was asked: it is the newest that is good"
                ));
                plan.kept.push(plan.going.remove(at));
            }
            report.proven = Some(proven);
        }
        (report.kept, report.notes) = (plan.kept, plan.notes);
        plan.going.reverse();
        self.remove_all(plan.going, options.dry_run, &mut report)?;
        report.kept.sort();
        Ok(report)
    }

    fn plan(&self, options: &PruneOptions) -> Result<Plan> {
        let mut plan = Plan::default();
        let mut complete = 0;
        for info in latest::list_names(&self.base)?.into_iter().rev() {
            if complete == options.keep {
                let stays = options.keeps_step(info.step);
                if stays { &mut plan.kept } else { &mut plan.going }.push(info);
                continue;
            }
            match self.why_incomplete(&info)? {
                None => complete += 1,
                Some(why) => {
                    plan.notes.push(format!("{info} does not count: {why}"));
                    plan.incomplete.insert(info.clone());
                }
            }
            plan.kept.push(info);
        }
        Ok(plan)
    }

    /// Reads checkpoints, newest first, until one is good.
    fn newest_good(
        &self,
        plan: &mut Plan,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<CheckpointInfo> {
        let all = plan.kept.iter().chain(&plan.going);
        let mut all: Vec<CheckpointInfo> =
            all.filter(|info| !plan.incomplete.contains(*info)).cloned().collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        for info in all {
            match self.verify(&info, progress) {
                Ok(report) if report.is_good() => return Ok(info),
                Ok(report) => plan.notes.push(format!("{info} is not good: {}", why(&report))),
                // Somebody else removed it.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let detail =
            format!("no checkpoint is good, and none was removed: {}", plan.notes.join("; "));
        Err(Error::new(ErrorKind::Corrupt, "prune", detail)
            .with_uri(self.base.base_uri())
            .with_remedy("look at them with verify; delete_checkpoint removes a given one"))
    }

    /// Removes these checkpoints, oldest first, but those whose manifest does not read.
    fn remove_all(
        &self,
        going: Vec<CheckpointInfo>,
        dry_run: bool,
        report: &mut PruneReport,
    ) -> Result<()> {
        let base = &*self.base;
        // All are read before one is removed: a manifest that does not read protects its step.
        let outcomes = base.in_parallel(&going, |info| match restore::load(base, info) {
            Ok(manifest) => {
                let keys = manifest.shards.iter().map(|shard| shard.key.as_str());
                base.check_within(keys).map(|()| None)
            }
            Err(error) if says_nothing(error.kind()) => Ok(Some(error)),
            Err(error) => Err(error),
        })?;
        let mut readable = Vec::with_capacity(going.len());
        for (info, outcome) in going.into_iter().zip(outcomes) {
            match outcome? {
                None => readable.push(info),
                Some(error) => {
                    report.notes.push(format!("{info} is kept: {error}"));
                    report.kept.push(info);
                }
            }
        }
        if readable.is_empty() {
            return Ok(());
        }
        let references = References::gather(base, &report.kept)?;
        if !dry_run {
            latest::publish_without(base, &readable)?;
        }
        for info in readable {
            let manifest = match restore::load(base, &info) {
                Ok(manifest) => manifest,
                // Somebody else removes it at this moment.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            // Sizes of the manifest are anybody's word: their sum may be beyond any number.
            let bytes = match dry_run {
                true => own_shards(&manifest, info.step, &references)
                    .fold(0, |sum: u64, shard| sum.saturating_add(shard.size)),
                false => remove(base, &info, Some(&manifest), &references)?,
            };
            report.removed_bytes = report.removed_bytes.saturating_add(bytes);
            report.removed.push(info);
        }
        report.notes.extend(references.notes);
        Ok(())
    }
}

/// What is wrong with a checkpoint that is not good, in short.
fn why(report: &VerifyReport) -> String {
    if let Some(error) = &report.manifest_error {
        return error.clone();
    }
    let wrong: Vec<_> = report.shards.iter().filter(|shard| !shard.state.is_good()).collect();
    let what = if report.verdict == Verdict::Damaged { "damaged" } else { "not readable" };
    match wrong.first() {
        Some(first) => {
            format!("{} shards are {what}, the first of rank {}", wrong.len(), first.rank)
        }
        None => what.to_owned(),
    }
}
