//! Running the binary and looking at what it left.

use std::fs;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// No command of these tests takes this long; one that does is stuck.
const STUCK: Duration = Duration::from_secs(120);

/// A directory of its own, in which the commands run.
pub struct Place(TempDir);

/// What a command did.
pub struct Done {
    pub status: Option<i32>,
    pub out: Vec<u8>,
    pub err: String,
}

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path as text, for URIs.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// A file that has a length and no bytes on the disk.
    pub fn sparse(&self, name: &str, bytes: u64) -> PathBuf {
        let path = self.path(name);
        fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        path
    }

    /// The command line, with the signals as a shell gives them: whoever runs the tests may ignore some
    /// (`nohup`), and a child inherits that.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("env");
        command.args(["--default-signal", env!("CARGO_BIN_EXE_syncline")]);
        command.current_dir(self.0.path()).args(args).stdin(Stdio::null());
        // What this machine's user has set is not what is tested.
        let ours = |name: &str| {
            ["SYNCLINE_", "AWS_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix))
        };
        let proxy = |name: &str| name.to_ascii_lowercase().ends_with("_proxy");
        for (name, _) in std::env::vars().filter(|(name, _)| ours(name) || proxy(name)) {
            command.env_remove(name);
        }
        command.env("HOME", self.0.path()).env("AWS_EC2_METADATA_DISABLED", "true");
        for (theirs, name) in [
            ("S3_ENDPOINT", "AWS_ENDPOINT_URL"),
            ("S3_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
            ("S3_SECRET_KEY", "AWS_SECRET_ACCESS_KEY"),
            ("AZ_ENDPOINT", "AZURE_STORAGE_BLOB_ENDPOINT"),
            ("AZ_ACCOUNT", "AZURE_STORAGE_ACCOUNT"),
            ("AZ_KEY", "AZURE_STORAGE_KEY"),
        ] {
            if let Ok(value) = std::env::var(format!("SYNCLINE_TEST_{theirs}")) {
                command.env(name, value);
            }
        }
        command
    }

    /// Runs a command to its end, with these variables set.
    pub fn run_with(&self, variables: &[(&str, &str)], args: &[&str]) -> Done {
        Done::of(self.command(args).envs(variables.iter().copied()).output().unwrap())
    }

    /// Runs a command to its end. Its output goes to pipes, so it must not contain an escape code.
    pub fn run(&self, args: &[&str]) -> Done {
        Done::of(self.command(args).output().unwrap())
    }

    /// As [`run`](Place::run), with these bytes on standard input.
    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Done {
        let mut child = self.spawn(args);
        let mut stdin = child.get().stdin.take().unwrap();
        let input = input.to_vec();
        // Fails when the command does not want it all.
        let writer = thread::spawn(move || drop(stdin.write_all(&input)));
        let done = child.finish();
        writer.join().unwrap();
        done
    }

    /// Starts a command with pipes on all three.
    pub fn spawn(&self, args: &[&str]) -> Running {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(Some(command.spawn().unwrap()))
    }

    /// Runs a command that must succeed.
    pub fn ok(&self, args: &[&str]) -> Done {
        let done = self.run(args);
        assert_eq!(done.status, Some(0), "{args:?}: {}", done.err);
        done
    }

    /// Runs a command that must succeed with `--json`.
    pub fn json(&self, args: &[&str]) -> Value {
        self.ok(&[args, &["--json"]].concat()).json()
    }

    /// Runs a command that must end with this status and say each of these things on standard error.
    pub fn fails(&self, args: &[&str], status: i32, needles: &[&str]) -> Done {
        let done = self.run(args);
        assert_eq!(done.status, Some(status), "{args:?}: {}", done.err);
        assert!(
            done.err
                .lines()
                .any(|line| line.starts_with("syncline: ") || line.starts_with("error: ")),
            "{args:?}: {}",
            done.err
        );
        for needle in needles {
            assert!(done.err.contains(needle), "{args:?}: no {needle:?} in {}", done.err);
        }
        done
    }

    /// Every file below a directory, relative to it, in order.
    pub fn files(&self, name: &str) -> Vec<String> {
        let root = self.path(name);
        let mut files = Vec::new();
        let mut open = vec![root.clone()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    files.push(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        files.sort();
        files
    }

    /// That no unfinished upload and no staging directory lies about.
    pub fn assert_no_temporaries(&self) {
        let left = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.ends_with(".syncline-tmp") || name.starts_with(".syncline-")
        };
        let mut open = vec![self.0.path().to_owned()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                assert!(!left(&path), "{} was left behind", path.display());
                if path.is_dir() {
                    open.push(path);
                }
            }
        }
    }
}

impl Done {
    fn of(output: Output) -> Done {
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(!err.contains('\x1b'), "escape codes without a terminal: {err:?}");
        Done { status: output.status.code(), out: output.stdout, err }
    }

    pub fn text(&self) -> &str {
        let text = str::from_utf8(&self.out).unwrap();
        assert!(!text.contains('\x1b'), "escape codes without a terminal: {text:?}");
        text
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// A command that runs. Killed when dropped: a test that fails leaves nobody writing.
pub struct Running(pub Option<Child>);

impl Running {
    pub fn get(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    /// Closes its input, waits until it ends, which must not take forever, and tells what it did.
    pub fn finish(mut self) -> Done {
        drop(self.get().stdin.take());
        let (out, err) = (self.get().stdout.take(), self.get().stderr.take());
        let (out, err) = (thread::spawn(|| drain(out)), thread::spawn(|| drain(err)));
        until("the command's end", || self.get().try_wait().unwrap().is_some());
        let status = self.get().wait().unwrap();
        Done::of(Output { status, stdout: out.join().unwrap(), stderr: err.join().unwrap() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Everything from a pipe, where there is one.
fn drain(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    pipe.map(|mut pipe| pipe.read_to_end(&mut bytes).unwrap());
    bytes
}

/// Waits until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < STUCK, "{what} does not happen");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Bytes without a pattern, different for each seed.
pub fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
