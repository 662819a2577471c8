//! Configuration: a builder with few knobs, validated once. `env.rs` is the only reader of the environment.

mod azure;
mod connection;
mod env;
mod http;
mod memory;
mod s3;
mod secret;
mod size;

use std::time::Duration;

use crate::encode::Algorithm;
use crate::error::{Error, Result};
use crate::limits::*;
use crate::sync;

pub(crate) use env::Server;
use env::{ServerEnvironment, Setting};

pub use azure::{AzureConfig, AzureIntegrity};
pub(crate) use azure::{AzureCredentials, AzureEnvironment, ClientSecret};
pub(crate) use connection::ConnectionString;
pub use http::HttpConfig;
pub(crate) use http::{origin_problem, region_problem, trim_origin};
pub(crate) use s3::{AwsEnvironment, ContainerEnvironment, StaticCredentials};
pub use s3::{CreateOnlyPolicy, S3Config, S3Integrity};
pub(crate) use secret::Secret;
pub use size::parse_bytes;

/// Whether `direct://` insists on O_DIRECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DirectPolicy {
    /// Fail with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where direct I/O is not to be had.
    Require,
    /// Use direct I/O where it is to be had, else buffered I/O; the report says which mode ran.
    #[default]
    Prefer,
}

/// Settings of one store and its engine. Made by [`Config::builder`], valid by construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    io_threads: usize,
    /// Whether that number was asked for.
    io_threads_chosen: bool,
    queue_depth_parts: usize,
    open_writers_max: usize,
    writers_wait: bool,
    part_bytes: usize,
    compression_threads: usize,
    compressing: bool,
    timeout: Duration,
    shutdown_timeout: Duration,
    direct: DirectPolicy,
    checksum: Option<Algorithm>,
    http: HttpConfig,
    s3: S3Config,
    azure: AzureConfig,
    /// What the environment says about servers and cannot be used.
    unusable: Vec<(Setting, String)>,
    /// The bound on memory that was asked for.
    memory_bound_bytes: Option<u64>,
}

impl Config {
    /// A builder holding the defaults.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// The defaults, overridden by the environment ([`ConfigBuilder::env`]).
    ///
    /// # Errors
    /// `InvalidInput` naming the variable whose value is not usable.
    pub fn from_env() -> Result<Config> {
        Config::builder().env()?.build()
    }

    /// Number of I/O threads. A store on a server that is opened with these settings has more, if no number was
    /// asked for ([`ConfigBuilder::io_threads`]).
    pub fn io_threads(&self) -> usize {
        self.io_threads
    }

    /// Number of parts that may wait for an I/O thread.
    pub fn queue_depth_parts(&self) -> usize {
        self.queue_depth_parts
    }

    /// Number of writers open at a time; one more fails with `LimitExceeded`, or
    /// [waits](Config::writers_wait).
    pub fn open_writers_max(&self) -> usize {
        self.open_writers_max
    }

    /// Whether one writer too many waits until another is closed.
    pub fn writers_wait(&self) -> bool {
        self.writers_wait
    }

    /// Bytes of a part buffer, and of a checksum block.
    pub fn part_bytes(&self) -> usize {
        self.part_bytes
    }

    /// Raw bytes of a frame of a compressed object: those of a part, but at least 4 and at most 16 MiB.
    pub fn frame_bytes(&self) -> usize {
        self.part_bytes.clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX)
    }

    /// Time without progress after which a call gives up.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Time a closing engine waits for its threads.
    pub fn shutdown_timeout(&self) -> Duration {
        self.shutdown_timeout
    }

    /// Whether `direct://` insists on O_DIRECT.
    pub fn direct(&self) -> DirectPolicy {
        self.direct
    }

    /// The checksum writers compute unless told otherwise.
    pub fn checksum(&self) -> Option<Algorithm> {
        self.checksum
    }

    /// How servers are reached.
    pub fn http(&self) -> &HttpConfig {
        &self.http
    }

    /// How `s3://` is reached.
    pub fn s3(&self) -> &S3Config {
        &self.s3
    }

    /// How `az://` is reached.
    pub fn azure(&self) -> &AzureConfig {
        &self.azure
    }

    /// Whether a store of this kind may be opened: variables of other programs may not be usable.
    ///
    /// # Errors
    /// `InvalidInput` naming those that the store asks for.
    pub(crate) fn check_servers(&self, server: Server) -> Result<()> {
        let asked = self.unusable.iter().filter(|(setting, _)| setting.concerns(server));
        let unusable: Vec<&str> = asked.map(|(_, what)| what.as_str()).collect();
        if unusable.is_empty() {
            return Ok(());
        }
        Err(Error::invalid("configure", unusable.join("; "))
            .with_remedy("correct or unset these environment variables"))
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            io_threads: IO_THREADS_DEFAULT,
            io_threads_chosen: false,
            queue_depth_parts: QUEUE_DEPTH_PARTS_DEFAULT,
            open_writers_max: OPEN_WRITERS_DEFAULT,
            writers_wait: false,
            part_bytes: PART_BYTES_DEFAULT,
            compression_threads: sync::processors().min(IO_THREADS_MAX),
            compressing: false,
            timeout: Duration::from_secs(TIMEOUT_SECS_DEFAULT),
            shutdown_timeout: Duration::from_secs(SHUTDOWN_TIMEOUT_SECS_DEFAULT),
            direct: DirectPolicy::default(),
            checksum: Some(Algorithm::Crc32c),
            http: HttpConfig::default(),
            s3: S3Config::default(),
            azure: AzureConfig::default(),
            unusable: Vec::new(),
            memory_bound_bytes: None,
        }
    }
}

/// Collects settings; [`build`](ConfigBuilder::build) reports every conflict at once.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ConfigBuilder {
    io_threads: Option<usize>,
    queue_depth_parts: Option<usize>,
    open_writers_max: Option<usize>,
    writers_wait: bool,
    part_bytes: Option<usize>,
    compression_threads: Option<usize>,
    compressing: bool,
    memory_bytes_max: Option<u64>,
    timeout: Option<Duration>,
    shutdown_timeout: Option<Duration>,
    direct: Option<DirectPolicy>,
    checksum: Option<Option<Algorithm>>,
    http: Option<HttpConfig>,
    s3: Option<S3Config>,
    azure: Option<AzureConfig>,
    environment: Option<ServerEnvironment>,
}

impl ConfigBuilder {
    /// Number of I/O threads, 1 to 1,024. Default 4 on local media, enough to keep one disk's queue filled, and
    /// 16 on servers, where each has a connection of its own ([`ObjectStore::config`](crate::ObjectStore::config)
    /// of an open store tells); fewer where a bound on memory was set that does not carry them.
    pub fn io_threads(mut self, threads: usize) -> Self {
        self.io_threads = Some(threads);
        self
    }

    /// Parts that may wait for an I/O thread. Default 4; smaller when `memory_bytes_max` asks for it.
    pub fn queue_depth_parts(mut self, parts: usize) -> Self {
        self.queue_depth_parts = Some(parts);
        self
    }

    /// Writers open at a time. Default 32; fewer when `memory_bytes_max` asks for it.
    pub fn open_writers_max(mut self, writers: usize) -> Self {
        self.open_writers_max = Some(writers);
        self
    }

    /// Whether one writer more than [`open_writers_max`](ConfigBuilder::open_writers_max) waits until another is
    /// closed, in the order in which they came, instead of failing with `LimitExceeded`. It fails with
    /// `TimedOut` when none was closed for one [`timeout`](ConfigBuilder::timeout): one thread that opens too
    /// many waits for itself. Default: no.
    pub fn writers_wait(mut self, wait: bool) -> Self {
        self.writers_wait = wait;
        self
    }

    /// Bytes of a part buffer, a multiple of 4096 from 64 KiB to 1 GiB. Default 8 MiB; smaller when
    /// `memory_bytes_max` asks for it.
    pub fn part_bytes(mut self, bytes: usize) -> Self {
        self.part_bytes = Some(bytes);
        self
    }

    /// Threads that compress and decompress, 1 to 1,024; they start with the first compressed object.
    /// Default: the processors that this process may use.
    pub fn compression_threads(mut self, threads: usize) -> Self {
        self.compression_threads = Some(threads);
        self
    }

    /// Whether [`memory_bytes_max`](ConfigBuilder::memory_bytes_max) is to carry compressed objects too. It
    /// is not asked for where no bound is set.
    pub fn compressing(mut self, compressing: bool) -> Self {
        self.compressing = compressing;
        self
    }

    /// Upper bound on the memory of all part buffers, in bytes. What was not set explicitly is
    /// lowered until the formula of [`Config::memory_bytes_max`] holds. Default: no further bound.
    pub fn memory_bytes_max(mut self, bytes: u64) -> Self {
        self.memory_bytes_max = Some(bytes);
        self
    }

    /// Time without progress after which a call fails with `TimedOut`. Default 300 s: longer than a
    /// loaded parallel filesystem's usual stalls.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Time a closing engine waits for its threads before it detaches them. Default 30 s.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = Some(timeout);
        self
    }

    /// Whether `direct://` insists on O_DIRECT. Default: prefer.
    pub fn direct(mut self, policy: DirectPolicy) -> Self {
        self.direct = Some(policy);
        self
    }

    /// The checksum writers compute; `None` for none. Default CRC32C.
    pub fn checksum(mut self, checksum: Option<Algorithm>) -> Self {
        self.checksum = Some(checksum);
        self
    }

    /// How servers are reached.
    pub fn http(mut self, http: HttpConfig) -> Self {
        self.http = Some(http);
        self
    }

    /// How `s3://` is reached.
    pub fn s3(mut self, s3: S3Config) -> Self {
        self.s3 = Some(s3);
        self
    }

    /// How `az://` is reached.
    pub fn azure(mut self, azure: AzureConfig) -> Self {
        self.azure = Some(azure);
        self
    }

    /// Checks all settings together.
    ///
    /// # Errors
    /// `InvalidInput`, naming every setting that is out of range or in conflict.
    pub fn build(mut self) -> Result<Config> {
        let d = Config::default();
        let (http, s3, azure, unusable) = self.servers();
        let mut config = Config {
            io_threads: self.io_threads.unwrap_or(d.io_threads),
            io_threads_chosen: self.io_threads.is_some(),
            queue_depth_parts: self.queue_depth_parts.unwrap_or(d.queue_depth_parts),
            open_writers_max: self.open_writers_max.unwrap_or(d.open_writers_max),
            writers_wait: self.writers_wait,
            part_bytes: self.part_bytes.unwrap_or(d.part_bytes),
            compression_threads: self.compression_threads.unwrap_or(d.compression_threads),
            compressing: self.compressing,
            timeout: self.timeout.unwrap_or(d.timeout),
            shutdown_timeout: self.shutdown_timeout.unwrap_or(d.shutdown_timeout),
            direct: self.direct.unwrap_or(d.direct),
            checksum: self.checksum.unwrap_or(d.checksum),
            http,
            s3,
            azure,
            unusable,
            memory_bound_bytes: self.memory_bytes_max,
        };
        if let Some(memory) = self.memory_bytes_max {
            self.fit(&mut config, memory);
        }
        let mut wrong = self.out_of_range(&config);
        wrong.extend(config.http.problems());
        wrong.extend(config.s3.problems());
        wrong.extend(config.azure.problems());
        wrong.extend(self.memory_bytes_max.and_then(|memory| config.exceeds(memory)));
        if wrong.is_empty() {
            return Ok(config);
        }
        let error = Error::invalid("configure", wrong.join("; "));
        // What was left open is as low as it goes, so this is the least.
        let least_bytes = config.memory_bytes_max();
        Err(match self.memory_bytes_max {
            Some(memory) if least_bytes > memory => error.with_remedy(format!(
                "allow at least {least_bytes} bytes, or lower what was set beside the bound"
            )),
            _ => error,
        })
    }

    /// The settings of servers, those of the environment where no others are, and what of it is unusable.
    fn servers(&mut self) -> (HttpConfig, S3Config, AzureConfig, Vec<(Setting, String)>) {
        let http = self.http.take().unwrap_or_default();
        let s3 = self.s3.take().unwrap_or_default();
        let azure = self.azure.take().unwrap_or_default();
        let Some(environment) = self.environment.take() else {
            return (http, s3, azure, Vec::new());
        };
        let overridden = |setting| match setting {
            Setting::Endpoint => s3.endpoint.is_some(),
            Setting::Region => s3.region.is_some(),
            Setting::AzureEndpoint => azure.endpoint.is_some(),
            Setting::AzureCredentials => azure.says_who(),
            Setting::Proxy => http.proxy.is_some(),
            Setting::Aws | Setting::Azure | Setting::Other => false,
        };
        let wrong = environment.wrong.into_iter();
        let unusable = wrong.filter(|(setting, _)| !overridden(*setting)).collect();
        let azure = azure.or(environment.azure);
        (http.or(environment.http), s3.or(environment.s3), azure, unusable)
    }

    fn out_of_range(&self, config: &Config) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut check = |name: &str, value: usize, min: usize, max: usize| {
            if !(min..=max).contains(&value) {
                wrong.push(format!("{name} {value} is not between {min} and {max}"));
            }
        };
        check("io_threads", config.io_threads, 1, IO_THREADS_MAX);
        check("queue_depth_parts", config.queue_depth_parts, 1, QUEUE_DEPTH_PARTS_MAX);
        check("compression_threads", config.compression_threads, 1, IO_THREADS_MAX);
        check("open_writers_max", config.open_writers_max, 1, OPEN_WRITERS_MAX);
        check("part_bytes", config.part_bytes, PART_BYTES_MIN, PART_BYTES_MAX);
        if !config.part_bytes.is_multiple_of(PART_BYTES_MULTIPLE) {
            let part = config.part_bytes;
            wrong.push(format!("part_bytes {part} is not a multiple of {PART_BYTES_MULTIPLE}"));
        }
        if config.timeout.is_zero() {
            wrong.push("timeout is zero".to_owned());
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_are_named_together() {
        let error = Config::builder()
            .io_threads(0)
            .part_bytes(5000)
            .memory_bytes_max(1)
            .build()
            .unwrap_err();
        let text = error.to_string();
        for needle in ["io_threads 0", "part_bytes 5000", "memory_bytes_max 1"] {
            assert!(text.contains(needle), "{needle} missing in {text}");
        }
    }

    #[test]
    fn absurd_settings_are_refused_whatever_the_bound_on_memory() {
        let absurd = Config::builder().io_threads(usize::MAX).queue_depth_parts(usize::MAX);
        let error = absurd.part_bytes(usize::MAX).memory_bytes_max(1 << 30).build().unwrap_err();
        assert!(error.to_string().contains("is not between"), "{error}");
    }
}
