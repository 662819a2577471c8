//! What one run costs: wall time, CPU time, peak memory.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::failure::Failure;

/// The cost of one run.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Wall time.
    pub wall: Duration,
    /// User and system time of all threads of this process. What the kernel does in threads of its
    /// own, such as writing the page cache back, is in nobody's account.
    pub cpu: Duration,
    /// The most memory that was resident above what was resident before the run was prepared;
    /// `None` where the kernel does not let the mark be reset.
    pub peak_bytes: Option<u64>,
}

/// Prepares and runs. Time and CPU are those of `run` alone; memory includes what `prepare` made and
/// keeps, such as the engine's buffers. The result of `prepare` is dropped after the measurement.
pub fn measure<T>(
    prepare: impl FnOnce() -> Result<T, Failure>,
    run: impl FnOnce(&mut T) -> Result<(), Failure>,
) -> Result<Sample, Failure> {
    let resident_before = status_bytes("VmRSS:");
    let mark_was_reset = reset_peak();
    let mut prepared = prepare()?;
    let cpu_before = cpu_time()?;
    let start = Instant::now();
    run(&mut prepared)?;
    let wall = start.elapsed();
    let cpu = cpu_time()?.saturating_sub(cpu_before);
    let peak = status_bytes("VmHWM:").filter(|_| mark_was_reset);
    let peak_bytes = peak.zip(resident_before).map(|(peak, before)| peak.saturating_sub(before));
    Ok(Sample { wall, cpu, peak_bytes })
}

/// User and system time of this process so far.
fn cpu_time() -> Result<Duration, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)
        .map_err(|e| Failure::Other(format!("measure CPU time: {e}")))?;
    let used = usage.user_time() + usage.system_time();
    Ok(Duration::from_micros(u64::try_from(used.num_microseconds()).unwrap_or(0)))
}

/// Sets the peak of resident memory back to what is resident now. Source: proc_pid_clear_refs(5), value 5.
fn reset_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// A field of /proc/self/status that is given in kB.
fn status_bytes(field: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The middle value; the lower of two.
///
/// # Panics
/// If there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 1.0);
    }

    #[test]
    fn memory_that_is_touched_is_seen() {
        const BYTES: usize = 64 << 20;
        let sample = measure(
            || Ok(()),
            |()| {
                std::hint::black_box(vec![1u8; BYTES]);
                Ok(())
            },
        )
        .unwrap();
        // Other tests of this process may free memory meanwhile, hence the half.
        assert!(sample.peak_bytes.is_none_or(|peak| peak >= BYTES as u64 / 2), "{sample:?}");
    }
}
