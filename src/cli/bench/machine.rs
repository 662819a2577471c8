//! What a measurement was made on.

use std::fs;
use std::path::Path;
use std::thread;

use nix::sys::utsname::uname;
use syncline::IoMode;

/// What a reader must know to compare numbers.
#[derive(Debug)]
pub struct Facts {
    /// Kernel name and release.
    pub kernel: String,
    /// Type of the filesystem, `memory` for none.
    pub filesystem: String,
    /// Processors this process may use.
    pub cpus: usize,
    /// Model of the processor, where the kernel tells.
    pub cpu_model: Option<String>,
    /// How the engine's bytes met the medium.
    pub mode: IoMode,
}

/// Looks around.
pub fn facts(directory: Option<&Path>, mode: IoMode) -> Facts {
    let kernel = uname().map_or_else(
        |_| "unknown".to_owned(),
        |name| format!("{} {}", name.sysname().display(), name.release().display()),
    );
    Facts {
        kernel,
        filesystem: directory.map_or_else(|| "memory".to_owned(), filesystem),
        cpus: thread::available_parallelism().map_or(1, usize::from),
        cpu_model: field_of("/proc/cpuinfo", "model name"),
        mode,
    }
}

/// Memory the kernel would give without swapping.
pub fn available_memory_bytes() -> Option<u64> {
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
fn filesystem(directory: &Path) -> String {
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
