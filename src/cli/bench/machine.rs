//! What a measurement was made on.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::SystemTime;

use nix::sys::utsname::uname;
use serde_json::{Value, json};
use syncline::IoMode;

use crate::failure::Failure;
use crate::output::{human_bytes, json_time};

/// What a reader must know to compare numbers.
#[derive(Debug)]
pub struct Facts {
    /// Kernel name and release.
    pub kernel: String,
    /// Type of the filesystem, `memory` or `server` for none.
    pub filesystem: String,
    /// Processors this process may use.
    pub cpus: usize,
    /// Model of the processor, where the kernel tells.
    pub cpu_model: Option<String>,
    /// How the engine's bytes met the medium.
    pub mode: IoMode,
    /// When.
    pub date: SystemTime,
}

/// Looks around.
pub fn facts(filesystem: String, mode: IoMode) -> Facts {
    let kernel = uname().map_or_else(
        |_| "unknown".to_owned(),
        |name| format!("{} {}", name.sysname().display(), name.release().display()),
    );
    Facts {
        kernel,
        filesystem,
        cpus: thread::available_parallelism().map_or(1, usize::from),
        cpu_model: field_of("/proc/cpuinfo", "model name"),
        mode,
        date: SystemTime::now(),
    }
}

impl Facts {
    /// For people: version, kernel, processors and filesystem.
    pub fn line(&self) -> String {
        format!(
            "syncline {}, {}, {} CPUs ({}), {}",
            env!("CARGO_PKG_VERSION"),
            self.kernel,
            self.cpus,
            self.cpu_model.as_deref().unwrap_or("unknown model"),
            self.filesystem
        )
    }

    /// For machines.
    pub fn json(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "date": json_time(Some(self.date)),
            "kernel": self.kernel,
            "filesystem": self.filesystem,
            "cpus": self.cpus,
            "cpu_model": self.cpu_model,
            "mode": self.mode.to_string(),
        })
    }
}

/// Refuses what would take more than this part of the memory that is free: a third is 3.
pub fn refuse_too_large(uri: &str, bytes: u64, part: u64) -> Result<(), Failure> {
    match available_memory_bytes() {
        Some(free_bytes) if bytes > free_bytes / part => Err(Failure::Usage(format!(
            "bench {uri}: {} does not fit into memory, of which {} is free; choose a smaller --size",
            human_bytes(bytes),
            human_bytes(free_bytes)
        ))),
        _ => Ok(()),
    }
}

/// Memory the kernel would give without swapping.
fn available_memory_bytes() -> Option<u64> {
    let value = field_of("/proc/meminfo", "MemAvailable")?;
    value.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The first `name : value` of a file of the kernel.
fn field_of(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// The type of the filesystem that a directory is on: that of the longest mount point above it.
pub fn filesystem(directory: &Path) -> String {
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = mounts.lines().filter_map(|line| {
        // Source: proc_pid_mountinfo(5). The fifth field is the mount point; the type follows " - ".
        let (fields, rest) = line.split_once(" - ")?;
        let point = fields.split(' ').nth(4)?.replace("\\040", " ");
        directory.starts_with(&point).then(|| (point.len(), rest.split(' ').next().unwrap_or("?")))
    });
    // Of two mounts on one point the later covers the earlier, and `max_by_key` takes the last.
    mounted.max_by_key(|(length, _)| *length).map_or("unknown", |(_, kind)| kind).to_owned()
}
