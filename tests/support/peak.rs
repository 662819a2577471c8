//! The most memory that this process has had resident at a time, in bytes.

/// Since the process began, or since [`reset`].
pub fn bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Makes it start again from what is resident now, and returns that.
pub fn reset() -> u64 {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    bytes()
}
