//! A power cut after every system call of `syncline save`, `put`, `prune` and `gc` on `file://` and `direct://`.
//!
//! The calls of the command are recorded by strace and done again on the model of a disk
//! (`tests/support/crash/`). What a crash after each of them may leave is laid into fresh directories, in which
//! the library then looks for its checkpoints.
#![cfg(feature = "cli")]

mod model_tests;
mod recording;

#[path = "../support/figures.rs"]
mod figures;
#[path = "../support/crash/matrix.rs"]
mod matrix;
#[path = "../support/crash/model.rs"]
mod model;
#[path = "../support/crash/mutations.rs"]
mod mutations;
#[path = "../support/strace.rs"]
mod strace;

use std::collections::BTreeSet;
use std::fs::{File, FileTimes};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ::syncline as library;
use library::Config;
use library::checkpoint::CheckpointStore;
use matrix::{Known, Place, crash_everywhere, state};
use model::{Disk, Image, Operation, Survival};
use mutations::MUTATIONS;
use tempfile::TempDir;

const TS: &str = "20260101-000000-000";

/// Bytes of the ranks' shards: of three parts, of one, and of a few bytes.
const SHARDS_BYTES: [usize; 3] = [150_000, 40_000, 10];

/// States drawn at random for each crash point, beside the clear ones.
fn drawn() -> u64 {
    if figures::long() { 64 } else { 2 }
}

/// Lays an image into a directory. All of it is old: a gc takes what is young for a running save's.
fn lay(image: &Image, root: &Path) {
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for (path, _, content) in image.tree() {
        let path = root.join(path);
        let Some(content) = content else {
            std::fs::create_dir(path).unwrap();
            continue;
        };
        let file = File::create_new(path).unwrap();
        file.write_all_at(&content.bytes, 0).unwrap();
        file.set_len(content.size_bytes).unwrap();
        file.set_times(FileTimes::new().set_modified(old)).unwrap();
    }
}

/// A base after a crash, in memory.
struct AfterCrash(TempDir);

impl AfterCrash {
    fn new(image: &Image) -> AfterCrash {
        let directory = TempDir::new_in("/dev/shm").unwrap();
        lay(image, directory.path());
        AfterCrash(directory)
    }
}

impl Place for AfterCrash {
    fn checkpoints(&self) -> CheckpointStore {
        let config = Config::builder().part_bytes(64 * 1024).io_threads(2).build().unwrap();
        let uri = format!("file://{}/base", self.0.path().display());
        CheckpointStore::open_with(&uri, &config).unwrap()
    }

    fn tree(&self) -> BTreeSet<String> {
        let tree = recording::found(&self.0.path().join("base")).into_iter();
        let named = |(path, bytes): (String, Option<_>)| match bytes {
            Some(_) => path,
            None => path + "/",
        };
        tree.map(named).collect()
    }
}

/// A directory on a disk, what the commands did in it, and what they saved.
struct Machine {
    scheme: &'static str,
    _scratch: TempDir,
    inputs: PathBuf,
    root: PathBuf,
    disk: Disk,
    known: Known,
}

impl Machine {
    fn new(scheme: &'static str) -> Machine {
        Machine::on(scheme, Disk::new())
    }

    fn on(scheme: &'static str, disk: Disk) -> Machine {
        let scratch = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = scratch.path().canonicalize().unwrap();
        let (inputs, root) = (path.join("inputs"), path.join("root"));
        std::fs::create_dir(&inputs).unwrap();
        std::fs::create_dir(&root).unwrap();
        lay(disk.live(), &root);
        Machine { scheme, _scratch: scratch, inputs, root, disk, known: Known::default() }
    }

    /// Runs a command on the base, or on something in it (`BASE/...`), and records it.
    fn run(&mut self, arguments: &[&str]) {
        let base = format!("{}://{}/base", self.scheme, self.root.display());
        let in_place = |argument: &&str| match argument.strip_prefix("BASE") {
            Some(rest) => format!("{base}{rest}"),
            None => (*argument).to_owned(),
        };
        let all: Vec<String> = arguments.iter().map(in_place).collect();
        let mut all: Vec<&str> = all.iter().map(String::as_str).collect();
        // With one thread no call finds made what the record tells of only later.
        all.extend(["--io-threads", "1", "--part-size", "64KiB"]);
        recording::record(&all, &self.root, &mut self.disk);
    }

    /// Runs a command, while and after which a checkpoint may be there as told.
    fn run_on(&mut self, steps: &[u64], after: Option<u64>, arguments: &[&str]) {
        for step in steps {
            self.disk.expect(&manifest_key(*step), vec![None, Some(0)]);
        }
        self.run(arguments);
        for step in steps {
            self.disk.expect(&manifest_key(*step), vec![after]);
        }
    }

    fn save(&mut self, step: u64, options: &[&str]) {
        let shards: Vec<Vec<u8>> =
            (0..).zip(SHARDS_BYTES).map(|(rank, bytes)| state(step * 10 + rank, bytes)).collect();
        let mut inputs = Vec::new();
        for (rank, shard) in shards.iter().enumerate() {
            let path = self.inputs.join(rank.to_string());
            std::fs::write(&path, shard).unwrap();
            inputs.push(path.to_str().unwrap().to_owned());
        }
        self.known.add(&manifest_key(step), 0, shards);
        let number = step.to_string();
        let mut arguments = vec!["save"];
        arguments.extend(inputs.iter().map(String::as_str));
        arguments.extend(["BASE", "--step", &number, "--ts", TS]);
        arguments.extend(options);
        self.run_on(&[step], Some(0), &arguments);
    }

    /// Puts an object; until that is told, the version before it may be seen.
    fn put(&mut self, name: &str, version: u64, bytes: usize) {
        let content = state(1000 + version, bytes);
        let file = self.inputs.join("object");
        std::fs::write(&file, &content).unwrap();
        self.known.add(name, version, vec![content]);
        self.disk.expect(name, vec![version.checked_sub(1), Some(version)]);
        self.run(&["put", file.to_str().unwrap(), &format!("BASE/{name}")]);
        self.disk.expect(name, vec![Some(version)]);
    }

    /// Crashes everywhere in what was recorded; then all of it is durable.
    fn survives(&mut self) {
        let outcome = crash_everywhere(&self.disk, &self.known, drawn(), AfterCrash::new);
        let tally = outcome.unwrap_or_else(|finding| panic!("{}: {finding}", self.scheme));
        assert!(tally.checked > tally.points / 4, "{}: {tally:?}", self.scheme);
        figures::add("crash points", tally.points);
        figures::add("states after a crash", tally.checked);
        self.disk = self.disk.settled();
    }
}

fn manifest_key(step: u64) -> String {
    format!("manifests/ckpt-{step}-{TS}.json")
}

/// First save, second, one that is compressed, and the prune of two of them.
fn saves_and_a_prune_survive(scheme: &'static str) {
    let mut machine = Machine::new(scheme);
    machine.save(1, &[]);
    machine.survives();
    machine.save(2, &["--strategy", "round-robin"]);
    machine.survives();
    machine.save(3, &["--compress", "zstd:1"]);
    machine.survives();
    machine.run_on(&[1, 2], None, &["prune", "BASE", "--keep", "1"]);
    machine.survives();
}

/// A save that was killed before its manifest, a save after it, and the gc.
fn a_gc_survives(scheme: &'static str) {
    let mut killed = Machine::new(scheme);
    killed.save(1, &[]);
    let manifest = |operation: &Operation| matches!(operation, Operation::Rename { to, .. } if to.starts_with("ckpt-"));
    let commit = killed.disk.log().iter().position(manifest).unwrap();
    let image = killed.disk.state(commit, Survival::All);

    let mut machine = Machine::on(scheme, Disk::from_image(image));
    machine.save(2, &[]);
    let leftovers = recording::found(&machine.root).len();
    machine.run(&["gc", "BASE", "--older-than", "0s", "--delete"]);
    let gone = leftovers - recording::found(&machine.root).len();
    assert!(gone > SHARDS_BYTES.len(), "{gone} went");
    machine.survives();
}

/// Each version replaces the one before it, which is as long, longer or shorter: once right after that was put, and
/// once when that is old.
fn an_object_that_is_replaced_survives(scheme: &'static str) {
    const VERSIONS_BYTES: [usize; 4] = [150_000, 150_000, 10, 40_000];
    for settled in [false, true] {
        let mut machine = Machine::new(scheme);
        for (version, bytes) in (0..).zip(VERSIONS_BYTES) {
            machine.put("objects/one", version, bytes);
            if settled {
                machine.survives();
            }
        }
        if !settled {
            machine.survives();
        }
    }
}

#[test]
fn an_object_that_is_replaced_survives_a_power_cut_at_every_call() {
    an_object_that_is_replaced_survives("file");
    an_object_that_is_replaced_survives("direct");
}

#[test]
fn saves_and_a_prune_survive_a_power_cut_at_every_call_on_file() {
    saves_and_a_prune_survive("file");
}

#[test]
fn saves_and_a_prune_survive_a_power_cut_at_every_call_on_direct() {
    saves_and_a_prune_survive("direct");
}

#[test]
fn a_gc_survives_a_power_cut_at_every_call() {
    a_gc_survives("file");
    a_gc_survives("direct");
}

#[test]
fn steps_that_are_left_out_or_come_too_early_are_found() {
    let mut machine = Machine::new("file");
    machine.save(1, &[]);
    for (what, mutate) in MUTATIONS {
        let disk = mutate(&machine.disk);
        crash_everywhere(&disk, &machine.known, drawn(), AfterCrash::new).expect_err(what);
    }
}

/// The same for an object that is put a second time; what is told of a manifest alone has no place there.
#[test]
fn an_object_that_is_replaced_without_syncs_or_in_its_place_is_found() {
    let mut machine = Machine::new("file");
    machine.put("objects/one", 0, 150_000);
    machine.survives();
    let find = |machine: &Machine| machine.disk.live().find("base/objects/one").unwrap();
    let old = find(&machine);
    machine.put("objects/one", 1, 150_000);
    let new = find(&machine);
    assert_ne!(old, new);
    let in_place = |operation| match operation {
        Operation::Write { inode, offset, bytes } if inode == new => {
            Some(Operation::Write { inode: old, offset, bytes })
        }
        Operation::SyncBegins { inode, by } if inode == new => {
            Some(Operation::SyncBegins { inode: old, by })
        }
        Operation::SyncEnds { inode, by } if inode == new => {
            Some(Operation::SyncEnds { inode: old, by })
        }
        Operation::Rename { .. } => None,
        other => Some(other),
    };
    let written_over = machine.disk.with_log(|log| log.into_iter().filter_map(in_place).collect());
    let mutated = MUTATIONS[..2].iter().map(|(what, mutate)| (*what, mutate(&machine.disk)));
    for (what, disk) in mutated.chain([("the bytes go over the old ones", written_over)]) {
        let outcome = crash_everywhere(&disk, &machine.known, drawn(), AfterCrash::new);
        let finding = outcome.expect_err(what);
        assert!(finding.contains("objects/one has"), "{what}: {finding}");
    }
}
