//! What a process takes: memory, threads, descriptors, connections.

use std::fs;

#[derive(Debug, Clone, Copy)]
pub struct Resources {
    pub resident_bytes: u64,
    pub threads: u64,
    pub descriptors: u64,
    pub sockets: u64,
}

impl Resources {
    /// Of this process, at this moment. `None` if no descriptor is left to look with.
    pub fn now() -> Option<Resources> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let field = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let links: Vec<_> = fs::read_dir("/proc/self/fd")
            .ok()?
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .collect();
        let is_socket = |link: &&std::path::PathBuf| link.to_string_lossy().starts_with("socket:");
        Some(Resources {
            resident_bytes: field("VmRSS:") * 1024,
            threads: field("Threads:"),
            descriptors: links.len() as u64,
            sockets: links.iter().filter(is_socket).count() as u64,
        })
    }

    /// The largest of each.
    pub fn max(self, other: Resources) -> Resources {
        Resources {
            resident_bytes: self.resident_bytes.max(other.resident_bytes),
            threads: self.threads.max(other.threads),
            descriptors: self.descriptors.max(other.descriptors),
            sockets: self.sockets.max(other.sockets),
        }
    }
}
