//! Ctrl-C and SIGTERM in the middle of things.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::checkpoints::{assert_restored, save_step};
use crate::run::{Done, Place, Running, bytes, until};

const ENDINGS: [(Signal, i32); 3] =
    [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)];

fn send(child: &mut Running, signal: Signal) {
    kill(Pid::from_raw(child.get().id().try_into().unwrap()), signal).unwrap();
}

pub fn has_temporary(place: &Place, dir: &str) -> bool {
    place.files(dir).iter().any(|file| file.ends_with(".syncline-tmp"))
}

fn assert_stopped(done: &Done, signal: Signal, status: i32) {
    assert_eq!(done.status, Some(status), "{signal}: {}", done.err);
    assert!(done.err.contains(&format!("stopped by {signal}")), "{signal}: {}", done.err);
    assert!(done.out.is_empty(), "{signal}");
}

#[test]
fn a_put_from_a_pipe_that_stays_open_ends_and_leaves_what_was_there() {
    for (signal, status) in ENDINGS {
        let place = Place::new();
        place.write("objects/x", b"earlier");
        let mut child = place.spawn(&["put", "-", "objects/x", "--part-size", "64KiB"]);
        child.get().stdin.as_mut().unwrap().write_all(&bytes(300_000, 1)).unwrap();
        until("an upload", || has_temporary(&place, "objects"));
        send(&mut child, signal);
        // The pipe stays open until the command has ended.
        let stdin = child.get().stdin.take();
        assert_stopped(&child.finish(), signal, status);
        drop(stdin);
        assert_eq!(place.files("objects"), ["x"]);
        assert_eq!(place.read("objects/x"), b"earlier");
    }
}

#[test]
fn a_save_in_the_middle_leaves_the_earlier_checkpoint_and_nothing_else() {
    for (signal, status) in ENDINGS {
        let place = Place::new();
        save_step(&place, "base", 1);
        let before = place.files("base");
        // These take seconds; a third one is done at once and must be taken back.
        place.sparse("large-1", 2 << 30);
        place.sparse("large-2", 2 << 30);
        place.write("small", b"small");
        let mut child =
            place.spawn(&["save", "small", "large-1", "large-2", "base", "--step", "2"]);
        until("the small shard", || {
            place.files("base").iter().any(|f| f.contains("ckpt-2-") && f.ends_with("/rank-0.bin"))
        });
        until("an upload", || has_temporary(&place, "base"));
        send(&mut child, signal);
        assert_stopped(&child.finish(), signal, status);
        assert_eq!(place.files("base"), before);
        place.ok(&["verify", "base", "--all"]);
        place.ok(&["restore", "base", "out"]);
        assert_restored(&place, "out", 1);
    }
}

#[test]
fn a_restore_in_the_middle_leaves_no_file() {
    for (signal, status) in &ENDINGS[..2] {
        let place = Place::new();
        place.sparse("large", 1 << 29);
        place.ok(&["save", "large", "base", "--step", "1"]);
        place.write("out/mine", b"mine");
        let mut child = place.spawn(&["restore", "base", "out", "--part-size", "64KiB"]);
        until("an upload", || has_temporary(&place, "out"));
        send(&mut child, *signal);
        assert_stopped(&child.finish(), *signal, *status);
        assert_eq!(place.files("out"), ["mine"]);
        place.assert_no_temporaries();
    }
}

#[test]
fn a_benchmark_in_the_middle_leaves_no_file() {
    let place = Place::new();
    let mut child = place.spawn(&["bench", "disk", "--size", "256MiB", "--rounds", "1000"]);
    until("the first file", || !place.files("disk").is_empty());
    send(&mut child, Signal::SIGINT);
    assert_stopped(&child.finish(), Signal::SIGINT, 130);
    assert!(!place.path("disk").exists());
}

/// Nobody reads: the command hangs in a write, and has nothing to clean up.
#[test]
fn a_cat_that_nobody_reads_ends_at_once() {
    let place = Place::new();
    place.sparse("large", 1 << 26);
    let mut child = place.spawn(&["cat", "large"]);
    let mut out = child.get().stdout.take().unwrap();
    // It writes, and this is all that is ever read.
    out.read_exact(&mut [0]).unwrap();
    send(&mut child, Signal::SIGTERM);
    assert_eq!(child.finish().status, Some(143));
    drop(out);
}

/// A save whose first sync takes so long, and its process id: strace holds the thread that calls it, and so what is
/// left of the process, if that ends meanwhile.
fn save_that_hangs(place: &Place, hangs_s: u64) -> (Running, u32) {
    save_step(place, "base", 1);
    let mut strace = Command::new("strace");
    // As the grandchild, so that the command's id and status are what we see.
    strace.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync"]);
    let inject = format!("inject=fdatasync:delay_enter={hangs_s}s");
    strace.args(["-e", &inject, "env", "--default-signal"]);
    strace.arg(env!("CARGO_BIN_EXE_syncline")).args(["save", "rank-0", "base", "--step", "2"]);
    place.write("rank-0", b"a shard");
    strace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = strace.current_dir(place.path("")).spawn();
    let mut child =
        Running(Some(child.expect("strace is needed: install the Debian package strace")));
    let pid = child.get().id();
    until("a sync that hangs", || {
        // Stopped by its tracer, and not only for a moment.
        has_temporary(place, "base")
            && (0..5).all(|_| {
                thread::sleep(Duration::from_millis(20));
                is_held(pid)
            })
    });
    (child, pid)
}

/// Whether a tracer holds a thread of this process.
fn is_held(pid: u32) -> bool {
    let stats = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let held =
        |path: PathBuf| std::fs::read_to_string(path).is_ok_and(|stat| stat.contains(") t "));
    stats.map(|task| task.path().join("stat")).any(held)
}

#[test]
fn a_second_signal_ends_a_command_that_is_stuck() {
    let place = Place::new();
    let (mut child, pid) = save_that_hangs(&place, 8);
    send(&mut child, Signal::SIGTERM);
    thread::sleep(Duration::from_millis(300));
    assert!(is_held(pid), "the first signal lets it clean up");
    send(&mut child, Signal::SIGINT);
    // With the status of the first, and nothing cleaned up.
    let done = child.finish();
    assert_eq!(done.status, Some(143), "{}", done.err);
    assert!(!done.err.contains("stopped by"), "{}", done.err);
    assert_only_the_first_restores(&place);
}

/// Thirty seconds of waiting.
#[test]
fn a_command_that_is_stuck_ends_after_its_grace() {
    if !crate::figures::long() {
        return;
    }
    let place = Place::new();
    let (mut child, _) = save_that_hangs(&place, 45);
    send(&mut child, Signal::SIGINT);
    let done = child.finish();
    assert_eq!(done.status, Some(130), "{}", done.err);
    assert!(
        done.err.contains("still busy after 30 s") && done.err.contains("`syncline gc` finds it")
    );
    assert_only_the_first_restores(&place);
}

fn assert_only_the_first_restores(place: &Place) {
    place.ok(&["verify", "base", "--all"]);
    place.ok(&["restore", "base", "out"]);
    assert_restored(place, "out", 1);
    let found = place.ok(&["gc", "base", "--older-than", "0"]);
    assert!(found.text().contains("1 found"), "{}", found.text());
}

/// `nohup` asks to outlive the terminal; a job in the background still answers an explicit `kill -INT`.
#[test]
fn an_ignored_hangup_stays_ignored_and_an_ignored_interrupt_does_not() {
    let place = Place::new();
    let start = |trap: &str| {
        let mut shell = Command::new("sh");
        let line = format!("trap '' {trap}; exec \"$SYNCLINE\" put - objects/x --part-size 64KiB");
        shell.args(["-c", &line]).env("SYNCLINE", env!("CARGO_BIN_EXE_syncline"));
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Running(Some(shell.current_dir(place.path("")).spawn().unwrap()));
        child.get().stdin.as_mut().unwrap().write_all(&bytes(300_000, 1)).unwrap();
        until("an upload", || has_temporary(&place, "objects"));
        child
    };
    let mut child = start("HUP");
    send(&mut child, Signal::SIGHUP);
    let done = child.finish();
    assert_eq!(done.status, Some(0), "{}", done.err);
    assert_eq!(place.read("objects/x"), bytes(300_000, 1));
    let mut child = start("INT");
    send(&mut child, Signal::SIGINT);
    assert_eq!(child.finish().status, Some(130));
    assert_eq!(place.files("objects"), ["x"]);
}
