//! What runs side by side, and what must be so all the while.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use syncline::checkpoint::{CheckpointInfo, CheckpointStore};
use syncline::{Config, Error, ErrorKind, HttpConfig, Result, Timestamp};

use super::faults::{self, Dice};
use super::resources::Resources;
use crate::child as program;
use crate::data::noise;
use crate::place::reaching;

const RANKS: u32 = 3;

/// Checkpoints that a prune keeps.
const KEEP: usize = 4;

const PART: usize = 64 * 1024;
const TIMEOUT: Duration = Duration::from_millis(3000);

/// How many timeouts one job may take, with all the calls it makes.
const TIMEOUTS_MAX: u32 = 40;

/// What each run does, however short it is.
pub const MUST: [&str; 3] = ["saves", "restores", "verifications"];

/// How often, beyond the time if need be: with the requests of so many of each some go wrong for certain.
const MUST_EACH: u64 = 10;

/// Of a shorter run the first part is no measure of threads and connections: not all have come.
const LONG: Duration = Duration::from_secs(60);

/// Memory that may come beyond that of the first tenth: what the allocator does not give back.
const GROWTH_BYTES: u64 = 24 << 20;

struct Soak {
    checkpoints: CheckpointStore,
    dice: Dice,
    /// Checkpoints that must restore, but those that a prune may be removing at this moment.
    finalized: Mutex<BTreeMap<u64, Saved>>,
    next_step: AtomicU64,
    ending: AtomicBool,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

#[derive(Clone)]
struct Saved {
    info: CheckpointInfo,
    bytes: usize,
    going: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The state of a rank at a step.
fn state(step: u64, rank: u32, bytes: usize) -> Vec<u8> {
    noise(bytes, step * u64::from(RANKS) + u64::from(rank) + 1)
}

pub fn child(medium: &str, base: &str, url: &str, millis: u64, seed: u64) {
    let http = HttpConfig::new().response_timeout(TIMEOUT / 10);
    let config = Config::builder()
        .part_bytes(PART)
        .io_threads(4)
        .queue_depth_parts(4)
        .open_writers_max(8)
        .timeout(TIMEOUT)
        .http(http);
    let config = reaching(config, medium, url).build().unwrap();
    let soak = Soak {
        checkpoints: CheckpointStore::open_with(base, &config).unwrap(),
        dice: Dice::new(seed ^ 0x5eed),
        finalized: Mutex::default(),
        next_step: AtomicU64::new(1),
        ending: AtomicBool::new(false),
        counts: Mutex::default(),
    };
    let length = Duration::from_millis(millis);
    std::thread::scope(|scope| {
        scope.spawn(|| soak.repeat("saves", Soak::save));
        scope.spawn(|| soak.repeat("restores", Soak::restore));
        scope.spawn(|| soak.repeat("restores", Soak::restore));
        scope.spawn(|| soak.repeat("verifications", Soak::verify));
        scope.spawn(|| soak.repeat("prunes", Soak::prune));
        scope.spawn(|| soak.repeat("collections", Soak::collect));
        if url == "-" {
            scope.spawn(|| soak.disturb_files());
        }
        soak.watch(length);
    });
    // All that must be there is there, when nothing goes wrong any more.
    let must: Vec<Saved> = lock(&soak.finalized).values().cloned().collect();
    for saved in must.iter().filter(|saved| !saved.going) {
        let restored = (0..100).find_map(|_| match soak.read(saved) {
            Ok(()) => Some(()),
            Err(error) => {
                soak.must_be_a_fault(&error, "restore");
                None
            }
        });
        restored.unwrap_or_else(|| panic!("{} does not restore", saved.info.step));
    }
    for (name, count) in lock(&soak.counts).iter() {
        program::tell(format_args!("{name} {count}"));
    }
}

impl Soak {
    fn count(&self, name: &'static str) {
        *lock(&self.counts).entry(name).or_default() += 1;
    }

    fn counted(&self, name: &str) -> u64 {
        lock(&self.counts).get(name).copied().unwrap_or(0)
    }

    /// Does a job again and again. One that takes too long hangs.
    fn repeat(&self, name: &'static str, job: fn(&Soak) -> Result<bool>) {
        while !self.ending.load(Ordering::SeqCst) {
            let started = Instant::now();
            match job(self) {
                Ok(true) => self.count(name),
                // There was nothing to do.
                Ok(false) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => {
                    self.must_be_a_fault(&error, name);
                    self.count("calls that failed");
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            let taken = started.elapsed();
            assert!(taken < TIMEOUT * TIMEOUTS_MAX, "{name} took {taken:?}");
        }
    }

    /// Bytes are never wrong; what a fault explains is told as such.
    fn must_be_a_fault(&self, error: &Error, what: &str) {
        let wrong = [ErrorKind::ChecksumMismatch, ErrorKind::Corrupt, ErrorKind::Panicked];
        assert!(!wrong.contains(&error.kind()), "{what}: {error:?}");
    }

    fn save(&self) -> Result<bool> {
        let step = self.next_step.fetch_add(1, Ordering::SeqCst);
        let bytes = [100, PART, 3 * PART + 17][self.dice.roll(3) as usize];
        let layout = self.checkpoints.layout(step, Timestamp::now());
        let put = |rank| {
            let writer = self.checkpoints.writer(RANKS, rank)?;
            writer.put_shard(&layout, &state(step, rank, bytes))
        };
        let shards = std::thread::scope(|scope| {
            let ranks: Vec<_> = (0..RANKS).map(|rank| scope.spawn(move || put(rank))).collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect::<Result<Vec<_>>>()
        })?;
        let finalizer = self.checkpoints.writer(RANKS, 0)?;
        let info = finalizer.finalize_checkpoint(&layout, "soak", 0, shards, None)?;
        lock(&self.finalized).insert(step, Saved { info, bytes, going: false });
        Ok(true)
    }

    fn any_saved(&self) -> Option<Saved> {
        let finalized = lock(&self.finalized);
        let at = self.dice.roll(finalized.len().max(1) as u64) as usize;
        finalized.values().nth(at).cloned()
    }

    /// Whether it is still to be there: neither pruned meanwhile nor about to be.
    fn must_be_there(&self, saved: &Saved) -> bool {
        lock(&self.finalized).get(&saved.info.step).is_some_and(|saved| !saved.going)
    }

    fn restore(&self) -> Result<bool> {
        let Some(saved) = self.any_saved() else { return Ok(false) };
        match self.read(&saved) {
            Ok(()) => Ok(true),
            Err(error) if !saved.going && self.must_be_there(&saved) => {
                let lost = [ErrorKind::NotFound, ErrorKind::Incomplete];
                assert!(!lost.contains(&error.kind()), "{} is lost: {error:?}", saved.info.step);
                Err(error)
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Every byte of every rank.
    fn read(&self, saved: &Saved) -> Result<()> {
        let reader = self.checkpoints.reader();
        let manifest = reader.load_manifest(&saved.info.manifest_key)?;
        for rank in 0..RANKS {
            let bytes = reader.read_shard_by_rank(&manifest, rank)?;
            let step = saved.info.step;
            assert!(bytes == state(step, rank, saved.bytes), "{step} rank {rank} is other bytes");
        }
        Ok(())
    }

    fn verify(&self) -> Result<bool> {
        let Some(saved) = self.any_saved() else { return Ok(false) };
        let report = self.checkpoints.verify(&saved.info, &|_| ())?;
        let damaged = report.shards.iter().any(|s| !s.state.is_good() && !s.state.is_unknown());
        let there = !saved.going && self.must_be_there(&saved);
        assert!(!(damaged && there), "{report:?}");
        Ok(true)
    }

    fn prune(&self) -> Result<bool> {
        std::thread::sleep(Duration::from_millis(50));
        // Which of them go depends on what it finds: also saves that are told to have failed and have not.
        let before: Vec<u64> = {
            let mut finalized = lock(&self.finalized);
            if finalized.len() <= KEEP {
                return Ok(false);
            }
            finalized.values_mut().for_each(|saved| saved.going = true);
            finalized.keys().copied().collect()
        };
        let pruned = self.checkpoints.prune(KEEP);
        let there: Vec<u64> = loop {
            match self.checkpoints.reader().list_checkpoints() {
                Ok(listed) => break listed.iter().map(|info| info.step).collect(),
                Err(error) => self.must_be_a_fault(&error, "list"),
            }
        };
        let newest = there.iter().rev().take(KEEP).next_back().copied();
        let mut finalized = lock(&self.finalized);
        for step in before {
            let saved = finalized.get_mut(&step).unwrap();
            saved.going = false;
            if !there.contains(&step) {
                assert!(newest.is_some_and(|newest| step < newest), "{step} is gone, of {there:?}");
                finalized.remove(&step);
            }
        }
        drop(finalized);
        pruned.map(|_| true)
    }

    fn collect(&self) -> Result<bool> {
        // As long as there is no checkpoint, age alone tells a save that runs from one that was given up.
        if lock(&self.finalized).is_empty() {
            return Ok(false);
        }
        // Whatever its age: the save that runs was begun after the newest complete checkpoint.
        self.checkpoints.gc(Duration::from_millis(50), true)?;
        std::thread::sleep(Duration::from_millis(20));
        Ok(true)
    }

    fn disturb_files(&self) {
        while !self.ending.load(Ordering::SeqCst) {
            faults::of_files(&self.dice);
            self.count("faults injected");
            std::thread::sleep(Duration::from_millis(100 + self.dice.roll(400)));
        }
    }

    /// Compares what the process takes in the first part of the time with what it takes in the last.
    fn watch(&self, length: Duration) {
        let started = Instant::now();
        let most = |until: Duration| {
            let mut most = self.resources();
            while started.elapsed() < until {
                std::thread::sleep(Duration::from_millis(10));
                most = most.max(self.resources());
            }
            most
        };
        let early = most(length / if length > LONG { 10 } else { 2 });
        most(length * 9 / 10);
        let late = most(length);
        let enough = || MUST.iter().all(|name| self.counted(name) >= MUST_EACH);
        while !enough() && started.elapsed() < length + TIMEOUT * TIMEOUTS_MAX {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.ending.store(true, Ordering::SeqCst);
        let what = format!("early {early:?}, late {late:?}");
        assert!(late.resident_bytes <= early.resident_bytes + GROWTH_BYTES, "{what}");
        assert!(late.descriptors <= early.descriptors * 2 + 8, "{what}");
        if length > LONG {
            // Threads of one save and one parallel read may fall together late and not early.
            assert!(late.threads <= early.threads + u64::from(RANKS), "{what}");
            assert!(late.sockets <= early.sockets + 4, "{what}");
        }
    }

    /// While there are descriptors to look with.
    fn resources(&self) -> Resources {
        loop {
            if let Some(resources) = Resources::now() {
                return resources;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
