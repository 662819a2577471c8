//! Looks for secrets in every line that anything logs, at every level: a process that logs one is aborted.
//!
//! A test calls [`watch`] before it begins; the first call counts. What is looked for stands in `secrets.txt`,
//! in the environment of the tests' servers, and in [`signature_in`]: signatures are new with each request.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::cell::RefCell;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};

use log::{Level, LevelFilter, Log, Metadata, Record};

#[path = "figures.rs"]
pub mod figures;

/// What a secret is called, and its text.
type Secret = (String, String);

/// Variables of the tests' servers that hold secrets.
const VARIABLES: [&str; 2] = ["SYNCLINE_TEST_S3_SECRET_KEY", "SYNCLINE_TEST_AZ_KEY"];

static SECRETS: LazyLock<Vec<Secret>> = LazyLock::new(|| {
    let listed = include_str!("secrets.txt").lines().filter_map(|line| line.split_once('\t'));
    let listed = listed.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let given =
        VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let secrets: Vec<Secret> = listed.chain(given).collect();
    assert!(secrets.iter().all(|(_, text)| text.len() >= 7), "too short to be looked for");
    secrets
});

/// Warnings and errors, kept once a test has asked for them: no other needs the memory, or the lock in a child of
/// a fork.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static WARNINGS_WANTED: AtomicBool = AtomicBool::new(false);

/// Lines that were searched.
static LINES: AtomicU64 = AtomicU64::new(0);

/// Lines that are counted at a time: the last few of a process are not.
const LINES_COUNTED: u64 = 64;

/// Looks at all that is logged from now on, in this process.
pub fn watch() {
    static WATCH: Watch = Watch;
    // Not while somebody forks.
    LazyLock::force(&SECRETS);
    // Fails when it is set already.
    if log::set_logger(&WATCH).is_ok() {
        log::set_max_level(LevelFilter::Trace);
    }
}

/// Servers of tests that repeat what they were sent.
static ECHOES: AtomicUsize = AtomicUsize::new(0);

/// While it lives, servers repeat secrets on purpose: the HTTP crate logs what it receives at trace, as the crate's
/// documentation says.
pub struct Echoes(());

impl Echoes {
    pub fn begin() -> Echoes {
        ECHOES.fetch_add(1, Ordering::SeqCst);
        Echoes(())
    }
}

impl Drop for Echoes {
    fn drop(&mut self) {
        ECHOES.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What was warned of since the first call, in whatever test.
pub fn warnings() -> Vec<String> {
    watch();
    WARNINGS_WANTED.store(true, Ordering::SeqCst);
    WARNINGS.lock().unwrap().clone()
}

struct Watch;

impl Log for Watch {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if is_row(record.target()) && DUMP.try_with(|dump| dump.borrow().is_long()).unwrap_or(true)
        {
            return;
        }
        let text = record.args().to_string();
        // In the end of a thread there is no place to collect in; then each line stands for itself.
        let _ = DUMP.try_with(|dump| dump.borrow_mut().take(record.target(), &text));
        if check(record.target(), &text)
            && (LINES.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(LINES_COUNTED)
        {
            figures::add("log lines searched for secrets", LINES_COUNTED);
        }
        if record.level() <= Level::Warn && WARNINGS_WANTED.load(Ordering::SeqCst) {
            WARNINGS.lock().unwrap().push(text);
        }
    }

    fn flush(&self) {}
}

thread_local! {
    static DUMP: RefCell<Dump> = const { RefCell::new(Dump(String::new())) };
}

/// Whether these are the bytes that the HTTP crate logs, in rows.
fn is_row(target: &str) -> bool {
    target == "ureq_proto::util"
}

/// Such rows, one behind the other: a secret runs over several. Of a long body the beginning is enough.
pub struct Dump(pub String);

impl Dump {
    const ROW_CHARS: usize = 16;
    const CHARS_MAX: usize = 16 * 1024;

    fn is_long(&self) -> bool {
        self.0.len() > Dump::CHARS_MAX
    }

    pub fn take(&mut self, target: &str, text: &str) {
        let row = text.len().checked_sub(Dump::ROW_CHARS).and_then(|start| text.get(start..));
        match row.filter(|_| is_row(target)) {
            Some(row) => self.0.push_str(row),
            None => self.end(),
        }
    }

    fn end(&mut self) {
        if !self.0.is_empty() {
            check("the dump of ureq_proto", &std::mem::take(&mut self.0));
        }
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        self.end();
    }
}

/// Searches a text. `false` if it did not, since servers repeat secrets on purpose.
pub fn check(target: &str, text: &str) -> bool {
    if ECHOES.load(Ordering::SeqCst) > 0 && target.contains("ureq") {
        return false;
    }
    if let Some(secret) = found_in(text) {
        // Not by the macros, whose output libtest keeps for itself; and without what was found.
        let line = format!("a secret was logged by {target}: {secret}\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
        std::process::abort();
    }
    true
}

/// What the first secret in a text is called.
pub fn found_in(text: &str) -> Option<String> {
    let known = SECRETS.iter().find(|(_, secret)| text.contains(secret));
    known.map(|(name, _)| name.clone()).or_else(|| signature_in(text))
}

/// A signature of one request, or what authorizes it otherwise.
fn signature_in(text: &str) -> Option<String> {
    let is_digit = |c: char| c.is_ascii_alphanumeric() || "+/%=-_".contains(c);
    for (mark, digits_min) in [("Signature=", 32), ("sig=", 20), ("SharedKey", 30), ("Bearer", 20)]
    {
        for (at, _) in text.match_indices(mark) {
            let rest = &text[at + mark.len()..];
            // `SharedKey account:SIGNATURE`
            let rest = match mark {
                "SharedKey" => rest.split_once(':').map_or("", |(_, signature)| signature),
                _ => rest.trim_start_matches([' ', '.']),
            };
            if rest.chars().take_while(|c| is_digit(*c)).count() >= digits_min {
                return Some(format!("what follows {mark}"));
            }
        }
    }
    None
}
