//! What one run costs: wall time, CPU time, peak memory.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde_json::{Value, json};

use crate::failure::Failure;

const MIB: f64 = 1_048_576.0;
const GB: f64 = 1e9;

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

/// What several runs of one kind come to.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// The median.
    pub mib_per_s: f64,
    /// The slowest.
    pub mib_per_s_min: f64,
    /// The fastest.
    pub mib_per_s_max: f64,
    /// The median; a GB has 10^9 bytes.
    pub cpu_s_per_gb: f64,
    /// The highest of all runs; `None` where it could not be measured.
    pub peak_bytes: Option<u64>,
}

impl Figures {
    /// Of runs that moved so many bytes each; there is one at the least.
    pub fn of(samples: &[Sample], bytes: u64) -> Figures {
        let rates: Vec<f64> = samples.iter().map(|sample| sample.mib_per_s(bytes)).collect();
        let cpu = |sample: &Sample| sample.cpu.as_secs_f64() / (bytes as f64 / GB);
        Figures {
            mib_per_s: median(rates.clone()),
            mib_per_s_min: rates.iter().copied().fold(f64::INFINITY, f64::min),
            mib_per_s_max: rates.iter().copied().fold(0.0, f64::max),
            cpu_s_per_gb: median(samples.iter().map(cpu).collect()),
            peak_bytes: samples.iter().filter_map(|sample| sample.peak_bytes).max(),
        }
    }

    /// For people: lowest to highest.
    pub fn spread(&self) -> String {
        format!("{:.0}..{:.0}", self.mib_per_s_min, self.mib_per_s_max)
    }

    /// For machines, with all samples.
    pub fn json(&self, samples: &[Sample], bytes: u64) -> Value {
        let samples = samples.iter().map(|sample| {
            json!({
                "seconds": sample.wall.as_secs_f64(),
                "mib_per_s": sample.mib_per_s(bytes),
                "cpu_seconds": sample.cpu.as_secs_f64(),
                "peak_bytes": sample.peak_bytes,
            })
        });
        json!({
            "mib_per_s": self.mib_per_s,
            "mib_per_s_min": self.mib_per_s_min,
            "mib_per_s_max": self.mib_per_s_max,
            "cpu_s_per_gb": self.cpu_s_per_gb,
            "peak_bytes": self.peak_bytes,
            "samples": samples.collect::<Vec<_>>(),
        })
    }
}

impl Sample {
    /// MiB per second. A pass too short for the clock counts as one nanosecond.
    pub fn mib_per_s(&self, bytes: u64) -> f64 {
        bytes as f64 / MIB / self.wall.as_secs_f64().max(1e-9)
    }
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
