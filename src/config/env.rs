//! The only reader of the environment. What it finds becomes plain values of the configuration.

use crate::config::{ConfigBuilder, parse_bytes};
use crate::error::{Error, Result};

impl ConfigBuilder {
    /// Takes what the environment sets and this builder does not have yet.
    ///
    /// # Errors
    /// `InvalidInput` naming the variable whose value is not usable.
    pub fn env(mut self) -> Result<Self> {
        let threads = read_env("SYNCLINE_IO_THREADS", |text| text.parse().ok())?;
        let part = read_env("SYNCLINE_PART_SIZE", |text| {
            parse_bytes(text).ok().and_then(|bytes| usize::try_from(bytes).ok())
        })?;
        let memory = read_env("SYNCLINE_MEMORY", |text| parse_bytes(text).ok())?;
        self.io_threads = self.io_threads.or(threads);
        self.part_bytes = self.part_bytes.or(part);
        self.memory_bytes_max = self.memory_bytes_max.or(memory);
        Ok(self)
    }
}

fn read_env<T>(name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
    let Some(value) = std::env::var_os(name) else { return Ok(None) };
    match value.to_str().and_then(parse) {
        Some(value) => Ok(Some(value)),
        None => Err(Error::invalid("configure", format!("{name}={value:?} is not usable"))),
    }
}
