//! How a contestant is led: it says that it is ready, then makes one pass for each line it reads.
//!
//! Each pass prints one JSON line: seconds, CPU seconds of the process, and how much its resident memory
//! grew over what it was when it was ready. What a pass needs first, and what it leaves, is not measured.

use std::fs;
use std::io::{BufRead, stdin};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// Work that can be done again and again.
pub struct Contestant {
    /// Makes room for a pass.
    pub before: Box<dyn FnMut()>,
    /// The pass. What it returns is told with its line, under the names given.
    pub pass: Box<dyn FnMut() -> Vec<(&'static str, f64)>>,
}

impl Contestant {
    pub fn new(before: impl FnMut() + 'static, mut pass: impl FnMut() + 'static) -> Contestant {
        let pass = move || {
            pass();
            Vec::new()
        };
        Contestant { before: Box::new(before), pass: Box::new(pass) }
    }
}

pub fn run(mut contestant: Contestant) {
    // The peak starts again from what is resident now.
    fs::write("/proc/self/clear_refs", "5").expect("the kernel resets the peak");
    let before_bytes = status_bytes("VmRSS:");
    println!("{{\"ready\":true}}");
    for line in stdin().lock().lines() {
        if line.is_err() {
            break;
        }
        (contestant.before)();
        let (cpu, started) = (cpu_seconds(), Instant::now());
        let told = (contestant.pass)();
        let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let peak_bytes = status_bytes("VmHWM:").saturating_sub(before_bytes);
        let told: String = told.iter().map(|(name, value)| format!(",\"{name}\":{value}")).collect();
        println!("{{\"seconds\":{seconds},\"cpu_seconds\":{cpu},\"peak_bytes\":{peak_bytes}{told}}}");
    }
}

/// CPU time of this process so far.
pub fn cpu_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the system tells");
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// A line of /proc/self/status, which counts in kB.
pub fn status_bytes(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("the kernel tells");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a line of that name");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}
