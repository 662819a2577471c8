//! Every system call of a job that has to do with files fails, as strace makes it fail in a child.
//!
//! The store of the child has one I/O thread, so that each of its calls has a number that is the same in
//! every run. strace counts the calls of each thread for itself: before the job the thread makes more calls
//! of each kind than other threads ever do, so that the number is of no other thread's call.

use std::collections::HashMap;

use syncline::checkpoint::CheckpointStore;

use crate::figures;
use crate::folder::Folder;
use crate::jobs::{Job, Medium, NEW, close, prepare, save};
use crate::judge::judge;
use crate::program;
use crate::seed::seed;
use crate::side_by_side::side_by_side;

/// Where the name of what the child does next seems to lie.
const MARK: &str = "/syncline-faults-mark";

/// More looks at a file than any program takes to start.
const LOOKS: usize = 40;

/// Of the calls that only look, every so-many-th fails; in the longer run each.
const LOOKS_STRIDE: usize = 3;

/// What a child tells of a job that did not fail: see `Done`.
const ALL: &str = "All";
const SOME: &str = "Some";

/// How often a call is waited for: threads that ask at the same time may be served in another order.
const TRIES: usize = 20;

/// The calls that may fail.
const CALLS: [&str; 16] = [
    "openat",
    "pwrite64",
    "fallocate",
    "ftruncate",
    "sync_file_range",
    "fdatasync",
    "fsync",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "statx",
    "pread64",
    "getdents64",
];

/// Those that only look.
const LOOKING: [&str; 4] = ["openat", "statx", "pread64", "getdents64"];

/// Those that a job cannot do without, up to its last one that counts.
const NEEDED: [&str; 8] =
    ["pwrite64", "fdatasync", "fsync", "renameat", "renameat2", "unlink", "unlinkat", "rmdir"];

/// How a call fails: what strace is told, and what the error says then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class {
    inject: &'static str,
    kind: &'static str,
    says: &'static str,
}

const CLASSES: [Class; 4] = [
    Class { inject: "error=EIO", kind: "Io", says: "Input/output error" },
    Class { inject: "error=ENOSPC", kind: "NoSpace", says: "No space left" },
    Class { inject: "error=EDQUOT", kind: "NoSpace", says: "quota" },
    Class { inject: "error=EINTR", kind: "Io", says: "Interrupted" },
];

/// A write that takes nothing, again and again.
const NOTHING_TAKEN: Class = Class { inject: "retval=0", kind: "Io", says: "whole buffer" };

/// A call that the job makes.
#[derive(Debug, Clone)]
struct Call {
    name: &'static str,
    /// Its number among the calls of this name of its thread, from 1.
    number: usize,
    /// As strace shows it.
    line: String,
    /// What it is about.
    target: String,
    /// Whether the job cannot succeed without it.
    decides: bool,
}

/// In a child: does a job that may be disturbed, and then saves a step `again`.
pub fn child(scheme: &str, path: &str, job: &str, again: u64) {
    let folder = Folder::at(scheme, path);
    let checkpoints = folder.open();
    for _ in 0..LOOKS {
        checkpoints.store().get(&checkpoints.uri("latest.json")).unwrap();
    }
    let job = [Job::Save, Job::Overwrite, Job::Prune, Job::Gc]
        .into_iter()
        .find(|j| format!("{j:?}") == job)
        .unwrap();
    let mark = |name: &str| assert!(std::fs::metadata(format!("{MARK}/{name}")).is_err());
    mark("begin");
    let outcome = job.run(&checkpoints);
    mark("end");
    match outcome {
        Ok(done) => program::tell(format_args!("{done:?}")),
        Err(error) => program::tell(format_args!("{:?} {error}", error.kind())),
    }
    // The same store has all its buffers, and its threads.
    let elsewhere = format!("{}-again", folder.base());
    let saved = save(&CheckpointStore::new(checkpoints.store().clone(), &elsewhere), again);
    program::tell(format_args!("again {saved:?}"));
    close(checkpoints, "the child");
}

fn task(scheme: &str, folder: &Folder, job: Job, again: u64) -> String {
    format!("disturbed {scheme} {} {job:?} {again}", folder.path().display())
}

fn strace<'a>(log: &'a str, filter: &'a str, inject: &'a str) -> Vec<&'a str> {
    let mut words =
        vec!["strace", "-f", "--seccomp-bpf", "-y", "-qq", "-s", "300", "-o", log, "-e", filter];
    if !inject.is_empty() {
        words.extend(["-e", inject]);
    }
    words
}

/// The calls of the job, as they are when nothing fails.
fn calls_of(template: &Folder, scheme: &str, job: Job) -> Vec<Call> {
    let folder = template.copy();
    let log = tempfile::NamedTempFile::new().unwrap();
    let filter = format!("trace={}", CALLS.join(","));
    let words = strace(log.path().to_str().unwrap(), &filter, "");
    let task = task(scheme, &folder, job, NEW);
    assert_eq!(program::run(&words, &task), [ALL, "again Ok(())"]);
    let below = folder.path().parent().unwrap().to_str().unwrap();
    let mut calls = numbered(&std::fs::read_to_string(log.path()).unwrap(), below);
    let last = last_needed(job, &calls);
    for call in &mut calls[..=last] {
        call.decides = NEEDED.contains(&call.name);
    }
    judge(&folder, job, true, "undisturbed");
    calls
}

/// The calls between the marks that have to do with what lies `below`.
fn numbered(log: &str, below: &str) -> Vec<Call> {
    let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
    let mut calls: Vec<(&str, Call)> = Vec::new();
    let mut inside = false;
    for line in log.lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        let Some((name, _)) = call.split_once('(') else { continue };
        let Some(name) = CALLS.into_iter().find(|known| *known == name) else { continue };
        let number = counts.entry((thread, name)).or_default();
        *number += 1;
        if call.contains(MARK) {
            inside = call.contains("begin");
        } else if inside && call.contains(below) {
            let (line, target) = (call.to_owned(), target(call, below).to_owned());
            calls.push((thread, Call { name, number: *number, line, target, decides: false }));
        }
    }
    // Strace would disturb the call of this number in every thread.
    for (thread, call) in &calls {
        let others = counts.iter().filter(|((t, name), _)| t != thread && *name == call.name);
        let most = others.map(|(_, count)| *count).max().unwrap_or(0);
        assert!(most < call.number, "{call:?}: another thread has {most} of them");
    }
    calls.into_iter().map(|(_, call)| call).collect()
}

/// The place of the last call without which the job is not done.
fn last_needed(job: Job, calls: &[Call]) -> usize {
    let synced = |call: &Call, folder| call.name == "fsync" && call.line.contains(folder);
    let last = calls.iter().rposition(|call| match job {
        // What follows the manifest may fail: the hint, and the removal of the receipts.
        Job::Save | Job::Compressed => synced(call, "/manifests>"),
        Job::Overwrite => synced(call, "/notes>"),
        Job::Prune | Job::Gc => call.name == "rmdir",
    });
    last.unwrap_or_else(|| panic!("{job:?} is done without its last call: {calls:#?}"))
}

/// What a call is about: the file or folder below the base, without the random part of its name.
fn target<'a>(line: &'a str, below: &str) -> &'a str {
    let path = line.split_once(below).map_or("", |(_, rest)| rest);
    let path = path.split(['>', '"']).next().unwrap_or_default();
    match path.strip_suffix(".syncline-tmp") {
        Some(temporary) => temporary.rsplit_once('.').map_or(temporary, |(name, _)| name),
        None => path,
    }
}

/// The line of the call that strace made fail.
fn injected(log: &str) -> Option<&str> {
    let lines: Vec<&str> = log.lines().collect();
    let at = lines.iter().position(|line| line.contains("(INJECTED)"))?;
    let thread = lines[at].split(' ').next().unwrap();
    // A call that another thread interrupts in the log comes in two lines.
    let begins = |line: &&&str| line.starts_with(thread) && !line.contains("<... ");
    lines[..=at].iter().rev().find(begins).copied()
}

/// Makes one call fail, and judges what came of it.
fn fails(template: &Folder, scheme: &str, job: Job, call: &Call, class: Class) {
    let filter = format!("trace={}", call.name);
    let inject = format!("inject={}:{}:when={}", call.name, class.inject, call.number);
    let what = format!("{scheme} {job:?} {inject} {}", call.line);
    for _ in 0..TRIES {
        let (folder, log) = (template.copy(), tempfile::NamedTempFile::new().unwrap());
        let words = strace(log.path().to_str().unwrap(), &filter, &inject);
        let told = program::run(&words, &task(scheme, &folder, job, NEW));
        let log = std::fs::read_to_string(log.path()).unwrap();
        let below = folder.path().parent().unwrap().to_str().unwrap();
        let hit = injected(&log).map_or("", |line| target(line, below));
        // Folders are removed side by side, in any order: then it may be the same call of another one. So may
        // one that decides nothing.
        let any = !call.decides || !job.removes().is_empty();
        if hit != call.target && !(any && hit.starts_with("/base/")) {
            continue;
        }
        let what = format!("{what}: {told:?}");
        assert_eq!(told[1], "again Ok(())", "{what}");
        match &*told[0] {
            // What is interrupted is done again.
            ALL => assert!(!call.decides || class.says == "Interrupted", "{what}"),
            // A prune that cannot read the newest checkpoint keeps the one before it, and succeeds.
            SOME => assert!(LOOKING.contains(&call.name), "{what}"),
            error => assert!(error.starts_with(class.kind) && error.contains(class.says), "{what}"),
        }
        judge(&folder, job, told[0] == ALL, &what);
        return;
    }
    panic!("not met in {TRIES} runs: {what}");
}

fn each_call(scheme: &str, job: Job) {
    let template = Folder::new(scheme);
    prepare(&template);
    let calls = usual_calls(&template, scheme, job);
    // As many as there are turns of classes and places.
    let seed = (seed() % 60) as usize;
    let mut cases = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        let mut classes: Vec<Class> = CLASSES.into();
        classes.extend((call.name == "pwrite64").then_some(NOTHING_TAKEN));
        if !figures::long() {
            // One class for each call, all in turn, and of those that only look a few; others in each run.
            let class = classes[(at + seed) % classes.len()];
            let tried =
                !LOOKING.contains(&call.name) || (at + seed / 20).is_multiple_of(LOOKS_STRIDE);
            classes = tried.then_some(class).into_iter().collect();
        }
        cases.extend(classes.into_iter().map(|class| (call, class)));
    }
    let faults = cases.len();
    side_by_side(cases, |(call, class)| fails(&template, scheme, job, call, class));
    println!("{scheme} {job:?}: {faults} faults at {} calls", calls.len());
    figures::add("faults injected", faults as u64);
}

/// The calls of the job as two runs, one after the other, make them: what happens once, such as a write that the
/// kernel cut in two, is not waited for later.
fn usual_calls(template: &Folder, scheme: &str, job: Job) -> Vec<Call> {
    let usual = |calls: &[Call]| {
        let mut names: Vec<&str> = calls.iter().map(|call| call.name).collect();
        names.sort_unstable();
        // Folders are removed side by side, in any order.
        let ordered = calls.iter().filter(|call| call.decides && job.removes().is_empty());
        let ordered: Vec<_> = ordered.map(|call| (call.name, call.target.clone())).collect();
        (names, ordered)
    };
    let mut calls = calls_of(template, scheme, job);
    for _ in 0..TRIES {
        let again = calls_of(template, scheme, job);
        if usual(&calls) == usual(&again) {
            return again;
        }
        calls = again;
    }
    panic!("{scheme} {job:?}: {TRIES} runs, and no two are alike");
}

macro_rules! each_call {
    ($($name:ident: $scheme:literal $job:ident;)*) => {
        $(#[test] fn $name() { each_call($scheme, Job::$job); })*
    };
}

each_call! {
    of_a_save_file: "file" Save;
    of_a_save_direct: "direct" Save;
    of_an_overwrite_file: "file" Overwrite;
    of_an_overwrite_direct: "direct" Overwrite;
    of_a_prune_file: "file" Prune;
    of_a_gc_file: "file" Gc;
}

/// The system takes less of a write than it was given, and then nothing: files may not grow further.
fn short_writes(scheme: &str) {
    let template = Folder::new(scheme);
    prepare(&template);
    // In the first part, and at its end.
    for limit_kib in [8, 40, 64] {
        for job in [Job::Save, Job::Overwrite] {
            let folder = template.copy();
            let limited = format!("trap '' XFSZ; ulimit -f {limit_kib}; exec \"$0\" \"$@\"");
            // A small step fits.
            let task = task(scheme, &folder, job, 1);
            let told = program::run(&["bash", "-c", &limited], &task).join(", then ");
            let what = format!("{scheme} {job:?} {limit_kib} KiB: {told}");
            assert!(told.starts_with("NoSpace") && told.contains("File too large"), "{what}");
            assert!(told.ends_with("again Ok(())"), "{what}");
            judge(&folder, job, false, &what);
        }
    }
    figures::add("faults injected", 6);
}

#[test]
fn of_writes_cut_short_file() {
    short_writes("file");
}

#[test]
fn of_writes_cut_short_direct() {
    short_writes("direct");
}
