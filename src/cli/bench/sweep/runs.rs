//! The runs: each writes an object with one setting and reads it back with the same.

use syncline::{Algorithm, AlignedVec, Bytes};

use super::grid::{Candidate, Setting};
use crate::bench::engine::{self, WayIn, WayOut};
use crate::bench::measure::{Figures, Sample, measure};
use crate::bench::place::Place;
use crate::bench::plan::{Plan, random_source, whole_parts};
use crate::bench::{forget_cached, machine};
use crate::failure::Failure;
use crate::progress::Bar;
use crate::session::Session;

/// Most bytes of the source and of the memory that is read into: as much as a call hands over at a time.
/// Between two calls nothing is under way, so there must be few of them.
const CALL_BYTES_MAX: u64 = 1 << 30;

/// Most bytes of a run: blocks of larger objects would not fit a call.
pub const RUN_BYTES_MAX: u64 = 256 << 30;

/// Bytes that start a store's threads.
const WARM_UP_BYTES: usize = 64 << 10;

/// What all runs share.
pub struct Runs<'a> {
    session: &'a Session,
    place: &'a Place,
    size_bytes: u64,
    source: Bytes,
    /// Resident: a program that restores twice has touched it.
    memory: AlignedVec,
}

/// A setting with its samples, one of each kind per round.
pub struct Measured {
    pub setting: Setting,
    /// Bytes of a pass: `--size` in whole parts.
    pub pass_bytes: u64,
    pub write_samples: Vec<Sample>,
    pub read_samples: Vec<Sample>,
    pub write: Figures,
    pub read: Figures,
}

/// Bytes of a pass of so many bytes at the least.
pub fn pass_bytes(setting: &Setting, size_bytes: u64) -> u64 {
    whole_parts(size_bytes, setting.part_bytes)
}

/// Bytes of the source, and of the memory that is read into.
pub fn call_bytes(candidates: &[Candidate], size_bytes: u64) -> usize {
    let of = |candidate: &Candidate| {
        let part_bytes = candidate.setting.part_bytes as u64;
        pass_bytes(&candidate.setting, size_bytes).min(CALL_BYTES_MAX).max(part_bytes)
    };
    usize::try_from(candidates.iter().map(of).max().unwrap_or(0)).unwrap_or(usize::MAX)
}

impl<'a> Runs<'a> {
    /// Makes the source and the memory, once for all.
    pub fn new(
        session: &'a Session,
        place: &'a Place,
        candidates: &[Candidate],
        size_bytes: u64,
    ) -> Result<Runs<'a>, Failure> {
        let bytes = call_bytes(candidates, size_bytes);
        let source = random_source(bytes)?;
        let mut memory = AlignedVec::zeroed(bytes)?;
        memory.fill(1);
        Ok(Runs { session, place, size_bytes, source, memory })
    }

    /// Runs every candidate once per round, each round in another order.
    pub fn race(
        &mut self,
        candidates: &[Candidate],
        rounds: u32,
        bar: &Bar,
    ) -> Result<Vec<Measured>, Failure> {
        let mut samples = vec![(Vec::new(), Vec::new()); candidates.len()];
        for round in 0..rounds {
            for index in order(candidates.len(), round) {
                let (write, read) = self.run(&candidates[index], bar)?;
                samples[index].0.push(write);
                samples[index].1.push(read);
            }
        }
        let measured =
            |(candidate, (write_samples, read_samples)): (&Candidate, (Vec<_>, Vec<_>))| {
                let pass_bytes = pass_bytes(&candidate.setting, self.size_bytes);
                Measured {
                    setting: candidate.setting,
                    pass_bytes,
                    write: Figures::of(&write_samples, pass_bytes),
                    read: Figures::of(&read_samples, pass_bytes),
                    write_samples,
                    read_samples,
                }
            };
        Ok(candidates.iter().zip(samples).map(measured).collect())
    }

    /// One run with a store of its own, whose threads run already. Returns the costs of writing and of
    /// reading.
    pub fn run(&mut self, candidate: &Candidate, bar: &Bar) -> Result<(Sample, Sample), Failure> {
        let plan = self.plan(candidate);
        plan.stop.check()?;
        let store = syncline::open_store(&plan.object_uri, plan.config)?;
        store.put(&plan.warm_up_uri, &plan.source[..plan.source.len().min(WARM_UP_BYTES)])?;
        store.delete(&plan.warm_up_uri)?;
        let mut blocks = None;
        let write = measure(
            || Ok(()),
            |()| {
                blocks = engine::write(&plan, &*store, WayIn::Borrowed, Some(Algorithm::Crc32c))?;
                Ok(())
            },
        )?;
        bar.add_bytes(plan.size_bytes);
        let blocks = blocks
            .ok_or_else(|| Failure::Other("bench: the writer has no block checksums".to_owned()))?;
        forget_cached(self.place)?;
        let window_bytes = whole_blocks(&self.memory, plan.size_bytes, blocks.block_bytes());
        let memory = &mut self.memory[..window_bytes];
        let read = measure(
            || Ok(()),
            |()| engine::read(&plan, &*store, WayOut::IntoVerified, &blocks, memory),
        )?;
        bar.add_bytes(plan.size_bytes);
        self.place.remove_object()?;
        Ok((write, read))
    }

    fn plan<'p>(&self, candidate: &'p Candidate) -> Plan<'p>
    where
        'a: 'p,
    {
        let part_bytes = candidate.setting.part_bytes;
        let size_bytes = pass_bytes(&candidate.setting, self.size_bytes);
        let call_bytes = usize::try_from(size_bytes).unwrap_or(usize::MAX).min(self.source.len());
        Plan {
            config: &candidate.config,
            stop: &self.session.stop,
            size_bytes,
            part_bytes,
            // Whole parts, so that none is put together of the end of one call and the start of the next.
            source: self.source.slice(..call_bytes / part_bytes * part_bytes),
            object_uri: self.place.object_uri(),
            warm_up_uri: self.place.warm_up_uri(),
            direct: false,
        }
    }
}

/// As much of the memory as an object of this size can be read into by blocks.
fn whole_blocks(memory: &[u8], size_bytes: u64, block_bytes: u64) -> usize {
    // Below RUN_BYTES_MAX a block fits: an object has 512 of them, or they are parts.
    let blocks_bytes = memory.len() as u64 / block_bytes * block_bytes;
    let bytes = if size_bytes <= memory.len() as u64 { size_bytes } else { blocks_bytes };
    usize::try_from(bytes).unwrap_or(memory.len())
}

/// Every index once. Rounds come in twos, the second backwards, so that a medium that becomes slower all
/// the time slows all alike; each two are shuffled anew, so that nobody always follows the same.
fn order(count: usize, round: u32) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..count).collect();
    indices.sort_by_key(|index| mixed(u64::from(round / 2) << 32 | *index as u64));
    if round % 2 == 1 {
        indices.reverse();
    }
    indices
}

/// SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Refuses a sweep whose own memory would crowd the engine's out.
pub fn refuse_too_large(uri: &str, call_bytes: usize, object_bytes: u64) -> Result<(), Failure> {
    let in_memory_bytes = if uri.starts_with("mem://") { object_bytes } else { 0 };
    machine::refuse_too_large(uri, 2 * call_bytes as u64 + in_memory_bytes, 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_round_runs_all_and_the_next_goes_backwards(count in 0usize..50, round in 0u32..20) {
            let there = order(count, 2 * round);
            let mut back = order(count, 2 * round + 1);
            back.reverse();
            prop_assert_eq!(&there, &back);
            back.sort_unstable();
            prop_assert_eq!(back, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn pairs_of_rounds_differ() {
        assert_ne!(order(30, 0), order(30, 2));
    }
}
