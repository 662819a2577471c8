//! The system calls of a command, as strace sees them.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longer texts in calls are cut, which `Call::text` refuses.
const TEXT_BYTES_MAX: usize = 16 << 20;

/// One system call.
#[derive(Debug, Clone)]
pub struct Call {
    pub thread: u64,
    pub name: String,
    /// As strace writes them, texts in hexadecimal.
    pub arguments: Vec<String>,
    pub result: String,
    /// The line of the log in which it began. Calls of several threads overlap.
    pub begun: usize,
    /// The line in which it ended.
    pub ended: usize,
}

impl Call {
    pub fn failed(&self) -> bool {
        self.result.starts_with('-') || self.result.starts_with('?')
    }

    /// The number returned.
    pub fn returned(&self) -> u64 {
        let digits = self.result.split(|c: char| !c.is_ascii_digit()).next().unwrap();
        digits.parse().unwrap_or_else(|_| panic!("no number: {self:?}"))
    }

    /// An argument that is a number.
    pub fn number(&self, n: usize) -> u64 {
        self.arguments[n].parse().unwrap_or_else(|_| panic!("no number: {}", self.arguments[n]))
    }

    /// An argument that is a text, or bytes.
    pub fn text(&self, n: usize) -> Vec<u8> {
        let quoted = self.arguments[n].strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        decode(quoted.unwrap_or_else(|| panic!("no whole text: {}", self.arguments[n])))
    }

    /// Where a descriptor leads that stands in an argument, as `5</path>`.
    pub fn descriptor(&self, n: usize) -> PathBuf {
        let path = self.arguments[n].split_once('<').and_then(|(_, rest)| rest.split_once('>'));
        let (path, _) = path.unwrap_or_else(|| panic!("no descriptor: {}", self.arguments[n]));
        PathBuf::from(OsString::from_vec(decode(path)))
    }

    /// A path.
    pub fn path(&self, n: usize) -> PathBuf {
        PathBuf::from(OsString::from_vec(self.text(n)))
    }

    /// A path that counts from the descriptor in the argument before it.
    pub fn path_at(&self, n: usize) -> PathBuf {
        self.descriptor(n - 1).join(self.path(n))
    }

    /// All paths in its arguments: texts and where descriptors lead, the ones joined to the others where
    /// these stand before them.
    pub fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = Vec::new();
        for (n, argument) in self.arguments.iter().enumerate() {
            if argument.contains('<') && argument.contains('>') {
                paths.push(self.descriptor(n));
            } else if argument.starts_with('"') && argument.ends_with('"') {
                let path = self.path(n);
                paths.push(paths.last().map_or(path.clone(), |before| before.join(path)));
            }
        }
        paths
    }
}

/// Runs a command of `syncline` under strace and returns the calls of these kinds in the order in which they
/// ended. Fails where strace cannot run, and where the command fails.
pub fn trace(arguments: &[&str], kinds: &str, scratch: &Path) -> Vec<Call> {
    let log = scratch.join("trace");
    let status = Command::new("strace")
        .args(["-f", "-y", "-qq", "-xx", "-s", &TEXT_BYTES_MAX.to_string()])
        .args(["-e", &format!("trace={kinds}"), "-e", "signal=none", "-o"])
        .arg(&log)
        .arg(env!("CARGO_BIN_EXE_syncline"))
        .args(arguments)
        .stdout(std::process::Stdio::null())
        .status()
        .expect("strace is needed: install the Debian package strace");
    assert!(status.success(), "{arguments:?}: {status}");
    calls(&std::fs::read_to_string(&log).unwrap())
}

fn calls(log: &str) -> Vec<Call> {
    let mut unfinished: HashMap<u64, (usize, String)> = HashMap::new();
    let mut calls = Vec::new();
    for (ended, line) in log.lines().enumerate() {
        let (thread, text) = line.split_once(' ').unwrap();
        let (thread, text) = (thread.parse().unwrap(), text.trim_start());
        if text.ends_with(" <detached ...>") {
            // The end of the process came before that of the call.
            continue;
        }
        // A call that another thread interrupts in the log comes in two lines.
        let (begun, whole) = if let Some(start) = text.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, (ended, start.to_owned()));
            continue;
        } else if text.starts_with("<... ") {
            let (begun, start) = unfinished.remove(&thread).unwrap();
            (begun, start + text.split_once(" resumed>").unwrap().1)
        } else {
            (ended, text.to_owned())
        };
        let (name, rest) = whole.split_once('(').unwrap_or_else(|| panic!("no call: {whole}"));
        let (arguments, rest) = arguments(rest);
        let result = rest.trim_start().strip_prefix("= ").unwrap_or("?").to_owned();
        calls.push(Call { thread, name: name.to_owned(), arguments, result, begun, ended });
    }
    calls
}

/// Splits at the commas between arguments, and returns what stands behind the closing parenthesis.
fn arguments(text: &str) -> (Vec<String>, &str) {
    let mut found = Vec::new();
    let (mut depth, mut quoted, mut start) = (0, false, 0);
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' | '<' => depth += 1,
            ')' if depth == 0 => {
                found.push(text[start..at].trim().to_owned());
                return (found, &text[at + 1..]);
            }
            ')' | ']' | '}' | '>' => depth -= 1,
            ',' if depth == 0 => {
                found.push(text[start..at].trim().to_owned());
                start = at + 1;
            }
            _ => {}
        }
    }
    panic!("a call without an end: {text}");
}

/// Bytes from `\x61\x62`; what is not written so stands for itself.
fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4);
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        if let Some([high, low, more @ ..]) = rest.strip_prefix(b"\\x") {
            let digit = |c: u8| char::from(c).to_digit(16).expect("a hexadecimal digit");
            bytes.push(u8::try_from(digit(*high) * 16 + digit(*low)).unwrap());
            rest = more;
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    bytes
}
