//! How much memory a store takes, and what is lowered until a bound holds.

use super::{Config, ConfigBuilder};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{IO_THREADS_DEFAULT_SERVER, PART_BYTES_MIN};

const MIB: usize = 1024 * 1024;

impl Config {
    /// The most memory the store's part buffers ever take:
    /// `(queue_depth_parts + io_threads + open_writers_max) * part_bytes`. Where it is to carry compressed
    /// objects too ([`ConfigBuilder::compressing`]), [`compression_bytes_max`](Config::compression_bytes_max)
    /// is added.
    pub fn memory_bytes_max(&self) -> u64 {
        // Asked also before the ranges of the settings are checked.
        let parts = (self.buffers_max() as u64).saturating_mul(self.part_bytes as u64);
        parts.saturating_add(if self.compressing { self.compression_bytes_max() } else { 0 })
    }

    /// The most memory that compressing and decompressing takes, once either is done:
    /// `(2 * open_writers_max + 7 * compression_threads + 4) * frame_bytes`, and what a frame that does not
    /// shrink has beyond its bytes, and zstd itself: for each thread up to 2 MiB at levels 1 to 3, 11 MiB up to
    /// 9, 82 MiB up to 19, and 17 times `frame_bytes` above that. A store that only reads compressed objects
    /// takes no buffers for writers: `(5 * compression_threads + 2) * frame_bytes`, with fewer threads where a
    /// bound on memory was set.
    pub fn compression_bytes_max(&self) -> u64 {
        // The last: a thread keeps two frames while it shuffles, and one more while it does not.
        let frames = self
            .writing_frames_max()
            .saturating_add(self.reading_frames_max())
            .saturating_add(self.compression_threads.saturating_mul(3));
        (frames as u64).saturating_mul(self.frame_bytes() as u64)
    }

    /// Threads that compress and decompress: those that were asked for, but where a bound on memory was set
    /// that compression is no part of, only as many as a quarter of it carries, and one at the least. So
    /// whoever reads compressed objects is not refused, and keeps close to the bound.
    pub fn compression_threads(&self) -> usize {
        let Some(bound) = self.memory_bound_bytes.filter(|_| !self.compressing) else {
            return self.compression_threads;
        };
        // Two buffers, and what a thread keeps for itself.
        let carried = bound / 4 / (5 * self.frame_bytes() as u64);
        usize::try_from(carried).unwrap_or(usize::MAX).clamp(1, self.compression_threads)
    }

    /// Frame buffers that writers share, beyond the two that each has.
    pub(crate) fn stock_frames(&self) -> usize {
        self.compression_threads.saturating_mul(2).saturating_add(2)
    }

    /// Frame buffers of all writers.
    pub(crate) fn writing_frames_max(&self) -> usize {
        self.open_writers_max.saturating_mul(2).saturating_add(self.stock_frames())
    }

    /// Frame buffers of all readers.
    pub(crate) fn reading_frames_max(&self) -> usize {
        self.compression_threads().saturating_mul(2).saturating_add(2)
    }

    /// The same for a server, if no number of I/O threads was asked for: as many as a connection each makes
    /// sense, and as a bound on memory that was set carries.
    pub(crate) fn with_threads_of_servers(&self) -> Config {
        let mut config = self.clone();
        if self.io_threads_chosen {
            return config;
        }
        let carried = self.memory_bound_bytes.map_or(usize::MAX, |bound| {
            let left = bound.saturating_sub(self.memory_bytes_max()) / self.part_bytes as u64;
            self.io_threads.saturating_add(usize::try_from(left).unwrap_or(usize::MAX))
        });
        config.io_threads = IO_THREADS_DEFAULT_SERVER.min(carried).max(self.io_threads);
        config
    }

    /// The same for a medium that takes no smaller parts: the part is raised, and what else takes memory
    /// is lowered until a bound that was set holds again.
    ///
    /// # Errors
    /// `InvalidInput` if the bound admits no such parts.
    pub(crate) fn with_parts_of_at_least(&self, part_bytes_min: usize) -> Result<Config> {
        let mut config = self.clone();
        config.part_bytes = config.part_bytes.max(part_bytes_min);
        let Some(bound) = self.memory_bound_bytes else { return Ok(config) };
        while config.memory_bytes_max() > bound {
            let mut one = 1;
            let threads =
                if config.compressing { &mut config.compression_threads } else { &mut one };
            let lowered = [
                &mut config.open_writers_max,
                &mut config.queue_depth_parts,
                &mut config.io_threads,
                threads,
            ]
            .into_iter()
            .find(|value| **value > 1)
            .map(|value| *value = (*value / 2).max(1));
            if lowered.is_none() {
                let what = format!(
                    "memory_bytes_max {bound} does not carry three parts of {part_bytes_min} bytes, \
                     the smallest this store takes, and what else is needed"
                );
                let least_bytes = config.memory_bytes_max();
                return Err(Error::invalid("configure", what)
                    .with_remedy(format!("allow at least {least_bytes} bytes")));
            }
        }
        Ok(config)
    }

    /// Whether a bound on memory that was set carries the frames of compressed objects.
    ///
    /// # Errors
    /// `LimitExceeded` if it does not.
    pub(crate) fn check_compression(&self) -> Result<()> {
        let Some(bound) = self.memory_bound_bytes.filter(|_| !self.compressing) else {
            return Ok(());
        };
        let needed = self.memory_bytes_max().saturating_add(self.compression_bytes_max());
        if needed <= bound {
            return Ok(());
        }
        let what = format!("compression needs {needed} bytes with the parts, of {bound} allowed");
        Err(Error::new(ErrorKind::LimitExceeded, "open writer", what)
            .with_remedy("set ConfigBuilder::compressing, which divides the bound between both"))
    }

    pub(crate) fn buffers_max(&self) -> usize {
        self.queue_depth_parts.saturating_add(self.io_threads).saturating_add(self.open_writers_max)
    }

    /// Why the settings do not keep within so much memory, if they do not.
    pub(super) fn exceeds(&self, memory: u64) -> Option<String> {
        if self.memory_bytes_max() <= memory {
            return None;
        }
        let frames = match self.compressing {
            true => format!(" + {} for compression", self.compression_bytes_max()),
            false => String::new(),
        };
        Some(format!(
            "memory_bytes_max {memory} is less than (queue_depth_parts {} + io_threads {} + \
             open_writers_max {}) * part_bytes {}{frames} = {}",
            self.queue_depth_parts,
            self.io_threads,
            self.open_writers_max,
            self.part_bytes,
            self.memory_bytes_max()
        ))
    }
}

impl ConfigBuilder {
    /// Lowers what the user left open: first waiting parts and writers, then threads, then the part.
    pub(super) fn fit(&self, config: &mut Config, memory: u64) {
        let lower = |set: bool, value: &mut usize, floor: usize| {
            if set || *value <= floor {
                return false;
            }
            *value = (*value / 2).max(floor);
            true
        };
        while config.memory_bytes_max() > memory {
            let changed = lower(self.open_writers_max.is_some(), &mut config.open_writers_max, 4)
                || lower(self.queue_depth_parts.is_some(), &mut config.queue_depth_parts, 1)
                || lower(self.part_bytes.is_some(), &mut config.part_bytes, MIB)
                || (config.compressing
                    && lower(
                        self.compression_threads.is_some(),
                        &mut config.compression_threads,
                        1,
                    ))
                || lower(self.io_threads.is_some(), &mut config.io_threads, 1)
                || lower(self.open_writers_max.is_some(), &mut config.open_writers_max, 1)
                || lower(self.part_bytes.is_some(), &mut config.part_bytes, PART_BYTES_MIN);
            if !changed {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{IO_THREADS_DEFAULT, PART_BYTES_DEFAULT};

    #[test]
    fn servers_get_more_threads_as_far_as_memory_carries_them() {
        let threads = |builder: ConfigBuilder| {
            let config = builder.build().unwrap();
            let server = config.with_threads_of_servers();
            if let Some(bound) = config.memory_bound_bytes {
                assert!(server.memory_bytes_max() <= bound);
            }
            server.io_threads()
        };
        assert_eq!(threads(Config::builder()), IO_THREADS_DEFAULT_SERVER);
        assert_eq!(threads(Config::builder().io_threads(3)), 3);
        let local_bytes = Config::default().memory_bytes_max();
        assert_eq!(threads(Config::builder().memory_bytes_max(local_bytes)), IO_THREADS_DEFAULT);
        let room = local_bytes + 2 * PART_BYTES_DEFAULT as u64;
        assert_eq!(threads(Config::builder().memory_bytes_max(room)), IO_THREADS_DEFAULT + 2);
        assert_eq!(
            threads(Config::builder().memory_bytes_max(u64::MAX)),
            IO_THREADS_DEFAULT_SERVER
        );
    }

    #[test]
    fn a_memory_bound_lowers_what_was_left_open() {
        let config = Config::builder().memory_bytes_max(32 << 20).build().unwrap();
        assert!(config.memory_bytes_max() <= 32 << 20, "{config:?}");
        let refused = Config::builder().compressing(true).memory_bytes_max(32 << 20).build();
        let remedy = refused.unwrap_err().remedy().unwrap_or_default().to_owned();
        let least_bytes = remedy.split(' ').find_map(|word| word.parse().ok()).unwrap();
        let least = Config::builder().compressing(true).memory_bytes_max(least_bytes).build();
        assert_eq!(least.unwrap().memory_bytes_max(), least_bytes, "{remedy}");
        let tiny = Config::builder().memory_bytes_max(3 * 64 * 1024).build().unwrap();
        assert_eq!(tiny.memory_bytes_max(), 3 * 64 * 1024);
    }

    #[test]
    fn a_bound_carries_compression_only_if_it_is_told() {
        let bound = 256 << 20;
        let parts_alone = Config::builder().memory_bytes_max(bound).build().unwrap();
        assert_eq!(parts_alone.check_compression().unwrap_err().kind(), ErrorKind::LimitExceeded);
        let both = Config::builder().memory_bytes_max(bound).compressing(true).build().unwrap();
        both.check_compression().unwrap();
        assert!(
            both.memory_bytes_max() <= bound
                && both.memory_bytes_max() > both.compression_bytes_max()
        );
        Config::default().check_compression().unwrap();
        let tiny = Config::builder().memory_bytes_max(8 << 20).compressing(true).build();
        assert!(tiny.unwrap_err().to_string().contains("for compression"));
    }
}
