//! This test program again, as a child: what is counted or disturbed for a process as a whole has one of its
//! own. The program must have a test `child::child` that does its [`task`].
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What the child is to do.
const TASK: &str = "SYNCLINE_TEST_TASK";

/// No task takes so long that is not told to: beyond it, the child hangs.
const STUCK: Duration = Duration::from_secs(600);

/// Before whatever a child tells; libtest prints to the same output.
const MARK: &str = "@@";

/// In a child: what it is to do.
pub fn task() -> Option<String> {
    std::env::var(TASK).ok()
}

/// Tells the parent.
pub fn tell(text: std::fmt::Arguments<'_>) {
    println!("{MARK}{text}{MARK}");
}

/// `program` with its arguments, or nothing, before this one as a child with a task.
fn command(before: &[&str], task: &str) -> Command {
    let this = std::env::current_exe().unwrap();
    let mut words = before.iter().map(std::ffi::OsStr::new).chain([this.as_os_str()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args(["--exact", "child::child", "--nocapture", "--test-threads=1"]);
    command.env(TASK, task).stdout(Stdio::piped());
    // Its many folders cost the loader as many calls, which tests would count as the program's.
    command.env_remove("LD_LIBRARY_PATH");
    // A log or a backtrace would allocate.
    command.env_remove("RUST_LOG").env("RUST_BACKTRACE", "0");
    command
}

/// Runs a task, below the program `before` if there is one, and returns what the child told.
#[track_caller]
pub fn run(before: &[&str], task: &str) -> Vec<String> {
    run_for(Duration::ZERO, before, task)
}

/// The same of a task that is told to take so long.
#[track_caller]
pub fn run_for(length: Duration, before: &[&str], task: &str) -> Vec<String> {
    let child = command(before, task).stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|error| match before.first() {
        Some(program) => panic!("{program} is needed: install its Debian package ({error})"),
        None => panic!("{error}"),
    });
    let (process, (sender, receiver)) = (Pid::from_raw(child.id().try_into().unwrap()), channel());
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(length + STUCK) else {
        // What runs below it may stay: nobody waits for it.
        let _ = kill(process, Signal::SIGKILL);
        panic!("{task}: it is stuck");
    };
    let output = output.unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{task}: {}\n{out}\n{err}", output.status);
    out.split(MARK).skip(1).step_by(2).map(str::to_owned).collect()
}

/// A child that goes on until this is dropped.
pub struct Running {
    child: Child,
    /// Its end ends the child.
    input: Option<ChildStdin>,
    /// Open as long as the child writes to it.
    output: BufReader<ChildStdout>,
}

/// Starts a task and waits for the first thing that the child tells.
pub fn start(task: &str) -> (Running, String) {
    let mut child = command(&[], task).stdin(Stdio::piped()).spawn().unwrap();
    let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
    let mut running = Running { child, input, output: BufReader::new(output) };
    let mut line = String::new();
    while !line.contains(MARK) {
        assert!(running.output.read_line(&mut line).unwrap() > 0, "{task}: {line}");
    }
    (running, line.split(MARK).nth(1).unwrap().to_owned())
}

/// In a child: returns when the parent lets go of it.
pub fn wait_for_the_end() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

impl Drop for Running {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}
